// The list of conversations: search, what is unread, what runs, delete.
import { announce, h, icon, iconButton } from './dom.js';
import { api, path } from './api.js';
import { ago } from './format.js';
import { device, tab } from './store.js';
import { confirm, filterBox } from './ui.js';

const READ_KEPT = 400;
const INSIDE_MAX = 100;

export class ChatList {
  constructor(chat) {
    this.chat = chat;
    this.items = [];
    this.rows = new Map();
    this.wish = '';
    this.found = new Set(); // by a look inside, for this wish
    this.listEl = h('ul', { class: 'convs' });
    this.note = h('p', { class: 'list-note', role: 'status', tabindex: '-1', hidden: true });
    this.el = h('aside', { class: 'side', id: 'chats', 'aria-label': 'Conversations' },
      h('div', { class: 'side-head only-narrow' }, h('h2', null, 'Chats'), iconButton('close', 'Close the list', () => chat.drawer(false))),
      h('a', { class: 'btn primary wide new', href: '#/chat', onclick: () => chat.drawer(false) }, icon('plus'), 'New chat'),
      filterBox('Search chats', (text) => { this.search(text); this.show(); }),
      h('nav', { class: 'side-list', 'aria-label': 'Chats' }, this.listEl, this.note));
  }

  search(text) {
    const wish = text.trim().toLowerCase();
    if (wish === this.wish) return;
    this.wish = wish;
    this.found.clear();
    this.looked = null;
  }

  // Titles are searched while somebody types; what was said only when they ask for it.
  async lookInside() {
    this.search(this.el.querySelector('[type=search]').value);
    const { wish } = this;
    this.looked = 'Looking inside the chats…';
    for (const item of this.items.slice(0, INSIDE_MAX)) {
      this.show();
      const messages = await api.messages(item.id).catch(() => []);
      if (this.wish !== wish) return;
      if (messages.some((message) => message.content.toLowerCase().includes(wish))) this.found.add(item.id);
    }
    this.looked = this.found.size ? '' : 'Nothing was found.';
    this.show();
  }

  close() { clearTimeout(this.timer); }

  refreshSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), 250);
  }

  async refresh() {
    try {
      this.items = await api.sessions();
      this.error = null;
    } catch (error) { this.error = error; }
    // What is there at the very first look counts as read.
    if (!device.get('read') && !this.error) device.set('read', Object.fromEntries(this.items.slice(0, READ_KEPT).map((item) => [item.id, item.message_count])));
    this.chat.show();
  }

  find(id) { return this.items.find((each) => each.id === id); }

  // How much of each conversation was seen on this device, in whichever tab.
  read(id) {
    const item = this.find(id);
    const seen = device.get('read') || {};
    if (!item || seen[id] >= item.message_count) return;
    delete seen[id];
    seen[id] = item.message_count;
    const names = Object.keys(seen);
    for (const name of names.slice(0, Math.max(0, names.length - READ_KEPT))) delete seen[name];
    device.set('read', seen);
  }

  show() {
    const { chat } = this;
    if (chat.visible && chat.current && !document.hidden && !chat.current.busy) this.read(chat.current.id);
    const seen = device.get('read') || {};
    const items = [...this.items];
    for (const session of chat.sessions.values()) {
      if (!items.some((item) => item.id === session.id) && session.locals.length && !session.unborn) items.unshift({ id: session.id, title: session.title || 'New chat' });
    }
    const titleOf = (item) => item.title || chat.sessions.get(item.id)?.title || item.id;
    const shown = this.wish ? items.filter((item) => this.found.has(item.id) || `${titleOf(item)} ${item.agent || ''} ${chat.agentName(item.agent || '')}`.toLowerCase().includes(this.wish)) : items;
    const note = this.error && !items.length ? this.error.status === 403 ? 'This key may not list conversations.' : 'The list could not be loaded.'
      : !items.length ? 'Your chats will appear here.' : this.looked ?? (this.wish && !shown.length ? 'No chat has that in its title.' : '');
    const ask = this.wish.length > 2 && items.length && this.looked == null;
    const held = this.note.contains(document.activeElement);
    this.note.hidden = !note && !ask;
    if (this.noted !== `${note} ${ask}`) {
      this.noted = `${note} ${ask}`;
      this.note.replaceChildren(note, ...(ask ? [h('button', { type: 'button', class: 'link', onclick: () => this.lookInside() }, 'Look inside the chats')] : []));
    }
    if (note && this.error && this.error.status !== 403 && !this.note.firstElementChild) this.note.append(' ', h('button', { type: 'button', class: 'link', onclick: () => this.refresh() }, 'Try again'));
    const rows = this.rows;
    this.rows = new Map();
    const wanted = shown.map((item) => {
      const row = rows.get(item.id) || this.row(item.id);
      this.rows.set(item.id, row);
      const session = chat.sessions.get(item.id);
      const here = chat.current?.id === item.id;
      const unread = !here && item.message_count > (seen[item.id] ?? 0);
      const busy = !!session && session.busy;
      const title = titleOf(item);
      if (row.text.data !== title) row.text.data = row.link.title = title;
      row.when.textContent = busy ? '' : ago(item.last_activity || item.created_at || Date.now());
      row.dot.hidden = !busy;
      row.unread.hidden = !unread || busy;
      row.el.classList.toggle('here', here);
      row.el.classList.toggle('unread', unread);
      if (here) row.link.setAttribute('aria-current', 'page');
      else row.link.removeAttribute('aria-current');
      row.remove.setAttribute('aria-label', `Delete ${title}`);
      return row.el;
    });
    // Touch the page only where it differs, so that the focus stays where it is.
    wanted.forEach((el, i) => { if (this.listEl.children[i] !== el) this.listEl.insertBefore(el, this.listEl.children[i] || null); });
    while (this.listEl.children.length > wanted.length) this.listEl.lastChild.remove();
    // The button that was pressed is gone: what it brought takes its place.
    if (held && (this.note.hidden || !this.note.contains(document.activeElement))) (this.note.hidden ? wanted[0]?.firstChild : this.note)?.focus();
  }

  row(id) {
    const text = document.createTextNode('');
    const unread = h('span', { class: 'sr', hidden: true }, 'Unread: ');
    const link = h('a', { href: '#/chat/' + encodeURIComponent(id), dir: 'auto', onclick: () => this.chat.drawer(false) }, unread, text);
    const when = h('span', { class: 'when' });
    const dot = h('span', { class: 'busy-dot', hidden: true }, h('span', { class: 'sr' }, 'answering'));
    const remove = iconButton('trash', 'Delete', () => this.remove(id, text.data), { class: 'icon-btn del', title: 'Delete' });
    return { el: h('li', null, link, dot, when, remove), link, text, when, dot, unread, remove };
  }

  async remove(id, title) {
    if (!await confirm('Delete this chat?', title, 'Delete', () => api.del(path`sessions/${id}`))) return;
    this.items = this.items.filter((item) => item.id !== id);
    announce('Deleted.');
    this.chat.forget(id);
    this.refreshSoon();
  }
}
