import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { Hub, keep } from './hub.mjs';
import { ALERTING, Machine, machines, until } from './fleet.mjs';
import { startModel } from './model.mjs';
import { PAGES } from '../../src/web/assets/pages.js';
import { answers, ask, connected, countedTo, eventually, loaded, noSideways, settled, visit } from './steps.mjs';

const AXE = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true };
const names = PAGES.map((about) => about.name);

// Serious faults that axe-core finds on what is shown.
async function faults(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.filter((each) => ['serious', 'critical'].includes(each.impact))
    .map((each) => `${each.id}: ${each.nodes.slice(0, 3).map((node) => `${node.target.join(' ')} ${node.any[0]?.message || ''}`).join(' | ')}`);
}

// Readings are kept once a minute: a day of them would take a day.
function readings(page) {
  return page.route('**/readings?hours=*', (route) => {
    const hours = Number(/hours=(\d+)/.exec(route.request().url())[1]);
    const list = Array.from({ length: 200 }, (_, i) => ({ at: new Date(Date.now() - (200 - i) / 200 * hours * 3600e3).toISOString(),
      cpu_pct: 25 + 20 * Math.sin(i / 11) + (i * 37 % 11), mem_pct: 52 + 6 * Math.sin(i / 40), disk_pct: 61 + i / 50, load1: 0.6 + 0.4 * Math.sin(i / 11), temp_c: i > 60 && i < 70 ? null : 48 + 5 * Math.sin(i / 23) }));
    return route.fulfill({ status: 200, contentType: 'application/json', body: JSON.stringify({ readings: list }) });
  });
}

const tests = {
  async 'every page: loads, has a heading, and no serious accessibility faults, by day and by night'({ world, open }) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await open({ where: '/#/home', colorScheme });
      await readings(page);
      await connected(page);
      const wrong = [];
      for (const name of [...names, ...world.details]) {
        await visit(page, name);
        await loaded(page);
        await eventually(async () => assert.ok((await page.locator('h1').textContent()).length > 2, name));
        wrong.push(...(await faults(page)).map((each) => `${name}, ${colorScheme}: ${each}`));
        if (colorScheme === 'light' && world.shots[name]) await keep(page, world.shots[name]);
        if (colorScheme === 'dark' && name === 'home') await keep(page, 'home-dark');
      }
      assert.deepEqual(wrong, []);
    }
  },

  async 'every page on a phone: nothing scrolls sideways, targets are big enough'({ world, open }) {
    const page = await open({ where: '/#/home', ...PHONE });
    await connected(page);
    for (const name of [...names, ...world.details]) {
      await visit(page, name);
      await loaded(page);
      await noSideways(page, name);
      const small = await page.evaluate(() => [...document.querySelectorAll('.outlet :is(button, .btn, input, select, textarea), .tabs > *, .top :is(a, button)')]
        .filter((el) => !el.closest('td, .sr, .copy, .check') && el.getBoundingClientRect().width && el.getBoundingClientRect().height < 44).map((el) => `${el.tagName}.${el.className} ${el.textContent.slice(0, 20)} ${el.getBoundingClientRect().height}`));
      assert.deepEqual(small, [], name);
      if (name === 'home') await keep(page, 'home-phone');
    }
  },

  async 'dialogs and forms have no serious accessibility faults'({ world, open }) {
    const page = await open({ where: '/#/keys' });
    const look = async (where, button) => {
      await visit(page, where);
      await loaded(page);
      await page.locator('.top, .outlet').getByRole('button', { name: button }).first().click();
      await page.getByRole('dialog').waitFor();
      await eventually(async () => assert.deepEqual(await faults(page), [], where), 5000);
      await page.keyboard.press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
    };
    await look('keys', 'Create a key');
    await look('tools', 'Add a tool');
    await look('machines', 'Add a machine');
    await look(world.details[0], 'Name and labels');
    await look('kv', 'Add a value');
    await look('schedules', 'Add a schedule');
  },

  async 'a machine’s page: live numbers and plots'({ world, open }) {
    const page = await open({ where: '/#/home' });
    await readings(page);
    await page.route('**/api/v1/' + world.details[0], async (route) => {
      const response = await route.fetch();
      return route.fulfill({ response, json: { ...await response.json(), created_at: new Date(Date.now() - 30 * 86400e3).toISOString() } });
    });
    await page.goto(page.url().replace('home', world.details[0]));
    await page.getByRole('img', { name: /^CPU: now/ }).waitFor();
    // What was not told for a while is not joined.
    await page.locator('.figure', { hasText: 'Temperature' }).locator('path.stroke').nth(1).waitFor({ state: 'attached' });
    assert.ok(await page.locator('.plot path.stroke').first().getAttribute('d'));
    await page.getByRole('button', { name: '7 days' }).click();
    await page.getByRole('img', { name: /^Memory: now/ }).waitFor();
  },

  async 'the first load is small, and quick to see'({ hub, open }) {
    const page = await open({ where: '/auth/config' });
    await page.goto(hub.url + '/#/home');
    await connected(page);
    await loaded(page);
    const { bytes, files } = await page.evaluate(() => {
      const list = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
      return { bytes: list.reduce((sum, each) => sum + each.transferSize, 0), files: list.length };
    });
    const times = await page.evaluate(() => ({
      paint: Math.round(performance.getEntriesByName('first-contentful-paint')[0]?.startTime || 0),
      ready: Math.round(performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd),
    }));
    console.log(`      first paint ${times.paint} ms, scripts ready ${times.ready} ms, ${files} answers, ${(bytes / 1024).toFixed(1)} KB`);
    if (!process.env.HOLT_WEB_DIR) assert.ok(bytes < 60 * 1024, `${bytes} bytes`);
  },

  async 'streaming at 200 pieces a second: one render a frame, no long task'({ open }) {
    const page = await open({ where: '/auth/config' });
    await page.addInitScript(() => {
      window.longTasks = [];
      new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((each) => Math.round(each.duration)))).observe({ type: 'longtask' });
    });
    await page.goto(new URL('/#/chat', page.url()).href);
    await connected(page);
    await ask(page, 'hello');
    await settled(page);
    await page.evaluate(() => { window.longTasks.length = 0; window.frames = 0; const count = () => { window.frames += 1; requestAnimationFrame(count); }; count();
      window.renders = 0; window.added = 0; new MutationObserver((list) => { window.renders += 1; for (const each of list) window.added += each.addedNodes.length; }).observe(document.querySelector('.messages'), { childList: true, subtree: true }); });
    const started = Date.now();
    await ask(page, 'quickly count to 1000');
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 2);
    await settled(page);
    const { tasks, frames, renders, added } = await page.evaluate(() => ({ tasks: window.longTasks, frames: window.frames, renders: window.renders, added: window.added }));
    const seconds = (Date.now() - started) / 1000;
    console.log(`      1000 pieces in ${seconds.toFixed(1)} s, ${Math.round(frames / seconds)} frames a second, ${tasks.length} tasks over 50 ms${tasks.length ? ', the longest ' + Math.max(...tasks) + ' ms' : ''}`);
    assert.ok(renders <= frames + 30, `${renders} renders in ${frames} frames`);
    // Long tasks depend on what else the machine does; that nothing is drawn twice does not.
    assert.ok(added < 4000, `${added} nodes for 1000 lines`);
    await countedTo(page, 1000);
    await eventually(async () => assert.equal(await answers(page).count(), 2));
  },
};

export default {
  name: 'pages',
  tests,
  async before() {
    const model = await startModel(5);
    const hub = await Hub.start(`[llm]\ndefault_provider = "openai"\ndefault_model = "scripted"\n[llm.openai]\napi_key = "k"\nbase_url = "${model.baseUrl}"\n`);
    const machine = Machine.start(hub, { config: ALERTING });
    const [{ id }] = await machines(hub);
    const { alerts } = await until(hub, '/api/v1/alerts', (body) => body.alerts.length > 0);
    await hub.send('PUT', '/api/v1/kv/default/last-backup', { value: '2026-01-02' });
    await hub.send('POST', '/api/v1/keys', { name: 'script', scopes: ['chat'] });
    await hub.send('POST', '/api/v1/auto-approve', { agent: 'default', tool: 'kv_get' });
    await hub.send('POST', '/api/v1/chat', { message: 'How are the backups?' });
    // Waits for somebody; nobody waits for its answer.
    hub.send('POST', '/api/v1/chat', { message: 'call kv_set {"key":"backup/keep","value":"30 days","ttl":"720h"}' }).catch(() => {});
    await until(hub, '/api/v1/approvals?status=pending', (list) => list.length > 0);
    const world = { machine, details: ['machines/' + id, 'alerts/' + alerts[0].id, 'agents/default'], shots: { home: 'home', ['machines/' + id]: 'machine', approvals: 'approvals' } };
    return { world, hub, model };
  },
  async after({ world, hub, model }) {
    await world.machine.close();
    await hub.close();
    model.close();
  },
};
