// The authorization server of this check: oidc-provider on 127.0.0.1, in memory, without a UI.
//
// Usage: node server.mjs --port N --logout-uri URL
//
// At the end of a session of the client `native-logout`, the server sends a logout token to URL
// (OpenID Connect Back-Channel Logout 1.0).
//
// The name of a client determines the algorithm of its tokens. `rs256`, `ps256`, `es256` and
// `eddsa` use the client credentials grant (the secret is the name + `-secret`); `native-rs256` …
// use authorization code + PKCE. The tokens of the client `opaque` are opaque; `orders-api` may ask
// about them.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Provider, errors } from 'oidc-provider';

const { values: args } = parseArgs({ options: { port: { type: 'string' }, 'logout-uri': { type: 'string' } } });
if (!/^\d+$/.test(args.port ?? '') || !URL.canParse(args['logout-uri'] ?? '')) {
  console.error('usage: node server.mjs --port N --logout-uri URL');
  process.exit(2);
}
const issuer = `http://127.0.0.1:${args.port}`;
const RESOURCE = 'https://api.example.com';
const SCOPES = 'read:messages write:messages';

const ALGORITHMS = {
  rs256: { alg: 'RS256', key: ['rsa', { modulusLength: 2048 }] },
  ps256: { alg: 'PS256', key: ['rsa', { modulusLength: 2048 }] },
  es256: { alg: 'ES256', key: ['ec', { namedCurve: 'P-256' }] },
  eddsa: { alg: 'EdDSA', key: ['ed25519'] },
};
const OPAQUE = 'opaque';
const INTROSPECTING = 'orders-api';
const LOGOUT = 'native-logout';
const algOf = (client) => (ALGORITHMS[client.clientId.replace('native-', '')] ?? ALGORITHMS.es256).alg;

let generation = 0;
function newKeys() {
  generation += 1;
  return Object.entries(ALGORITHMS).map(([name, { alg, key }]) => ({
    ...generateKeyPairSync(...key).privateKey.export({ format: 'jwk' }),
    alg,
    use: 'sig',
    kid: `${name}-${generation}`,
  }));
}

/** A public client that uses authorization code + PKCE. */
const native = (client_id, alg) => ({
  client_id,
  application_type: 'native', // any port for loopback redirects (RFC 8252)
  token_endpoint_auth_method: 'none',
  grant_types: ['authorization_code'],
  response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/callback'],
  id_token_signed_response_alg: alg,
});
const clients = Object.entries(ALGORITHMS).flatMap(([name, { alg }]) => [
  {
    client_id: name,
    client_secret: `${name}-secret`,
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
  },
  native(`native-${name}`, alg),
]);
clients.push({
  ...native(LOGOUT, ALGORITHMS.es256.alg),
  backchannel_logout_uri: args['logout-uri'],
  backchannel_logout_session_required: true, // `sid` in logout tokens and ID tokens
});
for (const client_id of [OPAQUE, INTROSPECTING]) {
  clients.push({
    client_id,
    client_secret: `${client_id}-secret`,
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
  });
}
const cookieKeys = [randomBytes(32).toString('base64url')];

/** The logout tokens that were sent, and what the receiver answered. */
const logouts = [];

/** Sends a request. Without the dispatcher of oidc-provider, which allows no loopback addresses. */
async function send(url, { dispatcher, ...options }) {
  const response = await fetch(url, options);
  logouts.push({ token: options.body.get('logout_token'), status: response.status });
  return response;
}

function newProvider(keys) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients,
    cookies: { keys: cookieKeys },
    pkce: { required: () => true },
    findAccount: (ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    // By default, access tokens do not name the session. The logout token does, and would then end
    // nothing. `sid` is known for clients with `backchannel_logout_session_required` only.
    extraTokenClaims: (ctx, token) => (token.sid ? { sid: token.sid } : undefined),
    fetch: send,
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === INTROSPECTING },
      revocation: { enabled: true },
      backchannelLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo(ctx, resource, client) {
          if (resource !== RESOURCE) throw new errors.InvalidTarget();
          const isOpaque = client.clientId === OPAQUE;
          return {
            audience: RESOURCE,
            scope: SCOPES,
            accessTokenFormat: isOpaque ? 'opaque' : 'jwt',
            accessTokenTTL: 300,
            jwt: isOpaque ? undefined : { sign: { alg: algOf(client) } },
          };
        },
      },
    },
  });
  for (const event of ['server_error', 'backchannel.error']) {
    provider.on(event, (ctx, error) => console.error(error));
  }
  return provider;
}

// Signs in the same user and grants every requested scope: login and consent in one step.
async function interaction(provider, req, res) {
  const { params } = await provider.interactionDetails(req, res);
  const grant = new provider.Grant({ accountId: 'alice', clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  grant.addResourceScope(RESOURCE, params.scope);
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(req, res, { login: { accountId: 'alice' }, consent });
}

let keys = newKeys();
let provider = newProvider(keys);
let handler = provider.callback();
const jwks = { requests: 0, last: 0 };
let introspections = 0;

async function handle(req, res) {
  const url = new URL(req.url, issuer);
  const json = (body) => res.setHeader('content-type', 'application/json').end(JSON.stringify(body));

  if (req.method === 'POST' && url.pathname === '/ci/rotate') {
    // oidc-provider reads its keys once, so new keys require a new Provider. With `?keep=1`, the
    // old keys remain published; the first key of an algorithm signs.
    keys = [...newKeys(), ...(url.searchParams.has('keep') ? keys : [])];
    provider = newProvider(keys);
    handler = provider.callback();
    return json({ kids: keys.map((key) => key.kid) });
  }
  if (url.pathname === '/ci/jwks-requests') {
    return json({ count: jwks.requests, millisSinceLast: Date.now() - jwks.last });
  }
  if (url.pathname === '/ci/logouts') return json(logouts);
  if (url.pathname === '/ci/introspections') return json({ count: introspections });
  if (url.pathname === '/token/introspection') introspections += 1;
  if (url.pathname.startsWith('/interaction/')) return interaction(provider, req, res);
  if (url.pathname === '/jwks') Object.assign(jwks, { requests: jwks.requests + 1, last: Date.now() });
  return handler(req, res);
}

const server = createServer((req, res) => {
  handle(req, res).catch((error) => {
    console.error(error);
    if (!res.headersSent) res.statusCode = 500;
    res.end();
  });
});
server.on('error', (error) => {
  console.error(`cannot listen on ${issuer}: ${error.message}`);
  process.exit(1);
});
server.listen(Number(args.port), '127.0.0.1', () => console.log(`listening on ${issuer}`));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
