//! One fetch of an issuer's keys: permit, discovery if needed, and key set, within one time limit.

use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout_at};
use url::Url;

use super::discovery::{Member, metadata};
use super::fetch::{self, Fetched, Http};
use super::limits::FetchClass;
use super::{Carryover, Download, Location, RemoteJwks, Revalidation, Source};
use crate::crypto;
use crate::error::FetchError;
use crate::keys::jwks::Jwks;

impl RemoteJwks {
    pub(super) async fn fetch(
        &self,
        carryover: Carryover,
        kid: Option<&str>,
    ) -> Result<Download, FetchError> {
        let limit = self.source.policy.timeout;
        let start = Instant::now();
        let class =
            match (self.lock().schedule.has_failed(), self.established.load(Ordering::Relaxed)) {
                (true, _) => FetchClass::Failing,
                (false, false) => FetchClass::Probationary,
                (false, true) => FetchClass::Established,
            };
        let Ok(_permit) = timeout_at(start + limit, self.limit_at_origin.take(class)).await else {
            return Err(FetchError::ConcurrencyLimit { limit });
        };
        let waited = start.elapsed();
        match timeout_at(start + limit, self.fetch_within_limit(carryover, kid)).await {
            Ok(answer) => answer,
            // Not the server's fault if most of the time was spent waiting for a permit.
            Err(_) if waited > limit / 2 => Err(FetchError::ConcurrencyLimit { limit }),
            Err(_) => Err(FetchError::Timeout { limit }),
        }
    }

    async fn fetch_within_limit(
        &self,
        mut carryover: Carryover,
        kid: Option<&str>,
    ) -> Result<Download, FetchError> {
        let url = match &self.source.location {
            Location::PemByKid(prefix) => return self.fetch_by_kid(prefix, kid, carryover).await,
            Location::Jwks(url) => url.clone(),
            Location::Discovery { at, same_origin } => {
                let now = self.clock.now().uptime;
                match carryover.jwks_uri.take().filter(|(_, until)| now < *until) {
                    Some(fresh) => carryover.jwks_uri.insert(fresh).0.clone(),
                    None => {
                        let Source { issuer, plain_http, .. } = &self.source;
                        let metadata = metadata(&self.http(), &issuer.iss, at).await?;
                        let url = metadata.endpoint(&Member::JWKS_URI, *plain_http)?;
                        if *same_origin && url.origin() != at.origin() {
                            return Err(FetchError::OtherOrigin { url: fetch::redacted(&url) });
                        }
                        carryover
                            .jwks_uri
                            .insert((url, now + self.source.policy.lifetime(metadata.lifetime)))
                            .0
                            .clone()
                    }
                }
            }
        };
        // Validators apply only to the URL that they came from.
        let revalidation = carryover.revalidation.take().filter(|one| one.from == url);
        let (validators, known, hint) = revalidation
            .map_or_else(Default::default, |one| (one.validators, one.sha256, one.hint));
        let (jwks, validators, sha256, hint) = match self.http().get(&url, &validators).await? {
            Fetched::NotModified { lifetime } => (None, validators, known, lifetime.or(hint)),
            Fetched::Document { body, validators, lifetime } => {
                let sha256 = crypto::sha256(&body);
                // A new set would make every cached answer and token be verified again, and anyone
                // can cause a fetch.
                let jwks = if sha256 == known { None } else { Some(self.read(&url, &body)?) };
                let refresh_hint = || match &jwks {
                    Some(jwks) => jwks.refresh_hint(),
                    None => self.current.load().as_ref().and_then(|jwks| jwks.refresh_hint()),
                };
                let lifetime = lifetime.or_else(refresh_hint);
                (jwks, validators, sha256, lifetime)
            }
        };
        carryover.revalidation = Some(Revalidation { from: url, validators, sha256, hint });
        Ok(Download { jwks, lifetime: self.source.policy.lifetime(hint), carryover })
    }

    pub(super) fn http(&self) -> Http<'_> {
        let Source { addresses, policy, .. } = &self.source;
        Http { client: &self.client, addresses: *addresses, hedge_after: policy.timeout / 2 }
    }

    /// Parses a key set. A set without a key for any of the issuer's algorithms is an error, since
    /// it would replace a usable set.
    fn read(&self, url: &Url, document: &[u8]) -> Result<Jwks, FetchError> {
        let url = || fetch::redacted(url);
        match Jwks::read(document, self.source.rsa, self.source.format) {
            None => Err(FetchError::InvalidDocument {
                url: url(),
                expected: "a JSON object with an array `keys`",
            }),
            Some(jwks) if !jwks.serves_any(&self.source.algorithms) => {
                Err(FetchError::NoUsableKey { url: url(), ignored: jwks.ignored().to_vec() })
            }
            Some(jwks) => Ok(jwks),
        }
    }
}
