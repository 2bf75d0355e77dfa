//! Limits of concurrent fetches: in the whole process, and per server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

/// Maximum number of concurrent fetches in the process. A cold start with thousands of tenants must
/// not open thousands of connections.
const MAX_IN_FLIGHT: usize = 32;

/// Maximum number of concurrent fetches per server (scheme, host and port). If a server that a
/// thousand tenants share hangs, the fetches of other issuers are not delayed.
pub(crate) const MAX_PER_ORIGIN: usize = MAX_IN_FLIGHT / 2;

/// Lower limits for issuers without a verified token (half) and for issuers whose last fetch failed
/// (a quarter): neither tokens that anyone can write nor servers that are down can delay the other
/// issuers.
const MAX_PROBATIONARY: usize = MAX_IN_FLIGHT / 2;
const MAX_FAILED: usize = MAX_IN_FLIGHT / 4;

static IN_FLIGHT: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);
static PROBATIONARY: Semaphore = Semaphore::const_new(MAX_PROBATIONARY);
static FAILED: Semaphore = Semaphore::const_new(MAX_FAILED);
static ORIGINS: Mutex<BTreeMap<String, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

/// The permits of one server, shared by all issuers whose keys are there.
pub(crate) struct OriginLimit(Arc<Semaphore>);

/// Which further limit applies to a fetch.
#[derive(Clone, Copy)]
pub(crate) enum FetchClass {
    Established,
    /// A resolved issuer of which no token has been verified yet.
    Probationary,
    /// The issuer's last fetch failed.
    Failing,
}

/// The permits of one fetch, released when dropped.
pub(crate) struct FetchPermit<'a> {
    _permits: [Option<SemaphorePermit<'a>>; 3],
}

impl OriginLimit {
    pub(crate) fn at(server: &Url) -> Self {
        let origin = server.origin().ascii_serialization();
        let mut origins = ORIGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = origins.get(&origin).and_then(Weak::upgrade) {
            return Self(semaphore);
        }
        // Remove unused entries from time to time, so that servers of removed tenants do not
        // accumulate.
        if origins.len().is_power_of_two() {
            origins.retain(|_, limit| limit.strong_count() > 0);
        }
        let semaphore = Arc::new(Semaphore::new(MAX_PER_ORIGIN));
        origins.insert(origin, Arc::downgrade(&semaphore));
        Self(semaphore)
    }

    /// Waits for a permit, first come, first served. Each issuer has at most one fetch in progress,
    /// so none takes more than its share.
    pub(crate) async fn take(&self, class: FetchClass) -> FetchPermit<'_> {
        let of_class = match class {
            FetchClass::Established => None,
            FetchClass::Probationary => PROBATIONARY.acquire().await.ok(),
            FetchClass::Failing => FAILED.acquire().await.ok(),
        };
        // Acquire the global permit last: a task that waits for a narrower limit must not hold a
        // permit that another could use. The semaphores are never closed.
        let at_origin = self.0.acquire().await.ok();
        FetchPermit { _permits: [of_class, at_origin, IN_FLIGHT.acquire().await.ok()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_removed_tenants_do_not_accumulate() {
        let kept = OriginLimit::at(&Url::parse("https://kept.example/a").unwrap());
        for number in 0..1000 {
            OriginLimit::at(&Url::parse(&format!("https://{number}.example/")).unwrap());
        }
        let again = OriginLimit::at(&Url::parse("https://kept.example:443/b").unwrap());
        assert!(Arc::ptr_eq(&kept.0, &again.0));
        // Other tests of this binary may have added a few.
        assert!(ORIGINS.lock().unwrap().len() < 64);
    }
}
