//! [`SecurityEvents`]: security events by push (RFC 8935) with the events of CAEP 1.0.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use serde_json::{Map, Value};
use tower_service::Service;

use super::{Answer, EventClaims, Wrong, read_body, respond};
use crate::crypto;
use crate::error::BoxError;
use crate::revocation::Revocations;
use crate::revocation::entry::{Entry, Kind};
use crate::telemetry;
use crate::token::json;
use crate::token::token_type;
use crate::verifier::Verifier;
use crate::verifier::documents::{DocumentError, VerifiedDocument};

/// CAEP 1.0 §3.1, §3.3.
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CREDENTIAL_CHANGE: &str =
    "https://schemas.openid.net/secevent/caep/event-type/credential-change";

/// Above this number, a time is in milliseconds: some transmitters send those.
const FIRST_MILLISECONDS: f64 = 1e11;

/// Maximum number of events in one token. RFC 8417 §2.2 means one occurrence.
const MAX_EVENTS: usize = 16;

/// A service that receives security events by push (RFC 8935), as senders of the Shared Signals
/// Framework send them.
///
/// `session-revoked`, and `credential-change` with `revoke` or `delete`, of CAEP 1.0 revoke what
/// their subject names: a session, a user, or a token. Other events are acknowledged and logged. An
/// event about a subject of another issuer than the one that signed it revokes nothing.
///
/// ```
/// use portcullis::{Issuer, Revocations, SecurityEvents, Verifier};
///
/// let revocations = Revocations::in_memory();
/// let issuer = Issuer::new("https://acme.okta.com", "https://api.example.com")?;
/// let verifier = Verifier::builder(issuer).revocations(&revocations).build()?;
/// let events = SecurityEvents::new(&verifier, &revocations, "https://api.example.com/events")
///     .authorization("Bearer secret-of-the-stream");
/// let app: axum::Router = axum::Router::new().route_service("/events", events);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct SecurityEvents {
    verifier: Verifier,
    revocations: Revocations,
    audience: Arc<str>,
    /// The hash of the expected header, so that comparing takes the same time for each value.
    authorization: Option<[u8; 32]>,
}

impl SecurityEvents {
    /// Creates the service. `audience`: the identifier of this receiver, as in the `aud` of the
    /// events.
    pub fn new(
        verifier: &Verifier,
        revocations: &Revocations,
        audience: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            verifier: verifier.clone(),
            revocations: revocations.clone(),
            audience: audience.into(),
            authorization: None,
        }
    }

    /// Requires this value of the header `Authorization` (RFC 8935 §2), which the stream was
    /// configured with.
    #[must_use]
    pub fn authorization(mut self, value: impl AsRef<[u8]>) -> Self {
        self.authorization = Some(crypto::sha256(value.as_ref()));
        self
    }

    fn is_authorized(&self, parts: &Parts) -> bool {
        let Some(expected) = &self.authorization else { return true };
        let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
        match (headers.next(), headers.next()) {
            (Some(value), None) => crypto::is_equal(expected, &crypto::sha256(value.as_bytes())),
            _ => false,
        }
    }

    async fn receive(&self, body: &[u8]) -> Result<(), Refused> {
        let invalid = Refused::Invalid("invalid_request", "one security event token");
        let Ok(token) = std::str::from_utf8(body) else { return Err(invalid) };
        let is_type =
            |typ: Option<&str>| typ.is_some_and(|typ| token_type::is(typ, "secevent+jwt"));
        let document = self.verifier.verify_document(token.trim_ascii(), is_type).await?;
        let claims = EventClaims::read(&document)?;
        if !claims.audience.iter().any(|one| **one == *self.audience) {
            return Err(Refused::Invalid("invalid_audience", "the audience of this receiver"));
        }
        for entry in self.entries(&document, &claims) {
            self.revocations.append(entry).await.map_err(|error| {
                telemetry::revocation_not_recorded(&error);
                Refused::Unavailable
            })?;
        }
        Ok(())
    }

    /// What the events of a token revoke.
    fn entries(&self, document: &VerifiedDocument, claims: &EventClaims<'_>) -> Vec<Entry> {
        let mut entries = Vec::new();
        // It was checked to be an object without duplicate members.
        let events: Map<String, Value> = serde_json::from_str(claims.events).unwrap_or_default();
        let subject: Option<Value> = match json::read_object(&document.payload, &["sub_id"]) {
            Ok([Some(json::Value::Object(subject))]) => serde_json::from_str(subject).ok(),
            _ => None,
        };
        for (name, event) in events.iter().take(MAX_EVENTS) {
            let revokes = match &**name {
                SESSION_REVOKED => true,
                CREDENTIAL_CHANGE => {
                    matches!(event["change_type"].as_str(), Some("revoke" | "delete"))
                }
                _ => false,
            };
            // Before sub_id, events had a subject each.
            let subject = subject.as_ref().or(event.get("subject"));
            let before = issued_before(event, claims.issued_at);
            let named = match subject {
                Some(subject) if revokes => self.named(&document.iss, subject, before),
                _ => Vec::new(),
            };
            if named.is_empty() {
                telemetry::security_event_ignored(&document.iss, name);
            }
            entries.extend(named);
        }
        entries
    }

    /// The entries for a subject (RFC 9493 §3).
    fn named(&self, iss: &str, subject: &Value, before: Duration) -> Vec<Entry> {
        let text = |name: &str| subject[name].as_str().filter(|text| !text.is_empty());
        let of = |kind, value: &str| self.revocations.entry(kind, iss, value, before);
        // A subject of another issuer is not this one's to revoke.
        let is_own = text("iss").is_none_or(|own| own == iss);
        match subject["format"].as_str() {
            Some("iss_sub") if is_own && text("iss").is_some() => {
                text("sub").map(|sub| of(Kind::Subject, sub)).into_iter().collect()
            }
            // It may be either. To revoke too much is safe.
            Some("opaque") => text("id")
                .map(|id| vec![of(Kind::Session, id), of(Kind::Subject, id)])
                .unwrap_or_default(),
            Some("jwt_id") if is_own && text("iss").is_some() => {
                text("jti").map(|jti| self.revocations.token_entry(iss, jti)).into_iter().collect()
            }
            // The session if there is one, else the user.
            Some("complex") | None => {
                let session =
                    subject.get("session").map(|session| self.session(iss, session, before));
                match session.filter(|entries| !entries.is_empty()) {
                    Some(entries) => entries,
                    None => subject
                        .get("user")
                        .filter(|user| user["format"] != "complex" && user.get("format").is_some())
                        .map(|user| self.named(iss, user, before))
                        .unwrap_or_default(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn session(&self, iss: &str, session: &Value, before: Duration) -> Vec<Entry> {
        let id = match session["format"].as_str() {
            Some("opaque") => session["id"].as_str(),
            Some("iss_sub") if session["iss"] == iss => session["sub"].as_str(),
            _ => None,
        };
        let entry = |id| self.revocations.entry(Kind::Session, iss, id, before);
        id.filter(|id| !id.is_empty()).map(entry).into_iter().collect()
    }
}

/// The time up to which tokens are revoked: `event_timestamp`, or else `iat`.
fn issued_before(event: &Value, issued_at: Duration) -> Duration {
    let seconds = event["event_timestamp"]
        .as_f64()
        .map(|time| if time > FIRST_MILLISECONDS { time / 1000.0 } else { time });
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Not in the future: that would revoke tokens that are issued later.
    time.filter(|time| *time <= issued_at).unwrap_or(issued_at)
}

/// Why an event is not accepted: the `err` of RFC 8935 §2.4, and what was expected.
enum Refused {
    Invalid(&'static str, &'static str),
    Unavailable,
}

impl From<Wrong> for Refused {
    fn from(Wrong(expected): Wrong) -> Self {
        Self::Invalid("invalid_request", expected)
    }
}

impl From<DocumentError> for Refused {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Malformed => {
                Self::Invalid("invalid_request", "a security event token that is a JWT")
            }
            DocumentError::UnknownIssuer => Self::Invalid("invalid_issuer", "a trusted issuer"),
            DocumentError::BadSignature => Self::Invalid("invalid_key", "a key of the issuer"),
            DocumentError::Unavailable => Self::Unavailable,
        }
    }
}

impl<B> Service<Request<B>> for SecurityEvents
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        let service = self.clone();
        let (parts, body) = request.into_parts();
        Box::pin(async move {
            let received = if service.is_authorized(&parts) {
                match read_body(&parts, body, "application/secevent+jwt").await {
                    Ok(body) => service.receive(&body).await,
                    Err(status) => return Ok(respond(status, String::new())),
                }
            } else {
                Err(Refused::Invalid("authentication_failed", "the credentials of the stream"))
            };
            Ok(match received {
                Ok(()) => respond(StatusCode::ACCEPTED, String::new()),
                Err(Refused::Invalid(error, expected)) => {
                    telemetry::security_event_rejected(error, expected);
                    let body =
                        format!(r#"{{"err":"{error}","description":"expected {expected}"}}"#);
                    respond(StatusCode::BAD_REQUEST, body)
                }
                Err(Refused::Unavailable) => {
                    respond(StatusCode::SERVICE_UNAVAILABLE, String::new())
                }
            })
        })
    }
}

impl std::fmt::Debug for SecurityEvents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SecurityEvents")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
