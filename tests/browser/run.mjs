// Runs every test, one after the other, and prints `N passed, N failed` last, with how many needed a second try.
import { Browser, shot } from './hub.mjs';

const wanted = process.argv[2] || '';
const suites = await Promise.all(['./markdown.mjs', './account.mjs', './chat.mjs', './approvals.mjs', './admin.mjs', './agents.mjs', './machines.mjs', './pages.mjs', './line.mjs', './look.mjs', './tools.mjs', './states.mjs'].map((name) => import(name)));
let passed = 0;
let late = 0;
let failed = 0;
let skipped = 0;
const browser = await Browser.start();

// Something that a busy machine may spoil once: the second try begins with nothing of the first.
async function build(suite) {
  if (!suite.before) return {};
  try { return await suite.before(); } catch (error) {
    console.log(`again ${suite.name}: ${error.stack || error}`);
    return suite.before();
  }
}

async function leave(suite, world) {
  if (suite.after) await suite.after(world).catch((error) => console.log(String(error)));
}

// What went wrong, or null; 'skipped' for a test that cannot run here.
async function attempt(name, test, world) {
  const pages = [];
  const open = async (options) => { const page = await browser.page(world.hub, options); pages.push(page); return page; };
  try {
    const result = await test({ ...world, open });
    const complaints = pages.flatMap((page) => page.complaints);
    if (complaints.length) throw new Error(`the page complained:\n${complaints.join('\n')}`);
    return result === 'skipped' ? result : null;
  } catch (error) {
    for (const page of pages) await shot(page, 'fail-' + name.replace(/\W+/g, '-')).catch(() => {});
    return error;
  } finally {
    for (const page of pages) {
      await page.unrouteAll({ behavior: 'ignoreErrors' }).catch(() => {});
      await page.context().close().catch(() => {});
    }
  }
}

for (const { default: suite } of suites) {
  const tests = Object.entries(suite.tests).filter(([name]) => name.includes(wanted));
  if (!tests.length) continue;
  let world = null;
  const done = passed + failed + skipped;
  try {
    world = await build(suite);
    for (const [name, test] of tests) {
      // Every failure gets a second try, on a hub of its own, and is told of: what never passes fails.
      for (const again of [false, true]) {
        const started = Date.now();
        const error = await attempt(name, test, world);
        if (error === 'skipped') { skipped += 1; console.log(`skip  ${name}`); break; }
        if (!error) {
          passed += 1;
          if (again) late += 1;
          console.log(`ok    ${name} (${Date.now() - started} ms${again ? ', second try' : ''})`);
          break;
        }
        console.log(`${again ? 'FAIL ' : 'again'} ${name}\n${String(error.stack || error).replace(/^/gm, '      ')}`);
        if (world.hub?.log) console.log(world.hub.log.split('\n').slice(-8).join('\n').replace(/^/gm, '      | '));
        if (again) failed += 1;
        await leave(suite, world);
        world = null;
        world = await build(suite);
      }
    }
  } catch (error) {
    failed += tests.length - (passed + failed + skipped - done);
    console.log(`FAIL  ${suite.name}: ${error.stack || error}`);
  }
  if (world) await leave(suite, world);
}
await browser.close();
if (skipped) console.log(`${skipped} skipped`);
console.log(`${passed} passed${late ? ` (${late} at the second try)` : ''}, ${failed} failed`);
process.exit(failed ? 1 : 0);
