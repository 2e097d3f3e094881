// Start: who is there, and which screen to show.
import { apiKey, auth, setApiKey, signedIn, whenSignedOut } from './api.js';
import { login, unreachable, wizard } from './auth.js';
import { Shell } from './shell.js';
import { device, tab } from './store.js';

const root = document.getElementById('app');
let shell = null;
let retryTimer = 0;

const theme = device.get('theme');
if (theme) document.documentElement.dataset.theme = theme;

// A setup link carries the PIN in its fragment, which no server and no log ever sees. It does not stay in the history.
let pin = (/^#pin=(\d{4,12})$/.exec(location.hash) || [])[1] || '';
if (pin) history.replaceState(null, '', location.pathname + location.search);

function enter() {
  pin = '';
  shell = new Shell(root, leave);
  shell.start();
}

async function leave() {
  try {
    if (!apiKey()) await auth.logout();
  } catch {
    return 'Holt cannot be reached, so you are still logged in.';
  }
  tab.clear();
  closeShell();
  history.replaceState(null, '', '#/');
  start('You are logged out.');
  return null;
}

function closeShell() {
  shell?.close();
  shell = null;
}

whenSignedOut(() => {
  if (!shell) return;
  const note = apiKey() ? 'This API key is no longer accepted.' : 'Your login has ended. Please log in again.';
  setApiKey(null);
  closeShell();
  start(note);
});

async function start(note) {
  clearTimeout(retryTimer);
  const known = await signedIn();
  if (known) { enter(); return; }
  if (known === false && apiKey()) setApiKey(null);
  try {
    if (known === null) throw new Error('no answer');
    let setup = {};
    try { setup = await auth.setup(); } catch (error) { if (error.status === 0 || error.status >= 500 && error.status !== 503) throw error; }
    if (setup.setup_required) { wizard(root, pin, setup.account_setup_available, enter); return; }
    login(root, await auth.config(), note, enter);
  } catch {
    unreachable(root, () => start(note));
    retryTimer = setTimeout(() => start(note), 3000);
  }
}

start();
