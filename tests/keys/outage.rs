//! Outages of an issuer: which keys are used meanwhile, for how long, and which errors requests
//! receive.

use std::pin::pin;
use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, FetchError, Issuer, Verifier};
use serde_json::Value;

use crate::eventually::eventually;
use crate::poll_once::poll_once;
use crate::scripted::{ScriptedApi, Server, keys, reply};
use crate::support::{Api, api, api_with};
use crate::verdict::verdict;

/// Every response of an issuer that is not a valid key set.
/// `good` is a valid key set.
fn bad_answers(good: &Value) -> Vec<(&'static str, Behavior)> {
    vec![
        ("404", Behavior::Status(404)),
        ("401", Behavior::Status(401)),
        ("429", Behavior::Status(429)),
        ("500", Behavior::Status(500)),
        ("503", Behavior::Status(503)),
        ("204", Behavior::Status(204)),
        ("304 to an unconditional request", Behavior::Status(304)),
        ("an empty body", Behavior::Body(String::new())),
        ("HTML", Behavior::Body("<!doctype html><title>Welcome</title>".into())),
        ("truncated", Behavior::Body(r#"{"keys":[{"kty":"OKP","#.into())),
        ("an array", Behavior::Body("[]".into())),
        ("no keys", Behavior::Body("{}".into())),
        ("an empty set", Behavior::Body(r#"{"keys":[]}"#.into())),
        ("no usable key", Behavior::Body(r#"{"keys":[{"kty":"AKP"},null]}"#.into())),
        ("a byte order mark", Behavior::Body(format!("\u{feff}{good}"))),
        ("deeply nested", Behavior::Body("[".repeat(200_000))),
        ("a redirect", Behavior::Redirect("/elsewhere".into())),
        ("a closed connection", Behavior::Close),
        ("no response", Behavior::Hang),
    ]
}

/// The number of requests of one fetch: transient failures are retried, and late responses are
/// hedged.
fn requests(answer: &Behavior) -> usize {
    match answer {
        Behavior::Status(status) if *status >= 500 => 2,
        // A hedged request is sent after half of the time limit.
        Behavior::Close | Behavior::Hang => 2,
        _ => 1,
    }
}

/// A verifier of keys at a fixed URL, with a short time limit.
fn impatient(issuer: &TestIssuer, clock: &TestClock) -> Verifier {
    let config = Issuer::new(issuer.iss(), AUDIENCE)
        .and_then(|config| config.jwks_uri(&format!("{}.well-known/jwks.json", issuer.iss())))
        .and_then(|config| config.keys_fetch_timeout(Duration::from_millis(300)))
        .unwrap();
    Verifier::builder(config).clock(clock).build().unwrap()
}

#[tokio::test]
async fn without_keys_every_failed_fetch_makes_the_keys_unavailable() {
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    for (name, behavior) in bad_answers(&issuer.jwks_json()) {
        let clock = TestClock::new();
        issuer.set_clock(&clock);
        let api = Api {
            verifier: impatient(&issuer, &clock),
            clock,
            issuer: TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap(),
        };
        let verdict = async || api.verdict(&issuer.token().build()).await;
        let (before, requests) = (issuer.jwks_fetches(), requests(&behavior));
        issuer.set_behavior(behavior);
        assert_eq!(verdict().await, "keys_unavailable", "{name}");
        assert_eq!(verdict().await, "keys_unavailable", "{name}, repeated immediately");
        assert_eq!(
            issuer.jwks_fetches(),
            before + requests,
            "{name}: not fetched again immediately"
        );

        issuer.set_behavior(Behavior::Serve);
        assert_eq!(verdict().await, "keys_unavailable", "{name}: still backing off");
        api.seconds_pass(1);
        assert_eq!(verdict().await, "ok", "{name}: recovered");
    }
}

#[tokio::test]
async fn a_failed_fetch_does_not_replace_a_valid_set() {
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    for (name, behavior) in bad_answers(&issuer.jwks_json()) {
        let clock = TestClock::new();
        issuer.set_clock(&clock);
        issuer.set_behavior(Behavior::Serve);
        let verifier = impatient(&issuer, &clock);
        let token = issuer.token().build();
        let verdict = async |token: &str| verdict(&verifier, token).await;
        assert_eq!(verdict(&token).await, "ok", "{name}");

        let (before, requests) = (issuer.jwks_fetches(), requests(&behavior));
        issuer.set_behavior(behavior);
        clock.advance(Duration::from_secs(10));
        let unknown = issuer.token().header("kid", "unknown").build();
        assert_eq!(verdict(&unknown).await, "keys_unavailable", "{name}: the refetch fails");
        assert_eq!(issuer.jwks_fetches(), before + requests, "{name}");
        assert_eq!(verdict(&token).await, "ok", "{name}: the old set stays cached");
    }
}

#[tokio::test]
async fn stale_keys_are_used_for_one_hour_of_an_outage() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    api.issuer.set_behavior(Behavior::Status(503));
    api.seconds_pass(600 + 3590);
    assert_eq!(api.good().await, "ok", "almost an hour past their lifetime");
    assert_eq!(api.issuer.metadata_fetches(), 3, "this request waited for a fetch, which failed");
    api.seconds_pass(9);
    assert_eq!(api.good().await, "ok");
    eventually("the refresh fails", || api.issuer.metadata_fetches() == 5).await;
    api.seconds_pass(1);
    assert_eq!(api.good().await, "keys_unavailable");
    api.issuer.set_behavior(Behavior::Serve);
    api.seconds_pass(30);
    assert_eq!(api.good().await, "ok", "recovered");
}

/// With `keys_max_stale` of zero, an outage has an effect as soon as the lifetime ends.
#[tokio::test]
async fn the_use_of_stale_keys_is_configurable() {
    for (max_stale, serves) in [(0, false), (10, true)] {
        let api =
            api_with(|issuer| issuer.keys_max_stale(Duration::from_secs(max_stale)).unwrap()).await;
        assert_eq!(api.good().await, "ok");
        api.issuer.set_behavior(Behavior::Status(404));
        api.seconds_pass(600);
        assert_eq!(api.good().await, if serves { "ok" } else { "keys_unavailable" }, "{max_stale}");
    }
}

#[tokio::test]
async fn the_stored_error_is_returned_during_back_off() {
    let keys = keys();
    let server = Server::start(|_| async { reply(418, "") }).await;
    let api = ScriptedApi::at_keys(&server, &keys);
    let first = api.failure().await;
    assert!(matches!(first, FetchError::Status { status: 418, .. }), "{first}");
    let token = keys.token().build();
    let mut again = pin!(api.verifier.verify(&token));
    assert!(poll_once(again.as_mut()).is_ready(), "does not wait");
    assert_eq!(api.failure().await.to_string(), first.to_string());
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn errors_of_an_unreachable_issuer_contain_the_root_cause() {
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let (verifier, token) = (Verifier::new(issuer.issuer()).unwrap(), issuer.token().build());
    drop(issuer);
    tokio::task::yield_now().await;
    let error = verifier.verify(&token).await.unwrap_err().to_string();
    assert!(error.contains("/.well-known/openid-configuration: no answer"), "{error}");
    assert!(error.to_lowercase().contains("connection refused"), "{error}");
}
