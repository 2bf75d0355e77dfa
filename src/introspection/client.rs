//! The client of one issuer's introspection endpoint, at run time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use tokio::time::{Instant, timeout_at};
use url::form_urlencoded::Serializer;

use super::Introspection;
use super::endpoint::{Endpoint, EndpointLocation};
use super::request::{Attempt, Failure, FailureKind, Question, ask};
use crate::breaker::{Admission, Breaker, Limits};
use crate::clock::Clock;
use crate::error::FetchError;
use crate::health::IntrospectionHealth;
use crate::keys::remote::fetch::Connections;
use crate::keys::remote::jitter;
use crate::keys::remote::schedule::KeyPolicy;
use crate::permits::{Permit, Permits};
use crate::telemetry::{self, IntrospectionOutcome, IssuerName, LogThrottle};

/// Connections to introspection endpoints stay open: with those of keys, each token would cost a
/// TLS handshake.
pub(crate) const CONNECTIONS: Connections = Connections {
    connect_timeout: Duration::from_secs(1),
    idle: Duration::from_secs(60),
    max_idle_per_host: usize::MAX,
};

/// The same for resolved issuers, of which there may be thousands.
pub(crate) const CONNECTIONS_OF_RESOLVED: Connections =
    Connections { idle: Duration::from_secs(10), max_idle_per_host: 2, ..CONNECTIONS };

/// Maximum number of concurrent questions to one endpoint, and of those about tokens that were not
/// accepted before. Any client can make up opaque tokens: they must not take the turns of tokens in
/// use.
const MAX_IN_FLIGHT: usize = 32;
const MAX_UNKNOWN: usize = MAX_IN_FLIGHT / 2;

/// The same for resolved issuers: each, and all together in the process. Unsigned tokens can name
/// any tenant, and a tenant's server may hang.
const MAX_UNKNOWN_OF_RESOLVED: usize = 4;
static UNKNOWN_OF_RESOLVED: LazyLock<Arc<Permits>> =
    LazyLock::new(|| Permits::with_queue(64, MAX_WAITING));

/// Maximum number of questions about unknown tokens that wait for their turn. Of more, the oldest
/// are given up: their requests would reach the time limit anyway.
const MAX_WAITING: usize = 1024;

/// When the endpoint is suspended.
const SUSPENSIONS: Limits =
    Limits { failures: 5, first: Duration::from_secs(1), longest: Duration::from_secs(30) };

/// Whether a token was accepted before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Familiarity {
    Known,
    Unknown,
}

impl Familiarity {
    fn of(self, breakers: &mut [Breaker; 2]) -> &mut Breaker {
        let [known, unknown] = breakers;
        match self {
            Self::Known => known,
            Self::Unknown => unknown,
        }
    }
}

/// Asks one endpoint.
pub(crate) struct IntrospectionClient {
    pub(crate) config: Introspection,
    issuer: IssuerName,
    access: Access,
    clock: Clock,
    /// All questions, and those about unknown tokens.
    permits: [Arc<Permits>; 2],
    /// Of known tokens, and of unknown ones: a client that knows a token on which the endpoint
    /// hangs must not suspend the questions about tokens in use.
    breakers: Mutex<[Breaker; 2]>,
    counters: Counters,
    failures: LogThrottle,
    refusals: LogThrottle,
}

#[derive(Default)]
struct Counters {
    questions: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<FetchError>>,
}

/// How to reach the endpoint of an issuer.
pub(crate) struct Access {
    pub(crate) endpoint: EndpointLocation,
    pub(crate) http: Client,
    /// The limits of discovery.
    pub(crate) policy: KeyPolicy,
}

impl IntrospectionClient {
    pub(crate) fn new(
        config: Introspection,
        issuer: IssuerName,
        access: Access,
        clock: Clock,
    ) -> Self {
        let most = if issuer.is_configured() { MAX_UNKNOWN } else { MAX_UNKNOWN_OF_RESOLVED };
        let unknown = Permits::with_queue(most, MAX_WAITING);
        Self {
            config,
            issuer,
            access,
            clock,
            permits: [Permits::new(MAX_IN_FLIGHT), unknown],
            breakers: Mutex::new([Breaker::new(SUSPENSIONS), Breaker::new(SUSPENSIONS)]),
            counters: Counters::default(),
            failures: LogThrottle::default(),
            refusals: LogThrottle::default(),
        }
    }

    fn breakers(&self) -> MutexGuard<'_, [Breaker; 2]> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the endpoint may be asked now.
    pub(crate) fn check(&self, token: Familiarity) -> Result<(), FetchError> {
        let now = self.clock.now().uptime;
        token
            .of(&mut self.breakers())
            .check(now)
            .map_err(|remaining| FetchError::Suspended { remaining })
    }

    /// Asks about a token. Returns the body of the answer.
    pub(crate) async fn ask(
        &self,
        token: &str,
        familiarity: Familiarity,
    ) -> Result<String, FetchError> {
        let began = Instant::now();
        let result = self.ask_within_limits(token, familiarity).await;
        if let Err(error) = &result {
            self.count_failure(error);
            telemetry::introspection(&self.issuer, IntrospectionOutcome::Failed, began.elapsed());
        }
        result
    }

    /// The endpoint responded, but not with a usable answer. `took`: since the question was sent.
    /// Returns the error.
    pub(crate) fn unusable(&self, expected: &'static str, took: Duration) -> FetchError {
        let error = FetchError::InvalidDocument { url: self.access.endpoint.redacted(), expected };
        self.report_unusable(&error, took);
        error
    }

    /// An answer cannot be used, for this reason.
    pub(crate) fn report_unusable(&self, error: &FetchError, took: Duration) {
        self.count_failure(error);
        self.report(error, FailureKind::Unusable);
        telemetry::introspection(&self.issuer, IntrospectionOutcome::Failed, took);
    }

    fn count_failure(&self, error: &FetchError) {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        self.remember(error);
    }

    fn remember(&self, error: &FetchError) {
        let mut last = self.counters.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(error.clone());
    }

    /// An answer was read. `took`: since the question was sent.
    pub(crate) fn report_answer(&self, outcome: IntrospectionOutcome, took: Duration) {
        telemetry::introspection(&self.issuer, outcome, took);
    }

    async fn ask_within_limits(
        &self,
        token: &str,
        familiarity: Familiarity,
    ) -> Result<String, FetchError> {
        let limit = self.config.timeout;
        let end = Instant::now() + limit;
        let overloaded = || FetchError::ConcurrencyLimit { limit };
        let Ok(permits) = timeout_at(end, self.permits(familiarity)).await else {
            return Err(overloaded());
        };
        let _permits = permits.ok_or_else(overloaded)?;
        let admission = self.admit(familiarity)?;
        self.counters.questions.fetch_add(1, Ordering::Relaxed);
        match self.ask_once(token, end).await {
            Ok(answer) => {
                // The endpoint is up: no question has to wait.
                let ended = self.breakers().each_mut().map(Breaker::succeeded);
                self.report_end(ended.contains(&true));
                Ok(answer)
            }
            Err(failure) => {
                self.failed(&failure, familiarity, admission);
                Err(failure.error)
            }
        }
    }

    fn admit(&self, familiarity: Familiarity) -> Result<Admission, FetchError> {
        // Discovery and the question.
        let longest = self.config.timeout + self.access.policy.timeout;
        let now = self.clock.now().uptime;
        let admission = familiarity.of(&mut self.breakers()).admit(longest, now);
        admission.map_err(|remaining| FetchError::Suspended { remaining })
    }

    /// The permits of one question, the narrower limit first.
    async fn permits(&self, familiarity: Familiarity) -> Option<[Option<Permit>; 3]> {
        let [all, unknown] = &self.permits;
        let (of_unknown, of_resolved) = match familiarity {
            Familiarity::Known => (None, None),
            Familiarity::Unknown => {
                let of_unknown = unknown.acquire().await?;
                let of_resolved = if self.issuer.is_configured() {
                    None
                } else {
                    Some(UNKNOWN_OF_RESOLVED.acquire().await?)
                };
                (Some(of_unknown), of_resolved)
            }
        };
        Some([of_unknown, of_resolved, all.acquire().await])
    }

    /// `end`: when the question has to have an answer, apart from the time that discovery takes.
    async fn ask_once(&self, token: &str, end: Instant) -> Result<String, Failure> {
        let began = Instant::now();
        let endpoint = self.access.endpoint.find().await.map_err(|error| {
            let fits = !matches!(
                error,
                FetchError::UnsupportedClientAuth { .. }
                    | FetchError::OtherOrigin { .. }
                    | FetchError::PrivateAddress { .. }
                    | FetchError::IntrospectionEndpoint(_)
            );
            let kind = if fits { FailureKind::Down } else { FailureKind::NotSent };
            Failure { error, kind }
        })?;
        let limit = self.config.timeout;
        let question = async {
            match self.attempt(token, &endpoint).await {
                Err(Attempt::NoResponse(_)) => self.attempt(token, &endpoint).await,
                answer => answer,
            }
        };
        let answer = match timeout_at(end + began.elapsed(), question).await {
            Ok(answer) => answer.map_err(Attempt::failure),
            Err(_) => {
                Err(Failure { error: FetchError::Timeout { limit }, kind: FailureKind::Down })
            }
        };
        if let Err(failure) = &answer
            && matches!(failure.kind, FailureKind::Down | FailureKind::Refused)
        {
            self.access.endpoint.suspect();
        }
        answer
    }

    /// One attempt, with credentials of its own: an assertion may be used once.
    async fn attempt(&self, token: &str, endpoint: &Endpoint) -> Result<String, Attempt> {
        let Introspection { auth, signed, .. } = &self.config;
        let credentials =
            auth.credentials(&endpoint.methods, &self.issuer.iss, self.clock.now()).await;
        let credentials = credentials
            .map_err(|error| Attempt::Failed(Failure { error, kind: FailureKind::Down }))?;
        let form = Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("token_type_hint", "access_token")
            .extend_pairs(credentials.form)
            .finish();
        let (url, authorization) = (&endpoint.url, credentials.authorization);
        ask(&self.access.http, Question { url, form, authorization, signed: *signed }).await
    }

    fn failed(&self, failure: &Failure, familiarity: Familiarity, admission: Admission) {
        let now = self.clock.now().uptime;
        self.report(&failure.error, failure.kind);
        let suspended = match (failure.kind, familiarity) {
            // Invented tokens must not suspend the questions about tokens in use.
            (FailureKind::Busy(time), Familiarity::Unknown) => {
                Some(familiarity.of(&mut self.breakers()).wait(time, now))
            }
            (FailureKind::Busy(time), Familiarity::Known) => {
                self.breakers().iter_mut().map(|breaker| breaker.wait(time, now)).max()
            }
            (FailureKind::Down | FailureKind::Unauthorized, _) => {
                familiarity.of(&mut self.breakers()).failed(admission, jitter(), now)
            }
            // Something responds: other questions of this kind may succeed.
            (FailureKind::Refused | FailureKind::Unusable, _) => {
                let ended = familiarity.of(&mut self.breakers()).succeeded();
                self.report_end(ended);
                None
            }
            (FailureKind::NotSent, _) => {
                familiarity.of(&mut self.breakers()).not_sent();
                None
            }
        };
        if let Some(suspended) = suspended {
            telemetry::introspection_suspended(&self.issuer, suspended);
        }
    }

    fn report_end(&self, ended: bool) {
        if ended {
            telemetry::introspection_resumed(&self.issuer);
        }
    }

    fn report(&self, error: &FetchError, kind: FailureKind) {
        let now = self.clock.now().uptime;
        let is_of_configuration =
            matches!(kind, FailureKind::Refused | FailureKind::Unauthorized | FailureKind::NotSent);
        if is_of_configuration {
            if let Some(suppressed) = self.refusals.admit(now) {
                telemetry::introspection_refused(&self.issuer, error, suppressed);
            }
        } else if let Some(suppressed) = self.failures.admit(now) {
            telemetry::introspection_failed(&self.issuer, error, suppressed);
        }
    }

    /// Discovers the endpoint, if it is not known.
    pub(crate) async fn warm_up(&self) {
        if let Err(error) = self.access.endpoint.find().await {
            self.remember(&error);
        }
    }

    pub(crate) fn health(&self) -> IntrospectionHealth {
        let now = self.clock.now().uptime;
        let suspended = |breaker: &Breaker| breaker.check(now).err();
        let [known, unknown] = self.breakers().each_ref().map(suspended);
        let last = self.counters.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        IntrospectionHealth {
            is_discovered: self.access.endpoint.is_known(),
            suspended_for: known.max(unknown),
            questions: self.counters.questions.load(Ordering::Relaxed),
            failed_questions: self.counters.failed.load(Ordering::Relaxed),
            last_error: last.clone(),
        }
    }
}
