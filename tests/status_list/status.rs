//! Which tokens are rejected, on which path through the verifier.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use portcullis::testing::{AUDIENCE, DpopClient, TestClock, TestIssuer};
use portcullis::{
    Algorithm, ClientAuth, Dpop, Error, Introspection, Issuer, ProtectLayer, Revocations,
    StatusLists, Verifier,
};
use serde_json::{Value, json};
use tower::{Layer as _, service_fn};

use crate::eventually::eventually;
use crate::verdict::verdict;
use crate::{Api, HOUR, LIFETIME, seconds};

#[tokio::test]
async fn only_status_0_is_accepted() {
    let api = Api::new();
    for (index, status) in [(1, 1), (2, 2), (3, 3), (4, 255), (1023, 1), (2047, 1)] {
        api.issuer.set_status(index, status);
    }
    for (name, index, expected) in [
        ("valid", 0, "ok"),
        ("invalid", 1, "revoked"),
        ("suspended", 2, "revoked"),
        ("of the application", 3, "revoked"),
        ("unknown", 4, "revoked"),
        ("the last one", 2047, "revoked"),
        ("before the last one", 2046, "ok"),
        ("past the last one", 2048, "claim_value"),
        ("the highest index", u32::MAX, "claim_value"),
    ] {
        // From the second time on, it is cached.
        let token = api.token(index);
        for _ in 0..3 {
            assert_eq!(api.verdict(&token).await, expected, "{name}");
        }
    }
    assert_eq!(api.fetches(), 1);
    let without = api.issuer.token().build();
    assert_eq!(api.verdict(&without).await, "ok", "a token without a status");
}

#[tokio::test]
async fn tokens_can_be_required_to_name_a_list() {
    struct Case {
        name: &'static str,
        lists: StatusLists,
        status: Option<Value>,
        expected: &'static str,
    }
    let lists = StatusLists::new;
    let other = || Some(json!({ "other_list": {} }));
    for Case { name, lists, status, expected } in [
        Case { name: "no claim", lists: lists(), status: None, expected: "ok" },
        Case { name: "another mechanism", lists: lists(), status: other(), expected: "ok" },
        Case {
            name: "no claim, required",
            lists: lists().required(),
            status: None,
            expected: "missing_claim",
        },
        Case {
            name: "another mechanism, required",
            lists: lists().required(),
            status: other(),
            expected: "missing_claim",
        },
    ] {
        let api = Api::with(lists);
        let token = api.issuer.token();
        let token = status.into_iter().fold(token, |token, status| token.claim("status", status));
        assert_eq!(api.verdict(&token.build()).await, expected, "{name}");
        assert_eq!(api.fetches(), 0, "{name}");
        assert_eq!(api.verdict(&api.token(0)).await, "ok", "{name}, with a list");
    }
}

#[tokio::test]
async fn without_the_setting_the_claim_is_ignored() {
    let api = Api::new();
    api.issuer.set_status(1, 1);
    let verifier = Verifier::new(api.issuer.issuer()).unwrap();
    assert_eq!(verdict(&verifier, &api.token(1)).await, "ok");
    assert_eq!(api.fetches(), 0);
}

#[tokio::test]
async fn a_change_takes_effect_for_cached_tokens() {
    let api = Api::new();
    let token = api.token(7);
    for _ in 0..3 {
        assert_eq!(api.verdict(&token).await, "ok");
    }
    api.issuer.set_status(7, 1);
    assert_eq!(api.verdict(&token).await, "ok", "the list is still fresh");
    // A refresh begins at 72 to 88 % of the lifetime, and delays no request.
    api.clock.advance(LIFETIME.mul_f64(0.7));
    assert_eq!(api.verdict(&token).await, "ok");
    assert_eq!(api.fetches(), 1);
    api.clock.advance(LIFETIME.mul_f64(0.2));
    api.refresh(&token, 2).await;
    eventually("the change", || {
        api.verifier.try_verify(&token).is_some_and(|verified| verified.is_err())
    })
    .await;
    assert_eq!(api.verdict(&token).await, "revoked");
}

#[tokio::test]
async fn open_streams_notice_a_change() {
    for (name, forget) in [("the list has ended", false), ("the list was dropped", true)] {
        let api = Api::new();
        let token = api.verifier.verify(&api.token(7)).await.unwrap();
        let other = api.verifier.verify(&api.token(8)).await.unwrap();
        api.issuer.set_status(7, 1);
        api.clock.advance(LIFETIME);
        if forget {
            api.verifier.forget(api.issuer.iss());
        }
        let revoked = tokio::time::timeout(seconds(10), token.until_revoked());
        assert!(revoked.await.is_ok(), "{name}");
        let revoked = tokio::time::timeout(Duration::from_millis(1), other.until_revoked());
        assert!(revoked.await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn nested_layers_see_a_change_between_them() {
    struct Case {
        name: &'static str,
        revoke: bool,
        expected: (u16, Option<&'static str>),
    }
    for Case { name, revoke, expected } in [
        Case { name: "valid", revoke: false, expected: (200, None) },
        Case { name: "revoked in between", revoke: true, expected: (401, Some("revoked")) },
    ] {
        let api = Arc::new(Api::new());
        let layer = ProtectLayer::new(api.verifier.clone());
        let between = {
            let api = Arc::clone(&api);
            tower::util::MapRequestLayer::new(move |request: Request<Body>| {
                if revoke {
                    api.issuer.set_status(0, 1);
                    api.clock.advance(LIFETIME);
                }
                request
            })
        };
        let inner = service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(axum::http::Response::new(Body::empty()))
        });
        let service = layer.layer(between.layer(layer.layer(inner)));
        let request = Request::get("/").header("authorization", format!("Bearer {}", api.token(0)));
        let request = request.body(Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
        let code = response.extensions().get::<Error>().map(Error::code);
        assert_eq!((response.status().as_u16(), code), expected, "{name}");
        assert_eq!(api.fetches(), if revoke { 2 } else { 1 }, "{name}");
    }
}

#[tokio::test]
async fn bound_tokens_have_a_status_too() {
    let issuer = TestIssuer::start_with(Algorithm::ES256).unwrap();
    let dpop = Dpop::new("https://api.example.com").unwrap();
    let dpop = dpop.algorithms([Algorithm::ES256, Algorithm::PS256, Algorithm::EdDSA]).unwrap();
    // Required status lists alone are a way to revoke tokens, as FAPI 2.0 requires one.
    let config = issuer.issuer().fapi2();
    assert!(Verifier::builder(config.clone()).dpop(dpop.clone()).build().is_err());
    let config = config.status_lists(StatusLists::new().required());
    let verifier = Verifier::builder(config).dpop(dpop).build().unwrap();
    let layer = ProtectLayer::new(verifier).layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(axum::http::Response::new(Body::empty()))
    }));
    let client = DpopClient::new().unwrap();
    issuer.set_status(1, 1);
    for (name, index, expected) in
        [("valid", 0, "ok"), ("revoked", 1, "revoked"), ("out of range", 5000, "claim_value")]
    {
        let token = issuer.token().bound_to(&client).status(&issuer.status_list(), index).build();
        for _ in 0..3 {
            let proof = client.proof("GET", "https://api.example.com/", &token).build();
            let request = Request::get("/").header("authorization", format!("DPoP {token}"));
            let request = request.header("dpop", proof).body(Body::empty()).unwrap();
            let response = tower::ServiceExt::oneshot(layer.clone(), request).await.unwrap();
            let code = response.extensions().get::<Error>().map_or("ok", Error::code);
            assert_eq!(code, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn tokens_that_are_asked_about_have_a_status_too() {
    let auth = || ClientAuth::client_secret("orders-api", "secret");
    let (issuer, clock) = (TestIssuer::start().unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let introspection = Introspection::new(auth()).jwts_too();
    let config = issuer.issuer().introspection(introspection).status_lists(StatusLists::new());
    let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
    issuer.set_status(1, 1);
    let token = |index| issuer.token().valid_for(HOUR).status(&issuer.status_list(), index).build();
    let (good, bad) = (token(0), token(1));
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &good).await, "ok");
        assert_eq!(verdict(&verifier, &bad).await, "revoked");
    }
    assert_eq!(issuer.status_list_fetches(), 1);
    issuer.set_status(0, 1);
    clock.advance(LIFETIME);
    assert_eq!(verdict(&verifier, &good).await, "revoked", "the answer is cached or asked again");

    // Where the answer replaces the JWT, its claim `status` is not looked up.
    for introspection in [
        Introspection::new(auth()).instead_of_keys(),
        Introspection::new(auth()).instead_of_keys().signed(),
    ] {
        let config = issuer.issuer().introspection(introspection).status_lists(StatusLists::new());
        let error = Verifier::new(config).unwrap_err().to_string();
        assert!(error.contains("instead_of_keys"), "{error}");
    }
}

#[test]
fn settings_are_bounded() {
    let lists = StatusLists::new;
    let issuer = |iss: &str| Issuer::new(iss, AUDIENCE).unwrap().status_lists(lists());
    for (name, is_accepted) in [
        ("an origin", lists().allow_origin("https://status.example.com").is_ok()),
        ("an hour", lists().max_stale(HOUR).is_ok()),
        ("an issuer that is a URL", Verifier::new(issuer("https://issuer.example/")).is_ok()),
    ] {
        assert!(is_accepted, "{name}");
    }
    let jwks = TestIssuer::offline("x").unwrap().jwks();
    for (name, is_accepted) in [
        ("a path", lists().allow_origin("https://status.example.com/lists").is_ok()),
        ("a query", lists().allow_origin("https://status.example.com/?a").is_ok()),
        ("no URL", lists().allow_origin("status.example.com").is_ok()),
        ("another scheme", lists().allow_origin("ftp://status.example.com").is_ok()),
        ("stale for long", lists().max_stale(HOUR + seconds(1)).is_ok()),
        ("an issuer that is no URL", Verifier::new(issuer("x").jwks(jwks)).is_ok()),
    ] {
        assert!(!is_accepted, "{name}");
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_while_its_list_is_fetched_is_rejected() {
    struct Case {
        name: &'static str,
        revoked: &'static str,
        expected: &'static str,
    }
    for Case { name, revoked, expected } in [
        Case { name: "the subject", revoked: "alice", expected: "revoked" },
        Case { name: "another subject", revoked: "bob", expected: "ok" },
    ] {
        let issuer = TestIssuer::start().unwrap();
        let revocations = Revocations::in_memory();
        let config = issuer.issuer().jwks(issuer.jwks()).status_lists(StatusLists::new());
        let verifier = Verifier::builder(config).revocations(&revocations).build().unwrap();
        let token = issuer.token().subject("alice").status(&issuer.status_list(), 0).build();
        let mut verifying = pin!(verdict(&verifier, &token));
        let mut context = Context::from_waker(Waker::noop());
        assert!(verifying.as_mut().poll(&mut context).is_pending(), "waits for the list");
        revocations.subject(issuer.iss(), revoked).await.unwrap();
        assert_eq!(verifying.await, expected, "{name}");
    }
}

/// The claims of a cached token are parsed once, so that a hit returns the same allocation.
#[tokio::test]
async fn tokens_with_a_status_are_cached() {
    let api = Api::new();
    let token = api.token(7);
    let verified = async || api.verifier.verify(&token).await.unwrap();
    let claims = async || verified().await.claims::<Value>().unwrap();
    // A token is cached from its second verification on.
    claims().await;
    claims().await;
    assert!(Arc::ptr_eq(&claims().await, &claims().await));
}
