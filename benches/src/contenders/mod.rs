//! portcullis and other crates, each in front of the same handler.
//!
//! Each does the same work: it verifies the signature with the issuer's key set, checks `iss`,
//! `aud` and `exp`, and the handler returns `sub`. Each is configured as its documentation
//! recommends for production, and has loaded its keys before the measurement.

#[cfg(feature = "peers")]
mod peers;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
#[cfg(feature = "peers")]
pub use peers::choose_backend;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, Algorithm, ProtectLayer, Verifier};

use crate::limit::Limit;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The URL of all requests, as DPoP proofs name it.
pub const PROOF_URL: &str = "https://api.example.com/";

/// portcullis without the token cache.
pub const WITHOUT_CACHE: &str = "portcullis, no token cache";

/// The limit within a request: a handler verifies the signature alone.
pub const SIGNATURE_ALONE: &str = "the signature alone, in a handler";

/// An API that is protected by one crate: `GET /`.
pub struct Contender {
    pub name: String,
    pub app: Router,
}

/// Without the other crates, there is no backend to choose.
#[cfg(not(feature = "peers"))]
pub fn choose_backend() -> Result<(), Failure> {
    Ok(())
}

/// All crates that support the algorithm, portcullis first. `audience` is that of the tokens:
/// [`portcullis::testing::AUDIENCE`].
pub async fn all(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Vec<Contender>, Failure> {
    let none_kept = Verifier::builder(issuer.issuer()).without_token_cache().build()?;
    none_kept.warm_up().await?;
    let mut all = vec![Contender { name: WITHOUT_CACHE.to_owned(), app: portcullis(&none_kept) }];
    #[cfg(feature = "peers")]
    all.extend(peers::all(issuer, audience, algorithm).await?);
    #[cfg(not(feature = "peers"))]
    let _ = (audience, algorithm, &mut all);
    Ok(all)
}

/// The handler without protection: the cost that all others include.
pub fn unprotected() -> Router {
    Router::new().route("/", get(async || "auth0|6553da60a54af58e29493993".to_owned()))
}

/// The handler behind a layer that does nothing: the cost of a layer in axum itself.
pub fn behind_nothing() -> Router {
    unprotected().route_layer(tower::layer::util::Identity::new())
}

/// Verifies only the signature of the token in `Authorization`.
pub fn signature_alone(limit: Limit) -> Router {
    let limit = Arc::new(limit);
    let handler = async move |headers: HeaderMap| {
        let value = headers.get("authorization").and_then(|value| value.to_str().ok());
        match value
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| limit.holds(token))
        {
            true => Ok("auth0|6553da60a54af58e29493993".to_owned()),
            false => Err(StatusCode::UNAUTHORIZED),
        }
    };
    Router::new().route("/", get(handler))
}

pub fn portcullis(verifier: &Verifier) -> Router {
    let subject = async |token: AccessToken| token.subject().unwrap_or_default().to_owned();
    Router::new().route("/", get(subject)).route_layer(ProtectLayer::new(verifier.clone()))
}
