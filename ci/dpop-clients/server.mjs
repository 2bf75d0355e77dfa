// The authorization server of this check: oidc-provider on 127.0.0.1, in memory, without a UI. It
// binds tokens to the key of a DPoP proof (RFC 9449 §5), and requires a nonce of its own in each.
//
// Usage: node server.mjs --port N --resource AUDIENCE
//
// The client `machine` uses the client credentials grant. Without a proof, its tokens are not
// bound. The client `native` uses authorization code + PKCE, and gets bound tokens only.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Provider, errors } from 'oidc-provider';

const { values: args } = parseArgs({ options: { port: { type: 'string' }, resource: { type: 'string' } } });
if (!/^\d+$/.test(args.port ?? '') || !args.resource) {
  console.error('usage: node server.mjs --port N --resource AUDIENCE');
  process.exit(2);
}
const issuer = `http://127.0.0.1:${args.port}`;

const signingKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...signingKey, alg: 'ES256', use: 'sig', kid: 'es256' }] },
  clients: [
    {
      client_id: 'machine',
      client_secret: 'machine-secret',
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
    {
      client_id: 'native',
      application_type: 'native', // any port for loopback redirects (RFC 8252)
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
      dpop_bound_access_tokens: true,
    },
  ],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  cookies: { keys: [randomBytes(32).toString('base64url')] },
  pkce: { required: () => true },
  findAccount: (ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  // Those that the API accepts by default.
  enabledJWA: { dPoPSigningAlgValues: ['ES256', 'ES384', 'Ed25519', 'EdDSA', 'PS256', 'RS256'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(ctx, resource) {
        if (resource !== args.resource) throw new errors.InvalidTarget();
        return {
          audience: resource,
          scope: 'read:messages write:messages',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          jwt: { sign: { alg: 'ES256' } },
        };
      },
    },
  },
});
provider.on('server_error', (ctx, error) => console.error(error));
const handler = provider.callback();

// Signs in the same user and grants every requested scope: login and consent in one step.
async function interaction(req, res) {
  const { params } = await provider.interactionDetails(req, res);
  const grant = new provider.Grant({ accountId: 'alice', clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  grant.addResourceScope(args.resource, params.scope);
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(req, res, { login: { accountId: 'alice' }, consent });
}

const server = createServer(async (req, res) => {
  try {
    await (req.url.startsWith('/interaction/') ? interaction(req, res) : handler(req, res));
  } catch (error) {
    console.error(error);
    if (!res.headersSent) res.statusCode = 500;
    res.end();
  }
});
server.on('error', (error) => {
  console.error(`cannot listen on ${issuer}: ${error.message}`);
  process.exit(1);
});
server.listen(Number(args.port), '127.0.0.1', () => console.log(`listening on ${issuer}`));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
