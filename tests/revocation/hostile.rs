//! What hostile issuers and senders try, and what real senders need.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use portcullis::testing::{AUDIENCE, DpopClient, StoreBehavior, TestClock, TestIssuer, TestStore};
use portcullis::{
    ClientAuth, Dpop, Introspection, Issuer, Issuers, Jwks, ProtectLayer, Revocations,
    SecurityEvents, SharedStore as _, Verifier,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::verdict::verdict;
use crate::{
    HOUR, ISS, LOGOUT, RECEIVER, REVOKED, SECOND, Slow, built, foreign_entry, foreign_entry_of,
    issuer, log_out, pass, push, receivers, user,
};

#[tokio::test]
async fn the_key_of_one_tenant_signs_no_logout_token_of_another() {
    const ACME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const EVIL: &str = "11111111-86f1-41af-91ab-2d7cd011db47";
    let iss = |tenant: &str| format!("https://login.example/{tenant}/v2.0");
    let (issuer, clock) = issuer();
    let mut set = issuer.jwks_json();
    set["keys"][0]["issuer"] = iss(EVIL).into();
    let template = Issuer::template("https://login.example/{tenantid}/v2.0", AUDIENCE).unwrap();
    let template = template.jwks(Jwks::from_json(set.to_string()).unwrap());
    let revocations = Revocations::in_memory();
    let verifier = built(template, &clock, &revocations);
    let app = receivers(&verifier, &revocations);
    let of_acme = issuer.token().issued_by(&iss(ACME)).claim("tid", ACME).build();
    assert_ne!(verdict(&verifier, &of_acme).await, "ok", "as an access token");
    let logout = issuer.logout_token("web").subject("alice").issued_by(&iss(ACME));
    assert_eq!(log_out(&app, &logout.claim("tid", ACME).build()).await, 400, "as a logout token");
}

#[tokio::test]
async fn a_revocation_counts_for_every_name_of_the_issuer() {
    let (issuer, clock) = issuer();
    let other = "https://login.custom.example/";
    let revocations = Revocations::in_memory();
    let verifier = built(issuer.issuer().alias(other).unwrap(), &clock, &revocations);
    let app = receivers(&verifier, &revocations);
    let token = issuer.token().subject("alice").issued_by(other).build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    let logout = issuer.logout_token("web").subject("alice").build();
    assert_eq!(log_out(&app, &logout).await, 200);
    assert_eq!(verdict(&verifier, &token).await, "revoked", "token by the alias");
}

const LATER_NAME: &str = "https://login.custom.example/";

/// A verifier whose lookup returns the issuer, also with a second name once the flag is set.
fn with_a_later_name(
    issuer: &TestIssuer,
    clock: &TestClock,
    revocations: &Revocations,
) -> (Verifier, Arc<AtomicBool>) {
    let (config, has_other) = (issuer.issuer(), Arc::new(AtomicBool::new(false)));
    let with_other = config.clone().alias(LATER_NAME).unwrap();
    let looked_up = Arc::clone(&has_other);
    let issuers = Issuers::lookup(move |_| {
        let has_other = looked_up.load(Ordering::SeqCst);
        Some(if has_other { with_other.clone() } else { config.clone() })
    });
    let verifier = Verifier::builder(issuers).clock(clock).revocations(revocations);
    (verifier.build().unwrap(), has_other)
}

#[tokio::test]
async fn a_revocation_counts_for_a_name_that_the_issuer_got_later() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let (verifier, has_other) = with_a_later_name(&issuer, &clock, &revocations);
    let app = receivers(&verifier, &revocations);
    assert_eq!(verdict(&verifier, &issuer.token().build()).await, "ok");
    has_other.store(true, Ordering::SeqCst);
    let token = issuer.token().subject("alice").issued_by(LATER_NAME).build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    let logout = issuer.logout_token("web").subject("alice").build();
    assert_eq!(log_out(&app, &logout).await, 200);
    assert_eq!(verdict(&verifier, &token).await, "revoked");
}

/// Once a token had the new name, the revocation also concerns the issuer that was cached before.
#[tokio::test]
async fn a_revocation_under_a_new_name_counts_for_the_name_that_was_cached_before() {
    for name in ["by the application", "by an event"] {
        let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
        let (verifier, has_other) = with_a_later_name(&issuer, &clock, &revocations);
        let app = receivers(&verifier, &revocations);
        let token = issuer.token().subject("alice").build();
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &token).await, "ok", "{name}: it is cached");
        }
        has_other.store(true, Ordering::SeqCst);
        clock.advance(SECOND);
        assert_eq!(verdict(&verifier, &issuer.token().issued_by(LATER_NAME).build()).await, "ok");
        if name == "by an event" {
            let event = issuer.security_event(RECEIVER, REVOKED, user(LATER_NAME, "alice"));
            assert_eq!(push(&app, &event.build()).await.status(), 202, "{name}");
        } else {
            revocations.subject(LATER_NAME, "alice").await.unwrap();
        }
        assert_eq!(verdict(&verifier, &token).await, "revoked", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn entries_beyond_a_million_leave_the_api_available() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let now = clock.unix_seconds();
    for number in 0..999_999 {
        store.append(&foreign_entry(number, now), HOUR).await.unwrap();
    }
    let slow = Slow { store, page: 1000, reads: Arc::default() };
    let revocations = Revocations::shared(slow);
    let verifier = built(issuer.issuer(), &clock, &revocations);
    verifier.warm_up().await.unwrap();
    let good = issuer.token().build();
    assert_eq!(verdict(&verifier, &good).await, "ok");
    // What two requests at once to /events do.
    let (one, other) = tokio::join!(
        revocations.session("https://evil.example/", "1"),
        revocations.session("https://evil.example/", "2"),
    );
    assert!(one.is_ok() && other.is_ok(), "{one:?}, {other:?}");
    let error = revocations.session("https://evil.example/", "3").await.unwrap_err().to_string();
    assert_eq!(error, "a million revocations, as many as are kept");
    pass(&clock, 70).await;
    assert_eq!(verdict(&verifier, &good).await, "ok", "a token of another issuer");
}

#[tokio::test]
async fn events_that_revoke_nothing_are_not_recorded() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let revocations = Revocations::shared(store.clone());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    let app = receivers(&verifier, &revocations);
    for timestamp in 1..=100 {
        let event = issuer.security_event(RECEIVER, REVOKED, user(ISS, "alice"));
        let event = event.claim("events", json!({ REVOKED: { "event_timestamp": timestamp } }));
        assert_eq!(push(&app, &event.build()).await.status(), 202);
    }
    // No token of 1970 is accepted.
    let log = store.read(None).await.unwrap().entries;
    assert!(log.len() <= 1, "{} entries in the log about one subject", log.len());
}

#[tokio::test]
async fn forged_tokens_do_not_have_events_with_a_new_key_thrown_away() {
    let (issuer, clock) = (TestIssuer::start().unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let revocations = Revocations::in_memory();
    let verifier = built(issuer.issuer(), &clock, &revocations);
    verifier.warm_up().await.unwrap();
    let app = receivers(&verifier, &revocations);
    // They spend all fetches that the issuer has.
    for number in 0..10 {
        let forged = issuer.token().header("kid", format!("unknown-{number}")).build();
        assert_eq!(verdict(&verifier, &forged).await, "unknown_key");
    }
    issuer.rotate().unwrap();
    let alice = user(issuer.iss(), "alice");
    let event = issuer.security_event(RECEIVER, REVOKED, alice).build();
    let logout = issuer.logout_token("web").claim("sid", "1").build();
    let fetches = issuer.jwks_fetches();
    let response = push(&app, &event).await;
    assert_eq!((response.status().as_u16(), log_out(&app, &logout).await), (503, 503));
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(issuer.jwks_fetches(), fetches, "the budget is spent");

    clock.advance(Duration::from_secs(5));
    assert_eq!(push(&app, &event).await.status(), 202, "tried again");
    assert_eq!(log_out(&app, &logout).await, 200, "tried again");

    // A key that the issuer does not have, as a fetch has shown.
    clock.advance(Duration::from_secs(5));
    let unknown = issuer.logout_token("web").claim("sid", "1").header("kid", "unknown").build();
    assert_eq!(log_out(&app, &unknown).await, 400);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_sent_again_after_an_outage_is_accepted() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let revocations = Revocations::shared(store.clone());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    verifier.warm_up().await.unwrap();
    let app = receivers(&verifier, &revocations);
    let token = issuer.token().subject("alice").build();
    let event = issuer.security_event(RECEIVER, REVOKED, user(ISS, "alice")).build();
    store.set_behavior(StoreBehavior::Fail);
    assert_eq!(push(&app, &event).await.status(), 503);
    pass(&clock, 200).await;
    store.set_behavior(StoreBehavior::Normal);
    pass(&clock, 2).await;
    // RFC 8935: the sender tries again, with the same token.
    assert_eq!(push(&app, &event).await.status(), 202);
    assert_eq!(verdict(&verifier, &token).await, "revoked");
}

#[tokio::test]
async fn errors_of_the_receiver_have_a_language() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    let response = push(&receivers(&verifier, &revocations), "x").await;
    assert_eq!(response.status(), 400);
    // RFC 8935 §2.3.
    assert!(response.headers().contains_key("content-language"), "{:?}", response.headers());
}

#[tokio::test]
async fn an_event_among_many_is_not_lost() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    let app = receivers(&verifier, &revocations);
    let mut events = json!({ REVOKED: {} });
    for number in 0..16 {
        events[format!("https://a.example/{number}")] = json!({});
    }
    let event = issuer.security_event(RECEIVER, REVOKED, user(ISS, "alice"));
    assert_eq!(push(&app, &event.claim("events", events).build()).await.status(), 202);
    let token = issuer.token().subject("alice").build();
    assert_eq!(verdict(&verifier, &token).await, "revoked", "202, and nothing was revoked");
}

#[tokio::test]
async fn a_logout_token_with_escapes_is_no_access_token() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let now = clock.unix_seconds();
    let verifiers = [
        ("with revocations", built(issuer.issuer(), &clock, &revocations)),
        ("without", Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap()),
    ];
    for (name, of, with) in [
        // As PHP writes JSON.
        ("escaped slashes", "/", "\\/"),
        ("an escaped dot", "schemas.", "schemas\\u002e"),
        ("an escaped letter", "openid", "\\u006Fpenid"),
    ] {
        let payload = json!({
            "iss": ISS, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 120, "jti": "x",
            "events": { "a": "\\", LOGOUT: {} },
        });
        let payload = payload.to_string().replace(of, with);
        assert!(payload.contains(with), "{name}");
        let token = issuer.token().header("typ", "JWT").payload(payload).build();
        for (whose, verifier) in &verifiers {
            assert_eq!(verdict(verifier, &token).await, "claim_value", "{name}, {whose}");
        }
    }
}

#[tokio::test]
async fn times_of_events_are_read_safely() {
    for (name, event, expected) in [
        ("negative", json!({ "event_timestamp": -1 }), "revoked"),
        ("a text", json!({ "event_timestamp": "1" }), "revoked"),
        ("huge", json!({ "event_timestamp": 1e300 }), "revoked"),
        ("in the future, in milliseconds", json!({ "event_timestamp": 9e12 }), "revoked"),
    ] {
        let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
        let verifier = built(issuer.issuer(), &clock, &revocations);
        let app = receivers(&verifier, &revocations);
        let set = issuer.security_event(RECEIVER, REVOKED, user(ISS, "alice"));
        let set = set.claim("events", json!({ REVOKED: event })).build();
        assert_eq!(push(&app, &set).await.status(), 202, "{name}");
        let token = issuer.token().subject("alice").build();
        assert_eq!(verdict(&verifier, &token).await, expected, "{name}");
        clock.advance(SECOND);
        let later = issuer.token().subject("alice").build();
        assert_eq!(verdict(&verifier, &later).await, "ok", "{name}");
        // Sent again: it does not reach tokens that were issued meanwhile.
        clock.advance(Duration::from_secs(70));
        assert_eq!(push(&app, &set).await.status(), 202, "{name}");
        assert_eq!(verdict(&verifier, &later).await, "ok", "{name}");
    }
}

#[tokio::test]
async fn an_issuer_revokes_no_tokens_of_another() {
    let (issuer, clock) = issuer();
    let evil = TestIssuer::offline("https://evil.example/").unwrap();
    evil.set_clock(&clock);
    let (own, of_evil) = (issuer.issuer(), evil.issuer());
    let issuers = Issuers::lookup(move |iss| {
        [&own, &of_evil].into_iter().find(|issuer| issuer.iss() == iss).cloned()
    });
    let revocations = Revocations::in_memory();
    let verifier = Verifier::builder(issuers).clock(&clock).revocations(&revocations);
    let verifier = verifier.build().unwrap();
    let app = receivers(&verifier, &revocations);
    let token = issuer.token().subject("alice").claim("sid", "1").claim("jti", "a").build();
    for subject in [
        user(ISS, "alice"),
        json!({ "format": "jwt_id", "iss": ISS, "jti": "a" }),
        json!({ "format": "opaque", "id": "1", "iss": ISS }),
        json!({ "format": "opaque", "id": "alice" }),
        json!({ "format": "complex", "user": user(ISS, "alice") }),
        json!({ "format": "complex", "session": user(ISS, "1") }),
        json!({ "user": user(ISS, "alice"), "session": { "format": "opaque", "id": "1" } }),
        json!({ "format": "complex", "user": { "format": "complex", "user": user(ISS, "alice") } }),
    ] {
        let event = evil.security_event(RECEIVER, REVOKED, subject.clone()).build();
        assert_eq!(push(&app, &event).await.status(), 202, "{subject}");
        assert_eq!(verdict(&verifier, &token).await, "ok", "{subject}");
    }
    let forged = evil.security_event(RECEIVER, REVOKED, user(ISS, "alice")).issued_by(ISS).build();
    assert_eq!(push(&app, &forged).await.status(), 400);
    assert_eq!(verdict(&verifier, &token).await, "ok");
}

#[tokio::test]
async fn a_token_that_is_verified_while_it_is_revoked_is_rejected() {
    let issuer = TestIssuer::start().unwrap();
    issuer.set_delay(Duration::from_millis(100));
    let revocations = Revocations::in_memory();
    let verifier = Verifier::builder(issuer.issuer()).revocations(&revocations).build().unwrap();
    let token = issuer.token().subject("alice").build();
    let revoke = async {
        tokio::task::yield_now().await;
        revocations.subject(issuer.iss(), "alice").await.unwrap();
    };
    let (code, ()) = tokio::join!(verdict(&verifier, &token), revoke);
    assert_eq!(code, "revoked");
}

#[tokio::test]
async fn a_token_that_is_revoked_while_its_proof_is_recorded_is_rejected() {
    for (name, revoked, expected) in
        [("the subject", "alice", Some("revoked")), ("another subject", "bob", None)]
    {
        let issuer = TestIssuer::offline(ISS).unwrap();
        let revocations = Revocations::in_memory();
        let store = Slow { store: TestStore::new(), page: 1000, reads: Arc::default() };
        let dpop = Dpop::new("https://api.example.com").unwrap().share_replays(store);
        let verifier = Verifier::builder(issuer.issuer()).dpop(dpop).revocations(&revocations);
        let layer = ProtectLayer::new(verifier.build().unwrap());
        let client = DpopClient::new().unwrap();
        let token = issuer.token().subject("alice").bound_to(&client).build();
        let proof = client.proof("GET", "https://api.example.com/", &token).build();
        let request = Request::get("/").header("authorization", format!("DPoP {token}"));
        let request = request.header("dpop", proof).body(()).unwrap().into_parts().0;
        let mut verifying = pin!(layer.verify_request(&request));
        let mut context = Context::from_waker(Waker::noop());
        assert!(verifying.as_mut().poll(&mut context).is_pending(), "{name}: waits for the store");
        revocations.subject(ISS, revoked).await.unwrap();
        let rejected = verifying.await.err();
        assert_eq!(rejected.map(|rejection| rejection.error().code()), expected, "{name}");
    }
}

#[tokio::test]
async fn an_opaque_token_without_iat_that_is_issued_after_a_sign_out_is_good() {
    let (issuer, clock) = (TestIssuer::start().unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let asked = Introspection::new(ClientAuth::client_secret("orders-api", "secret"));
    let revocations = Revocations::in_memory();
    let verifier = built(issuer.issuer().introspection(asked), &clock, &revocations);
    revocations.subject(issuer.iss(), "alice").await.unwrap();
    clock.advance(HOUR);
    let again = issuer.opaque_token(issuer.token().subject("alice").without_claim("iat"));
    assert_eq!(verdict(&verifier, &again).await, "ok");
}

#[tokio::test]
async fn a_token_from_before_the_entries_is_asked_about_once() {
    for kind in ["opaque", "JWT"] {
        let (issuer, clock) = (TestIssuer::start().unwrap(), TestClock::new());
        issuer.set_clock(&clock);
        let asked = Introspection::new(ClientAuth::client_secret("orders-api", "secret"));
        let revocations = Revocations::in_memory().keep_for(HOUR).unwrap();
        let configured = issuer.issuer().introspection(asked.jwts_too());
        let verifier = built(configured, &clock, &revocations);
        let now = clock.unix_seconds();
        let token = issuer.token().claim("iat", now - 2 * 3600).claim("exp", now + 3600);
        let token = if kind == "JWT" { token.build() } else { issuer.opaque_token(token) };
        for _ in 0..5 {
            assert_eq!(verdict(&verifier, &token).await, "revoked", "{kind}");
        }
        assert_eq!(issuer.introspections(), 1, "{kind}");
    }
}

#[tokio::test]
async fn identifiers_that_are_no_strings_are_rejected() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    for (claim, value, expected) in [
        ("jti", json!("42"), "ok"),
        ("jti", json!(42), "claim_type"),
        ("jti", json!(["42"]), "claim_type"),
        ("jti", json!(null), "ok"),
        ("sid", json!("42"), "ok"),
        ("sid", json!(42), "claim_type"),
        ("sid", json!({ "id": "42" }), "claim_type"),
        ("sid", json!(null), "ok"),
    ] {
        let token = issuer.token().claim(claim, value.clone()).build();
        assert_eq!(verdict(&verifier, &token).await, expected, "{claim} {value}");
    }
}

/// A tenant chooses its name, as one of a lookup does.
#[tokio::test]
async fn a_tenant_of_a_template_has_an_eighth_of_the_room() {
    const EVIL: &str = "11111111-86f1-41af-91ab-2d7cd011db47";
    const ACME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let iss = |tenant: &str| format!("https://login.example/{tenant}/v2.0");
    let (issuer, clock) = issuer();
    let hash: [u8; 8] = Sha256::digest(iss(EVIL))[..8].try_into().unwrap();
    let (store, now) = (TestStore::new(), clock.unix_seconds());
    for number in 0..125_000 {
        store.append(&foreign_entry_of(hash, number, now), HOUR).await.unwrap();
    }
    let revocations = Revocations::shared(store);
    let template = Issuer::template("https://login.example/{tenantid}/v2.0", AUDIENCE).unwrap();
    let verifier = built(template.jwks(issuer.jwks()), &clock, &revocations);
    verifier.warm_up().await.unwrap();
    let app = receivers(&verifier, &revocations);
    for (tenant, expected) in [(EVIL, 503), (ACME, 200)] {
        let logout = issuer.logout_token("web").claim("sid", "1").claim("tid", tenant);
        assert_eq!(log_out(&app, &logout.issued_by(&iss(tenant)).build()).await, expected);
    }
    // The application is not called either: what it revokes has no limit.
    let (handled, events) = counting(&verifier, &revocations);
    for (tenant, expected, calls) in [(EVIL, 503, 0), (ACME, 202, 1)] {
        let subject = json!({ "format": "email", "email": "alice@example.com" });
        let event = issuer.security_event(RECEIVER, REVOKED, subject).claim("tid", tenant);
        let event = event.issued_by(&iss(tenant)).build();
        assert_eq!(push(&events, &event).await.status(), expected, "{tenant}");
        assert_eq!(handled.load(Ordering::SeqCst), calls, "{tenant}");
    }
}

/// A receiver, and how often the application has handled an event.
fn counting(verifier: &Verifier, revocations: &Revocations) -> (Arc<AtomicUsize>, Router) {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let events = SecurityEvents::new(verifier, revocations, RECEIVER).on_other(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    (handled, Router::new().route_service("/events", events))
}

#[tokio::test(start_paused = true)]
async fn an_event_is_handled_once_by_all_replicas_also_if_the_store_fails() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let replica = || {
        let revocations = Revocations::shared(store.clone());
        let verifier = built(issuer.issuer(), &clock, &revocations);
        counting(&verifier, &revocations)
    };
    let subject = json!({ "format": "email", "email": "alice@example.com" });
    let event = issuer.security_event(RECEIVER, REVOKED, subject).build();
    let (handled, app) = replica();
    for (name, behavior, status, calls) in [
        ("before the log was read", StoreBehavior::Fail, 503, 0),
        ("the log is read", StoreBehavior::Normal, 202, 1),
        ("again", StoreBehavior::Normal, 202, 1),
    ] {
        store.set_behavior(behavior);
        assert_eq!(push(&app, &event).await.status(), status, "{name}");
        assert_eq!(handled.load(Ordering::SeqCst), calls, "{name}");
    }
    let (handled, app) = replica();
    assert_eq!(push(&app, &event).await.status(), 202, "another replica");
    assert_eq!(handled.load(Ordering::SeqCst), 0, "another replica");
    // The log is known, and what was handled cannot be recorded.
    let event = issuer.security_event(RECEIVER, REVOKED, json!({ "format": "email" }));
    let event = event.claim("jti", "other").build();
    for (name, behavior, status) in [
        ("not recorded", StoreBehavior::Fail, 503),
        ("not recorded again", StoreBehavior::Fail, 503),
        ("recorded", StoreBehavior::Normal, 202),
        ("again", StoreBehavior::Normal, 202),
    ] {
        store.set_behavior(behavior);
        assert_eq!(push(&app, &event).await.status(), status, "{name}");
        assert_eq!(handled.load(Ordering::SeqCst), 1, "{name}");
    }
    let (handled, app) = replica();
    assert_eq!(push(&app, &event).await.status(), 202);
    assert_eq!(handled.load(Ordering::SeqCst), 0, "it was recorded");
}

#[tokio::test]
async fn a_token_that_ends_after_its_entry_is_not_revoked_in_silence() {
    let ((_, clock), revocations) = (issuer(), Revocations::in_memory());
    let revocations = revocations.keep_for(24 * HOUR).unwrap();
    let _verifier = built(issuer().0.issuer(), &clock, &revocations);
    // The longest leeway of `exp`.
    let latest = 24 * HOUR + 300 * SECOND;
    for (after, expected) in [
        (HOUR, None),
        (24 * HOUR, None),
        (latest, None),
        (latest + SECOND, Some("`Revocations::keep_for`")),
    ] {
        let revoked = revocations.token(ISS, "1", clock.now() + after).await;
        let error = revoked.err().map(|error| error.to_string());
        let is_expected = match (&error, expected) {
            (None, None) => true,
            (Some(error), Some(expected)) => error.contains(expected),
            _ => false,
        };
        assert!(is_expected, "{after:?}: {error:?}");
    }
}

/// Tokens of that time are still accepted.
#[tokio::test]
async fn an_event_counts_as_long_as_entries_are_kept() {
    struct Case {
        seconds_ago: u64,
        before: &'static str,
        entries: usize,
    }

    for Case { seconds_ago, before, entries } in [
        Case { seconds_ago: 3599, before: "ok", entries: 1 },
        Case { seconds_ago: 3600, before: "ok", entries: 1 },
        // With the leeway, a token in use is accepted until it is looked up again.
        Case { seconds_ago: 3601, before: "revoked", entries: 1 },
        Case { seconds_ago: 3900, before: "revoked", entries: 1 },
        Case { seconds_ago: 3901, before: "revoked", entries: 0 },
    ] {
        let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
        let revocations = revocations.keep_for(HOUR).unwrap();
        let verifier = built(issuer.issuer(), &clock, &revocations);
        let app = receivers(&verifier, &revocations);
        let then = clock.unix_seconds() - seconds_ago;
        let token = issuer.token().subject("alice").claim("iat", then).build();
        assert_eq!(verdict(&verifier, &token).await, before, "{seconds_ago}");
        let event = issuer.security_event(RECEIVER, REVOKED, user(ISS, "alice"));
        let event = event.claim("events", json!({ REVOKED: { "event_timestamp": then } }));
        assert_eq!(push(&app, &event.build()).await.status(), 202, "{seconds_ago}");
        assert_eq!(revocations.health().entries, entries, "{seconds_ago}");
        assert_eq!(verdict(&verifier, &token).await, "revoked", "{seconds_ago}");
    }
}

#[tokio::test]
async fn an_event_is_not_handled_again_when_it_is_forgotten() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    let (handled, own) = (Arc::new(AtomicUsize::new(0)), revocations.clone());
    let count = Arc::clone(&handled);
    let events = SecurityEvents::new(&verifier, &revocations, RECEIVER).on_other(move |event| {
        count.fetch_add(1, Ordering::SeqCst);
        let own = own.clone();
        async move { own.subject_before(ISS, "alice", event.issued_before).await }
    });
    let app = Router::new().route_service("/events", events);
    let subject = json!({ "format": "email", "email": "alice@example.com" });
    let event = issuer.security_event(RECEIVER, REVOKED, subject).build();
    let before = issuer.token().subject("alice").build();
    for (name, hours, times) in [
        ("first", 0, 1),
        ("again", 0, 1),
        ("an hour later", 1, 1),
        ("at the end of the day", 22, 1),
        ("a month later", 30 * 24, 1),
        ("later still", 1, 1),
    ] {
        clock.advance(hours * HOUR);
        assert_eq!(push(&app, &event).await.status(), 202, "{name}");
        assert_eq!(handled.load(Ordering::SeqCst), times, "{name}");
        let token = issuer.token().subject("alice").build();
        if hours > 0 {
            assert_eq!(verdict(&verifier, &token).await, "ok", "{name}");
        } else {
            assert_eq!(verdict(&verifier, &before).await, "revoked", "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorded_event_that_is_sent_again_adds_nothing_to_the_log() {
    for (name, subject) in [
        ("a user", user(ISS, "alice")),
        ("a session", json!({ "format": "opaque", "id": "1" })),
        ("a token", json!({ "format": "jwt_id", "iss": ISS, "jti": "a" })),
    ] {
        let ((issuer, clock), store) = (issuer(), TestStore::new());
        let revocations = Revocations::shared(store.clone());
        let verifier = built(issuer.issuer(), &clock, &revocations);
        verifier.warm_up().await.unwrap();
        let app = receivers(&verifier, &revocations);
        let event = issuer.security_event(RECEIVER, REVOKED, subject).build();
        let mut entries = None;
        for hours in [0, 1, 22] {
            clock.advance(hours * HOUR);
            assert_eq!(push(&app, &event).await.status(), 202, "{name}");
            let found = store.read(None).await.unwrap().entries.len();
            assert_eq!(*entries.get_or_insert(found), found, "{name}, after {hours} hours");
        }
        assert_ne!(entries, Some(0), "{name}");
    }
}

#[tokio::test]
async fn a_time_in_the_future_revokes_no_later_token() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    let (old, late) = (issuer.token().build(), clock.now() + HOUR);
    revocations.subject_before(ISS, "test-subject", late).await.unwrap();
    assert_eq!(verdict(&verifier, &old).await, "revoked");
    clock.advance(2 * SECOND);
    assert_eq!(verdict(&verifier, &issuer.token().build()).await, "ok");
}

/// Hundreds of events about one large subject.
#[tokio::test]
async fn many_events_about_a_large_subject_are_answered() {
    let ((issuer, clock), revocations) = (issuer(), Revocations::in_memory());
    let verifier = built(issuer.issuer(), &clock, &revocations);
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let events = SecurityEvents::new(&verifier, &revocations, RECEIVER).on_other(move |event| {
        assert!(event.subject.is_some());
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    let app = Router::new().route_service("/events", events);
    let all: serde_json::Map<_, _> =
        (0..700).map(|number| (format!("{number:03x}"), json!(0))).collect();
    let empty: Vec<_> = (0..750).map(|_| json!({ "": 0 })).collect();
    let event = issuer.security_event(RECEIVER, "x", json!({ "a": empty })).claim("events", all);
    assert_eq!(push(&app, &event.build()).await.status(), 202);
    assert_eq!(handled.load(Ordering::SeqCst), 16);
}

#[tokio::test]
async fn the_key_of_a_tenant_signs_its_logout_tokens() {
    const ACME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let iss = format!("https://login.example/{ACME}/v2.0");
    let (issuer, clock) = issuer();
    let mut set = issuer.jwks_json();
    set["keys"][0]["issuer"] = iss.as_str().into();
    let template = Issuer::template("https://login.example/{tenantid}/v2.0", AUDIENCE).unwrap();
    let template = template.jwks(Jwks::from_json(set.to_string()).unwrap());
    let revocations = Revocations::in_memory();
    let verifier = built(template, &clock, &revocations);
    let app = receivers(&verifier, &revocations);
    let token = issuer.token().subject("alice").issued_by(&iss).claim("tid", ACME).build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    let logout = issuer.logout_token("web").subject("alice").issued_by(&iss);
    assert_eq!(log_out(&app, &logout.claim("tid", ACME).build()).await, 200);
    assert_eq!(verdict(&verifier, &token).await, "revoked");
}

#[tokio::test]
async fn an_issuer_with_two_names_revokes_what_an_event_names_by_one_of_them() {
    const ALIAS: &str = "https://login.custom.example/";
    for (iss, expected) in
        [(ISS, "revoked"), (ALIAS, "revoked"), ("https://another.example/", "ok")]
    {
        let (issuer, clock) = issuer();
        let revocations = Revocations::in_memory();
        let verifier = built(issuer.issuer().alias(ALIAS).unwrap(), &clock, &revocations);
        let app = receivers(&verifier, &revocations);
        let token = issuer.token().subject("alice").build();
        assert_eq!(verdict(&verifier, &token).await, "ok", "{iss}");
        let event = issuer.security_event(RECEIVER, REVOKED, user(iss, "alice")).build();
        assert_eq!(push(&app, &event).await.status(), 202, "{iss}");
        assert_eq!(verdict(&verifier, &token).await, expected, "{iss}");
    }
}
