//! The clock: read in one place, handed to every rule as an argument.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "testing")]
use crate::testing::TestClock;

/// One reading of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Since 1970-01-01T00:00:00Z: what `exp`, `nbf` and `iat` are compared with.
    pub(crate) unix: Duration,
    /// Since an arbitrary start, never set back: what the age of a key set is measured with, so that somebody who
    /// corrects the wall clock neither ages nor rejuvenates the keys.
    pub(crate) uptime: Duration,
}

/// Where a [`Now`] comes from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "testing")]
    Test(TestClock),
}

impl Clock {
    pub(crate) fn now(&self) -> Now {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match self {
            Self::System => Now {
                // A clock before 1970 is broken. The far future refuses every token; the past would accept expired ones.
                unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX),
                uptime: START.elapsed(),
            },
            #[cfg(feature = "testing")]
            Self::Test(clock) => clock.reading(),
        }
    }
}
