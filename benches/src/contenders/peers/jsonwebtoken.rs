//! jsonwebtoken 11.1 alone: its decoding keys in a map by `kid`, and `decode` in our own axum
//! extractor.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::routing::get;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;
use serde::Deserialize;

use super::Failure;

struct Verifier {
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

pub async fn router(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Option<Router>, Failure> {
    let Ok(algorithm) = algorithm.name().parse() else { return Ok(None) };
    let jwks: JwkSet = serde_json::from_value(issuer.jwks_json())?;
    let mut keys = HashMap::new();
    for jwk in &jwks.keys {
        if let Some(kid) = &jwk.common.key_id {
            keys.insert(kid.clone(), DecodingKey::from_jwk(jwk)?);
        }
    }
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer.iss()]);
    validation.set_audience(&[audience]);
    // Otherwise a token without `iss` or `aud` would pass.
    validation.set_required_spec_claims(&["iss", "aud", "exp"]);
    let subject = async |claims: Claims| claims.sub;
    Ok(Some(
        Router::new().route("/", get(subject)).with_state(Arc::new(Verifier { keys, validation })),
    ))
}

impl Verifier {
    fn verify(&self, token: &str) -> Option<Claims> {
        let key = self.keys.get(&decode_header(token).ok()?.kid?)?;
        Some(decode(token, key, &self.validation).ok()?.claims)
    }
}

impl FromRequestParts<Arc<Verifier>> for Claims {
    type Rejection = StatusCode;

    async fn from_request_parts(
        parts: &mut Parts,
        verifier: &Arc<Verifier>,
    ) -> Result<Self, StatusCode> {
        let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        token.and_then(|token| verifier.verify(token)).ok_or(StatusCode::UNAUTHORIZED)
    }
}
