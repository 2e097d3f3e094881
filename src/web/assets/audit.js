// The audit log: who did what, from where, and whether it was allowed.
import { h } from './dom.js';
import { api, query } from './api.js';
import { dateTime } from './format.js';
import { action, choice, empty, field, form, live, perhaps, table, tag } from './ui.js';

const RESULTS = { ok: 'done', denied: 'denied', failed: 'failed' };
const THINGS = { kv: 'value', llm: 'models', rule: 'standing approval', login_session: 'login', config: 'settings', server: 'hub', tool: 'tool', conversation: 'chat' };
const DEEDS = { create: 'made', add: 'added', update: 'changed', change: 'changed', write: 'written', set: 'set', delete: 'deleted', remove: 'removed', revoke: 'revoked', revoke_all: 'all ended', rotate: 'renewed', approve: 'approved', deny: 'denied', expire: 'expired', run: 'run by hand', call: 'called', restart: 'restarted', reload: 'read again', enable: 'switched on', disable: 'switched off', forget: 'forgotten', connect: 'connected', join: 'joined', acknowledge: 'acknowledged', silence: 'silenced', close: 'closed', password: 'with the password', logout: 'ended', pin: 'with the PIN' };

const WORDS = { __proto__: null, panic: 'Everything stopped', resume: 'Everything resumed', backup: 'Backup taken', restore: 'Backup restored', import: 'Moved in', 'setup.account': 'Set up with a password', 'setup.key': 'Set up with a key', 'login.logout': 'Logged out', 'login.oidc': 'Login with the organisation', 'costs.limits': 'Spending limits changed', 'costs.price': 'Price of a model set', 'llm.provider': 'Model provider changed', 'llm.test': 'Model provider tried', 'notification.channel': 'Notification channel changed', 'notification.remove': 'Notification channel removed', 'notification.delete': 'Notice given up', 'notification.test': 'Notification channel tried', 'machine.join_code': 'Join code made', 'machine.join_code.delete': 'Join code removed', 'machine.inspect': 'Machine looked at', 'machine.diagnose': 'Machine diagnosed', 'machine.chat': 'Machine asked', 'approval.button': 'Decided in a notification', 'tool_server.disabled_tools': 'Offered tools chosen', 'tool_server.oauth_connect': 'Login at a tool begun', 'tool_server.oauth_connected': 'Login at a tool done', 'tool_server.oauth_revoke': 'Login at a tool ended' };

// `key.create` as people say it.
function inWords(name) {
  if (name.endsWith('.throttled')) return inWords(name.slice(0, -10)) + ': too many tries';
  if (WORDS[name]) return WORDS[name];
  const parts = name.split('.');
  const deed = parts.length > 1 ? parts.pop() : '';
  const text = [...parts.map((part) => THINGS[part] || part.replaceAll('_', ' ')), DEEDS[deed] || deed.replaceAll('_', ' ')].join(' ').trim();
  return text[0].toUpperCase() + text.slice(1);
}

export default function show(page) {
  let want = { limit: 100 };
  let older = [];
  const load = () => { older = []; return list.refresh(); };
  const what = field('action', 'What', { kind: 'select', options: [['', 'Anything']] });
  // Only what has happened here can be looked for.
  perhaps(api.get('audit/stats')).then((stats) => what.input.append(...Object.keys(stats?.by_action || {}).map((name) => [inWords(name), name]).sort().map(([text, value]) => h('option', { value }, text)))).catch(() => {});
  page.el.append(choice('Result', [['', 'All'], ['ok', 'Done'], ['denied', 'Denied'], ['failed', 'Failed']], '', (value) => { want = { ...want, result: value }; load(); }),
    h('details', null, h('summary', null, 'Search'), form([what,
      field('actor', 'Who', { optional: true }), field('target', 'To what', { optional: true }), field('since', 'Since', { kind: 'datetime-local', optional: true }),
    ], { submit: 'Search', work: async (values) => { want = { ...want, ...values, since: values.since ? new Date(values.since).toISOString() : '' }; await load(); } })));
  const list = live(page, async () => {
    const first = await api.get('audit' + query(want));
    return { rows: [...first.entries, ...older.flatMap((each) => each.entries)], next: older.length ? older.at(-1).next_before : first.next_before, want };
  }, ({ rows, next }, refresh) => (rows.length ? [table('Audit log', [
    ['When', (row) => h('span', { class: 'nowrap' }, dateTime(row.at))], ['What', (row) => h('span', { title: row.action }, inWords(row.action))], ['To what', (row) => h('span', { class: 'cut' }, row.target)],
    ['Result', (row) => tag(RESULTS[row.result] || row.result, row.result === 'ok' ? '' : 'denied')], ['Who', (row) => h('span', { class: 'cut' }, row.actor || '–', row.source && h('span', { class: 'soft' }, ' ' + row.source))], ['More', (row) => h('span', { class: 'cut' }, row.detail)]], rows),
  next ? action('Older', async () => { older.push(await api.get('audit' + query({ ...want, before: next }))); await refresh(); }) : null]
    : empty('Nothing found', want.result || want.action || want.actor || want.target || want.since ? 'Nothing in the log is like that. Look for less, or for all results.' : 'What changes something, and what was refused, is written here.')), { every: 30000 });
  page.el.append(list.el);
}
