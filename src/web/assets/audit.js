// The audit log: who did what, from where, and whether it was allowed.
import { h } from './dom.js';
import { api, query } from './api.js';
import { dateTime } from './format.js';
import { action, choice, empty, field, form, live, table, tag } from './ui.js';

export default function show(page) {
  let want = { limit: 100 };
  let older = [];
  const load = () => { older = []; return list.refresh(); };
  page.el.append(choice('Result', [['', 'All'], ['ok', 'Done'], ['denied', 'Denied'], ['failed', 'Failed']], '', (value) => { want.result = value; load(); }),
    h('details', null, h('summary', null, 'Search'), form([
      field('actor', 'Who', { optional: true }), field('action', 'What', { optional: true, hint: 'Such as key.create, login, approval.approve.' }), field('target', 'To what', { optional: true }),
      field('since', 'Since', { kind: 'datetime-local', optional: true }),
    ], { submit: 'Search', work: async (values) => { want = { ...want, ...values, since: values.since ? new Date(values.since).toISOString() : '' }; await load(); } })));
  const list = live(page, async () => {
    const first = await api.get('audit' + query(want));
    return { rows: [...first.entries, ...older.flatMap((each) => each.entries)], next: older.length ? older.at(-1).next_before : first.next_before, want };
  }, ({ rows, next }, refresh) => (rows.length ? [table('Audit log', [
    ['When', (row) => h('span', { class: 'nowrap' }, dateTime(row.at))], ['Who', (row) => row.actor || '–'], ['What', (row) => h('code', null, row.action)], ['To what', (row) => h('span', { class: 'cut' }, row.target)],
    ['Result', (row) => tag(row.result, row.result === 'ok' ? '' : 'denied')], ['From', (row) => row.source], ['More', (row) => h('span', { class: 'cut' }, row.detail)]], rows),
  next ? action('Older', async () => { older.push(await api.get('audit' + query({ ...want, before: next }))); await refresh(); }) : null]
    : empty('Nothing found', 'What changes something, and what was refused, is written here.')), { every: 30000 });
  page.el.append(list.el);
}
