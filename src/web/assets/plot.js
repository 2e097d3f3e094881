// Plots, drawn by hand as SVG: lines over time, bars, small bars of a share.
import { h } from './dom.js';

const NS = 'http://www.w3.org/2000/svg';

function s(tag, attributes, ...kids) {
  const el = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) el.setAttribute(name, value);
  el.append(...kids.flat().filter((kid) => kid != null));
  return el;
}

// Drawn again for the width it has; `paint(width)` gives the SVG's content, `height` is fixed.
const sizes = new ResizeObserver((entries) => { for (const { target, contentRect } of entries) target.paint?.(Math.round(contentRect.width)); });
function canvas(label, height, paint) {
  const svg = s('svg', { role: 'img', 'aria-label': label, height, class: 'plot' });
  const el = h('div', { class: 'plot-box' }, svg);
  let drawn = 0;
  el.paint = (width) => {
    if (width < 40 || width === drawn) return;
    drawn = width;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    svg.setAttribute('width', width);
    svg.replaceChildren(...paint(width).flat());
  };
  sizes.observe(el);
  return el;
}

// A round number at or above the value, for the top of an axis.
function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value);
}

const EDGE = { left: 44, right: 8, top: 8, bottom: 20 };
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880].map((minutes) => minutes * 60e3);
const moment = (t, options) => new Date(t).toLocaleString([], options);

// Lines across, each with its value.
const axis = (values, y, width, unit) => values.map((v) => [s('line', { class: 'grid', x1: EDGE.left, x2: width - EDGE.right, y1: y(v), y2: y(v) }), s('text', { x: EDGE.left - 6, y: +y(v) + 4, 'text-anchor': 'end' }, unit(v))]).flat();

// Round times from one to the other, at most so many.
function ticks(from, to, most) {
  const step = STEPS.find((each) => (to - from) / each <= most) || (to - from) / most;
  const zone = new Date(from).getTimezoneOffset() * 60e3;
  const list = [];
  for (let t = Math.ceil((from - zone) / step) * step + zone; t <= to; t += step) list.push(t);
  return list;
}

// Lines over time. points: [ms, value or null]; from, to: ms. `unit(value)` names a value. What is longer apart than
// `gap` is not joined; what stands alone, and the newest, is a dot.
export function lines(label, points, { from, to, max, min = 0, unit = String, height = 130, gap = Infinity } = {}) {
  const values = points.filter(([t, value]) => value != null && t >= from);
  const top = max ?? nice(Math.max(...values.map(([, value]) => value), 0));
  const last = values.at(-1);
  const name = last ? `${label}: now ${unit(last[1])}, lowest ${unit(Math.min(...values.map(([, v]) => v)))}, highest ${unit(Math.max(...values.map(([, v]) => v)))}` : `${label}: no readings`;
  const rest = last ? unit(last[1]) : 'no readings';
  const read = h('span', { class: 'plot-read', 'aria-hidden': 'true' }, rest);
  const parts = [];
  let before = null;
  for (const [t, value] of points) {
    if (value == null || t < from) { before = null; continue; }
    if (before === null || t - before > gap) parts.push([]);
    parts.at(-1).push([t, value]);
    before = t;
  }
  const el = canvas(name, height, (width) => {
    const x = (t) => (EDGE.left + (t - from) / (to - from) * (width - EDGE.left - EDGE.right)).toFixed(1);
    const y = (v) => (EDGE.top + (1 - (Math.min(v, top) - min) / (top - min)) * (height - EDGE.top - EDGE.bottom)).toFixed(1);
    const cursor = s('line', { class: 'cursor', y1: EDGE.top, y2: height - EDGE.bottom, visibility: 'hidden' });
    el.onpointermove = el.onpointerdown = (event) => {
      const t = from + (event.clientX - el.getBoundingClientRect().left - EDGE.left) / (width - EDGE.left - EDGE.right) * (to - from);
      const near = values.reduce((best, point) => (!best || Math.abs(point[0] - t) < Math.abs(best[0] - t) ? point : best), null);
      if (!near) return;
      cursor.setAttribute('x1', x(near[0]));
      cursor.setAttribute('x2', x(near[0]));
      cursor.setAttribute('visibility', 'visible');
      read.textContent = `${unit(near[1])} · ${moment(near[0], { dateStyle: 'short', timeStyle: 'short' })}`;
    };
    el.onpointerleave = () => { cursor.setAttribute('visibility', 'hidden'); read.textContent = rest; };
    return [
      axis([min, (min + top) / 2, top], y, width, unit),
      ticks(from, to, width / 70).filter((t) => x(t) < width - 18)
        .map((t) => s('text', { x: x(t), y: height - 5, 'text-anchor': 'middle' }, moment(t, to - from > 2 * 86400e3 ? { month: 'short', day: 'numeric' } : { hour: '2-digit', minute: '2-digit' }))),
      parts.map((part) => {
        const line = part.map(([t, v]) => `${x(t)} ${y(v)}`).join('L');
        return part.length > 1 && [s('path', { class: 'area', d: `M${line}L${x(part.at(-1)[0])} ${y(min)}L${x(part[0][0])} ${y(min)}Z` }), s('path', { class: 'stroke', d: 'M' + line })];
      }).flat().filter(Boolean),
      [...parts.filter((part) => part.length < 2).flat(), ...(last ? [last] : [])].map(([t, v]) => s('circle', { class: 'dot', cx: x(t), cy: y(v), r: 5 })), cursor];
  });
  return h('figure', { class: 'figure' }, h('figcaption', null, h('span', null, label), read), el);
}

// One bar for each of [name, value]; `unit(value)` names a value.
export function bars(label, rows, { unit = String, height = 160 } = {}) {
  const top = nice(Math.max(...rows.map(([, value]) => value), 0));
  const sum = rows.reduce((all, [, value]) => all + value, 0);
  const read = h('span', { class: 'plot-read', 'aria-hidden': 'true' }, unit(sum) + ' in all');
  const rest = read.textContent;
  const el = canvas(`${label}: ${unit(sum)} in all, at most ${unit(Math.max(...rows.map(([, v]) => v), 0))}`, height, (width) => {
    const step = (width - EDGE.left - EDGE.right) / rows.length;
    const y = (v) => EDGE.top + (1 - v / top) * (height - EDGE.top - EDGE.bottom);
    const every = Math.ceil(rows.length / Math.max(2, Math.floor(width / 64)));
    el.onpointermove = (event) => {
      const row = rows[Math.floor((event.clientX - el.getBoundingClientRect().left - EDGE.left) / step)];
      read.textContent = row ? `${row[0]}: ${unit(row[1])}` : rest;
    };
    el.onpointerleave = () => { read.textContent = rest; };
    return [
      axis([0, top / 2, top], y, width, unit),
      rows.map(([, value], i) => s('rect', { class: 'bar', x: EDGE.left + i * step + step * 0.15, width: Math.max(1, step * 0.7), y: y(value), height: Math.max(0, y(0) - y(value)), rx: 2 })),
      rows.map(([name], i) => (i % every ? null : s('text', { x: EDGE.left + (i + 0.5) * step, y: height - 5, 'text-anchor': 'middle' }, name.slice(-5)))).filter(Boolean)];
  });
  return h('figure', { class: 'figure' }, h('figcaption', null, h('span', null, label), read), el);
}

// When something comes: marks on a line from now to `to`.
export function moments(label, times, to) {
  const from = Date.now();
  return canvas(label, 34, (width) => {
    const x = (t) => 6 + (t - from) / (to - from) * (width - 12);
    const step = [10, 30, 60, 180, 360, 720, 1440, 2880, 10080, 44640, 133920].map((minutes) => minutes * 60e3).find((step) => (to - from) / step < width / 76);
    const zone = new Date(from).getTimezoneOffset() * 60e3;
    const first = Math.ceil((from - zone) / step) * step + zone;
    const ticks = Array.from({ length: Math.ceil((to - first) / step) }, (_, i) => first + i * step).filter((t) => x(t) > 24 && x(t) < width - 24);
    return [s('line', { class: 'grid', x1: 6, x2: width - 6, y1: 12, y2: 12 }),
      times.filter((t) => t >= from && t <= to).map((t) => s('circle', { class: 'dot', cx: x(t), cy: 12, r: 5 }, s('title', {}, new Date(t).toLocaleString()))),
      ticks.map((t) => s('text', { x: x(t), y: 31, 'text-anchor': 'middle' }, new Date(t).toLocaleString([], step > 2880 * 60e3 ? { month: 'short', day: 'numeric' } : step > 720 * 60e3 ? { weekday: 'short', day: 'numeric' } : { hour: '2-digit', minute: '2-digit' })))];
  });
}

// A share of something, 0 to 100, with its name and number in words beside it. Above `warn` it says so.
export function meter(label, value, text, warn = 90) {
  const state = value == null ? 'none' : value >= warn ? 'high' : 'ok';
  const fill = s('rect', { class: 'fill', height: 6, rx: 3, width: Math.max(0, Math.min(100, value || 0)) });
  return h('div', { class: 'meter', 'data-state': state }, h('span', { class: 'meter-name' }, label), s('svg', { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, s('rect', { class: 'track', height: 6, width: 100, rx: 3 }), fill),
    h('span', { class: 'meter-text' }, text));
}

// The same in a table: the bar and the number.
export function share(value) {
  const el = meter('', value, `${Math.round(value)} %`, 101);
  el.classList.add('bare');
  return el;
}
