//! [`RedisStore`]: state that replicas share through Redis or Valkey.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{FromRedisValue, Value};

use super::{LogEntries, LogPosition, SharedStore, StoreError, StoreFuture};
use crate::error::ConfigError;

/// Maximum length of the prefix of keys, in bytes.
const MAX_PREFIX_BYTES: usize = 100;

/// How often entries that are too old are removed from the log.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How many entries of the log are read at once.
const MAX_ENTRIES: usize = 1000;

/// State that replicas share through Redis (6.2 or later) or Valkey.
///
/// The application makes the connection, with its TLS, password and reconnects: anything that
/// implements [`ConnectionLike`] and is cheap to clone, such as `ConnectionManager`, or a
/// connection to a cluster. One connection is enough, because it is multiplexed.
///
/// By default, `ConnectionManager` waits longer after each failed attempt to connect, and gives up
/// after six. For a quick recovery, limit the delay, as below.
///
/// Set `maxmemory-policy noeviction` there: a Redis that evicts keys lets proofs be used again. A
/// failover may lose the last moments before it. Redis holds hashes only: no token, no claim.
///
/// ```no_run
/// use portcullis::{Dpop, RedisStore};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use redis::aio::ConnectionManagerConfig;
///
/// let config = ConnectionManagerConfig::new()
///     .set_max_delay(Duration::from_millis(500))
///     .set_number_of_retries(usize::MAX);
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let store = RedisStore::new(client.get_connection_manager_lazy(config)?, "orders-api")?;
/// let dpop = Dpop::new("https://api.example.com")?.share_replays(store);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisStore<C> {
    connection: C,
    prefix: String,
    /// When entries that are too old were last removed from the log.
    trimmed_at: Arc<Mutex<Option<Instant>>>,
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisStore<C> {
    /// Creates a store. All keys begin with `prefix` and a colon: use another prefix for each API
    /// and each environment.
    ///
    /// # Errors
    ///
    /// Returns an error if `prefix` is empty or has more than 100 bytes.
    pub fn new(connection: C, prefix: impl Into<String>) -> Result<Self, ConfigError> {
        let prefix = prefix.into();
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES {
            return Err(ConfigError::new(format!(
                "prefix of Redis keys: expected 1 to {MAX_PREFIX_BYTES} bytes, found {}",
                prefix.len()
            )));
        }
        Ok(Self { connection, prefix, trimmed_at: Arc::default() })
    }

    fn trim_is_due(&self) -> bool {
        let mut trimmed_at = self.trimmed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = trimmed_at.is_none_or(|at| at.elapsed() >= TRIM_EVERY);
        if is_due {
            *trimmed_at = Some(Instant::now());
        }
        is_due
    }

    async fn query<T: FromRedisValue>(&self, command: redis::Cmd) -> Result<T, StoreError> {
        // Cheap: all clones share one connection.
        let mut connection = self.connection.clone();
        command.query_async(&mut connection).await.map_err(StoreError::new)
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> SharedStore for RedisStore<C> {
    fn insert_if_absent<'a>(&'a self, key: &'a str, lifetime: Duration) -> StoreFuture<'a, bool> {
        let milliseconds = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = redis::cmd("SET");
        command.arg(format!("{}:{key}", self.prefix)).arg("").arg("NX").arg("PX").arg(milliseconds);
        Box::pin(async move {
            match self.query(command).await? {
                Value::Okay => Ok(true),
                Value::Nil => Ok(false),
                _ => Err(StoreError::new("expected OK or nil as the answer to SET NX")),
            }
        })
    }

    fn append<'a>(&'a self, entry: &'a [u8], keep_for: Duration) -> StoreFuture<'a, ()> {
        let log = format!("{}:log", self.prefix);
        let mut command = redis::cmd("XADD");
        command.arg(&log).arg("*").arg("e").arg(entry);
        Box::pin(async move {
            let id: String = self.query(command).await?;
            if self.trim_is_due()
                && let Some(oldest) = oldest(&id, keep_for)
            {
                let mut command = redis::cmd("XTRIM");
                command.arg(log).arg("MINID").arg("~").arg(oldest);
                // The entry is recorded, and a log that is too long is trimmed the next time.
                let _: Result<u64, StoreError> = self.query(command).await;
            }
            Ok(())
        })
    }

    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(MAX_ENTRIES).arg("STREAMS").arg(format!("{}:log", self.prefix));
        command.arg(position.map_or("0", |position| &position.0));
        Box::pin(async move {
            // Streams, each with its entries, each with its ID, its fields and their values.
            type Streams = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;
            let streams: Option<Streams> = self.query(command).await?;
            let mut found = LogEntries::default();
            for (id, fields) in streams.into_iter().flatten().flat_map(|(_, entries)| entries) {
                found.entries.extend(fields.into_iter().nth(1));
                found.position = Some(LogPosition(id));
            }
            Ok(found)
        })
    }
}

/// The oldest ID that stays, given the newest one: `<milliseconds>-<number>`. By the clock of
/// Redis: one replica whose clock is ahead must not remove the entries of all.
fn oldest(newest: &str, keep_for: Duration) -> Option<String> {
    let milliseconds: u128 = newest.split('-').next()?.parse().ok()?;
    Some(milliseconds.saturating_sub(keep_for.as_millis()).to_string())
}

impl<C> fmt::Debug for RedisStore<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_entries_are_removed_by_the_clock_of_the_server() {
        for (newest, expected) in [
            ("1700000000000-0", Some("1699996400000")),
            ("1-5", Some("0")),
            ("x", None),
            ("", None),
        ] {
            let found = oldest(newest, Duration::from_secs(3600));
            assert_eq!(found.as_deref(), expected, "{newest}");
        }
    }
}
