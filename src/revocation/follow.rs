//! Reads the log of a shared store: from its beginning at the start, then once a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::entry::Entry;
use super::{Inner, Revocations};
use crate::clock::Now;
use crate::health::RevocationLogHealth;
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
    /// Each time that the log was read to its end.
    read: watch::Sender<()>,
    state: Mutex<State>,
    failures: LogThrottle,
}

/// How reading goes.
#[derive(Default)]
struct State {
    /// The uptime when the log was last read to its end.
    read_at: Option<Duration>,
    reads: u64,
    failed_reads: u64,
    last_error: Option<StoreError>,
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
            read: watch::Sender::new(()),
            state: Mutex::default(),
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

    /// Waits until `is_available`, which is asked whenever the log was read.
    pub(super) async fn wait_until(&self, is_available: impl Fn() -> bool) {
        let mut read = self.read.subscribe();
        // The sender lives as long as `self`.
        while !is_available() && read.changed().await.is_ok() {}
    }

    pub(super) fn health(&self, now: Duration) -> RevocationLogHealth {
        let state = self.state();
        RevocationLogHealth {
            age: state.read_at.map(|at| now.saturating_sub(at)),
            reads: state.reads,
            failed_reads: state.failed_reads,
            last_error: state.last_error.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let revoked = &revocations.0.revoked;
        let found = match read.unwrap_or_else(|_| Err(StoreError::timeout(LIMIT))) {
            Ok(found) => found,
            Err(error) => {
                self.failed(revocations, &error);
                return AFTER_FAILURE;
            }
        };
        let entries = found.entries.iter().filter_map(|bytes| Entry::from_bytes(bytes));
        if !revoked.insert(entries, began.unix) {
            // The set is not complete, so it ends to count as such.
            self.failed(revocations, &StoreError::new("more than a million revocations"));
            return EVERY;
        }
        if let Some(position) = found.position {
            *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
        }
        if found.entries.len() >= AT_ONCE {
            return Duration::ZERO;
        }
        revoked.tidy(began.unix);
        revoked.is_complete_until(began.uptime.saturating_add(revocations.0.max_stale) + EVERY);
        self.succeeded(began, revoked.len());
        EVERY
    }

    fn succeeded(&self, at: Now, entries: usize) {
        let (is_first, has_failed) = {
            let mut state = self.state();
            let before = (state.read_at.is_none(), state.last_error.take().is_some());
            state.read_at = Some(at.uptime);
            state.reads += 1;
            before
        };
        self.read.send_replace(());
        telemetry::revocations_kept(entries);
        telemetry::revocations_read_at(at.unix);
        if is_first || has_failed {
            telemetry::revocations_read(entries);
        }
    }

    fn failed(&self, revocations: &Revocations, error: &StoreError) {
        let now = revocations.now().uptime;
        let age = {
            let mut state = self.state();
            state.reads += 1;
            state.failed_reads += 1;
            state.last_error = Some(error.clone());
            state.read_at.map(|at| now.saturating_sub(at))
        };
        if let Some(suppressed) = self.failures.admit(now) {
            telemetry::revocations_stale(error, age, suppressed);
        }
    }
}
