// The Markdown renderer alone, in Node with a handful of stand-in DOM nodes: no hub, no browser.
import assert from 'node:assert/strict';

class Node {
  constructor(tag) { this.tag = tag; this.childNodes = []; this.attributes = {}; }
  append(...kids) { for (const kid of kids) this.add(typeof kid === 'string' ? new Text(kid) : kid); }
  add(kid) { kid.parent = this; this.childNodes.push(kid); }
  get lastChild() { return this.childNodes.at(-1); }
  get firstChild() { return this.childNodes[0]; }
  replaceChild(fresh, old) { fresh.remove(); this.childNodes[this.childNodes.indexOf(old)] = fresh; fresh.parent = this; }
  remove() { const at = this.parent ? this.parent.childNodes.indexOf(this) : -1; if (at >= 0) this.parent.childNodes.splice(at, 1); }
  replaceChildren(...kids) { this.childNodes = []; this.append(...kids); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  addEventListener() {}
  set className(value) { this.attributes.class = value; }
  get html() {
    if (this.tag === 'button') return '';
    const attributes = Object.entries(this.attributes).filter(([name]) => ['href', 'start', 'class'].includes(name)).map(([name, value]) => ` ${name}=${value}`).join('');
    return `<${this.tag}${attributes}>${this.childNodes.map((kid) => kid.html).join('')}</${this.tag}>`;
  }
}
class Text extends Node {
  constructor(data) { super('#text'); this.data = data; }
  get html() { return this.data.replace(/&/g, '&amp;').replace(/</g, '&lt;'); }
}

let Markdown;
function drawn(text) {
  const el = new Node('x');
  new Markdown(el).set(text);
  return el.childNodes.map((kid) => kid.html).join('');
}
function streamed(text, size) {
  const el = new Node('x');
  const view = new Markdown(el);
  for (let i = 0; i < text.length; i += size) {
    view.append(text.slice(i, i + size));
    view.render();
  }
  return el.childNodes.map((kid) => kid.html).join('');
}

const CASES = [
  ['plain *em* **strong** ***both*** `co<de`', '<p>plain <em>em</em> <strong>strong</strong> <strong><em>both</em></strong> <code>co&lt;de</code></p>'],
  ['<script>alert(1)</script>', '<p>&lt;script>alert(1)&lt;/script></p>'],
  ['[a](https://x.org/a_(b)) [b](javascript:alert(1)) <https://y.org>', '<p><a href=https://x.org/a_(b)>a</a> <span>b</span> <a href=https://y.org>https://y.org</a></p>'],
  ['see https://x.org/a, ok (https://y.org).', '<p>see <a href=https://x.org/a>https://x.org/a</a>, ok (<a href=https://y.org>https://y.org</a>).</p>'],
  ['snake_case_name and 2 * 3 * 4', '<p>snake_case_name and 2 * 3 * 4</p>'],
  ['# One\n## Two ##\ntext', '<h3>One</h3><h4>Two</h4><p>text</p>'],
  ['- a\n- b\n  - c\n  - d\n- e', '<ul><li>a</li><li>b<ul><li>c</li><li>d</li></ul></li><li>e</li></ul>'],
  ['3. c\n4. d', '<ol start=3><li>c</li><li>d</li></ol>'],
  ['1. a\n\n   more\n\n2. b', '<ol><li><p>a</p><p>more</p></li><li><p>b</p></li></ol>'],
  ['- [x] done\n- [ ] open', '<ul><li>☑ done</li><li>☐ open</li></ul>'],
  ['> a\n> b\n\nc', '<blockquote><p>a\nb</p></blockquote><p>c</p>'],
  ['a\n\n---\n\nb', '<p>a</p><hr></hr><p>b</p>'],
  ['a  \nb\\\nc', '<p>a<br></br>b<br></br>c</p>'],
];
const table = '| a | b |\n|---|--:|\n| 1 | `x|y` |\n';
const long = CASES.map(([text]) => text).join('\n\n') + '\n\n' + table + '\n```sh\nls -l\n\n# not a heading\n```\n\nafter\n```\nopen `code` <b>';

// Processor time in milliseconds: what else the machine does does not count. The limits leave a slow one ten times more
// than it needs.
function cost(work) {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

const tests = {
  async 'markdown: what is drawn'() {
    globalThis.document = {
      createElement: (tag) => new Node(tag), createElementNS: (_, tag) => new Node(tag), createTextNode: (text) => new Text(text),
    };
    globalThis.requestAnimationFrame = () => 0;
    ({ Markdown } = await import('../../src/web/assets/markdown.js'));
    for (const [text, html] of CASES) assert.equal(drawn(text), html, text);
    assert.match(drawn(table), /<tr><td>1<\/td><td class=end><code>x\|y<\/code><\/td><\/tr>/);
    assert.match(drawn('```js\na < b\n```\nz'), /<pre><code>a &lt; b<\/code><\/pre><\/div><p>z<\/p>/);
  },

  async 'markdown: streamed in any pieces gives the same'() {
    for (const text of [...CASES.map(([each]) => each), table, long]) {
      for (const size of [1, 2, 3, 7, 50]) assert.equal(streamed(text, size), drawn(text), `${size}: ${text}`);
    }
  },

  async 'markdown: hostile text stays cheap'() {
    const n = 30000;
    const hostile = ['*', '_a ', '**a ', '[', '](', '`', '> ', '- ', '#', '| ', '<http', '~~', '(', 'https://', '```', '* * '].map((bit) => bit.repeat(n / bit.length));
    hostile.push('# ' + ' '.repeat(n) + 'x', '|a|\n' + '-'.repeat(900) + ' '.repeat(n) + 'x', '``` ' + ' '.repeat(n) + '`', 'a\n'.repeat(n / 2), '- a\n'.repeat(n / 4), '[a](' .repeat(n / 4));
    for (const text of hostile) {
      const took = cost(() => drawn(text));
      assert.ok(took < 700, `${Math.round(took)} ms for ${JSON.stringify(text.slice(0, 20))}`);
    }
  },

  async 'markdown: one long list or table at full speed'() {
    for (const line of ['- an item with `code` and **more**\n', '| a cell | another |\n']) {
      const text = (line[0] === '|' ? '| a | b |\n|---|---|\n' : '') + line.repeat(1500);
      const each = cost(() => assert.equal(streamed(text, 60).length, drawn(text).length)) / Math.ceil(text.length / 60);
      assert.ok(each < 8, `${each.toFixed(2)} ms a frame`);
    }
  },

  async 'markdown: a long answer at full speed'() {
    const text = long.replace(/```\nopen.*/s, '').repeat(60);
    const frames = Math.ceil(text.length / 12);
    const each = cost(() => streamed(text, 12)) / frames;
    assert.ok(each < 2, `${each.toFixed(2)} ms a frame, ${frames} frames`);
  },
};

export default { name: 'markdown', tests };
