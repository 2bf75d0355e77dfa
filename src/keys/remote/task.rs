//! A fetch as a task of its own, and how it is reported.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Carryover, Download, RemoteJwks};
use crate::clock::Now;
use crate::error::FetchError;
use crate::keys::jwks::Jwks;
use crate::telemetry::{self, FetchedKeys, IssuerName};

/// What is logged about a fetch.
pub(super) enum FetchReport {
    Fetched { changed: bool, lifetime: Duration, jwks: Option<Arc<Jwks>> },
    Failed { error: Arc<FetchError>, retry_after: Duration },
}

impl FetchReport {
    pub(super) fn log(self, issuer: &IssuerName, took: Duration, now: Now) {
        match self {
            Self::Fetched { changed, lifetime, jwks } => {
                let (keys, ignored) =
                    jwks.as_ref().map_or((0, &[][..]), |jwks| (jwks.len(), jwks.ignored()));
                let fetched = FetchedKeys { changed, keys, ignored, lifetime };
                telemetry::keys_fetched(issuer, &fetched, took, now);
            }
            Self::Failed { error, retry_after } => {
                telemetry::key_fetch_failed(issuer, &error, retry_after, took, now);
            }
        }
    }
}

/// A fetch in a task of its own. However it ends (with a result, a panic, or a shutdown of its
/// runtime), the state is updated first, and then the requests that wait are woken.
pub(super) struct FetchTask {
    pub(super) keys: Arc<RemoteJwks>,
    pub(super) number: u64,
    pub(super) carryover: Carryover,
    /// The `kid` of the token that started it.
    pub(super) kid: Option<String>,
    pub(super) answer: Option<Result<Download, FetchError>>,
    pub(super) since: Instant,
    pub(super) _ended: watch::Sender<()>,
}

/// Spawns the task. Must not be called under the lock: a runtime that is shutting down drops the
/// task at once, and its `drop` takes the lock.
pub(super) fn launch(task: Option<FetchTask>, runtime: &Handle) {
    if let Some(task) = task {
        runtime.spawn(task.run());
    }
}

impl FetchTask {
    async fn run(mut self) {
        let answer = self.keys.fetch(mem::take(&mut self.carryover), self.kid.as_deref()).await;
        self.answer = Some(answer);
    }
}

impl Drop for FetchTask {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or(Err(FetchError::Interrupted));
        self.keys.finish(self.number, answer, self.since.elapsed());
    }
}
