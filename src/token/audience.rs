//! RFC 7519 §4.1.3: audience, and what stands in its place where an issuer sends none.

use std::borrow::Cow;
use std::fmt;

/// Whom a token must have been issued for: this API, as it stands in the claim `aud` (RFC 7519 §4.1.3).
///
/// Some issuers send no `aud`. Then something else must tell tokens for this API from all others that they sign:
///
/// ```
/// use portcullis::Audience;
///
/// let one = Audience::from("https://api.example.com");
/// let any = Audience::any_of(["https://api.example.com", "https://api.example.com/v2"]);
/// assert_eq!(any, Audience::from(["https://api.example.com/v2", "https://api.example.com"]), "a set, without order");
///
/// let cognito = Audience::client_id(["7d3s0fvlj8ubr2ogr1kkm8ne1"]); // the apps that may call
/// let clerk = Audience::authorized_party(["https://app.example.com"]); // the origins that may call
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Audience {
    claim: AudienceClaim,
    /// One of these must be in that claim; sorted.
    names: Vec<String>,
    /// Where that claim is not `aud`: a token that has `aud` all the same must have one of these in it; sorted.
    aud: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AudienceClaim {
    Audience,
    ClientId,
    AuthorizedParty,
    /// None is looked at.
    Any,
}

impl Audience {
    /// One of these must be in `aud`. The same as from an array.
    pub fn any_of<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(AudienceClaim::Audience, names)
    }

    /// The token must have been issued to one of these applications: `client_id` (RFC 9068 §2.2), else `azp`, else `cid`. For
    /// issuers that send no `aud`, such as Amazon Cognito. A token that has one is for another API (RFC 7519 §4.1.3), unless
    /// [`aud_if_present`](Self::aud_if_present) names it.
    pub fn client_id<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(AudienceClaim::ClientId, names)
    }

    /// `azp` must be one of these. For issuers that send no `aud` but the party that the token was issued to, such as Clerk,
    /// where it is the browser's origin; a token without `azp` is refused. A token that has `aud` is for another API, unless
    /// [`aud_if_present`](Self::aud_if_present) names it.
    pub fn authorized_party<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(AudienceClaim::AuthorizedParty, names)
    }

    /// Whoever it was issued for: **every** token that the issuer signs is accepted, also those meant for other APIs, which
    /// then can use them here. Only for issuers that serve nobody but this API.
    pub fn danger_any_audience() -> Self {
        Self { claim: AudienceClaim::Any, names: Vec::new(), aud: Vec::new() }
    }

    /// A token that has `aud` must have one of these in it, beside what else is asked for: for issuers that send `aud` with
    /// some tokens only, such as Amazon Cognito with those that are bound to a resource (RFC 8707).
    ///
    /// ```
    /// use portcullis::Audience;
    ///
    /// let audience = Audience::client_id(["7d3s0fvlj8ubr2ogr1kkm8ne1"]).aud_if_present(["https://api.example.com"]);
    /// ```
    pub fn aud_if_present<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.aud.extend(names.into_iter().map(Into::into));
        self.aud.sort_unstable();
        self.aud.dedup();
        self
    }

    fn of<T: Into<String>>(claim: AudienceClaim, names: impl IntoIterator<Item = T>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        Self { claim, names, aud: Vec::new() }
    }

    /// Whether `presented` is one of them, byte by byte.
    pub(crate) fn contains(&self, presented: &str) -> bool {
        self.names.iter().any(|own| own == presented)
    }

    /// Whether a token with this `aud` is for this API.
    pub(crate) fn accepts_aud(&self, presented: &[Cow<'_, str>]) -> bool {
        let names_one_of =
            |own: &[String]| presented.iter().any(|one| own.iter().any(|own| own == one));
        match self.claim {
            AudienceClaim::Audience => {
                names_one_of(&self.names) && (self.aud.is_empty() || names_one_of(&self.aud))
            }
            _ => names_one_of(&self.aud),
        }
    }

    /// Whether `aud` is looked at where it is not asked for.
    pub(crate) fn names_aud(&self) -> bool {
        !self.aud.is_empty()
    }

    /// Whether it names anything, and nothing that no token will say.
    pub(crate) fn is_usable(&self) -> bool {
        let is_named = !self.names.is_empty() || self.claim == AudienceClaim::Any;
        is_named
            && self.names.iter().chain(&self.aud).all(|own| !own.is_empty() && own.trim() == own)
    }

    /// Which claim says whom a token is for.
    pub(crate) fn claim(&self) -> AudienceClaim {
        self.claim
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.claim {
            AudienceClaim::Audience => "",
            AudienceClaim::ClientId => "client_id ",
            AudienceClaim::AuthorizedParty => "azp ",
            AudienceClaim::Any => "any",
        })?;
        match self.names.as_slice() {
            [] => {}
            [one] => write!(formatter, "{one:?}")?,
            several => write!(formatter, "one of {several:?}")?,
        }
        match (self.aud.as_slice(), self.claim) {
            ([], AudienceClaim::ClientId | AudienceClaim::AuthorizedParty) => {
                formatter.write_str(" and no `aud`")
            }
            ([], _) => Ok(()),
            (aud, _) => write!(formatter, " and `aud`, if present, one of {aud:?}"),
        }
    }
}

impl From<&str> for Audience {
    fn from(one: &str) -> Self {
        Self::any_of([one])
    }
}

impl From<String> for Audience {
    fn from(one: String) -> Self {
        Self::any_of([one])
    }
}

impl From<&String> for Audience {
    fn from(one: &String) -> Self {
        Self::any_of([one])
    }
}

impl<T: Into<String>, const N: usize> From<[T; N]> for Audience {
    fn from(several: [T; N]) -> Self {
        Self::any_of(several)
    }
}

impl<T: Into<String>> From<Vec<T>> for Audience {
    fn from(several: Vec<T>) -> Self {
        Self::any_of(several)
    }
}

impl<T: Into<String>> FromIterator<T> for Audience {
    /// In whatever order they come, they are the same audience.
    fn from_iter<I: IntoIterator<Item = T>>(several: I) -> Self {
        Self::any_of(several)
    }
}
