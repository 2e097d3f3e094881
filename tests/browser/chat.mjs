import assert from 'node:assert/strict';
import { Hub, keep, shot } from './hub.mjs';
import { answers, ask, connected, eventually, messageBox, noSideways, questions, settled } from './steps.mjs';

const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };
const open_list = (page) => page.getByRole('button', { name: 'Open the list of chats' }).tap();

// With the built-in `local` agent: no key, no network.
const tests = {
  async 'a question about the machine runs tools and is answered'({ open }) {
    const page = await open();
    await connected(page);
    await page.getByRole('button', { name: 'How is this machine doing?' }).click();
    await page.locator('.step').first().waitFor();
    await settled(page);
    assert.ok(page.url().includes('#/chat/'), 'the chat has an address');
    const tools = await page.locator('.step code').allTextContents();
    assert.ok(tools.some((tool) => tool.startsWith('host_')), `tools: ${tools}`);
    assert.equal(await page.locator('.step[data-state=running]').count(), 0);
    assert.ok((await answers(page).last().locator('.md').innerText()).length > 20);
    await page.locator('.steps > summary').click();
    await shot(page, 'answer-light');
    await keep(page, 'chat');
    await page.locator('.step > summary').first().click();
    await page.locator('.step-body').first().waitFor();
  },

  async 'phone: the built-in agent asks before it remembers, remembers, and is asked back'({ hub, open }) {
    const page = await open(PHONE);
    await connected(page);
    await ask(page, 'Please remember that the door code is 1234.');
    await page.locator('.says', { hasText: 'Remember under “door-code”: 1234' }).waitFor();
    const allow = page.getByRole('button', { name: 'Allow once' });
    await allow.waitFor();
    await page.waitForFunction(() => { const box = document.querySelector('.ask').getBoundingClientRect(); return box.bottom < document.querySelector('.composer').getBoundingClientRect().top; });
    await noSideways(page);
    await shot(page, 'phone-remember');
    await allow.tap();
    await settled(page);
    assert.equal(await answers(page).last().locator('.md').innerText(), 'I will remember it: door-code is 1234.');
    assert.equal((await hub.get('/api/v1/kv/default/door-code')).value, '1234');
    await ask(page, "What's the door code?");
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 2);
    await settled(page);
    assert.equal(await answers(page).last().locator('.md').innerText(), 'door-code is 1234.');
    await ask(page, 'forget the door code');
    await page.locator('.tabs').getByRole('link', { name: /^Approvals/ }).tap();
    await page.getByRole('heading', { name: 'Forget what is under “door-code”' }).waitFor();
    await page.getByRole('button', { name: 'Deny' }).tap();
    await page.getByRole('link', { name: 'Try it' }).waitFor();
    // The way back leads to the chat that was open.
    await page.locator('.tabs').getByRole('link', { name: 'Chat' }).tap();
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 3);
    await settled(page);
    assert.match(await answers(page).last().locator('.md').innerText(), /^I still remember door-code, because it was not allowed/);
    await ask(page, 'do you remember the **door code**?');
    await page.waitForFunction(() => document.getElementById('say').textContent === 'door-code is 1234.');
    await page.locator('.tabs').getByRole('link', { name: 'Chat' }).tap();
    await page.getByText('What would you like to know?').waitFor();
  },

  async 'everything is stopped: said in the chat, messages wait and go on by themselves when it is over'({ hub, open }) {
    const page = await open(PHONE);
    const other = await open({ where: '/#/schedules' });
    await connected(page);
    await connected(other);
    await page.getByRole('button', { name: /^More/ }).tap();
    await page.getByRole('dialog').getByRole('button', { name: 'Stop everything' }).tap();
    await page.getByRole('dialog', { name: 'Stop everything?' }).getByRole('button', { name: 'Stop everything' }).tap();
    const resume = page.locator('.stopped').getByRole('button', { name: 'Resume' });
    await resume.waitFor();
    await ask(page, 'What uses the most memory?');
    await page.getByText('Waits until everything resumes').waitFor();
    assert.ok(!/holt resume|POST/.test(await page.locator('.chat-main').innerText()));
    await noSideways(page);
    await shot(page, 'phone-stopped');
    await page.reload();
    await page.getByText('Waits until everything resumes').waitFor();
    await other.evaluate(() => document.dispatchEvent(new Event('visibilitychange'))); // as when somebody comes back to it
    await other.locator('.stopped').getByRole('button', { name: 'Resume' }).waitFor();
    await resume.tap();
    await settled(page);
    assert.equal(await questions(page).count(), 1);
    for (const each of [page, other]) await each.locator('.stopped').waitFor({ state: 'hidden' });
    assert.equal((await hub.get('/api/v1/panic')).panicked, false);
  },

  async 'phone: a message that is refused leaves no empty chat behind, and can be sent again'({ open }) {
    const page = await open({ ...PHONE, where: '/auth/config' });
    await page.addInitScript(() => {
      window.WebSocket = class { constructor() { setTimeout(() => this.onclose?.({ code: 1006 }), 5); } send() {} close() {} };
    });
    let full = true;
    await page.route('**/api/v1/chat', (route) => (full ? route.fulfill({ status: 507, contentType: 'application/json', body: '{"error":"the disk is full"}' }) : route.continue()));
    await page.goto(new URL('/#/chat', page.url()).href);
    await page.locator('.line[data-state=sse]').waitFor({ state: 'attached', timeout: 60000 });
    await ask(page, 'Is a disk filling up?');
    await page.locator('.status', { hasText: 'the disk is full' }).waitFor();
    await open_list(page);
    await page.locator('.side.open').waitFor();
    assert.equal(await page.locator('.convs li', { hasText: 'New chat' }).count(), 0);
    await page.keyboard.press('Escape');
    await page.reload();
    await page.locator('.status', { hasText: 'the disk is full' }).waitFor();
    await ask(page, 'Which one?');
    await page.locator('.status', { hasText: 'the disk is full' }).nth(1).waitFor();
    await messageBox(page).fill('And since when?');
    // Elsewhere all of it is back in the box for a new chat.
    await page.evaluate(() => { location.hash = '#/chat'; });
    await page.getByText('What would you like to know?').waitFor();
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), 'Is a disk filling up?\n\nWhich one?\n\nAnd since when?'));
    await messageBox(page).press('Enter');
    await page.locator('.status', { hasText: 'the disk is full' }).waitFor();
    full = false;
    await page.getByRole('button', { name: 'Try again' }).tap();
    await settled(page);
    assert.equal(await questions(page).count(), 1);
    assert.equal(await messageBox(page).inputValue(), '');
  },

  async 'phone: long titles are cut and whole in their tooltip, toasts leave the message box free'({ hub, open }) {
    const title = 'Is the disk of the machine in the cellar behind the washing machine full?';
    const made = await hub.send('POST', '/api/v1/chat', { message: title });
    const page = await open({ ...PHONE, where: '/#/chat/' + made.session_id });
    await answers(page).first().waitFor();
    const heading = page.locator('.top h1');
    await page.waitForFunction((text) => { const el = document.querySelector('.top h1'); return el.title === text && el.textContent === text; }, await heading.textContent());
    await eventually(async () => assert.ok(await heading.evaluate((el) => el.scrollWidth > el.clientWidth), 'the title is not cut'));
    await page.evaluate(async () => { (await import(document.querySelector('script[src]').src.replace('app.js', 'ui.js'))).toast('Something happened that takes a whole sentence to tell.'); });
    const [toast, composer] = await page.evaluate(() => ['.toast', '.composer'].map((name) => document.querySelector(name).getBoundingClientRect().toJSON()));
    assert.ok(toast.bottom <= composer.top || toast.top >= composer.bottom, 'a toast lies over the message box');
    await noSideways(page);
  },

  async 'a stored chat opens again, once, with its title in the list'({ open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'What uses the most memory?');
    await settled(page);
    const text = await answers(page).last().locator('.md').innerText();
    await page.reload();
    await settled(page);
    assert.equal(await questions(page).count(), 1);
    assert.equal(await answers(page).count(), 1);
    assert.equal(await answers(page).last().locator('.md').innerText(), text);
    await page.locator('.side a.new').click();
    await page.getByText('What would you like to know?').waitFor();
    await page.goBack();
    await answers(page).first().waitFor();
    await page.locator('.convs li.here').waitFor();
    assert.equal(await page.locator('.convs li.here').count(), 1);
  },

  async 'drafts stay with their chat'({ open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'Is a disk filling up?');
    await settled(page);
    await messageBox(page).fill('half a thought');
    await page.locator('.side a.new').click();
    await page.getByText('What would you like to know?').waitFor();
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), ''));
    await page.goBack();
    await answers(page).first().waitFor();
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), 'half a thought'));
    await page.reload();
    await answers(page).first().waitFor();
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), 'half a thought'));
  },

  async 'a question is edited and asked again'({ open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'What uses the most memory?');
    await settled(page);
    await questions(page).last().hover();
    await questions(page).last().getByRole('button', { name: 'Edit and ask again' }).click();
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), 'What uses the most memory?'));
    await messageBox(page).fill('What uses the most processor?');
    await messageBox(page).press('Enter');
    await page.waitForFunction(() => document.querySelectorAll('.msg.assistant').length === 2);
    await settled(page);
    await messageBox(page).press('ArrowUp');
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), 'What uses the most processor?'));
    await messageBox(page).fill('');
  },

  async 'chats are searched, and what another device asked is unread until it is opened'({ hub, open }) {
    for (const message of ['What uses the most memory?', 'How is this machine doing?']) await hub.send('POST', '/api/v1/chat', { message });
    const page = await open();
    await connected(page);
    await page.locator('.convs li').first().waitFor();
    assert.equal(await page.locator('.convs li.unread').count(), 0, 'old chats are unread at the first look');
    const made = await hub.send('POST', '/api/v1/chat', { message: 'Is the pantry full of herrings?' });
    await page.getByRole('link', { name: 'Home' }).click();
    await page.getByRole('link', { name: 'Chat', exact: true }).click();
    const row = page.locator('.convs li.unread', { hasText: 'herrings' });
    await row.waitFor();
    await page.getByLabel('Search chats').fill('HERRING');
    await page.waitForFunction(() => document.querySelectorAll('.convs li').length === 1);
    await page.getByLabel('Search chats').fill('no chat is called this');
    await page.getByText('No chat has that in its title.').waitFor();
    await page.getByLabel('Search chats').fill('default threshold that nobody said');
    await page.getByRole('button', { name: 'Look inside the chats' }).click();
    await page.getByText('Nothing was found.').waitFor();
    await page.getByLabel('Search chats').fill('memory');
    const titled = page.locator('.convs li', { hasText: /memory/i });
    await titled.first().waitFor();
    await page.waitForFunction(() => [...document.querySelectorAll('.convs li')].every((el) => /memory/i.test(el.textContent)));
    const before = await page.locator('.convs li').count();
    await page.getByRole('button', { name: 'Look inside the chats' }).click();
    await page.waitForFunction((n) => document.querySelectorAll('.convs li').length > n, before);
    await page.getByLabel('Search chats').fill('');
    await row.getByRole('link').click();
    await answers(page).first().waitFor();
    await page.waitForFunction(() => !document.querySelector('.convs li.unread'));
    await page.reload();
    await answers(page).first().waitFor();
    assert.ok(page.url().includes(made.session_id));
    await page.locator('.convs li.here').waitFor();
    assert.equal(await page.locator('.convs li.unread').count(), 0);
  },

  async 'what is said is shown as text, never as markup'({ open }) {
    const page = await open();
    await connected(page);
    const text = '<img src=x onerror=alert(1)> **not bold** & <b>tags</b>';
    await ask(page, text);
    await settled(page);
    assert.equal(await questions(page).last().locator('.bubble').innerText(), text);
    assert.equal(await page.locator('.messages img, .messages b').count(), 0);
  },

  async 'a chat is deleted after a question'({ open }) {
    const page = await open();
    await connected(page);
    await ask(page, 'Any errors in the logs?');
    await settled(page);
    const id = page.url().split('/chat/')[1];
    const row = page.locator('.convs li.here');
    await row.waitFor();
    await row.hover();
    await row.getByRole('button').click();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await row.hover();
    await row.getByRole('button').click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByText('What would you like to know?').waitFor();
    await page.goto(page.url().split('#')[0] + '#/chat/' + id);
    await page.getByText('This chat is not here').waitFor();
  },

  async 'keyboard only: ask, stop at a step, reach the list'({ open }) {
    const page = await open();
    await connected(page);
    const focused = () => page.evaluate(() => document.activeElement.textContent || document.activeElement.getAttribute('aria-label') || document.activeElement.id);
    await page.waitForFunction(() => document.activeElement.id === 'message');
    await page.keyboard.type('How is this');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('machine doing?');
    await eventually(async () => assert.equal(await messageBox(page).inputValue(), 'How is this\nmachine doing?'));
    await page.keyboard.press('Enter');
    await settled(page);
    // Back from the message box lie the answer's steps.
    for (let i = 0; i < 30 && !(await page.evaluate(() => document.activeElement.matches('.steps > summary'))); i += 1) await page.keyboard.press('Shift+Tab');
    assert.ok(await page.evaluate(() => document.activeElement.matches('.steps > summary:focus-visible')), `focus is on ${await focused()}`);
    await page.keyboard.press('Enter');
    await page.locator('.step').first().waitFor();
    for (let i = 0; i < 40 && !(await page.evaluate(() => document.activeElement.matches('.new'))); i += 1) await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Enter');
    await page.getByText('What would you like to know?').waitFor();
  },
};

export default {
  name: 'chat',
  before: async () => ({ hub: await Hub.start() }),
  after: ({ hub }) => hub.close(),
  tests,
};
