//! What operators see of an issuer's keys: counters, and the use of stale keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::RemoteJwks;
use crate::clock::Now;
use crate::health::IssuerHealth;
use crate::telemetry;

/// Counts since the start, for [`IssuerHealth`].
#[derive(Default)]
pub(super) struct Counters {
    pub(super) fetches: AtomicU64,
    pub(super) failed_fetches: AtomicU64,
    stale_serves: AtomicU64,
    pub(super) unknown_kids: AtomicU64,
}

impl RemoteJwks {
    /// The state of these keys.
    pub(crate) fn health(&self, now: Now) -> IssuerHealth {
        let state = self.lock();
        let jwks = self.current.load_full().filter(|_| state.schedule.serves(now.uptime));
        let stale =
            jwks.is_some() && state.schedule.fresh_until().is_some_and(|until| now.uptime >= until);
        IssuerHealth {
            iss: Arc::clone(&self.source.issuer.iss),
            keys: jwks.as_ref().map_or(0, |jwks| jwks.len()),
            ignored: jwks.map(|jwks| jwks.ignored().to_vec()).unwrap_or_default(),
            age: state.schedule.last_success().map(|last| now.uptime.saturating_sub(last)),
            next_fetch: Some(state.schedule.retry_after(now.uptime)),
            unknown_key_after: Some(state.schedule.unknown_kid_wait(now.uptime)),
            fetching: state.under_way.is_some(),
            stale,
            last_error: state.failure.as_deref().cloned(),
            fetches: self.counters.fetches.load(Ordering::Relaxed),
            failed_fetches: self.counters.failed_fetches.load(Ordering::Relaxed),
            stale_serves: self.counters.stale_serves.load(Ordering::Relaxed),
            unknown_kids: self.counters.unknown_kids.load(Ordering::Relaxed),
            introspection: None,
            #[cfg(feature = "status-list")]
            status_lists: None,
            needs_keys: true,
        }
    }

    /// Records that keys past their lifetime were used. Every use is counted. The first use in each
    /// such period is logged, unless a refresh simply has not ended yet.
    pub(super) fn report_stale(&self, fresh_until: u64, now: Now) {
        self.counters.stale_serves.fetch_add(1, Ordering::Relaxed);
        telemetry::stale_served(&self.source.issuer);
        if self.stale_reported.load(Ordering::Relaxed) != fresh_until
            && self.lock().schedule.has_failed()
            && self.stale_reported.swap(fresh_until, Ordering::Relaxed) != fresh_until
        {
            let until = Duration::from_nanos(fresh_until) + self.source.policy.max_stale;
            telemetry::keys_stale(&self.source.issuer, until.saturating_sub(now.uptime));
        }
    }
}
