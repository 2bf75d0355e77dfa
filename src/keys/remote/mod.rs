//! The keys of one issuer: cached, fetched once for all requests that wait, and refreshed before
//! they expire. A failed fetch never replaces them.

mod address;
pub(crate) mod cache_control;
pub(crate) mod discovery;
mod download;
pub(crate) mod fetch;
mod health;
mod hedge;
pub(crate) mod limits;
mod per_kid;
pub(crate) mod schedule;
mod source;
mod task;

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
use crate::clock::{Clock, Now, nanos};
use crate::error::FetchError;
use crate::telemetry;
pub(crate) use address::AddressPolicy;
use fetch::Validators;
use health::Counters;
use limits::OriginLimit;
use schedule::{ABANDON_AFTER, Budget, Decision, NoFetch, Schedule};
pub(crate) use source::{Location, Source};
use task::{FetchReport, FetchTask, launch};

/// The keys of one issuer, fetched on demand.
///
/// Cached keys are read with two atomic loads. The lock is taken only if something changes: a fetch
/// starts or ends, or a token names an unknown key.
pub(crate) struct RemoteJwks {
    source: Source,
    client: Client,
    clock: Clock,
    limit_at_origin: OriginLimit,
    current: ArcSwapOption<Jwks>,
    /// [`Schedule::next_decision`], in nanoseconds of uptime. Before that time, the lock is not
    /// needed.
    next_decision: AtomicU64,
    /// End of the lifetime of the keys, in nanoseconds of uptime.
    fresh_until: AtomicU64,
    /// The value of `fresh_until` for which the use of stale keys was last logged.
    stale_reported: AtomicU64,
    /// True for a configured issuer, or once a token has been verified with these keys.
    established: AtomicBool,
    state: Mutex<State>,
    counters: Counters,
}

struct State {
    schedule: Schedule,
    /// Number of the latest fetch. The result of an earlier one is discarded.
    fetch: u64,
    /// Closed when the fetch in progress has ended.
    under_way: Option<watch::Receiver<()>>,
    failure: Option<Arc<FetchError>>,
    carryover: Carryover,
    /// The `kid` of the last fetch, if keys are fetched one by one.
    requested_kid: Option<String>,
}

/// What a fetch leaves to the next one.
#[derive(Clone, Default)]
struct Carryover {
    /// The `jwks_uri` from the metadata, and the end of its lifetime.
    jwks_uri: Option<(Url, Duration)>,
    /// How to revalidate the cached keys.
    revalidation: Option<Revalidation>,
}

#[derive(Clone)]
struct Revalidation {
    from: Url,
    validators: Validators,
    /// SHA-256 of the document, or of all keys that were fetched one by one. Some servers send no
    /// validators, or ignore them.
    sha256: [u8; 32],
    /// The lifetime that the server gave. It still applies if a 304 gives none (RFC 9111 §4.3.4).
    hint: Option<Duration>,
}

/// The result of a fetch.
struct Download {
    /// `None`: the cached keys have not changed.
    jwks: Option<Jwks>,
    lifetime: Duration,
    carryover: Carryover,
}

/// How often one request waits for a fetch. Once is enough, unless the fetch was for another key,
/// or the keys were dropped meanwhile.
pub(crate) const MAX_WAITS: u8 = 3;

/// The cached keys, or how to get them.
pub(crate) enum KeysState {
    Ready(Arc<Jwks>),
    /// Wait for this fetch. The error is that of the previous fetch, if it failed.
    Pending(Fetching, Option<Arc<FetchError>>),
    Unavailable(Option<Arc<FetchError>>),
}

/// A fetch in progress. It runs in a task of its own: dropping this does not cancel it.
pub(crate) struct Fetching {
    ended: watch::Receiver<()>,
    limit: Duration,
}

impl Fetching {
    /// `ended`: closed when the fetch has ended. `limit`: how long that takes at most.
    #[cfg(feature = "status-list")]
    pub(crate) fn new(ended: watch::Receiver<()>, limit: Duration) -> Self {
        Self { ended, limit }
    }

    /// Waits until the fetch has ended, or until it should have.
    pub(crate) async fn finished(mut self) {
        // Nothing is ever sent. `changed` returns an error when the sender is dropped, which
        // happens after the state was updated. The time limit is needed because the runtime that
        // the fetch was started on may no longer be driven.
        let _ = tokio::time::timeout(self.limit, self.ended.changed()).await;
    }
}

impl RemoteJwks {
    /// `seed`: keys to start with.
    pub(crate) fn new(
        source: Source,
        client: Client,
        clock: Clock,
        seed: Option<Jwks>,
    ) -> Arc<Self> {
        let mut schedule = source.schedule();
        if seed.is_some() {
            schedule.seeded(clock.now().uptime);
        }
        let next_decision = nanos(schedule.next_decision()).into();
        let fresh_until = nanos(schedule.fresh_until().unwrap_or_default()).into();
        Arc::new(Self {
            limit_at_origin: OriginLimit::at(source.location.server()),
            established: source.issuer.is_configured().into(),
            source,
            client,
            clock,
            current: ArcSwapOption::from_pointee(seed),
            next_decision,
            fresh_until,
            stale_reported: AtomicU64::new(0),
            state: Mutex::new(State {
                schedule,
                fetch: 0,
                under_way: None,
                failure: None,
                carryover: Carryover::default(),
                requested_kid: None,
            }),
            counters: Counters::default(),
        })
    }

    /// Returns the cached keys, or a fetch to wait for. Starts a background refresh if one is due.
    ///
    /// `kid`: that of the token to verify.
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

    /// Whether `keys` are still the current keys. Like [`keys`](Self::keys), but does not touch the
    /// reference count, which all threads share.
    pub(crate) fn recheck(self: &Arc<Self>, keys: &Weak<Jwks>, now: Now) -> bool {
        // The address is not reused while a weak reference to it exists.
        let is_this = |current: &Arc<Jwks>| std::ptr::eq(Arc::as_ptr(current), keys.as_ptr());
        let uptime = nanos(now.uptime);
        if uptime < self.next_decision.load(Ordering::Acquire)
            && uptime < self.fresh_until.load(Ordering::Relaxed)
        {
            return self.current.load().as_ref().is_some_and(is_this);
        }
        // If the keys are gone, nothing is fetched for a token that was verified with them.
        self.current.load().is_some()
            && matches!(self.keys(None, now), KeysState::Ready(current) if is_this(&current))
    }

    /// Returns the cached keys if they may be used. Never fetches.
    pub(crate) fn cached(&self, now: Now) -> Option<Arc<Jwks>> {
        let usable = || {
            nanos(now.uptime) < self.next_decision.load(Ordering::Acquire)
                || self.lock().schedule.is_usable(now.uptime)
        };
        self.current.load_full().filter(|_| usable())
    }

    /// Like [`keys`](Self::keys), without a token. Where keys are fetched one by one, there is
    /// nothing to fetch before a token names one.
    pub(crate) fn warm_up(self: &Arc<Self>, now: Now) -> Option<Fetching> {
        match self.current_or_fetch(None, now, Schedule::warm_up) {
            KeysState::Pending(fetching, _) => Some(fetching),
            KeysState::Ready(_) | KeysState::Unavailable(_) => None,
        }
    }

    /// Drops the keys, and discards the result of a fetch in progress. The next token starts a
    /// fetch.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        state.schedule = self.source.schedule();
        state.fetch += 1;
        (state.under_way, state.failure, state.requested_kid) = (None, None, None);
        state.carryover = Carryover::default();
        self.current.store(None);
        self.publish_next_decision(&state);
    }

    /// Whether keys can be fetched before a token names one.
    pub(crate) fn can_warm_up(&self) -> bool {
        !self.is_by_kid()
    }

    fn is_by_kid(&self) -> bool {
        matches!(self.source.location, Location::PemByKid(_))
    }

    /// Whether the issuer can have a key with this `kid`. Where the `kid` becomes part of a URL,
    /// not every `kid` is allowed.
    pub(crate) fn may_have(&self, kid: Option<&str>) -> bool {
        self.can_warm_up() || kid.is_some_and(pem::is_name)
    }

    /// Records that a token was verified with these keys.
    pub(crate) fn mark_established(&self) {
        if !self.established.load(Ordering::Relaxed) {
            self.established.store(true, Ordering::Relaxed);
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
            // Nothing can be fetched here. Cached keys are used for as long as they may be.
            let usable = self.lock().schedule.is_usable(now.uptime);
            return match self.current.load_full().filter(|_| usable) {
                Some(jwks) => KeysState::Ready(jwks),
                None => KeysState::Unavailable(Some(Arc::new(FetchError::NoRuntime))),
            };
        };
        let mut state = self.lock();
        let decision = decide(&mut state.schedule, now.uptime);
        let (fetching, task) = self.apply(decision, kid, &mut state);
        let failure = state.failure.clone();
        // Under the lock, where the keys are those that were decided about: `forget` drops them.
        let current = self.current.load_full();
        drop(state);
        launch(task, &runtime);
        match (decision, fetching, current) {
            (Decision::Fetch | Decision::Join, Some(fetching), _) => {
                KeysState::Pending(fetching, failure)
            }
            (Decision::Serve | Decision::ServeAndFetch, _, Some(jwks)) => KeysState::Ready(jwks),
            _ => KeysState::Unavailable(failure),
        }
    }

    /// Decides about a token that no key of `seen` verifies. `waits`: how often this request has
    /// waited for a fetch.
    pub(crate) fn refetch(
        self: &Arc<Self>,
        seen: &Arc<Jwks>,
        kid: Option<&str>,
        mismatch: Mismatch,
        waits: u8,
        now: Now,
    ) -> RefetchOutcome {
        let Ok(runtime) = Handle::try_current() else {
            return RefetchOutcome::Rejected(Some(Arc::new(FetchError::NoRuntime)));
        };
        let mut state = self.lock();
        // A fetch may have ended since `seen` was loaded: try its result before starting another
        // fetch.
        if self.current.load().as_ref().is_some_and(|current| !Arc::ptr_eq(current, seen)) {
            return RefetchOutcome::Retry;
        }
        // Where keys are fetched one by one, a fetch for another key says nothing about this one.
        let was_for_another = self.is_by_kid() && state.requested_kid.as_deref() != kid;
        if was_for_another && waits >= MAX_WAITS {
            return RefetchOutcome::Rejected(Some(Arc::new(FetchError::ConcurrencyLimit {
                limit: Budget::BY_KID.every,
            })));
        }
        let waited = waits > 0 && !was_for_another;
        let missing = kid.filter(|_| mismatch == Mismatch::Kid);
        let decision = state.schedule.unknown_kid(missing, waited, now.uptime);
        let (fetching, task) = self.apply(decision, kid, &mut state);
        let failure = match decision {
            Decision::Skip(NoFetch::CoolingDown) if self.is_by_kid() => {
                Some(Arc::new(FetchError::ConcurrencyLimit { limit: Budget::BY_KID.every }))
            }
            _ => state.failure.clone(),
        };
        drop(state);
        launch(task, &runtime);
        let outcome = match decision {
            Decision::Skip(reason) => reason.code(),
            _ => "fetched",
        };
        // A request that has waited was counted before.
        self.counters.unknown_kids.fetch_add(u64::from(!waited), Ordering::Relaxed);
        telemetry::unknown_kid(&self.source.issuer, outcome);
        fetching.map_or(RefetchOutcome::Rejected(failure), RefetchOutcome::Pending)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half-changed, so poisoning is ignored.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a decision. Returns a fetch to wait for, and a task to pass to [`launch`] once
    /// the lock is released.
    fn apply(
        self: &Arc<Self>,
        decision: Decision,
        kid: Option<&str>,
        state: &mut State,
    ) -> (Option<Fetching>, Option<FetchTask>) {
        let limit = self.source.policy.timeout + ABANDON_AFTER;
        if state.schedule.has_failed() && state.failure.is_none() {
            // The last fetch never ended.
            state.failure = Some(Arc::new(FetchError::Interrupted));
            self.publish_next_decision(state);
        }
        match decision {
            Decision::Serve | Decision::Unavailable | Decision::Skip(_) => (None, None),
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
                    carryover: state.carryover.clone(),
                    kid: kid.map(str::to_owned),
                    answer: None,
                    since: Instant::now(),
                    _ended: ended,
                };
                (Some(Fetching { ended: under_way, limit }), Some(task))
            }
        }
    }

    /// Stores the result of fetch `number`. Only a valid and newer key set replaces the cached one.
    fn finish(&self, number: u64, answer: Result<Download, FetchError>, took: Duration) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.fetch != number {
            return;
        }
        self.counters.fetches.fetch_add(1, Ordering::Relaxed);
        let report = match answer {
            Ok(fetched) => {
                state.schedule.succeeded(fetched.lifetime, jitter(), now.uptime);
                state.failure = None;
                state.carryover = fetched.carryover;
                let changed = fetched.jwks.is_some();
                if let Some(jwks) = fetched.jwks {
                    self.current.store(Some(Arc::new(jwks)));
                }
                let jwks = self.current.load_full();
                let has = |kid: &str| jwks.as_ref().is_none_or(|jwks| jwks.has_kid(kid));
                if let Some(kid) = state.requested_kid.clone().filter(|kid| !has(kid)) {
                    state.schedule.does_not_exist(&kid, now.uptime);
                }
                FetchReport::Fetched { changed, lifetime: fetched.lifetime, jwks }
            }
            Err(error) => {
                let error = Arc::new(error);
                // The keys may have moved, so the next fetch reads the metadata again, unless this
                // one failed for lack of a permit.
                if !matches!(*error, FetchError::ConcurrencyLimit { .. }) {
                    state.carryover.jwks_uri = None;
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
        // Not under the lock, because logging may be slow.
        report.log(&self.source.issuer, took, now);
    }

    fn publish_next_decision(&self, state: &State) {
        self.fresh_until
            .store(nanos(state.schedule.fresh_until().unwrap_or_default()), Ordering::Relaxed);
        self.next_decision.store(nanos(state.schedule.next_decision()), Ordering::Release);
    }
}

/// Jitter in (0, 1], so that replicas do not refresh together. It need not be unpredictable.
pub(crate) fn jitter() -> f64 {
    let drawn = RandomState::new().hash_one(()) >> 11;
    (drawn + 1) as f64 / (1_u64 << 53) as f64
}

/// Why no key of a set verifies a token.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mismatch {
    /// No key has its `kid`.
    Kid,
    /// The signature is not that of any key that fits.
    Signature,
}

/// What to do about a token whose key is not in the set.
pub(crate) enum RefetchOutcome {
    Pending(Fetching),
    /// The set has changed meanwhile: verify the token again.
    Retry,
    /// Nothing is fetched. The error is that of the last fetch, if it failed: it is then unknown
    /// whether the issuer has this key.
    Rejected(Option<Arc<FetchError>>),
}

#[cfg(test)]
mod tests;
