//! The response to a rejected request: status, headers, body.

use std::fmt;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
    RETRY_AFTER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};

use super::challenge::{Challenges, description};
use crate::binding::Scheme;
use crate::error::Error;

/// `Retry-After` in seconds, for requests that are rejected because keys or a lookup are
/// unavailable.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// How a [`ProtectLayer`](crate::ProtectLayer) builds the response to a rejected request:
/// [`EmptyBody`], [`ProblemJson`] or [`RejectWith`]. This trait is sealed.
pub trait RejectionBody<R>: sealed::Sealed {
    /// Whether [`answer`](Self::answer) reads the request. If so, a copy of it is kept until the
    /// inner service has responded.
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

/// Rejections without a body: the default of [`ProtectLayer`](crate::ProtectLayer).
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyBody;

/// Rejections with an `application/problem+json` body (RFC 9457), from
/// [`ProtectLayer::problem_json`](crate::ProtectLayer::problem_json).
#[derive(Clone, Copy, Debug)]
pub struct ProblemJson;

/// Rejections built by a function of the application, from
/// [`ProtectLayer::rejection_response`](crate::ProtectLayer::rejection_response).
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

/// Builds the response to a rejected request. The error is left in its extensions, for layers that
/// log or render it. `used`: the scheme of the token. `grpc_type` is the content type of the
/// response if the request is a gRPC request.
pub(crate) fn reject<R: Default>(
    error: Error,
    request: &Parts,
    challenges: &Challenges,
    used: Scheme,
    answer: &impl RejectionBody<R>,
    grpc_type: Option<&'static str>,
) -> Response<R> {
    let challenges = challenges.of(&error, used);
    let mut response = match grpc_type {
        Some(content_type) => grpc(&error, content_type),
        None => {
            let mut response = answer.answer(&error, request);
            // Never send a rejection with a success status.
            if response.status().is_success() {
                *response.status_mut() = error.status();
            }
            response
        }
    };
    for challenge in challenges.into_iter().flatten() {
        response.headers_mut().append(WWW_AUTHENTICATE, challenge);
    }
    if matches!(error.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().entry(RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS);
    }
    response.extensions_mut().insert(error);
    response
}

/// Marks a response that a handler or an extractor built from an [`Error`], without knowing how the
/// layer builds rejections. The mark is in the response's extensions, with the error.
#[cfg(feature = "axum")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct MadeInside;

/// The error that a handler or an extractor built this response from, unless the status of the
/// response has changed since.
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

/// Copies the headers of the `inside` response to the response that replaces it, except those about
/// the body and those that the new response already has.
pub(crate) fn keep_headers<R>(inside: &HeaderMap, response: &mut Response<R>) {
    let headers = response.headers_mut();
    let is_new = |name: &HeaderName| !REPRESENTATION.contains(name) && !headers.contains_key(name);
    let names: Vec<_> = inside.keys().filter(|name| is_new(name)).cloned().collect();
    for name in names {
        // Every value: a response may set several cookies.
        for value in inside.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Headers about the body of a response, and headers that rejections set themselves.
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

/// The content type of the response, if the request is a gRPC or gRPC-Web request. Only gRPC-Web
/// may use HTTP/1.1.
///
/// The check is strict because the response has status 200. A proxy that sends a copy of the
/// request's headers to ask whether it may pass the request on (forward-auth) must not receive that
/// status for a GET.
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

/// The gRPC status code: `UNAVAILABLE`, `PERMISSION_DENIED`, `RESOURCE_EXHAUSTED` or
/// `UNAUTHENTICATED`.
pub(crate) fn grpc_code(error: &Error) -> i32 {
    match error.status() {
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::FORBIDDEN => 7,
        StatusCode::TOO_MANY_REQUESTS => 8,
        _ => 16,
    }
}

/// A rejection as gRPC clients expect it: HTTP 200 with the gRPC status in the headers, which are
/// also the trailers if there is no message.
fn grpc<R: Default>(error: &Error, content_type: &'static str) -> Response<R> {
    let mut response = Response::<R>::default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("grpc-status", grpc_code(error).into());
    headers.insert("grpc-message", HeaderValue::from_static(description(error)));
    response
}
