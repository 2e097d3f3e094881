// Schedules: what runs when, drawn over the time to come; change, run now, what became of the last runs.
import { h } from './dom.js';
import { api, path } from './api.js';
import { dateTime, duration, money, number, when } from './format.js';
import { moments } from './plot.js';
import { action, confirm, dialog, empty, facts, field, form, live, perhaps, section, table, tag, toast } from './ui.js';

const DAY = 86400e3;
const STATES = { wanted: 'begins', started: 'runs', ok: 'done', failed: 'failed', missed: 'missed', skipped: 'left out' };
const KINDS = { started: 'live', failed: 'failed', missed: 'warning', skipped: 'plain' };
const CAUSES = { late: 'caught up', manual: 'by hand' };
const MINE = Intl.DateTimeFormat().resolvedOptions().timeZone;

// --- expressions in plain words ----------------------------------------------------------------------------------------

const HOWS = [['day', 'Every day'], ['work', 'Monday to Friday'], ['week', 'Once a week'], ['month', 'Once a month'], ['hour', 'Every hour'], ['minutes', 'Every few minutes'], ['once', 'Once'], ['own', 'As an expression']];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const two = (number) => String(number).padStart(2, '0');

// What it says, as far as it is one of those.
function read(text = '') {
  const found = (pattern) => pattern.exec({ '@hourly': '0 * * * *', '@daily': '0 0 * * *', '@midnight': '0 0 * * *', '@weekly': '0 0 * * 0', '@monthly': '0 0 1 * *' }[text] || text);
  let at = found(/^@every (\d+)m$/) || found(/^\*\/(\d+) \* \* \* \*$/);
  if (at) return { how: 'minutes', n: at[1] };
  at = found(/^@at (\S+)[ T](\d\d:\d\d)/);
  if (at) return { how: 'once', at: at[1] + 'T' + at[2] };
  at = found(/^(\d+) \* \* \* \*$/);
  if (at) return { how: 'hour', minute: at[1] };
  at = found(/^(\d+) (\d+) (\*|\d+) \* (\*|1-5|[0-7])$/);
  if (!at || at[3] !== '*' && at[4] !== '*') return { how: 'own' };
  return { how: at[3] !== '*' ? 'month' : at[4] === '*' ? 'day' : at[4] === '1-5' ? 'work' : 'week', time: two(at[2]) + ':' + two(at[1]), day: at[3], weekday: /^\d$/.test(at[4]) ? at[4] % 7 : undefined };
}

function inWords(text) {
  const { how, time, day, weekday, minute, n, at } = read(text);
  return { day: `every day at ${time}`, work: `Monday to Friday at ${time}`, week: `every ${DAYS[weekday]} at ${time}`, month: `on day ${day} of the month at ${time}`, hour: +minute ? `${minute} min past every hour` : 'every hour', minutes: `every ${n} min`, once: `once, ${at && dateTime(at)}` }[how] || text;
}

// What is wrong with one.
function wrongWith(text) {
  const out = /(\S+) field .*\[(\d+), (\d+)\]/.exec(text);
  const said = out ? `${out[1]} must be ${out[2]} to ${out[3]}, as in 0 7 * * * for 7:00` : /5 fields/.test(text) ? 'It needs minute, hour, day, month and weekday, as in 0 7 * * 1-5' : text.replace(/^invalid schedule expression: /i, '');
  return said[0].toUpperCase() + said.slice(1);
}

// The field for it, made of several. `changed()`: somebody typed.
function timing(given, changed) {
  const now = read(given || '0 8 * * *');
  const how = field('how', 'When', { kind: 'select', options: HOWS, value: now.how });
  const time = field('time', 'At', { kind: 'time', required: true, value: now.time || '08:00' });
  const weekday = field('weekday', 'On', { kind: 'select', options: DAYS.map((name, i) => [String(i), name]), value: String(now.weekday ?? 1) });
  const day = field('day', 'On day', { kind: 'number', required: true, value: now.how === 'month' ? now.day : 1 });
  const minute = field('minute', 'Minutes past the hour', { kind: 'number', required: true, value: now.minute || 0 });
  const n = field('n', 'Minutes between', { kind: 'number', required: true, value: now.n || 15 });
  const at = field('at', 'On', { kind: 'datetime-local', required: true, value: now.at || new Date(Date.now() + DAY).toLocaleDateString('sv') + 'T08:00' });
  const own = field('schedule', 'Expression', { required: true, value: given, spellcheck: 'false', autocomplete: 'off', hint: 'minute hour day month weekday; or @daily, @every 90m, @at 2026-12-24 18:00.' });
  const parts = { day: [time], work: [time], week: [time, weekday], month: [time, day], hour: [minute], minutes: [n], once: [at], own: [own] };
  const box = h('div', { class: 'parts' });
  const draw = () => box.replaceChildren(how.el, ...parts[how.value].map((part) => part.el));
  const expression = () => {
    const [hour, min] = time.value.split(':').map(Number);
    return { day: `${min} ${hour} * * *`, work: `${min} ${hour} * * 1-5`, week: `${min} ${hour} * * ${weekday.value}`, month: `${min} ${hour} ${day.value} * *`, hour: `${minute.value} * * * *`,
      minutes: 60 % n.value === 0 ? `*/${n.value} * * * *` : `@every ${n.value}m`, once: '@at ' + at.value.replace('T', ' '), own: own.value }[how.value];
  };
  let value = given;
  box.addEventListener('input', (event) => {
    if (event.target === how.input) {
      // What was built is where somebody begins who wants to write it.
      if (how.value === 'own') own.input.value = value;
      draw();
    }
    value = expression();
    changed();
  });
  if (!given) value = expression();
  draw();
  const last = () => parts[how.value].at(-1);
  const wrong = () => parts[how.value].map((part) => { const text = part.wrong(); part.set(text); return text; }).find(Boolean) || '';
  return { el: box, name: 'schedule', wrong, get input() { return parts[how.value].find((part) => part.wrong())?.input || last().input; }, get value() { return value; }, set: (text) => { if (!wrong()) last().set(text && wrongWith(text)); } };
}

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

// The next runs of a schedule: asked once for each, again when it changed or the first has passed.
const known = new Map();
async function coming(item) {
  const key = [item.expression, item.timezone, item.next_run].join();
  const old = known.get(item.name);
  if (old?.key === key) return old.times;
  const next = await api.post('schedules/preview', { schedule: item.expression, timezone: item.timezone || '', n: 12 }).then((answer) => answer.next, () => null);
  const first = Date.parse(item.next_run);
  // Intervals count from when it began, not from now.
  let times = (next || []).map((time) => Date.parse(time) - Date.parse(next[0]) + first).filter((time) => time >= first);
  if (!times.length && first) times = [first];
  if (next) known.set(item.name, { key, times });
  return times;
}

// From an hour to a year: as far as shows the next three.
const span = (times) => [3600e3, 6 * 3600e3, DAY, 7 * DAY, 31 * DAY].find((length) => Date.now() + length > times[Math.min(times.length, 3) - 1]) || 366 * DAY;

function drawn(item, times) {
  return times.length ? moments(`Next runs of ${item.name}: ${times.slice(0, 5).map((time) => dateTime(time)).join('; ')}`, times, Date.now() + span(times)) : null;
}

function card(item, refresh) {
  return [h('div', { class: 'card-head' }, h('span', { class: 'state', 'data-state': item.enabled ? 'on' : 'off' }), h('a', { href: '#/schedules/' + encodeURIComponent(item.name) }, h('strong', { dir: 'auto' }, item.name)), h('span', null, inWords(item.expression)), item.timezone ? h('span', { class: 'soft' }, item.timezone) : null, item.enabled ? null : tag('off', 'plain'), item.running ? tag('runs', 'live') : null, item.last_state === 'failed' || item.last_state === 'missed' ? tag('last: ' + STATES[item.last_state], KINDS[item.last_state]) : null, (item.tags || []).map((each) => tag(each, 'plain'))),
    h('p', { class: 'soft' }, item.agent ? `${item.agent} · ` : null, item.skill ? `skill ${item.skill} · ` : null, 'last ', when(item.last_run), item.last_state === 'ok' ? ': done' : null, item.last_conversation_id ? [' · ', h('a', { href: '#/chat/' + encodeURIComponent(item.last_conversation_id) }, 'its chat')] : null, item.enabled ? [' · next ', when(item.next_run, 'never')] : null),
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
  }, (item, refresh) => [h('div', { class: 'panel' }, card(item, refresh)), section('About', facts([['Expression', item.expression], ['Time zone', item.timezone], ['Type', item.type], ['Agent', item.agent], ['What to do', item.prompt], ['Skill', item.skill], ['Channel', item.channel], ['Chat', item.session_mode === 'shared' ? 'the same each time' : 'a new one each time'], ['Rights', item.session_tier]])),
    item.next.length ? section('Next runs', h('ul', { class: 'rows' }, item.next.slice(0, 6).map((time) => h('li', null, h('span', { class: 'grow' }, dateTime(time)), when(time))))) : null], { every: 15000 });
  const runs = live(page, () => api.get(path`schedules/${name}/runs`), (rows) => section('Runs', rows.length ? table('Runs', [['For', (run) => h('span', { class: 'nowrap' }, dateTime(run.scheduled_at), run.moments > 1 ? ` and ${run.moments - 1} more` : null)], ['Result', (run) => tag(STATES[run.state] || run.state, KINDS[run.state])],
    ['Why', (run) => [CAUSES[run.trigger], run.reason].filter(Boolean).join(': ')], ['Took', (run) => (run.started_at && run.finished_at ? duration((Date.parse(run.finished_at) - Date.parse(run.started_at)) / 1000) : '')],
    ['Tokens', (run) => (run.tokens ? number(run.tokens) : ''), 'end'], ['Cost', (run) => (run.cost_usd ? money(run.cost_usd) : ''), 'end'], ['', (run) => (run.conversation_id ? h('a', { href: '#/chat/' + encodeURIComponent(run.conversation_id) }, 'Chat') : null), 'end']], rows)
    : h('p', { class: 'soft' }, 'It has not run yet.')), { every: 8000 });
  page.el.append(head.el, runs.el);
}

// --- the form ----------------------------------------------------------------------------------------------------------

async function edit(item, refresh) {
  const [agents, notices, server] = await Promise.all([api.agents().catch(() => []), ...['notifications', 'server/config'].map((where) => api.get(where).catch(() => null))]);
  const hub = server?.timezone;
  const names = agents.filter((agent) => agent.online === undefined).map((agent) => [agent.name, agent.display_name || agent.name]);
  const sent = await dialog(item ? `Edit ${item.name}` : 'Add a schedule', (close) => {
    const next = h('p', { class: 'field hint', role: 'status' });
    const prompt = field('prompt', 'What to do', { kind: 'textarea', rows: 3, value: item?.prompt, hint: 'What the agent is asked each time, such as: Is this machine all right?' });
    const skill = field('skill', 'Skill', { value: item?.skill, optional: true, list: 'skills', hint: 'The name of one of the agent’s skills, if one is needed for it.' });
    const skills = h('datalist', { id: 'skills' });
    const agent = field('agent', 'Agent', { kind: 'select', options: names, value: item?.agent || 'default' });
    const fill = async () => { const list = await perhaps(api.get(path`skills/${agent.value}`)).catch(() => null); skills.replaceChildren(...(list || []).map((each) => h('option', { value: each.name }, each.description || ''))); };
    agent.input.addEventListener('change', fill);
    fill();
    const zone = field('timezone', 'Time zone', { optional: true, value: item ? item.timezone : MINE === hub ? '' : MINE, list: 'zones', hint: hub && `Empty: ${hub}, as the hub.` });
    let timer;
    const show = () => { clearTimeout(timer); timer = setTimeout(async () => {
      next.textContent = '';
      if (expression.wrong()) return;
      try {
        const { next: times } = await api.post('schedules/preview', { schedule: expression.value, timezone: zone.value, n: 4 });
        expression.set('');
        const timeZone = zone.value || hub;
        next.textContent = times.length ? 'Next: ' + times.map((time) => new Date(time).toLocaleString([], { weekday: 'short', day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', timeZone })).join(' · ') + (!timeZone || timeZone === MINE ? '' : ` (${timeZone})`) : 'It would never run: that time is over, or there is no such day.';
      } catch (error) { if (error.status === 400) (/^timezone/.test(error.message) ? zone : expression).set(error.message); }
    }, 250); };
    const expression = timing(item?.expression, show);
    zone.input.addEventListener('input', show);
    show();
    const channels = [['notify:*', 'All notification channels'], ...(notices?.channels || []).map((each) => ['notify:' + each.name, `Notification channel ${each.name}`]), ['holt:schedules', 'Only its chat']];
    return form([item ? null : field('name', 'Name', { required: true, hint: 'Such as morning-report.' }), prompt, expression, zone, next, h('datalist', { id: 'zones' }, Intl.supportedValuesOf('timeZone').map((name) => h('option', { value: name }))), item ? null : agent, skill, skills,
      field('channel', 'Tell the result to', { kind: 'select', options: channels, value: item?.channel || (notices?.channels?.length ? 'notify:*' : 'holt:schedules') }),
      field('session_mode', 'Chat', { kind: 'select', options: [['isolated', 'A new one each time'], ['shared', 'The same each time, so it remembers']], value: item?.session_mode || 'isolated' }),
      field('session_tier', 'Rights', { kind: 'select', options: [['', 'Those of the agent'], ['restricted', 'No tools'], ['supervised', 'Asks before it uses a tool'], ['autonomous', 'Uses tools without asking']], value: item?.session_tier || '' }),
      field('tags', 'Tags', { kind: 'list', rows: 2, value: item?.tags, optional: true, hint: 'One a line.' }),
      field('enabled', 'It is on', { kind: 'checkbox', value: item ? item.enabled : true })].filter(Boolean),
    { submit: item ? 'Save' : 'Add', cancel: () => close(), work: async (values) => {
      if (!values.prompt && !values.skill) throw new Error('Say what to do, or name a skill.');
      if (!values.session_tier && !item) delete values.session_tier;
      await (item ? api.patch(path`schedules/${item.name}`, values) : api.post('schedules', values));
      close(true);
    } });
  }, { wide: true });
  if (sent) { toast(item ? 'Saved.' : 'Added.'); refresh(); }
}
