//! `std::sync`, with the locks and atomics of loom. `Arc` and `OnceLock` are those of std: loom has
//! no `Weak`. Where the release of the last reference matters, the stub that is dropped has a
//! reference count that loom knows ([`AccessToken`](crate::access_token::AccessToken)).

pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};
pub(crate) use std::sync::{Arc, OnceLock, PoisonError, Weak};

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}
