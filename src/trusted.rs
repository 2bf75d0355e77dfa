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
use crate::issuer::{Issuer, Issuers, IssuersKind, KeySource, Lookup, secure_url};
use crate::keys::jwk::{Jwk, SignedPayload};
use crate::keys::jwks::Jwks;
use crate::keys::remote::{Fetching, Keys, Location, Refetch, RemoteJwks, Source};
use crate::token::jws::{Header, Jws};

/// Looked-up issuers kept, with their keys, and for how long after the last request for them.
const MAX_LOOKED_UP: u64 = 1024;
const LOOKED_UP_IDLE: Duration = Duration::from_secs(24 * 3600);

/// The [`Issuers`] of a verifier.
pub(crate) enum TrustedIssuers {
    Listed(HashMap<Arc<str>, Arc<TrustedIssuer>>),
    LookedUp(Lookup, Kept),
}

/// What look-ups brought. Clones share it.
#[derive(Clone)]
pub(crate) struct Kept {
    issuers: Cache<String, Arc<TrustedIssuer>>,
    client: Client,
    clock: Clock,
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

    /// Whom `iss` names, if we trust them. Nothing is fetched for a stranger.
    pub(crate) fn find(&self, iss: &str) -> Result<Found, Error> {
        let (lookup, kept) = match self {
            Self::Listed(issuers) => {
                return Ok(Found::Issuer(Arc::clone(issuers.get(iss).ok_or_else(|| unknown(iss))?)));
            }
            Self::LookedUp(lookup, kept) => (lookup, kept),
        };
        if let Some(issuer) = kept.issuers.get(iss) {
            return Ok(Found::Issuer(issuer));
        }
        match lookup {
            Lookup::Sync(lookup) => {
                let issuer = lookup(iss).ok_or_else(|| unknown(iss))?;
                Ok(Found::Issuer(kept.keep(iss, issuer)?))
            }
            Lookup::Async(lookup) => {
                let (kept, found, iss) = (kept.clone(), lookup(iss.to_owned()), iss.to_owned());
                Ok(Found::Lookup(Box::pin(async move {
                    match found.await {
                        Ok(Some(issuer)) => kept.keep(&iss, issuer),
                        Ok(None) => Err(unknown(&iss).into()),
                        Err(error) => Err(unusable(&iss, error)),
                    }
                })))
            }
        }
    }
}

impl Kept {
    /// Takes a looked-up issuer in. Of two requests that looked the same one up at once, both get the first: one key set.
    fn keep(&self, iss: &str, issuer: Issuer) -> Result<Arc<TrustedIssuer>, Error> {
        if *issuer.iss != *iss {
            return Err(unusable(iss, format!("expected issuer {iss:?}, {:?} came", issuer.iss)));
        }
        let issuer =
            TrustedIssuer::new(issuer, &self.client, &self.clock).map_err(|error| unusable(iss, error.to_string()))?;
        Ok(self.issuers.entry_by_ref(iss).or_insert(Arc::new(issuer)).into_value())
    }
}

fn unknown(iss: &str) -> InvalidToken {
    InvalidToken::UnknownIssuer { presented: iss.to_owned() }
}

/// The look-up broke: no news about the token, so never a 401.
fn unusable(iss: &str, error: String) -> Error {
    tracing::error!(target: "portcullis", %error, "issuer look-up failed");
    Error::KeysUnavailable { issuer: iss.into(), source: Arc::new(FetchError::Lookup(error)) }
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
            KeySource::Discovery => Location::Discovery(secure_url("issuer", &config.iss)?),
        };
        let source = Source {
            iss: Arc::clone(&config.iss),
            location,
            rsa,
            max_age: config.keys_max_age,
            timeout: config.fetch_timeout,
        };
        let keys = TrustedKeys::Remote(RemoteJwks::new(source, client.clone(), clock.clone()));
        Ok(Self { config, keys })
    }

    /// RFC 8725bis §3.1: the algorithms are the issuer's, not the token's choice.
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
                Err(unknown @ InvalidToken::UnknownKey { .. }) => {
                    match remote.refetch(&jwks, header.kid.as_deref(), fetched, now) {
                        Refetch::Wait(fetching) => return Ok(Signature::Wait(fetching)),
                        Refetch::LookAgain => {}
                        Refetch::Refuse => return Err(unknown.into()),
                    }
                }
                Err(error) => return Err(error.into()),
                Ok(payload) => return Ok(Signature::Verified(payload)),
            }
        }
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
