// Agents: who answers; of each its model and rights, its persona, its skills, and what it changed about itself.
import { h } from './dom.js';
import { api, path, query } from './api.js';
import { dateTime, plural, when } from './format.js';
import { action, ask, choice, confirm, dialog, empty, facts, field, form, link, live, perhaps, section, table, tag, toast } from './ui.js';

const TIERS = [['autonomous', 'Acts by itself', 'uses its tools without asking'], ['supervised', 'Asks before it acts', 'looks at things by itself, asks you before it changes any'], ['restricted', 'Only looks', 'changes nothing']];
const RIGHTS = TIERS.map(([key, label, more]) => [key, `${label}: ${more}`]);
const rights = (tier) => TIERS.find(([key]) => key === tier)?.[1] || tier;
const PERSONA = [['identity', 'Identity', 'Its name and emoji, and who it is.'], ['soul', 'Soul', 'How it behaves and speaks.'], ['user', 'User', 'What it knows of you.'], ['memory', 'Memory', 'What it remembers. It may write here itself.']];

export default function show(page) {
  if (page.args[0]) { one(page, page.args[0]); return; }
  page.actions(action('Add an agent', () => add(list.refresh), { kind: 'primary small', icon: 'plus' }));
  const list = live(page, () => api.agents(), (agents) => [h('ul', { class: 'cards' }, agents.filter((agent) => agent.online === undefined).map((agent) => h('li', null, h('a', { class: 'card-link', href: '#/agents/' + encodeURIComponent(agent.name) },
    h('div', { class: 'card-head' }, h('strong', { dir: 'auto' }, agent.display_name || agent.name), tag(rights(agent.permission_tier), agent.permission_tier === 'autonomous' ? 'warning' : 'plain')),
    agent.description ? h('p', { dir: 'auto' }, agent.description) : null, h('p', { class: 'soft' }, [agent.provider, agent.model].filter(Boolean).join(' · ')), agent.skill_count ? h('p', { class: 'soft' }, plural(agent.skill_count, 'skill')) : null)))),
  agents.some((agent) => agent.online !== undefined) ? h('p', { class: 'soft' }, 'Machines answer too: ', h('a', { href: '#/machines' }, 'see Machines'), '.') : null], { every: 20000 });
  page.el.append(list.el);
}

async function add(refresh) {
  const done = await ask('Add an agent', [field('name', 'Name', { required: true, hint: 'Small letters, digits and -.' }), field('description', 'What it is for', { optional: true }), field('session_tier', 'Rights', { kind: 'select', options: RIGHTS, value: 'supervised' }), field('llm_model', 'Model', { optional: true, hint: 'Empty: the default.' })],
    { submit: 'Add', work: (values) => api.post('agents', Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ''))) });
  if (done) { toast('Added.'); refresh(); }
}

function one(page, name) {
  const at = path`agents/${name}`;
  page.back('#/agents', 'All agents');
  page.title(name);
  const place = h('div', { class: 'live-part' });
  const tabs = { about: () => about(page, at, name), persona: () => persona(page, at, name), skills: () => skills(page, name), journal: () => journal(page, name) };
  const open = page.args[1] in tabs ? page.args[1] : 'about';
  const draw = (key) => { place.replaceChildren(...[tabs[key]()].flat()); history.replaceState(null, '', `#/agents/${encodeURIComponent(name)}${key === 'about' ? '' : '/' + key}`); };
  page.el.append(choice('What', [['about', 'About'], ['persona', 'Persona'], ['skills', 'Skills'], ['journal', 'Journal']], open, draw), place);
  draw(open);
}

// --- model and rights --------------------------------------------------------------------------------------------------

function about(page, at, name) {
  return live(page, () => api.get(at), (agent, refresh) => {
    page.title(agent.display_name || agent.name);
    const save = async (body, text) => { await api.patch(at, body); toast(text); await refresh(); };
    return [h('div', { class: 'panel' }, agent.description ? h('p', { dir: 'auto' }, agent.description) : null,
      facts([['Rights', RIGHTS.find(([key]) => key === agent.permission_tier)?.[1]], ['Model', agent.model], ['Provider', agent.provider], ['Channels', (agent.adapters || []).join(', ')], ['Files', agent.persona_dir]]),
      h('div', { class: 'ask-row' }, link('Chat', '#/chat?agent=' + encodeURIComponent(agent.name), { kind: 'primary', icon: 'chat' }), action('Change', () => change(agent, save), { icon: 'edit' }),
        name === 'default' ? null : action('Delete', async () => { if (await confirm('Delete this agent?', `${agent.display_name || name} answers no more. Its chats and files stay.`, 'Delete', () => api.del(at))) { toast('Deleted.'); location.hash = '#/agents'; } }))),
    section('When the model fails', agent.fallbacks.length ? table('Fallbacks', [['When', (rule) => WHEN[rule.trigger] + (rule.threshold ? ` $${rule.threshold}` : '')], ['Then', (rule) => THEN[rule.action]], ['With', (rule) => [rule.provider, rule.model, rule.max_retries && plural(rule.max_retries, 'try', 'tries'), rule.backoff].filter(Boolean).join(', ')],
      ['', (rule) => action('Remove', () => save({ fallbacks: agent.fallbacks.filter((each) => each !== rule) }, 'Removed.'), { kind: 'small' }), 'end']], agent.fallbacks) : h('p', { class: 'soft' }, 'The failure is told; nothing else is tried.'),
    action('Add a rule', () => fallback(agent, save), { icon: 'plus' })),
    section('Its tools', agent.tool_names?.length ? h('p', { class: 'labels' }, agent.tool_names.map((tool) => h('code', { class: 'tag plain wide' }, tool))) : h('p', { class: 'soft' }, 'It has none.'))];
  }).el;
}

const WHEN = { error: 'It fails', rate_limit: 'It is too busy', low_funds: 'Less money is left than' };
const THEN = { switch_provider: 'Another provider', switch_model: 'Another model', wait_and_retry: 'Wait and try again' };

async function change(agent, save) {
  const models = (await perhaps(api.get('models')).catch(() => null))?.models || [];
  const list = h('datalist', { id: 'models' }, models.map((model) => h('option', { value: model })));
  await ask(`Change ${agent.display_name || agent.name}`, [
    agent.name === 'default' ? null : field('name', 'Name', { value: agent.name, required: true }),
    field('description', 'What it is for', { value: agent.description, optional: true }), field('session_tier', 'Rights', { kind: 'select', options: RIGHTS, value: agent.permission_tier }),
    field('llm_model', 'Model', { value: agent.model, list: 'models', hint: 'Choose one, or type its name.' }), list].filter(Boolean),
  { work: async (values) => {
    if (values.llm_model === agent.model) delete values.llm_model;
    await save(values, 'Saved.');
    if (values.name && values.name !== agent.name) location.hash = '#/agents/' + encodeURIComponent(values.name);
  } });
}

function fallback(agent, save) {
  return ask('When the model fails', [field('trigger', 'When', { kind: 'select', options: Object.entries(WHEN) }), field('action', 'Then', { kind: 'select', options: Object.entries(THEN) }), field('provider', 'Provider', { optional: true }), field('model', 'Model', { optional: true }),
    field('max_retries', 'Tries', { kind: 'number', value: 3 }), field('threshold', 'Dollars left', { kind: 'number', value: 1 }), field('backoff', 'Waiting', { kind: 'select', options: [['exponential', 'longer each time'], ['constant', 'always the same']] })],
  { submit: 'Add', work: (values) => {
    const rule = { trigger: values.trigger, action: values.action };
    if (values.action === 'wait_and_retry') Object.assign(rule, { max_retries: values.max_retries, backoff: values.backoff });
    else { if (values.provider) rule.provider = values.provider; if (values.model) rule.model = values.model; }
    if (values.trigger === 'low_funds') rule.threshold = values.threshold;
    return save({ fallbacks: [...agent.fallbacks, rule] }, 'Added.');
  } });
}

// --- persona -----------------------------------------------------------------------------------------------------------

function persona(page, at, name) {
  return PERSONA.map(([key, title, hint]) => live(page, () => perhaps(api.get(`${at}/persona/${key}`)), (data) => (data ? section(title, form([
    field('content', title, { kind: 'textarea', value: data.content, hint, rows: Math.min(16, Math.max(4, data.content.split('\n').length + 1)), class: 'mono', readonly: !data.editable })],
  { submit: `Save ${title.toLowerCase()}`, kind: '', work: async (values) => {
    const before = data.content;
    await api.put(`${at}/persona/${key}`, values);
    data.content = values.content;
    toast(`${title} of ${name} saved.`, { undo: async () => { await api.put(`${at}/persona/${key}`, { content: before }); page.shell.route(); } });
  } })) : [])).el);
}

// --- skills ------------------------------------------------------------------------------------------------------------

function skills(page, name) {
  const list = live(page, () => perhaps(api.get(path`skills/${name}`)), (items, refresh) => (!items ? h('p', { class: 'soft' }, 'This Holt has no skills.') : [items.length ? h('ul', { class: 'stack' }, items.map((skill) => h('li', { class: 'panel' },
    h('div', { class: 'card-head' }, h('h3', null, skill.name), (skill.triggers || []).map((each) => tag(each, 'plain')), skill.shared ? tag('shared') : null, skill.missing_tool ? tag(`needs ${skill.missing_tool}`, 'warning') : null),
    skill.description ? h('p', { dir: 'auto' }, skill.description) : null,
    h('div', { class: 'ask-row' }, action(skill.shared ? 'Look' : 'Edit', () => editSkill(name, skill.name, refresh), { kind: 'small', icon: 'edit', 'aria-label': `Edit ${skill.name}` }),
      skill.shared ? null : action('Delete', () => removeSkill(name, skill.name, refresh), { kind: 'small', 'aria-label': `Delete ${skill.name}` })))))
    : empty('No skills yet', 'A skill is a text that tells an agent how to do something: always, on a command, or on a schedule.', action('Write a skill', () => editSkill(name, null, refresh), { kind: 'primary', icon: 'plus' })),
  items.length ? action('Write a skill', () => editSkill(name, null, refresh), { icon: 'plus' }) : null]));
  return list.el;
}

async function removeSkill(agent, name, refresh) {
  const old = await api.get(path`skills/${agent}/${name}`);
  if (!await confirm('Delete this skill?', name, 'Delete', () => api.del(path`skills/${agent}/${name}`))) return;
  toast('Deleted.', { undo: async () => { await api.post(path`skills/${agent}`, { name, description: old.description, version: old.version, triggers: old.triggers || [], body: old.body }); refresh(); } });
  refresh();
}

async function editSkill(agent, name, refresh) {
  const old = name ? await api.get(path`skills/${agent}/${name}`) : {};
  const check = (lines) => (lines.every((line) => /^(command|schedule):./.test(line)) ? '' : 'Each line is command:… or schedule:….');
  const sent = await dialog(name || 'Write a skill', (close) => form([
    name ? null : field('name', 'Name', { required: true, hint: 'Small letters, digits, - and _.' }), field('description', 'When to use it', { value: old.description, optional: true }),
    field('triggers', 'Triggers', { kind: 'list', value: old.triggers, check, rows: 2, optional: true, hint: 'One a line: command:backup for /backup, schedule:nightly. None: the agent decides.' }),
    field('body', 'What to do', { kind: 'textarea', required: true, value: old.body, rows: 14, class: 'mono' })].filter(Boolean),
  { submit: 'Save', cancel: () => close(), work: async (values) => { await (name ? api.put(path`skills/${agent}/${name}`, values) : api.post(path`skills/${agent}`, values)); close(true); } }), { wide: true });
  if (sent) { toast('Saved.'); refresh(); }
}

// --- journal -----------------------------------------------------------------------------------------------------------

function journal(page, agent) {
  return live(page, () => perhaps(api.get('journal' + query({ agent }))), (data, refresh) => {
    if (!data?.entries.length) return empty('Nothing in the journal', 'What this agent changes about itself (persona, memory, skills, schedules) is written here, and can be undone.');
    return h('ul', { class: 'stack' }, data.entries.map((entry) => h('li', { class: 'panel' },
      h('div', { class: 'card-head' }, h('strong', { dir: 'auto' }, `${{ create: 'Made', delete: 'Removed' }[entry.action] || 'Changed'} ${entry.kind} ${entry.target}`), entry.undone_at ? tag('undone', 'plain') : null, h('span', { class: 'soft' }, when(entry.created_at)),
        entry.conversation_id ? h('a', { href: '#/chat/' + encodeURIComponent(entry.conversation_id) }, 'Chat') : null),
      h('div', { class: 'ask-row' }, action('What changed', () => compare(entry), { kind: 'small' }), entry.undone_at ? null : action('Undo', () => undo(entry, refresh), { kind: 'small' })))));
  }, { every: 20000 }).el;
}

async function compare(entry) {
  const { before, after } = await api.get(path`journal/${entry.id}`);
  const side = (title, text) => h('div', null, h('h3', null, title), h('pre', { class: 'args', tabindex: '0', 'aria-label': title }, text || '–'));
  await dialog(`${entry.kind} ${entry.target}`, () => [h('div', { class: 'diff' }, side('Before', before), side('After', after))], { wide: true });
}

async function undo(entry, refresh) {
  const at = path`journal/${entry.id}/undo`;
  let later = '';
  const done = await confirm('Undo this change?', `It is put back as it was before ${dateTime(entry.created_at)}.`, 'Undo it', async () => {
    try { await api.post(at, {}); } catch (error) { if (error.status !== 409) throw error; later = error.message; }
  });
  if (done && later && !await confirm('Undo it all the same?', later, 'Undo it', () => api.post(at, { force: true }))) return;
  if (done) { toast('Undone.'); refresh(); }
}
