//! Issuers that an application's lookup resolves, and what is cached of its answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Issuer;
use super::active::{ActiveIssuer, Origin};
use super::issuers::{BoxError, Lookup, LookupFn};
use super::permits::Permits;
use super::registry::{Resolution, ResolvedIssuer};
use super::single_flight::SingleFlight;
use crate::clock::{Clock, Now, nanos};
use crate::error::{ConfigError, Error, InvalidToken};
use crate::telemetry::{self, Throttle};

/// Strangers remembered, and for how long: what a token can name is bounded, and a tenant that signs up is not kept out.
const MAX_NEGATIVE: u64 = 1024;
const NEGATIVE_FOR: Duration = Duration::from_secs(30);

/// Longest `iss` that is looked up, in bytes. It is kept, whatever it is.
const MAX_ISS_BYTES: usize = 2048;

/// How long an answer may take. As a fetch: the longest that a request can be asked to wait.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// From which part of its time on an answer is asked for again, in the background; and how long after that the next time.
const REFRESH_AT: f64 = 0.8;
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long an answer holds on while the look-up fails. A tenant that was removed meanwhile is trusted for so long, so it is
/// bounded, as keys past their lifetime are.
const MAX_STALE: Duration = Duration::from_secs(3600);

/// Look-ups of names that are not kept, at once.
const MAX_LOOKUPS: usize = 64;

/// Bounds of [`refresh_after`](crate::Issuers::refresh_after).
const SHORTEST_FRESH: Duration = Duration::from_secs(1);
const LONGEST_FRESH: Duration = Duration::from_secs(24 * 3600);

pub(super) struct ResolvedIssuers {
    lookup: Lookup,
    client: Client,
    clock: Clock,
    /// By every name that was asked for. Those of whom a token was verified, and apart from them the others: whoever names
    /// thousands of tenants in unsigned tokens pushes nobody's keys out but of those that nobody uses.
    established: Cache<Arc<str>, Arc<CachedIssuer>>,
    probation: Cache<Arc<str>, Arc<CachedIssuer>>,
    /// Since when each is known to be none of ours, in uptime.
    negative: Cache<String, Duration>,
    /// Held while any of the three changes, so that no two changes of one name mix. A look-up's end is rare.
    changing: Mutex<()>,
    /// Lookups in progress, shared by all who ask for the same issuer.
    under_way: Arc<SingleFlight<Result<Arc<CachedIssuer>, Error>>>,
    /// For names that are not kept, so that tokens which anyone can write do not delay the renewal of those that are.
    permits: Arc<Permits>,
    /// How often something was forgotten: an answer from before that is not one any more.
    generation: AtomicU64,
    failures: Throttle,
    unusable: Throttle,
    fetches: Arc<Throttle>,
}

/// What a look-up said of one name.
pub(crate) struct CachedIssuer {
    name: Arc<str>,
    pub(super) issuer: Arc<ActiveIssuer>,
    /// When it said so; until when that holds; and from when on it is asked again in the background. Uptime, the latter two in
    /// nanoseconds.
    at: Duration,
    holds_until: AtomicU64,
    refresh_from: AtomicU64,
    /// Whether a token with this name was ever verified.
    established: AtomicBool,
    /// How often something had been forgotten when the lookup was called.
    generation: u64,
}

impl CachedIssuer {
    fn holds(&self, now: Duration) -> bool {
        nanos(now) < self.holds_until.load(Ordering::Relaxed)
    }

    /// Whether it is to be asked again now, in the background; `true` once, and then not for a while.
    fn try_claim_refresh(&self, now: Duration) -> bool {
        let from = self.refresh_from.load(Ordering::Relaxed);
        let later = nanos(now + RETRY_AFTER);
        nanos(now) >= from
            && self
                .refresh_from
                .compare_exchange(from, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    pub(super) fn is_established(&self) -> bool {
        self.established.load(Ordering::Relaxed)
    }
}

impl ResolvedIssuers {
    /// `guarded` is the client for issuers that may not be at private addresses.
    pub(super) fn new(
        lookup: Lookup,
        client: impl Fn() -> Result<Client, ConfigError>,
        guarded: impl FnOnce() -> Result<Client, ConfigError>,
        clock: Clock,
    ) -> Result<Arc<Self>, ConfigError> {
        if lookup.capacity == 0 {
            return Err(ConfigError::new("max_cached: expected at least 1 issuer, 0 came"));
        }
        if lookup.fresh < SHORTEST_FRESH || lookup.fresh > LONGEST_FRESH {
            let came = lookup.fresh;
            return Err(ConfigError::new(format!("refresh_after {came:?}: expected 1s to 24h")));
        }
        let client = if lookup.private_addresses { client()? } else { guarded()? };
        // Least recently used, since an admission by frequency would keep turning a new tenant away.
        let kept = || {
            let kept = Cache::builder().max_capacity(lookup.capacity).time_to_idle(lookup.idle);
            kept.eviction_policy(EvictionPolicy::lru()).build()
        };
        let negative = Cache::builder().max_capacity(MAX_NEGATIVE);
        Ok(Arc::new(Self {
            established: kept(),
            probation: kept(),
            lookup,
            client,
            clock,
            negative: negative.eviction_policy(EvictionPolicy::lru()).build(),
            changing: Mutex::default(),
            under_way: Arc::default(),
            permits: Permits::new(MAX_LOOKUPS),
            generation: AtomicU64::new(0),
            failures: Throttle::default(),
            unusable: Throttle::default(),
            fetches: Arc::default(),
        }))
    }

    /// All that are kept, those that are idle or over the limit aside.
    pub(super) fn all(&self) -> Vec<Arc<ActiveIssuer>> {
        let caches = [&self.established, &self.probation]
            .into_iter()
            .inspect(|kept| kept.run_pending_tasks());
        caches.flat_map(|kept| kept.iter().map(|(_, kept)| Arc::clone(&kept.issuer))).collect()
    }

    pub(super) fn kept(&self, name: &str) -> Option<Arc<CachedIssuer>> {
        self.established.get(name).or_else(|| self.probation.get(name))
    }

    pub(super) fn find(self: &Arc<Self>, iss: &str, now: Now) -> Result<Resolution, Error> {
        if let Some(kept) = self.kept(iss).filter(|kept| kept.holds(now.uptime)) {
            self.refresh_ahead(&kept, now.uptime);
            return Ok(Resolution::Ready(ResolvedIssuer::looked_up(kept)));
        }
        if self.is_negative(iss, now.uptime) {
            return Err(unknown(iss).into());
        }
        match &self.lookup.ask {
            LookupFn::Sync(ask) => {
                let answer = |this| {
                    let generation = self.generation();
                    match ask(iss) {
                        Ok(found) => self.keep(iss, found, generation, this),
                        Err(error) => Some(self.after_failure(iss, error)),
                    }
                };
                let answer = answer(Try::First).or_else(|| answer(Try::Last));
                answer
                    .unwrap_or_else(|| Err(unknown(iss).into()))
                    .map(ResolvedIssuer::looked_up)
                    .map(Resolution::Ready)
            }
            LookupFn::Async(_) => {
                Ok(Resolution::Pending(Box::pin(Arc::clone(self).resolve_once(iss.to_owned()))))
            }
        }
    }

    /// Has the look-up asked again before its answer does not hold any more, so that no request waits for it.
    fn refresh_ahead(self: &Arc<Self>, kept: &CachedIssuer, now: Duration) {
        if matches!(self.lookup.ask, LookupFn::Async(_))
            && kept.try_claim_refresh(now)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(Arc::clone(self).resolve_once(kept.name.to_string()));
        }
    }

    fn is_negative(&self, iss: &str, now: Duration) -> bool {
        self.negative.get(iss).is_some_and(|since| now < since + NEGATIVE_FOR)
    }

    /// Resolves `iss`, or shares the answer that another request is waiting for: within [`LOOKUP_TIMEOUT`], the wait for a permit
    /// and for that other request included. A request that is dropped leaves the lookup to the next one.
    async fn resolve_once(self: Arc<Self>, iss: String) -> Result<ResolvedIssuer, Error> {
        let answer = async {
            // Each request waits for a permit of its own, and only then for another's answer: one that joins an older request
            // would wait in that one's place, which a flood of other names buries.
            let _permit = match self.kept(&iss) {
                Some(_) => None,
                None => Some(self.permits.acquire().await),
            };
            let now = self.clock.now().uptime;
            if _permit.is_some() {
                if let Some(kept) = self.kept(&iss).filter(|kept| kept.holds(now)) {
                    return Ok(kept);
                }
                if self.is_negative(&iss, now) {
                    return Err(unknown(&iss).into());
                }
            }
            let flight = self.under_way.join(iss.clone());
            flight.result(|| self.ask(&iss)).await
        };
        let answer = match timeout(LOOKUP_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => self.after_failure(&iss, no_answer()),
        };
        answer.map(ResolvedIssuer::looked_up)
    }

    /// Calls the lookup; once more if something was forgotten meanwhile, because then the answer may be from before that.
    async fn ask(&self, iss: &str) -> Result<Arc<CachedIssuer>, Error> {
        let LookupFn::Async(ask) = &self.lookup.ask else { return Err(unknown(iss).into()) };
        let mut tries = [Try::First, Try::Last].into_iter();
        loop {
            let generation = self.generation();
            let answer = timeout(LOOKUP_TIMEOUT, ask(iss.to_owned())).await;
            let found = match answer {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return self.after_failure(iss, error),
                Err(_) => return self.after_failure(iss, no_answer()),
            };
            let this = tries.next().unwrap_or(Try::Last);
            if let Some(answer) = self.keep(iss, found, generation, this) {
                return answer;
            }
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Drops what is kept of the issuer with this name, by all its names. Whether there was anything.
    pub(super) fn forget(&self, iss: &str) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Requests that come from now on share no answer with those that came before.
        self.under_way.detach();
        let caches = [&self.established, &self.probation];
        let has_name = |kept: &CachedIssuer| {
            *kept.name == *iss || kept.issuer.config.names().any(|name| **name == *iss)
        };
        let entries = || caches.into_iter().flat_map(|cache| cache.iter().map(|(_, kept)| kept));
        let issuers: Vec<_> =
            entries().filter(|kept| has_name(kept)).map(|kept| Arc::clone(&kept.issuer)).collect();
        let is_one =
            |kept: &CachedIssuer| issuers.iter().any(|issuer| Arc::ptr_eq(issuer, &kept.issuer));
        let mut names = vec![Arc::from(iss)];
        names.extend(entries().filter(|kept| is_one(kept)).map(|kept| Arc::clone(&kept.name)));
        names.extend(issuers.iter().flat_map(|issuer| issuer.config.names().cloned()));
        let mut was_negative = false;
        for name in &names {
            caches.into_iter().for_each(|cache| cache.invalidate(&**name));
            was_negative |= self.negative.remove(&**name).is_some();
        }
        issuers.iter().for_each(|issuer| issuer.forget_keys());
        was_negative || !issuers.is_empty()
    }

    /// Takes what a look-up said of `iss`: under this name, and no other. An issuer that has not changed keeps its keys; if
    /// it is kept by another of its names, both share them.
    ///
    /// `generation`: when it was asked. If something was forgotten since, the answer is not kept: `None` the first time, and the
    /// last time an answer for the requests that wait for it.
    fn keep(
        &self,
        iss: &str,
        found: Option<Issuer>,
        generation: u64,
        this: Try,
    ) -> Option<Result<Arc<CachedIssuer>, Error>> {
        let at = self.clock.now().uptime;
        let config = match found {
            Some(config) if config.names().any(|name| **name == *iss) => Some(config),
            Some(other) => {
                let error = ConfigError::new(
                    "expected the issuer that was asked for, or one that has it as an alias",
                );
                self.report_unusable(&other.iss, &error, at);
                None
            }
            None => None,
        };
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = self.generation() == generation;
        if !is_current && this == Try::First {
            return None;
        }
        let issuer = config.and_then(|config| self.trusted(iss, config, at));
        let Some(issuer) = issuer else {
            self.established.invalidate(iss);
            self.probation.invalidate(iss);
            if is_current {
                self.negative.insert(iss.to_owned(), at);
            }
            return Some(Err(unknown(iss).into()));
        };
        let established = self.kept(iss).is_some_and(|kept| kept.is_established());
        let kept = Arc::new(CachedIssuer {
            name: iss.into(),
            issuer,
            at,
            holds_until: nanos(at + self.lookup.fresh).into(),
            refresh_from: nanos(at + self.lookup.fresh.mul_f64(REFRESH_AT)).into(),
            established: established.into(),
            generation,
        });
        let cache = if established { &self.established } else { &self.probation };
        if is_current {
            cache.insert(Arc::clone(&kept.name), Arc::clone(&kept));
        }
        Some(Ok(kept))
    }

    /// The issuer with this configuration: one that is kept, with its keys, or a new one. `None` if it cannot work.
    fn trusted(&self, iss: &str, config: Issuer, at: Duration) -> Option<Arc<ActiveIssuer>> {
        let same = std::iter::once(iss)
            .chain(config.names().map(|name| &**name))
            .filter_map(|name| self.kept(name))
            .find(|kept| kept.issuer.config.is_unchanged_from(&config));
        if let Some(same) = same {
            return Some(Arc::clone(&same.issuer));
        }
        let name = Arc::clone(&config.iss);
        let private_addresses = self.lookup.private_addresses;
        let origin = Origin::LookedUp { private_addresses, throttle: Arc::clone(&self.fetches) };
        match ActiveIssuer::new(config, origin, || Ok(self.client.clone()), &self.clock) {
            Ok(issuer) => Some(Arc::new(issuer)),
            Err(error) => {
                self.report_unusable(&name, &error, at);
                None
            }
        }
    }

    /// The look-up failed. That is no news about the token, so never a 401; and who was trusted a moment ago still is.
    fn after_failure(&self, iss: &str, error: BoxError) -> Result<Arc<CachedIssuer>, Error> {
        let now = self.clock.now().uptime;
        telemetry::lookup_failure_counted();
        if let Some(suppressed) = self.failures.turn(now) {
            telemetry::lookup_failed(&*error, suppressed);
        }
        match self.kept(iss) {
            Some(kept) if now < kept.at + self.lookup.fresh + MAX_STALE => {
                // Until the next answer, or the next failure, has come.
                let until = (now + RETRY_AFTER + LOOKUP_TIMEOUT)
                    .min(kept.at + self.lookup.fresh + MAX_STALE);
                kept.holds_until.fetch_max(nanos(until), Ordering::Relaxed);
                kept.refresh_from.store(nanos(now + RETRY_AFTER), Ordering::Relaxed);
                Ok(kept)
            }
            _ => Err(Error::LookupFailed { reason: error.into() }),
        }
    }

    fn report_unusable(&self, iss: &str, error: &ConfigError, now: Duration) {
        if let Some(suppressed) = self.unusable.turn(now) {
            telemetry::lookup_unusable(iss, error, suppressed);
        }
    }

    /// A first token with this name was verified. Not if the look-up has said something else meanwhile.
    pub(super) fn promote(&self, kept: &Arc<CachedIssuer>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().uptime;
        let is_current = match self.kept(&kept.name) {
            Some(current) => Arc::ptr_eq(&current, kept),
            // Pushed out by many others before its keys were there.
            None => {
                kept.generation == self.generation()
                    && kept.holds(now)
                    && !self.is_negative(&kept.name, now)
            }
        };
        if is_current {
            kept.established.store(true, Ordering::Relaxed);
            self.established.insert(Arc::clone(&kept.name), Arc::clone(kept));
            self.probation.invalidate(&kept.name);
        }
    }
}

/// Whether a look-up may be asked for it: no issuer can be configured with white space around it, and no database likes a
/// NUL. Whatever it is, it is kept for a while.
pub(super) fn is_plausible(iss: &str) -> bool {
    !iss.is_empty()
        && iss.len() <= MAX_ISS_BYTES
        && iss.trim() == iss
        && !iss.chars().any(char::is_control)
}

/// Whether the lookup may be called again.
#[derive(Clone, Copy, PartialEq)]
enum Try {
    First,
    Last,
}

fn no_answer() -> BoxError {
    format!("no answer within {LOOKUP_TIMEOUT:?}").into()
}

fn unknown(iss: &str) -> InvalidToken {
    InvalidToken::UnknownIssuer { presented: iss.to_owned(), similar: None }
}
