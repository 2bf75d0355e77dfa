use crate::telemetry::IssuerName;
use crate::url::Url;
use loom::sync::atomic::AtomicUsize;

use super::schedule::{Budget, KeyPolicy, Schedule};

pub(crate) struct Source {
    pub(crate) issuer: IssuerName,
    pub(crate) location: Location,
    pub(crate) policy: KeyPolicy,
    /// How many fetches have begun.
    pub(crate) begun: AtomicUsize,
}

pub(crate) enum Location {
    Jwks(Url),
    PemByKid(Url),
}

impl Source {
    pub(super) fn schedule(&self) -> Schedule {
        Schedule::new(self.policy.clone(), Budget::KEY_SET)
    }
}

impl Location {
    pub(super) fn server(&self) -> &Url {
        match self {
            Self::Jwks(url) | Self::PemByKid(url) => url,
        }
    }
}
