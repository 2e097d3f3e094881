// The key-value store of each agent: look, search, change, delete.
import { h } from './dom.js';
import { api, path, query } from './api.js';
import { dateTime, pretty, when } from './format.js';
import { action, ask, confirm, empty, field, filterBox, live, table, toast } from './ui.js';

export default function show(page) {
  const want = { agent: page.args[0] || '', prefix: '', after: [] };
  const pick = h('select', { 'aria-label': 'Agent', onchange: () => { want.agent = pick.value; want.after = []; list.refresh(); } });
  page.actions(action('Add a value', () => edit(want.agent, null, list.refresh), { kind: 'primary small', icon: 'plus' }));
  page.el.append(h('div', { class: 'tools' }, pick, filterBox('Keys that begin with', (text) => { want.prefix = text; want.after = []; list.refresh(); })));
  const list = live(page, async () => {
    if (!pick.options.length) {
      const agents = (await api.agents()).filter((agent) => agent.online === undefined);
      pick.replaceChildren(...agents.map((agent) => h('option', { value: agent.name }, agent.display_name || agent.name)));
      if (want.agent) pick.value = want.agent;
      want.agent = pick.value;
    }
    const { agent, prefix, after } = want;
    return { agent, prefix, pages: after.length, ...await api.get(path`kv/${agent}` + query({ prefix, after: after.at(-1) })) };
  }, ({ agent, prefix, pages, entries, next }, refresh) => {
    if (!entries.length) return empty(prefix ? 'No such key' : 'Nothing is stored', prefix ? `No key of ${agent} begins with “${prefix}”.` : 'Agents keep small things here between chats. You can put something there too.', action('Add a value', () => edit(agent, null, refresh), { icon: 'plus' }));
    return [table('Values', [
      ['Key', (each) => h('button', { type: 'button', class: 'link cut', onclick: () => edit(agent, each, refresh) }, each.key)],
      ['Value', (each) => h('span', { class: 'cut' }, each.value.slice(0, 120))], ['Changed', (each) => when(each.updated_at)], ['Expires', (each) => (each.expires_at ? dateTime(each.expires_at) : '')],
      ['', (each) => action('Delete', async () => {
        if (!await confirm('Delete this value?', each.key, 'Delete', () => api.del(at(agent, each.key)))) return;
        toast('Deleted.', { undo: async () => { await api.put(at(agent, each.key), { value: each.value, ttl: ttl(each.expires_at) }); refresh(); } });
        refresh();
      }, { kind: 'small', 'aria-label': `Delete ${each.key}` }), 'end']], entries),
    h('div', { class: 'tools' }, pages ? action('Back', () => { want.after.pop(); return refresh(); }) : null, next ? action('More', () => { want.after.push(next); return refresh(); }) : null)];
  }, { every: 15000 });
  page.el.append(list.el);
}

const at = (agent, key) => path`kv/${agent}/` + key.split('/').map(encodeURIComponent).join('/');
const ttl = (expires) => (expires ? `${Math.max(1, Math.round((Date.parse(expires) - Date.now()) / 1000))}s` : '');

async function edit(agent, entry, refresh) {
  const done = await ask(entry ? entry.key : 'Add a value', [
    entry ? null : field('key', 'Key', { required: true, maxlength: 256 }),
    field('value', 'Value', { kind: 'textarea', value: entry ? pretty(entry.value) : '', class: 'mono', spellcheck: 'false', rows: 10 }),
    field('ttl', 'Expires after', { optional: true, value: ttl(entry?.expires_at), hint: 'Such as 90s, 2h, 72h. Empty: never.' }),
  ].filter(Boolean), { work: ({ key, value, ...rest }) => api.put(at(agent, key || entry.key), { value, ...rest }) });
  if (done) { toast('Saved.'); refresh(); }
}
