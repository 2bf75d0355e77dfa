//! The `WWW-Authenticate` challenge for each [`Error`] (RFC 6750 §3, RFC 9470 §3).

use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};

use super::resource_metadata::ResourceMetadata;
use crate::binding::Scheme;
use crate::dpop::check::ActiveDpop;
use crate::error::{Error, InvalidRequest, InvalidToken, ProofError};
use crate::rule::StepUp;
use crate::token::scope::Scope;

/// The default realm (RFC 9110 §11.5).
pub(crate) const DEFAULT_REALM: &str = "api";

/// Every challenge that a route can send. They are built once, so that rejecting a request cannot
/// fail and costs one clone for each scheme.
///
/// No challenge contains client input.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    /// `None` if DPoP is required.
    bearer: Option<Lines>,
    /// `None` if DPoP is not configured.
    dpop: Option<Box<Lines>>,
    /// Whether challenges are disabled.
    off: bool,
}

/// The challenges of one scheme.
#[derive(Clone, Debug)]
struct Lines {
    missing: HeaderValue,
    /// Without `error` and `scope`.
    bare: HeaderValue,
    repeated: HeaderValue,
    credentials: HeaderValue,
    origin: HeaderValue,
    url: HeaderValue,
    invalid_token: HeaderValue,
    expired: HeaderValue,
    sender_constrained: HeaderValue,
    not_bound: HeaderValue,
    other_key: HeaderValue,
    other_certificate: HeaderValue,
    insufficient_scope: HeaderValue,
    insufficient_authentication: HeaderValue,
    proof: ProofLines,
}

/// The challenges for rejected proofs. With `Bearer`, there are no proofs.
#[derive(Clone, Debug)]
struct ProofLines {
    invalid: HeaderValue,
    wrong_time: HeaderValue,
    used: HeaderValue,
    nonce_needed: HeaderValue,
}

/// What all challenges of a route have in common.
#[derive(Clone, Copy)]
pub(crate) struct ChallengeParameters<'a> {
    pub(crate) realm: &'a str,
    pub(crate) resource_metadata: Option<&'a ResourceMetadata>,
    pub(crate) dpop: Option<&'a ActiveDpop>,
}

impl Challenges {
    pub(crate) fn new(
        parameters: ChallengeParameters<'_>,
        required: &Scope,
        step_up: &StepUp,
    ) -> Self {
        let lines = |scheme, algs: &str| Lines::new(scheme, algs, parameters, required, step_up);
        let is_required = parameters.dpop.is_some_and(ActiveDpop::is_required);
        Self {
            bearer: (!is_required).then(|| lines("Bearer", "")),
            dpop: parameters.dpop.map(|dpop| {
                Box::new(lines(
                    "DPoP",
                    &format!(
                        ", algs=\"{}\"",
                        quoted(&dpop.algorithms().collect::<Vec<_>>().join(" "))
                    ),
                ))
            }),
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

    /// The challenges for an error, at most one for each scheme. The error is in that of the scheme
    /// that the request used, and the other one tells the client what else it may use (RFC 9449
    /// §7.2).
    pub(crate) fn of(&self, error: &Error, used: Scheme) -> [Option<HeaderValue>; 2] {
        if self.off {
            return [None, None];
        }
        let dpop = self.dpop.as_deref();
        // An unbound token is invalid only for the scheme `DPoP`.
        let is_for_dpop = matches!(error, Error::InvalidToken(InvalidToken::NotBound));
        let (own, other) = match (used, &self.bearer, dpop) {
            (Scheme::Dpop, bearer, Some(dpop)) => (Some(dpop), bearer.as_ref()),
            (_, Some(bearer), dpop) if dpop.is_none() || !is_for_dpop => (Some(bearer), dpop),
            (_, bearer, dpop) => (dpop, bearer.as_ref()),
        };
        let own = own.and_then(|lines| match error {
            // There is no proof to which the token could be bound.
            Error::InvalidToken(InvalidToken::NotBound) if used == Scheme::Bearer => {
                Some(&lines.not_bound)
            }
            _ => lines.of(error),
        });
        let names_others = error.status() == StatusCode::UNAUTHORIZED;
        let other = other.filter(|_| names_others && own.is_some()).map(|lines| match error {
            Error::Missing => &lines.missing,
            _ => &lines.bare,
        });
        [own.cloned(), other.cloned()]
    }
}

impl Lines {
    /// `algs`: the parameter of that name, if the scheme has one.
    fn new(
        scheme: &str,
        algs: &str,
        parameters: ChallengeParameters<'_>,
        required: &Scope,
        step_up: &StepUp,
    ) -> Self {
        let realm = format!("{scheme} realm=\"{}\"", quoted(parameters.realm));
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
                "{realm}, error=\"{code}\", error_description=\"{}\"{more}{algs}{metadata}",
                description(error)
            ))
        };
        let invalid_request = |reason| with_error(&Error::InvalidRequest(reason), "");
        let invalid_token = |reason: InvalidToken| with_error(&reason.into(), "");
        let invalid_proof = |reason: ProofError| with_error(&reason.into(), "");
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
        let (past, future) = (Duration::ZERO, Duration::ZERO);
        Self {
            // RFC 6750 §3.1: without credentials, the challenge says how to authenticate and has no
            // `error`.
            missing: value(format!("{realm}{scope}{algs}{metadata}")),
            bare: value(format!("{realm}{algs}{metadata}")),
            repeated: invalid_request(InvalidRequest::RepeatedToken),
            credentials: invalid_request(InvalidRequest::MalformedCredentials),
            origin: invalid_request(InvalidRequest::ForbiddenOrigin),
            url: invalid_request(InvalidRequest::MalformedUrl),
            invalid_token: invalid_token(InvalidToken::BadSignature),
            expired: invalid_token(expired),
            sender_constrained: invalid_token(InvalidToken::SenderConstrained),
            not_bound: invalid_token(InvalidToken::NotBound),
            other_key: invalid_token(InvalidToken::OtherKey),
            other_certificate: invalid_token(InvalidToken::OtherCertificate),
            insufficient_scope: with_error(&insufficient_scope, &scope),
            insufficient_authentication: with_error(&StepUp::default().into(), &authentication),
            proof: ProofLines {
                invalid: invalid_proof(ProofError::BadSignature),
                wrong_time: invalid_proof(ProofError::WrongTime { past, future }),
                used: invalid_proof(ProofError::Used),
                nonce_needed: invalid_proof(ProofError::NonceNeeded),
            },
        }
    }

    fn of(&self, error: &Error) -> Option<&HeaderValue> {
        Some(match error {
            Error::Missing => &self.missing,
            Error::InvalidRequest(InvalidRequest::RepeatedToken) => &self.repeated,
            Error::InvalidRequest(InvalidRequest::MalformedCredentials) => &self.credentials,
            Error::InvalidRequest(InvalidRequest::ForbiddenOrigin) => &self.origin,
            Error::InvalidRequest(InvalidRequest::MalformedUrl) => &self.url,
            Error::InvalidToken(InvalidToken::Expired { verified: true, .. }) => &self.expired,
            Error::InvalidToken(InvalidToken::SenderConstrained) => &self.sender_constrained,
            Error::InvalidToken(
                InvalidToken::CertificateMissing | InvalidToken::OtherCertificate,
            ) => &self.other_certificate,
            Error::InvalidToken(InvalidToken::NotBound | InvalidToken::OtherKey) => &self.other_key,
            Error::InvalidToken(_) => &self.invalid_token,
            Error::InvalidProof(ProofError::WrongTime { .. }) => &self.proof.wrong_time,
            Error::InvalidProof(ProofError::Used) => &self.proof.used,
            Error::InvalidProof(ProofError::NonceNeeded) => &self.proof.nonce_needed,
            Error::InvalidProof(_) => &self.proof.invalid,
            Error::InsufficientScope { .. } => &self.insufficient_scope,
            // Neither `error` nor `scope`: a client that receives either one requests another
            // token, which would be rejected for the same reason.
            Error::Forbidden { .. } | Error::ClaimsMismatch(_) => &self.bare,
            Error::InsufficientAuthentication { .. } => &self.insufficient_authentication,
            Error::TooManyProofs
            | Error::ReplaysUnavailable { .. }
            | Error::RevocationsUnavailable
            | Error::KeysUnavailable { .. }
            | Error::IntrospectionUnavailable { .. }
            | Error::LookupFailed { .. }
            | Error::AuthorizationFailed { .. } => return None,
        })
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
        Error::InvalidRequest(InvalidRequest::MalformedUrl) => {
            "The URL of the request is malformed"
        }
        Error::InvalidToken(InvalidToken::Expired { verified: true, .. }) => {
            "The access token expired"
        }
        Error::InvalidToken(InvalidToken::SenderConstrained) => {
            "The access token is bound to a key, and may only be used with it"
        }
        Error::InvalidToken(InvalidToken::NotBound) => {
            "An access token that is bound to a key or certificate of the client is needed"
        }
        Error::InvalidToken(InvalidToken::OtherKey) => {
            "The access token is not bound to the key of the proof"
        }
        Error::InvalidToken(InvalidToken::CertificateMissing | InvalidToken::OtherCertificate) => {
            "The access token is bound to a client certificate that the request does not have"
        }
        Error::InvalidToken(_) => "The access token is invalid",
        Error::InvalidProof(ProofError::WrongTime { .. }) => {
            "The DPoP proof is too old, or its time has not come"
        }
        Error::InvalidProof(ProofError::Used) => "The DPoP proof was used before",
        Error::InvalidProof(ProofError::NonceNeeded) => {
            "A DPoP proof with a nonce of this server is needed"
        }
        Error::InvalidProof(_) => "The DPoP proof is invalid",
        Error::TooManyProofs => "Too many requests with this key",
        Error::ReplaysUnavailable { .. } => "The DPoP proof cannot be verified now",
        Error::InsufficientScope { .. } | Error::Forbidden { .. } | Error::ClaimsMismatch(_) => {
            "The access token does not grant what this operation needs"
        }
        Error::InsufficientAuthentication { .. } => {
            "The user must sign in again, or in a stronger way"
        }
        Error::KeysUnavailable { .. }
        | Error::IntrospectionUnavailable { .. }
        | Error::RevocationsUnavailable
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
