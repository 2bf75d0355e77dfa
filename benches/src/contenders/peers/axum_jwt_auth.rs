//! axum-jwt-auth 0.7.0 (jsonwebtoken 10, backend by [`choose_backend`](super::choose_backend)).
//! Fetches the key set from its URL and refreshes it every hour.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use axum_jwt_auth::{Claims, Decoder, RemoteJwksDecoder};
use jsonwebtoken_10::Validation;
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;
use serde::Deserialize;

use super::{Failure, jwks_url};

#[derive(Deserialize)]
struct Subject {
    sub: String,
}

pub async fn router(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Option<Router>, Failure> {
    let Ok(algorithm) = algorithm.name().parse() else { return Ok(None) };
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer.iss()]);
    validation.set_audience(&[audience]);
    // Otherwise a token without `iss` or `aud` would pass.
    validation.set_required_spec_claims(&["iss", "aud", "exp"]);
    let decoder =
        RemoteJwksDecoder::builder().jwks_url(jwks_url(issuer)).validation(validation).build()?;
    decoder.initialize().await?;
    let decoder: Decoder<Subject> = Arc::new(decoder);
    let subject = async |claims: Claims<Subject>| claims.claims.sub;
    Ok(Some(Router::new().route("/", get(subject)).with_state(decoder)))
}
