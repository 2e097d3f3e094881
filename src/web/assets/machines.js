// Machines: the list, and how one joins. One machine: machine.js.
import { h } from './dom.js';
import { api, path } from './api.js';
import { when } from './format.js';
import { machineCard } from './home.js';
import { action, confirm, copyBox, dialog, empty, field, filterBox, form, live, section, table, toast } from './ui.js';

export default function show(page) {
  if (page.args[0]) {
    import('./machine.js').then((module) => { if (!page.signal.aborted) module.default(page); });
    return;
  }
  page.actions(action('Add a machine', () => add(page, list.refresh), { kind: 'primary small', icon: 'plus' }));
  let wish = '';
  const matches = (machine) => !wish || JSON.stringify([machine.name, machine.hostname, machine.ip, machine.labels, machine.os]).toLowerCase().includes(wish);
  const list = live(page, async () => ({ wish, ...await api.get('machines') }), ({ machines }, refresh) => {
    const waiting = machines.filter((machine) => machine.state === 'pending');
    const others = machines.filter((machine) => machine.state !== 'pending');
    const shown = others.filter(matches);
    if (!machines.length) return empty('No machines yet', 'Run one command on a machine, also on the one that Holt runs on: it dials out to Holt, nothing needs to be opened.', action('Add a machine', () => add(page, refresh), { kind: 'primary', icon: 'plus' }));
    return [waiting.length ? section('Waiting for your approval', h('ul', { class: 'cards' }, waiting.map((machine) => h('li', { class: 'panel' }, pending(machine, refresh))))) : null,
      others.length > 5 || wish ? search : null,
      shown.length ? h('ul', { class: 'cards' }, shown.map((machine) => h('li', null, machineCard(machine)))) : others.length ? h('p', { class: 'soft' }, 'No machine matches.') : null];
  }, { every: 5000 });
  const search = filterBox('Search machines', (text) => { wish = text.toLowerCase(); list.refresh(); });
  const codes = live(page, () => api.get('machines/join-codes'), ({ join_codes: all }, refresh) => {
    const open = all.filter((code) => !code.used_at && Date.parse(code.expires_at) > Date.now());
    return open.length ? section('Open invitations', table('Join codes', [['For', (code) => code.name || 'any machine'], ['Valid', (code) => when(code.expires_at)], ['By', (code) => code.created_by],
      ['', (code) => action('Withdraw', async () => { if (await confirm('Withdraw this invitation?', 'Its code will no longer work.', 'Withdraw', () => api.del(path`machines/join-codes/${code.id}`))) refresh(); }, { kind: 'small' }), 'end']], open)) : [];
  }, { every: 15000 });
  page.el.append(list.el, codes.el);
  if (page.query.get('add')) add(page, list.refresh);
}

function pending(machine, refresh) {
  return [h('h2', { dir: 'auto' }, machine.name), h('p', null, `It says it is ${machine.hostname || 'unnamed'}${machine.ip ? `, ${machine.ip}` : ''}. Compare the code with what `, h('code', null, 'holt agent'), ' prints there:'),
    h('p', { class: 'code-big' }, machine.code || '–'),
    h('div', { class: 'ask-row' }, action('Approve', async () => { await api.post(path`machines/${machine.id}/approve`); toast(`${machine.name} is in.`); refresh(); }, { kind: 'primary' }),
      action('Refuse', async () => { if (await confirm('Refuse this machine?', machine.name, 'Refuse', () => api.del(path`machines/${machine.id}`))) refresh(); }))];
}

export const labelLines = (map) => Object.entries(map || {}).map(([name, value]) => `${name}=${value}`);
export const labelMap = (lines) => Object.fromEntries(lines.map((line) => { const at = line.indexOf('='); return at < 0 ? [line, ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()]; }));

const dots = (text) => [h('i'), h('i'), h('i'), h('span', null, text)];

// A join code with the one command to paste; says when the machine is there, and what to look at when it does not come.
export function add(page, refresh) {
  return dialog('Add a machine', (close) => {
    const box = h('div', null);
    const more = [field('labels', 'Labels', { kind: 'list', optional: true, hint: 'One a line, such as room=garage.' }),
      field('ttl', 'The code works for', { kind: 'select', value: '1h', options: [['15m', '15 minutes'], ['1h', 'an hour'], ['24h', 'a day'], ['168h', 'a week']] })];
    box.append(h('p', null, 'Holt makes a command, you run it on the machine (this one, too), and a moment later the machine is here.'),
      form([field('name', 'Name', { optional: true, hint: 'What you call it here; otherwise its own name.' }), { el: h('details', null, h('summary', null, 'Labels, and how long the code works'), more.map((each) => each.el)) }],
        { submit: 'Make the command', cancel: () => close(), work: async (values) => {
          const [labels, ttl] = more.map((each) => each.value);
          command(box, await api.post('machines/join-codes', { ...values, labels: labelMap(labels), ttl }), refresh, close);
        } }));
    return box;
  });
}

function command(box, code, refresh, close) {
  const hub = /--hub (\S+)/.exec(code.command)[1];
  const own = /\/\/(127\.|localhost|\[::1\])/.test(hub);
  const state = h('div', { class: 'wait', role: 'status' }, dots('Waiting for the machine'));
  const help = h('div', { role: 'status' });
  box.replaceChildren(h('ol', { class: 'guide' },
    h('li', null, 'Put the ', h('code', null, 'holt'), ' program on the machine.'),
    h('li', null, 'Run this there. It dials out to Holt and tells how the machine is; nothing is opened or changed there.',
      copyBox(code.command, 'Command for the machine'),
      own ? h('p', { class: 'banner' }, h('span', null, 'This address works on Holt’s own machine only. For others start Holt with ', h('code', null, '--listen 0.0.0.0:8080'), ' or set its address under ', h('a', { href: '#/settings' }, 'Settings'), ', then make a new command.')) : null,
      h('p', { class: 'hint' }, 'It works once and ends ', when(code.expires_at), '. From then on ', h('code', null, 'holt agent'), ' is enough, or ', h('code', null, 'holt service install --agent'), ' to start with the machine.')),
    h('li', null, state, help)));
  box.querySelector('button').focus();
  refresh();
  const since = Date.now();
  const timer = setInterval(async () => {
    if (!box.isConnected) { clearInterval(timer); return; }
    const { join_codes: all } = await api.get('machines/join-codes').catch(() => ({}));
    const id = all?.find((each) => each.id === code.id)?.machine_id;
    const machine = id && await api.get(path`machines/${id}`).catch(() => null);
    if (!machine?.connected) {
      if (Date.now() - since > 60e3 && !help.firstChild) help.append(h('p', null, 'Nothing yet. What the command prints there says what is wrong. Usually:'),
        h('ul', null, h('li', null, 'It does not run any more: start it again.'), h('li', null, 'That machine does not reach Holt: ', h('code', null, `curl ${hub}/health`), ' must answer there.'), h('li', null, 'The code was used or is too old: make a new command.')));
      return;
    }
    clearInterval(timer);
    refresh();
    state.className = 'good';
    state.replaceChildren('Connected: ', h('strong', { dir: 'auto' }, machine.name));
    const show = h('a', { class: 'btn primary', href: '#/machines/' + encodeURIComponent(id), onclick: () => close(true) }, 'Show it');
    box.replaceChildren(state, h('p', null, '“Inspect” on its page makes a report of how it is.'), h('div', { class: 'row' }, show));
    show.focus();
  }, 2000);
}
