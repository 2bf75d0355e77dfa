//! The other crates, one module each.

mod aliri;
mod axum_jwt_auth;
mod huskarl_axum;
mod jsonwebtoken;
mod jwt_authorizer;
mod oauth_resource_server;
mod tower_oauth2_resource_server;

use std::env::{self, VarError};

use ::jsonwebtoken::crypto as crypto_11;
use jsonwebtoken_10::crypto as crypto_10;
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;

use super::{Contender, Failure};

/// The backend of the crates that use jsonwebtoken 10 or 11.
#[derive(Clone, Copy, PartialEq)]
enum Backend {
    AwsLcRs,
    RustCrypto,
}

fn backend() -> Result<Backend, Failure> {
    match env::var("BACKEND").as_deref() {
        Ok("aws-lc-rs") | Err(VarError::NotPresent) => Ok(Backend::AwsLcRs),
        Ok("rust-crypto") => Ok(Backend::RustCrypto),
        _ => Err("BACKEND: expected aws-lc-rs or rust-crypto".into()),
    }
}

/// Selects the backend of jsonwebtoken 10 and 11: aws-lc-rs, or RustCrypto with
/// `BACKEND=rust-crypto` in the environment.
///
/// Call it once, before the first verification: both backends are compiled in, and jsonwebtoken
/// panics without a choice.
pub fn choose_backend() -> Result<(), Failure> {
    let (provider_10, provider_11) = match backend()? {
        Backend::AwsLcRs => {
            (&crypto_10::aws_lc::DEFAULT_PROVIDER, &crypto_11::aws_lc::DEFAULT_PROVIDER)
        }
        Backend::RustCrypto => {
            (&crypto_10::rust_crypto::DEFAULT_PROVIDER, &crypto_11::rust_crypto::DEFAULT_PROVIDER)
        }
    };
    provider_10.install_default().map_err(|_| "jsonwebtoken 10 has a backend already")?;
    provider_11.install_default().map_err(|_| "jsonwebtoken 11 has a backend already")?;
    Ok(())
}

/// All crates that support the algorithm. With RustCrypto, only those whose backend can be chosen.
pub(super) async fn all(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Vec<Contender>, Failure> {
    let backend = backend()?;
    let by = match backend {
        Backend::AwsLcRs => "aws-lc-rs",
        Backend::RustCrypto => "RustCrypto",
    };
    let mut all = vec![
        (
            format!("jsonwebtoken 11, {by}"),
            jsonwebtoken::router(issuer, audience, algorithm).await?,
        ),
        (
            format!("tower-oauth2-resource-server 0.12, {by}"),
            tower_oauth2_resource_server::router(issuer, audience, algorithm).await?,
        ),
        (
            format!("axum-jwt-auth 0.7, {by}"),
            axum_jwt_auth::router(issuer, audience, algorithm).await?,
        ),
    ];
    if backend == Backend::AwsLcRs {
        let fixed = [
            ("aliri_tower 0.6, ring", aliri::router(issuer, audience, algorithm).await?),
            (
                "jwt-authorizer 0.15, ring",
                jwt_authorizer::router(issuer, audience, algorithm).await?,
            ),
            (
                "oauth-resource-server 0.4, ring",
                oauth_resource_server::router(issuer, audience, algorithm).await?,
            ),
            (
                "huskarl-axum 0.1, RustCrypto",
                huskarl_axum::router(issuer, audience, algorithm).await?,
            ),
        ];
        all.extend(fixed.map(|(name, app)| (name.to_owned(), app)));
    }
    Ok(all.into_iter().filter_map(|(name, app)| Some(Contender { name, app: app? })).collect())
}

/// For crates without discovery.
fn jwks_url(issuer: &TestIssuer) -> String {
    format!("{}.well-known/jwks.json", issuer.iss())
}
