// The REST side: one fetch wrapper, its errors, and the credential.
import { tab } from './store.js';

export class ApiError extends Error {
  // status 0: the hub was not reached at all.
  constructor(status, message, code, retryAfter, id) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
    this.id = id; // of a 500, in the log
  }
}

let onSignedOut = () => {};
export function whenSignedOut(handler) { onSignedOut = handler; }

// An API key lives in this tab only. Without one the login cookie speaks.
export function apiKey() { return tab.get('key'); }
export function setApiKey(key) { tab.set('key', key); }

export function headers(extra) {
  const key = apiKey();
  return { ...(key ? { Authorization: 'Bearer ' + key } : {}), ...extra };
}

export async function failure(response) {
  let body = {};
  try { body = JSON.parse(await response.text()); } catch { /* not every error is JSON */ }
  const retryAfter = Number(response.headers.get('Retry-After')) || 0;
  return new ApiError(response.status, body.error || 'HTTP ' + response.status, body.code, retryAfter, body.id);
}

async function raw(method, path, body, timeoutMs) {
  const options = { method, headers: headers(), credentials: 'same-origin', signal: AbortSignal.timeout(timeoutMs || 20000) };
  if (body !== undefined) {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(body);
  }
  let response;
  try { response = await fetch(path, options); } catch { throw new ApiError(0, 'Holt cannot be reached.'); }
  if (!response.ok) throw await failure(response);
  if (response.status === 204) return null;
  try { return JSON.parse(await response.text()); } catch { throw new ApiError(0, 'The answer was cut off.'); }
}

export const auth = {
  session: () => raw('GET', '/auth/session', undefined, 6000),
  config: () => raw('GET', '/auth/config'),
  login: (password) => raw('POST', '/auth/login', { password }),
  logout: () => raw('POST', '/auth/logout'),
  setup: () => raw('GET', '/api/v1/setup'),
  createAccount: (pin, password) => raw('POST', '/api/v1/setup/account', { pin, password }),
};

// Is the credential good? true, false, or null when nobody answered.
export async function signedIn() {
  try {
    if (apiKey()) {
      await raw('GET', '/api/v1/sessions', undefined, 6000);
      return true;
    }
    const answer = await auth.session();
    return answer.authenticated === true ? true : answer.authenticated === false ? false : null;
  } catch (error) {
    if (apiKey() && error.status === 401) return false;
    return apiKey() && error.status === 403 ? true : null;
  }
}

// A 401 alone never throws anybody out: the login itself is asked first.
export async function checkSignedIn() {
  const answer = await signedIn();
  if (answer === false) onSignedOut();
  return answer;
}

async function call(method, where, body) {
  try {
    // A change may have to wait for a program to start.
    return await raw(method, where, body, method === 'GET' ? 20000 : 90000);
  } catch (error) {
    if (error.status === 401) await checkSignedIn();
    throw error;
  }
}

const id = encodeURIComponent;
// A path from a template: every value is one segment.
export const path = (parts, ...values) => parts.reduce((all, part, i) => all + id(values[i - 1]) + part);
export const query = (values) => {
  const text = new URLSearchParams(Object.entries(values).filter(([, value]) => value != null && value !== '')).toString();
  return text && '?' + text;
};

const base = '/api/v1/';
export const api = {
  get: (where) => call('GET', base + where),
  post: (where, body) => call('POST', base + where, body),
  put: (where, body) => call('PUT', base + where, body),
  patch: (where, body) => call('PATCH', base + where, body),
  del: (where) => call('DELETE', base + where),
  sessions: () => api.get('sessions'),
  session: (sid) => api.get(path`sessions/${sid}`),
  messages: (sid) => api.get(path`sessions/${sid}/messages`),
  agents: () => api.get('agents'),
  decide: (aid, action) => api.post(path`approvals/${aid}/` + (action === 'deny' ? 'deny' : 'approve' + query({ auto_approve: { auto_session: 'session', auto_always: 'permanent' }[action] }))),
};
