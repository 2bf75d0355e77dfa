//! Lookups: concurrent ones of the same name share one call.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};

use super::{Exploration, join, poll_and_cancel, spawn, wait};
use crate::single_flight::SingleFlight;

#[derive(Clone)]
struct Lookups {
    flights: Arc<SingleFlight<usize>>,
    running: Arc<AtomicUsize>,
    called: Arc<AtomicUsize>,
}

impl Lookups {
    fn new() -> Self {
        Self { flights: Arc::default(), running: Arc::default(), called: Arc::default() }
    }

    /// A call of the application. Returns its number.
    async fn call(&self) -> usize {
        let running = self.running.fetch_add(1, Ordering::AcqRel);
        assert_eq!(running, 0, "another call runs");
        let number = self.called.fetch_add(1, Ordering::AcqRel) + 1;
        self.running.fetch_sub(1, Ordering::AcqRel);
        number
    }

    async fn look_up(&self) -> usize {
        self.flights.join("name".to_owned()).result(|| self.call()).await
    }
}

/// Three requests.
pub(super) const ONE_CALL: Exploration = Exploration {
    name: "lookups of one name that are in progress share one call at a time",
    preemptions: 2,
    run: || {
        let lookups = Lookups::new();
        let requests = [(), ()].map(|()| {
            let lookups = lookups.clone();
            spawn(move || wait(lookups.look_up()))
        });
        let mut results = vec![wait(lookups.look_up())];
        results.extend(requests.map(join));
        let called = lookups.called.load(Ordering::Acquire);
        assert!((1..=called).all(|number| results.contains(&number)), "{called}, {results:?}");
    },
};

/// The request that calls is canceled while another one waits.
pub(super) const CANCELED_CALL_IS_REPEATED: Exploration = Exploration {
    name: "a lookup whose request is canceled is done by the next request",
    preemptions: 2,
    run: || {
        let lookups = Lookups::new();
        let other = {
            let lookups = lookups.clone();
            spawn(move || wait(lookups.look_up()))
        };
        let flight = lookups.flights.join("name".to_owned());
        poll_and_cancel(flight.result(std::future::pending));
        drop(flight);
        let results = [wait(lookups.look_up()), join(other)];
        assert!(results.contains(&1), "{results:?}");
    },
};

/// Two requests leave at the same moment, one of them canceled.
pub(super) const NO_CALL_IS_LEFT: Exploration = Exploration {
    name: "no lookup joins one that has ended: its result may be outdated",
    preemptions: 3,
    run: || {
        let lookups = Lookups::new();
        let other = {
            let lookups = lookups.clone();
            spawn(move || {
                drop(lookups.flights.join("name".to_owned()));
            })
        };
        let first = wait(lookups.look_up());
        let second = wait(lookups.look_up());
        assert!(second > first, "the first call has returned before the second lookup began");
        join(other);
    },
};
