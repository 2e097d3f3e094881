// API keys: a new one is shown once; rotate, revoke, delete.
import { h } from './dom.js';
import { api, path } from './api.js';
import { when } from './format.js';
import { action, confirm, copyBox, dialog, empty, field, form, live, section, table, tag, toast } from './ui.js';

// What each scope lets a key do.
const SCOPES = {
  chat: 'Talk to agents and read the chats it began',
  'sessions:read': 'Read everybody’s chats', 'sessions:write': 'Delete chats',
  'costs:read': 'See what was spent',
  'agents:read': 'See agents and models', 'agents:write': 'Make, change and delete agents',
  'skills:read': 'Read skills', 'skills:write': 'Write skills',
  'schedules:read': 'See schedules', 'schedules:write': 'Make, change and run schedules',
  'approvals:read': 'See what agents ask permission for', 'approvals:write': 'Give agents that permission',
  'tools:read': 'See tool servers', 'tools:write': 'Add tools: they run programs on Holt’s machine',
  'browser:read': 'See the agents’ browser profiles', 'browser:write': 'Delete browser profiles',
  'kv:read': 'Read stored values', 'kv:write': 'Change stored values',
  'audit:read': 'Read who did what',
  'machines:read': 'See machines and alerts', 'machines:write': 'Add, change and remove machines',
  health: 'Nothing more: health is open to everybody',
  admin: 'Make keys, change settings, take backups with all secrets',
};
const ALL = Object.keys(SCOPES);
const PRESETS = [['Read only', ALL.filter((scope) => scope.endsWith(':read'))], ['Chat from a script', ['chat']], ['Add machines', ['machines:read', 'machines:write']], ['Everything', ALL]];

// A line to try a key with.
function example(key, scopes) {
  const auth = `curl -H "Authorization: Bearer ${key}" `;
  const base = location.origin + '/api/v1/';
  if (scopes.includes('chat')) return `${auth}-H "Content-Type: application/json" -d '{"message":"Hello"}' ${base}chat`;
  return auth + base + (/(sessions|costs|agents|schedules|approvals|tools|audit|machines):read/.exec(scopes)?.[1] || (scopes.includes('admin') ? 'keys' : 'health'));
}

export default function show(page) {
  page.actions(action('Create a key', () => create(list.refresh), { kind: 'primary small', icon: 'plus' }));
  const list = live(page, () => api.get('keys'), (keys, refresh) => {
    const active = keys.filter((key) => !key.revoked);
    const revoked = keys.filter((key) => key.revoked);
    const scopes = (key) => h('span', { class: 'labels' }, key.scopes.length > 8 ? tag(`${key.scopes.length} scopes`, 'plain') : key.scopes.map((scope) => tag(scope, scope === 'admin' ? 'warning' : 'plain')));
    return [active.length ? table('Keys', [['Name', (key) => h('strong', null, key.name)], ['May', scopes], ['Made', (key) => when(key.created_at)], ['Last used', (key) => when(key.last_used_at)],
      ['', (key) => h('div', { class: 'ask-row' }, action('Rotate', () => rotate(key, refresh), { kind: 'small', 'aria-label': `Rotate ${key.name}` }), action('Revoke', () => revoke(key, refresh), { kind: 'small', 'aria-label': `Revoke ${key.name}` })), 'end']], active)
      : empty('No keys yet', 'A key lets a script or another program use Holt, with only the rights that you tick.', action('Create a key', () => create(refresh), { kind: 'primary', icon: 'plus' })),
    revoked.length ? section('Revoked', table('Revoked keys', [['Name', (key) => key.name], ['Made', (key) => when(key.created_at)], ['Last used', (key) => when(key.last_used_at)],
      ['', (key) => action('Delete', async () => { if (await confirm('Delete this key?', `Nothing will be known of ${key.name} any more.`, 'Delete', () => api.del(path`keys/${key.id}/permanent`))) refresh(); }, { kind: 'small' }), 'end']], revoked)) : null];
  }, { every: 20000 });
  page.el.append(list.el);
}

function reveal(title, key) {
  return dialog(title, (close) => [h('p', null, h('strong', null, 'This is the only time it is shown.'), ' Copy it to where it is needed.'), copyBox(key.key, 'The key'),
    h('p', null, 'To try it in a terminal:'), copyBox(example(key.key, key.scopes), 'Example'), h('div', { class: 'row' }, h('button', { type: 'button', class: 'btn', onclick: () => close() }, 'I have it'))]);
}

async function create(refresh) {
  let made = null;
  await dialog('Create a key', (close) => {
    const warning = h('p', { class: 'problem', role: 'status' });
    const scopes = field('scopes', 'It may', { kind: 'checks', value: ['chat'], options: ALL.map((scope) => [scope, [h('code', null, scope), ' ', h('span', { class: 'soft' }, SCOPES[scope])]]), required: true });
    const warn = () => { warning.textContent = scopes.value.includes('admin') ? 'With admin whoever holds the key owns this Holt, as you do. Give it only where nothing less will do.' : ''; };
    scopes.input.addEventListener('change', warn);
    const preset = h('div', { class: 'choice' }, PRESETS.map(([label, names]) => h('button', { type: 'button', class: 'btn small', onclick: () => { for (const box of scopes.input.querySelectorAll('input')) box.checked = names.includes(box.value); scopes.set(''); warn(); } }, label)));
    return form([field('name', 'Name', { required: true, maxlength: 255, hint: 'What uses it, such as backup-script.' }), preset, scopes, warning],
      { submit: 'Create', cancel: () => close(), work: async (values) => { made = await api.post('keys', values); close(); } });
  }, { wide: true });
  if (!made) return;
  refresh();
  await reveal(`Key “${made.name}”`, made);
}

async function rotate(key, refresh) {
  let made = null;
  if (!await confirm('Rotate this key?', `${key.name} gets a new secret; what uses the old one is locked out at once.`, 'Rotate', async () => { made = await api.post(path`keys/${key.id}/rotate`); })) return;
  refresh();
  await reveal(`New secret of “${key.name}”`, made);
}

async function revoke(key, refresh) {
  if (await confirm('Revoke this key?', `What uses ${key.name} is locked out at once. This cannot be taken back.`, 'Revoke', () => api.del(path`keys/${key.id}`))) { toast('Revoked.'); refresh(); }
}
