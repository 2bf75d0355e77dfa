//! When to fetch an issuer's keys: rules over time and results, without network and without clock.
//!
//! Times are the uptime of [`Now`](crate::clock::Now).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How long keys are fresh and how long they may be used, as configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyPolicy {
    /// The lifetime, instead of the one that the server gives.
    pub(crate) max_age: Option<Duration>,
    /// How long keys may be used after their lifetime, while fetching fails.
    pub(crate) max_stale: Duration,
    /// Time limit of one fetch, metadata and key set together. This is the longest that a request
    /// can be made to wait. Shorter limits failed in production elsewhere; with longer ones,
    /// requests pile up.
    pub(crate) timeout: Duration,
}

impl Default for KeyPolicy {
    fn default() -> Self {
        Self {
            max_age: None,
            max_stale: Duration::from_secs(3600),
            timeout: Duration::from_secs(5),
        }
    }
}

impl KeyPolicy {
    /// Lifetime if the server gives none. It bounds how long a *withdrawn* key is trusted; new keys
    /// are found without waiting for its end.
    const LIFETIME: Duration = Duration::from_secs(600);
    /// Bounds of the lifetime that the server gives, since issuers send anything from `no-store` to
    /// ten years. With a shorter one, the keys of every tenant would be fetched all the time; with
    /// a longer one, a withdrawn key would be trusted for that long.
    const SHORTEST: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(3600);

    /// The lifetime of a document for which the server gives `hint`.
    pub(crate) fn lifetime(&self, hint: Option<Duration>) -> Duration {
        let by_hint =
            || hint.map_or(Self::LIFETIME, |hint| hint.clamp(Self::SHORTEST, Self::LONGEST));
        self.max_age.unwrap_or_else(by_hint)
    }
}

/// The fraction of its lifetime after which a key set is refreshed in the background, so that no
/// request waits for it. The time varies by a tenth in both directions, so that sets fetched
/// together are not refreshed together.
const REFRESH_AT: f64 = 0.8;
const SPREAD: f64 = 0.1;

/// Longest delay after the first failed fetch, doubled after each further one. The actual delay is
/// random, so that instances that failed together do not retry together.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Budget of fetches for tokens that no key verifies: `burst` at once, and one more each time that
/// `every` has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) burst: u32,
    pub(crate) every: Duration,
}

impl Budget {
    /// For a key set, where any fetch brings all new keys. Three at once, so that a rotation is
    /// found right after another fetch. Then one every 5 seconds: under a constant flood of unknown
    /// keys, a rotation waits for at most 5 seconds, and the flood causes at most twelve fetches a
    /// minute.
    pub(crate) const KEY_SET: Self = Self { burst: 3, every: Duration::from_secs(5) };
    /// For keys that are fetched one by one, where a fetch brings no other key. It is larger, so
    /// that tokens which name nonexistent keys leave some fetches for those that exist.
    pub(crate) const BY_KID: Self = Self { burst: 8, every: Duration::from_secs(1) };
}

/// What is left of a [`Budget`].
#[derive(Clone, Debug)]
struct Bucket {
    budget: Budget,
    left: u32,
    /// When the bucket was last full, or last got a fetch back.
    since: Duration,
}

impl Bucket {
    fn full(budget: Budget) -> Self {
        Self { budget, left: budget.burst, since: Duration::ZERO }
    }

    /// How long until a fetch is available.
    fn wait(&self, now: Duration) -> Duration {
        match self.left {
            0 => self.since.saturating_add(self.budget.every).saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    fn take(&mut self, now: Duration) -> bool {
        let back = now.saturating_sub(self.since).as_nanos() / self.budget.every.as_nanos().max(1);
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(back);
        self.since = self.since.saturating_add(self.budget.every.saturating_mul(back));
        if self.left >= self.budget.burst {
            (self.left, self.since) = (self.budget.burst, now);
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }
}

/// How long a `kid` that a new key set lacks is not fetched again: at first 5 seconds, so that a
/// key published a moment later is found, then doubled each time, up to a minute. Clients that keep
/// sending an old token therefore cause almost no fetches. The maximum is short, because an
/// attacker may guess the next `kid` of the issuer, and have it remembered as missing before it is
/// published.
const FIRST_MISSING_FOR: Duration = Duration::from_secs(5);
const MAX_MISSING_FOR: Duration = Duration::from_secs(60);

/// Maximum number of `kid`s remembered as missing.
const MAX_MISSING: usize = 64;

/// A fetch that has not ended this long after its time limit is abandoned: the runtime that it was
/// started on is no longer driven. Requests stop waiting for it, and the next request starts
/// another one.
pub(crate) const ABANDON_AFTER: Duration = Duration::from_secs(1);

/// Shortest interval between two fetches for readiness checks while fetching fails. It is shorter
/// than the back-off of requests: an instance out of rotation gets no requests, and should recover
/// as soon as the issuer does.
const WARM_UP_EVERY: Duration = Duration::from_secs(1);

/// What to do for a request that needs keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Use the cached keys.
    Serve,
    /// Use the cached keys, and start a fetch in the background.
    ServeAndFetch,
    /// Start a fetch and wait for it.
    Fetch,
    /// Wait for the fetch in progress.
    Join,
    /// There are no keys, and no fetch is started: the last one failed a moment ago.
    Unavailable,
    /// No fetch is started for this key: it counts as unknown.
    Skip(NoFetch),
}

/// Why nothing is fetched for a token that no cached key verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoFetch {
    /// The key set that the request waited for lacks the key as well.
    Missing,
    /// A key set that was fetched a moment ago lacked the key.
    Remembered,
    /// The budget is used up.
    CoolingDown,
}

impl NoFetch {
    /// A stable name, for logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Remembered => "remembered",
            Self::CoolingDown => "cooling_down",
        }
    }
}

/// The state of one issuer's key fetches.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    policy: KeyPolicy,
    /// When the fetch in progress was started, if there is one.
    fetching_since: Option<Duration>,
    /// From when on a request starts the next fetch.
    due: Duration,
    /// Until when the cached keys are fresh, if there are any.
    fresh_until: Option<Duration>,
    /// From when on a failed fetch counts as a failed refresh. Before, only tokens with an unknown
    /// key needed a fetch.
    refresh_from: Duration,
    refresh_failed: bool,
    last_attempt: Option<Duration>,
    /// For tokens that no key verifies.
    bucket: Bucket,
    last_success: Option<Duration>,
    failures: u32,
    /// Hashes of `kid`s that the newest key set lacks. Hashes, because an attacker chooses the
    /// length of a `kid`, and must not choose the memory that it takes.
    missing: HashMap<u64, Missing>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    /// Until when nothing is fetched for this `kid`.
    until: Duration,
    /// The length of that period.
    waits: Duration,
}

impl Schedule {
    pub(crate) fn new(policy: KeyPolicy, budget: Budget) -> Self {
        Self {
            policy,
            fetching_since: None,
            due: Duration::ZERO,
            fresh_until: None,
            refresh_from: Duration::ZERO,
            refresh_failed: false,
            last_attempt: None,
            bucket: Bucket::full(budget),
            last_success: None,
            failures: 0,
            missing: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// From when on [`request`](Self::request) must be called. Before, the cached keys can be used
    /// without it.
    pub(crate) fn next_decision(&self) -> Duration {
        match (self.usable_until(), self.given_up_at()) {
            (None, _) => Duration::ZERO,
            // Requests wait for the fetch in progress, so each of them must call `request`.
            (Some(_), Some(_)) if !self.serves_meanwhile() => Duration::ZERO,
            (Some(until), Some(given_up)) => until.min(given_up),
            (Some(until), None) => until.min(self.due),
        }
    }

    /// Decides for a request that needs keys.
    pub(crate) fn request(&mut self, now: Duration) -> Decision {
        self.give_up(now);
        match (self.serves(now), self.fetching_since.is_some(), now >= self.due) {
            (true, false, true) => self.start(now, Decision::ServeAndFetch),
            (true, _, _) => Decision::Serve,
            (false, true, _) => Decision::Join,
            (false, false, true) => self.start(now, Decision::Fetch),
            (false, false, false) => Decision::Unavailable,
        }
    }

    /// Decides for a readiness check: like [`request`](Self::request), but without the back-off.
    pub(crate) fn warm_up(&mut self, now: Duration) -> Decision {
        self.give_up(now);
        let may_fetch = self.last_attempt.is_none_or(|last| now >= last + WARM_UP_EVERY);
        if may_fetch && !self.serves(now) && self.fetching_since.is_none() {
            self.start(now, Decision::Fetch)
        } else {
            self.request(now)
        }
    }

    /// Decides for a token with a `kid` that the key set lacks. `kid` is `None` if the set has the
    /// key, but the signature does not match. `waited`: whether this request has already waited for
    /// a fetch.
    pub(crate) fn unknown_kid(
        &mut self,
        kid: Option<&str>,
        waited: bool,
        now: Duration,
    ) -> Decision {
        self.give_up(now);
        // A key that the set has is never remembered as missing: otherwise, forged signatures could
        // hide new keys that are published under its `kid`.
        let kid = kid.map(|kid| self.hasher.hash_one(kid));
        if waited {
            // A failed fetch says nothing about the key.
            if let Some(kid) = kid
                && self.failures == 0
            {
                self.remember_missing(kid, now);
            }
            return Decision::Skip(NoFetch::Missing);
        }
        let missing = kid.and_then(|kid| self.missing.get(&kid));
        if missing.is_some_and(|missing| now < missing.until) {
            return Decision::Skip(NoFetch::Remembered);
        }
        if self.fetching_since.is_some() {
            return Decision::Join;
        }
        if self.bucket.take(now) {
            self.start(now, Decision::Fetch)
        } else {
            Decision::Skip(NoFetch::CoolingDown)
        }
    }

    /// Records that the key with this `kid`, which was fetched by itself, does not exist.
    pub(crate) fn does_not_exist(&mut self, kid: &str, now: Duration) {
        let kid = self.hasher.hash_one(kid);
        self.remember_missing(kid, now);
    }

    fn remember_missing(&mut self, kid: u64, now: Duration) {
        if self.missing.len() >= MAX_MISSING {
            self.missing.retain(|_, missing| now < missing.until);
        }
        let known = self.missing.get(&kid).copied();
        if known.is_none() && self.missing.len() >= MAX_MISSING {
            return;
        }
        let waits = match known {
            // Several requests waited for the same fetch: count it once.
            Some(missing) if now < missing.until => return,
            Some(missing) => (missing.waits * 2).min(MAX_MISSING_FOR),
            None => FIRST_MISSING_FOR,
        };
        self.missing.insert(kid, Missing { until: now + waits, waits });
    }

    /// Whether keys past their lifetime are used: only while refreshing them fails, or while a
    /// refresh that was started before their end is still in progress. The keys of an idle issuer
    /// are fetched first. Otherwise, a withdrawn key would be trusted for as long as no request
    /// comes.
    fn serves_meanwhile(&self) -> bool {
        self.refresh_failed
            || self
                .fetching_since
                .is_some_and(|since| self.fresh_until.is_some_and(|until| since < until))
    }

    /// Counts a fetch that should have ended by now as failed. The next one may start at once.
    fn give_up(&mut self, now: Duration) {
        if self.given_up_at().is_some_and(|given_up| now >= given_up) {
            self.fetching_since = None;
            self.count_failure(now);
        }
    }

    fn count_failure(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.refresh_failed |= now >= self.refresh_from;
    }

    /// Whether the last fetch failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    fn given_up_at(&self) -> Option<Duration> {
        self.fetching_since.map(|since| since + self.policy.timeout + ABANDON_AFTER)
    }

    fn start(&mut self, now: Duration, decision: Decision) -> Decision {
        self.fetching_since = Some(now);
        self.last_attempt = Some(now);
        decision
    }

    /// Starts with keys that were not fetched: fresh for the shortest lifetime, and due for a
    /// refresh.
    pub(crate) fn seeded(&mut self, now: Duration) {
        self.fresh_until = Some(now + KeyPolicy::SHORTEST);
        (self.due, self.refresh_from) = (now, now);
    }

    /// Records a fetch of a valid key set that is fresh for `lifetime`. `jitter`: a random number
    /// from 0 to 1, new for each call.
    pub(crate) fn succeeded(&mut self, lifetime: Duration, jitter: f64, now: Duration) {
        self.fetching_since = None;
        self.failures = 0;
        self.refresh_failed = false;
        self.due = now + lifetime.mul_f64(REFRESH_AT * (1.0 - SPREAD + 2.0 * SPREAD * jitter));
        self.refresh_from = self.due;
        self.fresh_until = Some(now + lifetime);
        self.last_success = Some(now);
    }

    /// Records a failed fetch. The cached keys stay. `jitter`: a random number from 0 to 1, new for
    /// each call.
    pub(crate) fn failed(&mut self, jitter: f64, now: Duration) {
        self.fetching_since = None;
        let backoff = (BACKOFF * 2_u32.saturating_pow(self.failures.min(5))).min(MAX_BACKOFF);
        self.count_failure(now);
        self.due = self.due.max(now + backoff.mul_f64(jitter));
    }

    /// Whether a request can use the cached keys without waiting.
    pub(crate) fn serves(&self, now: Duration) -> bool {
        let fresh = self.fresh_until.is_some_and(|until| now < until);
        fresh || (self.is_usable(now) && self.serves_meanwhile())
    }

    /// Whether the cached keys may be used at all: they are fresh, or within `max_stale`.
    pub(crate) fn is_usable(&self, now: Duration) -> bool {
        self.usable_until().is_some_and(|until| now < until)
    }

    /// Until when the cached keys are fresh, if there are any.
    pub(crate) fn fresh_until(&self) -> Option<Duration> {
        self.fresh_until
    }

    /// When the last successful fetch ended.
    pub(crate) fn last_success(&self) -> Option<Duration> {
        self.last_success
    }

    fn usable_until(&self) -> Option<Duration> {
        self.fresh_until.map(|until| until + self.policy.max_stale)
    }

    /// How long until a token that no key verifies may start a fetch.
    pub(crate) fn unknown_kid_wait(&self, now: Duration) -> Duration {
        self.bucket.wait(now)
    }

    /// How long until the next fetch may start.
    pub(crate) fn retry_after(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
