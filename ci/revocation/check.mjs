// Ends sessions at one of two replicas of the demo that share a Redis, by logout tokens (OpenID
// Connect Back-Channel Logout 1.0) and security events (RFC 8935, CAEP 1.0). Both replicas then
// reject the tokens of these sessions: within two seconds, while Redis is stopped, and after a
// restart. Invalid logout tokens and events are rejected and revoke nothing.
//
// Usage: node check.mjs --demo PATH --redis PATH --work DIRECTORY
// The directory receives the logs and the data of Redis.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { send } from '../replicas/client.mjs';
import { RedisServer, Replica, endAll } from '../replicas/servers.mjs';
import { AUTHORIZATION, LOG, REVOKED, UNAVAILABLE, call, logOut, postLogout, push } from './api.mjs';
import {
  AUDIENCE,
  CLIENT,
  CREDENTIAL_CHANGE,
  Issuer,
  LOGOUT,
  RECEIVER,
  SESSION_REVOKED,
  VERIFICATION,
  now,
} from './issuer.mjs';

const { values: args } = parseArgs({
  options: { demo: { type: 'string' }, redis: { type: 'string' }, work: { type: 'string' } },
});
if (!args.demo || !args.redis || !args.work) {
  console.error('usage: node check.mjs --demo PATH --redis PATH --work DIRECTORY');
  process.exit(2);
}

/** From the request that ends a session until both replicas reject its tokens. */
const MOST_MS = 2_000;
const ROUNDS = 50;
const AT_ONCE = 5;
/**
 * For how long tokens are accepted while the log cannot be read, in seconds since Redis was stopped
 * (`Revocations::max_stale` is 60 s). It counts from the last time that the log was read.
 */
const LEAST_S_STALE = 58;
const MOST_S_STALE = 63;
const MOST_S_TO_RECOVER = 10;

// ---- cases --------------------------------------------------------------------------------------

const cases = [];
/** `run` may return a remark, which is printed with the case. */
const test = (name, run) => cases.push({ name, run });

class Mismatch extends Error {}
const show = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
function expect(wanted, actual, ok = isDeepStrictEqual(wanted, actual)) {
  if (!ok) throw new Mismatch(`expected ${show(wanted)}, got ${show(actual)}`);
}

// ---- the servers --------------------------------------------------------------------------------

// A restart must not lose what was acknowledged.
const redis = new RedisServer(args.redis, args.work, { appendonly: 'yes', appendfsync: 'always' });
await redis.start();
const issuer = await Issuer.start();
const env = {
  ISSUER: issuer.url,
  AUDIENCE,
  REDIS_URL: redis.url,
  LOGOUT_AUDIENCE: CLIENT,
  EVENTS_AUDIENCE: RECEIVER,
  EVENTS_AUTHORIZATION: AUTHORIZATION,
};
let a = await Replica.start(args.demo, args.work, 'a', env);
let b = await Replica.start(args.demo, args.work, 'b', env);

const entriesInLog = () => redis.command('XLEN', LOG);
const outcomeOf = async (replica, token) => (await call(replica, token)).outcome;

async function expectOutcome(wanted, token, ...at) {
  for (const replica of at) expect(wanted, await outcomeOf(replica, token));
}

/** All sessions that were ended. */
const ended = [];

/** A session of a user, with a token that both replicas accept. */
async function newSession(sub = `user-${randomUUID()}`) {
  const sid = `session-${randomUUID()}`;
  const jti = randomUUID();
  const token = await issuer.accessToken({ sub, sid, jti });
  await expectOutcome('200', token, a, b);
  return { sub, sid, jti, token };
}

/** Calls a replica until it rejects a token. Returns how long that took. */
async function untilRejected(replica, token, began = performance.now()) {
  for (;;) {
    const outcome = await outcomeOf(replica, token);
    const ms = performance.now() - began;
    if (outcome === REVOKED) {
      expect(`a rejection within ${MOST_MS} ms`, `${Math.ceil(ms)} ms`, ms <= MOST_MS);
      return ms;
    }
    expect('200', outcome);
    expect(`a rejection within ${MOST_MS} ms`, 'still accepted', ms <= MOST_MS);
    await sleep(10);
  }
}

/** By nearest rank. */
function percentile(values, percent) {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.ceil((percent / 100) * sorted.length) - 1];
}
const summary = (values) =>
  [
    ['median', 50],
    ['p99', 99],
  ]
    .map(([name, percent]) => `${name} ${Math.ceil(percentile(values, percent))} ms`)
    .join(', ');

// ---- subjects (RFC 9493) ------------------------------------------------------------------------

const opaque = (id) => ({ format: 'opaque', id });
const user = ({ sub }) => ({ format: 'iss_sub', iss: issuer.url, sub });

// ---- what is rejected, and revokes nothing ------------------------------------------------------

// Made now: these cases run first, so none is rejected for its age.
const victim = await newSession();
const { sub, sid } = victim;

/** `deliver` gets `status`, and an answer with `has`. Nothing is revoked. */
function testNothing(name, { status, has = '', deliver }) {
  test(name, async () => {
    const before = await entriesInLog();
    const answer = await deliver();
    expect(status, answer.status);
    expect(`an answer with ${has}`, answer.text, answer.text.includes(has));
    expect('no-store', answer.headers['cache-control'] ?? null);
    expect(before, await entriesInLog());
    await expectOutcome('200', victim.token, a);
  });
}

const INVALID_LOGOUT = { status: 400, has: '{"error":"invalid_request"}' };
const rightLogout = await issuer.logoutToken({ sub, sid });
const logouts = {
  ...(await issuer.forged(rightLogout)),
  'another session, with the old signature': Issuer.tampered(
    await issuer.logoutToken({ sid: 'other' }),
    { sub, sid },
  ),
  'another client in aud': await issuer.logoutToken({ sub, sid, aud: 'other' }),
  'the API in aud': await issuer.logoutToken({ sub, sid, aud: AUDIENCE }),
  'no aud': await issuer.logoutToken({ sub, sid, aud: undefined }),
  'another issuer': await issuer.logoutToken({ sub, sid, iss: 'https://other.example/' }),
  'no issuer': await issuer.logoutToken({ sub, sid, iss: undefined }),
  'made ten minutes ago': await issuer.logoutToken({ sub, sid, iat: now() - 600, exp: undefined }),
  'from ahead': await issuer.logoutToken({ sub, sid, iat: now() + 600, exp: now() + 720 }),
  'no iat': await issuer.logoutToken({ sub, sid, iat: undefined }),
  'iat is text': await issuer.logoutToken({ sub, sid, iat: String(now()) }),
  expired: await issuer.logoutToken({ sub, sid, iat: now() - 100, exp: now() - 60 }),
  'no jti': await issuer.logoutToken({ sub, sid, jti: undefined }),
  'no events': await issuer.logoutToken({ sub, sid, events: undefined }),
  'another event': await issuer.logoutToken({ sub, sid, events: { [SESSION_REVOKED]: {} } }),
  'an event that is true': await issuer.logoutToken({ sub, sid, events: { [LOGOUT]: true } }),
  'events in a list': await issuer.logoutToken({ sub, sid, events: [LOGOUT] }),
  'a nonce': await issuer.logoutToken({ sub, sid, nonce: 'n' }),
  'neither sub nor sid': await issuer.logoutToken({}),
  'an empty sid, and no sub': await issuer.logoutToken({ sid: '' }),
  'the type of an access token': await issuer.logoutToken({ sub, sid }, { typ: 'at+jwt' }),
  'the type of an event': await issuer.logoutToken({ sub, sid }, { typ: 'secevent+jwt' }),
  'the type of a proof': await issuer.logoutToken({ sub, sid }, { typ: 'dpop+jwt' }),
  'an access token of the session': victim.token,
  'an access token of the session, of the type JWT': await issuer.accessToken({ sub, sid }, { typ: 'JWT' }),
  'an access token for the client': await issuer.accessToken({ sub, sid, aud: CLIENT }, { typ: undefined }),
  'an ID token': await issuer.accessToken({ sub, sid, aud: CLIENT, nonce: 'n' }, { typ: 'JWT' }),
  'an event': await issuer.event(SESSION_REVOKED, { ...opaque(sid) }, { aud: CLIENT }),
  'no JWT': 'logout',
  'an empty text': '',
  'five parts': 'a.b.c.d.e',
};
for (const [name, token] of Object.entries(logouts)) {
  testNothing(`as a logout token: ${name}`, { ...INVALID_LOGOUT, deliver: () => logOut(a, token) });
}
const parameter = `logout_token=${rightLogout}`;
for (const { name, body, how, ...answer } of [
  { name: 'two logout tokens', body: `${parameter}&${parameter}`, ...INVALID_LOGOUT },
  { name: 'no logout token', body: 'token=x', ...INVALID_LOGOUT },
  { name: 'no body', body: '', ...INVALID_LOGOUT },
  { name: 'JSON', body: JSON.stringify({ logout_token: rightLogout }), how: { type: 'application/json' }, status: 415 },
  { name: 'more than 64 KiB', body: `${parameter}&more=${'x'.repeat(65_536)}`, status: 413 },
  { name: 'a PUT', body: parameter, how: { method: 'PUT' }, status: 405 },
]) {
  testNothing(`to the receiver of logout tokens: ${name}`, { ...answer, deliver: () => postLogout(a, body, how) });
}

const subject = { format: 'complex', user: user(victim), session: opaque(sid) };
const invalid = (err) => ({ status: 400, has: `"err":"${err}` });
const rightEvent = await issuer.event(SESSION_REVOKED, subject);
const inEvent = (claims, header) => issuer.event(SESSION_REVOKED, subject, claims, header);
const otherSession = await issuer.event(SESSION_REVOKED, opaque('other'));
const INVALID_REQUEST = invalid('invalid_request');
const events = [
  // Which `err` depends on the attempt.
  ...Object.entries(await issuer.forged(rightEvent)).map(([name, body]) => {
    // The issuer was just asked about this key, and is not asked again for a while. By then it might
    // have the key, so the event is to be sent again.
    const isLater = name === 'the key of an attacker, with its kid';
    return { name, body, ...(isLater ? { status: 503 } : invalid('invalid_')) };
  }),
  { name: 'the old signature', body: Issuer.tampered(otherSession, { sub_id: subject }), ...invalid('invalid_key') },
  { name: 'another audience', body: await inEvent({ aud: 'other' }), ...invalid('invalid_audience') },
  { name: 'the audience of the API', body: await inEvent({ aud: AUDIENCE }), ...invalid('invalid_audience') },
  { name: 'no aud', body: await inEvent({ aud: undefined }), ...invalid('invalid_') },
  { name: 'another issuer', body: await inEvent({ iss: 'https://other.example/' }), ...invalid('invalid_issuer') },
  { name: 'from ahead', body: await inEvent({ iat: now() + 600 }), ...INVALID_REQUEST },
  { name: 'no iat', body: await inEvent({ iat: undefined }), ...INVALID_REQUEST },
  { name: 'no jti', body: await inEvent({ jti: undefined }), ...INVALID_REQUEST },
  { name: 'no events', body: await inEvent({ events: undefined }), ...INVALID_REQUEST },
  { name: 'no type', body: await inEvent({}, { typ: undefined }), ...INVALID_REQUEST },
  { name: 'the type JWT', body: await inEvent({}, { typ: 'JWT' }), ...INVALID_REQUEST },
  { name: 'the type of an access token', body: await inEvent({}, { typ: 'at+jwt' }), ...INVALID_REQUEST },
  { name: 'an access token of the session', body: victim.token, ...INVALID_REQUEST },
  { name: 'a logout token', body: await issuer.logoutToken({ sub, sid, aud: RECEIVER }), ...INVALID_REQUEST },
  { name: 'no JWT', body: 'event', ...INVALID_REQUEST },
  { name: 'no body', body: '', ...INVALID_REQUEST },
  { name: 'no Authorization', body: rightEvent, how: { authorization: '' }, ...invalid('authentication_failed') },
  {
    name: 'another Authorization',
    body: rightEvent,
    how: { authorization: `${AUTHORIZATION}x` },
    ...invalid('authentication_failed'),
  },
  {
    name: 'two Authorization headers',
    body: rightEvent,
    how: { authorization: [AUTHORIZATION, AUTHORIZATION] },
    ...invalid('authentication_failed'),
  },
  { name: 'a form', body: parameter, how: { type: 'application/x-www-form-urlencoded' }, status: 415 },
  { name: 'more than 64 KiB', body: `${rightEvent}${' '.repeat(65_536)}`, status: 413 },
  // These are correct, and not about a session or a user of the issuer.
  {
    name: 'a user of another issuer',
    body: await issuer.event(SESSION_REVOKED, { ...user(victim), iss: 'https://other.example/' }),
    status: 202,
  },
  { name: 'a verification event', body: await issuer.event(VERIFICATION, opaque('stream')), status: 202 },
  { name: 'an unknown event', body: await issuer.event('https://example.com/event', subject), status: 202 },
  {
    name: 'a new password',
    body: await issuer.event(CREDENTIAL_CHANGE, subject, { event: { change_type: 'create' } }),
    status: 202,
  },
];
for (const { name, body, how, ...answer } of events) {
  testNothing(`as an event: ${name}`, { ...answer, deliver: () => push(a, body, how) });
}
test('an event that arrives late does not end what began since', async () => {
  expect(202, (await push(a, await inEvent({ iat: now() - 600 }))).status);
  await expectOutcome('200', victim.token, a);
});
test('an event about an hour ago does not end what began since', async () => {
  const event = { event_timestamp: now() - 3_600 };
  expect(202, (await push(a, await inEvent({ event }))).status);
  await expectOutcome('200', victim.token, a);
});
test('neither is an access token: a logout token, an event', async () => {
  const usual = { sub, aud: AUDIENCE, exp: now() + 600, client_id: CLIENT };
  for (const typ of ['logout+jwt', 'JWT', undefined]) {
    const { status } = await call(a, await issuer.logoutToken({ ...usual, sid }, { typ }));
    expect(401, status);
  }
  for (const typ of ['secevent+jwt', 'JWT', undefined]) {
    const { status } = await call(a, await inEvent(usual, { typ }));
    expect(401, status);
  }
});
test('after all these, both replicas accept the token', async () => {
  await sleep(MOST_MS); // so that B has read the log
  await expectOutcome('200', victim.token, a, b);
});
test('the correct event and logout token, of which these are variants, are accepted', async () => {
  expect('202', (await push(a, rightEvent)).outcome);
  expect('200', (await logOut(a, rightLogout)).outcome);
  await untilRejected(b, victim.token);
  ended.push(victim);
});

// ---- what ends ----------------------------------------------------------------------------------

/** What `ends` means. */
const ENDS = { session: 'that session', user: 'all sessions of the user', token: 'that token' };
const revocations = [
  {
    name: 'a logout token with sid and sub',
    ends: 'session',
    deliver: async ({ sub, sid }) => logOut(a, await issuer.logoutToken({ sub, sid })),
  },
  {
    name: 'a logout token with sid',
    ends: 'session',
    deliver: async ({ sid }) => logOut(a, await issuer.logoutToken({ sid })),
  },
  {
    name: 'a logout token with sub',
    ends: 'user',
    deliver: async ({ sub }) => logOut(a, await issuer.logoutToken({ sub })),
  },
  {
    name: 'a logout token without typ',
    ends: 'session',
    deliver: async ({ sid }) => logOut(a, await issuer.logoutToken({ sid }, { typ: undefined })),
  },
  {
    name: 'a logout token of the type JWT',
    ends: 'session',
    deliver: async ({ sid }) => logOut(a, await issuer.logoutToken({ sid }, { typ: 'JWT' })),
  },
  {
    name: 'a logout token for several clients',
    ends: 'session',
    deliver: async ({ sid }) => logOut(a, await issuer.logoutToken({ sid, aud: ['other', CLIENT] })),
  },
  {
    name: 'session-revoked of a session',
    ends: 'session',
    deliver: async (one) => {
      const subject = { format: 'complex', user: user(one), session: opaque(one.sid) };
      return push(a, await issuer.event(SESSION_REVOKED, subject));
    },
  },
  {
    name: 'session-revoked of a user',
    ends: 'user',
    deliver: async (one) => push(a, await issuer.event(SESSION_REVOKED, user(one))),
  },
  {
    name: 'session-revoked of a user, with a time in milliseconds',
    ends: 'user',
    deliver: async (one) => {
      const event = { event_timestamp: Date.now() };
      return push(a, await issuer.event(SESSION_REVOKED, user(one), { event }));
    },
  },
  {
    name: 'session-revoked of a token',
    ends: 'token',
    deliver: async ({ jti }) => {
      const subject = { format: 'jwt_id', iss: issuer.url, jti };
      return push(a, await issuer.event(SESSION_REVOKED, subject));
    },
  },
  {
    name: 'credential-change of a user',
    ends: 'user',
    deliver: async (one) => {
      const event = { change_type: 'revoke', credential_type: 'password' };
      return push(a, await issuer.event(CREDENTIAL_CHANGE, user(one), { event }));
    },
  },
];
for (const { name, ends, deliver } of revocations) {
  test(`${name}, to A, ends ${ENDS[ends]} at both`, async () => {
    const one = await newSession();
    const ofSession = await issuer.accessToken({ sub: one.sub, sid: one.sid });
    const ofUser = await newSession(one.sub);
    const other = await newSession();
    const { status, headers, text } = await deliver(one);
    expect('200 or 202', `${status}`, status === 200 || status === 202);
    expect('', text);
    expect('no-store', headers['cache-control'] ?? null);
    // At the replica that received it, without a delay.
    expect(REVOKED, await outcomeOf(a, one.token));
    await untilRejected(b, one.token);
    ended.push(one);
    await expectOutcome(ends === 'token' ? '200' : REVOKED, ofSession, a, b);
    await expectOutcome(ends === 'user' ? REVOKED : '200', ofUser.token, a, b);
    await expectOutcome('200', other.token, a, b);
  });
}
test('a token of a session that is issued after its end is accepted', async () => {
  const one = await newSession();
  expect('200', (await logOut(a, await issuer.logoutToken({ sub: one.sub }))).outcome);
  await untilRejected(b, one.token);
  ended.push(one);
  await sleep(1_005 - (Date.now() % 1_000)); // times in tokens are whole seconds
  await expectOutcome('200', (await newSession(one.sub)).token, a, b);
});
test('a session that ends at A or B is rejected by both within two seconds', async () => {
  const there = [];
  const here = [];
  const round = async (number) => {
    const one = await newSession();
    const [receiver, other] = number % 2 ? [a, b] : [b, a];
    // Spread over the second in which each replica reads the log once.
    await sleep((number * 137) % 1_000);
    const logoutToken = await issuer.logoutToken({ sid: one.sid });
    const began = performance.now();
    const { outcome } = await logOut(receiver, logoutToken);
    expect('200', outcome);
    here.push(await untilRejected(receiver, one.token, began));
    there.push(await untilRejected(other, one.token, began));
    ended.push(one);
  };
  for (let first = 0; first < ROUNDS; first += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => round(first + index)));
  }
  return `${ROUNDS} sessions: where it ended ${summary(here)}; at the other replica ${summary(there)}`;
});

// ---- what arrives twice -------------------------------------------------------------------------

for (const { name, status, deliver, make } of [
  { name: 'logout token', status: 200, deliver: logOut, make: (session) => issuer.logoutToken({ sub: session.sub }) },
  { name: 'event', status: 202, deliver: push, make: (session) => issuer.event(SESSION_REVOKED, user(session)) },
]) {
  test(`the same ${name} again, at both: the same answer, one entry, nothing more is revoked`, async () => {
    const session = await newSession();
    const before = await entriesInLog();
    const message = await make(session);
    expect(status, (await deliver(a, message)).status);
    await untilRejected(b, session.token);
    ended.push(session);
    await sleep(1_005 - (Date.now() % 1_000)); // times in tokens are whole seconds
    const since = await newSession(session.sub);
    for (const replica of [a, b, a]) {
      expect(status, (await deliver(replica, message)).status);
      expect(before + 1, await entriesInLog());
      await expectOutcome('200', since.token, replica);
    }
  });
}

test('the log in Redis names no issuer, session, user or token', async () => {
  const entries = await redis.command('XRANGE', LOG, '-', '+');
  expect('entries', `${entries.length} entries`, entries.length >= ended.length);
  const text = entries.flat(2).join(' ');
  const named = ended.flatMap((session) => [session.sub, session.sid, session.token, session.jti]);
  for (const secret of [...named, issuer.url, CLIENT]) expect(`no ${secret}`, text, !text.includes(secret));
  return `${entries.length} entries`;
});

// ---- without Redis ------------------------------------------------------------------------------

let good;
let revoked;
let late; // a replica that starts while Redis is stopped
const unrecorded = {}; // a session, and what could not be recorded
let stopped;

const secondsSince = (time) => (performance.now() - time) / 1_000;

test('Redis is stopped: logout tokens and events get 503, so that the sender tries again', async () => {
  good = await newSession();
  revoked = await newSession();
  expect('200', (await logOut(a, await issuer.logoutToken({ sid: revoked.sid }))).outcome);
  await untilRejected(b, revoked.token);
  ended.push(revoked);
  Object.assign(unrecorded, { byLogout: await newSession(), byEvent: await newSession() });
  unrecorded.logoutToken = await issuer.logoutToken({ sid: unrecorded.byLogout.sid });
  unrecorded.event = await issuer.event(SESSION_REVOKED, user(unrecorded.byEvent));
  await redis.stop();
  stopped = performance.now();
  for (const replica of [a, b]) {
    for (const answer of [await logOut(replica, unrecorded.logoutToken), await push(replica, unrecorded.event)]) {
      expect(503, answer.status);
      const after = answer.headers['retry-after'];
      expect('Retry-After in seconds', after ?? null, /^[1-9]\d*$/.test(after));
    }
  }
});
test('Redis is stopped: revoked tokens are rejected, the others accepted for a minute, then 503', async () => {
  const since = new Map(); // when each replica began to answer 503
  while (since.size < 2) {
    const fresh = await issuer.accessToken({ sub: 'fresh', sid: randomUUID() });
    for (const [name, replica] of Object.entries({ a, b })) {
      for (const { token, wanted } of [
        { token: good.token, wanted: '200' },
        { token: fresh, wanted: '200' },
        { token: revoked.token, wanted: REVOKED },
      ]) {
        const outcome = await outcomeOf(replica, token);
        const seconds = secondsSince(stopped);
        if (outcome === UNAVAILABLE) {
          expect(`503 after ${LEAST_S_STALE} s at the earliest`, `${seconds} s`, seconds >= LEAST_S_STALE);
          if (!since.has(name)) since.set(name, seconds);
        } else {
          expect(since.has(name) ? UNAVAILABLE : wanted, outcome);
          expect(`503 after ${MOST_S_STALE} s at the latest`, `${seconds} s`, seconds <= MOST_S_STALE);
        }
      }
    }
    await sleep(100);
  }
  for (const replica of [a, b]) {
    expect('the event revocations_stale in the log', 'none', replica.log.includes('revocations_stale'));
  }
  return [...since].map(([name, seconds]) => `${name}: ${seconds.toFixed(1)} s`).join(', ');
});
test('Redis is stopped: after that, 503 has Retry-After and no challenge; the rest is as before', async () => {
  const expired = await issuer.accessToken({ sub, sid, iat: now() - 7_200, exp: now() - 3_600 });
  for (const replica of [a, b]) {
    for (const { token } of [good, revoked]) {
      const { outcome, headers } = await call(replica, token);
      expect(UNAVAILABLE, outcome);
      expect('Retry-After in seconds', headers['retry-after'] ?? null, /^[1-9]\d*$/.test(headers['retry-after']));
      expect('no challenge', headers['www-authenticate'] ?? 'no challenge');
    }
    expect('401 expired', await outcomeOf(replica, expired));
    expect('200', (await send(replica.api, '/public')).outcome);
  }
});
test('Redis is stopped: a replica that starts now lets nothing through', async () => {
  late = await Replica.launch(args.demo, args.work, 'late', env);
  for (let request = 0; request < 10; request += 1) {
    await expectOutcome(UNAVAILABLE, good.token, late);
    await expectOutcome(UNAVAILABLE, revoked.token, late);
  }
});
test('Redis is stopped, no longer: all replicas accept good tokens again, and no revoked one', async () => {
  await redis.start();
  const began = performance.now();
  for (const replica of [a, b, late]) {
    for (;;) {
      const [ofRevoked, ofGood] = [await outcomeOf(replica, revoked.token), await outcomeOf(replica, good.token)];
      expect('a rejection', ofRevoked, [REVOKED, UNAVAILABLE].includes(ofRevoked));
      if (ofGood === '200') break;
      expect(UNAVAILABLE, ofGood);
      const waited = secondsSince(began);
      expect(`an accepted token within ${MOST_S_TO_RECOVER} s`, UNAVAILABLE, waited < MOST_S_TO_RECOVER);
      await sleep(50);
    }
    await expectOutcome(REVOKED, revoked.token, replica);
  }
  return `after ${secondsSince(began).toFixed(1)} s`;
});
test('Redis is stopped, no longer: what got 503 is recorded when it is sent again', async () => {
  expect('200', (await logOut(a, unrecorded.logoutToken)).outcome);
  expect('202', (await push(b, unrecorded.event)).outcome);
  for (const session of [unrecorded.byLogout, unrecorded.byEvent]) {
    for (const replica of [a, b, late]) await untilRejected(replica, session.token);
    ended.push(session);
  }
});

// ---- restarts -----------------------------------------------------------------------------------

async function expectAllStillEnded() {
  for (const session of ended) await expectOutcome(REVOKED, session.token, a, b);
  await expectOutcome('200', good.token, a, b);
  return `${ended.length} sessions`;
}

/** Starts both replicas, and calls them from their first moment on. */
async function restart(names) {
  [a, b] = await Promise.all(
    names.map(async (name) => {
      const replica = await Replica.launch(args.demo, args.work, name, env);
      let isReady = false;
      const ready = replica.ready().finally(() => (isReady = true));
      const early = new Set();
      while (!isReady) early.add(await outcomeOf(replica, revoked.token));
      await ready;
      for (const outcome of early) expect('a rejection', outcome, /^(401|503) /.test(outcome));
      return replica;
    }),
  );
}

test('both replicas are restarted: what ended is still rejected, from the first request on', async () => {
  for (const replica of [a, b, late]) await replica.end();
  await restart(['a, second', 'b, second']);
  return expectAllStillEnded();
});
test('Redis and both replicas are killed and restarted: what ended is still rejected', async () => {
  await redis.stop('SIGKILL');
  for (const replica of [a, b]) await replica.end();
  await redis.start();
  await restart(['a, third', 'b, third']);
  return expectAllStillEnded();
});
test('Redis loses its data: running replicas remember what ended, and exchange what ends', async () => {
  await redis.command('FLUSHALL');
  await sleep(MOST_MS); // so that both have read the empty log
  await expectAllStillEnded();
  const session = await newSession();
  expect('200', (await logOut(b, await issuer.logoutToken({ sid: session.sid }))).outcome);
  await untilRejected(a, session.token);
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
