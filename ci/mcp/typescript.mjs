// The TypeScript clients: @modelcontextprotocol/sdk (v1), which registers itself, and
// @modelcontextprotocol/client (v2), which uses the registered client `native`.
//
// Usage: node typescript.mjs --client v1|v2-legacy|v2-auto --issuer URL --server URL
import { browse } from './browser.mjs';
import { REDIRECT, args, check, requestsFromNow, scopesOf } from './support.mjs';

const CLIENTS = {
  v1: async () => {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { UnauthorizedError } = await import('@modelcontextprotocol/sdk/client/auth.js');
    const callback = (parameters) => parameters.get('code');
    return { Client, Transport: StreamableHTTPClientTransport, UnauthorizedError, callback };
  },
  'v2-legacy': () => v2('legacy'),
  'v2-auto': () => v2('auto'),
};
async function v2(mode) {
  const { Client, StreamableHTTPClientTransport, UnauthorizedError } = await import('@modelcontextprotocol/client');
  return {
    Client,
    Transport: StreamableHTTPClientTransport,
    UnauthorizedError,
    callback: (parameters) => parameters,
    options: { versionNegotiation: { mode } },
    clientId: 'native',
  };
}
if (!Object.hasOwn(CLIENTS, args.client ?? '')) {
  console.error(`usage: node typescript.mjs --client ${Object.keys(CLIENTS).join('|')} --issuer URL --server URL`);
  process.exit(2);
}
const { Client, Transport, UnauthorizedError, callback, options, clientId } = await CLIENTS[args.client]();
const test = (name, actual, wanted) => check(`TypeScript ${args.client}: ${name}`, actual, wanted);

/** Memory of the client: its registration, its tokens, and the sign-in that is in progress. */
class Memory {
  redirectUrl = REDIRECT;
  clientMetadata = {
    client_name: 'check',
    redirect_uris: [REDIRECT],
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code'], // no refresh token: it would keep v1 from asking for more
    response_types: ['code'],
  };
  constructor() {
    if (clientId) this.client = { client_id: clientId };
    else this.saveClientInformation = (client) => void (this.client = client);
  }
  clientInformation = () => this.client;
  tokens = () => this.saved;
  saveTokens = (tokens) => void (this.saved = tokens);
  saveCodeVerifier = (verifier) => void (this.verifier = verifier);
  codeVerifier = () => this.verifier;
  discoveryState = () => this.discovered;
  saveDiscoveryState = (state) => void (this.discovered = state);
  redirectToAuthorization = (url) => void (this.authorizationUrl = url);
}
const memory = new Memory();
const exchanges = []; // of all transports

function newTransport() {
  const recording = async (url, init) => {
    const response = await fetch(url, init);
    const challenge = response.headers.get('www-authenticate') ?? '';
    exchanges.push({
      method: init?.method ?? 'GET',
      url: String(url),
      mirrored: new Headers(init?.headers).get('mcp-method'),
      status: response.status,
      challenge,
    });
    return response;
  };
  return new Transport(new URL(args.server), { authProvider: memory, fetch: recording });
}

/** Runs `attempt`; after each sign-in that the client asks for, again. At most four attempts. */
async function signingIn(transport, attempt) {
  for (let attempts = 1; ; attempts += 1) {
    try {
      return await attempt(transport);
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || attempts === 4) throw error;
      const { searchParams } = await browse(memory.authorizationUrl, REDIRECT);
      await transport.finishAuth(callback(searchParams));
    }
  }
}

async function connect() {
  let client, transport;
  // A transport cannot be started twice, so each attempt has a new one; the previous one finishes
  // the sign-in.
  await signingIn({ finishAuth: (answer) => transport.finishAuth(answer) }, async () => {
    transport = newTransport();
    client = new Client({ name: 'check', version: '1' }, options);
    await client.connect(transport);
  });
  const call = (name, toolArguments = {}) =>
    signingIn(transport, () => client.callTool({ name, arguments: toolArguments }));
  return { client, call };
}

const text = (result) => result.content?.[0]?.text ?? JSON.stringify(result);
/** The HTTP status of the error with which a call fails. */
const status = (promise) =>
  promise.then(
    (result) => `no error: ${text(result)}`,
    (error) => error.status ?? error.code ?? String(error),
  );

let requests = await requestsFromNow();
const { client, call } = await connect();

const [first, second] = exchanges;
test('Mcp-Method of the first request', first.mirrored, args.client === 'v2-auto' ? 'server/discover' : null);
const document = /resource_metadata="([^"]+)"/.exec(first.challenge)?.[1];
test('the first request gets 401', first.status, 401);
test('and a challenge without an error', first.challenge, (challenge) => challenge && !challenge.includes('error='));
const { method, url, status: found } = second;
test('the challenge leads the client to the metadata', [method, url, found], ['GET', document, 200]);

const { signIns, registrations } = await requests();
test(clientId ? 'no registration' : 'one registration', registrations.length, clientId ? 0 : 1);
test('one sign-in', signIns.length, 1);
test('that requests the scope of the challenge', scopesOf(signIns[0]), 'notes:read');
test('for the resource', signIns[0]?.resource, args.server);
test('with PKCE', signIns[0]?.code_challenge_method, 'S256');
test('without asking for a refresh token', memory.saved.refresh_token, undefined);

const who = JSON.parse(text(await call('whoami')));
test('whoami: the subject of the token', who.subject, 'alice');
test('whoami: the client of the token', who.client, memory.client.client_id);

requests = await requestsFromNow();
const note = { id: `typescript-${args.client}`, text: 'hello' };
const written = `written: notes://${note.id}`;
test('write_note: succeeds', text(await call('write_note', note)), written);
const stepUp = (await requests()).signIns;
test('write_note: in exactly one further sign-in', stepUp.length, 1);
test('that requests all scopes of the operation', scopesOf(stepUp[0]), 'notes:read notes:write');
test('write_note: succeeds again', text(await call('write_note', note)), written);
test('write_note: without another sign-in', (await requests()).signIns.length, 1);

requests = await requestsFromNow();
test('admin: 403', await status(call('admin')), 403);
await client.close();
const again = await connect();
test('admin: 403 after another connect', await status(again.call('admin')), 403);
test('admin: no further sign-in', (await requests()).signIns.length, 0);
await again.client.close();
