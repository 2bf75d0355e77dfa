// The authorization server of this check: oidc-provider on 127.0.0.1, in memory, without a UI.
//
// Usage: node issuer.mjs --port N --resource URL
//
// Clients: `native`, which is known beforehand (authorization code + PKCE, no secret), `machine`
// (client credentials; the secret is `machine-secret`), and those that register themselves. The
// user is `alice`, or the `login_hint` of the authorization request; `carol` has the role `admin`.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { json as readJson } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import { Provider, errors } from 'oidc-provider';

const { values: args } = parseArgs({ options: { port: { type: 'string' }, resource: { type: 'string' } } });
if (!/^\d+$/.test(args.port ?? '') || !args.resource) {
  console.error('usage: node issuer.mjs --port N --resource URL');
  process.exit(2);
}
const issuer = `http://127.0.0.1:${args.port}`;
const { resource } = args;
const ROLES = { carol: ['admin'] };

const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...key, alg: 'RS256', use: 'sig', kid: 'rs256' }] },
  clients: [
    {
      client_id: 'native',
      application_type: 'native', // any port for loopback redirects (RFC 8252)
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
    },
    {
      client_id: 'machine',
      client_secret: 'machine-secret',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
  ],
  cookies: { keys: [randomBytes(32).toString('base64url')] },
  pkce: { required: () => true },
  findAccount: (ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  extraTokenClaims: (ctx, token) => ({ roles: ROLES[token.accountId] }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(ctx, requested) {
        if (requested !== resource) throw new errors.InvalidTarget();
        return {
          audience: resource,
          scope: 'notes:read notes:write',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          jwt: { sign: { alg: 'RS256' } },
        };
      },
    },
  },
});
provider.on('server_error', (ctx, error) => console.error(error));

// Signs in the user and grants every requested scope: login and consent in one step.
async function interaction(req, res) {
  const { params } = await provider.interactionDetails(req, res);
  const accountId = params.login_hint ?? 'alice';
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope ?? '');
  grant.addResourceScope(resource, params.scope ?? '');
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(req, res, { login: { accountId }, consent });
}

const signIns = []; // the parameters of every authorization request
const registrations = []; // the body of every registration
const handler = provider.callback();

async function handle(req, res) {
  const url = new URL(req.url, issuer);
  if (url.pathname === '/ci/requests') {
    return res.setHeader('content-type', 'application/json').end(JSON.stringify({ signIns, registrations }));
  }
  if (url.pathname.startsWith('/interaction/')) return interaction(req, res);
  if (url.pathname === '/auth') signIns.push(Object.fromEntries(url.searchParams));
  if (url.pathname === '/reg' && req.method === 'POST') {
    // Some clients register with the scopes of the first challenge. oidc-provider would then reject
    // any other scope of that client, so register it without a limit, as RFC 7591 allows.
    const { scope, ...metadata } = await readJson(req);
    registrations.push({ scope, ...metadata });
    req.body = metadata;
  }
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
