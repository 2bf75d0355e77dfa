//! [`SharedStore`]: state that the replicas of an API share.

#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::BoxError;

/// State that the replicas of an API share, such as which DPoP proofs were used
/// ([`Dpop::share_replays`](crate::Dpop::share_replays)).
///
/// `RedisStore` (feature `redis`) implements it. Implement it for another database if you have one:
/// it takes one operation that inserts unless the key is there, and a log.
///
/// Each call is limited to 250 ms by its caller. A store need not have a time limit, and is
/// cancelled by dropping the future.
pub trait SharedStore: Send + Sync + 'static {
    /// Inserts a key for `lifetime` unless it is there. Returns whether it was inserted. Of several
    /// concurrent calls with one key, at all replicas, exactly one returns `true`.
    ///
    /// The key has at most 64 characters, letters, digits, `-`, `_` and `:`, and is derived from a
    /// hash: it contains no token. The key must stay for `lifetime` at least, also if the store is
    /// full: a store that evicts keys early lets proofs be used again.
    fn insert_if_absent<'a>(&'a self, key: &'a str, lifetime: Duration) -> StoreFuture<'a, bool>;

    /// Appends an entry to the log, from which entries may be removed when they are older than
    /// `keep_for`, by the clock of the store. The entry has at most 1 KiB. It completes when the
    /// store has confirmed the entry.
    fn append<'a>(&'a self, entry: &'a [u8], keep_for: Duration) -> StoreFuture<'a, ()>;

    /// Returns entries of the log in their order: the first 1,000 after `position`, or from the
    /// beginning. Fewer mean that there are no more. Entries that were appended by any replica must
    /// be found by those that have read up to an earlier one.
    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries>;
}

/// The result of an operation of a [`SharedStore`], boxed so that the trait can be used as an
/// object.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A position in the log of a [`SharedStore`]: whatever identifies an entry there, such as a stream
/// ID or a sequence number in text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPosition(pub String);

/// Entries of the log of a [`SharedStore`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntries {
    /// The entries, in the order of the log.
    pub entries: Vec<Vec<u8>>,
    /// The position of the last one, for the next call. `None` if there are no entries, so that the
    /// caller keeps its position.
    pub position: Option<LogPosition>,
}

/// A [`SharedStore`] could not be used.
#[derive(Clone)]
pub struct StoreError(Arc<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// Creates an error from that of the store's own client. It is logged, so it must not contain a
    /// password.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error: BoxError = error.into();
        Self(error.into())
    }

    pub(crate) fn timeout(limit: Duration) -> Self {
        Self::new(format!("no answer within {limit:?}"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// A store that several verifiers use.
impl<S: SharedStore + ?Sized> SharedStore for Arc<S> {
    fn insert_if_absent<'a>(&'a self, key: &'a str, lifetime: Duration) -> StoreFuture<'a, bool> {
        (**self).insert_if_absent(key, lifetime)
    }

    fn append<'a>(&'a self, entry: &'a [u8], keep_for: Duration) -> StoreFuture<'a, ()> {
        (**self).append(entry, keep_for)
    }

    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries> {
        (**self).read(position)
    }
}
