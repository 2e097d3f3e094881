// Times, durations, numbers and money as people read them, in the browser's own language.
import { h } from './dom.js';

const valid = (time) => { const at = new Date(time).getTime(); return time && Number.isFinite(at) && at > 0 ? at : null; };

export function ago(time) {
  const then = valid(time);
  if (then === null) return '';
  const seconds = (Date.now() - then) / 1000;
  const size = Math.abs(seconds);
  const text = size < 60 ? '' : size < 3600 ? Math.floor(size / 60) + ' min' : size < 86400 ? Math.floor(size / 3600) + ' h' : size < 7 * 86400 ? Math.floor(size / 86400) + ' d' : null;
  if (text === null) return new Date(then).toLocaleDateString();
  if (!text) return seconds < -5 ? 'in a moment' : 'now';
  return seconds < 0 ? 'in ' + text : text;
}

export const clock = (time) => new Date(time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

export function dateTime(time) {
  const at = valid(time);
  return at === null ? '' : new Date(at).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
}

// A time that stays true: the shell renews its words. `none` stands for no time at all.
export function when(time, none = 'never') {
  if (valid(time) === null) return h('span', null, none);
  const text = () => { const said = ago(time); return /^(now|in |.*\d{4})/.test(said) ? said : said + ' ago'; };
  const el = h('time', { datetime: new Date(time).toISOString(), title: dateTime(time) }, text());
  el.renew = () => { const now = text(); if (el.textContent !== now) el.textContent = now; };
  return el;
}

export function duration(seconds) {
  if (!(seconds >= 0)) return '';
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.round(seconds)} s`;
}

export const number = (value) => Number(value || 0).toLocaleString();
export const percent = (value) => (value == null ? '–' : Math.round(value) + ' %');

export function money(usd) {
  const value = Number(usd) || 0;
  return '$' + (value === 0 ? '0' : value < 0.01 ? value.toPrecision(2) : value.toFixed(2));
}

export function size(bytes) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let value = Number(bytes) || 0;
  let unit = 0;
  while (value >= 1000 && unit < 4) { value /= 1024; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many || one + 's'}`;

// "{"a":1}" as people read it; anything else as it is.
export function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
