//! OriginLimit for fetches: how many there are in the process, and how many of them one server can hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

/// Fetches in flight in the whole process: a cold start of thousands of tenants must not open thousands of connections.
const MAX_IN_FLIGHT: usize = 32;

/// Of these, for one server (scheme, host and port): when one hangs that a thousand tenants share, the others still get
/// their turn at once.
pub(crate) const MAX_PER_ORIGIN: usize = MAX_IN_FLIGHT / 2;

/// And for all issuers of whom nothing is known yet but their names, and for all whose last fetch failed: tokens that anybody
/// can write, and servers that are gone, leave the others their turn. Half and a quarter.
const MAX_PROBATIONARY: usize = MAX_IN_FLIGHT / 2;
const MAX_FAILED: usize = MAX_IN_FLIGHT / 4;

static IN_FLIGHT: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);
static PROBATIONARY: Semaphore = Semaphore::const_new(MAX_PROBATIONARY);
static FAILED: Semaphore = Semaphore::const_new(MAX_FAILED);
static ORIGINS: Mutex<BTreeMap<String, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

/// The places of one server, shared by all issuers whose keys are there.
pub(crate) struct OriginLimit(Arc<Semaphore>);

/// What speaks against an issuer.
#[derive(Clone, Copy)]
pub(crate) enum FetchClass {
    Established,
    /// It was looked up, and no token of it was verified yet.
    Probationary,
    /// Its last fetch failed.
    Failing,
}

/// A place for one fetch; given back when dropped.
pub(crate) struct FetchPermit<'a> {
    _permits: [Option<SemaphorePermit<'a>>; 3],
}

impl OriginLimit {
    pub(crate) fn at(server: &Url) -> Self {
        let origin = server.origin().ascii_serialization();
        let mut origins = ORIGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = origins.get(&origin).and_then(Weak::upgrade) {
            return Self(places);
        }
        // Now and then, so that servers of tenants that are gone do not add up.
        if origins.len().is_power_of_two() {
            origins.retain(|_, limit| limit.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(MAX_PER_ORIGIN));
        origins.insert(origin, Arc::downgrade(&places));
        Self(places)
    }

    /// First come, first served. Each issuer has one fetch under way at the most, so none takes more than its share.
    pub(crate) async fn take(&self, class: FetchClass) -> FetchPermit<'_> {
        let among_doubtful = match class {
            FetchClass::Established => None,
            FetchClass::Probationary => PROBATIONARY.acquire().await.ok(),
            FetchClass::Failing => FAILED.acquire().await.ok(),
        };
        // The widest last: whoever waits for a narrow one holds no place that another could use. None is ever closed.
        let at_origin = self.0.acquire().await.ok();
        FetchPermit { _permits: [among_doubtful, at_origin, IN_FLIGHT.acquire().await.ok()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_tenants_that_are_gone_do_not_add_up() {
        let kept = OriginLimit::at(&Url::parse("https://kept.example/a").unwrap());
        for number in 0..1000 {
            OriginLimit::at(&Url::parse(&format!("https://{number}.example/")).unwrap());
        }
        let again = OriginLimit::at(&Url::parse("https://kept.example:443/b").unwrap());
        assert!(Arc::ptr_eq(&kept.0, &again.0));
        // Other tests of this binary may have a few.
        assert!(ORIGINS.lock().unwrap().len() < 64);
    }
}
