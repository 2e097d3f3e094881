// A tool server on stdin and stdout (MCP): tools that say what they are told; what they are told is also in its log. Started by the hub under test.
import readline from 'node:readline';

const answer = (id, result) => process.stdout.write(JSON.stringify({ jsonrpc: '2.0', id, result }) + '\n');
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (method === 'initialize') answer(id, { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: 'echo', version: '1' } });
  else if (method === 'tools/list') {
    answer(id, { tools: ['echo', 'shout'].map((name) => ({ name, description: `Says it: ${name}`, inputSchema: { type: 'object', properties: { text: { type: 'string', description: 'What to say' } }, required: ['text'] } })) });
  } else if (method === 'tools/call') {
    process.stderr.write(`asked to say ${params.arguments.text}\n`);
    answer(id, { content: [{ type: 'text', text: params.arguments.text }] });
  } else if (id !== undefined) answer(id, {});
});
