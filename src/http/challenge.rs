//! RFC 6750 §3: from [`Error`] to status and `WWW-Authenticate`.

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::error::{Error, InvalidToken};
use crate::events;
use crate::token::scope::Scope;

/// Seconds after which a client may try again when keys could not be had.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The realm of those who name none (RFC 9110 §11.5).
pub(crate) const DEFAULT_REALM: &str = "api";

/// Every challenge that a route can answer with, built once: refusing cannot fail, and costs a clone.
///
/// What the client sent is in none of them.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    missing: HeaderValue,
    invalid_request: HeaderValue,
    invalid_token: HeaderValue,
    expired: HeaderValue,
    insufficient_scope: HeaderValue,
}

impl Challenges {
    pub(crate) fn new(realm: &str, required: &Scope) -> Self {
        let realm = format!("Bearer realm=\"{}\"", quoted(realm));
        let scope = match required.is_empty() {
            true => String::new(),
            false => format!(", scope=\"{}\"", quoted(required.as_str())),
        };
        let with_error = |error: &str, description: &str| {
            value(format!("{realm}, error=\"{error}\", error_description=\"{description}\""))
        };
        Self {
            // RFC 6750 §3.1: a request without credentials is told how to authenticate, and of no error.
            missing: value(format!("{realm}{scope}")),
            invalid_request: with_error("invalid_request", "The Authorization header is malformed"),
            invalid_token: with_error("invalid_token", "The access token is invalid"),
            expired: with_error("invalid_token", "The access token expired"),
            insufficient_scope: value(format!(
                "{realm}, error=\"insufficient_scope\", \
                 error_description=\"The access token does not grant what this operation needs\"{scope}"
            )),
        }
    }

    /// The answer to a request that is refused. The error stays in its extensions, for whoever logs or renders it.
    pub(crate) fn response<B: Default>(&self, error: Error) -> Response<B> {
        let (status, challenge) = match &error {
            Error::Missing => (StatusCode::UNAUTHORIZED, Some(&self.missing)),
            Error::InvalidRequest(_) => (StatusCode::BAD_REQUEST, Some(&self.invalid_request)),
            Error::InvalidToken(InvalidToken::Expired { .. }) => (StatusCode::UNAUTHORIZED, Some(&self.expired)),
            Error::InvalidToken(_) => (StatusCode::UNAUTHORIZED, Some(&self.invalid_token)),
            Error::InsufficientScope { .. } => (StatusCode::FORBIDDEN, Some(&self.insufficient_scope)),
            Error::KeysUnavailable { .. } | Error::LookupFailed { .. } => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        // What is wrong with a token, the verifier told the log already.
        if matches!(error, Error::Missing | Error::InvalidRequest(_) | Error::InsufficientScope { .. }) {
            events::request_refused(&error);
        }
        let mut response = Response::new(B::default());
        *response.status_mut() = status;
        match challenge {
            Some(challenge) => response.headers_mut().insert(WWW_AUTHENTICATE, challenge.clone()),
            None => response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS),
        };
        response.extensions_mut().insert(error);
        response
    }
}

/// The inside of a quoted-string (RFC 9110 §5.6.4): quotation marks and backslashes escaped, anything that is not
/// printable ASCII left out.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars().filter(|character| matches!(character, ' '..='~')) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

fn value(challenge: String) -> HeaderValue {
    // Printable ASCII only, so the other arm is never taken; it is a challenge all the same.
    HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer realm=\"api\""))
}
