//! Key sets (RFC 7517): which keys are usable, and how many of them are tried.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, IgnoredKeyReason, Jwks};
use serde_json::{Value, json};

use crate::set;

#[test]
fn unusable_keys_are_ignored_and_reported() {
    struct Case {
        name: &'static str,
        jwk: Value,
        reason: IgnoredKeyReason,
    }

    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    let rsa = TestIssuer::offline_with("https://issuer.example/", Algorithm::RS256)
        .unwrap()
        .jwks_json()["keys"][0]
        .clone();
    let ec = issuer.jwks_json()["keys"][0].clone();
    let with = |base: &Value, name: &str, value: Value| {
        let mut jwk = base.clone();
        jwk[name] = value;
        jwk
    };
    let without = |base: &Value, name: &str| {
        let mut jwk = base.clone();
        jwk.as_object_mut().unwrap().remove(name);
        jwk
    };
    let short = "AQAB".repeat(10);
    let modulus = |first: u8, bytes: usize| {
        let mut modulus = vec![0xff; bytes];
        modulus[0] = first;
        json!(URL_SAFE_NO_PAD.encode(modulus))
    };
    let cases = [
        Case { name: "null", jwk: json!(null), reason: IgnoredKeyReason::Malformed },
        Case { name: "a string", jwk: json!("key"), reason: IgnoredKeyReason::Malformed },
        Case { name: "no kty", jwk: without(&ec, "kty"), reason: IgnoredKeyReason::Malformed },
        Case {
            name: "an unknown type",
            jwk: json!({ "kty": "AKQ", "alg": "ML-DSA-44", "pub": "AAAA" }),
            reason: IgnoredKeyReason::UnsupportedType,
        },
        Case {
            name: "secp256k1",
            jwk: with(&ec, "crv", json!("secp256k1")),
            reason: IgnoredKeyReason::UnsupportedType,
        },
        Case {
            name: "X25519",
            jwk: json!({ "kty": "OKP", "crv": "X25519", "x": short }),
            reason: IgnoredKeyReason::UnsupportedType,
        },
        Case {
            name: "Ed448",
            jwk: json!({ "kty": "OKP", "crv": "Ed448", "x": short }),
            reason: IgnoredKeyReason::UnsupportedType,
        },
        Case {
            name: "symmetric",
            jwk: json!({ "kty": "oct", "k": "AAAA" }),
            reason: IgnoredKeyReason::Symmetric,
        },
        Case {
            name: "private",
            jwk: with(&ec, "d", json!("AAAA")),
            reason: IgnoredKeyReason::Private,
        },
        Case {
            name: "a private prime",
            jwk: with(&rsa, "p", json!("AQAB")),
            reason: IgnoredKeyReason::Private,
        },
        Case {
            name: "a private exponent of a prime",
            jwk: with(&rsa, "dq", json!("AQAB")),
            reason: IgnoredKeyReason::Private,
        },
        Case {
            name: "for encryption",
            jwk: with(&rsa, "use", json!("enc")),
            reason: IgnoredKeyReason::NotForVerification,
        },
        Case {
            name: "key_ops without verify",
            jwk: with(&rsa, "key_ops", json!(["wrapKey"])),
            reason: IgnoredKeyReason::NotForVerification,
        },
        Case {
            name: "key_ops not an array",
            jwk: with(&rsa, "key_ops", json!("verify")),
            reason: IgnoredKeyReason::NotForVerification,
        },
        Case {
            name: "Keycloak's encryption key",
            jwk: with(&rsa, "alg", json!("RSA-OAEP")),
            reason: IgnoredKeyReason::UnsupportedAlgorithm,
        },
        Case {
            name: "alg of another type",
            jwk: with(&rsa, "alg", json!("ES256")),
            reason: IgnoredKeyReason::UnsupportedAlgorithm,
        },
        Case {
            name: "alg of another curve",
            jwk: with(&ec, "alg", json!("ES384")),
            reason: IgnoredKeyReason::UnsupportedAlgorithm,
        },
        Case {
            name: "alg of a secret",
            jwk: with(&rsa, "alg", json!("HS256")),
            reason: IgnoredKeyReason::UnsupportedAlgorithm,
        },
        Case {
            name: "alg none",
            jwk: with(&rsa, "alg", json!("none")),
            reason: IgnoredKeyReason::UnsupportedAlgorithm,
        },
        Case {
            name: "alg a number",
            jwk: with(&rsa, "alg", json!(1)),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "kid a number",
            jwk: with(&rsa, "kid", json!(1)),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "kid too long",
            jwk: with(&rsa, "kid", json!("k".repeat(513))),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "kid null",
            jwk: with(&rsa, "kid", json!(null)),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "use an array",
            jwk: with(&rsa, "use", json!(["sig"])),
            reason: IgnoredKeyReason::NotForVerification,
        },
        Case {
            name: "empty key_ops",
            jwk: with(&rsa, "key_ops", json!([])),
            reason: IgnoredKeyReason::NotForVerification,
        },
        Case { name: "no x", jwk: without(&ec, "x"), reason: IgnoredKeyReason::Malformed },
        Case { name: "no y", jwk: without(&ec, "y"), reason: IgnoredKeyReason::Malformed },
        Case { name: "no curve", jwk: without(&ec, "crv"), reason: IgnoredKeyReason::Malformed },
        Case { name: "no modulus", jwk: without(&rsa, "n"), reason: IgnoredKeyReason::Malformed },
        Case { name: "no exponent", jwk: without(&rsa, "e"), reason: IgnoredKeyReason::Malformed },
        Case {
            name: "exponent 1",
            jwk: with(&rsa, "e", json!("AQ")),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "exponent 0",
            jwk: with(&rsa, "e", json!("AA")),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "even exponent",
            jwk: with(&rsa, "e", json!("Ag")),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "huge exponent",
            jwk: with(&rsa, "e", rsa["n"].clone()),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "RSA 1024",
            jwk: with(&rsa, "n", modulus(0xff, 128)),
            reason: IgnoredKeyReason::RsaSize,
        },
        Case {
            name: "RSA 2047",
            jwk: with(&rsa, "n", modulus(0x7f, 256)),
            reason: IgnoredKeyReason::RsaSize,
        },
        Case {
            name: "RSA 16384",
            jwk: with(&rsa, "n", modulus(0xff, 2048)),
            reason: IgnoredKeyReason::RsaSize,
        },
        Case {
            name: "x too short",
            jwk: with(&ec, "x", json!("AQAB")),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "y too long",
            jwk: with(&ec, "y", json!(format!("AAAA{}", ec["y"].as_str().unwrap()))),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "off the curve",
            jwk: with(&ec, "y", ec["x"].clone()),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "not base64url",
            jwk: with(&ec, "x", json!("+".repeat(43))),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "Ed25519 too short",
            jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": "AQAB" }),
            reason: IgnoredKeyReason::Malformed,
        },
        Case {
            name: "Ed25519 too long",
            jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": "A".repeat(44) }),
            reason: IgnoredKeyReason::Malformed,
        },
    ];
    for Case { name, jwk, reason } in cases {
        let set = json!({ "keys": [jwk, ec], "more": { "members": [1] } }).to_string();
        let jwks = Jwks::from_json(&set).unwrap();
        assert_eq!(jwks.ignored(), [reason], "{name}");
        assert!(jwks.verify(&issuer.token().build()).is_ok(), "{name}: the usable key verifies");
    }
}

#[test]
fn irrelevant_key_members_are_ignored() {
    struct Case {
        name: &'static str,
        member: &'static str,
        value: Value,
    }

    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::RS256).unwrap();
    let base = issuer.jwks_json()["keys"][0].clone();
    for Case { name, member, value } in [
        Case { name: "key_ops with verify", member: "key_ops", value: json!(["verify"]) },
        Case { name: "more key_ops", member: "key_ops", value: json!(["sign", "verify"]) },
        Case { name: "a certificate", member: "x5c", value: json!(["MIIC"]) },
        Case {
            name: "a private extension",
            member: "issuer",
            value: json!("https://login.microsoftonline.com/{tenantid}/v2.0"),
        },
        Case { name: "leading zeros of the exponent", member: "e", value: json!("AAEAAQ") },
    ] {
        let mut jwk = base.clone();
        jwk[member] = value;
        let jwks = Jwks::from_json(set(&jwk.to_string())).unwrap();
        assert!(jwks.verify(&issuer.token().build()).is_ok(), "{name}");
    }
}

#[test]
fn a_kid_has_512_bytes_at_most() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    for (bytes, is_usable) in [(512, true), (513, false)] {
        let mut jwk = issuer.jwks_json()["keys"][0].clone();
        jwk["kid"] = "k".repeat(bytes).into();
        let token = issuer.token().header("kid", "k".repeat(bytes)).build();
        let verified =
            Jwks::from_json(set(&jwk.to_string())).is_ok_and(|jwks| jwks.verify(&token).is_ok());
        assert_eq!(verified, is_usable, "{bytes} bytes");
    }
}

#[test]
fn documents_that_are_not_a_key_set() {
    for (name, json) in [
        ("HTML", "<html></html>"),
        ("empty", ""),
        ("truncated", r#"{"keys":[{"kty""#),
        ("an array", "[]"),
        ("no keys", "{}"),
        ("keys an object", r#"{"keys":{}}"#),
        ("keys null", r#"{"keys":null}"#),
        ("an empty set", r#"{"keys":[]}"#),
        ("no usable key", r#"{"keys":[{"kty":"AKP"}]}"#),
        ("deeply nested", &"[".repeat(100_000)),
    ] {
        assert!(Jwks::from_json(json).is_err(), "{name}");
    }
}

#[test]
fn key_sets_are_limited_to_500_members() {
    struct Case {
        unsupported: usize,
        len: usize,
        ignored: usize,
    }

    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let key = issuer.jwks_json()["keys"][0].clone();
    let numbered = (0..600).map(|number| {
        let mut key = key.clone();
        key["kid"] = number.to_string().into();
        key
    });
    let jwks =
        Jwks::from_json(json!({ "keys": numbered.collect::<Vec<_>>() }).to_string()).unwrap();
    assert_eq!(jwks.len(), 500);
    assert_eq!(jwks.ignored(), [IgnoredKeyReason::TooMany]);

    // Unsupported members do not replace usable keys, but count towards the limit of 500.
    for Case { unsupported, len, ignored } in [
        Case { unsupported: 100, len: 1, ignored: 100 },
        Case { unsupported: 499, len: 1, ignored: 499 },
        Case { unsupported: 500, len: 0, ignored: 501 },
    ] {
        let mut members = vec![json!({ "kty": "AKP" }); unsupported];
        members.push(key.clone());
        match Jwks::from_json(json!({ "keys": members }).to_string()) {
            Ok(jwks) => {
                assert_eq!((jwks.len(), jwks.ignored().len()), (len, ignored), "{unsupported}");
            }
            Err(error) => {
                assert!(
                    len == 0 && error.to_string().contains("TooMany"),
                    "{unsupported}: {error}"
                );
            }
        }
    }
}

/// Keys of different types may share a `kid`: each verifies its own signatures.
#[test]
fn keys_of_different_types_may_share_a_kid() {
    let issuers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
        .map(|algorithm| TestIssuer::offline_with("https://issuer.example/", algorithm).unwrap());
    let keys: Vec<_> = issuers.iter().map(|issuer| issuer.jwks_json()["keys"][0].clone()).collect();
    assert!(keys.iter().all(|key| key["kid"] == "key-1"));
    let jwks = Jwks::from_json(json!({ "keys": keys }).to_string()).unwrap();
    for issuer in &issuers {
        assert!(jwks.verify(&issuer.token().build()).is_ok());
        assert!(jwks.verify(&issuer.token().tampered().build()).is_err());
    }
}

/// RFC 7517 §4.5: several keys may share a `kid`, and a token may have none. At most 4 keys are
/// tried, because each costs a signature verification.
#[test]
fn at_most_four_candidate_keys_are_tried() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let good = issuer.jwks_json()["keys"][0].clone();
    let other = || {
        let mut key =
            TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap().jwks_json()["keys"][0].clone();
        key["kid"] = good["kid"].clone();
        key
    };
    for (before, accepted) in [(0, true), (1, true), (3, true), (4, false)] {
        let mut keys: Vec<_> = (0..before).map(|_| other()).collect();
        keys.push(good.clone());
        let jwks = Jwks::from_json(json!({ "keys": keys }).to_string()).unwrap();
        for (name, token) in
            [("same kid", issuer.token()), ("no kid", issuer.token().without_header("kid"))]
        {
            assert_eq!(
                jwks.verify(&token.build()).is_ok(),
                accepted,
                "{name}, behind {before} others"
            );
        }
    }
    // Keys of another type do not count towards the four.
    let mut keys: Vec<_> = (0..5)
        .map(|_| {
            TestIssuer::offline_with("x", Algorithm::ES256).unwrap().jwks_json()["keys"][0].clone()
        })
        .collect();
    keys.push(good.clone());
    let jwks = Jwks::from_json(json!({ "keys": keys }).to_string()).unwrap();
    assert!(jwks.verify(&issuer.token().without_header("kid").build()).is_ok());
    let mut without_kid = good;
    without_kid.as_object_mut().unwrap().remove("kid");
    let jwks = Jwks::from_json(set(&without_kid.to_string())).unwrap();
    assert!(
        jwks.verify(&issuer.token().build()).is_err(),
        "the token has a `kid`, the key does not"
    );
}

/// Anyone can sign for such a point: a signature of zeros verifies some messages, and for the
/// neutral element all of them.
#[test]
fn ed25519_points_of_small_order_are_rejected() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for point in points {
        let mut bytes: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&point[2 * at..2 * at + 2], 16).unwrap()).collect();
        for sign in [0, 0x80] {
            bytes[31] |= sign;
            let key =
                json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&bytes) });
            let good = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
            let jwks = Jwks::from_json(json!({ "keys": [key, good] }).to_string()).unwrap();
            assert_eq!(
                (jwks.len(), jwks.ignored()),
                (1, &[IgnoredKeyReason::SmallOrder][..]),
                "{point}"
            );
        }
    }
}

/// Keys that are slow to verify with: keys with large exponents are ignored, and only one RSA key
/// over 4096 bits is tried, not four.
#[cfg(feature = "aws-lc-rs")]
#[test]
fn expensive_keys_are_ignored_or_tried_once() {
    struct Exponent {
        name: &'static str,
        e: &'static [u8],
        is_key: bool,
    }

    struct Candidates {
        name: &'static str,
        before: Vec<usize>,
        is_found: bool,
    }

    let rsa = |bytes: usize, e: &[u8], kid: &str| {
        // Not a product of two primes, which does not matter here.
        let mut n = vec![0xff; bytes];
        n[bytes / 2] = 0x5a;
        json!({ "kty": "RSA", "alg": "RS256", "kid": kid, "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) })
    };
    for Exponent { name, e, is_key } in [
        Exponent { name: "65537", e: &[1, 0, 1], is_key: true },
        Exponent { name: "3", e: &[3], is_key: true },
        Exponent { name: "24 bits", e: &[0xff, 0xff, 0xff], is_key: true },
        Exponent { name: "25 bits", e: &[1, 0, 0, 1], is_key: false },
        Exponent { name: "32 bits", e: &[0xff, 0xff, 0xff, 0xff], is_key: false },
    ] {
        assert_eq!(
            Jwks::from_json(json!({ "keys": [rsa(256, e, "a")] }).to_string()).is_ok(),
            is_key,
            "{name}"
        );
    }
    // The matching key follows others with the same `kid`. It is found after three keys of normal
    // size, and before a large one.
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::RS256).unwrap();
    let good = issuer.jwks_json()["keys"][0].clone();
    let kid = good["kid"].as_str().unwrap().to_owned();
    let token = issuer.token().build();
    for Candidates { name, before, is_found } in [
        Candidates { name: "three of 2048 bits", before: vec![256, 256, 256], is_found: true },
        Candidates { name: "three of 4096 bits", before: vec![512, 512, 512], is_found: true },
        Candidates { name: "four of 2048 bits", before: vec![256, 256, 256, 256], is_found: false },
        Candidates { name: "one of 8192 bits", before: vec![1024], is_found: true },
        Candidates { name: "many of 4104 bits", before: vec![513; 10], is_found: true },
        Candidates {
            name: "three of 2048 bits and one of 8192",
            before: vec![256, 256, 256, 1024],
            is_found: true,
        },
    ] {
        let mut keys: Vec<_> = before.iter().map(|bytes| rsa(*bytes, &[1, 0, 1], &kid)).collect();
        keys.push(good.clone());
        let jwks = Jwks::from_json(json!({ "keys": keys }).to_string()).unwrap();
        assert_eq!(jwks.len(), before.len() + 1, "{name}: all are usable");
        assert_eq!(jwks.verify(&token).is_ok(), is_found, "{name}");
    }
}
