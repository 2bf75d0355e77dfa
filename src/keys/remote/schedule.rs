//! When to fetch an issuer's keys, and when not to: rules over time and answers, without a network and without a clock.
//!
//! Times are the uptime of [`Now`](crate::clock::Now).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How long keys are fresh and how long they may be used, by configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyPolicy {
    /// In place of what the server says.
    pub(crate) max_age: Option<Duration>,
    /// After the end of the lifetime, while fetching fails.
    pub(crate) max_stale: Duration,
    /// For one fetch: metadata and key set together. The longest that a request can be asked to wait; shorter limits failed
    /// in production elsewhere, longer ones pile up requests.
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
    /// Where the server says nothing. It bounds how long a *withdrawn* key is trusted; new ones need no expiry to be found.
    const LIFETIME: Duration = Duration::from_secs(600);
    /// What a server says is taken within these: issuers send anything from `no-store` to ten years. Shorter, and each
    /// tenant would be asked all the time; longer, and a withdrawn key would be trusted as long.
    const SHORTEST: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(3600);

    /// How long a document is fresh whose server says `hint`.
    pub(crate) fn lifetime(&self, hint: Option<Duration>) -> Duration {
        let by_hint =
            || hint.map_or(Self::LIFETIME, |hint| hint.clamp(Self::SHORTEST, Self::LONGEST));
        self.max_age.unwrap_or_else(by_hint)
    }
}

/// A set past this part of its lifetime is fetched anew in the background, so that no request ever waits for it; a tenth
/// of that earlier or later, so that sets fetched together are not all fetched together again.
const REFRESH_AT: f64 = 0.8;
const SPREAD: f64 = 0.1;

/// Wait after the first failed fetch, at the most; doubled by each further one. How long really is left to chance, so that
/// many who failed together do not come back together.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Fetches that tokens may cause which no key verifies: so many at once, and one more each time that `every` has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) burst: u32,
    pub(crate) every: Duration,
}

impl Budget {
    /// For a key set, where any fetch brings the new keys to everybody. Three at once, so that a rotation is found right after
    /// another fetch; then one in 5 seconds, which is how long a rotation waits at the worst while an attacker sends a constant
    /// flood of unknown keys, and twelve fetches a minute that such a flood can cause.
    pub(crate) const KEY_SET: Self = Self { burst: 3, every: Duration::from_secs(5) };
    /// Where each key is fetched by itself, and a fetch brings no other: more of them, or whoever names keys that do not exist
    /// would leave none for those that do.
    pub(crate) const BY_KID: Self = Self { burst: 8, every: Duration::from_secs(1) };
}

/// What is left of a [`Budget`].
#[derive(Clone, Debug)]
struct Bucket {
    budget: Budget,
    left: u32,
    /// When it was last full, or got its last fetch back.
    since: Duration,
}

impl Bucket {
    fn full(budget: Budget) -> Self {
        Self { budget, left: budget.burst, since: Duration::ZERO }
    }

    /// How long until a fetch can be taken.
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

/// A `kid` that a newly fetched set did not have is not fetched for again at once: at first for 5 seconds, so that a key
/// published a moment later is found; then twice as long each time, up to a minute. So clients that keep sending one old token
/// cause next to nothing. No longer, because an attacker may guess the `kid` that the issuer will use next, and have it
/// remembered before it is published.
const FIRST_MISSING_FOR: Duration = Duration::from_secs(5);
const MAX_MISSING_FOR: Duration = Duration::from_secs(60);

/// `kid`s remembered as missing.
const MAX_MISSING: usize = 64;

/// A fetch that has not ended this long after its own time limit will not: the runtime that it was started on is not
/// driven any more. Whoever waits stops waiting, and the next request starts another.
pub(crate) const ABANDON_AFTER: Duration = Duration::from_secs(1);

/// Between two fetches that a readiness check causes while fetching fails, at least. It asks sooner than requests do: an
/// instance out of rotation gets none, and should come back when the issuer does.
const WARM_UP_EVERY: Duration = Duration::from_secs(1);

/// What a request that needs keys is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Use the keys at hand.
    Serve,
    /// Use the keys at hand, and start a fetch in the background.
    ServeAndFetch,
    /// Start a fetch and wait for it.
    Fetch,
    /// Wait for the fetch that is under way.
    Join,
    /// No keys, and no fetch now either: the last one failed a moment ago.
    Unavailable,
    /// No fetch for this key now: it counters as unknown.
    Refuse(NoFetch),
}

/// Why nothing is fetched for a token that no key at hand verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoFetch {
    /// The set that the request waited for lacks the key, too.
    Missing,
    /// A set that was fetched a moment ago lacked it.
    Remembered,
    /// The budget is spent.
    CoolingDown,
}

impl NoFetch {
    /// A name that stays the same across versions, for logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Remembered => "remembered",
            Self::CoolingDown => "cooling_down",
        }
    }
}

/// The state of one issuer's key fetching.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    policy: KeyPolicy,
    /// When the fetch under way was started, if there is one.
    fetching_since: Option<Duration>,
    /// When a request shall cause the next fetch.
    due: Duration,
    /// Until when the keys at hand are fresh, if there are any.
    fresh_until: Option<Duration>,
    /// From when on a failed fetch is a failed refresh: before, nobody needed it but a token with an unknown key.
    refresh_from: Duration,
    refresh_failed: bool,
    last_attempt: Option<Duration>,
    /// For tokens that no key verifies.
    bucket: Bucket,
    last_success: Option<Duration>,
    failures: u32,
    /// Hashes of `kid`s that the newest set did not have: a stranger chooses their length, and may not choose ours.
    missing: HashMap<u64, Missing>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    /// Until when nothing is fetched for it.
    until: Duration,
    /// For how long that was decided.
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

    /// From when on [`request`](Self::request) must be asked; before, the keys at hand are simply used.
    pub(crate) fn next_decision(&self) -> Duration {
        match (self.usable_until(), self.given_up_at()) {
            (None, _) => Duration::ZERO,
            // Requests wait for this one; each must be told so.
            (Some(_), Some(_)) if !self.serves_meanwhile() => Duration::ZERO,
            (Some(until), Some(given_up)) => until.min(given_up),
            (Some(until), None) => until.min(self.due),
        }
    }

    /// A request needs keys.
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

    /// Something waits for keys that is no request: as [`request`](Self::request), without the back-off.
    pub(crate) fn warm_up(&mut self, now: Duration) -> Decision {
        self.give_up(now);
        let may_ask = self.last_attempt.is_none_or(|last| now >= last + WARM_UP_EVERY);
        match may_ask && !self.serves(now) && self.fetching_since.is_none() {
            true => self.start(now, Decision::Fetch),
            false => self.request(now),
        }
    }

    /// A token names a key that the set does not have; `kid` is `None` if it does, and the signature does not fit. `waited`: this
    /// request already waited for a fetch.
    pub(crate) fn unknown_kid(
        &mut self,
        kid: Option<&str>,
        waited: bool,
        now: Duration,
    ) -> Decision {
        self.give_up(now);
        // A known name is not remembered as missing, nor is that there is none: whoever forges signatures could have new keys
        // overlooked that are published under it.
        let kid = kid.map(|kid| self.hasher.hash_one(kid));
        if waited {
            // A fetch that failed is no news about the key.
            if let Some(kid) = kid
                && self.failures == 0
            {
                self.remember_missing(kid, now);
            }
            return Decision::Refuse(NoFetch::Missing);
        }
        let missing = kid.and_then(|kid| self.missing.get(&kid));
        if missing.is_some_and(|missing| now < missing.until) {
            return Decision::Refuse(NoFetch::Remembered);
        }
        if self.fetching_since.is_some() {
            return Decision::Join;
        }
        match self.bucket.take(now) {
            true => self.start(now, Decision::Fetch),
            false => Decision::Refuse(NoFetch::CoolingDown),
        }
    }

    /// The key with this name, which was asked for by itself, does not exist.
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
            // Several waited for the same fetch; it is one piece of news.
            Some(missing) if now < missing.until => return,
            Some(missing) => (missing.waits * 2).min(MAX_MISSING_FOR),
            None => FIRST_MISSING_FOR,
        };
        self.missing.insert(kid, Missing { until: now + waits, waits });
    }

    /// Whether keys past their lifetime are used: only while refreshing them fails, or while a refresh that was started ahead has
    /// not ended yet. An idle issuer's are fetched first, or a withdrawn key would be trusted for as long as nobody revalidation.
    fn serves_meanwhile(&self) -> bool {
        self.refresh_failed
            || self
                .fetching_since
                .is_some_and(|since| self.fresh_until.is_some_and(|until| since < until))
    }

    /// Counters a fetch that should have ended, and did not, as failed. The next may start at once.
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

    fn start(&mut self, now: Duration, plan: Decision) -> Decision {
        self.fetching_since = Some(now);
        self.last_attempt = Some(now);
        plan
    }

    /// The fetch brought a good set, fresh for `lifetime`. `chance`: from 0 to 1, drawn anew each time.
    pub(crate) fn succeeded(&mut self, lifetime: Duration, chance: f64, now: Duration) {
        self.fetching_since = None;
        self.failures = 0;
        self.refresh_failed = false;
        self.due = now + lifetime.mul_f64(REFRESH_AT * (1.0 - SPREAD + 2.0 * SPREAD * chance));
        self.refresh_from = self.due;
        self.fresh_until = Some(now + lifetime);
        self.last_success = Some(now);
    }

    /// The fetch failed. Whatever keys are at hand stay. `chance`: from 0 to 1, drawn anew each time.
    pub(crate) fn failed(&mut self, chance: f64, now: Duration) {
        self.fetching_since = None;
        let backoff = (BACKOFF * 2_u32.saturating_pow(self.failures.min(5))).min(MAX_BACKOFF);
        self.count_failure(now);
        self.due = self.due.max(now + backoff.mul_f64(chance));
    }

    /// Whether a request is served with the keys at hand without waiting.
    pub(crate) fn serves(&self, now: Duration) -> bool {
        let fresh = self.fresh_until.is_some_and(|until| now < until);
        fresh || (self.is_usable(now) && self.serves_meanwhile())
    }

    /// Whether the keys at hand may be used at all: fresh, or within `max_stale`.
    pub(crate) fn is_usable(&self, now: Duration) -> bool {
        self.usable_until().is_some_and(|until| now < until)
    }

    /// Until when the keys at hand are fresh, if there are any.
    pub(crate) fn fresh_until(&self) -> Option<Duration> {
        self.fresh_until
    }

    /// When the last good answer revalidation.
    pub(crate) fn last_success(&self) -> Option<Duration> {
        self.last_success
    }

    fn usable_until(&self) -> Option<Duration> {
        self.fresh_until.map(|until| until + self.policy.max_stale)
    }

    /// How long until a token that no key verifies may cause a fetch.
    pub(crate) fn unknown_kid_wait(&self, now: Duration) -> Duration {
        self.bucket.wait(now)
    }

    /// How long until the next fetch may start.
    pub(crate) fn retry_after(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests;
