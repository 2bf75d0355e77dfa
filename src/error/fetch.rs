//! Why an issuer's keys could not be fetched, and why members of a key set are ignored.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ConfigError;

/// Why an issuer's keys could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No answer: DNS, connection, TLS, or the connection broke.
    #[error("{url}: no answer: {reason}")]
    #[non_exhaustive]
    Transport {
        /// What was asked for.
        url: String,
        /// The HTTP client's error.
        reason: TransportError,
    },
    /// No complete answer within the time limit.
    #[error("no complete answer within {limit:?}")]
    #[non_exhaustive]
    Timeout {
        /// For discovery and key set together.
        limit: Duration,
    },
    /// Too many other fetches were under way for so long: of all issuers, or of those on the same server.
    #[error("no turn to ask within {limit:?}, too many fetches are under way")]
    #[non_exhaustive]
    ConcurrencyLimit {
        /// For waiting and fetching together.
        limit: Duration,
    },
    /// The address is private, loopback or link-local, where a looked-up issuer's keys may not be.
    #[error("{url}: expected a public address")]
    #[non_exhaustive]
    PrivateAddress {
        /// What was to be asked for.
        url: String,
    },
    /// Another status than 200. Redirects are not followed.
    #[error("{url}: expected status 200, {status} came")]
    #[non_exhaustive]
    Status {
        /// What was asked for.
        url: String,
        /// What came.
        status: u16,
    },
    /// The HTTP client followed a redirect, which could lead anywhere.
    #[error("{url}: expected no redirect")]
    #[non_exhaustive]
    Redirected {
        /// What was asked for.
        url: String,
    },
    /// More bytes than any honest document has. Counted while reading.
    #[error("{url}: expected at most {limit} bytes")]
    #[non_exhaustive]
    TooLarge {
        /// What was asked for.
        url: String,
        /// In bytes.
        limit: usize,
    },
    /// Not the JSON document it should be.
    #[error("{url}: expected {expected}")]
    #[non_exhaustive]
    InvalidDocument {
        /// What was asked for.
        url: String,
        /// Which document.
        expected: &'static str,
    },
    /// The metadata belong to another issuer (OpenID Connect Discovery §4.3, RFC 8414 §3.3).
    #[error("{url}: expected metadata of issuer {expected:?}, {presented:?} came")]
    #[non_exhaustive]
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
    #[non_exhaustive]
    OtherOrigin {
        /// What they say.
        url: String,
    },
    /// A key set without one usable key.
    #[error("{url}: expected at least one usable key, ignored {ignored:?}")]
    #[non_exhaustive]
    NoUsableKey {
        /// What was asked for.
        url: String,
        /// Why each key was left out.
        ignored: Vec<IgnoredKeyReason>,
    },
    /// No tokio runtime to fetch on.
    #[error("fetching needs a tokio runtime, none is running here")]
    NoRuntime,
    /// The fetch ended without an answer: its runtime was shut down.
    #[error("the fetch was cut off")]
    Interrupted,
}

/// The HTTP client's error. Its text names all causes, down to the one that says what happened: "connection refused" is three
/// levels deep.
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

/// Why a member of a key set was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IgnoredKeyReason {
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

impl fmt::Display for IgnoredKeyReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "a member is missing, or has the wrong type, length or value",
            Self::Type => "`kty` or `crv` is unknown",
            Self::Symmetric => "the key is symmetric",
            Self::Private => "the key has its private part with it",
            Self::Use => "`use` or `key_ops` do not allow verification",
            Self::Algorithm => "`alg` is unknown or does not fit the key",
            Self::RsaSize => "the RSA key has under 2048 or over 8192 bits",
            Self::SmallOrder => "the point is of small order",
            Self::TooMany => "the set has more keys than are read",
            Self::NotInThisBackend => "the cryptography backend does not support the key",
        })
    }
}

impl std::error::Error for IgnoredKeyReason {}
