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
use crate::issuer::Issuer;
use crate::issuers::{Ask, Issuers, Lookup};
use crate::trusted::TrustedIssuer;

/// Strangers remembered, and for how long: what a token can name is bounded, and a tenant that signs up is not kept out.
const MAX_STRANGERS: u64 = 1024;
const STRANGER_FOR: Duration = Duration::from_secs(30);

/// Longest `iss` that is looked up, in bytes. It is kept, whatever it is.
const MAX_ISS_BYTES: usize = 2048;

/// The [`Issuers`] of a verifier.
pub(crate) struct TrustedIssuers {
    listed: HashMap<Arc<str>, Arc<TrustedIssuer>>,
    looked_up: Option<Arc<LookedUp>>,
}

struct LookedUp {
    lookup: Lookup,
    client: Client,
    clock: Clock,
    kept: Cache<String, Kept>,
    /// Since when each is known to be none of ours, in uptime.
    strangers: Cache<String, Duration>,
    /// Look-ups under way, shared by all who ask for the same issuer.
    under_way: Mutex<HashMap<String, Weak<SharedLookup>>>,
}

#[derive(Clone)]
struct Kept {
    issuer: Arc<TrustedIssuer>,
    /// When it was looked up, in uptime.
    at: Duration,
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
        let mut listed = HashMap::new();
        for config in issuers.listed {
            let issuer = Arc::new(TrustedIssuer::new(config, &client, true, &clock)?);
            listed.extend(issuer.config.names().map(|iss| (Arc::clone(iss), Arc::clone(&issuer))));
        }
        let looked_up = match issuers.lookup {
            None => None,
            Some(lookup) => {
                let client = if lookup.private_addresses { client } else { guarded()? };
                // Least recently used, since an admission by frequency would keep turning a new tenant away.
                let kept = Cache::builder().max_capacity(lookup.capacity).time_to_idle(lookup.idle);
                let strangers = Cache::builder().max_capacity(MAX_STRANGERS);
                Some(Arc::new(LookedUp {
                    lookup,
                    client,
                    clock,
                    kept: kept.eviction_policy(EvictionPolicy::lru()).build(),
                    strangers: strangers.eviction_policy(EvictionPolicy::lru()).build(),
                    under_way: Mutex::default(),
                }))
            }
        };
        Ok(Self { listed, looked_up })
    }

    /// All that are known by now: the listed ones, and those that look-ups brought and that are kept.
    pub(crate) fn known(&self) -> Vec<Arc<TrustedIssuer>> {
        let kept = self.looked_up.iter().flat_map(|looked_up| looked_up.kept.iter().map(|(_, kept)| kept.issuer));
        self.listed().into_iter().chain(kept).collect()
    }

    /// The listed ones.
    pub(crate) fn listed(&self) -> Vec<Arc<TrustedIssuer>> {
        // Not once more for each alias.
        let listed = self.listed.iter().filter(|(iss, issuer)| ***iss == *issuer.config.iss);
        listed.map(|(_, issuer)| Arc::clone(issuer)).collect()
    }

    /// Whom `iss` names, if we trust them. Nothing is fetched for a stranger.
    pub(crate) fn find(&self, iss: &str, now: Now) -> Result<Found, Error> {
        if let Some(issuer) = self.listed.get(iss) {
            return Ok(Found::Issuer(Arc::clone(issuer)));
        }
        match &self.looked_up {
            Some(looked_up) if iss.len() <= MAX_ISS_BYTES => looked_up.find(iss, now),
            _ => Err(unknown(iss).into()),
        }
    }
}

impl LookedUp {
    fn find(self: &Arc<Self>, iss: &str, now: Now) -> Result<Found, Error> {
        if let Some(kept) = self.kept.get(iss).filter(|kept| now.uptime.saturating_sub(kept.at) < self.lookup.fresh) {
            return Ok(Found::Issuer(kept.issuer));
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
                // No news about the token, so never a 401.
                Err(error) => {
                    tracing::error!(target: "portcullis", ?error, "issuer look-up failed");
                    let source = Arc::new(FetchError::Lookup(error));
                    Err(Error::KeysUnavailable { issuer: iss.as_str().into(), source })
                }
            }
        });
        answer.await.clone()
    }

    /// Takes what a look-up brought. An issuer that has not changed keeps its keys; of two requests that looked the same
    /// one up at once, both get the first: one key set.
    fn keep(&self, iss: &str, found: Option<Issuer>) -> Result<Arc<TrustedIssuer>, Error> {
        let at = self.clock.now().uptime;
        let refuse = || {
            self.kept.invalidate(iss);
            self.strangers.insert(iss.to_owned(), at);
            Err(unknown(iss).into())
        };
        let Some(config) = found else { return refuse() };
        if *config.iss != *iss {
            tracing::warn!(target: "portcullis", asked = ?iss, found = &*config.iss, "look-up returned another issuer");
            return refuse();
        }
        let kept = self.kept.get(iss).filter(|kept| kept.issuer.config == config).map(|kept| kept.issuer);
        let issuer = match kept {
            Some(issuer) => issuer,
            None => match TrustedIssuer::new(config, &self.client, self.lookup.private_addresses, &self.clock) {
                Ok(issuer) => Arc::new(issuer),
                Err(error) => {
                    tracing::warn!(target: "portcullis", ?error, "look-up returned an issuer that cannot be used");
                    return refuse();
                }
            },
        };
        let is_current =
            |kept: &Kept| kept.issuer.config == issuer.config && at.saturating_sub(kept.at) < self.lookup.fresh;
        let kept = self
            .kept
            .entry_by_ref(iss)
            .or_insert_with_if(|| Kept { issuer: Arc::clone(&issuer), at }, |kept| !is_current(kept));
        Ok(kept.into_value().issuer)
    }
}

/// One request's share in a look-up. The last one to leave removes it.
struct Shared {
    looked_up: Arc<LookedUp>,
    iss: String,
    /// `None` once it has left.
    lookup: Option<Arc<SharedLookup>>,
}

impl Shared {
    fn enter(looked_up: Arc<LookedUp>, iss: String) -> Self {
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
