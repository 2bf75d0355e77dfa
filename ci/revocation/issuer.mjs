// An issuer on a free port of 127.0.0.1: its key, and the JWTs that it signs, which are access
// tokens (RFC 9068), logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4) and security
// events (RFC 8417, RFC 8935). Each may have other claims than a correct one. A claim that is `undefined`
// is left out.
import { createHmac, randomUUID, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

const { subtle } = webcrypto;
const P256 = { name: 'ECDSA', namedCurve: 'P-256' };
const KID = 'issuer-1';

export const AUDIENCE = 'https://api.example.com';
/** The client whose sessions end, and the identifier of the receiver of events. */
export const CLIENT = 'web';
export const RECEIVER = 'https://api.example.com/events';

export const LOGOUT = 'http://schemas.openid.net/event/backchannel-logout';
const CAEP = 'https://schemas.openid.net/secevent/caep/event-type';
export const SESSION_REVOKED = `${CAEP}/session-revoked`;
export const CREDENTIAL_CHANGE = `${CAEP}/credential-change`;
export const VERIFICATION = 'https://schemas.openid.net/secevent/ssf/event-type/verification';

/** Longer than a soak takes, in seconds. */
const LIFETIME = 12 * 3_600;

export const now = () => Math.floor(Date.now() / 1_000);
const base64url = (value) => Buffer.from(value).toString('base64url');
const encode = (value) => base64url(JSON.stringify(value));

export class Issuer {
  /** As in `iss`. */
  url;
  #key;
  #jwk;
  #other;

  static async start() {
    const issuer = new Issuer();
    const { privateKey, publicKey } = await subtle.generateKey(P256, true, ['sign', 'verify']);
    const { kty, crv, x, y } = await subtle.exportKey('jwk', publicKey);
    issuer.#key = privateKey;
    issuer.#jwk = { kty, crv, x, y, kid: KID, alg: 'ES256', use: 'sig' };
    issuer.#other = (await subtle.generateKey(P256, true, ['sign', 'verify'])).privateKey;
    const server = createServer((request, response) => issuer.#respond(request, response));
    server.listen(0, '127.0.0.1').unref();
    await once(server, 'listening');
    issuer.url = `http://127.0.0.1:${server.address().port}`;
    return issuer;
  }

  #respond(request, response) {
    const found = {
      '/.well-known/openid-configuration': { issuer: this.url, jwks_uri: `${this.url}/jwks` },
      '/jwks': { keys: [this.#jwk] },
    }[request.url];
    response.statusCode = found ? 200 : 404;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(found ?? {}));
  }

  async #sign(header, claims, key = this.#key) {
    const signed = `${encode({ alg: 'ES256', kid: KID, ...header })}.${encode(claims)}`;
    const signature = await subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, key, Buffer.from(signed));
    return `${signed}.${base64url(signature)}`;
  }

  #claims(aud) {
    return { iss: this.url, aud, iat: now(), jti: randomUUID() };
  }

  accessToken(claims, header = {}) {
    const usual = { ...this.#claims(AUDIENCE), exp: now() + LIFETIME, client_id: CLIENT, scope: 'read:messages' };
    return this.#sign({ typ: 'at+jwt', ...header }, { ...usual, ...claims });
  }

  logoutToken(claims, header = {}) {
    const usual = { ...this.#claims(CLIENT), exp: now() + 120, events: { [LOGOUT]: {} } };
    return this.#sign({ typ: 'logout+jwt', ...header }, { ...usual, ...claims });
  }

  /** A security event about `sub_id` (RFC 9493). */
  event(name, sub_id, { event = {}, ...claims } = {}, header = {}) {
    const usual = { ...this.#claims(RECEIVER), sub_id, events: { [name]: event } };
    return this.#sign({ typ: 'secevent+jwt', ...header }, { ...usual, ...claims });
  }

  /** The JWT with changed claims and the old signature. */
  static tampered(jwt, claims) {
    const [header, payload, signature] = jwt.split('.');
    const old = JSON.parse(Buffer.from(payload, 'base64url'));
    return [header, encode({ ...old, ...claims }), signature].join('.');
  }

  /** The same JWT, signed as each attacker can sign it, by the name of the attempt. */
  async forged(jwt) {
    const [header, payload, signature] = jwt.split('.');
    const [head, claims] = [header, payload].map((part) => JSON.parse(Buffer.from(part, 'base64url')));
    const unsigned = (alg) => `${encode({ ...head, alg })}.${payload}`;
    const hmac = (secret) => createHmac('sha256', secret).update(unsigned('HS256')).digest('base64url');
    const jwk = JSON.stringify(this.#jwk);
    const otherKid = { ...head, kid: 'attacker-1' };
    return {
      'the key of an attacker': await this.#sign(head, claims, this.#other),
      'the key of an attacker, with its kid': await this.#sign(otherKid, claims, this.#other),
      'no algorithm': `${unsigned('none')}.`,
      'no algorithm, with a signature': `${unsigned('none')}.${signature}`,
      'an HMAC with the public key': `${unsigned('HS256')}.${hmac(jwk)}`,
      'no signature': `${header}.${payload}.`,
      'a signature of zeros': `${header}.${payload}.${base64url(Buffer.alloc(64))}`,
    };
  }
}
