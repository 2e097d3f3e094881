// The chat: the list of conversations, the open one, the message box. It is built once and stays when other pages are
// shown, so that answers arrive and drafts are kept.
import { h, icon, iconButton, mark, randomId } from './dom.js';
import { api } from './api.js';
import { ChatList } from './chatlist.js';
import { Session, tooLong } from './session.js';
import { narrow } from './shell.js';
import { tab } from './store.js';

const SUGGESTIONS = ['How is this machine doing?', 'What uses the most memory?', 'Is a disk filling up?', 'Any errors in the logs?'];
const SESSIONS_KEPT = 12;
const NEAR = 60; // pixels from the end that count as the end

const touch = matchMedia('(pointer: coarse)');

export function chatOf(shell) {
  if (!shell.chat) {
    shell.chat = new Chat(shell);
    shell.chat.start();
  }
  return shell.chat;
}

// `#/chat` begins a conversation (`?agent=` with whom, `?text=` with what), `#/chat/ID` opens one.
export default function show(page) {
  const chat = chatOf(page.shell);
  page.el.append(chat.el);
  chat.enter(page);
  page.moved = (args, query) => { chat.open(args[0] || '', query); return true; };
  page.onRefresh(() => chat.list.refreshSoon());
  page.signal.addEventListener('abort', () => chat.away());
}

export class Chat {
  constructor(shell) {
    this.shell = shell;
    this.conn = shell.conn;
    this.sessions = new Map();
    this.agents = [];
    this.current = null;
    this.follow = true;
    this.visible = false;
    this.list = new ChatList(this);
    this.layout = this.layout.bind(this);
    this.build();
  }

  start() {
    narrow.addEventListener('change', this.layout);
    this.list.refresh();
    this.layout();
    for (const saved of tab.get('outbox') || []) if (!this.sessions.has(saved.session)) this.session(saved.session).open();
  }

  close() {
    this.saveDraft();
    narrow.removeEventListener('change', this.layout);
    this.list.close();
    this.sizes.disconnect();
    for (const session of this.sessions.values()) if (session.stream) session.stream.abort();
  }

  // The page is shown, or no longer.
  enter(page) {
    this.page = page;
    this.visible = true;
    this.shell.lead.replaceChildren(this.menu);
    page.actions(this.agentTag);
    this.opened = null;
    this.open(page.args[0] || '', page.query);
  }

  away() {
    this.saveDraft();
    this.visible = false;
    this.drawerOpen = false;
  }

  // --- the page -------------------------------------------------------------------------------------------------

  build() {
    this.menu = iconButton('list', 'Open the list of chats', () => this.drawer(true), { class: 'icon-btn only-narrow', 'aria-controls': 'chats', 'aria-expanded': 'false' });
    this.agentTag = h('a', { class: 'whose', hidden: true }, h('span', { class: 'tag' }));
    this.pane = h('div', { class: 'pane' });
    this.scroll = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Conversation', onscroll: () => this.scrolled() }, this.pane);
    this.jump = h('button', { type: 'button', class: 'jump', hidden: true, onclick: () => { this.anchor = ''; this.follow = true; this.keepUp(); } }, icon('down'), h('span', { class: 'sr' }, 'Latest'));
    this.sizes = new ResizeObserver(() => this.keepUp());
    this.sizes.observe(this.pane);
    this.sizes.observe(this.scroll);

    this.input = h('textarea', { id: 'message', rows: '1', placeholder: 'Ask about your machines', enterkeyhint: 'send', autocomplete: 'off', dir: 'auto',
      oninput: () => { this.grow(); this.saveDraft(); this.showButtons(); },
      onkeydown: (event) => {
        if (event.key === 'Escape' && this.current?.busy) this.cancel();
        if (event.key === 'ArrowUp' && !this.input.value) this.editLast(event);
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

    this.main = h('div', { class: 'chat-main' }, this.scroll, h('div', { class: 'dock' }, this.jump, this.composer));
    this.shade = h('div', { class: 'shade', hidden: true, onclick: () => this.drawer(false) });
    this.el = h('div', { class: 'chat', onkeydown: (event) => { if (event.key === 'Escape' && this.drawerOpen) this.drawer(false); } },
      this.list.el, this.shade, this.main);
  }

  layout() {
    this.drawerOpen = false;
    this.showDrawer();
  }

  drawer(open) {
    if (!narrow.matches || open === !!this.drawerOpen) return;
    this.drawerOpen = open;
    this.showDrawer();
    if (open) this.list.el.querySelector('.icon-btn').focus();
    else this.menu.focus();
  }

  showDrawer() {
    const open = !!this.drawerOpen;
    this.list.el.classList.toggle('open', open);
    this.list.el.inert = narrow.matches && !open;
    this.main.inert = open;
    this.shade.hidden = !open;
    this.menu.setAttribute('aria-expanded', String(open));
  }

  // --- the line to the hub --------------------------------------------------------------------------------------

  frame(f) {
    if (f.type === 'activity') {
      this.list.refreshSoon();
      const session = this.sessions.get(f.conversation_id);
      if (session && session.state === 'ready' && !session.live) session.refreshSoon();
      return;
    }
    const session = this.sessions.get(f.session_id);
    if (session) session.frame(f);
    else if (f.type === 'error' && !f.session_id && this.current) this.current.refused(f);
  }

  lineChanged(state) {
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

  flush() { for (const session of this.sessions.values()) session.flush(); }

  recover() {
    this.list.refreshSoon();
    if (this.current && this.current.state === 'failed') this.current.open();
    if (!this.agents.length) this.loadAgents();
  }

  // --- conversations --------------------------------------------------------------------------------------------

  session(id) {
    let session = this.sessions.get(id);
    if (!session) {
      session = new Session(id, this.conn, (each, what) => this.changed(each, what), (text) => this.edit(text));
      this.sessions.set(id, session);
      for (const old of this.sessions.values()) {
        if (this.sessions.size <= SESSIONS_KEPT) break;
        if (old !== this.current && old !== session && !old.busy && !old.waitingCount) this.sessions.delete(old.id);
      }
    }
    return session;
  }

  open(id, query) {
    this.saveDraft();
    if (this.current && this.current.id === id && id && this.opened) return;
    this.opened = true;
    // Messages that never became a chat go back into the message box, behind what is there.
    if (this.current?.unborn) {
      tab.set('draft:' + this.current.id, null);
      tab.set('draft:', [tab.get('draft:'), ...this.current.locals.map((entry) => entry.text), this.input.value].filter(Boolean).join('\n\n'));
      this.drop(this.current.id);
    }
    this.current = id ? this.session(id) : null;
    if (this.current && this.current.state !== 'ready') this.current.open();
    this.wanted = (!id && query && query.get('agent')) || '';
    // Machines come and go: whom to ask is looked up when it is asked, and once for the names.
    if (!this.current || !this.agents.length) this.loadAgents();
    this.drawer(false);
    this.problem.textContent = '';
    this.input.value = (!id && query && query.get('text')) || tab.get('draft:' + id) || '';
    this.follow = true;
    this.anchor = '.user';
    this.scroll.scrollTop = 0;
    this.shown = null;
    this.show();
    this.grow();
    this.keepUp();
    if (!touch.matches) this.input.focus();
  }

  forget(id) {
    this.drop(id);
    tab.set('draft:' + id, null);
    if (this.current && this.current.id === id) {
      this.input.value = '';
      location.hash = '#/chat';
    } else this.list.show();
  }

  drop(id) {
    const session = this.sessions.get(id);
    if (session) { session.locals = []; session.saveOutbox(); }
    this.sessions.delete(id);
  }

  changed(session, what) {
    if (what === 'stopped') this.shell.setStopped(true);
    if (what === 'done' && session.turns.at(-1).ended === 'cancelled') this.shell.countSoon(); // perhaps all were
    if (what === 'done' || what === 'sent') this.list.refreshSoon();
    if (session !== this.current) { if (what !== 'frame') this.list.show(); return; }
    // What waits for somebody is brought to their eyes, unless they read something older.
    if (what === 'sent' || what === 'asks' && this.top() - this.scroll.scrollTop < NEAR) this.follow = true;
    this.anchor = { sent: '.user', begin: '.user', decided: '.md', asks: '' }[what] ?? this.anchor;
    if (what !== 'frame') this.show();
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
    if (this.visible) this.page.title(title);
    const agent = current && current.agent && current.agent !== 'default' ? this.agentName(current.agent) : '';
    this.agentTag.firstChild.textContent = agent;
    this.agentTag.href = '#/' + (current?.agent || '').replace(/^machine:/, 'machines/').replace(/^(?!machines\/)/, 'agents/');
    this.agentTag.hidden = !agent;
    this.agentPick.hidden = this.agents.length < 2 || !!current;
    this.composer.hidden = state === 'missing';
    this.showButtons();
    this.list.show();
  }

  content(state) {
    if (state === 'ready') return this.current.el;
    if (state === 'loading' || state === 'new') return h('div', { class: 'blank', role: 'status' }, h('div', { class: 'dots' }, h('i'), h('i'), h('i')), h('span', { class: 'sr' }, 'Loading'));
    if (state === 'failed') {
      return h('div', { class: 'blank' }, h('h2', null, 'This chat could not be loaded'), h('p', { role: 'alert' }, this.current.error.message),
        h('button', { type: 'button', class: 'btn', onclick: () => this.current.open() }, 'Try again'));
    }
    if (state === 'missing') {
      return h('div', { class: 'blank' }, mark(64), h('h2', null, 'This chat is not here'), h('p', null, 'It may have been deleted.'), h('a', { class: 'btn primary', href: '#/chat' }, 'New chat'));
    }
    return h('div', { class: 'blank hello' }, mark(88), h('h2', null, 'What would you like to know?'),
      h('p', null, 'Ask in your own words. Holt looks and tells you what it finds.'),
      h('ul', { class: 'ideas' }, ...SUGGESTIONS.map((text) => h('li', null, h('button', { type: 'button', class: 'idea', onclick: () => this.send(text) }, text)))));
  }

  titleOf(session) {
    const item = this.list.find(session.id);
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
      this.opened = true;
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

  // An earlier question, to be changed and asked again.
  edit(text) {
    this.input.value = text;
    this.saveDraft();
    this.grow();
    this.showButtons();
    this.input.focus();
  }

  editLast(event) {
    const text = this.current && this.current.lastQuestion();
    if (!text) return;
    event.preventDefault();
    this.edit(text);
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

  // Whoever scrolls up stops following, whoever scrolls to the end follows again.
  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroll;
    if (scrollHeight - scrollTop - clientHeight < NEAR) this.follow = true;
    else if (scrollTop < this.at - 4) this.follow = false;
    this.at = scrollTop;
    this.showScroll();
  }

  showScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroll;
    this.jump.hidden = !this.current || scrollHeight - scrollTop - clientHeight < NEAR;
  }

  // How far to scroll at most by ourselves: the last question (or the text after a decision) stays in sight, and the
  // beginning of its answer. What is above the screen already holds nothing.
  top() {
    const all = this.anchor && this.current ? this.current.el.querySelectorAll(this.anchor) : [];
    const last = all[all.length - 1];
    if (!last?.isConnected) return Infinity;
    const { scrollTop, clientHeight } = this.scroll;
    const y = (el) => el.getBoundingClientRect().top - this.scroll.getBoundingClientRect().top + scrollTop;
    const answer = this.anchor === '.user' && last.nextElementSibling;
    const top = Math.max(y(last) - 8, answer ? y(answer) - clientHeight / 2 : 0);
    return top < scrollTop - NEAR ? Infinity : top;
  }

  // The welcome is read from its top, a conversation from its end, a long answer from its beginning.
  keepUp() {
    if (this.follow) {
      const end = this.current?.el.isConnected ? this.scroll.scrollHeight - this.scroll.clientHeight : 0;
      this.scroll.scrollTop = this.at = Math.min(end, this.top());
      if (end - this.at >= NEAR) this.follow = false;
    }
    this.showScroll();
  }

  // --- agents ---------------------------------------------------------------------------------------------------

  async loadAgents() {
    try { this.agents = await api.agents(); } catch { return; } // not allowed, or not now: `default` answers
    if (!Array.isArray(this.agents)) this.agents = [];
    const before = this.wanted || this.agentPick.value;
    this.wanted = '';
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
