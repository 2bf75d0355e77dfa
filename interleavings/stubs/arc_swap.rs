//! `ArcSwapOption`. As in `arc_swap`, whose loads and swaps are `SeqCst`, a load returns the newest
//! value, and sees what was written before that was stored. Unlike with a lock, a load publishes
//! nothing to later stores.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use loom::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct ArcSwapOption<T> {
    /// The number of the newest value.
    newest: AtomicUsize,
    /// Not of loom: only read and changed right after an operation on `newest`, where loom does not
    /// switch to another thread.
    values: Mutex<Values<T>>,
}

struct Values<T> {
    by_number: HashMap<usize, Option<Arc<T>>>,
    next: usize,
}

pub(crate) struct Guard<T>(T);

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> ArcSwapOption<T> {
    pub(crate) fn empty() -> Self {
        Self::of(None)
    }

    pub(crate) fn from_pointee(value: impl Into<Option<T>>) -> Self {
        Self::of(value.into().map(Arc::new))
    }

    fn of(value: Option<Arc<T>>) -> Self {
        let values = Values { by_number: HashMap::from([(0, value)]), next: 1 };
        Self { newest: AtomicUsize::new(0), values: Mutex::new(values) }
    }

    pub(crate) fn load(&self) -> Guard<Option<Arc<T>>> {
        Guard(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        // A read-modify-write operation, since a load of loom may return an earlier value.
        let newest = self.newest.fetch_add(0, Ordering::Acquire);
        self.values().by_number[&newest].clone()
    }

    pub(crate) fn store(&self, value: Option<Arc<T>>) {
        let number = self.add(value);
        let previous = self.newest.swap(number, Ordering::AcqRel);
        let previous = self.values().by_number.remove(&previous);
        // Not under the lock: its `drop` may switch to another thread.
        drop(previous);
    }

    /// Returns the previous value, which is `current` if `new` was stored.
    pub(crate) fn compare_and_swap(
        &self,
        current: &Guard<Option<Arc<T>>>,
        new: Option<Arc<T>>,
    ) -> Guard<Option<Arc<T>>> {
        let as_ptr = |value: &Option<Arc<T>>| value.as_ref().map(Arc::as_ptr);
        let number = self.add(new);
        loop {
            let newest = self.newest.fetch_add(0, Ordering::Acquire);
            let found = self.values().by_number[&newest].clone();
            let is_current = as_ptr(&found) == as_ptr(current);
            let has_swapped = is_current
                && self
                    .newest
                    .compare_exchange(newest, number, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok();
            let leaving = if has_swapped { newest } else { number };
            if has_swapped || !is_current {
                let leaving = self.values().by_number.remove(&leaving);
                drop(leaving);
                return Guard(found);
            }
        }
    }

    fn add(&self, value: Option<Arc<T>>) -> usize {
        let mut values = self.values();
        let number = values.next;
        values.next += 1;
        values.by_number.insert(number, value);
        number
    }

    fn values(&self) -> MutexGuard<'_, Values<T>> {
        self.values.lock().expect("no panic under this lock")
    }
}
