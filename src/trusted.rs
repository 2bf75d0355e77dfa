//! One issuer that we trust, at work: its configuration and its keys together.

use std::sync::Arc;

use reqwest::Client;

use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::IssuerHealth;
use crate::issuer::{Issuer, KeySource};
use crate::keys::jwk::{Jwk, SignedPayload};
use crate::keys::jwks::Jwks;
use crate::keys::remote::{Fetching, Keys, Location, Refetch, RemoteJwks, Source};
use crate::token::jws::{Header, Jws};

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
    /// `private_addresses`: whether its keys may be at such.
    pub(crate) fn new(
        config: Issuer,
        client: &Client,
        private_addresses: bool,
        clock: &Clock,
    ) -> Result<Self, ConfigError> {
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
            KeySource::Discovery(discovery) => {
                Location::Discovery { at: config.discovery_url()?, same_origin: discovery.same_origin }
            }
        };
        let client = config.client.as_ref().map_or_else(|| client.clone(), |own| own.0.clone());
        let (iss, policy) = (Arc::clone(&config.iss), config.key_policy.clone());
        let source = Source { iss, location, rsa, policy, private_addresses };
        let keys = TrustedKeys::Remote(RemoteJwks::new(source, client, clock.clone()));
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
