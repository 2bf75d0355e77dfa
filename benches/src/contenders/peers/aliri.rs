//! aliri 0.6.4 (ring; OpenSSL for ECDSA) with aliri_tower 0.6.1, aliri_oauth2 0.10.2 and aliri_axum
//! 0.5.0. Fetches the key set from its URL and refreshes it every ten minutes. Does not support
//! EdDSA.

use std::time::Duration;

use ::aliri::{jwa, jwt};
use aliri_clock::UnixTime;
use aliri_oauth2::{Authority, HasScope, Scope};
use aliri_tower::Oauth2Authorizer;
use axum::Router;
use axum::routing::get;
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;
use serde::Deserialize;

use super::{Failure, jwks_url};

aliri_axum::scope_guards! {
    type Claims = Claims;

    scope AnyScope = *;
}

#[derive(Clone, Deserialize)]
struct Claims {
    iss: jwt::Issuer,
    aud: jwt::Audiences,
    sub: jwt::Subject,
    exp: UnixTime,
    #[serde(default)]
    scope: Scope,
}

pub async fn router(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Option<Router>, Failure> {
    let Ok(algorithm) = algorithm.name().parse::<jwa::Algorithm>() else { return Ok(None) };
    let validator = jwt::CoreValidator::default()
        .add_approved_algorithm(algorithm)
        .add_allowed_audience(jwt::Audience::new(audience.to_owned()))
        .require_issuer(jwt::Issuer::new(issuer.iss().to_owned()));
    let authority = Authority::new_from_url(jwks_url(issuer), validator).await?;
    authority.spawn_refresh(Duration::from_secs(600));
    let authorizer = Oauth2Authorizer::new().with_claims::<Claims>().with_terse_error_handler();
    let subject = async |AnyScope(claims): AnyScope| claims.sub.to_string();
    Ok(Some(Router::new().route("/", get(subject)).layer(authorizer.jwt_layer(authority))))
}

impl jwt::CoreClaims for Claims {
    fn nbf(&self) -> Option<UnixTime> {
        None
    }

    fn exp(&self) -> Option<UnixTime> {
        Some(self.exp)
    }

    fn aud(&self) -> &jwt::Audiences {
        &self.aud
    }

    fn iss(&self) -> Option<&jwt::IssuerRef> {
        Some(&self.iss)
    }

    fn sub(&self) -> Option<&jwt::SubjectRef> {
        Some(&self.sub)
    }
}

impl HasScope for Claims {
    fn scope(&self) -> &Scope {
        &self.scope
    }
}
