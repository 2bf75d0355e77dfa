//! When another server is not asked: after failures in a row, and after it asked to wait. Pure
//! rules, no clock.
//!
//! A request that needs a dead server then costs microseconds and not the whole time limit, and the
//! server is not flooded when it comes back.

use std::time::Duration;

/// When a server is suspended, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Failures in a row after which the server is suspended.
    pub(crate) failures: u32,
    /// How long the first suspension lasts at most. Each is twice as long as the one before, until
    /// a question succeeds.
    pub(crate) first: Duration,
    /// How long a suspension lasts at most.
    pub(crate) longest: Duration,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    limits: Limits,
    failures: u32,
    /// Uptime until which nothing is asked.
    suspended_until: Duration,
    /// The upper bound of the last suspension.
    suspension: Duration,
    /// While suspended: uptime until which one question is in progress, whose result decides.
    probe_until: Option<Duration>,
    /// Number of suspensions. The failure of a question that began before one does not extend it.
    suspensions: u64,
}

/// Permission to ask. It tells which suspensions the question knows about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission(u64);

impl Breaker {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            failures: 0,
            suspended_until: Duration::ZERO,
            suspension: Duration::ZERO,
            probe_until: None,
            suspensions: 0,
        }
    }

    /// Whether a question may begin. Returns how long to wait if not. `limit`: how long a question
    /// takes at most.
    pub(crate) fn admit(&mut self, limit: Duration, now: Duration) -> Result<Admission, Duration> {
        self.check(now)?;
        if self.failures >= self.limits.failures {
            self.probe_until = Some(now + limit);
        }
        Ok(Admission(self.suspensions))
    }

    /// Like [`admit`](Self::admit), for a question that does not begin yet.
    pub(crate) fn check(&self, now: Duration) -> Result<(), Duration> {
        let probed = self.probe_until.filter(|_| self.failures >= self.limits.failures);
        let until = self.suspended_until.max(probed.unwrap_or_default());
        if now < until { Err(until - now) } else { Ok(()) }
    }

    /// Returns whether this ends a suspension.
    pub(crate) fn succeeded(&mut self) -> bool {
        let was_suspended = self.failures >= self.limits.failures;
        let (suspensions, suspended_until) = (self.suspensions, self.asked_to_wait());
        *self = Self { suspensions, suspended_until, ..Self::new(self.limits) };
        was_suspended
    }

    /// Returns how long the server is suspended, if it is from now on. `jitter`: in (0, 1].
    pub(crate) fn failed(
        &mut self,
        admission: Admission,
        jitter: f64,
        now: Duration,
    ) -> Option<Duration> {
        if admission.0 != self.suspensions {
            return None;
        }
        self.failures += 1;
        self.probe_until = None;
        if self.failures < self.limits.failures {
            return None;
        }
        self.suspension = (self.suspension * 2).clamp(self.limits.first, self.limits.longest);
        // Full jitter, so that replicas do not ask together.
        let suspended = self.suspension.mul_f64(jitter);
        self.suspended_until = self.suspended_until.max(now + suspended);
        self.suspensions += 1;
        Some(suspended)
    }

    /// The server asked to wait (RFC 9110 §10.2.3).
    pub(crate) fn wait(&mut self, time: Duration, now: Duration) -> Duration {
        let time = time.clamp(self.limits.first, self.limits.longest);
        self.suspended_until = self.suspended_until.max(now + time);
        self.probe_until = None;
        time
    }

    /// An admitted question was not sent: another one may probe.
    pub(crate) fn not_sent(&mut self) {
        self.probe_until = None;
    }

    /// A success of a question in progress does not end the time that the server asked for.
    fn asked_to_wait(&self) -> Duration {
        if self.failures >= self.limits.failures { Duration::ZERO } else { self.suspended_until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    const LIMITS: Limits =
        Limits { failures: 5, first: Duration::from_secs(1), longest: Duration::from_secs(30) };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn fail(breaker: &mut Breaker, at: Duration) -> Option<Duration> {
        let admission = breaker.admit(LIMIT, at).unwrap();
        breaker.failed(admission, 1.0, at)
    }

    #[test]
    fn five_failures_in_a_row_suspend_and_one_question_probes() {
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..4 {
            assert_eq!(fail(&mut breaker, ms(0)), None);
        }
        assert!(!breaker.succeeded(), "it was not suspended");
        for _ in 0..4 {
            assert_eq!(fail(&mut breaker, ms(0)), None, "a success begins a new row");
        }
        assert_eq!(fail(&mut breaker, ms(0)), Some(ms(1000)));
        assert_eq!(breaker.check(ms(999)), Err(ms(1)));
        assert!(breaker.admit(LIMIT, ms(1000)).is_ok(), "the probe");
        assert_eq!(breaker.admit(LIMIT, ms(1000)).unwrap_err(), LIMIT, "one at a time");
        assert!(breaker.admit(LIMIT, ms(3000)).is_ok(), "the first probe never ended");
        assert!(breaker.succeeded());
        assert!(breaker.check(ms(3000)).is_ok());
    }

    #[test]
    fn suspensions_double_up_to_a_limit() {
        let mut breaker = Breaker::new(LIMITS);
        let mut now = ms(0);
        let mut suspensions = Vec::new();
        while suspensions.len() < 7 {
            if let Some(suspended) = fail(&mut breaker, now) {
                suspensions.push(suspended.as_secs());
                now += suspended;
            }
        }
        assert_eq!(suspensions, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn questions_that_began_before_a_suspension_do_not_extend_it() {
        let mut breaker = Breaker::new(LIMITS);
        let admissions: Vec<_> = (0..32).map(|_| breaker.admit(LIMIT, ms(0)).unwrap()).collect();
        let suspended: Vec<_> = admissions
            .into_iter()
            .filter_map(|admission| breaker.failed(admission, 1.0, ms(0)))
            .collect();
        assert_eq!(suspended, [ms(1000)]);
    }

    #[test]
    fn questions_from_before_a_suspension_do_not_count_after_it_has_ended() {
        let mut breaker = Breaker::new(LIMITS);
        let old = breaker.admit(LIMIT, ms(0)).unwrap();
        while fail(&mut breaker, ms(0)).is_none() {}
        assert!(breaker.admit(LIMIT, ms(1000)).is_ok());
        assert!(breaker.succeeded());
        for _ in 0..LIMITS.failures {
            assert_eq!(breaker.failed(old, 1.0, ms(1000)), None);
        }
        assert!(breaker.check(ms(1000)).is_ok());
    }

    #[test]
    fn the_time_that_the_endpoint_asks_for_is_bounded_and_kept() {
        for (asked, waits) in [(ms(0), ms(1000)), (ms(7000), ms(7000)), (ms(90_000), ms(30_000))] {
            let mut breaker = Breaker::new(LIMITS);
            let in_progress = breaker.admit(LIMIT, ms(0));
            assert_eq!(breaker.wait(asked, ms(0)), waits);
            assert!(in_progress.is_ok());
            breaker.succeeded();
            assert_eq!(breaker.check(ms(0)), Err(waits), "a question in progress succeeded");
            assert!(breaker.check(waits).is_ok());
        }
    }
}
