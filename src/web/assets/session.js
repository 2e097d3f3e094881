// One conversation: what the hub stored, what streams in, what still waits to be sent. It owns its piece of the page
// whether or not it is being looked at, so frames can arrive at any time.
//
// Nothing is shown twice, nothing is lost: stored messages come from REST; frames are applied once, in the order of
// `seq`; of a replay taken while opening only what follows the last finished turn is shown, as that is not stored yet.
import { h, announce, iconButton, randomId } from './dom.js';
import { clock } from './format.js';
import { api, path } from './api.js';
import { tab } from './store.js';
import { Markdown } from './markdown.js';
import { Turn, assistantBubble } from './turn.js';

const REPLAY_WAIT_MS = 4000;
// Of a turn that failed, what is shown again at most.
const FAILED_FRAMES = 500;
const MESSAGE_BYTES_MAX = 32768;
const FRAME_BYTES_MAX = 65000;

const terminal = (f) => f.seq > 0 && (f.type === 'done' || f.type === 'error');
const bytes = (text) => new TextEncoder().encode(text).length;

// Why this text cannot be sent, or null.
export function tooLong(text) {
  const size = bytes(text);
  return size > MESSAGE_BYTES_MAX || bytes(JSON.stringify(text)) > FRAME_BYTES_MAX
    ? `This message is too long (${Math.ceil(size / 1024)} KB of at most 32 KB).` : null;
}

export class Session {
  constructor(id, conn, changed, edit) {
    this.id = id;
    this.conn = conn;
    this.changed = changed; // (session, what) tells the screen
    this.edit = edit;       // (text) takes a question back into the message box
    this.el = h('ol', { class: 'messages' });
    this.title = '';
    this.agent = '';
    this.epoch = '';
    this.seq = 0;
    this.state = 'new';     // new, loading, ready, failed, missing
    this.history = [];
    this.locals = [];       // own messages the stored history does not show yet
    this.turns = [];        // finished turns still on the page
    this.live = null;
    this.replay = null;     // frames held back while opening
    this.attaching = 0;     // resume requests not answered yet
    for (const saved of tab.get('outbox') || []) if (saved.session === id) this.addLocal(saved, saved.refused ? 'failed' : 'waiting');
  }

  get busy() { return this.outstanding || (!!this.replay && this.replay.live) || this.locals.some((entry) => entry.state === 'sending' && !entry.turn); }
  // The hub owes us the rest of something.
  get outstanding() { return !!this.live || this.locals.some((entry) => !entry.turn && (entry.state === 'sent' || entry.state === 'queued')); }
  get waitingCount() { return this.locals.filter((entry) => entry.state === 'waiting').length; }
  get empty() { return !this.history.length && !this.locals.length && !this.turns.length && !this.live; }

  // --- opening --------------------------------------------------------------------------------------------------

  fresh(agent) {
    this.agent = agent;
    this.state = 'ready';
  }

  // Loads what is stored, then attaches. Safe to call again at any time.
  async open() {
    if (this.opening) return;
    this.opening = true;
    if (this.state !== 'ready') this.setState('loading');
    try {
      let info = null;
      try { info = await api.session(this.id); } catch (error) { if (error.status !== 404) throw error; }
      const messages = await api.messages(this.id);
      if (!info && !messages.length && !this.locals.length) { this.setState('missing'); return; }
      this.dropLive();
      this.takeInfo(info);
      this.showHistory(messages);
      this.unanswered = messages.at(-1)?.role === 'user';
      this.state = 'ready';
      if (info || messages.length) this.attachFresh(info);
      this.flush();
      this.changed(this, 'state');
    } catch (error) {
      // Stored messages stay readable: only an empty page becomes an error page.
      if (this.state !== 'ready') { this.error = error; this.setState('failed'); }
    } finally {
      this.opening = false;
    }
  }

  setState(state) {
    this.state = state;
    this.changed(this, 'state');
  }

  takeInfo(info) {
    if (!info) return;
    this.title = info.title || '';
    this.agent = info.agent || this.agent;
    if (info.epoch) this.epoch = info.epoch;
  }

  // The first attach after loading. `known` is the end of the last turn this tab saw finish: what came before is stored.
  attachFresh(info) {
    this.storedSeq = info ? info.last_seq || 0 : 0;
    const saved = (tab.get('ends') || {})[this.id];
    const known = info && saved && saved[0] === info.epoch && saved[1] <= this.storedSeq ? saved[1] : 0;
    // A turn that failed is not among the messages: its end is asked for again.
    const failed = info && !info.live && this.unanswered;
    this.seq = failed ? Math.max(0, this.storedSeq - FAILED_FRAMES) : info && !info.live ? this.storedSeq : known;
    if (this.conn.state === 'sse' && info && !info.live && !failed) return;
    this.replay = { frames: [], until: null, live: !!info && info.live };
    this.attach(); // without a line: as soon as there is one
  }

  // Asks for everything after `seq`. Without a line it is asked again when there is one.
  attach() {
    if (this.conn.state === 'open') {
      const sent = this.conn.send({ type: 'chat_request', session_id: this.id, resume_after_seq: this.seq, ...(this.epoch ? { epoch: this.epoch } : {}) });
      if (sent) this.attaching += 1;
      return sent;
    }
    if (this.conn.state === 'sse') { this.pump(true); return true; }
    return false;
  }

  // --- the line came up or went down ----------------------------------------------------------------------------

  connected() {
    this.attaching = 0;
    if (this.stream) this.stream.abort();
    for (const entry of this.locals) if (entry.state === 'sending') this.mark(entry, 'waiting');
    if (this.replay) this.replay = { ...this.replay, frames: [], until: null };
    if (this.state === 'ready' && (this.seq || this.epoch || this.replay || this.outstanding)) this.attach();
    this.flush();
  }

  disconnected() {
    for (const entry of this.locals) if (entry.state === 'sending') this.mark(entry, 'waiting');
  }

  overHttp() {
    this.pump(false);
  }

  // --- frames ---------------------------------------------------------------------------------------------------

  frame(f) {
    if (f.type === 'resumed') { this.resumed(f); return; }
    if (f.type === 'queued') { this.queued(f); return; }
    if (!(f.seq > 0)) { if (f.type === 'error') this.refused(f); return; }
    if (this.replay) {
      this.replay.frames.push(f);
      if (this.replay.until !== null && f.seq >= this.replay.until) this.replayOver();
      return;
    }
    if (f.seq <= this.seq) return;
    const gap = f.seq !== this.seq + 1 && f.prev_seq === undefined;
    if (gap && this.gapAt !== this.seq && this.conn.state === 'open') {
      // Something in between never came: ask once more from where we are.
      this.gapAt = this.seq;
      this.attach();
      return;
    }
    if (gap && this.gapAt === this.seq && this.attaching) return;
    this.apply(f);
  }

  apply(f) {
    this.seq = f.seq;
    if (!this.live) this.beginTurn();
    const { question } = this.live;
    if (f.type === 'thinking' && !f.round && !this.attaching && question && question.state === 'sending') {
      this.mark(question, 'sent');
      this.saveOutbox();
    }
    this.live.frame(f);
    if (terminal(f)) this.endTurn();
    this.changed(this, f.type === 'tool_approval' && f.approval_id ? 'asks' : f.type === 'tool_decision' ? 'decided' : 'frame');
  }

  beginTurn() {
    const question = this.locals.find((entry) => !entry.turn && ['sending', 'sent', 'queued'].includes(entry.state));
    const turn = new Turn(() => this.retry(question));
    this.live = turn;
    if (question) {
      question.turn = turn;
      turn.question = question;
      if (question.state === 'queued') this.mark(question, 'sent');
      question.el.after(turn.el);
    } else {
      // Asked from elsewhere: fetch the question, unless it stands there already.
      const last = this.el.lastElementChild;
      if (!last || !last.classList.contains('user')) this.refreshSoon();
      this.el.append(turn.el);
    }
    this.changed(this, 'begin');
  }

  endTurn() {
    const turn = this.live;
    this.live = null;
    this.turns.push(turn);
    this.endSeq = this.seq;
    this.rememberEnd();
    if (turn.question && turn.question.state === 'sending') {
      this.mark(turn.question, 'sent');
      this.saveOutbox();
    }
    if (!this.epoch || !this.title) this.learn();
    // A list that came before the end may lack the question, or hold the answer already.
    if ((!turn.question || turn.question.stored) && this.history.at(-1)?.role !== 'user') this.refreshSoon();
    this.changed(this, 'done');
  }

  // The epoch and title of a chat that was begun here.
  async learn() {
    try {
      this.takeInfo(await api.session(this.id));
      this.rememberEnd();
      this.changed(this, 'state');
    } catch { /* known at the next attach */ }
  }

  // After a reload only what follows the last finished turn has to be replayed.
  rememberEnd() {
    if (!this.epoch || !this.endSeq) return;
    const ends = tab.get('ends') || {};
    delete ends[this.id];
    ends[this.id] = [this.epoch, this.endSeq];
    const names = Object.keys(ends);
    for (const name of names.slice(0, Math.max(0, names.length - 50))) delete ends[name];
    tab.set('ends', ends);
  }

  dropLive() {
    if (!this.live) return;
    this.live.el.remove();
    if (this.live.question) this.live.question.turn = null;
    this.live = null;
  }

  resumed(f) {
    const ours = this.attaching > 0;
    this.attaching = Math.max(0, this.attaching - 1);
    if (this.epoch && f.epoch && f.epoch !== this.epoch) { this.epoch = f.epoch; this.reload(); return; }
    this.epoch = f.epoch || this.epoch;
    if (!ours) this.accepted();
    if (this.replay && this.replay.until === null) {
      this.replay.until = f.last_seq || 0;
      if (this.replay.until <= this.seq) this.replayOver();
      else {
        const replay = this.replay;
        setTimeout(() => { if (this.replay === replay) this.replayOver(); }, REPLAY_WAIT_MS);
      }
    } else if (!f.live && this.live && f.last_seq <= this.seq) {
      // The hub knows of no running turn and has nothing more: take what it stored.
      this.reload();
    }
  }

  // Everything that was there before has arrived. Show the turn that is not finished.
  replayOver() {
    if (!this.replay) return;
    const frames = this.replay.frames;
    this.replay = null;
    let cut = 0;
    frames.forEach((f, i) => { if (terminal(f)) cut = i + 1; });
    if (cut && cut === frames.length && this.unanswered && frames[cut - 1].type === 'error') {
      cut = frames.slice(0, cut - 1).findLastIndex(terminal) + 1;
      if (cut) this.seq = frames[cut - 1].seq;
    } else if (cut) {
      this.seq = frames[cut - 1].seq;
      if (this.seq > this.storedSeq) this.refreshSoon(); // it ended while we were loading
      for (const entry of this.locals) if (entry.state === 'sent') entry.turn = entry.turn || true;
    }
    for (const f of frames.slice(cut)) if (f.seq > this.seq) this.apply(f);
    this.changed(this, 'live');
  }

  queued(f) {
    const entry = this.locals.find((each) => each.state === 'sending') || this.locals.find((each) => each.state === 'queued');
    if (!entry) return;
    this.mark(entry, 'queued', f.position > 1 ? `In line, number ${f.position}` : 'In line');
    this.saveOutbox();
  }

  // Errors without a number are about a request, not about a turn.
  refused(f) {
    if (f.code === 'replay_unavailable') {
      this.attaching = Math.max(0, this.attaching - 1);
      if (f.epoch) this.epoch = f.epoch;
      this.replay = null;
      this.reload();
      return;
    }
    if (f.code === 'not_running') { if (this.live) this.reload(); return; }
    const entry = this.locals.find((each) => each.state === 'sending');
    if (f.code === 'panicked') this.hold(entry);
    else if (entry) this.mark(entry, 'failed', f.message || 'Holt refused this message.');
    else if (this.live && f.code === 'internal') { this.live.frame(f); this.endTurn(); } // a hub without numbered errors
    else if (f.message) {
      announce(f.message);
      this.live?.note(f.message);
    }
    this.saveOutbox();
    this.changed(this, 'live');
  }

  // Everything is stopped: the message waits until it is not.
  hold(entry) {
    this.changed(this, 'stopped');
    if (entry) this.mark(entry, 'waiting');
  }

  // Starts over from the stored messages, at most twice in ten seconds.
  reload() {
    const now = Date.now();
    this.reloads = (this.reloads || []).filter((at) => now - at < 10000);
    if (this.reloads.length >= 2) { this.refreshSoon(); return; }
    this.reloads.push(now);
    this.open();
  }

  refreshSoon() {
    clearTimeout(this.refreshTimer);
    const timer = setTimeout(async () => {
      let messages;
      try { messages = await api.messages(this.id); } catch { return; }
      if (timer !== this.refreshTimer) return; // a newer list is on its way
      this.showHistory(messages);
      this.changed(this, 'frame');
    }, 150);
    this.refreshTimer = timer;
  }

  // --- the stored messages --------------------------------------------------------------------------------------

  // Shows the stored messages; turns that were watched keep their steps.
  showHistory(messages) {
    this.history = messages;
    const said = (text) => messages.filter((message) => message.role === 'user' && message.content.trim() === text.trim()).length;
    for (const entry of [...this.locals]) {
      if (said(entry.text) <= entry.base || entry.state === 'failed') continue;
      // The hub has it. If it is still running here, its turn stays behind it.
      this.locals.splice(this.locals.indexOf(entry), 1);
      entry.stored = true;
    }
    const pool = [...this.turns];
    const newest = pool.at(-1);
    this.turns = [];
    const drawn = this.drawn || new Map();
    this.drawn = new Map();
    const items = messages.map((message, i) => {
      const key = `${i} ${message.role} ${message.content}`;
      const keep = (make) => {
        const el = drawn.get(key) || make();
        this.drawn.set(key, el);
        return el;
      };
      if (message.role === 'user') return keep(() => userBubble(message.content, message.created_at, this.edit).el);
      // Stored before its end is told.
      if (i === messages.length - 1 && this.live?.text.trim() === message.content.trim()) return this.live.el;
      let at = pool.length - 1;
      while (at >= 0 && pool[at].text.trim() !== message.content.trim()) at -= 1;
      if (at >= 0) {
        const [turn] = pool.splice(at, 1);
        this.turns.push(turn);
        return turn.el;
      }
      return keep(() => storedAnswer(message.content));
    });
    // At the end of the list still matter: a turn that failed without a word, as it left nothing in the store, and one
    // that ended while an older list was on its way.
    const lost = pool.filter((turn) => turn === newest && !(turn.ended === 'done' && this.live) && messages.at(-1)?.role === 'user');
    for (const turn of lost) { this.turns.push(turn); items.push(turn.el); }
    for (const entry of this.locals) {
      items.push(entry.el);
      if (entry.turn && entry.turn.el) items.push(entry.turn.el);
    }
    if (this.live && !items.includes(this.live.el)) {
      const at = items.findIndex((el) => this.locals.some((entry) => entry.el === el));
      items.splice(at < 0 ? items.length : at, 0, this.live.el);
    }
    this.el.replaceChildren(...items);
    this.saveOutbox();
  }

  // --- sending --------------------------------------------------------------------------------------------------

  submit(text, agent) {
    const base = this.history.filter((message) => message.role === 'user' && message.content.trim() === text.trim()).length
      + this.locals.filter((entry) => entry.text.trim() === text.trim() && entry.state !== 'failed').length;
    this.addLocal({ session: this.id, mid: randomId() + randomId(), text, agent: agent || this.agent || 'default', base, at: Date.now() }, 'waiting');
    this.flush();
    this.saveOutbox();
    this.changed(this, 'sent');
  }

  addLocal(saved, state) {
    const bubble = userBubble(saved.text, saved.at, this.edit);
    const entry = { ...saved, ...bubble, turn: null };
    this.locals.push(entry);
    this.el.append(entry.el);
    this.mark(entry, state, saved.refused);
  }

  mark(entry, state, note) {
    entry.state = state;
    entry.refused = state === 'failed' ? note : undefined;
    entry.el.dataset.state = state;
    const kept = state === 'waiting' && (this.conn.state === 'offline' || this.conn.held);
    const text = { waiting: this.conn.state === 'offline' ? 'Waits for the connection' : kept ? 'Waits until everything resumes' : 'Sending', sending: 'Sending', failed: note, queued: note }[state];
    entry.status.replaceChildren(...(text ? [h('span', null, text)] : []));
    if (state === 'failed') entry.status.append(h('button', { type: 'button', class: 'btn small', onclick: () => { this.discard(entry); this.submit(entry.text, entry.agent); } }, 'Try again'));
    if (state === 'failed' || kept) {
      entry.status.append(h('button', { type: 'button', class: 'btn small quiet', onclick: () => this.discard(entry) }, 'Remove'));
    }
    if (state === 'failed') announce(text);
  }

  discard(entry) {
    this.locals.splice(this.locals.indexOf(entry), 1);
    entry.el.remove();
    this.saveOutbox();
    this.changed(this, 'live');
  }

  // Sends what waits, over whatever line there is.
  flush() {
    if (this.state !== 'ready') return;
    if (this.conn.state === 'sse') this.pump(false);
    else for (const entry of this.locals) {
      if (this.conn.held || entry.state !== 'waiting' || !this.conn.send({ type: 'chat_request', ...this.request(entry) })) continue;
      this.mark(entry, 'sending');
    }
    for (const entry of this.locals) if (entry.state === 'waiting') this.mark(entry, 'waiting');
    this.changed(this, 'live');
  }

  request(entry) {
    return { session_id: this.id, agent: entry.agent, message: entry.text, message_id: entry.mid };
  }

  // The hub has answered what was sent first.
  accepted() {
    const entry = this.locals.find((each) => each.state === 'sending');
    if (!entry) return;
    this.mark(entry, 'sent');
    this.saveOutbox();
  }

  // Nothing but messages that the hub refused.
  get unborn() { return this.locals.length > 0 && this.locals.every((entry) => entry.refused) && !this.history.length && !this.turns.length; }

  // Only what the hub may not have yet is kept: sending it again is harmless, its message_id is the same.
  saveOutbox() {
    const others = (tab.get('outbox') || []).filter((saved) => saved.session !== this.id);
    const mine = this.locals.filter((entry) => entry.state === 'waiting' || entry.state === 'sending' || entry.refused)
      .map(({ session, mid, text, agent, base, at, refused }) => ({ session, mid, text, agent, base, at, refused }));
    const all = [...others, ...mine];
    tab.set('outbox', all.length ? all : null);
  }

  lastQuestion() {
    const local = this.locals.at(-1);
    return local ? local.text : [...this.history].reverse().find((message) => message.role === 'user')?.content || '';
  }

  retry(question) {
    const last = [...this.history].reverse().find((message) => message.role === 'user');
    const text = question ? question.text : last && last.content;
    if (text) this.submit(text, question && question.agent);
  }

  // --- server-sent events ---------------------------------------------------------------------------------------

  // One stream at a time: first the turn we miss the rest of, then each waiting message.
  async pump(attach) {
    if (this.pumping) return;
    this.pumping = true;
    let wait = 500;
    try {
      while (this.conn.state === 'sse') {
        const resume = attach || this.outstanding || !!this.replay;
        const entry = resume || this.conn.held ? null : this.locals.find((each) => each.state === 'waiting');
        if (!resume && !entry) break;
        attach = false;
        const body = entry ? this.request(entry)
          : { session_id: this.id, resume_after_seq: this.seq, ...(this.epoch ? { epoch: this.epoch } : {}) };
        if (entry) this.mark(entry, 'sending');
        else this.attaching += 1;
        this.changed(this, 'live');
        this.stream = new AbortController();
        let broken = false;
        try {
          await this.conn.stream(body, this.stream.signal, () => { if (entry) this.accepted(); }, (f) => {
            wait = 500;
            this.frame({ session_id: this.id, ...f });
            // Nothing runs and nothing is missing: such a stream has nothing more to say.
            if (f.type === 'resumed' && !f.live && f.last_seq <= this.seq && this.stream) this.stream.abort();
          });
        } catch (error) {
          broken = true;
          if (error.status > 0) {
            if (entry && error.code === 'panicked') { this.hold(entry); broken = false; } else if (entry) { this.mark(entry, 'failed', error.message); this.saveOutbox(); broken = false; } else this.reload();
          } else if (entry && entry.state === 'sending') this.mark(entry, 'waiting');
        }
        this.stream = null;
        if (this.replay && this.replay.until !== null) this.replayOver();
        if (!broken && !this.outstanding) continue;
        // Cut in the middle: wait a little, then ask for the rest.
        await this.conn.doubt();
        await new Promise((done) => setTimeout(done, wait * (0.7 + Math.random() * 0.3)));
        wait = Math.min(wait * 2, 15000);
      }
    } finally {
      this.pumping = false;
      this.stream = null;
      this.changed(this, 'live');
    }
  }

  // --- stop ---------------------------------------------------------------------------------------

  async cancel() {
    if (this.conn.send({ type: 'cancel', session_id: this.id })) return;
    try { await api.post(path`sessions/${this.id}/stop`); } catch (error) {
      if (error.status === 409) this.reload();
      else announce(error.message);
    }
  }
}

function userBubble(text, time, edit) {
  const status = h('div', { class: 'status' });
  const at = time ? h('time', { class: 'at' }, clock(time)) : null;
  const el = h('li', { class: 'msg user' }, h('span', { class: 'sr' }, 'You: '), h('div', { class: 'bubble', dir: 'auto' }, text),
    h('div', { class: 'under' }, iconButton('edit', 'Edit and ask again', () => edit(text), { class: 'icon-btn edit' }), at), status);
  return { el, status };
}

function storedAnswer(text) {
  const { el, body } = assistantBubble();
  new Markdown(body).set(text);
  return el;
}
