import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Hub, shot } from './hub.mjs';
import { answers, ask, connected, settled } from './steps.mjs';

// A real machine: `holt agent`, joined with a code from the command line.
const tests = {
  async 'a machine that joins can be asked, and says when it is away'({ hub, open }) {
    const joined = execFileSync(process.env.HOLT_BIN, ['machines', 'join', '--data-dir', hub.dir, '--url', hub.url], { encoding: 'utf8' });
    const code = /hj_[\w-]+/.exec(joined)[0];
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holt-machine-'));
    fs.writeFileSync(path.join(dir, 'agent.toml'), '[global.labels]\nfrom_hostname = "pi-garage"\n');
    const agent = spawn(process.env.HOLT_BIN, ['agent', '--hub', hub.url, '--join', code, '--data-dir', dir], { stdio: 'ignore' });
    try {
      const page = await open();
      await connected(page);
      const pick = page.getByLabel('Agent');
      // The list is asked for whenever a new chat begins.
      for (let i = 0; i < 50 && !(await pick.innerText().catch(() => '')).includes('pi-garage'); i += 1) {
        await page.goto(hub.url + '/#/chat/none');
        await page.goto(hub.url + '/#/chat');
        await page.waitForTimeout(100);
      }
      await pick.selectOption({ label: 'pi-garage' });
      await ask(page, 'How is this machine doing?');
      await settled(page);
      assert.ok((await answers(page).last().locator('.md').innerText()).includes('memory'));
      assert.ok(await page.locator('.step code').first().isVisible() || await page.locator('.steps > summary').isVisible());
      await shot(page, 'machine');
      const gone = new Promise((done) => agent.once('exit', done));
      agent.kill('SIGTERM');
      await gone;
      await ask(page, 'Still there?');
      await page.getByText('pi-garage', { exact: false }).last().waitFor();
    } finally {
      agent.kill('SIGKILL');
      fs.rmSync(dir, { recursive: true, force: true });
    }
  },
};

export default {
  name: 'machines',
  async before() { return { hub: await Hub.start() }; },
  after: ({ hub }) => hub.close(),
  tests,
};
