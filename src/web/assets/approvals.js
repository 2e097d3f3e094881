// Approvals: what agents ask for, with the exact arguments; what was decided; the rules that decide by themselves.
import { h } from './dom.js';
import { api, path } from './api.js';
import { pretty, when } from './format.js';
import { action, ask, choice, confirm, empty, facts, field, link, live, section, table, tag, toast } from './ui.js';

export default function show(page) {
  let status = 'pending';
  page.el.append(choice('Which', [['pending', 'Waiting'], ['approved', 'Approved'], ['denied', 'Denied'], ['expired', 'Expired']], status, (value) => { status = value; list.refresh(); }));
  const list = live(page, async () => [status, await api.get('approvals?status=' + status)], ([shown, items], refresh) => {
    if (items.length) return h('ul', { class: 'stack' }, items.slice(0, 100).map((each) => h('li', { class: 'panel' }, card(each, page, () => { rules.refresh(); return refresh(); }))));
    return shown === 'pending' ? empty('Nothing waits for you', 'When an agent wants to do something that needs your word, it asks here and in its chat.', link('Try it', '#/chat?text=Remember that the door code is 1234')) : empty('Nothing here', `No request was ${shown} lately.`);
  }, { every: 4000 });
  const rules = live(page, () => api.get('auto-approve'), (all, refresh) => section('Rules', h('p', { class: 'soft' }, 'What a rule names is approved without asking.'),
    all?.length ? table('Rules', [['Agent', (rule) => rule.agent_name], ['Tool', (rule) => h('code', null, rule.tool_name)],
      ['For', (rule) => (rule.scope === 'session' ? ['this chat, until ', when(rule.expires_at)] : 'always')],
      ['', (rule) => (rule.id ? action('Remove', () => remove(rule, refresh), { kind: 'small' }) : null), 'end']], all) : h('p', null, 'There are none: agents ask before they change anything.'),
    action('Add a rule', () => add(refresh), { icon: 'plus' })), { every: 30000 });
  page.el.append(list.el, rules.el);
}

function card(each, page, refresh) {
  const decide = (label, what, kind) => action(label, async () => {
    try { await api.decide(each.id, what); } catch (error) {
      if (error.status !== 409) throw error;
      toast('Somebody has decided this already.');
    }
    page.shell.count();
    await refresh();
  }, { kind, 'data-k': `${each.id} ${what}` });
  const chat = each.conversation_id;
  return [...request(each, 'h2', chat ? [' · ', h('a', { href: '#/chat/' + encodeURIComponent(chat) }, 'Open the chat')] : null),
    each.status === 'pending' ? h('div', { class: 'ask-row' }, choices(each.kind === 'tool_call' && each.tool, decide))
      : facts([['Result', tag(each.status, each.status)], ['When', each.resolved_at && when(each.resolved_at)], ['By', each.decided_by || each.resolved_by], ['Note', each.note]])];
}

async function remove(rule, refresh) {
  if (await confirm('Remove this rule?', `${rule.agent_name} will ask again before it uses ${rule.tool_name}.`, 'Remove', () => api.del(path`auto-approve/${rule.id}`))) { toast('Removed.'); refresh(); }
}

async function add(refresh) {
  const agents = await api.agents();
  const names = agents.filter((agent) => agent.online === undefined).map((agent) => [agent.name, agent.display_name || agent.name]);
  const done = await ask('Always allow a tool', [field('agent', 'Agent', { kind: 'select', options: names }), field('tool', 'Tool', { required: true, hint: 'Its exact name, as in a request.' })],
    { submit: 'Allow it', intro: 'Waiting requests for the same tool are approved at once.', work: (values) => api.post('auto-approve', { ...values, scope: 'permanent' }) });
  if (done) { toast('Added.'); refresh(); }
}

// --- what is asked, here and in the chat ---------------------------------------------------------------------------------

// Built-in tools: no server can take their names. `{x}` stands for an argument; without the first one the name is said.
const SAYS = {
  __proto__: null,
  kv_set: 'Remember under “{key}”: {value}',
  kv_set_nx: 'Remember under “{key}”, if nothing is there: {value}',
  kv_delete: 'Forget what is under “{key}”',
  web_fetch: 'Read the page {url}',
  web_search: 'Search the web for “{query}”',
  schedule_add: 'Add the schedule “{name}”, {schedule}: {prompt}',
  schedule_update: 'Change the schedule “{name}”',
  schedule_delete: 'Delete the schedule “{name}”',
  tool_add: 'Add the tool server “{name}”: {command}{url}',
  tool_remove: 'Remove the tool server “{name}”',
  tool_restart: 'Restart the tool server “{name}”',
  plugin_add: 'Add the plugin “{name}”: {command}{image}',
  plugin_remove: 'Remove the plugin “{name}”',
  skill_create: 'Add the skill “{name}”',
  skill_update: 'Change the skill “{name}”',
  persona_update: 'Change its “{section}”: {content}',
};

// What a call would do, in plain words. `args`: its arguments as JSON.
export function wish(tool, args, server) {
  let values = {};
  try { values = Object(JSON.parse(args)); } catch { /* cut off: only the name is said */ }
  const parts = (!server && SAYS[tool] || '').split(/[{}]/);
  if (parts.length < 2 || !Object.hasOwn(values, parts[1]) || values[parts[1]] === null) return ['Run ', h('code', null, tool), ...(server ? [' of the tool server ', h('code', null, server)] : [])];
  return parts.map((part, i) => {
    const value = values[part] ?? '';
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    return i % 2 ? h('bdi', null, text.length > 200 ? text.slice(0, 200) + '…' : text) : part;
  });
}

// What its server says about a tool: its own words. Another server may have the name tomorrow.
const known = new Map();
function described({ server, tool }) {
  const el = h('p', { class: 'soft', dir: 'auto' });
  if (server) {
    const forget = () => { known.delete(server); return {}; };
    if (!known.has(server)) {
      known.set(server, api.get(path`tools/${server}/defs`).catch(forget));
      setTimeout(forget, 60e3);
    }
    known.get(server).then(({ tools }) => {
      const text = tools?.find(({ name }) => tool === name || tool.endsWith('__' + name))?.description;
      if (text) el.textContent = `${server} says of it: ${text}`;
    });
  }
  return el;
}

// One request: `each` is a row of `GET approvals`, or as much of it as is known.
export const request = (each, kind = 'p', ...more) => [
  h(kind, { class: 'says', dir: 'auto' }, each.tool ? wish(each.tool, each.payload, each.server) : each.summary),
  h('p', { class: 'soft' }, each.agent_name && ['Agent ', h('bdi', null, each.agent_name), ' asked ', when(each.created_at)], each.status === 'pending' && each.expires_at && [' · runs out ', when(each.expires_at)], more),
  described(each), each.payload ? h('pre', { class: 'args', tabindex: '0', 'aria-label': 'Arguments' }, pretty(each.payload)) : ''];

// Buttons that say what they do; `make(label, action, kind)` makes one.
export const choices = (tool, make) => [make('Allow once', 'approve', 'primary'), make('Deny', 'deny', ''),
  ...(tool ? [make(`Allow ${tool} for 15 min in this chat`, 'auto_session', 'quiet'), make(`Always allow ${tool}`, 'auto_always', 'quiet')] : [])];
