// Before the chat: first-run setup, login, and the page for a hub that does not answer.
import { h, mark, icon } from './dom.js';
import { auth, setApiKey, signedIn } from './api.js';
import { explain, passwordFault } from './ui.js';

function frame(...kids) {
  return h('main', { class: 'gate' }, h('div', { class: 'card' }, mark(72), ...kids));
}

function field(id, label, props, hint) {
  const input = h('input', { id, name: id, ...props });
  const el = h('div', { class: 'field' }, h('label', { for: id }, label), input);
  if (hint) {
    el.append(h('p', { class: 'hint', id: id + '-hint' }, hint));
    input.setAttribute('aria-describedby', id + '-hint');
  }
  return { el, input };
}

function passwordField(id, label, props, hint) {
  const made = field(id, label, { type: 'password', required: true, ...props }, hint);
  const toggle = h('button', { type: 'button', class: 'icon-btn reveal', 'aria-pressed': 'false', 'aria-label': 'Show password', title: 'Show password', onclick: () => {
    const show = made.input.type === 'password';
    made.input.type = show ? 'text' : 'password';
    toggle.setAttribute('aria-pressed', String(show));
  } }, icon('eye'));
  const box = h('div', { class: 'with-btn' });
  made.input.replaceWith(box);
  box.append(made.input, toggle);
  return made;
}

// A form that says what went wrong and never sends twice. `work` throws to complain.
function form(button, kids, work) {
  const problem = h('p', { class: 'problem', role: 'alert' });
  const submit = h('button', { class: 'btn primary wide' }, button);
  return h('form', { novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    if (submit.disabled) return;
    problem.textContent = '';
    submit.disabled = true;
    submit.classList.add('working');
    try { await work(); } catch (error) {
      problem.textContent = explain(error);
      if (error.field) error.field.focus();
    } finally {
      submit.disabled = false;
      submit.classList.remove('working');
    }
  } }, ...kids, problem, submit);
}

function complain(message, input) { return Object.assign(new Error(message), { field: input }); }

export function wizard(root, pin, available, done) {
  if (!available) {
    root.replaceChildren(frame(h('h1', null, 'Welcome to Holt'),
      h('p', null, 'There is no account yet, and the setup PIN is used up.'),
      h('p', null, 'On the machine where Holt runs, print a new one with:'),
      h('pre', { class: 'cmd' }, 'holt setup-pin'),
      h('button', { type: 'button', class: 'btn primary wide', onclick: () => location.reload() }, 'I have a PIN')));
    return;
  }
  const code = field('pin', 'Setup PIN', { inputmode: 'numeric', autocomplete: 'one-time-code', maxlength: '12', required: true },
    'Six digits. Holt shows them in the terminal (or its log) where it was started: FIRST-RUN SETUP PIN.');
  const first = passwordField('new-password', 'New password', { autocomplete: 'new-password' }, 'At least 8 characters.');
  const again = passwordField('repeat-password', 'The same again', { autocomplete: 'new-password' });
  // Lets password managers file the entry under a name.
  const name = h('input', { type: 'text', name: 'username', autocomplete: 'username', value: 'admin', hidden: true });
  code.input.value = pin || '';
  root.replaceChildren(frame(h('h1', null, 'Welcome to Holt'),
    h('p', { class: 'lead' }, 'A cosy home for your agents and machines. Choose a password and you are in.'),
    form('Create my account', [name, code.el, first.el, again.el], async () => {
      if (!code.input.value.trim()) throw complain('Please enter the PIN from the terminal.', code.input);
      const fault = passwordFault(first.input.value);
      if (fault) throw complain(fault, first.input);
      if (first.input.value !== again.input.value) throw complain('The two passwords differ.', again.input);
      try { await auth.createAccount(code.input.value.trim(), first.input.value); } catch (error) {
        if (error.status === 401) throw complain('That PIN is not right. Look for FIRST-RUN SETUP PIN in the terminal.', code.input);
        if (error.status === 409) throw complain('Setup is closed: an account exists, or the PIN is used up. Reload this page.');
        throw error;
      }
      history.replaceState(null, '', '#/welcome');
      done();
    })));
  (pin ? first : code).input.focus();
}

export function login(root, config, note, done) {
  const byPassword = () => {
    const password = passwordField('password', 'Password', { autocomplete: 'current-password' });
    const name = h('input', { type: 'text', name: 'username', autocomplete: 'username', value: 'admin', hidden: true });
    show(form('Log in', [name, password.el], async () => {
      if (!password.input.value) throw complain('Please enter your password.', password.input);
      try { await auth.login(password.input.value); } catch (error) {
        if (error.status === 401) { password.input.select(); throw complain('That password is not right.', password.input); }
        throw error;
      }
      done();
    }), password.input, ['Use an API key', byKey]);
  };
  const byKey = () => {
    const key = passwordField('api-key', 'API key', { autocomplete: 'off', spellcheck: 'false' }, 'Kept in this tab only, until it is closed.');
    show(form('Continue', [key.el], async () => {
      const value = key.input.value.trim();
      if (!value) throw complain('Please enter a key.', key.input);
      if (!/^[\x21-\x7e]+$/.test(value)) throw complain('That does not look like a key.', key.input);
      setApiKey(value);
      const good = await signedIn();
      if (good !== true) {
        setApiKey(null);
        throw good === false ? complain('Holt does not accept this key.', key.input) : Object.assign(new Error(), { status: 0 });
      }
      done();
    }), key.input, config.password_enabled !== false && ['Use the password', byPassword]);
  };
  const show = (content, focus, other) => {
    const more = h('div', { class: 'more' });
    if (config.oidc_enabled) more.append(h('a', { class: 'btn wide', href: '/auth/oidc/login' }, 'Log in with your organisation'));
    if (other) more.append(h('button', { type: 'button', class: 'link', onclick: other[1] }, other[0]));
    root.replaceChildren(frame(h('h1', null, 'Hello again'), note ? h('p', { class: 'lead', role: 'status' }, note) : null, content, more));
    focus.focus();
  };
  if (config.password_enabled === false) byKey();
  else byPassword();
}

export function unreachable(root, retry) {
  const button = h('button', { type: 'button', class: 'btn primary', onclick: retry }, 'Try again');
  root.replaceChildren(frame(h('h1', null, 'Holt is not answering'),
    h('p', { class: 'lead', role: 'status' }, 'It may be starting, or this device is offline. This page keeps trying.'), button));
}
