//! An invalid configuration.

use crate::token::scope::InvalidScope;

/// An invalid configuration. The message names the invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl From<InvalidScope> for ConfigError {
    fn from(error: InvalidScope) -> Self {
        Self(error.to_string())
    }
}

impl From<std::convert::Infallible> for ConfigError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
