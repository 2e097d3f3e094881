// Runs every test, one after the other, and prints `N passed, N failed` last.
import { Browser, shot } from './hub.mjs';

const wanted = process.argv[2] || '';
const suites = await Promise.all(['./markdown.mjs', './account.mjs', './chat.mjs', './approvals.mjs', './admin.mjs', './agents.mjs', './machines.mjs', './pages.mjs', './line.mjs', './look.mjs', './tools.mjs', './states.mjs'].map((name) => import(name)));
let passed = 0;
let failed = 0;
let skipped = 0;
const browser = await Browser.start();

for (const { default: suite } of suites) {
  const tests = Object.entries(suite.tests).filter(([name]) => name.includes(wanted));
  if (!tests.length) continue;
  let world = null;
  try {
    world = suite.before ? await suite.before() : {};
    for (const [name, test] of tests) {
      // What waits for a busy machine in vain gets a second try, and is told of: one that never passes fails.
      for (let again = false; ; again = true) {
        const started = Date.now();
        const pages = [];
        const open = async (options) => { const page = await browser.page(world.hub, options); pages.push(page); return page; };
        let isOver = true;
        try {
          const result = await test({ ...world, open });
          const complaints = pages.flatMap((page) => page.complaints);
          if (complaints.length) throw new Error(`the page complained:\n${complaints.join('\n')}`);
          if (result === 'skipped') { skipped += 1; console.log(`skip  ${name}`); } else { passed += 1; console.log(`ok    ${name} (${Date.now() - started} ms${again ? ', second try' : ''})`); }
        } catch (error) {
          isOver = again || !/Timeout/.test(String(error));
          if (isOver) failed += 1;
          console.log(`${isOver ? 'FAIL ' : 'again'} ${name}\n${String(error.stack || error).replace(/^/gm, '      ')}`);
          for (const page of pages) await shot(page, 'fail-' + name.replace(/\W+/g, '-')).catch(() => {});
          if (world.hub && world.hub.log) console.log(world.hub.log.split('\n').slice(-8).join('\n').replace(/^/gm, '      | '));
        }
        for (const page of pages) {
          await page.unrouteAll({ behavior: 'ignoreErrors' });
          await page.context().close();
        }
        if (isOver) break;
      }
    }
  } catch (error) {
    failed += tests.length;
    console.log(`FAIL  ${suite.name}: ${error.stack || error}`);
  } finally {
    if (world && suite.after) await suite.after(world).catch((error) => console.log(String(error)));
  }
}
await browser.close();
if (skipped) console.log(`${skipped} skipped`);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
