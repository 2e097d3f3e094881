// A scripted model server (OpenAI chat completions): `count to N` answers with N numbered lines, slowly; anything else
// with one sentence that repeats the question. `call NAME {..}` calls that tool and repeats its result. `count to N, wait at M P`
// stops after line M, and again after line P, until the test says `go`: what is in the middle of an answer stays there.
import http from 'node:http';

export async function startModel(delayMs = 25) {
  const held = new Set();
  // Until the test says so, or nobody listens any more.
  const hold = (response) => new Promise((go) => {
    held.add(go);
    response.once('close', () => { held.delete(go); go(); });
  });
  const server = http.createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => answer(request, body, response, { delayMs, hold }));
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return {
    baseUrl: `http://127.0.0.1:${server.address().port}/v1`,
    close: () => { server.closeAllConnections(); server.close(); },
    // Lets an answer that waits go on; waits until one does.
    async go() {
      for (let i = 0; i < 1500 && !held.size; i += 1) await new Promise((later) => setTimeout(later, 20));
      const [first] = held;
      if (!first) throw new Error('no answer waits');
      held.delete(first);
      first();
    },
  };
}

function question(messages) {
  const last = [...messages].reverse().find((message) => message.role === 'user');
  return Array.isArray(last?.content) ? last.content.map((part) => part.text || '').join('') : last?.content || '';
}

function textFor(messages) {
  const said = question(messages);
  const last = messages[messages.length - 1];
  if (last?.role === 'tool') return [`The tool said: ${last.content}`];
  const count = /count to (\d+)/i.exec(said);
  if (!count) return [`You said: ${said.slice(-200)}`];
  return Array.from({ length: Number(count[1]) }, (_, i) => `- line ${i + 1} of ${count[1]}\n`);
}

// The call that the last message asks for; none once its result is there.
function callFor(messages) {
  const last = messages[messages.length - 1];
  const wish = last?.role === 'user' && /^call (\w+) (\{.*\})$/s.exec(last.content);
  return wish ? { name: wish[1], arguments: wish[2] } : null;
}

async function answer(request, body, response, { delayMs, hold }) {
  if (!request.url.endsWith('/chat/completions')) {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ object: 'list', data: [{ id: 'scripted', object: 'model' }] }));
    return;
  }
  const asked = JSON.parse(body);
  const parts = textFor(asked.messages);
  const id = 'chatcmpl-scripted';
  const usage = { prompt_tokens: 10, completion_tokens: parts.length, total_tokens: 10 + parts.length };
  if (!asked.stream) {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ id, object: 'chat.completion', model: asked.model, usage,
      choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: parts.join('') } }] }));
    return;
  }
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  const send = (delta, finish_reason, extra) => response.write(`data: ${JSON.stringify({ id, object: 'chat.completion.chunk', model: asked.model,
    choices: [{ index: 0, delta, finish_reason }], ...extra })}\n\n`);
  send({ role: 'assistant', content: '' }, null);
  const call = callFor(asked.messages);
  if (call) {
    send({ tool_calls: [{ index: 0, id: `call-${asked.messages.length}`, type: 'function', function: call }] }, null);
    send({}, 'tool_calls', { usage });
    response.end('data: [DONE]\n\n');
    return;
  }
  const stops = (/, wait at ([\d ]+)/.exec(question(asked.messages))?.[1] || '').split(' ').map(Number);
  for (const [i, part] of parts.entries()) {
    if (response.destroyed) return;
    await new Promise((later) => setTimeout(later, delayMs));
    send({ content: part }, null);
    if (stops.includes(i + 1)) await hold(response);
  }
  send({}, 'stop', { usage });
  response.end('data: [DONE]\n\n');
}
