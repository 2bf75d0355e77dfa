//! What a refusal looks like: status, headers, body.

use std::fmt;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
    RETRY_AFTER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};

use super::challenge::{Challenges, description};
use crate::error::Error;

/// Seconds after which a client may try again when keys could not be had.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// How a [`ProtectLayer`](crate::ProtectLayer) writes the body of a refusal: [`EmptyBody`], [`ProblemJson`] or [`RejectWith`].
pub trait RejectionBody<R>: sealed::Sealed {
    /// Whether [`answer`](Self::answer) looks at the request. Then a copy of it is kept until the inner service has answered.
    #[doc(hidden)]
    const READS_REQUEST: bool = false;

    #[doc(hidden)]
    fn answer(&self, error: &Error, request: &Parts) -> Response<R>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::EmptyBody {}
    impl Sealed for super::ProblemJson {}
    impl<F> Sealed for super::RejectWith<F> {}
}

/// Refusals have no body: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyBody;

/// Refusals are `application/problem+json` (RFC 9457): [`ProtectLayer::problem_json`](crate::ProtectLayer::problem_json).
#[derive(Clone, Copy, Debug)]
pub struct ProblemJson;

/// Refusals are the application's own: [`ProtectLayer::rejection_response`](crate::ProtectLayer::rejection_response).
#[derive(Clone, Copy)]
pub struct RejectWith<F>(pub(crate) F);

impl<F> fmt::Debug for RejectWith<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RejectWith(…)")
    }
}

impl<R: Default> RejectionBody<R> for EmptyBody {
    fn answer(&self, _: &Error, _: &Parts) -> Response<R> {
        Response::default()
    }
}

impl<R: From<String>> RejectionBody<R> for ProblemJson {
    fn answer(&self, error: &Error, _: &Parts) -> Response<R> {
        let status = error.status();
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": description(error),
        });
        let mut response = Response::new(problem.to_string().into());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl<R, F: Fn(&Error, &Parts) -> Response<R>> RejectionBody<R> for RejectWith<F> {
    const READS_REQUEST: bool = true;

    fn answer(&self, error: &Error, request: &Parts) -> Response<R> {
        (self.0)(error, request)
    }
}

/// The answer to a request that is refused. The error stays in its extensions, for layers that log or render it. `grpc_type`: the
/// content type to answer with, if it is a gRPC request.
pub(crate) fn reject<R: Default>(
    error: Error,
    request: &Parts,
    challenges: &Challenges,
    answer: &impl RejectionBody<R>,
    grpc_type: Option<&'static str>,
) -> Response<R> {
    let challenge = challenges.of(&error);
    let mut response = match grpc_type {
        Some(content_type) => grpc(&error, content_type),
        None => {
            let mut response = answer.answer(&error, request);
            // Nobody who is refused is told that all is well.
            if response.status().is_success() {
                *response.status_mut() = error.status();
            }
            response
        }
    };
    if let Some(challenge) = challenge {
        response.headers_mut().append(WWW_AUTHENTICATE, challenge);
    }
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().entry(RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS);
    }
    response.extensions_mut().insert(error);
    response
}

/// In a response's extensions, beside the [`Error`]: a handler or an extractor made this response of it, without knowing how
/// the layer answers.
#[cfg(feature = "axum")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct MadeInside;

/// The error that a handler or an extractor made this response of, unless something has made it another response since.
#[cfg(feature = "axum")]
pub(crate) fn made_inside<R>(response: &mut Response<R>) -> Option<Error> {
    response.extensions_mut().remove::<MadeInside>()?;
    let error = response.extensions().get::<Error>()?;
    (error.status() == response.status()).then(|| error.clone())
}

#[cfg(not(feature = "axum"))]
pub(crate) fn made_inside<R>(_: &mut Response<R>) -> Option<Error> {
    None
}

/// Headers that something inside the layer added to a response stay when the layer makes the response anew, but for those that
/// are about the body.
pub(crate) fn keep_headers<R>(inside: &HeaderMap, response: &mut Response<R>) {
    let headers = response.headers_mut();
    let is_new = |name: &HeaderName| !REPRESENTATION.contains(name) && !headers.contains_key(name);
    let names: Vec<_> = inside.keys().filter(|name| is_new(name)).cloned().collect();
    for name in names {
        // Each of its lines: several cookies may be set.
        for value in inside.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Headers about the body of a response, and those that a rejection has of its own.
const REPRESENTATION: [HeaderName; 12] = [
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
    RETRY_AFTER,
    TRANSFER_ENCODING,
    WWW_AUTHENTICATE,
];

/// The content type to answer with, if the request is one of gRPC, or of gRPC-Web, which alone may come over HTTP/1.1. Strictly so:
/// the answer will be HTTP 200, which something in between, that asks with a copy of the request's headers whether to let it
/// through, must not get for a GET.
pub(crate) fn grpc_type(request: &Parts) -> Option<&'static str> {
    let content_type = request.headers.get(CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let kind = content_type.split([';', '+']).next().unwrap_or_default().trim_end();
    match kind {
        _ if request.method != Method::POST => None,
        "application/grpc" if request.version == Version::HTTP_2 => Some("application/grpc"),
        "application/grpc-web" => Some("application/grpc-web"),
        "application/grpc-web-text" => Some("application/grpc-web-text"),
        _ => None,
    }
}

/// As a gRPC client expects it: HTTP 200, and the status in the headers, which are trailers too where there is no message.
fn grpc<R: Default>(error: &Error, content_type: &'static str) -> Response<R> {
    let status = match error.status() {
        StatusCode::SERVICE_UNAVAILABLE => "14",
        StatusCode::FORBIDDEN => "7",
        _ => "16",
    };
    let mut response = Response::<R>::default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("grpc-status", HeaderValue::from_static(status));
    headers.insert("grpc-message", HeaderValue::from_static(description(error)));
    response
}
