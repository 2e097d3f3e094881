import assert from 'node:assert/strict';
import { Hub, PASSWORD, shot } from './hub.mjs';
import { eventually, go, messageBox, noSideways } from './steps.mjs';

// The account that the second test has made, unless this hub is a new one.
async function owned(hub) {
  if (hub.external) return;
  const { setup_required } = await (await fetch(hub.url + '/api/v1/setup')).json();
  if (setup_required) await hub.post('/api/v1/setup/account', { pin: await hub.setupPin(), password: PASSWORD });
}

// In order: the first two are about a hub without an account.
const tests = {
  async 'first run: a wrong PIN is refused in words'({ hub, open }) {
    if (hub.external) return 'skipped';
    const page = await open({ login: false });
    await page.getByRole('heading', { name: 'Welcome to Holt' }).waitFor();
    await shot(page, 'setup-light');
    const wrong = (await hub.setupPin()) === '000000' ? '111111' : '000000';
    await page.getByLabel('Setup PIN').fill(wrong);
    await page.getByLabel('New password').fill(PASSWORD);
    await page.getByLabel('The same again').fill(PASSWORD + '!');
    await page.getByRole('button', { name: 'Create my account' }).click();
    await page.getByText('The two passwords differ.').waitFor();
    await page.getByLabel('The same again').fill(PASSWORD);
    await page.getByRole('button', { name: 'Create my account' }).click();
    await page.getByText('That PIN is not right.').waitFor();
  },

  async 'first run: the PIN of a link is taken, and the steps lead to the chat'({ hub, open }) {
    if (hub.external) return 'skipped';
    const pin = await hub.setupPin();
    const page = await open({ login: false, where: `/#pin=${pin}` });
    await page.getByLabel('Setup PIN').waitFor();
    await eventually(async () => assert.equal(await page.getByLabel('Setup PIN').inputValue(), pin));
    await eventually(() => assert.ok(!page.url().includes(pin), 'the PIN stays in the address'));
    await page.getByLabel('New password').fill('short');
    await page.getByRole('button', { name: 'Create my account' }).click();
    await page.getByText('at least 8 characters.', { exact: false }).last().waitFor();
    await page.getByLabel('New password').fill(PASSWORD);
    await page.getByLabel('The same again').fill(PASSWORD);
    await page.getByLabel('The same again').press('Enter');
    await page.getByRole('heading', { name: 'Welcome' }).waitFor();
    await shot(page, 'welcome');
    await page.getByText('Who answers').waitFor();
    await page.getByRole('button', { name: 'Next' }).click();
    await page.getByText('How you are told').waitFor();
    await page.getByRole('button', { name: 'Next' }).click();
    await page.getByRole('button', { name: 'Add a machine' }).waitFor();
    await page.getByRole('button', { name: 'To the chat' }).click();
    await messageBox(page).waitFor();
  },

  async 'wrong password, login, reload, logout'({ hub, open }) {
    await owned(hub);
    const page = await open({ login: false });
    await page.getByLabel('Password', { exact: true }).fill('not the one');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByText('That password is not right.').waitFor();
    await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await page.getByRole('button', { name: 'Log in' }).click();
    await messageBox(page).waitFor();
    await page.reload();
    await messageBox(page).waitFor();
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByText('You are logged out.').waitFor();
    await page.reload();
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    await shot(page, 'login');
  },

  async 'a bad API key is refused'({ hub, open }) {
    await owned(hub);
    const page = await open({ login: false });
    await page.getByRole('button', { name: 'Use an API key' }).click();
    await page.getByLabel('API key', { exact: true }).fill('dk_wrong');
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByText('does not accept this key').waitFor();
  },

  async 'a hub that is down is not a logout'({ hub, open }) {
    if (hub.external) return 'skipped';
    await owned(hub);
    const page = await open({ login: false });
    await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await page.getByRole('button', { name: 'Log in' }).click();
    await messageBox(page).waitFor();
    await hub.kill();
    await page.locator('.line[data-state=offline]').waitFor();
    await shot(page, 'offline');
    assert.ok(await messageBox(page).isVisible());
    await hub.revive();
    await page.locator('.line[data-state=open]').waitFor({ timeout: 60000 });
  },

  async 'the password is changed: this login stays, others end, and only the new one opens the door'({ hub, open }) {
    if (hub.external) return 'skipped';
    await owned(hub);
    const NEW = PASSWORD + ' again';
    const enter = async (page, password) => { await page.getByLabel('Password', { exact: true }).fill(password); await page.getByRole('button', { name: 'Log in' }).click(); };
    const page = await open({ login: false, viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await enter(page, PASSWORD);
    await messageBox(page).waitFor();
    const other = await open({ login: false });
    await enter(other, PASSWORD);
    await messageBox(other).waitFor();
    await go(page, 'Settings');
    await page.getByRole('link', { name: 'Password and logins' }).tap();
    await page.getByRole('button', { name: 'Change the password' }).tap();
    const dialog = page.getByRole('dialog');
    const fill = async (now, fresh, again) => {
      await dialog.getByLabel('Current password').fill(now);
      await dialog.getByLabel('New password').fill(fresh);
      await dialog.getByLabel('The new one again').fill(again);
      await dialog.getByRole('button', { name: 'Change it' }).tap();
    };
    await fill(PASSWORD, 'short', 'short');
    await dialog.getByText('The password needs at least 8 characters.').waitFor();
    await fill(PASSWORD, NEW, NEW + '!');
    await dialog.getByText('The two passwords differ.').waitFor();
    await fill('not the one', NEW, NEW);
    await dialog.getByText('That is not the password.').waitFor();
    await eventually(async () => assert.ok(await dialog.getByLabel('Current password').evaluate((el) => el === document.activeElement), 'the field with the fault has no focus'));
    await shot(page, 'password');
    await noSideways(page, 'the change of the password');
    await fill(PASSWORD, NEW, NEW);
    await page.getByText('The password is changed.').waitFor();
    await dialog.waitFor({ state: 'detached' });
    await shot(page, 'password-changed');
    await other.getByText('Your login has ended.', { exact: false }).waitFor();
    await eventually(async () => assert.equal(await page.locator('.cardlike tbody tr').count(), 1, 'other logins are still listed'));
    await enter(other, PASSWORD);
    await other.getByText('That password is not right.').waitFor();
    await enter(other, NEW);
    await messageBox(other).waitFor();
  },
};

export default {
  name: 'account',
  // More tries than people need.
  before: async () => ({ hub: await Hub.start('[api]\nlogin_rate_limit = 50\n') }),
  after: ({ hub }) => hub.close(),
  tests,
};
