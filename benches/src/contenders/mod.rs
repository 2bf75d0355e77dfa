//! Portcullis and its neighbours, each in front of the same handler.
//!
//! Each does the same work: signature by the issuer's key set, `iss`, `aud` and `exp` checked, and the handler answers with
//! `sub`. Each is set up as its documentation says for production, with its keys loaded before anything is measured.

pub mod aliri;
pub mod axum_jwt_auth;
pub mod huskarl_resource_server;
pub mod jsonwebtoken;
pub mod jwt_authorizer;
pub mod oauth_resource_server;
pub mod tower_oauth2_resource_server;

use std::env::{self, VarError};

use ::jsonwebtoken::crypto as crypto_11;
use axum::Router;
use axum::routing::get;
use jsonwebtoken_10::crypto as crypto_10;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, Algorithm, ProtectLayer, Verifier};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An API behind one crate: `GET /`.
pub struct Contender {
    pub name: &'static str,
    pub app: Router,
}

/// Lets jsonwebtoken 10 and 11 verify with aws-lc-rs, or with RustCrypto if the environment says `BACKEND=rust-crypto`.
///
/// To be called once, before anything is verified: both backends are compiled in, and without a choice jsonwebtoken panics.
pub fn choose_backend() -> Result<(), Failure> {
    let (provider_10, provider_11) = match env::var("BACKEND").as_deref() {
        Ok("aws-lc-rs") | Err(VarError::NotPresent) => {
            (&crypto_10::aws_lc::DEFAULT_PROVIDER, &crypto_11::aws_lc::DEFAULT_PROVIDER)
        }
        Ok("rust-crypto") => (&crypto_10::rust_crypto::DEFAULT_PROVIDER, &crypto_11::rust_crypto::DEFAULT_PROVIDER),
        _ => return Err("BACKEND is neither aws-lc-rs nor rust-crypto".into()),
    };
    provider_10.install_default().map_err(|_| "jsonwebtoken 10 has a backend already")?;
    provider_11.install_default().map_err(|_| "jsonwebtoken 11 has a backend already")?;
    Ok(())
}

/// All that support the algorithm, portcullis first. `audience` is that of the tokens: [`portcullis::testing::AUDIENCE`].
pub async fn all(issuer: &TestIssuer, audience: &str, algorithm: Algorithm) -> Result<Vec<Contender>, Failure> {
    let none_kept = Verifier::builder(issuer.issuer()).without_token_cache().build()?;
    none_kept.warm_up().await?;
    let contenders = [
        ("portcullis, without its token cache", Some(portcullis(&none_kept))),
        ("jsonwebtoken", jsonwebtoken::router(issuer, audience, algorithm).await?),
        ("jwt-authorizer", jwt_authorizer::router(issuer, audience, algorithm).await?),
        ("tower-oauth2-resource-server", tower_oauth2_resource_server::router(issuer, audience, algorithm).await?),
        ("aliri", aliri::router(issuer, audience, algorithm).await?),
        ("oauth-resource-server", oauth_resource_server::router(issuer, audience, algorithm).await?),
        ("huskarl-resource-server", huskarl_resource_server::router(issuer, audience, algorithm).await?),
        ("axum-jwt-auth", axum_jwt_auth::router(issuer, audience, algorithm).await?),
    ];
    Ok(contenders.into_iter().filter_map(|(name, app)| Some(Contender { name, app: app? })).collect())
}

/// The handler behind nothing: what all the others have to pay anyway.
pub fn unprotected() -> Router {
    Router::new().route("/", get(async || "auth0|6553da60a54af58e29493993".to_owned()))
}

pub fn portcullis(verifier: &Verifier) -> Router {
    let subject = async |token: AccessToken| token.subject().unwrap_or_default().to_owned();
    Router::new().route("/", get(subject)).route_layer(ProtectLayer::new(verifier.clone()))
}

/// For those that do no discovery.
fn jwks_url(issuer: &TestIssuer) -> String {
    format!("{}.well-known/jwks.json", issuer.iss())
}
