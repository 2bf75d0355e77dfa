//! The status lists of one issuer at run time: fetched once for all requests that wait, refreshed
//! before they end, and read on each request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use url::{Origin, Url};

use super::StatusLists;
use super::budget::{Account, NoRoom, ResolvedBudget, Usage};
use super::fetch::{Download, FetchTask, ResolvedLimit};
use super::list::StatusList;
use super::reference::Reference;
use crate::clock::{Clock, Now, nanos};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::StatusListHealth;
use crate::http_client::{HttpClients, Purpose};
use crate::introspection::{Introspection, JwtPolicy};
use crate::issuer::Issuer;
use crate::issuer::active::ActiveIssuer;
use crate::keys::remote::fetch::{Validators, redacted};
use crate::keys::remote::limits::OriginLimit;
use crate::keys::remote::schedule::{ABANDON_AFTER, Budget, Decision, KeyPolicy, Schedule};
use crate::keys::remote::{AddressPolicy, Fetching, jitter};
use crate::keys::url::{PlainHttp, secure_url};
use crate::telemetry::{self, IssuerName, LogThrottle};

/// How long a list must have been unused before another one takes its place. Otherwise, the tokens
/// of one list too many would fetch a list with each request.
const UNUSED_FOR: Duration = Duration::from_secs(300);

/// How exactly the last use of a list is recorded. A write on each request would take the cache
/// line from the other processors.
const USE_RECORDED_EVERY: Duration = Duration::from_secs(30);

/// How long a list is cached if it has no `ttl`, and bounds of the `ttl` that it has.
const LIFETIME: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Shortest lifetime of a list that is about to expire.
const SHORTEST_BEFORE_END: Duration = Duration::from_secs(1);

/// The lists of one issuer.
pub(crate) struct ActiveStatusLists {
    /// Where lists may be.
    origins: Vec<Origin>,
    /// Whether each token must name a list.
    is_required: bool,
    plain_http: PlainHttp,
    fetches: Fetches,
    slots: Mutex<HashMap<Place, Arc<Slot>>>,
    /// Of tokens with one list too many.
    full: LogThrottle,
}

/// How all lists of an issuer are fetched, and what they take.
#[derive(Clone)]
pub(super) struct Fetches {
    issuer: IssuerName,
    pub(super) client: Client,
    pub(super) addresses: AddressPolicy,
    pub(super) clock: Clock,
    pub(super) policy: KeyPolicy,
    pub(super) leeway: Duration,
    pub(super) resolved_limit: ResolvedLimit,
    account: Arc<Account>,
    counters: Arc<Counters>,
}

/// Counts since the start, for [`StatusListHealth`].
#[derive(Default)]
struct Counters {
    fetches: AtomicU64,
    failed: AtomicU64,
    /// The error of the last fetch, if it failed.
    last_error: Mutex<Option<FetchError>>,
}

/// The list that a token names.
#[derive(Clone, Eq, Hash, PartialEq)]
struct Place {
    uri: Box<str>,
    /// For an issuer with many tenants, whose keys may each sign for one of them only.
    tenant: Option<Box<str>>,
}

/// One list.
pub(super) struct Slot {
    place: Place,
    pub(super) url: Url,
    issuer: Weak<ActiveIssuer>,
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
    /// How to revalidate the cached list.
    validators: Validators,
    /// The memory of the cached list, as it is counted.
    bytes: usize,
}

/// Where the status of a verified token is.
pub(crate) struct TokenStatus {
    slot: Arc<Slot>,
    index: u32,
}

/// What is known about the status of a token.
pub(crate) enum StatusCheck {
    Valid,
    Rejected(InvalidToken),
    /// Wait for this fetch.
    Pending(Fetching),
    Unavailable,
}

/// The place of a token's status, at an allowed URL.
pub(crate) struct CheckedReference {
    place: Place,
    url: Url,
    index: u32,
}

impl ActiveStatusLists {
    pub(crate) fn new(
        config: &Issuer,
        issuer: &IssuerName,
        addresses: AddressPolicy,
        of_resolved: Option<Arc<ResolvedBudget>>,
        clients: &HttpClients,
        clock: &Clock,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(lists) = &config.status_lists else { return Ok(None) };
        let own = config.names().filter_map(|iss| Url::parse(iss).ok()).map(|url| url.origin());
        let origins: Vec<_> =
            own.filter(Origin::is_tuple).chain(lists.origins.iter().cloned()).collect();
        if origins.is_empty() {
            return Err(ConfigError::new(format!(
                "status lists of issuer {:?}: expected `StatusLists::allow_origin`, since the issuer is not a URL",
                config.iss
            )));
        }
        let is_asked = |introspection: &Introspection| introspection.jwts == JwtPolicy::Ask;
        if config.introspection.as_ref().is_some_and(is_asked) {
            return Err(ConfigError::new(format!(
                "status lists of issuer {:?}: expected JWTs that are verified, found `Introspection::instead_of_keys`, by which the issuer is asked about every token",
                config.iss
            )));
        }
        let client = clients.get(config.client.as_ref(), addresses, Purpose::Keys)?;
        let StatusLists { is_required, max_stale, .. } = *lists;
        let policy = KeyPolicy { max_stale, ..config.key_policy.clone() };
        let (issuer, clock, leeway) = (issuer.clone(), clock.clone(), config.leeway);
        let resolved_limit = match of_resolved {
            Some(_) => ResolvedLimit::new(),
            None => ResolvedLimit::none(),
        };
        let (account, counters) = (Arc::new(Account::new(of_resolved)), Arc::default());
        let fetches = Fetches {
            issuer,
            client,
            addresses,
            clock,
            policy,
            leeway,
            resolved_limit,
            account,
            counters,
        };
        let (slots, full) = (Mutex::default(), LogThrottle::default());
        Ok(Some(Self { origins, is_required, plain_http: config.plain_http, fetches, slots, full }))
    }

    /// Reads where the status of a token is. The payload is unverified: it can only cause a
    /// rejection. `tenant`: that of the token, for an issuer that has many.
    pub(crate) fn reference(
        &self,
        payload: &[u8],
        tenant: Option<&str>,
    ) -> Result<Option<CheckedReference>, InvalidToken> {
        let Some(Reference { uri, index }) = Reference::read(payload)? else {
            return if self.is_required {
                Err(InvalidToken::MissingClaim("status.status_list"))
            } else {
                Ok(None)
            };
        };
        let expected = |expected: &str| InvalidToken::ClaimValue {
            claim: "status".to_owned(),
            expected: expected.to_owned(),
        };
        let url = secure_url("status list", &uri, self.plain_http)
            .map_err(|_| expected("the https URL of a status list"))?;
        if !self.origins.contains(&url.origin()) {
            return Err(expected(
                "a status list at the issuer's origin, or at one that `StatusLists::allow_origin` names",
            ));
        }
        let place = Place { uri: uri.into(), tenant: tenant.map(Box::from) };
        Ok(Some(CheckedReference { place, url, index }))
    }

    /// The status of a token that was verified. Fetches nothing.
    pub(crate) fn status(
        &self,
        reference: CheckedReference,
        issuer: &Arc<ActiveIssuer>,
    ) -> Result<TokenStatus, Error> {
        let CheckedReference { place, url, index } = reference;
        let now = self.fetches.clock.now();
        let mut slots = self.slots();
        if let Some(slot) = slots.get(&place) {
            return Ok(TokenStatus { slot: Arc::clone(slot), index });
        }
        let account = &self.fetches.account;
        let added = account.add_list().or_else(|no_room| {
            if drop_unused(&mut slots, now) { account.add_list() } else { Err(no_room) }
        });
        if let Err(NoRoom(expected)) = added {
            drop(slots);
            if let Some(suppressed) = self.full.admit(now.uptime) {
                telemetry::status_lists_full(&self.fetches.issuer, expected, suppressed);
            }
            return Err(Error::RevocationsUnavailable);
        }
        let slot = Arc::new(Slot::new(place.clone(), url, issuer, self.fetches.clone(), now));
        slots.insert(place, Arc::clone(&slot));
        Ok(TokenStatus { slot, index })
    }

    /// Drops all lists. The next token that names one starts a fetch.
    pub(crate) fn forget(&self) {
        for (_, slot) in self.slots().drain() {
            slot.retire();
        }
    }

    pub(crate) fn health(&self) -> StatusListHealth {
        let Fetches { account, counters, .. } = &self.fetches;
        let Usage { lists, bytes } = account.usage();
        let last_error = counters.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        StatusListHealth {
            lists,
            bytes,
            fetches: counters.fetches.load(Ordering::Relaxed),
            failed_fetches: counters.failed.load(Ordering::Relaxed),
            last_error: last_error.clone(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Place, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveStatusLists {
    /// Tokens of an issuer that was evicted may be kept for long, and with them its lists.
    fn drop(&mut self) {
        self.forget();
    }
}

/// Drops the list that has not been used for the longest time, unless that is too short. Returns
/// whether a list was dropped.
fn drop_unused(slots: &mut HashMap<Place, Arc<Slot>>, now: Now) -> bool {
    let used_at = |slot: &Arc<Slot>| slot.used_at.load(Ordering::Relaxed);
    let unused_since = nanos(now.uptime.saturating_sub(UNUSED_FOR));
    let oldest = slots.iter().min_by_key(|(_, slot)| used_at(slot));
    let oldest = oldest.filter(|(_, slot)| used_at(slot) < unused_since);
    let Some(place) = oldest.map(|(place, _)| place.clone()) else { return false };
    slots.remove(&place).inspect(|slot| slot.retire()).is_some()
}

impl TokenStatus {
    /// Whether the status can be looked up: not if the list was dropped, so that the token must be
    /// verified again.
    pub(crate) fn is_kept(&self) -> bool {
        !self.slot.is_retired.load(Ordering::Relaxed)
    }

    /// Looks up the status. Starts a fetch if one is due.
    pub(crate) fn check(&self, now: Now) -> StatusCheck {
        let slot = &self.slot;
        slot.record_use(now);
        if nanos(now.uptime) < slot.next_decision.load(Ordering::Acquire)
            && let Some(list) = &*slot.current.load()
        {
            return slot.status_in(list, self.index, now);
        }
        slot.decide(self.index, now)
    }

    /// Waits until the status is not valid. A list that is not available revokes nothing.
    pub(crate) async fn until_revoked(&self) {
        // While the stream is open, its issuer may be evicted by others. Its lists are then still
        // fetched.
        let _issuer = self.slot.issuer.upgrade();
        let mut current = Self { slot: Arc::clone(&self.slot), index: self.index };
        let clock = &self.slot.fetches.clock;
        loop {
            if let Some(renewed) = current.renewed() {
                current = renewed;
            }
            let mut check = current.check(clock.now());
            if let StatusCheck::Pending(fetching) = check {
                fetching.finished().await;
                check = current.check(clock.now());
            }
            if matches!(check, StatusCheck::Rejected(_)) {
                return;
            }
            tokio::time::sleep(SHORTEST).await;
        }
    }

    /// The same place, if the list was dropped.
    fn renewed(&self) -> Option<Self> {
        if self.is_kept() {
            return None;
        }
        let issuer = self.slot.issuer.upgrade()?;
        let Slot { place, url, .. } = &*self.slot;
        let (place, url, index) = (place.clone(), url.clone(), self.index);
        let reference = CheckedReference { place, url, index };
        issuer.status(Some(reference)).ok()?
    }
}

impl Slot {
    fn new(place: Place, url: Url, issuer: &Arc<ActiveIssuer>, fetches: Fetches, now: Now) -> Self {
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
                validators: Validators::default(),
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
                validators: self.validators(&state, now),
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
    fn validators(&self, state: &State, now: Now) -> Validators {
        let has_expired = |list: &StatusList| list.has_expired(self.fetches.leeway, now);
        if self.current.load().as_deref().is_some_and(has_expired) {
            return Validators::default();
        }
        state.validators.clone()
    }

    /// Drops the list for good, and discards the result of a fetch in progress.
    fn retire(&self) {
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
            Ok(Download { list, validators, hint }) => {
                let has_changed = list.is_some();
                let list = list.or_else(|| self.current.load_full());
                let lifetime = list.as_ref().map_or(SHORTEST, |list| lifetime(list, hint, now));
                state.schedule.succeeded(lifetime, jitter(), now.uptime);
                state.validators = validators;
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
