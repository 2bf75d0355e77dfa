//! The test kit keeps its own promises.

use std::time::{Duration, SystemTime};

use portcullis::testing::{AUDIENCE, Behaviour, TestClock, TestIssuer};
use portcullis::{Algorithm, Error, Verifier};
use reqwest::{Client, StatusCode, redirect};
use serde_json::{Value, json};

/// Header and claims of a token, unverified.
fn parts(token: &str) -> (Value, Value) {
    let part = |part: &str| {
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let mut parts = token.split('.');
    (part(parts.next().unwrap()), part(parts.next().unwrap()))
}

async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).await.unwrap()
}

async fn verdict(issuer: &TestIssuer, token: &str) -> &'static str {
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
}

#[tokio::test]
async fn a_token_is_good_until_it_is_made_something_else() {
    let (issuer, other) = (start().await, start().await);
    let token = || issuer.token();
    for (name, token, expected) in [
        ("as it comes", token(), "ok"),
        ("subject and scope", token().subject("alice").scope("a b"), "ok"),
        ("any claim", token().claim("org_id", "org_1"), "ok"),
        ("expired", token().expired(), "expired"),
        ("not yet valid", token().not_yet_valid(), "not_yet_valid"),
        ("another audience", token().audience("x"), "audience"),
        ("another issuer", token().issued_by("x"), "unknown_issuer"),
        ("without a claim", token().without_claim("exp"), "missing_claim"),
        ("signed by another", token().signed_by(&other), "signature"),
        ("tampered", token().tampered(), "signature"),
        ("alg none", token().header("alg", "none"), "unsupported_algorithm"),
        ("another kid", token().header("kid", "x"), "unknown_key"),
        ("no kid", token().without_header("kid"), "ok"),
        ("another payload", token().payload("x"), "malformed"),
    ] {
        assert_eq!(verdict(&issuer, &token.build()).await, expected, "{name}");
    }
}

#[test]
fn a_token_says_what_was_asked_for() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    let (header, claims) = parts(&issuer.token().subject("alice").scope("a b").claim("n", json!([1])).build());
    assert_eq!(header, json!({ "alg": "ES256", "kid": "key-1", "typ": "at+jwt" }));
    let iat = claims["iat"].as_u64().unwrap();
    let expected = json!({
        "iss": "https://issuer.example/", "sub": "alice", "aud": AUDIENCE, "client_id": "test-client",
        "iat": iat, "exp": iat + 3600, "scope": "a b", "n": [1],
    });
    assert_eq!(claims, expected);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - iat;
    assert!(age < 60, "dated {age}s ago");

    // The signature is the other's, the name stays.
    let other = TestIssuer::offline("https://other.example/").unwrap();
    let (header, claims) = parts(&issuer.token().signed_by(&other).build());
    assert_eq!(
        (&header["alg"], &header["kid"], &claims["iss"]),
        (&json!("RS256"), &json!("key-1"), &json!(issuer.iss()))
    );
}

#[tokio::test]
async fn each_issuer_has_keys_of_its_own() {
    let (one, two) = (start().await, start().await);
    assert_ne!(one.jwks_json(), two.jwks_json());
    assert_ne!(one.iss(), two.iss());
    assert!(one.jwks().verify(&one.token().build()).is_ok());
    assert!(two.jwks().verify(&one.token().build()).is_err());
}

#[tokio::test]
async fn keys_rotate_and_are_withdrawn() {
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
    assert!(verified(&third), "odd keys beside the good one");
}

#[tokio::test]
async fn it_behaves_as_told_and_counts() {
    let issuer = start().await;
    let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let get = async |path: &str| {
        let url = format!("{}{path}", issuer.iss());
        http.get(url).timeout(Duration::from_millis(300)).send().await
    };
    const KEYS: &str = ".well-known/jwks.json";
    let keys: Value = get(KEYS).await.unwrap().json().await.unwrap();
    assert_eq!(keys, issuer.jwks_json());
    let metadata: Value = get(".well-known/openid-configuration").await.unwrap().json().await.unwrap();
    assert_eq!(metadata, json!({ "issuer": issuer.iss(), "jwks_uri": format!("{}{KEYS}", issuer.iss()) }));
    assert_eq!(get("elsewhere").await.unwrap().status(), StatusCode::NOT_FOUND);

    issuer.behave(Behaviour::Status(503));
    assert_eq!(get(KEYS).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    issuer.behave(Behaviour::Body("odd".into()));
    assert_eq!(get(KEYS).await.unwrap().text().await.unwrap(), "odd");
    issuer.behave(Behaviour::Redirect("/x".into()));
    assert_eq!(get(KEYS).await.unwrap().headers()["location"], "/x");
    issuer.behave(Behaviour::Close);
    assert!(!get(KEYS).await.unwrap_err().is_timeout());
    issuer.behave(Behaviour::Hang);
    assert!(get(KEYS).await.unwrap_err().is_timeout());
    issuer.behave(Behaviour::Serve);
    assert_eq!(get(KEYS).await.unwrap().status(), StatusCode::OK);
    assert_eq!((issuer.metadata_fetches(), issuer.jwks_fetches()), (1, 7));
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let issuer = start().await;
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let token = issuer.token().build();
    drop(issuer);
    assert!(matches!(verifier.verify(&token).await, Err(Error::KeysUnavailable { .. })));
}

#[test]
fn offline_it_answers_for_a_server_of_your_own() {
    let issuer = TestIssuer::offline_with("https://issuer.example/tenant/", Algorithm::EdDSA).unwrap();
    let body = |path: &str| issuer.answer(path).map(|answer| serde_json::from_str::<Value>(answer.body()).unwrap());
    assert_eq!(body("/tenant/.well-known/jwks.json"), Some(issuer.jwks_json()));
    let metadata = body("/tenant/.well-known/openid-configuration").unwrap();
    assert_eq!(metadata["jwks_uri"], "https://issuer.example/tenant/.well-known/jwks.json");
    assert!(body("/.well-known/jwks.json").is_none());
    assert!(body("/tenant/other").is_none());
}

#[tokio::test]
async fn a_clock_moves_tokens_and_keys() {
    let (issuer, clock) = (start().await, TestClock::new());
    issuer.clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let before = clock.now();
    let token = issuer.token().build();
    clock.advance(Duration::from_secs(3600));
    assert_eq!(clock.now().duration_since(before).unwrap(), Duration::from_secs(3600));
    assert!(verifier.verify(&token).await.is_ok(), "the leeway");
    clock.advance(Duration::from_secs(30));
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), "expired");
    assert_eq!(parts(&issuer.token().build()).1["iat"], clock.unix_seconds());
}

#[test]
fn debug_shows_no_key() {
    let secret = "0123456789abcdef0123456789abcdef";
    let issuer = TestIssuer::offline_with_secret("https://issuer.example/", Algorithm::HS256, secret.as_bytes());
    let shown = format!("{issuer:?} {:?} {:?}", issuer.token(), issuer.issuer());
    assert!(!shown.contains(secret) && !shown.contains("48, 49, 50"), "{shown}");
}
