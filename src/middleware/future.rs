//! [`ResponseFuture`]: waits for the verification, if it has to, and for the inner service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::authorization::Decision;
use super::config::ProtectConfig;
use super::effects::{ResponseEffects, copy};
use super::rejection::{EmptyBody, RejectionBody};
use crate::access_token::AccessToken;
use crate::error::Error;

pin_project! {
    /// The future of [`Protect`](crate::Protect). Resolves to the inner service's response, or to a
    /// rejection.
    pub struct ResponseFuture<S, B, R, A = EmptyBody>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        pub(super) state: State<S, B, R, A>,
    }
}

type Verifying = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>;

pin_project! {
    #[project = StateProjection]
    pub(super) enum State<S, B, R, A>
    where
        S: Service<Request<B>>,
    {
        /// Rejected; the response is ready.
        Rejected { response: Option<Response<R>> },
        /// Passed on to the inner service.
        Inner { #[pin] future: S::Future, config: Arc<ProtectConfig<A>>, effects: ResponseEffects },
        /// Waiting for keys or for a lookup. Only this state and the next need a boxed future.
        Verifying { verification: Verifying, waiting: Option<Box<Waiting<S, B, A>>> },
        /// Waiting for the checks of the application.
        Authorizing { decision: Decision, waiting: Option<Box<Waiting<S, B, A>>> },
        /// Accepted; waiting until the inner service is ready.
        Readying { waiting: Option<Box<Waiting<S, B, A>>> },
    }
}

impl<A> ProtectConfig<A> {
    pub(super) fn forward<S, B, R>(
        self: Arc<Self>,
        service: &mut S,
        request: Parts,
        body: B,
        mut effects: ResponseEffects,
    ) -> State<S, B, R, A>
    where
        S: Service<Request<B>, Response = Response<R>>,
        A: RejectionBody<R>,
    {
        if A::READS_REQUEST && cfg!(feature = "axum") {
            effects.keep(copy(&request));
        }
        State::Inner {
            future: service.call(Request::from_parts(request, body)),
            config: self,
            effects,
        }
    }
}

/// A request that waits. It is boxed because most requests do not wait, and the future of those
/// should be cheap to move.
pub(super) struct Waiting<S, B, A> {
    pub(super) parts: Parts,
    pub(super) body: B,
    pub(super) service: S,
    pub(super) config: Arc<ProtectConfig<A>>,
    pub(super) effects: ResponseEffects,
}

impl<S, B, A> Waiting<S, B, A> {
    fn reject<R>(self, error: Error) -> State<S, B, R, A>
    where
        S: Service<Request<B>>,
        A: RejectionBody<R>,
        R: Default,
    {
        let response = self.config.reject(error, &self.parts, self.effects);
        State::Rejected { response: Some(response) }
    }
}

impl<S, B, R, A> Future for ResponseFuture<S, B, R, A>
where
    S: Service<Request<B>, Response = Response<R>>,
    A: RejectionBody<R>,
    R: Default,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Inner { future, config, effects } => {
                    let response = ready!(future.poll(context))?;
                    return Poll::Ready(Ok(config.finish(response, std::mem::take(effects))));
                }
                StateProjection::Rejected { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    // Polled after completion, against the contract of `Future`: stay pending
                    // rather than panic.
                    None => return Poll::Pending,
                },
                StateProjection::Verifying { verification, waiting } => {
                    let verified = ready!(verification.as_mut().poll(context));
                    let Some(mut waiting) = waiting.take() else { return Poll::Pending };
                    let Waiting { config, parts, .. } = &mut *waiting;
                    match config.accept(verified, &config.rule, parts) {
                        Ok(()) => match config.decision_about(parts) {
                            None => State::Readying { waiting: Some(waiting) },
                            Some(decision) => {
                                State::Authorizing { decision, waiting: Some(waiting) }
                            }
                        },
                        Err(error) => waiting.reject(error),
                    }
                }
                StateProjection::Authorizing { decision, waiting } => {
                    let decision = ready!(decision.as_mut().poll(context));
                    let Some(waiting) = waiting.take() else { return Poll::Pending };
                    match decision {
                        Ok(()) => State::Readying { waiting: Some(waiting) },
                        Err(error) => waiting.reject(error),
                    }
                }
                StateProjection::Readying { waiting } => {
                    if let Some(waiting) = waiting {
                        ready!(waiting.service.poll_ready(context))?;
                    }
                    let Some(waiting) = waiting.take() else { return Poll::Pending };
                    let Waiting { parts, body, mut service, config, effects } = *waiting;
                    config.forward(&mut service, parts, body, effects)
                }
            };
            state.set(next);
        }
    }
}

impl<S, B, R, A> fmt::Debug for ResponseFuture<S, B, R, A>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
