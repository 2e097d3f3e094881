// Alerts: what is wrong where; acknowledge, silence, close; silences in force. One alert with its report and history.
import { h } from './dom.js';
import { api, path, query } from './api.js';
import { dateTime, when } from './format.js';
import { alertText } from './home.js';
import { Markdown } from './markdown.js';
import { action, ask, choice, confirm, empty, facts, field, labels, live, section, table, tag, toast } from './ui.js';

const TIMES = [['30m', '30 minutes'], ['2h', '2 hours'], ['8h', '8 hours'], ['24h', 'a day'], ['168h', 'a week'], ['720h', '30 days']];

export default function show(page) {
  if (page.args[0]) one(page, page.args[0]);
  else all(page);
}

function all(page) {
  const want = { state: 'open', level: '' };
  page.actions(action('Add a silence', () => addSilence(silences.refresh), { kind: 'small' }));
  page.el.append(h('div', { class: 'tools' },
    choice('State', [['open', 'Open'], ['closed', 'Closed'], ['all', 'All']], want.state, (value) => { want.state = value; list.refresh(); }),
    choice('Level', [['', 'Every level'], ['critical', 'Critical'], ['warning', 'Warning'], ['info', 'Info']], want.level, (value) => { want.level = value; list.refresh(); })));
  const list = live(page, async () => [want.state, want.level, await api.get('alerts' + query(want))], ([state, level, { alerts, next_before: more }], refresh) => (alerts.length
    ? [h('ul', { class: 'stack' }, alerts.map((alert) => h('li', { class: 'panel' }, card(alert, refresh, page)))), more ? h('p', { class: 'soft' }, 'Older ones are not shown.') : null]
    : empty(state === 'open' ? 'All is well' : 'Nothing here', state === 'open' && !level ? 'When a machine finds something wrong, it tells here and on your notification channels.' : 'No alert is like that.')), { every: 8000 });
  const silences = live(page, () => api.get('silences'), ({ silences: items }, refresh) => (items.length ? section('Silences', table('Silences', [
    ['What', (each) => labels(each.matchers)], ['Until', (each) => dateTime(each.until)], ['By', (each) => each.created_by], ['Note', (each) => each.note],
    ['', (each) => action('End', async () => { if (await confirm('End this silence?', 'Its alerts are told again.', 'End it', () => api.del(path`silences/${each.id}`))) refresh(); }, { kind: 'small' }), 'end']], items)) : []), { every: 30000 });
  page.el.append(list.el, silences.el);
}

function card(alert, refresh, page) {
  return [h('div', { class: 'card-head' }, tag(alert.level, alert.level), h('a', { href: '#/alerts/' + alert.id }, h('strong', { dir: 'auto' }, alertText(alert))), alert.flapping ? tag('comes and goes') : null, alert.times > 1 ? tag(`${alert.times} times`, 'plain') : null),
    h('p', { class: 'soft' }, h('a', { href: '#/machines/' + encodeURIComponent(alert.machine_id) }, alert.machine), ` · ${alert.check}${alert.target ? ' ' + alert.target : ''} · `, when(alert.changed_at),
      alert.acknowledged_at ? ` · acknowledged by ${alert.acknowledged_by}` : null, alert.silenced_until ? ` · silent until ${dateTime(alert.silenced_until)}` : null, alert.state === 'closed' ? ' · closed' : null),
    alert.state === 'open' ? buttons(alert, refresh, page) : null];
}

function buttons(alert, refresh, page) {
  const at = path`alerts/${alert.id}`;
  const done = async (what, text) => { if (await what) { toast(text); page.shell.count(); refresh(); } };
  const note = () => field('note', 'Note', { optional: true, maxlength: 900 });
  return h('div', { class: 'ask-row' },
    alert.acknowledged_at ? null : action('Acknowledge', () => done(ask('Acknowledge', [note()], { submit: 'Acknowledge', intro: 'It stays open, but is not told again.', work: (values) => api.post(at + '/acknowledge', values) }), 'Acknowledged.')),
    action('Silence', () => done(ask('Silence this alert', [field('for', 'For', { kind: 'select', options: TIMES, value: '2h' }), note()], { submit: 'Silence', work: (values) => api.post(at + '/silence', values) }), 'Silenced.')),
    action('Close', () => done(ask('Close this alert', [note()], { submit: 'Close it', intro: 'If it is still so, the machine opens it again.', work: (values) => api.post(at + '/close', values) }), 'Closed.')),
    action('Diagnose', async () => {
      const { session_id: sid } = await api.post(path`machines/${alert.machine_id}/sessions`, { type: 'diagnose', plugin: alert.check.split('::')[0], target: alert.target || '', descriptions: alert.description || '' });
      location.hash = '#/chat/' + encodeURIComponent(sid);
    }));
}

function one(page, id) {
  page.back('#/alerts', 'All alerts');
  page.title('Alert');
  const view = live(page, () => api.get(path`alerts/${id}`), (alert, refresh) => {
    page.title(`${alert.machine}: ${alert.check}`);
    return [h('div', { class: 'panel' }, card(alert, refresh, page), words(alert.description, alert.description_format === 'markdown')),
      alert.report ? section('Report', h('div', { class: 'panel' }, words(alert.report, true))) : null,
      section('About', facts([['State', alert.state], ['Worst level', alert.worst], ['Opened', dateTime(alert.opened_at)], ['Changed', dateTime(alert.changed_at)], ['Closed', alert.closed_at && dateTime(alert.closed_at)], ['Why', alert.close_reason], ['Events', alert.events], ['Note', alert.note], ['Key', alert.alert_key],
        ...Object.entries(alert.attrs || {}).map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)])]), labels(alert.labels)),
      section('History', table('History', [['When', (event) => dateTime(event.event_time)], ['Level', (event) => tag(event.event_status, event.event_status)], ['What', (event) => (event.description || '').split('\n')[0]]], alert.history || []))];
  }, { every: 10000 });
  page.el.append(view.el);
}

function words(text, marked) {
  if (!text) return null;
  const el = h('div', { class: 'md', dir: 'auto' });
  if (marked) new Markdown(el).set(text);
  else el.append(h('p', { class: 'pre' }, text));
  return el;
}

async function addSilence(refresh) {
  const done = await ask('Add a silence', [
    field('matchers', 'Which alerts', { kind: 'list', required: true, hint: 'One a line: machine=garage, check=disk, level=warning, or a label. A value may end with *. All lines must match.', check: (lines) => (lines.every((line) => line.includes('=')) ? '' : 'Each line needs a name, = and a value.') }),
    field('for', 'For', { kind: 'select', options: TIMES, value: '2h' }), field('note', 'Note', { optional: true }),
  ], { submit: 'Silence', work: (values) => api.post('silences', { ...values, matchers: Object.fromEntries(values.matchers.map((line) => line.split(/=(.*)/s).slice(0, 2).map((part) => part.trim()))) }) });
  if (done) { toast('Silenced.'); refresh(); }
}
