//! Services that receive revocations from issuers: logout tokens and security events.

pub(crate) mod events;
pub(crate) mod logout;

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::BufMut as _;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use crate::error::BoxError;
use crate::token::claims::numeric_date;
use crate::token::json::{self, Value};
use crate::verifier::documents::VerifiedDocument;

/// Maximum size of a body, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// How long the body of a request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How old a logout token may be when it arrives (`iat`). A security event may be older: its sender
/// tries again for as long as it likes, and it revokes only what was issued before it.
const MAX_AGE: Duration = Duration::from_secs(120);

/// The future of a receiver.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>> + Send>>;

/// Reads the body of a POST with this media type. The error is the status of the response.
async fn read_body<B>(parts: &Parts, body: B, media_type: &str) -> Result<Vec<u8>, StatusCode>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    if parts.method != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let found = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = found.and_then(|value| value.split(';').next()).map(str::trim);
    if !found.is_some_and(|found| found.eq_ignore_ascii_case(media_type)) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let mut body = pin!(Limited::new(body, MAX_BYTES));
    // Copied as they arrive: 64 KiB in frames of one byte would take 4 MiB until the last one.
    let read = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                bytes.put(data);
            }
        }
        Ok::<_, BoxError>(bytes)
    };
    match timeout(LIMIT, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

fn respond(status: StatusCode, body: String) -> Response<String> {
    let is_empty = body.is_empty();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !is_empty {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    response
}

/// The claims that a logout token and a security event have in common (RFC 8417 §2.2).
struct EventClaims<'a> {
    audience: Vec<String>,
    issued_at: Duration,
    jti: String,
    /// The text of the object `events`.
    events: &'a str,
}

/// What of them is missing or wrong.
struct Wrong(&'static str);

impl<'a> EventClaims<'a> {
    fn read(document: &'a VerifiedDocument) -> Result<Self, Wrong> {
        let members = json::read_object(&document.payload, &["aud", "iat", "exp", "jti", "events"]);
        let Ok([aud, iat, exp, jti, events]) = members else {
            return Err(Wrong("one JSON object without duplicate members"));
        };
        let audience = match aud {
            Some(Value::Text(one)) => vec![one.into_owned()],
            Some(Value::Texts(several)) => several.into_iter().map(Into::into).collect(),
            _ => return Err(Wrong("`aud`")),
        };
        let date = |name, value: &Option<Value<'_>>| {
            numeric_date(name, value.as_ref()).map_err(|_| Wrong("dates that are numbers"))
        };
        let issued_at = date("iat", &iat)?.ok_or(Wrong("`iat`"))?;
        let now = document.now.unix;
        if issued_at > now.saturating_add(document.leeway) {
            return Err(Wrong("an `iat` that is not in the future"));
        }
        if date("exp", &exp)?.is_some_and(|exp| exp.saturating_add(document.leeway) <= now) {
            return Err(Wrong("an `exp` in the future"));
        }
        let Some(Value::Text(jti)) = jti.filter(|jti| *jti != Value::Text("".into())) else {
            return Err(Wrong("`jti`"));
        };
        let Some(Value::Object(events)) = events else { return Err(Wrong("`events`")) };
        if json::names(events).next().is_none() {
            return Err(Wrong("`events` with one event at least"));
        }
        Ok(Self { audience, issued_at, jti: jti.into_owned(), events })
    }

    fn check_age(&self, document: &VerifiedDocument) -> Result<(), Wrong> {
        let is_new = self.issued_at.saturating_add(MAX_AGE).saturating_add(document.leeway)
            > document.now.unix;
        if is_new { Ok(()) } else { Err(Wrong("an `iat` of the last two minutes")) }
    }
}
