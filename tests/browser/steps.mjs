// What a person does on the page, said once.
import assert from 'node:assert/strict';

export const messageBox = (page) => page.getByRole('textbox', { name: 'Message' });
export const answers = (page) => page.locator('.msg.assistant');
export const questions = (page) => page.locator('.msg.user');

export async function ask(page, text) {
  await messageBox(page).fill(text);
  await messageBox(page).press('Enter');
}

// Until nothing runs any more.
export async function settled(page) {
  await page.waitForFunction(() => document.querySelector('.msg.assistant') && !document.querySelector('.msg.assistant.live')
    && document.querySelector('.pane')?.getAttribute('aria-busy') === 'false', null, { timeout: 40000 });
}

export async function connected(page) {
  await page.locator('.line[data-state=open]').waitFor({ state: 'attached', timeout: 30000 });
}

// Every line of `count to N` is there exactly once, in order.
export async function countedTo(page, n) {
  const lines = await answers(page).last().locator('.md li').allTextContents();
  assert.deepEqual(lines.map((line) => line.trim()), Array.from({ length: n }, (_, i) => `line ${i + 1} of ${n}`));
}

export async function linesSeen(page, at_least) {
  await page.waitForFunction((n) => [...document.querySelectorAll('.msg.assistant')].at(-1)?.querySelectorAll('.md li').length >= n, at_least);
}

// Measured against the size that was asked for: a phone's layout grows with what does not fit.
export async function noSideways(page, where = 'the page') {
  const { width } = page.viewportSize();
  const wide = await page.evaluate((limit) => [...document.querySelectorAll('body *')]
    .filter((el) => !el.closest('.sr, pre, .table, .side:not(.open)') && el.getBoundingClientRect().width
      && (el.getBoundingClientRect().right > limit + 1 || el.getBoundingClientRect().left < -1))
    .map((el) => `${el.tagName}.${el.className}`), width);
  assert.deepEqual(wide, [], `${where} is wider than the window`);
  assert.equal(await page.evaluate(() => innerWidth), width, `the layout of ${where} is wider than the window`);
}

// To a page by the navigation, as people go there.
export async function go(page, title) {
  const link = page.getByRole('navigation', { name: 'Pages', exact: true }).getByRole('link', { name: new RegExp(`^${title}`) });
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
