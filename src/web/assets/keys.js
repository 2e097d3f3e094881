// API keys: a new one is shown once; rotate, revoke, delete.
import { h } from './dom.js';
import { api, path } from './api.js';
import { when } from './format.js';
import { action, confirm, copyBox, dialog, empty, field, form, live, section, table, tag, toast } from './ui.js';

const SCOPES = ['chat', 'sessions:read', 'sessions:write', 'costs:read', 'agents:read', 'agents:write', 'skills:read', 'skills:write', 'schedules:read', 'schedules:write', 'approvals:read', 'approvals:write',
  'tools:read', 'tools:write', 'browser:read', 'browser:write', 'kv:read', 'kv:write', 'audit:read', 'machines:read', 'machines:write', 'health', 'admin'];
const PRESETS = [['chat', 'Only chat', ['chat']], ['read', 'Read everything', SCOPES.filter((scope) => scope.endsWith(':read'))], ['all', 'Everything', SCOPES]];

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
    h('p', { class: 'hint' }, 'A program sends it as ', h('code', null, 'Authorization: Bearer …')), h('div', { class: 'row' }, h('button', { type: 'button', class: 'btn', onclick: () => close() }, 'I have it'))]);
}

async function create(refresh) {
  let made = null;
  await dialog('Create a key', (close) => {
    const scopes = field('scopes', 'It may', { kind: 'checks', value: ['chat'], options: SCOPES.map((scope) => [scope, scope]), required: true });
    const preset = h('div', { class: 'choice' }, PRESETS.map(([, label, names]) => h('button', { type: 'button', class: 'btn small', onclick: () => { for (const box of scopes.input.querySelectorAll('input')) box.checked = names.includes(box.value); } }, label)));
    return form([field('name', 'Name', { required: true, maxlength: 255, hint: 'What uses it, such as backup-script.' }), preset, scopes],
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
