// Tools: servers whose tools agents may use; how they are, what they offer, add, change, connect an account. Plugins.
import { h } from './dom.js';
import { api, path } from './api.js';
import { dateTime, duration, number, plural, size, when } from './format.js';
import { action, ask, choice, confirm, dialog, empty, facts, field, form, link, live, perhaps, section, table, tag, toast } from './ui.js';

const STATES = { connected: 'works', error: 'failed', disabled: 'off', pending_auth: 'needs a login' };

export default function show(page) {
  if (page.args[0]) { one(page, page.args[0]); return; }
  page.actions(action('Add a tool', () => edit(null, list.refresh), { kind: 'primary small', icon: 'plus' }));
  let profiles; // asked for only where there is a browser
  const list = live(page, () => api.get('tools'), ({ tools, browser }, refresh) => {
    if (browser && !profiles) page.el.append((profiles = browserProfiles(page)).el);
    return tools.length ? h('ul', { class: 'cards' }, tools.map((tool) => h('li', null, h('a', { class: 'card-link', href: '#/tools/' + encodeURIComponent(tool.name) },
    h('div', { class: 'card-head' }, h('span', { class: 'state', 'data-state': tool.status }), h('strong', null, tool.name), h('span', { class: 'soft' }, STATES[tool.status] || tool.status)),
    h('p', { class: 'soft' }, tool.command || tool.url || ''), tool.last_error ? h('p', { class: 'problem' }, tool.last_error) : null, h('p', null, plural(tool.tool_names?.length || 0, 'tool')))))
    ) : empty('No tool servers', 'Agents have built-in tools. More come from MCP servers: a program on this machine, or an address.', action('Add a tool', () => edit(null, refresh), { kind: 'primary', icon: 'plus' }));
  }, { every: 8000 });
  const plugins = live(page, () => perhaps(api.get('plugins')), (found, refresh) => (found ? section('Plugins',
    found.plugins.length ? table('Plugins', [['Name', (each) => h('strong', null, each.name)], ['Kind', (each) => (each.type === 'docker' ? 'container' : 'program')], ['Runs', (each) => h('code', null, each.image || each.command)], ['State', (each) => tag(STATES[each.status] || each.status, each.status === 'connected' ? '' : each.status === 'error' ? 'failed' : 'plain')], ['Tools', (each) => (each.tool_names || []).join(', ')],
      ['', (each) => action('Remove', async () => { if (await confirm('Remove this plugin?', each.name, 'Remove', () => api.del(path`plugins/${each.name}`))) { toast('Removed.'); refresh(); } }, { kind: 'small' }), 'end']], found.plugins) : h('p', { class: 'soft' }, 'There are none. A plugin is a tool server that comes as one file, or as a container.'),
    action('Add a plugin', () => addPlugin(refresh), { icon: 'plus' })) : []), { every: 20000 });
  page.el.append(list.el, plugins.el);
}

function browserProfiles(page) {
  return live(page, () => perhaps(api.get('browser/profiles')), (found, refresh) => (found?.profiles.length ? section('Browser profiles', table('Browser profiles', [['Agent', (each) => each.agent], ['Sites', (each) => (each.domains || []).join(', ') || number(each.domain_count)], ['Size', (each) => size(each.size_bytes)], ['Last used', (each) => when(each.last_used)],
    ['', (each) => action('Delete', async () => { if (await confirm('Delete this profile?', `${each.agent} is logged out everywhere, and its browser forgets all.`, 'Delete', () => api.del(path`browser/profiles/${each.agent}`))) refresh(); }, { kind: 'small' }), 'end']], found.profiles)) : []));
}

function one(page, name) {
  const at = path`tools/${name}`;
  page.back('#/tools', 'All tools');
  page.title(name);
  let before;
  const head = live(page, () => api.get(at), (tool, refresh) => {
    // What it offers and writes is another when it came or went, by itself too.
    if (before && before !== tool.status) { defs.refresh(); log.refresh(); }
    before = tool.status;
    const off = tool.status === 'disabled';
    const did = (what, text) => async () => { await api.post(`${at}/${what}`); toast(text); await refresh(); defs.refresh(); log.refresh(); };
    return [h('div', { class: 'panel' }, h('div', { class: 'card-head' }, h('span', { class: 'state', 'data-state': tool.status }), h('strong', null, STATES[tool.status] || tool.status)),
      tool.last_error ? h('pre', { class: 'args', tabindex: '0', 'aria-label': 'Last error' }, tool.last_error) : null,
      facts([['Kind', tool.url ? 'an address' : 'a program here'], ['Command', tool.command && [tool.command, ...tool.args || []].join(' ')], ['Address', tool.url], ['Running for', tool.uptime_secs > 0 && duration(tool.uptime_secs)], ['Restarts', tool.restart_count || null], ['Limit of a request', tool.request_timeout_secs ? tool.request_timeout_secs + ' s' : null]]),
      h('div', { class: 'ask-row' },
        off ? action('Switch on', did('enable', 'Switched on.'), { kind: 'primary' }) : [action('Restart', did('restart', 'Restarted.'), { icon: 'again' }), action('Switch off', did('disable', 'Switched off.'))],
        action('Change', () => edit(tool, () => { refresh(); defs.refresh(); }), { icon: 'edit' }),
        action('Remove', async () => { if (await confirm('Remove this tool?', `Agents lose what ${name} offers, and its settings are deleted.`, 'Remove', () => api.del(at))) { toast('Removed.'); location.hash = '#/tools'; } }))),
    tool.auth_type === 'oauth' ? account(tool, at, refresh) : null];
  }, { every: 6000 });
  const defs = live(page, () => api.get(at + '/defs'), ({ tools }, refresh) => section('What it offers', tools.length ? h('ul', { class: 'stack' }, tools.map((each) => h('li', { class: 'panel' },
    h('div', { class: 'card-head' }, h('code', null, each.name), each.disabled ? tag('off', 'plain') : null), h('p', { class: 'pre', dir: 'auto' }, each.description),
    parameters(each.parameters), h('div', null, action(each.disabled ? 'Offer it to agents' : 'Do not offer it', async () => {
      const off = tools.filter((tool) => (tool.name === each.name ? !each.disabled : tool.disabled)).map((tool) => tool.name);
      await api.put(at + '/disabled-tools', { disabled_tools: off });
      await refresh();
    }, { kind: 'small', 'data-k': each.name }))))) : h('p', { class: 'soft' }, 'Nothing is known of its tools until it works.')));
  const log = live(page, () => perhaps(api.get(at + '/logs')), (found) => (found ? section('Log', found.lines.length
    ? h('pre', { class: 'args log', tabindex: '0', 'aria-label': 'Log' }, found.lines.map((line) => h('span', { title: dateTime(line.at) }, line.text + '\n')))
    : h('p', { class: 'soft' }, 'It has written nothing. What a program writes on standard error is shown here.')) : []), { every: 10000 });
  page.el.append(head.el, defs.el, log.el);
}

function parameters(schema) {
  const rows = Object.entries(schema?.properties || {});
  return rows.length ? h('details', null, h('summary', null, plural(rows.length, 'parameter')), table('Parameters', [['Name', ([name]) => [h('code', null, name), (schema.required || []).includes(name) ? ' (needed)' : '']], ['Type', ([, about]) => (about.enum ? about.enum.join(', ') : String(about.type || ''))], ['What', ([, about]) => about.description || '']], rows)) : null;
}

// --- a login at the tool's own service ---------------------------------------------------------------------------------

function account(tool, at, refresh) {
  const state = tool.oauth_status || {};
  return section('Account', h('p', null, !state.has_token ? 'Not connected: it needs a login at its service.' : state.needs_reauth ? 'The login has ended: connect again.' : 'Connected.'), h('div', { class: 'ask-row' },
    action(state.has_token ? 'Connect again' : 'Connect', () => connect(tool.name, at, refresh), { kind: state.has_token && !state.needs_reauth ? '' : 'primary' }),
    state.has_token ? action('Disconnect', async () => { if (await confirm('Disconnect the account?', 'Holt forgets the token.', 'Disconnect', () => api.del(at + '/oauth/token'))) { toast('Disconnected.'); refresh(); } }) : null));
}

async function connect(name, at, refresh) {
  const { auth_url: url } = await api.post(at + '/oauth/connect');
  if (!/^https?:/.test(url)) throw new Error('The service gave no address for the login.');
  await dialog(`Connect ${name}`, (close) => {
    const state = h('p', { class: 'wait', role: 'status' }, h('i'), h('i'), h('i'), h('span', null, 'Waiting for the login'));
    const timer = setInterval(async () => {
      if (!state.isConnected) { clearInterval(timer); return; }
      const now = await api.get(at + '/oauth').catch(() => ({}));
      if (now.has_token && !now.needs_reauth) { clearInterval(timer); toast('Connected.'); close(true); }
    }, 2000);
    return [h('p', null, 'Log in at the service; it leads back to Holt.'), link('Open the login', url, { kind: 'primary', target: '_blank', rel: 'noopener noreferrer' }), h('p', { class: 'hint' }, new URL(url).host), state];
  });
  refresh();
}

// --- forms -------------------------------------------------------------------------------------------------------------

const lines = (map) => Object.entries(map || {}).map(([name, value]) => `${name}=${value}`);
const map = (list) => Object.fromEntries(list.map((line) => line.split(/=(.*)/s).slice(0, 2).map((part) => part.trim())));
const pairs = (list) => (list.every((line) => line.includes('=')) ? '' : 'Each line needs a name, = and a value.');

function edit(tool, refresh) {
  return dialog(tool ? `Change ${tool.name}` : 'Add a tool', (close) => {
    const remote = tool ? /^sse/.test(tool.transport) || !!tool.url : false;
    const name = field('name', 'Name', { required: true, hint: 'Letters, digits, - and _.' });
    const local = [field('command', 'Program', { required: true, value: tool?.command, hint: 'As in a terminal, such as npx or /usr/bin/server.' }), field('args', 'Arguments', { kind: 'list', value: tool?.args, hint: 'One a line.', optional: true }),
      field('env', 'Environment', { kind: 'list', value: lines(tool?.env), check: pairs, hint: 'NAME=value, one a line.', optional: true })];
    const far = [field('url', 'Address', { kind: 'url', required: true, value: tool?.url, hint: 'Of an MCP server, beginning with https://' }), field('headers', 'Headers', { kind: 'list', value: lines(tool?.headers), check: pairs, hint: 'Name=value, one a line.', optional: true }),
      field('auth', 'Login', { kind: 'select', options: [['', 'None, or by a header'], ['oauth', 'OAuth: I log in at its service']], value: tool?.auth || '' }), field('client_id', 'OAuth client id', { value: tool?.client_id, optional: true, hint: 'Only when the service gave you one.' }),
      field('client_secret', 'OAuth client secret', { kind: 'password', optional: true, autocomplete: 'off' }), field('scopes', 'OAuth scopes', { kind: 'list', value: tool?.scopes, optional: true }), field('allow_loopback', 'It runs on this very machine', { kind: 'checkbox', value: tool?.allow_loopback })];
    const last = field('request_timeout_secs', 'Seconds for one request', { kind: 'number', value: tool?.request_timeout_secs ?? 0, hint: '0: the usual.' });
    const box = h('div', null);
    const draw = (kind) => {
      const mine = kind === 'sse' ? far : local;
      box.replaceChildren(form([tool ? null : name, ...mine, last].filter(Boolean), { submit: tool ? 'Save' : 'Add', cancel: () => close(), work: async (values) => {
        for (const key of ['env', 'headers']) if (values[key]) values[key] = map(values[key]);
        const body = { ...values, transport: kind };
        await (tool ? api.put(path`tools/${tool.name}`, body) : api.post('tools', body));
        close(true);
        toast(tool ? 'Saved.' : 'Added.');
        refresh();
        if (!tool && values.auth === 'oauth') location.hash = '#/tools/' + encodeURIComponent(values.name);
      } }));
    };
    draw(remote ? 'sse' : 'stdio');
    return [choice('Where', [['stdio', 'A program here'], ['sse', 'An address']], remote ? 'sse' : 'stdio', draw), box];
  }, { wide: true });
}

async function addPlugin(refresh) {
  const done = await ask('Add a plugin', [field('name', 'Name', { required: true }), field('type', 'Kind', { kind: 'select', options: [['subprocess', 'A program'], ['docker', 'A container']] }), field('command', 'Program', { optional: true, hint: 'For a program.' }), field('image', 'Image', { optional: true, hint: 'For a container.' }),
    field('args', 'Arguments', { kind: 'list', optional: true }), field('env', 'Environment', { kind: 'list', check: pairs, optional: true })],
  { submit: 'Add', work: (values) => api.post('plugins', { ...values, env: map(values.env), capabilities: ['tools'] }) });
  if (done) { toast('Added.'); refresh(); }
}
