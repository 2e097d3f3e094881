// Home: what needs somebody, how the machines are, what runs, what it costs, what comes next.
import { h } from './dom.js';
import { api } from './api.js';
import { money, plural, when } from './format.js';
import { meter } from './plot.js';
import { device } from './store.js';
import { action, empty, link, live, perhaps, section, tag } from './ui.js';

// One panel: its own request, its own errors. What this login may not see, or this hub does not have, is left out.
function panel(page, fetch, draw, every) {
  return live(page, () => perhaps(fetch()), (data, refresh) => (data ? draw(data, refresh) : []), { every }).el;
}

const more = (label, href) => h('a', { class: 'more-link', href }, label);
const rows = (items) => h('ul', { class: 'rows' }, items);

export default function show(page) {
  page.actions(link('New chat', '#/chat', { kind: 'primary small only-wide', icon: 'plus' }));
  page.el.classList.add('home');
  if (!device.get('settled')) import('./welcome.js').then(({ checklist }) => { if (!page.signal.aborted) page.el.prepend(checklist(page)); });
  page.el.append(
    panel(page, () => api.get('panic'), (state) => (state.panicked ? h('p', { class: 'banner bad' }, `Everything is stopped since ${new Date(state.since).toLocaleString()}: agents may do nothing. `, action('Let agents work again', async () => { await api.post('resume'); page.refresh(); }, { kind: 'small' })) : []), 30000),
    panel(page, () => api.get('approvals?status=pending'), (list) => (list.length ? section(plural(list.length, 'approval') + ' waiting',
      rows(list.slice(0, 4).map((each) => h('li', null, h('a', { href: '#/approvals' }, h('strong', { dir: 'auto' }, each.agent_name), ' wants to use ', h('code', null, each.tool || each.kind)), when(each.created_at)))),
      link('Decide', '#/approvals', { kind: 'primary' })) : []), 8000),
    panel(page, () => api.get('alerts?limit=50'), ({ alerts }) => (alerts.length ? section('Alerts', rows(alerts.slice(0, 5).map((alert) => h('li', null,
      tag(alert.level, alert.level), h('a', { href: `#/alerts/${alert.id}` }, h('strong', { dir: 'auto' }, alert.machine), ' ', alert.description?.split('\n')[0] || alert.check), when(alert.changed_at)))),
      alerts.length > 5 && more(`All ${alerts.length} alerts`, '#/alerts')) : section('Alerts', h('p', { class: 'good' }, 'Nothing to report.'))), 15000),
    panel(page, () => api.get('machines'), ({ machines }) => section('Machines', machines.length
      ? h('ul', { class: 'cards' }, machines.slice(0, 12).map((machine) => h('li', null, machineCard(machine))))
      : empty('No machines yet', 'A machine joins with one command. Then Holt watches it, and you can ask it things.', link('Add a machine', '#/machines?add=1', { kind: 'primary', icon: 'plus' })),
    machines.length > 12 && more(`All ${machines.length} machines`, '#/machines')), 10000),
    panel(page, async () => (await api.sessions()).slice(0, 6), (list) => section('Chats', list.length ? rows(list.map((each) => h('li', null, each.live ? tag('running', 'live') : null,
      h('a', { href: '#/chat/' + encodeURIComponent(each.id), dir: 'auto' }, each.title || each.id), when(each.last_activity)))) : h('p', { class: 'soft' }, 'No chats yet. ', h('a', { href: '#/chat' }, 'Ask something.'))), 10000),
    panel(page, () => api.get('costs?days=7'), (costs) => section('Today', h('a', { class: 'figure-link', href: '#/costs' }, h('strong', null, money(costs.today?.cost)), ` in ${plural(costs.today?.calls || 0, 'call')}`),
      (costs.limits || []).filter((limit) => limit.period === 'daily' && limit.hard > 0).slice(0, 3).map((limit) => meter(limit.name || limit.scope, limit.spent / limit.hard * 100, `${money(limit.spent)} of ${money(limit.hard)}`))), 60000),
    panel(page, () => api.get('schedules'), (list) => {
      const next = list.filter((each) => each.enabled && each.next_run).sort((a, b) => Date.parse(a.next_run) - Date.parse(b.next_run)).slice(0, 5);
      return section('Next up', next.length ? rows(next.map((each) => h('li', null, h('a', { href: '#/schedules/' + encodeURIComponent(each.name), dir: 'auto' }, each.name), when(each.next_run)))) : h('p', { class: 'soft' }, 'Nothing is scheduled. ', h('a', { href: '#/schedules' }, 'Schedule something.')));
    }, 60000));
}

const PRESENCE = { never: 'not seen yet', stopped: 'stopped', lost: 'offline' };
export const presence = (machine) => (machine.state !== 'approved' ? machine.state : machine.connected ? 'online' : machine.expected_off ? 'meant to be off' : PRESENCE[machine.presence] || 'offline');

export function machineCard(machine) {
  const beat = machine.heartbeat || {};
  const state = presence(machine);
  return h('a', { class: 'card-link', href: '#/machines/' + encodeURIComponent(machine.id) },
    h('div', { class: 'card-head' }, h('span', { class: 'state', 'data-state': state }), h('strong', { dir: 'auto' }, machine.name), h('span', { class: 'soft' }, state)),
    machine.connected && !machine.heartbeat ? h('p', { class: 'soft' }, 'Its first numbers come within a minute.') : machine.connected ? [meter('CPU', beat.cpu_pct, pct(beat.cpu_pct)), meter('Memory', beat.mem_pct, pct(beat.mem_pct)), meter('Disk', beat.disk_pct, pct(beat.disk_pct), 85)]
      : h('p', { class: 'soft' }, machine.state === 'pending' ? `Waits for approval, code ${machine.code || ''}` : ['Last seen ', when(machine.last_seen_at)]),
    beat.active_alerts ? h('span', { class: 'tag warning' }, plural(beat.active_alerts, 'alert')) : null);
}

const pct = (value) => (value == null ? '–' : Math.round(value) + ' %');
