//! RFC 7519 §4.1.3: the audience, and what replaces it for issuers that send none.

use std::borrow::Cow;
use std::fmt;

/// The audience that a token must have been issued for: this API, as named in the claim `aud`
/// (RFC 7519 §4.1.3).
///
/// Some issuers send no `aud`. For those, another claim must distinguish tokens for this API from
/// all other tokens that the issuer signs:
///
/// ```
/// use portcullis::Audience;
///
/// let one = Audience::from("https://api.example.com");
/// let any = Audience::any_of(["https://api.example.com", "https://api.example.com/v2"]);
/// assert_eq!(
///     any,
///     Audience::from(["https://api.example.com/v2", "https://api.example.com"]),
///     "the order does not matter"
/// );
///
/// // Amazon Cognito: the applications that may call the API.
/// let cognito = Audience::client_id(["7d3s0fvlj8ubr2ogr1kkm8ne1"]);
/// // Clerk: the origins that may call the API.
/// let clerk = Audience::authorized_party(["https://app.example.com"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Audience {
    claim: AudienceClaim,
    /// Values of that claim, one of which is required; sorted.
    names: Vec<String>,
    /// Values of `aud`, one of which is required if a token has `aud`, beside the claim above;
    /// sorted.
    aud: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AudienceClaim {
    Audience,
    ClientId,
    AuthorizedParty,
    /// The issuer checks, when it is asked about a token.
    Issuer,
    /// No claim is checked.
    Any,
}

impl Audience {
    /// Requires one of these values in `aud`. The same as `Audience::from` with an array.
    pub fn any_of<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(AudienceClaim::Audience, names)
    }

    /// Requires that the token was issued to one of these applications: `client_id`
    /// (RFC 9068 §2.2), else `azp`, else `cid`. For issuers that send no `aud`, such as Amazon
    /// Cognito.
    ///
    /// A token with an `aud` is for another API (RFC 7519 §4.1.3) and rejected, unless
    /// [`aud_if_present`](Self::aud_if_present) names it.
    pub fn client_id<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(AudienceClaim::ClientId, names)
    }

    /// Requires one of these values as `azp`. For issuers that send `azp` instead of `aud`, such as
    /// Clerk, where it is the browser's origin. A token without `azp` is rejected.
    ///
    /// A token with an `aud` is for another API (RFC 7519 §4.1.3) and rejected, unless
    /// [`aud_if_present`](Self::aud_if_present) names it.
    pub fn authorized_party<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        Self::of(AudienceClaim::AuthorizedParty, names)
    }

    /// Accepts tokens for any audience: **every** token that the issuer signs is accepted. This
    /// includes tokens for other APIs, and each of those can use the tokens that it receives to
    /// call this one. Use it only for issuers that serve no other API.
    pub fn danger_any_audience() -> Self {
        Self { claim: AudienceClaim::Any, names: Vec::new(), aud: Vec::new() }
    }

    /// Leaves the audience to the introspection endpoint of the issuer (RFC 7662 §4): for issuers
    /// that answer `active: false` to a client that the token is not for, as Keycloak and
    /// OpenIddict do. Check this for your issuer before you use it; otherwise, tokens for other
    /// APIs are accepted.
    ///
    /// Only for issuers that are asked about every token: see
    /// [`Introspection::jwts_too`](crate::Introspection::jwts_too) and
    /// [`instead_of_keys`](crate::Introspection::instead_of_keys).
    pub fn checked_by_issuer() -> Self {
        Self { claim: AudienceClaim::Issuer, names: Vec::new(), aud: Vec::new() }
    }

    /// Also requires one of these values in `aud`, if the token has `aud`. For issuers that send
    /// `aud` in some tokens only, such as Amazon Cognito in tokens that are bound to a resource
    /// (RFC 8707).
    ///
    /// ```
    /// use portcullis::Audience;
    ///
    /// let audience = Audience::client_id(["7d3s0fvlj8ubr2ogr1kkm8ne1"])
    ///     .aud_if_present(["https://api.example.com"]);
    /// ```
    pub fn aud_if_present<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.aud.extend(names.into_iter().map(Into::into));
        self.aud.sort_unstable();
        self.aud.dedup();
        self
    }

    /// Requires the identifier of a protected resource in `aud` (RFC 8707, RFC 9728): the URL of
    /// this API. A URL without a path is accepted with and without the slash at its end: clients
    /// that normalize the URL add it, and request a token for that spelling.
    ///
    /// ```
    /// use portcullis::Audience;
    ///
    /// assert_eq!(
    ///     Audience::resource("https://api.example.com"),
    ///     Audience::any_of(["https://api.example.com", "https://api.example.com/"])
    /// );
    /// assert_eq!(
    ///     Audience::resource("https://api.example.com/mcp"),
    ///     Audience::from("https://api.example.com/mcp")
    /// );
    /// ```
    pub fn resource(url: impl Into<String>) -> Self {
        let url = url.into();
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        match authority.split_once('/') {
            None if !authority.is_empty() => Self::any_of([format!("{url}/"), url]),
            Some((_, "")) => Self::any_of([url.trim_end_matches('/').to_owned(), url]),
            _ => Self::any_of([url]),
        }
    }

    /// Whether a token with this resource as its only audience is accepted.
    pub(crate) fn names_resource(&self, resource: &str) -> bool {
        self.claim == AudienceClaim::Audience && self.accepts_aud(&[Cow::Borrowed(resource)])
    }

    fn of<T: Into<String>>(claim: AudienceClaim, names: impl IntoIterator<Item = T>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        Self { claim, names, aud: Vec::new() }
    }

    /// Whether `presented` is one of the values of the claim, byte for byte.
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

    /// Whether `aud` is checked although another claim is required.
    pub(crate) fn names_aud(&self) -> bool {
        !self.aud.is_empty()
    }

    /// Whether at least one value is required, and no value is one that a token never has: empty,
    /// or with white space around it.
    pub(crate) fn is_usable(&self) -> bool {
        let is_named = !self.names.is_empty()
            || matches!(self.claim, AudienceClaim::Any | AudienceClaim::Issuer);
        is_named
            && self.names.iter().chain(&self.aud).all(|own| !own.is_empty() && own.trim() == own)
    }

    /// The claim that names the audience.
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
            AudienceClaim::Issuer => "as the issuer checks it",
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
    /// The order of the values does not matter.
    fn from_iter<I: IntoIterator<Item = T>>(several: I) -> Self {
        Self::any_of(several)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_by_both_spellings_of_its_root() {
        for (audience, resource, expected) in [
            (Audience::resource("https://a.example"), "https://a.example", true),
            (Audience::resource("https://a.example"), "https://a.example/", true),
            (Audience::resource("https://a.example/"), "https://a.example", true),
            (Audience::resource("https://a.example"), "https://a.example//", false),
            (Audience::resource("https://a.example/mcp"), "https://a.example/mcp", true),
            (Audience::resource("https://a.example/mcp"), "https://a.example/mcp/", false),
            (Audience::resource("https://a.example/mcp"), "https://a.example", false),
            (Audience::resource("https://"), "https://", true),
            (Audience::resource("https://"), "https:///", false),
            (Audience::resource("a.example"), "a.example", true),
            (Audience::resource("a.example"), "a.example/", false),
            (Audience::any_of(["a", "b"]), "b", true),
            (Audience::any_of(["a", "b"]), "c", false),
            (Audience::client_id(["a"]), "a", false),
        ] {
            assert_eq!(audience.names_resource(resource), expected, "{audience:?}, {resource}");
        }
    }
}
