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
