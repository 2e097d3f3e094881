// Costs: by day, agent, model and key; how much may be spent; what a model costs.
import { h } from './dom.js';
import { api, query } from './api.js';
import { money, number } from './format.js';
import { bars, meter, share } from './plot.js';
import { action, choice, dialog, empty, facts, field, form, live, perhaps, section, table, toast } from './ui.js';

export default function show(page) {
  let days = 30;
  page.el.append(choice('How far back', [[7, '7 days'], [30, '30 days'], [90, '90 days']], days, (value) => { days = value; list.refresh(); }));
  const list = live(page, () => Promise.all([api.get('costs' + query({ days })), perhaps(api.sessions()), perhaps(api.agents())]), ([costs, chats, agents], refresh) => draw(costs, chats || [], agents || [], refresh), { every: 20000 });
  page.el.append(list.el);
}

// What a model without a price has cost nobody knows: $0 would be a lie.
const cost = (row) => (row.pricing_sources?.unknown && !row.cost ? 'price unknown' : row.pricing_sources?.free && !row.cost ? 'free' : money(row.cost));
const COLUMNS = [['Cost', cost, 'end'], ['Calls', (each) => number(each.messages ?? each.calls), 'end'], ['Tokens in', (each) => number(each.input_tokens), 'end'], ['Tokens out', (each) => number(each.output_tokens), 'end']];
const byCost = (rows) => [...rows || []].sort((a, b) => b.cost - a.cost || (b.messages || 0) - (a.messages || 0));
const PERIODS = { daily: 'today', monthly: 'this month', total: 'in all' };
const who = (identity) => identity.replace(/^key:/, 'Key ').replace(/^user:/, 'Login ');

function draw(costs, chats, agents, refresh) {
  const called = (name) => agents.find((agent) => agent.name === name)?.display_name || name;
  const limits = (costs.limits || []).filter((each) => each.hard > 0 || each.soft > 0);
  const budget = section('Limits', limits.length ? h('div', { class: 'panel' }, limits.map((each) => meter(each.scope === 'all' ? 'All together' : each.scope === 'agent' ? called(each.name) : who(each.name), each.spent / (each.hard || each.soft) * 100, `${money(each.spent)} of ${money(each.hard || each.soft)} ${PERIODS[each.period]}`))) : null,
    h('p', { class: 'soft' }, limits.length ? '' : 'Nothing stops spending in a day or a month. ', costs.cost_limits?.hard ? `A chat stops at ${money(costs.cost_limits.hard)}.` : 'A chat may cost anything.'),
    action('Set a limit', () => limit(refresh)));
  const each = (title, name, rows, label, more = []) => {
    if (!rows?.length) return null;
    // Where nothing costs money, tokens tell who uses most.
    const weight = rows.some((row) => row.cost > 0) ? (row) => row.cost : (row) => row.input_tokens + row.output_tokens;
    const sum = rows.reduce((all, row) => all + weight(row), 0) || 1;
    return section(title, table(title, [[name, label], ['Share', (row) => share(weight(row) / sum * 100)], ...COLUMNS, ...more], byCost(rows)));
  };
  if (!costs.session_count && !(costs.by_day || []).some((day) => day.calls)) return [empty('Nothing was spent', 'What models cost shows here: by day, agent, model and key. The built-in agent costs nothing.', h('a', { class: 'btn primary', href: '#/chat' }, 'New chat')), budget];
  const title = (id) => chats.find((chat) => chat.id === id)?.title || `A chat that is gone (${id.slice(0, 8)})`;
  const dear = byCost(Object.entries(costs.session_stats || {}).map(([id, stats]) => ({ id, ...stats }))).slice(0, 20);
  return [
    h('div', { class: 'panel' }, facts([['Today', money(costs.today?.cost)], ['In all', money(costs.global_cost)], ['Chats', number(costs.session_count)], ['Calls today', number(costs.today?.calls)]]),
      costs.by_model?.some((row) => row.pricing_sources?.unknown) ? h('p', { class: 'hint' }, 'A model below has no known price: what it costs is not in these sums.') : null),
    budget,
    costs.by_day?.length ? [costs.by_day.some((day) => day.cost) ? bars('Cost a day', costs.by_day.map((day) => [day.day, day.cost]), { unit: money }) : null, bars('Tokens a day', costs.by_day.map((day) => [day.day, day.input_tokens + day.output_tokens]), { unit: short, height: 130 })] : null,
    each('By agent', 'Agent', costs.by_agent, (row) => called(row.agent)),
    each('By model', 'Model', costs.by_model, (row) => [row.model, h('span', { class: 'soft' }, ' ' + (row.provider || ''))], [['', (row) => (row.pricing_sources?.free ? null : action('Price', () => price(row.model, costs, refresh), { kind: 'small', 'aria-label': `Price of ${row.model}` })), 'end']]),
    each('By key or login', 'Who', costs.by_key, (row) => who(row.identity)),
    dear.length ? section('Dearest chats', table('Dearest chats', [['Chat', (row) => h('a', { href: '#/chat/' + encodeURIComponent(row.id) }, title(row.id))], ...COLUMNS], dear)) : null,
  ].flat();
}

const short = (value) => new Intl.NumberFormat([], { notation: 'compact', maximumFractionDigits: 1 }).format(value);

const dollars = (name, label, value, hint, required) => field(name, label, { value: required ? value : value || '', inputmode: 'decimal', optional: !required, required, hint, check: (text) => (text === '' || Number(text) >= 0 ? '' : 'Please enter an amount such as 2.50, or nothing.') });
const amounts = (values) => Object.fromEntries(Object.entries(values).map(([name, text]) => [name, text === '' ? null : Number(text)]));

async function limit(refresh) {
  const [costs, agents, keys] = await Promise.all([api.get('costs'), perhaps(api.agents()), perhaps(api.get('keys'))]);
  const options = [['all ', 'All together'], ['chat ', 'Every single chat'], ...(agents || []).filter((agent) => agent.online === undefined).map((agent) => ['agent ' + agent.name, 'Agent ' + (agent.display_name || agent.name)]),
    ...(keys || []).filter((key) => !key.revoked).map((key) => ['key key:' + key.name, 'Key ' + key.name]), ['key user:admin', 'Login with the password']];
  const done = await dialog('Set a limit', (close) => {
    const place = h('div');
    const pick = field('who', 'For', { kind: 'select', options });
    const draw = () => {
      const [, scope, name] = /^(\S+) (.*)$/.exec(pick.value);
      const now = (period) => costs.limits.find((each) => each.scope === scope && each.name === name && each.period === period)?.hard;
      const fields = scope === 'chat' ? [dollars('cost_limit_hard', 'Stop at $', costs.cost_limits.hard, 'Empty: no limit.'), dollars('cost_limit_soft', 'Use no more tools from $', costs.cost_limits.soft)]
        : [dollars('daily_limit_hard', 'Stop at $ a day', now('daily'), 'Empty: no limit.'), dollars('monthly_limit_hard', 'Stop at $ a month', now('monthly')), dollars('total_limit_hard', 'Stop at $ in all', now('total'))];
      place.replaceChildren(form(fields, { cancel: () => close(), work: async (values) => {
        const sent = amounts(values);
        if (scope === 'chat') await api.patch('llm/config', { cost_limit_hard: sent.cost_limit_hard || 0, cost_limit_soft: sent.cost_limit_soft || 0 });
        else await api.patch('costs/limits', { scope, name, ...sent });
        close(true);
      } }));
    };
    pick.input.addEventListener('change', draw);
    draw();
    return [h('p', { class: 'soft' }, 'Beyond a limit no model is asked any more, until you raise it or the day or month is over. It counts at once.'), pick.el, place];
  });
  if (done) { toast('Saved.'); refresh(); }
}

async function price(model, costs, refresh) {
  const now = costs.prices?.[model];
  const change = (values) => api.patch('costs/prices', { model, ...values });
  const said = await dialog(`Price of ${model}`, (close) => form([dollars('input', '$ for a million tokens in', now?.input, 'The provider’s price list tells.', true), dollars('output', '$ for a million tokens out', now?.output, '', true), dollars('cached_input', '$ for a million from the cache', now?.cached_input, 'Empty: as tokens in.')],
    { cancel: () => close(), work: async (values) => { await change(amounts(values)); close('Saved. It counts from the next call on.'); },
      extra: now && action('Remove this price', async () => { await change({ input: null, output: null, cached_input: null }); close('Removed. Holt goes by its own list.'); }) }));
  if (said) { toast(said); refresh(); }
}
