//! The invariants. Each exploration runs once for every interleaving, and fails by a panic: of an
//! assertion, or of loom if threads wait for each other.

mod keys;
mod log;
mod permits;
mod questions;
mod replays;
mod revocation;
mod single_flight;
mod token_table;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};

/// An invariant, and the threads that could break it.
pub(crate) struct Exploration {
    /// The invariant, in one line.
    pub(crate) name: &'static str,
    /// How often a thread is preempted, at most, in one interleaving. Waiting is no preemption.
    pub(crate) preemptions: usize,
    pub(crate) run: fn(),
}

pub(crate) const EXPLORATIONS: &[Exploration] = &[
    replays::ONE_USE_OF_A_PROOF,
    replays::NO_USE_OF_A_DROPPED_PROOF,
    replays::LIVE_PROOFS_ARE_COUNTED,
    replays::SHARE_OF_A_KEY,
    revocation::REVOKED_IS_REJECTED,
    revocation::REVOKED_TWICE_IS_REJECTED,
    revocation::NO_COUNT_WITHOUT_ENTRIES,
    revocation::STREAM_ENDS,
    log::KNOWN_ONCE_LOADED,
    log::ONE_READER,
    log::NEXT_READER,
    token_table::HIT_IS_EXACT,
    token_table::MEMORY_IS_RETURNED,
    token_table::MEMORY_HAS_A_LIMIT,
    token_table::SWEPT_MEMORY_COUNTS_ONCE,
    token_table::REMOVED_IS_GONE,
    token_table::ONE_RENEWAL,
    keys::ONE_FETCH,
    keys::NEWER_KEYS_STAY,
    keys::INTERRUPTED_FETCH_ENDS,
    keys::KEYS_OR_A_FETCH,
    keys::ONE_FETCH_FOR_A_STALE_SET,
    keys::NO_HIT_WITH_REPLACED_KEYS,
    questions::ONE_QUESTION,
    questions::NO_ANSWER_FROM_BEFORE,
    questions::NO_OUTDATED_ANSWER,
    questions::NO_ANSWER_AFTER_FORGETTING,
    questions::DROPPED_QUESTION_ENDS,
    single_flight::ONE_CALL,
    single_flight::CANCELED_CALL_IS_REPEATED,
    single_flight::NO_CALL_IS_LEFT,
    permits::AS_MANY_AS_THERE_ARE,
];

fn spawn<T: 'static>(run: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    thread::spawn(run)
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no panic: it would have ended the process")
}

fn wait<F: Future>(future: F) -> F::Output {
    loom::future::block_on(future)
}

/// Polls a future once, and drops it: a request whose client has gone. Returns whether it was
/// ready.
fn poll_and_cancel<F: Future>(future: F) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Something that has happened, for other threads to see.
#[derive(Clone)]
struct Event(Arc<AtomicBool>);

impl Event {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    fn happens(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn has_happened(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
