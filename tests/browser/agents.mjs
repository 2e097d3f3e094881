import assert from 'node:assert/strict';
import { Hub, keep, shot } from './hub.mjs';
import { startModel } from './model.mjs';
import { answers, eventually } from './steps.mjs';

// What agents do by themselves, and know: schedules, persona, skills, and what they changed.
const tests = {
  async 'schedules: added with a preview, edited, run by hand, seen in its runs'({ hub, open }) {
    const page = await open({ where: '/#/schedules' });
    await page.getByRole('heading', { name: 'Nothing is scheduled' }).waitFor();
    await page.getByRole('button', { name: 'Add a schedule' }).last().click();
    await page.getByRole('textbox', { name: 'Name' }).fill('morning-report');
    const dialog = page.getByRole('dialog');
    const how = dialog.getByLabel('When', { exact: true });
    await page.getByText(/^Next: /).waitFor();
    // What is wrong is said at its field, with what to give instead.
    await how.selectOption('Once a month');
    await dialog.getByLabel('On day').fill('40');
    await dialog.getByText('Day-of-month must be 1 to 31', { exact: false }).waitFor();
    await how.selectOption('As an expression');
    const own = dialog.getByLabel('Expression');
    await eventually(async () => assert.equal(await own.inputValue(), '0 8 40 * *', 'what was built is not carried over'));
    await own.fill('61 * * * *');
    await dialog.getByText('Minute must be 0 to 59, as in 0 7 * * *', { exact: false }).waitFor();
    await own.fill('* * *');
    await dialog.getByText('It needs minute, hour, day', { exact: false }).waitFor();
    await how.selectOption('Once');
    await dialog.getByLabel('On', { exact: true }).fill('2020-01-01T10:00');
    await dialog.getByText('It would never run', { exact: false }).waitFor();
    await how.selectOption('Once a week');
    await eventually(async () => assert.equal(await dialog.getByLabel('On', { exact: true }).inputValue(), '1'));
    await dialog.getByLabel('At', { exact: true }).fill('07:30');
    await dialog.getByLabel('On', { exact: true }).selectOption('Friday');
    const zone = dialog.getByLabel('Time zone');
    await zone.fill('Mars');
    await dialog.getByText('Timezone must be a time zone such as', { exact: false }).waitFor();
    await zone.fill('Asia/Tokyo');
    await dialog.getByText(/^Next: Fri.*30.*Asia\/Tokyo/).waitFor();
    await shot(page, 'schedule-form');
    await dialog.getByRole('button', { name: 'Add' }).click();
    await dialog.getByText('Say what to do, or name a skill.').waitFor();
    await dialog.getByLabel('What to do').fill('Is this machine all right?');
    await dialog.getByRole('button', { name: 'Add' }).click();
    await page.getByText('every Friday at 07:30').waitFor();
    await page.getByRole('img', { name: /^Next runs of morning-report/ }).waitFor();
    await page.locator('.plot .dot').nth(2).waitFor({ state: 'attached' });
    await keep(page, 'schedules');
    const [made] = await hub.get('/api/v1/schedules');
    assert.deepEqual([made.expression, made.timezone], ['30 7 * * 5', 'Asia/Tokyo']);
    assert.match(made.next_run, /T07:30:00\+09:00$/);
    await page.getByRole('button', { name: 'Edit' }).click();
    await eventually(async () => assert.equal(await how.inputValue(), 'week'));
    await how.selectOption('Every few minutes');
    await dialog.getByLabel('Minutes between').fill('90');
    await zone.fill('');
    await page.getByText(/^Next: /).waitFor();
    await dialog.getByRole('button', { name: 'Save' }).click();
    await page.getByText('every 90 min').waitFor();
    const [edited] = await hub.get('/api/v1/schedules');
    assert.deepEqual([edited.expression, edited.timezone], ['@every 90m', undefined]);
    await page.getByRole('link', { name: 'morning-report' }).click();
    await page.getByText('It has not run yet.').waitFor();
    await page.getByRole('button', { name: 'Try dry' }).click();
    await page.getByText('Nothing was done.', { exact: false }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Run now' }).click();
    await page.getByRole('cell', { name: 'done' }).waitFor({ timeout: 60000 });
    await page.getByRole('table').getByRole('link', { name: 'Chat' }).click();
    await answers(page).first().waitFor();
    await page.goto(hub.url + '/#/schedules');
    await page.getByText(': done').waitFor();
    await page.getByRole('link', { name: 'its chat' }).click();
    await answers(page).first().waitFor();
    await page.goto(hub.url + '/#/schedules/morning-report');
    await page.getByRole('button', { name: 'Switch off' }).click();
    await page.getByRole('button', { name: 'Switch on' }).waitFor();
    await page.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('heading', { name: 'Nothing is scheduled' }).waitFor();
  },

  async 'persona: saved, and taken back'({ hub, open }) {
    const page = await open({ where: '/#/agents/default/persona' });
    const soul = page.getByRole('textbox', { name: 'Soul' });
    await soul.fill('Speak like an otter.');
    await page.getByRole('button', { name: 'Save soul' }).click();
    await page.getByText('Soul of default saved.').waitFor();
    assert.match((await hub.get('/api/v1/agents/default/persona/soul')).content, /otter/);
    await page.getByRole('button', { name: 'Undo' }).click();
    await page.waitForFunction(async () => !(await (await fetch('/api/v1/agents/default/persona/soul')).json()).content.includes('otter'));
  },

  async 'skills: written, changed, deleted, and brought back'({ hub, open }) {
    const page = await open({ where: '/#/agents/default/skills' });
    await page.getByRole('button', { name: 'Write a skill' }).click();
    await page.getByRole('textbox', { name: 'Name' }).fill('backup');
    await page.getByLabel('Triggers').fill('sometimes');
    await page.getByLabel('What to do').fill('Look at the last backup.');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByText('Each line is command').waitFor();
    await page.getByLabel('Triggers').fill('command:backup');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('button', { name: 'Edit backup' }).click();
    await page.getByLabel('What to do').fill('Look at the last two backups.');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    assert.match((await hub.get('/api/v1/skills/default/backup')).body, /last two/);
    await page.getByRole('button', { name: 'Delete backup' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('heading', { name: 'No skills yet' }).waitFor();
    await page.getByRole('button', { name: 'Undo' }).click();
    await page.getByRole('button', { name: 'Edit backup' }).waitFor();
    assert.match((await hub.get('/api/v1/skills/default/backup')).body, /last two/);
  },

  async 'journal: what an agent did is shown and undone, by force when it changed since'({ hub, open }) {
    const rules = [];
    for (const tool of ['skill_create', 'schedule_add']) rules.push(await hub.send('POST', '/api/v1/auto-approve', { agent: 'default', tool }));
    const page = await open({ where: '/#/agents/default/journal' });
    await page.getByRole('heading', { name: 'Nothing in the journal' }).waitFor();
    await hub.send('POST', '/api/v1/chat', { message: 'call skill_create {"name":"tea","description":"d","body":"Boil <b>water</b>."}' });
    await hub.send('POST', '/api/v1/chat', { message: 'call schedule_add {"name":"tea-time","schedule":"@daily","channel":"api:x"}' });
    await hub.send('PUT', '/api/v1/skills/default/tea', { body: 'By hand.' });
    await page.reload();
    const entry = (text) => page.locator('.outlet li.panel', { hasText: text });
    await entry('Made skill tea').getByRole('button', { name: 'What changed' }).click();
    await page.getByLabel('After').getByText('Boil <b>water</b>.', { exact: false }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await entry('Made skill tea').getByRole('button', { name: 'Undo' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Undo it' }).click();
    await page.getByRole('dialog').getByText('changed again since', { exact: false }).waitFor();
    assert.equal((await hub.get('/api/v1/skills/default/tea')).body, 'By hand.');
    await page.getByRole('dialog').getByRole('button', { name: 'Undo it' }).click();
    await entry('Made skill tea').getByText('undone', { exact: true }).waitFor();
    assert.ok(!(await hub.get('/api/v1/skills/default')).some((skill) => skill.name === 'tea'));
    await entry('Made schedule tea-time').getByRole('button', { name: 'Undo' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Undo it' }).click();
    await entry('Made schedule tea-time').getByText('undone', { exact: true }).waitFor();
    assert.ok(!(await hub.get('/api/v1/schedules')).some((each) => each.name === 'tea-time'));
    for (const rule of rules) await hub.send('DELETE', `/api/v1/auto-approve/${rule.id}`);
  },
};

export default {
  name: 'agents',
  tests,
  async before() {
    const model = await startModel();
    const hub = await Hub.start(`[llm]\ndefault_provider = "openai"\ndefault_model = "scripted"\n[llm.openai]\napi_key = "k"\nbase_url = "${model.baseUrl}"\n`);
    return { hub, model };
  },
  async after({ hub, model }) { await hub.close(); model.close(); },
};
