#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
//! Tower middleware that lets only verified OAuth 2.0 access tokens through to an API.
//!
//! OAuth calls an API backend a *resource server* (RFC 6749 §1.1). For every request, this crate
//! extracts the access token (RFC 6750), finds the issuer named by its `iss`, takes that issuer's
//! key set (RFC 7517) from a cache, and checks signature, issuer, audience, validity period
//! (RFC 9068, RFC 8725) and scopes. The handler receives a verified [`AccessToken`].
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
//!     format!("orders of {}", token.subject().unwrap_or("unknown"))
//! }
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
//!
//! # Overview
//!
//! - [`Issuer`]: a trusted issuer, with its audience and its keys. [`Issuers`]: several of them, or
//!   a lookup.
//! - [`Verifier`]: verifies a token string and returns an [`AccessToken`] or an [`Error`]. It can
//!   be used without HTTP.
//! - [`ProtectLayer`]: a [`tower_layer::Layer`] that verifies the token of each request and checks
//!   what the route requires.
//! - [`ResourceMetadata`]: the document that tells clients where to get a token (RFC 9728).
//! - [`Rule`]: what an operation requires of a token.
//! - [`Introspection`]: how an issuer is asked about its opaque tokens (RFC 7662).
//! - [`ApiKeys`]: API keys that are accepted beside access tokens.
//! - [`Dpop`]: access tokens that are bound to a key of their client (RFC 9449).
//! - [`ClientCertificates`]: access tokens that are bound to a certificate (RFC 8705).
//! - [`Revocations`]: tokens that end before they expire, in memory or in a shared log;
//!   [`BackChannelLogout`] and [`SecurityEvents`] receive what issuers revoke.
//! - `StatusLists` (feature `status-list`): the status lists of an issuer.
//! - [`SharedStore`]: state that the replicas of an API share.
//! - [`Error`]: every reason for a rejection, with its status and challenge.
//! - [`Jwks::verify`]: verifies signed documents that are not access tokens.
//! - `Claims` (feature `axum`): an extractor for the application's own type of claims.
//! - `testing` (feature `testing`): a module with an issuer and a clock for tests.
//!
//! # Guides
//!
//! - [`providers`]: one constructor per identity provider, and the settings that it needs
//! - [Rules of a route](guide::rules): what a route requires, rejections, cookies and gateways
//! - [Authorization](guide::authorization): checks that ask a database or a policy service
//! - [Opaque tokens](guide::opaque_tokens): tokens that their issuer is asked about (RFC 7662)
//! - [API keys](guide::api_keys): keys for machines, beside access tokens
//! - [Revocation](guide::revocation): tokens that end before they expire; FAPI 2.0
//! - [Sender-constrained tokens](guide::sender_constrained): DPoP, mutual TLS, shared used proofs
//! - [Other frameworks](guide::frameworks): actix-web, poem, salvo, AWS Lambda
//! - [Recipes](guide::recipes): what to write for which set-up
//! - [MCP](guide::mcp): an MCP server whose tools have scopes
//! - [Resource metadata](guide::resource_metadata): what clients need to find your issuer
//! - [Local development](guide::local_development): tokens while you develop
//! - [Testing](guide::testing): how to test a protected service
//! - [Error codes](guide::errors): every error code, its cause and its cure
//! - [Operations](guide::operations): readiness, events, metrics and alerts
//! - [FIPS](guide::fips): cryptography by a FIPS 140-3 module
//! - [Migrating](guide::migrating): how to migrate from another crate
//! - [Performance](guide::performance): what a request costs
//! - [Comparison](guide::comparison): how this crate compares with alternatives
//! - [How portcullis is tested](guide::how_it_is_tested): for those who audit it
//!
//! # Features
//!
//! | feature | default | gives |
//! |---|---|---|
//! | `aws-lc-rs` | yes | cryptography and TLS by aws-lc-rs: every algorithm; needs a C compiler |
//! | `rust-crypto` | | cryptography by RustCrypto: no C compiler; no ES512 or ML-DSA, RSA up to 4096 bits; does not provide TLS |
//! | `axum` | | extractors [`AccessToken`] and `Claims<T>` |
//! | `mcp` | | [`mcp::McpLayer`]: rules for the tools, resources and prompts of an MCP server |
//! | `metrics` | | counters, gauges and histograms, recorded with the `metrics` facade |
//! | `status-list` | | `StatusLists`: tokens are rejected by the status lists of their issuers |
//! | `redis` | | `RedisStore`: replicas share which DPoP proofs were used, and what was revoked |
//! | `testing` | | `TestIssuer` and `TestClock`: an issuer inside your tests |
//!
//! Features are additive. If both cryptography backends are enabled, aws-lc-rs is used. Tokens are
//! verified with the selected backend only: no process-wide crypto provider is read or set.

#[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
compile_error!(
    "portcullis needs cryptography: enable its feature `aws-lc-rs` (the default) or, on a machine without a C compiler, `rust-crypto`"
);

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod access_token;
mod algorithm;
mod api_key;
mod binding;
mod breaker;
mod client_certificate;
mod clock;
mod crypto;
mod dpop;
mod error;
#[cfg(feature = "axum")]
mod extract;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(doc, doctest))]
pub mod guide;
mod health;
mod http_client;
mod introspection;
mod issuer;
mod keys;
#[cfg(feature = "mcp")]
pub mod mcp;
mod middleware;
mod permits;
pub mod providers;
mod revocation;
mod rule;
mod shared_store;
mod single_flight;
#[cfg(feature = "status-list")]
mod status_list;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod token_cache;
mod token_source;
mod verifier;

pub use access_token::{AccessToken, TokenKind};
pub use algorithm::Algorithm;
pub use api_key::keys::ApiKeys;
pub use api_key::{ApiKey, ApiKeyHash, GeneratedApiKey};
pub use client_certificate::ClientCertificate;
pub use client_certificate::header::CertificateHeader;
pub use client_certificate::source::ClientCertificates;
pub use dpop::Dpop;
pub use dpop::accepted::DpopProof;
pub use dpop::nonces::Nonces;
pub use dpop::request_url::ForwardedUrl;
pub use error::{
    ClaimsError, ConfigError, Error, FetchError, IgnoredKeyReason, InvalidRequest, InvalidToken,
    ProofError, TransportError,
};
#[cfg(feature = "axum")]
pub use extract::{AccessTokenRejection, Claims};
#[cfg(feature = "status-list")]
pub use health::StatusListHealth;
pub use health::{
    IntrospectionHealth, IssuerHealth, RevocationLogHealth, RevocationsHealth, WarmUpError,
};
pub use http_client::HttpClient;
pub use introspection::Introspection;
pub use introspection::client_auth::ClientAuth;
pub use issuer::Issuer;
pub use issuer::issuers::{Issuers, LookupAnswer};
pub use keys::jwks::{Jwks, VerifiedJws};
pub use middleware::effects::EXPOSED_HEADERS;
pub use middleware::future::ResponseFuture;
pub use middleware::layer::ProtectLayer;
pub use middleware::rejection::{EmptyBody, ProblemJson, RejectWith, RejectionBody};
pub use middleware::resource_metadata::ResourceMetadata;
pub use middleware::resource_metadata::builder::ResourceMetadataBuilder;
pub use middleware::resource_metadata::service::{
    ResourceMetadataFuture, ResourceMetadataLayer, ResourceMetadataService, ServeResourceMetadata,
};
pub use middleware::service::Protect;
pub use middleware::verify_request::Rejection;
pub use revocation::Revocations;
pub use revocation::receiver::events::{SecurityEvent, SecurityEvents};
pub use revocation::receiver::logout::BackChannelLogout;
pub use rule::Rule;
#[cfg(feature = "redis")]
pub use shared_store::redis::RedisStore;
pub use shared_store::{LogEntries, LogPosition, SharedStore, StoreError, StoreFuture};
#[cfg(feature = "status-list")]
pub use status_list::StatusLists;
pub use token::audience::Audience;
pub use token::scope::{InvalidScope, Scope};
pub use token_source::TokenSource;
pub use verifier::{Verifier, VerifierBuilder};
