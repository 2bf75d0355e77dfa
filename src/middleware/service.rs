//! [`Protect`]: the service that verifies the token before the inner service is called.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::request::Parts;
use http::{Extensions, Method, Request, Response, StatusCode};
use tower_service::Service;

use super::authorization::Decision;
use super::challenge::Challenges;
use super::config::{ProtectConfig, TokenPolicy};
use super::credentials::{self, Credentials, scheme_of};
use super::effects::ResponseEffects;
use super::future::{ResponseFuture, State, Waiting};
use super::rejection::{EmptyBody, RejectionBody, grpc_type, keep_headers, made_inside, reject};
use crate::access_token::{AccessToken, TokenKind};
use crate::binding::{Presented, Scheme};
use crate::error::{Error, InvalidRequest, InvalidToken};
use crate::rule::Rule;
use crate::telemetry::{self, Outcome};
use crate::token_source::TokenLocation;
use crate::verifier::Verification;

/// The service that [`ProtectLayer`](crate::ProtectLayer) wraps around another. It verifies the
/// access token of each request, and then calls the inner service or rejects the request.
pub struct Protect<S, A = EmptyBody> {
    inner: S,
    config: Arc<ProtectConfig<A>>,
}

impl<S: Clone, A> Clone for Protect<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), config: Arc::clone(&self.config) }
    }
}

/// Marks a request that a layer let through without a token. An extractor that requires a token
/// then rejects it as the client's fault, not as a route without a layer. The mark is in the
/// request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unauthenticated;

/// Marks the request as anonymous, and removes a token that another layer inserted.
pub(crate) fn forward_anonymous(extensions: &mut Extensions) {
    extensions.remove::<AccessToken>();
    extensions.insert(Unauthenticated);
}

impl<A> ProtectConfig<A> {
    /// Starts to verify the request's token, or reuses what an outer layer of the same verifier
    /// verified.
    pub(crate) fn begin(&self, request: &Parts) -> (Verification, ResponseEffects) {
        let found = self.credentials(request);
        let effects = self.effects_of(&found, request);
        let credentials = match found {
            Ok(credentials) => credentials,
            Err(error) => return (Verification::Ready(Err(error)), effects),
        };
        if matches!(credentials.location, TokenLocation::ApiKeyHeader(_))
            && !self.verifier.is_api_key(credentials.token)
        {
            let expected = InvalidToken::Malformed("an API key, the only token in this header");
            let error = self.verifier.reject(credentials.token, expected);
            return (Verification::Ready(Err(error)), effects);
        }
        match request.extensions.get::<AccessToken>() {
            // Compare it with the request, because a service between the layers may have replaced
            // the token, and with the time, because a queue between them may have delayed the
            // request.
            // The text of an API key is not kept, only its public identifier.
            Some(verified)
                if self.verifier.still_accepts(verified)
                    && verified.kind() != TokenKind::ApiKey
                    && self.still_bound(verified, request, &credentials)
                    && verified.expose_token() == credentials.token =>
            {
                (Verification::Ready(Ok(verified.clone())), effects)
            }
            _ => {
                let Credentials { token, scheme, .. } = credentials;
                let place = credentials.place();
                let verification = if self.verifier.bindings().are_none() {
                    self.verifier.begin(token)
                } else {
                    self.verifier.begin_bound(Presented::new(request, token, scheme, place))
                };
                (verification, effects)
            }
        }
    }

    /// Whether the binding of a token that an outer layer verified still holds.
    fn still_bound(
        &self,
        token: &AccessToken,
        request: &Parts,
        credentials: &Credentials<'_>,
    ) -> bool {
        token.binding().is_none_or(|binding| {
            let used = (credentials.scheme, credentials.place());
            self.verifier.bindings().still_hold(binding, token.dpop_proof(), request, used)
        })
    }

    fn credentials<'a>(&'a self, request: &'a Parts) -> Result<Credentials<'a>, Error> {
        let dpop = &self.verifier.bindings().dpop;
        credentials::find(request, &self.sources, dpop.is_some())
    }

    /// What a request leaves to its response, whatever becomes of it.
    fn effects_of(
        &self,
        found: &Result<Credentials<'_>, Error>,
        request: &Parts,
    ) -> ResponseEffects {
        let (mut effects, scheme) = match found {
            Ok(found) => (ResponseEffects::of(found.location, &request.method), found.scheme),
            Err(_) => (self.effects_of_query(request), scheme_of(&request.headers)),
        };
        if scheme == Scheme::Dpop
            && let Some(dpop) = &self.verifier.bindings().dpop
        {
            effects.scheme = scheme;
            if let Some(nonce) = dpop.next_nonce(request) {
                effects.hand_out(nonce);
            }
        }
        effects
    }

    /// The same for a request that was verified outside tower.
    pub(super) fn effects_of_accepted(&self, request: &Parts) -> ResponseEffects {
        self.effects_of(&self.credentials(request), request)
    }

    /// What a token in the query, well-formed or not, leaves to the response.
    pub(super) fn effects_of_query(&self, request: &Parts) -> ResponseEffects {
        if credentials::has_query(request, &self.sources) {
            ResponseEffects::no_store()
        } else {
            ResponseEffects::default()
        }
    }

    pub(crate) fn is_preflight(&self, request: &Parts) -> bool {
        self.passes_preflight
            && request.method == Method::OPTIONS
            && request.headers.contains_key(ORIGIN)
            && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Accepts the request, with its token or as anonymous, or returns why it is rejected.
    pub(crate) fn accept(
        &self,
        verified: Result<AccessToken, Error>,
        rule: &Rule,
        request: &mut Parts,
    ) -> Result<(), Error> {
        match self.judge(verified, rule, request)? {
            Some(token) => {
                request.extensions.remove::<Unauthenticated>();
                request.extensions.insert(token);
            }
            None => forward_anonymous(&mut request.extensions),
        }
        Ok(())
    }

    /// Returns the token if it satisfies `rule`, `None` if the layer lets the request through
    /// without one, or why the request is rejected.
    pub(super) fn judge(
        &self,
        verified: Result<AccessToken, Error>,
        rule: &Rule,
        request: &Parts,
    ) -> Result<Option<AccessToken>, Error> {
        match verified {
            Ok(token) => {
                rule.check_request(&token, request).map_err(|error| match error {
                    // The others are logged with the rejection.
                    Error::InvalidToken(reason) => {
                        self.verifier.reject(token.expose_token(), reason)
                    }
                    error => error,
                })?;
                // Otherwise, counted when all checks have ended.
                if self.authorization.is_empty() {
                    telemetry::request(Outcome::Accepted);
                }
                Ok(Some(token))
            }
            Err(error) if self.lets_through(&error) => {
                telemetry::request(Outcome::Anonymous);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts the checks of the application for an accepted request.
    #[inline]
    pub(super) fn decision_about(&self, accepted: &Parts) -> Option<Decision> {
        // Most layers have no checks, and searching the extensions costs more than this.
        if self.authorization.is_empty() {
            return None;
        }
        self.decision(accepted.extensions.get(), accepted)
    }

    /// Starts the checks of the application, if there are any and the request has a token.
    pub(crate) fn decision(
        &self,
        token: Option<&AccessToken>,
        request: &Parts,
    ) -> Option<Decision> {
        if self.authorization.is_empty() {
            return None;
        }
        let token = token?.clone();
        let mut request = request.clone();
        request.extensions.remove::<Unauthenticated>();
        request.extensions.insert(token.clone());
        Some(self.authorization.decide(token, request, self.verifier.clock().clone()))
    }

    /// Whether a request for which verification has ended with `error` continues as anonymous.
    pub(crate) fn lets_through(&self, error: &Error) -> bool {
        matches!(
            (error, self.policy),
            // For a page that may not use the token, the request counts as one without a token.
            (
                Error::Missing | Error::InvalidRequest(InvalidRequest::ForbiddenOrigin),
                TokenPolicy::Optional | TokenPolicy::IgnoreInvalid
            ) | (
                Error::InvalidToken(_) | Error::InvalidProof(_) | Error::InvalidRequest(_),
                TokenPolicy::IgnoreInvalid
            )
        )
    }

    pub(super) fn reject<R: Default>(
        &self,
        error: Error,
        request: &Parts,
        effects: ResponseEffects,
    ) -> Response<R>
    where
        A: RejectionBody<R>,
    {
        let grpc_type = grpc_type(request);
        self.reject_with(error, request, effects, self.challenges(), grpc_type)
    }

    /// `grpc_type`: the content type of the response, if the request is a gRPC request.
    pub(crate) fn reject_with<R: Default>(
        &self,
        error: Error,
        request: &Parts,
        effects: ResponseEffects,
        challenges: &Challenges,
        grpc_type: Option<&'static str>,
    ) -> Response<R>
    where
        A: RejectionBody<R>,
    {
        if error.is_logged_by_layer() {
            telemetry::request_rejected(&error);
        }
        let is_unavailable = error.status() == StatusCode::SERVICE_UNAVAILABLE;
        telemetry::request(if is_unavailable { Outcome::Unavailable } else { Outcome::Rejected });
        let used = effects.scheme;
        let mut response = reject(error, request, challenges, used, &*self.answer, grpc_type);
        effects.add_to(&mut response);
        response
    }

    /// Returns the inner service's response. If a handler or an extractor rejected the request, the
    /// response is rebuilt as this route's own rejection.
    pub(crate) fn finish<R: Default>(
        &self,
        mut response: Response<R>,
        effects: ResponseEffects,
    ) -> Response<R>
    where
        A: RejectionBody<R>,
    {
        // Checked first, because every response passes here and most have no extensions.
        if !response.extensions().is_empty()
            && let Some(error) = made_inside(&mut response)
        {
            return self.answer_inside(&error, response, effects);
        }
        effects.add_to(&mut response);
        response
    }

    #[cold]
    fn answer_inside<R: Default>(
        &self,
        error: &Error,
        mut inside: Response<R>,
        mut effects: ResponseEffects,
    ) -> Response<R>
    where
        A: RejectionBody<R>,
    {
        let copied = effects.extra.as_mut().and_then(|extra| extra.request.take());
        let request = copied.unwrap_or_else(|| Request::new(()).into_parts().0);
        let challenges = Challenges::for_error(self.challenge_parameters(), error);
        let challenges = if self.has_challenge { challenges } else { challenges.off() };
        let headers = std::mem::take(inside.headers_mut());
        // Not as gRPC: a handler that responds with an HTTP error does not serve gRPC.
        let (used, answer) = (effects.scheme, &*self.answer);
        let mut response = reject(error.clone(), &request, &challenges, used, answer, None);
        keep_headers(&headers, &mut response);
        effects.add_to(&mut response);
        response
    }
}

impl<S, A> Protect<S, A> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service. A request that is sent to it directly is not protected.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without protection.
    pub fn into_inner(self) -> S {
        self.inner
    }

    pub(crate) fn new(inner: S, config: Arc<ProtectConfig<A>>) -> Self {
        Self { inner, config }
    }

    /// Passes a request on to the inner service.
    fn forward<B, R>(
        &mut self,
        parts: Parts,
        body: B,
        effects: ResponseEffects,
    ) -> ResponseFuture<S, B, R, A>
    where
        S: Service<Request<B>, Response = Response<R>>,
        A: RejectionBody<R>,
    {
        let config = Arc::clone(&self.config);
        ResponseFuture { state: config.forward(&mut self.inner, parts, body, effects) }
    }

    /// Sets a request aside that has to wait.
    fn wait<B>(&mut self, parts: Parts, body: B, effects: ResponseEffects) -> Box<Waiting<S, B, A>>
    where
        S: Clone,
    {
        // Release what the service reserved in `poll_ready`, such as a permit of a concurrency
        // limit: an issuer that hangs must not use up the permits of requests that do not wait. A
        // clone goes with the request, and is polled ready once the request is accepted.
        self.inner = self.inner.clone();
        let (service, config) = (self.inner.clone(), Arc::clone(&self.config));
        Box::new(Waiting { parts, body, service, config, effects })
    }
}

impl<S: fmt::Debug, A> fmt::Debug for Protect<S, A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Protect")
            .field("inner", &self.inner)
            .field("verifier", &self.config.verifier)
            .field("rule", &self.config.rule)
            .finish_non_exhaustive()
    }
}

impl<S, A, B, R> Service<Request<B>> for Protect<S, A>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    A: RejectionBody<R>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R, A>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        if self.config.is_preflight(&parts) {
            forward_anonymous(&mut parts.extensions);
            telemetry::request(Outcome::Anonymous);
            return self.forward(parts, body, ResponseEffects::default());
        }
        let (verification, effects) = self.config.begin(&parts);
        let verified = match verification {
            Verification::Ready(verified) => verified,
            Verification::Pending(verification) => {
                let waiting = Some(self.wait(parts, body, effects));
                return ResponseFuture { state: State::Verifying { verification, waiting } };
            }
        };
        if let Err(error) = self.config.accept(verified, &self.config.rule, &mut parts) {
            let response = Some(self.config.reject(error, &parts, effects));
            return ResponseFuture { state: State::Rejected { response } };
        }
        if let Some(decision) = self.config.decision_about(&parts) {
            let waiting = Some(self.wait(parts, body, effects));
            return ResponseFuture { state: State::Authorizing { decision, waiting } };
        }
        self.forward(parts, body, effects)
    }
}
