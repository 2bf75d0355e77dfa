//! Flaws seen in other libraries of this kind, each as a test that it is not one of ours. Those that the other files have a
//! table for are not repeated here: tokens without `aud` or `iss` (`claims.rs`), services called without having been ready
//! (`middleware.rs`), one odd key losing the set, withdrawn keys, missed rotations, refetches without bound (`keys.rs`).

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Jwks, Verifier};
use serde_json::json;

async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}

/// Giving the keys' address switched the check of `iss` off.
#[tokio::test]
async fn the_issuer_is_checked_also_where_the_keys_address_is_given() {
    let issuer = start().await;
    let keys = format!("{}.well-known/jwks.json", issuer.iss());
    let verifier =
        Verifier::new(Issuer::new(issuer.iss(), AUDIENCE).unwrap().jwks_uri(&keys).unwrap())
            .unwrap();
    assert!(verifier.verify(&issuer.token().build()).await.is_ok());
    let other = verifier.verify(&issuer.token().issued_by("https://other.example/").build()).await;
    assert_eq!(other.unwrap_err().code(), "unknown_issuer");
}

/// With both of `jsonwebtoken`'s providers compiled in, by whomever, every token was a panic.
#[cfg(all(feature = "aws-lc-rs", feature = "rust-crypto"))]
#[tokio::test]
async fn two_cryptographies_in_one_binary_do_not_panic() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let issuer = TestIssuer::start_with(algorithm).unwrap();
        assert!(
            Verifier::new(issuer.issuer()).unwrap().verify(&issuer.token().build()).await.is_ok()
        );
    }
    let issuer =
        TestIssuer::offline_with_secret("https://issuer.example/", Algorithm::HS256, &[7; 32]);
    assert!(Verifier::new(issuer.issuer()).unwrap().verify(&issuer.token().build()).await.is_ok());
}

/// A junk `kid` and an issuer that hangs held a lock that every good request waited for.
#[tokio::test]
async fn a_hanging_issuer_does_not_stop_known_keys() {
    let (issuer, clock) = (start().await, TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    assert!(verifier.verify(&issuer.token().build()).await.is_ok());

    issuer.set_behavior(Behavior::Hang);
    clock.advance(Duration::from_secs(10));
    let (junk, good) = (issuer.token().header("kid", "junk").build(), issuer.token().build());
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = pin!(verifier.verify(&junk));
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    for _ in 0..100 {
        assert!(matches!(pin!(verifier.verify(&good)).poll(&mut context), Poll::Ready(Ok(_))));
    }
}

/// The `kid` of an unverified token was sent to the issuer, as a query.
#[tokio::test]
async fn nothing_of_a_token_is_sent_to_the_issuer() {
    let keys = TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, jwks) = (Arc::clone(&asked), keys.jwks_json().to_string());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let iss = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({ "issuer": iss, "jwks_uri": format!("{iss}/keys") }).to_string();
    let router = Router::new().fallback(async move |uri: Uri| {
        log.lock().unwrap().push(uri.to_string());
        if uri.path() == "/keys" { jwks } else { metadata }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });

    let verifier = Verifier::new(Issuer::new(&iss, AUDIENCE).unwrap()).unwrap();
    let token = keys.token().issued_by(&iss).subject("CANARY").header("kid", "CANARY").build();
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), "unknown_key");
    assert_eq!(*asked.lock().unwrap(), ["/.well-known/openid-configuration", "/keys"]);
}

/// A backend sliced the first 32 bytes of a key that a stranger's set may have shorter.
#[test]
fn short_keys_do_not_panic() {
    for length in 0..43 {
        let x = "A".repeat(length);
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] });
        assert!(Jwks::from_json(set.to_string()).is_err(), "{length} characters");
        let set = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": x }] });
        assert!(Jwks::from_json(set.to_string()).is_err(), "{length} characters");
    }
}

/// Header members that are no strings failed the whole header.
#[tokio::test]
async fn a_header_may_have_members_of_any_type() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    for value in [json!(1_795_000_000), json!(true), json!(null), json!(["x"]), json!({ "x": 1 })] {
        assert!(verifier.verify(&issuer.token().header("oiat", value).build()).await.is_ok());
    }
}
