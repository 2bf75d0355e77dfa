//! Why an issuer's keys could not be fetched, or the issuer not be asked about a token, and why
//! members of a key set are ignored.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ConfigError;

/// Why an issuer's keys or status list could not be fetched, or why the issuer could not be asked
/// about a token (RFC 7662).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There was no response: name resolution, the connection or TLS failed, or the connection
    /// broke.
    #[error("{url}: no answer: {reason}")]
    #[non_exhaustive]
    Transport {
        /// The fetched URL.
        url: String,
        /// The error of the HTTP client.
        reason: TransportError,
    },
    /// There was no complete response within the time limit.
    #[error("no complete answer within {limit:?}")]
    #[non_exhaustive]
    Timeout {
        /// The limit, for discovery and key set together.
        limit: Duration,
    },
    /// Too many other fetches were in progress for the whole time limit: of all issuers, or of
    /// those on the same server. Of questions about tokens: those to the same endpoint.
    #[error("no permit within {limit:?}: too many requests to the issuer are in progress")]
    #[non_exhaustive]
    ConcurrencyLimit {
        /// The limit for waiting and fetching together.
        limit: Duration,
    },
    /// The address is private, loopback or link-local, which is not allowed for resolved issuers.
    #[error(
        "{url}: expected a public address; `Issuers::danger_allow_private_addresses` allows others"
    )]
    #[non_exhaustive]
    PrivateAddress {
        /// The URL that would have been fetched.
        url: String,
    },
    /// The status is not 200. Redirects are not followed.
    #[error("{url}: expected status 200, found {status}")]
    #[non_exhaustive]
    Status {
        /// The fetched URL.
        url: String,
        /// The status of the response.
        status: u16,
    },
    /// The HTTP client followed a redirect, which could lead to any host.
    #[error("{url}: expected no redirect")]
    #[non_exhaustive]
    Redirected {
        /// The fetched URL.
        url: String,
    },
    /// The document is larger than any legitimate one. Bytes are counted while reading.
    #[error("{url}: expected at most {limit} bytes")]
    #[non_exhaustive]
    TooLarge {
        /// The fetched URL.
        url: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The response is not the expected document.
    #[error("{url}: expected {expected}")]
    #[non_exhaustive]
    InvalidDocument {
        /// The fetched URL.
        url: String,
        /// The expected document.
        expected: &'static str,
    },
    /// The metadata belong to another issuer (OpenID Connect Discovery §4.3, RFC 8414 §3.3).
    #[error("{url}: expected metadata of issuer {expected:?}, found {presented:?}")]
    #[non_exhaustive]
    IssuerMismatch {
        /// The fetched URL.
        url: String,
        /// The issuer, as configured.
        expected: String,
        /// The document's `issuer`.
        presented: String,
    },
    /// The `jwks_uri` in the metadata is not acceptable.
    #[error("`jwks_uri` in the issuer's metadata: {0}")]
    JwksUri(ConfigError),
    /// The `introspection_endpoint` in the metadata is not acceptable.
    #[error("`introspection_endpoint` in the issuer's metadata: {0}")]
    IntrospectionEndpoint(ConfigError),
    /// The introspection endpoint supports no authentication method that is configured.
    #[error(
        "client authentication by {configured}: expected one of {supported:?}, the methods of {url}"
    )]
    #[non_exhaustive]
    UnsupportedClientAuth {
        /// The metadata's URL.
        url: String,
        /// The configured methods.
        configured: String,
        /// `introspection_endpoint_auth_methods_supported` (RFC 8414 §2).
        supported: Vec<String>,
    },
    /// The application's own credentials for the introspection endpoint could not be made.
    #[error("credentials for the introspection endpoint: {0}")]
    Credentials(Arc<dyn std::error::Error + Send + Sync>),
    /// The introspection endpoint failed several times in a row, or asked to wait. It is not asked
    /// again before the time given here.
    #[error("the introspection endpoint failed, and is not asked for another {remaining:?}")]
    #[non_exhaustive]
    Suspended {
        /// The time that is left.
        remaining: Duration,
    },
    /// The `jwks_uri` or `introspection_endpoint` in the metadata has another origin than the
    /// metadata, which the configuration does not allow.
    #[error("{url}: expected the origin of the metadata")]
    #[non_exhaustive]
    OtherOrigin {
        /// The `jwks_uri`, or the `introspection_endpoint`.
        url: String,
    },
    /// The key set has no usable key.
    #[error("{url}: expected at least one usable key, ignored {ignored:?}")]
    #[non_exhaustive]
    NoUsableKey {
        /// The fetched URL.
        url: String,
        /// Why each key was ignored.
        ignored: Vec<IgnoredKeyReason>,
    },
    /// The status list was issued before the cached one, which stays in use: an old list would make
    /// revoked tokens valid again (draft-ietf-oauth-status-list §5.1).
    #[error("{url}: expected a status list whose `iat` is {cached} or later, found {presented}")]
    #[non_exhaustive]
    OlderStatusList {
        /// The fetched URL.
        url: String,
        /// `iat` of the cached list, in seconds since 1970.
        cached: u64,
        /// `iat` of the fetched list, in seconds since 1970.
        presented: u64,
    },
    /// There is no Tokio runtime to send the request on.
    #[error("fetching needs a Tokio runtime, and none is running")]
    NoRuntime,
    /// The fetch ended without a response because its runtime was shut down.
    #[error("the fetch was cut off")]
    Interrupted,
}

/// The error of the HTTP client. Its message includes all causes, because the one that matters,
/// such as "connection refused", is three levels deep.
#[derive(Clone, Debug)]
pub struct TransportError(Arc<reqwest::Error>);

impl TransportError {
    pub(crate) fn new(error: reqwest::Error) -> Self {
        Self(Arc::new(error.without_url()))
    }
}

impl fmt::Display for TransportError {
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

impl std::error::Error for TransportError {}

/// Why a member of a key set was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IgnoredKeyReason {
    /// A member is missing or has the wrong type, length or value.
    Malformed,
    /// `kty` or `crv` is not supported.
    UnsupportedType,
    /// The key is symmetric (`oct`). It is published, so it is not a secret.
    Symmetric,
    /// The key includes its private part, so anyone can sign with it.
    Private,
    /// `use` or `key_ops` does not allow verification (RFC 7517 §4.2, §4.3).
    NotForVerification,
    /// `alg` is not supported or does not fit the key.
    UnsupportedAlgorithm,
    /// The RSA key has fewer than 2048 or more than 8192 bits.
    RsaSize,
    /// The Ed25519 point has small order, so anyone can produce valid signatures.
    SmallOrder,
    /// The ML-DSA key is a placeholder, such as zeros: anyone can produce valid signatures.
    Degenerate,
    /// This member and all later ones exceed the number of keys that are read from one set.
    TooMany,
    /// The selected cryptography backend does not support the key: ES512, ML-DSA and RSA keys over
    /// 4096 bits need `aws-lc-rs`. A FIPS module needs RSA keys with an even number of bits and an
    /// exponent of at least 65537 (FIPS 186-5 §5.1, §A.1.1).
    NotInThisBackend,
}

impl fmt::Display for IgnoredKeyReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "a member is missing, or has the wrong type, length or value",
            Self::UnsupportedType => "`kty` or `crv` is unknown",
            Self::Symmetric => "the key is symmetric",
            Self::Private => "the key includes its private part",
            Self::NotForVerification => "`use` or `key_ops` does not allow verification",
            Self::UnsupportedAlgorithm => "`alg` is unknown or does not fit the key",
            Self::RsaSize => "the RSA key has under 2048 or over 8192 bits",
            Self::SmallOrder => "the point is of small order",
            Self::Degenerate => "the ML-DSA key has too few different coefficients",
            Self::TooMany => "the set has more keys than are read",
            Self::NotInThisBackend => "the cryptography backend does not support the key",
        })
    }
}

impl std::error::Error for IgnoredKeyReason {}
