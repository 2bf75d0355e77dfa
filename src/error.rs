//! Whose fault, what was expected, what was presented.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::token::audience::Audience;
use crate::token::scope::Scope;

/// Why a request, or a token, was refused. [`http`](crate::ProtectLayer) answers follow from the variant alone:
///
/// | variant | status | challenge (RFC 6750 §3) | whose fault |
/// |---|---|---|---|
/// | `Missing` | 401 | `Bearer realm="…"`, the scopes asked for, no `error` | client |
/// | `InvalidRequest` | 400 | `error="invalid_request"` | client |
/// | `InvalidToken` | 401 | `error="invalid_token"` | client |
/// | `InsufficientScope`, `Forbidden` | 403 | `error="insufficient_scope", scope="…"` | client |
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
    /// The access token is good, but for less than the route asks (RFC 6750 §3.1 `insufficient_scope`).
    #[error("insufficient scope: expected \"{required}\", the token grants \"{granted}\"")]
    InsufficientScope {
        /// Every scope token that the route asks for.
        required: Scope,
        /// What the token grants.
        granted: Scope,
    },
    /// The access token is good, but lacks something else than scope that the operation asks for: a permission, a role, a claim.
    /// (RFC 6750 §3.1 has `insufficient_scope` for it, too.)
    #[error("the token does not have {rule}")]
    Forbidden {
        /// What is asked for, as [`Rule`](crate::Rule) writes it.
        rule: String,
        /// Every scope token that the operation asks for beside it.
        scope: Scope,
    },
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

    /// A name that stays the same across versions, for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidToken(reason) => reason.code(),
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::Forbidden { .. } => "forbidden",
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
    /// The token is in a cookie, and the request is not from an origin that may use it
    /// ([`TokenSource::cookie`](crate::TokenSource::cookie)).
    Origin,
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Repeated => "one access token, in one place",
            Self::Credentials => "one b64token (RFC 6750 §2.1); in `Authorization`, after `Bearer` and a space",
            Self::Origin => "an `Origin` that may use the cookie",
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
    /// The header has `nonce`: a token for one of Microsoft's own APIs (Graph, say). Its signature is over something else than
    /// the token; nobody but that API can verify it.
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
    #[error("issuer {presented:?} is not trusted{}", but_for_a_slash(.trusted))]
    UnknownIssuer {
        /// The claim `iss`, unverified.
        presented: String,
        /// An issuer that is trusted, and differs in a slash at its end only: the commonest mistake, on either side.
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
    /// The claims do not have the shape that the handler asks for.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
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
            Self::Claims(_) => "claims",
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
            // Nothing but claims and `kid` to tell, else.
            Self::UnknownIssuer { trusted, .. } => {
                trusted.as_ref().map(|iss| format!("{iss:?} is trusted: only the slash at the end differs"))
            }
            Self::UnknownKey { .. } => None,
            other => Some(other.to_string()),
        }
    }
}

fn but_for_a_slash(trusted: &Option<Arc<str>>) -> String {
    trusted.as_ref().map(|iss| format!("; {iss:?} is: only the slash at the end differs")).unwrap_or_default()
}

/// The verified claims do not have the shape of the type asked for.
///
/// The parser's own sentence is not kept: it quotes the claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims do not fit `{type_name}` (at column {column} of the payload)")]
pub struct ClaimsError {
    type_name: &'static str,
    column: usize,
}

impl ClaimsError {
    pub(crate) fn new<T>(error: &serde_json::Error) -> Self {
        Self { type_name: std::any::type_name::<T>(), column: error.column() }
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
