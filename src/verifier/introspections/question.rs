//! [`Question`]: one question about a token, in a task of its own, and the checks of its answer.

use std::sync::Arc;

use tokio::time::Instant;

use super::under_way::Asking;
use super::{Outcome, VerifiedJwt, quoted, unavailable};
use crate::access_token::AccessToken;
use crate::access_token::payload::VerifiedPayload;
use crate::binding::Binding;
use crate::clock::Now;
use crate::error::{Error, FetchError, InvalidToken};
use crate::introspection::answer::{self, IntrospectedPayload};
use crate::introspection::client::{Familiarity, IntrospectionClient};
use crate::introspection::signed;
use crate::issuer::Issuer;
use crate::issuer::active::SignatureCheck;
use crate::issuer::resolution::ResolvedIssuer;
use crate::telemetry::IntrospectionOutcome;
use crate::token::audience::AudienceClaim;
use crate::token::claims::RegisteredClaims;
use crate::token::jws::Jws;
use crate::token::spiffe::TrustDomains;
use crate::token_cache::{Entry, TokenCache};
use crate::verifier::Verifier;

/// A question in a task of its own, which no request can cancel. However it ends (with an answer, a
/// panic, or a shutdown of its runtime), later requests ask anew, and those that wait are woken.
pub(super) struct Question {
    pub(super) verifier: Verifier,
    pub(super) issuer: ResolvedIssuer,
    /// The name of the issuer, if the answer states none.
    pub(super) iss: Arc<str>,
    pub(super) token: String,
    pub(super) jwt: Option<VerifiedJwt>,
    pub(super) familiarity: Familiarity,
    pub(super) result: Option<Outcome>,
    pub(super) asking: Asking<Outcome>,
}

impl Question {
    pub(super) async fn run(mut self) {
        self.result = Some(self.ask().await);
    }

    async fn ask(&self) -> Outcome {
        let Self { issuer, token, .. } = self;
        let issuer = &issuer.issuer;
        let Some(introspection) = &issuer.introspection else {
            return Err(InvalidToken::Opaque.into());
        };
        let began = Instant::now();
        let body = introspection.ask(token, self.familiarity).await;
        let body = body.map_err(|error| unavailable(issuer, error))?;
        let unusable =
            |expected| unavailable(issuer, introspection.unusable(expected, began.elapsed()));
        let answer = if introspection.config.signed {
            self.signed_answer(introspection, &body).await.map_err(|problem| match problem {
                Problem::Unusable(expected) => unusable(expected),
                Problem::Keys(error) => {
                    introspection.report_unusable(&error, began.elapsed());
                    unavailable(issuer, error)
                }
            })?
        } else {
            body
        };
        let payload = answer::read(&answer).map_err(unusable)?;
        let now = self.verifier.0.clock.now();
        let accepted =
            payload.ok_or(InvalidToken::Inactive).and_then(|payload| self.accept(payload, now));
        introspection.report_answer(
            match &accepted {
                Ok(_) => IntrospectionOutcome::Active,
                Err(InvalidToken::Inactive) => IntrospectionOutcome::Inactive,
                Err(_) => IntrospectionOutcome::Rejected,
            },
            began.elapsed(),
        );
        self.remember(introspection, &accepted, now);
        accepted.map_err(Error::from)
    }

    /// The token of an active answer, or why it is rejected.
    fn accept(
        &self,
        payload: IntrospectedPayload<'_>,
        now: Now,
    ) -> Result<AccessToken, InvalidToken> {
        let Self { verifier, issuer, iss, token, jwt, .. } = self;
        let (issuer, jwt) = (&*issuer.issuer, jwt.as_ref());
        let Issuer { audience, leeway, max_token_age, .. } = &issuer.config;
        let claims = RegisteredClaims::parse_introspected(payload.text().as_bytes(), iss)?;
        if !issuer.config.names().any(|name| **name == *claims.issuer) {
            let presented = quoted(&claims.issuer);
            return Err(InvalidToken::UnknownIssuer { presented, similar: None });
        }
        // Without `aud`, a refresh token or an ID token can look the same.
        let is_for_this_api = audience.claim() == AudienceClaim::Audience || jwt.is_some();
        claims.check_binding(verifier.0.bindings.verifiable())?;
        let is_bound = check_same_binding(&claims, token, jwt, verifier.0.issuers.trust_domains())?;
        let has_binding =
            claims.thumbprints().is_some() || jwt.is_some_and(|jwt| jwt.token.binding().is_some());
        if issuer.config.is_fapi2 && !has_binding {
            return Err(InvalidToken::NotBound);
        }
        answer::check_kind(payload, !is_for_this_api, is_bound)?;
        // The `aud` of a JWT was checked before.
        if jwt.is_none() || claims.has_audience() {
            claims.check_audience(audience)?;
        }
        claims.check_time(*leeway, max_token_age.filter(|_| jwt.is_none()), now)?;
        // Here, so that the answer is remembered as one that was rejected.
        let issued_at = jwt.map_or_else(|| claims.issued_at(), |jwt| jwt.token.issued_at());
        if verifier.0.revocations.as_ref().is_some_and(|one| one.forgets(issued_at, now)) {
            return Err(InvalidToken::Revoked);
        }
        if let Some(jwt) = jwt {
            return Ok(jwt.token.clone());
        }
        issuer.check_introspected(payload, now)?;
        let terms = verifier.terms(issuer, &claims.issuer);
        Ok(AccessToken::new(token, VerifiedPayload::Introspected(payload), claims, terms))
    }

    fn remember(
        &self,
        introspection: &IntrospectionClient,
        accepted: &Result<AccessToken, InvalidToken>,
        now: Now,
    ) {
        let introspections = &self.verifier.0.introspections;
        let lifetime = introspection.config.lifetime;
        // Until the answer is cached, so that `forget` does not come between.
        let held = self.asking.hold();
        let is_outdated = held.is_outdated();
        match accepted {
            Ok(_) if is_outdated => {}
            Ok(accepted) => {
                self.verifier.0.issuers.record_verified(&self.issuer);
                let keys = self.jwt.as_ref().and_then(|jwt| jwt.keys.as_ref());
                let entry = Entry::new(accepted.clone(), &self.issuer, keys, now);
                let cache = introspections.accepted.get_or_init(|| {
                    Arc::new(TokenCache::for_opaque_tokens(introspections.capacity))
                });
                cache.insert(&self.token, now, entry.introspected(lifetime, now));
            }
            Err(rejection) => {
                // Even if it is outdated: perhaps another issuer was forgotten, and a revoked token
                // must not stay. If this one was, the next request asks once more.
                if let Some(cache) = introspections.accepted.get() {
                    cache.remove(&self.token);
                }
                if !lifetime.is_zero() && !is_outdated {
                    introspections.remember_rejection(self.asking.key(), rejection, now);
                }
            }
        }
    }

    /// Verifies a signed answer (RFC 9701 §5), and returns the answer in it.
    async fn signed_answer(
        &self,
        introspection: &IntrospectionClient,
        jwt: &str,
    ) -> Result<String, Problem> {
        let issuer = &self.issuer.issuer;
        let encrypted = |error| match error {
            InvalidToken::Encrypted => Problem::Unusable("a signed answer, not an encrypted one"),
            _ => Problem::Unusable("a signed answer that is a JWT"),
        };
        let jws = Jws::split(jwt.trim_ascii()).map_err(encrypted)?;
        let header = jws.header().map_err(encrypted)?;
        signed::check_type(&header).map_err(Problem::Unusable)?;
        issuer
            .check_algorithm(&header)
            .map_err(|_| Problem::Unusable("an answer signed with an algorithm of the issuer"))?;
        let mut waits = 0;
        loop {
            let now = self.verifier.0.clock.now();
            match issuer.verify_signature(&jws, &header, None, waits, now) {
                Ok(SignatureCheck::Ready(payload, _)) => {
                    let expected = signed::Expected {
                        iss: &issuer.config.iss,
                        client_id: introspection.config.auth.client_id().unwrap_or_default(),
                        leeway: issuer.config.leeway,
                        now,
                    };
                    let answer = signed::read(&payload, &expected).map_err(Problem::Unusable)?;
                    return Ok(answer.to_owned());
                }
                Ok(SignatureCheck::Pending(fetching)) => {
                    fetching.finished().await;
                    waits += 1;
                }
                Err(Error::KeysUnavailable { reason, .. }) => return Err(Problem::Keys(reason)),
                Err(_) => {
                    return Err(Problem::Unusable("an answer signed with a key of the issuer"));
                }
            }
        }
    }
}

/// Checks that a JWT and the answer about it name the same binding, if any, and returns whether the
/// accepted token is bound to a key. A binding that only one of them names must not be lost.
fn check_same_binding(
    answer: &RegisteredClaims<'_>,
    token: &str,
    jwt: Option<&VerifiedJwt>,
    domains: &TrustDomains,
) -> Result<bool, InvalidToken> {
    let named = match jwt {
        Some(jwt) => jwt.token.binding().map(Binding::thumbprints),
        // The signature was not verified, so this can only cause a rejection.
        None => match Jws::split(token) {
            Ok(jws) => RegisteredClaims::parse(jws.unverified_payload(), domains)?.thumbprints(),
            Err(_) => None,
        },
    };
    let is_same = match (named, answer.thumbprints()) {
        // The accepted token is the JWT.
        (named, None) => named.is_none() || jwt.is_some(),
        (None, Some(_)) => jwt.is_none(),
        (Some(named), Some(own)) => named == own,
    };
    if is_same {
        Ok(named.or(answer.thumbprints()).is_some_and(|binding| binding.key.is_some()))
    } else {
        Err(InvalidToken::SenderConstrained)
    }
}

/// Why a signed answer is not used.
enum Problem {
    Unusable(&'static str),
    Keys(FetchError),
}

impl Drop for Question {
    fn drop(&mut self) {
        let interrupted = || Err(unavailable(&self.issuer.issuer, FetchError::Interrupted));
        let result = self.result.take().unwrap_or_else(interrupted);
        self.asking.end(result);
    }
}
