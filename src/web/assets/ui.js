// What every page is made of: buttons that work, dialogs, forms, toasts, and lists that load, fail and retry.
import { announce, copyText, h, icon, iconButton, mark } from './dom.js';

// What went wrong, as a sentence.
export function explain(error) {
  if (error.status === 0) return 'Holt cannot be reached right now. Nothing was changed.';
  if (error.status === 429) return `Too many tries. Please wait ${error.retryAfter > 90 ? Math.ceil(error.retryAfter / 60) + ' minutes' : (error.retryAfter || 'a few') + ' seconds'}.`;
  if (error.code === 'panicked') return 'Everything is stopped: resume first.';
  if (error.status === 403 && /scope/.test(error.message)) return 'This login may not do that: a scope is missing.';
  if (error.status === 500 && error.id) return `Holt could not do that. The log tells why, under the id ${error.id}.`;
  const text = error.message || 'That did not work.';
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}

export function passwordFault(text) {
  const size = new TextEncoder().encode(text).length;
  return size < 8 ? 'The password needs at least 8 characters.' : size > 72 ? 'The password is too long: at most 72 bytes.' : '';
}

// --- toasts -----------------------------------------------------------------------------------------------------------

// There from the start, so that screen readers hear the first one too. They have a place of their own below the page, or
// in the dialog that is open: nothing lies under them.
export const toasts = h('div', { class: 'toasts', role: 'status' });
function seat() {
  const head = [...document.querySelectorAll('dialog[open] > .dialog-head')].at(-1);
  if (head ? head.nextSibling === toasts : toasts.parentNode?.matches('.body')) return;
  if (head) head.after(toasts);
  else document.querySelector('.body')?.append(toasts);
}

// Says that something happened. `undo` is offered for ten seconds.
export function toast(text, { bad = false, undo = null } = {}) {
  while (toasts.children.length > 1) toasts.firstChild.remove();
  seat();
  // What they speak of stays in sight when their place takes some of the page's.
  const on = document.activeElement;
  const box = on?.closest('.scroll, .outlet, .dialog');
  const below = () => on.getBoundingClientRect().bottom - box.getBoundingClientRect().bottom;
  const inSight = box && below() <= 0;
  const el = h('div', { class: bad ? 'toast bad' : 'toast' }, h('span', null, text));
  const gone = () => el.remove();
  if (undo) el.append(h('button', { type: 'button', class: 'btn small', onclick: async () => { gone(); try { await undo(); } catch (error) { toast(explain(error), { bad: true }); } } }, 'Undo'));
  el.append(iconButton('close', 'Dismiss', gone));
  toasts.append(el);
  if (inSight && below() > 0) box.scrollTop += below() + 8;
  let timer = setTimeout(gone, undo || bad ? 10000 : 5000);
  el.addEventListener('pointerenter', () => clearTimeout(timer));
  el.addEventListener('focusin', () => clearTimeout(timer));
  el.addEventListener('pointerleave', () => { timer = setTimeout(gone, 3000); });
}

// --- buttons ----------------------------------------------------------------------------------------------------------

// A button that does something that takes time: never twice at once, errors become a toast. It keeps the focus.
export function action(label, work, { kind = '', icon: name, ...props } = {}) {
  const el = h('button', { type: 'button', class: 'btn ' + kind, onclick: async () => {
    if (el.ariaDisabled === 'true') return;
    busy(el, true);
    try { await work(el); } catch (error) { toast(explain(error), { bad: true }); } finally { busy(el, false); }
  }, ...props }, name && icon(name), label);
  return el;
}

function busy(el, on) {
  el.ariaDisabled = on ? 'true' : null;
  el.classList.toggle('working', on);
}

export const link = (label, href, { kind = '', icon: name, ...props } = {}) => h('a', { class: 'btn ' + kind, href, ...props }, name && icon(name), label);

// A text in a box with a button that copies it.
export function copyBox(text, label) {
  const button = action('Copy', async () => { await copyText(text); button.lastChild.data = 'Copied'; announce('Copied.'); setTimeout(() => { button.lastChild.data = 'Copy'; }, 2000); }, { icon: 'copy', kind: 'small' });
  return h('div', { class: 'copy-box' }, h('code', { tabindex: '0', role: 'textbox', 'aria-readonly': 'true', 'aria-label': label }, text), button);
}

// --- dialogs ----------------------------------------------------------------------------------------------------------

let dialogs = 0;
// Opens a modal dialog; `build(close)` gives its content. Resolves with what `close` was given, undefined when it was left.
export function dialog(title, build, { wide = false } = {}) {
  return new Promise((resolve) => {
    dialogs += 1;
    const id = 'dialog-' + dialogs;
    let result;
    const el = h('dialog', { class: wide ? 'dialog wide' : 'dialog', 'aria-labelledby': id, onclose: () => { el.remove(); seat(); resolve(result); } });
    const close = (value) => { result = value; el.close(); };
    el.append(h('div', { class: 'dialog-head' }, h('h2', { id }, title), iconButton('close', 'Close', () => close())), ...[build(close)].flat());
    document.body.append(el);
    el.showModal();
    const first = el.querySelector('[autofocus], .field input, .field textarea, .field select');
    if (first) first.focus();
  });
}

// What was asked on one page is not answered on another.
export function closeDialogs() {
  for (const el of document.querySelectorAll('dialog[open]')) el.close();
}

// Asks before something that cannot be taken back. `work` runs while the dialog is open; true when it was done.
export function confirm(title, text, yes, work) {
  return dialog(title, (close) => {
    const problem = h('p', { class: 'problem', role: 'alert' });
    const button = action(yes, async () => {
      problem.textContent = '';
      try { await work(); close(true); } catch (error) { problem.textContent = explain(error); }
    }, { kind: 'danger' });
    return [h('p', { dir: 'auto' }, text), problem, h('div', { class: 'row' }, h('button', { type: 'button', class: 'btn', autofocus: true, onclick: () => close() }, 'Cancel'), button)];
  });
}

// --- forms ------------------------------------------------------------------------------------------------------------

let fields = 0;
// One input. kind: text (default), password, number, textarea, select, checkbox, checks, list (one a line).
// `options`: [value, label] pairs. `check(value)` returns what is wrong, or nothing.
export function field(name, label, { kind = 'text', value, options = [], hint, check, required, optional, ...props } = {}) {
  fields += 1;
  const id = `f${fields}-${name}`;
  const notes = [hint && id + '-hint', id + '-bad'].filter(Boolean).join(' ');
  const common = { id, name, 'aria-describedby': notes, required, ...props };
  let input;
  let read;
  if (kind === 'textarea' || kind === 'list') {
    input = h('textarea', { rows: kind === 'list' ? 3 : 6, dir: 'auto', ...common });
    input.value = kind === 'list' ? (value || []).join('\n') : value ?? '';
    read = () => (kind === 'list' ? input.value.split('\n').map((line) => line.trim()).filter(Boolean) : input.value);
  } else if (kind === 'select') {
    input = h('select', common, options.map(([key, text]) => h('option', { value: key }, text)));
    if (value != null && !options.some(([key]) => key === value)) input.append(h('option', { value }, value));
    if (value != null) input.value = value;
    read = () => input.value;
  } else if (kind === 'checks') {
    const boxes = options.map(([key, text]) => h('label', { class: 'check' }, h('input', { type: 'checkbox', value: key, checked: (value || []).includes(key) }), h('span', null, text)));
    input = h('fieldset', { id, 'aria-describedby': notes }, h('legend', null, label), h('div', { class: 'checks' }, boxes));
    read = () => [...input.querySelectorAll('input:checked')].map((box) => box.value);
  } else if (kind === 'checkbox') {
    input = h('input', { type: 'checkbox', ...common, checked: !!value });
    read = () => input.checked;
  } else {
    input = h('input', { type: kind === 'number' ? 'text' : kind, inputmode: kind === 'number' ? 'decimal' : null, dir: kind === 'text' ? 'auto' : null, ...common });
    input.value = value ?? '';
    read = () => (kind === 'number' ? Number(input.value) : kind === 'password' ? input.value : input.value.trim());
  }
  const bad = h('p', { class: 'problem', id: id + '-bad' });
  const title = kind === 'checks' ? null : kind === 'checkbox' ? null : h('label', { for: id }, label, optional && h('span', { class: 'soft' }, ' (optional)'));
  const body = kind === 'checkbox' ? h('label', { class: 'check' }, input, h('span', null, label)) : input;
  const el = h('div', { class: 'field' }, title, body, hint && h('p', { class: 'hint', id: id + '-hint' }, hint), bad);
  const set = (text) => { bad.textContent = text || ''; if (text) input.setAttribute('aria-invalid', 'true'); else input.removeAttribute('aria-invalid'); };
  input.addEventListener('input', () => set(''));
  return { el, input, name, set, get value() { return read(); }, wrong() {
    const now = read();
    if (required && (now === '' || now?.length === 0)) return kind === 'checks' ? 'Choose at least one.' : 'Please fill this in.';
    if (kind === 'number' && !Number.isFinite(now)) return 'Please enter a number.';
    return check ? check(now) : '';
  } };
}

// Fields with a button. `work(values)` sends them; what the hub refuses is shown at the field it names.
export function form(list, { submit = 'Save', kind = 'primary', cancel = null, work, extra = [] }) {
  const problem = h('p', { class: 'problem', role: 'alert' });
  const button = h('button', { class: 'btn ' + kind }, submit);
  const shown = list.filter((each) => each.name);
  return h('form', { class: 'form', novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    if (button.ariaDisabled === 'true') return;
    problem.textContent = '';
    let first = null;
    for (const each of shown) {
      const text = each.wrong();
      each.set(text);
      if (text && !first) first = each;
    }
    if (first) { focusOn(first); return; }
    busy(button, true);
    try {
      await work(Object.fromEntries(shown.map((each) => [each.name, each.value])));
    } catch (error) {
      const text = explain(error);
      const named = [400, 403, 409].includes(error.status) ? shown.map((each) => [error.message.search(new RegExp(`\\b${each.name}\\b`)), each]).filter(([at]) => at >= 0).sort((a, b) => a[0] - b[0])[0] : null;
      if (named) {
        const said = explain({ message: error.message.replace(new RegExp(`^(invalid )?\\S*\\b${named[1].name}: `), '') });
        named[1].set(said); focusOn(named[1]); announce(said);
      } else problem.textContent = text;
    } finally { busy(button, false); }
  } }, list.map((each) => each.el || each), problem,
  h('div', { class: 'row' }, extra, cancel && h('button', { type: 'button', class: 'btn', onclick: cancel }, 'Cancel'), button));
}

function focusOn(each) { (each.input.matches('fieldset') ? each.input.querySelector('input') : each.input).focus(); }

// A form in a dialog; resolves with true after it was sent.
export const ask = (title, list, { intro, ...options }) => dialog(title, (close) => [intro && h('p', null, intro),
  form(list, { ...options, cancel: () => close(), work: async (values) => { await options.work(values); close(true); } })].filter(Boolean));

// --- lists that load --------------------------------------------------------------------------------------------------

export const loading = () => h('div', { class: 'loading', role: 'status' }, h('div', { class: 'dots' }, h('i'), h('i'), h('i')), h('span', { class: 'sr' }, 'Loading'));

// Nothing here yet: says what to do about it.
export const empty = (title, text, ...kids) => h('div', { class: 'blank' }, mark(56), h('h2', null, title), text && h('p', null, text), kids);

export function failed(error, retry) {
  const what = error.status === 403 ? 'You may not see this' : error.status === 503 ? 'Not available' : error.status === 404 ? 'Not found' : 'This could not be loaded';
  return h('div', { class: 'blank failed', role: 'alert' }, h('h2', null, what), h('p', null, explain(error)),
    h('button', { type: 'button', class: 'btn', onclick: retry }, icon('again'), 'Try again'));
}

// Loads something and draws it, again whenever it is told to, and keeps what is shown when that fails.
// `page`: what a page is called with (see shell.js). `draw(data, refresh)` gives elements.
export function live(page, fetch, draw, { every = 0 } = {}) {
  const el = h('div', { class: 'live-part', 'aria-busy': 'true' }, loading());
  let last = null;
  let again = false;
  let running = null;
  const refresh = () => {
    if (running) { again = true; return running; }
    running = (async () => {
      do {
        again = false;
        try {
          const data = await fetch();
          const text = JSON.stringify(data ?? null);
          if (page.signal.aborted) return;
          if (text !== last && !(last !== null && el.querySelector('form :focus'))) {
            last = text;
            swap(el, draw(data, refresh));
          }
        } catch (error) {
          if (page.signal.aborted) return;
          if (error.status === undefined) console.error(error);
          if (last === null || error.status !== 0 && error.status !== 429) {
            last = null;
            swap(el, failed(error, () => { swap(el, loading()); refresh(); }));
          }
        }
        el.setAttribute('aria-busy', 'false');
      } while (again);
    })().finally(() => { running = null; });
    return running;
  };
  refresh();
  page.onRefresh(refresh, every);
  return { el, refresh };
}

// What this login may not see, or this hub does not have, is null.
export async function perhaps(work) {
  try { return await work; } catch (error) { if ([403, 404, 503].includes(error.status)) return null; throw error; }
}

// New content for a place; the focus and what was folded out stay where they were. Marks: `data-k`, or an id.
export function swap(place, ...kids) {
  const name = (el) => el && (el.dataset.k || el.id || (el.getAttribute && (el.getAttribute('href') || el.getAttribute('aria-label') || el.textContent)));
  const inside = place.contains(document.activeElement) && document.activeElement !== place ? document.activeElement : null;
  const key = inside && name(inside);
  const open = new Set([...place.querySelectorAll('details[open][data-k]')].map((each) => each.dataset.k));
  place.replaceChildren(...kids.flat(Infinity).filter((kid) => kid != null && kid !== false));
  for (const each of place.querySelectorAll('details[data-k]')) if (open.has(each.dataset.k)) each.open = true;
  if (!key) return;
  place.tabIndex = -1;
  ([...place.querySelectorAll(inside.tagName)].find((each) => name(each) === key) || place).focus({ preventScroll: true });
}

// --- small things -----------------------------------------------------------------------------------------------------

export const tag = (text, kind = '') => h('span', { class: 'tag ' + (kind || '').toLowerCase() }, text);
export const labels = (map) => h('span', { class: 'labels' }, Object.entries(map || {}).map(([name, value]) => h('span', { class: 'tag plain', dir: 'auto' }, `${name}: ${value}`)));
export const section = (title, ...kids) => h('section', { class: 'section' }, h('h2', null, title), kids);
export const facts = (rows) => h('dl', { class: 'facts' }, rows.filter((row) => row && row[1] != null && row[1] !== '' && row[1] !== false).map(([name, value]) => h('div', null, h('dt', null, name), h('dd', { dir: 'auto' }, value))));

// A table that scrolls in itself; on a phone each row is a card. `columns`: [title, row -> content, class]. The roles
// stay when the style makes blocks of its parts.
export const table = (label, columns, rows) => h('div', { class: 'table cardlike', tabindex: '0', role: 'region', 'aria-label': label }, h('table', { role: 'table' },
  h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, columns.map(([title, , kind]) => h('th', { scope: 'col', role: 'columnheader', class: kind }, title || h('span', { class: 'sr' }, 'Actions'))))),
  h('tbody', { role: 'rowgroup' }, rows.map((row) => h('tr', { role: 'row' }, columns.map(([title, cell, kind]) => h('td', { role: 'cell', class: kind, dir: 'auto', 'data-label': title }, cell(row))))))));

// A switch of a few choices, one of which is on. `choose(value)`.
export function choice(label, options, value, choose) {
  const el = h('div', { class: 'choice', role: 'group', 'aria-label': label });
  el.append(...options.map(([key, text]) => h('button', { type: 'button', class: 'btn small', 'aria-pressed': String(key === value), onclick: (event) => {
    for (const each of el.children) each.setAttribute('aria-pressed', String(each === event.currentTarget));
    choose(key);
  } }, text)));
  return el;
}

export const filterBox = (label, onchange, value = '') => {
  let timer;
  const input = h('input', { type: 'search', placeholder: label, 'aria-label': label, value, oninput: () => { clearTimeout(timer); timer = setTimeout(() => onchange(input.value.trim()), 200); } });
  return h('div', { class: 'filter' }, icon('search'), input);
};
