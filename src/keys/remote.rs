//! One issuer's keys: fetched once for all who wait, kept, refreshed ahead, never lost to a worse answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::sync::watch;
use url::Url;

use super::jwks::Jwks;
use super::schedule::{GRACE, Plan, Schedule};
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

struct State {
    schedule: Schedule,
    /// Counts fetches; the answer of any but the last is not wanted any more.
    fetch: u64,
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
pub(crate) struct Fetching {
    ended: watch::Receiver<()>,
    limit: Duration,
}

impl Fetching {
    /// Waits until the fetch has ended, or should have.
    pub(crate) async fn finished(mut self) {
        // Nothing is ever sent; the error is the news that the sender is gone, after the state was brought up to date.
        // Bounded here too: the fetch may have been started on a runtime that nobody drives any more.
        let _ = tokio::time::timeout(self.limit, self.ended.changed()).await;
    }
}

impl RemoteJwks {
    pub(crate) fn new(source: Source, client: Client, clock: Clock) -> Arc<Self> {
        let schedule = Schedule::new(source.timeout);
        Arc::new(Self {
            source,
            client,
            clock,
            current: ArcSwapOption::empty(),
            next_decision: AtomicU64::new(0),
            state: Mutex::new(State { schedule, fetch: 0, under_way: None, failure: None }),
        })
    }

    /// The keys at hand, or a fetch to wait for. Starts a refresh in the background when one is due.
    pub(crate) fn keys(self: &Arc<Self>, now: Now) -> Keys {
        if nanos(now.uptime) < self.next_decision.load(Ordering::Acquire)
            && let Some(jwks) = self.current.load_full()
        {
            return Keys::Ready(jwks);
        }
        let Ok(runtime) = Handle::try_current() else {
            return Keys::Unavailable(Some(Arc::new(FetchError::NoRuntime)));
        };
        let mut state = self.lock();
        let plan = state.schedule.request(now.uptime);
        let (fetching, task) = self.carry_out(plan, &mut state);
        let failure = state.failure.clone();
        drop(state);
        launch(task, &runtime);
        match (plan, fetching, self.current.load_full()) {
            (Plan::Fetch | Plan::Join, Some(fetching), _) => Keys::Wait(fetching, failure),
            (Plan::Serve | Plan::ServeAndFetch, _, Some(jwks)) => Keys::Ready(jwks),
            _ => Keys::Unavailable(failure),
        }
    }

    /// For a token that no key of `seen` verifies. `waited`: this request already waited for a fetch.
    pub(crate) fn refetch(self: &Arc<Self>, seen: &Arc<Jwks>, kid: Option<&str>, waited: bool, now: Now) -> Refetch {
        let Ok(runtime) = Handle::try_current() else {
            return Refetch::Refuse(Some(Arc::new(FetchError::NoRuntime)));
        };
        let mut state = self.lock();
        // A fetch may have ended between the look at the set and here: look again before asking for another.
        if self.current.load().as_ref().is_some_and(|current| !Arc::ptr_eq(current, seen)) {
            return Refetch::LookAgain;
        }
        let plan = state.schedule.unknown_kid(kid.unwrap_or_default(), waited, now.uptime);
        let (fetching, task) = self.carry_out(plan, &mut state);
        let failure = state.failure.clone();
        drop(state);
        launch(task, &runtime);
        fetching.map_or(Refetch::Refuse(failure), Refetch::Wait)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the plan asks for: something to wait for, and a task for [`launch`] once the lock is released.
    fn carry_out(self: &Arc<Self>, plan: Plan, state: &mut State) -> (Option<Fetching>, Option<FetchTask>) {
        let limit = self.source.timeout + GRACE;
        match plan {
            Plan::Serve | Plan::Unavailable | Plan::Refuse => (None, None),
            Plan::Join => (state.under_way.clone().map(|ended| Fetching { ended, limit }), None),
            Plan::Fetch | Plan::ServeAndFetch => {
                let (ended, under_way) = watch::channel(());
                state.fetch += 1;
                state.under_way = Some(under_way.clone());
                self.publish_next_decision(state);
                let task = FetchTask { keys: Arc::clone(self), number: state.fetch, answer: None, _ended: ended };
                (Some(Fetching { ended: under_way, limit }), Some(task))
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
            let named = || fetch::named(&url);
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

    /// Takes the answer of fetch `number` in. A set is only replaced by a good one, and by a newer one.
    fn finish(&self, number: u64, answer: Result<Jwks, FetchError>) {
        let now = self.clock.now().uptime;
        let mut state = self.lock();
        if state.fetch != number {
            return;
        }
        let news = match answer {
            Ok(jwks) => {
                let jwks = Arc::new(jwks);
                state.schedule.succeeded(self.source.max_age, now);
                state.failure = None;
                self.current.store(Some(Arc::clone(&jwks)));
                Ok(jwks)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.schedule.failed(now);
                state.failure = Some(Arc::clone(&error));
                Err((error, state.schedule.retry_after(now)))
            }
        };
        state.under_way = None;
        self.publish_next_decision(&state);
        drop(state);

        // Not under the lock: a log may be slow.
        let issuer = &*self.source.iss;
        match news {
            Ok(jwks) => {
                let (keys, ignored) = (jwks.len(), jwks.ignored());
                tracing::info!(target: "portcullis", issuer, keys, ?ignored, "key set fetched");
            }
            Err((error, retry_after)) => {
                tracing::warn!(target: "portcullis", issuer, %error, ?retry_after, "key set not fetched");
            }
        }
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
    /// With what the last fetch ended with, if it failed: then nobody knows whether there is such a key.
    Refuse(Option<Arc<FetchError>>),
}

/// A fetch in its own task. However it ends (an answer, a panic, its runtime shut down), the state hears of it and
/// those who wait are woken, in this order.
struct FetchTask {
    keys: Arc<RemoteJwks>,
    number: u64,
    answer: Option<Result<Jwks, FetchError>>,
    _ended: watch::Sender<()>,
}

/// Not under the lock: a runtime that is shutting down drops the task at once, and its drop takes the lock.
fn launch(task: Option<FetchTask>, runtime: &Handle) {
    if let Some(task) = task {
        runtime.spawn(task.run());
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
        self.keys.finish(self.number, self.answer.take().unwrap_or(Err(FetchError::Interrupted)));
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
