import assert from 'node:assert/strict';
import { Hub, shot } from './hub.mjs';
import { startService } from './service.mjs';
import { connected, eventually, loaded, noSideways } from './steps.mjs';

const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

// Tools at an address that want a login; tools that do not start.
const tests = {
  async 'tools: an account is connected by a login at its service, refused, and disconnected'({ hub, service, open }) {
    const page = await open({ where: '/#/tools', ...PHONE });
    await connected(page);
    await page.getByRole('button', { name: 'Add a tool' }).last().tap();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('button', { name: 'An address' }).tap();
    await dialog.getByRole('textbox', { name: 'Name' }).fill('mail');
    await dialog.getByRole('textbox', { name: 'Address' }).fill(service.url);
    await dialog.getByLabel('Login').selectOption('oauth');
    await dialog.getByLabel('It runs on this very machine').check();
    await dialog.getByRole('button', { name: 'Add', exact: true }).tap();
    await page.locator('h1', { hasText: 'mail' }).waitFor();
    await page.getByText('needs a login', { exact: true }).waitFor();
    await loaded(page);
    await noSideways(page, 'a tool without a login');
    await shot(page, 'tool-login');

    const logIn = async () => {
      await page.getByRole('button', { name: /^Connect/ }).tap();
      const [service_page] = await Promise.all([page.context().waitForEvent('page'), dialog.getByRole('link', { name: 'Open the login' }).tap()]);
      await service_page.getByRole('link', { name: 'Yes' }).click();
      return service_page;
    };
    service.mood = 'no';
    const refused = await logIn();
    await refused.getByText('Authorization failed', { exact: false }).waitFor();
    await refused.close();
    await shot(page, 'tool-login-refused');
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).tap();
    await eventually(async () => assert.equal((await hub.get('/api/v1/tools/mail')).status, 'pending_auth'));

    service.mood = 'yes';
    const done = await logIn();
    await done.close();
    await page.getByText('works', { exact: true }).waitFor();
    await page.getByText('mail_list').waitFor();
    await page.getByText('Connected.', { exact: true }).first().waitFor();
    await shot(page, 'tool-connected');
    await page.getByRole('button', { name: 'Disconnect' }).tap();
    await dialog.getByRole('button', { name: 'Disconnect' }).tap();
    await page.getByText('needs a login', { exact: true }).waitFor();
  },

  async 'tools: one that does not start says why, and how to go on'({ open }) {
    const page = await open({ where: '/#/tools', ...PHONE });
    await page.getByRole('button', { name: 'Add a tool' }).first().tap();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('textbox', { name: 'Name' }).fill('absent');
    await dialog.getByRole('textbox', { name: 'Program' }).fill('/usr/bin/no-such-program');
    await dialog.getByRole('button', { name: 'Add', exact: true }).tap();
    await dialog.locator('.problem', { hasText: /no-such-program|no such file|not found/i }).waitFor();
    await noSideways(page, 'a refusal');
    await shot(page, 'tool-refused');
    await dialog.getByRole('textbox', { name: 'Program' }).fill('/usr/bin/false');
    await dialog.getByRole('button', { name: 'Add', exact: true }).tap();
    await dialog.locator('.problem', { hasText: 'closed the connection' }).waitFor();
  },
};

export default {
  name: 'tools',
  tests,
  async before() {
    const service = await startService();
    return { service, hub: await Hub.start() };
  },
  async after({ hub, service }) { await hub.close(); service.close(); },
};
