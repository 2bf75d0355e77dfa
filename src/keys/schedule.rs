//! When to fetch an issuer's keys, and when not to: rules over time and answers, without a network and without a clock.
//!
//! Times are the uptime of [`Now`](crate::clock::Now).

use std::collections::HashSet;
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

/// `kid`s remembered as missing from the set in use.
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
    missing: HashSet<String>,
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
            if self.missing.len() < MAX_MISSING {
                self.missing.insert(kid.to_owned());
            }
            return Plan::Serve;
        }
        if self.missing.contains(kid) {
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
