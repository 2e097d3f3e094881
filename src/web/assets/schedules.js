// Schedules: what runs when, drawn over the time to come; change, run now, what became of the last runs.
import { h } from './dom.js';
import { api, path } from './api.js';
import { dateTime, duration, money, number, when } from './format.js';
import { moments } from './plot.js';
import { action, confirm, dialog, empty, facts, field, form, live, perhaps, section, table, tag, toast } from './ui.js';

const PRESETS = [['@hourly', 'Every hour'], ['0 8 * * *', 'Every day at 8:00'], ['0 8 * * 1-5', 'Monday to Friday at 8:00'], ['0 9 * * 1', 'Mondays at 9:00'], ['0 3 1 * *', 'On the first of the month'], ['@every 15m', 'Every 15 minutes']];
const DAY = 86400e3;
const STATES = { wanted: 'begins', started: 'runs', ok: 'done', failed: 'failed', missed: 'missed', skipped: 'left out' };
const KINDS = { started: 'live', failed: 'failed', missed: 'warning', skipped: 'plain' };
const CAUSES = { late: 'caught up', manual: 'by hand' };

export default function show(page) {
  if (page.args[0]) { one(page, page.args[0]); return; }
  page.actions(action('Add a schedule', () => edit(null, list.refresh), { kind: 'primary small', icon: 'plus' }));
  const list = live(page, async () => {
    const items = await api.get('schedules');
    return Promise.all(items.map(async (item) => ({ ...item, next: item.enabled ? await coming(item) : [] })));
  }, (items, refresh) => (items.length ? h('ul', { class: 'stack' }, items.sort((a, b) => Date.parse(a.next_run || '2999') - Date.parse(b.next_run || '2999')).map((item) => h('li', { class: 'panel' }, card(item, refresh))))
    : empty('Nothing is scheduled', 'An agent can do something at set times: a morning report, a weekly check. The answer goes to a chat and to your notifications.', action('Add a schedule', () => edit(null, refresh), { kind: 'primary', icon: 'plus' }))), { every: 20000 });
  page.el.append(list.el);
}

// The next runs of a schedule: asked once for each expression, again when the first has passed.
const known = new Map();
async function coming(item) {
  const key = item.expression + ' ' + (item.timezone || '');
  const have = known.get(key);
  if (have && (!have[0] || have[0] > Date.now())) return have;
  const { next } = await api.post('schedules/preview', { schedule: item.expression, n: 12 }).catch(() => ({ next: [] }));
  const times = (next.length ? next : [item.next_run].filter(Boolean)).map((time) => Date.parse(time));
  known.set(key, times);
  return times;
}

// From an hour to a month: as far as makes the next few runs visible.
const span = (times) => { const last = times[Math.min(times.length, 6) - 1] || Date.now() + DAY; return [3600e3, 6 * 3600e3, DAY, 7 * DAY, 31 * DAY, 366 * DAY].find((length) => Date.now() + length > last) || 366 * DAY; };

function drawn(item, times) {
  return times.length ? moments(`Next runs of ${item.name}: ${times.slice(0, 5).map((time) => dateTime(time)).join('; ')}`, times, Date.now() + span(times)) : null;
}

function card(item, refresh) {
  return [h('div', { class: 'card-head' }, h('span', { class: 'state', 'data-state': item.enabled ? 'on' : 'off' }), h('a', { href: '#/schedules/' + encodeURIComponent(item.name) }, h('strong', { dir: 'auto' }, item.name)), h('code', null, item.expression), item.enabled ? null : tag('off', 'plain'), item.running ? tag('runs', 'live') : null, item.last_state === 'failed' || item.last_state === 'missed' ? tag('last: ' + STATES[item.last_state], KINDS[item.last_state]) : null, (item.tags || []).map((each) => tag(each, 'plain'))),
    h('p', { class: 'soft' }, item.agent ? `${item.agent} · ` : null, item.skill ? `skill ${item.skill} · ` : null, 'last ', when(item.last_run), item.enabled ? [' · next ', when(item.next_run, 'never')] : null),
    item.last_state === 'failed' && item.last_reason ? h('p', { class: 'problem' }, item.last_reason) : null,
    drawn(item, item.next || []), buttons(item, refresh)];
}

function buttons(item, refresh) {
  const at = path`schedules/${item.name}`;
  return h('div', { class: 'ask-row' },
    action('Run now', async () => { await api.post(at + '/run'); toast(`${item.name} runs.`); setTimeout(refresh, 700); }, { icon: 'play', kind: 'small' }),
    action('Try dry', () => dryRun(item), { kind: 'small' }),
    action('Edit', () => edit(item, refresh), { icon: 'edit', kind: 'small' }),
    action(item.enabled ? 'Switch off' : 'Switch on', async () => { await api.patch(at, { enabled: !item.enabled }); await refresh(); }, { kind: 'small' }),
    action('Delete', async () => { if (await confirm('Delete this schedule?', `${item.name} runs no more.`, 'Delete', () => api.del(at))) { toast('Deleted.'); if (location.hash === '#/schedules') refresh(); else location.hash = '#/schedules'; } }, { kind: 'small' }));
}

// What a run would be; nothing is done.
async function dryRun(item) {
  const plan = await api.post(path`schedules/${item.name}/dry-run`);
  await dialog(`What ${item.name} would do`, () => [h('p', null, 'Nothing was done. A run now would ask:'), h('pre', { class: 'args', tabindex: '0', 'aria-label': 'Question' }, plan.text),
    facts([['Agent', plan.agent], ['Rights', plan.session_tier], ['Skill', plan.skill], ['Result to', plan.channel], ['Tools', plan.tools.join(', ') || 'none']])], { wide: true });
}

function one(page, name) {
  page.back('#/schedules', 'All schedules');
  page.title(name);
  const head = live(page, async () => {
    const item = (await api.get('schedules')).find((each) => each.name === name);
    if (!item) throw Object.assign(new Error('There is no such schedule.'), { status: 404 });
    return { ...item, next: item.enabled ? await coming(item) : [] };
  }, (item, refresh) => [h('div', { class: 'panel' }, card(item, refresh)), section('About', facts([['Type', item.type], ['Agent', item.agent], ['What to do', item.prompt], ['Skill', item.skill], ['Channel', item.channel], ['Chat', item.session_mode === 'shared' ? 'the same each time' : 'a new one each time'], ['Rights', item.session_tier]])),
    item.next.length ? section('Next runs', h('ul', { class: 'rows' }, item.next.slice(0, 6).map((time) => h('li', null, h('span', { class: 'grow' }, dateTime(time)), when(time))))) : null], { every: 15000 });
  const runs = live(page, () => api.get(path`schedules/${name}/runs`), (rows) => section('Runs', rows.length ? table('Runs', [['For', (run) => h('span', { class: 'nowrap' }, dateTime(run.scheduled_at), run.moments > 1 ? ` and ${run.moments - 1} more` : null)], ['Result', (run) => tag(STATES[run.state] || run.state, KINDS[run.state])],
    ['Why', (run) => [CAUSES[run.trigger], run.reason].filter(Boolean).join(': ')], ['Took', (run) => (run.started_at && run.finished_at ? duration((Date.parse(run.finished_at) - Date.parse(run.started_at)) / 1000) : '')],
    ['Tokens', (run) => (run.tokens ? number(run.tokens) : ''), 'end'], ['Cost', (run) => (run.cost_usd ? money(run.cost_usd) : ''), 'end'], ['', (run) => (run.conversation_id ? h('a', { href: '#/chat/' + encodeURIComponent(run.conversation_id) }, 'Chat') : null), 'end']], rows)
    : h('p', { class: 'soft' }, 'It has not run yet.')), { every: 8000 });
  page.el.append(head.el, runs.el);
}

// --- the form ----------------------------------------------------------------------------------------------------------

async function edit(item, refresh) {
  const [agents, notices] = await Promise.all([api.agents().catch(() => []), perhaps(api.get('notifications')).catch(() => null)]);
  const names = agents.filter((agent) => agent.online === undefined).map((agent) => [agent.name, agent.display_name || agent.name]);
  const sent = await dialog(item ? `Edit ${item.name}` : 'Add a schedule', (close) => {
    const next = h('p', { class: 'hint', role: 'status' });
    const prompt = field('prompt', 'What to do', { kind: 'textarea', rows: 3, value: item?.prompt, optional: true, hint: 'What the agent is asked each time, such as: Is anything wrong with my machines?' });
    const skill = field('skill', 'Skill', { value: item?.skill, optional: true, list: 'skills', hint: 'The name of one of the agent’s skills, if one is needed for it.' });
    const skills = h('datalist', { id: 'skills' });
    const agent = field('agent', 'Agent', { kind: 'select', options: names, value: item?.agent || 'default' });
    const fill = async () => { const list = await perhaps(api.get(path`skills/${agent.value}`)).catch(() => null); skills.replaceChildren(...(list || []).map((each) => h('option', { value: each.name }, each.description || ''))); };
    agent.input.addEventListener('change', fill);
    fill();
    const expression = field('schedule', 'When', { required: true, value: item?.expression || '0 8 * * *', list: 'presets', spellcheck: 'false', autocomplete: 'off', hint: 'minute hour day month weekday, or @daily, @hourly, @every 30m.' });
    let timer;
    const show = () => { clearTimeout(timer); timer = setTimeout(async () => {
      try {
        const { next: times } = await api.post('schedules/preview', { schedule: expression.value, n: 4 });
        expression.set('');
        next.textContent = times.length ? 'Next: ' + times.map((time) => new Date(time).toLocaleString([], { weekday: 'short', day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })).join(' · ') : 'It would never run.';
      } catch (error) { next.textContent = ''; if (error.status === 400) expression.set(error.message); }
    }, 250); };
    expression.input.addEventListener('input', show);
    show();
    const presets = h('div', { class: 'choice' }, PRESETS.map(([text, label]) => h('button', { type: 'button', class: 'btn small', onclick: () => { expression.input.value = text; show(); } }, label)));
    const channels = [['notify:*', 'All notification channels'], ...(notices?.channels || []).map((each) => ['notify:' + each.name, `Notification channel ${each.name}`]), ['holt:schedules', 'Only its chat']];
    return form([item ? null : field('name', 'Name', { required: true, hint: 'Such as morning-report.' }), item ? null : agent, prompt, skill, skills, presets, h('datalist', { id: 'presets' }, PRESETS.map(([text, label]) => h('option', { value: text }, label))), expression, next,
      field('channel', 'Tell the result to', { kind: 'select', options: channels, value: item?.channel || (notices?.channels?.length ? 'notify:*' : 'holt:schedules') }),
      field('session_mode', 'Chat', { kind: 'select', options: [['isolated', 'A new one each time'], ['shared', 'The same each time, so it remembers']], value: item?.session_mode || 'isolated' }),
      field('session_tier', 'Rights', { kind: 'select', options: [['', 'Those of the agent'], ['restricted', 'No tools'], ['supervised', 'Asks before it uses a tool'], ['autonomous', 'Uses tools without asking']], value: item?.session_tier || '' }),
      field('tags', 'Tags', { kind: 'list', rows: 2, value: item?.tags, optional: true, hint: 'One a line.' }),
      field('enabled', 'It is on', { kind: 'checkbox', value: item ? item.enabled : true })].filter(Boolean),
    { submit: item ? 'Save' : 'Add', cancel: () => close(), work: async (values) => {
      if (!values.session_tier && !item) delete values.session_tier;
      await (item ? api.patch(path`schedules/${item.name}`, values) : api.post('schedules', values));
      close(true);
    } });
  }, { wide: true });
  if (sent) { toast(item ? 'Saved.' : 'Added.'); refresh(); }
}
