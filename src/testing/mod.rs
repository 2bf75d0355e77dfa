//! For your own tests: an issuer inside the test, with keys of its own, tokens with everything a negative test needs, a clock
//! that the test moves, handlers without tokens, and assertions on what a client is told. `docs/testing.md` shows how to test a
//! handler, a router, a key rotation, an outage, a multi-tenant and a gRPC service.
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
//! Feature `testing`, for `[dev-dependencies]`: whoever holds a [`TestIssuer`] can sign what he likes, and whoever sets a
//! [`TestClock`] decides what has expired. Where it is on in a build without debug assertions, the first
//! [`Verifier`](crate::Verifier) says so in the log, at level `WARN`. Nothing here switches verification off.

mod authenticated;
mod challenge;
mod issuer;
mod providers;
mod server;
mod signing_key;
mod token_builder;

pub use authenticated::{Authenticated, AuthenticatedAs, authenticated_as};
pub use challenge::{Challenge, ChallengeAssertion, ChallengeError, assert_challenge, challenges};
pub use issuer::{AUDIENCE, Behavior, TestIssuer};
pub use token_builder::TokenBuilder;

pub use crate::clock::TestClock;
