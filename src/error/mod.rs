//! Whose fault, what was expected, what was presented.

mod claims;
mod config;
mod fetch;
mod invalid_token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use claims::ClaimsError;
pub use config::ConfigError;
pub use fetch::{FetchError, IgnoredKeyReason, TransportError};
pub(crate) use invalid_token::ENTRA_V1;
pub use invalid_token::InvalidToken;

use crate::token::scope::Scope;

/// Why a request, or a token, was refused. [`http`](crate::ProtectLayer) answers follow from the variant alone:
///
/// | variant | status | challenge (RFC 6750 §3) | whose fault |
/// |---|---|---|---|
/// | `Missing` | 401 | `Bearer realm="…"`, the scopes asked for, no `error` | client |
/// | `InvalidRequest` | 400 | `error="invalid_request"` | client |
/// | `InvalidToken` | 401 | `error="invalid_token"` | client |
/// | `InsufficientScope` | 403 | `error="insufficient_scope", scope="…"` | client |
/// | `Forbidden`, `Claims` | 403 | `Bearer realm="…"`, no `error`: no other token would help | client |
/// | `InsufficientAuthentication` | 401 | `error="insufficient_user_authentication"` (RFC 9470), `acr_values`, `max_age` | client |
/// | `KeysUnavailable`, `LookupFailed` | 503 | none; `Retry-After` | us or the issuer |
///
/// The layer leaves the `Error` in the *response's* extensions. What was presented stands in it as the client sent it:
/// fit for a debugger, not for a label or a page.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request has no credentials, or those of a scheme other than `Bearer`.
    #[error("no access token where one may be: by default in `Authorization: Bearer …`")]
    Missing,
    /// The request is malformed (RFC 6750 §3.1 `invalid_request`).
    #[error("malformed request: expected {0}")]
    InvalidRequest(InvalidRequest),
    /// The access token is refused (RFC 6750 §3.1 `invalid_token`).
    #[error("invalid access token: {0}")]
    InvalidToken(InvalidToken),
    /// The access token is good, but lacks a scope that the operation asks for (RFC 6750 §3.1 `insufficient_scope`).
    #[error("insufficient scope: expected \"{required}\", the token grants \"{granted}\"")]
    #[non_exhaustive]
    InsufficientScope {
        /// Every scope token that the operation asks for.
        required: Scope,
        /// What the token grants.
        granted: Scope,
    },
    /// The access token is good and has every scope that the operation asks for, but lacks something else: a permission, a
    /// role, a claim. The challenge has no `error`: clients that hear `insufficient_scope` ask for another token, and the
    /// next one would lack the same.
    #[error("expected a token with {rule}")]
    #[non_exhaustive]
    Forbidden {
        /// What is asked for, as [`Rule`](crate::Rule) writes it.
        rule: String,
        /// Every scope token that the operation asks for beside it; the token has them.
        scope: Scope,
    },
    /// The access token is good, but its claims do not fit the type that the handler asks for.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The user must sign in again, or in a stronger way (RFC 9470 §3 `insufficient_user_authentication`).
    #[error("expected the user to sign in{}{}", acr_of(acr_values), within(*max_age))]
    #[non_exhaustive]
    InsufficientAuthentication {
        /// By one of these authentication context classes, if any are asked for.
        acr_values: Vec<String>,
        /// No longer ago than this.
        max_age: Option<Duration>,
    },
    /// The issuer is trusted, but its keys could not be had, or not the one that the token names. While the issuer answers in
    /// time, nothing in a token can cause this.
    #[error("keys of issuer {issuer:?} are unavailable: {reason}")]
    #[non_exhaustive]
    KeysUnavailable {
        /// The issuer, as configured.
        issuer: Arc<str>,
        /// What the last attempt ended with.
        reason: FetchError,
    },
    /// [`Issuers::lookup_async`](crate::Issuers::lookup_async) failed, and nothing is known of the issuer from before.
    #[error("lookup of the issuer failed: {reason}")]
    #[non_exhaustive]
    LookupFailed {
        /// The lookup's own error.
        reason: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl From<InvalidToken> for Error {
    fn from(reason: InvalidToken) -> Self {
        Self::InvalidToken(reason)
    }
}

impl Error {
    /// Whether the log is told by whoever answers the request. What is wrong with a token, the verifier has told it already.
    pub(crate) fn is_told_by_the_request(&self) -> bool {
        !matches!(
            self,
            Self::InvalidToken(_) | Self::KeysUnavailable { .. } | Self::LookupFailed { .. }
        )
    }

    /// The status of the answer to such a request.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::InvalidToken(_) | Self::InsufficientAuthentication { .. } => {
                StatusCode::UNAUTHORIZED
            }
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope { .. } | Self::Forbidden { .. } | Self::Claims(_) => {
                StatusCode::FORBIDDEN
            }
            Self::KeysUnavailable { .. } | Self::LookupFailed { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The `error` of the challenge, by its RFC name (RFC 6750 §3.1, RFC 9470 §3): all that the client may know of the
    /// reason. `None` if the challenge has none.
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
            Self::InsufficientScope { .. } => Some("insufficient_scope"),
            Self::InsufficientAuthentication { .. } => Some("insufficient_user_authentication"),
            Self::Missing
            | Self::Forbidden { .. }
            | Self::Claims(_)
            | Self::KeysUnavailable { .. }
            | Self::LookupFailed { .. } => None,
        }
    }

    /// A name that stays the same across versions, for logs and metrics. Clients should not hear it: for them there is
    /// [`oauth_error`](Self::oauth_error).
    ///
    #[doc = include_str!("../../docs/errors.md")]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidToken(reason) => reason.code(),
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::Forbidden { .. } => "forbidden",
            Self::Claims(_) => "claims_mismatch",
            Self::InsufficientAuthentication { .. } => "insufficient_user_authentication",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::LookupFailed { .. } => "lookup_failed",
        }
    }
}

fn acr_of(classes: &[String]) -> String {
    if classes.is_empty() { String::new() } else { format!(" by one of {classes:?}") }
}

fn within(max_age: Option<Duration>) -> String {
    max_age.map_or_else(String::new, |age| format!(" within {age:?}"))
}

/// What is wrong with the request that carried the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// More than one token: two `Authorization` headers, two cookies, a header and a cookie (RFC 6750 §2).
    Repeated,
    /// Where the token should be is none, or one with characters outside b64token (RFC 6750 §2.1).
    Credentials,
    /// The token is in a cookie or in a gateway's header, and the request is of a page that may not use it
    /// ([`TokenSource::cookie`](crate::TokenSource::cookie)).
    Origin,
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Repeated => "one access token, in one place",
            Self::Credentials => {
                "one b64token (RFC 6750 §2.1); in `Authorization`, after `Bearer` and a space"
            }
            Self::Origin => "an `Origin` that may use the cookie or the gateway's header",
        })
    }
}

impl std::error::Error for InvalidRequest {}

#[cfg(test)]
mod tests;
