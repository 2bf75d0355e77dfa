//! Signatures: only those of the issuer's own keys verify (RFC 7515, 7518, 8725).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, ConfigError, InvalidToken, Issuer, Verifier};
use serde_json::{Value, json};

use crate::verdict::verdict;

/// Every asymmetric algorithm that this build can sign and verify.
fn algorithms() -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, ES512, EdDSA, MlDsa44, MlDsa65, MlDsa87};
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    let mut all = vec![RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
    if cfg!(feature = "aws-lc-rs") {
        all.extend([ES512, MlDsa44, MlDsa65, MlDsa87]);
    }
    all
}

#[tokio::test]
async fn every_algorithm_verifies_only_its_own_tokens() {
    let untrusted =
        TestIssuer::offline_with("https://untrusted.example/", Algorithm::RS256).unwrap();
    for algorithm in algorithms() {
        let issuer = TestIssuer::start_with(algorithm).unwrap();
        let verifier = Verifier::new(issuer.issuer().algorithms([algorithm]).unwrap()).unwrap();
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

/// A test can give a preset its own keys, and a project can move from a secret to public keys.
#[tokio::test]
async fn of_several_sources_of_keys_the_last_one_counts() {
    const ISS: &str = "https://issuer.example/";
    const SECRET: [u8; 32] = [7; 32];
    let public = TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap();
    let shared = TestIssuer::offline_with_secret(ISS, Algorithm::HS256, &SECRET);
    let jwks = || public.jwks();
    type Configure<'a> = Box<dyn Fn(Issuer) -> Result<Issuer, ConfigError> + 'a>;
    struct Case<'a> {
        name: &'static str,
        configure: Configure<'a>,
        public: &'static str,
        shared: &'static str,
    }
    for Case { name, configure, public: of_public, shared: of_shared } in [
        Case {
            name: "a URL, then keys",
            configure: Box::new(|i| Ok(i.jwks_uri("https://keys.invalid/")?.jwks(jwks()))),
            public: "ok",
            shared: "unsupported_algorithm",
        },
        Case {
            name: "discovery of one origin, then keys",
            configure: Box::new(|i| {
                Ok(i.discovery_url("https://keys.invalid/")?
                    .require_same_origin_keys()
                    .jwks(jwks()))
            }),
            public: "ok",
            shared: "unsupported_algorithm",
        },
        Case {
            name: "a secret, then keys",
            configure: Box::new(|i| Ok(i.secret(Algorithm::HS256, &SECRET)?.jwks(jwks()))),
            public: "ok",
            shared: "unsupported_algorithm",
        },
        Case {
            name: "keys with algorithms, then a secret",
            configure: Box::new(|i| {
                i.jwks(jwks()).algorithms([Algorithm::EdDSA])?.secret(Algorithm::HS256, &SECRET)
            }),
            public: "unsupported_algorithm",
            shared: "ok",
        },
        Case {
            name: "keys, then discovery",
            configure: Box::new(|i| i.jwks(jwks()).discovery_url("http://127.0.0.1:1/")),
            public: "keys_unavailable",
            shared: "unsupported_algorithm",
        },
    ] {
        let issuer = configure(Issuer::new(ISS, AUDIENCE).unwrap()).unwrap();
        let verifier = Verifier::new(issuer).unwrap();
        let verdicts = [
            verdict(&verifier, &public.token().build()).await,
            verdict(&verifier, &shared.token().build()).await,
        ];
        assert_eq!(verdicts, [of_public, of_shared], "{name}");
    }
}
