//! Regression tests for flaws of other libraries of this kind. Flaws that a table in another file
//! covers are not repeated here: tokens without `aud` or `iss` (`token/claims.rs`), services called
//! before they are ready (`middleware/readiness.rs`), a set lost because of one unsupported key,
//! withdrawn keys, missed rotations, and unbounded refetches (`keys/`).

#[path = "support/poll_once.rs"]
mod poll_once;

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use poll_once::poll_once;
use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Jwks, Verifier};
use serde_json::json;

async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}

/// The flaw: configuring `jwks_uri` disabled the check of `iss`.
#[tokio::test]
async fn iss_is_checked_even_if_jwks_uri_is_configured() {
    let issuer = start().await;
    let keys = format!("{}.well-known/jwks.json", issuer.iss());
    let verifier =
        Verifier::new(Issuer::new(issuer.iss(), AUDIENCE).unwrap().jwks_uri(&keys).unwrap())
            .unwrap();
    assert!(verifier.verify(&issuer.token().build()).await.is_ok());
    let other = verifier.verify(&issuer.token().issued_by("https://other.example/").build()).await;
    assert_eq!(other.unwrap_err().code(), "unknown_issuer");
}

/// The flaw: if any crate enabled both crypto providers of `jsonwebtoken`, every token caused a
/// panic.
#[cfg(all(feature = "aws-lc-rs", feature = "rust-crypto"))]
#[tokio::test]
async fn two_cryptography_backends_in_one_binary_do_not_panic() {
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

/// The flaw: with a hanging issuer, an unknown `kid` held a lock that every valid request waited
/// for.
#[tokio::test]
async fn known_keys_verify_while_the_issuer_hangs() {
    let (issuer, clock) = (start().await, TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    assert!(verifier.verify(&issuer.token().build()).await.is_ok());

    issuer.set_behavior(Behavior::Hang);
    clock.advance(Duration::from_secs(10));
    let (junk, good) = (issuer.token().header("kid", "junk").build(), issuer.token().build());
    let mut waiting = pin!(verifier.verify(&junk));
    assert!(poll_once(waiting.as_mut()).is_pending());
    for _ in 0..100 {
        assert!(matches!(poll_once(pin!(verifier.verify(&good))), Poll::Ready(Ok(_))));
    }
}

/// The flaw: the `kid` of an unverified token was sent to the issuer in the query.
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

/// The flaw: a backend sliced the first 32 bytes of a key, but keys in an untrusted set may be
/// shorter.
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

/// The flaw: a member that was not a string failed the whole header.
#[tokio::test]
async fn header_members_may_have_any_type() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    for value in [json!(1_795_000_000), json!(true), json!(null), json!(["x"]), json!({ "x": 1 })] {
        assert!(verifier.verify(&issuer.token().header("oiat", value).build()).await.is_ok());
    }
}
