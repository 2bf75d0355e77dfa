//! The client of one issuer's introspection endpoint, at run time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use tokio::time::{Instant, timeout_at};
use url::form_urlencoded::Serializer;

use super::Introspection;
use super::breaker::{Admission, Breaker};
use super::endpoint::EndpointLocation;
use super::request::{Failure, FailureKind, Question, ask};
use crate::clock::Clock;
use crate::error::FetchError;
use crate::health::IntrospectionHealth;
use crate::keys::remote::AddressPolicy;
use crate::keys::remote::fetch::{Connections, Http};
use crate::keys::remote::jitter;
use crate::keys::remote::schedule::KeyPolicy;
use crate::permits::{Permit, Permits};
use crate::telemetry::{self, IntrospectionOutcome, IssuerName, LogThrottle};

/// Connections to introspection endpoints stay open: with those of keys, each token would cost a
/// TLS handshake.
pub(crate) const CONNECTIONS: Connections =
    Connections { connect_timeout: Duration::from_secs(1), idle: Duration::from_secs(60) };

/// Maximum number of concurrent questions to one endpoint, and of those about tokens that were not
/// accepted before. Any client can make up opaque tokens: they must not take the turns of tokens in
/// use.
const MAX_IN_FLIGHT: usize = 32;
const MAX_UNKNOWN: usize = MAX_IN_FLIGHT / 2;

/// Maximum number of questions about unknown tokens that wait for their turn. Of more, the oldest
/// are given up: their requests would reach the time limit anyway.
const MAX_WAITING: usize = 1024;

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
    pub(crate) addresses: AddressPolicy,
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
        let unknown = Permits::with_queue(MAX_UNKNOWN, MAX_WAITING);
        Self {
            config,
            issuer,
            access,
            clock,
            permits: [Permits::new(MAX_IN_FLIGHT), unknown],
            breakers: Mutex::default(),
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
                self.responded();
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
    async fn permits(&self, familiarity: Familiarity) -> Option<[Option<Permit>; 2]> {
        let [all, unknown] = &self.permits;
        let of_unknown = match familiarity {
            Familiarity::Known => None,
            Familiarity::Unknown => Some(unknown.acquire().await?),
        };
        Some([of_unknown, all.acquire().await])
    }

    fn http(&self) -> Http<'_> {
        let hedge_after = self.access.policy.timeout / 2;
        Http { client: &self.access.http, addresses: self.access.addresses, hedge_after }
    }

    /// `end`: when the question has to have an answer, apart from the time that discovery takes.
    async fn ask_once(&self, token: &str, end: Instant) -> Result<String, Failure> {
        let Introspection { auth, signed, timeout: limit, .. } = &self.config;
        let began = Instant::now();
        let http = self.http();
        let endpoint =
            self.access.endpoint.find(&http, auth, &self.clock).await.map_err(|error| {
                let is_refused = matches!(error, FetchError::UnsupportedClientAuth { .. });
                let kind = if is_refused { FailureKind::Refused } else { FailureKind::Down };
                Failure { error, kind }
            })?;
        http.check_address(&endpoint.url)
            .map_err(|error| Failure { error, kind: FailureKind::Refused })?;
        let question = async {
            let credentials = auth
                .credentials(&endpoint.methods, &self.issuer.iss, self.clock.now())
                .await
                .map_err(|error| Failure { error, kind: FailureKind::Down })?;
            let form = Serializer::new(String::new())
                .append_pair("token", token)
                .append_pair("token_type_hint", "access_token")
                .extend_pairs(credentials.form)
                .finish();
            let (url, authorization) = (&endpoint.url, credentials.authorization);
            let signed = *signed;
            ask(&self.access.http, &Question { url, form, authorization, signed }).await
        };
        let answer = timeout_at(end + began.elapsed(), question).await.unwrap_or_else(|_| {
            Err(Failure { error: FetchError::Timeout { limit: *limit }, kind: FailureKind::Down })
        });
        if let Err(failure) = &answer
            && matches!(failure.kind, FailureKind::Down | FailureKind::Refused)
        {
            self.access.endpoint.suspect(self.clock.now());
        }
        answer
    }

    /// The endpoint is there, whatever it responded: no question has to wait.
    fn responded(&self) {
        // Every breaker, without a short circuit.
        let ended = self.breakers().each_mut().map(Breaker::succeeded);
        if ended.contains(&true) {
            telemetry::introspection_resumed(&self.issuer);
        }
    }

    fn failed(&self, failure: &Failure, familiarity: Familiarity, admission: Admission) {
        let now = self.clock.now().uptime;
        self.report(&failure.error, failure.kind);
        let suspended = match failure.kind {
            FailureKind::Busy(time) => {
                self.breakers().iter_mut().map(|breaker| breaker.wait(time, now)).max()
            }
            FailureKind::Down | FailureKind::Unauthorized => {
                familiarity.of(&mut self.breakers()).failed(admission, jitter(), now)
            }
            FailureKind::Refused | FailureKind::Unusable => {
                self.responded();
                None
            }
        };
        if let Some(suspended) = suspended {
            telemetry::introspection_suspended(&self.issuer, suspended);
        }
    }

    fn report(&self, error: &FetchError, kind: FailureKind) {
        let now = self.clock.now().uptime;
        if matches!(kind, FailureKind::Refused | FailureKind::Unauthorized) {
            if let Some(suppressed) = self.refusals.admit(now) {
                telemetry::introspection_refused(&self.issuer, error, suppressed);
            }
        } else if let Some(suppressed) = self.failures.admit(now) {
            telemetry::introspection_failed(&self.issuer, error, suppressed);
        }
    }

    /// Discovers the endpoint, if it is not known.
    pub(crate) async fn warm_up(&self) {
        let Access { endpoint, .. } = &self.access;
        if let Err(error) = endpoint.find(&self.http(), &self.config.auth, &self.clock).await {
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
