import assert from 'node:assert/strict';
import { Hub, shot } from './hub.mjs';
import { ALERTING, Machine, machines, until } from './fleet.mjs';
import { answers, ask, connected, eventually, go, noSideways, settled } from './steps.mjs';

const PHONE = { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true };

// A machine with an alert that is there soon: the one that the first test has joined, unless this hub is a new one.
async function joined(world, hub) {
  world.machine ||= Machine.start(hub, { name: 'pi-attic', config: ALERTING });
  return machines(hub);
}

async function alerting(world, hub) {
  await joined(world, hub);
  return (await until(hub, '/api/v1/alerts', (body) => body.alerts.some((alert) => /procnum/.test(alert.check)))).alerts;
}

// One that is away.
async function away(world, hub) {
  if (!world.machine) await joined(world, hub);
  await world.machine.stop();
  return (await until(hub, '/api/v1/machines', (body) => body.machines.every((machine) => !machine.connected))).machines;
}

const tests = {
  async 'machines: the empty page says what to do, and one command joins a machine'({ world, hub, open }) {
    const page = await open({ where: '/#/machines', ...PHONE });
    await page.getByRole('heading', { name: 'No machines yet' }).waitFor();
    await page.getByRole('button', { name: 'Add a machine' }).last().tap();
    await page.getByRole('textbox', { name: 'Name' }).fill('pi-attic');
    await page.getByRole('button', { name: 'Make the command' }).tap();
    const command = await page.locator('.copy-box code').textContent();
    assert.match(command, /^holt agent --hub http.* --join hj_/);
    world.machine = Machine.start(hub, { code: /hj_[\w-]+/.exec(command)[0], config: ALERTING });
    await page.getByText('Connected: pi-attic').waitFor();
    await noSideways(page);
    await shot(page, 'machine-connected');
    await page.getByRole('link', { name: 'Show it' }).tap();
    await page.getByRole('heading', { name: 'pi-attic' }).waitFor();
    await page.locator('.state[data-state=online]').waitFor();
    await page.getByText('Last looks and chats').waitFor();
    // Some seconds later: the first number is a dot, with its value beside the name, and a line in the table.
    await page.getByRole('img', { name: /^Memory: now/ }).waitFor({ timeout: 60000 });
    await page.locator('.plot circle.dot').nth(1).waitFor({ state: 'attached' });
    await eventually(async () => assert.match(await page.locator('.plot-read').nth(1).textContent(), /^\d+ %$/));
    await eventually(async () => {
      const times = await page.locator('.plot').first().locator('text[text-anchor=middle]').allTextContents();
      assert.ok(times.length >= 2 && new Set(times).size === times.length, String(times));
    });
    await page.locator('summary', { hasText: 'as a table' }).tap();
    await page.getByRole('region', { name: 'Readings' }).getByRole('cell', { name: /%/ }).first().waitFor();
    assert.equal(await page.getByRole('group', { name: 'How far back' }).count(), 0, 'nothing is further back');
    await noSideways(page);
    await shot(page, 'machine-new');
  },

  async 'machines: a machine is inspected from its page, and reports in a chat on a phone'({ world, hub, open }) {
    const [machine] = await joined(world, hub);
    const page = await open({ where: '/#/machines/' + machine.id, ...PHONE });
    await page.getByRole('button', { name: 'Inspect' }).tap();
    await page.getByRole('dialog').getByRole('button', { name: 'Inspect' }).tap();
    await page.locator('.msg.assistant').waitFor();
    await settled(page);
    assert.ok((await answers(page).last().locator('.md').innerText()).length > 40);
    await noSideways(page, 'the report');
    // A report is read from its beginning.
    await eventually(async () => {
      const top = await answers(page).last().locator('.md > :first-child').first().boundingBox();
      assert.ok(top.y >= 50 && top.y < 560, `the report begins at ${top.y}`);
    });
    await shot(page, 'machine-report');
    // Back to the machine, to look again.
    await page.locator('.top').getByRole('link', { name: /pi-/ }).tap();
    await page.getByRole('button', { name: 'Inspect' }).waitFor();
    await page.getByRole('cell', { name: 'inspect' }).first().waitFor();
  },

  async 'machines: name and labels are changed'({ world, hub, open }) {
    const [machine] = await joined(world, hub);
    const page = await open({ where: '/#/machines/' + machine.id });
    await page.getByRole('button', { name: 'Name and labels' }).click();
    await page.getByRole('textbox', { name: 'Name' }).fill('pi-garage');
    await page.getByRole('textbox', { name: 'Labels' }).fill('room=garage');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('heading', { name: 'pi-garage' }).waitFor();
    assert.equal((await machines(hub))[0].labels.room, 'garage');
    await go(page, 'Machines');
    await page.getByRole('link', { name: /pi-garage/ }).waitFor();
  },

  async 'alerts of a machine: acknowledged, silenced, and closed on the page'({ world, hub, open }) {
    const alert = (await alerting(world, hub)).find((each) => /procnum/.test(each.check));
    const page = await open({ where: '/#/alerts/' + alert.id });
    await page.getByRole('button', { name: 'Acknowledge' }).click();
    await page.getByRole('dialog').getByLabel('Note').fill('on my way');
    await page.getByRole('dialog').getByRole('button', { name: 'Acknowledge' }).click();
    await page.getByText('acknowledged by').first().waitFor();
    await page.getByRole('button', { name: 'Silence' }).click();
    await page.getByRole('dialog').getByLabel('For').selectOption('8h');
    await page.getByRole('dialog').getByRole('button', { name: 'Silence' }).click();
    await page.getByText('silent until').first().waitFor();
    const now = await hub.get('/api/v1/alerts/' + alert.id);
    assert.ok(now.acknowledged_at && now.silenced_until && now.note);
    await go(page, 'Alerts');
    await page.getByRole('button', { name: 'Add a silence' }).click();
    await page.getByLabel('Which alerts').fill('machine garage');
    await page.getByRole('dialog').getByRole('button', { name: 'Silence' }).click();
    await page.getByText('Each line needs a name').waitFor();
    await page.getByLabel('Which alerts').fill('machine=garage');
    await page.getByRole('dialog').getByRole('button', { name: 'Silence' }).click();
    await page.getByRole('heading', { name: 'Silences' }).waitFor();
    await page.getByRole('button', { name: 'End' }).click();
    await page.getByRole('button', { name: 'End it' }).click();
    await page.getByRole('heading', { name: 'Silences' }).waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Diagnose' }).first().click();
    await page.locator('.msg.assistant').waitFor();
    await settled(page);
    assert.match(await page.locator('.msg.assistant').innerText(), /no such process anywhere/);
  },

  async 'alerts: the machine, Home, the list and the badge tell the same number, at once'({ world, hub, open }) {
    await alerting(world, hub);
    const page = await open({ where: '/#/home' });
    const told = () => page.evaluate(() => {
      const number = (el) => Number((/\d+/.exec(el?.textContent) || [0])[0]);
      const heading = [...document.querySelectorAll('.page h2')].find((el) => /alert/i.test(el.textContent));
      return [heading, document.querySelector('.card-link .tag'), document.querySelector('.nav a[href="#/alerts"] .count:not([hidden])')].map(number);
    });
    // The badge leaves out what somebody has dealt with. A busy machine may have alerts of its own at any time.
    const same = (seen, want) => eventually(async () => {
      const { alerts } = await hub.get('/api/v1/alerts');
      assert.deepEqual(await seen(), want(alerts));
      return alerts;
    }, 12000);
    const numbers = (alerts) => [alerts.length, alerts.length, alerts.filter((each) => !each.acknowledged_at && !each.silenced_until).length];
    const [{ id }] = await same(told, numbers);
    await hub.send('POST', `/api/v1/alerts/${id}/close`, {});
    assert.ok(!(await same(told, numbers)).some((each) => each.id === id));
    await go(page, 'Alerts');
    await same(() => page.locator('.outlet .stack > li').count(), (alerts) => alerts.length);
  },

  async 'a machine that joins can be asked, and says when it is away'({ world, hub, open }) {
    const [{ id }] = await joined(world, hub);
    await hub.send('PATCH', '/api/v1/machines/' + id, { display_name: 'pi-garage' });
    const page = await open({ where: '/#/machines/' + id, ...PHONE });
    await page.locator('.outlet').getByRole('link', { name: 'Chat', exact: true }).tap();
    await connected(page);
    await page.waitForFunction(() => document.querySelector('.agent-pick')?.selectedOptions[0]?.textContent === 'pi-garage');
    await ask(page, 'How is this machine doing?');
    await settled(page);
    assert.ok((await answers(page).last().locator('.md').innerText()).includes('memory'));
    assert.ok(await page.locator('.step code').first().isVisible() || await page.locator('.steps > summary').isVisible());
    await shot(page, 'machine');
    await world.machine.stop();
    await ask(page, 'Still there?');
    await page.locator('.messages').getByText('pi-garage', { exact: false }).last().waitFor();
  },

  async 'a look at a machine that is away tells why, also when its chat is opened later'({ world, hub, open }) {
    const [machine] = await away(world, hub);
    const { session_id: id } = await hub.send('POST', `/api/v1/machines/${machine.id}/sessions`, { type: 'inspect', plugin: 'disk' });
    const page = await open({ where: `/#/chat/${id}` });
    await page.getByText('is not connected', { exact: false }).first().waitFor();
    await page.reload();
    await page.getByText('is not connected', { exact: false }).first().waitFor();
  },

  async 'machines: revoked and forgotten after a question'({ world, hub, open }) {
    const [{ id }] = await away(world, hub);
    const page = await open({ where: '/#/machines/' + id });
    await page.getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
    assert.equal((await hub.get('/api/v1/machines/' + id)).state, 'approved');
    await page.getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await page.getByRole('button', { name: 'Forget' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Forget' }).click();
    await page.getByRole('heading', { name: 'No machines yet' }).waitFor();
  },
};

export default {
  name: 'machines',
  async before() {
    const world = {};
    return { world, hub: await Hub.start() };
  },
  async after({ world, hub }) {
    await world.machine?.close();
    await hub.close();
  },
  tests,
};
