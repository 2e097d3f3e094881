// Home: what needs somebody, how the machines are, what runs, what it costs, what comes next.
import { h } from './dom.js';
import { api } from './api.js';
import { money, percent, plural, when } from './format.js';
import { meter } from './plot.js';
import { device } from './store.js';
import { action, empty, link, live, perhaps, section, tag } from './ui.js';

// One panel: its own request, its own errors. What this login may not see, or this hub does not have, is left out.
function panel(page, fetch, draw, every) {
  return live(page, () => perhaps(fetch()), (data, refresh) => (data ? draw(data, refresh) : []), { every }).el;
}

const part = (title, name, ...kids) => section(h('a', { href: '#/' + name }, title), ...kids);
const more = (label, href) => h('a', { class: 'more-link', href }, label);
const rows = (items) => h('ul', { class: 'rows' }, items);
const none = (...kids) => h('p', { class: 'soft' }, kids);

export default function show(page) {
  page.actions(link('New chat', '#/chat', { kind: 'primary small only-wide', icon: 'plus' }));
  page.el.classList.add('home');
  page.el.append(
    panel(page, () => api.get('panic'), (state) => (state.panicked ? h('p', { class: 'banner bad' }, `Everything is stopped since ${new Date(state.since).toLocaleString()}: agents may do nothing. `, action('Let agents work again', async () => { await api.post('resume'); page.refresh(); }, { kind: 'small' })) : []), 30000),
    device.get('settled') ? '' : checklist(page),
    panel(page, () => api.get('approvals?status=pending'), (list) => part(list.length ? plural(list.length, 'approval') + ' waiting' : 'Approvals', 'approvals', list.length
      ? [rows(list.slice(0, 4).map((each) => h('li', null, h('a', { href: '#/approvals' }, h('strong', { dir: 'auto' }, each.agent_name), ' wants to use ', h('code', null, each.tool || each.kind)), when(each.created_at)))),
        link('Decide', '#/approvals', { kind: 'primary' })] : none('Nobody waits for you. What an agent may not do by itself, it asks for here.')), 8000),
    // Together, so that the numbers of both are of the same moment.
    panel(page, () => Promise.all([api.get('alerts?limit=50'), api.get('machines')]), ([{ alerts }, { machines }]) => [
      part(alerts.length ? openAlerts(alerts.length) : 'Alerts', 'alerts', alerts.length ? [alertRows(alerts.slice(0, 5)), alerts.length > 5 && more(`All ${openAlerts(alerts.length)}`, '#/alerts')]
        : h('p', { class: 'good' }, machines.length ? 'Nothing to report.' : 'Nothing to report yet: no machine is watched.')),
      part('Machines', 'machines', machines.length
        ? h('ul', { class: 'cards' }, machines.slice(0, 12).map((machine) => h('li', null, machineCard(machine))))
        : empty('No machines yet', 'A machine joins with one command. Then Holt watches it, and you can ask it things.', link('Add a machine', '#/machines?add=1', { kind: 'primary', icon: 'plus' })),
      machines.length > 12 && more(`All ${machines.length} machines`, '#/machines'))], 10000),
    panel(page, async () => (await api.sessions()).sort((a, b) => b.live - a.live).slice(0, 6), (list) => {
      const running = list.filter((each) => each.live).length;
      return part(running ? plural(running, 'chat') + ' running' : 'Chats', 'chat', list.length ? rows(list.map((each) => h('li', null, each.live ? tag('running', 'live') : null,
        h('a', { href: '#/chat/' + encodeURIComponent(each.id), dir: 'auto' }, each.title || each.id), when(each.last_activity)))) : none('No chats yet. ', h('a', { href: '#/chat' }, 'Ask something.')));
    }, 8000),
    panel(page, () => api.get('costs?days=7'), (costs) => part('Spent today', 'costs', h('a', { class: 'figure-link', href: '#/costs' }, h('strong', null, money(costs.today?.cost)), costs.today?.calls ? ` in ${plural(costs.today.calls, 'call')}` : ' No model was asked today.'),
      (costs.limits || []).filter((limit) => limit.period === 'daily' && limit.hard > 0).slice(0, 3).map((limit) => meter(limit.name || limit.scope, limit.spent / limit.hard * 100, `${money(limit.spent)} of ${money(limit.hard)}`))), 60000),
    panel(page, () => api.get('schedules'), (list) => {
      const next = list.filter((each) => each.enabled && each.next_run).sort((a, b) => Date.parse(a.next_run) - Date.parse(b.next_run)).slice(0, 5);
      return part('Next up', 'schedules', next.length ? rows(next.map((each) => h('li', null, h('a', { href: '#/schedules/' + encodeURIComponent(each.name), dir: 'auto' }, each.name), when(each.next_run)))) : none('Nothing is scheduled. ', h('a', { href: '#/schedules' }, 'Schedule something.')));
    }, 60000));
}

// What is worth doing first, until all of it is done or nobody wants to see it.
function checklist(page) {
  const counts = () => Promise.all([['sessions'], ['machines', 'machines'], ['notifications', 'channels'], ['costs?days=1', 'limits']].map(async ([where, name]) => {
    const data = await perhaps(api.get(where));
    return data && (name ? data[name] : data).length;
  }));
  const list = live(page, counts, (found) => {
    const steps = [['Say hello', '#/chat'], ['Add a machine', '#/machines?add=1'], ['Choose how you are told', '#/settings'], ['Limit what may be spent', '#/costs']].map((step, i) => [...step, found[i]]).filter((step) => step[2] != null);
    if (device.get('settled') || steps.every((step) => step[2])) return [];
    return section('First steps', h('ul', { class: 'rows' }, steps.map(([label, href, done]) => h('li', null, done ? [tag('done'), h('s', null, label)] : h('a', { href }, label)))),
      action('Hide this', async () => { device.set('settled', true); list.el.replaceChildren(); }, { kind: 'small' }));
  });
  return list.el;
}

const PRESENCE = { never: 'not seen yet', stopped: 'stopped', lost: 'offline' };
export const presence = (machine) => (machine.state !== 'approved' ? machine.state : machine.connected ? 'online' : machine.expected_off ? 'meant to be off' : PRESENCE[machine.presence] || 'offline');

const openAlerts = (n) => plural(n, 'open alert');
// What is wrong and where, in a line: the first of the description.
export const alertText = ({ description, check, target }) => {
  const text = (description || check).split('\n')[0].replace(/^#+ /, '');
  return target && !text.includes(target) ? `${target}: ${text}` : text;
};
export const alertRows = (alerts, own) => h('ul', { class: 'rows wrap' }, alerts.map((alert) => h('li', null,
  tag(alert.level, alert.level), h('a', { href: '#/alerts/' + alert.id, dir: 'auto' }, own ? null : [h('strong', null, alert.machine), ' '], alertText(alert)), when(alert.changed_at))));

// The numbers of a heartbeat; red from where the checks warn.
export const meters = (beat) => [meter('CPU', beat.cpu_pct, percent(beat.cpu_pct), 80), meter('Memory', beat.mem_pct, percent(beat.mem_pct), 85), meter('Disk', beat.disk_pct, percent(beat.disk_pct), 90)];

export function machineCard(machine) {
  const state = presence(machine);
  const { critical, warning, info } = machine.open_alerts;
  return h('a', { class: 'card-link', href: '#/machines/' + encodeURIComponent(machine.id) },
    h('div', { class: 'card-head' }, h('span', { class: 'state', 'data-state': state }), h('strong', { dir: 'auto' }, machine.name), h('span', { class: 'soft' }, state)),
    machine.connected && !machine.heartbeat ? h('p', { class: 'soft' }, 'Its first numbers are on their way.') : machine.connected ? meters(machine.heartbeat)
      : h('p', { class: 'soft' }, machine.state === 'pending' ? `Waits for approval, code ${machine.code || ''}` : ['Last seen ', when(machine.last_seen_at)]),
    critical + warning + info ? tag(openAlerts(critical + warning + info), critical ? 'critical' : 'warning') : null);
}
