// Approvals: what agents ask for, with the exact arguments; what was decided; the rules that decide by themselves.
import { h } from './dom.js';
import { api, path } from './api.js';
import { choices, request } from './asks.js';
import { when } from './format.js';
import { action, ask, choice, confirm, empty, facts, field, live, section, table, tag, toast } from './ui.js';

export default function show(page) {
  let status = 'pending';
  page.el.append(choice('Which', [['pending', 'Waiting'], ['approved', 'Approved'], ['denied', 'Denied'], ['expired', 'Expired']], status, (value) => { status = value; list.refresh(); }));
  const list = live(page, async () => [status, await api.get('approvals?status=' + status)], ([shown, items], refresh) => {
    if (items.length) return h('ul', { class: 'stack' }, items.slice(0, 100).map((each) => h('li', { class: 'panel' }, card(each, page, refresh))));
    return shown === 'pending' ? empty('Nothing waits for you', 'When a supervised agent wants to use a tool, it asks here and in its chat.') : empty('Nothing here', `No request was ${shown} lately.`);
  }, { every: 4000 });
  const rules = live(page, () => api.get('auto-approve'), (all, refresh) => section('Rules', h('p', { class: 'soft' }, 'What a rule names is approved without asking.'),
    all?.length ? table('Rules', [['Agent', (rule) => rule.agent_name], ['Tool', (rule) => h('code', null, rule.tool_name)],
      ['For', (rule) => (rule.scope === 'session' ? ['this chat, until ', when(rule.expires_at)] : 'always')],
      ['', (rule) => (rule.id ? action('Remove', () => remove(rule, refresh), { kind: 'small' }) : null), 'end']], all) : h('p', null, 'There are none: agents always ask.'),
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
