// The chat screen: the list of conversations, the open one, the message box, and the state of the line.
import { h, icon, iconButton, mark, announce, ago, clock, randomId } from './dom.js';
import { api } from './api.js';
import { Conn } from './conn.js';
import { Session, tooLong } from './session.js';
import { device, tab } from './store.js';

const SUGGESTIONS = ['How is this machine doing?', 'What uses the most memory?', 'Is a disk filling up?', 'Any errors in the logs?'];
const SESSIONS_KEPT = 12;

const touch = matchMedia('(pointer: coarse)');
const narrow = matchMedia('(max-width: 760px)');

export class Chat {
  constructor(root, leave) {
    this.root = root;
    this.leave = leave;
    this.sessions = new Map();
    this.list = [];
    this.agents = [];
    this.current = null;
    this.follow = true;
    this.conn = new Conn({
      frame: (f) => this.frame(f),
      state: (state) => this.lineChanged(state),
      open: () => this.lineOpen(),
    });
    this.route = this.route.bind(this);
    this.layout = this.layout.bind(this);
    this.build();
  }

  start() {
    addEventListener('hashchange', this.route);
    narrow.addEventListener('change', this.layout);
    this.conn.start();
    this.lineTimer = setInterval(() => this.showLine(), 20000);
    this.refreshList();
    this.layout();
    this.route();
    for (const saved of tab.get('outbox') || []) if (!this.sessions.has(saved.session)) this.session(saved.session).open();
  }

  close() {
    this.saveDraft();
    removeEventListener('hashchange', this.route);
    narrow.removeEventListener('change', this.layout);
    clearInterval(this.lineTimer);
    clearTimeout(this.listTimer);
    this.sizes.disconnect();
    this.conn.stop();
    for (const session of this.sessions.values()) if (session.stream) session.stream.abort();
    document.title = 'Holt';
  }

  // --- the page -------------------------------------------------------------------------------------------------

  build() {
    this.listEl = h('ul', { class: 'convs' });
    this.listNote = h('p', { class: 'list-note', hidden: true });
    const themeButton = h('button', { type: 'button', class: 'icon-btn', onclick: () => this.nextTheme(themeButton) });
    this.nameTheme(themeButton);
    const logout = iconButton('out', 'Log out', async () => {
      logout.disabled = true;
      const problem = await this.leave();
      logout.disabled = false;
      if (problem) this.toast(problem);
    });
    this.side = h('aside', { class: 'side', id: 'side', 'aria-label': 'Conversations' },
      h('div', { class: 'side-head' }, mark(36), h('span', { class: 'brand' }, 'Holt'),
        iconButton('close', 'Close the list', () => this.drawer(false), { class: 'icon-btn only-narrow' })),
      h('a', { class: 'btn primary wide new', href: '#/', onclick: () => this.drawer(false) }, icon('plus'), 'New chat'),
      h('nav', { class: 'side-list', 'aria-label': 'Chats' }, this.listEl, this.listNote),
      h('div', { class: 'side-foot' }, themeButton, h('span', { class: 'grow' }), logout));

    this.menu = iconButton('menu', 'Open the list of chats', () => this.drawer(true), { class: 'icon-btn only-narrow', 'aria-controls': 'side', 'aria-expanded': 'false' });
    this.heading = h('h1', { dir: 'auto' });
    this.agentTag = h('span', { class: 'tag', hidden: true });
    this.line = h('span', { class: 'line', role: 'status' });
    this.top = h('header', { class: 'top' }, this.menu, this.heading, this.agentTag, this.line);

    this.pane = h('div', { class: 'pane' });
    this.scroll = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Conversation', onscroll: () => this.scrolled() }, this.pane);
    this.jump = h('button', { type: 'button', class: 'jump', hidden: true, onclick: () => this.toEnd() }, icon('down'), 'Latest');
    this.sizes = new ResizeObserver(() => { if (this.follow) this.toEnd(); });
    this.sizes.observe(this.pane);
    this.sizes.observe(this.scroll);

    this.input = h('textarea', { id: 'message', rows: '1', placeholder: 'Ask about your machines', enterkeyhint: 'send', autocomplete: 'off', dir: 'auto',
      oninput: () => { this.grow(); this.saveDraft(); this.showButtons(); },
      onkeydown: (event) => {
        if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
        event.preventDefault();
        this.submit();
      } });
    this.agentPick = h('select', { 'aria-label': 'Agent', class: 'agent-pick', hidden: true });
    this.stopButton = iconButton('stop', 'Stop the answer', () => this.cancel(), { class: 'icon-btn stop', hidden: true });
    this.sendButton = h('button', { class: 'icon-btn send', 'aria-label': 'Send', title: 'Send' }, icon('send'));
    this.problem = h('p', { class: 'problem', role: 'alert' });
    this.composer = h('form', { class: 'composer', onsubmit: (event) => { event.preventDefault(); this.submit(); } },
      this.problem,
      h('div', { class: 'box' }, this.agentPick, h('label', { class: 'sr', for: 'message' }, 'Message'), this.input, this.stopButton, this.sendButton));

    this.main = h('main', { class: 'main' }, this.top, this.scroll, h('div', { class: 'dock' }, this.jump, this.composer));
    this.shade = h('div', { class: 'shade', hidden: true, onclick: () => this.drawer(false) });
    this.toastEl = h('div', { class: 'toast', role: 'status', hidden: true });
    const skip = h('button', { type: 'button', class: 'skip', onclick: () => this.input.focus() }, 'Skip to the message box');
    this.shell = h('div', { class: 'shell', onkeydown: (event) => { if (event.key === 'Escape' && this.drawerOpen) this.drawer(false); } },
      skip, this.side, this.shade, this.main, this.toastEl);
    this.root.replaceChildren(this.shell);
    this.showLine();
  }

  layout() {
    this.drawerOpen = false;
    this.showDrawer();
  }

  drawer(open) {
    if (!narrow.matches || open === !!this.drawerOpen) return;
    this.drawerOpen = open;
    this.showDrawer();
    if (open) this.side.querySelector('.icon-btn').focus();
    else this.menu.focus();
  }

  showDrawer() {
    const open = !!this.drawerOpen;
    this.side.classList.toggle('open', open);
    this.side.inert = narrow.matches && !open;
    this.main.inert = open;
    this.shade.hidden = !open;
    this.menu.setAttribute('aria-expanded', String(open));
  }

  nextTheme(button) {
    const order = ['', 'light', 'dark'];
    const next = order[(order.indexOf(device.get('theme') || '') + 1) % 3];
    device.set('theme', next);
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    this.nameTheme(button);
  }

  nameTheme(button) {
    const now = device.get('theme') || '';
    const label = { '': 'Theme: like the device', light: 'Theme: light', dark: 'Theme: dark' }[now];
    button.replaceChildren(icon({ '': 'auto', light: 'sun', dark: 'moon' }[now]));
    button.setAttribute('aria-label', label);
    button.title = label;
  }

  toast(text) {
    this.toastEl.textContent = text;
    this.toastEl.hidden = false;
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => { this.toastEl.hidden = true; }, 5000);
  }

  // --- the line to the hub --------------------------------------------------------------------------------------

  frame(f) {
    if (f.type === 'activity') {
      this.refreshListSoon();
      const session = this.sessions.get(f.conversation_id);
      if (session && session.state === 'ready' && !session.live) session.refreshSoon();
      return;
    }
    const session = this.sessions.get(f.session_id);
    if (session) session.frame(f);
    else if (f.type === 'error' && !f.session_id && this.current) this.current.refused(f);
  }

  lineChanged(state) {
    this.showLine();
    for (const session of this.sessions.values()) {
      if (state === 'sse') session.overHttp();
      else if (state !== 'open') session.disconnected();
    }
    if (state === 'sse') this.recover();
  }

  lineOpen() {
    for (const session of this.sessions.values()) session.connected();
    this.recover();
  }

  recover() {
    this.refreshListSoon();
    if (this.current && this.current.state === 'failed') this.current.open();
    if (!this.agents.length) this.loadAgents();
  }

  showLine() {
    const seen = clock(this.conn.lastSeen);
    const text = {
      open: 'Connected',
      sse: 'Connected, basic mode',
      connecting: 'Connecting…',
      offline: `Offline, last seen ${seen}`,
    }[this.conn.state];
    this.line.dataset.state = this.conn.state;
    this.line.title = this.conn.state === 'sse' ? 'Answers arrive over plain HTTP, because the live connection is blocked.' : text;
    if (this.line.textContent !== text) this.line.replaceChildren(h('span', null, text));
  }

  // --- conversations --------------------------------------------------------------------------------------------

  session(id) {
    let session = this.sessions.get(id);
    if (!session) {
      session = new Session(id, this.conn, (each, what) => this.changed(each, what));
      this.sessions.set(id, session);
      for (const old of this.sessions.values()) {
        if (this.sessions.size <= SESSIONS_KEPT) break;
        if (old !== this.current && old !== session && !old.busy && !old.waitingCount) this.sessions.delete(old.id);
      }
    }
    return session;
  }

  route() {
    this.saveDraft();
    const match = /^#\/chat\/(.+)$/.exec(location.hash);
    let id = '';
    try { id = match ? decodeURIComponent(match[1]) : ''; } catch { /* not one of ours */ }
    if (this.current && this.current.id === id && id) return;
    this.current = id ? this.session(id) : null;
    if (this.current && this.current.state !== 'ready') this.current.open();
    // Machines come and go: whom to ask is looked up when it is asked, and once for the names.
    if (!this.current || !this.agents.length) this.loadAgents();
    this.drawer(false);
    this.problem.textContent = '';
    this.input.value = tab.get('draft:' + id) || '';
    this.follow = true;
    this.shown = null;
    this.show();
    this.grow();
    this.toEnd();
    if (!touch.matches) this.input.focus();
  }

  changed(session, what) {
    if (what === 'done' || what === 'sent') this.refreshListSoon();
    if (session !== this.current) { if (what === 'live' || what === 'done') this.showList(); return; }
    if (what === 'sent') this.follow = true;
    if (what !== 'frame') this.show();
    else this.showScroll();
  }

  show() {
    const { current } = this;
    const state = !current ? 'empty' : current.state === 'ready' && current.empty ? 'empty' : current.state;
    const want = (current ? current.id : '') + ' ' + state;
    if (this.shown !== want) {
      this.shown = want;
      this.pane.replaceChildren(this.content(state));
    }
    const title = current ? this.titleOf(current) : 'New chat';
    this.heading.textContent = title;
    document.title = current ? `${title} · Holt` : 'Holt';
    const agent = current && current.agent && current.agent !== 'default' ? this.agentName(current.agent) : '';
    this.agentTag.textContent = agent;
    this.agentTag.hidden = !agent;
    this.agentPick.hidden = this.agents.length < 2 || !!current;
    this.composer.hidden = state === 'missing';
    this.showButtons();
    this.showList();
  }

  content(state) {
    if (state === 'ready') return this.current.el;
    if (state === 'loading' || state === 'new') return h('div', { class: 'blank', role: 'status' }, h('div', { class: 'dots' }, h('i'), h('i'), h('i')), h('span', { class: 'sr' }, 'Loading'));
    if (state === 'failed') {
      return h('div', { class: 'blank' }, h('h2', null, 'This chat could not be loaded'), h('p', { role: 'alert' }, this.current.error.message),
        h('button', { type: 'button', class: 'btn', onclick: () => this.current.open() }, 'Try again'));
    }
    if (state === 'missing') {
      return h('div', { class: 'blank' }, mark(64), h('h2', null, 'This chat is not here'), h('p', null, 'It may have been deleted.'), h('a', { class: 'btn primary', href: '#/' }, 'New chat'));
    }
    return h('div', { class: 'blank hello' }, mark(88), h('h2', null, 'What would you like to know?'),
      h('p', null, 'Ask in your own words. Holt looks and tells you what it finds.'),
      h('ul', { class: 'ideas' }, ...SUGGESTIONS.map((text) => h('li', null, h('button', { type: 'button', class: 'idea', onclick: () => this.send(text) }, text)))));
  }

  titleOf(session) {
    const item = this.list.find((each) => each.id === session.id);
    return session.title || (item && item.title) || (item ? session.id : 'New chat');
  }

  // --- sending --------------------------------------------------------------------------------------------------

  submit() {
    const text = this.input.value;
    if (!text.trim()) { this.input.focus(); return; }
    if (this.send(text)) {
      this.input.value = '';
      this.saveDraft();
      this.grow();
      this.showButtons();
    }
  }

  send(text) {
    const problem = tooLong(text);
    this.problem.textContent = problem || '';
    if (problem) return false;
    if (this.current && this.current.state !== 'ready') { this.problem.textContent = 'This chat is not loaded yet.'; return false; }
    let { current } = this;
    if (!current) {
      // The page names new conversations itself: what is asked offline or asked again stays one conversation.
      current = this.session(randomId());
      current.fresh(this.agents.length > 1 && this.agentPick.value ? this.agentPick.value : 'default');
      tab.set('draft:', null);
      this.input.value = '';
      this.current = current;
      this.shown = null;
      location.hash = '#/chat/' + current.id;
    }
    current.submit(text, current.agent);
    return true;
  }

  cancel() {
    if (!this.current) return;
    this.current.cancel();
    this.input.focus();
  }

  saveDraft() {
    const id = this.current ? this.current.id : '';
    tab.set('draft:' + id, this.input.value || null);
  }

  grow() {
    this.input.style.height = 'auto';
    this.input.style.height = Math.min(this.input.scrollHeight, 200) + 'px';
  }

  showButtons() {
    const busy = !!this.current && this.current.busy;
    this.stopButton.hidden = !busy;
    this.sendButton.disabled = !this.input.value.trim();
    this.pane.setAttribute('aria-busy', String(busy));
  }

  // --- scrolling ------------------------------------------------------------------------------------------------

  scrolled() {
    const left = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight;
    this.follow = left < 60 || !this.current;
    this.showScroll();
  }

  showScroll() { this.jump.hidden = this.follow; }

  toEnd() {
    this.follow = true;
    // The welcome is read from its top, a conversation from its end.
    this.scroll.scrollTop = this.current && this.current.el.isConnected ? this.scroll.scrollHeight : 0;
    this.showScroll();
  }

  // --- the list -------------------------------------------------------------------------------------------------

  refreshListSoon() {
    clearTimeout(this.listTimer);
    this.listTimer = setTimeout(() => this.refreshList(), 250);
  }

  async refreshList() {
    try {
      this.list = await api.sessions();
      this.listError = null;
    } catch (error) { this.listError = error; }
    this.show();
  }

  showList() {
    const items = [...this.list];
    for (const session of this.sessions.values()) {
      if (!items.some((item) => item.id === session.id) && session.locals.length) items.unshift({ id: session.id, title: session.title || 'New chat' });
    }
    const note = this.listError && !items.length ? this.listError.status === 403 ? 'This key may not list conversations.' : 'The list could not be loaded.' : items.length ? '' : 'Your chats will appear here.';
    this.listNote.hidden = !note;
    this.listNote.textContent = note;
    if (note && this.listError && this.listError.status !== 403) this.listNote.append(' ', h('button', { type: 'button', class: 'link', onclick: () => this.refreshList() }, 'Try again'));
    const rows = this.rows || new Map();
    this.rows = new Map();
    const wanted = items.map((item) => {
      const row = rows.get(item.id) || this.row(item.id);
      this.rows.set(item.id, row);
      const session = this.sessions.get(item.id);
      const here = !!this.current && this.current.id === item.id;
      row.link.textContent = item.title || (session && session.title) || item.id;
      row.when.textContent = session && session.busy ? '' : ago(item.last_activity || item.created_at || Date.now());
      row.dot.hidden = !(session && session.busy);
      row.el.classList.toggle('here', here);
      if (here) row.link.setAttribute('aria-current', 'page');
      else row.link.removeAttribute('aria-current');
      row.remove.setAttribute('aria-label', `Delete ${row.link.textContent}`);
      return row.el;
    });
    // Touch the page only where it differs, so that the focus stays where it is.
    wanted.forEach((el, i) => { if (this.listEl.children[i] !== el) this.listEl.insertBefore(el, this.listEl.children[i] || null); });
    while (this.listEl.children.length > wanted.length) this.listEl.lastChild.remove();
  }

  row(id) {
    const link = h('a', { href: '#/chat/' + encodeURIComponent(id), dir: 'auto', onclick: () => this.drawer(false) });
    const when = h('span', { class: 'when' });
    const dot = h('span', { class: 'busy-dot', hidden: true }, h('span', { class: 'sr' }, 'answering'));
    const remove = iconButton('trash', 'Delete', () => this.confirmDelete(id, link.textContent), { class: 'icon-btn del', title: 'Delete' });
    return { el: h('li', null, link, dot, when, remove), link, when, dot, remove };
  }

  confirmDelete(id, title) {
    const problem = h('p', { class: 'problem', role: 'alert' });
    const yes = h('button', { type: 'button', class: 'btn danger', onclick: async () => {
      yes.disabled = true;
      try { await api.remove(id); } catch (error) {
        yes.disabled = false;
        problem.textContent = error.message;
        return;
      }
      const session = this.sessions.get(id);
      if (session) { session.locals = []; session.saveOutbox(); }
      this.sessions.delete(id);
      tab.set('draft:' + id, null);
      this.list = this.list.filter((item) => item.id !== id);
      dialog.close();
      announce('Deleted.');
      if (this.current && this.current.id === id) {
        this.input.value = '';
        location.hash = '#/';
      } else this.showList();
      this.refreshListSoon();
    } }, 'Delete');
    const dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'del-title', onclose: () => dialog.remove() },
      h('h2', { id: 'del-title' }, 'Delete this chat?'), h('p', { dir: 'auto' }, title), problem,
      h('div', { class: 'row' }, h('button', { type: 'button', class: 'btn', onclick: () => dialog.close() }, 'Keep it'), yes));
    document.body.append(dialog);
    dialog.showModal();
  }

  // --- agents ---------------------------------------------------------------------------------------------------

  async loadAgents() {
    try { this.agents = await api.agents(); } catch { return; } // not allowed, or not now: `default` answers
    if (!Array.isArray(this.agents)) this.agents = [];
    const before = this.agentPick.value;
    this.agentPick.replaceChildren(...this.agents.map((agent) => h('option', { value: agent.name }, (agent.display_name || agent.name) + (agent.online === false ? ' (offline)' : ''))));
    this.agentPick.value = this.agents.some((agent) => agent.name === before) ? before
      : this.agents.some((agent) => agent.name === 'default') ? 'default' : this.agents.length ? this.agents[0].name : '';
    this.show();
  }

  agentName(name) {
    const agent = this.agents.find((each) => each.name === name);
    return (agent && agent.display_name) || name;
  }
}
