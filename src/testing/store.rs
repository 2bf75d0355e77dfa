use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, TestClock};
use crate::shared_store::{LogEntries, LogPosition, SharedStore, StoreError, StoreFuture};

/// A [`SharedStore`] in memory, for tests with several verifiers: clones share their content. It
/// fails, hangs and loses its content when a test says so.
///
/// ```
/// use portcullis::Dpop;
/// use portcullis::testing::TestStore;
///
/// let store = TestStore::new();
/// let one = Dpop::new("https://api.example.com")?.share_replays(store.clone());
/// let other = Dpop::new("https://api.example.com")?.share_replays(store.clone());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct TestStore(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    behavior: StoreBehavior,
    clock: Clock,
    /// Each key, and the unix time at which it ends.
    keys: HashMap<String, Duration>,
    log: Vec<Vec<u8>>,
    calls: usize,
}

/// What a [`TestStore`] does with each call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreBehavior {
    /// Responds at once.
    #[default]
    Normal,
    /// Responds with an error.
    Fail,
    /// Does not respond.
    Hang,
}

impl TestStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what the store does with each later call.
    pub fn set_behavior(&self, behavior: StoreBehavior) {
        self.inner().behavior = behavior;
    }

    /// Ends keys by a clock that a test controls.
    pub fn set_clock(&self, clock: &TestClock) {
        self.inner().clock = Clock::Test(clock.clone());
    }

    /// Loses all keys and the log, like a server that was restarted without persistence.
    pub fn lose(&self) {
        let mut inner = self.inner();
        inner.keys.clear();
        inner.log.clear();
    }

    /// Returns the keys that have not ended.
    pub fn keys(&self) -> Vec<String> {
        let inner = self.inner();
        let now = inner.clock.now().unix;
        inner.keys.iter().filter(|(_, end)| **end > now).map(|(key, _)| key.clone()).collect()
    }

    /// Returns how many calls the store has received.
    pub fn calls(&self) -> usize {
        self.inner().calls
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn respond<T>(&self, operation: impl FnOnce(&mut Inner) -> T) -> Result<T, StoreError> {
        let behavior = {
            let mut inner = self.inner();
            inner.calls += 1;
            inner.behavior
        };
        match behavior {
            StoreBehavior::Normal => Ok(operation(&mut self.inner())),
            StoreBehavior::Fail => Err(StoreError::new("the store fails")),
            StoreBehavior::Hang => std::future::pending().await,
        }
    }
}

impl SharedStore for TestStore {
    fn insert_if_absent<'a>(&'a self, key: &'a str, lifetime: Duration) -> StoreFuture<'a, bool> {
        Box::pin(self.respond(move |inner| {
            let now = inner.clock.now().unix;
            let is_absent = inner.keys.get(key).is_none_or(|end| *end <= now);
            if is_absent {
                inner.keys.insert(key.to_owned(), now.saturating_add(lifetime));
            }
            is_absent
        }))
    }

    fn append<'a>(&'a self, entry: &'a [u8], _: Duration) -> StoreFuture<'a, ()> {
        Box::pin(self.respond(move |inner| inner.log.push(entry.to_owned())))
    }

    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries> {
        Box::pin(self.respond(move |inner| {
            let read = position.and_then(|position| position.0.parse().ok()).unwrap_or(0);
            let entries: Vec<_> = inner.log.iter().skip(read).take(1000).cloned().collect();
            let position =
                (!entries.is_empty()).then(|| LogPosition((read + entries.len()).to_string()));
            LogEntries { entries, position }
        }))
    }
}

impl fmt::Debug for TestStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TestStore")
            .field("behavior", &self.inner().behavior)
            .finish_non_exhaustive()
    }
}
