// What stays while pages change: navigation, the head of the page, the state of the line, toasts, shortcuts.
import { announce, h, icon, iconButton, mark } from './dom.js';
import { api } from './api.js';
import { Conn } from './conn.js';
import { clock } from './format.js';
import { GROUPS, PAGES } from './pages.js';
import { device, tab } from './store.js';
import { action, closeDialogs, confirm, dialog, empty, failed, loading, toast, toasts } from './ui.js';

const COUNTS_MS = 20000;
const STOPPED_MS = 3000; // while everything is stopped
const narrow = matchMedia('(max-width: 760px)');

// One visit of a page: what its module is called with.
class Page {
  constructor(shell, about, args, query) {
    this.shell = shell;
    this.about = about;
    this.args = args;
    this.query = query;
    this.el = h('div', { class: 'page' });
    this.leaving = new AbortController();
    this.signal = this.leaving.signal; // aborted when the visit ends
    this.refreshers = [];
    this.timers = [];
  }

  title(text) {
    this.shell.heading.textContent = text;
    this.shell.heading.title = text;
    document.title = `${text} · Holt`;
  }

  // Buttons in the head of the page.
  actions(...els) { this.shell.slot.replaceChildren(...els.filter(Boolean)); }
  // A way back, left of the title.
  back(href, label) { this.shell.lead.replaceChildren(h('a', { class: 'icon-btn', href, 'aria-label': label, title: label }, icon('back'))); }

  // Called again when the line came back, and every so many milliseconds while the page can be seen.
  onRefresh(refresh, every = 0) {
    this.refreshers.push(refresh);
    if (every) this.timers.push(setInterval(() => { if (!document.hidden && this.shell.conn.state !== 'offline') refresh(); }, every));
  }

  refresh() { for (const each of this.refreshers) each(); }

  close() {
    this.leaving.abort();
    this.timers.forEach(clearInterval);
  }
}

export class Shell {
  constructor(root, leave) {
    this.root = root;
    this.leave = leave;
    this.counts = {};
    this.blind = new Set();
    this.page = null;
    this.chat = null; // once it was visited
    this.conn = new Conn({
      frame: (f) => this.frame(f),
      state: (state) => { this.showLine(); this.chat?.lineChanged(state); if (state === 'sse') this.reached(); },
      open: () => { this.chat?.lineOpen(); this.reached(); },
    });
    this.route = this.route.bind(this);
    this.keys = this.keys.bind(this);
    this.seen = () => { if (!document.hidden) { this.count(); this.page?.refresh(); } };
    this.build();
  }

  start() {
    addEventListener('hashchange', this.route);
    addEventListener('keydown', this.keys);
    document.addEventListener('visibilitychange', this.seen);
    this.conn.start();
    this.timers = [
      setInterval(() => { this.showLine(); for (const time of document.querySelectorAll('time')) time.renew?.(); }, 20000),
      setInterval(() => { if (!document.hidden && this.conn.state !== 'offline') this.count(); }, COUNTS_MS),
    ];
    this.count();
    this.route();
    // What waits to be sent is sent, wherever the page is.
    if ((tab.get('outbox') || []).length) import('./chat.js').then(({ chatOf }) => chatOf(this));
  }

  close() {
    removeEventListener('hashchange', this.route);
    removeEventListener('keydown', this.keys);
    document.removeEventListener('visibilitychange', this.seen);
    this.timers.forEach(clearInterval);
    [this.stopTimer, this.noticed, this.countTimer].forEach(clearTimeout);
    this.page?.close();
    this.chat?.close();
    closeDialogs();
    announce('');
    this.conn.stop();
    document.title = 'Holt';
  }

  // --- the frame ------------------------------------------------------------------------------------------------------

  build() {
    this.links = [];
    const entry = (about) => {
      const count = h('span', { class: 'count', hidden: true });
      const el = h('a', { href: '#/' + about.name, title: about.title }, icon(about.icon), h('span', { class: 'name' }, about.title), count);
      this.links.push({ about, el, count });
      return el;
    };
    this.nav = h('nav', { class: 'nav', 'aria-label': 'Pages' },
      h('div', { class: 'nav-head' }, mark(34), h('span', { class: 'brand' }, 'Holt')),
      h('div', { class: 'nav-list' }, GROUPS.map((title, group) => {
        const mine = PAGES.filter((about) => about.group === group);
        return mine.length ? h('ul', { 'aria-label': title || 'Start' }, title && h('li', { class: 'group', 'aria-hidden': 'true' }, title), mine.map((about) => h('li', null, entry(about)))) : null;
      })),
      h('div', { class: 'nav-foot' }, this.stopButton = iconButton('stop', STOP, () => this.stopAll(), { class: 'icon-btn halt', hidden: true }), this.tools()));
    this.more = h('button', { type: 'button', 'aria-haspopup': 'dialog', onclick: () => this.showMore() }, icon('more'), h('span', { class: 'name' }, 'More'), this.moreCount = h('span', { class: 'count', hidden: true }));
    this.tabs = h('nav', { class: 'tabs', 'aria-label': 'Pages' }, PAGES.filter((about) => about.tab).map(entry), this.more);

    this.lead = h('span', { class: 'lead-slot' });
    this.heading = h('h1', { dir: 'auto', tabindex: '-1' });
    this.slot = h('div', { class: 'slot' });
    this.line = h('span', { class: 'line', role: 'status' });
    this.top = h('header', { class: 'top' }, this.lead, this.heading, this.slot, this.line);
    this.banner = h('div', { class: 'stopped', role: 'status', hidden: true });
    this.outlet = h('main', { class: 'outlet', id: 'main' });
    const skip = h('button', { type: 'button', class: 'skip', onclick: () => (this.outlet.querySelector('#message') || this.heading).focus() }, 'Skip to the content');
    this.root.replaceChildren(h('div', { class: 'shell' }, skip, this.nav, h('div', { class: 'body' }, this.top, this.banner, this.outlet, toasts), this.tabs));
    this.showLine();
  }

  // Theme, help and logout: at the foot of the side bar, and in "More".
  tools() {
    const theme = h('button', { type: 'button', class: 'icon-btn', onclick: () => nextTheme(theme) });
    nameTheme(theme);
    const logout = iconButton('out', 'Log out', async () => {
      logout.disabled = true;
      const problem = await this.leave();
      logout.disabled = false;
      if (problem) toast(problem, { bad: true });
    });
    return [theme, iconButton('help', 'Keyboard shortcuts', () => this.help(), { class: 'icon-btn only-wide' }), h('span', { class: 'grow' }), logout];
  }

  showMore() {
    dialog('More', (close) => {
      const links = PAGES.filter((about) => !about.tab && about.group >= 0).map((about) => h('li', null, h('a', { href: '#/' + about.name, onclick: () => close() }, icon(about.icon), h('span', null, about.title),
        this.counts[about.name] ? h('span', { class: 'count' }, String(this.counts[about.name])) : null)));
      if (!this.stopButton.hidden) links.push(h('li', null, h('button', { type: 'button', class: 'halt', onclick: () => { close(); this.stopAll(); } }, icon('stop'), h('span', null, STOP))));
      return [h('nav', { 'aria-label': 'More pages' }, h('ul', { class: 'more-list' }, links)), h('div', { class: 'nav-foot' }, this.tools())];
    });
  }

  // --- routes ---------------------------------------------------------------------------------------------------------

  async route() {
    const [path, text] = location.hash.replace(/^#\/?/, '').split('?');
    const [name, ...args] = path.split('/').map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
    const about = PAGES.find((each) => each.name === (name || 'home'));
    const query = new URLSearchParams(text || '');
    for (const { about: each, el } of this.links) {
      if (each === about) el.setAttribute('aria-current', 'page');
      else el.removeAttribute('aria-current');
      // Back to the chat that was open; from there to a new one.
      if (each.name === 'chat') el.href = '#/chat' + (about !== each && this.chat?.current ? '/' + encodeURIComponent(this.chat.current.id) : '');
    }
    this.more.classList.toggle('here', !!about && !about.tab);
    const before = this.page;
    // A page may take a new address itself, as the chat does when a conversation gets its name.
    if (before && before.about === about && before.moved?.(args, query)) { before.args = args; before.query = query; return; }
    before?.close();
    closeDialogs();
    const page = new Page(this, about, args, query);
    this.page = page;
    this.lead.replaceChildren();
    this.slot.replaceChildren();
    this.outlet.classList.toggle('bare', !!about?.bare);
    page.title(about ? about.title : 'Not found');
    this.outlet.replaceChildren(page.el);
    this.outlet.scrollTop = 0;
    if (before && !about?.bare) this.heading.focus({ preventScroll: true });
    if (!about) {
      page.el.append(empty('There is no such page', 'The address may be old, or mistyped.', h('a', { class: 'btn primary', href: '#/home' }, 'Home')));
      return;
    }
    try {
      page.el.append(loading());
      const module = await about.load();
      if (page.signal.aborted) return;
      page.el.replaceChildren();
      module.default(page);
    } catch (error) {
      if (page.signal.aborted) return;
      console.error(error);
      // A new version of Holt has other addresses for its files: a reload finds them.
      page.el.replaceChildren(failed({ status: 0, message: String(error) }, () => location.reload()));
    }
  }

  // --- the line -------------------------------------------------------------------------------------------------------

  frame(f) {
    if (['activity', 'tool_approval', 'tool_decision', 'error'].includes(f.type)) this.countSoon();
    // A machine came or went, an alert came or went: every number of it on the page changes at once.
    if (f.type === 'alert' || f.type === 'machine') this.noticed ||= setTimeout(() => { this.noticed = 0; this.seen(); }, 300);
    this.chat?.frame(f);
  }

  reached() {
    this.count();
    this.page?.refresh();
  }

  showLine() {
    const { state, lastSeen } = this.conn;
    const text = { open: 'Connected', sse: 'Connected, basic mode', connecting: 'Connecting…', offline: `Offline, last seen ${clock(lastSeen)}` }[state];
    this.line.dataset.state = state;
    this.line.title = state === 'sse' ? 'Answers arrive over plain HTTP, because the live connection is blocked.' : text;
    if (this.line.textContent !== text) this.line.replaceChildren(h('span', null, text));
  }

  // --- what waits for somebody ----------------------------------------------------------------------------------------

  countSoon() {
    clearTimeout(this.countTimer);
    this.countTimer = setTimeout(() => this.count(), 400);
  }

  async count() {
    const [approvals, alerts, panic] = await Promise.all(['approvals?status=pending', 'alerts?limit=100', 'panic'].map(async (where) => {
      if (this.blind.has(where)) return null;
      // What this login may not see, or this hub does not have, is not asked for again.
      try { return await api.get(where); } catch (error) { if (error.status === 403 || error.status === 503) this.blind.add(where); return null; }
    }));
    if (panic) this.setStopped(this.stopButton.hidden = panic.panicked);
    else if (this.blind.has('panic')) this.setStopped(false); // who may not ask finds out by sending again
    if (approvals) this.setCount('approvals', approvals.length, 'waiting');
    if (alerts?.alerts) this.setCount('alerts', alerts.alerts.filter((each) => !each.acknowledged_at && !each.silenced_until).length, 'new');
  }

  setCount(name, n, what) {
    if (name === 'approvals' && n > (this.counts[name] ?? n)) announce(`${n} ${n === 1 ? 'approval' : 'approvals'} waiting.`);
    this.counts[name] = n;
    for (const { about, count } of this.links) {
      if (about.name !== name) continue;
      count.hidden = !n;
      count.replaceChildren(n > 99 ? '99+' : String(n), h('span', { class: 'sr' }, ' ' + what));
    }
    const hidden = PAGES.filter((about) => !about.tab).reduce((sum, about) => sum + (this.counts[about.name] || 0), 0);
    this.moreCount.hidden = !hidden;
    this.moreCount.textContent = hidden > 99 ? '99+' : String(hidden);
  }

  // --- everything is stopped ------------------------------------------------------------------------------------------

  stopAll() {
    return confirm(STOP + '?', 'Every running answer and tool ends now, and nothing begins until you resume.', STOP, async () => { await api.post('panic'); await this.count(); this.page?.refresh(); });
  }

  async resume() { await api.post('resume'); await this.count(); }

  // Messages wait in the page meanwhile; as soon as it is over they go on.
  setStopped(on) {
    if (on === this.conn.held) return;
    this.conn.held = on;
    clearInterval(this.stopTimer);
    if (on && !this.blind.has('panic')) this.stopTimer = setInterval(() => this.count(), STOPPED_MS);
    this.showStopped();
    this.chat?.flush();
    if (!on) this.page?.refresh();
  }

  showStopped() {
    const { held } = this.conn;
    this.banner.hidden = !held;
    if (held !== !!this.banner.firstChild) this.banner.replaceChildren(...(held ? [h('span', null, h('strong', null, 'Everything is stopped.'), ' Messages wait, and agents do nothing.'), this.blind.has('panic') ? '' : action('Resume', () => this.resume(), { kind: 'small' })] : []));
  }

  // --- shortcuts ------------------------------------------------------------------------------------------------------

  shortcuts() {
    return [['?', 'This list', () => this.help()], ['n', 'New chat', () => { location.hash = '#/chat'; }], ['/', 'To the search or message box', () => this.outlet.querySelector('[type=search], #message')?.focus()],
      ...PAGES.filter((about) => GO[about.name]).map((about) => ['g ' + GO[about.name], about.title, () => this.links.find((each) => each.about === about).el.click()])];
  }

  keys(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || device.get('shortcuts') === 'off') return;
    if (target.closest?.('input, textarea, select, [contenteditable], dialog')) return;
    const after = this.leader && Date.now() - this.leader < 1500 ? 'g ' : '';
    this.leader = event.key === 'g' && !after ? Date.now() : 0;
    const found = this.shortcuts().find(([keys]) => keys === after + event.key);
    if (!found) return;
    event.preventDefault();
    found[2]();
  }

  help() {
    dialog('Keyboard shortcuts', () => {
      const on = h('input', { type: 'checkbox', checked: device.get('shortcuts') !== 'off', onchange: () => device.set('shortcuts', on.checked ? null : 'off') });
      return [h('dl', { class: 'facts' }, [...this.shortcuts(), ['Enter', 'Send'], ['Shift Enter', 'New line'], ['Esc', 'Stop the answer'], ['↑', 'Change the last question']].map(([keys, what]) => h('div', null, h('dt', null, keys.split(' ').map((key) => h('kbd', null, key))), h('dd', null, what)))),
        h('label', { class: 'check' }, on, h('span', null, 'Single-key shortcuts'))];
    });
  }
}

const STOP = 'Stop everything';
const GO = { home: 'h', chat: 'c', approvals: 'a', machines: 'm', alerts: 'l', costs: 'o', schedules: 's', agents: 'e', tools: 't', settings: ',' };

function nextTheme(button) {
  const order = ['', 'light', 'dark'];
  const next = order[(order.indexOf(device.get('theme') || '') + 1) % 3];
  device.set('theme', next);
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  nameTheme(button);
}

function nameTheme(button) {
  const now = device.get('theme') || '';
  const label = { '': 'Theme: like the device', light: 'Theme: light', dark: 'Theme: dark' }[now];
  button.replaceChildren(icon({ '': 'auto', light: 'sun', dark: 'moon' }[now]));
  button.setAttribute('aria-label', label);
  button.title = label;
}

export { narrow };
