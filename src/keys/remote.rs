//! One issuer's keys: fetched once for all who wait, kept, refreshed ahead, never lost to a worse answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use tokio::sync::watch;
use url::Url;

use super::jwks::Jwks;
use super::schedule::{Plan, Schedule};
use super::{discovery, fetch};
use crate::algorithm::Algorithm;
use crate::clock::{Clock, Now};
use crate::error::FetchError;

/// What to fetch, and what to make of it.
pub(crate) struct Source {
    pub(crate) iss: Arc<str>,
    pub(crate) location: Location,
    pub(crate) rsa: Algorithm,
    pub(crate) max_age: Duration,
    /// The longest that a request can be asked to wait: discovery and key set together.
    pub(crate) timeout: Duration,
}

pub(crate) enum Location {
    /// The issuer's own address; its metadata say the rest.
    Discovery(Url),
    Jwks(Url),
}

/// The keys of one issuer, fetched when they are needed.
///
/// Known keys are reached by two atomic loads. The lock is taken only where something changes: a fetch starts or ends, or
/// a token names a key that is not there.
pub(crate) struct RemoteJwks {
    source: Source,
    client: Client,
    clock: Clock,
    current: ArcSwapOption<Jwks>,
    /// [`Schedule::next_decision`], in nanoseconds of uptime: until then nobody needs the lock.
    next_decision: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    schedule: Schedule,
    /// Closed when the fetch under way has ended.
    under_way: Option<watch::Receiver<()>>,
    failure: Option<Arc<FetchError>>,
}

/// The keys, or how to come by them.
pub(crate) enum Keys {
    Ready(Arc<Jwks>),
    /// With what the fetch before ended with, if it failed.
    Wait(Fetching, Option<Arc<FetchError>>),
    Unavailable(Option<Arc<FetchError>>),
}

/// A fetch under way, in a task of its own: dropping this cancels nothing.
pub(crate) struct Fetching(watch::Receiver<()>);

impl Fetching {
    pub(crate) async fn finished(mut self) {
        // Nothing is ever sent; the error is the news that the sender is gone, after the state was brought up to date.
        while self.0.changed().await.is_ok() {}
    }
}

impl RemoteJwks {
    pub(crate) fn new(source: Source, client: Client, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            source,
            client,
            clock,
            current: ArcSwapOption::empty(),
            next_decision: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// The keys at hand, or a fetch to wait for. Starts a refresh in the background when one is due.
    pub(crate) fn keys(self: &Arc<Self>, now: Now) -> Keys {
        if nanos(now.uptime) < self.next_decision.load(Ordering::Acquire)
            && let Some(jwks) = self.current.load_full()
        {
            return Keys::Ready(jwks);
        }
        let mut state = self.lock();
        let plan = state.schedule.request(now.uptime);
        let (fetching, task) = self.carry_out(plan, &mut state);
        let failure = state.failure.clone();
        drop(state);
        launch(task);
        match (plan, fetching, self.current.load_full()) {
            (Plan::Fetch | Plan::Join, Some(fetching), _) => Keys::Wait(fetching, failure),
            (Plan::Serve | Plan::ServeAndFetch, _, Some(jwks)) => Keys::Ready(jwks),
            _ => Keys::Unavailable(failure),
        }
    }

    /// For a key that `seen` does not have. `waited`: this request already waited for a fetch.
    pub(crate) fn refetch(self: &Arc<Self>, seen: &Arc<Jwks>, kid: Option<&str>, waited: bool, now: Now) -> Refetch {
        let mut state = self.lock();
        // A fetch may have ended between the look at the set and here: look again before asking for another.
        if self.current.load().as_ref().is_some_and(|current| !Arc::ptr_eq(current, seen)) {
            return Refetch::LookAgain;
        }
        let plan = state.schedule.unknown_kid(kid.unwrap_or_default(), waited, now.uptime);
        let (fetching, task) = self.carry_out(plan, &mut state);
        drop(state);
        launch(task);
        fetching.map_or(Refetch::Refuse, Refetch::Wait)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the plan asks for: something to wait for, and a task for [`launch`] once the lock is released.
    fn carry_out(self: &Arc<Self>, plan: Plan, state: &mut State) -> (Option<Fetching>, Option<FetchTask>) {
        match plan {
            Plan::Serve | Plan::Unavailable => (None, None),
            Plan::Join => (state.under_way.clone().map(Fetching), None),
            Plan::Fetch | Plan::ServeAndFetch => {
                let (ended, under_way) = watch::channel(());
                state.under_way = Some(under_way.clone());
                self.publish_next_decision(state);
                let task = FetchTask { keys: Arc::clone(self), answer: None, _ended: ended };
                (Some(Fetching(under_way)), Some(task))
            }
        }
    }

    async fn fetch(&self) -> Result<Jwks, FetchError> {
        let fetch = async {
            let url = match &self.source.location {
                Location::Jwks(url) => url.clone(),
                Location::Discovery(issuer) => discovery::jwks_uri(&self.client, &self.source.iss, issuer).await?,
            };
            let document = fetch::get(&self.client, &url).await?;
            let named = || url.as_str().to_owned();
            match Jwks::read(&document, self.source.rsa) {
                None => Err(FetchError::Document { url: named(), expected: "a JSON object with an array `keys`" }),
                Some(jwks) if jwks.is_empty() => {
                    Err(FetchError::NoUsableKey { url: named(), ignored: jwks.ignored().to_vec() })
                }
                Some(jwks) => Ok(jwks),
            }
        };
        let limit = self.source.timeout;
        match tokio::time::timeout(limit, fetch).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Timeout { limit }),
        }
    }

    /// Takes an answer in. A set is only replaced by a good one.
    fn finish(&self, state: &mut State, answer: Result<Jwks, FetchError>) {
        let now = self.clock.now().uptime;
        let issuer = &*self.source.iss;
        match answer {
            Ok(jwks) => {
                tracing::info!(
                    target: "portcullis",
                    issuer,
                    keys = jwks.len(),
                    ignored = ?jwks.ignored(),
                    "key set fetched"
                );
                state.schedule.succeeded(self.source.max_age, now);
                state.failure = None;
                self.current.store(Some(Arc::new(jwks)));
            }
            Err(error) => {
                state.schedule.failed(now);
                let retry_after = state.schedule.retry_after(now);
                tracing::warn!(target: "portcullis", issuer, %error, ?retry_after, "key set not fetched");
                state.failure = Some(Arc::new(error));
            }
        }
        state.under_way = None;
        self.publish_next_decision(state);
    }

    fn publish_next_decision(&self, state: &State) {
        self.next_decision.store(nanos(state.schedule.next_decision()), Ordering::Release);
    }
}

/// What to do about a key that is not in the set.
pub(crate) enum Refetch {
    Wait(Fetching),
    /// Another set has come meanwhile.
    LookAgain,
    Refuse,
}

/// A fetch in its own task. However it ends (an answer, a panic, its runtime shut down), the state hears of it and
/// those who wait are woken, in this order.
struct FetchTask {
    keys: Arc<RemoteJwks>,
    answer: Option<Result<Jwks, FetchError>>,
    _ended: watch::Sender<()>,
}

/// Not under the lock: a runtime that is shutting down drops the task at once, and its drop takes the lock.
fn launch(task: Option<FetchTask>) {
    let Some(mut task) = task else { return };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(task.run());
        }
        Err(_) => task.answer = Some(Err(FetchError::NoRuntime)),
    }
}

impl FetchTask {
    async fn run(mut self) {
        let answer = self.keys.fetch().await;
        self.answer = Some(answer);
    }
}

impl Drop for FetchTask {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or(Err(FetchError::Interrupted));
        self.keys.finish(&mut self.keys.lock(), answer);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
