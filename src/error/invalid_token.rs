//! RFC 6750 §3.1 `invalid_token`: why an access token is rejected.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::token::audience::Audience;

/// Why an access token was rejected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// The token is longer than the maximum.
    #[error("expected at most {limit} bytes, found {presented}")]
    #[non_exhaustive]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The length of the token in bytes.
        presented: usize,
    },
    /// The token has no period: it is opaque, and only its issuer can read it. No issuer is
    /// configured to be asked about it ([`Issuer::introspection`](crate::Issuer::introspection),
    /// RFC 7662).
    #[error(
        "expected a JWT, found an opaque token; ask the issuer for JWT access tokens (often by naming the audience), or configure `Issuer::introspection`"
    )]
    Opaque,
    /// The token has five parts: it is encrypted (RFC 7516). Encrypted tokens are not supported.
    #[error(
        "expected a signed JWT, found an encrypted one (JWE); ask the issuer not to encrypt access tokens"
    )]
    Encrypted,
    /// The token is not a compact JWS with a JSON object as header and as payload.
    #[error("malformed: expected {0}")]
    Malformed(&'static str),
    /// `alg` is not supported, or not allowed for the issuer.
    #[error("algorithm {presented:?} is not one of this issuer's")]
    #[non_exhaustive]
    UnsupportedAlgorithm {
        /// The header's `alg`.
        presented: String,
    },
    /// The header has `crit` (RFC 7515 §4.1.11). No extension is supported.
    #[error("the header demands extensions (`crit`), none is supported")]
    UnsupportedCritical,
    /// `typ` is that of another kind of JWT (RFC 9068 §4, RFC 8725 §3.11).
    #[error("`typ` {presented:?} is not that of an access token of this issuer")]
    #[non_exhaustive]
    UnexpectedType {
        /// The header's `typ`.
        presented: Option<String>,
    },
    /// A required claim is missing: `iss`, `exp`, or `aud` or its configured replacement. With
    /// [`require_rfc9068`](crate::Issuer::require_rfc9068), `sub`, `client_id`, `iat` and `jti` are
    /// also required. If a trust domain is configured
    /// ([`providers::spiffe`](crate::providers::spiffe)), a token without `iss` must have `sub`.
    #[error("claim `{0}` is missing")]
    MissingClaim(&'static str),
    /// A claim does not meet a requirement of the issuer
    /// ([`require_claim`](crate::Issuer::require_claim),
    /// [`reject_claim`](crate::Issuer::reject_claim)), or `sub` is not a SPIFFE ID in the trust
    /// domain ([`providers::spiffe`](crate::providers::spiffe)).
    #[error("claim `{claim}`: expected {expected}")]
    #[non_exhaustive]
    ClaimValue {
        /// The name or JSON Pointer of the claim, as configured.
        claim: String,
        /// The expected value, as configured.
        expected: String,
    },
    /// The token could not be verified, and its header has `nonce`: it is a token for one of
    /// Microsoft's own APIs, such as Graph. Its signature does not cover the token as it was sent,
    /// so no other API can verify it.
    #[error(
        "a token for one of Microsoft's own APIs (the header has `nonce`); ask for one with a scope of this API"
    )]
    MicrosoftNonce,
    /// A registered claim has a JSON type other than the one in RFC 7519, or a value out of range.
    #[error("claim `{claim}`: expected {expected}")]
    #[non_exhaustive]
    ClaimType {
        /// The claim's name.
        claim: &'static str,
        /// The type or range by RFC 7519 §4.1.
        expected: &'static str,
    },
    /// `iss` is not a trusted issuer.
    #[error("issuer {presented:?} is not trusted{}", hint(presented, .similar))]
    #[non_exhaustive]
    UnknownIssuer {
        /// The claim `iss`, unverified.
        presented: String,
        /// The trusted issuer that was probably meant: one that differs only in a trailing slash,
        /// or the same tenant of Microsoft Entra ID for tokens of version 2.0.
        similar: Option<Arc<str>>,
    },
    /// `tid` is not the tenant in `iss`, for an issuer with many tenants
    /// ([`Issuer::template`](crate::Issuer::template)).
    #[error("expected `tid` to be the tenant in `iss`, found {presented:?}")]
    #[non_exhaustive]
    TenantMismatch {
        /// The claim `tid`, unverified.
        presented: Option<String>,
    },
    /// The token was issued for another audience (RFC 7519 §4.1.3).
    #[error("expected audience {expected}, found {presented:?}")]
    #[non_exhaustive]
    WrongAudience {
        /// The audience configured for the issuer.
        expected: Audience,
        /// The claim `aud`.
        presented: Vec<String>,
    },
    /// The token or API key has expired: the time is on or after `exp` (RFC 7519 §4.1.4).
    #[error("expired {} s ago", seconds(*expires_at, *now))]
    #[non_exhaustive]
    Expired {
        /// `exp`.
        expires_at: SystemTime,
        /// The time of the check.
        now: SystemTime,
        /// Whether a cached key verified the signature. The client is told that the token expired
        /// only if this is `true`. Otherwise, a forged token could reveal which issuers and
        /// audiences are trusted.
        verified: bool,
    },
    /// The token is not yet valid: the time is before `nbf` (RFC 7519 §4.1.5).
    #[error("not valid for another {} s", seconds(*now, *not_before))]
    #[non_exhaustive]
    NotYetValid {
        /// `nbf`.
        not_before: SystemTime,
        /// The time of the check.
        now: SystemTime,
    },
    /// `iat` (RFC 7519 §4.1.6) is in the future.
    #[error("issued {} s in the future", seconds(*now, *issued_at))]
    #[non_exhaustive]
    IssuedInTheFuture {
        /// `iat`.
        issued_at: SystemTime,
        /// The time of the check.
        now: SystemTime,
    },
    /// The token was issued longer ago than
    /// [`Issuer::max_token_age`](crate::Issuer::max_token_age) allows.
    #[error("expected a token of at most {} s, found one of {} s", max_age.as_secs(), seconds(*issued_at, *now))]
    #[non_exhaustive]
    TooOld {
        /// `iat`.
        issued_at: SystemTime,
        /// The configured age.
        max_age: Duration,
        /// The time of the check.
        now: SystemTime,
    },
    /// The issuer was asked about the token, and answered that it is not active (RFC 7662 §2.2):
    /// unknown, expired, revoked, or not for this API.
    #[error("not active, by the issuer's answer")]
    Inactive,
    /// The token begins as an API key and has a valid checksum, but there is no such key
    /// ([`ApiKeys`](crate::ApiKeys)).
    #[error("not a known API key")]
    UnknownApiKey,
    /// The token is bound to a key or certificate of the client (`cnf`), and was sent as a bearer
    /// token (RFC 9449 §7.2, RFC 8705 §3), or its binding cannot be verified.
    #[error("sender-constrained (`cnf`), may not be used as a bearer token")]
    SenderConstrained,
    /// The token is not bound to a key or certificate, and the scheme `DPoP` or the configuration
    /// requires that it is ([`Dpop::required`](crate::Dpop::required),
    /// [`Rule::bound`](crate::Rule::bound)).
    #[error("expected a token that is bound to a key or certificate of the client (`cnf`)")]
    NotBound,
    /// The token is bound to another key than that of the proof (RFC 9449 §7.1).
    #[error("bound to another key than that of the DPoP proof")]
    OtherKey,
    /// The token is bound to a certificate (RFC 8705 §3), and the client presented none, or none
    /// that the configured source finds
    /// ([`ClientCertificates`](crate::ClientCertificates)).
    #[error("bound to a client certificate, found no certificate")]
    CertificateMissing,
    /// The token is bound to another certificate than that of the connection (RFC 8705 §3).
    #[error("bound to another client certificate than that of the connection")]
    OtherCertificate,
    /// The token is elsewhere than in the header `Authorization`, and its issuer requires that
    /// ([`Issuer::fapi2`](crate::Issuer::fapi2)).
    #[error("outside of the header `Authorization`, where FAPI 2.0 expects it")]
    OutsideAuthorization,
    /// The token, its subject, session, client or issuer was revoked
    /// ([`Revocations`](crate::Revocations)), or the token is older than revocations are kept, or
    /// its status in a list of its issuer is not 0 ([feature `status-list`](crate#features)).
    #[error("was revoked")]
    Revoked,
    /// The key set of the issuer has no key with this `kid` for this `alg`.
    #[error("no key {kid:?} for this algorithm in the issuer's key set")]
    #[non_exhaustive]
    UnknownKey {
        /// The header's `kid`.
        kid: Option<String>,
    },
    /// The signature does not match the signing input with the key of the issuer.
    #[error("wrong signature")]
    BadSignature,
}

fn seconds(from: SystemTime, to: SystemTime) -> u64 {
    to.duration_since(from).unwrap_or_default().as_secs()
}

impl InvalidToken {
    /// Returns a name that is stable across versions, for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Opaque => "opaque",
            Self::Encrypted => "encrypted",
            Self::Malformed(_) => "malformed",
            Self::UnsupportedAlgorithm { .. } => "unsupported_algorithm",
            Self::UnsupportedCritical => "unsupported_critical",
            Self::UnexpectedType { .. } => "unexpected_type",
            Self::MissingClaim(_) => "missing_claim",
            Self::ClaimType { .. } => "claim_type",
            Self::ClaimValue { .. } => "claim_value",
            Self::MicrosoftNonce => "microsoft_nonce",
            Self::UnknownIssuer { .. } => "unknown_issuer",
            Self::TenantMismatch { .. } => "tenant_mismatch",
            Self::WrongAudience { .. } => "wrong_audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::IssuedInTheFuture { .. } => "issued_in_the_future",
            Self::TooOld { .. } => "too_old",
            Self::Inactive => "inactive",
            Self::UnknownApiKey => "unknown_api_key",
            Self::SenderConstrained => "sender_constrained",
            Self::NotBound => "not_bound",
            Self::OtherKey => "other_key",
            Self::CertificateMissing => "certificate_missing",
            Self::OtherCertificate => "other_certificate",
            Self::OutsideAuthorization => "outside_authorization",
            Self::Revoked => "revoked",
            Self::UnknownKey { .. } => "unknown_key",
            Self::BadSignature => "bad_signature",
        }
    }
}

impl InvalidToken {
    /// The detail for the log: what was expected, and what was presented if it is not the value of
    /// a claim.
    pub(crate) fn detail(&self) -> Option<String> {
        match self {
            Self::WrongAudience { expected, .. } => Some(format!("expected audience {expected}")),
            Self::UnsupportedAlgorithm { .. } => {
                Some("the algorithm is not one of the issuer's".to_owned())
            }
            Self::UnexpectedType { .. } => {
                Some("`typ` is not that of an access token of this issuer".to_owned())
            }
            Self::TenantMismatch { .. } => {
                Some("expected `tid` to be the tenant in `iss`".to_owned())
            }
            // An unverified claim that an attacker may have chosen: log it only if it looks like an
            // issuer, and only up to a maximum length.
            Self::UnknownIssuer { presented, similar } => {
                let shown =
                    is_plain_url(presented).then(|| format!("issuer {presented:?} is not trusted"));
                let hint = similar.is_some().then(|| hint(presented, similar));
                shown
                    .or(hint.is_some().then(String::new))
                    .map(|shown| shown + &hint.unwrap_or_default())
            }
            Self::UnknownKey { .. } => None,
            other => Some(other.to_string()),
        }
    }
}

/// Longest `iss` of an untrusted issuer in the log, in bytes.
const MAX_LOGGED_ISS: usize = 200;

/// Whether the value is a plain URL, so that no secret and no control character reaches the log.
fn is_plain_url(iss: &str) -> bool {
    let rest = iss.strip_prefix("https://").or_else(|| iss.strip_prefix("http://"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]".contains(&byte);
    iss.len() <= MAX_LOGGED_ISS
        && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_plain))
}

fn hint(presented: &str, trusted: &Option<Arc<str>>) -> String {
    match trusted {
        None => String::new(),
        Some(iss) if presented.starts_with(ENTRA_V1) => format!(
            "; {iss:?} is: this token is of version 1.0; set `api.requestedAccessTokenVersion` to 2 in the manifest of the API's app registration"
        ),
        Some(iss) => format!("; {iss:?} is: only the slash at the end differs"),
    }
}

/// The prefix of `iss` in Microsoft Entra ID's tokens of version 1.0.
pub(crate) const ENTRA_V1: &str = "https://sts.windows.net/";
