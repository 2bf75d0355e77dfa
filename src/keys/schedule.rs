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
        Self { max_age: None, max_stale: Duration::from_secs(3600), timeout: Duration::from_secs(5) }
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
        let by_hint = || hint.map_or(Self::LIFETIME, |hint| hint.clamp(Self::SHORTEST, Self::LONGEST));
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

/// At most one fetch in this time for `kid`s that the set does not have, whatever came of it. Six requests a minute are
/// all that a stranger can cause, and any of them brings the new keys to everybody.
const UNKNOWN_KID_COOLDOWN: Duration = Duration::from_secs(10);

/// A `kid` that a newly fetched set did not have is not fetched for again at once: at first for no longer than the
/// cooldown, so that a key published a moment later is found; then twice as long each time, up to this. So clients that
/// keep sending one old token cause next to nothing. No longer, because a stranger may guess the `kid` that the issuer
/// will use next, and have it remembered before it is published.
const MAX_MISSING_FOR: Duration = Duration::from_secs(60);

/// `kid`s remembered as missing.
const MAX_MISSING: usize = 256;

/// A fetch that has not ended this long after its own time limit will not: the runtime that it was started on is not
/// driven any more. Whoever waits stops waiting, and the next request starts another.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// What a request that needs keys is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
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
    /// No fetch for this key now: it counts as unknown.
    Refuse,
}

/// The state of one issuer's key fetching.
#[derive(Debug)]
pub(crate) struct Schedule {
    policy: KeyPolicy,
    /// When the fetch under way was started, if there is one.
    fetching_since: Option<Duration>,
    /// When a request shall cause the next fetch.
    due: Duration,
    /// Until when the keys at hand are fresh, if there are any.
    fresh_until: Option<Duration>,
    /// Whether it was said that they are used all the same.
    stale_announced: bool,
    last_attempt: Option<Duration>,
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
    pub(crate) fn new(policy: KeyPolicy) -> Self {
        Self {
            policy,
            fetching_since: None,
            due: Duration::ZERO,
            fresh_until: None,
            stale_announced: false,
            last_attempt: None,
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
            (Some(until), Some(given_up)) => until.min(given_up),
            (Some(until), None) => until.min(self.due),
        }
    }

    /// A request needs keys.
    pub(crate) fn request(&mut self, now: Duration) -> Plan {
        let usable = self.usable_until().is_some_and(|until| now < until);
        match (usable, self.is_fetching(now), now >= self.due) {
            (true, false, true) => self.start(now, Plan::ServeAndFetch),
            (true, _, _) => Plan::Serve,
            (false, true, _) => Plan::Join,
            (false, false, true) => self.start(now, Plan::Fetch),
            (false, false, false) => Plan::Unavailable,
        }
    }

    /// A token names a key that the set does not have. `waited`: this request already waited for a fetch.
    pub(crate) fn unknown_kid(&mut self, kid: &str, waited: bool, now: Duration) -> Plan {
        let kid = self.hasher.hash_one(kid);
        if waited {
            // A fetch that failed is no news about the key.
            if self.failures == 0 {
                self.remember_missing(kid, now);
            }
            return Plan::Refuse;
        }
        if self.missing.get(&kid).is_some_and(|missing| now < missing.until) {
            return Plan::Refuse;
        }
        if self.is_fetching(now) {
            return Plan::Join;
        }
        match self.last_attempt {
            Some(last) if now < last + UNKNOWN_KID_COOLDOWN => Plan::Refuse,
            _ => self.start(now, Plan::Fetch),
        }
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
            None => UNKNOWN_KID_COOLDOWN,
        };
        self.missing.insert(kid, Missing { until: now + waits, waits });
    }

    fn is_fetching(&self, now: Duration) -> bool {
        self.given_up_at().is_some_and(|given_up| now < given_up)
    }

    fn given_up_at(&self) -> Option<Duration> {
        self.fetching_since.map(|since| since + self.policy.timeout + GRACE)
    }

    fn start(&mut self, now: Duration, plan: Plan) -> Plan {
        self.fetching_since = Some(now);
        self.last_attempt = Some(now);
        plan
    }

    /// The fetch brought a good set, fresh for `lifetime`. `chance`: from 0 to 1, drawn anew each time.
    pub(crate) fn succeeded(&mut self, lifetime: Duration, chance: f64, now: Duration) {
        self.fetching_since = None;
        self.failures = 0;
        self.stale_announced = false;
        self.due = now + lifetime.mul_f64(REFRESH_AT * (1.0 - SPREAD + 2.0 * SPREAD * chance));
        self.fresh_until = Some(now + lifetime);
        self.last_success = Some(now);
    }

    /// The fetch failed. Whatever keys are at hand stay. `true` if they are past their lifetime and this is the first that
    /// anybody hears of it. `chance`: from 0 to 1, drawn anew each time.
    pub(crate) fn failed(&mut self, chance: f64, now: Duration) -> bool {
        self.fetching_since = None;
        let backoff = (BACKOFF * 2_u32.saturating_pow(self.failures.min(5))).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.due = self.due.max(now + backoff.mul_f64(chance));
        let stale =
            self.fresh_until.is_some_and(|until| now >= until) && self.usable_until().is_some_and(|until| now < until);
        stale && !std::mem::replace(&mut self.stale_announced, true)
    }

    /// Whether the keys at hand can be used, and whether they are past their lifetime.
    pub(crate) fn usable_and_stale(&self, now: Duration) -> (bool, bool) {
        let usable = self.usable_until().is_some_and(|until| now < until);
        (usable, usable && self.fresh_until.is_some_and(|until| now >= until))
    }

    /// When the last good answer came.
    pub(crate) fn last_success(&self) -> Option<Duration> {
        self.last_success
    }

    fn usable_until(&self) -> Option<Duration> {
        self.fresh_until.map(|until| until + self.policy.max_stale)
    }

    /// How long until the next fetch may start.
    pub(crate) fn retry_after(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(600);

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// What happens to a schedule, in order, and what it says.
    enum Step {
        Request(f64, Plan),
        UnknownKid(f64, &'static str, Plan),
        /// After having waited for a fetch.
        StillUnknownKid(f64, &'static str),
        Succeeded(f64),
        Failed(f64),
    }

    #[test]
    fn fetches_start_when_they_should() {
        use Plan::{Fetch, Join, Refuse, Serve, ServeAndFetch, Unavailable};
        use Step::{Failed, Request, StillUnknownKid, Succeeded, UnknownKid};
        let cases: Vec<(&str, Vec<Step>)> = vec![
            ("cold start", vec![Request(0.0, Fetch), Request(0.1, Join), Succeeded(0.2), Request(0.3, Serve)]),
            (
                "refreshed ahead, once",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    Request(479.9, Serve),
                    Request(480.0, ServeAndFetch),
                    Request(480.1, Serve),
                    Succeeded(485.0),
                    Request(964.9, Serve),
                    Request(965.0, ServeAndFetch),
                ],
            ),
            (
                "cold failures back off 1, 2, 4, 8, 16, 30 and 30 s",
                vec![
                    Request(0.0, Fetch),
                    Failed(0.0),
                    Request(0.9, Unavailable),
                    Request(1.0, Fetch),
                    Failed(1.0),
                    Request(2.9, Unavailable),
                    Request(3.0, Fetch),
                    Failed(3.0),
                    Request(7.0, Fetch),
                    Failed(7.0),
                    Request(15.0, Fetch),
                    Failed(15.0),
                    Request(31.0, Fetch),
                    Failed(31.0),
                    Request(60.9, Unavailable),
                    Request(61.0, Fetch),
                    Failed(61.0),
                    Request(90.9, Unavailable),
                    Request(91.0, Fetch),
                    Succeeded(91.0),
                    Request(92.0, Serve),
                ],
            ),
            (
                "a success forgets the failures before it",
                vec![
                    Request(0.0, Fetch),
                    Failed(0.0),
                    Request(1.0, Fetch),
                    Succeeded(1.0),
                    Request(481.0, ServeAndFetch),
                    Failed(481.0),
                    Request(481.9, Serve),
                    Request(482.0, ServeAndFetch),
                ],
            ),
            (
                "stale keys serve for an hour after their lifetime",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    Request(4199.0, ServeAndFetch),
                    Failed(4199.0),
                    Request(4199.9, Serve),
                    Request(4200.0, Fetch),
                    Request(4200.1, Join),
                    Failed(4200.2),
                    Request(4200.3, Unavailable),
                ],
            ),
            (
                "an unknown kid is fetched for once in ten seconds",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    UnknownKid(9.9, "a", Refuse),
                    UnknownKid(10.0, "a", Fetch),
                    UnknownKid(10.1, "b", Join),
                    Request(10.1, Serve),
                    Succeeded(10.2),
                    StillUnknownKid(10.3, "a"),
                    UnknownKid(20.1, "a", Refuse),
                    UnknownKid(20.1, "b", Fetch),
                ],
            ),
            (
                "whatever came of it",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    UnknownKid(10.0, "a", Fetch),
                    Failed(10.5),
                    UnknownKid(19.9, "b", Refuse),
                    Request(19.9, Serve),
                    UnknownKid(20.0, "b", Fetch),
                ],
            ),
            (
                "a fetch that failed is no news about the key",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    UnknownKid(10.0, "a", Fetch),
                    Failed(10.0),
                    StillUnknownKid(10.0, "a"),
                    UnknownKid(20.0, "a", Fetch),
                ],
            ),
            (
                "a missing key is fetched for less and less often, down to once a minute",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    UnknownKid(10.0, "a", Fetch),
                    Succeeded(10.0),
                    StillUnknownKid(10.0, "a"),
                    StillUnknownKid(10.1, "a"),
                    UnknownKid(20.0, "a", Fetch),
                    Succeeded(20.0),
                    StillUnknownKid(20.0, "a"),
                    UnknownKid(39.9, "a", Refuse),
                    UnknownKid(40.0, "a", Fetch),
                    Succeeded(40.0),
                    StillUnknownKid(40.0, "a"),
                    UnknownKid(79.9, "a", Refuse),
                    UnknownKid(80.0, "a", Fetch),
                    Succeeded(80.0),
                    StillUnknownKid(80.0, "a"),
                    UnknownKid(139.9, "a", Refuse),
                    UnknownKid(140.0, "a", Fetch),
                ],
            ),
            (
                "a fetch that never ends is given up a second after its time limit",
                vec![
                    Request(0.0, Fetch),
                    Request(5.9, Join),
                    Request(6.0, Fetch),
                    Succeeded(6.1),
                    Request(486.1, ServeAndFetch),
                    Request(492.0, Serve),
                    UnknownKid(492.0, "a", Join),
                    Request(492.1, ServeAndFetch),
                ],
            ),
        ];
        for (name, steps) in cases {
            let mut schedule = Schedule::new(KeyPolicy::default());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Request(time, plan) => {
                        // What `next_decision` says until then must be what the rules say.
                        if at(time) < schedule.next_decision() {
                            assert_eq!(plan, Serve, "{name}: step {number}");
                        }
                        assert_eq!(schedule.request(at(time)), plan, "{name}: step {number}");
                    }
                    UnknownKid(time, kid, plan) => {
                        assert_eq!(schedule.unknown_kid(kid, false, at(time)), plan, "{name}: step {number}");
                    }
                    StillUnknownKid(time, kid) => {
                        assert_eq!(schedule.unknown_kid(kid, true, at(time)), Refuse, "{name}: step {number}");
                    }
                    Succeeded(time) => schedule.succeeded(LIFETIME, 0.5, at(time)),
                    Failed(time) => drop(schedule.failed(1.0, at(time))),
                }
            }
        }
    }

    #[test]
    fn refreshes_and_retries_are_spread() {
        for (chance, refresh) in [(0.0, 432.0), (0.5, 480.0), (1.0, 528.0)] {
            let mut schedule = Schedule::new(KeyPolicy::default());
            schedule.succeeded(LIFETIME, chance, at(0.0));
            assert_eq!(schedule.request(at(refresh - 0.1)), Plan::Serve, "{chance}");
            assert_eq!(schedule.request(at(refresh + 0.1)), Plan::ServeAndFetch, "{chance}");
        }
        for (chance, retry) in [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)] {
            let mut schedule = Schedule::new(KeyPolicy::default());
            schedule.failed(chance, at(0.0));
            assert_eq!(schedule.retry_after(at(0.0)), at(retry), "{chance}");
        }
    }

    #[test]
    fn the_server_s_hint_is_taken_within_bounds() {
        let own = KeyPolicy { max_age: Some(at(5.0)), ..KeyPolicy::default() };
        for (name, policy, hint, lifetime) in [
            ("none", KeyPolicy::default(), None, 600.0),
            ("0, or garbage", KeyPolicy::default(), Some(0.0), 60.0),
            ("Auth0's", KeyPolicy::default(), Some(15.0), 60.0),
            ("within", KeyPolicy::default(), Some(900.0), 900.0),
            ("ten years", KeyPolicy::default(), Some(3e8), 3600.0),
            ("against the configuration", own, Some(900.0), 5.0),
        ] {
            assert_eq!(policy.lifetime(hint.map(at)), at(lifetime), "{name}");
        }
    }

    #[test]
    fn each_period_of_stale_keys_is_announced_once() {
        let mut schedule = Schedule::new(KeyPolicy::default());
        assert!(!schedule.failed(1.0, at(0.0)), "no keys, no stale ones");
        schedule.succeeded(LIFETIME, 0.5, at(1.0));
        for (time, announced) in [(500.0, false), (600.9, false), (601.0, true), (602.0, false), (4000.0, false)] {
            assert_eq!(schedule.failed(1.0, at(time)), announced, "{time}");
        }
        schedule.succeeded(LIFETIME, 0.5, at(4100.0));
        assert!(schedule.failed(1.0, at(4800.0)), "another period");
        assert!(!schedule.failed(1.0, at(9000.0)), "too old to be used at all");
    }

    #[test]
    fn what_a_stranger_names_is_remembered_within_bounds() {
        let mut schedule = Schedule::new(KeyPolicy::default());
        for number in 0..10_000 {
            schedule.unknown_kid(&number.to_string(), true, at(0.0));
        }
        assert_eq!(schedule.missing.len(), MAX_MISSING);
    }
}
