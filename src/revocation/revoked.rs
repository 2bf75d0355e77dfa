//! The set of all revocations, and the counter with which tokens in use notice a new one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::entry::{Entry, Hash};

/// How many entries are kept: about 50 MB.
const MOST: usize = 1_000_000;

/// How often the set has changed. Wraps around after four billion changes.
pub(crate) type Count = u32;

/// When an entry counts, in seconds since 1970. 32 bits last until 2106, and keep an entry small.
#[derive(Clone, Copy)]
struct Times {
    issued_before: u32,
    until: u32,
}

/// The entries that have not ended.
pub(super) struct Revoked {
    entries: RwLock<HashMap<Hash, Times>>,
    /// Until which uptime the set counts as complete, in seconds, and how often it has changed. In
    /// one number, so that a request reads both at once.
    state: AtomicU64,
    /// For those that wait for a change.
    changes: watch::Sender<()>,
}

impl Default for Revoked {
    fn default() -> Self {
        // A new token has looked up nothing, which is count 0.
        Self {
            entries: RwLock::default(),
            state: AtomicU64::new(1),
            changes: watch::Sender::new(()),
        }
    }
}

impl Revoked {
    /// How often the set has changed, or `None` if it does not count as complete at this uptime.
    pub(super) fn count(&self, uptime: Duration) -> Option<Count> {
        let state = self.state.load(Ordering::Acquire);
        let (complete_until, count) = (state >> 32, state as u32);
        (uptime.as_secs() < complete_until).then_some(count)
    }

    /// The set was complete a moment ago, and counts as complete until this uptime.
    pub(super) fn is_complete_until(&self, uptime: Duration) {
        let until = u64::from(seconds(uptime)) << 32;
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some(until | state & u64::from(u32::MAX))
        });
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> RwLockReadGuard<'_, HashMap<Hash, Times>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an entry like this one, which ends no earlier than a minute before it, is there.
    pub(super) fn covers(&self, entry: &Entry) -> bool {
        self.entries().get(&entry.hash).is_some_and(|times| {
            times.issued_before >= seconds(entry.issued_before)
                && times.until.saturating_add(60) >= seconds(entry.until)
        })
    }

    /// Whether there is no room for an entry.
    pub(super) fn is_full(&self, entry: &Entry, now: Duration) -> bool {
        if self.len() < MOST || self.entries().contains_key(&entry.hash) {
            return false;
        }
        self.drop_ended(now);
        self.len() >= MOST
    }

    fn drop_ended(&self, now: Duration) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, times| u64::from(times.until) > now.as_secs());
    }

    /// Adds an entry, or extends the one with the same hash. Returns `false` if there is no room.
    pub(super) fn insert(&self, entry: &Entry, now: Duration) -> bool {
        if entry.until <= now {
            return true;
        }
        if self.is_full(entry, now) {
            return false;
        }
        let new =
            Times { issued_before: seconds(entry.issued_before), until: seconds(entry.until) };
        let has_changed = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            let old = entries.get(&entry.hash).copied();
            let issued_before = old.map_or(0, |old| old.issued_before).max(new.issued_before);
            let until = old.map_or(0, |old| old.until).max(new.until);
            entries.insert(entry.hash, Times { issued_before, until });
            old.is_none_or(|old| old.issued_before < issued_before || old.until < until)
        };
        if has_changed {
            // After the entry: a token that reads the new count finds it. Only the lower half
            // changes, also when it wraps around.
            let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                let count = (state as u32).wrapping_add(1).max(1);
                Some(state & !u64::from(u32::MAX) | u64::from(count))
            });
            self.changes.send_replace(());
        }
        true
    }

    /// Whether one of the hashes is revoked for a token that was issued at this time. One that does
    /// not say when it was issued counts as old.
    pub(super) fn contains(
        &self,
        hashes: &[Hash],
        issued_at: Option<Duration>,
        now: Duration,
    ) -> bool {
        let entries = self.entries();
        if entries.is_empty() {
            return false;
        }
        let issued_at = issued_at.map_or(0, |time| time.as_secs());
        hashes.iter().filter_map(|hash| entries.get(hash)).any(|times| {
            u64::from(times.until) > now.as_secs() && issued_at <= u64::from(times.issued_before)
        })
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
