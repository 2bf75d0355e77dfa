//! API keys that the application's lookup returns, and the cache of its answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::timeout;

use super::active::{KnownKey, TokenMaker};
use super::keys::LookupFn;
use crate::clock::Now;
use crate::error::{BoxError, ConfigError, Error};
use crate::permits::Permits;
use crate::single_flight::SingleFlight;
use crate::telemetry::{self, LogThrottle};

/// How long it is remembered that there is no such key, and how many. A client can make up
/// identifiers with a valid checksum.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
const MAX_UNKNOWN: u64 = 1000;

const MAX_KNOWN: u64 = 10_000;

/// Time limit of one lookup, including the wait for a permit: the longest that a request waits.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of concurrent requests with identifiers that are not cached, and of requests that
/// wait behind them. As for issuers, a request that joins the call of another one also counts.
const MAX_LOOKUPS: usize = 64;
const MAX_WAITING: usize = 1024;

type Found = Option<Arc<KnownKey>>;

/// The keys of a lookup.
pub(super) struct LookedUpKeys {
    call: Arc<LookupFn>,
    lifetime: Duration,
    maker: Arc<TokenMaker>,
    /// Known keys, and the uptime until which the answer is used.
    known: Cache<String, (Duration, Arc<KnownKey>)>,
    unknown: Cache<String, Duration>,
    under_way: Arc<SingleFlight<Result<Found, Error>>>,
    permits: Arc<Permits>,
    /// Number of calls of `forget`: an answer to a call before it is not cached. Held while the
    /// caches change, so that a change and `forget` do not interleave.
    generation: Mutex<u64>,
    failures: LogThrottle,
    unusable: LogThrottle,
}

impl LookedUpKeys {
    pub(super) fn new(call: Arc<LookupFn>, lifetime: Duration, maker: Arc<TokenMaker>) -> Self {
        Self {
            call,
            lifetime,
            maker,
            known: Cache::builder()
                .max_capacity(MAX_KNOWN)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            unknown: Cache::builder()
                .max_capacity(MAX_UNKNOWN)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            under_way: Arc::default(),
            permits: Permits::with_queue(MAX_LOOKUPS, MAX_WAITING),
            generation: Mutex::new(0),
            failures: LogThrottle::default(),
            unusable: LogThrottle::default(),
        }
    }

    /// The answer of an earlier lookup.
    pub(super) fn cached(&self, id: &str, now: Now) -> Option<Found> {
        if let Some((until, known)) = self.known.get(id) {
            return (now.uptime < until).then_some(Some(known));
        }
        self.unknown.get(id).filter(|until| now.uptime < *until).map(|_| None)
    }

    /// Looks a key up, or shares the lookup of another request.
    pub(super) async fn find(self: Arc<Self>, id: String) -> Result<Found, Error> {
        let answer = async {
            // A key in use does not wait behind identifiers that a client made up.
            let is_known = self.known.contains_key(&id);
            let _permit = if is_known {
                None
            } else {
                let waiting = self.permits.acquire().await;
                Some(waiting.ok_or_else(|| {
                    self.failed(format!("more than {MAX_WAITING} requests wait").into())
                })?)
            };
            if let Some(found) = self.cached(&id, self.maker.clock.now()) {
                return Ok(found);
            }
            let flight = self.under_way.join(id.clone());
            flight.result(|| self.call(&id)).await
        };
        match timeout(LOOKUP_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(format!("no answer within {LOOKUP_TIMEOUT:?}").into())),
        }
    }

    async fn call(&self, id: &str) -> Result<Found, Error> {
        let generation = *self.generation();
        let found = (self.call)(id.to_owned()).await.map_err(|error| self.failed(error))?;
        let found = found.filter(|key| {
            let is_wanted = key.hashes().any(|hash| hash.id() == id);
            if !is_wanted {
                self.report_other();
            }
            is_wanted
        });
        let known = match found {
            None => None,
            Some(key) => {
                let known = self.maker.known(&key).find_map(|known| match known {
                    Ok((own, known)) => (own == id).then_some(Ok(known)),
                    Err(error) => Some(Err(error)),
                });
                known.transpose().map_err(|error| self.failed(error.into()))?.map(Arc::new)
            }
        };
        let now = self.maker.clock.now().uptime;
        let current = self.generation();
        if generation == *current {
            match &known {
                Some(known) => {
                    let until = now + self.lifetime;
                    self.unknown.invalidate(id);
                    self.known.insert(id.to_owned(), (until, Arc::clone(known)));
                }
                None => {
                    self.known.invalidate(id);
                    self.unknown.insert(id.to_owned(), now + UNKNOWN_FOR);
                }
            }
        }
        Ok(known)
    }

    fn generation(&self) -> MutexGuard<'_, u64> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record of another key answers that there is no such key, as in a database that ignores the
    /// case: the client's mistake must not look like a failure.
    fn report_other(&self) {
        if let Some(suppressed) = self.unusable.admit(self.maker.clock.now().uptime) {
            let error = ConfigError::new("expected the API key that was looked up");
            telemetry::lookup_unusable(&self.maker.iss, &error, suppressed);
        }
    }

    /// A failed lookup says nothing about the key: 503, not 401.
    fn failed(&self, error: BoxError) -> Error {
        telemetry::lookup_failure_counted();
        if let Some(suppressed) = self.failures.admit(self.maker.clock.now().uptime) {
            telemetry::lookup_failed(&*error, suppressed);
        }
        Error::LookupFailed { reason: error.into() }
    }

    /// Returns whether anything was cached.
    pub(super) fn forget(&self, id: &str) -> bool {
        let mut generation = self.generation();
        *generation += 1;
        // Later requests must not share the answer of an earlier request.
        self.under_way.detach();
        let was_known = self.known.remove(id).is_some();
        self.unknown.remove(id).is_some() || was_known
    }
}
