// Base64url, JSON, hashes and random text, as JWTs and OAuth use them.

export function toBase64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64url(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (c) => c.charCodeAt(0)));
}

export function encodeJson(value) {
  return toBase64url(new TextEncoder().encode(JSON.stringify(value)));
}

/** 32 random bytes as 43 characters, as RFC 7636 recommends for a verifier. */
export function randomText() {
  return toBase64url(crypto.getRandomValues(new Uint8Array(32)));
}

export async function sha256(text) {
  return toBase64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));
}

/** Decodes a JWT; null for any other token (opaque or encrypted). */
export function decodeToken(token) {
  const parts = token.split(".");
  if (parts.length !== 3) return null;
  try {
    return { header: JSON.parse(fromBase64url(parts[0])), payload: JSON.parse(fromBase64url(parts[1])), parts };
  } catch {
    return null;
  }
}
