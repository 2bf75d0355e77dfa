//! The clock: read in one module, and passed to every rule as an argument.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Time since 1970-01-01T00:00:00Z, compared with `exp`, `nbf` and `iat`.
    pub(crate) unix: Duration,
    /// Time since an arbitrary start; it never goes back. The age of a key set is measured with it,
    /// so that a correction of the wall clock makes no key older or younger.
    pub(crate) uptime: Duration,
}

impl Now {
    /// The wall clock, for errors.
    pub(crate) fn wall(self) -> SystemTime {
        // A clock before 1970 reads as the far future, which no `SystemTime` holds.
        UNIX_EPOCH.checked_add(self.unix).unwrap_or(UNIX_EPOCH)
    }
}

/// `time` in nanoseconds, for an atomic integer. Enough for five centuries of uptime.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The source of [`Now`].
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
                // A clock before 1970 is broken. The far future rejects every token; the past would
                // accept expired ones.
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

    /// A clock that stands still until a test moves it, for
    /// [`VerifierBuilder::clock`](crate::VerifierBuilder::clock).
    ///
    /// It provides both the time that `exp` is compared with and the age of keys. Clones share the
    /// same time.
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
        /// Creates a clock that shows the present time, in whole seconds.
        pub fn new() -> Self {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Self {
                start: Duration::from_secs(now.as_secs()),
                passed: Arc::default(),
                corrected: Arc::default(),
            }
        }

        /// Advances the clock: both the time that `exp` is compared with and the age of keys.
        pub fn advance(&self, by: Duration) {
            let nanos = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
            self.passed.fetch_add(nanos, Ordering::SeqCst);
        }

        /// Corrects the wall clock by `seconds`: changes the time that `exp` is compared with, but
        /// not the age of keys.
        pub fn correct_by(&self, seconds: i64) {
            self.corrected.fetch_add(seconds, Ordering::SeqCst);
        }

        /// The current time of this clock.
        pub fn now(&self) -> SystemTime {
            UNIX_EPOCH + self.reading().unix
        }

        /// Seconds since 1970-01-01T00:00:00Z, as in `exp` (RFC 7519 §4.1.4).
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
