//! The task that reads the log of a shared store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};

use super::{Event, Exploration, join, spawn, wait};
use crate::access_token::AccessToken;
use crate::clock::Clock;
use crate::error::{Error, InvalidToken};
use crate::revocation::Revocations;
use crate::shared_store::{LogEntries, LogPosition, SharedStore, StoreFuture};
use crate::tokio::runtime;

const REVOKED: Result<(), Error> = Err(Error::InvalidToken(InvalidToken::Revoked));

/// A store in memory.
#[derive(Clone, Default)]
struct Store {
    /// Not of loom: the operations of a store are atomic.
    entries: Arc<Mutex<Vec<Vec<u8>>>>,
    reading: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl SharedStore for Store {
    fn insert_if_absent<'a>(&'a self, _: &'a str, _: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    fn append<'a>(&'a self, entry: &'a [u8], _: Duration) -> StoreFuture<'a, ()> {
        Box::pin(async {
            // So that threads may switch here.
            self.reading.load(Ordering::Acquire);
            self.entries.lock().expect("no panic").push(entry.to_vec());
            Ok(())
        })
    }

    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries> {
        Box::pin(async move {
            let at_once = self.reading.fetch_add(1, Ordering::AcqRel) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::AcqRel);
            let from = position.map_or(0, |position| position.0.parse().expect("a number"));
            let entries: Vec<_> = self.entries.lock().expect("no panic")[from..].to_vec();
            let position = Some(LogPosition((from + entries.len()).to_string()));
            self.reading.fetch_sub(1, Ordering::AcqRel);
            Ok(LogEntries { entries, position })
        })
    }
}

/// One replica with the store.
fn replica(store: &Store, clock: &Clock) -> Revocations {
    let revocations = Revocations::shared(store.clone());
    revocations.set_clock(clock);
    revocations
}

/// Another replica revokes a token while this one starts.
pub(super) const KNOWN_ONCE_LOADED: Exploration = Exploration {
    name: "once the log is loaded, what was revoked before is known",
    preemptions: 2,
    run: || {
        let (store, clock, revoked) = (Store::default(), Clock::default(), Event::new());
        let (this, other) = (replica(&store, &clock), replica(&store, &clock));
        let revoking = {
            let revoked = revoked.clone();
            spawn(move || {
                wait(other.subject("issuer", "user")).expect("there is room");
                revoked.happens();
            })
        };
        let must_be_rejected = revoked.has_happened();
        let token = AccessToken::new("token", 100);
        // Before the log was read, nothing is accepted.
        let early = this.check(&token, clock.now());
        assert!(!must_be_rejected || early != Ok(()), "accepted before the log was read");
        wait(this.loaded()).expect("nothing times out");
        let result = this.check(&token, clock.now());
        assert!(!must_be_rejected || result == REVOKED, "accepted");
        join(revoking);
        runtime::join_all();
    },
};

/// Two requests start the task. It ends, and is started again.
pub(super) const ONE_READER: Exploration = Exploration {
    name: "one task reads the log at a time",
    preemptions: 3,
    run: || {
        let (store, clock) = (Store::default(), Clock::default());
        let this = replica(&store, &clock);
        let other = {
            let this = this.clone();
            spawn(move || this.follow())
        };
        this.follow();
        this.follow();
        join(other);
        runtime::join_all();
        assert_eq!(store.most_at_once.load(Ordering::Acquire), 1, "reads at once");
    },
};

/// Two requests wait for the log. The task ends after its first read.
pub(super) const NEXT_READER: Exploration = Exploration {
    name: "a request that waits for the log is woken, and the next one starts a task that ended",
    preemptions: 2,
    run: || {
        let (store, clock) = (Store::default(), Clock::default());
        let this = replica(&store, &clock);
        let other = {
            let this = this.clone();
            spawn(move || wait(this.loaded()).is_ok())
        };
        assert!(wait(this.loaded()).is_ok() && join(other));
        runtime::join_all();
        let reads = this.health().log.expect("a log").reads;
        this.follow();
        runtime::join_all();
        assert_eq!(this.health().log.expect("a log").reads, reads + 1, "the next read");
    },
};
