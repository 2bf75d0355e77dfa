//! Errors. Each states what was expected, what was presented, and who has to act.

mod claims;
mod config;
mod fetch;
mod invalid_token;
mod proof;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use claims::ClaimsError;
pub use config::ConfigError;
pub use fetch::{FetchError, IgnoredKeyReason, TransportError};
pub(crate) use invalid_token::ENTRA_V1;
pub use invalid_token::InvalidToken;
pub use proof::ProofError;

use crate::token::scope::Scope;

/// Any error, of a closure of the application.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request or a token was rejected. The variant alone determines the
/// [HTTP response](crate::ProtectLayer):
///
/// | variant | status | challenge (RFC 6750 §3) | caused by |
/// |---|---|---|---|
/// | `Missing` | 401 | `Bearer realm="…"`, the required scopes, no `error` | client |
/// | `InvalidRequest` | 400 | `error="invalid_request"` | client |
/// | `InvalidToken` | 401 | `error="invalid_token"` | client |
/// | `InvalidProof` | 401 | `DPoP`, `error="invalid_dpop_proof"` or `"use_dpop_nonce"` (RFC 9449) | client |
/// | `InsufficientScope` | 403 | `error="insufficient_scope", scope="…"` | client |
/// | `Forbidden`, `ClaimsMismatch` | 403 | `Bearer realm="…"`, no `error`: a new token would not help | client |
/// | `InsufficientAuthentication` | 401 | `error="insufficient_user_authentication"` (RFC 9470), `acr_values`, `max_age` | client |
/// | `TooManyProofs` | 429 | none; `Retry-After` | client |
/// | `KeysUnavailable`, `IntrospectionUnavailable`, `LookupFailed`, `AuthorizationFailed`, `ReplaysUnavailable`, `RevocationsUnavailable` | 503 | none; `Retry-After` | the service or the issuer |
///
/// The layer stores the `Error` in the extensions of the *response*. It contains unescaped client
/// input: do not put it into metric labels or HTML.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request has no credentials, or only credentials of a scheme other than `Bearer`.
    #[error(
        "no access token where one may be: by default in `Authorization: Bearer …`, or `DPoP …` if that is configured"
    )]
    Missing,
    /// The request is malformed (RFC 6750 §3.1 `invalid_request`).
    #[error("malformed request: expected {0}")]
    InvalidRequest(InvalidRequest),
    /// The access token is rejected (RFC 6750 §3.1 `invalid_token`).
    #[error("invalid access token: {0}")]
    InvalidToken(InvalidToken),
    /// The DPoP proof is rejected (RFC 9449 §7.1 `invalid_dpop_proof`, §9 `use_dpop_nonce`).
    #[error("invalid DPoP proof: {0}")]
    InvalidProof(#[from] ProofError),
    /// The key of the client has used its share of proofs
    /// ([`Dpop::max_proofs_per_key`](crate::Dpop::max_proofs_per_key)).
    #[error("expected fewer DPoP proofs of one key")]
    TooManyProofs,
    /// It cannot be recorded that a DPoP proof was used, so that it might be used again.
    #[error("used DPoP proofs cannot be recorded: {reason}")]
    #[non_exhaustive]
    ReplaysUnavailable {
        /// What failed.
        reason: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// What was revoked is not known: the log of [`Revocations`](crate::Revocations) was not read
    /// yet, or cannot be read for longer than allowed; or the status list that the token names
    /// ([feature `status-list`](crate#features)) is not available.
    #[error("revocations are not known")]
    RevocationsUnavailable,
    /// The access token is valid, but lacks a scope that the operation requires (RFC 6750 §3.1
    /// `insufficient_scope`).
    #[error("insufficient scope: expected \"{required}\", the token grants \"{granted}\"")]
    #[non_exhaustive]
    InsufficientScope {
        /// The scope tokens that the operation requires.
        required: Scope,
        /// The scope tokens that the token grants.
        granted: Scope,
    },
    /// The access token is valid and has every required scope, but lacks something else: a
    /// permission, a role or a claim. The challenge has no `error`, because clients respond to
    /// `insufficient_scope` by requesting another token, which would lack the same.
    #[error("expected a token with {rule}")]
    #[non_exhaustive]
    Forbidden {
        /// The requirement, as displayed by [`Rule`](crate::Rule).
        rule: String,
        /// The scope tokens that the operation also requires, all of which the token has.
        scope: Scope,
    },
    /// The access token is valid, but its claims do not fit the type that the handler expects.
    #[error(transparent)]
    ClaimsMismatch(#[from] ClaimsError),
    /// The user must sign in again, or with a stronger method (RFC 9470 §3
    /// `insufficient_user_authentication`).
    #[error("expected the user to sign in{}{}", acr_of(acr_values), within(*max_age))]
    #[non_exhaustive]
    InsufficientAuthentication {
        /// The accepted authentication context classes; empty if any is accepted.
        acr_values: Vec<String>,
        /// The maximum time since the user signed in.
        max_age: Option<Duration>,
    },
    /// The issuer is trusted, but its keys could not be fetched, or not the key that the token
    /// names. As long as the issuer responds in time, the content of a token cannot cause this
    /// error, except for keys fetched one by one
    /// ([`Issuer::pem_key_prefix`](crate::Issuer::pem_key_prefix)).
    #[error("keys of issuer {issuer:?} are unavailable: {reason}")]
    #[non_exhaustive]
    KeysUnavailable {
        /// The issuer, as configured.
        issuer: Arc<str>,
        /// The error of the last attempt.
        reason: FetchError,
    },
    /// The issuer was to be asked about the token ([`Issuer::introspection`]), and gave no usable
    /// answer.
    ///
    /// [`Issuer::introspection`]: crate::Issuer::introspection
    #[error("issuer {issuer:?} cannot be asked about the token: {reason}")]
    #[non_exhaustive]
    IntrospectionUnavailable {
        /// The issuer, as configured.
        issuer: Arc<str>,
        /// What failed.
        reason: FetchError,
    },
    /// The lookup of the issuer ([`Issuers::lookup`](crate::Issuers::lookup) or
    /// [`Issuers::lookup_async`](crate::Issuers::lookup_async)) or of the API key
    /// ([`ApiKeys::lookup`](crate::ApiKeys::lookup)) failed, and no earlier answer is still usable.
    #[error("lookup failed: {reason}")]
    #[non_exhaustive]
    LookupFailed {
        /// The error of the lookup.
        reason: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A check of the application ([`ProtectLayer::authorize`](crate::ProtectLayer::authorize))
    /// failed or took too long.
    #[error("authorization check failed: {reason}")]
    #[non_exhaustive]
    AuthorizationFailed {
        /// The error of the check.
        reason: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl From<InvalidToken> for Error {
    fn from(reason: InvalidToken) -> Self {
        Self::InvalidToken(reason)
    }
}

impl Error {
    /// Whether the layer that handles the request logs this error. The verifier has already logged
    /// the others.
    pub(crate) fn is_logged_by_layer(&self) -> bool {
        !matches!(
            self,
            Self::InvalidToken(_)
                | Self::KeysUnavailable { .. }
                | Self::IntrospectionUnavailable { .. }
                | Self::LookupFailed { .. }
                | Self::RevocationsUnavailable
        )
    }

    /// Returns the HTTP status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing
            | Self::InvalidToken(_)
            | Self::InvalidProof(_)
            | Self::InsufficientAuthentication { .. } => StatusCode::UNAUTHORIZED,
            Self::TooManyProofs => StatusCode::TOO_MANY_REQUESTS,
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope { .. } | Self::Forbidden { .. } | Self::ClaimsMismatch(_) => {
                StatusCode::FORBIDDEN
            }
            Self::KeysUnavailable { .. }
            | Self::IntrospectionUnavailable { .. }
            | Self::LookupFailed { .. }
            | Self::ReplaysUnavailable { .. }
            | Self::RevocationsUnavailable
            | Self::AuthorizationFailed { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the `error` of the challenge, by its RFC name (RFC 6750 §3.1, RFC 9470 §3), or
    /// `None` if the challenge has none. Apart from this, the client gets only a fixed
    /// `error_description`. It says that a token expired only if its signature was verified.
    ///
    /// ```
    /// use portcullis::{Error, InvalidToken};
    ///
    /// let error = Error::from(InvalidToken::Opaque);
    /// assert_eq!((error.status().as_u16(), error.oauth_error()), (401, Some("invalid_token")));
    /// assert_eq!(error.code(), "opaque", "for the log, not for the client");
    /// ```
    pub fn oauth_error(&self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest(_) => Some("invalid_request"),
            Self::InvalidToken(_) => Some("invalid_token"),
            Self::InvalidProof(ProofError::NonceNeeded) => Some("use_dpop_nonce"),
            Self::InvalidProof(_) => Some("invalid_dpop_proof"),
            Self::InsufficientScope { .. } => Some("insufficient_scope"),
            Self::InsufficientAuthentication { .. } => Some("insufficient_user_authentication"),
            Self::Missing
            | Self::TooManyProofs
            | Self::ReplaysUnavailable { .. }
            | Self::RevocationsUnavailable
            | Self::Forbidden { .. }
            | Self::ClaimsMismatch(_)
            | Self::KeysUnavailable { .. }
            | Self::IntrospectionUnavailable { .. }
            | Self::LookupFailed { .. }
            | Self::AuthorizationFailed { .. } => None,
        }
    }

    /// Returns a name that is stable across versions, for logs and metrics. Do not send it to
    /// clients: they get [`oauth_error`](Self::oauth_error). The guide
    /// [Error codes](crate::guide::errors) lists all of them.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidToken(reason) => reason.code(),
            Self::InvalidProof(reason) => reason.code(),
            Self::TooManyProofs => "too_many_proofs",
            Self::ReplaysUnavailable { .. } => "replays_unavailable",
            Self::RevocationsUnavailable => "revocations_unavailable",
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::Forbidden { .. } => "forbidden",
            Self::ClaimsMismatch(_) => "claims_mismatch",
            Self::InsufficientAuthentication { .. } => "insufficient_user_authentication",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::IntrospectionUnavailable { .. } => "introspection_unavailable",
            Self::LookupFailed { .. } => "lookup_failed",
            Self::AuthorizationFailed { .. } => "authorization_failed",
        }
    }
}

fn acr_of(classes: &[String]) -> String {
    if classes.is_empty() { String::new() } else { format!(" by one of {classes:?}") }
}

fn within(max_age: Option<Duration>) -> String {
    max_age.map_or_else(String::new, |age| format!(" within {age:?}"))
}

/// What is wrong with a request that carries credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// There is more than one token: two `Authorization` headers, two cookies, or a header and a
    /// cookie (RFC 6750 §2).
    RepeatedToken,
    /// The token is missing from its location, or has characters outside b64token (RFC 6750 §2.1).
    MalformedCredentials,
    /// The token is in a cookie or in a header set by a gateway, and the request comes from a page
    /// whose origin may not use it ([`TokenSource::cookie`](crate::TokenSource::cookie)).
    ForbiddenOrigin,
    /// The host of the request, or what the trusted proxy forwards, is no valid URL
    /// ([`Dpop::at_hosts`](crate::Dpop::at_hosts)).
    MalformedUrl,
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::RepeatedToken => "one access token, in one place",
            Self::MalformedCredentials => {
                "one b64token (RFC 6750 §2.1); in `Authorization`, after `Bearer` and a space"
            }
            Self::MalformedUrl => "one valid host, and a valid path prefix",
            Self::ForbiddenOrigin => "an `Origin` that may use the cookie or the gateway's header",
        })
    }
}

impl std::error::Error for InvalidRequest {}

#[cfg(test)]
mod tests;
