//! [`BackChannelLogout`]: OpenID Connect Back-Channel Logout 1.0.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;
use url::form_urlencoded;

use super::{Answer, EventClaims, Wrong, read_body, respond};
use crate::error::BoxError;
use crate::revocation::entry::Kind;
use crate::revocation::{Revocations, Revoke};
use crate::telemetry::{self, LogThrottle};
use crate::token::json::{self, Value};
use crate::token::token_type;
use crate::verifier::Verifier;
use crate::verifier::documents::{DocumentError, VerifiedDocument};

/// The member of `events` (§2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A service that receives logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.5): it revokes
/// the session that the token names, or all tokens of its subject.
///
/// Access tokens must have the claim `sid`, as those of Keycloak have, for a single session to end;
/// otherwise, see [`all_sessions`](Self::all_sessions). Most issuers do not try again, so it is a
/// complement to short lifetimes. The issuer must have keys: one that is asked about every token
/// ([`instead_of_keys`](crate::Introspection::instead_of_keys)) has none.
///
/// ```
/// use portcullis::{BackChannelLogout, Issuer, Revocations, Verifier};
///
/// let revocations = Revocations::in_memory();
/// let issuer = Issuer::new("https://id.example.com/realms/acme", "https://api.example.com")?;
/// let verifier = Verifier::builder(issuer).revocations(&revocations).build()?;
/// let logout = BackChannelLogout::new(&verifier, &revocations, ["my-client"]);
/// let app: axum::Router = axum::Router::new().route_service("/backchannel-logout", logout);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct BackChannelLogout {
    verifier: Verifier,
    revocations: Revocations,
    clients: Arc<[String]>,
    scope: Scope,
    rejections: Arc<LogThrottle>,
}

/// What a logout token with a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Session,
    AllSessions,
}

impl BackChannelLogout {
    /// Creates the service. `clients`: the client identifiers for which the issuers of `verifier`
    /// send logout tokens, as in their `aud`.
    pub fn new<C: Into<String>>(
        verifier: &Verifier,
        revocations: &Revocations,
        clients: impl IntoIterator<Item = C>,
    ) -> Self {
        let clients = clients.into_iter().map(Into::into).collect();
        Self {
            verifier: verifier.clone(),
            revocations: revocations.clone(),
            clients,
            scope: Scope::Session,
            rejections: Arc::default(),
        }
    }

    /// Revokes all tokens of the subject, also if the logout token names one of its sessions. For
    /// issuers whose access tokens have no `sid`, such as Auth0: otherwise, their logout tokens end
    /// nothing here.
    #[must_use]
    pub fn all_sessions(mut self) -> Self {
        self.scope = Scope::AllSessions;
        self
    }

    async fn receive(&self, body: &[u8]) -> Result<(), Refused> {
        let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == "logout_token");
        let (Some((_, token)), None) = (tokens.next(), tokens.next()) else {
            return Err(Refused::Invalid("one `logout_token`"));
        };
        // Some issuers set no type, or that of every JWT.
        let is_type = |typ: Option<&str>| {
            typ.is_none_or(|typ| token_type::is(typ, "logout+jwt") || token_type::is(typ, "jwt"))
        };
        let document = self.verifier.verify_document(&token, is_type).await?;
        let claims = EventClaims::read(&document)?;
        claims.check_age(&document)?;
        if !claims.audience.iter().any(|one| self.clients.contains(one)) {
            return Err(Refused::Invalid("a configured client in `aud`"));
        }
        let is_logout =
            matches!(json::read_object(claims.events, &[EVENT]), Ok([Some(Value::Object(_))]));
        if !is_logout {
            return Err(Refused::Invalid("the event of a logout in `events`"));
        }
        let (kind, value) = match subject(&document, self.scope)? {
            Subject::Session(sid) => (Kind::Session, sid),
            Subject::User(sub) => (Kind::Subject, sub),
        };
        let told = Revoke { kind, value: &value, issued_before: claims.issued_at };
        self.revocations.record(&document, &told).await.map_err(|_| Refused::Unavailable)
    }
}

enum Subject {
    Session(String),
    User(String),
}

/// Whom a logout token is about (§2.4). `nonce` is forbidden: an ID token has one.
fn subject(document: &VerifiedDocument, scope: Scope) -> Result<Subject, Refused> {
    let members = json::read_object(&document.payload, &["sub", "sid", "nonce"]);
    let text = |value: Option<Value<'_>>| match value {
        Some(Value::Text(text)) if !text.is_empty() => Some(text.into_owned()),
        _ => None,
    };
    match members {
        Ok([_, _, Some(_)]) | Err(_) => Err(Refused::Invalid("no `nonce`")),
        Ok([sub, sid, None]) => match (text(sid), text(sub), scope) {
            (_, Some(sub), Scope::AllSessions) | (None, Some(sub), Scope::Session) => {
                Ok(Subject::User(sub))
            }
            (Some(sid), _, _) => Ok(Subject::Session(sid)),
            (None, None, _) => Err(Refused::Invalid("`sid` or `sub`")),
        },
    }
}

/// Why a logout token is not accepted.
enum Refused {
    Invalid(&'static str),
    Unavailable,
}

impl From<Wrong> for Refused {
    fn from(Wrong(expected): Wrong) -> Self {
        Self::Invalid(expected)
    }
}

impl From<DocumentError> for Refused {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Malformed => Self::Invalid("a logout token that is a JWT"),
            DocumentError::UnknownIssuer => Self::Invalid("a trusted issuer"),
            DocumentError::BadSignature => Self::Invalid("a signature of the issuer"),
            DocumentError::Unavailable => Self::Unavailable,
        }
    }
}

impl<B> Service<Request<B>> for BackChannelLogout
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
            let media_type = "application/x-www-form-urlencoded";
            let body = match read_body(&parts, body, media_type).await {
                Ok(body) => body,
                Err(status) => return Ok(respond(status, String::new())),
            };
            Ok(match service.receive(&body).await {
                Ok(()) => respond(StatusCode::OK, String::new()),
                Err(Refused::Invalid(expected)) => {
                    let now = service.verifier.clock().now().uptime;
                    if let Some(suppressed) = service.rejections.admit(now) {
                        telemetry::logout_rejected(expected, suppressed);
                    }
                    let body = r#"{"error":"invalid_request"}"#.to_owned();
                    respond(StatusCode::BAD_REQUEST, body)
                }
                Err(Refused::Unavailable) => {
                    respond(StatusCode::SERVICE_UNAVAILABLE, String::new())
                }
            })
        })
    }
}

impl fmt::Debug for BackChannelLogout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BackChannelLogout")
            .field("clients", &self.clients)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
