//! RFC 7519 §4.1.3: audience, and what stands in its place where an issuer sends none.

use std::fmt;

use super::claims::Claims;
use crate::error::InvalidToken;

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
pub struct Audience {
    claim: Claim,
    /// One of these must be there; sorted.
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Audience,
    ClientId,
    AuthorizedParty,
    /// None is looked at.
    Any,
}

impl Audience {
    /// One of these must be in `aud`. The same as from an array.
    pub fn any_of<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(Claim::Audience, names)
    }

    /// The token must have been issued to one of these applications: `client_id` (RFC 9068 §2.2), else `azp`, else `cid`. For
    /// issuers that send no `aud`, such as Amazon Cognito; one that is there is not looked at.
    pub fn client_id<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(Claim::ClientId, names)
    }

    /// `azp` must be one of these. For issuers that send no `aud` but the party that the token was issued to, such as Clerk,
    /// where it is the browser's origin; a token without `azp` is refused.
    pub fn authorized_party<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(Claim::AuthorizedParty, names)
    }

    /// Whoever it was issued for: **every** token that the issuer signs is accepted, also those meant for other APIs, which
    /// then can use them here. Only for issuers that serve nobody but this API.
    pub fn danger_any_audience() -> Self {
        Self { claim: Claim::Any, names: Vec::new() }
    }

    fn of<T: Into<String>>(claim: Claim, names: impl IntoIterator<Item = T>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        Self { claim, names }
    }

    /// Whether `presented` is one of them, byte by byte.
    pub(crate) fn contains(&self, presented: &str) -> bool {
        self.names.iter().any(|own| own == presented)
    }

    /// Whether it names anything, and nothing that no token will say.
    pub(crate) fn is_usable(&self) -> bool {
        let named = !self.names.is_empty() && self.names.iter().all(|own| !own.is_empty() && own.trim() == own);
        named || self.claim == Claim::Any
    }

    pub(crate) fn check(&self, claims: &Claims<'_>) -> Result<(), InvalidToken> {
        let presented: Vec<&str> = match self.claim {
            Claim::Any => return Ok(()),
            Claim::Audience => {
                claims.audience.as_ref().ok_or(InvalidToken::MissingClaim("aud"))?.iter().map(|one| &**one).collect()
            }
            Claim::ClientId => vec![claims.client_id().ok_or(InvalidToken::MissingClaim("client_id"))?],
            Claim::AuthorizedParty => vec![claims.authorized_party().ok_or(InvalidToken::MissingClaim("azp"))?],
        };
        match presented.iter().any(|presented| self.contains(presented)) {
            true => Ok(()),
            false => Err(InvalidToken::Audience {
                expected: self.clone(),
                presented: presented.into_iter().map(str::to_owned).collect(),
            }),
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.claim {
            Claim::Audience => "",
            Claim::ClientId => "client_id ",
            Claim::AuthorizedParty => "azp ",
            Claim::Any => return formatter.write_str("any"),
        })?;
        match self.names.as_slice() {
            [one] => write!(formatter, "{one:?}"),
            several => write!(formatter, "one of {several:?}"),
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
