import assert from 'node:assert/strict';
import { Hub, shot } from './hub.mjs';
import { startModel } from './model.mjs';
import { answers, ask, connected, countedTo, eventually, linesSeen, messageBox, settled } from './steps.mjs';

// Questions and answers in this order, none lost and none doubled.
const stands = (page, kinds) => eventually(async () => assert.equal(await page.locator('.messages > li').evaluateAll((list) => list.map((el) => (el.classList.contains('user') ? 'q' : 'a')).join('')), kinds));

// What happens to an answer when the line, the page or the hub goes away in the middle of it.
const tests = {
  async 'streaming: text grows while it arrives'({ model, open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 40, wait at 5');
    await linesSeen(page, 5);
    assert.equal(await answers(page).last().locator('.md li').count(), 5);
    await model.go();
    await settled(page);
    await countedTo(page, 40);
  },

  async 'phone: a long answer is read from its beginning, and followed when somebody asks for it'({ model, open }) {
    const page = await open({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await connected(page);
    await ask(page, 'count to 5');
    await settled(page);
    await ask(page, 'count to 90, wait at 40 60 80');
    const at = () => page.locator('.scroll').evaluate((el) => ({ top: el.querySelector('.msg.user:nth-last-child(2)').getBoundingClientRect().top - el.getBoundingClientRect().top, left: el.scrollHeight - el.scrollTop - el.clientHeight }));
    await linesSeen(page, 40);
    await eventually(async () => {
      const early = await at();
      assert.ok(early.top >= 0 && early.top < 40 && early.left > 60, `the question is at ${early.top}, ${early.left} below`);
    });
    await page.getByRole('button', { name: 'Latest' }).tap();
    await model.go();
    await linesSeen(page, 60);
    await eventually(async () => assert.ok((await at()).left < 60, 'it does not follow'));
    // Whoever scrolls up is left alone.
    await page.locator('.scroll').evaluate((el) => { el.scrollTop -= 300; });
    await eventually(async () => assert.ok((await at()).left > 250));
    await model.go();
    await linesSeen(page, 80);
    assert.ok((await at()).left > 250, 'it follows somebody who reads');
    await model.go();
    await settled(page);
    await page.getByRole('button', { name: 'Latest' }).tap();
    await page.waitForFunction(() => document.querySelector('.jump').hidden);
    await page.reload();
    await settled(page);
    await eventually(async () => {
      const again = await at();
      assert.ok(again.top >= 0 && again.top < 40, `after a reload the question is at ${again.top}`);
    });
  },

  async 'a question from elsewhere: who reads at the end sees it and the beginning of its answer'({ hub, open }) {
    const page = await open({ viewport: { width: 360, height: 740 } });
    await connected(page);
    await ask(page, 'count to 40');
    await settled(page);
    await page.getByRole('button', { name: 'Latest' }).click();
    await hub.send('POST', '/api/v1/chat', { session_id: page.url().split('/chat/')[1], message: 'count to 50' });
    await page.waitForFunction(() => document.querySelectorAll('.msg.user').length === 2);
    await settled(page);
    await eventually(async () => {
      const top = await page.locator('.msg.user').last().evaluate((el) => el.getBoundingClientRect().top - el.closest('.scroll').getBoundingClientRect().top);
      assert.ok(top >= -60 && top < 100, `the question is at ${top}`);
    });
  },

  async 'reload in the middle of an answer shows the rest'({ model, open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 120, wait at 20');
    await linesSeen(page, 20);
    await page.reload();
    await linesSeen(page, 20);
    assert.equal(await page.locator('.msg.assistant.live').count(), 1);
    await model.go();
    await settled(page);
    await countedTo(page, 120);
    await stands(page, 'qa');
  },

  async 'reload in the second answer doubles nothing of the first'({ model, open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 5');
    await settled(page);
    await ask(page, 'count to 100, wait at 10');
    await linesSeen(page, 10);
    await page.reload();
    await model.go();
    await settled(page);
    await countedTo(page, 100);
    await stands(page, 'qaqa');
  },

  async 'two windows see the same answer'({ model, open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 80, wait at 6');
    await linesSeen(page, 6);
    const other = await open({ where: '/' + new URL(page.url()).hash });
    await linesSeen(other, 6);
    await model.go();
    await settled(page);
    await settled(other);
    await countedTo(page, 80);
    await countedTo(other, 80);
    await ask(page, 'count to 6');
    await settled(page);
    await stands(other, 'qaqa');
    await settled(other);
    await countedTo(other, 6);
  },

  async 'two windows: an answer that is stored before its end is told stands there once'({ open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 3');
    await settled(page);
    const other = await open({ where: '/auth/config' });
    // From the first frame that `late` fits, the frames are held back.
    let late = null;
    const held = [];
    await other.routeWebSocket('**/api/v1/ws*', (socket) => {
      socket.connectToServer().onMessage((frame) => { if (held.length || late?.(JSON.parse(frame))) held.push(() => socket.send(frame)); else socket.send(frame); });
    });
    await other.goto(page.url());
    await connected(other);
    await answers(other).first().waitFor();
    for (const [n, from] of [[5, (frame) => frame.type === 'done'], [6, (frame) => /line 4/.test(frame.text)]]) {
      late = from;
      // The list of messages is asked for when the answer is stored, and is there before the end of the answer is.
      const listed = new Promise((done) => {
        other.route('**/messages', async (route) => {
          await settled(page);
          await route.fulfill({ response: await route.fetch() });
          done();
        });
      });
      await ask(page, `count to ${n}`);
      await listed;
      await other.unrouteAll({ behavior: 'wait' });
      await other.waitForFunction((asked) => document.querySelectorAll('.msg.user').length === asked, n - 3);
      assert.equal(await other.locator('.msg.assistant.live').count(), 1);
      late = null;
      for (const send of held.splice(0)) send();
      await settled(other);
      await stands(other, 'qa'.repeat(n - 3));
      await countedTo(other, n);
    }
  },

  async 'two windows: a list of messages that comes late takes no answer away'({ open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 3');
    await settled(page);
    const other = await open({ where: '/' + new URL(page.url()).hash });
    await connected(other);
    await answers(other).first().waitFor();
    let late;
    const seen = new Promise((done) => { late = done; });
    await other.route('**/messages', async (route) => {
      const response = await route.fetch();
      await settled(page);
      await other.waitForFunction(() => !document.querySelector('.msg.assistant.live'));
      await route.fulfill({ response });
      late();
    });
    await ask(page, 'count to 40');
    await seen;
    await other.waitForFunction(() => document.querySelectorAll('.msg.user').length === 2);
    await stands(other, 'qaqa');
    await countedTo(other, 40);
  },

  async 'network gone in the middle: the answer resumes, nothing lost or doubled'({ model, open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 200, wait at 10 150');
    await linesSeen(page, 10);
    await page.context().setOffline(true);
    await page.locator('.line:not([data-state=open])').waitFor();
    await model.go();
    await page.context().setOffline(false);
    await model.go();
    await connected(page);
    await settled(page);
    await countedTo(page, 200);
    await stands(page, 'qa');
  },

  async 'hub killed in the middle: what came stays, the end is told, the next question works'({ hub, open }) {
    if (hub.external) return 'skipped';
    const page = await open();
    await connected(page);
    await ask(page, 'count to 300, wait at 20');
    await linesSeen(page, 20);
    await hub.kill();
    await page.locator('.line:not([data-state=open])').waitFor();
    const before = await answers(page).last().locator('.md li').count();
    await hub.revive();
    await connected(page);
    await page.locator('.ending', { hasText: 'stopped in the middle of this answer' }).waitFor();
    await shot(page, 'interrupted');
    const lines = await answers(page).last().locator('.md li').allTextContents();
    assert.ok(lines.length >= before - 1, 'text that was shown is gone');
    assert.equal(new Set(lines).size, lines.length, 'lines are doubled');
    await ask(page, 'count to 4');
    await settled(page);
    await countedTo(page, 4);
    await stands(page, 'qaqa');
  },

  async 'typed while the hub is away: sent once when it is back, even after a reload'({ hub, open }) {
    if (hub.external) return 'skipped';
    const page = await open();
    await connected(page);
    await ask(page, 'count to 2');
    await settled(page);
    await hub.kill();
    await page.locator('.line[data-state=offline]').waitFor();
    assert.match(await page.locator('.line').innerText(), /^Offline, last seen \d+:\d+/);
    await ask(page, 'count to 3');
    await page.getByText('Waits for the connection').waitFor();
    await shot(page, 'waiting');
    await hub.revive();
    await connected(page);
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 2);
    await settled(page);
    await countedTo(page, 3);
    await stands(page, 'qaqa');
    await page.reload();
    await settled(page);
    await stands(page, 'qaqa');
  },

  async 'stop ends an answer and keeps what came'({ open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 400, wait at 10');
    await linesSeen(page, 10);
    await page.getByRole('button', { name: 'Stop the answer' }).click();
    await page.locator('.ending', { hasText: 'Stopped.' }).waitFor();
    await settled(page);
    const lines = await answers(page).last().locator('.md li').count();
    assert.ok(lines >= 9 && lines < 400, `${lines} lines`);
    await ask(page, 'count to 3');
    await settled(page);
    await countedTo(page, 3);
  },

  async 'a second question waits in line'({ model, open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'count to 60, wait at 5');
    await linesSeen(page, 5);
    await ask(page, 'count to 7');
    await page.getByText('In line').waitFor();
    await model.go();
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 2);
    await settled(page);
    await countedTo(page, 7);
    await stands(page, 'qaqa');
  },

  async 'without a WebSocket the answer still streams'({ model, open }) {
    const page = await open({ where: '/auth/config' });
    await page.addInitScript(() => {
      window.WebSocket = class { constructor() { setTimeout(() => this.onclose?.({ code: 1006 }), 5); } send() {} close() {} };
    });
    await page.goto(new URL('/#/chat', page.url()).href);
    await page.locator('.line[data-state=sse]').waitFor({ state: 'attached', timeout: 60000 });
    await ask(page, 'count to 60, wait at 5');
    await linesSeen(page, 5);
    assert.equal(await answers(page).last().locator('.md li').count(), 5);
    await page.reload();
    await linesSeen(page, 5);
    await model.go();
    await settled(page);
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant .md li').length === 60);
    await countedTo(page, 60);
    await stands(page, 'qa');
    await page.locator('.line[data-state=sse]').waitFor({ state: 'attached', timeout: 60000 });
    await ask(page, 'count to 300, wait at 5');
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 2);
    await linesSeen(page, 5);
    await page.getByRole('button', { name: 'Stop the answer' }).click();
    await page.locator('.ending', { hasText: 'Stopped.' }).waitFor();
    assert.ok(await messageBox(page).isEnabled());
  },
};

export default {
  name: 'line',
  async before() {
    const model = await startModel(25);
    const hub = await Hub.start(`[llm]\ndefault_provider = "openai"\ndefault_model = "scripted"\ncost_limit_hard = 100.0\n\n[llm.openai]\napi_key = "scripted"\nbase_url = "${model.baseUrl}"\n`);
    return { hub, model };
  },
  async after({ hub, model }) {
    await hub.close();
    model.close();
  },
  tests,
};
