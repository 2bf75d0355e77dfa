// The stand-in for the user's browser.
//
// Usage: node browser.mjs URL
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/**
 * Follows the redirects of a sign-in at `start`, with a cookie jar of its own. Resolves to the
 * address of the first redirect that begins with `until`, without requesting it; by default, to the
 * address of the page at the end.
 */
export async function browse(start, until) {
  const issuer = new URL(start).origin;
  const cookies = new Map(); // of the issuer
  let at = new URL(start);
  for (let hops = 0; hops < 12; hops += 1) {
    if (until && at.href.startsWith(until)) return at;
    const cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
    const response = await get(at, at.origin === issuer ? { cookie } : {});
    for (const line of response.headers.getSetCookie()) {
      const [, key, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) cookies.set(key, value);
      else cookies.delete(key); // an empty value deletes the cookie
    }
    const location = response.headers.get('location');
    if (location === null) {
      if (response.ok && !until) return at;
      throw new Error(`no redirect from ${at}: ${response.status} ${await response.text()}`);
    }
    at = new URL(location, at);
  }
  throw new Error(`more than 12 redirects from ${start}`);
}

/** mcp-remote may open the browser before it listens, so tries again for ten seconds. */
async function get(url, headers) {
  for (let attempts = 1; ; attempts += 1) {
    try {
      return await fetch(url, { redirect: 'manual', headers });
    } catch (error) {
      if (attempts === 100) throw error;
      await sleep(100);
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await browse(process.argv[2]);
