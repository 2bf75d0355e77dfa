//! Utilities for the tests of an application: an issuer inside the test with its own keys, a
//! builder for valid and invalid tokens, a clock that the test controls, verified tokens for the
//! tests of handlers, and assertions on challenges.
//!
//! `docs/testing.md` shows how to test a handler, a router, a key rotation, an outage, a
//! multi-tenant service and a gRPC service.
//!
//! ```
//! use portcullis::Verifier;
//! use portcullis::testing::TestIssuer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let issuer = TestIssuer::start()?;
//! let verifier = Verifier::new(issuer.issuer())?;
//!
//! let good = issuer.token().subject("alice").scope("read:messages").build();
//! assert_eq!(verifier.verify(&good).await?.subject(), Some("alice"));
//!
//! let expired = issuer.token().expired().build();
//! assert!(verifier.verify(&expired).await.is_err());
//!
//! assert_eq!(issuer.jwks_fetches(), 1, "one fetch served both");
//! # Ok(())
//! # }
//! ```
//!
//! # Feature `testing`
//!
//! [`TestIssuer`] can sign any token and [`TestClock`] controls expiry: enable the feature
//! `testing` in `[dev-dependencies]` only. If it is enabled in a build without debug assertions,
//! the first [`Verifier`](crate::Verifier) logs a warning (level `WARN`). Nothing in this module
//! disables verification.

mod authenticated;
mod challenge;
mod discovery;
mod dpop_client;
mod issuer;
mod providers;
mod server;
mod signing_key;
#[cfg(feature = "status-list")]
mod status_list;
mod store;
mod token_builder;

pub use authenticated::{Authenticated, AuthenticatedAs, authenticated_as};
pub use challenge::{
    Challenge, ChallengeAssertion, ChallengeError, assert_challenge, assert_dpop_challenge,
    challenges,
};
pub use discovery::assert_discoverable;
pub use dpop_client::{DpopClient, ProofBuilder};
pub use issuer::{AUDIENCE, Behavior, TestIssuer};
#[cfg(feature = "status-list")]
pub use status_list::TestStatusList;
pub use store::{StoreBehavior, TestStore};
pub use token_builder::TokenBuilder;

pub use crate::clock::TestClock;
