//! One status list: fetched once for all requests that wait, refreshed before it ends, and read on
//! each request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::budget::{Account, NoRoom};
use super::fetch::{Download, FetchTask, ResolvedLimit};
use super::list::StatusList;
use crate::clock::{Clock, Now, nanos};
use crate::error::{FetchError, InvalidToken};
use crate::issuer::active::ActiveIssuer;
use crate::keys::jwks::Jwks;
use crate::keys::remote::fetch::{Validators, redacted};
use crate::keys::remote::limits::OriginLimit;
use crate::keys::remote::schedule::{ABANDON_AFTER, Budget, Decision, KeyPolicy, Schedule};
use crate::keys::remote::{AddressPolicy, Fetching, jitter};
use crate::telemetry::{self, IssuerName};

/// How exactly the last use of a list is recorded. A write on each request would take the cache
/// line from the other processors.
const USE_RECORDED_EVERY: Duration = Duration::from_secs(30);

/// How long a list is cached if it has no `ttl`, and bounds of the `ttl` that it has.
const LIFETIME: Duration = Duration::from_secs(300);
pub(super) const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Shortest lifetime of a list that is about to expire.
const SHORTEST_BEFORE_END: Duration = Duration::from_secs(1);

/// How all lists of an issuer are fetched, and what they take.
#[derive(Clone)]
pub(super) struct Fetches {
    pub(super) issuer: IssuerName,
    pub(super) client: Client,
    pub(super) addresses: AddressPolicy,
    pub(super) clock: Clock,
    pub(super) policy: KeyPolicy,
    pub(super) leeway: Duration,
    pub(super) resolved_limit: ResolvedLimit,
    pub(super) account: Arc<Account>,
    pub(super) counters: Arc<Counters>,
}

/// Counts since the start, for [`StatusListHealth`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) fetches: AtomicU64,
    pub(super) failed: AtomicU64,
    /// The error of the last fetch, if it failed.
    pub(super) last_error: Mutex<Option<FetchError>>,
}

/// The list that a token names.
#[derive(Clone, Eq, Hash, PartialEq)]
pub(super) struct Place {
    pub(super) uri: Box<str>,
    /// For an issuer with many tenants, whose keys may each sign for one of them only.
    pub(super) tenant: Option<Box<str>>,
}

/// One list.
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) url: Url,
    pub(super) issuer: Weak<ActiveIssuer>,
    pub(super) fetches: Fetches,
    pub(super) limit_at_origin: OriginLimit,
    current: ArcSwapOption<StatusList>,
    /// [`Schedule::next_decision`], in nanoseconds of uptime. Before that time, the lock is not
    /// needed.
    next_decision: AtomicU64,
    /// About when it was last used, in nanoseconds of uptime.
    used_at: AtomicU64,
    /// Whether another list has taken its place, or its issuer was forgotten.
    is_retired: AtomicBool,
    state: Mutex<State>,
}

struct State {
    schedule: Schedule,
    /// Number of the latest fetch. The result of an earlier one is discarded.
    fetch: u64,
    /// Closed when the fetch in progress has ended.
    under_way: Option<watch::Receiver<()>>,
    revalidation: Revalidation,
    /// The memory of the cached list, as it is counted.
    bytes: usize,
}

/// How to revalidate the cached list.
#[derive(Clone, Default)]
pub(super) struct Revalidation {
    pub(super) validators: Validators,
    /// The keys that verified it, if they can change.
    pub(super) keys: Option<Weak<Jwks>>,
}

/// What is known about the status of a token.
pub(crate) enum StatusCheck {
    Valid,
    Rejected(InvalidToken),
    /// Wait for this fetch.
    Pending(Fetching),
    Unavailable,
}

impl Slot {
    pub(super) fn new(
        place: Place,
        url: Url,
        issuer: &Arc<ActiveIssuer>,
        fetches: Fetches,
        now: Now,
    ) -> Self {
        Self {
            limit_at_origin: OriginLimit::at(&url),
            place,
            url,
            issuer: Arc::downgrade(issuer),
            current: ArcSwapOption::empty(),
            next_decision: AtomicU64::new(0),
            used_at: nanos(now.uptime).into(),
            is_retired: AtomicBool::new(false),
            state: Mutex::new(State {
                schedule: Schedule::new(fetches.policy.clone(), Budget::KEY_SET),
                fetch: 0,
                under_way: None,
                revalidation: Revalidation::default(),
                bytes: 0,
            }),
            fetches,
        }
    }

    /// Where the list is, as tokens spell it.
    pub(super) fn uri(&self) -> &str {
        &self.place.uri
    }

    pub(super) fn tenant(&self) -> Option<&str> {
        self.place.tenant.as_deref()
    }

    /// Whether another list has taken its place, or its issuer was forgotten.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// The uptime at about which it was last used.
    pub(super) fn used_at(&self) -> Duration {
        Duration::from_nanos(self.used_at.load(Ordering::Relaxed))
    }

    /// Looks up a status. Starts a fetch if one is due.
    pub(super) fn check(self: &Arc<Self>, index: u32, now: Now) -> StatusCheck {
        self.record_use(now);
        if nanos(now.uptime) < self.next_decision.load(Ordering::Acquire)
            && let Some(list) = &*self.current.load()
        {
            return self.status_in(list, index, now);
        }
        self.decide(index, now)
    }

    fn record_use(&self, now: Now) {
        let now = nanos(now.uptime);
        let last = self.used_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= nanos(USE_RECORDED_EVERY) {
            self.used_at.store(now, Ordering::Relaxed);
        }
    }

    fn status_in(&self, list: &StatusList, index: u32, now: Now) -> StatusCheck {
        if list.has_expired(self.fetches.leeway, now) {
            return StatusCheck::Unavailable;
        }
        match list.get(index) {
            Some(0) => StatusCheck::Valid,
            Some(_) => StatusCheck::Rejected(InvalidToken::Revoked),
            None => StatusCheck::Rejected(InvalidToken::ClaimValue {
                claim: "status".to_owned(),
                expected: "an index within the status list".to_owned(),
            }),
        }
    }

    #[cold]
    fn decide(self: &Arc<Self>, index: u32, now: Now) -> StatusCheck {
        let Some(issuer) = self.issuer.upgrade() else { return StatusCheck::Unavailable };
        let Ok(runtime) = Handle::try_current() else {
            // Nothing can be fetched here. The cached list is used for as long as it may be.
            let is_usable = self.lock().schedule.is_usable(now.uptime);
            return match &*self.current.load() {
                Some(list) if is_usable => self.status_in(list, index, now),
                _ => StatusCheck::Unavailable,
            };
        };
        let mut state = self.lock();
        if self.is_retired.load(Ordering::Relaxed) {
            return StatusCheck::Unavailable;
        }
        let decision = state.schedule.request(now.uptime);
        let limit = self.fetches.policy.timeout + ABANDON_AFTER;
        let mut task = None;
        if matches!(decision, Decision::Fetch | Decision::ServeAndFetch) {
            let (ended, under_way) = watch::channel(());
            state.fetch += 1;
            state.under_way = Some(under_way);
            self.publish_next_decision(&state);
            task = Some(FetchTask {
                slot: Arc::clone(self),
                issuer,
                number: state.fetch,
                revalidation: self.revalidation(&state, now),
                has_failed: state.schedule.has_failed(),
                answer: None,
                since: Instant::now(),
                _ended: ended,
            });
        }
        let ended = state.under_way.clone();
        drop(state);
        // Not under the lock: a runtime that is shutting down drops the task at once, and its
        // `drop` takes the lock.
        if let Some(task) = task {
            runtime.spawn(task.run());
        }
        match (decision, ended, &*self.current.load()) {
            (Decision::Fetch | Decision::Join, Some(ended), _) => {
                StatusCheck::Pending(Fetching::new(ended, limit))
            }
            (Decision::Serve | Decision::ServeAndFetch, _, Some(list)) => {
                self.status_in(list, index, now)
            }
            _ => StatusCheck::Unavailable,
        }
    }

    /// How to revalidate the cached list. A list that has expired must be sent again, even if its
    /// server says that it has not changed.
    fn revalidation(&self, state: &State, now: Now) -> Revalidation {
        let has_expired = |list: &StatusList| list.has_expired(self.fetches.leeway, now);
        if self.current.load().as_deref().is_some_and(has_expired) {
            return Revalidation::default();
        }
        state.revalidation.clone()
    }

    /// Drops the list for good, and discards the result of a fetch in progress.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        if self.is_retired.swap(true, Ordering::Relaxed) {
            return;
        }
        self.fetches.account.remove_list(std::mem::take(&mut state.bytes));
        state.fetch += 1;
        state.under_way = None;
        self.next_decision.store(0, Ordering::Release);
        self.current.store(None);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_next_decision(&self, state: &State) {
        self.next_decision.store(nanos(state.schedule.next_decision()), Ordering::Release);
    }

    /// Stores the result of fetch `number`. Only a valid list replaces the cached one.
    pub(super) fn finish(&self, number: u64, answer: Result<Download, FetchError>, took: Duration) {
        let now = self.fetches.clock.now();
        let Fetches { issuer, counters, .. } = &self.fetches;
        let mut state = self.lock();
        if state.fetch != number {
            return;
        }
        state.under_way = None;
        let stored = answer.and_then(|download| {
            if let Some(list) = &download.list {
                self.admit(&mut state, list)?;
            }
            Ok(download)
        });
        counters.record(stored.as_ref().err());
        match stored {
            Ok(Download { list, revalidation, hint }) => {
                let has_changed = list.is_some();
                let list = list.or_else(|| self.current.load_full());
                let lifetime = list.as_ref().map_or(SHORTEST, |list| lifetime(list, hint, now));
                state.schedule.succeeded(lifetime, jitter(), now.uptime);
                state.revalidation = revalidation;
                self.current.store(list);
                self.publish_next_decision(&state);
                drop(state);
                // Not under the lock, because logging may be slow.
                telemetry::status_list_fetched(issuer, has_changed, lifetime, took, now);
            }
            Err(error) => {
                state.schedule.failed(jitter(), now.uptime);
                self.publish_next_decision(&state);
                let retry_after = state.schedule.retry_after(now.uptime);
                drop(state);
                telemetry::status_list_failed(issuer, &error, retry_after, took, now);
            }
        }
    }

    /// Whether this list may replace the cached one. An older one may be a replay, by which a
    /// revoked token would be accepted again.
    fn admit(&self, state: &mut State, list: &StatusList) -> Result<(), FetchError> {
        let url = || redacted(&self.url);
        let newest = self.current.load().as_ref().map(|cached| cached.issued_at);
        if let Some(newest) = newest.filter(|newest| list.issued_at < *newest) {
            let (cached, presented) = (newest.as_secs(), list.issued_at.as_secs());
            return Err(FetchError::OlderStatusList { url: url(), cached, presented });
        }
        let resized = self.fetches.account.resize(state.bytes, list.bytes());
        resized.map_err(|NoRoom(expected)| FetchError::InvalidDocument { url: url(), expected })?;
        state.bytes = list.bytes();
        Ok(())
    }
}

impl Counters {
    fn record(&self, error: Option<&FetchError>) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(error.is_some()), Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error.cloned();
    }
}

/// How long a list is used without asking for a newer one: its `ttl`, else what its server says,
/// else five minutes; and not past its end.
fn lifetime(list: &StatusList, hint: Option<Duration>, now: Now) -> Duration {
    let by_server = hint.map_or(LIFETIME, |hint| hint.clamp(SHORTEST, LIFETIME));
    let lifetime = list.ttl.map_or(by_server, |ttl| ttl.clamp(SHORTEST, LONGEST));
    let left = list.expires_at.map(|until| until.saturating_sub(now.unix));
    left.map_or(lifetime, |left| lifetime.min(left.max(SHORTEST_BEFORE_END)))
}
