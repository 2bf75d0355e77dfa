//! Tokens that name unknown keys. Anyone can write them, so they cause few fetches, and they delay
//! neither valid tokens nor rotations for long.

use std::pin::pin;
use std::time::Duration;

use portcullis::Algorithm;
use portcullis::testing::{Behavior, TestIssuer};
use serde_json::json;

use crate::poll_once::poll_once;
use crate::support::{api, api_with};

/// Unknown keys cause few fetches, whether these succeed or fail, and do not delay tokens of known
/// keys.
#[tokio::test]
async fn unknown_keys_have_a_budget_that_does_not_limit_known_keys() {
    struct Case {
        name: &'static str,
        behavior: Behavior,
        verdict: &'static str,
    }
    // While the issuer cannot be reached, the key may exist: the keys are unavailable, the token is
    // not invalid.
    for Case { name, behavior, verdict } in [
        Case { name: "available issuer", behavior: Behavior::Serve, verdict: "unknown_key" },
        Case {
            name: "failing issuer",
            behavior: Behavior::Status(500),
            verdict: "keys_unavailable",
        },
    ] {
        let api = api().await;
        assert_eq!(api.good().await, "ok");
        api.issuer.set_behavior(behavior);
        let junk =
            |number: usize| api.issuer.token().header("kid", format!("junk-{number}")).build();
        // A failed fetch is retried once.
        let requests = if verdict == "unknown_key" { 1 } else { 2 };
        for (passes, fetches) in [(0, 3), (4, 0), (1, 1), (5, 1), (60, 3)] {
            api.seconds_pass(passes);
            let asked = || api.verifier.health()[0].fetches;
            let (before, before_requests) =
                (asked(), api.issuer.jwks_fetches() + api.issuer.metadata_fetches());
            for number in 0..100 {
                assert_eq!(
                    api.verdict(&junk(1000 * passes as usize + number)).await,
                    verdict,
                    "{name}"
                );
            }
            assert_eq!(asked() - before, fetches, "{name}: after {passes} s");
            let requested =
                api.issuer.jwks_fetches() + api.issuer.metadata_fetches() - before_requests;
            assert!(requested as u64 <= fetches * requests, "{name}: {requested} requests");
            assert_eq!(api.good().await, "ok", "{name}: the budget does not limit known keys");
        }
        api.seconds_pass(10);
        let forged = api.issuer.token().tampered().build();
        assert_eq!(
            api.verdict(&forged).await,
            "bad_signature",
            "{name}: a bad signature of a known key needs no fetch"
        );
    }
}

/// An attacker names nonexistent keys. This causes few fetches, and a rotation is delayed by five
/// seconds at most.
#[tokio::test]
async fn a_flood_of_unknown_keys_delays_a_rotation_by_five_seconds_at_most() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    let junk =
        |number: u64| api.issuer.token().header("kid", format!("junk-{number}")).tampered().build();
    for number in 0..2000 {
        assert_eq!(api.verdict(&junk(number)).await, "unknown_key");
        api.clock.advance(Duration::from_millis(2));
    }
    assert_eq!(api.issuer.jwks_fetches(), 4, "2,000 tokens in 4 s: the first fetch and three more");

    let mut number = 2000;
    for _ in 0..12 {
        api.issuer.rotate().unwrap();
        let start = number;
        // 50 forged tokens per second, with valid tokens of the new key among them.
        while api.good().await != "ok" {
            assert_eq!(api.verdict(&junk(number)).await, "unknown_key");
            api.clock.advance(Duration::from_millis(20));
            number += 1;
        }
        assert!((number - start) * 20 <= 5000, "served after {} ms", (number - start) * 20);
    }
}

#[tokio::test]
async fn a_client_that_disconnects_does_not_waste_the_budget() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    api.seconds_pass(10);
    api.issuer.rotate().unwrap();
    api.issuer.set_delay(Duration::from_millis(20));
    let junk = api.issuer.token().header("kid", "junk").build();
    {
        let mut request = pin!(api.verifier.verify(&junk));
        assert!(poll_once(request.as_mut()).is_pending());
    }
    assert_eq!(api.good().await, "ok", "the fetch that it caused serves the new key to all");
    assert_eq!(api.issuer.jwks_fetches(), 2);
}

#[tokio::test]
async fn a_missing_kid_is_fetched_at_growing_intervals() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    api.seconds_pass(10);
    let junk = api.issuer.token().header("kid", "junk").build();
    assert_eq!(api.verdict(&junk).await, "unknown_key");
    assert_eq!(api.issuer.jwks_fetches(), 2);
    for (seconds, fetches) in [
        (4, 2),
        (1, 3),
        (9, 3),
        (1, 4),
        (19, 4),
        (1, 5),
        (39, 5),
        (1, 6),
        (59, 6),
        (1, 7),
        (59, 7),
        (1, 8),
    ] {
        api.seconds_pass(seconds);
        assert_eq!(api.verdict(&junk).await, "unknown_key");
        assert_eq!(api.issuer.jwks_fetches(), fetches, "intervals grow up to one minute");
    }
}

/// An attacker guesses the next `kid`, so it is remembered as missing. It is found one minute after
/// publication at the latest.
#[tokio::test]
async fn a_kid_that_was_guessed_before_its_publication_is_found() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    let guessed = api.issuer.token().header("kid", "key-2").build();
    for _ in 0..30 {
        api.seconds_pass(10);
        assert_eq!(api.verdict(&guessed).await, "unknown_key");
    }
    api.issuer.rotate().unwrap();
    api.seconds_pass(60);
    assert_eq!(api.good().await, "ok");
}

/// Otherwise, anyone could hide a key for five seconds that is published under a `kid` in use.
#[tokio::test]
async fn a_kid_of_a_key_for_another_algorithm_is_not_remembered_as_missing() {
    let algorithms = [Algorithm::EdDSA, Algorithm::ES256];
    let api = api_with(|issuer| issuer.algorithms(algorithms).unwrap()).await;
    let new = TestIssuer::offline_with(api.issuer.iss(), Algorithm::ES256).unwrap();
    new.set_clock(&api.clock);
    let key = new.jwks_json()["keys"][0].clone();
    assert_eq!(key["kid"], api.issuer.jwks_json()["keys"][0]["kid"]);
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.verdict(&new.token().build()).await, "unknown_key");
    api.issuer.publish(key);
    assert_eq!(api.verdict(&new.token().build()).await, "ok");
}

#[tokio::test]
async fn tokens_rejected_for_other_reasons_cause_no_fetch() {
    let api = api().await;
    let token = || api.issuer.token().header("kid", "unknown");
    let bad = [
        ("expired", token().expired()),
        ("not yet valid", token().not_yet_valid()),
        ("for another audience", token().audience("https://other.example")),
        ("by another issuer", token().issued_by("https://other.example/")),
        ("of another type", token().header("typ", "dpop+jwt")),
        ("without aud", token().without_claim("aud")),
        ("with crit", token().header("crit", json!(["x"]))),
        ("sender-constrained", token().claim("cnf", json!({ "jkt": "x" }))),
        ("with alg none", token().header("alg", "none")),
        ("with an HMAC alg", token().header("alg", "HS256")),
        ("malformed", token().payload("{")),
    ];
    for (name, token) in bad {
        assert_ne!(api.verdict(&token.build()).await, "ok", "{name}");
    }
    assert_eq!(
        api.issuer.metadata_fetches() + api.issuer.jwks_fetches(),
        0,
        "no fetch at a cold start"
    );

    // With cached keys, they do not use the budget.
    assert_eq!(api.good().await, "ok");
    api.seconds_pass(10);
    assert_eq!(api.verdict(&token().expired().build()).await, "expired");
    assert_eq!(api.issuer.jwks_fetches(), 1);
    api.issuer.rotate().unwrap();
    assert_eq!(api.good().await, "ok");
}
