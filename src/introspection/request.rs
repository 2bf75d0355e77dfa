//! RFC 7662 §2.1: one question, bounded in time and size.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::Full;
use reqwest::{Body, Client};
use url::Url;

use super::signed::MEDIA_TYPE;
use crate::error::{FetchError, TransportError};
use crate::keys::remote::fetch::{read_body, redacted, was_redirected};

/// Maximum size of an answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// One question.
pub(super) struct Question<'a> {
    pub(super) url: &'a Url,
    pub(super) form: String,
    /// The `Authorization` header.
    pub(super) authorization: Option<HeaderValue>,
    /// Whether the answer must be signed (RFC 9701 §4).
    pub(super) signed: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: FetchError,
    pub(super) kind: FailureKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FailureKind {
    /// The endpoint is down: it counts for the breaker.
    Down,
    /// The endpoint rejects the credentials of this API. It counts for the breaker as well: many
    /// such questions could lock this client out.
    Unauthorized,
    /// The endpoint does not let this API ask, or is not there.
    Refused,
    /// Nothing was sent: the endpoint's metadata or the configuration do not fit.
    NotSent,
    /// The endpoint asks to wait.
    Busy(Duration),
    /// The endpoint responds, but not with an answer. It may be about this token, so it does not
    /// count for the breaker: otherwise, a client that knows such a token could suspend the
    /// endpoint for all.
    Unusable,
}

/// Why an attempt failed.
pub(super) enum Attempt {
    /// The connection broke before a response: pooled connections die meanwhile. Another attempt
    /// may succeed.
    NoResponse(Failure),
    Failed(Failure),
}

impl Attempt {
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::NoResponse(failure) | Self::Failed(failure) => failure,
        }
    }
}

/// Sends the question.
pub(super) async fn ask(client: &Client, question: Question<'_>) -> Result<String, Attempt> {
    let url = || redacted(question.url);
    let down = |error: reqwest::Error| Failure {
        error: FetchError::Transport { url: url(), reason: TransportError::new(error) },
        kind: FailureKind::Down,
    };
    let media_type = if question.signed { MEDIA_TYPE } else { "application/json" };
    let mut request = client
        .post(question.url.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, media_type)
        .header(CONTENT_LENGTH, question.form.len())
        // A body that cannot be sent twice. An application's own client may follow redirects, and
        // would send the token and the credentials to wherever a 307 or 308 leads.
        .body(Body::wrap(Full::new(Bytes::from(question.form))));
    if let Some(authorization) = question.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let mut response = request.send().await.map_err(|error| Attempt::NoResponse(down(error)))?;
    let failed = |error, kind| Attempt::Failed(Failure { error, kind });
    if was_redirected(&response, question.url) {
        return Err(failed(FetchError::Redirected { url: url() }, FailureKind::Unusable));
    }
    if response.status() != StatusCode::OK {
        let error = FetchError::Status { url: url(), status: response.status().as_u16() };
        return Err(failed(error, kind_of(response.status(), response.headers())));
    }
    let unusable = |expected| {
        failed(FetchError::InvalidDocument { url: url(), expected }, FailureKind::Unusable)
    };
    if question.signed && !is_of_type(response.headers(), MEDIA_TYPE) {
        return Err(unusable("a signed answer (RFC 9701)"));
    }
    let body = read_body(&mut response, MAX_ANSWER)
        .await
        .map_err(|error| Attempt::Failed(down(error)))?
        .ok_or_else(|| {
            failed(FetchError::TooLarge { url: url(), limit: MAX_ANSWER }, FailureKind::Unusable)
        })?;
    String::from_utf8(body).map_err(|_| unusable("one JSON object in UTF-8"))
}

fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

fn kind_of(status: StatusCode, headers: &HeaderMap) -> FailureKind {
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let seconds = seconds.and_then(|seconds| seconds.trim().parse().ok());
            FailureKind::Busy(Duration::from_secs(seconds.unwrap_or(1)))
        }
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => FailureKind::Down,
        StatusCode::UNAUTHORIZED => FailureKind::Unauthorized,
        status if status.is_client_error() => FailureKind::Refused,
        _ => FailureKind::Unusable,
    }
}
