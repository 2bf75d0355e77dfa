//! [`Mcp`]: the service that checks the rules of a request before the inner service is called.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_service::Service;

use super::Config;
use super::body::McpBody;
use super::headers::{self, SESSION_ID};
use super::message::{Body, ReadError};
use super::rules::{Operation, Requirement};
use crate::access_token::AccessToken;
use crate::error::{BoxError, Error};
use crate::middleware::effects::{ResponseEffects, copy};
use crate::middleware::rejection::{EmptyBody, RejectionBody};
use crate::middleware::service::forward_anonymous;
use crate::rule::Rule;
use crate::telemetry::{self, Outcome};
use crate::verifier::Verification;

/// The service that [`McpLayer`](super::McpLayer) wraps around an MCP server.
pub struct Mcp<S, A = EmptyBody> {
    inner: S,
    config: Arc<Config<A>>,
}

impl<S: Clone, A> Clone for Mcp<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), config: Arc::clone(&self.config) }
    }
}

impl<S: fmt::Debug, A> fmt::Debug for Mcp<S, A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mcp").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, A> Mcp<S, A> {
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

    pub(super) fn new(inner: S, config: Arc<Config<A>>) -> Self {
        Self { inner, config }
    }
}

/// The future of [`Mcp`].
pub struct McpFuture<R, E>(Boxed<Result<Response<McpBody<R>>, E>>);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<R, E> Future for McpFuture<R, E> {
    type Output = Result<Response<McpBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<R, E> fmt::Debug for McpFuture<R, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("McpFuture").finish_non_exhaustive()
    }
}

impl<S, A, B, R> Service<Request<B>> for Mcp<S, A>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    A: RejectionBody<McpBody<R>> + Send + Sync + 'static,
    B: HttpBody + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    R: Send + 'static,
{
    type Response = Response<McpBody<R>>;
    type Error = S::Error;
    type Future = McpFuture<R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Release what the service reserved in `poll_ready`, such as a permit of a concurrency
        // limit: a client that sends its body slowly must not hold it. A clone goes with the
        // request, and is polled ready once the request is accepted.
        self.inner = self.inner.clone();
        let (service, config) = (self.inner.clone(), Arc::clone(&self.config));
        let (mut parts, body) = request.into_parts();
        let is_preflight = config.protect.is_preflight(&parts);
        let (verification, effects) = if is_preflight {
            (None, ResponseEffects::default())
        } else {
            let (verification, effects) = config.protect.begin(&parts);
            (Some(verification), effects)
        };
        McpFuture(Box::pin(async move {
            let (body, token) = match verification {
                None => {
                    forward_anonymous(&mut parts.extensions);
                    telemetry::request(Outcome::Anonymous);
                    // A preflight has no body (Fetch §3.3.7). With one, it could be a message.
                    (Bytes::new().into(), None)
                }
                Some(verification) => {
                    let verified = match verification {
                        Verification::Ready(verified) => verified,
                        Verification::Pending(future) => future.await,
                    };
                    match config.check(verified, &mut parts, body).await {
                        Ok(accepted) => accepted,
                        Err(rejection) => {
                            return Ok(config.respond(rejection, &parts, effects));
                        }
                    }
                }
            };
            config.forward(service, parts, body, token, effects).await
        }))
    }
}

/// Why a request is rejected.
enum Rejection<'a> {
    /// By the token, or by a rule. The challenge is that of the operation.
    Error(Error, Requirement<'a>),
    Mcp(McpRejection),
}

/// A rejection with a JSON-RPC error.
struct McpRejection {
    status: StatusCode,
    code: i32,
    /// The name in events and metrics.
    reason: &'static str,
    /// For the client. Fixed texts, apart from positions in the client's own body.
    message: String,
    /// The request that the error answers, if it is known.
    id: Value,
}

impl McpRejection {
    fn new(
        status: StatusCode,
        code: i32,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, code, reason, message: message.into(), id: Value::Null }
    }
}

impl<A> Config<A> {
    /// Checks a request. Returns its body, and its token unless it is anonymous.
    async fn check<B>(
        &self,
        verified: Result<AccessToken, Error>,
        parts: &mut Parts,
        body: B,
    ) -> Result<(B, Option<AccessToken>), Rejection<'_>>
    where
        B: HttpBody + From<Bytes>,
        B::Error: Into<BoxError>,
    {
        let token = match verified {
            Ok(token) => Ok(token),
            Err(error) if self.protect.lets_through(&error) => Err(error),
            // Before the body is read: only clients with a token can make the server read.
            Err(error) => return Err(Rejection::Error(error, Requirement::Base)),
        };
        self.check_session(token.as_ref().ok(), parts).map_err(Rejection::Mcp)?;
        let caller = token.as_ref().ok().cloned();
        // A body counts whatever the method: a service may read the message of a PUT.
        let is_post = parts.method == Method::POST;
        let (body, requirement) = if !self.rules.is_empty() && (is_post || !body.is_end_stream()) {
            headers::check_repetition(&parts.headers)
                .map_err(|mismatch| Rejection::Mcp(mismatch_rejection(&mismatch, Value::Null)))?;
            let bytes = self.read(body).await.map_err(Rejection::Mcp)?;
            let requirement = if bytes.is_empty() && !is_post {
                Requirement::Base
            } else {
                self.requirement(&bytes, parts).map_err(Rejection::Mcp)?
            };
            (bytes.into(), requirement)
        } else {
            (body, Requirement::Base)
        };
        let accepted = match &requirement {
            Requirement::Base => self.protect.accept(token, &self.protect.rule, parts),
            // A rule cannot be satisfied without a token.
            _ if token.is_err() => Err(Error::Missing),
            Requirement::One(operation) => self.protect.accept(token, &operation.rule, parts),
            Requirement::Several(operations) => {
                self.protect.accept(token, &self.all(operations), parts)
            }
        };
        let decided = match accepted {
            Ok(()) => match self.protect.decision(caller.as_ref(), parts) {
                Some(decision) => decision.await,
                None => Ok(()),
            },
            Err(error) => Err(error),
        };
        match decided {
            Ok(()) => Ok((body, caller)),
            Err(error) => Err(Rejection::Error(error, requirement)),
        }
    }

    fn check_session(
        &self,
        token: Option<&AccessToken>,
        parts: &Parts,
    ) -> Result<(), McpRejection> {
        // Each value, since it is not known which one the service reads.
        let mut named = parts.headers.get_all(SESSION_ID).iter();
        let Some(sessions) = &self.sessions else { return Ok(()) };
        if named.all(|session| sessions.may_use(session, token)) {
            return Ok(());
        }
        Err(McpRejection::new(
            StatusCode::NOT_FOUND,
            -32001,
            "mcp_session_of_another_client",
            "Session not found",
        ))
    }

    async fn read<B>(&self, body: B) -> Result<Bytes, McpRejection>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let too_large = || {
            McpRejection::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                -32600,
                "mcp_body_too_large",
                format!("expected a body of at most {} bytes", self.body_limit),
            )
        };
        if body.size_hint().lower() > self.body_limit as u64 {
            return Err(too_large());
        }
        match timeout(self.body_timeout, collect(Limited::new(body, self.body_limit))).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(McpRejection::new(
                StatusCode::BAD_REQUEST,
                -32700,
                "mcp_parse_error",
                "expected a complete body",
            )),
            Err(_) => Err(McpRejection::new(
                StatusCode::REQUEST_TIMEOUT,
                -32600,
                "mcp_body_timeout",
                format!("expected the body within {:?}", self.body_timeout),
            )),
        }
    }

    /// What the body requires, unless it cannot be understood, or the headers say something else.
    fn requirement(&self, bytes: &[u8], parts: &Parts) -> Result<Requirement<'_>, McpRejection> {
        let body = Body::read(bytes).map_err(|error| match error {
            ReadError::NotJson => McpRejection::new(
                StatusCode::BAD_REQUEST,
                -32700,
                "mcp_parse_error",
                "expected a JSON-RPC message",
            ),
            ReadError::Invalid { line, column } => McpRejection::new(
                StatusCode::BAD_REQUEST,
                -32600,
                "mcp_invalid_request",
                format!(
                    "expected messages with each member once, and names as strings; line {line}, column {column}"
                ),
            ),
        })?;
        headers::check(&parts.headers, &body).map_err(|mismatch| {
            let id = match &body {
                Body::One(message) => message.id.as_ref().map_or(Value::Null, |id| id.0.clone()),
                Body::Batch(_) => Value::Null,
            };
            mismatch_rejection(&mismatch, id)
        })?;
        Ok(self.rules.of(&body))
    }

    /// The base rule and those of all operations.
    fn all(&self, operations: &[&Operation]) -> Rule {
        operations
            .iter()
            .fold(self.protect.rule.clone(), |all, operation| all.and(operation.own.clone()))
    }

    fn respond<R>(
        &self,
        rejection: Rejection<'_>,
        parts: &Parts,
        effects: ResponseEffects,
    ) -> Response<McpBody<R>>
    where
        A: RejectionBody<McpBody<R>>,
    {
        let (error, requirement) = match rejection {
            Rejection::Error(error, requirement) => (error, requirement),
            Rejection::Mcp(rejection) => {
                let mut response = json_rpc_error(&rejection);
                effects.add_to(&mut response);
                return response;
            }
        };
        let protect = &self.protect;
        match requirement {
            Requirement::Base => {
                protect.reject_with(error, parts, effects, protect.challenges(), None)
            }
            Requirement::One(operation) => {
                let challenges =
                    operation.challenges.get_or_init(|| protect.challenges_for(&operation.rule));
                protect.reject_with(error, parts, effects, challenges, None)
            }
            Requirement::Several(operations) => {
                let challenges = protect.challenges_for(&self.all(&operations));
                protect.reject_with(error, parts, effects, &challenges, None)
            }
        }
    }

    async fn forward<S, B, R>(
        &self,
        mut service: S,
        parts: Parts,
        body: B,
        token: Option<AccessToken>,
        mut effects: ResponseEffects,
    ) -> Result<Response<McpBody<R>>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        A: RejectionBody<McpBody<R>>,
    {
        poll_fn(|context| service.poll_ready(context)).await?;
        if A::READS_REQUEST && cfg!(feature = "axum") {
            effects.keep(copy(&parts));
        }
        let session = parts.headers.get(SESSION_ID).cloned();
        let is_delete = parts.method == Method::DELETE;
        let response = service.call(Request::from_parts(parts, body)).await?;
        if let Some(sessions) = &self.sessions
            && response.status().is_success()
        {
            match (session, response.headers().get(SESSION_ID)) {
                (Some(session), _) if is_delete => sessions.ended(&session),
                // The service names a session that the request did not: it has just started.
                (session, Some(started)) if session.as_ref() != Some(started) => {
                    sessions.started(started, token.as_ref());
                }
                _ => {}
            }
        }
        Ok(self.protect.finish(response.map(McpBody::inner), effects))
    }
}

/// Appends the frames to one buffer. A list of them would take 48 bytes for each byte of a body
/// that arrives byte by byte.
async fn collect<B>(body: Limited<B>) -> Result<Bytes, BoxError>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let (mut body, mut bytes) = (pin!(body), Vec::new());
    while let Some(frame) = body.frame().await {
        if let Ok(mut data) = frame?.into_data() {
            while data.has_remaining() {
                let chunk = data.chunk();
                bytes.extend_from_slice(chunk);
                let length = chunk.len();
                data.advance(length);
            }
        }
    }
    Ok(bytes.into())
}

fn mismatch_rejection(mismatch: &headers::Mismatch, id: Value) -> McpRejection {
    let message = format!("expected {}", mismatch.0);
    let rejection =
        McpRejection::new(StatusCode::BAD_REQUEST, -32020, "mcp_header_mismatch", message);
    McpRejection { id, ..rejection }
}

fn json_rpc_error<R>(rejection: &McpRejection) -> Response<McpBody<R>> {
    let McpRejection { status, code, reason, message, id } = rejection;
    telemetry::mcp_request_rejected(reason, message);
    let error = json!({
        "jsonrpc": "2.0",
        "id": id,
        "error": { "code": code, "message": message },
    });
    let mut response = Response::new(McpBody::from(error.to_string()));
    *response.status_mut() = *status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
