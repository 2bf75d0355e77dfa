//! A semaphore that gives the next permit to the newest request.
//!
//! Under overload, the oldest requests reach their time limit before they get a permit. In FIFO
//! order every request would wait that long, and none would be served.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A semaphore that serves the newest request first.
pub(crate) struct Permits(Mutex<State>);

struct State {
    free: usize,
    /// The newest request is last.
    waiting: VecDeque<oneshot::Sender<Permit>>,
    /// How many requests may wait. One more sends the oldest away.
    most_waiting: usize,
    /// The length at which abandoned requests are removed: twice the number that remained last
    /// time.
    prune_at: usize,
}

/// One permit. Dropping it passes it to the newest request. A permit sent to a request that is
/// dropped before receiving it is also passed on.
pub(crate) struct Permit {
    permits: Option<Arc<Permits>>,
}

impl Permits {
    pub(crate) fn new(number: usize) -> Arc<Self> {
        Self::with_queue(number, usize::MAX)
    }

    /// At most `most_waiting` requests wait.
    pub(crate) fn with_queue(number: usize, most_waiting: usize) -> Arc<Self> {
        let waiting = VecDeque::new();
        Arc::new(Self(Mutex::new(State { free: number, waiting, most_waiting, prune_at: 64 })))
    }

    /// Waits for a permit. Returns `None` if newer requests fill the queue. Cancel safe.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Option<Permit> {
        let own = || Some(Permit { permits: Some(Arc::clone(self)) });
        let given = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return own();
            }
            // Abandoned requests are otherwise removed only when a permit is offered to them, which
            // may never happen while newer requests arrive.
            if state.waiting.len() >= state.prune_at {
                state.waiting.retain(|waiting| !waiting.is_closed());
                state.prune_at = (2 * state.waiting.len()).max(64);
            }
            if state.waiting.len() >= state.most_waiting {
                state.waiting.pop_front();
            }
            let (give, given) = oneshot::channel();
            state.waiting.push_back(give);
            given
        };
        given.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(permits) = self.permits.take() else { return };
        loop {
            let newest = {
                let mut state = permits.lock();
                match state.waiting.pop_back() {
                    Some(newest) => newest,
                    None => {
                        state.free += 1;
                        return;
                    }
                }
            };
            match newest.send(Permit { permits: Some(Arc::clone(&permits)) }) {
                Ok(()) => return,
                // The request was abandoned. Disarm the returned permit; the loop passes it on.
                Err(mut unwanted) => unwanted.permits = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_newest_request_is_served_first_and_no_permit_is_lost() {
        let permits = Permits::new(1);
        let context = &mut Context::from_waker(Waker::noop());
        let (mut first, mut oldest, mut newest) =
            (pin!(permits.acquire()), pin!(permits.acquire()), pin!(permits.acquire()));
        let Poll::Ready(held) = first.as_mut().poll(context) else { panic!("one is free") };
        assert!(oldest.as_mut().poll(context).is_pending());
        assert!(newest.as_mut().poll(context).is_pending());
        {
            let mut gives_up = pin!(permits.acquire());
            assert!(gives_up.as_mut().poll(context).is_pending());
        }
        drop(held);
        assert!(oldest.as_mut().poll(context).is_pending(), "the newest request is first");
        let Poll::Ready(held) = newest.as_mut().poll(context) else {
            panic!("the newest waiting request gets the permit")
        };
        drop(held);
        assert!(oldest.as_mut().poll(context).is_ready());
        // The assertion above dropped the permit.
        let state = permits.lock();
        assert_eq!((state.free, state.waiting.len()), (1, 0));
    }

    #[test]
    fn a_permit_that_nothing_receives_is_passed_on() {
        let permits = Permits::new(1);
        let context = &mut Context::from_waker(Waker::noop());
        let mut first = pin!(permits.acquire());
        let Poll::Ready(held) = first.as_mut().poll(context) else { panic!("one is free") };
        let mut other = Box::pin(permits.acquire());
        assert!(other.as_mut().poll(context).is_pending());
        drop(held);
        drop(other);
        assert_eq!(permits.lock().free, 1);
    }

    #[test]
    fn the_oldest_request_leaves_a_full_queue() {
        let permits = Permits::with_queue(1, 2);
        let context = &mut Context::from_waker(Waker::noop());
        let mut requests: Vec<_> = (0..4).map(|_| Box::pin(permits.acquire())).collect();
        let Poll::Ready(_held) = requests[0].as_mut().poll(context) else { panic!("one is free") };
        for waiting in &mut requests[1..] {
            assert!(waiting.as_mut().poll(context).is_pending());
        }
        let left = requests[1].as_mut().poll(context);
        assert!(matches!(left, Poll::Ready(None)), "two newer requests wait");
        assert!(requests[2].as_mut().poll(context).is_pending());
    }

    #[test]
    fn requests_that_gave_up_do_not_add_up() {
        let permits = Permits::new(1);
        let context = &mut Context::from_waker(Waker::noop());
        let mut first = pin!(permits.acquire());
        let Poll::Ready(_held) = first.as_mut().poll(context) else { panic!("one is free") };
        for _ in 0..10_000 {
            let mut gives_up = pin!(permits.acquire());
            assert!(gives_up.as_mut().poll(context).is_pending());
        }
        assert!(permits.lock().waiting.len() <= 64);
    }

    #[test]
    fn requests_that_gave_up_are_removed_once_the_queue_has_doubled() {
        struct Case {
            remain: usize,
            give_up: usize,
            in_queue: usize,
        }

        for Case { remain, give_up, in_queue } in [
            Case { remain: 0, give_up: 64, in_queue: 64 },
            Case { remain: 0, give_up: 65, in_queue: 1 },
            Case { remain: 64, give_up: 64, in_queue: 128 },
            Case { remain: 64, give_up: 65, in_queue: 65 },
            Case { remain: 100, give_up: 28, in_queue: 128 },
            Case { remain: 100, give_up: 29, in_queue: 101 },
            Case { remain: 100, give_up: 128, in_queue: 200 },
            Case { remain: 100, give_up: 129, in_queue: 101 },
        ] {
            let permits = Permits::new(1);
            let context = &mut Context::from_waker(Waker::noop());
            let mut first = pin!(permits.acquire());
            let Poll::Ready(_held) = first.as_mut().poll(context) else { panic!("one is free") };
            let mut requests: Vec<_> = (0..remain).map(|_| Box::pin(permits.acquire())).collect();
            for waiting in &mut requests {
                assert!(waiting.as_mut().poll(context).is_pending());
            }
            for _ in 0..give_up {
                let mut gives_up = pin!(permits.acquire());
                assert!(gives_up.as_mut().poll(context).is_pending());
            }
            let waiting = permits.lock().waiting.len();
            assert_eq!(waiting, in_queue, "{remain} wait, {give_up} gave up");
        }
    }
}
