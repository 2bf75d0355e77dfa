//! One computation for all who ask for the same key at the same time.

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
    /// Joins the computation for `key`, or starts one.
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

    /// Requests that come from now on join none of the computations in progress.
    pub(crate) fn detach(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<OnceCell<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's share in a computation. The last one to leave removes it from the map.
pub(crate) struct Flight<T> {
    flights: Arc<SingleFlight<T>>,
    key: String,
    /// `None` once it has left.
    cell: Option<Arc<OnceCell<T>>>,
}

impl<T: Clone> Flight<T> {
    /// The result: of `compute`, or of another request's. If the request that computes is dropped, the next one computes.
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
        // A result is not for requests that come later: caches are for those.
        let is_done = cell.initialized();
        // Released under the lock, so that of two that leave at once the second sees that it is the last.
        drop(cell);
        let is_last = in_progress.get(&self.key).is_some_and(|entry| entry.strong_count() == 0);
        if is_own && (is_done || is_last) {
            in_progress.remove(&self.key);
        }
    }
}
