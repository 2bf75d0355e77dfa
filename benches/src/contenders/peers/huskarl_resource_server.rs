//! huskarl-resource-server 0.11.12 (RustCrypto): its RFC 9068 validator, in our own axum extractor,
//! because this crate has no layer. Fetches the key set from its URL: its discovery requires a
//! `token_endpoint`, which `TestIssuer` does not have.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use huskarl_reqwest::ReqwestClient;
use huskarl_resource_server::validator::metadata::ValidatorMetadata;
use huskarl_resource_server::validator::rfc9068::Rfc9068Validator;
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;

use super::{Failure, jwks_url};

struct Protection {
    validator: Rfc9068Validator,
    metadata: ValidatorMetadata,
}

struct Subject(String);

pub async fn router(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Option<Router>, Failure> {
    let client = ReqwestClient::builder().build().await?;
    let validator = Rfc9068Validator::builder()
        .issuer(issuer.iss())
        .audience(audience)
        .allowed_signing_algorithms(vec![algorithm.name().to_owned()])
        .jwks_uri(jwks_url(issuer).parse()?)
        .jwks_source(client)
        .build()
        .await?;
    let metadata = validator.validator_metadata(None);
    let subject = async |Subject(subject): Subject| subject;
    Ok(Some(
        Router::new()
            .route("/", get(subject))
            .with_state(Arc::new(Protection { validator, metadata })),
    ))
}

impl FromRequestParts<Arc<Protection>> for Subject {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        protection: &Arc<Protection>,
    ) -> Result<Self, Response> {
        let result = protection
            .validator
            .validate_request(&parts.headers, &parts.method, &parts.uri, None)
            .await;
        if let Some(rejection) = result.rejection(&protection.metadata, None) {
            let response = rejection.apply(Response::builder()).body(Body::empty());
            return Err(response.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR).into_response());
        }
        match result.outcome {
            Ok(Some(request)) => Ok(Self(request.sub.unwrap_or_default())),
            _ => Err(StatusCode::UNAUTHORIZED.into_response()),
        }
    }
}
