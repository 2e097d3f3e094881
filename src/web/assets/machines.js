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
    if (!machines.length) return empty('No machines yet', 'Run one command on a machine: it dials out to Holt, nothing needs to be opened. Then Holt watches it, and you can ask it things.', action('Add a machine', () => add(page, refresh), { kind: 'primary', icon: 'plus' }));
    return [waiting.length ? section('Waiting for your approval', h('ul', { class: 'stack' }, waiting.map((machine) => h('li', { class: 'panel' }, pending(machine, refresh))))) : null,
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

// A join code with the one command to paste; waits until somebody used it.
export function add(page, refresh) {
  return dialog('Add a machine', (close) => {
    const box = h('div', null);
    const make = form([
      field('name', 'Name', { optional: true, hint: 'What you call it here; otherwise its own name.' }),
      field('labels', 'Labels', { kind: 'list', optional: true, hint: 'One a line, such as room=garage.' }),
      field('ttl', 'The code works for', { kind: 'select', value: '1h', options: [['15m', '15 minutes'], ['1h', 'an hour'], ['24h', 'a day'], ['168h', 'a week']] }),
    ], { submit: 'Make the command', cancel: () => close(), work: async (values) => {
      const code = await api.post('machines/join-codes', { ...values, labels: labelMap(values.labels) });
      const state = h('p', { class: 'wait', role: 'status' }, h('i'), h('i'), h('i'), h('span', null, 'Waiting for the machine'));
      box.replaceChildren(h('p', null, 'Run this on the machine. It needs the ', h('code', null, 'holt'), ' program, and nothing else.'), copyBox(code.command, 'Command for the machine'),
        h('p', { class: 'hint' }, 'The code works once, until ', when(code.expires_at), '. Later the machine needs only ', h('code', null, 'holt agent'), ', or ', h('code', null, 'holt service install --agent'), ' to start with it.'),
        ...(/\/\/(127\.|localhost|\[::1\])/.test(code.command) ? [h('p', { class: 'banner' }, 'This address works on this machine only. Start the hub with --listen 0.0.0.0:8080 or set its address under Settings, then make a new command.')] : []), state);
      box.querySelector('button').focus();
      refresh();
      const timer = setInterval(async () => {
        if (!box.isConnected) { clearInterval(timer); return; }
        const { join_codes: all } = await api.get('machines/join-codes').catch(() => ({ join_codes: [] }));
        const used = all.find((each) => each.id === code.id && each.machine_id);
        if (!used) return;
        clearInterval(timer);
        refresh();
        state.replaceChildren('It is here. ', h('a', { class: 'btn primary', href: '#/machines/' + encodeURIComponent(used.machine_id), onclick: () => close(true) }, 'Show it'));
      }, 2000);
    } });
    box.append(make);
    return box;
  });
}

