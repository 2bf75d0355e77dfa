// What the checks of this directory share: flags, assertions, tokens, and the requests that the
// authorization server received.
import { createHash, randomBytes } from 'node:crypto';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { browse } from './browser.mjs';

const { values } = parseArgs({
  options: {
    issuer: { type: 'string' },
    server: { type: 'string' },
    client: { type: 'string' },
    node: { type: 'string' },
    bare: { type: 'string' },
    work: { type: 'string' },
  },
});
/** The flags of the check: `issuer` and `server` are URLs. */
export const args = values;
if (!args.issuer || !args.server) {
  console.error(`usage: node ${process.argv[1]} --issuer URL --server URL`);
  process.exit(2);
}

/** Where the authorization server redirects to. Nothing listens there: the browser stops before. */
export const REDIRECT = 'http://127.0.0.1:49152/callback';

const show = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

/** Prints whether `actual` is `wanted`, or has the property that the function `wanted` tests. */
export function check(name, actual, wanted) {
  const passed = typeof wanted === 'function' ? Boolean(wanted(actual)) : isDeepStrictEqual(wanted, actual);
  if (passed) {
    console.log(`ok  ${name}`);
    return;
  }
  const expected = typeof wanted === 'function' ? '' : `expected ${show(wanted)}, `;
  console.log(`FAIL ${name}: ${expected}got ${show(actual)}`);
  process.exitCode = 1;
}

/** Resolves to a function that returns the sign-ins and registrations since this call. */
export async function requestsFromNow() {
  const requests = async () => (await fetch(`${args.issuer}/ci/requests`)).json();
  const before = await requests();
  return async () => {
    const { signIns, registrations } = await requests();
    return {
      signIns: signIns.slice(before.signIns.length),
      registrations: registrations.slice(before.registrations.length),
    };
  };
}

/** The requested scopes in alphabetical order, without the one that asks for a refresh token. */
export const scopesOf = (signIn) =>
  (signIn?.scope ?? '').split(' ').filter((scope) => scope && scope !== 'offline_access').sort().join(' ');

/** A token of `user` for the client `native`, by authorization code + PKCE. */
export async function token(user, scope) {
  const code_verifier = randomBytes(32).toString('base64url');
  const common = { client_id: 'native', redirect_uri: REDIRECT, resource: args.server };
  const query = new URLSearchParams({
    ...common,
    scope,
    login_hint: user,
    response_type: 'code',
    code_challenge: createHash('sha256').update(code_verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  const { searchParams } = await browse(`${args.issuer}/auth?${query}`, REDIRECT);
  return tokenRequest({ ...common, grant_type: 'authorization_code', code_verifier, code: searchParams.get('code') });
}

export async function tokenRequest(parameters, headers = {}) {
  const body = new URLSearchParams(parameters);
  const response = await fetch(`${args.issuer}/token`, { method: 'POST', headers, body });
  const answer = await response.json();
  if (!response.ok) throw new Error(`no token: ${JSON.stringify(answer)}`);
  return answer.access_token;
}
