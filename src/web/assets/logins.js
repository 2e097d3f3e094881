// Who is logged in to this page, and from where.
import { h } from './dom.js';
import { api, path } from './api.js';
import { dateTime, when } from './format.js';
import { action, ask, confirm, facts, field, live, passwordFault, section, table, toast } from './ui.js';

export default function show(page) {
  const about = live(page, () => api.get('auth/status'), (status) => h('div', { class: 'panel' }, facts([['Password', status.password_enabled ? 'on' : 'off'], ['Organisation login', status.oidc_enabled ? 'on' : 'off'], ['Logins now', status.active_session_count]]),
    status.password_enabled ? h('div', null, action('Change the password', () => change(() => { about.refresh(); list.refresh(); }), { icon: 'key' })) : null));
  const list = live(page, () => api.get('auth/sessions'), (sessions, refresh) => section('Logins', sessions.length ? [table('Logins', [
    ['Device', (each) => device(each.user_agent)], ['From', (each) => each.ip], ['Since', (each) => dateTime(each.created_at)], ['Last seen', (each) => when(each.last_seen_at)], ['Ends', (each) => dateTime(each.expires_at)],
    ['', (each) => action('End', async () => { if (await confirm('End this login?', `${device(each.user_agent)} from ${each.ip} must log in again.`, 'End it', () => api.del(path`auth/sessions/${each.id}`))) { toast('Ended.'); refresh(); } }, { kind: 'small' }), 'end']], sessions),
  action('End all logins', () => confirm('End all logins?', 'Every device must log in again, this one too.', 'End all', async () => { await api.del('auth/sessions'); location.reload(); }))]
    : h('p', { class: 'soft' }, 'You use an API key here: logins with a password are shown to those who log in with one.')), { every: 30000 });
  page.el.append(about.el, list.el);
}

async function change(refresh) {
  const fresh = field('new_password', 'New password', { kind: 'password', autocomplete: 'new-password', required: true, hint: 'At least 8 characters.', check: passwordFault });
  const done = await ask('Change the password', [
    // Lets password managers file the entry under its name.
    h('input', { type: 'text', autocomplete: 'username', value: 'admin', hidden: true }),
    field('current_password', 'Current password', { kind: 'password', autocomplete: 'current-password', required: true }), fresh,
    field('again', 'The new one again', { kind: 'password', autocomplete: 'new-password', required: true, check: (text) => (text === fresh.value ? '' : 'The two passwords differ.') }),
  ], { submit: 'Change it', intro: 'Every other login with the password ends.', work: ({ again, ...values }) => api.post('auth/password', values) });
  if (done) { toast('The password is changed.'); refresh(); }
}

function device(agent) {
  const system = /Android|iPhone|iPad|Windows|Mac OS|CrOS|Linux/.exec(agent || '')?.[0].replace('Mac OS', 'Mac').replace('CrOS', 'Chromebook');
  const program = /Edg|OPR|Firefox|Chrome|Safari/.exec((agent || '').replace(/Chrome.*(Edg|OPR)/, '$1'))?.[0].replace('Edg', 'Edge').replace('OPR', 'Opera');
  return [program, system].filter(Boolean).join(' on ') || agent || 'Unknown';
}
