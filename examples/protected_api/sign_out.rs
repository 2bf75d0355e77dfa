//! Sign-out at the demo's issuer (OpenID Connect RP-Initiated Logout 1.0). The issuer then tells
//! the API, with a logout token (OpenID Connect Back-Channel Logout 1.0) and a security event (CAEP
//! 1.0, pushed as RFC 8935 describes).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::TestIssuer;
use reqwest::{Client, RequestBuilder, redirect};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{EmbeddedIssuer, Parameters, TokenError, USER, answered, random};

const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// How long a logout token is valid: what Back-Channel Logout 1.0 §2.4 recommends at most.
const LIFETIME: Duration = Duration::from_secs(120);
/// How long a receiver may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Where the issuer sends what it has to tell.
pub(crate) struct Receivers {
    pub(crate) logout: Receiver,
    pub(crate) events: Receiver,
    /// The header `Authorization` of the events.
    pub(crate) authorization: Option<String>,
}

/// An endpoint of the API.
pub(crate) struct Receiver {
    pub(crate) url: String,
    /// What it expects in `aud`.
    pub(crate) audience: String,
}

/// The `sid` of a sign-in. It is a hash, because APIs read it: with the name of the family, with
/// which the refresh tokens begin, they could end the family.
pub(super) fn session_of(family: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(family))
}

/// `GET` and `POST /oauth/logout`: ends the session of the ID token in `id_token_hint`. With the
/// demo's own parameter `everywhere=true`, all sessions of its user end.
pub(super) async fn end_session(
    State(issuer): State<EmbeddedIssuer>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let parameters = match method {
        Method::POST => Parameters::read(&headers, &body),
        _ => Parameters::from_form(query.unwrap_or_default().as_bytes()),
    };
    let ended = match parameters.and_then(|parameters| Ended::read(&issuer, &parameters)) {
        Ok(ended) => ended,
        Err(error) => return answered(Err(error)),
    };
    issuer.end_sessions(&ended);
    answered(Ok(match issuer.0.receivers.get() {
        Some(receivers) => ended.tell(issuer.keys(), receivers).await,
        None => json!({}),
    }))
}

impl EmbeddedIssuer {
    /// Sets whom the issuer tells about sign-outs. The first call counts.
    pub(crate) fn notify(&self, receivers: Receivers) {
        let _ = self.0.receivers.set(receivers);
    }

    /// Discards the codes, the refresh tokens and the opaque tokens of sessions.
    fn end_sessions(&self, ended: &Ended) {
        let mut grants = self.grants();
        grants.codes.retain(|_, code| !ended.includes(&session_of(&code.family)));
        grants.families.retain(|family, _| !ended.includes(&session_of(family)));
        drop(grants);
        self.0.opaque.revoke_sessions(|sid| ended.includes(sid));
    }
}

/// The sessions that a user signed out of.
struct Ended {
    sub: String,
    /// One session, or all of the user.
    sid: Option<String>,
}

impl Ended {
    /// Returns an error if the hint is no ID token of this issuer for a client, or for another
    /// client than `client_id` (RP-Initiated Logout 1.0 §2). An expired one is accepted.
    fn read(issuer: &EmbeddedIssuer, parameters: &Parameters) -> Result<Self, TokenError> {
        let expected = "id_token_hint: expected an ID token whose key this issuer publishes";
        let hint = parameters.required("id_token_hint")?;
        let signed = issuer.keys().jwks().verify(hint);
        let signed = signed.map_err(|_| TokenError::request(expected))?;
        let claims: Value = serde_json::from_slice(&signed.payload).unwrap_or_default();
        // The audience of an access token is an API.
        let client = claims["aud"].as_str().filter(|client| issuer.is_app(client));
        let (Some(client), Some(sid), true) =
            (client, claims["sid"].as_str(), claims["sub"] == USER)
        else {
            return Err(TokenError::request(expected));
        };
        if parameters.get("client_id").is_some_and(|id| id != client) {
            return Err(TokenError::request("client_id: expected that of the ID token"));
        }
        let sid = match parameters.get("everywhere") {
            Some("true") => None,
            _ => Some(sid.to_owned()),
        };
        Ok(Self { sub: USER.to_owned(), sid })
    }

    fn includes(&self, sid: &str) -> bool {
        self.sid.as_deref().is_none_or(|own| own == sid)
    }

    /// Sends a logout token and a security event. Returns them, and the status of each response.
    async fn tell(&self, issuer: &TestIssuer, receivers: &Receivers) -> Value {
        let Receivers { logout, events, authorization } = receivers;
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none());
        let Ok(client) = client.timeout(LIMIT).build() else { return json!({}) };
        let logout_token = self.logout_token(issuer, &logout.audience);
        let by_form = client.post(&logout.url).form(&[("logout_token", &logout_token)]);
        let event = self.security_event(issuer, &events.audience);
        let push =
            client.post(&events.url).header(header::CONTENT_TYPE, "application/secevent+jwt");
        let push = authorization
            .iter()
            .fold(push, |push, value| push.header(header::AUTHORIZATION, value))
            .body(event.clone());
        let (by_form, push) = tokio::join!(send(&logout.url, by_form), send(&events.url, push));
        json!({
            "logout": { "url": logout.url, "token": logout_token, "status": by_form },
            "event": { "url": events.url, "token": event, "status": push },
        })
    }

    /// Back-Channel Logout 1.0 §2.4. Without `sid`, it is about all sessions of the user.
    fn logout_token(&self, issuer: &TestIssuer, audience: &str) -> String {
        let token = issuer.token().header("typ", "logout+jwt").without_claim("client_id");
        let token = token.subject(&self.sub).audience(audience).valid_for(LIFETIME);
        let token = token.claim("jti", random()).claim("events", json!({ LOGOUT: {} }));
        let token = self.sid.iter().fold(token, |token, sid| token.claim("sid", sid.as_str()));
        token.build()
    }

    /// RFC 8417, CAEP 1.0 §3.1, with a subject of RFC 9493: a user, or a session of the user.
    fn security_event(&self, issuer: &TestIssuer, audience: &str) -> String {
        let user = json!({ "format": "iss_sub", "iss": issuer.iss(), "sub": self.sub });
        let subject = match &self.sid {
            Some(sid) => json!({
                "format": "complex",
                "user": user,
                "session": { "format": "opaque", "id": sid },
            }),
            None => user,
        };
        let now = issuer.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let event = json!({ "event_timestamp": now.as_secs(), "initiating_entity": "user" });
        let token = issuer.token().header("typ", "secevent+jwt").audience(audience);
        // Shared Signals Framework 1.0: without `sub` and `exp`, an event cannot pass for another
        // kind of token.
        let unused = ["client_id", "sub", "exp"].into_iter();
        let token = unused.fold(token, |token, name| token.without_claim(name));
        let token = token.claim("jti", random()).claim("sub_id", subject);
        token.claim("events", json!({ SESSION_REVOKED: event })).build()
    }
}

/// Sends a request to loopback. Returns the status of the response, or `None` if no response
/// arrives.
async fn send(url: &str, request: RequestBuilder) -> Option<u16> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
    if !host.is_loopback() {
        return None;
    }
    Some(request.send().await.ok()?.status().as_u16())
}
