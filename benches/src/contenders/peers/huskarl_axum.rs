//! huskarl-axum 0.1.0 (RustCrypto): its layer that requires a token, with the RFC 9068 validator of
//! huskarl-resource-server 0.11.12. Fetches the key set from its URL: its discovery requires a
//! `token_endpoint`, which `TestIssuer` does not have.

use axum::Router;
use axum::routing::get;
use huskarl_axum::extractors::ValidatedToken;
use huskarl_axum::layers::ValidatorLayer;
use huskarl_axum::resource_server::validator::AccessTokenValidator;
use huskarl_axum::resource_server::validator::rfc9068::Rfc9068Validator;
use huskarl_reqwest::ReqwestClient;
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;

use super::{Failure, jwks_url};
use crate::contenders::PROOF_URL;

type Token = ValidatedToken<<Rfc9068Validator as AccessTokenValidator>::Claims>;

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
    // For DPoP, which is on by default. It remembers no proofs: that is up to the application.
    let protect = ValidatorLayer::builder().validator(validator).base_url(PROOF_URL)?.build();
    let subject = async |token: Token| token.sub.clone().unwrap_or_default();
    Ok(Some(Router::new().route("/", get(subject)).route_layer(protect.authenticated())))
}
