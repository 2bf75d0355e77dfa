//! How keys are fetched and cached: fetched once, shared, refreshed ahead, and never replaced by a
//! failed fetch.
//!
//! The tests use real HTTP on loopback and a `TestClock`. They disable the token cache, so that
//! every verification uses the keys.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, Error, FetchError, IgnoredKeyReason, Issuer, Verifier};
use serde_json::{Value, json};
use tokio::task::JoinSet;

struct Api {
    clock: TestClock,
    issuer: TestIssuer,
    verifier: Verifier,
}

/// An issuer on loopback and a verifier that has not fetched anything yet.
async fn api() -> Api {
    api_with(|issuer| issuer).await
}

async fn api_with(configure: impl Fn(Issuer) -> Issuer) -> Api {
    let clock = TestClock::new();
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(configure(issuer.issuer()))
        .clock(&clock)
        .without_token_cache()
        .build()
        .unwrap();
    Api { clock, issuer, verifier }
}

impl Api {
    /// Returns `ok`, or the code of the error.
    async fn verdict(&self, token: &str) -> &'static str {
        self.verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
    }

    async fn good(&self) -> &'static str {
        self.verdict(&self.issuer.token().build()).await
    }

    /// Waits until a background fetch has updated the keys.
    async fn refreshed(&self) {
        eventually("the refresh", || self.verifier.health()[0].age == Some(Duration::ZERO)).await;
    }

    fn seconds_pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// Waits for background work to finish.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "never: {what}");
}

fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn concurrent_requests_at_a_cold_start_share_one_fetch() {
    let api = Arc::new(api().await);
    api.issuer.set_delay(Duration::from_millis(50));
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let api = Arc::clone(&api);
        requests.spawn(async move { api.good().await });
    }
    assert!(requests.join_all().await.iter().all(|verdict| *verdict == "ok"));
    assert_eq!((api.issuer.metadata_fetches(), api.issuer.jwks_fetches()), (1, 1));
}

#[tokio::test]
async fn a_dropped_request_does_not_cancel_its_fetch() {
    let api = api().await;
    api.issuer.set_delay(Duration::from_millis(20));
    let token = api.issuer.token().build();
    {
        let mut first = pin!(api.verifier.verify(&token));
        assert!(poll_once(first.as_mut()).is_pending());
    }
    eventually("the fetch ends without its request", || api.issuer.jwks_fetches() == 1).await;
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.jwks_fetches(), 1);
}

#[tokio::test]
async fn known_keys_verify_without_waiting() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    let token = api.issuer.token().build();
    assert!(matches!(poll_once(pin!(api.verifier.verify(&token))), Poll::Ready(Ok(_))));
}

/// Checks that keys are refreshed at 80 % of their lifetime, ±10 % of that: not before 72 % and not
/// after 88 %.
async fn check_lifetime(api: &Api, name: &str, lifetime: u64) {
    assert_eq!(api.good().await, "ok", "{name}");
    let before = api.issuer.jwks_fetches();
    api.seconds_pass(lifetime * 72 / 100 - 1);
    assert_eq!(api.good().await, "ok", "{name}");
    assert_eq!(api.issuer.jwks_fetches(), before, "{name}: too early");
    api.seconds_pass(lifetime * 16 / 100 + 2);
    let token = api.issuer.token().build();
    let served = poll_once(pin!(api.verifier.verify(&token)));
    assert!(matches!(served, Poll::Ready(Ok(_))), "{name}: no request waits for the refresh");
    for _ in 0..10 {
        assert_eq!(api.good().await, "ok", "{name}");
    }
    api.refreshed().await;
    assert_eq!(api.issuer.jwks_fetches(), before + 1, "{name}: once");
}

#[tokio::test]
async fn keys_are_cached_for_ten_minutes_and_refreshed_ahead() {
    let api = api().await;
    check_lifetime(&api, "first", 600).await;
    check_lifetime(&api, "refreshed", 600).await;
}

#[tokio::test]
async fn cache_control_sets_the_lifetime_within_bounds() {
    for (value, lifetime) in [
        ("max-age=900", 900),
        ("max-age=15", 60),
        ("no-store", 60),
        ("max-age=soon", 60),
        ("max-age=315360000", 3600),
    ] {
        let api = api().await;
        api.issuer.set_header(http::header::CACHE_CONTROL, value);
        check_lifetime(&api, value, lifetime).await;
    }
    let api = api_with(|issuer| issuer.keys_max_age(Duration::from_secs(100)).unwrap()).await;
    api.issuer.set_header(http::header::CACHE_CONTROL, "max-age=900");
    check_lifetime(&api, "configured", 100).await;
}

#[tokio::test]
async fn unchanged_keys_are_not_transferred_again() {
    for (validator, value) in [
        (http::header::ETAG, "\"v1\""),
        (http::header::LAST_MODIFIED, "Fri, 20 Nov 2026 12:00:00 GMT"),
    ] {
        let api = api().await;
        api.issuer.set_header(validator.clone(), value);
        assert_eq!(api.good().await, "ok");
        // Requests with the validator receive 304, so the keys in use from here on came with the
        // first response.
        for round in 1..=3 {
            api.seconds_pass(530);
            assert_eq!(api.good().await, "ok", "{validator}");
            api.refreshed().await;
            assert_eq!(api.issuer.jwks_fetches(), round + 1, "{validator}");
        }
        api.issuer.rotate().unwrap();
        api.seconds_pass(10);
        assert_eq!(api.good().await, "unknown_key", "{validator}: the server reports no change");
        api.issuer.set_header(validator.clone(), "\"v2\"");
        api.seconds_pass(10);
        assert_eq!(api.good().await, "ok", "{validator}");
    }
}

#[tokio::test]
async fn metadata_are_cached_while_fresh() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    for round in 1..=3 {
        api.issuer.rotate().unwrap();
        api.seconds_pass(10);
        assert_eq!(api.good().await, "ok");
        assert_eq!((api.issuer.metadata_fetches(), api.issuer.jwks_fetches()), (1, round + 1));
    }
    // After a failure the metadata are fetched again, because the keys may have moved.
    api.issuer.set_behavior(Behavior::Status(404));
    api.seconds_pass(10);
    assert_eq!(
        api.verdict(&api.issuer.token().header("kid", "new").build()).await,
        "keys_unavailable"
    );
    api.issuer.set_behavior(Behavior::Serve);
    api.issuer.rotate().unwrap();
    api.seconds_pass(10);
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.metadata_fetches(), 2);
}

#[tokio::test]
async fn a_new_key_verifies_the_request_that_names_it() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    let old = api.issuer.token().build();
    api.seconds_pass(10);
    api.issuer.rotate().unwrap();
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.verdict(&old).await, "ok", "the old key is still published");
    assert_eq!(api.issuer.jwks_fetches(), 2);

    assert_eq!(api.verdict(&api.issuer.token().build()).await, "ok");
}

/// The budget allows three fetches at once, then one every five seconds.
#[tokio::test]
async fn three_rotations_in_three_seconds_are_each_fetched_immediately() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    for fetches in 2..=4 {
        api.seconds_pass(1);
        api.issuer.rotate().unwrap();
        assert_eq!(api.good().await, "ok");
        assert_eq!(api.issuer.jwks_fetches(), fetches);
    }
    // The fourth rotation has to wait, for five seconds at most.
    api.seconds_pass(1);
    api.issuer.rotate().unwrap();
    assert_eq!(api.good().await, "unknown_key");
    api.seconds_pass(3);
    assert_eq!(api.good().await, "ok");
}

/// RFC 7517 §4.5: new key material with an old `kid` is found as quickly as a new `kid`.
#[tokio::test]
async fn a_rotation_that_reuses_the_kid_is_fetched_immediately() {
    let api = api().await;
    assert_eq!(api.verdict(&api.issuer.token().header("kid", "same").build()).await, "unknown_key");
    let serve_as_same = || {
        let mut set = api.issuer.jwks_json();
        let newest = set["keys"].as_array_mut().unwrap().pop().unwrap();
        let mut document = json!({ "keys": [newest] });
        document["keys"][0]["kid"] = "same".into();
        document["issuer"] = api.issuer.iss().into();
        document["jwks_uri"] = format!("{}.well-known/jwks.json", api.issuer.iss()).into();
        api.issuer.set_behavior(Behavior::Body(document.to_string()));
    };
    serve_as_same();
    api.seconds_pass(60);
    let token = || api.issuer.token().header("kid", "same").build();
    assert_eq!(api.verdict(&token()).await, "ok");
    for _ in 0..2 {
        api.seconds_pass(1);
        api.issuer.rotate().unwrap();
        serve_as_same();
        assert_eq!(api.verdict(&token()).await, "ok");
    }
    // Forged signatures with that `kid` use up the budget and delay the next rotation by five
    // seconds at most.
    for second in 0..60 {
        api.seconds_pass(1);
        let forged =
            api.issuer.token().header("kid", "same").claim("jti", second).tampered().build();
        assert_eq!(api.verdict(&forged).await, "bad_signature");
    }
    api.issuer.rotate().unwrap();
    serve_as_same();
    let mut waited = 0;
    while api.verdict(&token()).await != "ok" {
        api.seconds_pass(1);
        waited += 1;
    }
    assert!(waited <= 5, "{waited} s");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_with_a_new_key_share_one_fetch() {
    let api = Arc::new(api().await);
    let old = api.issuer.token().build();
    assert_eq!(api.verdict(&old).await, "ok");
    api.seconds_pass(10);
    api.issuer.rotate().unwrap();
    api.issuer.set_delay(Duration::from_millis(20));
    let mut requests = JoinSet::new();
    // Tokens of old and new keys interleaved.
    for number in 0..200 {
        let api = Arc::clone(&api);
        let token = if number % 3 == 0 { old.clone() } else { api.issuer.token().build() };
        requests.spawn(async move { assert_eq!(api.verdict(&token).await, "ok") });
    }
    requests.join_all().await;
    assert_eq!(api.issuer.jwks_fetches(), 2);
}

#[tokio::test]
async fn a_withdrawn_key_stops_verifying_after_the_refresh() {
    let api = api().await;
    let old = api.issuer.token().build();
    assert_eq!(api.verdict(&old).await, "ok");
    api.issuer.rotate().unwrap();
    api.issuer.withdraw_old_keys();
    api.seconds_pass(530);
    assert_eq!(
        api.verdict(&old).await,
        "ok",
        "verified with the cached set, which starts the refresh"
    );
    api.refreshed().await;
    assert_eq!(api.verdict(&old).await, "unknown_key");
}

/// Unknown keys cause few fetches, whether these succeed or fail, and do not delay tokens of known
/// keys.
#[tokio::test]
async fn unknown_keys_have_a_budget_that_does_not_limit_known_keys() {
    // While the issuer cannot be reached, the key may exist: the keys are unavailable, the token is
    // not invalid.
    for (name, behavior, verdict) in [
        ("available issuer", Behavior::Serve, "unknown_key"),
        ("failing issuer", Behavior::Status(500), "keys_unavailable"),
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

/// RFC 7517 §4.5: `kid` may be absent or reused for new key material.
#[tokio::test]
async fn a_new_key_without_a_new_kid_is_found() {
    for (name, same_name) in [("no kid", false), ("the old kid", true)] {
        let api = api().await;
        let token = || {
            let token = api.issuer.token();
            if same_name { token.header("kid", "key-1") } else { token.without_header("kid") }
        };
        assert_eq!(api.verdict(&token().build()).await, "ok", "{name}");
        api.issuer.rotate().unwrap();
        api.issuer.withdraw_old_keys();
        let mut set = api.issuer.jwks_json();
        set["keys"][0]["kid"] = "key-1".into();
        let uri = format!("{}.well-known/jwks.json", api.issuer.iss());
        // One document for metadata and keys, which differs from the issuer's own only in the
        // `kid`.
        set["issuer"] = api.issuer.iss().into();
        set["jwks_uri"] = uri.into();
        api.issuer.set_behavior(Behavior::Body(set.to_string()));
        assert_eq!(api.verdict(&token().build()).await, "ok", "{name}");
        let fetches = api.issuer.jwks_fetches();
        for _ in 0..20 {
            assert_eq!(api.verdict(&token().tampered().build()).await, "bad_signature", "{name}");
        }
        assert_eq!(
            api.issuer.jwks_fetches(),
            fetches + 2,
            "{name}: forged tokens have the same budget"
        );
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
        let verdict = async |token: &str| {
            verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
        };
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

#[tokio::test]
async fn documents_are_limited_to_256_kib() {
    for (bytes, expected) in [(256 * 1024, "ok"), (256 * 1024 + 1, "keys_unavailable")] {
        let api = api_with(|issuer| {
            let keys = format!("{}.well-known/jwks.json", issuer.iss());
            issuer.jwks_uri(&keys).unwrap()
        })
        .await;
        let good = api.issuer.jwks_json().to_string();
        api.issuer
            .set_behavior(Behavior::Body(format!("{good}{}", " ".repeat(bytes - good.len()))));
        assert_eq!(api.good().await, expected, "{bytes} bytes");
    }
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

/// After an hour without requests, the keys are past their lifetime although no fetch has failed. A
/// key may have been withdrawn.
#[tokio::test]
async fn keys_of_an_idle_issuer_are_fetched_before_they_are_used_again() {
    let api = api().await;
    let withdrawn = api.issuer.token().build();
    assert_eq!(api.verdict(&withdrawn).await, "ok");
    api.issuer.rotate().unwrap();
    api.issuer.withdraw_old_keys();
    api.seconds_pass(3600);
    assert_eq!(api.verdict(&withdrawn).await, "unknown_key");
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.jwks_fetches(), 2);
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
async fn warm_up_fetches_all_issuers_and_names_those_that_fail() {
    let (good, bad, also_bad) = (
        TestIssuer::start_with(Algorithm::EdDSA).unwrap(),
        TestIssuer::start_with(Algorithm::EdDSA).unwrap(),
        TestIssuer::start_with(Algorithm::EdDSA).unwrap(),
    );
    let fixed = TestIssuer::offline_with("https://fixed.example/", Algorithm::EdDSA).unwrap();
    bad.set_behavior(Behavior::Status(404));
    also_bad.set_behavior(Behavior::Body("{}".into()));
    let clock = TestClock::new();
    let issuers = [good.issuer(), bad.issuer(), also_bad.issuer(), fixed.issuer()];
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    assert_eq!(
        verifier.health().iter().filter(|issuer| issuer.is_ready()).count(),
        1,
        "only the fixed keys"
    );

    let error = verifier.warm_up().await.unwrap_err();
    let mut failed: Vec<_> = error.failures().map(|(iss, _)| iss.to_owned()).collect();
    let mut expected = [bad.iss().to_owned(), also_bad.iss().to_owned()];
    failed.sort();
    expected.sort();
    assert_eq!(failed, expected);
    assert!(error.to_string().contains("expected status 200, found 404"), "{error}");
    assert_eq!(good.jwks_fetches(), 1);

    bad.set_behavior(Behavior::Serve);
    also_bad.set_behavior(Behavior::Serve);
    clock.advance(Duration::from_secs(1));
    assert!(verifier.warm_up().await.is_ok());
    assert_eq!(good.jwks_fetches(), 1, "cached keys are not fetched again");
}

#[tokio::test]
async fn health_reports_the_state_of_the_keys() {
    let api = api().await;
    api.issuer.publish(json!({ "kty": "AKP" }));
    let health = || api.verifier.health().remove(0);
    let cold = health();
    assert_eq!((cold.keys, cold.age, cold.stale, cold.is_ready()), (0, None, false, false));
    assert_eq!(*cold.iss, *api.issuer.iss());

    assert_eq!(api.good().await, "ok");
    api.seconds_pass(100);
    let warm = health();
    assert_eq!((warm.keys, warm.stale, warm.is_ready()), (1, false, true));
    assert_eq!(warm.ignored, [IgnoredKeyReason::Type]);
    assert_eq!(warm.age, Some(Duration::from_secs(100)));
    let next = warm.next_fetch.unwrap().as_secs();
    assert!((331..=428).contains(&next), "80 % of ten minutes, ±10 %: {next}");

    api.issuer.set_behavior(Behavior::Status(404));
    api.seconds_pass(500);
    assert_eq!(api.good().await, "ok");
    eventually("the refresh fails", || health().last_error.is_some()).await;
    let stale = health();
    assert_eq!((stale.keys, stale.stale, stale.is_ready()), (1, true, true));
    api.seconds_pass(3600);
    let gone = health();
    assert_eq!((gone.keys, gone.stale, gone.is_ready()), (0, false, false));
    assert!(gone.last_error.is_some());

    api.issuer.set_behavior(Behavior::Serve);
    assert_eq!(api.good().await, "ok");
    assert!(health().last_error.is_none());

    // The keys are past their lifetime without an outage. The next request has to wait, so the
    // issuer is not ready.
    api.seconds_pass(700);
    let idle = health();
    assert_eq!((idle.keys, idle.stale, idle.is_ready()), (0, false, false));
    assert!(api.verifier.warm_up().await.is_ok());
    assert!(health().is_ready());
    assert_eq!(
        api.verdict(&api.issuer.token().header("kid", "unknown").build()).await,
        "unknown_key"
    );
    let counts = health();
    let counts = (counts.fetches, counts.failed_fetches, counts.stale_serves, counts.unknown_kids);
    assert_eq!(counts, (5, 1, 1, 1), "fetches, failed fetches, stale serves, unknown kids");
}

/// A set without a key for a configured algorithm counts as empty.
#[tokio::test]
async fn a_set_without_a_key_for_the_configured_algorithms_does_not_replace_a_valid_set() {
    let api = api_with(|issuer| issuer.algorithms([Algorithm::EdDSA]).unwrap()).await;
    let token = api.issuer.token().build();
    assert_eq!(api.verdict(&token).await, "ok");
    let other = TestIssuer::offline_with("x", Algorithm::ES256).unwrap().jwks_json().to_string();
    api.issuer.set_behavior(Behavior::Body(other));
    api.seconds_pass(550);
    assert_eq!(api.verdict(&token).await, "ok");
    eventually("the refresh fails", || api.verifier.health()[0].failed_fetches == 1).await;
    assert_eq!(api.verdict(&token).await, "ok");
}

/// A dropped pooled connection and a transient server error do not fail a request.
#[tokio::test]
async fn transient_failures_are_retried_once() {
    type Answers = Vec<(u16, Option<&'static str>)>;
    let cases: Vec<(&str, Answers, &str, usize)> = vec![
        ("no failure", vec![], "ok", 1),
        ("503 once", vec![(503, None)], "ok", 2),
        ("500 once", vec![(500, None)], "ok", 2),
        ("408 once", vec![(408, None)], "ok", 2),
        ("503 with Retry-After: 60", vec![(503, Some("60"))], "keys_unavailable", 1),
        ("503 twice", vec![(503, None), (503, None)], "keys_unavailable", 2),
        ("429 with Retry-After: 1", vec![(429, Some("1"))], "ok", 2),
        ("429 with Retry-After: 2", vec![(429, Some("2"))], "keys_unavailable", 1),
        ("429 with an invalid Retry-After", vec![(429, None)], "keys_unavailable", 1),
        (
            "429 with a date in Retry-After",
            vec![(429, Some("Fri, 20 Nov 2026 12:00:00 GMT"))],
            "keys_unavailable",
            1,
        ),
        ("404", vec![(404, None)], "keys_unavailable", 1),
        ("403", vec![(403, None)], "keys_unavailable", 1),
    ];
    for (name, answers, expected, requests) in cases {
        let keys = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
        let jwks = keys.jwks_json().to_string();
        let (left, asked) =
            (Arc::new(Mutex::new(answers.into_iter())), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let router = Router::new().fallback(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            match left.lock().unwrap().next() {
                None => (StatusCode::OK, [(header::RETRY_AFTER, "0")], jwks.clone()),
                Some((status, retry_after)) => (
                    StatusCode::from_u16(status).unwrap(),
                    [(header::RETRY_AFTER, retry_after.unwrap_or("soon"))],
                    String::new(),
                ),
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let verifier =
            Verifier::new(Issuer::new(keys.iss(), AUDIENCE).unwrap().jwks_uri(&uri).unwrap())
                .unwrap();
        let result = verifier.verify(&keys.token().build()).await;
        assert_eq!(result.map_or_else(|error| error.code(), |_| "ok"), expected, "{name}");
        assert_eq!(asked.load(Ordering::SeqCst), requests, "{name}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let target = format!("{}.well-known/jwks.json", elsewhere.iss());
    for client in [None, Some(reqwest::Client::new())] {
        let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
        issuer.set_behavior(Behavior::Redirect(target.clone()));
        let own = client.is_some();
        let mut builder = Verifier::builder(issuer.issuer());
        if let Some(client) = client {
            builder = builder.client(client);
        }
        let verifier = builder.build().unwrap();
        let Err(Error::KeysUnavailable { reason: source, .. }) =
            verifier.verify(&issuer.token().build()).await
        else {
            panic!("expected no keys");
        };
        match (own, &source) {
            (false, FetchError::Status { status: 302, .. }) => {
                assert_eq!(elsewhere.jwks_fetches(), 0);
            }
            // The application's client follows the redirect by itself. Its response is not used.
            (true, FetchError::Redirected { .. }) => {}
            (_, other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn unsupported_members_do_not_invalidate_the_set() {
    let api = api().await;
    for odd in [
        json!(null),
        json!({ "kty": "AKP", "kid": "key-1", "alg": "ML-DSA-44" }),
        json!({ "kty": "RSA", "kid": "key-1", "use": "enc", "alg": "RSA-OAEP" }),
        json!({ "kty": "oct", "kid": "key-1", "k": "AAAA" }),
        json!({ "kty": "OKP", "crv": "X25519", "kid": "key-1", "x": "AAAA" }),
        json!({ "kty": "EC" }),
    ] {
        api.issuer.publish(odd);
    }
    assert_eq!(api.good().await, "ok");
}

/// Starts a server with an issuer's documents at any path.
async fn serve(documents: impl Fn(&str) -> Vec<(&'static str, Value)>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut router = Router::new();
    for (path, document) in documents(&base) {
        router = router.route(path, get(async move || document.to_string()));
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

#[tokio::test]
async fn metadata_are_found_at_each_well_known_url() {
    for (name, path, metadata_at) in [
        ("appended", "", "/.well-known/openid-configuration"),
        ("appended to a path", "/t/1", "/t/1/.well-known/openid-configuration"),
        (
            "appended to a path with a trailing slash",
            "/t/1/",
            "/t/1/.well-known/openid-configuration",
        ),
        ("RFC 8414", "", "/.well-known/oauth-authorization-server"),
        ("RFC 8414 before a path", "/t/1", "/.well-known/oauth-authorization-server/t/1"),
        ("OpenID Connect before a path", "/t/1", "/.well-known/openid-configuration/t/1"),
    ] {
        let keys = TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap();
        let jwks = keys.jwks_json();
        let base = serve(|base| {
            let metadata = json!({ "issuer": format!("{base}{path}"), "jwks_uri": format!("{base}/elsewhere/keys") });
            vec![(metadata_at, metadata), ("/elsewhere/keys", jwks.clone())]
        })
        .await;
        let iss = format!("{base}{path}");
        let verifier = Verifier::new(Issuer::new(&iss, AUDIENCE).unwrap()).unwrap();
        let result = verifier.verify(&keys.token().issued_by(&iss).build()).await;
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

/// The issuer has a public `iss`, but this network reaches its metadata at another URL.
#[tokio::test]
async fn metadata_can_be_fetched_from_another_url() {
    const PUBLIC: &str = "https://login.example/realms/prod";
    let keys = TestIssuer::offline_with(PUBLIC, Algorithm::EdDSA).unwrap();
    for (name, says, expected) in
        [("the public name", PUBLIC, "ok"), ("the other URL", "", "keys_unavailable")]
    {
        let jwks = keys.jwks_json();
        let inside = serve(|base| {
            let issuer = if says.is_empty() { base } else { says };
            let metadata = json!({ "issuer": issuer, "jwks_uri": format!("{base}/keys") });
            vec![
                ("/realms/prod/.well-known/openid-configuration", metadata),
                ("/keys", jwks.clone()),
            ]
        })
        .await;
        let issuer = Issuer::new(PUBLIC, AUDIENCE)
            .unwrap()
            .discovery_url(&format!("{inside}/realms/prod"))
            .unwrap();
        let result = Verifier::new(issuer).unwrap().verify(&keys.token().build()).await;
        assert_eq!(
            result.map_or_else(|error| error.code(), |_| "ok"),
            expected,
            "metadata say {name}"
        );
    }
    for address in ["http://keycloak:8080/realms/prod", "https://a/b/../c", "https://a/?b", "a"] {
        assert!(
            Issuer::new(PUBLIC, AUDIENCE).unwrap().discovery_url(address).is_err(),
            "{address}"
        );
    }
}

#[tokio::test]
async fn keys_on_another_origin_are_used_unless_forbidden() {
    let elsewhere = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let uri = format!("{}.well-known/jwks.json", elsewhere.iss());
    let base = serve(|base| {
        vec![("/.well-known/openid-configuration", json!({ "issuer": base, "jwks_uri": uri }))]
    })
    .await;
    let token = elsewhere.token().issued_by(&base).build();
    let issuer = || Issuer::new(&base, AUDIENCE).unwrap();
    assert!(Verifier::new(issuer()).unwrap().verify(&token).await.is_ok());
    match Verifier::new(issuer().require_same_origin_keys()).unwrap().verify(&token).await {
        Err(Error::KeysUnavailable { reason: source, .. }) => {
            assert!(matches!(source, FetchError::OtherOrigin { .. }), "{source}");
        }
        other => panic!("{other:?}"),
    }
    // Keys on the same origin are used.
    let own = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    assert!(
        Verifier::new(own.issuer().require_same_origin_keys())
            .unwrap()
            .verify(&own.token().build())
            .await
            .is_ok()
    );
}

/// As for Kubernetes: one issuer requires a bearer token, which must not be sent to other issuers.
#[tokio::test]
async fn each_issuer_can_have_its_own_http_client() {
    let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let log = Arc::clone(&seen);
    let router = Router::new().fallback(
        async move |uri: axum::http::Uri, headers: axum::http::HeaderMap| {
            log.lock()
                .unwrap()
                .push((uri.path().to_owned(), headers.contains_key("authorization")));
            StatusCode::NOT_FOUND
        },
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("authorization", "Bearer pod".parse().unwrap());
    let client = reqwest::Client::builder().default_headers(headers).build().unwrap();
    let issuer =
        |iss: &str| Issuer::new(iss, AUDIENCE).unwrap().jwks_uri(&format!("{base}/{iss}")).unwrap();
    let verifier = Verifier::new([issuer("pod").client(client), issuer("other")]).unwrap();
    assert!(verifier.warm_up().await.is_err());
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, [("/other".to_owned(), false), ("/pod".to_owned(), true)]);
}

#[tokio::test]
async fn invalid_metadata_are_rejected() {
    type Metadata = fn(&str) -> Value;
    type Check = fn(&FetchError) -> bool;
    let cases: [(&str, Metadata, Check); 9] = [
        (
            "of another issuer",
            |base| json!({ "issuer": "https://other.example", "jwks_uri": format!("{base}/keys") }),
            |error| matches!(error, FetchError::IssuerMismatch { .. }),
        ),
        (
            "issuer with an extra slash",
            |base| json!({ "issuer": format!("{base}/"), "jwks_uri": format!("{base}/keys") }),
            |error| matches!(error, FetchError::IssuerMismatch { .. }),
        ),
        (
            "without issuer",
            |base| json!({ "jwks_uri": format!("{base}/keys") }),
            |error| matches!(error, FetchError::InvalidDocument { .. }),
        ),
        (
            "without jwks_uri",
            |base| json!({ "issuer": base }),
            |error| matches!(error, FetchError::InvalidDocument { .. }),
        ),
        (
            "jwks_uri over http",
            |base| json!({ "issuer": base, "jwks_uri": "http://keys.example/keys" }),
            |error| matches!(error, FetchError::JwksUri(_)),
        ),
        (
            "jwks_uri with scheme file",
            |base| json!({ "issuer": base, "jwks_uri": "file:///etc/passwd" }),
            |error| matches!(error, FetchError::JwksUri(_)),
        ),
        (
            "jwks_uri relative",
            |base| json!({ "issuer": base, "jwks_uri": "/keys" }),
            |error| matches!(error, FetchError::JwksUri(_)),
        ),
        (
            "jwks_uri with a password",
            |base| json!({ "issuer": base, "jwks_uri": "https://user:password@keys.example/" }),
            |error| matches!(error, FetchError::JwksUri(_)),
        ),
        ("an array", |_| json!([]), |error| matches!(error, FetchError::InvalidDocument { .. })),
    ];
    for (name, metadata, expected) in cases {
        let keys = TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap();
        let base = serve(|base| {
            vec![("/.well-known/openid-configuration", metadata(base)), ("/keys", keys.jwks_json())]
        })
        .await;
        let verifier = Verifier::new(Issuer::new(&base, AUDIENCE).unwrap()).unwrap();
        match verifier.verify(&keys.token().issued_by(&base).build()).await {
            Err(Error::KeysUnavailable { reason: source, .. }) => {
                assert!(expected(&source), "{name}: {source}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_fetch_without_a_runtime_is_an_error() {
    let verifier =
        Verifier::new(Issuer::new("https://issuer.example/", AUDIENCE).unwrap()).unwrap();
    let token = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA)
        .unwrap()
        .token()
        .build();
    match poll_once(pin!(verifier.verify(&token))) {
        Poll::Ready(Err(Error::KeysUnavailable { reason: source, .. })) => {
            assert!(matches!(source, FetchError::NoRuntime));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runtime_shutdown_during_a_fetch_leaves_the_verifier_usable() {
    let outlasting =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let api = outlasting.block_on(api());
    api.issuer.set_behavior(Behavior::Hang);
    let token = api.issuer.token().build();

    let ending = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    ending.block_on(async {
        let mut request = pin!(api.verifier.verify(&token));
        assert!(poll_once(request.as_mut()).is_pending());
    });
    drop(ending);

    api.issuer.set_behavior(Behavior::Serve);
    match outlasting.block_on(api.verifier.verify(&token)) {
        Err(Error::KeysUnavailable { reason: source, .. }) => {
            assert!(matches!(source, FetchError::Interrupted), "{source}");
        }
        other => panic!("{other:?}"),
    }
    api.seconds_pass(1);
    assert!(outlasting.block_on(api.verifier.verify(&token)).is_ok());
}

/// An instance out of rotation receives no requests, so its readiness probe must notice that the
/// issuer has recovered.
#[tokio::test]
async fn warm_up_does_not_wait_for_the_back_off() {
    let api = api().await;
    api.issuer.set_behavior(Behavior::Status(404));
    for _ in 0..8 {
        assert_eq!(api.good().await, "keys_unavailable");
        api.seconds_pass(31);
    }
    assert_eq!(api.good().await, "keys_unavailable");
    api.issuer.set_behavior(Behavior::Serve);
    let fetches = api.issuer.metadata_fetches();
    assert!(api.verifier.warm_up().await.is_err(), "less than a second after the last fetch");
    assert_eq!(api.issuer.metadata_fetches(), fetches);
    api.seconds_pass(1);
    assert!(
        api.verifier.warm_up().await.is_ok(),
        "fetched again after one second instead of thirty"
    );
    assert_eq!(api.good().await, "ok");
}
