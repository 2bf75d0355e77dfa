// A client with a key of its own. It gets bound tokens from the embedded issuer of the demo, and
// makes DPoP proofs (RFC 9449 §4.2), also those that a library does not make.
import { createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { Agent, request } from 'node:http';

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

const base64url = (value) => Buffer.from(value).toString('base64url');
const sha256 = (text) => createHash('sha256').update(text).digest('base64url');
const now = () => Math.floor(Date.now() / 1_000);

/**
 * Sends a request with these headers and this target as they are. `outcome` is the status, with the
 * library's code of a rejected request; `ms` is how long the response took.
 */
export function send(origin, target, headers = {}, { method = 'GET', body } = {}) {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const outgoing = request(origin, { path: target, method, headers, agent }, (response) => {
      const { statusCode: status, headers: received } = response;
      const reason = received['x-demo-reason'];
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => (text += chunk));
      response.on('error', reject).on('end', () => {
        const outcome = reason ? `${status} ${reason}` : String(status);
        resolve({ status, outcome, headers: received, text, ms: performance.now() - began });
      });
    });
    outgoing.setTimeout(10_000, () => outgoing.destroy(new Error(`no response of ${origin} within ten seconds`)));
    outgoing.on('error', reject).end(body);
  });
}

/** A token for the demo's audience by client credentials (RFC 6749 §4.4), bound if with a proof. */
export async function tokenRequest(issuer, proof) {
  const { origin, pathname } = new URL('oauth/token', issuer);
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: 'machine',
    client_secret: 'machine-secret',
    audience: 'https://api.example.com',
    scope: 'read:messages',
  }).toString();
  const headers = { 'content-type': 'application/x-www-form-urlencoded', ...(proof && { dpop: proof }) };
  const { status, text } = await send(origin, pathname, headers, { method: 'POST', body });
  const answer = status === 200 ? JSON.parse(text) : {};
  const wanted = proof ? 'dpop' : 'bearer';
  if (answer.token_type?.toLowerCase() !== wanted) {
    throw new Error(`expected a token of the type ${wanted}, got ${status} ${text}`);
  }
  return answer.access_token;
}

export class Client {
  /** The bound token. */
  token;
  #key;
  #jwk;
  #url;

  /** A client with a new key and a token for it. `url`: the URL that its proofs are made for. */
  static async at(issuer, url) {
    const client = new Client();
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const { kty, crv, x, y } = publicKey.export({ format: 'jwk' });
    client.#key = privateKey;
    client.#jwk = { kty, crv, x, y };
    client.#url = url;
    const endpoint = new URL('oauth/token', issuer).href;
    client.token = await tokenRequest(issuer, client.proof({ htm: 'POST', htu: endpoint, ath: undefined }));
    const { cnf } = JSON.parse(Buffer.from(client.token.split('.')[1], 'base64url'));
    if (cnf?.jkt !== client.thumbprint) throw new Error(`expected a token for ${client.thumbprint}, got ${cnf?.jkt}`);
    return client;
  }

  /** RFC 7638. */
  get thumbprint() {
    const { kty, crv, x, y } = this.#jwk;
    return sha256(JSON.stringify({ crv, kty, x, y }));
  }

  /** A proof for a GET, with other claims if there are any. */
  proof(claims = {}) {
    const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: this.#jwk };
    const payload = {
      jti: randomUUID(),
      htm: 'GET',
      htu: this.#url,
      iat: now(),
      ath: this.token && sha256(this.token),
      ...claims,
    };
    const signed = `${base64url(JSON.stringify(header))}.${base64url(JSON.stringify(payload))}`;
    const signature = sign('sha256', Buffer.from(signed), { key: this.#key, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${base64url(signature)}`;
  }

  /** Calls `/private` of a replica. */
  call(replica, proof, headers = {}) {
    return this.callAt(replica, '/private', proof, headers);
  }

  callAt(replica, target, proof, headers = {}) {
    return send(replica.api, target, { authorization: `DPoP ${this.token}`, dpop: proof, ...headers });
  }
}

/** The order of the base point of P-256. */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

/** The other signature that ECDSA has for the same text: (r, n - s) in place of (r, s). */
export function twin(proof) {
  const [header, payload, signature] = proof.split('.');
  const bytes = Buffer.from(signature, 'base64url');
  const s = BigInt(`0x${bytes.subarray(32).toString('hex')}`);
  bytes.write((ORDER - s).toString(16).padStart(64, '0'), 32, 'hex');
  return [header, payload, base64url(bytes)].join('.');
}
