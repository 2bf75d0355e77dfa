//! Places for fetches: how many there are in the process, and how many of them one server can hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

/// Fetches in flight in the whole process: a cold start of thousands of tenants must not open thousands of connections.
const MAX_IN_FLIGHT: usize = 32;

/// Of these, for one server (scheme, host and port): when one hangs that a thousand tenants share, the others still get
/// their turn at once.
pub(crate) const MAX_PER_ORIGIN: usize = MAX_IN_FLIGHT / 2;

static IN_FLIGHT: Semaphore = Semaphore::const_new(MAX_IN_FLIGHT);
static ORIGINS: Mutex<BTreeMap<String, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());

/// The places of one server, shared by all issuers whose keys are there.
pub(crate) struct Places(Arc<Semaphore>);

/// A place for one fetch; given back when dropped.
pub(crate) struct Place<'a> {
    _in_process: Option<SemaphorePermit<'a>>,
    _at_origin: Option<SemaphorePermit<'a>>,
}

impl Places {
    pub(crate) fn at(server: &Url) -> Self {
        let origin = server.origin().ascii_serialization();
        let mut origins = ORIGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = origins.get(&origin).and_then(Weak::upgrade) {
            return Self(places);
        }
        // Now and then, so that servers of tenants that are gone do not add up.
        if origins.len().is_power_of_two() {
            origins.retain(|_, places| places.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(MAX_PER_ORIGIN));
        origins.insert(origin, Arc::downgrade(&places));
        Self(places)
    }

    /// First come, first served. Each issuer has one fetch under way at the most, so none takes more than its share.
    pub(crate) async fn take(&self) -> Place<'_> {
        // The server's first: whoever waits for that one holds none of the others' places. Neither is ever closed.
        let at_origin = self.0.acquire().await.ok();
        Place { _in_process: IN_FLIGHT.acquire().await.ok(), _at_origin: at_origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_tenants_that_are_gone_do_not_add_up() {
        let kept = Places::at(&Url::parse("https://kept.example/a").unwrap());
        for number in 0..1000 {
            Places::at(&Url::parse(&format!("https://{number}.example/")).unwrap());
        }
        let again = Places::at(&Url::parse("https://kept.example:443/b").unwrap());
        assert!(Arc::ptr_eq(&kept.0, &again.0));
        // Other tests of this binary may have a few.
        assert!(ORIGINS.lock().unwrap().len() < 64);
    }
}
