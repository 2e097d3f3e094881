import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './fleet.mjs';
import { Hub, shot } from './hub.mjs';
import { startModel } from './model.mjs';
import { ask, connected, eventually, go, loaded, messageBox, settled } from './steps.mjs';

const withKey = (hub, key, where) => fetch(hub.url + where, { headers: { Authorization: 'Bearer ' + key } });

// What people manage: keys, values, logins, agents, settings.
const tests = {
  async 'home: opens first, and leads everywhere by the keyboard alone'({ open }) {
    const page = await open({ where: '/' });
    await page.getByRole('heading', { name: 'Home' }).waitFor();
    await loaded(page);
    await page.keyboard.press('Tab');
    await eventually(async () => assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content'));
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.activeElement.matches('h1'));
    // The second key counts for a second and a half after the first.
    await eventually(async () => {
      await page.keyboard.press('g');
      await page.keyboard.press('m');
      await page.locator('.top h1', { hasText: 'Machines' }).waitFor({ timeout: 3000 });
    });
    await page.getByRole('heading', { name: 'No machines yet' }).waitFor();
    assert.ok(await page.evaluate(() => document.activeElement.matches('h1')), 'the focus is lost after a change of page');
    for (let i = 0; i < 40 && !(await page.evaluate(() => document.activeElement.matches('.nav a[href="#/keys"]'))); i += 1) await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'No keys yet' }).waitFor();
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keyboard shortcuts' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.keyboard.press('n');
    await messageBox(page).waitFor();
    await page.keyboard.type('g m');
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), 'g m', 'shortcuts act while somebody types'));
  },

  async 'the first steps stay on Home until they are done or hidden'({ hub, open }) {
    const page = await open({ where: '/#/home' });
    const steps = page.locator('section', { has: page.getByRole('heading', { name: 'First steps' }) });
    await steps.getByRole('link', { name: 'Limit what may be spent' }).waitFor();
    await hub.send('PATCH', '/api/v1/costs/limits', { daily_limit_hard: 5 });
    await page.reload();
    await steps.locator('s', { hasText: 'Limit what may be spent' }).waitFor();
    await hub.send('PATCH', '/api/v1/costs/limits', { daily_limit_hard: null });
    await steps.getByRole('button', { name: 'Hide this' }).click();
    await steps.waitFor({ state: 'detached' });
    await page.reload();
    await page.getByRole('heading', { name: 'Next up' }).waitFor();
    assert.equal(await steps.count(), 0);
  },

  async 'keys: created with the keyboard, shown once, rotated, revoked'({ hub, open }) {
    const page = await open({ where: '/#/keys' });
    await page.getByRole('button', { name: 'Create a key' }).first().press('Enter');
    await page.waitForFunction(() => document.activeElement.matches('dialog input'));
    await page.keyboard.press('Enter');
    await page.getByText('Please fill this in.').waitFor();
    await page.keyboard.type('backup-script');
    await page.getByRole('button', { name: 'Everything', exact: true }).press('Enter');
    await page.getByText('owns this Holt', { exact: false }).waitFor();
    await page.getByRole('button', { name: 'Read only' }).press('Enter');
    await page.getByText('owns this Holt', { exact: false }).waitFor({ state: 'detached' });
    await page.getByLabel('kv:write Change stored values').press('Space');
    await page.getByRole('button', { name: 'Create', exact: true }).press('Enter');
    const box = page.locator('.copy-box code').first();
    const key = await box.textContent();
    assert.match(key, /^dk_/);
    await eventually(async () => assert.equal(await page.locator('.copy-box code').last().textContent(), `curl -H "Authorization: Bearer ${key}" ${hub.url}/api/v1/sessions`));
    await shot(page, 'key');
    assert.equal((await withKey(hub, key, '/api/v1/sessions')).status, 200);
    assert.equal((await withKey(hub, key, '/api/v1/keys')).status, 403);
    await page.getByRole('button', { name: 'I have it' }).press('Enter');
    await page.getByRole('cell', { name: 'backup-script', exact: true }).waitFor();
    await page.locator('dialog').waitFor({ state: 'detached' });
    assert.ok(!(await page.content()).includes(key), 'the key stays on the page');
    await page.getByRole('button', { name: 'Rotate backup-script' }).click();
    await page.getByRole('button', { name: 'Rotate', exact: true }).click();
    await page.waitForFunction((old) => { const text = document.querySelector('.copy-box code')?.textContent; return text && text !== old; }, key);
    const second = await box.textContent();
    assert.equal((await withKey(hub, key, '/api/v1/sessions')).status, 401);
    await page.getByRole('button', { name: 'I have it' }).click();
    await page.getByRole('button', { name: 'Revoke backup-script' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('heading', { name: 'No keys yet' }).waitFor();
    assert.equal((await withKey(hub, second, '/api/v1/sessions')).status, 401);
  },

  async 'key-value: added, changed, deleted, and brought back'({ hub, open }) {
    const page = await open({ where: '/#/kv' });
    await page.getByRole('button', { name: 'Add a value' }).last().click();
    await page.getByLabel('Key', { exact: true }).fill('house/plants');
    await page.getByRole('textbox', { name: 'Value' }).fill('{"water":"monday"}');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('button', { name: 'house/plants', exact: true }).click();
    await eventually(async () => assert.match(await page.getByRole('textbox', { name: 'Value' }).inputValue(), /"water": "monday"/));
    await page.getByRole('textbox', { name: 'Value' }).fill('tuesday');
    await page.getByLabel('Expires after').fill('never');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.locator('.problem', { hasText: 'ttl must be' }).waitFor();
    await page.getByLabel('Expires after').fill('2h');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('cell', { name: 'tuesday' }).waitFor();
    await page.getByRole('button', { name: 'Delete house/plants' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('heading', { name: 'Nothing is stored' }).waitFor();
    await page.getByRole('button', { name: 'Undo' }).click();
    await page.getByRole('cell', { name: 'tuesday' }).waitFor();
    assert.equal((await hub.get('/api/v1/kv/default/house/plants')).value, 'tuesday');
  },

  async 'approvals: a second device decides on its page, with the exact arguments'({ hub, open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'call kv_set {"key":"asked","value":"<b>hello</b>"}');
    await page.locator('.ask').waitFor();
    const phone = await open({ where: '/#/approvals', viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true });
    await phone.locator('.tabs .count:not([hidden])').waitFor();
    await eventually(async () => assert.deepEqual(JSON.parse(await phone.locator('.args').textContent()), { key: 'asked', value: '<b>hello</b>' }));
    await shot(phone, 'approvals-phone');
    await phone.getByRole('button', { name: 'Allow once' }).tap();
    await phone.getByRole('heading', { name: 'Nothing waits for you' }).waitFor();
    await settled(page);
    assert.equal((await hub.get('/api/v1/kv/default/asked')).value, '<b>hello</b>');
    await phone.getByRole('button', { name: 'Approved' }).tap();
    await phone.getByText('approved', { exact: true }).first().waitFor();
  },

  async 'approvals: a rule is added and removed'({ hub, open }) {
    const page = await open({ where: '/#/approvals' });
    await page.getByRole('button', { name: 'Add a rule' }).click();
    await page.getByRole('textbox', { name: 'Tool' }).fill('kv_delete');
    await page.getByRole('button', { name: 'Allow it' }).click();
    await page.getByRole('cell', { name: 'kv_delete' }).waitFor();
    await page.getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('cell', { name: 'kv_delete' }).waitFor({ state: 'detached' });
    assert.equal(await hub.get('/api/v1/auto-approve'), null);
  },

  async 'settings: a provider is tested, the defaults are changed, a wrong address is refused at its field'({ hub, model, open }) {
    const page = await open({ where: '/#/settings' });
    await page.getByRole('button', { name: 'Test openai' }).click();
    await page.getByText(/openai answered in \d+ ms/).waitFor();
    await page.getByRole('button', { name: 'Change openai' }).click();
    await page.getByRole('dialog').getByRole('textbox', { name: 'Address' }).fill('nonsense');
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('dialog').getByText('Please begin with http:// or https://', { exact: false }).waitFor();
    await page.getByRole('dialog').getByRole('textbox', { name: 'Address' }).fill(model.baseUrl);
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.getByLabel('Time zone').fill('Europe/Nowhere');
    await page.getByRole('button', { name: 'Save' }).last().click();
    await page.locator('.outlet').getByText('Must be a valid IANA timezone', { exact: false }).waitFor();
    await page.getByLabel('Time zone').fill('Europe/Berlin');
    await page.getByRole('button', { name: 'Save' }).last().click();
    await page.waitForFunction(async () => (await (await fetch('/api/v1/server/config')).json()).timezone === 'Europe/Berlin');
  },

  async 'the first steps: a provider is set up and tested before it goes on'({ model, open }) {
    const page = await open({ where: '/#/welcome' });
    await page.getByText('Use a model').click();
    await page.getByLabel('Provider').selectOption('openai');
    await page.getByLabel('API key').fill('another');
    await page.getByLabel('Address').fill(model.baseUrl);
    await page.getByRole('button', { name: 'Save and test' }).click();
    await page.getByText('Please choose one, such as scripted.').waitFor();
    await page.getByLabel('Address').fill('http://127.0.0.1:9/v1');
    await page.getByRole('combobox', { name: 'Model' }).fill('scripted');
    await page.getByRole('button', { name: 'Save and test' }).click();
    await page.locator('.form > .problem', { hasText: 'openai says' }).waitFor();
    await page.getByLabel('Address').fill(model.baseUrl);
    await page.getByRole('button', { name: 'Save and test' }).click();
    await page.getByText('Step 2 of 3').waitFor();
    await page.getByText('Nobody is told yet.', { exact: false }).waitFor();
    await page.getByRole('button', { name: 'Back' }).click();
    await eventually(async () => assert.equal(await page.getByLabel('Address').inputValue(), model.baseUrl, 'a step is built again'));
    await page.getByRole('button', { name: 'Next' }).click();
    await page.getByText('Step 2 of 3').waitFor();
  },

  async 'notifications: a channel is added and tried out, changed, removed'({ hub, open }) {
    const asked = [];
    let answer = 403;
    const server = http.createServer((request, response) => {
      let body = '';
      request.on('data', (part) => { body += part; });
      request.on('end', () => { asked.push({ auth: request.headers.authorization, body }); response.writeHead(answer).end('{}'); });
    });
    await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
    try {
      const page = await open({ where: '/#/settings' });
      await page.getByRole('button', { name: 'Add a channel' }).click();
      const dialog = page.getByRole('dialog');
      await dialog.getByLabel('How do you want to be told?').selectOption('email');
      await dialog.getByLabel('Mail server').waitFor();
      await dialog.getByLabel('How do you want to be told?').selectOption('ntfy');
      await dialog.getByLabel('Name').fill('phone');
      await dialog.getByLabel('Topic').fill('not a topic');
      await dialog.getByLabel('Server').fill(`http://127.0.0.1:${server.address().port}`);
      await dialog.getByLabel('Token').fill('tk_hunter2');
      await dialog.getByRole('button', { name: 'Save and test' }).click();
      await dialog.getByText('Must be 1 to 64 of', { exact: false }).waitFor();
      await dialog.getByLabel('Topic').fill('home');
      await dialog.getByRole('button', { name: 'Save and test' }).click();
      await dialog.getByText('It is saved, but the test failed.', { exact: false }).waitFor();
      await dialog.getByLabel('How do you want to be told?').waitFor({ state: 'hidden' }); // a saved channel stays of its kind
      await shot(page, 'channel');
      answer = 200;
      await dialog.getByRole('button', { name: 'Save and test' }).click();
      await page.getByText('phone took the test message.').waitFor();
      await page.getByRole('cell', { name: 'last sent now' }).waitFor({ timeout: 10000 });
      await page.getByRole('button', { name: 'Change phone' }).click();
      await dialog.getByLabel('Token').waitFor();
      assert.equal(await dialog.getByLabel('Token').inputValue(), '');
      await dialog.getByLabel('Tell of').selectOption('Critical');
      await dialog.getByLabel('Topic').fill('house');
      await dialog.getByRole('button', { name: 'Save and test' }).click();
      await dialog.waitFor({ state: 'detached' });
      await page.getByRole('cell', { name: 'Critical' }).waitFor();
      assert.deepEqual(asked.map((each) => [each.auth, JSON.parse(each.body).topic]), [['Bearer tk_hunter2', 'home'], ['Bearer tk_hunter2', 'home'], ['Bearer tk_hunter2', 'house']]);
      await shot(page, 'channels');
      await page.getByRole('button', { name: 'Change phone' }).click();
      await dialog.getByLabel('Switched on').uncheck();
      await dialog.getByRole('button', { name: 'Save and test' }).click();
      await page.getByRole('cell', { name: 'switched off' }).waitFor();
      assert.ok(!(await page.content()).includes('hunter2') && asked.length === 3);
      await page.getByRole('button', { name: 'Remove phone' }).click();
      await dialog.getByRole('button', { name: 'Remove' }).click();
      await page.getByText('Nobody is told yet.', { exact: false }).waitFor();
      assert.deepEqual((await hub.get('/api/v1/notifications')).channels, []);
    } finally { server.close(); server.closeAllConnections(); }
  },

  async 'costs: limits are set in plain words, a price is given, and both count'({ hub, open }) {
    const page = await open({ where: '/#/costs' });
    await page.getByRole('button', { name: 'Set a limit' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Stop at $ a day').fill('lots');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await dialog.getByText('Please enter an amount', { exact: false }).waitFor();
    await dialog.getByLabel('Stop at $ a day').fill('2.50');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await dialog.waitFor({ state: 'detached' });
    assert.deepEqual((await hub.get('/api/v1/costs')).limits.map((each) => [each.scope, each.period, each.hard]), [['all', 'daily', 2.5]]);
    await page.getByRole('button', { name: 'Set a limit' }).click();
    await eventually(async () => assert.equal(await dialog.getByLabel('Stop at $ a day').inputValue(), '2.5'));
    await dialog.getByLabel('For').selectOption('Every single chat');
    await dialog.getByLabel('Stop at $').fill('12.5');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await until(hub, '/api/v1/llm/providers', (llm) => llm.cost_limit_hard === 12.5);
    await page.goto(hub.url + '/#/chat');
    await ask(page, 'words:5');
    await settled(page);
    await page.goto(hub.url + '/#/costs');
    await page.getByText('$0 of $2.50 today').waitFor();
    await page.getByText('A chat stops at $12.50.', { exact: false }).waitFor();
    await shot(page, 'costs');
    await page.getByRole('button', { name: 'Set a limit' }).click();
    await dialog.getByLabel('Stop at $ a day').fill('');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Nothing stops spending', { exact: false }).waitFor();
    // A model of this machine costs nothing, and has no price to set.
    assert.equal(await page.getByRole('button', { name: /^Price of/ }).count(), 0);
    await page.route('**/api/v1/costs?*', async (route) => {
      try {
        const response = await route.fetch();
        await route.fulfill({ response, body: (await response.text()).replaceAll('"free":', '"registry":') });
      } catch { /* The page has gone on meanwhile. */ }
    });
    await page.reload();
    const price = page.getByRole('button', { name: 'Price of scripted' });
    const amount = (name) => dialog.getByLabel('$ for a million ' + name);
    await price.click();
    await amount('tokens in').fill('2');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await dialog.getByText('Please fill this in.').waitFor();
    await eventually(async () => assert.equal(await amount('tokens out').getAttribute('aria-invalid'), 'true'));
    await amount('tokens out').fill('0');
    await dialog.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Saved. It counts', { exact: false }).waitFor();
    await until(hub, '/api/v1/costs', (costs) => costs.prices.scripted?.input === 2);
    await page.reload();
    await price.click();
    await eventually(async () => assert.deepEqual([await amount('tokens in').inputValue(), await amount('tokens out').inputValue(), await amount('from the cache').inputValue()], ['2', '0', '']));
    await shot(page, 'price');
    await dialog.getByRole('button', { name: 'Remove this price' }).click();
    await page.getByText('Removed.', { exact: false }).waitFor();
    assert.deepEqual((await hub.get('/api/v1/costs')).prices, {});
  },

  async 'agents: made, changed, and deleted'({ hub, open }) {
    const page = await open({ where: '/#/agents' });
    await page.getByRole('button', { name: 'Add an agent' }).click();
    await page.getByRole('textbox', { name: 'Name' }).fill('Not A Name');
    await page.getByRole('dialog').getByRole('button', { name: 'Add' }).click();
    await page.locator('.problem', { hasText: 'Invalid agent name' }).waitFor();
    await page.getByRole('textbox', { name: 'Name' }).fill('gardener');
    await page.getByRole('dialog').getByRole('button', { name: 'Add' }).click();
    await page.getByRole('link', { name: /gardener/ }).click();
    await page.getByRole('button', { name: 'Change' }).click();
    await page.getByLabel('What it is for').fill('Waters the plants');
    await page.getByLabel('Rights').selectOption('restricted');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Waters the plants').waitFor();
    assert.equal((await hub.get('/api/v1/agents/gardener')).permission_tier, 'restricted');
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('heading', { name: 'Agents' }).waitFor();
    assert.ok(!(await hub.get('/api/v1/agents')).some((agent) => agent.name === 'gardener'));
  },

  async 'tools: one is added, shows what it offers, is switched off and on, changed, removed'({ hub, open }) {
    const page = await open({ where: '/#/home' });
    const refused = [];
    page.on('response', (response) => { if (response.status() >= 400) refused.push(response.url()); });
    await go(page, 'Tools');
    await page.getByRole('heading', { name: 'No tool servers' }).waitFor();
    await loaded(page);
    assert.deepEqual(refused, [], 'asked for what is not there');
    await page.getByRole('button', { name: 'Add a tool' }).last().click();
    await page.getByRole('textbox', { name: 'Name' }).fill('echo');
    await page.getByRole('textbox', { name: 'Program' }).fill('/no/such/program');
    await page.getByRole('dialog').getByRole('button', { name: 'Add', exact: true }).click();
    await page.locator('.dialog .problem', { hasText: /./ }).first().waitFor();
    await page.getByRole('textbox', { name: 'Program' }).fill(process.execPath);
    await page.getByRole('textbox', { name: 'Arguments' }).fill(fileURLToPath(new URL('mcp.mjs', import.meta.url)));
    await page.getByRole('dialog').getByRole('button', { name: 'Add', exact: true }).click();
    await page.getByRole('link', { name: /echo works/ }).click();
    await page.getByText('Says it: shout').waitFor();
    await page.getByText('1 parameter').first().click();
    await page.getByText('What to say').first().waitFor();
    await page.getByRole('button', { name: 'Do not offer it' }).last().click();
    await page.getByRole('button', { name: 'Offer it to agents' }).waitFor();
    assert.deepEqual((await hub.get('/api/v1/tools/echo')).disabled_tools, ['shout']);
    await page.getByRole('button', { name: 'Switch off' }).click();
    await page.locator('.state[data-state=disabled]').waitFor();
    await page.getByRole('button', { name: 'Switch on' }).click();
    await page.locator('.state[data-state=connected]').waitFor();
    await page.getByRole('button', { name: 'Change' }).click();
    await page.getByRole('textbox', { name: 'Environment' }).fill('NAME=value');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    assert.deepEqual((await hub.get('/api/v1/tools/echo')).env, { NAME: 'value' });
    await page.getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('heading', { name: 'No tool servers' }).waitFor();
  },

  async 'tools: what a program writes on standard error is shown, as text and without secrets'({ hub, open }) {
    if (hub.external) return 'skipped';
    const script = fileURLToPath(new URL('mcp.mjs', import.meta.url));
    await hub.send('POST', '/api/v1/tools', { name: 'talker', command: process.execPath, args: [script], env: { TOKEN: 'hunter2-secret' } });
    const page = await open({ where: '/#/tools/talker' });
    await page.getByText('It has written nothing.', { exact: false }).waitFor();
    const rule = await hub.send('POST', '/api/v1/auto-approve', { agent: 'default', tool: 'echo' });
    await hub.send('POST', '/api/v1/chat', { message: 'call echo {"text":"<b>otter</b> hunter2-secret"}' });
    const log = page.getByLabel('Log', { exact: true });
    await log.getByText('asked to say <b>otter</b> ***').waitFor();
    assert.ok(!(await page.content()).includes('hunter2'), 'a secret is on the page');
    await shot(page, 'tool-log');
    await page.getByRole('button', { name: 'Restart' }).click();
    await page.getByText('Restarted.').waitFor();
    await eventually(async () => assert.match(await log.textContent(), /otter/, 'a restart forgets the log'));
    await hub.send('DELETE', `/api/v1/auto-approve/${rule.id}`);
    await hub.send('DELETE', '/api/v1/tools/talker');
  },

  async 'settings: a backup is downloaded, and restores'({ hub, open }) {
    if (hub.external) return 'skipped';
    const page = await open({ where: '/#/settings' });
    const coming = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download a backup' }).click();
    const file = await coming;
    assert.match(file.suggestedFilename(), /^holt-backup-.*\.tar\.gz$/);
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holt-restored-'));
    try {
      execFileSync(process.env.HOLT_BIN, ['restore', await file.path(), '--data-dir', path.join(dir, 'data')], { stdio: 'pipe' });
      assert.ok(fs.existsSync(path.join(dir, 'data', 'holt.db')));
    } finally { fs.rmSync(dir, { recursive: true, force: true }); }
    await page.route('**/api/v1/backup', (route) => route.fulfill({ status: 409, contentType: 'application/json', body: '{"error":"a backup is being made already; try again later","code":"backup_running"}' }));
    await page.getByRole('button', { name: 'Download a backup' }).click();
    await page.getByText('a backup is being made already').waitFor();
  },

  async 'settings: the doctor says what is wrong and how to put it right, and sees when it is'({ hub, open }) {
    if (hub.external) return 'skipped';
    const page = await open({ where: '/#/settings' });
    const care = page.locator('section', { has: page.getByRole('heading', { name: 'Care' }) });
    const found = care.locator('.panel', { hasText: 'holt.toml' });
    const config = path.join(hub.dir, 'holt.toml');
    fs.chmodSync(config, 0o666);
    await care.getByRole('button', { name: 'Look again' }).click();
    await found.getByText('chmod', { exact: false }).waitFor();
    await shot(page, 'doctor');
    fs.chmodSync(config, 0o600);
    await care.getByRole('button', { name: 'Look again' }).click();
    await found.waitFor({ state: 'detached' });
  },

  async 'the emergency stop stops, is told on Home, and is lifted'({ hub, open }) {
    const page = await open({ where: '/#/settings' });
    await page.locator('section', { has: page.getByRole('heading', { name: 'Emergency stop' }) }).getByRole('button', { name: 'Stop everything' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Stop everything' }).click();
    await page.getByText('Everything is stopped since').waitFor();
    await go(page, 'Home');
    await page.locator('.stopped').getByRole('button', { name: 'Resume' }).click();
    await page.locator('.stopped').waitFor({ state: 'hidden' });
    assert.equal((await hub.get('/api/v1/panic')).panicked, false);
    await go(page, 'Audit');
    await page.getByRole('cell', { name: 'Everything stopped' }).waitFor();
    await page.getByRole('cell', { name: 'Everything resumed' }).waitFor();
  },

  async 'a page that cannot load says so, and loads when asked again'({ hub, open }) {
    await hub.send('POST', '/api/v1/keys', { name: 'noted', scopes: ['chat'] });
    const page = await open({ where: '/#/chat' });
    let broken = true;
    await page.route('**/api/v1/audit*', (route) => (broken ? route.fulfill({ status: 500, contentType: 'application/json', body: '{"error":"internal server error","code":"internal","id":"0badf00d"}' }) : route.continue()));
    await go(page, 'Audit');
    await page.getByText('under the id 0badf00d').waitFor();
    broken = false;
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByRole('table').waitFor();
    await page.getByRole('cell', { name: 'Key made' }).first().waitFor();
  },

  async 'away from the hub a page keeps what it shows, and goes on by itself'({ hub, open }) {
    if (hub.external) return 'skipped';
    await hub.send('PUT', '/api/v1/kv/default/house/plants', { value: 'tuesday' });
    const page = await open({ where: '/#/kv' });
    await page.getByRole('cell', { name: 'tuesday' }).waitFor();
    await hub.kill();
    await page.locator('.line[data-state=offline]').waitFor();
    await eventually(async () => assert.match(await page.locator('.line').textContent(), /Offline, last seen/));
    assert.ok(await page.getByRole('cell', { name: 'tuesday' }).isVisible());
    await page.getByRole('button', { name: 'Delete house/plants' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByText('Nothing was changed').waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await hub.revive();
    await page.locator('.line[data-state=open]').waitFor({ timeout: 60000 });
    await page.getByRole('cell', { name: 'tuesday' }).waitFor();
  },
};

export default {
  name: 'admin',
  tests,
  async before() {
    const model = await startModel();
    const hub = await Hub.start(`[llm]\ndefault_provider = "openai"\ndefault_model = "scripted"\n[llm.openai]\napi_key = "k"\nbase_url = "${model.baseUrl}"\n`);
    return { hub, model };
  },
  async after({ hub, model }) { await hub.close(); model.close(); },
};
