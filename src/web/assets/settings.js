// Settings: models and their keys, notifications, the server itself, backup, doctor, the emergency stop.
import { h } from './dom.js';
import { api, headers, failure, path } from './api.js';
import { notifications } from './channels.js';
import { dateTime } from './format.js';
import { action, ask, confirm, facts, field, form, link, live, perhaps, section, table, tag, toast } from './ui.js';

export default function show(page) {
  page.el.append(...[models(page), notifications(page), server(page), { el: section('Account', link('Password and logins', '#/logins', { icon: 'device' })) }, care(page), stop(page)].map((part) => part.el));
}

// --- models ------------------------------------------------------------------------------------------------------------

const BUILT_IN = 'The built-in agent answers without a model: it knows this machine, needs no key and costs nothing.';

export function models(page) {
  return live(page, () => perhaps(api.get('llm/providers')), (llm, refresh) => (llm ? [section('Models', h('p', { class: 'soft' }, llm.providers.some((each) => each.api_key_set) ? 'Who answers, and with which keys.' : BUILT_IN),
    table('Providers', [['Provider', (each) => h('strong', null, each.name)], ['State', (each) => (each.api_key_set ? tag('key is set') : each.name === 'ollama' ? tag('needs no key', 'plain') : each.base_url ? tag('address is set') : tag('no key', 'plain'))], ['Address', (each) => each.base_url || ''],
      ['', (each) => h('div', { class: 'ask-row' }, action('Change', () => provider(each, llm, refresh), { kind: 'small', 'aria-label': `Change ${each.name}` }), each.enabled ? action('Test', () => test(each.name), { kind: 'small', 'aria-label': `Test ${each.name}` }) : null), 'end']], llm.providers)),
  section('Defaults', form([
    field('default_provider', 'Provider', { kind: 'select', options: [['', 'The first that has a key'], ['local', 'The built-in agent'], ...llm.providers.map((each) => [each.name, each.name])], value: llm.default_provider }),
    field('default_model', 'Model', { value: llm.default_model, optional: true }),
    h('p', { class: 'hint' }, 'What may be spent is set on the page ', h('a', { href: '#/costs' }, 'Costs'), '.'),
  ], { kind: '', work: async (values) => { told(await api.patch('llm/config', changed(values, llm))); refresh(); } }))] : []));
}

export const address = (text) => (!text || /^https?:\/\/[^\s/]/.test(text) ? '' : 'Please begin with http:// or https://, then the host, such as http://192.168.1.5:8080');
const changed = (values, before) => Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== before[name]));

// What only a restart puts in force is said.
function told(answer) {
  const keys = answer?.restart_required;
  toast(keys ? `Saved. After a restart: ${keys.join(', ')}.` : answer?.status === 'reloaded' ? 'Loaded again.' : 'Saved.');
}

async function test(name) {
  const { ok, error, latency_ms: ms } = await api.post(path`llm/providers/${name}/test`);
  if (ok) toast(`${name} answered in ${ms} ms.`);
  else toast(`${name}: ${error || 'no answer'}`, { bad: true });
}

async function provider(each, llm, refresh) {
  const done = await ask(`Change ${each.name}`, [
    each.name === 'ollama' ? null : field('api_key', 'API key', { kind: 'password', autocomplete: 'off', optional: true, hint: each.api_key_set ? 'One is set. Empty: it stays.' : 'From the provider’s site. It is kept in holt.toml and never shown again.' }),
    each.name === 'openrouter' ? null : field('base_url', 'Address', { value: each.base_url, optional: true, check: address, hint: each.name === 'ollama' ? 'Such as http://127.0.0.1:11434' : 'Empty: the provider’s own. Another one for a compatible service.' }),
    each.name === 'openai' ? field('organization', 'Organisation', { value: each.organization, optional: true }) : null,
    // Without a model it would be the one that is asked, and fail each time.
    llm.default_model ? null : field('default_model', 'Model', { required: true, hint: 'Which of its models answers in your chats.' })].filter(Boolean),
  { work: async ({ default_model: model, ...values }) => {
    if (!values.api_key) delete values.api_key;
    if (model) await api.patch('llm/config', { default_model: model });
    told(await api.patch(path`llm/providers/${each.name}`, values));
    if (model) await api.patch('llm/config', { default_provider: each.name });
  } });
  if (done) refresh();
}

const reload = (refresh) => action('Load the settings again', async () => { told(await api.post('server/reload')); refresh?.(); }, { icon: 'again' });

// --- the server --------------------------------------------------------------------------------------------------------

function server(page) {
  return live(page, () => perhaps(api.get('server/config')), (config, refresh) => (config ? section('Server', facts([['Listens on', config.listen], ['TLS', config.tls ? 'on' : 'off'], ['Other origins', config.cors_origins.join(', ')], ['Requests a second', config.rate_limit || 'no limit'], ['WebSocket', config.websocket_enabled ? 'on' : 'off']]),
    form([field('external_url', 'Address for others', { value: config.external_url, optional: true, check: address, hint: 'As browsers and machines reach it, such as https://holt.example.org' }),
      field('timezone', 'Time zone', { value: config.timezone, optional: true, list: 'zones', hint: 'Such as Europe/Berlin. Empty: that of the machine.' }), h('datalist', { id: 'zones' }, (Intl.supportedValuesOf?.('timeZone') || []).map((zone) => h('option', { value: zone })))],
    { kind: '', work: async (values) => { told(await api.patch('server/config', changed(values, config))); refresh(); } }),
    h('div', { class: 'ask-row' }, reload(refresh), action('Restart Holt', () => confirm('Restart Holt?', 'Running answers are interrupted; chats continue by themselves afterwards.', 'Restart', async () => { await api.post('server/restart'); toast('Holt restarts.'); })))) : []));
}

// --- backup and doctor -------------------------------------------------------------------------------------------------

async function backup() {
  const response = await fetch('/api/v1/backup', { method: 'POST', headers: headers(), credentials: 'same-origin' });
  if (!response.ok) throw await failure(response);
  const name = /filename="?([^";]+)/.exec(response.headers.get('Content-Disposition') || '')?.[1] || `holt-backup-${new Date().toISOString().slice(0, 10)}.tar.gz`;
  const url = URL.createObjectURL(await response.blob());
  const a = h('a', { href: url, download: name });
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function care(page) {
  return live(page, () => perhaps(api.get('doctor')), (report, refresh) => section('Care', h('p', { class: 'soft' }, 'A backup holds everything: chats, keys, settings, secrets. Keep it safe.'),
    h('div', { class: 'ask-row' }, action('Download a backup', backup, { icon: 'save' }), report ? action('Look again', refresh, { icon: 'again' }) : null),
    report && (report.findings.length ? h('ul', { class: 'stack' }, report.findings.map((each) => h('li', { class: 'panel' }, h('div', { class: 'card-head' }, tag(each.level, each.level), h('span', null, each.what)), each.fix ? h('p', { class: 'soft' }, each.fix) : null)))
      : h('p', { class: 'good' }, 'The doctor finds nothing wrong.'))));
}

// --- the emergency stop ------------------------------------------------------------------------------------------------

function stop(page) {
  return live(page, () => perhaps(api.get('panic')), (state) => (state ? section('Emergency stop', state.panicked
    ? [h('p', { class: 'banner bad' }, `Everything is stopped since ${dateTime(state.since)}, by ${state.by}.`), action('Resume', () => page.shell.resume(), { kind: 'primary' })]
    : [h('p', { class: 'soft' }, 'Ends every running answer and tool, and lets nothing begin until you say so.'), action('Stop everything', () => page.shell.stopAll(), { kind: 'danger' })]) : []), { every: 10000 });
}
