// The line to the hub: one WebSocket, kept up; server-sent events over fetch when it cannot be had.
//
// States: connecting, open (WebSocket), sse (HTTP works, the WebSocket does not), offline.
import { apiKey, checkSignedIn, failure, headers, ApiError } from './api.js';

const BACKOFF_MS = [1000, 2000, 4000, 8000, 15000];
const DIAL_TIMEOUT_MS = 6000;
const QUIET_MS = 25000;       // after this much silence: ask
const PONG_WAIT_MS = 8000;    // and wait this long
const WS_TRIES_BEFORE_SSE = 3;

export class Conn {
  constructor(handlers) {
    this.on = handlers; // { frame, state, open }
    this.state = 'connecting';
    this.lastSeen = Date.now();
    this.tries = 0;
    this.stopped = true;
    this.held = false; // everything is stopped: messages wait
    this.wake = () => { if (!document.hidden) this.nudge(); };
    this.lost = () => this.ask(2500);
  }

  start() {
    this.stopped = false;
    addEventListener('online', this.wake);
    addEventListener('offline', this.lost);
    addEventListener('pageshow', this.wake);
    document.addEventListener('visibilitychange', this.wake);
    this.watch = setInterval(() => this.tick(), 2000);
    this.dial();
  }

  stop() {
    this.stopped = true;
    removeEventListener('online', this.wake);
    removeEventListener('offline', this.lost);
    removeEventListener('pageshow', this.wake);
    document.removeEventListener('visibilitychange', this.wake);
    clearInterval(this.watch);
    clearTimeout(this.timer);
    const ws = this.ws;
    this.ws = null;
    if (ws) ws.close(1000);
  }

  send(frame) {
    if (this.state !== 'open' || this.ws.readyState !== WebSocket.OPEN) return false;
    this.ws.send(JSON.stringify(frame));
    return true;
  }

  setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.on.state(state);
  }

  dial() {
    clearTimeout(this.timer);
    if (this.stopped || this.ws) return;
    const key = apiKey();
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const ws = new WebSocket(`${scheme}//${location.host}/api/v1/ws${key ? '?token=' + encodeURIComponent(key) : ''}`);
    this.ws = ws;
    const deadline = setTimeout(() => this.dropped(ws, 0), DIAL_TIMEOUT_MS);
    ws.onopen = () => {
      clearTimeout(deadline);
      if (this.ws !== ws) return;
      this.askedAt = 0;
      this.lastSeen = Date.now();
      this.openedAt = this.lastSeen;
      this.setState('open');
      this.on.open();
    };
    ws.onmessage = (event) => {
      if (this.ws !== ws) return;
      this.lastSeen = Date.now();
      this.askedAt = 0;
      // Only a line that has worked counts as working: a hub that closes at once (1013) does not.
      this.tries = 0;
      let frame;
      try { frame = JSON.parse(event.data); } catch { return; }
      if (frame && frame.type !== 'pong') this.on.frame(frame);
    };
    ws.onclose = (event) => {
      clearTimeout(deadline);
      this.dropped(ws, event.code);
    };
  }

  async dropped(ws, code) {
    if (this.ws !== ws) return;
    this.ws = null;
    ws.onclose = ws.onmessage = null;
    ws.close();
    if (this.stopped) return;
    const wasOpen = this.state === 'open';
    if (wasOpen && Date.now() - this.openedAt > 10000) this.tries = 0;
    if (code === 1013) this.tries = Math.max(this.tries, WS_TRIES_BEFORE_SSE);
    this.tries += 1;
    if (wasOpen) this.setState('connecting');
    this.schedule();
    // A refused upgrade looks like a dead line from here, so ask over HTTP which of the two it is.
    const answer = await checkSignedIn();
    if (this.stopped || this.state === 'open') return;
    if (answer === null) this.setState('offline');
    else {
      this.lastSeen = Date.now();
      if (this.tries >= WS_TRIES_BEFORE_SSE) this.setState('sse');
      else if (this.state !== 'sse') this.setState('connecting');
    }
  }

  schedule() {
    clearTimeout(this.timer);
    const base = BACKOFF_MS[Math.min(this.tries, BACKOFF_MS.length) - 1] || BACKOFF_MS[0];
    this.timer = setTimeout(() => this.dial(), base * (0.6 + Math.random() * 0.4));
  }

  // Something says the network changed: dial now, or make sure the open line still lives.
  nudge() {
    if (this.stopped) return;
    if (this.state === 'open') this.ask(4000);
    else if (!this.ws) this.dial();
  }

  ask(waitMs) {
    if (this.state !== 'open' || this.askedAt) return;
    this.askedAt = Date.now();
    this.send({ type: 'ping' });
    const ws = this.ws;
    setTimeout(() => { if (this.ws === ws && this.askedAt) this.dropped(ws, 0); }, waitMs);
  }

  tick() {
    if (this.state === 'open' && Date.now() - this.lastSeen > QUIET_MS) this.ask(PONG_WAIT_MS);
  }

  // An HTTP stream broke: find out whether the hub is gone.
  async doubt() {
    if (this.stopped || this.state === 'open') return;
    const answer = await checkSignedIn();
    if (answer === null && this.state !== 'open') this.setState('offline');
    if (answer !== null && this.state === 'offline') this.setState('sse');
  }

  // One chat request or resume as server-sent events. Resolves when the stream ended, however it ended.
  async stream(body, signal, onAccepted, onFrame) {
    let response;
    try {
      response = await fetch('/api/v1/chat', {
        method: 'POST',
        headers: headers({ 'Content-Type': 'application/json', Accept: 'text/event-stream' }),
        credentials: 'same-origin',
        body: JSON.stringify(body),
        signal,
      });
    } catch { throw new ApiError(0, 'Holt cannot be reached.'); }
    if (!response.ok) {
      const error = await failure(response);
      if (error.status === 401) await checkSignedIn();
      throw error;
    }
    onAccepted();
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        this.lastSeen = Date.now();
        rest += decoder.decode(value, { stream: true });
        const parts = rest.split('\n\n');
        rest = parts.pop();
        for (const part of parts) {
          const data = part.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6)).join('\n');
          if (!data) continue;
          let frame;
          try { frame = JSON.parse(data); } catch { continue; }
          onFrame(frame);
        }
      }
    } catch { /* cut off: the caller sees that no last frame came */ }
  }
}
