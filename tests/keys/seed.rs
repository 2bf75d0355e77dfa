//! Keys to start with: they serve at once, and are refreshed like any other.

use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Issuers, Jwks, Verifier};

use crate::eventually::eventually;
use crate::support::Api;
use crate::verdict::verdict;

/// A started issuer, and a verifier that starts with `seed`.
fn api(seed: impl FnOnce(&TestIssuer) -> Jwks) -> Api {
    let clock = TestClock::new();
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    let config = issuer.issuer().seed(seed(&issuer));
    let verifier = Verifier::builder(config).clock(&clock).without_token_cache().build().unwrap();
    Api { clock, issuer, verifier }
}

#[tokio::test]
async fn no_request_waits_for_the_issuer() {
    let api = api(TestIssuer::jwks);
    api.issuer.set_behavior(Behavior::Hang);
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.verifier.health()[0].keys, 1);
}

#[tokio::test]
async fn the_first_token_starts_a_refresh() {
    let api = api(TestIssuer::jwks);
    assert_eq!(api.issuer.jwks_fetches(), 0);
    assert_eq!(api.good().await, "ok");
    eventually("the refresh", || api.verifier.health()[0].age.is_some()).await;
    assert_eq!(api.issuer.jwks_fetches(), 1);
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.jwks_fetches(), 1, "fetched keys are fresh");
}

/// A seed from before a rotation: the token of the new key has the set fetched.
#[tokio::test]
async fn a_new_key_is_fetched_as_ever() {
    let api = api(|issuer| {
        let old = issuer.jwks();
        issuer.rotate().unwrap();
        old
    });
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.jwks_fetches(), 1);
}

/// A lookup would bring withdrawn keys back each time that the issuer is evicted or forgotten.
#[tokio::test]
async fn a_seed_of_an_issuer_from_a_lookup_is_ignored() {
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let withdrawn = issuer.token().build();
    let (iss, seed) = (issuer.iss().to_owned(), issuer.jwks());
    issuer.rotate().unwrap();
    issuer.withdraw_old_keys();
    let lookup =
        Issuers::lookup(move |_| Some(Issuer::new(&iss, AUDIENCE).unwrap().seed(seed.clone())));
    let verifier = Verifier::new(lookup.danger_allow_private_addresses()).unwrap();
    for _ in 0..2 {
        assert_eq!(verdict(&verifier, &withdrawn).await, "unknown_key");
        assert_eq!(verdict(&verifier, &issuer.token().build()).await, "ok");
        verifier.forget(issuer.iss());
    }
}

/// While the issuer is down, a seed is used for 60 seconds and `keys_max_stale`, and no longer.
#[tokio::test]
async fn a_seed_is_not_trusted_for_ever() {
    let api = api(TestIssuer::jwks);
    api.issuer.set_behavior(Behavior::Close);
    for (passes, expected) in [(0, "ok"), (61, "ok"), (3590, "ok"), (30, "keys_unavailable")] {
        api.seconds_pass(passes);
        // The first token in each period starts a fetch, which fails.
        api.good().await;
        eventually("the fetch", || !api.verifier.health()[0].fetching).await;
        assert_eq!(api.good().await, expected, "after {passes} more seconds");
    }
}

#[tokio::test]
async fn a_withdrawn_key_of_the_seed_is_dropped_by_the_refresh() {
    let other = TestIssuer::offline_with("https://other.example/", Algorithm::EdDSA).unwrap();
    let api = api(|_| other.jwks());
    let forged = api.issuer.token().signed_by(&other).build();
    assert_eq!(api.verdict(&forged).await, "ok", "the application trusted it");
    eventually("the refresh", || api.verifier.health()[0].age == Some(Duration::ZERO)).await;
    assert_ne!(api.verdict(&forged).await, "ok");
}
