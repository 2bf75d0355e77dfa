// Sends DPoP proofs (RFC 9449) to two replicas of the demo that share a Redis. A proof is accepted
// once, at one of them. While Redis is stopped, hangs or is full, no proof is accepted. Then the
// same with nonces.
//
// Usage: node check.mjs --demo PATH --redis PATH --work DIRECTORY
// The directory receives the logs.
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { Client, send, tokenRequest, twin } from './client.mjs';
import { RedisServer, Replica, endAll } from './servers.mjs';

const { values: args } = parseArgs({
  options: { demo: { type: 'string' }, redis: { type: 'string' }, work: { type: 'string' } },
});
if (!args.demo || !args.redis || !args.work) {
  console.error('usage: node check.mjs --demo PATH --redis PATH --work DIRECTORY');
  process.exit(2);
}

/** Not the address that the replicas listen on: the URL is configuration. */
const PUBLIC_URL = 'https://api.example.com';
const URL_OF_PRIVATE = `${PUBLIC_URL}/private`;
/** How old a proof may be, and how far ahead, in seconds (`Dpop::window`). */
const PAST = 60;
const FUTURE = 30;
/** How far the clocks of two replicas may be apart, in seconds. */
const CLOCK_DIFFERENCE = 60;
/** The demo's prefix of keys in Redis. */
const PREFIX = 'portcullis-demo:';
const ROUNDS = 50;
const AT_ONCE = 10; // at each replica
const REQUESTS = 200;
const OUTAGE_S = 5; // long enough for a client that waits longer after each failure
const MOST_MS_WITHOUT_REDIS = 1_000;
const MOST_S_TO_RECOVER = 10;

const USED = '401 proof_used';
const WRONG_URL = '401 proof_wrong_url';
const UNAVAILABLE = '503 replays_unavailable';
const NONCE_NEEDED = '401 proof_nonce_needed';

// ---- cases --------------------------------------------------------------------------------------

const cases = [];
/** `run` may return a remark, which is printed with the case. */
const test = (name, run) => cases.push({ name, run });

class Mismatch extends Error {}
const show = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
function expect(wanted, actual, ok = isDeepStrictEqual(wanted, actual)) {
  if (!ok) throw new Mismatch(`expected ${show(wanted)}, got ${show(actual)}`);
}
const tally = (outcomes) => outcomes.reduce((all, one) => ({ ...all, [one]: (all[one] ?? 0) + 1 }), {});

// ---- the servers --------------------------------------------------------------------------------

const redis = new RedisServer(args.redis, args.work);
await redis.start();
const shared = { PUBLIC_URL, REDIS_URL: redis.url };
const a = await Replica.start(args.demo, args.work, 'a', shared);
const b = await Replica.start(args.demo, args.work, 'b', { ...shared, ISSUER: a.issuer });
const replicas = [a, b];

const newClient = () => Client.at(a.issuer, URL_OF_PRIVATE);
const client = await newClient();
const bearer = await tokenRequest(a.issuer);
const callAsBearer = (replica) => send(replica.api, '/private', { authorization: `Bearer ${bearer}` });

/** The outcomes of the same proof at several replicas, one after the other. */
async function inTurn(proof, ...at) {
  const outcomes = [];
  for (const replica of at) outcomes.push((await client.call(replica, proof)).outcome);
  return outcomes;
}

// ---- one proof, one request ---------------------------------------------------------------------

test('the same proof at A, then at B', async () => {
  expect(['200', USED], await inTurn(client.proof(), a, b));
});
test('the same proof at B, then at A', async () => {
  expect(['200', USED], await inTurn(client.proof(), b, a));
});
test('the same proof at A twice', async () => {
  expect(['200', USED, USED], await inTurn(client.proof(), a, a, b));
});
test(`${ROUNDS} rounds: one proof ${AT_ONCE} times at both at once is accepted once`, async () => {
  for (let round = 0; round < ROUNDS; round += 1) {
    const proof = client.proof();
    const calls = Array.from({ length: 2 * AT_ONCE }, (_, index) => client.call(replicas[index % 2], proof));
    const outcomes = (await Promise.all(calls)).map(({ outcome }) => outcome);
    expect({ 200: 1, [USED]: 2 * AT_ONCE - 1 }, tally(outcomes));
  }
});
test('the same jti of two keys', async () => {
  const other = await newClient();
  const jti = randomUUID();
  expect('200', (await client.call(a, client.proof({ jti }))).outcome);
  expect('200', (await other.call(b, other.proof({ jti }))).outcome);
  expect(USED, (await client.call(b, client.proof({ jti }))).outcome);
  expect(USED, (await other.call(a, other.proof({ jti }))).outcome);
});
test('the same jti for another URL and with another iat', async () => {
  const jti = randomUUID();
  expect('200', (await client.call(a, client.proof({ jti }))).outcome);
  const scoped = { jti, htu: `${PUBLIC_URL}/scoped`, iat: Math.floor(Date.now() / 1_000) - 5 };
  expect(USED, (await client.callAt(b, '/scoped', client.proof(scoped))).outcome);
});
test('the other ECDSA signature (r, n - s) of a used proof', async () => {
  const proof = client.proof();
  expect(['200'], await inTurn(proof, a));
  expect([USED, USED], await inTurn(twin(proof), a, b));
});
test('a used proof, after the other signature was accepted', async () => {
  const proof = client.proof();
  expect(['200'], await inTurn(twin(proof), a));
  expect([USED, USED], await inTurn(proof, b, a));
});
test('a rejected proof is not used up', async () => {
  const proof = client.proof();
  expect(WRONG_URL, (await client.callAt(a, '/scoped', proof)).outcome);
  expect(['200', USED], await inTurn(proof, b, a));
});

// ---- time ---------------------------------------------------------------------------------------

/** Sends a used proof to both in turn until its time is over. It is accepted at no moment. */
async function staysUsed(proof) {
  for (let turn = 0; ; turn += 1) {
    const [outcome] = await inTurn(proof, replicas[turn % 2]);
    if (outcome === '401 proof_wrong_time') return;
    expect(USED, outcome);
    await sleep(10);
  }
}

test('a proof of the last accepted second', async () => {
  for (let tries = 0; ; tries += 1) {
    expect('two requests in a second', 'a slower machine', tries < 10);
    await sleep(1_005 - (Date.now() % 1_000)); // the beginning of a second
    const second = Math.floor(Date.now() / 1_000);
    const proof = client.proof({ iat: second - PAST });
    const outcomes = await inTurn(proof, a, b);
    if (Math.floor(Date.now() / 1_000) !== second) continue;
    expect(['200', USED], outcomes);
    return staysUsed(proof);
  }
});
test('a proof with two seconds left', async () => {
  const proof = client.proof({ iat: Math.floor(Date.now() / 1_000) - PAST + 2 });
  expect(['200', USED], await inTurn(proof, a, b));
  await staysUsed(proof);
});

/**
 * Sends a proof that is accepted until `end`, in seconds since 1970. Checks that Redis has it for
 * longer: the clock of another replica may be behind, and a replica writes it after it has read the
 * time.
 */
async function expectRemembered(replica, proof, end) {
  const before = new Set(await redis.command('KEYS', '*'));
  expect(['200'], await inTurn(proof, replica));
  const added = (await redis.command('KEYS', '*')).filter((key) => !before.has(key));
  expect(1, added.length);
  const left = await redis.command('PTTL', added[0]);
  const needed = (end + CLOCK_DIFFERENCE) * 1_000 - Date.now() - 100; // both are rounded
  expect(`at least ${needed} ms`, `${left} ms`, left >= needed);
}

test('a proof from ahead is remembered for longer than it is accepted', async () => {
  const iat = Math.floor(Date.now() / 1_000) + FUTURE - 1;
  await expectRemembered(a, client.proof({ iat }), iat + PAST + 1); // `iat` may have been rounded down
});

// ---- the URL of a proof -------------------------------------------------------------------------

const OTHER_HOST = 'other.example';
for (const [name, headers] of [
  ['Host', { host: OTHER_HOST }],
  ['X-Forwarded-Host', { 'x-forwarded-host': OTHER_HOST, 'x-forwarded-proto': 'https' }],
  ['Forwarded', { forwarded: `host=${OTHER_HOST};proto=https` }],
  ['Host and X-Forwarded-Host', { host: OTHER_HOST, 'x-forwarded-host': OTHER_HOST, 'x-forwarded-proto': 'https' }],
]) {
  test(`a proof for another host, with that host in ${name}`, async () => {
    const proof = client.proof({ htu: `https://${OTHER_HOST}/private` });
    expect(WRONG_URL, (await client.call(a, proof, headers)).outcome);
    expect('200', (await client.call(a, client.proof(), headers)).outcome);
  });
}
test('a proof for another host, with that host in the request target', async () => {
  const htu = `https://${OTHER_HOST}/private`;
  expect(WRONG_URL, (await client.callAt(a, htu, client.proof({ htu }))).outcome);
});
test('a proof for the address that the replica listens on', async () => {
  expect(WRONG_URL, (await client.call(a, client.proof({ htu: `${a.api}/private` }))).outcome);
});
test('a request with a query', async () => {
  expect('200', (await client.callAt(a, '/private?page=2', client.proof())).outcome);
});

// For GET https://api.example.com/private, by hand from RFC 9449 §4.3 and RFC 3986 §6.2.2, §6.2.3.
for (const [name, htu, outcome] of [
  ['as configured', 'https://api.example.com/private', '200'],
  ['a query', 'https://api.example.com/private?page=2', '200'],
  ['a fragment', 'https://api.example.com/private#top', '200'],
  ['a query and a fragment', 'https://api.example.com/private?a=/x#b?c', '200'],
  ['the scheme in upper case', 'HTTPS://api.example.com/private', '200'],
  ['the host in upper case', 'https://API.Example.COM/private', '200'],
  ['the default port', 'https://api.example.com:443/private', '200'],
  ['an empty port', 'https://api.example.com:/private', '200'],
  ['a dot segment', 'https://api.example.com/./private', '200'],
  ['two dots', 'https://api.example.com/x/../private', '200'],
  ['two encoded dots', 'https://api.example.com/x/%2e%2E/private', '200'],
  ['more dots than segments', 'https://api.example.com/../../private', '200'],
  ['an encoded letter', 'https://api.example.com/%70rivate', '200'],
  ['the default port of http', 'https://api.example.com:80/private', WRONG_URL],
  ['another port', 'https://api.example.com:8443/private', WRONG_URL],
  ['a port that is too large', 'https://api.example.com:65979/private', WRONG_URL], // 443 + 65,536
  ['a port with a sign', 'https://api.example.com:+443/private', WRONG_URL],
  ['http', 'http://api.example.com/private', WRONG_URL],
  ['http with the port of https', 'http://api.example.com:443/private', WRONG_URL],
  ['a websocket', 'wss://api.example.com/private', WRONG_URL],
  ['a slash at the end', 'https://api.example.com/private/', WRONG_URL],
  ['a dot at the end', 'https://api.example.com/private/.', WRONG_URL],
  ['two dots at the end', 'https://api.example.com/private/..', WRONG_URL],
  ['the path in upper case', 'https://api.example.com/PRIVATE', WRONG_URL],
  ['two slashes', 'https://api.example.com//private', WRONG_URL],
  ['an encoded slash', 'https://api.example.com/%2Fprivate', WRONG_URL],
  ['an encoded slash as the first', 'https://api.example.com%2Fprivate', WRONG_URL],
  ['an encoded slash behind dots', 'https://api.example.com/x/..%2Fprivate', WRONG_URL],
  ['a letter that is encoded twice', 'https://api.example.com/%2570rivate', WRONG_URL],
  ['an incomplete encoding', 'https://api.example.com/private%', WRONG_URL],
  ['an encoded zero byte', 'https://api.example.com/private%00', WRONG_URL],
  ['a parameter of the path', 'https://api.example.com/private;v=1', WRONG_URL],
  ['a backslash for a slash', 'https://api.example.com\\private', WRONG_URL],
  ['a backslash after the slash', 'https://api.example.com/\\private', WRONG_URL],
  ['backslashes for all slashes', 'https:\\\\api.example.com\\private', WRONG_URL],
  ['a user', 'https://user@api.example.com/private', WRONG_URL],
  ['a user and a password', 'https://user:password@api.example.com/private', WRONG_URL],
  ['an empty user', 'https://@api.example.com/private', WRONG_URL],
  ['the host as a user', 'https://api.example.com@other.example/private', WRONG_URL],
  ['the host and the port as a user', 'https://api.example.com:443@other.example/private', WRONG_URL],
  ['a dot after the host', 'https://api.example.com./private', WRONG_URL],
  ['a longer host', 'https://api.example.com.other.example/private', WRONG_URL],
  ['a subdomain', 'https://x.api.example.com/private', WRONG_URL],
  ['a host without its last letter', 'https://api.example.co/private', WRONG_URL],
  ['an encoded letter in the host', 'https://%61pi.example.com/private', WRONG_URL],
  ['a Cyrillic letter in the host', 'https://\u0430pi.example.com/private', WRONG_URL],
  ['full-width letters in the host', 'https://api.example.\uff43om/private', WRONG_URL],
  ['a space before', ' https://api.example.com/private', WRONG_URL],
  ['a space after', 'https://api.example.com/private ', WRONG_URL],
  ['a tab inside', 'https://api.example.com/pri\tvate', WRONG_URL],
  ['a line break inside', 'https://api.example.com/pri\nvate', WRONG_URL],
  ['only the beginning', 'https://api.example.com', WRONG_URL],
  ['only the path', '/private', WRONG_URL],
  ['without a scheme', '//api.example.com/private', WRONG_URL],
  ['without slashes', 'https:api.example.com/private', WRONG_URL],
  ['two URLs', 'https://api.example.com/private https://api.example.com/private', WRONG_URL],
  ['the route beside it', 'https://api.example.com/scoped', WRONG_URL],
  ['empty', '', WRONG_URL],
]) {
  test(`htu ${outcome === '200' ? 'is' : 'is not'} the URL: ${name}`, async () => {
    expect(outcome, (await client.call(a, client.proof({ htu }))).outcome);
  });
}

// ---- what is in Redis ---------------------------------------------------------------------------

test(`${REQUESTS} requests: one connection for each replica`, async () => {
  const calls = Array.from({ length: REQUESTS }, (_, index) => client.call(replicas[index % 2], client.proof()));
  expect({ 200: REQUESTS }, tally((await Promise.all(calls)).map(({ outcome }) => outcome)));
  await expectConnections();
});
test('each key has the prefix and an end, and none tells a token or a jti', async () => {
  const jti = randomUUID();
  expect(['200'], await inTurn(client.proof({ jti }), a));
  const entries = await redis.entries();
  expect(`more than ${REQUESTS} keys`, `${entries.length} keys`, entries.length > REQUESTS);
  const ath = createHash('sha256').update(client.token).digest();
  const [, payload, signature] = client.token.split('.');
  const secrets = [jti, client.token, payload, signature, ath, Buffer.from(client.thumbprint, 'base64url')]
    .map((secret) => Buffer.from(secret))
    .flatMap((secret) => ['latin1', 'base64url', 'hex'].map((encoding) => secret.toString(encoding)));
  for (const { key, value, left } of entries) {
    expect(`a key that begins with ${PREFIX}`, key, key.startsWith(PREFIX));
    // `iat` may have been rounded down, and so may the time of the API.
    const most = (PAST + FUTURE + CLOCK_DIFFERENCE + 2) * 1_000;
    expect(`an end of ${key} in at most ${most} ms`, `${left} ms`, left > 0 && left <= most);
    for (const secret of secrets) expect(`no ${secret}`, `${key} ${value}`, !`${key} ${value}`.includes(secret));
  }
  return `${entries.length} keys`;
});
test('rejected and Bearer requests write nothing', async () => {
  const before = await redis.command('DBSIZE');
  const changed = client.proof().replace(/....$/, 'AAAA');
  expect('401 proof_bad_signature', (await client.call(a, changed)).outcome);
  expect(WRONG_URL, (await client.callAt(a, '/scoped', client.proof())).outcome);
  expect('200', (await callAsBearer(a)).outcome);
  const after = await redis.command('DBSIZE');
  expect(`at most ${before} keys`, `${after} keys`, after <= before);
});

// ---- without Redis ------------------------------------------------------------------------------

/** `first` and proofs that follow are rejected within a second, also while Redis is asked less. */
async function expectUnavailable(first) {
  let longest = 0;
  for (let index = 0; index < 10; index += 1) {
    const proof = index === 0 ? first : client.proof();
    const { outcome, headers, ms } = await client.call(replicas[index % 2], proof);
    expect(UNAVAILABLE, outcome);
    expect('Retry-After in seconds', headers['retry-after'] ?? null, /^[1-9]\d*$/.test(headers['retry-after']));
    expect('no challenge', headers['www-authenticate'] ?? 'no challenge');
    longest = Math.max(longest, ms);
  }
  const found = `${Math.ceil(longest)} ms`;
  expect(`at most ${MOST_MS_WITHOUT_REDIS} ms`, found, longest < MOST_MS_WITHOUT_REDIS);
  return `at most ${found}`;
}

async function expectTheRestUnchanged() {
  for (const replica of replicas) {
    expect('200', (await callAsBearer(replica)).outcome);
    expect('200', (await send(replica.api, '/readyz')).outcome);
    expect('200', (await send(replica.api, '/public')).outcome);
    // The fault of a proof is told, whether or not Redis responds.
    expect(WRONG_URL, (await client.call(replica, client.proof({ htu: PUBLIC_URL }))).outcome);
    const downgraded = { authorization: `Bearer ${client.token}` };
    expect('401 sender_constrained', (await send(replica.api, '/private', downgraded)).outcome);
  }
}

/** All replicas accept proofs again, each by one connection. */
async function expectRecovery() {
  const began = Date.now();
  for (const replica of replicas) {
    for (;;) {
      const { outcome } = await client.call(replica, client.proof());
      if (outcome === '200') break;
      expect(UNAVAILABLE, outcome);
      const waited = (Date.now() - began) / 1_000;
      expect(`an accepted proof within ${MOST_S_TO_RECOVER} s`, UNAVAILABLE, waited < MOST_S_TO_RECOVER);
      await sleep(50);
    }
  }
  const remark = `after ${((Date.now() - began) / 1_000).toFixed(1)} s`;
  await expectConnections();
  return remark;
}

async function expectConnections() {
  // Redis may not have noticed yet that a connection of this check has ended.
  for (const end = Date.now() + 2_000; ; await sleep(50)) {
    const connections = await redis.connections();
    if (connections.length === replicas.length) return;
    expect(`${replicas.length} connections`, connections.join('; '), Date.now() < end);
  }
}

let used; // before each outage
let during; // a proof that was answered 503
const outages = [
  {
    name: 'Redis hangs',
    begin: () => redis.hang(),
    end: () => redis.resume(),
    keepsData: true,
  },
  {
    name: 'Redis is full',
    begin: () => redis.command('CONFIG', 'SET', 'maxmemory', '1'),
    end: () => redis.command('CONFIG', 'SET', 'maxmemory', '64mb'),
    keepsData: true,
  },
  {
    name: 'Redis is stopped',
    begin: () => redis.stop(),
    end: () => redis.start(),
    isLong: true,
  },
];
for (const { name, begin, end, isLong, keepsData } of outages) {
  test(`${name}: DPoP requests get 503 with Retry-After, within a second`, async () => {
    used = client.proof();
    expect(['200'], await inTurn(used, a));
    await begin();
    during = client.proof();
    return expectUnavailable(during);
  });
  if (isLong) {
    test(`${name}: a replica that starts now gets ready`, async () => {
      const late = await Replica.start(args.demo, args.work, 'late', { ...shared, ISSUER: a.issuer });
      replicas.push(late);
      expect([UNAVAILABLE], await inTurn(client.proof(), late));
    });
    test(`${name}: for ${OUTAGE_S} seconds, all replicas answer 503`, async () => {
      for (const last = Date.now() + OUTAGE_S * 1_000; Date.now() < last; await sleep(50)) {
        const proof = client.proof();
        expect(replicas.map(() => UNAVAILABLE), await inTurn(proof, ...replicas));
      }
    });
  }
  test(`${name}: Bearer requests, /readyz and other errors are as before`, expectTheRestUnchanged);
  test(`${name}, no longer: DPoP requests are accepted, by the same processes`, async () => {
    await end();
    return expectRecovery();
  });
  if (keepsData) {
    test(`${name}, no longer: a proof that was used before is used`, async () => {
      expect([USED, USED], await inTurn(used, b, a));
    });
  }
  test(`${name}, no longer: a proof that got 503 is accepted once at most`, async () => {
    const accepted = (await inTurn(during, b, a, b)).filter((outcome) => outcome === '200').length;
    expect('at most one 200', `${accepted}`, accepted <= 1);
  });
}
test('connections that break are replaced', async () => {
  await redis.command('CLIENT', 'KILL', 'TYPE', 'normal');
  return expectRecovery();
});

// ---- with nonces --------------------------------------------------------------------------------

let c;
let d;
let nonce;
let minute; // of the nonce
const NONCE = /^[\w-]{20,}$/;

test('with nonces: two replicas with the same secret start', async () => {
  const DPOP_NONCE_SECRET = randomBytes(32).toString('base64url');
  const env = { ...shared, ISSUER: a.issuer, DPOP_NONCE_SECRET };
  c = await Replica.start(args.demo, args.work, 'c', env);
  d = await Replica.start(args.demo, args.work, 'd', env);
});
test('with nonces: a proof without one gets 401 use_dpop_nonce, and the nonce', async () => {
  minute = Math.floor(Date.now() / 60_000);
  const { outcome, headers } = await client.call(c, client.proof());
  expect(NONCE_NEEDED, outcome);
  const challenges = headers['www-authenticate'] ?? '';
  expect('a DPoP challenge with use_dpop_nonce', challenges, /^DPoP .*error="use_dpop_nonce"/.test(challenges));
  expect('no-store', headers['cache-control'], /no-store/.test(headers['cache-control']));
  nonce = headers['dpop-nonce'];
  expect('a nonce', nonce ?? null, NONCE.test(nonce));
});
test('with nonces: the nonce of one replica is accepted by both, each proof once', async () => {
  expect(['200', USED], await inTurn(client.proof({ nonce }), d, c));
  expect(['200', USED], await inTurn(client.proof({ nonce }), c, d));
});
for (const [name, seconds] of [
  ['an hour ago', -3_600],
  ['in an hour', 3_600],
]) {
  test(`with nonces: a proof made ${name} is accepted once`, async () => {
    const iat = Math.floor(Date.now() / 1_000) + seconds;
    expect(['200', USED, USED], await inTurn(client.proof({ nonce, iat }), d, c, d));
  });
}
test('with nonces: an invented or changed nonce gets 401 and a valid one', async () => {
  const invented = randomBytes(24).toString('base64url');
  for (const wrong of ['', 'x', nonce.slice(1), `${nonce}A`, nonce.toLowerCase(), invented]) {
    const { outcome, headers } = await client.call(c, client.proof({ nonce: wrong }));
    expect(NONCE_NEEDED, outcome);
    expect(['200'], await inTurn(client.proof({ nonce: headers['dpop-nonce'] }), d));
  }
});
test(`with nonces: one proof ${AT_ONCE} times at both at once is accepted once`, async () => {
  const proof = client.proof({ nonce });
  const calls = Array.from({ length: 2 * AT_ONCE }, (_, index) => client.call([c, d][index % 2], proof));
  expect({ 200: 1, [USED]: 2 * AT_ONCE - 1 }, tally((await Promise.all(calls)).map(({ outcome }) => outcome)));
});
test('with nonces: a proof is remembered for longer than its nonce is accepted', async () => {
  // In its minute, and in the four that follow.
  await expectRemembered(c, client.proof({ nonce, iat: 1 }), (minute + 5) * 60);
});

let failed = 0;
for (const { name, run } of cases) {
  try {
    const remark = await run();
    console.log(`ok  ${name}${remark ? ` (${remark})` : ''}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${error instanceof Mismatch ? error.message : `expected an answer, got ${error}`}`);
  }
}
console.log(`${cases.length - failed} of ${cases.length} cases passed`);
await endAll();
process.exit(failed ? 1 : 0);
