//! A schedule with its invariants: what must hold after each event, whatever came before.
//!
//! The test explores all sequences of events up to a depth, and the fuzz target `schedule` random
//! ones that are longer.

use super::*;

/// How long the keys of a good answer are fresh.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// So many seconds pass.
    Passes(u64),
    Request,
    /// A request with a `kid` that no key set ever has.
    Junk(&'static str),
    /// A request with a known `kid` and a wrong signature.
    Forged,
    Answer(bool),
}

/// A schedule, and the state that its invariants are checked against.
#[derive(Clone)]
pub(crate) struct World {
    schedule: Schedule,
    now: Duration,
    /// When the fetch in progress was started.
    fetching: Option<Duration>,
    /// When fetches were started for tokens that no key verifies.
    caused: Vec<Duration>,
    keys_since: Option<Duration>,
    /// Whether a fetch that was due has failed, or has never ended, since the last success.
    failed: bool,
    /// The `kid`s of requests that wait for the fetch in progress.
    waiting: Vec<Option<&'static str>>,
    /// What happened so far, for the message of an assertion.
    pub(super) trail: Vec<Event>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            schedule: Schedule::new(KeyPolicy::default(), Budget::KEY_SET),
            now: Duration::ZERO,
            fetching: None,
            caused: Vec::new(),
            keys_since: None,
            failed: false,
            waiting: Vec::new(),
            trail: Vec::new(),
        }
    }

    pub(crate) fn happen(&mut self, event: Event) {
        self.trail.push(event);
        match event {
            Event::Passes(seconds) => self.now += Duration::from_secs(seconds),
            Event::Request => self.request(),
            Event::Junk(kid) => self.junk(Some(kid)),
            Event::Forged => self.junk(None),
            Event::Answer(good) => self.answer(good),
        }
    }

    /// Whether a fetch was started that can still end.
    fn under_way(&self) -> bool {
        self.fetching
            .is_some_and(|since| self.now < since + KeyPolicy::default().timeout + ABANDON_AFTER)
    }

    /// A fetch that should have ended counts as failed at the next request.
    fn give_up(&mut self) {
        if self.fetching.is_some() && !self.under_way() {
            self.failed |= self.is_due();
            self.fetching = None;
        }
    }

    fn is_due(&self) -> bool {
        self.keys_since.is_none_or(|since| self.now >= since + LIFETIME.mul_f64(0.8))
    }

    fn started(&mut self) {
        assert!(!self.under_way(), "two fetches at once: {:?}", self.trail);
        self.fetching = Some(self.now);
    }

    fn request(&mut self) {
        self.give_up();
        let decided_later = self.now < self.schedule.next_decision();
        let decision = self.schedule.request(self.now);
        if decided_later {
            assert_eq!(
                decision,
                Decision::Serve,
                "not served before `next_decision`: {:?}",
                self.trail
            );
        }
        let fresh_until = self.keys_since.map(|since| since + LIFETIME);
        let fresh = fresh_until.is_some_and(|until| self.now < until);
        let usable =
            fresh_until.is_some_and(|until| self.now < until + KeyPolicy::default().max_stale);
        let ahead = self.under_way() && self.fetching < fresh_until;
        let served = matches!(decision, Decision::Serve | Decision::ServeAndFetch);
        assert_eq!(
            served,
            fresh || usable && (self.failed || ahead),
            "no request waits for fresh keys, stale ones are used only while fetching fails: {decision:?} {:?}",
            self.trail
        );
        match decision {
            Decision::Fetch | Decision::ServeAndFetch => self.started(),
            Decision::Join => assert!(self.under_way(), "no fetch to join: {:?}", self.trail),
            Decision::Serve | Decision::Unavailable | Decision::Skip(_) => {}
        }
    }

    fn junk(&mut self, kid: Option<&'static str>) {
        if self.keys_since.is_none() {
            return;
        }
        self.give_up();
        match self.schedule.unknown_kid(kid, false, self.now) {
            Decision::Fetch => {
                self.started();
                self.waiting.push(kid);
                self.caused.push(self.now);
                let Budget { burst, every } = Budget::KEY_SET;
                for (number, since) in self.caused.iter().enumerate() {
                    let most =
                        burst as usize + ((self.now - *since).as_secs() / every.as_secs()) as usize;
                    let caused = self.caused.len() - number;
                    assert!(caused <= most, "{caused} fetches since {since:?}: {:?}", self.trail);
                }
            }
            Decision::Join => {
                assert!(self.under_way(), "no fetch to join: {:?}", self.trail);
                self.waiting.push(kid);
            }
            decision => assert!(matches!(decision, Decision::Skip(_)), "{:?}", self.trail),
        }
    }

    fn answer(&mut self, good: bool) {
        if self.fetching.take().is_none() {
            return;
        }
        if good {
            self.schedule.succeeded(LIFETIME, 0.5, self.now);
            self.keys_since = Some(self.now);
            self.failed = false;
        } else {
            self.schedule.failed(1.0, self.now);
            self.failed |= self.is_due();
        }
        for kid in std::mem::take(&mut self.waiting) {
            assert_eq!(
                self.schedule.unknown_kid(kid, true, self.now),
                Decision::Skip(NoFetch::Missing),
                "waits twice: {:?}",
                self.trail
            );
        }
        // Whatever happened before, a key that is published now is found: within 5 seconds,
        // also new key material under a known `kid`, and within a minute if the `kid` was
        // guessed before.
        if good {
            for (kid, after) in [
                (Some("new"), Budget::KEY_SET.every),
                (None, Budget::KEY_SET.every),
                (Some("a"), MAX_MISSING_FOR),
            ] {
                let plan = self.schedule.clone().unknown_kid(kid, false, self.now + after);
                assert_eq!(plan, Decision::Fetch, "{kid:?} is not fetched: {:?}", self.trail);
            }
        }
    }
}
