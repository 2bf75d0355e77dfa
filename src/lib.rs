#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
//! Tower middleware that lets only verified OAuth 2.0 access tokens through to an API.
//!
//! A *resource server* (RFC 6749 §1.1) is an API backend; this crate is its gate. For every request it extracts the access
//! token (RFC 6750), finds the issuer it claims to come from, has that issuer's key set (RFC 7517) at hand, checks
//! signature, issuer, audience, time (RFC 9068, RFC 8725) and scopes, and hands the handler a verified [`AccessToken`].
//!
//! ```
//! use axum::{Router, routing::get};
//! use portcullis::{AccessToken, Issuer, ProtectLayer, Verifier};
//!
//! let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
//! let protect = ProtectLayer::new(Verifier::new(issuer)?);
//! let app: Router = Router::new().route("/orders", get(orders)).route_layer(protect);
//!
//! async fn orders(token: AccessToken) -> String {
//!     format!("orders of {}", token.subject().unwrap_or("nobody"))
//! }
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
//!
//! # Where to read on
//!
//! - [`Issuer`]: whom to trust, for which audience, with which keys; [`Issuers`]: many of them, or a look-up
//! - [`Verifier`]: token string in, [`AccessToken`] or [`Error`] out; without HTTP, too
//! - [`ProtectLayer`]: the same as a [`tower_layer::Layer`], and what a route asks for
//! - [`Error`]: the table from reason to status and challenge
//! - [`Jwks::verify`]: signed things that are no access tokens
//! - `Claims` (feature `axum`), and the module `testing` (feature `testing`)
//!
//! # Features
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `aws-lc-rs` | yes | cryptography and TLS by aws-lc-rs: every algorithm; needs a C compiler |
//! | `rust-crypto` | | cryptography by RustCrypto: no C compiler; no ES512, RSA up to 4096 bits, no TLS of its own |
//! | `axum` | | extractors [`AccessToken`] and `Claims<T>` |
//! | `metrics` | | counters and a gauge by the `metrics` facade |
//! | `testing` | | `TestIssuer`, `TestClock`: an issuer inside your tests |
//!
//! Features only add. With both cryptographies on, aws-lc-rs is used. Tokens are verified by what was chosen here, by
//! value: no process-wide provider is read or set for it.

#[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
compile_error!(
    "portcullis needs cryptography: enable its feature `aws-lc-rs` (the default) or, on a machine without a C compiler, `rust-crypto`"
);

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The guides' code compiles.
#[cfg(all(doctest, feature = "axum", feature = "testing"))]
mod guides {
    #[doc = include_str!("../docs/providers.md")]
    struct Providers;
    #[doc = include_str!("../docs/rules.md")]
    struct Rules;
    #[doc = include_str!("../docs/migrating.md")]
    struct Migrating;
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/operations.md")]
    struct Operations;
}

mod access_token;
mod algorithm;
mod clock;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod health;
mod http_client;
mod issuer;
mod keys;
mod middleware;
pub mod providers;
mod rule;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod token_cache;
mod token_source;
mod verifier;

pub use access_token::AccessToken;
pub use algorithm::Algorithm;
pub use error::{
    ClaimsError, ConfigError, Error, FetchError, IgnoredKeyReason, InvalidRequest, InvalidToken,
    TransportError,
};
#[cfg(feature = "axum")]
pub use extract::{AccessTokenRejection, Claims};
pub use health::{IssuerHealth, WarmUpError};
pub use http_client::HttpClient;
pub use issuer::Issuer;
pub use issuer::issuers::{Issuers, LookupAnswer};
pub use keys::jwks::{Jwks, VerifiedJws};
pub use middleware::future::ResponseFuture;
pub use middleware::layer::ProtectLayer;
pub use middleware::rejection::{EmptyBody, ProblemJson, RejectWith, RejectionBody};
pub use middleware::service::Protect;
pub use rule::Rule;
pub use token::audience::Audience;
pub use token::scope::Scope;
pub use token_source::TokenSource;
pub use verifier::{Verifier, VerifierBuilder};
