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
use super::active::{Origin, TrustedIssuer};
use super::issuers::{Ask, Lookup};
use super::permits::Permits;
use super::registry::{Found, Known};
use super::single_flight::SingleFlight;
use crate::clock::{Clock, Now, nanos};
use crate::error::{ConfigError, Error, InvalidToken};
use crate::telemetry::{self, Throttle};

/// Strangers remembered, and for how long: what a token can name is bounded, and a tenant that signs up is not kept out.
const MAX_STRANGERS: u64 = 1024;
const STRANGER_FOR: Duration = Duration::from_secs(30);

/// Longest `iss` that is looked up, in bytes. It is kept, whatever it is.
const MAX_ISS_BYTES: usize = 2048;

/// How long an answer may take. As a fetch: the longest that a request can be asked to wait.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// From which part of its time on an answer is asked for again, in the background; and how long after that the next time.
const ASK_AHEAD_AT: f64 = 0.8;
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long an answer holds on while the look-up fails. A tenant that was removed meanwhile is trusted for so long, so it is
/// bounded, as keys past their lifetime are.
const MAX_STALE: Duration = Duration::from_secs(3600);

/// Look-ups of names that are not kept, at once.
const MAX_LOOKUPS: usize = 64;

/// Bounds of [`look_up_again_after`](crate::Issuers::look_up_again_after).
const SHORTEST_FRESH: Duration = Duration::from_secs(1);
const LONGEST_FRESH: Duration = Duration::from_secs(24 * 3600);

pub(super) struct LookedUpIssuers {
    lookup: Lookup,
    client: Client,
    clock: Clock,
    /// By every name that was asked for. Those of whom a token was verified, and apart from them the others: whoever names
    /// thousands of tenants in unsigned tokens pushes nobody's keys out but of those that nobody uses.
    proven: Cache<Arc<str>, Arc<Kept>>,
    unproven: Cache<Arc<str>, Arc<Kept>>,
    /// Since when each is known to be none of ours, in uptime.
    strangers: Cache<String, Duration>,
    /// Held while any of the three changes, so that no two changes of one name mix. A look-up's end is rare.
    changing: Mutex<()>,
    /// Lookups in progress, shared by all who ask for the same issuer.
    under_way: Arc<SingleFlight<Result<Arc<Kept>, Error>>>,
    /// For names that are not kept, so that tokens which anyone can write do not delay the renewal of those that are.
    permits: Arc<Permits>,
    /// How often something was forgotten: an answer from before that is not one any more.
    forgotten: AtomicU64,
    failures: Throttle,
    unusable: Throttle,
    fetches: Arc<Throttle>,
}

/// What a look-up said of one name.
pub(crate) struct Kept {
    name: Arc<str>,
    pub(super) issuer: Arc<TrustedIssuer>,
    /// When it said so; until when that holds; and from when on it is asked again in the background. Uptime, the latter two in
    /// nanoseconds.
    at: Duration,
    holds_until: AtomicU64,
    ask_from: AtomicU64,
    /// Whether a token with this name was ever verified.
    proven: AtomicBool,
    /// By the application, which takes the answer back.
    forgotten: AtomicBool,
}

impl Kept {
    fn holds(&self, now: Duration) -> bool {
        nanos(now) < self.holds_until.load(Ordering::Relaxed)
    }

    /// Whether it is to be asked again now, in the background; `true` once, and then not for a while.
    fn takes_turn_to_ask(&self, now: Duration) -> bool {
        let from = self.ask_from.load(Ordering::Relaxed);
        let later = nanos(now + ASK_AGAIN_AFTER);
        nanos(now) >= from && self.ask_from.compare_exchange(from, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}

impl LookedUpIssuers {
    /// `guarded` is the client for issuers that may not be at private addresses.
    pub(super) fn new(
        lookup: Lookup,
        client: impl Fn() -> Result<Client, ConfigError>,
        guarded: impl FnOnce() -> Result<Client, ConfigError>,
        clock: Clock,
    ) -> Result<Arc<Self>, ConfigError> {
        if lookup.capacity == 0 {
            return Err(ConfigError::new("keep_at_most: expected at least 1 issuer, 0 came"));
        }
        if lookup.fresh < SHORTEST_FRESH || lookup.fresh > LONGEST_FRESH {
            let came = lookup.fresh;
            return Err(ConfigError::new(format!("look_up_again_after {came:?}: expected 1s to 24h")));
        }
        let client = if lookup.private_addresses { client()? } else { guarded()? };
        // Least recently used, since an admission by frequency would keep turning a new tenant away.
        let kept = || {
            let kept = Cache::builder().max_capacity(lookup.capacity).time_to_idle(lookup.idle);
            kept.eviction_policy(EvictionPolicy::lru()).build()
        };
        let strangers = Cache::builder().max_capacity(MAX_STRANGERS);
        Ok(Arc::new(Self {
            proven: kept(),
            unproven: kept(),
            lookup,
            client,
            clock,
            strangers: strangers.eviction_policy(EvictionPolicy::lru()).build(),
            changing: Mutex::default(),
            under_way: Arc::default(),
            permits: Permits::new(MAX_LOOKUPS),
            forgotten: AtomicU64::new(0),
            failures: Throttle::default(),
            unusable: Throttle::default(),
            fetches: Arc::default(),
        }))
    }

    /// All that are kept, those that are idle or over the limit aside.
    pub(super) fn all(&self) -> Vec<Arc<TrustedIssuer>> {
        let caches = [&self.proven, &self.unproven].into_iter().inspect(|kept| kept.run_pending_tasks());
        caches.flat_map(|kept| kept.iter().map(|(_, kept)| Arc::clone(&kept.issuer))).collect()
    }

    pub(super) fn kept(&self, name: &str) -> Option<Arc<Kept>> {
        self.proven.get(name).or_else(|| self.unproven.get(name))
    }

    pub(super) fn find(self: &Arc<Self>, iss: &str, now: Now) -> Result<Found, Error> {
        if let Some(kept) = self.kept(iss).filter(|kept| kept.holds(now.uptime)) {
            self.ask_ahead(&kept, now.uptime);
            return Ok(Found::Issuer(Known::looked_up(kept)));
        }
        if self.is_stranger(iss, now.uptime) {
            return Err(unknown(iss).into());
        }
        match &self.lookup.ask {
            Ask::Sync(ask) => {
                let answer = || {
                    let before = self.forgotten();
                    self.keep(iss, ask(iss), before)
                };
                let answer = answer().or_else(answer).unwrap_or_else(|| Err(forgotten_again()));
                answer.map(Known::looked_up).map(Found::Issuer)
            }
            Ask::Async(_) => Ok(Found::Lookup(Box::pin(Arc::clone(self).ask_once(iss.to_owned())))),
        }
    }

    /// Has the look-up asked again before its answer does not hold any more, so that no request waits for it.
    fn ask_ahead(self: &Arc<Self>, kept: &Kept, now: Duration) {
        if matches!(self.lookup.ask, Ask::Async(_))
            && kept.takes_turn_to_ask(now)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(Arc::clone(self).ask_once(kept.name.to_string()));
        }
    }

    fn is_stranger(&self, iss: &str, now: Duration) -> bool {
        self.strangers.get(iss).is_some_and(|since| now < since + STRANGER_FOR)
    }

    /// Asks, or shares the answer that another request is waiting for. Whoever asks may be dropped: then the next one does.
    async fn ask_once(self: Arc<Self>, iss: String) -> Result<Known, Error> {
        let flight = self.under_way.join(iss.clone());
        let answer = flight.result(|| async {
            // Once more if something was forgotten meanwhile: then the answer may be from before that.
            for _ in 0..2 {
                let before = self.forgotten();
                if let Some(answer) = self.ask(&iss, before).await {
                    return answer;
                }
            }
            Err(forgotten_again())
        });
        answer.await.map(Known::looked_up)
    }

    /// Asks, within [`LOOKUP_TIMEOUT`], the time that it has to wait for a permit included. `None`: something was forgotten
    /// meanwhile.
    async fn ask(&self, iss: &str, before: u64) -> Option<Result<Arc<Kept>, Error>> {
        let Ask::Async(ask) = &self.lookup.ask else { return Some(Err(unknown(iss).into())) };
        let answer = async {
            let _permit = match self.kept(iss) {
                Some(_) => None,
                None => Some(self.permits.acquire().await),
            };
            ask(iss.to_owned()).await
        };
        match timeout(LOOKUP_TIMEOUT, answer).await {
            Ok(Ok(found)) => self.keep(iss, found, before),
            Ok(Err(error)) => Some(self.without_answer(iss, error)),
            Err(_) => Some(self.without_answer(iss, format!("no answer within {LOOKUP_TIMEOUT:?}"))),
        }
    }

    fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }

    /// Drops what is kept under this name, and the issuer's other names with it. Whether there was anything.
    pub(super) fn forget(&self, iss: &str) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        // Those who ask from now on share no answer with those who asked before.
        self.under_way.detach();
        let was_stranger = self.strangers.remove(iss).is_some();
        let Some(known) = self.kept(iss) else { return was_stranger };
        for cache in [&self.proven, &self.unproven] {
            for (name, kept) in cache.iter().filter(|(_, kept)| Arc::ptr_eq(&kept.issuer, &known.issuer)) {
                kept.forgotten.store(true, Ordering::Release);
                cache.invalidate(&*name);
            }
        }
        known.issuer.forget_keys();
        true
    }

    /// Takes what a look-up said of `iss`: under this name, and no other. An issuer that has not changed keeps its keys; if
    /// it is kept by another of its names, both share them.
    ///
    /// `before`: [`forgotten`](Self::forgotten) when it was asked. `None` if something was forgotten since.
    fn keep(&self, iss: &str, found: Option<Issuer>, before: u64) -> Option<Result<Arc<Kept>, Error>> {
        let at = self.clock.now().uptime;
        let config = match found {
            Some(config) if config.names().any(|name| **name == *iss) => Some(config),
            Some(other) => {
                let error = ConfigError::new("expected the issuer that was asked for, or one that has it as an alias");
                self.tell_unusable(&other.iss, &error, at);
                None
            }
            None => None,
        };
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.forgotten() != before {
            return None;
        }
        let issuer = config.and_then(|config| self.trusted(iss, config, at));
        let Some(issuer) = issuer else {
            self.proven.invalidate(iss);
            self.unproven.invalidate(iss);
            self.strangers.insert(iss.to_owned(), at);
            return Some(Err(unknown(iss).into()));
        };
        let proven = self.kept(iss).is_some_and(|kept| kept.is_proven());
        let kept = Arc::new(Kept {
            name: iss.into(),
            issuer,
            at,
            holds_until: nanos(at + self.lookup.fresh).into(),
            ask_from: nanos(at + self.lookup.fresh.mul_f64(ASK_AHEAD_AT)).into(),
            proven: proven.into(),
            forgotten: false.into(),
        });
        let cache = if proven { &self.proven } else { &self.unproven };
        cache.insert(Arc::clone(&kept.name), Arc::clone(&kept));
        Some(Ok(kept))
    }

    /// The issuer with this configuration: one that is kept, with its keys, or a new one. `None` if it cannot work.
    fn trusted(&self, iss: &str, config: Issuer, at: Duration) -> Option<Arc<TrustedIssuer>> {
        let same = std::iter::once(iss)
            .chain(config.names().map(|name| &**name))
            .filter_map(|name| self.kept(name))
            .find(|kept| kept.issuer.config.is_same_but_for_aliases(&config));
        if let Some(same) = same {
            return Some(Arc::clone(&same.issuer));
        }
        let name = Arc::clone(&config.iss);
        let private_addresses = self.lookup.private_addresses;
        let origin = Origin::LookedUp { private_addresses, throttle: Arc::clone(&self.fetches) };
        match TrustedIssuer::new(config, origin, || Ok(self.client.clone()), &self.clock) {
            Ok(issuer) => Some(Arc::new(issuer)),
            Err(error) => {
                self.tell_unusable(&name, &error, at);
                None
            }
        }
    }

    /// The look-up failed. That is no news about the token, so never a 401; and who was trusted a moment ago still is.
    fn without_answer(&self, iss: &str, error: String) -> Result<Arc<Kept>, Error> {
        let now = self.clock.now().uptime;
        telemetry::lookup_failure_counted();
        if let Some(unsaid) = self.failures.turn(now) {
            telemetry::lookup_failed(&error, unsaid);
        }
        match self.kept(iss) {
            Some(kept) if now < kept.at + self.lookup.fresh + MAX_STALE => {
                // Until the next answer, or the next failure, has come.
                let until = (now + ASK_AGAIN_AFTER + LOOKUP_TIMEOUT).min(kept.at + self.lookup.fresh + MAX_STALE);
                kept.holds_until.fetch_max(nanos(until), Ordering::Relaxed);
                kept.ask_from.store(nanos(now + ASK_AGAIN_AFTER), Ordering::Relaxed);
                Ok(kept)
            }
            _ => Err(Error::LookupFailed { error: error.into() }),
        }
    }

    fn tell_unusable(&self, iss: &str, error: &ConfigError, now: Duration) {
        if let Some(unsaid) = self.unusable.turn(now) {
            telemetry::lookup_unusable(iss, error, unsaid);
        }
    }

    /// A first token with this name was verified. Not if the look-up has said something else meanwhile.
    pub(super) fn promote(&self, kept: &Arc<Kept>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now().uptime;
        if kept.forgotten.load(Ordering::Acquire) {
            return;
        }
        let is_current = match self.kept(&kept.name) {
            Some(current) => Arc::ptr_eq(&current, kept),
            // Pushed out by many others before its keys were there.
            None => kept.holds(now) && !self.is_stranger(&kept.name, now),
        };
        if is_current {
            kept.proven.store(true, Ordering::Relaxed);
            self.proven.insert(Arc::clone(&kept.name), Arc::clone(kept));
            self.unproven.invalidate(&kept.name);
        }
    }
}

/// Whether a look-up may be asked for it: no issuer can be configured with white space around it, and no database likes a
/// NUL. Whatever it is, it is kept for a while.
pub(super) fn may_be_an_issuer(iss: &str) -> bool {
    !iss.is_empty() && iss.len() <= MAX_ISS_BYTES && iss.trim() == iss && !iss.chars().any(char::is_control)
}

/// The application forgets faster than its look-up answers.
fn forgotten_again() -> Error {
    Error::LookupFailed { error: "issuers were forgotten while it was under way".into() }
}

fn unknown(iss: &str) -> InvalidToken {
    InvalidToken::UnknownIssuer { presented: iss.to_owned(), trusted: None }
}
