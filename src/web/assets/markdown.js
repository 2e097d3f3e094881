// A small Markdown renderer that builds DOM nodes. No HTML passes through: what looks like a tag is shown as text.
//
// Streaming: blocks that are followed by a complete line of another block never change again, so only the tail
// is parsed and drawn anew.
import { h, icon, draw, copyText } from './dom.js';

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t](.*))?$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( +)(.*)|)$/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const DEPTH_MAX = 8;
const SPOKEN_MAX = 1500;

// Longer lines are no fence and no table rule; the limits keep the patterns cheap on hostile text.
const fenceAt = (line) => (line.length < 300 ? FENCE.exec(line) : null);
const blank = (line) => line.trim() === '';
const tableAt = (lines, i) => lines[i].includes('|') && i + 1 < lines.length && lines[i + 1].includes('-')
  && lines[i + 1].length < 1000 && DELIMITERS.test(lines[i + 1]) && cells(lines[i]).length === cells(lines[i + 1]).length;
const startsBlock = (lines, i) => {
  const line = lines[i];
  return HEADING.test(line) || fenceAt(line) || RULE.test(line) || QUOTE.test(line)
    || /^ {0,3}(?:[-*+]|1[.)]) +\S/.test(line) || tableAt(lines, i);
};

// Splits text into blocks. `line` is the index of a block's first line.
export function parse(lines) {
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    if (blank(line)) { i += 1; continue; }
    const start = i;
    let match;
    if ((match = fenceAt(line))) {
      const close = new RegExp('^ {0,3}' + (match[2][0] === '`' ? '`' : '~') + `{${match[2].length},}\\s*$`);
      const indent = match[1].length;
      const body = [];
      for (i += 1; i < lines.length && !close.test(lines[i]); i += 1) body.push(lines[i].replace(new RegExp(`^ {0,${indent}}`), ''));
      i += 1;
      blocks.push({ type: 'code', line: start, lang: match[3], text: body.join('\n') });
    } else if (RULE.test(line)) {
      i += 1;
      blocks.push({ type: 'rule', line: start });
    } else if ((match = HEADING.exec(line))) {
      i += 1;
      blocks.push({ type: 'heading', line: start, level: match[1].length, text: (match[2] || '').trim().replace(/(^| )#+$/, '') });
    } else if (QUOTE.test(line)) {
      const body = [];
      while (i < lines.length && !blank(lines[i]) && (QUOTE.test(lines[i]) || !startsBlock(lines, i))) body.push(lines[i++].replace(QUOTE, ''));
      blocks.push({ type: 'quote', line: start, lines: body });
    } else if (ITEM.test(line)) {
      const list = takeList(lines, i);
      i = list.next;
      blocks.push({ type: 'list', line: start, ...list });
    } else if (tableAt(lines, i)) {
      const rows = [cells(line)];
      const align = cells(lines[i + 1]).map((cell) => (cell.endsWith(':') ? (cell.startsWith(':') ? 'center' : 'end') : ''));
      for (i += 2; i < lines.length && lines[i].includes('|') && !blank(lines[i]); i += 1) rows.push(cells(lines[i]));
      blocks.push({ type: 'table', line: start, rows, align });
    } else {
      const body = [line];
      for (i += 1; i < lines.length && !blank(lines[i]) && !startsBlock(lines, i); i += 1) body.push(lines[i]);
      blocks.push({ type: 'text', line: start, text: body.join('\n').trim() });
    }
  }
  return blocks;
}

function takeList(lines, start) {
  const first = ITEM.exec(lines[start]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let width = 0; // columns that belong to the marker of the current item
  let loose = false;
  let i = start;
  while (i < lines.length) {
    const line = lines[i];
    if (blank(line)) {
      let next = i + 1;
      while (next < lines.length && blank(lines[next])) next += 1;
      if (next === lines.length) { i = next; break; }
      const item = ITEM.exec(lines[next]);
      const inner = /^ */.exec(lines[next])[0].length >= width;
      const same = item && /\d/.test(item[2]) === ordered && !RULE.test(lines[next]);
      if (!inner && !same) break;
      if (!inner) loose = true;
      items[items.length - 1].push('');
      i = next;
      continue;
    }
    const indent = /^ */.exec(line)[0].length;
    const item = ITEM.exec(line);
    if (items.length && indent >= width) {
      items[items.length - 1].push(line.slice(width));
    } else if (item && !RULE.test(line)) {
      if (/\d/.test(item[2]) !== ordered) break;
      width = item[1].length + item[2].length + Math.min((item[3] || ' ').length, 4);
      items.push([item[4] || '']);
    } else if (startsBlock(lines, i) || blank(lines[i - 1])) {
      break;
    } else {
      items[items.length - 1].push(line.trimStart());
    }
    i += 1;
  }
  return { ordered, items, loose, from: ordered ? parseInt(first[2], 10) : 1, next: i };
}

function cells(line) {
  const out = [];
  let cell = '';
  let code = false;
  const text = line.trim().replace(/^\|/, '');
  for (let i = 0; i < text.length; i += 1) {
    if (text[i] === '\\' && text[i + 1] === '|') { cell += '|'; i += 1; continue; }
    if (text[i] === '`') code = !code;
    if (text[i] === '|' && !code) { out.push(cell.trim()); cell = ''; } else cell += text[i];
  }
  if (cell.trim() || !out.length) out.push(cell.trim());
  return out;
}

function renderBlock(block, depth) {
  switch (block.type) {
    case 'code': return codeBlock(block);
    case 'rule': return h('hr');
    case 'heading': return h('h' + Math.min(6, block.level + 2), null, ...inline(block.text, 0));
    case 'quote': return h('blockquote', null, ...renderLines(block.lines, depth + 1));
    case 'list': return grow(h(block.ordered ? 'ol' : 'ul', block.from !== 1 ? { start: block.from } : null), { items: [] }, block, depth);
    case 'table': {
      const el = h('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Table' }, h('table', null, h('thead', null, row(block, 'th', block.rows[0])), h('tbody')));
      return grow(el, { rows: block.rows.slice(0, 1) }, block);
    }
    default: return h('p', null, ...inline(block.text, 0));
  }
}

const row = (block, tag, list) => h('tr', null, ...block.align.map((align, i) => h(tag, align && { class: align }, ...inline(list[i] || '', 0))));

// Brings a drawn list or table from what it was to what it is: what did not change is not touched.
function grow(el, old, block, depth) {
  const isList = block.type === 'list';
  const place = isList ? el : el.firstChild.lastChild;
  const [before, now] = isList ? [old.items, block.items] : [old.rows.slice(1), block.rows.slice(1)];
  for (let i = 0; i < now.length; i += 1) {
    if (i < before.length && before[i].length === now[i].length && before[i].every((part, at) => part === now[i][at])) continue;
    const part = isList ? h('li', null, ...renderItem(now[i], block.loose, depth + 1)) : row(block, 'td', now[i]);
    if (i < before.length) place.replaceChild(part, place.childNodes[i]);
    else place.append(part);
  }
  while (place.childNodes.length > now.length) place.lastChild.remove();
  return el;
}

// The element of a block that was drawn before and may have grown; null when it has to be drawn anew.
function redrawn({ block: old, node }, block) {
  if (old.type !== block.type) return null;
  if (block.type === 'list') return old.ordered === block.ordered && old.from === block.from && old.loose === block.loose ? grow(node, old, block, 0) : null;
  if (block.type === 'table') return String([old.align, old.rows[0]]) === String([block.align, block.rows[0]]) ? grow(node, old, block) : null;
  return block.type !== 'quote' && block.type !== 'code' && old.text === block.text && old.level === block.level ? node : null;
}

function renderLines(lines, depth) {
  if (depth > DEPTH_MAX) return [h('p', null, lines.join('\n'))];
  return parse(lines).map((block) => renderBlock(block, depth));
}

function renderItem(lines, loose, depth) {
  if (depth > DEPTH_MAX) return [document.createTextNode(lines.join('\n'))];
  const task = /^\[([ xX])\] /.exec(lines[0]);
  const rest = task ? [lines[0].slice(4), ...lines.slice(1)] : lines;
  const nodes = parse(rest).flatMap((block) => (block.type === 'text' && !loose ? inline(block.text, 0) : [renderBlock(block, depth)]));
  if (task) nodes.unshift(document.createTextNode(task[1] === ' ' ? '☐ ' : '☑ '));
  return nodes;
}

function codeBlock(block) {
  const text = document.createTextNode(block.text);
  const label = h('span', { class: 'sr' }, 'Copy code');
  const button = h('button', { type: 'button', class: 'copy', title: 'Copy', onclick: async () => {
    await copyText(text.data);
    button.classList.add('done');
    button.replaceChildren(icon('check'), h('span', { class: 'sr' }, 'Copied'));
    setTimeout(() => { button.classList.remove('done'); button.replaceChildren(icon('copy'), label); }, 1600);
  } }, icon('copy'), label);
  const el = h('div', { class: 'code' }, h('div', { class: 'code-head' }, h('span', null, block.lang || 'text'), button),
    h('pre', { tabindex: '0' }, h('code', null, text)));
  el.codeText = text;
  return el;
}

// Inline text to nodes.
function inline(src, depth) {
  const out = [];
  let plain = '';
  const flush = () => { if (plain) { out.push(document.createTextNode(plain)); plain = ''; } };
  const missing = {}; // delimiters known to have no end in the rest: keeps hostile text linear
  const find = (what, from) => {
    if (missing[what]) return -1;
    const at = src.indexOf(what, from);
    if (at < 0) missing[what] = true;
    return at;
  };
  const put = (node, next) => { flush(); out.push(node); return next; };
  let i = 0;
  while (i < src.length) {
    const c = src[i];
    if (c === '\\' && i + 1 < src.length) {
      if (src[i + 1] === '\n') i = put(h('br'), i + 2);
      else if (/[!-/:-@[-`{-~]/.test(src[i + 1])) { plain += src[i + 1]; i += 2; } else { plain += c; i += 1; }
    } else if (c === '\n') {
      if (plain.endsWith('  ')) { plain = plain.trimEnd(); i = put(h('br'), i + 1); } else { plain += '\n'; i += 1; }
    } else if (c === '`') {
      const run = /^`+/.exec(src.slice(i, i + 64))[0];
      let end = find(run, i + run.length);
      while (end >= 0 && src[end + run.length] === '`') {
        let past = end;
        while (src[past] === '`') past += 1;
        end = find(run, past);
      }
      if (end < 0) { plain += run; i += run.length; } else {
        const code = src.slice(i + run.length, end).replace(/\n/g, ' ');
        i = put(h('code', null, /^ .*[^ ].* $/.test(code) ? code.slice(1, -1) : code), end + run.length);
      }
    } else if (c === '[' || (c === '!' && src[i + 1] === '[')) {
      const open = c === '!' ? i + 1 : i;
      const link = depth < DEPTH_MAX && !missing[']('] && find('](', open) >= 0 ? linkAt(src, open) : null;
      if (link) i = put(anchor(link.url, inline(link.text || link.url, depth + 1)), link.end);
      else { plain += c; i += 1; }
    } else if (c === '<' || (c === 'h' && !/[\p{L}\p{N}]/u.test(src[i - 1] || ' '))) {
      const match = c === '<' ? /^<(https?:\/\/[^\s<>]{1,2000})>/.exec(src.slice(i, i + 2010))
        : /^(https?:\/\/[^\s<>"'`|]{1,2000})/.exec(src.slice(i, i + 2010));
      if (!match) { plain += c; i += 1; continue; }
      let url = match[1];
      if (c === 'h') url = url.replace(/[.,;:!?*_~\]]+$/, '').replace(/\)+$/, (tail) => (url.includes('(') ? tail.slice(0, 1) : ''));
      i = put(anchor(url, [url]), i + (c === '<' ? match[0].length : url.length));
    } else if ((c === '*' || c === '_' || c === '~') && depth < DEPTH_MAX) {
      const twice = src[i + 1] === c;
      const mark = twice ? c + c : c;
      const inWord = c === '_' && /[\p{L}\p{N}]/u.test(src[i - 1] || ' ');
      const end = (c === '~' && !twice) || inWord || /\s/.test(src[i + mark.length] || ' ') ? -1 : closing(src, mark, i + mark.length, find);
      if (end < 0) { plain += mark; i += mark.length; } else {
        const tag = c === '~' ? 'del' : twice ? 'strong' : 'em';
        i = put(h(tag, null, ...inline(src.slice(i + mark.length, end), depth + 1)), end + mark.length);
      }
    } else {
      let next = i + 1;
      while (next < src.length && !'\\\n`[!<h*_~'.includes(src[next])) next += 1;
      plain += src.slice(i, next);
      i = next;
    }
  }
  flush();
  return out;
}

function closing(src, mark, from, find) {
  let at = from;
  for (let tries = 0; tries < 50; tries += 1) {
    at = find(mark, at);
    if (at < 0) return -1;
    if (mark.length === 1 && src[at + 1] === mark) { at += 2; continue; } // a double mark is not two single ones
    const wordGoesOn = mark[0] === '_' && /[\p{L}\p{N}]/u.test(src[at + mark.length] || ' ');
    if (at > from && !/\s/.test(src[at - 1]) && src[at - 1] !== '\\' && !wordGoesOn) {
      // ***both***: leave the last star to the inner pair.
      return mark.length === 2 && src[at + 2] === mark[0] && src[from] === mark[0] ? at + 1 : at;
    }
    at += mark.length;
  }
  return -1;
}

function linkAt(src, open) {
  let depth = 0;
  for (let i = open; i < src.length && i < open + 1000; i += 1) {
    if (src[i] === '\\') i += 1;
    else if (src[i] === '[') depth += 1;
    else if (src[i] === ']') {
      depth -= 1;
      if (depth > 0) continue;
      const match = /^\(\s*<?((?:[^\s()<>]|\([^\s()]*\)){1,2000})>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(src.slice(i + 1, i + 2200));
      return match && { text: src.slice(open + 1, i), url: match[1], end: i + 1 + match[0].length };
    }
  }
  return null;
}

function anchor(url, kids) {
  if (!/^https?:\/\//i.test(url)) return h('span', null, ...kids);
  return h('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, ...kids);
}

// What a screen reader is told of a drawn piece: its words without marks, each block a sentence.
export function spoken(el) {
  const lines = el.innerText.split('\n').map((line) => line.replace(/\s+/g, ' ').trim()).filter((line) => line && line !== 'Copy code');
  const text = lines.map((line) => (/[.!?:;,…]$/.test(line) ? line : line + '.')).join(' ');
  return text.length > SPOKEN_MAX ? text.slice(0, text.lastIndexOf(' ', SPOKEN_MAX)) + '… The rest is on the page.' : text;
}

// A piece of Markdown that may grow.
export class Markdown {
  constructor(el) {
    this.el = el;
    this.text = '';
    this.reset();
  }

  reset() {
    this.stable = 0;      // offset of the first character that may still be drawn differently
    this.stableNodes = 0;
    this.tail = [];       // what was drawn from there on
    this.openCode = null;
    this.el.replaceChildren();
  }

  append(text) {
    this.text += text;
    draw(this);
  }

  set(text) {
    if (text === this.text) { this.render(); return; }
    this.text = text;
    this.reset();
    this.render();
  }

  render() {
    const lines = this.text.slice(this.stable).split('\n');
    const blocks = parse(lines);
    if (blocks.length === 1 && blocks[0].type === 'code' && this.openCode) {
      this.openCode.data = blocks[0].text;
      return;
    }
    this.openCode = null;
    const last = blocks.length - 1;
    // The last block may grow. While it is one unfinished line, it may even turn out to belong to the one before.
    const keep = last > 0 && blocks[last].line === lines.length - 1 ? last - 1 : last;
    const nodes = blocks.map((block, i) => (i < this.tail.length && redrawn(this.tail[i], block)) || renderBlock(block, 0));
    nodes.forEach((node, i) => {
      const there = this.el.childNodes[this.stableNodes + i];
      if (there === node) return;
      if (there) this.el.replaceChild(node, there);
      else this.el.append(node);
    });
    while (this.el.childNodes.length > this.stableNodes + nodes.length) this.el.lastChild.remove();
    this.tail = blocks.slice(Math.max(0, keep)).map((block, i) => ({ block, node: nodes[Math.max(0, keep) + i] }));
    if (keep > 0) {
      this.stableNodes += keep;
      for (let i = 0; i < blocks[keep].line; i += 1) this.stable += lines[i].length + 1;
    }
    if (last >= 0 && keep === last && blocks[last].type === 'code' && blocks[last].line < lines.length - 1) this.openCode = nodes[last].codeText;
  }
}
