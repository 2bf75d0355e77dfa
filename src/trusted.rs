//! Whom we trust, at work: configuration and keys together, found by `iss`.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use reqwest::Client;

use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::IssuerHealth;
use crate::issuer::{Issuer, Issuers, IssuersKind, KeySource, Lookup};
use crate::keys::jwk::{Jwk, SignedPayload};
use crate::keys::jwks::Jwks;
use crate::keys::remote::{Fetching, Keys, Location, Refetch, RemoteJwks, Source};
use crate::token::jws::{Header, Jws};

/// Looked-up issuers kept, with their keys, and for how long after the last request for them.
const MAX_LOOKED_UP: u64 = 1024;
const LOOKED_UP_IDLE: Duration = Duration::from_secs(24 * 3600);

/// After this time the look-up is asked again, so that a tenant that was removed or changed is noticed.
const LOOKED_UP_FRESH: Duration = Duration::from_secs(600);

/// The [`Issuers`] of a verifier.
pub(crate) enum TrustedIssuers {
    Listed(HashMap<Arc<str>, Arc<TrustedIssuer>>),
    LookedUp(Lookup, Kept),
}

/// What look-ups brought. Clones share it.
#[derive(Clone)]
pub(crate) struct Kept {
    issuers: Cache<String, LookedUp>,
    client: Client,
    clock: Clock,
}

#[derive(Clone)]
struct LookedUp {
    issuer: Arc<TrustedIssuer>,
    /// When it was looked up, in uptime.
    at: Duration,
}

/// An issuer, or what to wait for.
pub(crate) enum Found {
    Issuer(Arc<TrustedIssuer>),
    Lookup(LookupFuture),
}

pub(crate) type LookupFuture = Pin<Box<dyn Future<Output = Result<Arc<TrustedIssuer>, Error>> + Send>>;

impl TrustedIssuers {
    pub(crate) fn new(issuers: Issuers, client: Client, clock: Clock) -> Result<Self, ConfigError> {
        match issuers.0 {
            IssuersKind::Listed(issuers) => {
                let at_work = |(iss, issuer)| Ok((iss, Arc::new(TrustedIssuer::new(issuer, &client, &clock)?)));
                issuers.into_iter().map(at_work).collect::<Result<_, _>>().map(Self::Listed)
            }
            IssuersKind::Lookup(lookup) => {
                let issuers = Cache::builder()
                    .max_capacity(MAX_LOOKED_UP)
                    .time_to_idle(LOOKED_UP_IDLE)
                    // Least recently used, since an admission by frequency would keep turning a new tenant away.
                    .eviction_policy(EvictionPolicy::lru())
                    .build();
                Ok(Self::LookedUp(lookup, Kept { issuers, client, clock }))
            }
        }
    }

    /// All that are known by now: the listed ones, or those that look-ups brought and that are kept.
    pub(crate) fn known(&self) -> Vec<Arc<TrustedIssuer>> {
        match self {
            Self::Listed(issuers) => issuers.values().cloned().collect(),
            Self::LookedUp(_, kept) => kept.issuers.iter().map(|(_, kept)| kept.issuer).collect(),
        }
    }

    /// Whom `iss` names, if we trust them. Nothing is fetched for a stranger.
    pub(crate) fn find(&self, iss: &str, now: Now) -> Result<Found, Error> {
        let (lookup, kept) = match self {
            Self::Listed(issuers) => {
                return Ok(Found::Issuer(Arc::clone(issuers.get(iss).ok_or_else(|| unknown(iss))?)));
            }
            Self::LookedUp(lookup, kept) => (lookup, kept),
        };
        if let Some(kept) = kept.issuers.get(iss).filter(|kept| now.uptime < kept.at + LOOKED_UP_FRESH) {
            return Ok(Found::Issuer(kept.issuer));
        }
        match lookup {
            Lookup::Sync(lookup) => Ok(Found::Issuer(kept.keep(iss, lookup(iss))?)),
            Lookup::Async(lookup) => {
                let (kept, found, iss) = (kept.clone(), lookup(iss.to_owned()), iss.to_owned());
                Ok(Found::Lookup(Box::pin(async move {
                    match found.await {
                        Ok(found) => kept.keep(&iss, found),
                        // No news about the token, so never a 401.
                        Err(error) => {
                            tracing::error!(target: "portcullis", ?error, "issuer look-up failed");
                            let source = Arc::new(FetchError::Lookup(error));
                            Err(Error::KeysUnavailable { issuer: iss.into(), source })
                        }
                    }
                })))
            }
        }
    }
}

impl Kept {
    /// Takes what a look-up brought. An issuer that has not changed keeps its keys; of two requests that looked the same
    /// one up at once, both get the first: one key set.
    fn keep(&self, iss: &str, found: Option<Issuer>) -> Result<Arc<TrustedIssuer>, Error> {
        let at = self.clock.now().uptime;
        let Some(config) = found else {
            self.issuers.invalidate(iss);
            return Err(unknown(iss).into());
        };
        if *config.iss != *iss {
            tracing::warn!(target: "portcullis", asked = iss, found = &*config.iss, "look-up returned another issuer");
            return Err(unknown(iss).into());
        }
        let kept = self.issuers.get(iss).filter(|kept| kept.issuer.config == config).map(|kept| kept.issuer);
        let issuer = match kept {
            Some(issuer) => issuer,
            None => match TrustedIssuer::new(config, &self.client, &self.clock) {
                Ok(issuer) => Arc::new(issuer),
                Err(error) => {
                    tracing::warn!(target: "portcullis", ?error, "look-up returned an issuer that cannot be used");
                    return Err(unknown(iss).into());
                }
            },
        };
        let fresher = |kept: &LookedUp| kept.issuer.config == issuer.config && at < kept.at + LOOKED_UP_FRESH;
        let kept = self
            .issuers
            .entry_by_ref(iss)
            .or_insert_with_if(|| LookedUp { issuer: Arc::clone(&issuer), at }, |kept| !fresher(kept));
        Ok(kept.into_value().issuer)
    }
}

fn unknown(iss: &str) -> InvalidToken {
    InvalidToken::UnknownIssuer { presented: iss.to_owned() }
}

/// An [`Issuer`] at work: its configuration and its keys.
pub(crate) struct TrustedIssuer {
    pub(crate) config: Issuer,
    keys: TrustedKeys,
}

enum TrustedKeys {
    Secret(Arc<Jwk>),
    Fixed(Jwks),
    Remote(Arc<RemoteJwks>),
}

impl TrustedIssuer {
    fn new(config: Issuer, client: &Client, clock: &Clock) -> Result<Self, ConfigError> {
        config.check()?;
        let rsa = config.rsa_algorithm();
        let location = match &config.key_source {
            KeySource::Secret(key) => {
                let keys = TrustedKeys::Secret(Arc::clone(key));
                return Ok(Self { config, keys });
            }
            KeySource::Fixed(jwks) => {
                let keys = TrustedKeys::Fixed(jwks.with_rsa_algorithm(rsa));
                return Ok(Self { config, keys });
            }
            KeySource::JwksUri(uri) => Location::Jwks(uri.clone()),
            KeySource::Discovery => Location::Discovery(config.url()?),
        };
        let source = Source { iss: Arc::clone(&config.iss), location, rsa, policy: config.key_policy.clone() };
        let keys = TrustedKeys::Remote(RemoteJwks::new(source, client.clone(), clock.clone()));
        Ok(Self { config, keys })
    }

    /// draft-ietf-oauth-rfc8725bis §3.1: the algorithms are the issuer's, not the token's choice.
    pub(crate) fn check_algorithm(&self, header: &Header<'_>) -> Result<(), InvalidToken> {
        match self.config.algorithms.contains(&header.algorithm) {
            true => Ok(()),
            false => Err(InvalidToken::UnsupportedAlgorithm { presented: header.algorithm.name().to_owned() }),
        }
    }

    /// Selects this issuer's key and verifies the signature, or says what to wait for. `fetched`: this token already
    /// waited for a fetch, and gets no second one.
    pub(crate) fn verify_signature<'a>(
        &self,
        jws: &'a Jws<'_>,
        header: &Header<'_>,
        fetched: bool,
        now: Now,
    ) -> Result<Signature<'a>, Error> {
        let remote = match &self.keys {
            TrustedKeys::Secret(key) => {
                return Ok(Signature::Verified(key.verify(jws).ok_or(InvalidToken::Signature)?));
            }
            TrustedKeys::Fixed(jwks) => {
                return Ok(Signature::Verified(jwks.verify_signature(jws, header)?));
            }
            TrustedKeys::Remote(remote) => remote,
        };
        loop {
            let jwks = match remote.keys(now) {
                Keys::Ready(jwks) => jwks,
                Keys::Wait(fetching, _) if !fetched => return Ok(Signature::Wait(fetching)),
                Keys::Wait(_, failure) | Keys::Unavailable(failure) => {
                    return Err(self.keys_unavailable(failure));
                }
            };
            match jwks.verify_signature(jws, header) {
                // A signature that does not fit may be that of a new key without a `kid`, or under the old one's.
                Err(refusal @ (InvalidToken::UnknownKey { .. } | InvalidToken::Signature)) => {
                    match remote.refetch(&jwks, header.kid.as_deref(), fetched, now) {
                        Refetch::Wait(fetching) => return Ok(Signature::Wait(fetching)),
                        Refetch::LookAgain => {}
                        // Unavailable is not invalid: the key may be one that the issuer would name, could it be asked.
                        Refetch::Refuse(Some(failure)) if refusal != InvalidToken::Signature => {
                            return Err(self.keys_unavailable(Some(failure)));
                        }
                        Refetch::Refuse(_) => return Err(refusal.into()),
                    }
                }
                Err(error) => return Err(error.into()),
                Ok(payload) => return Ok(Signature::Verified(payload)),
            }
        }
    }

    /// Starts the fetch of keys that are not there yet; `None` if there is nothing to wait for.
    pub(crate) fn warm_up(&self, now: Now) -> Option<Fetching> {
        match &self.keys {
            TrustedKeys::Secret(_) | TrustedKeys::Fixed(_) => None,
            TrustedKeys::Remote(remote) => match remote.keys(now) {
                Keys::Wait(fetching, _) => Some(fetching),
                Keys::Ready(_) | Keys::Unavailable(_) => None,
            },
        }
    }

    pub(crate) fn health(&self, now: Now) -> IssuerHealth {
        let (keys, ignored) = match &self.keys {
            TrustedKeys::Remote(remote) => return remote.health(now),
            TrustedKeys::Fixed(jwks) => (jwks.len(), jwks.ignored().to_vec()),
            TrustedKeys::Secret(_) => (1, Vec::new()),
        };
        let iss = Arc::clone(&self.config.iss);
        IssuerHealth { iss, keys, ignored, age: None, next_fetch: None, stale: false, last_error: None }
    }

    fn keys_unavailable(&self, failure: Option<Arc<FetchError>>) -> Error {
        let source = failure.unwrap_or_else(|| Arc::new(FetchError::Interrupted));
        Error::KeysUnavailable { issuer: Arc::clone(&self.config.iss), source }
    }
}

/// A verified signature, or what to wait for.
pub(crate) enum Signature<'a> {
    Verified(SignedPayload<'a>),
    Wait(Fetching),
}
