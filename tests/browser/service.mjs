// A tool server at an address that wants a login (MCP, OAuth), and the service where people log in: one click says yes.
import http from 'node:http';

export async function startService() {
  const service = { mood: 'yes', tokens: new Set() };
  const server = http.createServer((request, response) => {
    const base = `http://${request.headers.host}`;
    const { pathname, searchParams: query } = new URL(request.url, base);
    const json = (value, status = 200, more = {}) => { response.writeHead(status, { 'Content-Type': 'application/json', ...more }); response.end(JSON.stringify(value)); };
    let text = '';
    request.on('data', (chunk) => { text += chunk; });
    request.on('end', () => {
      if (pathname === '/.well-known/oauth-protected-resource/mcp') json({ resource: base + '/mcp', authorization_servers: [base] });
      else if (pathname === '/.well-known/oauth-authorization-server') {
        json({ issuer: base, authorization_endpoint: base + '/login', token_endpoint: base + '/tokens', registration_endpoint: base + '/clients', code_challenge_methods_supported: ['S256'], token_endpoint_auth_methods_supported: ['none'] });
      } else if (pathname === '/clients') json({ client_id: 'holt', redirect_uris: JSON.parse(text).redirect_uris }, 201);
      else if (pathname === '/login') {
        const back = new URL(query.get('redirect_uri'));
        back.searchParams.set('state', query.get('state'));
        if (service.mood === 'no') back.searchParams.set('error', 'access_denied');
        else back.searchParams.set('code', 'code-1');
        response.writeHead(200, { 'Content-Type': 'text/html' });
        response.end(`<!doctype html><title>Log in</title><a href="${back.href.replaceAll('&', '&amp;')}">Yes</a>`);
      } else if (pathname === '/tokens') {
        const token = 'token-' + service.tokens.size;
        service.tokens.add(token);
        json({ access_token: token, token_type: 'Bearer', expires_in: 3600 });
      } else if (pathname === '/mcp' && !service.tokens.has((request.headers.authorization || '').replace('Bearer ', ''))) {
        json({ error: 'unauthorized' }, 401, { 'WWW-Authenticate': 'Bearer' });
      } else if (pathname === '/mcp' && request.method === 'POST') {
        const { id, method, params } = JSON.parse(text);
        if (id === undefined) { response.writeHead(202); response.end(); } else if (method === 'initialize') json({ jsonrpc: '2.0', id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: 'mail', version: '1' } } });
        else json({ jsonrpc: '2.0', id, result: method === 'tools/list' ? { tools: [{ name: 'mail_list', description: 'Lists mails', inputSchema: { type: 'object' } }] } : {} });
      } else { response.writeHead(pathname === '/mcp' ? 405 : 404); response.end(); }
    });
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  service.url = `http://127.0.0.1:${server.address().port}/mcp`;
  service.close = () => { server.closeAllConnections(); server.close(); };
  return service;
}
