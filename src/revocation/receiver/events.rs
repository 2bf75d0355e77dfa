//! [`SecurityEvents`]: security events by push (RFC 8935) with the events of CAEP 1.0.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, CONTENT_LANGUAGE, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::{Map, Value};
use tower_service::Service;

use super::{Answer, EventClaims, Wrong, read_body, respond};
use crate::crypto;
use crate::error::BoxError;
use crate::revocation::entry::{Hash, Kind};
use crate::revocation::{Revocations, Revoke};
use crate::shared_store::StoreError;
use crate::telemetry::{self, LogThrottle};
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

/// Maximum number of events in one token that are left to the application. RFC 8417 §2.2 means one
/// occurrence, so real tokens have one or two.
const MAX_OTHERS: usize = 16;

/// How many events are remembered that the application has handled, and that the log could not
/// record.
const MAX_UNRECORDED: u64 = 10_000;

/// A service that receives security events by push (RFC 8935), as senders of the Shared Signals
/// Framework send them.
///
/// `session-revoked`, and `credential-change` with `revoke` or `delete`, of CAEP 1.0 revoke what
/// their subject names: a session, a user, or a token. Other events are acknowledged and logged, or
/// left to the application ([`on_other`](Self::on_other)). An
/// event about a subject of another issuer than the one that signed it revokes nothing.
///
/// ```
/// use portcullis::{Issuer, Revocations, SecurityEvents, Verifier};
///
/// let revocations = Revocations::in_memory();
/// let issuer = Issuer::new("https://id.example.com/realms/acme", "https://api.example.com")?;
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
    handler: Option<Arc<Handler>>,
    handled: HandledEvents,
    /// Events that the application has handled, and that could not be recorded: what is left to do
    /// when the sender repeats them.
    unrecorded: Cache<Hash, ()>,
    rejections: Arc<LogThrottle>,
    ignored: Arc<LogThrottle>,
}

/// Which events are left to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandledEvents {
    Others,
    All,
}

type Handler = dyn Fn(SecurityEvent) -> Handling + Send + Sync;
type Handling = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

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
            handler: None,
            handled: HandledEvents::Others,
            unrecorded: Cache::builder()
                .max_capacity(MAX_UNRECORDED)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            rejections: Arc::default(),
            ignored: Arc::default(),
        }
    }

    /// Hands the events that revoke nothing by themselves to the application: those of other types,
    /// such as `device-compliance-change`, and those about a subject that no claim of a token
    /// names, such as an email address. Each is handed over until `handler` returns `Ok`; then, all
    /// replicas acknowledge it when it arrives again. After an error, the sender is told to try
    /// again. Two deliveries at the same time may both be handed over. An event that is older than
    /// [`Revocations::keep_for`] is logged and acknowledged, as all are without a handler.
    ///
    /// ```
    /// use portcullis::{Revocations, SecurityEvents, Verifier};
    ///
    /// fn receiver(verifier: &Verifier, revocations: &Revocations) -> SecurityEvents {
    ///     let revoked = revocations.clone();
    ///     SecurityEvents::new(verifier, revocations, "https://api.example.com/events").on_other(
    ///         move |event| {
    ///             let revoked = revoked.clone();
    ///             async move {
    ///                 let subject = event.subject.unwrap_or_default();
    ///                 // An email address of a tenant's own users is their `sub` here.
    ///                 match subject["email"].as_str() {
    ///                     Some(email) => {
    ///                         let before = event.issued_before;
    ///                         revoked.subject_before(&event.issuer, email, before).await
    ///                     }
    ///                     None => Ok(()),
    ///                 }
    ///             }
    ///         },
    ///     )
    /// }
    /// ```
    #[must_use]
    pub fn on_other<F>(
        mut self,
        handler: impl Fn(SecurityEvent) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        self.handler = Some(Arc::new(move |event| Box::pin(handler(event))));
        self
    }

    /// Hands all events to the application, as [`on_other`](Self::on_other) does, so that none
    /// revokes anything by itself. For senders whose subjects are not those of the tokens: Okta's
    /// events come from the issuer of the organization and name users by their ID, while the tokens
    /// of a custom authorization server have another `iss`, and the login as `sub`.
    #[must_use]
    pub fn on_every<F>(
        mut self,
        handler: impl Fn(SecurityEvent) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        self.handled = HandledEvents::All;
        self.on_other(handler)
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
        // It was checked to be an object without duplicate members.
        let events: Map<String, Value> = serde_json::from_str(claims.events).unwrap_or_default();
        let sub_id: Option<Value> = match json::read_object(&document.payload, &["sub_id"]) {
            Ok([Some(json::Value::Object(subject))]) => serde_json::from_str(subject).ok(),
            _ => None,
        };
        let mut others = 0;
        for (name, event) in events {
            // Before `sub_id`, events had a subject each.
            let subject = sub_id.as_ref().or_else(|| event.get("subject"));
            let issued_before = issued_before(&event, claims.issued_at);
            let revokes = self.handled == HandledEvents::Others && revokes(&name, &event);
            let told = match subject.filter(|_| revokes) {
                Some(subject) => told(&document, subject, issued_before),
                None => Vec::new(),
            };
            for told in &told {
                let recorded = self.revocations.record(&document, told).await;
                recorded.map_err(|_| Refused::Unavailable)?;
            }
            if told.is_empty() {
                others += 1;
                if others <= MAX_OTHERS {
                    // Only here: a token may have hundreds of events and a subject of 10 KB.
                    let subject = subject.cloned();
                    let (issuer, issued_before) =
                        (Arc::clone(&document.iss), UNIX_EPOCH + issued_before);
                    let event = SecurityEvent { issuer, name, subject, event, issued_before };
                    self.handle_other(&document, &claims, event).await?;
                }
            }
        }
        Ok(())
    }

    /// Hands an event to the application, unless that was done.
    async fn handle_other(
        &self,
        document: &VerifiedDocument,
        claims: &EventClaims<'_>,
        event: SecurityEvent,
    ) -> Result<(), Refused> {
        let handler = match &self.handler {
            // Of an older one, it cannot be known whether it was handled before: an attacker may
            // have recorded it.
            Some(handler) if !self.revocations.is_forgotten(claims.issued_at) => handler,
            _ => {
                if let Some(suppressed) = self.ignored.admit(self.verifier.clock().now().uptime) {
                    telemetry::security_event_ignored(&event.issuer, &event.name, suppressed);
                }
                return Ok(());
            }
        };
        let revocations = &self.revocations;
        // What other replicas have handled is known once the log was read.
        revocations.loaded().await.map_err(|_| Refused::Unavailable)?;
        let identifier = format!("{} {}", claims.jti, event.name);
        let handled = revocations.entry(Kind::Event, &event.issuer, &identifier, Duration::MAX);
        if revocations.has(&handled) {
            return Ok(());
        }
        let unavailable = |error: StoreError| {
            revocations.log_failure(&error);
            Refused::Unavailable
        };
        if !self.unrecorded.contains_key(&handled.hash) {
            // Before it is handed over: without room, it would be handed over each time, and what
            // the application revokes for it has no limit for a tenant.
            revocations.has_room(&handled, document.source).map_err(unavailable)?;
            handler(event).await.map_err(unavailable)?;
            // Before the wait: the sender may disconnect.
            self.unrecorded.insert(handled.hash, ());
        }
        let hash = handled.hash;
        revocations.store(handled, document.source).await.map_err(unavailable)?;
        self.unrecorded.invalidate(&hash);
        Ok(())
    }
}

/// A security event that [`SecurityEvents`] leaves to the application, for
/// [`SecurityEvents::on_other`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SecurityEvent {
    /// The issuer that signed it. It may name subjects of other issuers, for which it does not
    /// speak.
    pub issuer: Arc<str>,
    /// The URI of the event, such as
    /// `https://schemas.openid.net/secevent/caep/event-type/device-compliance-change`.
    pub name: String,
    /// Whom it is about (RFC 9493): `sub_id`, or the `subject` of older senders.
    pub subject: Option<Value>,
    /// The members of the event.
    pub event: Value,
    /// When it happened: `event_timestamp`, or else `iat`.
    pub issued_before: SystemTime,
}

/// Whether the tokens of an event's subject are revoked.
fn revokes(name: &str, event: &Value) -> bool {
    match name {
        SESSION_REVOKED => true,
        CREDENTIAL_CHANGE => {
            let change = event.get("change_type").and_then(Value::as_str);
            matches!(change, Some("revoke" | "delete"))
        }
        _ => false,
    }
}

/// What a subject (RFC 9493 §3) names of the tokens of the issuer. Empty if it names nothing that
/// can be found in tokens, or something of another issuer.
fn told<'a>(
    document: &VerifiedDocument,
    subject: &'a Value,
    issued_before: Duration,
) -> Vec<Revoke<'a>> {
    let text = |name: &str| subject[name].as_str().filter(|text| !text.is_empty());
    let is_own = text("iss").is_some_and(|iss| document.is_own(iss));
    let of = |kind, value| Revoke { kind, value, issued_before };
    match subject["format"].as_str() {
        Some("iss_sub") if is_own => {
            text("sub").map(|sub| of(Kind::Subject, sub)).into_iter().collect()
        }
        // It may be either. To revoke too much is safe.
        Some("opaque") => text("id")
            .map(|id| vec![of(Kind::Session, id), of(Kind::Subject, id)])
            .unwrap_or_default(),
        Some("jwt_id") if is_own => {
            let of = |value| Revoke { kind: Kind::Token, value, issued_before: Duration::MAX };
            text("jti").map(of).into_iter().collect()
        }
        // The session if there is one, else the user. Older senders state no format.
        Some("complex") | None => {
            let session = subject.get("session").and_then(|session| session_id(document, session));
            if let Some(sid) = session {
                return vec![of(Kind::Session, sid)];
            }
            let user = subject
                .get("user")
                .filter(|user| user["format"].as_str().is_some_and(|format| format != "complex"));
            user.map(|user| told(document, user, issued_before)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn session_id<'a>(document: &VerifiedDocument, session: &'a Value) -> Option<&'a str> {
    let id = match session["format"].as_str() {
        Some("opaque") => session["id"].as_str(),
        Some("iss_sub") if session["iss"].as_str().is_some_and(|iss| document.is_own(iss)) => {
            session["sub"].as_str()
        }
        _ => None,
    };
    id.filter(|id| !id.is_empty())
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
                Self::Invalid("invalid_request", "a JWT with the `typ` secevent+jwt")
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
                    let now = service.verifier.clock().now().uptime;
                    if let Some(suppressed) = service.rejections.admit(now) {
                        telemetry::security_event_rejected(error, expected, suppressed);
                    }
                    let body =
                        format!(r#"{{"err":"{error}","description":"expected {expected}"}}"#);
                    let mut response = respond(StatusCode::BAD_REQUEST, body);
                    // Of the description (RFC 8935 §2.3).
                    let headers = response.headers_mut();
                    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
                    response
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
