//! Where the keys of an issuer are, and how to interpret them.

use std::borrow::Cow;

use url::Url;

use super::address::AddressPolicy;
use super::schedule::{Budget, KeyPolicy, Schedule};
use crate::algorithm::Algorithm;
use crate::keys::jwk::SetFormat;
use crate::keys::url::PlainHttp;
use crate::telemetry::IssuerName;

/// What to fetch, and how to interpret it.
pub(crate) struct Source {
    pub(crate) issuer: IssuerName,
    pub(crate) location: Location,
    pub(crate) format: SetFormat,
    /// The algorithm of RSA keys without `alg`.
    pub(crate) rsa: Algorithm,
    pub(crate) algorithms: Cow<'static, [Algorithm]>,
    pub(crate) policy: KeyPolicy,
    pub(crate) addresses: AddressPolicy,
    /// Where the `jwks_uri` in the metadata may use plain `http`.
    pub(crate) plain_http: PlainHttp,
}

pub(crate) enum Location {
    /// The metadata of the issuer at `at` have the location of the keys.
    Discovery {
        at: Url,
        /// Whether the keys must have the same origin as the metadata.
        same_origin: bool,
    },
    Jwks(Url),
    /// One key per URL: this URL, followed by the `kid`.
    PemByKid(Url),
}

impl Source {
    pub(super) fn schedule(&self) -> Schedule {
        let budget = if matches!(self.location, Location::PemByKid(_)) {
            Budget::BY_KID
        } else {
            Budget::KEY_SET
        };
        Schedule::new(self.policy.clone(), budget)
    }
}

impl Location {
    /// The URL whose server the limit on concurrent fetches counts.
    pub(super) fn server(&self) -> &Url {
        match self {
            Self::Discovery { at, .. } => at,
            Self::Jwks(url) | Self::PemByKid(url) => url,
        }
    }
}
