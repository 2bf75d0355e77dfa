//! The `WWW-Authenticate` challenge for each [`Error`] (RFC 6750 §3, RFC 9470 §3).

use std::time::SystemTime;

use http::HeaderValue;

use super::resource_metadata::ResourceMetadata;
use crate::error::{Error, InvalidRequest, InvalidToken};
use crate::rule::StepUp;
use crate::token::scope::Scope;

/// The default realm (RFC 9110 §11.5).
pub(crate) const DEFAULT_REALM: &str = "api";

/// Every challenge that a route can send. They are built once, so that rejecting a request cannot
/// fail and costs one clone.
///
/// No challenge contains client input.
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
    /// Whether challenges are disabled.
    off: bool,
}

/// What all challenges of a route have in common.
#[derive(Clone, Copy)]
pub(crate) struct ChallengeParameters<'a> {
    pub(crate) realm: &'a str,
    pub(crate) resource_metadata: Option<&'a ResourceMetadata>,
}

impl Challenges {
    pub(crate) fn new(
        parameters: ChallengeParameters<'_>,
        required: &Scope,
        step_up: &StepUp,
    ) -> Self {
        let realm = format!("Bearer realm=\"{}\"", quoted(parameters.realm));
        let required = match parameters.resource_metadata {
            Some(metadata) => &metadata.requested(required),
            None => required,
        };
        let scope = if required.is_empty() {
            String::new()
        } else {
            format!(", scope=\"{}\"", quoted(required.as_str()))
        };
        // RFC 9728 §5.1. Last, because some clients search the text for the other parameters.
        let metadata = parameters.resource_metadata.map_or_else(String::new, |metadata| {
            format!(", resource_metadata=\"{}\"", quoted(metadata.url()))
        });
        let with_error = |error: &Error, more: &str| {
            let code = error.oauth_error().unwrap_or_default();
            value(format!(
                "{realm}, error=\"{code}\", error_description=\"{}\"{more}{metadata}",
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
            // RFC 6750 §3.1: without credentials, the challenge says how to authenticate and has no
            // `error`.
            missing: value(format!("{realm}{scope}{metadata}")),
            repeated: invalid_request(InvalidRequest::RepeatedToken),
            credentials: invalid_request(InvalidRequest::MalformedCredentials),
            origin: invalid_request(InvalidRequest::ForbiddenOrigin),
            invalid_token: with_error(&InvalidToken::BadSignature.into(), ""),
            expired: with_error(&expired.into(), ""),
            // Neither `error` nor `scope`: a client that receives either one requests another
            // token, which would be rejected for the same reason.
            forbidden: value(format!("{realm}{metadata}")),
            insufficient_scope: with_error(&insufficient_scope, &scope),
            insufficient_authentication: with_error(&StepUp::default().into(), &authentication),
            off: false,
        }
    }

    /// The challenges for an error that does not come from the route's own rule, such as one that a
    /// handler returns.
    pub(crate) fn for_error(parameters: ChallengeParameters<'_>, error: &Error) -> Self {
        match error {
            Error::InsufficientScope { required, .. } => {
                Self::new(parameters, required, &StepUp::default())
            }
            Error::InsufficientAuthentication { acr_values, max_age } => {
                let step_up = StepUp { acr_values: acr_values.clone(), max_age: *max_age };
                Self::new(parameters, &Scope::none(), &step_up)
            }
            _ => Self::new(parameters, &Scope::none(), &StepUp::default()),
        }
    }

    /// Disables all challenges.
    pub(crate) fn off(self) -> Self {
        Self { off: true, ..self }
    }

    pub(crate) fn of(&self, error: &Error) -> Option<HeaderValue> {
        let challenge = match error {
            _ if self.off => return None,
            Error::Missing => &self.missing,
            Error::InvalidRequest(InvalidRequest::RepeatedToken) => &self.repeated,
            Error::InvalidRequest(InvalidRequest::MalformedCredentials) => &self.credentials,
            Error::InvalidRequest(InvalidRequest::ForbiddenOrigin) => &self.origin,
            Error::InvalidToken(InvalidToken::Expired { verified: true, .. }) => &self.expired,
            Error::InvalidToken(_) => &self.invalid_token,
            Error::InsufficientScope { .. } => &self.insufficient_scope,
            Error::Forbidden { .. } | Error::ClaimsMismatch(_) => &self.forbidden,
            Error::InsufficientAuthentication { .. } => &self.insufficient_authentication,
            Error::KeysUnavailable { .. }
            | Error::IntrospectionUnavailable { .. }
            | Error::LookupFailed { .. }
            | Error::AuthorizationFailed { .. } => return None,
        };
        Some(challenge.clone())
    }
}

/// The description that the client receives: a fixed text for each error, without client input.
pub(crate) fn description(error: &Error) -> &'static str {
    match error {
        Error::Missing => "An access token is needed",
        Error::InvalidRequest(InvalidRequest::RepeatedToken) => {
            "The request has more than one access token"
        }
        Error::InvalidRequest(InvalidRequest::MalformedCredentials) => {
            "The credentials are malformed"
        }
        Error::InvalidRequest(InvalidRequest::ForbiddenOrigin) => {
            "The page that makes the request may not use the access token"
        }
        Error::InvalidToken(InvalidToken::Expired { verified: true, .. }) => {
            "The access token expired"
        }
        Error::InvalidToken(_) => "The access token is invalid",
        Error::InsufficientScope { .. } | Error::Forbidden { .. } | Error::ClaimsMismatch(_) => {
            "The access token does not grant what this operation needs"
        }
        Error::InsufficientAuthentication { .. } => {
            "The user must sign in again, or in a stronger way"
        }
        Error::KeysUnavailable { .. }
        | Error::IntrospectionUnavailable { .. }
        | Error::LookupFailed { .. } => "The access token cannot be verified now",
        Error::AuthorizationFailed { .. } => "Access cannot be authorized now",
    }
}

/// Escapes `text` for a quoted-string (RFC 9110 §5.6.4): escapes quotation marks and backslashes,
/// and removes everything that is not printable ASCII.
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
    // `challenge` is printable ASCII, so the fallback is unreachable. It is a valid challenge.
    HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer realm=\"api\""))
}
