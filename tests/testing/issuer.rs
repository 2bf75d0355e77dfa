//! `TestIssuer`: its keys, its server and its clock.

use std::sync::LazyLock;
use std::time::Duration;

use portcullis::testing::{Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, Error, Verifier};
use reqwest::{Client, StatusCode, redirect};
use serde_json::{Value, json};

use crate::{parts, start, verdict};

#[tokio::test]
async fn each_issuer_has_its_own_keys() {
    let (one, two) = (start().await, start().await);
    assert_ne!(one.jwks_json(), two.jwks_json());
    assert_ne!(one.iss(), two.iss());
    assert!(one.jwks().verify(&one.token().build()).is_ok());
    assert!(two.jwks().verify(&one.token().build()).is_err());
}

#[tokio::test]
async fn keys_can_be_rotated_and_withdrawn() {
    let issuer = start().await;
    let first = issuer.token().build();
    assert_eq!(issuer.rotate().unwrap(), "key-2");
    let second = issuer.token().build();
    assert_eq!(issuer.rotate_to(Algorithm::ES256).unwrap(), "key-3");
    let third = issuer.token().build();
    let verified = |token: &str| issuer.jwks().verify(token).is_ok();
    assert_eq!([&first, &second, &third].map(|token| verified(token)), [true, true, true]);
    assert_eq!(parts(&third).0["alg"], "ES256");

    issuer.withdraw_old_keys();
    assert_eq!([&first, &second, &third].map(|token| verified(token)), [false, false, true]);
    issuer.publish(json!({ "kty": "AKP" }));
    assert_eq!(issuer.jwks_json()["keys"].as_array().unwrap().len(), 2);
    assert!(verified(&third), "unsupported keys beside a usable one");
}

#[tokio::test]
async fn the_issuer_behaves_as_configured_and_counts_fetches() {
    let issuer = start().await;
    let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let patience = std::cell::Cell::new(Duration::from_secs(30));
    let get = async |path: &str| {
        let url = format!("{}{path}", issuer.iss());
        http.get(url).timeout(patience.get()).send().await
    };
    const KEYS: &str = ".well-known/jwks.json";
    let keys: Value = get(KEYS).await.unwrap().json().await.unwrap();
    assert_eq!(keys, issuer.jwks_json());
    let metadata: Value =
        get(".well-known/openid-configuration").await.unwrap().json().await.unwrap();
    assert_eq!(
        metadata,
        json!({
            "issuer": issuer.iss(),
            "jwks_uri": format!("{}{KEYS}", issuer.iss()),
            "introspection_endpoint": format!("{}introspect", issuer.iss()),
        })
    );
    assert_eq!(get("elsewhere").await.unwrap().status(), StatusCode::NOT_FOUND);

    issuer.set_behavior(Behavior::Status(503));
    assert_eq!(get(KEYS).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    issuer.set_behavior(Behavior::Body("odd".into()));
    assert_eq!(get(KEYS).await.unwrap().text().await.unwrap(), "odd");
    issuer.set_behavior(Behavior::Redirect("/x".into()));
    assert_eq!(get(KEYS).await.unwrap().headers()["location"], "/x");
    issuer.set_behavior(Behavior::Close);
    assert!(!get(KEYS).await.unwrap_err().is_timeout());
    issuer.set_behavior(Behavior::Hang);
    patience.set(Duration::from_millis(300));
    assert!(get(KEYS).await.unwrap_err().is_timeout());
    issuer.set_behavior(Behavior::Serve);
    patience.set(Duration::from_secs(30));
    assert_eq!(get(KEYS).await.unwrap().status(), StatusCode::OK);
    assert_eq!((issuer.metadata_fetches(), issuer.jwks_fetches()), (1, 7));
}

#[tokio::test]
async fn the_issuer_stops_when_dropped() {
    let issuer = start().await;
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let token = issuer.token().build();
    drop(issuer);
    assert!(matches!(verifier.verify(&token).await, Err(Error::KeysUnavailable { .. })));
}

#[test]
fn an_offline_issuer_provides_documents_for_another_server() {
    let issuer =
        TestIssuer::offline_with("https://issuer.example/tenant/", Algorithm::EdDSA).unwrap();
    let body = |path: &str| {
        issuer.answer(path).map(|answer| serde_json::from_str::<Value>(answer.body()).unwrap())
    };
    assert_eq!(body("/tenant/.well-known/jwks.json"), Some(issuer.jwks_json()));
    let metadata = body("/tenant/.well-known/openid-configuration").unwrap();
    assert_eq!(metadata["jwks_uri"], "https://issuer.example/tenant/.well-known/jwks.json");
    assert!(body("/.well-known/jwks.json").is_none());
    assert!(body("/tenant/other").is_none());
}

#[tokio::test]
async fn a_test_clock_controls_tokens_and_verification() {
    let (issuer, clock) = (start().await, TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let before = clock.now();
    let token = issuer.token().build();
    clock.advance(Duration::from_secs(3600));
    assert_eq!(clock.now().duration_since(before).unwrap(), Duration::from_secs(3600));
    assert!(verifier.verify(&token).await.is_ok(), "within the leeway");
    clock.advance(Duration::from_secs(30));
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), "expired");
    assert_eq!(parts(&issuer.token().build()).1["iat"], clock.unix_seconds());
}

#[test]
fn debug_output_contains_no_key() {
    let secret = "0123456789abcdef0123456789abcdef";
    let issuer = TestIssuer::offline_with_secret(
        "https://issuer.example/",
        Algorithm::HS256,
        secret.as_bytes(),
    );
    let shown = format!("{issuer:?} {:?} {:?}", issuer.token(), issuer.issuer());
    assert!(!shown.contains(secret) && !shown.contains("48, 49, 50"), "{shown}");
}

/// The issuer outlives the runtime that used it first.
#[test]
fn tests_can_share_an_issuer_in_a_static() {
    static ISSUER: LazyLock<TestIssuer> =
        LazyLock::new(|| TestIssuer::start_with(Algorithm::EdDSA).unwrap());
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(verdict(&ISSUER, &ISSUER.token().build())), "ok");
    }
    assert_eq!(ISSUER.jwks_fetches(), 2);
}

#[test]
fn threads_can_share_an_issuer() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let (issuer, tokens) = (&issuer, std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..20 {
                    tokens.lock().unwrap().push(issuer.token().build());
                    issuer.rotate().unwrap();
                }
            });
        }
    });
    let jwks = issuer.jwks();
    assert_eq!(issuer.jwks_json()["keys"].as_array().unwrap().len(), 81);
    assert!(tokens.into_inner().unwrap().iter().all(|token| jwks.verify(token).is_ok()));
}

#[tokio::test]
async fn opaque_tokens_are_answered_about_until_they_expire_or_are_revoked() {
    let (issuer, clock) = (TestIssuer::start().unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let ask = async |token: &str| -> Value {
        let form = [("token", token), ("token_type_hint", "access_token")];
        let request = reqwest::Client::new().post(format!("{}introspect", issuer.iss()));
        request.form(&form).send().await.unwrap().json().await.unwrap()
    };
    let inactive = json!({ "active": false });
    let alice = issuer.opaque_token(issuer.token().subject("alice"));
    let bob = issuer.opaque_token(issuer.token().subject("bob"));
    let jwt = issuer.token().subject("carol").build();
    for (token, subject) in [(&alice, "alice"), (&bob, "bob"), (&jwt, "carol")] {
        let answer = ask(token).await;
        assert_eq!((&answer["active"], &answer["sub"]), (&json!(true), &json!(subject)));
        assert_eq!(answer["token_type"], "Bearer");
        assert_eq!(answer, issuer.introspect(token));
    }
    assert_eq!(ask("unknown").await, inactive);
    assert_eq!(issuer.introspections(), 4);
    issuer.revoke(&alice);
    issuer.revoke(&jwt);
    assert_eq!(ask(&alice).await, inactive);
    assert_eq!(ask(&jwt).await, inactive);
    assert_eq!(ask(&bob).await["active"], true);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(ask(&bob).await, inactive);
    issuer.set_introspection_behavior(Behavior::Body("{}".to_owned()));
    assert_eq!(ask(&bob).await, json!({}));
}
