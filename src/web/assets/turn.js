// One answer on the page: its tool steps, its text, how it ended. Fed with the frames of one turn.
import { h, icon, announce } from './dom.js';
import { api, path } from './api.js';
import { choices, request } from './approvals.js';
import { Markdown, spoken } from './markdown.js';
import { explain } from './ui.js';

const ENDINGS = {
  cancelled: 'Stopped.',
  interrupted: 'Holt was stopped in the middle of this answer.',
  rate_limited: 'Too much at once. Try again in a moment.',
  budget: 'The budget for this agent is used up.',
};

export function assistantBubble() {
  const body = h('div', { class: 'md', dir: 'auto' });
  const el = h('li', { class: 'msg assistant' }, h('span', { class: 'sr' }, 'Holt: '), body);
  return { el, body };
}

export class Turn {
  // retry() sends the question again.
  constructor(retry) {
    this.retry = retry;
    const { el, body } = assistantBubble();
    this.el = el;
    this.markdown = new Markdown(body);
    this.steps = new Map();
    this.stepList = h('div', { class: 'step-list' });
    this.stepTitle = h('span');
    this.stepBox = h('details', { class: 'steps', open: true, hidden: true }, h('summary', null, this.stepTitle), this.stepList);
    this.thoughts = document.createTextNode('');
    this.thoughtBox = h('details', { class: 'thoughts', hidden: true }, h('summary', null, 'Thoughts'), h('p', null, this.thoughts));
    this.waitText = h('span', null, 'Thinking');
    this.wait = h('div', { class: 'wait' }, h('i'), h('i'), h('i'), this.waitText);
    this.foot = h('div', { class: 'foot' });
    el.classList.add('live');
    body.before(this.thoughtBox, this.stepBox);
    el.append(this.wait, this.foot);
    this.roundStart = 0;
    this.ended = null;
  }

  get text() { return this.markdown.text; }

  frame(f) {
    switch (f.type) {
      case 'thinking':
        this.newRound();
        this.waiting(f.round ? 'Reading the results' : 'Thinking');
        break;
      case 'content_delta':
        if (!f.text) break;
        if (this.roundStart === -1) {
          if (this.text && !this.text.endsWith('\n')) this.markdown.append('\n\n');
          this.roundStart = this.text.length;
        }
        this.markdown.append(f.text);
        this.waiting(null);
        break;
      case 'thinking_delta':
        this.thoughts.data += f.text || '';
        this.thoughtBox.hidden = false;
        break;
      case 'stream_rollback':
        if (this.roundStart >= 0) this.markdown.set(this.text.slice(0, this.roundStart));
        this.waiting('Trying again');
        break;
      case 'tool_approval': this.approval(f); break;
      case 'tool_decision': this.decision(f); break;
      case 'tool_start': this.toolStart(f); break;
      case 'tool_end': this.toolEnd(f); break;
      case 'cost_limit': this.note(f.text || 'Close to the cost limit: no more tools in this answer.'); break;
      case 'cost_warning': this.note(f.text); break;
      case 'usage': this.usage = f; break;
      case 'content':
        this.markdown.set(f.text || '');
        this.settled = true;
        this.waiting(null);
        break;
      case 'done': this.end('done'); break;
      case 'error': this.end(f.code || 'internal', f.message); break;
      default: // a newer hub may say more
    }
  }

  newRound() { this.roundStart = -1; }

  waiting(text) {
    this.wait.hidden = text === null;
    if (text) this.waitText.textContent = text;
  }

  // --- tool steps -----------------------------------------------------------------------------------------------

  step(f) {
    const key = f.tool_id || `${f.tool}/${f.round || 0}`;
    let step = this.steps.get(key);
    // Without an id, a second call of the same tool in the same round is a new step.
    if (step && !f.tool_id && f.type !== 'tool_end' && step.state !== 'asked') {
      this.steps.set(`${key}/${this.steps.size}`, step);
      step = null;
    }
    if (!step) {
      step = { tool: f.tool || 'tool', state: '' };
      step.badge = h('span', { class: 'badge' });
      step.time = h('span', { class: 'time' });
      step.body = h('div', { class: 'step-body' });
      step.el = h('details', { class: 'step' }, h('summary', null, step.badge, h('code', null, step.tool), step.time), step.body);
      this.stepList.append(step.el);
      this.steps.set(key, step);
    }
    this.stepBox.hidden = false;
    this.newRound();
    return step;
  }

  mark(step, state, label, iconName) {
    step.state = state;
    step.el.dataset.state = state;
    step.badge.replaceChildren(iconName ? icon(iconName) : h('i', { class: 'spin' }), h('span', { class: 'sr' }, label + ': '));
    const count = this.steps.size;
    this.stepTitle.textContent = count === 1 ? 'One step' : `${count} steps`;
  }

  line(step, text, className) { step.body.append(h('p', className ? { class: className } : null, text)); }

  toolStart(f) {
    const step = this.step(f);
    if (step.asking) this.settle(step, 'Allowed.');
    this.mark(step, 'running', 'Running');
    if (f.text && !step.shown) { step.shown = true; this.line(step, f.text, 'args'); }
    this.waiting(null);
  }

  toolEnd(f) {
    const step = this.step(f);
    this.mark(step, f.error ? 'failed' : 'ok', f.error ? 'Failed' : 'Done', f.error ? 'warn' : 'check');
    if (f.duration_ms != null || !f.error) step.time.textContent = took(f.duration_ms || 0);
    if (f.error) this.line(step, f.error, 'bad');
    else this.line(step, `Finished in ${took(f.duration_ms || 0)}${f.round ? `, round ${f.round}` : ''}.`);
  }

  approval(f) {
    const step = this.step(f);
    if (!f.approval_id) {
      this.line(step, 'Allowed by a rule.');
      this.mark(step, 'asked', 'Allowed', 'check');
      return;
    }
    this.mark(step, 'asked', 'Waiting for you', 'warn');
    step.el.open = true;
    this.stepBox.open = true;
    this.waiting(null);
    step.shown = true;
    const say = h('p', { class: 'ask-state', role: 'status' });
    const choose = async (action) => {
      for (const button of buttons) button.disabled = true;
      say.textContent = 'Sending…';
      try {
        await api.decide(f.approval_id, action);
        if (step.asking) this.settle(step, action === 'deny' ? 'Denied.' : 'Allowed.');
        if (action === 'deny') this.mark(step, 'denied', 'Denied', 'close');
      } catch (error) {
        if (!step.asking) return;
        if (error.status === 409 || error.status === 404) { this.settle(step, 'Already decided, or no longer waiting.'); return; }
        for (const button of buttons) button.disabled = false;
        say.textContent = explain(error);
      }
    };
    const buttons = choices(step.tool, (label, action, kind) => h('button', { type: 'button', class: 'btn ' + kind, onclick: () => choose(action) }, label));
    const what = h('div', { class: 'what' }, request({ tool: step.tool, payload: (f.text || '').replace(/^Execute tool "[^"]*" with args: /, '') }));
    // The frame may hold a part of long arguments; who asks and until when is known to the hub.
    api.get(path`approvals/${f.approval_id}`).then((row) => what.replaceChildren(...request(row)), () => {});
    step.asking = h('div', { class: 'ask' }, h('div', { class: 'ask-row' }, ...buttons), say);
    step.approvalId = f.approval_id;
    step.body.append(what, step.asking);
    announce(`Holt asks for permission. ${what.firstChild.textContent}`);
  }

  // Somebody decided: here, on another device, by a rule, or nobody did in time.
  decision(f) {
    const step = this.step(f);
    const approved = f.approval_status === 'approved';
    this.settle(step, approved ? 'Allowed.' : f.approval_status === 'denied' ? 'Denied.' : 'Nobody decided in time.');
    if (!approved) this.mark(step, 'denied', f.approval_status === 'denied' ? 'Denied' : 'Expired', 'close');
  }

  settle(step, text) {
    if (!step.asking) return;
    step.asking.remove();
    step.asking = null;
    this.line(step, text);
  }

  // --- the end --------------------------------------------------------------------------------------------------

  note(text) { this.foot.before(h('p', { class: 'note' }, text)); }

  end(code, message) {
    this.ended = code;
    this.markdown.render();
    this.waiting(null);
    this.el.classList.remove('live');
    for (const step of this.steps.values()) {
      if (step.asking) this.settle(step, 'No longer waiting.');
      if (step.state === 'running' || step.state === 'asked') this.mark(step, 'denied', 'Not finished', 'close');
    }
    if (!this.steps.size) this.stepBox.remove();
    else this.stepBox.open = false;
    if (code === 'done') {
      if (!this.text) this.note('No text in this answer.');
      announce(this.el.isConnected ? spoken(this.markdown.el) || 'Done.' : 'An answer has arrived.');
    } else {
      const text = ENDINGS[code] || message || 'Something went wrong.';
      const calm = code === 'cancelled';
      const box = h('div', { class: calm ? 'note ending' : 'ending bad' }, calm ? null : icon('warn'), h('span', null, text));
      if (this.retry) box.append(h('button', { type: 'button', class: 'btn small', onclick: () => { box.querySelector('button').remove(); this.retry(); } }, 'Try again'));
      this.foot.before(box);
      announce(text);
    }
    const bits = [];
    if (this.usage && this.usage.tokens) bits.push(`${this.usage.tokens.toLocaleString()} tokens`);
    if (this.usage && this.usage.cost_usd) bits.push(`$${this.usage.cost_usd < 0.01 ? this.usage.cost_usd.toPrecision(2) : this.usage.cost_usd.toFixed(2)}`);
    this.foot.textContent = bits.join(' · ');
  }
}

function took(ms) { return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`; }
