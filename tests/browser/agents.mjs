import assert from 'node:assert/strict';
import { Hub, keep } from './hub.mjs';
import { startModel } from './model.mjs';
import { answers } from './steps.mjs';

// What agents do by themselves, and know: schedules, persona, skills, and what they changed.
const tests = {
  async 'schedules: added with a preview, edited, run by hand, seen in its runs'({ hub, open }) {
    const page = await open({ where: '/#/schedules' });
    await page.getByRole('heading', { name: 'Nothing is scheduled' }).waitFor();
    await page.getByRole('button', { name: 'Add a schedule' }).last().click();
    await page.getByRole('textbox', { name: 'Name' }).fill('morning-report');
    const when = page.getByLabel('When', { exact: true });
    await when.fill('61 * * * *');
    await page.getByText('minute field', { exact: false }).waitFor();
    await page.getByRole('button', { name: 'Every day at 8:00' }).click();
    await page.getByText(/^Next: /).waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Add' }).click();
    await page.getByRole('img', { name: /^Next runs of morning-report/ }).waitFor();
    await keep(page, 'schedules');
    await page.getByRole('button', { name: 'Edit' }).click();
    await when.fill('@every 90m');
    await page.getByText(/^Next: /).waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click();
    await page.getByText('@every 90m').waitFor();
    assert.equal((await hub.get('/api/v1/schedules'))[0].expression, '@every 90m');
    await page.getByRole('link', { name: 'morning-report' }).click();
    await page.getByText('It has not run yet.').waitFor();
    await page.getByRole('button', { name: 'Try dry' }).click();
    await page.getByText('Nothing was done.', { exact: false }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Run now' }).click();
    await page.getByRole('cell', { name: 'done' }).waitFor({ timeout: 30000 });
    await page.getByRole('table').getByRole('link', { name: 'Chat' }).click();
    await answers(page).first().waitFor();
    await page.goBack();
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
