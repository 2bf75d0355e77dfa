//! RFC 6750 §3, RFC 9470 §3: from [`Error`] to `WWW-Authenticate`.

use std::time::SystemTime;

use http::HeaderValue;

use crate::error::{Error, InvalidRequest, InvalidToken};
use crate::rule::StepUp;
use crate::token::scope::Scope;

/// The realm of those who name none (RFC 9110 §11.5).
pub(crate) const DEFAULT_REALM: &str = "api";

/// Every challenge that a route can answer with, built once: refusing cannot fail, and costs a clone.
///
/// What the client sent is in none of them.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    missing: HeaderValue,
    repeated: HeaderValue,
    credentials: HeaderValue,
    origin: HeaderValue,
    invalid_token: HeaderValue,
    expired: HeaderValue,
    forbidden: HeaderValue,
    insufficient_scope: HeaderValue,
    insufficient_authentication: HeaderValue,
    /// Whether there are none.
    off: bool,
}

impl Challenges {
    pub(crate) fn new(realm: &str, required: &Scope, step_up: &StepUp) -> Self {
        let realm = format!("Bearer realm=\"{}\"", quoted(realm));
        let scope = match required.is_empty() {
            true => String::new(),
            false => format!(", scope=\"{}\"", quoted(required.as_str())),
        };
        let with_error = |error: &Error, more: &str| {
            let code = error.oauth_error().unwrap_or_default();
            value(format!(
                "{realm}, error=\"{code}\", error_description=\"{}\"{more}",
                description(error)
            ))
        };
        let invalid_request = |reason| with_error(&Error::InvalidRequest(reason), "");
        let (expires_at, now) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let expired = InvalidToken::Expired { expires_at, now, verified: true };
        let insufficient_scope =
            Error::InsufficientScope { required: Scope::none(), granted: Scope::none() };
        let mut authentication = String::new();
        if !step_up.acr_values.is_empty() {
            authentication +=
                &format!(", acr_values=\"{}\"", quoted(&step_up.acr_values.join(" ")));
        }
        if let Some(max_age) = step_up.max_age {
            authentication += &format!(", max_age=\"{}\"", max_age.as_secs());
        }
        Self {
            // RFC 6750 §3.1: a request without credentials is told how to authenticate, and of no error.
            missing: value(format!("{realm}{scope}")),
            repeated: invalid_request(InvalidRequest::Repeated),
            credentials: invalid_request(InvalidRequest::Credentials),
            origin: invalid_request(InvalidRequest::Origin),
            invalid_token: with_error(&InvalidToken::BadSignature.into(), ""),
            expired: with_error(&expired.into(), ""),
            // No error, and no scope: clients that are told either ask for another token, which would lack the same.
            forbidden: value(realm.clone()),
            insufficient_scope: with_error(&insufficient_scope, &scope),
            insufficient_authentication: with_error(&StepUp::default().into(), &authentication),
            off: false,
        }
    }

    /// For an error that is not of a route's own rule, such as a handler's.
    pub(crate) fn for_error(realm: &str, error: &Error) -> Self {
        match error {
            Error::InsufficientScope { required, .. } => {
                Self::new(realm, required, &StepUp::default())
            }
            Error::InsufficientAuthentication { acr_values, max_age } => {
                let step_up = StepUp { acr_values: acr_values.clone(), max_age: *max_age };
                Self::new(realm, &Scope::none(), &step_up)
            }
            _ => Self::new(realm, &Scope::none(), &StepUp::default()),
        }
    }

    /// None at all.
    pub(crate) fn off(self) -> Self {
        Self { off: true, ..self }
    }

    pub(crate) fn of(&self, error: &Error) -> Option<HeaderValue> {
        let challenge = match error {
            _ if self.off => return None,
            Error::Missing => &self.missing,
            Error::InvalidRequest(InvalidRequest::Repeated) => &self.repeated,
            Error::InvalidRequest(InvalidRequest::Credentials) => &self.credentials,
            Error::InvalidRequest(InvalidRequest::Origin) => &self.origin,
            Error::InvalidToken(InvalidToken::Expired { verified: true, .. }) => &self.expired,
            Error::InvalidToken(_) => &self.invalid_token,
            Error::InsufficientScope { .. } => &self.insufficient_scope,
            Error::Forbidden { .. } | Error::Claims(_) => &self.forbidden,
            Error::InsufficientAuthentication { .. } => &self.insufficient_authentication,
            Error::KeysUnavailable { .. } | Error::LookupFailed { .. } => return None,
        };
        Some(challenge.clone())
    }
}

/// What the client is told: the same words for everybody, and nothing of what it sent.
pub(crate) fn description(error: &Error) -> &'static str {
    match error {
        Error::Missing => "An access token is needed",
        Error::InvalidRequest(InvalidRequest::Repeated) => {
            "The request has more than one access token"
        }
        Error::InvalidRequest(InvalidRequest::Credentials) => "The credentials are malformed",
        Error::InvalidRequest(InvalidRequest::Origin) => {
            "The page that makes the request may not use the access token"
        }
        Error::InvalidToken(InvalidToken::Expired { verified: true, .. }) => {
            "The access token expired"
        }
        Error::InvalidToken(_) => "The access token is invalid",
        Error::InsufficientScope { .. } | Error::Forbidden { .. } | Error::Claims(_) => {
            "The access token does not grant what this operation needs"
        }
        Error::InsufficientAuthentication { .. } => {
            "The user must sign in again, or in a stronger way"
        }
        Error::KeysUnavailable { .. } | Error::LookupFailed { .. } => {
            "The access token cannot be verified now"
        }
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
