//! Issuers that the application's lookup resolves, and the cache of its answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Issuer;
use super::active::{ActiveIssuer, Provenance};
use super::fapi2::VerifierSettings;
use super::issuers::{Lookup, LookupFn};
use super::resolution::{CachedIssuer, RETRY_AFTER, Resolution, ResolvedIssuer};
use crate::clock::{Clock, Now, nanos};
use crate::error::{BoxError, ConfigError, Error, InvalidToken};
use crate::http_client::{HttpClients, Purpose};
use crate::permits::Permits;
use crate::single_flight::SingleFlight;
#[cfg(feature = "status-list")]
use crate::status_list::budget::ResolvedBudget;
use crate::telemetry::{self, LogThrottle};

/// Size and lifetime of the negative cache. The size bounds the memory that forged `iss` values can
/// take; the lifetime is short, so that a new tenant is not locked out for long.
const MAX_NEGATIVE: u64 = 1024;
const NEGATIVE_FOR: Duration = Duration::from_secs(30);

/// Maximum length, in bytes, of an `iss` that is looked up. Each one is cached, whatever the
/// answer.
const MAX_ISS_BYTES: usize = 2048;

/// Time limit of one lookup. As for a fetch, the longest time that a request can be made to wait.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The fraction of an answer's lifetime after which it is refreshed in the background.
const REFRESH_AT: f64 = 0.8;

/// How long an answer stays valid past its lifetime while the lookup fails. It is bounded, like the
/// use of keys past their lifetime: a tenant that is removed during the outage stays trusted for
/// this long.
const MAX_STALE: Duration = Duration::from_secs(3600);

/// Maximum number of concurrent lookups of uncached names.
const MAX_LOOKUPS: usize = 64;

/// Bounds of [`refresh_after`](crate::Issuers::refresh_after). No answer ends sooner than the
/// shortest, unless its issuer is forgotten.
const SHORTEST_FRESH: Duration = Duration::from_secs(1);
const LONGEST_FRESH: Duration = Duration::from_secs(24 * 3600);

pub(super) struct ResolvedIssuers {
    lookup: Lookup,
    /// The issuer of API keys. A tenant with this name could issue tokens that look like them.
    reserved: Option<Arc<str>>,
    clients: Arc<HttpClients>,
    clock: Clock,
    settings: VerifierSettings,
    /// Issuers with a verified token, by every name that was looked up.
    established: Cache<Arc<str>, Arc<CachedIssuer>>,
    /// Issuers without a verified token. They have a cache of their own, so that forged `iss`
    /// values cannot evict the keys of tenants in use.
    probation: Cache<Arc<str>, Arc<CachedIssuer>>,
    /// Untrusted names, with the uptime when the lookup returned `None`.
    negative: Cache<String, Duration>,
    /// Held while any of the three caches changes, so that changes of one name do not interleave.
    /// Rarely contended: it is taken when a lookup ends.
    changing: Mutex<()>,
    /// Lookups in progress, each shared by all requests for the same name.
    under_way: Arc<SingleFlight<Result<Arc<CachedIssuer>, Error>>>,
    /// Permits for lookups of uncached names, so that forged `iss` values cannot delay refreshes of
    /// cached ones.
    permits: Arc<Permits>,
    /// Number of calls of `forget`: an answer of an earlier generation is outdated.
    generation: AtomicU64,
    failures: LogThrottle,
    unusable: LogThrottle,
    fetches: Arc<LogThrottle>,
    #[cfg(feature = "status-list")]
    status_lists: Arc<ResolvedBudget>,
}

impl ResolvedIssuers {
    pub(super) fn new(
        lookup: Lookup,
        reserved: Option<Arc<str>>,
        clients: Arc<HttpClients>,
        clock: Clock,
        settings: VerifierSettings,
    ) -> Result<Arc<Self>, ConfigError> {
        if lookup.capacity == 0 {
            return Err(ConfigError::new("max_cached: expected at least 1 issuer, found 0"));
        }
        if lookup.fresh < SHORTEST_FRESH || lookup.fresh > LONGEST_FRESH {
            let given = lookup.fresh;
            return Err(ConfigError::new(format!("refresh_after {given:?}: expected 1s to 24h")));
        }
        // Created now, so that no request waits for it, and an error ends the start.
        clients.get(None, lookup.addresses, Purpose::Keys)?;
        // LRU: an admission policy by frequency would keep rejecting a new tenant.
        let cached = || {
            let cached = Cache::builder().max_capacity(lookup.capacity).time_to_idle(lookup.idle);
            cached.eviction_policy(EvictionPolicy::lru()).build()
        };
        let negative = Cache::builder().max_capacity(MAX_NEGATIVE);
        Ok(Arc::new(Self {
            established: cached(),
            probation: cached(),
            lookup,
            reserved,
            clients,
            clock,
            settings,
            negative: negative.eviction_policy(EvictionPolicy::lru()).build(),
            changing: Mutex::default(),
            under_way: Arc::default(),
            permits: Permits::new(MAX_LOOKUPS),
            generation: AtomicU64::new(0),
            failures: LogThrottle::default(),
            unusable: LogThrottle::default(),
            fetches: Arc::default(),
            #[cfg(feature = "status-list")]
            status_lists: Arc::default(),
        }))
    }

    /// All cached issuers, except those that are idle or over the limit.
    pub(super) fn all(&self) -> Vec<Arc<ActiveIssuer>> {
        let caches = [&self.established, &self.probation]
            .into_iter()
            .inspect(|cached| cached.run_pending_tasks());
        caches
            .flat_map(|cached| cached.iter().map(|(_, cached)| Arc::clone(&cached.issuer)))
            .collect()
    }

    pub(super) fn cached(&self, name: &str) -> Option<Arc<CachedIssuer>> {
        self.established.get(name).or_else(|| self.probation.get(name))
    }

    pub(super) fn find(self: &Arc<Self>, iss: &str, now: Now) -> Result<Resolution, Error> {
        if let Some(cached) = self.cached(iss).filter(|cached| cached.holds(now.uptime)) {
            self.refresh_ahead(&cached, now.uptime);
            return Ok(Resolution::Ready(ResolvedIssuer::from_cache(cached)));
        }
        if self.is_negative(iss, now.uptime) {
            return Err(unknown(iss).into());
        }
        match &self.lookup.call {
            LookupFn::Sync(call) => {
                let answer = |this| {
                    let generation = self.generation();
                    match call(iss) {
                        Ok(found) => self.store(iss, found, generation, this),
                        Err(error) => Some(self.after_failure(iss, error)),
                    }
                };
                let answer = answer(Try::First).or_else(|| answer(Try::Last));
                answer
                    .unwrap_or_else(|| Err(unknown(iss).into()))
                    .map(ResolvedIssuer::from_cache)
                    .map(Resolution::Ready)
            }
            LookupFn::Async(_) => {
                Ok(Resolution::Pending(Box::pin(Arc::clone(self).resolve_once(iss.to_owned()))))
            }
        }
    }

    /// Calls the lookup in the background before its answer expires, so that no request has to
    /// wait.
    fn refresh_ahead(self: &Arc<Self>, cached: &CachedIssuer, now: Duration) {
        if matches!(self.lookup.call, LookupFn::Async(_))
            && cached.try_claim_refresh(now)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(Arc::clone(self).resolve_once(cached.name.to_string()));
        }
    }

    fn is_negative(&self, iss: &str, now: Duration) -> bool {
        self.negative.get(iss).is_some_and(|since| now < since + NEGATIVE_FOR)
    }

    /// Resolves `iss`, or shares the answer that another request is waiting for. [`LOOKUP_TIMEOUT`]
    /// includes the wait for a permit and for the other request. If the request is dropped, the
    /// next one continues with the lookup.
    async fn resolve_once(self: Arc<Self>, iss: String) -> Result<ResolvedIssuer, Error> {
        let answer = async {
            // Each request acquires its own permit before it joins a lookup in progress. If it
            // joined an older request that still waits for a permit, a flood of other names could
            // overtake both.
            let _permit = match self.cached(&iss) {
                Some(_) => None,
                None => self.permits.acquire().await,
            };
            let now = self.clock.now().uptime;
            if _permit.is_some() {
                if let Some(cached) = self.cached(&iss).filter(|cached| cached.holds(now)) {
                    return Ok(cached);
                }
                if self.is_negative(&iss, now) {
                    return Err(unknown(&iss).into());
                }
            }
            let flight = self.under_way.join(iss.clone());
            flight.result(|| self.call(&iss)).await
        };
        let answer = match timeout(LOOKUP_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => self.after_failure(&iss, no_answer()),
        };
        answer.map(ResolvedIssuer::from_cache)
    }

    /// Calls the lookup. Calls it again if `forget` was called meanwhile, because the answer may be
    /// outdated.
    async fn call(&self, iss: &str) -> Result<Arc<CachedIssuer>, Error> {
        let LookupFn::Async(call) = &self.lookup.call else { return Err(unknown(iss).into()) };
        let mut tries = [Try::First, Try::Last].into_iter();
        loop {
            let generation = self.generation();
            let answer = timeout(LOOKUP_TIMEOUT, call(iss.to_owned())).await;
            let found = match answer {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return self.after_failure(iss, error),
                Err(_) => return self.after_failure(iss, no_answer()),
            };
            let this = tries.next().unwrap_or(Try::Last);
            if let Some(answer) = self.store(iss, found, generation, this) {
                return answer;
            }
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Drops everything cached about the issuer with this name, under all its names. Returns
    /// whether there was anything to drop.
    pub(super) fn forget(&self, iss: &str) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Later requests must not share the answer of an earlier request.
        self.under_way.detach();
        let caches = [&self.established, &self.probation];
        let has_name = |cached: &CachedIssuer| {
            *cached.name == *iss || cached.issuer.config.names().any(|name| **name == *iss)
        };
        let entries =
            || caches.into_iter().flat_map(|cache| cache.iter().map(|(_, cached)| cached));
        let issuers: Vec<_> = entries()
            .filter(|cached| has_name(cached))
            .map(|cached| Arc::clone(&cached.issuer))
            .collect();
        let is_one = |cached: &CachedIssuer| {
            issuers.iter().any(|issuer| Arc::ptr_eq(issuer, &cached.issuer))
        };
        let mut names = vec![Arc::from(iss)];
        names.extend(
            entries().filter(|cached| is_one(cached)).map(|cached| Arc::clone(&cached.name)),
        );
        names.extend(issuers.iter().flat_map(|issuer| issuer.config.names().cloned()));
        let mut was_negative = false;
        for name in &names {
            caches.into_iter().for_each(|cache| cache.invalidate(&**name));
            was_negative |= self.negative.remove(&**name).is_some();
        }
        issuers.iter().for_each(|issuer| issuer.forget_fetched());
        was_negative || !issuers.is_empty()
    }

    /// Caches the lookup's answer for `iss`, under this name only. An issuer whose configuration
    /// has not changed keeps its keys; if it is cached under another of its names, both share them.
    ///
    /// `generation` is that of the call. If `forget` was called since, the answer is not cached:
    /// the first try returns `None`, and the last try returns the answer to the waiting requests.
    fn store(
        &self,
        iss: &str,
        found: Option<Issuer>,
        generation: u64,
        this: Try,
    ) -> Option<Result<Arc<CachedIssuer>, Error>> {
        let at = self.clock.now().uptime;
        let config = found.and_then(|config| match self.check_names(iss, &config) {
            Ok(()) => Some(config),
            Err(error) => {
                self.report_unusable(&config.iss, &error, at);
                None
            }
        });
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
        let established = self.cached(iss).is_some_and(|cached| cached.is_established());
        let cached = Arc::new(CachedIssuer {
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
            cache.insert(Arc::clone(&cached.name), Arc::clone(&cached));
            self.end_answers_without(iss, &cached.issuer.config, at);
        }
        Some(Ok(cached))
    }

    /// Ends the answers for other names of an issuer that do not have the name `iss`: the next
    /// token with one of them calls the lookup. Otherwise, a revocation under `iss` would not
    /// concern their tokens.
    ///
    /// An answer that has the name stays, even if its settings differ. A lookup that always returns
    /// other settings for another name would otherwise be called all the time. Answers may also
    /// lack names in a circle, by mistake or in the records of an attacker. So none ends before it
    /// is a second old, and forged tokens cause at most one call per name and second.
    fn end_answers_without(&self, iss: &str, config: &Issuer, at: Duration) {
        for other in config.names().filter_map(|name| self.cached(name)) {
            if !other.issuer.config.names().any(|name| **name == *iss) {
                let ends = at.max(other.at + SHORTEST_FRESH);
                other.holds_until.fetch_min(nanos(ends), Ordering::Relaxed);
            }
        }
    }

    fn check_names(&self, iss: &str, config: &Issuer) -> Result<(), ConfigError> {
        if !config.names().any(|name| **name == *iss) {
            return Err(ConfigError::new(
                "expected an issuer with the `iss` that was looked up, as its name or an alias",
            ));
        }
        if config.names().any(|name| Some(name) == self.reserved.as_ref()) {
            return Err(ConfigError::new("expected a name that is not that of the API keys"));
        }
        Ok(())
    }

    /// The issuer with this configuration: a cached one with its keys, or a new one. Returns `None`
    /// if the configuration is invalid.
    fn trusted(&self, iss: &str, mut config: Issuer, at: Duration) -> Option<Arc<ActiveIssuer>> {
        // It would bring withdrawn keys back each time that the issuer is evicted or forgotten.
        config.seed = None;
        let same = std::iter::once(iss)
            .chain(config.names().map(|name| &**name))
            .filter_map(|name| self.cached(name))
            .find(|cached| cached.issuer.config.is_unchanged_from(&config));
        if let Some(same) = same {
            return Some(Arc::clone(&same.issuer));
        }
        let name = Arc::clone(&config.iss);
        let addresses = self.lookup.addresses;
        let provenance = Provenance::Resolved {
            addresses,
            throttle: Arc::clone(&self.fetches),
            #[cfg(feature = "status-list")]
            status_lists: Arc::clone(&self.status_lists),
        };
        let active = config
            .check_fapi2(&self.settings)
            .and_then(|()| ActiveIssuer::new(config, provenance, &self.clients, &self.clock));
        match active {
            Ok(issuer) => Some(Arc::new(issuer)),
            Err(error) => {
                self.report_unusable(&name, &error, at);
                None
            }
        }
    }

    /// Handles a failed lookup. It says nothing about the token, so the response is 503, not 401. A
    /// cached answer stays valid for up to [`MAX_STALE`].
    fn after_failure(&self, iss: &str, error: BoxError) -> Result<Arc<CachedIssuer>, Error> {
        let now = self.clock.now().uptime;
        telemetry::lookup_failure_counted();
        if let Some(suppressed) = self.failures.admit(now) {
            telemetry::lookup_failed(&*error, suppressed);
        }
        match self.cached(iss) {
            Some(cached) if now < cached.at + self.lookup.fresh + MAX_STALE => {
                // Valid until the next answer or the next failure.
                let until = (now + RETRY_AFTER + LOOKUP_TIMEOUT)
                    .min(cached.at + self.lookup.fresh + MAX_STALE);
                cached.holds_until.fetch_max(nanos(until), Ordering::Relaxed);
                cached.refresh_from.store(nanos(now + RETRY_AFTER), Ordering::Relaxed);
                Ok(cached)
            }
            _ => Err(Error::LookupFailed { reason: error.into() }),
        }
    }

    fn report_unusable(&self, iss: &str, error: &ConfigError, now: Duration) {
        if let Some(suppressed) = self.unusable.admit(now) {
            telemetry::lookup_unusable(iss, error, suppressed);
        }
    }

    /// Marks the issuer as established after its first verified token, unless the lookup has
    /// returned a different answer meanwhile.
    pub(super) fn promote(&self, cached: &Arc<CachedIssuer>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().uptime;
        let is_current = match self.cached(&cached.name) {
            Some(current) => Arc::ptr_eq(&current, cached),
            // Evicted by many others before its keys were fetched.
            None => {
                cached.generation == self.generation()
                    && cached.holds(now)
                    && !self.is_negative(&cached.name, now)
            }
        };
        if is_current {
            cached.established.store(true, Ordering::Relaxed);
            self.established.insert(Arc::clone(&cached.name), Arc::clone(cached));
            self.probation.invalidate(&cached.name);
        }
    }
}

/// Whether the lookup may be called with this `iss`. Configured issuers have no surrounding
/// whitespace, and databases reject NUL. The length is bounded because every name that is looked up
/// is cached for a while.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Fips;
    use crate::issuer::issuers::Issuers;

    const ISS: &str = "https://issuer.example/";

    fn issuers() -> Arc<ResolvedIssuers> {
        let issuers = Issuers::lookup(|iss| Issuer::new(iss, "https://api.example.com").ok());
        let clients = Arc::new(HttpClients::new(None, Fips::NotRequired));
        let settings = VerifierSettings {
            proof_algorithms: None,
            has_certificates: false,
            has_revocations: false,
        };
        let (lookup, clock) = (issuers.lookup.unwrap(), Clock::default());
        ResolvedIssuers::new(lookup, None, clients, clock, settings).unwrap()
    }

    /// Each case changes one thing between the eviction of an issuer and its first verified token.
    #[test]
    fn an_evicted_issuer_is_established_if_its_answer_still_counts() {
        type Change = fn(&ResolvedIssuers, &CachedIssuer);
        let cases: [(&str, Change, bool); 4] = [
            ("nothing", |_, _| (), true),
            ("it is forgotten", |issuers, _| assert!(!issuers.forget(ISS)), false),
            ("its answer ends", |_, cached| cached.holds_until.store(0, Ordering::Relaxed), false),
            (
                "it is no longer trusted",
                |issuers, _| issuers.negative.insert(ISS.to_owned(), issuers.clock.now().uptime),
                false,
            ),
        ];
        for (name, change, expected) in cases {
            let issuers = issuers();
            let found = issuers.find(ISS, issuers.clock.now());
            let Ok(Resolution::Ready(found)) = found else { panic!("{name}: not found") };
            let cached = found.cached.unwrap();
            issuers.probation.invalidate(ISS);
            change(&issuers, &cached);
            issuers.promote(&cached);
            assert_eq!(issuers.established.contains_key(ISS), expected, "{name}");
        }
    }
}
