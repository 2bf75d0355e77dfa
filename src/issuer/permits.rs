//! Permits for so many at once, given to the request that came last: while more come than can be served, those that came long
//! ago have their time limit behind them before it is their turn, and with first come, first served that would be all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A semaphore that serves the newest request first.
pub(crate) struct Permits(Mutex<State>);

struct State {
    free: usize,
    /// The newest last.
    waiting: Vec<oneshot::Sender<Permit>>,
    /// At this length those that gave up are removed: twice of what was left the last time.
    prune_at: usize,
}

/// One permit; passed on when dropped, also where nothing receives it any more.
pub(crate) struct Permit {
    permits: Option<Arc<Permits>>,
}

impl Permits {
    pub(crate) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free: number, waiting: Vec::new(), prune_at: 64 })))
    }

    /// Waits for a permit. May be dropped.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Permit {
        let own = || Permit { permits: Some(Arc::clone(self)) };
        let given = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return own();
            }
            // Those that gave up are only met when their turn comes, which may be never while newer ones come.
            if state.waiting.len() >= state.prune_at {
                state.waiting.retain(|waiting| !waiting.is_closed());
                state.prune_at = (2 * state.waiting.len()).max(64);
            }
            let (give, given) = oneshot::channel();
            state.waiting.push(give);
            given
        };
        // A sender is only dropped after it has sent.
        given.await.unwrap_or(Permit { permits: None })
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
                match state.waiting.pop() {
                    Some(newest) => newest,
                    None => {
                        state.free += 1;
                        return;
                    }
                }
            };
            match newest.send(Permit { permits: Some(Arc::clone(&permits)) }) {
                Ok(()) => return,
                // It has given up; this permit is not another one.
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
        assert!(oldest.as_mut().poll(context).is_pending(), "the newest one first");
        let Poll::Ready(held) = newest.as_mut().poll(context) else {
            panic!("the newest that still waits has it")
        };
        drop(held);
        assert!(oldest.as_mut().poll(context).is_ready());
        // That one was dropped by the assertion.
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
}
