// One machine: how it is now, how it was, what can be done with it.
import { h } from './dom.js';
import { api, path } from './api.js';
import { dateTime, duration, number, percent, plural, when } from './format.js';
import { alertRows, meters, presence } from './home.js';
import { labelLines, labelMap } from './machines.js';
import { lines } from './plot.js';
import { action, ask, choice, confirm, facts, field, labels, link, live, section, swap, table, tag, toast } from './ui.js';

const SPANS = [[1, '1 hour'], [6, '6 hours'], [24, '1 day'], [168, '7 days']];

export default function show(page) {
  const id = page.args[0];
  const at = path`machines/${id}`;
  page.back('#/machines', 'All machines');
  page.title('Machine');
  const now = live(page, () => api.get(at), (machine, refresh) => {
    page.title(machine.name);
    // The page was opened, or an alert came or went: the rest is looked at, too.
    latest = machine;
    const seen = JSON.stringify([machine.open_alerts, !machine.heartbeat]);
    if (seen !== before) { before = seen; history.refresh(); alerts.refresh(); }
    swap(more, about(machine, at, refresh));
    return head(machine, at, refresh);
  }, { every: 4000 });
  const more = h('div', { class: 'live-part' });
  let before = '';
  let latest = {};
  let hours = 24;
  const history = live(page, async () => {
    const { readings } = await api.get(`${at}/readings?hours=${hours}`);
    // The newest numbers are kept after a minute only.
    if (latest.heartbeat && Date.now() - Date.parse(latest.last_seen_at) < hours * 3600e3) readings.push({ at: latest.last_seen_at, ...latest.heartbeat });
    return [hours, Date.parse(latest.created_at), Math.floor(Date.now() / 60e3), readings];
  }, ([span, born, , readings], refresh) => plots(span, born, readings, (value) => { hours = value; refresh(); }), { every: 30000 });
  const alerts = live(page, () => api.get('alerts?state=open&machine=' + encodeURIComponent(id)), ({ alerts: list }) => (list.length ? section(plural(list.length, 'open alert'), alertRows(list, true)) : []), { every: 15000 });
  const sessions = live(page, () => api.get(at + '/sessions'), ({ sessions: list }) => section('Last looks and chats', list.length ? table('Sessions', [
    ['What', (each) => (each.conversation_id ? h('a', { href: '#/chat/' + encodeURIComponent(each.conversation_id) }, each.type) : each.type)],
    ['State', (each) => [each.state === 'ok' ? 'done' : each.state, each.error && h('span', { class: 'soft' }, ' ' + each.error)]],
    ['Tokens', (each) => number(each.tokens_in + each.tokens_out), 'end'], ['When', (each) => when(each.started_at)]], list.slice(0, 20)) : h('p', { class: 'soft' }, 'Nobody asked it anything yet.')), { every: 20000 });
  page.el.append(now.el, alerts.el, section('History', history.el), more, sessions.el);
}

function head(machine, at, refresh) {
  const beat = machine.heartbeat || {};
  const state = presence(machine);
  const chat = async (body) => {
    const { session_id: sid } = await api.post(at + '/sessions', body);
    location.hash = '#/chat/' + encodeURIComponent(sid);
  };
  const approved = machine.state === 'approved';
  return h('div', { class: 'panel' },
    h('div', { class: 'card-head' }, h('span', { class: 'state', 'data-state': state }), h('strong', null, state), machine.connected ? null : h('span', { class: 'soft' }, ' last seen ', when(machine.last_seen_at)), labels(machine.labels)),
    machine.connected && machine.heartbeat ? h('div', { class: 'meters' }, meters(beat)) : null,
    machine.connected && machine.heartbeat && facts([['Load', beat.load1?.toFixed(2)], ['Hottest', beat.temp_c != null && `${Math.round(beat.temp_c)} °C`], ['Up for', beat.host_uptime_sec != null && duration(beat.host_uptime_sec)], ['Events lost', beat.dropped_events || null]]),
    machine.state === 'pending' ? h('p', null, 'It waits for approval. Its code: ', h('span', { class: 'code-big' }, machine.code)) : null,
    h('div', { class: 'ask-row' },
        machine.state === 'pending' ? action('Approve', async () => { await api.post(at + '/approve'); toast(`${machine.name} is in.`); refresh(); }, { kind: 'primary' }) : null,
        approved ? [link('Chat', '#/chat?agent=' + encodeURIComponent(machine.agent), { kind: 'primary', icon: 'chat' }),
          machine.connected ? [action('Inspect', () => look(machine, 'inspect', chat)), action('Diagnose', () => look(machine, 'diagnose', chat))] : null] : null),
    approved && !machine.connected ? h('p', { class: 'soft' }, 'It can be asked again once ', h('code', null, 'holt agent'), ' runs on it and reaches Holt.') : null);
}

function about(machine, at, refresh) {
  const approved = machine.state === 'approved';
  return [section('About', facts([['Host', machine.hostname], ['Address', machine.ip || machine.address], ['System', [machine.os, machine.arch].filter(Boolean).join(', ')], ['Agent', machine.agent_version],
      ['Watches', (machine.plugins || []).join(', ')], ['Joined', machine.created_at && when(machine.created_at)], ['Invited by', machine.created_by], ['Connected', machine.connected && when(machine.connected_at)]])),
    h('div', { class: 'ask-row' },
      action('Name and labels', async () => {
        const done = await ask('Name and labels', [field('display_name', 'Name', { value: machine.display_name, hint: `Empty: ${machine.hostname || 'its own name'}.` }),
          field('labels', 'Labels', { kind: 'list', value: labelLines(own(machine)), hint: 'One a line, such as room=garage.' }),
          field('expected_off', 'It is meant to be off at times: no alert when it is away', { kind: 'checkbox', value: machine.expected_off })],
        { work: (values) => api.patch(at, { ...values, labels: labelMap(values.labels) }) });
        if (done) { toast('Saved.'); refresh(); }
      }, { icon: 'edit' }),
      approved ? action('New token', async () => {
        if (await confirm('Give it a new token?', 'It changes its token at its next connection; the old one ends then.', 'New token', () => api.post(at + '/rotate'))) { toast('It gets a new token.'); refresh(); }
      }) : null,
      approved ? action('Revoke', async () => {
        if (await confirm('Revoke this machine?', `${machine.name} is disconnected and may not come back until it joins again.`, 'Revoke', () => api.post(at + '/revoke'))) refresh();
      }) : action('Forget', async () => {
        if (await confirm('Forget this machine?', `All that Holt knows of ${machine.name} is deleted.`, 'Forget', () => api.del(at))) location.hash = '#/machines';
      }))];
}

const own = (machine) => machine.own_labels && Object.fromEntries(Object.entries(machine.labels).filter(([name]) => !(name in machine.own_labels)));

function look(machine, type, chat) {
  const plugins = (machine.plugins || []).map((plugin) => [plugin, plugin]);
  return ask(type === 'inspect' ? `Inspect ${machine.name}` : `Diagnose ${machine.name}`, [
    field('plugin', 'What', { kind: 'select', value: '', options: [['', 'The whole system'], ...plugins.filter(([name]) => name !== 'system')] }),
    field('target', 'Which one', { optional: true, hint: 'Such as a service or a disk.' }),
    ...(type === 'diagnose' ? [field('descriptions', 'What is wrong', { kind: 'textarea', optional: true, rows: 3 })] : []),
  ], { submit: type === 'inspect' ? 'Inspect' : 'Diagnose', intro: type === 'inspect' ? 'The machine looks at itself and reports. Nothing is changed.' : 'The machine looks for the cause. Nothing is changed.', work: (values) => chat({ type, ...values }) });
}

// From the first reading on, at least some minutes; what is further back is offered when there is something.
function plots(hours, born, readings, choose) {
  const to = Date.now();
  const spans = SPANS.filter((each, i) => !i || SPANS[i - 1][0] * 3600e3 < to - born);
  const pick = spans.length > 1 ? choice('How far back', spans, spans.some(([each]) => each === hours) ? hours : spans.at(-1)[0], choose) : null;
  if (!readings.length) return [pick, h('p', { class: 'soft' }, !(to - born > 120e3) ? 'The first numbers are on their way.' : 'No readings in this time.')];
  const times = readings.map((reading) => Date.parse(reading.at));
  const from = Math.max(to - hours * 3600e3, Math.min(times[0], to - 300e3));
  const steps = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
  // What is older than a day is kept thinner.
  const gap = hours > 24 ? 1800e3 : Math.max(300e3, 4 * (steps[Math.floor(steps.length / 2)] || 0));
  const kinds = [['CPU', 'cpu_pct', percent, 100], ['Memory', 'mem_pct', percent, 100], ['Disk', 'disk_pct', percent, 100], ['Load', 'load1', (value) => value.toFixed(1)], ['Temperature', 'temp_c', (value) => `${Math.round(value)} °C`]]
    .filter(([, name]) => readings.some((reading) => reading[name] != null));
  const rows = h('div');
  const every = Math.ceil(readings.length / 60);
  return [pick, h('div', { class: 'plots' }, kinds.map(([label, name, unit, max]) => lines(label, readings.map((reading, i) => [times[i], reading[name]]), { from, to, gap, max, unit }))),
    h('details', { 'data-k': 'numbers', ontoggle: () => {
      rows.replaceChildren(table('Readings', [['When', (reading) => dateTime(reading.at)], ...kinds.map(([label, name, unit]) => [label, (reading) => (reading[name] == null ? '–' : unit(reading[name])), 'end'])],
        readings.filter((_, i) => (readings.length - 1 - i) % every === 0).reverse()));
    } }, h('summary', { class: 'soft' }, `${plural(readings.length, 'reading')} as a table`), rows)];
}
