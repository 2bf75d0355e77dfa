//! `health` and `warm_up`, for readiness probes.

use std::time::Duration;

use portcullis::testing::{Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, IgnoredKeyReason, Verifier};
use serde_json::json;

use crate::eventually::eventually;
use crate::support::api;

#[tokio::test]
async fn health_reports_the_state_of_the_keys() {
    let api = api().await;
    api.issuer.publish(json!({ "kty": "OKP", "crv": "Ed448" }));
    let health = || api.verifier.health().remove(0);
    let cold = health();
    assert_eq!((cold.keys, cold.age, cold.stale, cold.is_ready()), (0, None, false, false));
    assert_eq!(*cold.iss, *api.issuer.iss());

    assert_eq!(api.good().await, "ok");
    api.seconds_pass(100);
    let warm = health();
    assert_eq!((warm.keys, warm.stale, warm.is_ready()), (1, false, true));
    assert_eq!(warm.ignored, [IgnoredKeyReason::UnsupportedType]);
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
    // The second one causes no fetch, because the key is remembered as missing.
    for _ in 0..2 {
        assert_eq!(
            api.verdict(&api.issuer.token().header("kid", "unknown").build()).await,
            "unknown_key"
        );
    }
    let counts = health();
    let counts = (counts.fetches, counts.failed_fetches, counts.stale_serves, counts.unknown_kids);
    assert_eq!(counts, (5, 1, 1, 2), "fetches, failed fetches, stale serves, unknown kids");
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
    let told = error.failures().map(|(iss, reason)| format!("{iss}: {reason}"));
    let told: Vec<_> = told.collect();
    assert_eq!(error.to_string(), format!("failed to load the keys of {}", told.join("; ")));
    assert!(error.to_string().contains("expected status 200, found 404"), "{error}");
    assert_eq!(good.jwks_fetches(), 1);

    bad.set_behavior(Behavior::Serve);
    also_bad.set_behavior(Behavior::Serve);
    clock.advance(Duration::from_secs(1));
    assert!(verifier.warm_up().await.is_ok());
    assert_eq!(good.jwks_fetches(), 1, "cached keys are not fetched again");
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
