// DPoP (RFC 9449): a key of this tab, and the proofs that it signs.

import { encodeJson, randomText, sha256, toBase64url } from "./encoding.js";

const DATABASE = "portcullis-demo";
const STORE = "keys";
/** A sign-in that is never completed leaves its key behind. It is deleted after this time. */
const ABANDONED_MS = 3_600_000;
const CURVE = { name: "ECDSA", namedCurve: "P-256" };
const SIGNATURE = { name: "ECDSA", hash: "SHA-256" };
export const ALGORITHM = "ES256";

/** The newest nonce of each server, by origin (RFC 9449 §8.2). */
const nonces = new Map();

// --- The key -------------------------------------------------------------------------------------

/**
 * Creates a key. It is not extractable: a script can use it while the page is open, but cannot copy
 * its private half.
 */
export async function createKey() {
  const { privateKey, publicKey } = await crypto.subtle.generateKey(CURVE, false, ["sign", "verify"]);
  const { crv, kty, x, y } = await crypto.subtle.exportKey("jwk", publicKey);
  // In this order (RFC 7638 §3.2).
  const jwk = { crv, kty, x, y };
  return { privateKey, jwk, thumbprint: await sha256(JSON.stringify(jwk)) };
}

/**
 * Stores a key while the user is at the issuer. Only IndexedDB can store a key that is not
 * extractable.
 */
export async function storeKey(name, key) {
  await inStore((store) => {
    store.openCursor().onsuccess = ({ target: { result: cursor } }) => {
      if (!cursor) return;
      if (cursor.value.stored < Date.now() - ABANDONED_MS) cursor.delete();
      cursor.continue();
    };
    return store.put({ key, stored: Date.now() }, name);
  });
}

/** Removes a key from the store and returns it; undefined if the store does not have it. */
export async function takeKey(name) {
  return inStore((store) => {
    const stored = store.get(name);
    store.delete(name);
    return stored;
  }).then((stored) => stored?.key);
}

/** Runs `work` in one transaction. Resolves to the result of the request that it returns. */
async function inStore(work) {
  const database = await new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, "readwrite");
      const request = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

// --- Proofs --------------------------------------------------------------------------------------

/**
 * Makes a proof for one request (RFC 9449 §4.2). At the token endpoint, there is no token yet.
 */
export async function makeProof(key, method, url, token) {
  const { origin, pathname } = new URL(url);
  const header = { typ: "dpop+jwt", alg: ALGORITHM, jwk: key.jwk };
  const claims = { jti: randomText(), htm: method, htu: origin + pathname, iat: Math.floor(Date.now() / 1000) };
  if (token) claims.ath = await sha256(token);
  if (nonces.has(origin)) claims.nonce = nonces.get(origin);
  const signed = `${encodeJson(header)}.${encodeJson(claims)}`;
  const signature = await crypto.subtle.sign(SIGNATURE, key.privateKey, new TextEncoder().encode(signed));
  return `${signed}.${toBase64url(new Uint8Array(signature))}`;
}

/**
 * Remembers the nonce of a response for the next proof. Returns whether the server asks for the
 * request again, with that nonce: an issuer in the body (RFC 9449 §8), an API in the challenge (§9).
 */
export function noteNonce(url, { headers, json }) {
  const nonce = headers.get("DPoP-Nonce");
  if (!nonce) return false;
  nonces.set(new URL(url).origin, nonce);
  const challenge = headers.get("WWW-Authenticate") ?? "";
  return json?.error === "use_dpop_nonce" || challenge.includes('error="use_dpop_nonce"');
}
