// Channels of notifications: added, tried out, changed, removed.
import { h, randomId } from './dom.js';
import { api, path } from './api.js';
import { when } from './format.js';
import { action, confirm, dialog, explain, field, form, live, perhaps, section, table, tag, toast } from './ui.js';

// [key, label, options of its field]. A secret is shown to nobody, also not here.
const USER = [['user', 'User', { optional: true }], ['password', 'Password', { secret: true, optional: true }]];
const KINDS = {
  __proto__: null,
  ntfy: ['Phone: the ntfy app', 'Install ntfy from the app store, tap + and type the topic below.', [['topic', 'Topic', { required: true, value: 'holt-' + randomId(), hint: 'A long word that nobody guesses: who knows it reads along.' }], ['server', 'Server', { optional: true, hint: 'Empty: https://ntfy.sh' }], ['token', 'Token', { secret: true, optional: true, hint: 'Only for a protected topic.' }]]],
  gotify: ['Phone: Gotify', 'Make an application on your Gotify server; it shows the token.', [['server', 'Server', { required: true, hint: 'Such as https://gotify.example.org' }], ['token', 'Token', { secret: true, required: true }]]],
  email: ['E-mail', 'The mail server is that of your provider, the one for sending.', [['server', 'Mail server', { required: true, hint: 'Such as smtp.example.org' }], ...USER, ['from', 'From', { required: true, hint: 'Most servers want your own address.' }], ['to', 'To', { kind: 'list', required: true, hint: 'One address a line.' }],
    ['tls', 'Encryption', { kind: 'select', options: [['starttls', 'STARTTLS (port 587)'], ['tls', 'TLS (port 465)'], ['none', 'None (port 25)']] }]]],
  webhook: ['Web hook', 'Holt posts JSON to an address of yours.', [['url', 'Address', { secret: true, required: true, hint: 'Begins with https://' }], ['secret', 'Secret', { secret: true, optional: true, hint: 'Signs every message.' }]]],
  mqtt: ['MQTT and Home Assistant', 'Home Assistant finds your machines by itself at this broker.', [['server', 'Broker', { required: true, hint: 'A name or an address, such as 192.168.1.5' }], ['port', 'Port', { optional: true, inputmode: 'numeric', hint: 'Empty: 1883, with TLS 8883' }], ...USER, ['tls', 'TLS', { kind: 'checkbox' }]]],
  console: ['Holt’s own log', 'For trying things out.', []],
};
const COMMON = [['min_level', 'Tell of', { kind: 'select', options: [['Info', 'Everything'], ['Warning', 'Warnings and worse'], ['Critical', 'Only what is critical']] }], ['quiet', 'Quiet hours', { optional: true, hint: 'Such as 22:00-07:00. What is critical comes all the same.' }],
  ['approvals', 'When an agent asks for permission, too', { kind: 'checkbox', value: true }], ['enabled', 'Switched on', { kind: 'checkbox', value: true, hint: 'Once it is off, messages that wait for it have failed.' }]];

// Files may write kinds in any case, and newer hubs may have more.
const about = (type) => KINDS[type.toLowerCase()] || [type, '', []];

export function notifications(page) {
  return live(page, () => perhaps(api.get('notifications')), (data, refresh) => (data ? section('Notifications', data.channels.length ? table('Channels', [['Channel', (each) => h('strong', null, each.name)], ['Kind', (each) => about(each.type)[0]], ['From', (each) => tag(each.min_level, each.min_level)],
    ['State', (each) => (!each.enabled ? 'switched off' : each.error ? h('span', { class: 'problem' }, each.error) : each.sent_at ? ['last sent ', when(each.sent_at)] : 'nothing sent since it started')],
    ['', (each) => h('div', { class: 'ask-row' }, each.enabled && action('Test', () => test(each.name, refresh), { kind: 'small', 'aria-label': `Test ${each.name}` }),
      each.settings && [action('Change', () => edit(each, data.channels, refresh), { kind: 'small', 'aria-label': `Change ${each.name}` }), action('Remove', () => remove(each, refresh), { kind: 'small', 'aria-label': `Remove ${each.name}` })]), 'end']], data.channels)
    : h('p', { class: 'soft' }, 'Nobody is told yet. Holt can tell a phone, a mailbox, a web hook or Home Assistant when something is wrong or an agent asks for permission.'),
  h('div', { class: 'ask-row' }, action('Add a channel', () => edit(null, data.channels, refresh), { icon: 'plus', kind: data.channels.length ? '' : 'primary' })),
  data.notices?.length ? table('Waiting', [['What', (each) => each.title], ['To', (each) => each.channel], ['State', (each) => [each.state, each.error && h('span', { class: 'soft' }, ' ' + each.error)]], ['Next try', (each) => when(each.next_at, '–')],
    ['', (each) => action('Give up', async () => { if (await confirm('Give this message up?', each.title, 'Give up', () => api.del(path`notifications/${each.id}`))) refresh(); }, { kind: 'small' }), 'end']], data.notices) : null) : []), { every: 15000 });
}

async function test(name, refresh) {
  try { await api.post('notifications/test', { channel: name }); } finally { refresh(); }
  toast(`${name} took the test message.`);
}

async function remove(each, refresh) {
  if (await confirm('Remove this channel?', `Nobody is told through ${each.name} any more.`, 'Remove', () => api.del(path`notifications/channels/${each.name}`))) { toast('Removed.'); refresh(); }
}

// Settings that the form does not know stay as they are.
function edit(each, all, refresh) {
  return dialog(each ? `Change ${each.name}` : 'Add a channel', (close) => {
    const place = h('div');
    const pick = field('kind', 'How do you want to be told?', { kind: 'select', options: Object.entries(KINDS).map(([key, [label]]) => [key, label]) });
    const draw = (type) => {
      const old = each?.settings || {};
      const [, text, fields] = about(type);
      if (each) type = old.type;
      const name = field('name', 'Name', { required: true, value: type, hint: 'How it is called here: letters, digits, - and _.', check: (value) => (all.some((other) => other.name === value) ? 'There is a channel of this name.' : '') });
      const wanted = [...fields, ...COMMON];
      const inputs = wanted.map(([key, label, { secret, hint, value, required, ...more }]) => field(key, label, { kind: secret ? 'password' : 'text', autocomplete: 'off', ...more, required: required && !(secret && old[key]),
        value: secret ? '' : old[key] ?? value, hint: secret && old[key] ? 'One is set. Empty: it stays.' : hint }));
      place.replaceChildren(...[h('p', { class: 'soft' }, text), form(each ? inputs : [name, ...inputs], { submit: 'Save and test', cancel: () => close(), work: async ({ name: chosen, ...values }) => {
        const called = each?.name || chosen;
        if (values.port) values.port = Number(values.port) || values.port;
        for (const [key, , { secret }] of wanted) if (secret && !values[key]) delete values[key];
        await api.put(path`notifications/channels/${called}`, { ...old, ...values, type });
        refresh();
        // A second try changes what the first has made.
        if (!each) { each = { name: called }; name.input.disabled = pick.el.hidden = true; }
        if (values.enabled) try { await test(called, refresh); } catch (error) { throw new Error(`It is saved, but the test failed. ${explain(error)}`); }
        close();
      } })]);
    };
    pick.input.addEventListener('change', () => draw(pick.value));
    draw(each ? each.type : 'ntfy');
    return [!each && pick.el, place].filter(Boolean);
  });
}
