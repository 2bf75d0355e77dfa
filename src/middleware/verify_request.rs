//! Verification of a request outside tower: [`ProtectLayer::verify_request`] and its [`Rejection`].

use std::fmt;

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use super::challenge::{Challenges, description};
use super::credentials::scheme_of;
use super::effects::ResponseEffects;
use super::layer::ProtectLayer;
use super::rejection::{RejectionBody, grpc_code, grpc_type, reject};
use crate::access_token::AccessToken;
use crate::error::Error;
use crate::telemetry::{self, Outcome};
use crate::verifier::Verification;

/// The response to a rejected request, for frameworks that are not built on tower. It is the
/// response that [`Protect`](crate::Protect) sends for the same request.
#[must_use]
pub struct Rejection(Box<Inner>);

/// Boxed, so that the `Result` of a verification is small.
struct Inner {
    error: Error,
    response: Response<String>,
}

impl Rejection {
    /// Why the request was rejected. For the log, not for the client.
    pub fn error(&self) -> &Error {
        &self.0.error
    }

    /// The status of the response. For gRPC requests, it is 200; see
    /// [`grpc_code`](Self::grpc_code).
    pub fn status(&self) -> StatusCode {
        self.0.response.status()
    }

    /// The headers of the response: `WWW-Authenticate` with the route's challenge (RFC 6750 §3),
    /// `Retry-After` (seconds) with 429 and 503, `DPoP-Nonce`, and what the route's body needs.
    pub fn headers(&self) -> &HeaderMap {
        self.0.response.headers()
    }

    /// The body of the response: empty, unless the layer sets one, for example with
    /// [`problem_json`](ProtectLayer::problem_json).
    pub fn body(&self) -> &str {
        self.0.response.body()
    }

    /// The gRPC status code: 16 `UNAUTHENTICATED`, 7 `PERMISSION_DENIED`, 14 `UNAVAILABLE` or 8
    /// `RESOURCE_EXHAUSTED`.
    pub fn grpc_code(&self) -> i32 {
        grpc_code(&self.0.error)
    }

    /// A sentence for the client, such as a gRPC status message. It is a fixed text for each kind
    /// of error, without input of the client.
    pub fn message(&self) -> &'static str {
        description(&self.0.error)
    }

    /// Converts into a response with the framework's body. The [`Error`] is in its extensions.
    pub fn into_response<B: From<String>>(self) -> Response<B> {
        self.0.response.map(B::from)
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Rejection")
            .field("error", &self.0.error)
            .field("status", &self.0.response.status())
            .finish_non_exhaustive()
    }
}

/// # Without tower
///
/// For frameworks with their own middleware, and for gRPC interceptors. Everything that this layer
/// requires applies: sources, rules, anonymous requests, challenges, the body of rejections.
impl<A: RejectionBody<String>> ProtectLayer<A> {
    /// Verifies the token of a request and checks this layer's rules. Returns `None` if the layer
    /// lets the request through as anonymous: [`allow_anonymous`](Self::allow_anonymous),
    /// [`danger_ignore_invalid`](Self::danger_ignore_invalid),
    /// [`allow_preflight`](Self::allow_preflight).
    ///
    /// Waits only if an issuer must be looked up, keys must be fetched, or the layer has a check of
    /// the application ([`authorize`](Self::authorize)). The request's extensions are not changed;
    /// pass the token on as your framework does.
    ///
    /// The responses to accepted requests are up to the caller. They need the
    /// [`response_headers`](Self::response_headers). If a [`TokenSource`](crate::TokenSource) of
    /// the layer is a websocket subprotocol, the handshake must accept that subprotocol (RFC 6455
    /// §4.2.2).
    ///
    /// A DPoP proof is used once. A `ProtectLayer` of the same verifier behind this call accepts
    /// the request if its extensions have the returned token.
    ///
    /// # Errors
    ///
    /// Returns the response if the request is rejected.
    ///
    /// ```
    /// use http::request::Parts;
    /// use portcullis::ProtectLayer;
    ///
    /// async fn handle(protect: &ProtectLayer, request: &Parts) -> http::Response<String> {
    ///     match protect.verify_request(request).await {
    ///         Ok(Some(token)) => {
    ///             http::Response::new(format!("hello, {}", token.subject().unwrap_or("service")))
    ///         }
    ///         Ok(None) => http::Response::new("hello".to_owned()),
    ///         Err(rejection) => rejection.into_response(),
    ///     }
    /// }
    /// # let _ = handle;
    /// ```
    pub async fn verify_request(&self, request: &Parts) -> Result<Option<AccessToken>, Rejection> {
        let Some((verification, effects)) = self.begin_unless_preflight(request) else {
            return Ok(None);
        };
        let verified = match verification {
            Verification::Ready(verified) => verified,
            Verification::Pending(future) => future.await,
        };
        let accepted = self.config.judge(verified, &self.config.rule, request);
        let token = accepted.as_ref().ok().and_then(Option::as_ref);
        let decided = match self.config.decision(token, request) {
            Some(decision) => decision.await.and(accepted),
            None => accepted,
        };
        decided.map_err(|error| self.reject(error, request, effects))
    }

    /// Like [`verify_request`](Self::verify_request), for callers that cannot wait, such as a
    /// synchronous interceptor. Returns `None` if it would have to wait.
    ///
    /// If keys are missing, their fetch was started, and continues in the background. Load them at
    /// startup with [`Verifier::warm_up`](crate::Verifier::warm_up), so that this does not happen.
    /// A lookup of an issuer ([`Issuers::lookup_async`](crate::Issuers::lookup_async)) was not
    /// started. A layer with [`authorize`](Self::authorize) has to wait for each request that its
    /// rules accept, and one with [`Dpop::share_replays`](crate::Dpop::share_replays) for each
    /// request with DPoP.
    pub fn try_verify_request(
        &self,
        request: &Parts,
    ) -> Option<Result<Option<AccessToken>, Rejection>> {
        // A proof is used once, and the caller will call again and wait.
        if !self.config.authorization.is_empty() && self.config.verifier.bindings().dpop.is_some() {
            return None;
        }
        let Some((verification, effects)) = self.begin_unless_preflight(request) else {
            return Some(Ok(None));
        };
        match verification {
            Verification::Ready(verified) => {
                let accepted = self.config.judge(verified, &self.config.rule, request);
                if matches!(accepted, Ok(Some(_))) && !self.config.authorization.is_empty() {
                    return None;
                }
                Some(accepted.map_err(|error| self.reject(error, request, effects)))
            }
            Verification::Pending(_) => None,
        }
    }

    /// Returns the headers that the response to a request needs after
    /// [`verify_request`](Self::verify_request) accepted it: `DPoP-Nonce` for the client's next
    /// proof (RFC 9449 §8.2), and `Cache-Control: no-store` with it, or if the token was in the
    /// query (RFC 6750 §2.3). Rejections have them already.
    pub fn response_headers(&self, request: &Parts) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(mut extra) = self.config.effects_of_accepted(request).extra {
            extra.add_headers(&mut headers);
        }
        headers
    }

    /// Builds the response for an error of a handler, such as that of
    /// [`AccessToken::require_scope`], with this layer's realm and body.
    pub fn rejection(&self, error: Error, request: &Parts) -> Rejection {
        let parameters = self.config.challenge_parameters();
        let challenges = Challenges::for_error(parameters, &error);
        let challenges = if self.config.has_challenge { challenges } else { challenges.off() };
        // The request was counted when it was accepted.
        if error.is_logged_by_layer() {
            telemetry::request_rejected(&error);
        }
        let (answer, grpc) = (&*self.config.answer, grpc_type(request));
        let used = scheme_of(&request.headers);
        let mut response = reject(error.clone(), request, &challenges, used, answer, grpc);
        self.config.effects_of_accepted(request).add_to(&mut response);
        Rejection(Box::new(Inner { error, response }))
    }

    /// Returns `None` for a CORS preflight that passes.
    fn begin_unless_preflight(&self, request: &Parts) -> Option<(Verification, ResponseEffects)> {
        if self.config.is_preflight(request) {
            telemetry::request(Outcome::Anonymous);
            return None;
        }
        Some(self.config.begin(request))
    }

    fn reject(&self, error: Error, request: &Parts, effects: ResponseEffects) -> Rejection {
        let response = self.config.reject(error.clone(), request, effects);
        Rejection(Box::new(Inner { error, response }))
    }
}
