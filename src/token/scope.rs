//! RFC 6749 §3.3: scope.

use std::fmt;
use std::str::FromStr;

/// A set of scope tokens (RFC 6749 §3.3): what a route requires, or what an access token grants.
///
/// Scope tokens are case-sensitive, and their order has no meaning. In the text form, they are
/// separated by one space.
///
/// ```
/// use portcullis::Scope;
///
/// let granted: Scope = "read:messages write:messages".parse()?;
/// assert!(granted.contains("read:messages"));
/// assert!(granted.contains_all(&"write:messages".parse()?));
/// assert!(!granted.contains("read"));
/// # Ok::<(), portcullis::InvalidScope>(())
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
    /// The empty scope. Not public, because a rule that requires it would require nothing.
    pub(crate) fn none() -> Self {
        Self(String::new())
    }

    /// Returns `true` if the set contains this scope token.
    pub fn contains(&self, token: &str) -> bool {
        self.iter().any(|own| own == token)
    }

    /// Returns `true` if the set contains every scope token of `required`.
    pub fn contains_all(&self, required: &Scope) -> bool {
        required.iter().all(|token| self.contains(token))
    }

    /// Returns the scope tokens, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|token| !token.is_empty())
    }

    /// Returns the text form: the scope tokens, separated by one space.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `true` if the set contains no scope token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scope that an issuer granted, as it was sent. A scope token with invalid characters is
    /// preserved, and matches only a rule that requires exactly this one.
    pub(crate) fn granted<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut scope = Self::none();
        // RFC 6749 §3.3: a space is the only delimiter.
        for token in
            parts.into_iter().flat_map(|part| part.split(' ')).filter(|token| !token.is_empty())
        {
            scope.add(token);
        }
        scope
    }

    /// Adds each scope token that begins with `prefix` a second time, without it.
    pub(crate) fn with_unprefixed(mut self, prefix: &str) -> Self {
        let short: Vec<_> =
            self.iter().filter_map(|token| token.strip_prefix(prefix)).map(str::to_owned).collect();
        for token in short.iter().filter(|token| !token.is_empty()) {
            self.add(token);
        }
        self
    }

    /// Puts `prefix` before each scope token.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Self {
        if prefix.is_empty() {
            return self.clone();
        }
        let mut scope = Self::none();
        for token in self.iter() {
            scope.add(&format!("{prefix}{token}"));
        }
        scope
    }

    pub(crate) fn extend(&mut self, other: &Scope) {
        for token in other.iter() {
            if !self.contains(token) {
                self.add(token);
            }
        }
    }

    /// Size of the allocated memory, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    fn add(&mut self, token: &str) {
        // Most scopes are a few dozen bytes, and need one allocation.
        if self.0.capacity() == 0 {
            self.0.reserve(token.len().max(64));
        }
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(token);
    }
}

/// A text that is not a [`Scope`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scope {text:?}: expected {expected}")]
pub struct InvalidScope {
    text: String,
    expected: &'static str,
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    /// Parses one or more scope tokens, separated by spaces.
    ///
    /// # Errors
    ///
    /// Returns an error if `text` contains no scope token, or a character outside
    /// `%x21 / %x23-5B / %x5D-7E` (RFC 6749 §3.3). A scope with such a character could never be
    /// granted, nor be written into a challenge.
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        if !text.bytes().all(|byte| matches!(byte, b' ' | 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            return Err(InvalidScope {
                text: text.to_owned(),
                expected: "printable ASCII without quotation mark and backslash (RFC 6749 §3.3)",
            });
        }
        let mut scope = Self::none();
        scope.extend(&Self::granted([text]));
        if scope.is_empty() {
            return Err(InvalidScope {
                text: text.to_owned(),
                expected: "at least one scope token",
            });
        }
        Ok(scope)
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidScope;

    fn try_from(text: String) -> Result<Self, InvalidScope> {
        text.parse()
    }
}

impl TryFrom<&String> for Scope {
    type Error = InvalidScope;

    fn try_from(text: &String) -> Result<Self, InvalidScope> {
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
    type Error = InvalidScope;

    fn try_from(text: &str) -> Result<Self, InvalidScope> {
        text.parse()
    }
}
