// What a person does on the page, said once.
import assert from 'node:assert/strict';

export const messageBox = (page) => page.getByRole('textbox', { name: 'Message' });
export const answers = (page) => page.locator('.msg.assistant');
export const questions = (page) => page.locator('.msg.user');

// Asserts what the page or the hub gets to after a moment: tried again until it holds, for some seconds. Not for what
// must never happen: that passes at the first look.
export async function eventually(check, ms = 20000) {
  for (const end = Date.now() + ms; ;) {
    try { return await check(); } catch (error) { if (Date.now() > end) throw error; }
    await new Promise((later) => setTimeout(later, 50));
  }
}

export async function ask(page, text) {
  await messageBox(page).fill(text);
  await messageBox(page).press('Enter');
}

// Until nothing runs any more.
export async function settled(page) {
  await page.waitForFunction(() => document.querySelector('.msg.assistant') && !document.querySelector('.msg.assistant.live')
    && document.querySelector('.pane')?.getAttribute('aria-busy') === 'false', null, { timeout: 90000 });
}

export async function connected(page) {
  await page.locator('.line[data-state=open]').waitFor({ state: 'attached', timeout: 60000 });
}

// Every line of `count to N` is there exactly once, in order.
export async function countedTo(page, n) {
  await eventually(async () => {
    const lines = await answers(page).last().locator('.md li').allTextContents();
    assert.deepEqual(lines.map((line) => line.trim()), Array.from({ length: n }, (_, i) => `line ${i + 1} of ${n}`));
  });
}

export async function linesSeen(page, at_least) {
  await page.waitForFunction((n) => [...document.querySelectorAll('.msg.assistant')].at(-1)?.querySelectorAll('.md li').length >= n, at_least);
}

// Measured against the size that was asked for: a phone's layout grows with what does not fit.
export async function noSideways(page, where = 'the page') {
  const { width } = page.viewportSize();
  // What slides in or is drawn for the width it gets is in its place a moment later.
  await eventually(async () => {
    const wide = await page.evaluate((limit) => [...document.querySelectorAll('body *')]
      .filter((el) => !el.closest('.sr, pre, .table, .side:not(.open)') && el.getBoundingClientRect().width
        && (el.getBoundingClientRect().right > limit + 1 || el.getBoundingClientRect().left < -1))
      .map((el) => `${el.tagName}.${el.className}`), width);
    assert.deepEqual(wide, [], `${where} is wider than the window`);
    assert.equal(await page.evaluate(() => innerWidth), width, `the layout of ${where} is wider than the window`);
  }, 5000);
}

// To a page by the navigation, as people go there.
export async function go(page, title) {
  const link = page.getByRole('navigation', { name: 'Pages', exact: true }).getByRole('link', { name: new RegExp(`^${title}`) });
  await page.locator('.nav, .tabs').first().waitFor({ state: 'attached' });
  if (await link.count()) await link.first().click();
  else {
    await page.getByRole('button', { name: /^More/ }).click();
    await page.getByRole('dialog').getByRole('link', { name: new RegExp(`^${title}`) }).click();
  }
  await page.locator('.top h1', { hasText: title }).waitFor();
}

// Everything that a page loads has come.
export async function loaded(page) {
  await page.waitForFunction(() => !document.querySelector('.outlet .loading, .outlet [aria-busy=true]') && document.querySelector('.outlet .page')?.childElementCount > 0);
}

// To an address of the page, by way of one that is nothing: what is looked at afterwards is surely the new page.
export async function visit(page, where) {
  for (const each of ['nowhere', where]) {
    await page.evaluate((hash) => {
      document.querySelector('.outlet > .page')?.setAttribute('data-left', '');
      location.hash = hash;
    }, '#/' + each);
    await page.locator('.outlet > .page:not([data-left])').waitFor({ state: 'attached' });
  }
}
