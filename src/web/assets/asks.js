// What an agent asks permission for: a sentence, who asks and for how long, the exact arguments.
import { h } from './dom.js';
import { api, path } from './api.js';
import { pretty, when } from './format.js';

const CUT = 200;

// Built-in tools: no server can take their names. `{x}` stands for an argument; without the first one the name is said.
const SAYS = {
  kv_set: 'Remember under “{key}”: {value}',
  kv_set_nx: 'Remember under “{key}”, if nothing is there: {value}',
  kv_delete: 'Forget what is stored under “{key}”',
  web_fetch: 'Read the page {url}',
  web_search: 'Search the web for “{query}”',
  schedule_add: 'Add the schedule “{name}”, {schedule}: {prompt}',
  schedule_update: 'Change the schedule “{name}”',
  schedule_delete: 'Delete the schedule “{name}”',
  tool_add: 'Add the tool server “{name}” for all agents: {command}{url}',
  tool_remove: 'Remove the tool server “{name}”',
  tool_restart: 'Restart the tool server “{name}”',
  plugin_add: 'Add the plugin “{name}” for all agents',
  plugin_remove: 'Remove the plugin “{name}”',
  skill_create: 'Write itself a new skill, “{name}”',
  skill_update: 'Change its skill “{name}”',
  persona_update: 'Rewrite its “{section}”: {content}',
};

// What a call would do, in plain words. `args`: its arguments as JSON.
export function wish(tool, args, server) {
  let values = {};
  try { values = JSON.parse(args) || {}; } catch { /* cut off: only the name is said */ }
  const parts = (!server && Object.hasOwn(SAYS, tool) ? SAYS[tool] : '').split(/\{(\w+)\}/);
  if (values[parts[1]] == null) return ['Run ', h('code', null, tool), server && [' of the tool server ', h('code', null, server)]].flat().filter(Boolean);
  return parts.map((part, i) => {
    if (i % 2 === 0) return part;
    const value = values[part] ?? '';
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    return h('bdi', null, text.length > CUT ? text.slice(0, CUT) + '…' : text);
  });
}

const known = new Map();
const defs = (server) => {
  if (!known.has(server)) known.set(server, api.get(path`tools/${server}/defs`).then((found) => found.tools, () => []));
  return known.get(server);
};

// What its server says about a tool: its own words.
function described({ server, tool }) {
  const el = h('p', { class: 'soft', dir: 'auto', hidden: true });
  if (server) {
    defs(server).then((tools) => {
      const text = tools.find(({ name }) => tool === name || tool.endsWith('__' + name))?.description;
      el.hidden = !text;
      el.textContent = `${server} says of it: ${text}`;
    });
  }
  return el;
}

// One request: `each` is a row of `GET approvals`, or as much of it as is known.
export function request(each, kind = 'p', ...more) {
  return [h(kind, { class: 'says', dir: 'auto' }, each.tool ? wish(each.tool, each.payload, each.server) : each.summary),
    h('p', { class: 'soft' }, each.agent_name && ['Agent ', h('bdi', null, each.agent_name), ' asked ', when(each.created_at)], each.status === 'pending' && each.expires_at ? [' · runs out ', when(each.expires_at)] : null, more),
    described(each), each.payload && h('pre', { class: 'args', tabindex: '0', 'aria-label': 'Arguments' }, pretty(each.payload))].filter(Boolean);
}

// Buttons that say what they do; `make(label, action, kind)` makes one.
export const choices = (tool, make) => [make('Allow once', 'approve', 'primary'), make('Deny', 'deny', ''),
  ...(tool ? [make(`Allow ${tool} for 15 min in this chat`, 'auto_session', 'quiet'), make(`Always allow ${tool}`, 'auto_always', 'quiet')] : [])];
