//! One issuer that we trust, at work: its configuration and its keys together.

use std::sync::Arc;

use reqwest::Client;

use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::events::IssuerName;
use crate::health::IssuerHealth;
use crate::issuer::{Issuer, KeySource};
use crate::keys::jwk::{Jwk, SignedPayload};
use crate::keys::jwks::Jwks;
use crate::keys::remote::{Fetching, Keys, Location, Refetch, RemoteJwks, Source};
use crate::token::claims::Claims;
use crate::token::jws::{Header, Jws};
use crate::token::typ::TypRule;

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
    /// `listed`, not looked up; `client` is asked for only if keys must be fetched and the issuer has none of its own;
    /// `private_addresses`: whether its keys may be at such.
    pub(crate) fn new(
        config: Issuer,
        listed: bool,
        client: impl FnOnce() -> Result<Client, ConfigError>,
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
            KeySource::PemByKid(prefix) => Location::PemByKid(prefix.clone()),
            KeySource::Discovery => {
                Location::Discovery { at: config.discovery_url()?, same_origin: config.is_same_origin() }
            }
        };
        let client = config.client.as_ref().map_or_else(client, |own| Ok(own.0.clone()))?;
        let issuer = IssuerName { iss: Arc::clone(&config.iss), listed };
        let (algorithms, policy) = (config.algorithms.clone(), config.key_policy.clone());
        let source = Source { issuer, location, rsa, algorithms, policy, private_addresses };
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

    /// The tenant that the token is of, where the issuer has many.
    pub(crate) fn check_tenant<'a>(&self, claims: &'a Claims<'_>) -> Result<Option<&'a str>, InvalidToken> {
        match &self.config.template {
            Some(template) => template.check(&claims.issuer, claims.tenant.as_deref()).map(Some),
            None => Ok(None),
        }
    }

    /// What this issuer's access tokens look like: `typ`, and what is configured of claims.
    pub(crate) fn check_shape(
        &self,
        jws: &Jws<'_>,
        header: &Header<'_>,
        claims: &Claims<'_>,
    ) -> Result<(), InvalidToken> {
        let shape = &self.config.shape;
        if !shape.padding {
            jws.check_unpadded()?;
        }
        if let Some(signer) = &shape.signer
            && header.signer.as_deref() != Some(signer)
        {
            let expected = format!("{signer:?} in the header");
            return Err(InvalidToken::ClaimValue { claim: "signer".to_owned(), expected });
        }
        shape.typ.check(header.typ.as_deref())?;
        if shape.typ == TypRule::Rfc9068 {
            claims.check_rfc9068()?;
        }
        if shape.claims.is_empty() {
            return Ok(());
        }
        // What is unverified can only be refused.
        let claims = serde_json::from_slice(jws.unverified_payload())
            .map_err(|_| InvalidToken::Malformed("a payload whose numbers fit into 64 bits"))?;
        shape.claims.iter().try_for_each(|rule| rule.check(&claims))
    }

    /// Selects this issuer's key and verifies the signature, or says what to wait for. `fetched`: this token already
    /// waited for a fetch, and gets no second one.
    pub(crate) fn verify_signature<'a>(
        &self,
        jws: &'a Jws<'_>,
        header: &Header<'_>,
        tenant: Option<&str>,
        fetched: bool,
        now: Now,
    ) -> Result<Signature<'a>, Error> {
        let remote = match &self.keys {
            TrustedKeys::Secret(key) => {
                return Ok(Signature::Verified(key.verify(jws).ok_or(InvalidToken::Signature)?, None));
            }
            TrustedKeys::Fixed(jwks) => {
                return Ok(Signature::Verified(jwks.verify_signature(jws, header, tenant)?, None));
            }
            TrustedKeys::Remote(remote) => remote,
        };
        if !remote.may_have(header.kid.as_deref()) {
            return Err(InvalidToken::UnknownKey { kid: header.kid.as_deref().map(str::to_owned) }.into());
        }
        loop {
            let jwks = match remote.keys(header.kid.as_deref(), now) {
                Keys::Ready(jwks) => jwks,
                Keys::Wait(fetching, _) if !fetched => return Ok(Signature::Wait(fetching)),
                Keys::Wait(_, failure) | Keys::Unavailable(failure) => {
                    return Err(self.keys_unavailable(failure));
                }
            };
            match jwks.verify_signature(jws, header, tenant) {
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
                Ok(payload) => {
                    remote.prove();
                    return Ok(Signature::Verified(payload, Some(jwks)));
                }
            }
        }
    }

    /// Whether these are still the keys. Has them refreshed ahead, as every use of them does.
    pub(crate) fn still_has(&self, keys: Option<&Arc<Jwks>>, now: Now) -> bool {
        match (&self.keys, keys) {
            (TrustedKeys::Secret(_) | TrustedKeys::Fixed(_), None) => true,
            (TrustedKeys::Remote(remote), Some(keys)) => remote.still_has(keys, now),
            _ => false,
        }
    }

    /// Starts the fetch of keys that are not there yet; `None` if there is nothing to wait for.
    pub(crate) fn warm_up(&self, now: Now) -> Option<Fetching> {
        match &self.keys {
            TrustedKeys::Secret(_) | TrustedKeys::Fixed(_) => None,
            TrustedKeys::Remote(remote) => remote.can_warm_up().then(|| remote.warm_up(now)).flatten(),
        }
    }

    pub(crate) fn health(&self, now: Now) -> IssuerHealth {
        let iss = &self.config.iss;
        match &self.keys {
            TrustedKeys::Remote(remote) => remote.health(now),
            TrustedKeys::Fixed(jwks) => IssuerHealth::fixed(iss, jwks.len(), jwks.ignored().to_vec()),
            TrustedKeys::Secret(_) => IssuerHealth::fixed(iss, 1, Vec::new()),
        }
    }

    /// Whether its keys can be fetched before a token comes.
    pub(crate) fn can_warm_up(&self) -> bool {
        match &self.keys {
            TrustedKeys::Secret(_) | TrustedKeys::Fixed(_) => true,
            TrustedKeys::Remote(remote) => remote.can_warm_up(),
        }
    }

    fn keys_unavailable(&self, failure: Option<Arc<FetchError>>) -> Error {
        let source = failure.unwrap_or_else(|| Arc::new(FetchError::Interrupted));
        Error::KeysUnavailable { issuer: Arc::clone(&self.config.iss), source }
    }
}

/// A verified signature, or what to wait for.
pub(crate) enum Signature<'a> {
    /// With the set that the key is in, if that may change.
    Verified(SignedPayload<'a>, Option<Arc<Jwks>>),
    Wait(Fetching),
}
