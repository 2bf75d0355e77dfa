//! Token Status Lists (draft-ietf-oauth-status-list): an issuer publishes the status of its tokens
//! in compressed lists, and each token names its list and its place in it.
//!
//! `reference.rs` is what a token says, `list.rs` one list, and `lists.rs` the lists of one issuer
//! at run time, which `fetch.rs` fetches. `budget.rs` limits their number and their memory.

pub(crate) mod budget;
mod fetch;
pub(crate) mod list;
pub(crate) mod lists;
mod reference;
pub(crate) mod slot;

use std::time::Duration;

use url::Origin;

use crate::error::ConfigError;
use crate::keys::url::{PlainHttp, normal_url};

/// How long a list is used past its `ttl` while it cannot be fetched.
const MAX_STALE: Duration = Duration::from_secs(60);
const LONGEST_STALE: Duration = Duration::from_secs(3600);

/// The status lists of an issuer (draft-ietf-oauth-status-list), for
/// [`Issuer::status_lists`](crate::Issuer::status_lists).
///
/// A token with the claim `status.status_list` is accepted only if its status in that list is 0
/// (`VALID`). A list is fetched when the first token names it, and then refreshed ahead of its end,
/// so a request only reads memory. A token without that claim is accepted unless
/// [`required`](Self::required) is set.
///
/// The list must be signed with the keys of the issuer (`typ` is `statuslist+jwt`). It is cached
/// for its `ttl`, between a minute and a day, or for 5 minutes if it has none. A list that was
/// issued before the cached one (`iat`) does not replace it. `aggregation_uri` is ignored.
///
/// A list has at most 2 MiB, 16 MiB unpacked. An issuer has at most 64 lists of 64 MiB together.
/// All issuers that come from a lookup have at most 256 MiB together, and 1,024 lists beside the
/// first one of each. Tokens of a list for which there is no room are answered 503.
///
/// ```
/// use portcullis::{Issuer, StatusLists, Verifier};
///
/// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?
///     .status_lists(StatusLists::new().allow_origin("https://status.example.com")?);
/// let verifier = Verifier::new(issuer)?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct StatusLists {
    /// Where lists may be, beside the origin of the issuer.
    origins: Vec<Origin>,
    /// Whether each token must name a list.
    pub(crate) is_required: bool,
    max_stale: Duration,
}

impl StatusLists {
    /// Lists at the origin (scheme, host and port) of the issuer.
    pub fn new() -> Self {
        Self { origins: Vec::new(), is_required: false, max_stale: MAX_STALE }
    }

    /// Also allows lists at another origin, such as `https://status.example.com`. Tokens that name
    /// a list anywhere else are rejected, because the URL is fetched.
    ///
    /// # Errors
    ///
    /// Returns an error if `origin` is not an `https` URL, or if it has a path, a query or a
    /// fragment. `http` is accepted here, but used only where the issuer may be reached with it:
    /// on loopback, or with [`danger_allow_http`](crate::Issuer::danger_allow_http).
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, ConfigError> {
        let url = normal_url("origin of status lists", origin, PlainHttp::Anywhere)?;
        if url.path() != "/" {
            return Err(ConfigError::new(format!(
                "origin of status lists {origin:?}: expected a URL without a path"
            )));
        }
        self.origins.push(url.origin());
        Ok(self)
    }

    /// Rejects JWTs without the claim `status.status_list`, which could not be revoked. By default,
    /// they are accepted.
    pub fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// Sets for how long a list is used past its `ttl` while it cannot be fetched: 60 seconds by
    /// default. After that, and past the `exp` of a list in any case, requests with its tokens are
    /// answered 503.
    ///
    /// # Errors
    ///
    /// Returns an error if `duration` is longer than an hour.
    pub fn max_stale(mut self, duration: Duration) -> Result<Self, ConfigError> {
        if duration > LONGEST_STALE {
            return Err(ConfigError::new(format!(
                "staleness of status lists: expected at most an hour, found {duration:?}"
            )));
        }
        self.max_stale = duration;
        Ok(self)
    }
}

impl Default for StatusLists {
    fn default() -> Self {
        Self::new()
    }
}
