//! The semaphore that serves the newest request first.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};

use super::{Exploration, join, poll_and_cancel, spawn, wait};
use crate::permits::Permits;

/// Two requests, and one that is canceled, for one permit.
pub(super) const AS_MANY_AS_THERE_ARE: Exploration = Exploration {
    name: "no permit is lost or given twice, also if a request is canceled that gets one",
    preemptions: 2,
    run: || {
        let permits = Permits::new(1);
        let held = Arc::new(AtomicUsize::new(0));
        let request = || {
            let (permits, held) = (Arc::clone(&permits), Arc::clone(&held));
            move || {
                let permit = wait(permits.acquire());
                assert!(permit.is_some(), "sent away, though the queue has no limit");
                assert_eq!(held.fetch_add(1, Ordering::AcqRel), 0, "another request has it");
                held.fetch_sub(1, Ordering::AcqRel);
            }
        };
        let other = spawn(request());
        let canceled = {
            let permits = Arc::clone(&permits);
            spawn(move || poll_and_cancel(permits.acquire()))
        };
        request()();
        join(other);
        join(canceled);
        let permit = wait(permits.acquire());
        assert!(permit.is_some() && !poll_and_cancel(permits.acquire()), "a second permit");
    },
};
