// Calls the demo API with DPoP (RFC 9449) by two independent clients, oauth4webapi and
// openid-client. The authorization server in server.mjs issues the tokens. The libraries make the
// proofs, handle the nonces and parse the challenges; this file compares what they report.
//
// The API is started with DPOP=require and DPOP_NONCE_SECRET.
//
// Usage: node check.mjs --issuer URL --api URL --audience AUDIENCE
import { isDeepStrictEqual, parseArgs } from 'node:util';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

const { values: args } = parseArgs({
  options: { issuer: { type: 'string' }, api: { type: 'string' }, audience: { type: 'string' } },
});
if (!args.issuer || !args.api || !args.audience) {
  console.error('usage: node check.mjs --issuer URL --api URL --audience AUDIENCE');
  process.exit(2);
}
const { issuer, api, audience } = args;

/** Those that the API accepts by default. Ed25519 is the name of RFC 9864 for EdDSA. */
const ALGORITHMS = ['ES256', 'ES384', 'Ed25519', 'PS256', 'RS256'];
const AT_ONCE = 20;
const HOUR = 3_600; // in seconds

// ---- cases --------------------------------------------------------------------------------------

const cases = [];
/** `run` may return a remark, which is printed with the case. */
const test = (name, run) => cases.push({ name, run });

class Mismatch extends Error {}
const show = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
function expect(wanted, actual, ok = isDeepStrictEqual(wanted, actual)) {
  if (!ok) throw new Mismatch(`expected ${show(wanted)}, got ${show(actual)}`);
}

// ---- the clients --------------------------------------------------------------------------------

/** The requests that the API received from the libraries, in order. */
let sent = [];
async function recordingFetch(url, init) {
  const response = await fetch(url, init);
  if (new URL(url).origin === api) {
    const reason = response.headers.get('x-demo-reason');
    sent.push({ url, headers: { ...init.headers }, outcome: reason ?? String(response.status) });
  }
  return response;
}

const SCOPE = 'read:messages'; // of /scoped
const resource = audience; // RFC 8707

const server = await oauth.processDiscoveryResponse(
  new URL(issuer),
  await oauth.discoveryRequest(new URL(issuer), { [oauth.allowInsecureRequests]: true }),
);

/**
 * By library: a client that requests tokens and calls the API, both with proofs of `keys`. Without
 * keys, it makes no proofs. `clockSkew`: how far its clock is ahead, in seconds.
 */
const libraries = {
  async oauth4webapi(keys, clockSkew = 0) {
    const client = { client_id: 'machine', [oauth.clockSkew]: clockSkew };
    const handle = keys && oauth.DPoP(client, keys);
    const options = { DPoP: handle, [oauth.allowInsecureRequests]: true, [oauth.customFetch]: recordingFetch };
    const secret = oauth.ClientSecretBasic('machine-secret');
    // The handle stores the nonce of a response. To send the request again is left to its user.
    const twiceAtMost = async (send) => {
      try {
        return await send();
      } catch (error) {
        if (!oauth.isDPoPNonceError(error)) throw error;
        return send();
      }
    };
    return {
      handle,
      token: (scope = SCOPE) =>
        twiceAtMost(async () => {
          const parameters = { resource, scope };
          const response = await oauth.clientCredentialsGrantRequest(server, client, secret, parameters, options);
          return oauth.processClientCredentialsResponse(server, client, response);
        }),
      call: (path, token) =>
        twiceAtMost(() =>
          oauth.protectedResourceRequest(token, 'GET', new URL(api + path), new Headers(), null, options),
        ),
    };
  },

  async 'openid-client'(keys, clockSkew = 0) {
    const metadata = { [openid.clockSkew]: clockSkew };
    const config = await openIdConfiguration('machine', metadata, openid.ClientSecretBasic('machine-secret'));
    const handle = keys && openid.getDPoPHandle(config, keys);
    return {
      handle,
      token: (scope = SCOPE) => openid.clientCredentialsGrant(config, { resource, scope }, { DPoP: handle }),
      call: (path, token) =>
        openid.fetchProtectedResource(config, token, new URL(api + path), 'GET', null, undefined, { DPoP: handle }),
    };
  },
};

function openIdConfiguration(clientId, metadata, authentication) {
  return openid.discovery(new URL(issuer), clientId, metadata, authentication, {
    execute: [openid.allowInsecureRequests],
    [openid.customFetch]: recordingFetch,
  });
}

/** The claims that the API received. */
async function accepted(call) {
  const response = await call;
  expect(200, response.status);
  return (await response.json()).claims;
}

/** Checks status and reason. Resolves to the challenges by scheme, as the library parsed them. */
async function rejected(call, status, reason) {
  try {
    const response = await call;
    throw new Mismatch(`expected ${status} with a challenge, got ${response.status}`);
  } catch (error) {
    if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error;
    expect([status, reason], [error.status, error.response.headers.get('x-demo-reason')]);
    return Object.fromEntries(error.cause.map((challenge) => [challenge.scheme, challenge.parameters]));
  }
}

const outcomes = () => sent.map(({ outcome }) => outcome);
const decode = (part) => JSON.parse(Buffer.from(part, 'base64url'));

// ---- what is checked ----------------------------------------------------------------------------

for (const [library, newClient] of Object.entries(libraries)) {
  for (const algorithm of ALGORITHMS) {
    test(`${library}, ${algorithm}: the first call is asked for a nonce, the next is not`, async () => {
      const client = await newClient(await oauth.generateKeyPair(algorithm));
      const { access_token: token, token_type } = await client.token();
      expect('dpop', token_type);
      const { cnf, iss } = await accepted(client.call('/private?page=2', token));
      expect([issuer, await client.handle.calculateThumbprint()], [iss, cnf?.jkt]);
      expect(['proof_nonce_needed', '200'], outcomes());
      await accepted(client.call('/scoped', token));
      expect(['proof_nonce_needed', '200', '200'], outcomes());
    });
  }

  let client; // of the cases below, with a token of its key
  let token;
  test(`${library}: ${AT_ONCE} first calls at once`, async () => {
    client = await newClient(await oauth.generateKeyPair('ES256'));
    token = (await client.token()).access_token;
    const calls = Array.from({ length: AT_ONCE }, () => accepted(client.call('/private', token)));
    await Promise.all(calls);
    const asked = outcomes().filter((outcome) => outcome === 'proof_nonce_needed').length;
    expect(AT_ONCE, outcomes().length - asked);
    return `${asked} were asked for a nonce`;
  });
  for (const [clock, skew] of [
    ['an hour slow', -HOUR],
    ['an hour fast', HOUR],
  ]) {
    test(`${library}: a clock that is ${clock} does not matter`, async () => {
      const wrong = await newClient(await oauth.generateKeyPair('ES256'), skew);
      await accepted(wrong.call('/private', (await wrong.token()).access_token));
      const { iat } = decode(sent.at(-1).headers.dpop.split('.')[1]);
      const found = Math.round(iat - Date.now() / 1_000);
      expect(`an iat ${skew} s ahead`, `${found} s`, Math.abs(found - skew) < 60);
    });
  }

  test(`${library}: 401 for the same token as Bearer`, async () => {
    const bearer = await newClient();
    const challenges = await rejected(bearer.call('/private', token), 401, 'sender_constrained');
    expect(['dpop'], Object.keys(challenges));
    const algs = ALGORITHMS.map((name) => (name === 'Ed25519' ? 'EdDSA' : name));
    expect(algs.sort(), challenges.dpop.algs?.split(' ').sort());
  });
  test(`${library}: 401 for the token with another key`, async () => {
    const other = await newClient(await oauth.generateKeyPair('ES256'));
    const { dpop } = await rejected(other.call('/private', token), 401, 'other_key');
    expect('invalid_token', dpop?.error);
  });
  test(`${library}: 401 for a recorded request`, async () => {
    await accepted(client.call('/private', token));
    const { url, headers } = sent.at(-1);
    const again = await fetch(url, { headers });
    expect([401, 'proof_used'], [again.status, again.headers.get('x-demo-reason')]);
    const challenge = again.headers.get('www-authenticate') ?? '';
    expect('error="invalid_dpop_proof"', challenge, challenge.includes('error="invalid_dpop_proof"'));
    await accepted(client.call('/private', token)); // a new proof
  });
  test(`${library}: 401 for a token that is not bound, with and without a proof`, async () => {
    const unbound = await newClient();
    const answer = await unbound.token();
    expect('bearer', answer.token_type);
    await rejected(unbound.call('/private', answer.access_token), 401, 'not_bound');
    const { dpop } = await rejected(client.call('/private', answer.access_token), 401, 'not_bound');
    expect('invalid_token', dpop?.error);
  });
  test(`${library}: 403 without the scope, by a challenge of DPoP`, async () => {
    const narrow = await newClient(await oauth.generateKeyPair('ES256'));
    const answer = await narrow.token('write:messages');
    const { dpop } = await rejected(narrow.call('/scoped', answer.access_token), 403, 'insufficient_scope');
    expect(['insufficient_scope', SCOPE], [dpop?.error, dpop?.scope]);
  });
}

test('openid-client: authorization code + PKCE, with the code bound to the key', async () => {
  const config = await openIdConfiguration('native', {}, openid.None());
  const handle = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair('ES256'));
  const redirect_uri = 'http://127.0.0.1:49152/callback'; // any port: nothing is sent there
  const pkceCodeVerifier = openid.randomPKCECodeVerifier();
  const expectedState = openid.randomState();
  const url = openid.buildAuthorizationUrl(config, {
    redirect_uri,
    scope: `openid ${SCOPE}`,
    resource,
    state: expectedState,
    code_challenge: await openid.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    dpop_jkt: await handle.calculateThumbprint(),
  });
  const callback = await browse(url, redirect_uri);
  const checks = { pkceCodeVerifier, expectedState, idTokenExpected: true };
  const options = { DPoP: handle };
  const answer = await openid.authorizationCodeGrant(config, callback, checks, { resource }, options);
  expect('dpop', answer.token_type);
  const scoped = new URL(`${api}/scoped`);
  const call = () =>
    openid.fetchProtectedResource(config, answer.access_token, scoped, 'GET', null, undefined, options);
  const { sub, cnf } = await accepted(call());
  expect(['alice', await handle.calculateThumbprint()], [sub, cnf?.jkt]);
  await accepted(call());
  expect(['proof_nonce_needed', '200', '200'], outcomes());
});

/** Acts as the browser: follows redirects, with one cookie jar, until they lead to the client. */
async function browse(url, redirectUri) {
  const cookies = new Map();
  for (let hops = 0; !url.href.startsWith(redirectUri); hops += 1) {
    expect('a redirect back to the client', url.href, hops < 10);
    const cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: { cookie } });
    for (const line of response.headers.getSetCookie()) {
      const [, key, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) cookies.set(key, value);
      else cookies.delete(key); // an empty value deletes the cookie
    }
    const location = response.headers.get('location');
    expect('a redirect', `${response.status} ${await response.text()}`, location !== null);
    url = new URL(location, url);
  }
  return url;
}

let failed = 0;
for (const { name, run } of cases) {
  sent = [];
  try {
    const remark = await run();
    console.log(`ok  ${name}${remark ? ` (${remark})` : ''}`);
  } catch (error) {
    failed += 1;
    const cause = error.cause ? ` (${show(error.cause)})` : '';
    const said = error instanceof Mismatch ? error.message : `expected an answer, got ${error}${cause}`;
    console.log(`FAIL ${name}: ${said}`);
  }
}
console.log(`${cases.length - failed} of ${cases.length} cases passed`);
process.exitCode = failed ? 1 : 0;
