// Costs: by day, agent, model and key, and how close the limits are.
import { h } from './dom.js';
import { api, query } from './api.js';
import { money, number, plural } from './format.js';
import { bars, meter, share } from './plot.js';
import { choice, empty, facts, live, section, table } from './ui.js';

export default function show(page) {
  let days = 30;
  page.el.append(choice('How far back', [[7, '7 days'], [30, '30 days'], [90, '90 days']], days, (value) => { days = value; list.refresh(); }));
  const list = live(page, () => api.get('costs' + query({ days })), draw, { every: 20000 });
  page.el.append(list.el);
}

const COLUMNS = [['Cost', (each) => money(each.cost), 'end'], ['Calls', (each) => number(each.messages ?? each.calls), 'end'], ['Tokens in', (each) => number(each.input_tokens), 'end'], ['Tokens out', (each) => number(each.output_tokens), 'end']];
const byCost = (rows) => [...rows || []].sort((a, b) => b.cost - a.cost || (b.messages || 0) - (a.messages || 0));

function draw(costs) {
  const limits = (costs.limits || []).filter((limit) => limit.hard > 0 || limit.soft > 0);
  const each = (title, name, rows, label) => {
    if (!rows?.length) return null;
    // Where nothing costs money, tokens tell who uses most.
    const weight = rows.some((row) => row.cost > 0) ? (row) => row.cost : (row) => row.input_tokens + row.output_tokens;
    const sum = rows.reduce((all, row) => all + weight(row), 0) || 1;
    return section(title, table(title, [[name, label], ['Share', (row) => share(weight(row) / sum * 100)], ...COLUMNS], byCost(rows)));
  };
  if (!costs.session_count && !(costs.by_day || []).some((day) => day.calls)) return empty('Nothing was spent', 'What models cost shows here: by day, agent, model and key. The built-in agent costs nothing.', h('a', { class: 'btn primary', href: '#/chat' }, 'New chat'));
  return [
    h('div', { class: 'panel' }, facts([['Today', money(costs.today?.cost)], ['In all', money(costs.global_cost)], ['Chats', number(costs.session_count)], ['Calls today', number(costs.today?.calls)]])),
    costs.by_day?.length ? [bars('Cost a day', costs.by_day.map((day) => [day.day, day.cost]), { unit: money }), bars('Tokens a day', costs.by_day.map((day) => [day.day, day.input_tokens + day.output_tokens]), { unit: short, height: 130 })] : null,
    section('Limits', limits.length ? h('div', { class: 'panel' }, limits.map((limit) => meter(limit.name || limit.scope, limit.spent / (limit.hard || limit.soft) * 100, `${money(limit.spent)} of ${money(limit.hard || limit.soft)} a ${limit.period}`)))
      : h('p', { class: 'soft' }, 'No budget is set. ', costs.cost_limits?.hard ? `One chat may cost ${money(costs.cost_limits.hard)}.` : '')),
    each('By agent', 'Agent', costs.by_agent, (row) => row.agent),
    each('By model', 'Model', costs.by_model, (row) => [row.model, h('span', { class: 'soft' }, ' ' + (row.provider || ''))]),
    each('By key or login', 'Who', costs.by_key, (row) => row.identity),
    chats(costs),
  ].flat();
}

const short = (value) => new Intl.NumberFormat([], { notation: 'compact', maximumFractionDigits: 1 }).format(value);

function chats(costs) {
  const rows = byCost(Object.entries(costs.session_stats || {}).map(([id, stats]) => ({ id, ...stats }))).slice(0, 20);
  return rows.length ? section('Dearest chats', table('Dearest chats', [['Chat', (row) => h('a', { href: '#/chat/' + encodeURIComponent(row.id) }, row.id.length > 24 ? row.id.slice(0, 24) + '…' : row.id)], ...COLUMNS], rows),
    h('p', { class: 'soft' }, `${plural(costs.pricing_config?.custom_model_count || 0, 'model')} with prices of your own.`)) : null;
}
