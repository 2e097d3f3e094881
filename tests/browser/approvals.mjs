import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { Hub, shot } from './hub.mjs';
import { startModel } from './model.mjs';
import { answers, ask, connected, eventually, noSideways, settled } from './steps.mjs';

const WISH = (key) => `call kv_set {"key":"${key}","value":"hello"}`;
const button = (page, name) => page.locator('.ask').getByRole('button', { name, exact: true });

async function stored(hub, key) { return (await hub.get(`/api/v1/kv/default/${key}`)).value; }

// An agent asks before it acts.
const tests = {
  async 'approval: the exact arguments are shown, and nothing happens before'({ open, hub }) {
    const page = await open();
    await connected(page);
    await ask(page, WISH('plain'));
    await button(page, 'Allow once').waitFor();
    await page.getByText('Remember under “plain”: hello', { exact: true }).waitFor();
    await page.getByText('Agent default asked').waitFor();
    await page.getByText('runs out in').waitFor();
    await eventually(async () => assert.deepEqual(JSON.parse(await page.locator('.what .args').textContent()), { key: 'plain', value: 'hello' }));
    assert.equal(await stored(hub, 'plain'), undefined);
    await shot(page, 'approval');
    await button(page, 'Allow once').click();
    await settled(page);
    assert.equal(await stored(hub, 'plain'), 'hello');
    assert.match(await answers(page).last().textContent(), /The tool said: \{"ok":true\}/);
  },

  async 'approval: what is asked is a sentence, for tools of servers their name and their own words'({ open, hub }) {
    const script = fileURLToPath(new URL('mcp.mjs', import.meta.url));
    await hub.send('POST', '/api/v1/tools', { name: 'parrot', command: process.execPath, args: [script] });
    const page = await open({ viewport: { width: 360, height: 740 } });
    await connected(page);
    const says = async (call, text) => {
      await ask(page, `call ${call}`);
      await page.locator('.says', { hasText: text }).waitFor();
      await page.getByText('Agent default asked').waitFor(); // all of the request is there
      await noSideways(page, call);
      assert.ok(!(await page.locator('.what').innerText()).includes('s3cret'), 'a secret is shown');
      await button(page, 'Deny').click();
      await settled(page);
      await page.evaluate(() => { location.hash = '#/chat'; });
      await page.getByText('What would you like to know?').waitFor();
    };
    await says('kv_delete {"key":"<b>x</b>"}', 'Forget what is under “<b>x</b>”');
    await says('tool_add {"name":"new","command":"/bin/true","env":{"TOKEN":"s3cret"}}', 'Add the tool server “new”: /bin/true');
    await says(`kv_set {"key":"long","value":"${'word '.repeat(300)}"}`, '…');
    await ask(page, 'call shout {"text":"hello"}');
    await page.locator('.says', { hasText: 'Run shout of the tool server parrot' }).waitFor();
    await page.getByText('parrot says of it: Says it: shout').waitFor();
    await noSideways(page, 'a tool of a server');
    await shot(page, 'approval-server');
    const other = await open({ where: '/#/approvals', viewport: { width: 360, height: 740 } });
    await other.getByRole('heading', { name: 'Run shout of the tool server parrot' }).waitFor();
    // However long its name is.
    for (const each of [page, other]) {
      await each.evaluate(() => { for (const button of document.querySelectorAll('.ask-row .quiet')) button.textContent = button.textContent.replace('shout', 'a_tool_whose_name_is_as_long_as_a_name_of_a_tool_can_be_64_bytes'); });
      await noSideways(each, 'a long name');
    }
    await other.getByRole('button', { name: 'Deny' }).click();
    await settled(page);
    await hub.send('DELETE', '/api/v1/tools/parrot');
  },

  async 'approval: a sentence for whatever is asked'({ open }) {
    const page = await open({ where: '/#/approvals' });
    const said = await page.evaluate(async () => {
      const { wish, request } = await import(document.querySelector('script[src]').src.replace('app.js', 'approvals.js'));
      const text = (nodes) => nodes.map((node) => node.textContent ?? node).join('');
      const calls = [['mystery', '{"undefined":"x"}'], ['mystery', 'null'], ['kv_delete', '{"key":null}'], ['kv_delete', '{"key":{"toString":1}}'], ['constructor', '{}'], ['kv_set', '{"key":"a","value":', ''], ['kv_set', '{"key":"a","value":"b"}', 'mine']];
      for (const server of ['constructor', '__proto__', 'toString']) request({ tool: 'x', server, payload: '{}' });
      return calls.map((call) => text(wish(...call)));
    });
    assert.deepEqual(said, ['Run mystery', 'Run mystery', 'Run kv_delete', 'Forget what is under “{"toString":1}”', 'Run constructor', 'Run kv_set', 'Run kv_set of the tool server mine']);
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
    await button(page, 'Allow once').waitFor();
    await page.waitForURL(/#\/chat\/./);
    const phone = await open({ where: '/' + new URL(page.url()).hash, viewport: { width: 390, height: 780 } });
    await button(phone, 'Allow once').click();
    await settled(page);
    await settled(phone);
    for (const each of [page, phone]) await button(each, 'Allow once').waitFor({ state: 'detached' });
    assert.equal(await stored(hub, 'second'), 'hello');
  },

  async 'approval: it waits through a reload and a killed hub'({ open, hub }) {
    if (hub.external) return 'skipped';
    const page = await open();
    await connected(page);
    await ask(page, WISH('patient'));
    await button(page, 'Allow once').waitFor();
    await hub.kill();
    await hub.revive();
    await page.reload();
    await connected(page);
    await button(page, 'Allow once').click();
    await settled(page);
    assert.equal(await stored(hub, 'patient'), 'hello');
  },

  async 'approval: where WebSockets are blocked, it is asked and decided all the same'({ open, hub }) {
    if (hub.external) return 'skipped';
    const page = await open({ where: '/auth/config', viewport: { width: 360, height: 740 } });
    await page.addInitScript(() => {
      const Real = window.WebSocket;
      // The handshake is refused, as a proxy that knows no upgrades does.
      window.WebSocket = class extends Real { constructor(url) { super(url.replace('/api/v1/ws', '/api/v1/nothing')); } };
    });
    await page.goto(new URL('/#/chat', page.url()).href);
    await page.locator('.line[data-state=sse]').waitFor({ state: 'attached', timeout: 60000 });
    await ask(page, WISH('http'));
    await button(page, 'Allow once').click();
    await settled(page);
    assert.equal(await stored(hub, 'http'), 'hello');
    assert.match(await answers(page).last().textContent(), /The tool said: \{"ok":true\}/);
    assert.equal(await answers(page).count(), 1);
  },

  async 'approval: allowed for this chat, the next call does not ask'({ open, hub }) {
    const page = await open();
    await connected(page);
    await ask(page, WISH('one'));
    await button(page, 'Allow kv_set for 15 min in this chat').click();
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
