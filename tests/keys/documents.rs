//! Which documents are accepted as key sets.

use portcullis::Algorithm;
use portcullis::testing::{Behavior, TestIssuer};
use serde_json::json;

use crate::eventually::eventually;
use crate::support::{api, api_with};

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
