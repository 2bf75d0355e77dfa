//! Shares one computation among all concurrent requests for the same key.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OnceCell;

/// Computations in progress, by key.
pub(crate) struct SingleFlight<T>(Mutex<HashMap<String, Weak<OnceCell<T>>>>);

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> SingleFlight<T> {
    /// Joins the computation for `key` that is in progress, or registers a new one.
    pub(crate) fn join(self: &Arc<Self>, key: String) -> Flight<T> {
        let mut in_progress = self.lock();
        let cell = match in_progress.get(&key).and_then(Weak::upgrade) {
            Some(cell) => cell,
            None => {
                let cell = Arc::new(OnceCell::new());
                in_progress.insert(key.clone(), Arc::downgrade(&cell));
                cell
            }
        };
        drop(in_progress);
        Flight { flights: Arc::clone(self), key, cell: Some(cell) }
    }

    /// Later requests join none of the computations that are in progress now.
    pub(crate) fn detach(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<OnceCell<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's share in a computation. Dropping the last share removes the computation from the
/// map.
pub(crate) struct Flight<T> {
    flights: Arc<SingleFlight<T>>,
    key: String,
    /// `None` once dropped.
    cell: Option<Arc<OnceCell<T>>>,
}

impl<T: Clone> Flight<T> {
    /// Returns the result of `compute`, or that of another request. If the request that computes is
    /// dropped, the next one runs its own `compute`.
    pub(crate) async fn result<F: Future<Output = T>>(&self, compute: impl FnOnce() -> F) -> T {
        match &self.cell {
            Some(cell) => cell.get_or_init(compute).await.clone(),
            None => compute().await,
        }
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        let mut in_progress = self.flights.lock();
        let Some(cell) = self.cell.take() else { return };
        let is_own =
            in_progress.get(&self.key).is_some_and(|entry| std::ptr::eq(entry.as_ptr(), &*cell));
        // Later requests do not share a finished result: caching is up to the caller.
        let is_done = cell.initialized();
        // Drop the cell under the lock: if two shares are dropped at once, the second one sees that
        // it is the last.
        drop(cell);
        let is_last = in_progress.get(&self.key).is_some_and(|entry| entry.strong_count() == 0);
        if is_own && (is_done || is_last) {
            in_progress.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Flights = Arc<SingleFlight<u8>>;

    /// What happens to two requests. Returns those that have not left.
    type Happens = fn(&Flights, [Flight<u8>; 2]) -> Vec<Flight<u8>>;
    type Leaves = fn(Flight<u8>);

    fn join(flights: &Flights) -> Flight<u8> {
        flights.join("key".to_owned())
    }

    fn finish(flight: &Flight<u8>) {
        let context = &mut Context::from_waker(Waker::noop());
        let result = pin!(flight.result(|| async { 7 })).poll(context);
        assert_eq!(result, Poll::Ready(7));
    }

    fn is_same(one: &Flight<u8>, other: &Flight<u8>) -> bool {
        let [one, other] = [one, other].map(|flight| flight.cell.as_ref().unwrap());
        Arc::ptr_eq(one, other)
    }

    #[test]
    fn a_computation_is_joined_until_it_ends_or_all_its_requests_have_left() {
        struct Case {
            name: &'static str,
            happens: Happens,
            in_progress: usize,
        }

        for Case { name, happens, in_progress } in [
            Case { name: "both wait", happens: |_, both| both.into(), in_progress: 1 },
            Case { name: "one is canceled", happens: |_, [_, other]| vec![other], in_progress: 1 },
            Case { name: "both are canceled", happens: |_, _| Vec::new(), in_progress: 0 },
            Case {
                name: "it has ended, and one has left",
                happens: |_, [one, other]| {
                    finish(&one);
                    drop(one);
                    vec![other]
                },
                in_progress: 0,
            },
            Case {
                name: "it has ended, and both have left",
                happens: |_, [one, _]| {
                    finish(&one);
                    Vec::new()
                },
                in_progress: 0,
            },
            Case {
                name: "detached",
                happens: |flights, both| {
                    flights.detach();
                    both.into()
                },
                in_progress: 0,
            },
        ] {
            let flights = Flights::default();
            let left = happens(&flights, [join(&flights), join(&flights)]);
            assert_eq!(flights.lock().len(), in_progress, "{name}");
            let next = join(&flights);
            for one in &left {
                assert_eq!(is_same(one, &next), in_progress == 1, "{name}");
            }
        }
    }

    #[test]
    fn a_detached_computation_does_not_remove_a_later_one() {
        let cases: [(&str, Leaves); 2] =
            [("canceled", drop), ("ended", |earlier| finish(&earlier))];
        for (name, leaves) in cases {
            let flights = Flights::default();
            let earlier = join(&flights);
            flights.detach();
            let later = join(&flights);
            assert!(!is_same(&earlier, &later), "{name}");
            leaves(earlier);
            assert!(is_same(&later, &join(&flights)), "{name}");
        }
    }
}
