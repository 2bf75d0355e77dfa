//! RFC 6750 §3.1 `invalid_token`: why an access token is refused.

use std::sync::Arc;
use std::time::SystemTime;

use crate::token::audience::Audience;

/// Why an access token was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Longer than anything that is looked at.
    #[error("expected at most {limit} bytes, {presented} came")]
    #[non_exhaustive]
    TooLarge {
        /// In bytes.
        limit: usize,
        /// In bytes.
        presented: usize,
    },
    /// No period in it: an opaque token, which only its issuer can read (by introspection, RFC 7662).
    #[error(
        "expected a JWT, an opaque token came; ask the issuer for JWT access tokens (often by naming the audience)"
    )]
    Opaque,
    /// Five parts: an encrypted token (RFC 7516). None is decrypted here.
    #[error(
        "expected a signed JWT, an encrypted one (JWE) came; ask the issuer not to encrypt access tokens"
    )]
    Encrypted,
    /// Not a compact JWS with a JSON object as header and as payload.
    #[error("malformed: expected {0}")]
    Malformed(&'static str),
    /// `alg` names no algorithm known here, or none that the issuer may use.
    #[error("algorithm {presented:?} is not one of this issuer's")]
    #[non_exhaustive]
    UnsupportedAlgorithm {
        /// The header's `alg`.
        presented: String,
    },
    /// The header has `crit` (RFC 7515 §4.1.11), and no extension is understood here.
    #[error("the header demands extensions (`crit`), none is supported")]
    UnsupportedCritical,
    /// `typ` says that it is another kind of JWT (RFC 9068 §4, RFC 8725 §3.11).
    #[error("`typ` {presented:?} is not that of an access token of this issuer")]
    #[non_exhaustive]
    UnexpectedType {
        /// The header's `typ`.
        presented: Option<String>,
    },
    /// A claim is missing that no access token may do without: `iss`, `exp`, `aud` or what the issuer is configured to send in
    /// its place; by [`require_rfc9068`](crate::Issuer::require_rfc9068) also `sub`, `client_id`, `iat` and `jti`.
    #[error("claim `{0}` is missing")]
    MissingClaim(&'static str),
    /// A claim does not say what this issuer's access tokens say ([`require_claim`](crate::Issuer::require_claim),
    /// [`reject_claim`](crate::Issuer::reject_claim)).
    #[error("claim `{claim}`: expected {expected}")]
    #[non_exhaustive]
    ClaimValue {
        /// Where the claim is, as configured.
        claim: String,
        /// What it must be, as configured.
        expected: String,
    },
    /// The token could not be verified, and its header has `nonce`: a token for one of Microsoft's own APIs (Graph, say). Its
    /// signature is over something else than the token, so no other API can verify it.
    #[error(
        "a token for one of Microsoft's own APIs (the header has `nonce`); ask for one with a scope of this API"
    )]
    MicrosoftNonce,
    /// A registered claim has another JSON type than RFC 7519 says, or a value out of range.
    #[error("claim `{claim}`: expected {expected}")]
    #[non_exhaustive]
    ClaimType {
        /// The claim's name.
        claim: &'static str,
        /// What RFC 7519 §4.1 says.
        expected: &'static str,
    },
    /// `iss` is none of the issuers trusted here.
    #[error("issuer {presented:?} is not trusted{}", hint(presented, .similar))]
    #[non_exhaustive]
    UnknownIssuer {
        /// The claim `iss`, unverified.
        presented: String,
        /// A trusted issuer that was probably meant: one that differs in a slash at its end only, or the same tenant of
        /// Microsoft Entra ID for tokens of version 2.0.
        similar: Option<Arc<str>>,
    },
    /// `tid` is not the tenant in `iss`, of an issuer that has many ([`Issuer::template`](crate::Issuer::template)).
    #[error("expected `tid` to be the tenant in `iss`, {presented:?} came")]
    #[non_exhaustive]
    TenantMismatch {
        /// The claim `tid`, unverified.
        presented: Option<String>,
    },
    /// The token was issued for somebody else (RFC 7519 §4.1.3).
    #[error("expected audience {expected}, {presented:?} came")]
    #[non_exhaustive]
    WrongAudience {
        /// What the issuer is configured with.
        expected: Audience,
        /// The claim `aud`.
        presented: Vec<String>,
    },
    /// On or after `exp` (RFC 7519 §4.1.4).
    #[error("expired {} s ago", seconds(*expires_at, *now))]
    #[non_exhaustive]
    Expired {
        /// `exp`.
        expires_at: SystemTime,
        /// When it was checked.
        now: SystemTime,
        /// Whether the signature was verified, with keys that were there already. Only then is the client told that the token
        /// expired: of a token that anybody can write it would tell who is trusted, and for which audience.
        verified: bool,
    },
    /// Before `nbf` (RFC 7519 §4.1.5).
    #[error("not valid for another {} s", seconds(*now, *not_before))]
    #[non_exhaustive]
    NotYetValid {
        /// `nbf`.
        not_before: SystemTime,
        /// When it was checked.
        now: SystemTime,
    },
    /// `iat` (RFC 7519 §4.1.6) lies in the future.
    #[error("issued {} s in the future", seconds(*now, *issued_at))]
    #[non_exhaustive]
    IssuedInTheFuture {
        /// `iat`.
        issued_at: SystemTime,
        /// When it was checked.
        now: SystemTime,
    },
    /// Bound to a key or certificate of the client's (`cnf`), of which no proof is read here (RFC 9449 §7.2, RFC 8705 §3).
    #[error("sender-constrained (`cnf`), may not be used as a bearer token")]
    SenderConstrained,
    /// The issuer's key set has no key with this `kid` for this `alg`.
    #[error("no key {kid:?} for this algorithm in the issuer's key set")]
    #[non_exhaustive]
    UnknownKey {
        /// The header's `kid`.
        kid: Option<String>,
    },
    /// The signature is not that of the issuer's key over these bytes.
    #[error("wrong signature")]
    BadSignature,
}

fn seconds(from: SystemTime, to: SystemTime) -> u64 {
    to.duration_since(from).unwrap_or_default().as_secs()
}

impl InvalidToken {
    /// A name that stays the same across versions, for logs and metrics.
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
            Self::SenderConstrained => "sender_constrained",
            Self::UnknownKey { .. } => "unknown_key",
            Self::BadSignature => "bad_signature",
        }
    }
}

impl InvalidToken {
    /// What was expected, and what came where that is not a claim: for the log.
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
            // A claim, and chosen by anyone: only what looks like an issuer, and no more of it than the log can bear.
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

/// Whether it is an address and nothing else, so that no secret and no control character reaches the log.
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

/// How `iss` begins in Microsoft Entra ID's tokens of version 1.0.
pub(crate) const ENTRA_V1: &str = "https://sts.windows.net/";
