//! Whose fault, what was expected, what was presented.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::token::audience::Audience;
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
    InvalidToken(#[from] InvalidToken),
    /// The access token is good, but lacks a scope that the operation asks for (RFC 6750 §3.1 `insufficient_scope`).
    #[error("insufficient scope: expected \"{required}\", the token grants \"{granted}\"")]
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
    InsufficientAuthentication {
        /// By one of these authentication context classes, if any are asked for.
        acr_values: Vec<String>,
        /// No longer ago than this.
        max_age: Option<Duration>,
    },
    /// The issuer is trusted, but its keys could not be had, or not the one that the token names. While the issuer answers in
    /// time, nothing in a token can cause this.
    #[error("keys of issuer {issuer:?} are unavailable: {source}")]
    KeysUnavailable {
        /// The issuer, as configured.
        issuer: Arc<str>,
        /// What the last attempt ended with.
        source: Arc<FetchError>,
    },
    /// [`Issuers::lookup_async`](crate::Issuers::lookup_async) failed, and nothing is known of the issuer from before.
    #[error("look-up of the issuer failed: {error}")]
    LookupFailed {
        /// The look-up's own error.
        error: Arc<str>,
    },
}

impl Error {
    /// Whether the log is told by whoever answers the request. What is wrong with a token, the verifier has told it already.
    pub(crate) fn is_told_by_the_request(&self) -> bool {
        !matches!(self, Self::InvalidToken(_) | Self::KeysUnavailable { .. } | Self::LookupFailed { .. })
    }

    /// The status of the answer to such a request.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::InvalidToken(_) | Self::InsufficientAuthentication { .. } => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::InsufficientScope { .. } | Self::Forbidden { .. } | Self::Claims(_) => StatusCode::FORBIDDEN,
            Self::KeysUnavailable { .. } | Self::LookupFailed { .. } => StatusCode::SERVICE_UNAVAILABLE,
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
    #[doc = include_str!("../docs/errors.md")]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidToken(reason) => reason.code(),
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::Forbidden { .. } => "forbidden",
            Self::Claims(_) => "claims",
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
            Self::Credentials => "one b64token (RFC 6750 §2.1); in `Authorization`, after `Bearer` and a space",
            Self::Origin => "an `Origin` that may use the cookie or the gateway's header",
        })
    }
}

/// Why an access token was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Longer than anything that is looked at.
    #[error("expected at most {limit} bytes, {presented} came")]
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
    #[error("expected a signed JWT, an encrypted one (JWE) came; ask the issuer not to encrypt access tokens")]
    Encrypted,
    /// Not a compact JWS with a JSON object as header and as payload.
    #[error("malformed: expected {0}")]
    Malformed(&'static str),
    /// `alg` names no algorithm known here, or none that the issuer may use.
    #[error("algorithm {presented:?} is not one of this issuer's")]
    UnsupportedAlgorithm {
        /// The header's `alg`.
        presented: String,
    },
    /// The header has `crit` (RFC 7515 §4.1.11), and no extension is understood here.
    #[error("the header demands extensions (`crit`), none is supported")]
    Critical,
    /// `typ` says that it is another kind of JWT (RFC 9068 §4, RFC 8725 §3.11).
    #[error("`typ` {presented:?} is not that of an access token of this issuer")]
    Type {
        /// The header's `typ`.
        presented: Option<String>,
    },
    /// A claim is missing that no access token may do without: `iss`, `exp`, `aud` or what the issuer is configured to send in
    /// its place; by [`rfc9068`](crate::Issuer::rfc9068) also `sub`, `client_id`, `iat` and `jti`.
    #[error("claim `{0}` is missing")]
    MissingClaim(&'static str),
    /// A claim does not say what this issuer's access tokens say ([`require_claim`](crate::Issuer::require_claim),
    /// [`refuse_claim`](crate::Issuer::refuse_claim)).
    #[error("claim `{claim}`: expected {expected}")]
    ClaimValue {
        /// Where the claim is, as configured.
        claim: String,
        /// What it must be, as configured.
        expected: String,
    },
    /// The token could not be verified, and its header has `nonce`: a token for one of Microsoft's own APIs (Graph, say). Its
    /// signature is over something else than the token, so no other API can verify it.
    #[error("a token for one of Microsoft's own APIs (the header has `nonce`); ask for one with a scope of this API")]
    MicrosoftNonce,
    /// A registered claim has another JSON type than RFC 7519 says, or a value out of range.
    #[error("claim `{claim}`: expected {expected}")]
    ClaimType {
        /// The claim's name.
        claim: &'static str,
        /// What RFC 7519 §4.1 says.
        expected: &'static str,
    },
    /// `iss` is none of the issuers trusted here.
    #[error("issuer {presented:?} is not trusted{}", hint(presented, .trusted))]
    UnknownIssuer {
        /// The claim `iss`, unverified.
        presented: String,
        /// A trusted issuer that was probably meant: one that differs in a slash at its end only, or the same tenant of
        /// Microsoft Entra ID for tokens of version 2.0.
        trusted: Option<Arc<str>>,
    },
    /// `tid` is not the tenant in `iss`, of an issuer that has many ([`Issuer::template`](crate::Issuer::template)).
    #[error("expected `tid` to be the tenant in `iss`, {presented:?} came")]
    Tenant {
        /// The claim `tid`, unverified.
        presented: Option<String>,
    },
    /// The token was issued for somebody else (RFC 7519 §4.1.3).
    #[error("expected audience {expected}, {presented:?} came")]
    Audience {
        /// What the issuer is configured with.
        expected: Audience,
        /// The claim `aud`.
        presented: Vec<String>,
    },
    /// On or after `exp` (RFC 7519 §4.1.4).
    #[error("expired {} s ago", now.saturating_sub(*expires_at).as_secs())]
    Expired {
        /// Since 1970.
        expires_at: Duration,
        /// Since 1970.
        now: Duration,
        /// Whether the signature was verified, with keys that were there already. Only then is the client told that the token
        /// expired: of a token that anybody can write it would tell who is trusted, and for which audience.
        verified: bool,
    },
    /// Before `nbf` (RFC 7519 §4.1.5).
    #[error("not valid for another {} s", not_before.saturating_sub(*now).as_secs())]
    NotYetValid {
        /// Since 1970.
        not_before: Duration,
        /// Since 1970.
        now: Duration,
    },
    /// `iat` (RFC 7519 §4.1.6) lies in the future.
    #[error("issued {} s in the future", issued_at.saturating_sub(*now).as_secs())]
    IssuedInTheFuture {
        /// Since 1970.
        issued_at: Duration,
        /// Since 1970.
        now: Duration,
    },
    /// Bound to a key or certificate of the client's (`cnf`), of which no proof is read here (RFC 9449 §7.2, RFC 8705 §3).
    #[error("sender-constrained (`cnf`), may not be used as a bearer token")]
    SenderConstrained,
    /// The issuer's key set has no key with this `kid` for this `alg`.
    #[error("no key {kid:?} for this algorithm in the issuer's key set")]
    UnknownKey {
        /// The header's `kid`.
        kid: Option<String>,
    },
    /// The signature is not that of the issuer's key over these bytes.
    #[error("wrong signature")]
    Signature,
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
            Self::Critical => "critical",
            Self::Type { .. } => "type",
            Self::MissingClaim(_) => "missing_claim",
            Self::ClaimType { .. } => "claim_type",
            Self::ClaimValue { .. } => "claim_value",
            Self::MicrosoftNonce => "microsoft_nonce",
            Self::UnknownIssuer { .. } => "unknown_issuer",
            Self::Tenant { .. } => "tenant",
            Self::Audience { .. } => "audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::IssuedInTheFuture { .. } => "issued_in_the_future",
            Self::SenderConstrained => "sender_constrained",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Signature => "signature",
        }
    }
}

impl InvalidToken {
    /// What was expected, and what came where that is not a claim: for the log.
    pub(crate) fn detail(&self) -> Option<String> {
        match self {
            Self::Audience { expected, .. } => Some(format!("expected audience {expected}")),
            Self::UnsupportedAlgorithm { .. } => Some("the algorithm is not one of the issuer's".to_owned()),
            Self::Type { .. } => Some("`typ` is not that of an access token of this issuer".to_owned()),
            Self::Tenant { .. } => Some("expected `tid` to be the tenant in `iss`".to_owned()),
            // A claim, and chosen by anyone: only what looks like an issuer, and no more of it than the log can bear.
            Self::UnknownIssuer { presented, trusted } => {
                let shown = is_plain_url(presented).then(|| format!("issuer {presented:?} is not trusted"));
                let hint = trusted.is_some().then(|| hint(presented, trusted));
                shown.or(hint.is_some().then(String::new)).map(|shown| shown + &hint.unwrap_or_default())
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
    iss.len() <= MAX_LOGGED_ISS && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_plain))
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

/// The verified claims do not have the shape of the type asked for.
///
/// The parser's own sentence is not kept: it quotes the claims. Only the name of a missing field is, which is the type's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims do not fit `{type_name}`: {}", what(.missing.as_deref(), *.column))]
pub struct ClaimsError {
    type_name: &'static str,
    missing: Option<String>,
    column: usize,
}

impl ClaimsError {
    pub(crate) fn new<T>(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let field = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
        // No more than a name, whatever a type's own `Deserialize` says.
        let is_name = |name: &str| {
            name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/$#".contains(&byte))
        };
        let missing = field.map(|(name, _)| name).filter(|name| is_name(name)).map(str::to_owned);
        Self { type_name: std::any::type_name::<T>(), missing, column: error.column() }
    }

    /// The field of the type that no claim fills, by its name in JSON; `None` if something else does not fit.
    pub fn missing_field(&self) -> Option<&str> {
        self.missing.as_deref()
    }
}

fn what(missing: Option<&str>, column: usize) -> String {
    match missing {
        Some(field) => format!("claim `{field}` is missing"),
        None => format!("at column {column} of the payload"),
    }
}

/// Why an issuer's keys could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No answer: DNS, connection, TLS, or the connection broke.
    #[error("{url}: no answer: {}", Chain(source))]
    Transport {
        /// What was asked for.
        url: String,
        /// The HTTP client's error.
        source: reqwest::Error,
    },
    /// No complete answer within the time limit.
    #[error("no complete answer within {limit:?}")]
    Timeout {
        /// For discovery and key set together.
        limit: Duration,
    },
    /// Too many other fetches were under way for so long: of all issuers, or of those on the same server.
    #[error("no turn to ask within {limit:?}, too many fetches are under way")]
    NoTurn {
        /// For waiting and fetching together.
        limit: Duration,
    },
    /// The address is private, loopback or link-local, where a looked-up issuer's keys may not be.
    #[error("{url}: expected a public address")]
    PrivateAddress {
        /// What was to be asked for.
        url: String,
    },
    /// Another status than 200. Redirects are not followed.
    #[error("{url}: expected status 200, {status} came")]
    Status {
        /// What was asked for.
        url: String,
        /// What came.
        status: u16,
    },
    /// The HTTP client followed a redirect, which could lead anywhere.
    #[error("{url}: expected no redirect")]
    Redirected {
        /// What was asked for.
        url: String,
    },
    /// More bytes than any honest document has. Counted while reading.
    #[error("{url}: expected at most {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// In bytes.
        limit: usize,
    },
    /// Not the JSON document it should be.
    #[error("{url}: expected {expected}")]
    Document {
        /// What was asked for.
        url: String,
        /// Which document.
        expected: &'static str,
    },
    /// The metadata belong to another issuer (OpenID Connect Discovery §4.3, RFC 8414 §3.3).
    #[error("{url}: expected metadata of issuer {expected:?}, {presented:?} came")]
    IssuerMismatch {
        /// What was asked for.
        url: String,
        /// The issuer, as configured.
        expected: String,
        /// The document's `issuer`.
        presented: String,
    },
    /// The metadata point to a `jwks_uri` that may not be used.
    #[error("`jwks_uri` in the issuer's metadata: {0}")]
    JwksUri(ConfigError),
    /// The metadata point to a `jwks_uri` on another server than their own, against the configuration.
    #[error("`jwks_uri` {url}: expected the origin of the metadata")]
    OtherOrigin {
        /// What they say.
        url: String,
    },
    /// A key set without one usable key.
    #[error("{url}: expected at least one usable key, ignored {ignored:?}")]
    NoUsableKey {
        /// What was asked for.
        url: String,
        /// Why each key was left out.
        ignored: Vec<IgnoredKey>,
    },
    /// No tokio runtime to fetch on.
    #[error("fetching needs a tokio runtime, none is running here")]
    NoRuntime,
    /// The fetch ended without an answer: its runtime was shut down.
    #[error("the fetch was cut off")]
    Interrupted,
}

/// An error and its causes, down to the one that says what happened: "connection refused" is three levels deep.
struct Chain<'a>(&'a reqwest::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Why a member of a key set was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IgnoredKey {
    /// A member is missing, of the wrong type, length or value.
    Malformed,
    /// `kty` or `crv` is not known here.
    Type,
    /// A symmetric key (`oct`): published, hence no secret.
    Symmetric,
    /// It has its private part with it: anybody can sign with it.
    Private,
    /// `use` or `key_ops` do not allow verification (RFC 7517 §4.2, §4.3).
    Use,
    /// `alg` is unknown here or does not fit the key.
    Algorithm,
    /// RSA under 2048 or over 8192 bits.
    RsaSize,
    /// An Ed25519 point of small order, for which anybody can sign.
    SmallOrder,
    /// This and all further members: beyond the number that is read of one set.
    TooMany,
    /// The cryptography chosen by feature cannot do it: ES512 and RSA over 4096 bits need `aws-lc-rs`.
    NotInThisBackend,
}

/// A configuration that cannot work; the sentence names the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl From<std::convert::Infallible> for ConfigError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
