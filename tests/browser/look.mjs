import assert from 'node:assert/strict';
import { Hub, shot } from './hub.mjs';
import { ask, connected, eventually, messageBox, noSideways, settled } from './steps.mjs';

const PHONE = { viewport: { width: 320, height: 568 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

// The lightness of what is really behind the text.
const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

const tests = {
  async 'phone, 320 px: nothing scrolls sideways, targets are big enough'({ open }) {
    const page = await open(PHONE);
    await connected(page);
    await noSideways(page);
    await shot(page, 'phone-empty');
    await page.getByRole('button', { name: 'How is this machine doing?' }).tap();
    await settled(page);
    await noSideways(page);
    await shot(page, 'phone-answer');
    await page.locator('.steps > summary').tap();
    await noSideways(page);
    const small = await page.evaluate(() => [...document.querySelectorAll('.chat-main button, .top button, .top a, .tabs > *, .chat-main .btn, .chat-main textarea, .chat-main select')]
      .map((el) => ({ name: el.className || el.tagName, box: el.getBoundingClientRect() }))
      .filter(({ name, box }) => box.width && !name.includes('copy') && (box.height < 44 || box.width < 44)).map(({ name, box }) => `${name} ${box.width}x${box.height}`));
    assert.deepEqual(small, []);
    assert.ok(await messageBox(page).evaluate((el) => parseFloat(getComputedStyle(el).fontSize) >= 16), 'a smaller font zooms on focus');
    const composer = await page.locator('.composer').boundingBox();
    assert.ok(composer.y + composer.height <= 568, 'the message box is below the fold');
  },

  async 'phone: the list is a drawer that takes and gives back the focus'({ open }) {
    const page = await open({ ...PHONE, viewport: { width: 360, height: 640 } });
    await connected(page);
    await ask(page, 'How is this machine doing?');
    await settled(page);
    const side = page.locator('.side');
    assert.equal(await side.evaluate((el) => el.inert), true);
    await page.getByRole('button', { name: 'Open the list of chats' }).tap();
    await page.locator('.side.open').waitFor();
    await eventually(async () => assert.ok(await page.evaluate(() => document.querySelector('.side').contains(document.activeElement))));
    await shot(page, 'phone-drawer');
    await page.keyboard.press('Escape');
    await page.locator('.side:not(.open)').waitFor({ state: 'attached' });
    await eventually(async () => assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Open the list of chats'));
    await page.getByRole('button', { name: 'Open the list of chats' }).tap();
    await page.locator('.convs a').first().tap();
    await page.locator('.side:not(.open)').waitFor({ state: 'attached' });
  },

  async 'dark mode follows the device, and can be chosen'({ open }) {
    const page = await open({ colorScheme: 'dark' });
    await connected(page);
    const dark = await background(page);
    await ask(page, 'How is this machine doing?');
    await settled(page);
    await page.locator('.steps > summary').click();
    await shot(page, 'answer-dark');
    const button = page.getByRole('button', { name: /^Theme/ });
    await button.click();
    await eventually(async () => assert.notEqual(dark, await background(page)));
    const light = await background(page);
    await page.reload();
    await connected(page);
    assert.equal(await background(page), light, 'the choice is forgotten');
    await button.click();
    await eventually(async () => assert.equal(await background(page), dark));
  },

  async 'text has enough contrast in both themes'({ open }) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await open({ colorScheme });
      await connected(page);
      await ask(page, 'How is this machine doing?');
      await settled(page);
      await page.locator('.steps > summary').click();
      const poor = await page.evaluate(() => {
        const parse = (color) => (color.match(/[\d.]+/g) || []).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (el) => {
          for (let each = el; each; each = each.parentElement) {
            const color = parse(getComputedStyle(each).backgroundColor);
            if (color.length === 3 || color[3] > 0.99) return color;
          }
          return [255, 255, 255];
        };
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const found = [];
        while (texts.nextNode()) {
          const el = texts.currentNode.parentElement;
          if (!texts.currentNode.data.trim() || !el.getClientRects().length || el.closest('.sr, :disabled')) continue;
          const [a, b] = [light(parse(getComputedStyle(el).color)), light(behind(el))];
          const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (ratio < 4.5) found.push(`${el.tagName}.${el.className} ${ratio.toFixed(2)} ${texts.currentNode.data.trim().slice(0, 30)}`);
        }
        return found;
      });
      assert.deepEqual(poor, [], colorScheme);
    }
  },

  async 'right to left: the page mirrors without sideways scrolling'({ open }) {
    const page = await open();
    await connected(page);
    await page.evaluate(() => { document.documentElement.dir = 'rtl'; });
    await ask(page, 'How is this machine doing?');
    await settled(page);
    await eventually(async () => assert.ok((await page.locator('.nav').boundingBox()).x > 500, 'the list stays on the left'));
    await noSideways(page);
    await shot(page, 'rtl');
  },
};

export default {
  name: 'look',
  before: async () => ({ hub: await Hub.start() }),
  after: ({ hub }) => hub.close(),
  tests,
};
