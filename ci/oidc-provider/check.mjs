// Sends valid and invalid tokens of the authorization server in server.mjs to the demo API.
//
// Usage: node check.mjs --issuer URL --api URL
import { createHash, randomBytes } from 'node:crypto';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';

const { values: args } = parseArgs({ options: { issuer: { type: 'string' }, api: { type: 'string' } } });
if (!args.issuer || !args.api) {
  console.error('usage: node check.mjs --issuer URL --api URL');
  process.exit(2);
}
const { issuer, api } = args;
const RESOURCE = 'https://api.example.com';
// RFC 9864 renames EdDSA with this curve to Ed25519. A server may use either name.
const ALGORITHMS = { rs256: ['RS256'], ps256: ['PS256'], es256: ['ES256'], eddsa: ['EdDSA', 'Ed25519'] };
const names = Object.keys(ALGORITHMS);

// The API fetches the keys for unknown `kid`s three times at once, then once every 5 seconds. After
// this pause, three fetches are available again.
const KEY_FETCH_PAUSE_MS = 16_000;
const MOST_FETCHES_AT_ONCE = 3;

// ---- cases --------------------------------------------------------------------------------------

const cases = [];
/** `run` may return a remark, which is printed with the case. */
const test = (name, run) => cases.push({ name, run });

class Mismatch extends Error {}
const show = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
function expect(wanted, actual, ok = isDeepStrictEqual(wanted, actual)) {
  if (!ok) throw new Mismatch(`expected ${show(wanted)}, got ${show(actual)}`);
}

// ---- the API ------------------------------------------------------------------------------------

/**
 * GETs `path`. Checks the status, that the challenge has all of `has`, none of `lacks`, and the
 * library's code of a rejected request.
 */
async function call(path, token, status, { has = [], lacks = [], code } = {}) {
  const response = await fetch(api + path, { headers: token ? { authorization: `Bearer ${token}` } : {} });
  const challenge = response.headers.get('www-authenticate') ?? '(no challenge)';
  const body = await response.text();
  expect(status, `${response.status} ${challenge} ${body}`, response.status === status);
  if (status === 401 || status === 403) expect('a Bearer challenge', challenge, /^Bearer\b/i.test(challenge));
  for (const text of has) expect(`a challenge with ${text}`, challenge, challenge.includes(text));
  for (const text of lacks) expect(`a challenge without ${text}`, challenge, !challenge.includes(text));
  if (code) expect(code, response.headers.get('x-demo-reason'));
  return body;
}
const INVALID_TOKEN = { has: ['error="invalid_token"'] };

async function acceptedByPrivate(token) {
  const { claims } = JSON.parse(await call('/private', token, 200));
  expect(issuer, claims?.iss ?? null);
  expect(`an aud with ${RESOURCE}`, claims.aud ?? null, [].concat(claims.aud).includes(RESOURCE));
  return claims;
}

// ---- the authorization server -------------------------------------------------------------------

const metadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();

const decode = (part) => JSON.parse(Buffer.from(part, 'base64url'));
const header = (token) => decode(token.split('.')[0]);

async function tokenRequest(parameters, headers = {}) {
  const body = new URLSearchParams({ resource: RESOURCE, ...parameters });
  const response = await fetch(metadata.token_endpoint, { method: 'POST', headers, body });
  const answer = await response.json();
  expect('an access token', answer, response.ok && typeof answer.access_token === 'string');
  return answer;
}

async function clientCredentials(name, scope) {
  const basic = Buffer.from(`${name}:${name}-secret`).toString('base64');
  const parameters = { grant_type: 'client_credentials', scope };
  return (await tokenRequest(parameters, { authorization: `Basic ${basic}` })).access_token;
}

/** A browser with cookies of its own. */
class Browser {
  #cookies = new Map();

  /** Sends a request, and does not follow a redirect. */
  async open(url, options = {}) {
    const cookie = [...this.#cookies].map((pair) => pair.join('=')).join('; ');
    const response = await fetch(url, { ...options, redirect: 'manual', headers: { cookie } });
    for (const line of response.headers.getSetCookie()) {
      const [, key, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) this.#cookies.set(key, value);
      else this.#cookies.delete(key); // an empty value deletes the cookie
    }
    return response;
  }
}

/** Authorization code + S256 PKCE. Also acts as the user, who follows redirects in the browser. */
async function codeFlow(name, browser = new Browser()) {
  const client_id = `native-${name}`;
  const redirect_uri = 'http://127.0.0.1:49152/callback'; // any port: nothing is sent there
  const code_verifier = randomBytes(32).toString('base64url');
  const state = randomBytes(16).toString('base64url');

  const parameters = new URLSearchParams({
    client_id,
    redirect_uri,
    state,
    response_type: 'code',
    scope: 'openid read:messages',
    resource: RESOURCE,
    code_challenge: createHash('sha256').update(code_verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  let at = new URL(`${metadata.authorization_endpoint}?${parameters}`);
  for (let hops = 0; !at.href.startsWith(redirect_uri); hops += 1) {
    expect('a redirect back to the client', at.href, hops < 10);
    const response = await browser.open(at);
    const location = response.headers.get('location');
    expect('a redirect', `${response.status} ${await response.text()}`, location !== null);
    at = new URL(location, at);
  }
  const answer = Object.fromEntries(at.searchParams);
  expect('a code with our state', answer, Boolean(answer.code) && answer.state === state);
  expect(issuer, answer.iss ?? null);
  return tokenRequest({ grant_type: 'authorization_code', client_id, redirect_uri, code_verifier, code: answer.code });
}

/** Ends the session of a browser (OpenID Connect RP-Initiated Logout 1.0), and confirms it. */
async function endSession(browser, id_token_hint) {
  const page = await browser.open(`${metadata.end_session_endpoint}?${new URLSearchParams({ id_token_hint })}`);
  const form = await page.text();
  const [, action] = /<form [^>]*action="([^"]+)"/.exec(form) ?? [];
  const [, xsrf] = /name="xsrf" value="([^"]+)"/.exec(form) ?? [];
  expect('a form to confirm', form, Boolean(action && xsrf));
  const body = new URLSearchParams({ xsrf, logout: 'yes' });
  expect(303, (await browser.open(action, { method: 'POST', body })).status);
}

const jwksRequests = async () => (await fetch(`${issuer}/ci/jwks-requests`)).json();

async function untilTheApiMayFetchAgain() {
  for (;;) {
    const { millisSinceLast } = await jwksRequests();
    if (millisSinceLast >= KEY_FETCH_PAUSE_MS) return;
    await sleep(KEY_FETCH_PAUSE_MS - millisSinceLast);
  }
}

// ---- what is checked ----------------------------------------------------------------------------

test('without a token: /public is open', async () => {
  await call('/public', undefined, 200);
});
test('without a token: /private answers 401 without an error code', async () => {
  await call('/private', undefined, 401, { lacks: ['error='] });
});

const kids = new Set(); // all so far
function expectNewKid(token) {
  const { kid } = header(token);
  expect('a kid of its own', kid ?? null, Boolean(kid) && !kids.has(kid));
  kids.add(kid);
}

const tokens = {}; // by algorithm name, from before any rotation
for (const name of names) {
  test(`${name}: client credentials token`, async () => {
    tokens[name] = await clientCredentials(name, 'read:messages');
    const { alg } = header(tokens[name]);
    expect(ALGORITHMS[name].join(' or '), alg, ALGORITHMS[name].includes(alg));
    expectNewKid(tokens[name]);
    return `alg ${alg}`;
  });
  test(`${name}: /private accepts it`, async () => {
    await acceptedByPrivate(tokens[name]);
  });
  test(`${name}: /scoped accepts its scope`, async () => {
    await call('/scoped', tokens[name], 200);
  });
  test(`${name}: another scope, or none, gets 403 from /scoped`, async () => {
    for (const scope of ['write:messages', '']) {
      const token = await clientCredentials(name, scope);
      await acceptedByPrivate(token);
      await call('/scoped', token, 403, { has: ['error="insufficient_scope"', 'scope="read:messages"'] });
    }
  });
  test(`${name}: a changed payload gets 401`, async () => {
    const [head, body, signature] = tokens[name].split('.');
    const changed = Buffer.from(JSON.stringify({ ...decode(body), sub: 'mallory' })).toString('base64url');
    await call('/private', [head, changed, signature].join('.'), 401, INVALID_TOKEN);
  });

  let user;
  test(`${name}: authorization code + PKCE`, async () => {
    user = await codeFlow(name);
    const { alg } = header(user.access_token);
    expect(ALGORITHMS[name].join(' or '), alg, ALGORITHMS[name].includes(alg));
    expect('alice', (await acceptedByPrivate(user.access_token)).sub);
    await call('/scoped', user.access_token, 200);
  });
  test(`${name}: the ID token of that flow gets 401`, async () => {
    // Same issuer, same key: only its purpose distinguishes it from an access token.
    expect(header(user.access_token).kid, header(user.id_token).kid);
    await call('/private', user.id_token, 401, INVALID_TOKEN);
  });
}

// ---- opaque tokens, which the API asks about (RFC 7662) -----------------------------------------

// The demo is started with INTROSPECTION_MAX_AGE=2.
const ANSWER_LIFETIME_MS = 2_000;
const introspections = async () => (await (await fetch(`${issuer}/ci/introspections`)).json()).count;

let opaque;
test('opaque: client credentials token', async () => {
  opaque = await clientCredentials('opaque', 'read:messages');
  expect('a token without a period', opaque, !opaque.includes('.'));
});
test('opaque: 50 requests at once are accepted, after one question', async () => {
  const before = await introspections();
  const all = await Promise.all(Array.from({ length: 50 }, () => acceptedByPrivate(opaque)));
  expect(['opaque'], [...new Set(all.map(({ client_id }) => client_id))]);
  expect(before + 1, await introspections());
});
test('opaque: its scope counts', async () => {
  await call('/scoped', opaque, 200);
  const token = await clientCredentials('opaque', 'write:messages');
  await call('/scoped', token, 403, { has: ['error="insufficient_scope"', 'scope="read:messages"'] });
});
test('opaque: an unknown token gets 401', async () => {
  await call('/private', 'unknown', 401, INVALID_TOKEN);
});
test('opaque: JWTs are not asked about', async () => {
  const before = await introspections();
  await acceptedByPrivate(await clientCredentials('rs256', 'read:messages'));
  expect(before, await introspections());
});
test('opaque: a revoked token gets 401 when its answer ends', async () => {
  const headers = { authorization: `Basic ${Buffer.from('opaque:opaque-secret').toString('base64')}` };
  const body = new URLSearchParams({ token: opaque });
  const { status } = await fetch(metadata.revocation_endpoint, { method: 'POST', headers, body });
  expect(200, status);
  const end = Date.now() + ANSWER_LIFETIME_MS + 5_000;
  const isAccepted = async () => (await fetch(`${api}/private`, { headers: { authorization: `Bearer ${opaque}` } })).ok;
  while (await isAccepted()) {
    expect('a rejection', 'still accepted', Date.now() < end);
    await sleep(100);
  }
  await call('/private', opaque, 401, INVALID_TOKEN);
});

// ---- sessions, which end at the authorization server --------------------------------------------

const logouts = async () => (await fetch(`${issuer}/ci/logouts`)).json();
async function logOut(logout_token) {
  const body = new URLSearchParams({ logout_token });
  return (await fetch(`${api}/backchannel-logout`, { method: 'POST', body })).status;
}

const browsers = [new Browser(), new Browser()];
const sessions = []; // of the same user
test('logout: the access token has the sid of the ID token', async () => {
  for (const browser of browsers) {
    const session = await codeFlow('logout', browser);
    sessions.push(session);
    const { sid, sub } = await acceptedByPrivate(session.access_token);
    expect('alice', sub);
    expect('a sid', sid ?? null, Boolean(sid));
    expect(sid, decode(session.id_token.split('.')[1]).sid);
  }
});
test('logout: an access token, an ID token, and one without a signature are rejected, and end nothing', async () => {
  const [{ access_token, id_token }] = sessions;
  const head = Buffer.from(JSON.stringify({ alg: 'none', typ: 'logout+jwt' })).toString('base64url');
  const unsigned = [head, id_token.split('.')[1], ''].join('.');
  for (const token of [access_token, id_token, unsigned]) expect(400, await logOut(token));
  for (const { access_token } of sessions) await acceptedByPrivate(access_token);
});
let sent; // the logout token
test('logout: when a session ends, its access token gets 401, and that of another session stays good', async () => {
  await endSession(browsers[0], sessions[0].id_token);
  const all = await logouts();
  expect('one logout token, answered 200', all, isDeepStrictEqual([200], all.map(({ status }) => status)));
  sent = all[0].token;
  await call('/private', sessions[0].access_token, 401, { ...INVALID_TOKEN, code: 'revoked' });
  await acceptedByPrivate(sessions[1].access_token);
  const { typ } = header(sent);
  const { iat, jti, ...claims } = decode(sent.split('.')[1]);
  return `typ ${typ}, with ${Object.keys(claims).sort().join(', ')}`;
});
test('logout: the same logout token again changes nothing, and is no access token', async () => {
  expect(200, await logOut(sent));
  await call('/private', sessions[0].access_token, 401, { ...INVALID_TOKEN, code: 'revoked' });
  await acceptedByPrivate(sessions[1].access_token);
  await call('/private', sent, 401, INVALID_TOKEN);
});
test('logout: a changed logout token is rejected', async () => {
  const [head, body, signature] = sent.split('.');
  const { sid } = await acceptedByPrivate(sessions[1].access_token);
  const changed = Buffer.from(JSON.stringify({ ...decode(body), sid })).toString('base64url');
  expect(400, await logOut([head, changed, signature].join('.')));
  await acceptedByPrivate(sessions[1].access_token);
});
test('logout: after the user signs in again, the new access token is accepted', async () => {
  const { access_token } = await codeFlow('logout', browsers[0]);
  await acceptedByPrivate(access_token);
  await call('/private', sessions[0].access_token, 401, { ...INVALID_TOKEN, code: 'revoked' });
});

let fetchesBefore; // the latest rotation
/** Replaces all keys, or with `?keep=1` adds new ones. Resolves to new tokens by algorithm name. */
async function rotate(query = '') {
  await untilTheApiMayFetchAgain();
  fetchesBefore = (await jwksRequests()).count;
  expect('an API that has fetched the keys', `${fetchesBefore} fetches`, fetchesBefore > 0);
  const { ok, status } = await fetch(`${issuer}/ci/rotate${query}`, { method: 'POST' });
  expect('a rotation', status, ok);
  const fresh = {};
  for (const name of names) {
    fresh[name] = await clientCredentials(name, 'read:messages');
    expectNewKid(fresh[name]);
  }
  return fresh;
}
async function fetchesSinceRotation(most) {
  const fetches = (await jwksRequests()).count - fetchesBefore;
  const wanted = most === 1 ? 'one fetch of the keys' : `one to ${most} fetches of the keys`;
  expect(wanted, `${fetches} fetches`, fetches >= 1 && fetches <= most);
}

test('rotation with overlap: four new tokens at once, one fetch, old tokens stay good', async () => {
  const fresh = await rotate('?keep=1');
  await Promise.all(names.map((name) => acceptedByPrivate(fresh[name])));
  for (const name of names) await acceptedByPrivate(tokens[name]);
  await fetchesSinceRotation(1);
});

let fresh;
test('rotation: new keys replace the old', async () => {
  fresh = await rotate();
});
for (const name of names) {
  test(`rotation: ${name}, new token accepted by the first request`, async () => {
    await acceptedByPrivate(fresh[name]);
  });
}
for (const name of names) {
  test(`rotation: ${name}, old token gets 401`, async () => {
    await call('/private', tokens[name], 401, INVALID_TOKEN);
  });
}
// The first new token causes one. Each old token of a withdrawn key may cause another.
test('rotation: no more fetches than may be made at once', () => fetchesSinceRotation(MOST_FETCHES_AT_ONCE));

let failed = 0;
for (const { name, run } of cases) {
  try {
    const remark = await run();
    console.log(`ok  ${name}${remark ? ` (${remark})` : ''}`);
  } catch (error) {
    failed += 1;
    const reason = error instanceof Mismatch ? error.message : `expected an answer, got ${error.cause ?? error}`;
    console.log(`FAIL ${name}: ${reason}`);
  }
}
console.log(`${cases.length - failed} of ${cases.length} cases passed`);
process.exitCode = failed ? 1 : 0;
