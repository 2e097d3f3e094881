import assert from 'node:assert/strict';
import { Hub, shot } from './hub.mjs';
import { startModel } from './model.mjs';
import { answers, ask, connected, settled } from './steps.mjs';

const WISH = (key) => `call kv_set {"key":"${key}","value":"hello"}`;
const button = (page, name) => page.locator('.ask').getByRole('button', { name, exact: true });

async function stored(hub, key) { return (await hub.get(`/api/v1/kv/default/${key}`)).value; }

// An agent asks before it acts.
const tests = {
  async 'approval: the exact arguments are shown, and nothing happens before'({ open, hub }) {
    const page = await open();
    await connected(page);
    await ask(page, WISH('plain'));
    await button(page, 'Approve').waitFor();
    assert.match(await page.locator('.ask-text').textContent(), /kv_set.*\{"key":"plain","value":"hello"\}/);
    assert.equal(await stored(hub, 'plain'), undefined);
    await shot(page, 'approval');
    await button(page, 'Approve').click();
    await settled(page);
    assert.equal(await stored(hub, 'plain'), 'hello');
    assert.match(await answers(page).last().textContent(), /The tool said: \{"ok":true\}/);
  },

  async 'approval: denied on the page, the model is told'({ open, hub }) {
    const page = await open();
    await connected(page);
    await ask(page, WISH('denied'));
    await button(page, 'Deny').click();
    await settled(page);
    assert.match(await answers(page).last().textContent(), /denied this tool call/);
    assert.equal(await stored(hub, 'denied'), undefined);
  },

  async 'approval: a second device decides, the first sees it'({ open, hub }) {
    const page = await open();
    await connected(page);
    await ask(page, WISH('second'));
    await button(page, 'Approve').waitFor();
    const phone = await open({ where: new URL(page.url()).hash ? `/${new URL(page.url()).hash}` : '/', viewport: { width: 390, height: 780 } });
    await phone.goto(page.url());
    await button(phone, 'Approve').click();
    await settled(page);
    await settled(phone);
    assert.equal(await button(page, 'Approve').count(), 0);
    assert.equal(await stored(hub, 'second'), 'hello');
  },

  async 'approval: it waits through a reload and a killed hub'({ open, hub }) {
    if (hub.external) return 'skipped';
    const page = await open();
    await connected(page);
    await ask(page, WISH('patient'));
    await button(page, 'Approve').waitFor();
    await hub.kill();
    await hub.revive();
    await page.reload();
    await connected(page);
    await button(page, 'Approve').click();
    await settled(page);
    assert.equal(await stored(hub, 'patient'), 'hello');
  },

  async 'approval: allowed for this chat, the next call does not ask'({ open, hub }) {
    const page = await open();
    await connected(page);
    await ask(page, WISH('one'));
    await button(page, 'Allow in this chat for 15 min').click();
    await settled(page);
    await ask(page, WISH('two'));
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 2);
    await settled(page);
    assert.equal(await stored(hub, 'two'), 'hello');
  },
};

export default {
  name: 'approvals',
  tests,
  async before() {
    const model = await startModel();
    const hub = await Hub.start(`[llm]\ndefault_provider = "openai"\ndefault_model = "scripted"\n[llm.openai]\napi_key = "k"\nbase_url = "${model.baseUrl}"\n`);
    return { hub, model };
  },
  async after({ hub, model }) { await hub.close(); model.close(); },
};
