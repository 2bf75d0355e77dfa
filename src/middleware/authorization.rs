//! Checks of the application that wait
//! ([`ProtectLayer::authorize`](crate::ProtectLayer::authorize)).

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::access_token::AccessToken;
use crate::clock::Clock;
use crate::error::{BoxError, Error};
use crate::telemetry::{self, LogThrottle, Outcome};
use crate::token::scope::Scope;

/// How long all checks of a layer may take together. A policy service beside the API answers within
/// milliseconds, and a client waits for the response.
const TIMEOUT: Duration = Duration::from_secs(2);

type Answer = Pin<Box<dyn Future<Output = Result<bool, BoxError>> + Send>>;
type Check = Arc<dyn Fn(AccessToken, Parts) -> Answer + Send + Sync>;

/// Resolves to why the request is rejected, if it is.
pub(crate) type Decision = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// The checks of one layer, in their order.
#[derive(Clone)]
pub(crate) struct Authorization {
    checks: Vec<Check>,
    pub(super) timeout: Duration,
    failures: Arc<LogThrottle>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { checks: Vec::new(), timeout: TIMEOUT, failures: Arc::default() }
    }
}

impl Authorization {
    pub(super) fn add<F, E>(
        &mut self,
        check: impl Fn(AccessToken, Parts) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<bool, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.checks.push(Arc::new(move |token, request| {
            let answer = check(token, request);
            Box::pin(async move { answer.await.map_err(Into::into) })
        }));
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    /// Starts the checks. The first one that denies decides.
    pub(super) fn decide(&self, token: AccessToken, request: Parts, clock: Clock) -> Decision {
        let Self { checks, timeout, failures } = self.clone();
        Box::pin(async move {
            let all = async {
                for check in &checks {
                    if !check(token.clone(), request.clone()).await? {
                        return Ok(false);
                    }
                }
                Ok::<_, BoxError>(true)
            };
            let answer = tokio::time::timeout(timeout, all).await;
            match answer.unwrap_or_else(|_| Err(NoAnswer { within: timeout }.into())) {
                Ok(true) => {
                    telemetry::request(Outcome::Accepted);
                    Ok(())
                }
                Ok(false) => Err(Error::Forbidden {
                    rule: "permission by the authorization check".to_owned(),
                    scope: Scope::none(),
                }),
                Err(reason) => {
                    if let Some(suppressed) = failures.admit(clock.now().uptime) {
                        telemetry::authorization_failed(&*reason, suppressed);
                    }
                    Err(Error::AuthorizationFailed { reason: reason.into() })
                }
            }
        })
    }
}

/// The check took too long.
#[derive(Debug)]
struct NoAnswer {
    within: Duration,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "expected an answer within {:?}", self.within)
    }
}

impl StdError for NoAnswer {}
