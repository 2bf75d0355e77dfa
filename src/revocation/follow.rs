//! Reads the log of a shared store: from its beginning at the start, then once a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::entry::Entry;
use super::{Inner, Revocations};
use crate::shared_store::{LogPosition, SharedStore, StoreError};
use crate::telemetry::{self, LogThrottle};

/// How often the log is read. A revocation takes effect at another replica within two of these.
const EVERY: Duration = Duration::from_secs(1);

/// The same after a failed read: one slow answer must not delay a revocation by a second more.
const AFTER_FAILURE: Duration = Duration::from_millis(250);

/// How long one read or one append may take.
const LIMIT: Duration = Duration::from_millis(250);

/// How many entries are read at once, as [`SharedStore::read`] says.
const AT_ONCE: usize = 1000;

/// The log of a shared store.
pub(super) struct Follower {
    store: Arc<dyn SharedStore>,
    /// Up to where the log was read.
    position: Mutex<Option<LogPosition>>,
    is_running: AtomicBool,
    loaded: watch::Sender<bool>,
    failures: LogThrottle,
}

/// A task that reads the log. However it ends, the next request starts another one.
struct Running(Weak<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(follower) = self.0.upgrade().as_ref().and_then(|inner| inner.follower.as_ref())
        {
            follower.is_running.store(false, Ordering::Release);
        }
    }
}

impl Follower {
    pub(super) fn new(store: Arc<dyn SharedStore>) -> Self {
        Self {
            store,
            position: Mutex::default(),
            is_running: AtomicBool::new(false),
            loaded: watch::Sender::new(false),
            failures: LogThrottle::default(),
        }
    }

    pub(super) async fn append(&self, entry: &Entry, keep_for: Duration) -> Result<(), StoreError> {
        let bytes = entry.to_bytes();
        let appended = timeout(LIMIT, self.store.append(&bytes, keep_for)).await;
        appended.unwrap_or_else(|_| Err(StoreError::timeout(LIMIT)))
    }

    /// Starts the task, if none is running and there is a runtime for it.
    pub(super) fn start(&self, revocations: &Revocations) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        // Not an `Arc`: the task ends with the last handle.
        let running = Running(Arc::downgrade(&revocations.0));
        runtime.spawn(run(running));
    }

    pub(super) async fn loaded(&self) {
        let mut loaded = self.loaded.subscribe();
        // The sender lives as long as `self`.
        let _ = loaded.wait_for(|loaded| *loaded).await;
    }
}

async fn run(running: Running) {
    loop {
        let Some(inner) = running.0.upgrade() else { return };
        let revocations = Revocations(inner);
        let pause = match &revocations.0.follower {
            Some(follower) => follower.read(&revocations).await,
            None => return,
        };
        drop(revocations);
        sleep(pause).await;
    }
}

impl Follower {
    /// Reads what is new. Returns how long to wait before the next read.
    async fn read(&self, revocations: &Revocations) -> Duration {
        let position = self.position.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Before the read: what is appended meanwhile may be missing.
        let began = revocations.now();
        let read = timeout(LIMIT, self.store.read(position.as_ref())).await;
        match read.unwrap_or_else(|_| Err(StoreError::timeout(LIMIT))) {
            Ok(found) => {
                let mut fits = true;
                for entry in found.entries.iter().filter_map(|bytes| Entry::from_bytes(bytes)) {
                    fits &= revocations.0.revoked.insert(&entry, began.unix);
                }
                if !fits {
                    // The set is not complete, so it ends to count as such.
                    self.report(revocations, &StoreError::new("more than a million revocations"));
                    return EVERY;
                }
                if let Some(position) = found.position {
                    *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
                }
                let has_more = found.entries.len() >= AT_ONCE;
                if !has_more {
                    let until = began.uptime.saturating_add(revocations.0.max_stale);
                    revocations.0.revoked.is_complete_until(until + EVERY);
                    self.loaded.send_replace(true);
                }
                if has_more { Duration::ZERO } else { EVERY }
            }
            Err(error) => {
                self.report(revocations, &error);
                AFTER_FAILURE
            }
        }
    }

    fn report(&self, revocations: &Revocations, error: &StoreError) {
        if let Some(suppressed) = self.failures.admit(revocations.now().uptime) {
            telemetry::revocations_stale(error, suppressed);
        }
    }
}
