//! A clock that an exploration sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds since 1970 when the uptime is 0.
pub(crate) const START: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) unix: Duration,
    pub(crate) uptime: Duration,
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Not of loom: what time it is, is no state of the explored modules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(crate) fn now(&self) -> Now {
        at(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn set(&self, uptime: u64) {
        self.0.store(uptime, Ordering::SeqCst);
    }
}

/// The time at this uptime, in seconds.
pub(crate) fn at(uptime: u64) -> Now {
    Now { unix: Duration::from_secs(START + uptime), uptime: Duration::from_secs(uptime) }
}
