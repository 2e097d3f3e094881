// A real machine: `holt agent`, joined to a hub.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { children } from './hub.mjs';

// What a check of it finds wrong: an alert that is there soon and stays.
export const ALERTING = "\n[[checks.procnum]]\nsearch = 'no such process anywhere'\ninterval = 1\n";

export class Machine {
  // code: of an invitation; one is made when there is none.
  static start(hub, { code, name = 'pi-garage', config = '' } = {}) {
    const machine = new Machine();
    machine.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holt-machine-'));
    fs.writeFileSync(path.join(machine.dir, 'agent.toml'), `[global.labels]\nfrom_hostname = "${name}"\n${config}`);
    const join = code || /hj_[\w-]+/.exec(execFileSync(process.env.HOLT_BIN, ['machines', 'join', '--data-dir', hub.dir, '--url', hub.url], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))[0];
    machine.child = spawn(process.env.HOLT_BIN, ['agent', '--hub', hub.url, '--join', join, '--data-dir', machine.dir], { stdio: 'ignore' });
    children.add(machine.child);
    machine.child.once('exit', () => children.delete(machine.child));
    return machine;
  }

  async stop(signal = 'SIGTERM') {
    const { child } = this;
    if (child.exitCode !== null || child.signalCode) return;
    const gone = new Promise((done) => child.once('exit', done));
    child.kill(signal);
    await gone;
  }

  async close() {
    await this.stop('SIGKILL');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

// The list of machines, once `n` are connected.
export async function machines(hub, n = 1) {
  for (let i = 0; i < 600; i += 1) {
    const list = (await hub.get('/api/v1/machines')).machines.filter((machine) => machine.connected);
    if (list.length >= n) return list;
    await new Promise((later) => setTimeout(later, 100));
  }
  throw new Error('no machine came');
}

// Until the hub answers something that fits.
export async function until(hub, where, fits) {
  for (let i = 0; i < 600; i += 1) {
    const answer = await hub.get(where);
    if (fits(answer)) return answer;
    await new Promise((later) => setTimeout(later, 100));
  }
  throw new Error(`${where} never became what was waited for`);
}
