//! [`Charge`]: the memory that a cached token takes.

use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that all cached tokens of one verifier share.
pub(crate) trait Budget: Send + Sync {
    /// Reserves `bytes` more for a token that has `charged` already. Returns `false` and reserves
    /// nothing if there is no memory for them.
    fn reserve(&self, bytes: usize, charged: usize) -> bool;

    /// Returns memory that a token no longer takes.
    fn release(&self, bytes: usize);

    /// Removes the token from the cache.
    fn remove(&self, token: &str);
}

/// The memory that one cached token takes. Returned to its budget on drop.
pub(crate) struct Charge {
    budget: Weak<dyn Budget>,
    bytes: AtomicUsize,
}

impl Charge {
    /// A charge for bytes that are already reserved.
    pub(crate) fn new(budget: Weak<dyn Budget>, bytes: usize) -> Self {
        Self { budget, bytes: AtomicUsize::new(bytes) }
    }

    /// Reserves `bytes` more. Returns `false` and reserves nothing if there is no memory for them.
    pub(crate) fn add(&self, bytes: usize) -> bool {
        let Some(budget) = self.budget.upgrade() else { return true };
        if !budget.reserve(bytes, self.bytes()) {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Removes the token from the cache.
    pub(crate) fn remove(&self, token: &str) {
        if let Some(budget) = self.budget.upgrade() {
            budget.remove(token);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.upgrade() {
            budget.release(self.bytes());
        }
    }
}
