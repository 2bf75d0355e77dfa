//! Reads the log of a shared store: from its beginning at the start, then once a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::yield_now;
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

/// After how long without a read the task counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// How much the clock must go back to count as set back, rather than corrected.
const SET_BACK: Duration = Duration::from_secs(60);

/// How many entries are read at once, as [`SharedStore::read`] says.
const AT_ONCE: usize = 1000;

/// How many of them are inserted before the requests on the same thread have a turn.
const AT_A_TIME: usize = 50;

/// The log of a shared store.
pub(super) struct Follower {
    store: Arc<dyn SharedStore>,
    /// Up to where the log was read.
    position: Mutex<Option<LogPosition>>,
    /// Each time that the log was read to its end.
    read: watch::Sender<()>,
    state: Mutex<State>,
    failures: LogThrottle,
}

/// Why it is not known that an entry was appended.
pub(super) enum NotAppended {
    Failed(StoreError),
    /// The store did not answer in time.
    Perhaps(StoreError),
}

/// How reading goes.
#[derive(Default)]
struct State {
    /// The task that reads: its number, and the uptime of its last sign of life.
    running: Option<(u64, Duration)>,
    /// The number of the latest task.
    tasks: u64,
    /// The unix time of the last read.
    wall: Duration,
    /// The uptime when the log was last read to its end.
    read_at: Option<Duration>,
    reads: u64,
    failed_reads: u64,
    last_error: Option<StoreError>,
}

/// A task that reads the log. However it ends, the next request starts another one.
struct Running {
    number: u64,
    inner: Weak<Inner>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        let Some(follower) = &inner.follower else { return };
        let mut state = follower.state();
        if state.running.is_some_and(|(number, _)| number == self.number) {
            state.running = None;
            inner.revoked.read_again_before(Duration::ZERO);
        }
    }
}

impl Follower {
    pub(super) fn new(store: Arc<dyn SharedStore>) -> Self {
        Self {
            store,
            position: Mutex::default(),
            read: watch::Sender::new(()),
            state: Mutex::default(),
            failures: LogThrottle::default(),
        }
    }

    pub(super) async fn append(
        &self,
        entry: &Entry,
        keep_for: Duration,
    ) -> Result<(), NotAppended> {
        let bytes = entry.to_bytes();
        let appended = timeout(LIMIT, self.store.append(&bytes, keep_for)).await;
        match appended {
            Ok(appended) => appended.map_err(NotAppended::Failed),
            Err(_) => Err(NotAppended::Perhaps(StoreError::timeout(LIMIT))),
        }
    }

    /// Starts the task, if none is running and there is a runtime for it. One without a sign of
    /// life is replaced: its runtime may exist, and not be driven any more.
    pub(super) fn start(&self, revocations: &Revocations) {
        let Ok(runtime) = Handle::try_current() else { return };
        let now = revocations.now().uptime;
        let number = {
            let mut state = self.state();
            if state.running.is_some_and(|(_, seen)| now < seen.saturating_add(LOST_AFTER)) {
                return;
            }
            state.tasks += 1;
            state.running = Some((state.tasks, now));
            state.tasks
        };
        // Not an `Arc`: the task ends with the last handle.
        runtime.spawn(run(Running { number, inner: Arc::downgrade(&revocations.0) }));
    }

    /// Whether the task with this number is still the one that reads.
    fn is_current(&self, number: u64, now: Duration) -> bool {
        let mut state = self.state();
        match &mut state.running {
            Some((current, seen)) if *current == number => {
                *seen = now;
                true
            }
            _ => false,
        }
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
        let Some(inner) = running.inner.upgrade() else { return };
        let revocations = Revocations(inner);
        let pause = match &revocations.0.follower {
            Some(follower) if follower.is_current(running.number, revocations.now().uptime) => {
                follower.read(&revocations).await
            }
            _ => return,
        };
        drop(revocations);
        sleep(pause).await;
    }
}

impl Follower {
    /// Reads what is new. Returns how long to wait before the next read.
    async fn read(&self, revocations: &Revocations) -> Duration {
        // Before the read: what is appended meanwhile may be missing.
        let began = revocations.now();
        let position = self.position(began);
        let read = timeout(LIMIT, self.store.read(position.as_ref())).await;
        let revoked = &revocations.0.revoked;
        let found = match read.unwrap_or_else(|_| Err(StoreError::timeout(LIMIT))) {
            Ok(found) => found,
            Err(error) => {
                self.failed(revocations, &error);
                return AFTER_FAILURE;
            }
        };
        // The log may have more entries that have ended than there is room for.
        let may_count = |entry: &Entry| entry.may_count(began.unix);
        for some in found.entries.chunks(AT_A_TIME) {
            let entries =
                some.iter().filter_map(|bytes| Entry::from_bytes(bytes)).filter(may_count);
            if !revoked.insert(entries, began) {
                // The set is not complete, so it ends to count as such.
                self.failed(revocations, &StoreError::new("more than a million revocations"));
                return EVERY;
            }
            yield_now().await;
        }
        if let Some(position) = found.position {
            *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
        }
        let has_more = match found.entries.len() {
            0 => false,
            // At the start, also of a store with shorter pages.
            some => some >= AT_ONCE || self.state().read_at.is_none(),
        };
        if has_more {
            return Duration::ZERO;
        }
        revoked.tidy(began);
        let complete_until = began.uptime.saturating_add(revocations.0.max_stale) + EVERY;
        revoked.was_read(began.uptime.saturating_add(LOST_AFTER), complete_until);
        self.succeeded(began, revoked.len());
        EVERY
    }

    /// Where to read on: from the beginning if the clock was set back, since entries may have been
    /// dropped as ended that have not.
    fn position(&self, now: Now) -> Option<LogPosition> {
        let was_set_back = {
            let mut state = self.state();
            let was_set_back = now.unix.saturating_add(SET_BACK) < state.wall;
            state.wall = now.unix;
            was_set_back
        };
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        if was_set_back {
            *position = None;
        }
        position.clone()
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
