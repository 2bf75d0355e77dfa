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

    /// Reads the entries after an ID.
    async fn read_after(&self, log: &str, id: &str) -> Result<LogEntries, StoreError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(MAX_ENTRIES).arg("STREAMS").arg(log).arg(id);
        // Streams, each with its entries.
        let streams: Option<Vec<(String, Vec<StreamEntry>)>> = self.query(command).await?;
        let mut found = LogEntries::default();
        for (id, fields) in streams.into_iter().flatten().flat_map(|(_, entries)| entries) {
            found.entries.extend(fields.into_iter().nth(1));
            found.position = Some(LogPosition(id));
        }
        Ok(found)
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
        Box::pin(async move {
            let log = format!("{}:log", self.prefix);
            let found = self.read_after(&log, position.map_or("0", |position| &position.0)).await?;
            match position {
                Some(position) if found.entries.is_empty() => {
                    // A server that took over may lack the newest entries, and give new ones lower
                    // IDs if its clock is behind. These would not be found after `position`.
                    let mut command = redis::cmd("XREVRANGE");
                    command.arg(&log).arg("+").arg("-").arg("COUNT").arg(1);
                    let newest: Vec<StreamEntry> = self.query(command).await?;
                    let is_lower =
                        newest.first().is_some_and(|(id, _)| parsed(id) < parsed(&position.0));
                    if is_lower { self.read_after(&log, "0").await } else { Ok(found) }
                }
                _ => Ok(found),
            }
        })
    }
}

/// The ID of an entry, and its fields and their values in turn.
type StreamEntry = (String, Vec<Vec<u8>>);

/// The two numbers of an ID, which are in its order.
fn parsed(id: &str) -> Option<(u64, u64)> {
    let (milliseconds, number) = id.split_once('-').unwrap_or((id, "0"));
    Some((milliseconds.parse().ok()?, number.parse().ok()?))
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
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use redis::{Cmd, Pipeline, RedisFuture};

    use super::*;

    /// A server that has these answers.
    #[derive(Clone)]
    struct Answers(Arc<Mutex<VecDeque<Value>>>);

    impl ConnectionLike for Answers {
        fn req_packed_command<'a>(&'a mut self, _: &'a Cmd) -> RedisFuture<'a, Value> {
            let answer = self.0.lock().unwrap().pop_front().unwrap();
            Box::pin(async { Ok(answer) })
        }

        fn req_packed_commands<'a>(
            &'a mut self,
            _: &'a Pipeline,
            _: usize,
            _: usize,
        ) -> RedisFuture<'a, Vec<Value>> {
            // The store sends single commands only.
            Box::pin(async { Ok(Vec::new()) })
        }

        fn get_db(&self) -> i64 {
            0
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(id: &str, value: &str) -> Value {
        Value::Array(vec![text(id), Value::Array(vec![text("e"), text(value)])])
    }

    fn streams(entries: Vec<Value>) -> Value {
        Value::Array(vec![Value::Array(vec![text("p:log"), Value::Array(entries)])])
    }

    #[tokio::test]
    async fn a_log_that_went_back_is_read_from_the_beginning() {
        struct Case {
            name: &'static str,
            answers: Vec<Value>,
            expected: (&'static [&'static str], Option<&'static str>),
        }
        for Case { name, answers, expected } in [
            Case {
                name: "new entries",
                answers: vec![streams(vec![entry("100-2", "a"), entry("101-0", "b")])],
                expected: (&["a", "b"], Some("101-0")),
            },
            Case {
                name: "nothing new",
                answers: vec![Value::Nil, Value::Array(vec![entry("100-1", "x")])],
                expected: (&[], None),
            },
            Case {
                name: "an empty log",
                answers: vec![Value::Nil, Value::Array(vec![])],
                expected: (&[], None),
            },
            Case {
                name: "a server whose clock is behind",
                answers: vec![
                    Value::Nil,
                    Value::Array(vec![entry("99-7", "b")]),
                    streams(vec![entry("98-0", "a"), entry("99-7", "b")]),
                ],
                expected: (&["a", "b"], Some("99-7")),
            },
            Case {
                name: "the same millisecond",
                answers: vec![
                    Value::Nil,
                    Value::Array(vec![entry("100-0", "a")]),
                    streams(vec![entry("100-0", "a")]),
                ],
                expected: (&["a"], Some("100-0")),
            },
        ] {
            let connection = Answers(Arc::new(Mutex::new(answers.into())));
            let store = RedisStore::new(connection.clone(), "p").unwrap();
            let position = LogPosition("100-1".to_owned());
            let found = store.read(Some(&position)).await.unwrap();
            let entries: Vec<_> =
                found.entries.iter().map(|one| std::str::from_utf8(one).unwrap()).collect();
            let position = found.position.as_ref().map(|position| &*position.0);
            assert_eq!((&entries[..], position), expected, "{name}");
            assert!(connection.0.lock().unwrap().is_empty(), "{name}");
        }
    }

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

    #[tokio::test]
    async fn a_key_is_inserted_if_the_server_says_ok() {
        for (name, answer, expected) in [
            ("inserted", Value::Okay, Some(true)),
            ("there already", Value::Nil, Some(false)),
            ("a number", Value::Int(1), None),
            ("a text", text("x"), None),
        ] {
            let answers = VecDeque::from([answer]);
            let store = RedisStore::new(Answers(Arc::new(Mutex::new(answers))), "p").unwrap();
            let found = store.insert_if_absent("a", Duration::from_secs(1)).await;
            assert_eq!(found.ok(), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn the_log_is_trimmed_once_a_minute() {
        let now = Instant::now();
        for (name, trimmed_at, trims) in [
            ("the first entry", None, true),
            ("a moment after the log was trimmed", Some(now), false),
            ("a minute after", now.checked_sub(TRIM_EVERY), true),
        ] {
            // To the entry, and to the command that trims.
            let answers = VecDeque::from([text("1700000000000-0"), Value::Int(0)]);
            let connection = Answers(Arc::new(Mutex::new(answers)));
            let store = RedisStore::new(connection.clone(), "p").unwrap();
            *store.trimmed_at.lock().unwrap() = trimmed_at;
            store.append(b"x", Duration::from_secs(3600)).await.unwrap();
            assert_eq!(connection.0.lock().unwrap().is_empty(), trims, "{name}");
            let is_recorded = *store.trimmed_at.lock().unwrap() != trimmed_at;
            assert_eq!(is_recorded, trims, "{name}: recorded");
        }
    }
}
