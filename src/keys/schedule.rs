//! When to fetch an issuer's keys, and when not to: rules over time and answers, without a network and without a clock.
//!
//! Times are the uptime of [`Now`](crate::clock::Now).

use std::collections::HashMap;
use std::time::Duration;

/// A set past this part of its lifetime is fetched anew in the background, so that no request ever waits for it.
const REFRESH_AT_PERCENT: u32 = 80;

/// How long keys past their lifetime still serve while the issuer cannot be reached: longer than nearly every outage,
/// bounded because a withdrawn key is trusted meanwhile.
const MAX_STALE: Duration = Duration::from_secs(3600);

/// Wait after the first failed fetch; doubled by each further one.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// At most one fetch in this time for `kid`s that the set does not have, whatever came of it. Six requests a minute are
/// all that a stranger can cause, and any of them brings the new keys to everybody.
const UNKNOWN_KID_COOLDOWN: Duration = Duration::from_secs(10);

/// A `kid` that a newly fetched set did not have is not fetched for again in this time: clients that keep sending one old
/// token cause nothing. No longer, because a stranger may guess the `kid` that the issuer will use next, and have it
/// remembered before it is published.
const MISSING_FOR: Duration = Duration::from_secs(60);

/// `kid`s remembered as missing.
const MAX_MISSING: usize = 1024;

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
}

/// The state of one issuer's key fetching.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    fetching: bool,
    /// When a request shall cause the next fetch.
    due: Duration,
    /// Until when the keys at hand may be used, if there are any.
    usable_until: Option<Duration>,
    last_attempt: Option<Duration>,
    failures: u32,
    /// `kid`s that the newest set did not have, and when that was found.
    missing: HashMap<String, Duration>,
}

impl Schedule {
    /// From when on [`request`](Self::request) must be asked; before, the keys at hand are simply used.
    pub(crate) fn next_decision(&self) -> Duration {
        match (self.usable_until, self.fetching) {
            (None, _) => Duration::ZERO,
            (Some(until), true) => until,
            (Some(until), false) => until.min(self.due),
        }
    }

    /// A request needs keys.
    pub(crate) fn request(&mut self, now: Duration) -> Plan {
        let usable = self.usable_until.is_some_and(|until| now < until);
        match (usable, self.fetching, now >= self.due) {
            (true, false, true) => self.start(now, Plan::ServeAndFetch),
            (true, _, _) => Plan::Serve,
            (false, true, _) => Plan::Join,
            (false, false, true) => self.start(now, Plan::Fetch),
            (false, false, false) => Plan::Unavailable,
        }
    }

    /// A token names a key that the set does not have. `waited`: this request already waited for a fetch.
    ///
    /// `Serve` here means: decide with the keys at hand.
    pub(crate) fn unknown_kid(&mut self, kid: &str, waited: bool, now: Duration) -> Plan {
        if waited {
            // A fetch that failed is no news about the key.
            if self.failures == 0 && self.missing.len() < MAX_MISSING {
                self.missing.insert(kid.to_owned(), now);
            }
            return Plan::Serve;
        }
        if self.missing.get(kid).is_some_and(|found| now < *found + MISSING_FOR) {
            return Plan::Serve;
        }
        if self.fetching {
            return Plan::Join;
        }
        match self.last_attempt {
            Some(last) if now < last + UNKNOWN_KID_COOLDOWN => Plan::Serve,
            _ => self.start(now, Plan::Fetch),
        }
    }

    fn start(&mut self, now: Duration, plan: Plan) -> Plan {
        self.fetching = true;
        self.last_attempt = Some(now);
        plan
    }

    /// The fetch brought a good set, fresh for `lifetime`.
    pub(crate) fn succeeded(&mut self, lifetime: Duration, now: Duration) {
        self.fetching = false;
        self.failures = 0;
        self.due = now + lifetime * REFRESH_AT_PERCENT / 100;
        self.usable_until = Some(now + lifetime + MAX_STALE);
        self.missing.clear();
    }

    /// The fetch failed. Whatever keys are at hand stay.
    pub(crate) fn failed(&mut self, now: Duration) {
        self.fetching = false;
        let backoff = BACKOFF * 2_u32.saturating_pow(self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        self.due = self.due.max(now + backoff.min(MAX_BACKOFF));
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
        use Plan::{Fetch, Join, Serve, ServeAndFetch, Unavailable};
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
                    UnknownKid(9.9, "a", Serve),
                    UnknownKid(10.0, "a", Fetch),
                    UnknownKid(10.1, "b", Join),
                    Request(10.1, Serve),
                    Succeeded(10.2),
                    StillUnknownKid(10.3, "a"),
                    UnknownKid(20.1, "a", Serve),
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
                    UnknownKid(19.9, "b", Serve),
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
                "nor is a key missing for ever",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    UnknownKid(10.0, "a", Fetch),
                    Succeeded(10.0),
                    StillUnknownKid(10.0, "a"),
                    UnknownKid(69.9, "a", Serve),
                    UnknownKid(70.0, "a", Fetch),
                ],
            ),
            (
                "a new set forgets what the old one lacked",
                vec![
                    Request(0.0, Fetch),
                    Succeeded(0.0),
                    UnknownKid(10.0, "a", Fetch),
                    Succeeded(10.0),
                    StillUnknownKid(10.0, "a"),
                    UnknownKid(20.0, "a", Serve),
                    Request(490.0, ServeAndFetch),
                    Succeeded(490.0),
                    UnknownKid(500.0, "a", Fetch),
                ],
            ),
        ];
        for (name, steps) in cases {
            let mut schedule = Schedule::default();
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
                        assert_eq!(schedule.unknown_kid(kid, true, at(time)), Serve, "{name}: step {number}");
                    }
                    Succeeded(time) => schedule.succeeded(LIFETIME, at(time)),
                    Failed(time) => schedule.failed(at(time)),
                }
            }
        }
    }

    #[test]
    fn what_a_stranger_names_is_remembered_within_bounds() {
        let mut schedule = Schedule::default();
        for number in 0..10_000 {
            schedule.unknown_kid(&number.to_string(), true, at(0.0));
        }
        assert_eq!(schedule.missing.len(), MAX_MISSING);
    }
}
