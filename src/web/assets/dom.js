// Small helpers for building the page. Text always becomes text nodes: nothing here parses HTML.

export function h(tag, props, ...kids) {
  const el = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value == null || value === false) continue;
    if (key === 'class') el.className = value;
    else if (key.startsWith('on')) el.addEventListener(key.slice(2), value);
    else el.setAttribute(key, value === true ? '' : value);
  }
  el.append(...kids.flat(Infinity).filter((kid) => kid != null && kid !== false));
  return el;
}

const PATHS = {
  plus: 'M12 5v14M5 12h14',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  trash: 'M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12M10.500 11v5M13.500 11v5',
  sun: 'M12 8a4 4 0 100 8 4 4 0 000-8zM12 3v2M12 19v2M3 12h2M19 12h2M5.600 5.600L7 7M17 17l1.400 1.400M5.600 18.400L7 17M17 7l1.400-1.400',
  moon: 'M19 14.500A7.500 7.500 0 019.500 5a7.500 7.500 0 109.500 9.500z',
  auto: 'M12 4a8 8 0 100 16 8 8 0 000-16zM12 4v16M14 8h4M14 12h6M14 16h4',
  out: 'M10 5H6v14h4M14 8l4 4-4 4M18 12H9',
  copy: 'M9 9h10v10H9zM5 15V5h10',
  check: 'M5 12.500l4.500 4.500L19 7.500',
  warn: 'M12 4l9 16H3zM12 10v4M12 17v.500',
  down: 'M12 5v14M6 13l6 6 6-6',
  eye: 'M2 12c3-5 6-7 10-7s7 2 10 7c-3 5-6 7-10 7s-7-2-10-7zM12 9.500a2.500 2.500 0 100 5 2.500 2.500 0 000-5z',
  close: 'M6 6l12 12M18 6L6 18',
  help: 'M9 9a3 3 0 114.500 2.600c-1 .600-1.500 1.200-1.500 2.400M12 17.500h.100M12 3a9 9 0 100 18 9 9 0 000-18z',
  home: 'M4 11l8-7 8 7M6 10v10h12V10M10 20v-6h4v6',
  chat: 'M4 5h16v11H9l-5 4z',
  shield: 'M12 3l7 3v6c0 4-3 7-7 9-4-2-7-5-7-9V6zM9 12l2 2 4-4',
  machine: 'M4 5h16v6H4zM4 13h16v6H4zM8 8h.100M8 16h.100',
  bell: 'M6 17h12l-1.500-2.500V10a4.500 4.500 0 00-9 0v4.500zM10 20h4',
  clock: 'M12 4a8 8 0 100 16 8 8 0 000-16zM12 8v4.500l3 2',
  agent: 'M5 9h14v10H5zM12 9V5M9 13v2M15 13v2M12 4h.100',
  tool: 'M14 6a4 4 0 00-5 5l-5 5 3 3 5-5a4 4 0 005-5l-2.500 2.500-2.500-2.500z',
  coin: 'M12 4a8 8 0 100 16 8 8 0 000-16zM15 9c-1-1.500-5-1.500-5 .800 0 2.800 5 1.400 5 4.200 0 2.500-4.500 2.300-5.500.500M12.500 6.500v11',
  box: 'M4 8l8-4 8 4v8l-8 4-8-4zM4 8l8 4 8-4M12 12v8',
  list: 'M8 6h12M8 12h12M8 18h12M4 6h.100M4 12h.100M4 18h.100',
  key: 'M8 11a4 4 0 100 8 4 4 0 000-8zM11 12l8-8M16 7l3 3',
  device: 'M4 5h16v11H4zM9 20h6M12 16v4',
  gear: 'M12 9a3 3 0 100 6 3 3 0 000-6zM12 3v3M12 18v3M3 12h3M18 12h3M5.600 5.600l2.200 2.200M16.200 16.200l2.200 2.200M5.600 18.400l2.200-2.200M16.200 7.800l2.200-2.200',
  more: 'M5 12h.100M12 12h.100M19 12h.100',
  search: 'M11 5a6 6 0 100 12 6 6 0 000-12zM15.500 15.500L20 20',
  edit: 'M5 19l1-4L16 5l3 3L9 18zM14 7l3 3',
  again: 'M19 12a7 7 0 11-2-5l2 2M19 5v4h-4',
  back: 'M15 5l-7 7 7 7',
  play: 'M8 5l11 7-11 7z',
  save: 'M12 4v11M7 10l5 5 5-5M5 19h14',
};

export function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(ns, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

export function mark(size) {
  const src = document.querySelector('link[rel=icon]').getAttribute('href');
  return h('img', { class: 'mark', src, alt: '', width: size, height: size });
}

export function iconButton(name, label, onclick, props) {
  return h('button', { type: 'button', class: 'icon-btn', 'aria-label': label, title: label, onclick, ...props }, icon(name));
}

// Says something to a screen reader, once, politely. Never called per token.
export function announce(text) {
  const el = document.getElementById('say');
  el.textContent = '';
  setTimeout(() => { el.textContent = text; }, 60);
}

// Everything that wants to draw joins one animation frame, however many deltas arrived meanwhile.
const dirty = new Set();
let frame = 0;
export function draw(view) {
  dirty.add(view);
  if (!frame) frame = requestAnimationFrame(() => {
    frame = 0;
    const views = [...dirty];
    dirty.clear();
    for (const each of views) each.render();
  });
}

// crypto.randomUUID needs a secure context; a home network often has none.
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, '0')).join('');
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h('textarea', { class: 'sr', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
}

