//! RFC 7519 §4.1.3: audience.

use std::fmt;

/// This API's identifier, as it stands in a token's `aud` (RFC 7519 §4.1.3). One of several must be there.
///
/// ```
/// use portcullis::Audience;
///
/// let one = Audience::from("https://api.example.com");
/// let any = Audience::from(["https://api.example.com", "https://api.example.com/v2"]);
/// assert_eq!(any, Audience::from(["https://api.example.com/v2", "https://api.example.com"]), "a set, without order");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience(Vec<String>);

impl Audience {
    /// Whether `presented` is one of them, byte by byte.
    pub fn contains(&self, presented: &str) -> bool {
        self.0.iter().any(|own| own == presented)
    }

    /// Whether it names anything, and nothing that no token will say.
    pub(crate) fn is_usable(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|own| !own.is_empty() && own.trim() == own)
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(formatter, "{one:?}"),
            several => write!(formatter, "one of {several:?}"),
        }
    }
}

impl From<&str> for Audience {
    fn from(one: &str) -> Self {
        Self(vec![one.to_owned()])
    }
}

impl From<String> for Audience {
    fn from(one: String) -> Self {
        Self(vec![one])
    }
}

impl<T: Into<String>, const N: usize> From<[T; N]> for Audience {
    fn from(several: [T; N]) -> Self {
        several.into_iter().collect()
    }
}

impl<T: Into<String>> From<Vec<T>> for Audience {
    fn from(several: Vec<T>) -> Self {
        several.into_iter().collect()
    }
}

impl<T: Into<String>> FromIterator<T> for Audience {
    /// In whatever order they come, they are the same audience.
    fn from_iter<I: IntoIterator<Item = T>>(several: I) -> Self {
        let mut several: Vec<String> = several.into_iter().map(Into::into).collect();
        several.sort_unstable();
        several.dedup();
        Self(several)
    }
}
