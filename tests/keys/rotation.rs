//! New keys are found in time, and withdrawn keys stop verifying.

use portcullis::testing::Behavior;
use serde_json::json;

use crate::support::api;

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
