// Small helpers for building the page. Text always becomes text nodes: nothing here parses HTML.

export function h(tag, props, ...kids) {
  const el = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value == null || value === false) continue;
    if (key === 'class') el.className = value;
    else if (key.startsWith('on')) el.addEventListener(key.slice(2), value);
    else el.setAttribute(key, value === true ? '' : value);
  }
  el.append(...kids.filter((kid) => kid != null && kid !== false));
  return el;
}

const PATHS = {
  menu: 'M4 7h16M4 12h16M4 17h16',
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

export function ago(time) {
  const then = new Date(time).getTime();
  if (!Number.isFinite(then)) return '';
  const seconds = Math.max(0, (Date.now() - then) / 1000);
  if (seconds < 60) return 'now';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min';
  if (seconds < 86400) return Math.floor(seconds / 3600) + ' h';
  if (seconds < 7 * 86400) return Math.floor(seconds / 86400) + ' d';
  return new Date(then).toLocaleDateString();
}

export function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}
