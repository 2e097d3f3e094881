// After the account is made: who answers, how to be told, the first machine. Each step can be left out; Home says what is.
import { h } from './dom.js';
import { api, path, query } from './api.js';
import { add } from './machines.js';
import { notifications } from './channels.js';
import { address } from './settings.js';
import { action, field, form, link, perhaps, section, toast } from './ui.js';

export default function show(page) {
  page.title('Welcome');
  const place = h('div', { class: 'page' });
  const steps = [['Who answers', who], ['How you are told', told], ['Your first machine', machine]];
  const built = [];
  const go = (at) => {
    if (at >= steps.length) { location.hash = '#/chat'; return; }
    const [title, draw] = steps[at];
    place.replaceChildren(h('p', { class: 'soft' }, `Step ${at + 1} of ${steps.length}`), built[at] ||= section(title, draw(page, () => go(at + 1))),
      h('div', { class: 'ask-row' }, at ? action('Back', async () => go(at - 1)) : null, h('button', { type: 'button', class: 'btn primary', onclick: () => go(at + 1) }, at + 1 < steps.length ? 'Next' : 'To the chat')));
    page.shell.heading.focus({ preventScroll: true });
  };
  page.el.append(place);
  go(0);
}

function who(page, next) {
  const place = h('div', { class: 'live-part' });
  perhaps(api.get('llm/providers')).catch(() => null).then((llm) => {
    if (!llm) return;
    const pick = field('name', 'Provider', { kind: 'select', options: llm.providers.map((each) => [each.name, each.name]) });
    const list = h('datalist', { id: 'models' });
    const model = field('default_model', 'Model', { list: 'models', hint: 'Leave it empty to see which there are.' });
    const more = h('details', null, h('summary', null, 'Use a model'), form([pick, field('api_key', 'API key', { kind: 'password', autocomplete: 'off', optional: true, hint: 'From the provider’s site. Ollama needs none.' }), field('base_url', 'Address', { optional: true, check: address, hint: 'Only for Ollama or a compatible service.' }), model, list],
      { submit: 'Save and test', work: async ({ name, default_model: chosen, ...values }) => {
        await api.patch(path`llm/providers/${name}`, Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
        if (!chosen) {
          // Whoever does not know a name is shown them.
          const found = (await perhaps(api.get('models/details' + query({ provider: name }))))?.models || [];
          list.replaceChildren(...found.map((each) => h('option', { value: each.id })));
          model.set(found.length ? `Please choose one, such as ${found[0].id}.` : 'Please give the name of the model.');
          model.input.focus();
          return;
        }
        await api.patch('llm/config', { default_provider: name, default_model: chosen });
        const answer = await perhaps(api.post(path`llm/providers/${name}/test`));
        if (answer && !answer.ok) throw new Error(`${name} says: ${answer.error}`);
        toast(`${name} works.`);
        next();
      } }));
    place.append(more);
  });
  return [h('p', null, 'Holt answers at once, without a model: the built-in agent knows this machine, needs no key and costs nothing. A model can do more; you can add one now, or later in Settings.'), place];
}

const told = (page) => [h('p', null, 'Holt can tell your phone or mailbox when something is wrong. You can do this later in Settings.'), notifications(page).el];

const machine = (page, next) => [h('p', null, 'The agent looks at the machine that Holt runs on: just ask. To watch it and others, each joins with one command, and needs no open port.'),
  h('div', { class: 'ask-row' }, action('Add a machine', async () => { if (await add(page, () => {})) next(); }, { icon: 'plus' }), link('All machines', '#/machines'))];
