// The list of pages, in the order of the navigation. To add one: a row here, and a module whose default export is called
// with a `Page` (shell.js) each time somebody goes there; it fills `page.el`. Modules are loaded when first needed.
//
//   export default function (page) {
//     const list = live(page, () => api.get('things'), (things) => table('Things', ...), { every: 10000 });
//     page.actions(action('Add', ...));
//     page.el.append(list.el);
//   }
//
// `#/things/a/b?c=1` gives page.args = ['a', 'b'] and page.query.get('c').
export const GROUPS = ['', 'Watch', 'Build', 'Manage'];

export const PAGES = [
  { name: 'home', title: 'Home', icon: 'home', group: 0, tab: true, load: () => import('./home.js') },
  { name: 'chat', title: 'Chat', icon: 'chat', group: 0, tab: true, bare: true, load: () => import('./chat.js') },
  { name: 'approvals', title: 'Approvals', icon: 'shield', group: 0, tab: true, load: () => import('./approvals.js') },
  { name: 'machines', title: 'Machines', icon: 'machine', group: 1, tab: true, load: () => import('./machines.js') },
  { name: 'alerts', title: 'Alerts', icon: 'bell', group: 1, load: () => import('./alerts.js') },
  { name: 'costs', title: 'Costs', icon: 'coin', group: 1, load: () => import('./costs.js') },
  { name: 'agents', title: 'Agents', icon: 'agent', group: 2, load: () => import('./agents.js') },
  { name: 'schedules', title: 'Schedules', icon: 'clock', group: 2, load: () => import('./schedules.js') },
  { name: 'tools', title: 'Tools', icon: 'tool', group: 2, load: () => import('./tools.js') },
  { name: 'kv', title: 'Key-value', icon: 'box', group: 2, load: () => import('./kv.js') },
  { name: 'audit', title: 'Audit', icon: 'list', group: 3, load: () => import('./audit.js') },
  { name: 'keys', title: 'API keys', icon: 'key', group: 3, load: () => import('./keys.js') },
  { name: 'logins', title: 'Logins', icon: 'device', group: 3, load: () => import('./logins.js') },
  { name: 'settings', title: 'Settings', icon: 'gear', group: 3, load: () => import('./settings.js') },
  // Reached only by a link.
  { name: 'welcome', title: 'Welcome', icon: 'home', group: -1, load: () => import('./welcome.js') },
];
