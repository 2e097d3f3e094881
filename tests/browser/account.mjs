import assert from 'node:assert/strict';
import { Hub, PASSWORD, shot } from './hub.mjs';
import { eventually, messageBox } from './steps.mjs';

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
};

export default {
  name: 'account',
  before: async () => ({ hub: await Hub.start() }),
  after: ({ hub }) => hub.close(),
  tests,
};
