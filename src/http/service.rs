//! [`Protect`], the service, and its [`ResponseFuture`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::challenge::Challenges;
use super::credentials;
use crate::access_token::AccessToken;
use crate::error::Error;
use crate::token::scope::Scope;
use crate::verifier::{Verification, Verifier};

/// The service that [`ProtectLayer`](crate::ProtectLayer) puts around another.
#[derive(Clone)]
pub struct Protect<S> {
    inner: S,
    route: Arc<Route>,
}

/// What one route asks for, and how it says no.
pub(crate) struct Route {
    pub(crate) verifier: Verifier,
    pub(crate) scope: Scope,
    pub(crate) challenges: Challenges,
}

impl Route {
    /// Starts with the token of the request, unless an outer layer of the same verifier was here before.
    fn begin<B>(&self, request: &Request<B>) -> Verification {
        let token = match credentials::bearer(request.headers()) {
            Ok(token) => token,
            Err(error) => return Verification::Done(Err(error)),
        };
        match request.extensions().get::<AccessToken>() {
            // Compared with the header, because something between the layers may have replaced it.
            Some(verified) if self.verifier.verified(verified) && verified.expose_token() == token => {
                Verification::Done(Ok(verified.clone()))
            }
            _ => self.verifier.begin(token),
        }
    }

    fn authorize(&self, verified: Result<AccessToken, Error>) -> Result<AccessToken, Error> {
        let token = verified?;
        token.require_scope(&self.scope)?;
        Ok(token)
    }
}

impl<S> Protect<S> {
    pub(crate) fn new(inner: S, route: Arc<Route>) -> Self {
        Self { inner, route }
    }
}

impl<S: fmt::Debug> fmt::Debug for Protect<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Protect")
            .field("inner", &self.inner)
            .field("verifier", &self.route.verifier)
            .field("scope", &self.route.scope)
            .finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for Protect<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let state = match self.route.begin(&request) {
            Verification::Waiting(verification) => {
                // What the service reserved when it was polled ready (a place under a concurrency limit, say) is given
                // back: one issuer that hangs must not use up the places of requests that wait for nobody. A clone goes
                // with the request, and is asked when there is something to ask for.
                self.inner = self.inner.clone();
                let waiting = Some(Waiting { request, service: self.inner.clone(), route: Arc::clone(&self.route) });
                State::Verifying { verification, waiting }
            }
            Verification::Done(verified) => match self.route.authorize(verified) {
                Ok(token) => {
                    request.extensions_mut().insert(token);
                    State::Inner { future: self.inner.call(request) }
                }
                Err(error) => State::Refused { response: Some(self.route.challenges.response(error)) },
            },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response, when it is there: the inner service's, or a refusal.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R>,
    }
}

type Verifying = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>;

pin_project! {
    #[project = StateProjection]
    enum State<S, B, R>
    where
        S: Service<Request<B>>,
    {
        /// Refused; the answer is ready.
        Refused { response: Option<Response<R>> },
        /// Let through.
        Inner { #[pin] future: S::Future },
        /// Waiting for keys. Only this way costs a boxed future.
        Verifying { verification: Verifying, waiting: Option<Waiting<S, B>> },
        /// Let through; waiting until the inner service is ready.
        Readying { waiting: Option<Waiting<S, B>> },
    }
}

struct Waiting<S, B> {
    request: Request<B>,
    service: S,
    route: Arc<Route>,
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Inner { future } => return future.poll(context),
                StateProjection::Refused { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    // Polled again after it was ready, which no executor does; waiting for ever is the mildest answer.
                    None => return Poll::Pending,
                },
                StateProjection::Verifying { verification, waiting } => {
                    let verified = ready!(verification.as_mut().poll(context));
                    let Some(mut allowed) = waiting.take() else { return Poll::Pending };
                    match allowed.route.authorize(verified) {
                        Ok(token) => {
                            allowed.request.extensions_mut().insert(token);
                            State::Readying { waiting: Some(allowed) }
                        }
                        Err(error) => State::Refused { response: Some(allowed.route.challenges.response(error)) },
                    }
                }
                StateProjection::Readying { waiting } => {
                    if let Some(waiting) = waiting {
                        ready!(waiting.service.poll_ready(context))?;
                    }
                    let Some(Waiting { request, mut service, .. }) = waiting.take() else { return Poll::Pending };
                    State::Inner { future: service.call(request) }
                }
            };
            state.set(next);
        }
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
