// Requests that no client sends: headers that say something else than the body, bodies that can be
// understood in more than one way, sessions of other users, and large bodies. After each rejected
// write_note, the note must not exist.
//
// Usage: node hostile.mjs --issuer URL --server URL
import { randomBytes } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { args, check, token, tokenRequest } from './support.mjs';

const OLD = '2025-11-25';
const NEW = '2026-07-28';

// ---- tokens -------------------------------------------------------------------------------------

const reader = await token('alice', 'notes:read');
const writer = await token('alice', 'notes:read notes:write');
const bob = await token('bob', 'notes:read notes:write');
const carol = await token('carol', 'notes:read');
const machine = await tokenRequest(
  { grant_type: 'client_credentials', scope: 'notes:read notes:write', resource: args.server },
  { authorization: `Basic ${Buffer.from('machine:machine-secret').toString('base64')}` },
);

// ---- requests -----------------------------------------------------------------------------------

/**
 * Sends headers as they are: an array is sent as several headers of that name. With
 * `Expect: 100-continue`, the body is sent only once the server asks for it. After `chunks`, the
 * body does not end.
 */
function send({ method = 'POST', headers = {}, body, chunks, path = '' }) {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(args.server + path, { method, headers, agent: false });
    let asked = false;
    outgoing.on('response', (response) => {
      let text = '';
      const finish = () => {
        const { statusCode: status, headers: received } = response;
        const session = received['mcp-session-id'];
        resolve({ status, challenge: received['www-authenticate'] ?? '', session, asked, text });
        outgoing.destroy();
      };
      response.setEncoding('utf8').on('data', (chunk) => (text += chunk));
      response.on('end', finish).on('error', finish);
      // An event stream of a GET does not end.
      if (method === 'GET' && response.statusCode === 200) finish();
    });
    outgoing.on('error', reject); // after a response, without effect
    outgoing.setTimeout(10_000, () => outgoing.destroy(new Error('no response within ten seconds')));
    if ('Expect' in headers) {
      outgoing.on('continue', () => {
        asked = true;
        outgoing.end(body);
      });
      outgoing.flushHeaders();
    } else if (chunks) {
      for (const chunk of chunks) outgoing.write(chunk);
    } else {
      outgoing.end(body);
    }
  });
}

const withToken = (accessToken) => (accessToken ? { Authorization: `Bearer ${accessToken}` } : {});
const EVENTS = { Accept: 'text/event-stream', 'MCP-Protocol-Version': OLD };
const JSON_HEADERS = { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' };

/** Posts `body`, a message or text, under the old version, with a session if there is one. */
function postOld(accessToken, body, { session, headers = {} } = {}) {
  return send({
    headers: {
      ...JSON_HEADERS,
      ...withToken(accessToken),
      'MCP-Protocol-Version': OLD,
      ...(session ? { 'Mcp-Session-Id': session } : {}),
      ...headers,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

/** Posts a message under the new version, which has no sessions but requires headers. */
function postNew(accessToken, message, headers = {}) {
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': NEW,
    'io.modelcontextprotocol/clientInfo': { name: 'check', version: '1' },
    'io.modelcontextprotocol/clientCapabilities': {},
  };
  const name = message.params?.name ?? message.params?.uri;
  return send({
    headers: {
      ...JSON_HEADERS,
      ...withToken(accessToken),
      'MCP-Protocol-Version': NEW,
      'Mcp-Method': message.method,
      ...(name ? { 'Mcp-Name': name } : {}),
      ...headers,
    },
    body: JSON.stringify({ ...message, params: { ...message.params, _meta } }),
  });
}

/** The JSON-RPC message of a response, which is JSON or one event. */
function message({ text }) {
  const json = text.startsWith('{') ? text : (text.match(/^data: ?(\{.*)$/m)?.[1] ?? 'null');
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

let lastId = 0;
const request = (method, params = {}) => ({ jsonrpc: '2.0', id: (lastId += 1), method, params });
const callTool = (name, toolArguments = {}) => request('tools/call', { name, arguments: toolArguments });
const writeNote = (id) => callTool('write_note', { id, text: 'marker' });

async function startSession(accessToken) {
  const initialize = request('initialize', {
    protocolVersion: OLD,
    capabilities: {},
    clientInfo: { name: 'check', version: '1' },
  });
  const { status, session } = await send({
    headers: { ...JSON_HEADERS, ...withToken(accessToken) },
    body: JSON.stringify(initialize),
  });
  if (status !== 200 || !session) throw new Error(`no session: ${status}`);
  await postOld(accessToken, { jsonrpc: '2.0', method: 'notifications/initialized' }, { session });
  return session;
}

async function notes() {
  const { result } = message(await postNew(writer, request('resources/list')));
  return result.resources.map(({ uri }) => uri);
}

// ---- what is checked ----------------------------------------------------------------------------

const session = await startSession(reader);
const bobsSession = await startSession(bob);

const test = (name, actual, wanted) => check(`hostile: ${name}`, actual, wanted);
const subject = (response) =>
  JSON.parse(message(response)?.result?.content?.[0]?.text ?? '{}').subject ?? response;

// What is allowed, so that a rejection below has no other reason.
const whoami = async (accessToken, headers) =>
  subject(await postOld(accessToken, callTool('whoami'), { session, headers }));
test(`whoami under ${OLD}`, await whoami(reader), 'alice');
test(`whoami under ${OLD} with Mcp-Method alone`, await whoami(reader, { 'Mcp-Method': 'tools/call' }), 'alice');
test(`whoami under ${NEW}`, subject(await postNew(reader, callTool('whoami'))), 'alice');
for (const id of ['old', 'new']) {
  await (id === 'old' ? postOld(writer, writeNote(id), { session }) : postNew(writer, writeNote(id)));
  test(`write_note with its scope: ${id} version`, await notes(), (all) => all.includes(`notes://${id}`));
}
test('admin with its role', await postNew(carol, callTool('admin')), ({ text }) => text.includes('deleted: '));

/** Rejected with `status` and the JSON-RPC error `code`, or with a challenge that has `text`. */
const rejection = (status, code) => (response) =>
  response.status === status && message(response)?.error?.code === code;
const challenged = (status, ...texts) => (response) =>
  response.status === status && texts.every((text) => response.challenge.includes(text));
const STEP_UP = challenged(403, 'error="insufficient_scope"', 'scope="notes:read notes:write"');
const MISMATCH = rejection(400, -32020);
const INVALID = rejection(400, -32600);
const UNREADABLE = rejection(400, -32700);

/** `attempt` gets the name of a note, which must not exist afterwards. */
async function rejected(name, attempt, wanted) {
  const marker = randomBytes(8).toString('hex');
  const response = await attempt(marker);
  const written = (await notes()).some((uri) => uri.includes(marker));
  test(name, { ...response, written }, () => wanted(response) && !written);
}

const withSession = (build, headers) => (id) => postOld(reader, build(id), { session, headers });
const fresh = (headers) => (id) => postNew(reader, writeNote(id), headers);
const text = (id) => JSON.stringify(writeNote(id));
const base64 = (value) => `=?base64?${Buffer.from(value).toString('base64')}?=`;

await rejected(`write_note under ${OLD}`, withSession(writeNote), STEP_UP);
await rejected(`write_note under ${NEW}`, fresh(), STEP_UP);
await rejected('write_note without a session', (id) => postOld(reader, writeNote(id)), STEP_UP);
await rejected('write_note without a version', withSession(writeNote, { 'MCP-Protocol-Version': [] }), STEP_UP);

const LIES = {
  'Mcp-Name whoami': { 'Mcp-Name': 'whoami' },
  'Mcp-Method tools/list': { 'Mcp-Method': 'tools/list' },
  'Mcp-Name whoami in Base64': { 'Mcp-Name': base64('whoami') },
  'Mcp-Name in other case': { 'Mcp-Name': 'Write_Note' },
  'Mcp-Name whoami, then write_note': { 'Mcp-Name': ['whoami', 'write_note'] },
  'Mcp-Name write_note, then whoami': { 'Mcp-Name': ['write_note', 'whoami'] },
  'Mcp-Name write_note twice': { 'Mcp-Name': ['write_note', 'write_note'] },
  'Mcp-Method twice': { 'Mcp-Method': ['tools/list', 'tools/call'] },
};
for (const [name, headers] of Object.entries(LIES)) {
  await rejected(`${name} under ${OLD}`, withSession(writeNote, headers), MISMATCH);
  await rejected(`${name} under ${NEW}`, fresh(headers), MISMATCH);
}
for (const versions of [[OLD, NEW], [NEW, OLD]]) {
  const headers = { 'MCP-Protocol-Version': versions, 'Mcp-Name': 'whoami', 'Mcp-Method': 'tools/call' };
  await rejected(`versions ${versions.join(', then ')}`, withSession(writeNote, headers), MISMATCH);
}
await rejected('Mcp-Name write_note in Base64', fresh({ 'Mcp-Name': base64('write_note') }), STEP_UP);

const BODIES = {
  'name with an escape': [(id) => text(id).replace('write_note', 'write\\u005fnote'), STEP_UP],
  'method with an escape': [(id) => text(id).replace('tools/call', 'tools\\/call'), STEP_UP],
  'member "name" with an escape': [(id) => text(id).replace('"name"', '"n\\u0061me"'), STEP_UP],
  'member "params" with an escape': [(id) => text(id).replace('"params"', '"par\\u0061ms"'), STEP_UP],
  'a batch': [(id) => JSON.stringify([callTool('whoami'), writeNote(id)]), STEP_UP],
  'name twice, whoami first': [(id) => text(id).replace('"name"', '"name":"whoami","name"'), INVALID],
  'name twice, whoami last': [(id) => text(id).replace('"write_note"', '"write_note","name":"whoami"'), INVALID],
  'name twice, once with an escape': [(id) => text(id).replace('"name"', '"n\\u0061me":"whoami","name"'), INVALID],
  'method twice': [(id) => text(id).replace('"method"', '"method":"tools/list","method"'), INVALID],
  'params twice': [(id) => text(id).replace('"params"', '"params":{"name":"whoami"},"params"'), INVALID],
  'name in an array': [(id) => text(id).replace('"write_note"', '["write_note"]'), INVALID],
  'text after the message': [(id) => `${JSON.stringify(callTool('whoami'))}${text(id)}`, UNREADABLE],
  'an unfinished message': [(id) => text(id).slice(0, -1), UNREADABLE],
};
for (const [name, [build, wanted]] of Object.entries(BODIES)) await rejected(name, withSession(build), wanted);

// Other ways to things whose rule is notes:write.
const DOORS = {
  'resources/read': request('resources/read', { uri: 'drafts://1' }),
  'resources/subscribe': request('resources/subscribe', { uri: 'drafts://1' }),
  'prompts/get': request('prompts/get', { name: 'summarise' }),
  'completion/complete': request('completion/complete', {
    ref: { type: 'ref/resource', uri: 'drafts://{id}' },
    argument: { name: 'id', value: '' },
  }),
};
for (const [name, body] of Object.entries(DOORS)) {
  test(`${name} under ${OLD}`, await postOld(reader, body, { session }), STEP_UP);
}

// Sessions.
const unknown = 'c0ffee00-0000-4000-8000-000000000000';
const NO_SESSION = (response) => response.status === 404;
test('an unknown session', await postOld(reader, callTool('whoami'), { session: unknown }), NO_SESSION);
for (const [owner, accessToken] of Object.entries({ 'another user': bob, 'another client': machine })) {
  const post = (id) => postOld(accessToken, writeNote(id), { session });
  await rejected(`POST in the session of ${owner}`, post, NO_SESSION);
  for (const method of ['GET', 'DELETE']) {
    const headers = { ...EVENTS, ...withToken(accessToken), 'Mcp-Session-Id': session };
    test(`${method} in the session of ${owner}`, await send({ method, headers }), NO_SESSION);
  }
}
const both = { 'Mcp-Session-Id': [bobsSession, session] };
const REJECTED = (response) => response.status >= 400;
await rejected('two sessions', (id) => postOld(bob, writeNote(id), { headers: both }), REJECTED);
test('the session still works', await whoami(reader), 'alice');
test('with another token of the user, too', await whoami(await token('alice', 'notes:read')), 'alice');

// Without a token.
const NO_TOKEN = (response) =>
  challenged(401, 'resource_metadata=')(response) && !response.challenge.includes('error=');
await rejected('a session alone', (id) => postOld(undefined, writeNote(id), { session }), NO_TOKEN);
const twoTokens = { Authorization: [`Bearer ${reader}`, `Bearer ${writer}`] };
await rejected('two tokens', (id) => postOld(undefined, writeNote(id), { session, headers: twoTokens }), REJECTED);
const path = `?access_token=${writer}`;
await rejected('a token in the query', (id) => send({ path, headers: JSON_HEADERS, body: text(id) }), NO_TOKEN);
for (const method of ['GET', 'DELETE']) {
  const headers = { ...EVENTS, 'Mcp-Session-Id': session };
  test(`${method} without a token`, await send({ method, headers }), NO_TOKEN);
}

// Large bodies: nothing of them is read if the headers suffice to reject them.
const large = (id) => JSON.stringify(callTool('write_note', { id, text: 'x'.repeat(5_000_000) }));
const expecting = (body) => ({ Expect: '100-continue', 'Content-Length': body.length });
const unread = (wanted) => (response) => wanted(response) && !response.asked;
const LIMIT = 4 * 1024 * 1024;
const TOO_LARGE = (response) => response.status === 413;
const sendLarge = (accessToken) => (id) => {
  const body = large(id);
  return postOld(accessToken, body, { session, headers: expecting(body) });
};
await rejected('5 MB without a token are not read', sendLarge(undefined), unread(NO_TOKEN));
await rejected('5 MB with a token are not read', sendLarge(writer), unread(TOO_LARGE));
// The last chunk exceeds the limit, and nothing is on the way when the server responds and closes.
await rejected(
  'more than 4 MiB with a token, in chunks',
  (id) => {
    const headers = { ...JSON_HEADERS, ...withToken(writer), 'Mcp-Session-Id': session };
    const body = large(id);
    const chunks = [...body.slice(0, LIMIT).match(/.{1,65536}/gs), body.slice(LIMIT, LIMIT + 1024)];
    return send({ headers, chunks });
  },
  TOO_LARGE,
);
