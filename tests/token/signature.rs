//! Signatures: only those of the issuer's own keys verify (RFC 7515, 7518, 8725).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, InvalidToken, Issuer, Verifier};
use serde_json::{Value, json};

/// Every asymmetric algorithm that this build can sign and verify.
fn algorithms() -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let mut all = vec![RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
    if cfg!(feature = "aws-lc-rs") {
        all.push(ES512);
    }
    all
}

#[tokio::test]
async fn every_algorithm_verifies_only_its_own_tokens() {
    let untrusted =
        TestIssuer::offline_with("https://untrusted.example/", Algorithm::RS256).unwrap();
    for algorithm in algorithms() {
        let issuer = TestIssuer::start_with(algorithm).unwrap();
        let verifier = Verifier::new(issuer.issuer()).unwrap();
        assert!(verifier.verify(&issuer.token().build()).await.is_ok(), "{algorithm}");
        let code = async |token: String| {
            verifier.verify(&token).await.map_err(|error| error.code()).unwrap_err()
        };
        assert_eq!(code(issuer.token().tampered().build()).await, "bad_signature", "{algorithm}");
        let forged = issuer.token().signed_by(&untrusted).header("alg", algorithm.name()).build();
        assert_eq!(code(forged).await, "bad_signature", "{algorithm}");
        assert_eq!(
            issuer.jwks_fetches(),
            3,
            "{algorithm}: each bad signature causes a fetch, since the `kid` may be reused"
        );
    }
}

#[tokio::test]
async fn secrets_verify_only_their_algorithm() {
    for (algorithm, length) in
        [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)]
    {
        let secret = vec![7; length];
        let issuer = TestIssuer::offline_with_secret("https://issuer.example/", algorithm, &secret);
        let verifier = Verifier::new(issuer.issuer()).unwrap();
        assert!(verifier.verify(&issuer.token().build()).await.is_ok(), "{algorithm}");
        assert!(
            verifier.verify(&issuer.token().without_header("kid").build()).await.is_ok(),
            "{algorithm}, no kid"
        );

        let tampered = verifier.verify(&issuer.token().tampered().build()).await;
        assert_eq!(tampered.unwrap_err().code(), "bad_signature", "{algorithm}");
        for other in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]
            .into_iter()
            .filter(|o| *o != algorithm)
        {
            let other = TestIssuer::offline_with_secret(issuer.iss(), other, &secret);
            let refused = verifier.verify(&other.token().build()).await;
            assert_eq!(refused.unwrap_err().code(), "unsupported_algorithm", "{algorithm}");
        }
        let too_short = Issuer::new(issuer.iss(), "a")
            .unwrap()
            .secret(algorithm, &secret[1..])
            .unwrap_err()
            .to_string();
        assert!(too_short.contains(&format!("at least {length} bytes")), "{too_short}");
    }
}

/// Algorithm confusion: the public key used as an HMAC secret.
#[tokio::test]
async fn public_keys_are_not_used_as_hmac_secrets() {
    let issuer = TestIssuer::start_with(Algorithm::RS256).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let jwk = issuer.jwks_json()["keys"][0].clone();
    let secrets = [
        ("the modulus", jwk["n"].as_str().unwrap().to_owned()),
        ("the JWK", jwk.to_string()),
        ("the set", issuer.jwks_json().to_string()),
    ];
    for (name, secret) in secrets {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let forger =
                TestIssuer::offline_with_secret(issuer.iss(), algorithm, secret.as_bytes());
            let refused = verifier.verify(&forger.token().build()).await.unwrap_err();
            assert_eq!(refused.code(), "unsupported_algorithm", "{name}, {algorithm}");
        }
    }
    assert_eq!(
        issuer.metadata_fetches() + issuer.jwks_fetches(),
        0,
        "rejected before any key is fetched"
    );
}

#[tokio::test]
async fn symmetric_keys_in_a_remote_set_are_ignored() {
    let issuer = TestIssuer::start_with(Algorithm::RS256).unwrap();
    issuer.publish(json!({ "kty": "oct", "kid": "key-1", "alg": "HS256", "k": "A".repeat(43) }));
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let forger = TestIssuer::offline_with_secret(issuer.iss(), Algorithm::HS256, &[0; 32]);
    let refused = verifier.verify(&forger.token().build()).await.unwrap_err();
    assert_eq!(refused.code(), "unsupported_algorithm");
    assert!(
        verifier.verify(&issuer.token().build()).await.is_ok(),
        "the other key of the set is used"
    );
}

/// RFC 7518 §3.4: `r ‖ s` of exactly the curve's length; neither DER nor zeros (CVE-2022-21449).
#[tokio::test]
async fn ecdsa_signatures_must_be_r_and_s_of_the_curves_length() {
    for (algorithm, length) in
        [(Algorithm::ES256, 64), (Algorithm::ES384, 96), (Algorithm::ES512, 132)]
    {
        if !algorithms().contains(&algorithm) {
            continue;
        }
        let issuer = TestIssuer::offline_with("https://issuer.example/", algorithm).unwrap();
        let verifier = Verifier::new(issuer.issuer()).unwrap();
        let token = issuer.token().build();
        let signing_input = token.rsplit_once('.').unwrap().0;
        let half = length / 2;
        let der = [
            &[0x30, 2 * half as u8 + 4, 2, half as u8][..],
            &[1; 66][..half],
            &[2, half as u8],
            &[1; 66][..half],
        ];
        for (name, signature) in [
            ("zeros", vec![0; length]),
            ("ones", vec![0xff; length]),
            ("DER", der.concat()),
            ("one byte short", vec![1; length - 1]),
            ("one byte long", vec![1; length + 1]),
            ("empty", vec![]),
        ] {
            let signature = URL_SAFE_NO_PAD.encode(signature);
            let refused =
                verifier.verify(&format!("{signing_input}.{signature}")).await.unwrap_err();
            assert_eq!(refused.code(), "bad_signature", "{algorithm}: {name}");
        }
    }
}

#[test]
fn jwks_verify_applies_the_same_key_rules_to_any_payload() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    let jwks = issuer.jwks();
    let webhook = issuer.token().header("typ", "secevent+jwt").payload("any bytes\0").build();
    let signed = jwks.verify(&webhook).unwrap();
    assert_eq!(signed.payload, b"any bytes\0");
    assert_eq!(serde_json::from_slice::<Value>(&signed.header).unwrap()["typ"], "secevent+jwt");

    let unknown_kid = issuer.token().header("kid", "x").build();
    let unknown = jwks.verify(&unknown_kid).unwrap_err();
    assert!(
        matches!(&unknown, InvalidToken::UnknownKey { kid: Some(kid), .. } if kid == "x"),
        "{unknown}"
    );
    assert_eq!(jwks.verify(&issuer.token().tampered().build()), Err(InvalidToken::BadSignature));
    assert_eq!(
        jwks.verify(&issuer.token().header("crit", json!(["x"])).build()),
        Err(InvalidToken::UnsupportedCritical)
    );
    let hmac =
        TestIssuer::offline_with_secret(issuer.iss(), Algorithm::HS256, &[7; 32]).token().build();
    let unknown = jwks.verify(&hmac).unwrap_err();
    assert!(
        matches!(&unknown, InvalidToken::UnknownKey { kid: Some(kid), .. } if kid == "key-1"),
        "{unknown}"
    );
}
