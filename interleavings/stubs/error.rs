use std::fmt;
use std::time::Duration;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Error {
    InvalidToken(InvalidToken),
    RevocationsUnavailable,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InvalidToken {
    MissingClaim(&'static str),
    ClaimType { claim: &'static str, expected: &'static str },
    Revoked,
}

impl From<InvalidToken> for Error {
    fn from(error: InvalidToken) -> Self {
        Self::InvalidToken(error)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FetchError {
    Timeout {
        limit: Duration,
    },
    ConcurrencyLimit {
        limit: Duration,
    },
    NoRuntime,
    Interrupted,
    /// The server that an exploration calls is down.
    Down,
}

#[derive(Clone, Debug)]
pub(crate) struct IgnoredKeyReason;

#[derive(Debug)]
pub(crate) struct ConfigError(pub(crate) String);

impl ConfigError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
