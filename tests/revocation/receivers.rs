//! Logout tokens and security events: which are accepted, and what they revoke.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use portcullis::testing::{StoreBehavior, TestClock, TestIssuer, TestStore, TokenBuilder};
use portcullis::{
    BackChannelLogout, Revocations, SecurityEvent, SecurityEvents, StoreError, Verifier,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::verdict::verdict;

const ISS: &str = "https://issuer.example/";
const RECEIVER: &str = "https://api.example.com/events";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";

struct Api {
    issuer: TestIssuer,
    clock: TestClock,
    store: TestStore,
    revocations: Revocations,
    verifier: Verifier,
    app: Router,
}

/// An API whose revocations are shared, after it has read the log.
async fn api() -> Api {
    let (issuer, clock) = (TestIssuer::offline(ISS).unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let store = TestStore::new();
    let revocations = Revocations::shared(store.clone());
    let builder = Verifier::builder(issuer.issuer()).clock(&clock).revocations(&revocations);
    let verifier = builder.build().unwrap();
    verifier.warm_up().await.unwrap();
    let logout = BackChannelLogout::new(&verifier, &revocations, ["web", "app"]);
    let events = SecurityEvents::new(&verifier, &revocations, RECEIVER).authorization("secret");
    let app = Router::new().route_service("/logout", logout).route_service("/events", events);
    Api { issuer, clock, store, revocations, verifier, app }
}

impl Api {
    /// An access token of a session.
    fn access_token(&self, sub: &str, sid: &str) -> String {
        self.issuer.token().subject(sub).claim("sid", sid).claim("jti", sid).build()
    }

    fn logout_token(&self) -> TokenBuilder {
        let token = self.issuer.token().header("typ", "logout+jwt").audience("web");
        token
            .subject("alice")
            .claim("sid", "1")
            .claim("jti", "logout-1")
            .claim("events", json!({ LOGOUT: {} }))
    }

    fn event(&self, name: &str, subject: Value, event: &Value) -> TokenBuilder {
        let token = self.issuer.security_event(RECEIVER, name, subject);
        token.claim("events", json!({ name: event }))
    }

    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let status = head.status.as_u16();
        let body = axum::body::to_bytes(body, 1000).await.unwrap();
        assert_eq!(header("cache-control"), Some("no-store"));
        let has_body = !body.is_empty();
        assert_eq!(header("content-type"), has_body.then_some("application/json"), "{status}");
        // RFC 9110 §15.5.6.
        assert_eq!(header("allow"), (status == 405).then_some("POST"), "{status}");
        assert_eq!(header("retry-after"), (status == 503).then_some("5"), "{status}");
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn log_out(&self, token: &str) -> (u16, String) {
        let request = Request::post("/logout");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(format!("logout_token={token}"))).unwrap()).await
    }

    async fn push(&self, event: TokenBuilder) -> (u16, String) {
        let request = Request::post("/events").header("authorization", "secret");
        let request = request.header("content-type", "application/secevent+jwt");
        self.send(request.body(Body::from(event.build())).unwrap()).await
    }

    /// Whether the tokens of (alice, 1), (alice, 2) and (bob, 3) are still accepted.
    async fn accepted(&self) -> [bool; 3] {
        let mut accepted = [false; 3];
        let sessions = [("alice", "1"), ("alice", "2"), ("bob", "3")];
        for (accepted, (sub, sid)) in accepted.iter_mut().zip(sessions) {
            let code = verdict(&self.verifier, &self.access_token(sub, sid)).await;
            assert!(matches!(code, "ok" | "revoked"), "{code}");
            *accepted = code == "ok";
        }
        accepted
    }
}

#[tokio::test]
async fn logout_tokens_revoke_a_session_or_a_subject() {
    for (name, change, expected) in
        [("a session", None, [false, true, true]), ("a subject", Some("sid"), [false, false, true])]
    {
        let api = api().await;
        let token = change.iter().fold(api.logout_token(), |token, name| token.without_claim(name));
        let token = token.build();
        assert_eq!(api.accepted().await, [true; 3], "{name}");
        // Twice: the same answer, and one entry.
        for _ in 0..2 {
            assert_eq!(api.log_out(&token).await, (200, String::new()), "{name}");
        }
        assert_eq!(api.accepted().await, expected, "{name}");
        assert_eq!(entries(&api.store).await, 1, "{name}");
        // What is issued later is good.
        api.clock.advance(Duration::from_secs(1));
        assert_eq!(api.accepted().await, [true; 3], "{name}");
    }
}

async fn entries(store: &TestStore) -> usize {
    use portcullis::SharedStore as _;
    store.read(None).await.unwrap().entries.len()
}

#[tokio::test]
async fn invalid_logout_tokens_are_rejected() {
    let api = api().await;
    let token = || api.logout_token();
    let other = TestIssuer::offline("https://other.example/").unwrap();
    let now = api.clock.unix_seconds();
    for (name, token, status) in [
        ("no type", token().without_header("typ"), 200),
        ("the type of every JWT", token().header("typ", "JWT"), 200),
        ("another client of ours", token().audience("app"), 200),
        ("one of several audiences", token().claim("aud", json!(["x", "web"])), 200),
        ("two minutes old", token().claim("iat", now - 120), 200),
        ("two minutes and the leeway ago, less a second", token().claim("iat", now - 149), 200),
        ("two minutes and the leeway ago", token().claim("iat", now - 150), 400),
        ("the type of an access token", token().header("typ", "at+jwt"), 400),
        ("the type of an event", token().header("typ", "secevent+jwt"), 400),
        ("nonce", token().claim("nonce", "x"), 400),
        ("no events", token().without_claim("events"), 400),
        ("another event", token().claim("events", json!({ "x": {} })), 400),
        ("an event that is no object", token().claim("events", json!({ LOGOUT: true })), 400),
        ("neither sub nor sid", token().without_claim("sub").without_claim("sid"), 400),
        ("an empty sub and an empty sid", token().claim("sub", "").claim("sid", ""), 400),
        ("another audience", token().audience("other"), 400),
        ("several other audiences", token().claim("aud", json!(["x", "y"])), 400),
        ("no audience", token().without_claim("aud"), 400),
        ("no iat", token().without_claim("iat"), 400),
        ("old", token().claim("iat", now - 3600), 400),
        ("in the future", token().claim("iat", now + 3600), 400),
        ("expired", token().expired(), 400),
        ("no jti", token().without_claim("jti"), 400),
        ("another issuer", token().issued_by("https://other.example/"), 400),
        ("signed by another", token().signed_by(&other), 400),
        ("tampered", token().tampered(), 400),
        ("unsigned", token().unsigned(), 400),
    ] {
        let (found, body) = api.log_out(&token.build()).await;
        assert_eq!(found, status, "{name}");
        assert_eq!(body.contains(r#""error":"invalid_request""#), status == 400, "{name}: {body}");
    }
    let access_token = api.issuer.token().subject("alice").claim("sid", "1").build();
    assert_eq!(api.log_out(&access_token).await.0, 400, "an access token");
    assert_eq!(api.log_out("x").await.0, 400);
    let good = token().build();
    let with = |method: &str, content_type: &str, body: String| {
        let request = Request::builder().method(method).uri("/logout");
        request.header("content-type", content_type).body(Body::from(body)).unwrap()
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    let twice = format!("logout_token={good}&logout_token={good}");
    for (name, request, status) in [
        ("GET", with("GET", FORM, String::new()), 405),
        ("JSON", with("POST", "application/json", format!("logout_token={good}")), 415),
        ("twice", with("POST", FORM, twice), 400),
        ("empty", with("POST", FORM, String::new()), 400),
        ("64 KiB and one byte", with("POST", FORM, "x".repeat(65_537)), 413),
    ] {
        assert_eq!(api.send(request).await.0, status, "{name}");
    }
}

#[tokio::test]
async fn events_revoke_what_their_subject_names() {
    let opaque = |id: &str| json!({ "format": "opaque", "id": id });
    let user = |iss: &str| json!({ "format": "iss_sub", "iss": iss, "sub": "alice" });
    let complex =
        |session: Value| json!({ "format": "complex", "user": user(ISS), "session": session });
    let jwt = |iss: &str| json!({ "format": "jwt_id", "iss": iss, "jti": "1" });
    let session = |iss: &str| json!({ "format": "iss_sub", "iss": iss, "sub": "1" });
    let other = "https://other.example/";
    let revoked = format!("{CAEP}session-revoked");
    let credential = format!("{CAEP}credential-change");
    let change = |kind: &str| json!({ "change_type": kind, "credential_type": "password" });
    let (one, all, none) = ([false, true, true], [false, false, true], [true; 3]);
    for (name, event, subject, claims, expected) in [
        ("a session", &revoked, opaque("1"), json!({}), one),
        ("a subject, opaque", &revoked, opaque("alice"), json!({}), all),
        ("a user", &revoked, user(ISS), json!({}), all),
        ("a session of a user", &revoked, complex(opaque("1")), json!({}), one),
        ("a user without a session", &revoked, json!({ "user": user(ISS) }), json!({}), all),
        ("a token", &revoked, jwt(ISS), json!({}), one),
        ("a session of the issuer", &revoked, complex(session(ISS)), json!({}), one),
        ("another issuer's user", &revoked, user(other), json!({}), none),
        ("another issuer's token", &revoked, jwt(other), json!({}), none),
        (
            "a user in a session of another issuer",
            &revoked,
            complex(session(other)),
            json!({}),
            all,
        ),
        (
            "an unknown subject",
            &revoked,
            json!({ "format": "email", "email": "a@b" }),
            json!({}),
            none,
        ),
        ("no subject", &revoked, json!(null), json!({}), none),
        ("a withdrawn credential", &credential, user(ISS), change("revoke"), all),
        ("a deleted credential", &credential, user(ISS), change("delete"), all),
        ("a new credential", &credential, user(ISS), change("create"), none),
        ("long ago", &revoked, user(ISS), json!({ "event_timestamp": 1 }), none),
        (
            "long ago, in milliseconds",
            &revoked,
            user(ISS),
            json!({ "event_timestamp": 1_600_000_000_000_u64 }),
            none,
        ),
        (
            "in the future, the last number of seconds",
            &revoked,
            user(ISS),
            json!({ "event_timestamp": 100_000_000_000_u64 }),
            all,
        ),
        (
            "in the future",
            &revoked,
            user(ISS),
            json!({ "event_timestamp": 9_999_999_999_u64 }),
            all,
        ),
        ("an unknown event", &"https://example.com/event".to_owned(), user(ISS), json!({}), none),
        (
            "verification",
            &"https://schemas.openid.net/secevent/ssf/event-type/verification".to_owned(),
            opaque("stream"),
            json!({ "state": "x" }),
            none,
        ),
    ] {
        let api = api().await;
        for _ in 0..2 {
            let event = api.event(event, subject.clone(), &claims);
            assert_eq!(api.push(event).await, (202, String::new()), "{name}");
        }
        assert_eq!(api.accepted().await, expected, "{name}");
    }
}

#[tokio::test]
async fn invalid_events_are_rejected() {
    let api = api().await;
    let revoked = format!("{CAEP}session-revoked");
    let event = || api.event(&revoked, json!({ "format": "opaque", "id": "1" }), &json!({}));
    let other = TestIssuer::offline("https://other.example/").unwrap();
    for (name, event, error) in [
        ("another type", event().header("typ", "logout+jwt"), "invalid_request"),
        ("no type", event().without_header("typ"), "invalid_request"),
        ("no events", event().without_claim("events"), "invalid_request"),
        ("an empty list of events", event().claim("events", json!({})), "invalid_request"),
        ("no jti", event().without_claim("jti"), "invalid_request"),
        ("in the future", event().claim("iat", api.clock.unix_seconds() + 3600), "invalid_request"),
        ("another audience", event().audience("x"), "invalid_audience"),
        ("another issuer", event().issued_by("https://other.example/"), "invalid_issuer"),
        ("signed by another", event().signed_by(&other), "invalid_key"),
        ("tampered", event().tampered_signature(), "invalid_key"),
    ] {
        let (status, body) = api.push(event).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["err"].as_str()), (400, Some(error)), "{name}");
        assert!(body["description"].is_string(), "{name}");
    }
    let token = event().build();
    for (name, authorization) in
        [("none", vec![]), ("wrong", vec!["x"]), ("two", vec!["secret"; 2])]
    {
        let request = Request::post("/events").header("content-type", "application/secevent+jwt");
        let request = authorization
            .iter()
            .fold(request, |request, one| request.header("authorization", *one));
        let request = request.body(Body::from(token.clone())).unwrap();
        let (status, body) = api.send(request).await;
        assert_eq!(status, 400, "{name}");
        assert!(body.contains("authentication_failed"), "{name}: {body}");
    }
    assert_eq!(api.accepted().await, [true; 3]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_arrives_late_revokes_what_was_issued_before_it() {
    let api = api().await;
    let revoked = format!("{CAEP}session-revoked");
    let old = api.access_token("alice", "1");
    let subject = json!({ "format": "opaque", "id": "alice" });
    let event = api.event(&revoked, subject, &json!({}));
    // Its sender could not reach the API for minutes.
    let event = event.claim("iat", api.clock.unix_seconds());
    api.clock.advance(Duration::from_secs(300));
    api.verifier.warm_up().await.unwrap();
    assert_eq!(api.push(event).await.0, 202);
    assert_eq!(verdict(&api.verifier, &old).await, "revoked");
    assert_eq!(api.accepted().await, [true; 3], "what was issued since");
}

#[tokio::test]
async fn other_events_are_left_to_the_application() {
    let api = api().await;
    let compliance = format!("{CAEP}device-compliance-change");
    let revoked = format!("{CAEP}session-revoked");
    let email = json!({ "format": "email", "email": "alice" });
    let (seen, fails) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
    let (record, failing, revocations) = (seen.clone(), fails.clone(), api.revocations.clone());
    let receiver = SecurityEvents::new(&api.verifier, &api.revocations, RECEIVER).on_other(
        move |event: SecurityEvent| {
            record.lock().unwrap().push(event.name.clone());
            let (fails, revocations) = (failing.load(Ordering::Relaxed), revocations.clone());
            async move {
                if fails {
                    return Err(StoreError::new("the database is down"));
                }
                let subject = event.subject.unwrap_or_default();
                match subject["email"].as_str() {
                    Some(email) => revocations.subject(&event.issuer, email).await,
                    None => Ok(()),
                }
            }
        },
    );
    let push = async |event: TokenBuilder| {
        let request = Request::post("/").header("content-type", "application/secevent+jwt");
        let request = request.body(Body::from(event.build())).unwrap();
        receiver.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let event = || api.event(&compliance, email.clone(), &json!({})).claim("jti", "1");
    assert_eq!(push(event()).await, 503, "the application fails");
    fails.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(push(event()).await, 202);
    }
    assert_eq!(*seen.lock().unwrap(), [compliance.clone(), compliance.clone()], "once handled");
    assert_eq!(api.accepted().await, [false, false, true]);
    // A subject without a meaning here, and an event with one.
    assert_eq!(push(api.event(&revoked, email, &json!({}))).await, 202);
    let bob = json!({ "format": "iss_sub", "iss": ISS, "sub": "bob" });
    assert_eq!(push(api.event(&revoked, bob, &json!({}))).await, 202);
    assert_eq!(*seen.lock().unwrap(), [compliance.clone(), compliance, revoked]);
    assert_eq!(api.accepted().await, [false; 3]);
}

#[tokio::test]
async fn all_events_can_be_left_to_the_application() {
    let api = api().await;
    let revocations = api.revocations.clone();
    // The sender names users by another identifier than the tokens do.
    let receiver = SecurityEvents::new(&api.verifier, &api.revocations, RECEIVER).on_every(
        move |event: SecurityEvent| {
            let revocations = revocations.clone();
            async move {
                match event.subject.unwrap_or_default()["sub"].as_str() {
                    Some("00u1") => revocations.subject(ISS, "alice").await,
                    _ => Ok(()),
                }
            }
        },
    );
    let push = async |sub: &str| {
        let subject = json!({ "format": "iss_sub", "iss": ISS, "sub": sub });
        let event = api.event(&format!("{CAEP}session-revoked"), subject, &json!({}));
        let request = Request::post("/").header("content-type", "application/secevent+jwt");
        let request = request.body(Body::from(event.build())).unwrap();
        receiver.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    for (sub, expected) in [("bob", [true; 3]), ("00u1", [false, false, true])] {
        assert_eq!(push(sub).await, 202, "{sub}");
        assert_eq!(api.accepted().await, expected, "{sub}");
    }
}

#[tokio::test]
async fn a_logout_token_can_end_all_sessions() {
    for (name, without, expected) in [
        ("sub and sid", None, [false, false, true]),
        ("sid only", Some("sub"), [false, true, true]),
        ("sub only", Some("sid"), [false, false, true]),
    ] {
        let api = api().await;
        let logout = BackChannelLogout::new(&api.verifier, &api.revocations, ["web"]);
        let token =
            without.iter().fold(api.logout_token(), |token, name| token.without_claim(name));
        let request = Request::post("/");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(Body::from(format!("logout_token={}", token.build()))).unwrap();
        let response = logout.all_sessions().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        assert_eq!(api.accepted().await, expected, "{name}");
    }
}

#[tokio::test]
async fn an_issuer_revokes_by_any_of_its_names() {
    const ALIAS: &str = "https://alias.example/";
    let issuer = TestIssuer::offline(ISS).unwrap();
    let revocations = Revocations::in_memory();
    let builder = Verifier::builder(issuer.issuer().alias(ALIAS).unwrap());
    let verifier = builder.revocations(&revocations).build().unwrap();
    let events = SecurityEvents::new(&verifier, &revocations, RECEIVER);
    let of = |iss: &str| issuer.token().issued_by(iss).subject("alice").build();
    for iss in [ISS, ALIAS] {
        assert_eq!(verdict(&verifier, &of(iss)).await, "ok", "{iss}");
    }
    let subject = json!({ "format": "iss_sub", "iss": ALIAS, "sub": "alice" });
    let event = issuer.security_event(RECEIVER, &format!("{CAEP}session-revoked"), subject);
    let request = Request::post("/").header("content-type", "application/secevent+jwt");
    let request = request.body(Body::from(event.build())).unwrap();
    assert_eq!(events.oneshot(request).await.unwrap().status(), StatusCode::ACCEPTED);
    for iss in [ISS, ALIAS] {
        assert_eq!(verdict(&verifier, &of(iss)).await, "revoked", "{iss}");
    }
}

#[tokio::test]
async fn kinds_of_tokens_are_not_exchanged() {
    let api = api().await;
    let revoked = format!("{CAEP}session-revoked");
    let event = api.event(&revoked, json!({ "format": "opaque", "id": "1" }), &json!({}));
    let as_access_token = |token: TokenBuilder| {
        let token = token.audience(portcullis::testing::AUDIENCE);
        token.claim("exp", api.clock.unix_seconds() + 600).build()
    };
    for (name, token) in [
        ("event", as_access_token(event.clone())),
        ("logout token", as_access_token(api.logout_token())),
        ("logout token without a type", as_access_token(api.logout_token().without_header("typ"))),
        (
            "logout token with that of every JWT",
            as_access_token(api.logout_token().header("typ", "JWT")),
        ),
    ] {
        assert_ne!(verdict(&api.verifier, &token).await, "ok", "{name}");
    }
    assert_eq!(api.log_out(&event.build()).await.0, 400);
    assert_eq!(api.push(api.logout_token().audience(RECEIVER)).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_answered_503() {
    let api = api().await;
    let revoked = format!("{CAEP}session-revoked");
    for behavior in [StoreBehavior::Fail, StoreBehavior::Hang] {
        api.store.set_behavior(behavior);
        assert_eq!(api.log_out(&api.logout_token().build()).await.0, 503);
        let event = api.event(&revoked, json!({ "format": "opaque", "id": "1" }), &json!({}));
        assert_eq!(api.push(event).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    api.store.set_behavior(StoreBehavior::Normal);
    assert_eq!(api.log_out(&api.logout_token().build()).await.0, 200, "tried again");
    assert_eq!(api.accepted().await, [false, true, true]);
}
