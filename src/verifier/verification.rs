//! The steps of a verification, in order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::Verifier;
use super::introspections::{Answering, VerifiedJwt};
use crate::access_token::payload::VerifiedPayload;
use crate::access_token::{AccessToken, Terms, TokenKind};
use crate::api_key::active::{ActiveApiKeys, KeyVerification};
use crate::binding::{Place, Presented};
use crate::clock::Now;
use crate::error::{Error, InvalidToken};
use crate::introspection::JwtPolicy;
use crate::issuer::Issuer;
use crate::issuer::active::{ActiveIssuer, SignatureCheck};
use crate::issuer::resolution::{LookupFuture, Resolution, ResolvedIssuer};
use crate::keys::remote::Fetching;
use crate::revocation::Revocations;
use crate::telemetry;
use crate::token::claims::RegisteredClaims;
use crate::token::jws::{Header, Jws};
use crate::token::token_type::reject_other_jwt_types;
use crate::token_cache::{Entry, EntryIssuer};

/// The state of a verification.
pub(crate) enum Verification {
    Ready(Result<AccessToken, Error>),
    Pending(Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>),
}

/// What a verification has waited for so far.
#[derive(Default)]
struct Resume {
    issuer: Option<ResolvedIssuer>,
    /// Number of fetches waited for.
    waits: u8,
}

pub(super) enum Attempt {
    Ready(AccessToken),
    Pending(Pending),
}

pub(super) enum Pending {
    Lookup(LookupFuture),
    /// Holds the issuer, which may be evicted while the fetch runs.
    Fetch(ResolvedIssuer, Fetching),
    /// The last wait: with it, the verification ends.
    Answer(Answering),
}

impl Verifier {
    /// Verifies a token, and rejects one that was revoked. Completes synchronously if nothing has
    /// to be looked up, asked or fetched, without a future.
    pub(crate) fn begin(&self, token: &str) -> Verification {
        self.begin_at(token, self.0.clock.now())
    }

    /// Verifies a token at one reading of the clock, which is that of all checks before a wait.
    fn begin_at(&self, token: &str, now: Now) -> Verification {
        let verification = self.begin_unrevoked(token, now);
        if self.0.revocations.is_none() && !cfg!(feature = "status-list") {
            return verification;
        }
        match verification {
            Verification::Ready(Err(error)) => Verification::Ready(Err(error)),
            Verification::Ready(Ok(token)) => self.begin_revocation_check(token, now),
            Verification::Pending(future) => {
                let verifier = self.clone();
                Verification::Pending(Box::pin(async move {
                    let token = future.await?;
                    match verifier.begin_revocation_check(token, verifier.0.clock.now()) {
                        Verification::Ready(result) => result,
                        Verification::Pending(future) => future.await,
                    }
                }))
            }
        }
    }

    /// Rejects a verified token that was revoked, or whose status is not valid.
    fn begin_revocation_check(&self, token: AccessToken, now: Now) -> Verification {
        match token.check_revoked(now) {
            Ok(()) => self.begin_status(token, now),
            Err(error) => Verification::Ready(Err(self.log_rejection(token.expose_token(), error))),
        }
    }

    /// Checks a verified token again after a wait.
    pub(super) fn check_still_good(&self, token: &AccessToken, now: Now) -> Result<(), Error> {
        let checked = if token.is_good_at(now) {
            token.check_revoked(now)
        } else {
            let (expires_at, now) = (token.expires_at(), now.wall());
            Err(InvalidToken::Expired { expires_at, now, verified: true }.into())
        };
        checked.map_err(|error| self.log_rejection(token.expose_token(), error))
    }

    /// Looks up the status of a verified token in the list that it names.
    #[cfg(not(feature = "status-list"))]
    fn begin_status(&self, token: AccessToken, _: Now) -> Verification {
        Verification::Ready(Ok(token))
    }

    #[cfg(not(feature = "status-list"))]
    pub(super) fn has_valid_status(&self, _: &AccessToken, _: Now) -> bool {
        true
    }

    /// Verifies a token, whether or not it was revoked.
    fn begin_unrevoked(&self, token: &str, now: Now) -> Verification {
        if let Some(keys) = self.0.api_keys.as_ref().filter(|keys| keys.is_key(token)) {
            return self.begin_api_key(keys, token, now);
        }
        let asked = self.0.issuers.introspecting(token);
        let known = match asked {
            Some(_) => self.answered(token, now),
            None => self.cached(token, now).map(Ok).or_else(|| {
                let is_asked = self.0.introspections.asks_about_jwts();
                is_asked.then(|| self.answered(token, now)).flatten()
            }),
        };
        telemetry::token_cache(known.is_some());
        let attempt = match (known, asked) {
            (Some(Ok(token)), _) => return Verification::Ready(Ok(token)),
            (Some(Err(error)), _) => Err(error),
            (None, None) => self.attempt(token, &Resume::default(), now),
            (None, Some(issuer)) => {
                let resolved = ResolvedIssuer::configured(issuer);
                self.ask(&resolved, token, &issuer.config.iss, None)
            }
        };
        match attempt {
            Ok(Attempt::Ready(token)) => Verification::Ready(Ok(token)),
            Ok(Attempt::Pending(wait)) => {
                let verification = self.clone().resume(wait, token.to_owned());
                Verification::Pending(Box::pin(verification.instrument(telemetry::waiting())))
            }
            Err(error) => Verification::Ready(Err(self.log_rejection(token, error))),
        }
    }

    /// Verifies a token, and what the request presents beside it if the token is bound to a key or
    /// a certificate (RFC 9449 §7, RFC 8705 §3).
    pub(crate) fn begin_bound(&self, presented: Presented<'_>) -> Verification {
        let (bindings, now) = (&self.0.bindings, self.0.clock.now());
        match self.begin_at(&presented.token, now) {
            Verification::Ready(Err(error)) => Verification::Ready(Err(error)),
            // The proof is not checked before the store can be asked: the caller may drop the
            // future, and a proof is used once.
            Verification::Ready(Ok(token)) if bindings.waits(&presented) => {
                let (verifier, presented) = (self.clone(), bindings.copied(presented));
                let check = async move { verifier.check_and_share(token, &presented).await };
                Verification::Pending(Box::pin(check))
            }
            Verification::Ready(Ok(token)) => {
                let checked = bindings.check(&presented, token.binding(), now);
                Verification::Ready(match checked {
                    Ok(Some(proven)) => Ok(token.with_proof(proven.proof)),
                    Ok(None) => Ok(token),
                    Err(error) => Err(self.log_binding(&presented, error)),
                })
            }
            Verification::Pending(future) => {
                let (verifier, presented) = (self.clone(), bindings.copied(presented));
                Verification::Pending(Box::pin(async move {
                    verifier.check_and_share(future.await?, &presented).await
                }))
            }
        }
    }

    async fn check_and_share(
        &self,
        token: AccessToken,
        presented: &Presented<'_>,
    ) -> Result<AccessToken, Error> {
        let bindings = &self.0.bindings;
        let checked = bindings.check(presented, token.binding(), self.0.clock.now());
        match (checked.map_err(|error| self.log_binding(presented, error))?, &bindings.dpop) {
            (Some(proven), Some(dpop)) => {
                let proof = dpop.share(proven).await?;
                self.check_still_good(&token, self.0.clock.now())?;
                Ok(token.with_proof(proof))
            }
            _ => Ok(token),
        }
    }

    /// Logs a token that is rejected because of its binding. The layer logs rejected proofs.
    fn log_binding(&self, presented: &Presented<'_>, error: Error) -> Error {
        match error {
            Error::InvalidToken(_) => self.log_rejection(&presented.token, error),
            _ => error,
        }
    }

    fn begin_api_key(&self, keys: &ActiveApiKeys, key: &str, now: Now) -> Verification {
        match keys.verify(key, now) {
            KeyVerification::Ready(result) => {
                Verification::Ready(result.map_err(|error| self.log_rejection(key, error)))
            }
            KeyVerification::Pending(future) => {
                let (verifier, key) = (self.clone(), key.to_owned());
                let verification = async move {
                    future.await.map_err(|error| verifier.log_rejection(&key, error))
                };
                Verification::Pending(Box::pin(verification.instrument(telemetry::waiting())))
            }
        }
    }

    /// Returns the cached token if nothing has changed since it was verified. Otherwise, the full
    /// verification reports the reason.
    fn cached(&self, token: &str, now: Now) -> Option<AccessToken> {
        self.0.cache.get(token, |entry| {
            entry.holds(Duration::ZERO, now)
                && entry.token().is_good_at(now)
                && self.is_trusted(entry, now)
        })
    }

    /// Whether the issuer of a cached token is still trusted, with the same keys.
    pub(super) fn is_trusted(&self, entry: &Entry, now: Now) -> bool {
        #[cfg(feature = "status-list")]
        if entry.token().status().is_some_and(|status| !status.is_kept()) {
            return false;
        }
        let recheck = |issuer: &ActiveIssuer| match entry.token().kind() {
            TokenKind::Jwt => issuer.recheck(entry.keys(), now),
            TokenKind::Introspected | TokenKind::ApiKey => true,
        };
        match entry.issuer() {
            EntryIssuer::Configured(issuer) => recheck(issuer),
            EntryIssuer::Resolved(issuer, name) => match self.0.issuers.find(name, now) {
                Ok(Resolution::Ready(resolved)) => {
                    std::ptr::eq(Arc::as_ptr(&resolved.issuer), issuer.as_ptr())
                        && recheck(&resolved.issuer)
                }
                _ => false,
            },
        }
    }

    async fn resume(self, mut wait: Pending, token: String) -> Result<AccessToken, Error> {
        let mut progress = Resume::default();
        // Terminates: once the issuer is resolved, there is no further lookup, and waits for
        // fetches are limited.
        loop {
            match wait {
                Pending::Lookup(lookup) => {
                    progress.issuer =
                        Some(lookup.await.map_err(|error| self.log_rejection(&token, error))?);
                }
                Pending::Fetch(issuer, fetching) => {
                    fetching.finished().await;
                    progress =
                        Resume { issuer: Some(issuer), waits: progress.waits.saturating_add(1) };
                }
                Pending::Answer(answering) => {
                    let answer = answering.finished(&self).await;
                    return answer.map_err(|error| self.log_rejection(&token, error));
                }
            }
            match self.attempt(&token, &progress, self.0.clock.now()) {
                Ok(Attempt::Ready(token)) => return Ok(token),
                Ok(Attempt::Pending(next)) => wait = next,
                Err(error) => return Err(self.log_rejection(&token, error)),
            }
        }
    }

    /// Runs the steps of the verification in order.
    ///
    /// All checks that need no key come first, so that a token that fails one of them causes no
    /// network access and does not count toward the fetch limits.
    fn attempt(&self, token: &str, progress: &Resume, now: Now) -> Result<Attempt, Error> {
        let verifiable = self.0.bindings.verifiable();
        let jws = Jws::split(token)?;
        let header = jws.header()?;
        reject_other_jwt_types(header.typ.as_deref())?;
        let claims =
            RegisteredClaims::parse(jws.unverified_payload(), self.0.issuers.trust_domains())?;
        claims.check_no_event()?;
        let resolved = match &progress.issuer {
            Some(resolved) => resolved.clone(),
            None => match self
                .0
                .issuers
                .find(&claims.issuer, now)
                .map_err(|error| clarify_microsoft_token(error, &header))?
            {
                Resolution::Ready(resolved) => resolved,
                Resolution::Pending(lookup) => {
                    return Ok(Attempt::Pending(Pending::Lookup(lookup)));
                }
            },
        };
        let issuer = &resolved.issuer;
        let jwts = issuer.config.introspection.as_ref().map(|introspection| introspection.jwts);
        if jwts == Some(JwtPolicy::Ask) {
            // Unverified, so it can only cause a rejection: the issuer is not asked about it.
            claims.check_time(issuer.config.leeway, None, now)?;
            claims.check_binding(verifiable)?;
            return self.ask(&resolved, token, &claims.issuer, None);
        }
        issuer.check_algorithm(&header)?;
        let tenant = issuer.check_tenant(&claims)?;
        let Issuer { audience, leeway, max_token_age, .. } = &issuer.config;
        let checked = claims
            .check_audience(audience)
            .and_then(|()| claims.check_time(*leeway, *max_token_age, now))
            .and_then(|()| claims.check_binding(verifiable));
        match checked {
            Ok(()) => {}
            Err(InvalidToken::Expired { expires_at, now: unix, .. }) => {
                // No keys are fetched for an expired token. The client is told that it expired only
                // if a cached key verifies the signature.
                let verified = issuer.verifies_with_cached_keys(&jws, &header, tenant, now);
                return Err(InvalidToken::Expired { expires_at, now: unix, verified }.into());
            }
            Err(rejection) => return Err(clarify_microsoft_token(rejection.into(), &header)),
        }
        if issuer.config.is_fapi2 && claims.thumbprints().is_none() {
            return Err(InvalidToken::NotBound.into());
        }
        issuer.check_profile(&jws, &header, &claims, now)?;
        #[cfg(feature = "status-list")]
        let reference = issuer.status_reference(&jws, tenant)?;
        let signature = issuer.verify_signature(&jws, &header, tenant, progress.waits, now);
        let (payload, keys) =
            match signature.map_err(|error| clarify_microsoft_token(error, &header))? {
                SignatureCheck::Ready(payload, keys) => (payload, keys),
                SignatureCheck::Pending(fetching) => {
                    return Ok(Attempt::Pending(Pending::Fetch(resolved.clone(), fetching)));
                }
            };
        if issuer.checks_claims_late(&jws) {
            issuer.check_claims(&jws, now)?;
        }
        let terms = self.terms(issuer, &claims.issuer);
        #[cfg(feature = "status-list")]
        let terms = Terms { status: issuer.status(reference)?, ..terms };
        let payload = VerifiedPayload::Signed(payload);
        let verified = AccessToken::new(token, payload, claims, terms);
        if jwts == Some(JwtPolicy::VerifyAndAsk) {
            let iss = Arc::clone(verified.issuer_name());
            let jwt = VerifiedJwt { token: verified, keys };
            return self.ask(&resolved, token, &iss, Some(jwt));
        }
        self.0.issuers.record_verified(&resolved);
        self.0.cache.insert_repeated(token, now, || {
            Entry::new(verified.clone(), &resolved, keys.as_ref(), now)
        });
        Ok(Attempt::Ready(verified))
    }

    /// What a token needs of its issuer and of this verifier. `iss`: as spelled in the token.
    pub(super) fn terms(&self, issuer: &ActiveIssuer, iss: &str) -> Terms {
        Terms {
            issuer: issuer.config.name(iss),
            profile: Arc::clone(&issuer.config.profile),
            leeway: issuer.config.leeway,
            max_token_age: self.max_token_age(issuer),
            names: issuer.names.clone(),
            place: issuer.config.is_fapi2.then_some(Place::Authorization),
            verifier: self.0.id,
            clock: self.0.clock.clone(),
            implies: self.0.implies.clone(),
            revocations: self.0.revocations.clone(),
            #[cfg(feature = "status-list")]
            status: None,
        }
    }

    /// How old a token may be: as the issuer is configured, and no older than it is known what was
    /// revoked.
    fn max_token_age(&self, issuer: &ActiveIssuer) -> Option<Duration> {
        let kept_for = self.0.revocations.as_ref().map(Revocations::kept_for);
        [issuer.config.max_token_age, kept_for].into_iter().flatten().min()
    }

    /// A rejection by a layer, before the token was verified.
    pub(crate) fn reject(&self, token: &str, reason: InvalidToken) -> Error {
        self.log_rejection(token, reason.into())
    }

    /// Logs the rejection, without the token and its verified or unverified claims.
    pub(super) fn log_rejection(&self, token: &str, error: Error) -> Error {
        if !tracing::enabled!(target: "portcullis", tracing::Level::DEBUG) {
            telemetry::token_rejected(&error, None, None, None);
            return error;
        }
        let jws = Jws::split(token).ok();
        let header = jws.as_ref().and_then(|jws| jws.header().ok());
        let domains = self.0.issuers.trust_domains();
        let claims = jws
            .as_ref()
            .and_then(|jws| RegisteredClaims::parse(jws.unverified_payload(), domains).ok());
        let keys = self.0.api_keys.as_ref().filter(|keys| keys.is_key(token));
        let asked = || self.0.issuers.introspecting(token).cloned();
        let named = claims.and_then(|claims| self.0.issuers.cached(&claims.issuer));
        let issuer = if keys.is_some() { None } else { asked().or(named) };
        let issuer = issuer.as_ref().map(|issuer| &*issuer.config.iss);
        let issuer = keys.map(ActiveApiKeys::iss).or(issuer);
        let of_api_key = keys.and_then(|keys| keys.id_of(token));
        let kid = header.as_ref().and_then(|header| header.kid.as_deref()).or(of_api_key);
        let alg = header.as_ref().map(|header| header.algorithm.name());
        telemetry::token_rejected(&error, issuer, kid, alg);
        error
    }
}

/// Replaces a misleading error for tokens issued to Microsoft's own APIs, which no third party can
/// verify.
fn clarify_microsoft_token(error: Error, header: &Header<'_>) -> Error {
    match error {
        Error::InvalidToken(
            InvalidToken::UnknownIssuer { .. }
            | InvalidToken::WrongAudience { .. }
            | InvalidToken::BadSignature,
        ) if header.has_nonce => InvalidToken::MicrosoftNonce.into(),
        other => other,
    }
}
