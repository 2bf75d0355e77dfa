//! The clock: read in one place, handed to every rule as an argument.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Since 1970-01-01T00:00:00Z: what `exp`, `nbf` and `iat` are compared with.
    pub(crate) unix: Duration,
    /// Since an arbitrary start, never set back: what the age of a key set is measured with, so that somebody who
    /// corrects the wall clock neither ages nor rejuvenates the keys.
    pub(crate) uptime: Duration,
}

impl Now {
    /// The wall clock, for errors.
    pub(crate) fn wall(self) -> SystemTime {
        // A clock before 1970 reads as the far future, which no `SystemTime` holds.
        UNIX_EPOCH.checked_add(self.unix).unwrap_or(UNIX_EPOCH)
    }
}

/// As it is kept in an atomic integer; enough for five centuries of uptime.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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

#[cfg(feature = "testing")]
pub use test_clock::TestClock;

#[cfg(feature = "testing")]
mod test_clock {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::Now;

    /// A clock that stands still until a test moves it; for [`VerifierBuilder::clock`](crate::VerifierBuilder::clock).
    ///
    /// It moves both what `exp` is compared with and the age of keys. Clones are the same clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use portcullis::Verifier;
    /// use portcullis::testing::{TestClock, TestIssuer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = TestClock::new();
    /// let issuer = TestIssuer::start()?;
    /// issuer.set_clock(&clock);
    /// let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build()?;
    ///
    /// let token = issuer.token().build();
    /// assert!(verifier.verify(&token).await.is_ok());
    /// clock.advance(Duration::from_secs(2 * 3600));
    /// assert!(verifier.verify(&token).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Clone, Debug)]
    pub struct TestClock {
        start: Duration,
        /// Nanoseconds since `start`.
        passed: Arc<AtomicI64>,
        /// Seconds by which the wall clock was corrected.
        corrected: Arc<AtomicI64>,
    }

    impl TestClock {
        /// A clock that shows the present, to the second.
        pub fn new() -> Self {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Self {
                start: Duration::from_secs(now.as_secs()),
                passed: Arc::default(),
                corrected: Arc::default(),
            }
        }

        /// Lets time pass.
        pub fn advance(&self, by: Duration) {
            let nanos = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
            self.passed.fetch_add(nanos, Ordering::SeqCst);
        }

        /// Somebody corrects the wall clock by so many seconds: what `exp` is compared with changes, the age of keys does not.
        pub fn correct_by(&self, seconds: i64) {
            self.corrected.fetch_add(seconds, Ordering::SeqCst);
        }

        /// What the clock shows.
        pub fn now(&self) -> SystemTime {
            UNIX_EPOCH + self.reading().unix
        }

        /// Seconds since 1970, as in `exp`.
        pub fn unix_seconds(&self) -> u64 {
            self.reading().unix.as_secs()
        }

        pub(super) fn reading(&self) -> Now {
            let passed = Duration::from_nanos(self.passed.load(Ordering::SeqCst).unsigned_abs());
            let corrected = self.corrected.load(Ordering::SeqCst);
            let by = Duration::from_secs(corrected.unsigned_abs());
            let unix = self.start + passed;
            Now {
                unix: if corrected < 0 { unix.saturating_sub(by) } else { unix + by },
                uptime: passed,
            }
        }
    }

    impl Default for TestClock {
        fn default() -> Self {
            Self::new()
        }
    }
}
