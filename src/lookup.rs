//! From `iss` to the issuer: the listed ones, and what a look-up brought.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use reqwest::Client;
use tokio::sync::OnceCell;

use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::events;
use crate::issuer::Issuer;
use crate::issuers::{Ask, Issuers, Lookup};
use crate::trusted::{LookedUp, TrustedIssuer};

/// Strangers remembered, and for how long: what a token can name is bounded, and a tenant that signs up is not kept out.
const MAX_STRANGERS: u64 = 1024;
const STRANGER_FOR: Duration = Duration::from_secs(30);

/// Longest `iss` that is looked up, in bytes. It is kept, whatever it is.
const MAX_ISS_BYTES: usize = 2048;

/// How long an answer still counts while the look-up fails, after it should have been asked again; and how long until it is.
/// A tenant that was removed meanwhile is trusted for so long, so it is bounded, as keys past their lifetime are.
const MAX_STALE: Duration = Duration::from_secs(3600);
const ASK_AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// A look-up that fails is told to the log so often at the most: whoever sends unsigned tokens must not fill it.
const TELL_FAILURES_EVERY: Duration = Duration::from_secs(1);

/// The [`Issuers`] of a verifier.
pub(crate) struct TrustedIssuers {
    listed: HashMap<Arc<str>, Arc<TrustedIssuer>>,
    /// Those among them that stand for many tenants.
    templates: Vec<Arc<TrustedIssuer>>,
    looked_up: Option<Arc<LookedUpIssuers>>,
}

struct LookedUpIssuers {
    lookup: Lookup,
    client: Client,
    clock: Clock,
    /// Issuers of whom a token was verified, and apart from them the others: whoever names thousands of tenants in unsigned
    /// tokens pushes nobody's keys out but of those that nobody uses.
    proven: Cache<Arc<str>, Arc<TrustedIssuer>>,
    unproven: Cache<Arc<str>, Arc<TrustedIssuer>>,
    /// Since when each is known to be none of ours, in uptime.
    strangers: Cache<String, Duration>,
    /// Look-ups under way, shared by all who ask for the same issuer.
    under_way: Mutex<HashMap<String, Weak<SharedLookup>>>,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    told: Option<Duration>,
    unsaid: u64,
}

type SharedLookup = OnceCell<Result<Arc<TrustedIssuer>, Error>>;

/// An issuer, or what to wait for.
pub(crate) enum Found {
    Issuer(Arc<TrustedIssuer>),
    Lookup(LookupFuture),
}

pub(crate) type LookupFuture = Pin<Box<dyn Future<Output = Result<Arc<TrustedIssuer>, Error>> + Send>>;

impl TrustedIssuers {
    /// `guarded` is the client for looked-up issuers that may not be at private addresses.
    pub(crate) fn new(
        issuers: Issuers,
        client: Client,
        guarded: impl FnOnce() -> Result<Client, ConfigError>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        let (mut listed, mut templates) = (HashMap::new(), Vec::new());
        for config in issuers.listed {
            let issuer = Arc::new(TrustedIssuer::new(config, None, &client, true, &clock)?);
            if issuer.config.template.is_some() {
                templates.push(Arc::clone(&issuer));
            }
            listed.extend(issuer.config.names().map(|iss| (Arc::clone(iss), Arc::clone(&issuer))));
        }
        let looked_up = match issuers.lookup {
            None => None,
            Some(lookup) => {
                if lookup.capacity == 0 {
                    return Err(ConfigError::new("keep_at_most: expected at least 1 issuer, 0 came"));
                }
                let client = if lookup.private_addresses { client } else { guarded()? };
                // Least recently used, since an admission by frequency would keep turning a new tenant away.
                let kept = || {
                    let kept = Cache::builder().max_capacity(lookup.capacity).time_to_idle(lookup.idle);
                    kept.eviction_policy(EvictionPolicy::lru()).build()
                };
                let strangers = Cache::builder().max_capacity(MAX_STRANGERS);
                Some(Arc::new(LookedUpIssuers {
                    proven: kept(),
                    unproven: kept(),
                    lookup,
                    client,
                    clock,
                    strangers: strangers.eviction_policy(EvictionPolicy::lru()).build(),
                    under_way: Mutex::default(),
                    failures: Mutex::default(),
                }))
            }
        };
        Ok(Self { listed, templates, looked_up })
    }

    /// All that are known by now: the listed ones, and those that look-ups brought and that are kept.
    pub(crate) fn known(&self) -> Vec<Arc<TrustedIssuer>> {
        let caches = self.looked_up.iter().flat_map(|looked_up| [&looked_up.proven, &looked_up.unproven]);
        // So that those are gone by now that are over the limit or idle.
        let caches = caches.inspect(|kept| kept.run_pending_tasks());
        let kept = caches.flat_map(|kept| kept.iter().filter(|(iss, issuer)| **iss == issuer.config.iss));
        self.listed().into_iter().chain(kept.map(|(_, issuer)| issuer)).collect()
    }

    /// The listed ones.
    pub(crate) fn listed(&self) -> Vec<Arc<TrustedIssuer>> {
        // Not once more for each alias.
        let listed = self.listed.iter().filter(|(iss, issuer)| ***iss == *issuer.config.iss);
        listed.map(|(_, issuer)| Arc::clone(issuer)).collect()
    }

    /// A token of this issuer was verified.
    pub(crate) fn verified(&self, issuer: &Arc<TrustedIssuer>) {
        if let (Some(all), Some(looked_up)) = (&self.looked_up, &issuer.looked_up)
            && looked_up.prove()
        {
            all.promote(issuer);
        }
    }

    /// The issuer that `iss` names, if it is known by now. Asks nobody.
    pub(crate) fn known_by(&self, iss: &str) -> Option<Arc<TrustedIssuer>> {
        let kept = || self.looked_up.as_ref().and_then(|looked_up| looked_up.kept(iss));
        self.listed.get(iss).cloned().or_else(kept)
    }

    /// Whom `iss` names, if we trust them. Nothing is fetched for a stranger.
    pub(crate) fn find(&self, iss: &str, now: Now) -> Result<Found, Error> {
        if let Some(issuer) = self.listed.get(iss) {
            return Ok(Found::Issuer(Arc::clone(issuer)));
        }
        let fits = |template: &&Arc<TrustedIssuer>| {
            template.config.template.as_ref().is_some_and(|template| template.tenant(iss).is_some())
        };
        if let Some(issuer) = self.templates.iter().find(fits) {
            return Ok(Found::Issuer(Arc::clone(issuer)));
        }
        match &self.looked_up {
            Some(looked_up) if iss.len() <= MAX_ISS_BYTES => looked_up.find(iss, now),
            _ => Err(unknown(iss).into()),
        }
    }
}

impl LookedUpIssuers {
    fn kept(&self, iss: &str) -> Option<Arc<TrustedIssuer>> {
        self.proven.get(iss).or_else(|| self.unproven.get(iss))
    }

    fn find(self: &Arc<Self>, iss: &str, now: Now) -> Result<Found, Error> {
        let is_current = |looked_up: &LookedUp| now.uptime < looked_up.ask_again();
        if let Some(issuer) = self.kept(iss).filter(|issuer| issuer.looked_up.as_ref().is_some_and(is_current)) {
            return Ok(Found::Issuer(issuer));
        }
        if self.strangers.get(iss).is_some_and(|since| now.uptime < since + STRANGER_FOR) {
            return Err(unknown(iss).into());
        }
        match &self.lookup.ask {
            Ask::Sync(ask) => self.keep(iss, ask(iss)).map(Found::Issuer),
            Ask::Async(_) => Ok(Found::Lookup(Box::pin(Arc::clone(self).ask_once(iss.to_owned())))),
        }
    }

    /// Asks, or shares the answer that another request is waiting for. Whoever asks may be dropped: then the next one does.
    async fn ask_once(self: Arc<Self>, iss: String) -> Result<Arc<TrustedIssuer>, Error> {
        let shared = Shared::enter(self, iss);
        let (looked_up, iss) = (&shared.looked_up, &shared.iss);
        let Some(lookup) = &shared.lookup else { return Err(unknown(iss).into()) };
        let answer = lookup.get_or_init(|| async {
            let Ask::Async(ask) = &looked_up.lookup.ask else { return Err(unknown(iss).into()) };
            match ask(iss.clone()).await {
                Ok(found) => looked_up.keep(iss, found),
                Err(error) => looked_up.without_answer(iss, error),
            }
        });
        answer.await.clone()
    }

    /// Takes what a look-up brought. An issuer that has not changed keeps its keys; of two requests that looked the same
    /// one up at once, both get the first: one key set.
    fn keep(&self, iss: &str, found: Option<Issuer>) -> Result<Arc<TrustedIssuer>, Error> {
        let at = self.clock.now().uptime;
        let refuse = || {
            self.proven.invalidate(iss);
            self.unproven.invalidate(iss);
            self.strangers.insert(iss.to_owned(), at);
            Err(unknown(iss).into())
        };
        let Some(config) = found else { return refuse() };
        if !config.names().any(|name| **name == *iss) {
            let error = ConfigError::new(format!("expected issuer {iss:?}, {:?} came", config.iss));
            events::lookup_unusable(iss, &error);
            return refuse();
        }
        let ask_again = at + self.lookup.fresh;
        // Asked for by an alias, it may be there already by its own name.
        let kept = self.kept(&config.iss).or_else(|| self.kept(iss));
        let kept = kept.as_ref().and_then(|kept| Some((kept, kept.looked_up.as_ref()?)));
        if let Some((kept, looked_up)) = kept.filter(|(kept, _)| kept.config == config) {
            looked_up.confirm(at, ask_again);
            self.cache(looked_up.is_proven()).insert(iss.into(), Arc::clone(kept));
            return Ok(Arc::clone(kept));
        }
        let proven = kept.is_some_and(|(_, looked_up)| looked_up.is_proven());
        let looked_up = Some(LookedUp::new(at, ask_again, proven));
        let private_addresses = self.lookup.private_addresses;
        match TrustedIssuer::new(config, looked_up, &self.client, private_addresses, &self.clock) {
            Ok(issuer) => {
                let (cache, issuer) = (self.cache(proven), Arc::new(issuer));
                let is_another = |kept: &Arc<TrustedIssuer>| kept.config != issuer.config;
                let own = cache.entry(Arc::clone(&issuer.config.iss));
                let issuer = own.or_insert_with_if(|| Arc::clone(&issuer), is_another).into_value();
                if *issuer.config.iss != *iss {
                    cache.insert(iss.into(), Arc::clone(&issuer));
                }
                Ok(issuer)
            }
            Err(error) => {
                events::lookup_unusable(iss, &error);
                refuse()
            }
        }
    }

    /// The look-up failed. That is no news about the token, so never a 401; and who was trusted a moment ago still is.
    fn without_answer(&self, iss: &str, error: String) -> Result<Arc<TrustedIssuer>, Error> {
        let now = self.clock.now().uptime;
        self.tell_failure(&error, now);
        let kept = self.kept(iss);
        match kept.as_ref().and_then(|kept| Some((kept, kept.looked_up.as_ref()?))) {
            Some((kept, looked_up)) if now < looked_up.at() + self.lookup.fresh + MAX_STALE => {
                looked_up.postpone(now + ASK_AGAIN_AFTER_FAILURE);
                Ok(Arc::clone(kept))
            }
            _ => Err(Error::KeysUnavailable { issuer: iss.into(), source: Arc::new(FetchError::Lookup(error)) }),
        }
    }

    fn tell_failure(&self, error: &str, now: Duration) {
        events::lookup_failure_counted();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.told.is_some_and(|told| now < told + TELL_FAILURES_EVERY) {
            failures.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut failures.unsaid);
        failures.told = Some(now);
        drop(failures);
        events::lookup_failed(error, unsaid);
    }

    /// A first token of this issuer was verified.
    fn promote(&self, issuer: &Arc<TrustedIssuer>) {
        self.proven.insert(Arc::clone(&issuer.config.iss), Arc::clone(issuer));
        for name in issuer.config.names() {
            if self.unproven.remove(name).is_some() {
                self.proven.insert(Arc::clone(name), Arc::clone(issuer));
            }
        }
    }

    fn cache(&self, proven: bool) -> &Cache<Arc<str>, Arc<TrustedIssuer>> {
        if proven { &self.proven } else { &self.unproven }
    }
}

/// One request's share in a look-up. The last one to leave removes it.
struct Shared {
    looked_up: Arc<LookedUpIssuers>,
    iss: String,
    /// `None` once it has left.
    lookup: Option<Arc<SharedLookup>>,
}

impl Shared {
    fn enter(looked_up: Arc<LookedUpIssuers>, iss: String) -> Self {
        let mut under_way = looked_up.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let lookup = match under_way.get(&iss).and_then(Weak::upgrade) {
            Some(lookup) => lookup,
            None => {
                let lookup = Arc::new(SharedLookup::new());
                under_way.insert(iss.clone(), Arc::downgrade(&lookup));
                lookup
            }
        };
        drop(under_way);
        Self { looked_up, iss, lookup: Some(lookup) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut under_way = self.looked_up.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lookup) = self.lookup.take() else { return };
        let own = under_way.get(&self.iss).is_some_and(|entry| std::ptr::eq(entry.as_ptr(), &*lookup));
        // An answer is not for those who come later: that is what is kept for.
        let answered = lookup.initialized();
        // Given back under the lock, so that of two who leave at once the second sees that it is the last.
        drop(lookup);
        let last = under_way.get(&self.iss).is_some_and(|entry| entry.strong_count() == 0);
        if own && (answered || last) {
            under_way.remove(&self.iss);
        }
    }
}

fn unknown(iss: &str) -> InvalidToken {
    InvalidToken::UnknownIssuer { presented: iss.to_owned() }
}
