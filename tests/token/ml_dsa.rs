//! ML-DSA (RFC 9964): which keys are usable, and for which issuers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::{DpopClient, TestIssuer};
use portcullis::{Algorithm, IgnoredKeyReason, Issuer, Jwks, Verifier};
use serde_json::{Value, json};

use crate::verdict::verdict;

/// A parameter set and its sizes in bytes (RFC 9964 §5).
struct Set {
    algorithm: Algorithm,
    public_key: usize,
    signature: usize,
}

const SETS: [Set; 3] = [
    Set { algorithm: Algorithm::MlDsa44, public_key: 1312, signature: 2420 },
    Set { algorithm: Algorithm::MlDsa65, public_key: 1952, signature: 3309 },
    Set { algorithm: Algorithm::MlDsa87, public_key: 2592, signature: 4627 },
];

const ISS: &str = "https://issuer.example/";

fn offline(algorithm: Algorithm) -> TestIssuer {
    TestIssuer::offline_with(ISS, algorithm).unwrap()
}

fn jwk(issuer: &TestIssuer) -> Value {
    issuer.jwks_json()["keys"][0].clone()
}

fn decoded(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()
}

#[test]
fn algorithms_have_the_names_of_the_rfc() {
    for (name, algorithm) in [
        ("ML-DSA-44", Algorithm::MlDsa44),
        ("ML-DSA-65", Algorithm::MlDsa65),
        ("ML-DSA-87", Algorithm::MlDsa87),
    ] {
        assert_eq!(algorithm.to_string(), name);
        assert_eq!(name.parse::<Algorithm>().unwrap(), algorithm);
    }
    for name in ["ML-DSA", "ml-dsa-44", "ML-DSA-44 ", "ML-DSA-44-ES256", "MLDSA44", "HashML-DSA-44"]
    {
        assert!(name.parse::<Algorithm>().is_err(), "{name}");
    }
}

/// The parameter sets that this build can sign and verify with: all or none.
fn supported() -> &'static [Set] {
    if cfg!(feature = "aws-lc-rs") { &SETS } else { &[] }
}

/// With RustCrypto alone, keys are ignored and none can be generated, as with ES512.
#[cfg(not(feature = "aws-lc-rs"))]
#[test]
fn without_aws_lc_rs_keys_are_ignored() {
    let ec = offline(Algorithm::ES256);
    for Set { algorithm, public_key, .. } in SETS {
        // Not a placeholder: those are ignored for another reason.
        let key: Vec<_> = (0..public_key).map(|at| (at * at / 7 % 251) as u8).collect();
        let key = URL_SAFE_NO_PAD.encode(key);
        let akp = json!({ "kty": "AKP", "alg": algorithm.name(), "pub": key });
        let jwks = Jwks::from_json(json!({ "keys": [akp, jwk(&ec)] }).to_string()).unwrap();
        assert_eq!(jwks.ignored(), [IgnoredKeyReason::NotInThisBackend], "{algorithm}");
        assert!(jwks.verify(&ec.token().build()).is_ok(), "{algorithm}");
        assert!(TestIssuer::offline_with(ISS, algorithm).is_err(), "{algorithm}");
    }
}

#[tokio::test]
async fn tokens_verify_up_to_the_length_limit() {
    for Set { algorithm, public_key, signature } in supported() {
        let issuer = TestIssuer::start_with(*algorithm).unwrap();
        let verifier = Verifier::new(issuer.issuer().algorithms([*algorithm]).unwrap()).unwrap();
        let key = jwk(&issuer);
        assert_eq!((&key["kty"], &key["alg"]), (&"AKP".into(), &algorithm.name().into()));
        assert_eq!(decoded(&key["pub"]).len(), *public_key, "{algorithm}");

        let with_bytes = |bytes: usize| issuer.token().claim("more", "a".repeat(bytes)).build();
        let bare = with_bytes(0);
        let last = Value::from(bare.rsplit_once('.').unwrap().1);
        assert_eq!(decoded(&last).len(), *signature, "{algorithm}");
        // Four characters of the token for three bytes of a claim.
        let room = (16 * 1024 - bare.len()) / 4 * 3;
        for (name, bytes, expected) in [
            ("no other claims", 0, "ok"),
            ("the longest token", room, "ok"),
            ("a longer one", room + 6, "too_large"),
        ] {
            let found = verdict(&verifier, &with_bytes(bytes)).await;
            assert_eq!(found, expected, "{algorithm}: {name}");
        }
    }
}

/// An issuer has to list ML-DSA. Otherwise, a token is rejected before any key is fetched.
#[tokio::test]
async fn an_issuer_that_does_not_list_the_algorithm_does_not_use_it() {
    struct Case<'a> {
        name: &'static str,
        /// Empty for the default.
        algorithms: &'a [Algorithm],
        ml_dsa: &'static str,
        rsa: &'static str,
    }

    const UNSUPPORTED: &str = "unsupported_algorithm";
    const RSA: Algorithm = Algorithm::RS256;
    for (number, Set { algorithm, .. }) in supported().iter().enumerate() {
        let (own, other) = (*algorithm, SETS[(number + 1) % 3].algorithm);
        for Case { name, algorithms, ml_dsa, rsa } in [
            Case { name: "by default", algorithms: &[], ml_dsa: UNSUPPORTED, rsa: "ok" },
            Case { name: "other set", algorithms: &[RSA, other], ml_dsa: UNSUPPORTED, rsa: "ok" },
            Case { name: "both", algorithms: &[RSA, own], ml_dsa: "ok", rsa: "ok" },
            Case { name: "only ML-DSA", algorithms: &[own], ml_dsa: "ok", rsa: UNSUPPORTED },
        ] {
            let issuer = TestIssuer::start_with(RSA).unwrap();
            let of_rsa = issuer.token().build();
            issuer.rotate_to(own).unwrap();
            let of_ml_dsa = issuer.token().build();
            let config = match algorithms {
                [] => issuer.issuer(),
                some => issuer.issuer().algorithms(some.iter().copied()).unwrap(),
            };
            let verifier = Verifier::new(config).unwrap();
            assert_eq!(verdict(&verifier, &of_ml_dsa).await, ml_dsa, "{own}: {name}");
            let fetches = usize::from(ml_dsa == "ok");
            assert_eq!(issuer.jwks_fetches(), fetches, "{own}: {name}, fetches");
            assert_eq!(verdict(&verifier, &of_rsa).await, rsa, "{own}: {name}, RSA");
        }
    }
}

/// RFC 9964 §3: `alg` and `pub` are required, and `alg` determines the length of `pub`. A good RSA
/// key in the same set stays usable.
#[tokio::test]
async fn a_key_verifies_only_as_what_it_is() {
    struct Case {
        name: &'static str,
        jwk: Value,
        ignored: Option<IgnoredKeyReason>,
        expected: &'static str,
    }

    const UNKNOWN: &str = "unknown_key";
    const DEGENERATE: IgnoredKeyReason = IgnoredKeyReason::Degenerate;
    let rsa = offline(Algorithm::RS256);
    for (number, Set { algorithm, .. }) in supported().iter().enumerate() {
        let issuer = offline(*algorithm);
        let own = jwk(&issuer);
        let other_set = offline(SETS[(number + 1) % 3].algorithm);
        let with = |name: &str, value: Value| {
            let mut jwk = own.clone();
            jwk[name] = value;
            jwk
        };
        let without = |name: &str| {
            let mut jwk = own.clone();
            jwk.as_object_mut().unwrap().remove(name);
            jwk
        };
        let key = decoded(&own["pub"]);
        let with_key = |bytes: &[u8]| with("pub", URL_SAFE_NO_PAD.encode(bytes).into());
        let malformed = |name, jwk| {
            let ignored = Some(IgnoredKeyReason::Malformed);
            Case { name, jwk, ignored, expected: UNKNOWN }
        };
        let ignored = |name, jwk, reason| {
            let ignored = Some(reason);
            Case { name, jwk, ignored, expected: UNKNOWN }
        };
        let used = |name, jwk, expected| Case { name, jwk, ignored: None, expected };
        let mut one_coefficient = vec![0; key.len()];
        one_coefficient[..32].copy_from_slice(&key[..32]);
        one_coefficient[32] = 5;
        let mut flipped = key.clone();
        flipped[40] ^= 1;
        // What precedes a raw key in DER (RFC 9881 §4).
        let mut der = vec![0x30, 0x82];
        der.extend(u16::try_from(key.len() + 18).unwrap().to_be_bytes());
        der.extend([0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03]);
        der.push(0x11 + u8::try_from(number).unwrap());
        der.extend([0x03, 0x82]);
        der.extend(u16::try_from(key.len() + 1).unwrap().to_be_bytes());
        der.push(0);
        der.extend(&key);

        for Case { name, jwk, ignored, expected } in [
            used("as published", own.clone(), "ok"),
            used("without use", without("use"), "ok"),
            used("a key of another issuer", jwk(&offline(*algorithm)), "bad_signature"),
            used("a flipped bit in the key", with_key(&flipped), "bad_signature"),
            used("a key of another parameter set", jwk(&other_set), UNKNOWN),
            malformed("no alg", without("alg")),
            malformed("alg a number", with("alg", json!(44))),
            malformed("alg of another set", with("alg", jwk(&other_set)["alg"].clone())),
            malformed("the key of another set", with("pub", jwk(&other_set)["pub"].clone())),
            malformed("no pub", without("pub")),
            malformed("pub empty", with_key(&[])),
            malformed("pub one byte short", with_key(&key[1..])),
            // Anyone can sign for these.
            ignored("pub zeros", with_key(&vec![0; key.len()]), DEGENERATE),
            ignored("pub ones", with_key(&vec![255; key.len()]), DEGENERATE),
            ignored("one coefficient", with_key(&one_coefficient), DEGENERATE),
            malformed("pub one byte long", with_key(&[&key[..], &[0]].concat())),
            malformed("pub in DER", with_key(&der)),
            malformed("pub a number", with("pub", json!(1))),
            malformed("pub not base64url", with("pub", json!("+".repeat(1750)))),
            malformed("kty OKP", with("kty", json!("OKP"))),
            malformed("kty RSA", with("kty", json!("RSA"))),
            ignored(
                "kty in lower case",
                with("kty", json!("akp")),
                IgnoredKeyReason::UnsupportedType,
            ),
            ignored(
                "alg of another type",
                with("alg", json!("RS256")),
                IgnoredKeyReason::UnsupportedAlgorithm,
            ),
            ignored(
                "alg of a secret",
                with("alg", json!("HS256")),
                IgnoredKeyReason::UnsupportedAlgorithm,
            ),
            ignored(
                "alg of a composite",
                with("alg", json!("ML-DSA-44-ES256")),
                IgnoredKeyReason::UnsupportedAlgorithm,
            ),
            ignored("private", with("priv", json!("A".repeat(43))), IgnoredKeyReason::Private),
            ignored(
                "for encryption",
                with("use", json!("enc")),
                IgnoredKeyReason::NotForVerification,
            ),
        ] {
            let mut of_rsa = self::jwk(&rsa);
            of_rsa["kid"] = "rsa".into();
            let jwks = Jwks::from_json(json!({ "keys": [jwk, of_rsa] }).to_string()).unwrap();
            assert_eq!(jwks.ignored(), ignored.as_slice(), "{algorithm}: {name}");
            let config = issuer.issuer().jwks(jwks);
            let config = config.algorithms([*algorithm, Algorithm::RS256]).unwrap();
            let verifier = Verifier::new(config).unwrap();
            let found = verdict(&verifier, &issuer.token().build()).await;
            assert_eq!(found, expected, "{algorithm}: {name}");
            let of_rsa = rsa.token().header("kid", "rsa").build();
            assert_eq!(verdict(&verifier, &of_rsa).await, "ok", "{algorithm}: {name}, RSA");
        }
    }
}

/// A key has at least 256 different coefficients, wherever they are.
#[test]
fn a_key_with_few_different_coefficients_is_degenerate() {
    let ec = jwk(&offline(Algorithm::ES256));
    for Set { algorithm, public_key, .. } in SETS {
        for position in 0..4 {
            for (different, is_degenerate) in [(255, true), (256, false)] {
                // A seed of 32 bytes, then four coefficients of ten bits in each five bytes, from
                // the lowest bit on.
                let mut key = vec![7; 32];
                for five in 0..(public_key as u64 - 32) / 5 {
                    let bits = (five % different) << (10 * position);
                    key.extend_from_slice(&bits.to_le_bytes()[..5]);
                }
                let key = URL_SAFE_NO_PAD.encode(key);
                let akp = json!({ "kty": "AKP", "alg": algorithm.name(), "pub": key });
                let jwks = Jwks::from_json(json!({ "keys": [akp, ec] }).to_string()).unwrap();
                assert_eq!(
                    jwks.ignored().contains(&IgnoredKeyReason::Degenerate),
                    is_degenerate,
                    "{algorithm}: {different} different ones, position {position}"
                );
            }
        }
    }
}

#[tokio::test]
async fn only_the_exact_signature_verifies() {
    for (number, Set { algorithm, signature, .. }) in supported().iter().enumerate() {
        let issuer = offline(*algorithm);
        let other = SETS[(number + 1) % 3].algorithm;
        let both = issuer.issuer().algorithms([*algorithm, other, Algorithm::EdDSA]).unwrap();
        let verifier = Verifier::new(both).unwrap();
        let token = issuer.token().build();
        let (signed, own) = token.rsplit_once('.').unwrap();
        let own = decoded(&own.into());
        let flipped = |at: usize| {
            let mut changed = own.clone();
            changed[at] ^= 1;
            changed
        };
        for (name, changed) in [
            ("the challenge", flipped(0)),
            ("the response", flipped(signature / 2)),
            ("the hint", flipped(signature - 1)),
            ("one byte short", own[..signature - 1].to_vec()),
            ("one byte long", [&own[..], &[0]].concat()),
            ("zeros", vec![0; *signature]),
            ("ones", vec![0xff; *signature]),
            ("empty", vec![]),
        ] {
            let changed = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(verdict(&verifier, &changed).await, "bad_signature", "{algorithm}: {name}");
        }
        for (name, changed, expected) in [
            ("another payload", issuer.token().tampered(), "bad_signature"),
            ("signed by another set", issuer.token().signed_by(&offline(other)), "unknown_key"),
            ("alg of another set", issuer.token().header("alg", other.name()), "unknown_key"),
            ("alg of another type", issuer.token().header("alg", "EdDSA"), "unknown_key"),
            ("alg unknown", issuer.token().header("alg", "ML-DSA"), "unsupported_algorithm"),
            ("alg none", issuer.token().unsigned(), "unsupported_algorithm"),
        ] {
            let found = verdict(&verifier, &changed.build()).await;
            assert_eq!(found, expected, "{algorithm}: {name}");
        }
    }
}

/// Other settings that take an algorithm reject ML-DSA, and so does FAPI 2.0.
#[test]
fn other_settings_reject_ml_dsa() {
    let jwks = || offline(Algorithm::ES256).jwks();
    for Set { algorithm, .. } in SETS {
        assert!(DpopClient::with_algorithm(algorithm).is_err(), "{algorithm}: proofs");
        assert!(jwks().rsa_algorithm(algorithm).is_err(), "{algorithm}: RSA keys");
        let issuer = Issuer::new(ISS, "api").unwrap();
        assert!(issuer.secret(algorithm, &[7; 64]).is_err(), "{algorithm}: secrets");
        let listed = Issuer::new(ISS, "api").unwrap().algorithms([algorithm]);
        // With RustCrypto alone, such an issuer could verify nothing.
        assert_eq!(listed.is_ok(), !supported().is_empty(), "{algorithm}");
        let Ok(listed) = listed else { continue };
        let fapi2 = listed.fapi2();
        let refusal = Verifier::new(fapi2).unwrap_err().to_string();
        assert!(refusal.contains(&format!("found {algorithm}")), "{algorithm}: {refusal}");
    }
}
