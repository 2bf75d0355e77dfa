//! What the registry finds for an `iss`: an issuer, or the lookup to wait for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::active::ActiveIssuer;
use crate::clock::nanos;
use crate::error::Error;

/// The delay between two attempts to refresh an answer in the background.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

/// An issuer, or the lookup to wait for.
pub(crate) enum Resolution {
    Ready(ResolvedIssuer),
    Pending(LookupFuture),
}

/// A trusted issuer. Unless it is configured, with the cache entry of the lookup's answer.
#[derive(Clone)]
pub(crate) struct ResolvedIssuer {
    pub(crate) issuer: Arc<ActiveIssuer>,
    pub(super) cached: Option<Arc<CachedIssuer>>,
}

impl ResolvedIssuer {
    pub(crate) fn configured(issuer: &Arc<ActiveIssuer>) -> Self {
        Self { issuer: Arc::clone(issuer), cached: None }
    }

    /// The name that was looked up. `None` if the issuer is configured, and so trusted for the
    /// lifetime of the verifier.
    pub(crate) fn looked_up_as(&self) -> Option<&Arc<str>> {
        self.cached.as_ref().map(|cached| &cached.name)
    }

    pub(super) fn from_cache(cached: Arc<CachedIssuer>) -> Self {
        Self { issuer: Arc::clone(&cached.issuer), cached: Some(cached) }
    }
}

pub(crate) type LookupFuture = Pin<Box<dyn Future<Output = Result<ResolvedIssuer, Error>> + Send>>;

/// The lookup's answer for one name.
pub(crate) struct CachedIssuer {
    pub(super) name: Arc<str>,
    pub(super) issuer: Arc<ActiveIssuer>,
    /// Uptime of the answer.
    pub(super) at: Duration,
    /// End of the answer's validity, in nanoseconds of uptime.
    pub(super) holds_until: AtomicU64,
    /// When the next background refresh may start, in nanoseconds of uptime.
    pub(super) refresh_from: AtomicU64,
    /// Whether a token with this name was ever verified.
    pub(super) established: AtomicBool,
    /// The generation when the lookup was called.
    pub(super) generation: u64,
}

impl CachedIssuer {
    pub(super) fn holds(&self, now: Duration) -> bool {
        nanos(now) < self.holds_until.load(Ordering::Relaxed)
    }

    /// Whether the caller has to refresh the answer in the background. Returns `true` to one caller
    /// in each [`RETRY_AFTER`].
    pub(super) fn try_claim_refresh(&self, now: Duration) -> bool {
        let from = self.refresh_from.load(Ordering::Relaxed);
        let later = nanos(now + RETRY_AFTER);
        nanos(now) >= from
            && self
                .refresh_from
                .compare_exchange(from, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    pub(super) fn is_established(&self) -> bool {
        self.established.load(Ordering::Relaxed)
    }
}
