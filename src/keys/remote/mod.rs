//! One issuer's keys: fetched once for all who wait, kept, refreshed ahead, never lost to a worse answer.

mod address;
mod cache_control;
mod discovery;
mod download;
pub(crate) mod fetch;
mod hedge;
pub(crate) mod limits;
mod per_kid;
pub(crate) mod schedule;
mod task;

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::jwks::Jwks;
use super::pem;
use crate::algorithm::Algorithm;
use crate::clock::{Clock, Now, nanos};
use crate::error::FetchError;
use crate::health::IssuerHealth;
use crate::keys::url::PlainHttp;
use crate::telemetry::{self, IssuerName};
use fetch::Validators;
use limits::OriginLimit;
use schedule::{ABANDON_AFTER, Budget, Decision, KeyPolicy, NoFetch, Schedule};
use task::{FetchReport, FetchTask, launch};

/// What to fetch, and what to make of it.
pub(crate) struct Source {
    pub(crate) issuer: IssuerName,
    pub(crate) location: Location,
    /// What RSA keys serve that do not say.
    pub(crate) rsa: Algorithm,
    pub(crate) algorithms: Cow<'static, [Algorithm]>,
    pub(crate) policy: KeyPolicy,
    /// Whether it may be asked at private addresses.
    pub(crate) private_addresses: bool,
    /// Where its metadata may say that its keys are.
    pub(crate) plain_http: PlainHttp,
}

pub(crate) enum Location {
    /// Its metadata are here, and say the rest.
    Discovery {
        at: Url,
        /// Whether the keys must be on the same server.
        same_origin: bool,
    },
    Jwks(Url),
    /// One key at each address that begins with this.
    PemByKid(Url),
}

impl Source {
    fn schedule(&self) -> Schedule {
        let budget = if matches!(self.location, Location::PemByKid(_)) {
            Budget::BY_KID
        } else {
            Budget::KEY_SET
        };
        Schedule::new(self.policy.clone(), budget)
    }
}

impl Location {
    fn server(&self) -> &Url {
        match self {
            Self::Discovery { at, .. } => at,
            Self::Jwks(url) | Self::PemByKid(url) => url,
        }
    }
}

/// The keys of one issuer, fetched when they are needed.
///
/// Carryover keys are reached by two atomic loads. The lock is taken only where something changes: a fetch starts or ends, or
/// a token names a key that is not there.
pub(crate) struct RemoteJwks {
    source: Source,
    client: Client,
    clock: Clock,
    limit_at_origin: OriginLimit,
    current: ArcSwapOption<Jwks>,
    /// [`Schedule::next_decision`], in nanoseconds of uptime: until then nobody needs the lock.
    next_decision: AtomicU64,
    /// Until when the keys are fresh, in nanoseconds of uptime.
    fresh_until: AtomicU64,
    /// The one of which it was told that keys past it are used.
    stale_reported: AtomicU64,
    /// Whether it is listed, or a token was ever verified with its keys: not just somebody's word.
    established: AtomicBool,
    state: Mutex<State>,
    counters: Counters,
}

/// For [`IssuerHealth`], since the start.
#[derive(Default)]
struct Counters {
    fetches: AtomicU64,
    failed_fetches: AtomicU64,
    stale_serves: AtomicU64,
    unknown_kids: AtomicU64,
}

struct State {
    schedule: Schedule,
    /// Counters fetches; the answer of any but the last is not wanted any more.
    fetch: u64,
    /// Closed when the fetch under way has ended.
    under_way: Option<watch::Receiver<()>>,
    failure: Option<Arc<FetchError>>,
    known: Carryover,
    /// Whose key the last fetch was for, where keys are fetched one by one.
    requested_kid: Option<String>,
}

/// What the last fetch leaves to the next one.
#[derive(Clone, Default)]
struct Carryover {
    /// Where the metadata said that the keys are, and until when that holds.
    jwks_uri: Option<(Url, Duration)>,
    /// What the keys at hand revalidation with, and from where.
    revalidation: Option<Revalidation>,
}

#[derive(Clone)]
struct Revalidation {
    from: Url,
    validators: Validators,
    /// What the server said of their lifetime. It holds on when a 304 says nothing else (RFC 9111 §4.3.4).
    hint: Option<Duration>,
}

/// What a fetch brought.
struct Download {
    /// `None`: those at hand are still the ones.
    jwks: Option<Jwks>,
    lifetime: Duration,
    known: Carryover,
}

/// How often one request waits for fetches. Once is enough, unless the fetch was for another key, or its keys were dropped.
pub(crate) const MAX_WAITS: u8 = 3;

/// The keys, or how to come by them.
pub(crate) enum KeysState {
    Ready(Arc<Jwks>),
    /// With what the fetch before ended with, if it failed.
    Pending(Fetching, Option<Arc<FetchError>>),
    Unavailable(Option<Arc<FetchError>>),
}

/// A fetch under way, in a task of its own: dropping this cancels nothing.
pub(crate) struct Fetching {
    ended: watch::Receiver<()>,
    limit: Duration,
}

impl Fetching {
    /// Waits until the fetch has ended, or should have.
    pub(crate) async fn finished(mut self) {
        // Nothing is ever sent; the error is the news that the sender is gone, after the state was brought up to date.
        // Bounded here too: the fetch may have been started on a runtime that nobody drives any more.
        let _ = tokio::time::timeout(self.limit, self.ended.changed()).await;
    }
}

impl RemoteJwks {
    pub(crate) fn new(source: Source, client: Client, clock: Clock) -> Arc<Self> {
        let schedule = source.schedule();
        Arc::new(Self {
            limit_at_origin: OriginLimit::at(source.location.server()),
            established: source.issuer.is_listed().into(),
            source,
            client,
            clock,
            current: ArcSwapOption::empty(),
            next_decision: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            stale_reported: AtomicU64::new(0),
            state: Mutex::new(State {
                schedule,
                fetch: 0,
                under_way: None,
                failure: None,
                known: Carryover::default(),
                requested_kid: None,
            }),
            counters: Counters::default(),
        })
    }

    /// The keys at hand, or a fetch to wait for. Starts a refresh in the background when one is due.
    ///
    /// `kid`: of the token that needs them.
    pub(crate) fn keys(self: &Arc<Self>, kid: Option<&str>, now: Now) -> KeysState {
        let keys = self.current_or_fetch(kid, now, Schedule::request);
        if matches!(keys, KeysState::Ready(_)) {
            let fresh_until = self.fresh_until.load(Ordering::Relaxed);
            if nanos(now.uptime) >= fresh_until {
                self.report_stale(fresh_until, now);
            }
        }
        keys
    }

    /// Whether these are the keys. As [`keys`](Self::keys), but counters no reference up, which all threads would share.
    pub(crate) fn recheck(self: &Arc<Self>, keys: &Weak<Jwks>, now: Now) -> bool {
        // An address is not used again as long as something points there, weakly too.
        let is_this = |current: &Arc<Jwks>| std::ptr::eq(Arc::as_ptr(current), keys.as_ptr());
        let uptime = nanos(now.uptime);
        if uptime < self.next_decision.load(Ordering::Acquire)
            && uptime < self.fresh_until.load(Ordering::Relaxed)
        {
            return self.current.load().as_ref().is_some_and(is_this);
        }
        // Nothing is fetched for a token that was verified with keys which are gone.
        self.current.load().is_some()
            && matches!(self.keys(None, now), KeysState::Ready(current) if is_this(&current))
    }

    /// The keys that are there, if they may be used. Fetches nothing.
    pub(crate) fn cached(&self, now: Now) -> Option<Arc<Jwks>> {
        let usable = || {
            nanos(now.uptime) < self.next_decision.load(Ordering::Acquire)
                || self.lock().schedule.is_usable(now.uptime)
        };
        self.current.load_full().filter(|_| usable())
    }

    /// As [`keys`](Self::keys), for nobody's token. Keys that are fetched one by one are not known before somebody names them.
    pub(crate) fn warm_up(self: &Arc<Self>, now: Now) -> Option<Fetching> {
        match self.current_or_fetch(None, now, Schedule::warm_up) {
            KeysState::Pending(fetching, _) => Some(fetching),
            KeysState::Ready(_) | KeysState::Unavailable(_) => None,
        }
    }

    /// Drops the keys, and the answer of a fetch that is under way. The next token has them fetched.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        state.schedule = self.source.schedule();
        state.fetch += 1;
        (state.under_way, state.failure, state.requested_kid) = (None, None, None);
        state.known = Carryover::default();
        self.current.store(None);
        self.publish_next_decision(&state);
    }

    /// Whether there is anything to fetch before a token comes.
    pub(crate) fn can_warm_up(&self) -> bool {
        !self.is_by_kid()
    }

    fn is_by_kid(&self) -> bool {
        matches!(self.source.location, Location::PemByKid(_))
    }

    /// Whether it can have a key of this name: where that becomes part of an address, not everything does.
    pub(crate) fn may_have(&self, kid: Option<&str>) -> bool {
        self.can_warm_up() || kid.is_some_and(pem::is_name)
    }

    /// A token was verified with these keys.
    pub(crate) fn mark_established(&self) {
        if !self.established.load(Ordering::Relaxed) {
            self.established.store(true, Ordering::Relaxed);
        }
    }

    /// Keys past their lifetime were used: counted each time, told once for each such period, unless they only are because a
    /// refresh has not quite ended.
    fn report_stale(&self, fresh_until: u64, now: Now) {
        self.counters.stale_serves.fetch_add(1, Ordering::Relaxed);
        telemetry::stale_served(&self.source.issuer);
        if self.stale_reported.load(Ordering::Relaxed) != fresh_until
            && self.lock().schedule.has_failed()
            && self.stale_reported.swap(fresh_until, Ordering::Relaxed) != fresh_until
        {
            let until = Duration::from_nanos(fresh_until) + self.source.policy.max_stale;
            telemetry::keys_stale(&self.source.issuer, until.saturating_sub(now.uptime));
        }
    }

    fn current_or_fetch(
        self: &Arc<Self>,
        kid: Option<&str>,
        now: Now,
        decide: impl FnOnce(&mut Schedule, Duration) -> Decision,
    ) -> KeysState {
        if nanos(now.uptime) < self.next_decision.load(Ordering::Acquire)
            && let Some(jwks) = self.current.load_full()
        {
            return KeysState::Ready(jwks);
        }
        let Ok(runtime) = Handle::try_current() else {
            // Nothing can be fetched here; what is at hand is used as long as it may be.
            let usable = self.lock().schedule.is_usable(now.uptime);
            return match self.current.load_full().filter(|_| usable) {
                Some(jwks) => KeysState::Ready(jwks),
                None => KeysState::Unavailable(Some(Arc::new(FetchError::NoRuntime))),
            };
        };
        let mut state = self.lock();
        let plan = decide(&mut state.schedule, now.uptime);
        let (fetching, task) = self.apply(plan, kid, &mut state);
        let failure = state.failure.clone();
        drop(state);
        launch(task, &runtime);
        match (plan, fetching, self.current.load_full()) {
            (Decision::Fetch | Decision::Join, Some(fetching), _) => {
                KeysState::Pending(fetching, failure)
            }
            (Decision::Serve | Decision::ServeAndFetch, _, Some(jwks)) => KeysState::Ready(jwks),
            _ => KeysState::Unavailable(failure),
        }
    }

    /// For a token that no key of `seen` verifies: none has its name, or `is_known` and the signature does not fit. `waits`: how
    /// often this request has waited for a fetch.
    pub(crate) fn refetch(
        self: &Arc<Self>,
        seen: &Arc<Jwks>,
        kid: Option<&str>,
        is_known: bool,
        waits: u8,
        now: Now,
    ) -> RefetchOutcome {
        let Ok(runtime) = Handle::try_current() else {
            return RefetchOutcome::Refused(Some(Arc::new(FetchError::NoRuntime)));
        };
        let mut state = self.lock();
        // A fetch may have ended between the look at the set and here: look again before asking for another.
        if self.current.load().as_ref().is_some_and(|current| !Arc::ptr_eq(current, seen)) {
            return RefetchOutcome::Retry;
        }
        // Where keys are fetched one by one, a fetch for another key says nothing about this one.
        let was_for_another = self.is_by_kid() && state.requested_kid.as_deref() != kid;
        if was_for_another && waits >= MAX_WAITS {
            return RefetchOutcome::Refused(Some(Arc::new(FetchError::ConcurrencyLimit {
                limit: Budget::BY_KID.every,
            })));
        }
        let waited = waits > 0 && !was_for_another;
        let missing = if is_known { None } else { Some(kid.unwrap_or_default()) };
        let plan = state.schedule.unknown_kid(missing, waited, now.uptime);
        let (fetching, task) = self.apply(plan, kid, &mut state);
        let failure = match plan {
            Decision::Refuse(NoFetch::CoolingDown) if self.is_by_kid() => {
                Some(Arc::new(FetchError::ConcurrencyLimit { limit: Budget::BY_KID.every }))
            }
            _ => state.failure.clone(),
        };
        drop(state);
        launch(task, &runtime);
        let outcome = match plan {
            Decision::Refuse(refusal) => refusal.code(),
            _ => "fetched",
        };
        // Who waited was counted before.
        self.counters.unknown_kids.fetch_add(u64::from(!waited), Ordering::Relaxed);
        telemetry::unknown_kid(&self.source.issuer, outcome);
        fetching.map_or(RefetchOutcome::Refused(failure), RefetchOutcome::Pending)
    }

    /// What there is to say of these keys.
    pub(crate) fn health(&self, now: Now) -> IssuerHealth {
        let state = self.lock();
        let jwks = self.current.load_full().filter(|_| state.schedule.serves(now.uptime));
        let stale =
            jwks.is_some() && state.schedule.fresh_until().is_some_and(|until| now.uptime >= until);
        IssuerHealth {
            iss: Arc::clone(&self.source.issuer.iss),
            keys: jwks.as_ref().map_or(0, |jwks| jwks.len()),
            ignored: jwks.map(|jwks| jwks.ignored().to_vec()).unwrap_or_default(),
            age: state.schedule.last_success().map(|last| now.uptime.saturating_sub(last)),
            next_fetch: Some(state.schedule.retry_after(now.uptime)),
            unknown_key_after: Some(state.schedule.unknown_kid_wait(now.uptime)),
            fetching: state.under_way.is_some(),
            stale,
            last_error: state.failure.as_deref().cloned(),
            fetches: self.counters.fetches.load(Ordering::Relaxed),
            failed_fetches: self.counters.failed_fetches.load(Ordering::Relaxed),
            stale_serves: self.counters.stale_serves.load(Ordering::Relaxed),
            unknown_kids: self.counters.unknown_kids.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the plan asks for: something to wait for, and a task for [`launch`] once the lock is released.
    fn apply(
        self: &Arc<Self>,
        plan: Decision,
        kid: Option<&str>,
        state: &mut State,
    ) -> (Option<Fetching>, Option<FetchTask>) {
        let limit = self.source.policy.timeout + ABANDON_AFTER;
        if state.schedule.has_failed() && state.failure.is_none() {
            // A fetch that never ended.
            state.failure = Some(Arc::new(FetchError::Interrupted));
            self.publish_next_decision(state);
        }
        match plan {
            Decision::Serve | Decision::Unavailable | Decision::Refuse(_) => (None, None),
            Decision::Join => {
                (state.under_way.clone().map(|ended| Fetching { ended, limit }), None)
            }
            Decision::Fetch | Decision::ServeAndFetch => {
                let (ended, under_way) = watch::channel(());
                state.fetch += 1;
                state.requested_kid = kid.filter(|_| self.is_by_kid()).map(str::to_owned);
                state.under_way = Some(under_way.clone());
                self.publish_next_decision(state);
                let task = FetchTask {
                    keys: Arc::clone(self),
                    number: state.fetch,
                    known: state.known.clone(),
                    kid: kid.map(str::to_owned),
                    answer: None,
                    since: Instant::now(),
                    _ended: ended,
                };
                (Some(Fetching { ended: under_way, limit }), Some(task))
            }
        }
    }

    /// Takes the answer of fetch `number` in. A set is only replaced by a good one, and by a newer one.
    fn finish(&self, number: u64, answer: Result<Download, FetchError>, took: Duration) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.fetch != number {
            return;
        }
        self.counters.fetches.fetch_add(1, Ordering::Relaxed);
        let news = match answer {
            Ok(fetched) => {
                state.schedule.succeeded(fetched.lifetime, jitter(), now.uptime);
                state.failure = None;
                state.known = fetched.known;
                let changed = fetched.jwks.is_some();
                if let Some(jwks) = fetched.jwks {
                    if let Some(kid) = state.requested_kid.clone().filter(|kid| !jwks.has_kid(kid))
                    {
                        state.schedule.does_not_exist(&kid, now.uptime);
                    }
                    self.current.store(Some(Arc::new(jwks)));
                }
                FetchReport::Fetched {
                    changed,
                    lifetime: fetched.lifetime,
                    jwks: self.current.load_full(),
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                // The keys may have moved; the next fetch asks where they are. Unless nobody was asked.
                if !matches!(*error, FetchError::ConcurrencyLimit { .. }) {
                    state.known.jwks_uri = None;
                }
                state.failure = Some(Arc::clone(&error));
                self.counters.failed_fetches.fetch_add(1, Ordering::Relaxed);
                state.schedule.failed(jitter(), now.uptime);
                FetchReport::Failed { error, retry_after: state.schedule.retry_after(now.uptime) }
            }
        };
        state.under_way = None;
        self.publish_next_decision(&state);
        drop(state);
        // Not under the lock: a log may be slow.
        news.tell(&self.source.issuer, took, now);
    }

    fn publish_next_decision(&self, state: &State) {
        self.fresh_until
            .store(nanos(state.schedule.fresh_until().unwrap_or_default()), Ordering::Relaxed);
        self.next_decision.store(nanos(state.schedule.next_decision()), Ordering::Release);
    }
}

/// From 0, excluded, to 1: for what must not happen everywhere at once. Guessing it gains nothing.
fn jitter() -> f64 {
    let drawn = RandomState::new().hash_one(()) >> 11;
    (drawn + 1) as f64 / (1_u64 << 53) as f64
}

/// What to do about a key that is not in the set.
pub(crate) enum RefetchOutcome {
    Pending(Fetching),
    /// Another set has come meanwhile.
    Retry,
    /// With what the last fetch ended with, if it failed: then nobody knows whether there is such a key.
    Refused(Option<Arc<FetchError>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_spread_from_0_to_1() {
        let drawn: Vec<_> = (0..1000).map(|_| jitter()).collect();
        assert!(drawn.iter().all(|chance| *chance > 0.0 && *chance <= 1.0));
        for (from, to) in [(0.0, 0.2), (0.4, 0.6), (0.8, 1.0)] {
            let within = drawn.iter().filter(|chance| (from..to).contains(*chance)).count();
            assert!((100..300).contains(&within), "{within} of 1000 from {from} to {to}");
        }
    }
}
