import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Hub, shot } from './hub.mjs';
import { until } from './fleet.mjs';
import { PAGES } from '../../src/web/assets/pages.js';
import { connected, eventually, loaded, messageBox, noSideways, visit } from './steps.mjs';

const AXE = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TOOL = fileURLToPath(new URL('mcp.mjs', import.meta.url));
const names = PAGES.filter((about) => about.group >= 0).map((about) => about.name);
// Pages of one thing: there is one of each in the hub that is filled.
const details = ['schedules/weekly check', 'tools/echo', 'agents/default', 'agents/default/persona', 'agents/default/skills', 'settings/providers'];
const DESTROYS = /^(Delete|Remove|Revoke|Rotate|Forget|Disconnect|Log (it|them) out|End|Clear|Switch all|Stop everything|Restore|Restart Holt)/;

const asked = (url) => url.pathname.startsWith('/api/v1/') && !url.pathname.endsWith('/ws');

const go = (page, name) => visit(page, name.split('/').map(encodeURIComponent).join('/'));

async function faults(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.filter((each) => ['serious', 'critical'].includes(each.impact))
    .map((each) => `${each.id}: ${each.nodes.slice(0, 3).map((node) => `${node.target.join(' ')} ${node.any[0]?.message || ''}`).join(' | ')}`);
}

// Shown, not hidden, with a sentence or something to press.
const helps = (page) => page.evaluate(() => {
  const shown = [...document.querySelectorAll('.outlet .blank, .outlet .page p, .outlet .page :is(input, select, textarea, button, a, table), .outlet .hero')].filter((el) => el.getClientRects().length);
  return shown.some((el) => el.matches('input, select, textarea, button, a, table') || el.textContent.trim().length > 20);
});

const tests = {
  async 'every page of an empty hub says what to do, by day and by night, on a small phone'({ open }) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await open({ where: '/#/home', colorScheme, viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true });
      await connected(page);
      const wrong = [];
      for (const name of names) {
        await go(page, name);
        await loaded(page);
        if (!await helps(page)) wrong.push(`${name}: says nothing`);
        await noSideways(page, name).catch((error) => wrong.push(error.message));
        for (const each of await page.locator('.outlet .blank').all()) {
          if (!(await each.locator('p').count()) || !(await each.locator('p').first().textContent()).includes('.')) wrong.push(`${name}: ${await each.textContent()}`);
        }
        wrong.push(...(await faults(page)).map((each) => `${name}, ${colorScheme}: ${each}`));
        await shot(page, `empty-${colorScheme}-${name}`);
      }
      assert.deepEqual(wrong, []);
    }
  },

  async 'every page says that it loads, that it failed and why, and loads when it is asked again'({ full, open }) {
    const page = await open({ where: '/#/home', viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await connected(page);
    const wrong = [];
    for (const name of [...names, ...details].filter((each) => each !== 'chat')) {
      let let_go;
      const held = new Promise((go) => { let_go = go; });
      await page.route(asked, async (route) => { await held; await route.continue().catch(() => {}); });
      await go(page, name);
      const waits = page.locator('.outlet :is(.loading, .wait, [aria-busy=true], .skeleton)').first();
      await waits.waitFor().catch(() => wrong.push(`${name}: does not say that it loads`));
      let_go();
      await page.unrouteAll({ behavior: 'ignoreErrors' });
      await loaded(page);
      for (const [what, fail] of [['500', (route) => route.fulfill({ status: 500, contentType: 'application/json', body: '{"error":"internal error","id":"e7"}' })], ['network', (route) => (name.length % 2 ? route.abort() : route.fulfill({ status: 200, contentType: 'application/json', body: '{"half' }))]]) {
        await page.route(asked, (route) => (route.request().method() === 'GET' ? fail(route) : route.continue()));
        await go(page, name);
        const failed = page.locator('.outlet .failed');
        try { await failed.first().waitFor(); } catch { wrong.push(`${name}, ${what}: does not say that it failed`); }
        if (what === '500') {
          if (await failed.count() && !(await failed.first().textContent()).includes('e7')) wrong.push(`${name}: does not name the id in the log: ${await failed.first().textContent()}`);
          await noSideways(page, name).catch((error) => wrong.push(error.message));
          // They all look alike.
          if (name === 'audit') wrong.push(...(await faults(page)).map((each) => `${name}, failed: ${each}`));
        }
        await shot(page, `failed-${what}-${name.replaceAll('/', '-')}`);
        await page.unrouteAll({ behavior: 'ignoreErrors' });
        for (let i = 0; i < 8 && await failed.count(); i += 1) {
          const before = await failed.count();
          await failed.first().getByRole('button', { name: 'Try again' }).click().catch((error) => wrong.push(`${name}, ${what}: ${error.message.split('\n')[0]}`));
          await page.waitForFunction((n) => document.querySelectorAll('.outlet .failed').length < n, before).catch(() => {});
          await loaded(page);
        }
        if (await failed.count()) wrong.push(`${name}, ${what}: does not come back`);
        else if (!await helps(page)) wrong.push(`${name}, ${what}: is empty after it came back`);
      }
    }
    assert.deepEqual(wrong, []);
    assert.ok(full);
  },

  async 'a chat and the list of chats fail by themselves, and can be asked again'({ hub, open }) {
    const [{ id }] = await hub.get('/api/v1/sessions');
    const page = await open({ where: '/auth/config', viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await page.route((url) => asked(url) && /sessions/.test(url.pathname), (route) => (route.request().method() === 'GET' ? route.abort() : route.continue()));
    await page.goto(hub.url + '/#/chat/' + encodeURIComponent(id));
    await page.getByRole('heading', { name: 'This chat could not be loaded' }).waitFor();
    await page.getByRole('button', { name: 'Open the list of chats' }).tap();
    await page.getByText('The list could not be loaded.').waitFor();
    await eventually(async () => assert.deepEqual(await faults(page), []), 5000);
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await page.locator('.list-note').getByRole('button', { name: 'Try again' }).press('Enter');
    await page.locator('.convs a').first().waitFor();
    await eventually(async () => assert.ok(await page.locator('.convs a').first().evaluate((el) => el === document.activeElement), 'the focus is lost after a second try'));
    await page.getByRole('button', { name: 'Close the list' }).tap();
    await page.locator('.side:not(.open)').waitFor({ state: 'attached' });
    await page.locator('.blank').getByRole('button', { name: /again/i }).tap();
    await page.locator('.msg.user').first().waitFor();
  },

  async 'what destroys something asks before'({ open }) {
    const page = await open({ where: '/#/home', viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await connected(page);
    const [wrong, found] = [[], []];
    for (const name of [...names, ...details]) {
      await go(page, name);
      await loaded(page);
      const buttons = page.locator('.outlet, .top').getByRole('button', { name: DESTROYS });
      for (let i = 0, n = await buttons.count(); i < n; i += 1) {
        const button = buttons.nth(i);
        if (!await button.isVisible()) continue;
        const label = await button.evaluate((el) => el.getAttribute('aria-label') || el.textContent);
        const changes = [];
        const note = (request) => { if (request.method() !== 'GET') changes.push(`${request.method()} ${request.url()}`); };
        page.on('request', note);
        await button.click();
        await page.getByRole('dialog').first().waitFor().catch(() => {});
        page.off('request', note);
        found.push(`${name}: ${label}`);
        if (changes.length) wrong.push(`${name}: ${label} does it at once: ${changes}`);
        else if (!await page.getByRole('dialog').count()) wrong.push(`${name}: ${label} does not ask`);
        else {
          const first = await page.getByRole('dialog').evaluate((el) => el.contains(document.activeElement) && document.activeElement.textContent);
          if (first === label) wrong.push(`${name}: ${label} has the focus in its own question`);
          await page.keyboard.press('Escape');
          await page.getByRole('dialog').waitFor({ state: 'detached' });
        }
      }
    }
    assert.deepEqual(wrong, []);
    console.log(`      ${found.length} ask: ${found.join(', ')}`);
    for (const name of ['schedules', 'tools/echo', 'kv', 'keys', 'approvals']) assert.ok(found.some((each) => each.startsWith(name + ':')), `${name} offers nothing to delete`);
  },

  async 'toasts lie over nothing: what they speak of, the message box, the buttons of a dialog'({ open }) {
    for (const viewport of [{ width: 360, height: 740 }, { width: 1280, height: 800 }]) {
      const page = await open({ where: '/#/approvals', viewport });
      const say = (text) => page.evaluate(async (said) => { (await import(document.querySelector('script[src]').src.replace('app.js', 'ui.js'))).toast(said, { bad: true }); }, text);
      const LONG = 'Something went wrong, and this tells it in a whole sentence that takes more than one line on a phone.';
      // What is drawn at the middle and the corners of an element is the element.
      const free = (selector) => page.locator(selector).evaluateAll((all) => all.filter((el) => el.checkVisibility()).map((el) => {
        const { left, right, top, bottom } = el.getBoundingClientRect();
        const inside = [[(left + right) / 2, (top + bottom) / 2], [left + 9, (top + bottom) / 2], [right - 9, (top + bottom) / 2]].every(([x, y]) => { const at = document.elementFromPoint(x, y); return at && (el.contains(at) || at.contains(el)); });
        return inside ? '' : `${el.className} ${el.textContent}`;
      }).filter(Boolean));
      await connected(page);
      await loaded(page);
      // A button at the very end of what can be seen.
      const button = page.getByRole('button', { name: 'Remove' }).first();
      await button.evaluate((el) => {
        const box = el.closest('.outlet');
        el.closest('.page').style.paddingBlock = '2000px';
        box.scrollTop += el.getBoundingClientRect().bottom - box.getBoundingClientRect().bottom + 1;
        el.focus({ preventScroll: true });
        el.id = 'pressed';
      });
      await say(LONG);
      await eventually(async () => assert.deepEqual(await free('.toast, #pressed, .top, .tabs > *'), []), 3000);
      await shot(page, `toast-${viewport.width}`);
      await go(page, 'chat');
      await messageBox(page).focus();
      await say(LONG);
      await say('And another one.');
      await eventually(async () => assert.deepEqual(await free('.toast, .composer, .tabs > *, .send'), []), 3000);
      await shot(page, `toast-chat-${viewport.width}`);
      await go(page, 'keys');
      await page.getByRole('button', { name: 'Create a key' }).first().click();
      await say(LONG);
      await page.getByRole('button', { name: 'Cancel' }).focus();
      await eventually(async () => assert.deepEqual(await free('.toast, .dialog .row .btn'), []), 3000);
      assert.ok(await page.locator('.dialog .toast').count(), 'a toast is hidden by the dialog');
      await shot(page, `toast-dialog-${viewport.width}`);
      await page.getByRole('button', { name: 'Cancel' }).click();
      await page.locator('.body .toast').first().waitFor();
      await eventually(async () => assert.deepEqual(await free('.toast'), []), 3000);
    }
  },

  async 'full pages on small phones scroll down only'({ open }) {
    for (const width of [320, 360]) {
      const page = await open({ where: '/#/home', viewport: { width, height: 740 }, hasTouch: true, isMobile: true });
      await connected(page);
      for (const name of [...names, ...details]) {
        await go(page, name);
        await loaded(page);
        assert.equal(await page.locator('.outlet .failed').count(), 0, `${name} fails`);
        await noSideways(page, `${name} at ${width}`);
        if (width === 360) await shot(page, `full-${name.replaceAll('/', '-')}`);
      }
    }
  },
};

// A hub with one of everything that people make. Names are as long as they may get.
async function fill(hub) {
  await hub.send('PUT', '/api/v1/kv/default/a-long-key-' + 'x'.repeat(80), { value: '{"a":1}' });
  await hub.send('POST', '/api/v1/keys', { name: 'script-with-a-long-name-' + 'y'.repeat(40), scopes: ['chat'] });
  await hub.send('POST', '/api/v1/auto-approve', { agent: 'default', tool: 'kv_get' });
  await hub.send('POST', '/api/v1/schedules', { name: 'weekly check', schedule: '0 9 * * 1', channel: 'holt:schedules', prompt: 'Is all well?' });
  await hub.send('POST', '/api/v1/tools', { name: 'echo', transport: 'stdio', command: process.execPath, args: [TOOL] });
  await until(hub, '/api/v1/tools', ({ tools }) => tools.some((tool) => tool.status === 'connected'));
  await hub.send('POST', '/api/v1/chat', { message: 'How is this machine doing?' });
}

const empty = Object.keys(tests)[0];

export default {
  name: 'states',
  before: async () => {
    const hub = await Hub.start();
    let full = false;
    return { hub, fill: async () => { if (!full) await fill(hub); full = true; } };
  },
  after: ({ hub }) => hub.close(),
  // The first is about a hub with nothing in it.
  tests: Object.fromEntries(Object.entries(tests).map(([name, test]) => [name, async (world) => { if (name !== empty) await world.fill(); return test({ ...world, full: true }); }])),
};
