// Home: what needs somebody, how the machines are, what runs, what it costs, what comes next.
import { h } from './dom.js';
import { api } from './api.js';
import { money, percent, plural, when } from './format.js';
import { meter } from './plot.js';
import { device } from './store.js';
import { action, empty, link, live, perhaps, section, tag } from './ui.js';

// One part: its own request, its own errors; its heading leads to its page. `draw` gives the content, and a heading when
// there is something to count. What this login may not see, or this hub does not have, is left out.
function part(page, title, name, fetch, draw, every) {
  const head = h('a', { href: '#/' + name }, title);
  const el = section(head, live(page, () => perhaps(fetch()), (data) => {
    el.hidden = !data;
    const [said, ...kids] = data ? draw(data) : [title];
    head.textContent = said || title;
    return kids;
  }, { every }).el);
  return el;
}

const more = (label, href) => h('a', { class: 'more-link', href }, label);
const rows = (items, kind = '') => h('ul', { class: 'rows ' + kind }, items);
const none = (...kids) => h('p', { class: 'soft' }, kids);

export default function show(page) {
  page.actions(link('New chat', '#/chat', { kind: 'primary small only-wide', icon: 'plus' }));
  page.el.classList.add('home');
  // Asked for together: the numbers of both are of the same moment.
  let asked = null;
  const watched = () => { asked ||= Promise.all([api.get('alerts?limit=50'), api.get('machines')]).finally(() => { asked = null; }); return asked; };
  page.el.append(
    device.get('settled') ? '' : checklist(page),
    part(page, 'Approvals', 'approvals', async () => {
      const list = await api.get('approvals?status=pending');
      return { list, wish: list.length && (await import('./approvals.js')).wish };
    }, ({ list, wish }) => (list.length
      ? [plural(list.length, 'approval') + ' waiting', rows(list.slice(0, 4).map((each) => h('li', null, h('a', { href: '#/approvals', dir: 'auto' }, h('strong', null, each.agent_name), ': ', each.tool ? wish(each.tool, each.payload, each.server) : each.summary), when(each.created_at))), 'wrap'),
        link('Decide', '#/approvals', { kind: 'primary' })] : ['', none('Nobody waits for you. What an agent may not do by itself, it asks for here.')]), 8000),
    part(page, 'Alerts', 'alerts', watched, ([{ alerts }, { machines }]) => (alerts.length ? [openAlerts(alerts.length) + quiet(alerts), alertRows(alerts.slice(0, 5)), alerts.length > 5 && more(`All ${openAlerts(alerts.length)}`, '#/alerts')]
      : ['', h('p', { class: 'good' }, machines.length ? 'Nothing to report.' : 'Nothing to report yet: no machine is watched.')]), 10000),
    part(page, 'Machines', 'machines', watched, ([, { machines }]) => ['', machines.length
      ? h('ul', { class: 'cards' }, machines.slice(0, 12).map((machine) => h('li', null, machineCard(machine))))
      : empty('No machines yet', 'A machine joins with one command. Then Holt watches it, and you can ask it things.', link('Add a machine', '#/machines?add=1', { kind: 'primary', icon: 'plus' })),
    machines.length > 12 && more(`All ${machines.length} machines`, '#/machines')], 10000),
    part(page, 'Chats', 'chat', async () => (await api.sessions()).sort((a, b) => b.live - a.live).slice(0, 6), (list) => {
      const running = list.filter((each) => each.live).length;
      return [running && plural(running, 'chat') + ' running', list.length ? rows(list.map((each) => h('li', null, each.live ? tag('running', 'live') : null,
        h('a', { href: '#/chat/' + encodeURIComponent(each.id), dir: 'auto' }, each.title || each.id), when(each.last_activity)))) : none('No chats yet. ', h('a', { href: '#/chat' }, 'Ask something.'))];
    }, 8000),
    part(page, 'Spent today', 'costs', () => api.get('costs?days=7'), (costs) => ['', h('a', { class: 'figure-link', href: '#/costs' }, h('strong', null, money(costs.today?.cost)), costs.today?.calls ? ` in ${plural(costs.today.calls, 'call')}` : ' No model was asked today.'),
      (costs.limits || []).filter((limit) => limit.period === 'daily' && limit.hard > 0).slice(0, 3).map((limit) => meter(limit.name || limit.scope, limit.spent / limit.hard * 100, `${money(limit.spent)} of ${money(limit.hard)}`))], 60000),
    part(page, 'Next up', 'schedules', () => api.get('schedules'), (list) => {
      const next = list.filter((each) => each.enabled && each.next_run).sort((a, b) => Date.parse(a.next_run) - Date.parse(b.next_run)).slice(0, 5);
      return ['', next.length ? rows(next.map((each) => h('li', null, h('a', { href: '#/schedules/' + encodeURIComponent(each.name), dir: 'auto' }, each.name), when(each.next_run)))) : none('Nothing is scheduled. ', h('a', { href: '#/schedules' }, 'Schedule something.'))];
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
// The badge counts only what nobody has dealt with.
const quiet = (alerts) => { const n = alerts.filter((alert) => alert.acknowledged_at || alert.silenced_until).length; return n ? `, ${n} acknowledged or silent` : ''; };
// What is wrong and where, in a line: the first of the description.
export const alertText = ({ description, check, target }) => {
  const text = (description || check).split('\n')[0].replace(/^#+ /, '');
  return target && !text.includes(target) ? `${target}: ${text}` : text;
};
export const alertRows = (alerts, own) => rows(alerts.map((alert) => h('li', null,
  tag(alert.level, alert.level), h('a', { href: '#/alerts/' + alert.id, dir: 'auto' }, own ? null : [h('strong', null, alert.machine), ' '], alertText(alert)), when(alert.changed_at))), 'wrap');

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
