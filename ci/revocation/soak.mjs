// Calls two replicas of the demo with good and revoked tokens for a while. Meanwhile, sessions end
// at one of the replicas, and Redis is killed and restarted every two minutes.
//
// Fails if a replica accepts a revoked token, or rejects a good one, at a time at which
// `Revocations` promises that it does not (see `Outages`).
//
// Usage: node soak.mjs --minutes N --demo PATH --redis PATH --work DIRECTORY
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { RedisServer, Replica, endAll } from '../replicas/servers.mjs';
import { LOG, REVOKED, UNAVAILABLE, call, logOut } from './api.mjs';
import { AUDIENCE, CLIENT, Issuer } from './issuer.mjs';

const { values: args } = parseArgs({
  options: {
    minutes: { type: 'string' },
    demo: { type: 'string' },
    redis: { type: 'string' },
    work: { type: 'string' },
  },
});
const minutes = Number(args.minutes);
if (!(minutes >= 3) || !args.demo || !args.redis || !args.work) {
  console.error('usage: node soak.mjs --minutes N --demo PATH --redis PATH --work DIRECTORY');
  process.exit(2);
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

/** When Redis is killed for the first time, how often, and for how long in turn. */
const FIRST_OUTAGE = MINUTE;
const BETWEEN_OUTAGES = 2 * MINUTE;
const LENGTHS = [75, 5, 20].map((seconds) => seconds * SECOND); // one above a minute

/** Until another replica rejects a token, if Redis responds. */
const EFFECTIVE = 2 * SECOND;
/** The same after Redis was down: a replica first connects again, which it tries twice a second. */
const RECOVERY = EFFECTIVE + SECOND;
/**
 * Since Redis was killed, when a replica may answer 503, and when it does. `Revocations::max_stale`
 * is a minute from the last time that the log was read.
 */
const MAY_BE_UNAVAILABLE = 58 * SECOND;
const IS_UNAVAILABLE = 63 * SECOND;

/** More tokens than a replica caches, which is at most 20,000. Memory that grows after these leaks. */
const TOKENS_BEFORE = 25_000;
const AT_ONCE = 16;
const GOOD_SESSIONS = 200;
const CALLERS = 2; // for each replica, for good tokens and as many for revoked ones
const PAUSE = 5;
const BETWEEN_LOGOUTS = 200;
const BETWEEN_TRIES = 5 * SECOND;
const MOST_SHOWN = 20;

// ---- what is allowed ----------------------------------------------------------------------------

/** When Redis was down: `from` it was killed, `to` it responded again. */
class Outages {
  #all = [];

  begin() {
    this.#all.push({ from: performance.now(), to: Infinity });
  }

  end() {
    this.#all.at(-1).to = performance.now();
  }

  /** Whether Redis was down, or was being connected to again, between two times. */
  disturbed(from, to) {
    return this.#all.some((outage) => outage.from <= to && from <= outage.to + RECOVERY);
  }

  /** Whether a replica may have answered 503 between two times, because it could not read the log. */
  mayBeUnavailable(from, to) {
    return this.#all.some(
      (outage) => outage.from + MAY_BE_UNAVAILABLE <= to && from <= outage.to + RECOVERY,
    );
  }

  /** Whether a replica must have answered 503 between two times. */
  isUnavailable(from, to) {
    return this.#all.some((outage) => outage.from + IS_UNAVAILABLE <= from && to <= outage.to);
  }

  /** From when on a replica knows what was revoked at another one at this time. */
  effective(revoked) {
    let time = revoked + EFFECTIVE;
    for (const { from, to } of this.#all) {
      if (from <= time && revoked <= to + RECOVERY) time = Math.max(time, to + RECOVERY);
    }
    return time;
  }
}

const outages = new Outages();
const failures = { count: 0 };
let began = performance.now();
const clock = () => `${((performance.now() - began) / SECOND).toFixed(1)} s`;
function fail(text) {
  failures.count += 1;
  if (failures.count <= MOST_SHOWN) console.log(`FAIL ${clock()}: ${text}`);
}

// ---- the servers --------------------------------------------------------------------------------

// What was acknowledged is not lost when Redis is killed.
const redis = new RedisServer(args.redis, args.work, { appendonly: 'yes', appendfsync: 'always' });
await redis.start();
const issuer = await Issuer.start();
const env = {
  ISSUER: issuer.url,
  AUDIENCE,
  REDIS_URL: redis.url,
  LOGOUT_AUDIENCE: CLIENT,
  RUST_LOG: 'portcullis=warn', // not a line for each rejection
};
const a = await Replica.start(args.demo, args.work, 'a', env);
const b = await Replica.start(args.demo, args.work, 'b', env);
const replicas = [a, b];
const nameOf = (replica) => (replica === a ? 'a' : 'b');

// ---- sessions -----------------------------------------------------------------------------------

const counts = { good: 0, revoked: 0, unavailable: 0, logouts: 0, unrecorded: 0 };
let slowest = 0; // until the other replica rejected a token, while Redis responded
const good = [];
const revoked = []; // with `at`, the time, and `by`, the replica

async function newSession() {
  const sid = randomUUID();
  return { sid, token: await issuer.accessToken({ sub: `user-${sid}`, sid }), isEnding: false };
}
const oneOf = (list) => list[Math.floor(Math.random() * list.length)];

/** Fills the token cache of each replica. */
async function fillCaches() {
  let left = TOKENS_BEFORE;
  const fill = async () => {
    while (left-- > 0) {
      const { token } = await newSession();
      // A token is cached when it is verified for the second time.
      for (const replica of [...replicas, ...replicas]) {
        const { outcome } = await call(replica, token);
        if (outcome !== '200') fail(`${outcome} for a new token at ${nameOf(replica)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, fill));
}

let isOver = false;
const until = (time) => sleep(Math.max(0, time - performance.now()));

/** Ends one session at one replica. Tries again, as some senders do, until it is recorded. */
async function endSession(session, replica) {
  for (; !isOver; await sleep(BETWEEN_TRIES)) {
    const sent = performance.now();
    const { outcome } = await logOut(replica, await issuer.logoutToken({ sid: session.sid }));
    const answered = performance.now();
    if (outcome === '200') {
      counts.logouts += 1;
      revoked.push(Object.assign(session, { at: answered, by: replica }));
      return watch(session, replicas.find((other) => other !== replica));
    }
    counts.unrecorded += 1;
    if (outcome !== '503' || !outages.disturbed(sent, answered)) fail(`logout at ${nameOf(replica)}: ${outcome}`);
  }
}

/** Measures when the other replica rejects the token. */
async function watch(session, other) {
  for (; !isOver; await sleep(20)) {
    const outcome = await callRevoked(session, other);
    if (outcome !== '200') break;
  }
  const now = performance.now();
  if (!outages.disturbed(session.at, now)) slowest = Math.max(slowest, now - session.at);
}

async function callGood(session, replica) {
  const sent = performance.now();
  const { outcome } = await call(replica, session.token);
  const answered = performance.now();
  if (session.isEnding) return; // meanwhile
  counts.good += 1;
  const context = `${outcome} for a good token at ${nameOf(replica)}`;
  if (outcome === UNAVAILABLE) {
    counts.unavailable += 1;
    if (!outages.mayBeUnavailable(sent, answered)) fail(context);
  } else if (outcome !== '200') {
    fail(context);
  } else if (outages.isUnavailable(sent, answered)) {
    fail(`${context}, long after the log was read`);
  }
}

async function callRevoked(session, replica) {
  const sent = performance.now();
  const { outcome } = await call(replica, session.token);
  const answered = performance.now();
  counts.revoked += 1;
  const age = `${((sent - session.at) / SECOND).toFixed(2)} s after it was revoked at ${nameOf(session.by)}`;
  const context = `${outcome} for a token at ${nameOf(replica)}, ${age}`;
  if (outcome === UNAVAILABLE) {
    counts.unavailable += 1;
    if (!outages.mayBeUnavailable(sent, answered)) fail(context);
  } else if (outcome === '200') {
    // The replica that recorded it knows it at once.
    const known = replica === session.by ? session.at : outages.effective(session.at);
    if (sent > known) fail(context);
    else if (outages.isUnavailable(sent, answered)) fail(`${context}, long after the log was read`);
  } else if (outcome !== REVOKED) {
    fail(context);
  }
  return outcome;
}

// ---- what runs at the same time -----------------------------------------------------------------

const ending = new Set();
async function endSessions() {
  for (let turn = 0; !isOver; turn += 1) {
    const index = Math.floor(Math.random() * good.length);
    const session = good[index];
    good[index] = await newSession();
    session.isEnding = true;
    const end = endSession(session, replicas[turn % 2]).finally(() => ending.delete(end));
    ending.add(end);
    await sleep(BETWEEN_LOGOUTS);
  }
  await Promise.all(ending);
}

async function keepCalling(replica, callOne, sessions) {
  for (; !isOver; await sleep(PAUSE)) {
    if (sessions.length > 0) await callOne(oneOf(sessions), replica);
  }
}

async function breakRedis(end) {
  for (let number = 0; ; number += 1) {
    const length = LENGTHS[number % LENGTHS.length];
    const from = began + FIRST_OUTAGE + number * BETWEEN_OUTAGES;
    // At the end, each session that was ended is called once more.
    if (from + length + 2 * RECOVERY > end) return;
    await until(from);
    outages.begin();
    await redis.stop('SIGKILL');
    console.log(`${clock()}: Redis is killed, for ${length / SECOND} s`);
    await sleep(length);
    await redis.start();
    outages.end();
    console.log(`${clock()}: Redis responds`);
  }
}

const kibibytes = (replica) => /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${replica.pid}/status`, 'utf8'))?.[1];
function report(when) {
  const memory = replicas.map((replica) => `${nameOf(replica)} ${(kibibytes(replica) / 1_024).toFixed(1)} MiB`);
  const { good: ofGood, revoked: ofRevoked, unavailable, logouts, unrecorded } = counts;
  console.log(
    `${when}: RSS ${memory.join(', ')}; ${ofGood} calls with good and ${ofRevoked} with revoked tokens,` +
      ` ${unavailable} times 503; ${logouts} sessions ended, ${unrecorded} times not recorded`,
  );
}
async function reportEachMinute() {
  for (let minute = 1; minute < minutes; minute += 1) {
    await until(began + minute * MINUTE);
    report(`minute ${minute}`);
  }
}

await fillCaches();
while (good.length < GOOD_SESSIONS) good.push(await newSession());
began = performance.now();
report('start');
const end = began + minutes * MINUTE;
const running = [
  breakRedis(end),
  reportEachMinute(),
  endSessions(),
  ...replicas.flatMap((replica) =>
    Array.from({ length: CALLERS }, () => [
      keepCalling(replica, callGood, good),
      keepCalling(replica, callRevoked, revoked),
    ]).flat(),
  ),
  until(end).then(() => (isOver = true)),
];
try {
  await Promise.all(running);
  for (const session of revoked) for (const replica of replicas) await callRevoked(session, replica);
} catch (error) {
  fail(`${error}`);
}
report('end');
console.log(`${await redis.command('XLEN', LOG)} entries in the log`);
console.log(`While Redis responded, another replica rejected a token after ${Math.ceil(slowest)} ms at most.`);
console.log(failures.count ? `${failures.count} calls failed` : 'No call failed.');
await endAll();
process.exit(failures.count ? 1 : 0);
