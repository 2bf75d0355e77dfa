#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![doc = "portcullis"]

#[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
compile_error!(
    "portcullis needs cryptography: enable its feature `aws-lc-rs` (the default) or, on a machine without a C compiler, `rust-crypto`"
);

mod access_token;
#[cfg(feature = "axum")]
pub mod axum;
mod clock;
mod error;
mod http;
mod issuer;
mod keys;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod verifier;

pub use access_token::AccessToken;
pub use error::{ClaimsError, ConfigError, Error, FetchError, IgnoredKey, InvalidRequest, InvalidToken};
pub use http::layer::ProtectLayer;
pub use http::service::{Protect, ResponseFuture};
pub use issuer::{Audience, Issuer, Issuers};
pub use keys::algorithm::Algorithm;
pub use keys::jwks::{Jwks, VerifiedJws};
pub use token::scope::Scope;
pub use verifier::{Verifier, VerifierBuilder};
