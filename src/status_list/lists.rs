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
use tokio::time::{Instant, timeout_at};
use url::{Origin, Url};

use super::StatusLists;
use super::list::{MAX_JWT, NotAList, StatusList};
use super::reference::Reference;
use crate::clock::{Clock, Now, nanos};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::http_client::{HttpClients, Purpose};
use crate::issuer::Issuer;
use crate::issuer::active::{ActiveIssuer, SignatureCheck};
use crate::keys::remote::fetch::{Document, Fetched, Http, Validators, redacted};
use crate::keys::remote::limits::{FetchClass, OriginLimit};
use crate::keys::remote::schedule::{ABANDON_AFTER, Budget, Decision, KeyPolicy, Schedule};
use crate::keys::remote::{AddressPolicy, Fetching, jitter};
use crate::keys::url::{PlainHttp, secure_url};
use crate::telemetry::{self, IssuerName, LogThrottle};
use crate::token::jws::Jws;
use crate::token::token_type;

/// Maximum number of lists of one issuer.
const MAX_LISTS: usize = 64;

/// Maximum memory of the lists of one issuer, in bytes: four of the largest. Lists of eight million
/// tokens with 2 bits take 2 MB each.
const MAX_BYTES: usize = 64 * 1024 * 1024;

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
    plain_http: PlainHttp,
    fetches: Fetches,
    slots: Mutex<HashMap<Box<str>, Arc<Slot>>>,
    /// Of tokens with one list too many.
    full: LogThrottle,
}

/// How all lists of an issuer are fetched.
#[derive(Clone)]
struct Fetches {
    issuer: IssuerName,
    client: Client,
    addresses: AddressPolicy,
    clock: Clock,
    policy: KeyPolicy,
    leeway: Duration,
}

/// One list.
struct Slot {
    uri: Box<str>,
    url: Url,
    issuer: Weak<ActiveIssuer>,
    fetches: Fetches,
    limit_at_origin: OriginLimit,
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
    uri: Box<str>,
    url: Url,
    index: u32,
}

impl ActiveStatusLists {
    pub(crate) fn new(
        config: &Issuer,
        issuer: &IssuerName,
        addresses: AddressPolicy,
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
        if !config.needs_keys() {
            return Err(ConfigError::new(format!(
                "status lists of issuer {:?}: expected an issuer with keys, found one that is asked about every token",
                config.iss
            )));
        }
        let client = clients.get(config.client.as_ref(), addresses, Purpose::Keys)?;
        let StatusLists { max_stale, .. } = *lists;
        let policy = KeyPolicy { max_stale, ..config.key_policy.clone() };
        let (issuer, clock, leeway) = (issuer.clone(), clock.clone(), config.leeway);
        let fetches = Fetches { issuer, client, addresses, clock, policy, leeway };
        let (slots, full) = (Mutex::default(), LogThrottle::default());
        Ok(Some(Self { origins, plain_http: config.plain_http, fetches, slots, full }))
    }

    /// Reads where the status of a token is. The payload is unverified: it can only cause a
    /// rejection.
    pub(crate) fn reference(
        &self,
        payload: &[u8],
    ) -> Result<Option<CheckedReference>, InvalidToken> {
        let Some(Reference { uri, index }) = Reference::read(payload)? else { return Ok(None) };
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
        Ok(Some(CheckedReference { uri: uri.into(), url, index }))
    }

    /// The status of a token that was verified. Fetches nothing.
    pub(crate) fn status(
        &self,
        reference: CheckedReference,
        issuer: &Arc<ActiveIssuer>,
    ) -> Result<TokenStatus, Error> {
        let CheckedReference { uri, url, index } = reference;
        let now = self.fetches.clock.now();
        let mut slots = self.slots();
        if let Some(slot) = slots.get(&uri) {
            return Ok(TokenStatus { slot: Arc::clone(slot), index });
        }
        if slots.len() >= MAX_LISTS {
            let oldest = slots.values().min_by_key(|slot| slot.used_at.load(Ordering::Relaxed));
            let unused_since = nanos(now.uptime.saturating_sub(UNUSED_FOR));
            let oldest = oldest
                .filter(|slot| slot.used_at.load(Ordering::Relaxed) < unused_since)
                .map(Arc::clone);
            let Some(oldest) = oldest else {
                drop(slots);
                if let Some(suppressed) = self.full.admit(now.uptime) {
                    telemetry::status_lists_full(&self.fetches.issuer, suppressed);
                }
                return Err(Error::RevocationsUnavailable);
            };
            slots.remove(&oldest.uri);
            oldest.retire();
        }
        let slot = Arc::new(Slot::new(uri.clone(), url, issuer, self.fetches.clone(), now));
        slots.insert(uri, Arc::clone(&slot));
        Ok(TokenStatus { slot, index })
    }

    /// Drops all lists. The next token that names one starts a fetch.
    pub(crate) fn forget(&self) {
        for (_, slot) in self.slots().drain() {
            slot.retire();
        }
    }

    /// Whether there is memory for this list, in place of the one of `slot`.
    fn has_room(&self, slot: &Slot, list: &StatusList) -> bool {
        let others = self.slots();
        let others = others.values().filter(|other| !std::ptr::eq(&***other, slot));
        let taken =
            others.map(|other| other.current.load().as_ref().map_or(0, |list| list.bytes()));
        taken.sum::<usize>() + list.bytes() <= MAX_BYTES
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let Slot { uri, url, .. } = &*self.slot;
        let reference = CheckedReference { uri: uri.clone(), url: url.clone(), index: self.index };
        issuer.status(Some(reference)).ok()?
    }
}

impl Slot {
    fn new(
        uri: Box<str>,
        url: Url,
        issuer: &Arc<ActiveIssuer>,
        fetches: Fetches,
        now: Now,
    ) -> Self {
        Self {
            limit_at_origin: OriginLimit::at(&url),
            uri,
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
            }),
            fetches,
        }
    }

    fn record_use(&self, now: Now) {
        let now = nanos(now.uptime);
        let last = self.used_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= nanos(USE_RECORDED_EVERY) {
            self.used_at.store(now, Ordering::Relaxed);
        }
    }

    fn status_in(&self, list: &StatusList, index: u32, now: Now) -> StatusCheck {
        let has_expired = |until: Duration| now.unix >= until.saturating_add(self.fetches.leeway);
        if list.expires_at.is_some_and(has_expired) {
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
                validators: state.validators.clone(),
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

    /// Drops the list for good, and discards the result of a fetch in progress.
    fn retire(&self) {
        let mut state = self.lock();
        self.is_retired.store(true, Ordering::Relaxed);
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
    fn finish(&self, number: u64, answer: Result<Download, FetchError>, took: Duration) {
        let now = self.fetches.clock.now();
        let mut state = self.lock();
        if state.fetch != number {
            return;
        }
        state.under_way = None;
        let issuer = &self.fetches.issuer;
        match answer {
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
}

/// How long a list is used without asking for a newer one: its `ttl`, else what its server says,
/// else five minutes; and not past its end.
fn lifetime(list: &StatusList, hint: Option<Duration>, now: Now) -> Duration {
    let by_server = hint.map_or(LIFETIME, |hint| hint.clamp(SHORTEST, LIFETIME));
    let lifetime = list.ttl.map_or(by_server, |ttl| ttl.clamp(SHORTEST, LONGEST));
    let left = list.expires_at.map(|until| until.saturating_sub(now.unix));
    left.map_or(lifetime, |left| lifetime.min(left.max(SHORTEST_BEFORE_END)))
}

/// The result of a fetch.
struct Download {
    /// `None`: the cached list has not changed.
    list: Option<Arc<StatusList>>,
    validators: Validators,
    /// The lifetime that the server gives.
    hint: Option<Duration>,
}

/// A fetch in a task of its own. However it ends (with a result, a panic, or a shutdown of its
/// runtime), the state is updated first, and then the requests that wait are woken.
struct FetchTask {
    slot: Arc<Slot>,
    issuer: Arc<ActiveIssuer>,
    number: u64,
    validators: Validators,
    /// Whether the last fetch failed.
    has_failed: bool,
    answer: Option<Result<Download, FetchError>>,
    since: Instant,
    _ended: watch::Sender<()>,
}

impl FetchTask {
    async fn run(mut self) {
        let answer = self.fetch().await;
        self.answer = Some(answer);
    }

    async fn fetch(&self) -> Result<Download, FetchError> {
        let Fetches { client, addresses, policy, .. } = &self.slot.fetches;
        let (limit, end) = (policy.timeout, self.since + policy.timeout);
        // The token that names the list was verified, so its issuer is established.
        let class = if self.has_failed { FetchClass::Failing } else { FetchClass::Established };
        let Ok(permit) = timeout_at(end, self.slot.limit_at_origin.take(class)).await else {
            return Err(FetchError::ConcurrencyLimit { limit });
        };
        let http = Http { client, addresses: *addresses, hedge_after: limit / 2 };
        let download = async {
            let fetched = http.get_document(&self.slot.url, &self.validators, DOCUMENT).await?;
            // The keys that verify the list may have to be fetched.
            drop(permit);
            match fetched {
                Fetched::NotModified { lifetime } => {
                    let validators = self.validators.clone();
                    Ok(Download { list: None, validators, hint: lifetime })
                }
                Fetched::Document { body, validators, lifetime } => {
                    let list = Some(Arc::new(self.read(body).await?));
                    Ok(Download { list, validators, hint: lifetime })
                }
            }
        };
        timeout_at(end, download).await.unwrap_or(Err(FetchError::Timeout { limit }))
    }

    async fn read(&self, body: Vec<u8>) -> Result<StatusList, FetchError> {
        let payload = self.verified(body).await?;
        let uri = self.slot.uri.clone();
        // Unpacking a large list takes as long as a thousand requests.
        let list = tokio::task::spawn_blocking(move || StatusList::read(&payload, &uri)).await;
        let list = list.map_err(|_| FetchError::Interrupted)?;
        let list = list.map_err(|NotAList(expected)| self.invalid(expected))?;
        let (now, leeway) = (self.slot.fetches.clock.now(), self.slot.fetches.leeway);
        if list.issued_at > now.unix.saturating_add(leeway) {
            return Err(self.invalid("a status list that was not issued in the future"));
        }
        if list.expires_at.is_some_and(|until| now.unix >= until.saturating_add(leeway)) {
            return Err(self.invalid("a status list that has not expired"));
        }
        let lists = self.issuer.status_lists.as_ref();
        if lists.is_some_and(|lists| !lists.has_room(&self.slot, &list)) {
            return Err(FetchError::TooLarge { url: self.url(), limit: MAX_BYTES });
        }
        Ok(list)
    }

    /// Verifies the signature of a list with the keys of the issuer, and returns its payload.
    async fn verified(&self, body: Vec<u8>) -> Result<String, FetchError> {
        const A_JWT: &str = "a status list that is a JWT of type `statuslist+jwt`";
        let text = String::from_utf8(body).map_err(|_| self.invalid(A_JWT))?;
        let malformed = |_: InvalidToken| self.invalid(A_JWT);
        let jws = Jws::split_within(text.trim_ascii(), MAX_JWT).map_err(malformed)?;
        jws.check_unpadded().map_err(malformed)?;
        let header = jws.header().map_err(malformed)?;
        if !header.typ.as_deref().is_some_and(|typ| token_type::is(typ, "statuslist+jwt")) {
            return Err(self.invalid(A_JWT));
        }
        let forged = |_: InvalidToken| self.invalid("a status list that the issuer has signed");
        self.issuer.check_algorithm(&header).map_err(forged)?;
        let mut waits = 0;
        loop {
            let now = self.slot.fetches.clock.now();
            match self.issuer.verify_signature(&jws, &header, None, waits, now) {
                Ok(SignatureCheck::Ready(payload, _)) => {
                    let payload = std::str::from_utf8(payload.bytes());
                    return payload.map(str::to_owned).map_err(|_| self.invalid(A_JWT));
                }
                Ok(SignatureCheck::Pending(fetching)) => {
                    fetching.finished().await;
                    waits += 1;
                }
                Err(Error::KeysUnavailable { reason, .. }) => return Err(reason),
                Err(Error::InvalidToken(error)) => return Err(forged(error)),
                Err(_) => return Err(FetchError::Interrupted),
            }
        }
    }

    fn invalid(&self, expected: &'static str) -> FetchError {
        FetchError::InvalidDocument { url: self.url(), expected }
    }

    fn url(&self) -> String {
        redacted(&self.slot.url)
    }
}

/// What a list is requested as, and how much of it is read.
const DOCUMENT: Document = Document { accept: "application/statuslist+jwt", max_bytes: MAX_JWT };

impl Drop for FetchTask {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or(Err(FetchError::Interrupted));
        self.slot.finish(self.number, answer, self.since.elapsed());
    }
}
