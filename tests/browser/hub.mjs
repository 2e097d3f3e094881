// Starts and restarts the real binary, and opens pages on it.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

export const PASSWORD = process.env.HOLT_PASSWORD || 'otters hold hands';
// Generous: nobody waits for it but a test that fails, and the machine may have much else to do.
const START_MS = 60000;
const STEP_MS = 30000;

// What this run has started and not ended yet: nothing of it stays behind.
export const children = new Set();
process.on('exit', () => { for (const child of children) child.kill('SIGKILL'); });

export class Hub {
  // config: text of holt.toml, or nothing.
  static async start(config) {
    const hub = new Hub();
    if (process.env.HOLT_URL) {
      hub.url = process.env.HOLT_URL;
      hub.pin = process.env.HOLT_PIN || '';
      return hub;
    }
    if (!process.env.HOLT_BIN) throw new Error('HOLT_BIN must name the holt binary (or HOLT_URL a running hub)');
    hub.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'holt-browser-'));
    if (config) fs.writeFileSync(path.join(hub.dir, 'holt.toml'), config);
    await hub.spawn('127.0.0.1:0');
    return hub;
  }

  get external() { return !this.dir; }

  async spawn(listen) {
    const env = { ...process.env };
    for (const name of Object.keys(env)) if (/^(HOLT|DENKEEPER)_/.test(name) && name !== 'HOLT_WEB_DIR') delete env[name];
    const child = spawn(process.env.HOLT_BIN, ['serve', '--listen', listen, '--data-dir', this.dir], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    children.add(child);
    child.once('exit', () => children.delete(child));
    this.log = '';
    const address = new Promise((ready, fail) => {
      const timer = setTimeout(() => fail(new Error(`no address within ${START_MS} ms:\n${this.log}`)), START_MS);
      const read = (chunk) => {
        this.log += chunk;
        const found = /listening on (http:\/\/[\w.:[\]]+)/.exec(this.log);
        this.pin = (/FIRST-RUN SETUP PIN.*?pin="?(\d{6})/.exec(this.log) || [])[1] || this.pin;
        if (found) { clearTimeout(timer); ready(found[1]); }
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.once('exit', (code) => fail(new Error(`the hub ended with ${code}:\n${this.log}`)));
    });
    this.url = await address;
  }

  // The PIN may be printed just after the address.
  async setupPin() {
    for (let i = 0; i < 600 && !this.pin; i += 1) await new Promise((later) => setTimeout(later, 50));
    if (!this.pin) throw new Error(`no PIN in the log:\n${this.log}`);
    return this.pin;
  }

  async kill(signal = 'SIGKILL') {
    const { child } = this;
    if (!child || child.exitCode !== null || child.signalCode) return;
    const gone = new Promise((done) => child.once('exit', done));
    child.kill(signal);
    await gone;
  }

  // Comes back on the same port.
  async revive() { await this.spawn(new URL(this.url).host); }

  async close() {
    if (this.external) return;
    await this.kill('SIGTERM');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  // An account, and the cookie for it, without the page.
  async account() {
    if (!this.cookie) {
      const made = !this.external || process.env.HOLT_PIN;
      const response = made
        ? await this.post('/api/v1/setup/account', { pin: await this.setupPin(), password: PASSWORD })
        : await this.post('/auth/login', { password: PASSWORD });
      if (!response.ok) throw new Error(`no account: ${response.status} ${await response.text()}`);
      const [name, value] = response.headers.get('set-cookie').split(';')[0].split(/=(.*)/s);
      this.cookie = { name, value, url: this.url };
    }
    return this.cookie;
  }

  post(where, body) {
    return fetch(this.url + where, { method: 'POST', headers: { 'Content-Type': 'application/json', Origin: this.url }, body: JSON.stringify(body) });
  }

  // A change, as the page makes it.
  async send(method, where, body) {
    const cookie = await this.account();
    const response = await fetch(this.url + where, { method, headers: { 'Content-Type': 'application/json', Origin: this.url, Cookie: `${cookie.name}=${cookie.value}` }, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`${method} ${where}: ${response.status} ${await response.text()}`);
    return response.status === 204 ? null : response.json();
  }

  async get(where) {
    const cookie = await this.account();
    const response = await fetch(this.url + where, { headers: { Cookie: `${cookie.name}=${cookie.value}` } });
    return response.json();
  }
}

export class Browser {
  static async start() {
    const browser = new Browser();
    browser.chromium = await chromium.launch({
      executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
      headless: !process.env.HEADED,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    });
    return browser;
  }

  // A page in a profile of its own. Everything the page complains about ends up in page.complaints.
  async page(hub, { login = true, where = '/#/chat', ...options } = {}) {
    const context = await this.chromium.newContext({ viewport: { width: 1100, height: 760 }, ...options });
    if (login) await context.addCookies([await hub.account()]);
    const page = await context.newPage();
    if (process.env.SLOW) await (await context.newCDPSession(page)).send('Emulation.setCPUThrottlingRate', { rate: Number(process.env.SLOW) });
    context.setDefaultTimeout(STEP_MS);
    page.complaints = [];
    page.on('pageerror', (error) => page.complaints.push(String(error)));
    page.on('console', (message) => { if (/Content.Security.Policy|Uncaught/i.test(message.text())) page.complaints.push(message.text()); });
    await page.goto(hub.url + where);
    return page;
  }

  close() { return this.chromium.close(); }
}

export async function shot(page, name) {
  if (!process.env.SHOTS) return;
  fs.mkdirSync(process.env.SHOTS, { recursive: true });
  await page.screenshot({ path: path.join(process.env.SHOTS, name + '.png') });
}

// A picture for the README: made when KEEP_SHOTS is set, small enough to be kept.
export async function keep(page, name) {
  if (!process.env.KEEP_SHOTS) return;
  const dir = new URL('shots/', import.meta.url).pathname;
  fs.mkdirSync(dir, { recursive: true });
  await page.screenshot({ path: path.join(dir, name + '.png') });
}
