//! RFC 6749 §3.3: scope.

use std::fmt;
use std::str::FromStr;

use crate::error::ConfigError;

/// A set of scope tokens (RFC 6749 §3.3): what a route asks for, or what an access token grants.
///
/// Case-sensitive and without order. The text form has one space between the tokens.
///
/// ```
/// use portcullis::Scope;
///
/// let granted: Scope = "read:messages write:messages".parse()?;
/// assert!(granted.contains("read:messages"));
/// assert!(granted.contains_all(&"write:messages".parse()?));
/// assert!(!granted.contains("read"));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scope(String);

/// As sets: neither order nor repetition counts.
impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.contains_all(other) && other.contains_all(self)
    }
}

impl Eq for Scope {}

impl Scope {
    /// No scope token at all. Not public: a rule that asks for it would ask for nothing.
    pub(crate) fn none() -> Self {
        Self(String::new())
    }

    /// Whether one scope token is in the set.
    pub fn contains(&self, token: &str) -> bool {
        self.iter().any(|own| own == token)
    }

    /// Whether every token of `required` is in the set.
    pub fn contains_all(&self, required: &Scope) -> bool {
        required.iter().all(|token| self.contains(token))
    }

    /// The scope tokens, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|token| !token.is_empty())
    }

    /// The text form: tokens with one space between.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no scope token at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What an issuer granted, kept as it was sent: a strange token among them is granted to nobody who does not ask
    /// for exactly it.
    pub(crate) fn granted<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut scope = Self::none();
        // RFC 6749 §3.3: the delimiter is a space and nothing else.
        for token in
            parts.into_iter().flat_map(|part| part.split(' ')).filter(|token| !token.is_empty())
        {
            scope.add(token);
        }
        scope
    }

    /// This, and each token that begins with `prefix` without it, too.
    pub(crate) fn with_unprefixed(mut self, prefix: &str) -> Self {
        let short: Vec<_> =
            self.iter().filter_map(|token| token.strip_prefix(prefix)).map(str::to_owned).collect();
        for token in short.iter().filter(|token| !token.is_empty()) {
            self.add(token);
        }
        self
    }

    pub(crate) fn extend(&mut self, other: &Scope) {
        for token in other.iter() {
            if !self.contains(token) {
                self.add(token);
            }
        }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn add(&mut self, token: &str) {
        // Most scopes are a few dozen bytes: one allocation.
        if self.0.capacity() == 0 {
            self.0.reserve(token.len().max(64));
        }
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(token);
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Scope {
    type Err = ConfigError;

    /// One or several scope tokens with spaces between.
    ///
    /// # Errors
    ///
    /// When there is no token, or one with a character outside `%x21 / %x23-5B / %x5D-7E` (RFC 6749 §3.3): it could
    /// never be granted, nor be written into a challenge.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if !text.bytes().all(|byte| matches!(byte, b' ' | 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            return Err(ConfigError::new(format!(
                "scope {text:?}: expected printable ASCII without quotation mark and backslash (RFC 6749 §3.3)"
            )));
        }
        let mut scope = Self::none();
        scope.extend(&Self::granted([text]));
        if scope.is_empty() {
            return Err(ConfigError::new(format!(
                "scope {text:?}: expected at least one scope token"
            )));
        }
        Ok(scope)
    }
}

impl TryFrom<String> for Scope {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl TryFrom<&String> for Scope {
    type Error = ConfigError;

    fn try_from(text: &String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl<'a> IntoIterator for &'a Scope {
    type Item = &'a str;
    type IntoIter = std::iter::Filter<std::str::Split<'a, char>, fn(&&str) -> bool>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.split(' ').filter(|token| !token.is_empty())
    }
}

impl TryFrom<&str> for Scope {
    type Error = ConfigError;

    fn try_from(text: &str) -> Result<Self, ConfigError> {
        text.parse()
    }
}
