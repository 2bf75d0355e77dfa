//! [`Protect`], the service, and its [`ResponseFuture`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{Extensions, Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::answer::{Answer, EmptyBody, keep_headers, made_inside, refuse};
use super::challenge::Challenges;
use super::credentials;
use crate::access_token::AccessToken;
use crate::error::{Error, InvalidRequest};
use crate::events::{self, Outcome};
use crate::rule::Rule;
use crate::token_source::{Place, TokenSource};
use crate::verifier::{Verification, Verifier};

/// The service that [`ProtectLayer`](crate::ProtectLayer) puts around another.
pub struct Protect<S, A = EmptyBody> {
    inner: S,
    route: Arc<Route<A>>,
}

impl<S: Clone, A> Clone for Protect<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), route: Arc::clone(&self.route) }
    }
}

/// What one route asks for, and how it says no. Shared by a layer, its clones and all services that they made, so that making
/// a service costs nothing: some routers make one for each request.
pub(crate) struct Route<A> {
    pub(crate) verifier: Verifier,
    pub(crate) rule: Rule,
    pub(crate) realm: Arc<str>,
    pub(crate) sources: Arc<[TokenSource]>,
    pub(crate) policy: Policy,
    pub(crate) passes_preflight: bool,
    pub(crate) has_challenge: bool,
    /// Of `realm` and `rule`, once they are needed.
    pub(crate) challenges: OnceLock<Challenges>,
    pub(crate) answer: Arc<A>,
}

impl<A> Route<A> {
    /// The same, with another way to answer.
    pub(crate) fn answering<B>(&self, answer: Arc<B>) -> Route<B> {
        Route {
            verifier: self.verifier.clone(),
            rule: self.rule.clone(),
            realm: Arc::clone(&self.realm),
            sources: Arc::clone(&self.sources),
            policy: self.policy,
            passes_preflight: self.passes_preflight,
            has_challenge: self.has_challenge,
            challenges: OnceLock::new(),
            answer,
        }
    }

    fn challenges(&self) -> &Challenges {
        self.challenges.get_or_init(|| {
            let challenges = Challenges::new(&self.realm, &self.rule.scopes(), &self.rule.step_up());
            if self.has_challenge { challenges } else { challenges.off() }
        })
    }
}

/// Whether a token is needed, as Envoy's JWT filter has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Policy {
    Required,
    /// Without one, nobody.
    Optional,
    /// With a bad one, too.
    IgnoreInvalid,
}

/// In the request's extensions, where a layer let it through without a token: so that an extractor that wants one knows that
/// the client is to blame, and not the wiring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anonymous;

/// Another layer's token is not this one's.
fn let_through_as_nobody(extensions: &mut Extensions) {
    extensions.remove::<AccessToken>();
    extensions.insert(Anonymous);
}

/// What is added to the response, and how it is made if something inside refuses: nothing, for most requests.
#[derive(Default)]
struct After(Option<Box<Extra>>);

#[derive(Default)]
struct Extra {
    /// RFC 6750 §2.3: it was in the address.
    no_store: bool,
    /// RFC 6455 §4.2.2: the subprotocol that it came with, to be accepted.
    protocol: Option<HeaderValue>,
    /// RFC 8441 §4: the websocket comes over HTTP/2, where any 2xx status accepts it.
    is_connect: bool,
    /// A copy of the request, if an answer would read it.
    request: Option<Parts>,
}

impl After {
    fn of(place: &Place, method: &Method) -> Self {
        let is_connect = method == Method::CONNECT;
        match place {
            Place::Query(_) => Self::no_store(),
            Place::WebSocketProtocol(name) => {
                Self(Some(Box::new(Extra { protocol: Some(name.clone()), is_connect, ..Extra::default() })))
            }
            Place::Authorization | Place::Header { .. } | Place::Cookie { .. } => Self::default(),
        }
    }

    fn no_store() -> Self {
        Self(Some(Box::new(Extra { no_store: true, ..Extra::default() })))
    }

    fn add_to<R>(self, response: &mut Response<R>) {
        let Some(extra) = self.0 else { return };
        if extra.no_store {
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Some(protocol) = extra.protocol
            && (response.status() == StatusCode::SWITCHING_PROTOCOLS
                || extra.is_connect && response.status().is_success())
        {
            // Unless the service has accepted another.
            response.headers_mut().entry(SEC_WEBSOCKET_PROTOCOL).or_insert(protocol);
        }
    }
}

impl<A> Route<A> {
    /// Starts with the token of the request, unless an outer layer of the same verifier was here before.
    fn begin<B>(&self, request: &Request<B>) -> (Verification, After) {
        let credentials = match credentials::find(request, &self.sources) {
            Ok(credentials) => credentials,
            Err(error) => {
                let after = match credentials::has_query(request, &self.sources) {
                    true => After::no_store(),
                    false => After::default(),
                };
                return (Verification::Done(Err(error)), after);
            }
        };
        let after = After::of(credentials.place, request.method());
        match request.extensions().get::<AccessToken>() {
            // Compared with the request, because something between the layers may have replaced it; and with the time, because
            // a queue between them may have held it up.
            Some(verified) if self.verifier.still_accepts(verified) && verified.expose_token() == credentials.token => {
                (Verification::Done(Ok(verified.clone())), after)
            }
            _ => (self.verifier.begin(credentials.token), after),
        }
    }

    fn is_preflight<B>(&self, request: &Request<B>) -> bool {
        self.passes_preflight
            && request.method() == Method::OPTIONS
            && request.headers().contains_key(ORIGIN)
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Lets the request through, with its token or without one; or says why not.
    fn authorize(&self, verified: Result<AccessToken, Error>, request: &mut Parts) -> Result<(), Error> {
        let is_let_through = matches!(
            (&verified, self.policy),
            // A page that may not use the token gets what anyone gets who has none.
            (
                Err(Error::Missing | Error::InvalidRequest(InvalidRequest::Origin)),
                Policy::Optional | Policy::IgnoreInvalid
            ) | (Err(Error::InvalidToken(_) | Error::InvalidRequest(_)), Policy::IgnoreInvalid)
        );
        if is_let_through {
            let_through_as_nobody(&mut request.extensions);
            events::request(Outcome::Anonymous);
            return Ok(());
        }
        let token = verified?;
        self.rule.check_request(&token, request)?;
        request.extensions.remove::<Anonymous>();
        request.extensions.insert(token);
        events::request(Outcome::Accepted);
        Ok(())
    }

    fn refuse<R: Default>(&self, error: Error, request: &Parts, after: After) -> Response<R>
    where
        A: Answer<R>,
    {
        if error.is_told_by_the_request() {
            events::request_refused(&error);
        }
        let is_unavailable = error.status() == StatusCode::SERVICE_UNAVAILABLE;
        events::request(if is_unavailable { Outcome::Unavailable } else { Outcome::Refused });
        let mut response = refuse(error, request, self.challenges(), &*self.answer);
        after.add_to(&mut response);
        response
    }

    /// The inner service's response; or, where a handler or an extractor refused, this route's own.
    fn finish<R: Default>(&self, mut response: Response<R>, after: After) -> Response<R>
    where
        A: Answer<R>,
    {
        // Most have none, and this is on the way of every request.
        if !response.extensions().is_empty()
            && let Some(error) = made_inside(&mut response)
        {
            return self.answer_inside(&error, response, after);
        }
        after.add_to(&mut response);
        response
    }

    #[cold]
    fn answer_inside<R: Default>(&self, error: &Error, mut inside: Response<R>, mut after: After) -> Response<R>
    where
        A: Answer<R>,
    {
        let copied = after.0.as_mut().and_then(|extra| extra.request.take());
        let request = copied.unwrap_or_else(|| Request::new(()).into_parts().0);
        let challenges = Challenges::for_error(&self.realm, error);
        let challenges = if self.has_challenge { challenges } else { challenges.off() };
        let headers = std::mem::take(inside.headers_mut());
        let mut response = refuse(error.clone(), &request, &challenges, &*self.answer);
        keep_headers(&headers, &mut response);
        after.add_to(&mut response);
        response
    }
}

/// A copy without extensions, which cannot be copied and are the inner service's.
fn copy(request: &Parts) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method.clone_from(&request.method);
    copy.uri.clone_from(&request.uri);
    copy.version = request.version;
    copy.headers.clone_from(&request.headers);
    copy
}

impl<S, A> Protect<S, A> {
    pub(crate) fn new(inner: S, route: Arc<Route<A>>) -> Self {
        Self { inner, route }
    }
}

impl<S: fmt::Debug, A> fmt::Debug for Protect<S, A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Protect")
            .field("inner", &self.inner)
            .field("verifier", &self.route.verifier)
            .field("rule", &self.route.rule)
            .finish_non_exhaustive()
    }
}

impl<S, A, B, R> Service<Request<B>> for Protect<S, A>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    A: Answer<R>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R, A>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.route.is_preflight(&request) {
            let_through_as_nobody(request.extensions_mut());
            events::request(Outcome::Anonymous);
            let (parts, body) = request.into_parts();
            let state = Arc::clone(&self.route).let_through(&mut self.inner, parts, body, After::default());
            return ResponseFuture { state };
        }
        let (verification, after) = self.route.begin(&request);
        let (mut parts, body) = request.into_parts();
        let state = match verification {
            Verification::Waiting(verification) => {
                // What the service reserved when it was polled ready (a place under a concurrency limit, say) is given
                // back: one issuer that hangs must not use up the places of requests that wait for nobody. A clone goes
                // with the request, and is asked when there is something to ask for.
                self.inner = self.inner.clone();
                let (service, route) = (self.inner.clone(), Arc::clone(&self.route));
                State::Verifying {
                    verification,
                    waiting: Some(Box::new(Waiting { parts, body, service, route, after })),
                }
            }
            Verification::Done(verified) => match self.route.authorize(verified, &mut parts) {
                Ok(()) => Arc::clone(&self.route).let_through(&mut self.inner, parts, body, after),
                Err(error) => State::Refused { response: Some(self.route.refuse(error, &parts, after)) },
            },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response, when it is there: the inner service's, or a refusal.
    pub struct ResponseFuture<S, B, R, A = EmptyBody>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R, A>,
    }
}

type Verifying = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>;

pin_project! {
    #[project = StateProjection]
    enum State<S, B, R, A>
    where
        S: Service<Request<B>>,
    {
        /// Refused; the answer is ready.
        Refused { response: Option<Response<R>> },
        /// Let through.
        Inner { #[pin] future: S::Future, route: Arc<Route<A>>, after: After },
        /// Waiting for keys. Only this way costs a boxed future.
        Verifying { verification: Verifying, waiting: Option<Box<Waiting<S, B, A>>> },
        /// Let through; waiting until the inner service is ready.
        Readying { waiting: Option<Box<Waiting<S, B, A>>> },
    }
}

impl<A> Route<A> {
    fn let_through<S, B, R>(
        self: Arc<Self>,
        service: &mut S,
        request: Parts,
        body: B,
        mut after: After,
    ) -> State<S, B, R, A>
    where
        S: Service<Request<B>, Response = Response<R>>,
        A: Answer<R>,
    {
        if A::READS_REQUEST && cfg!(feature = "axum") {
            after.0.get_or_insert_default().request = Some(copy(&request));
        }
        let future = service.call(Request::from_parts(request, body));
        State::Inner { future, route: self, after }
    }
}

/// Boxed: most requests wait for nothing, and their futures should be small to move.
struct Waiting<S, B, A> {
    parts: Parts,
    body: B,
    service: S,
    route: Arc<Route<A>>,
    after: After,
}

impl<S, B, R, A> Future for ResponseFuture<S, B, R, A>
where
    S: Service<Request<B>, Response = Response<R>>,
    A: Answer<R>,
    R: Default,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Inner { future, route, after } => {
                    let response = ready!(future.poll(context))?;
                    return Poll::Ready(Ok(route.finish(response, std::mem::take(after))));
                }
                StateProjection::Refused { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    // Polled again after it was ready, which no executor does; waiting for ever is the mildest answer.
                    None => return Poll::Pending,
                },
                StateProjection::Verifying { verification, waiting } => {
                    let verified = ready!(verification.as_mut().poll(context));
                    let Some(mut waiting) = waiting.take() else { return Poll::Pending };
                    match waiting.route.authorize(verified, &mut waiting.parts) {
                        Ok(()) => State::Readying { waiting: Some(waiting) },
                        Err(error) => {
                            let Waiting { parts, route, after, .. } = *waiting;
                            State::Refused { response: Some(route.refuse(error, &parts, after)) }
                        }
                    }
                }
                StateProjection::Readying { waiting } => {
                    if let Some(waiting) = waiting {
                        ready!(waiting.service.poll_ready(context))?;
                    }
                    let Some(waiting) = waiting.take() else { return Poll::Pending };
                    let Waiting { parts, body, mut service, route, after } = *waiting;
                    route.let_through(&mut service, parts, body, after)
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
