//! Signatures: algorithms, keys and headers (RFC 7515, 7517, 7518, 8037, 8725).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, IgnoredKeyReason, InvalidToken, Issuer, Jwks, Verifier};
use serde_json::{Value, json};

/// A key and a token from an RFC.
struct Vector {
    name: &'static str,
    jwk: &'static str,
    token: &'static str,
    payload: &'static str,
}

const JOE: &str =
    "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

const VECTORS: [Vector; 4] = [
    Vector {
        name: "RFC 7515 A.2, RS256",
        jwk: r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
        token: "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        payload: JOE,
    },
    Vector {
        name: "RFC 7515 A.3, ES256",
        jwk: r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        token: "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        payload: JOE,
    },
    Vector {
        name: "RFC 7515 A.4, ES512",
        jwk: r#"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#,
        token: "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
        payload: "Payload",
    },
    Vector {
        name: "RFC 8037 A.4, EdDSA",
        jwk: r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        token: "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        payload: "Example of Ed25519 signing",
    },
];

fn set(jwk: &str) -> String {
    format!("{{\"keys\":[{jwk}]}}")
}

#[test]
fn rfc_test_vectors_verify() {
    for Vector { name, jwk, token, payload } in VECTORS {
        if cfg!(not(feature = "aws-lc-rs")) && name.contains("ES512") {
            let refusal = Jwks::from_json(set(jwk)).unwrap_err().to_string();
            assert!(
                refusal.contains(&format!("{:?}", IgnoredKeyReason::NotInThisBackend)),
                "{refusal}"
            );
            continue;
        }
        let signed = Jwks::from_json(set(jwk)).unwrap().verify(token);
        assert_eq!(
            signed.map(|signed| signed.payload).as_deref(),
            Ok(payload.as_bytes()),
            "{name}"
        );
    }
}

#[test]
fn modified_rfc_test_vectors_do_not_verify() {
    for Vector { name, jwk, token, .. } in VECTORS {
        let Ok(jwks) = Jwks::from_json(set(jwk)) else { continue };
        // Every seventh character and the last one, across header, payload and signature.
        let positions = (0..token.len()).step_by(7).chain([token.len() - 1]);
        for position in positions.filter(|position| &token[*position..=*position] != ".") {
            let other = if &token[position..=position] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &token[..position], &token[position + 1..]);
            assert!(jwks.verify(&changed).is_err(), "{name}: changed at {position}");
        }
        assert!(jwks.verify(&token[..token.len() - 4]).is_err(), "{name}: signature too short");
        assert!(jwks.verify(&format!("{token}AAAA")).is_err(), "{name}: signature too long");
    }
}

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

#[tokio::test]
async fn header_parameters_are_validated() {
    let issuer = TestIssuer::start_with(Algorithm::RS256).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let own_key =
        TestIssuer::offline_with(issuer.iss(), Algorithm::RS256).unwrap().jwks_json()["keys"][0]
            .clone();
    let cases: Vec<(&str, Value, &str)> = vec![
        ("alg", json!("none"), "unsupported_algorithm"),
        ("alg", json!("None"), "unsupported_algorithm"),
        ("alg", json!("NONE"), "unsupported_algorithm"),
        ("alg", json!("nOnE"), "unsupported_algorithm"),
        ("alg", json!(""), "unsupported_algorithm"),
        ("alg", json!("rs256"), "unsupported_algorithm"),
        ("alg", json!("RS256 "), "unsupported_algorithm"),
        ("alg", json!("RSA-OAEP"), "unsupported_algorithm"),
        ("alg", json!("ES256K"), "unsupported_algorithm"),
        ("alg", json!("Ed448"), "unsupported_algorithm"),
        ("alg", json!("PS256"), "unknown_key"),
        ("alg", json!("RS384"), "unknown_key"),
        ("alg", json!(["RS256"]), "malformed"),
        ("alg", json!(null), "malformed"),
        ("kid", json!(1), "malformed"),
        ("kid", json!(["key-1"]), "malformed"),
        ("kid", json!(null), "malformed"),
        ("kid", json!("k".repeat(513)), "malformed"),
        ("kid", json!("../../key-1"), "unknown_key"),
        ("kid", json!("key-1' OR '1'='1"), "unknown_key"),
        ("kid", json!(""), "unknown_key"),
        ("crit", json!(["exp"]), "unsupported_critical"),
        ("crit", json!(["b64"]), "unsupported_critical"),
        ("crit", json!([]), "unsupported_critical"),
        ("crit", json!("exp"), "unsupported_critical"),
        ("crit", json!(null), "unsupported_critical"),
        ("typ", json!("dpop+jwt"), "unexpected_type"),
        ("typ", json!("logout+jwt"), "unexpected_type"),
        ("typ", json!("secevent+jwt"), "unexpected_type"),
        ("typ", json!("token-introspection+jwt"), "unexpected_type"),
        ("typ", json!("JWE"), "unexpected_type"),
        ("typ", json!("id_token"), "unexpected_type"),
        ("typ", json!("application/application/at+jwt"), "unexpected_type"),
        ("typ", json!("at+jwt; v=1"), "unexpected_type"),
        ("typ", json!("at+jwt "), "unexpected_type"),
        ("typ", json!(""), "unexpected_type"),
        ("typ", json!(1), "malformed"),
        ("typ", json!("JWT"), "ok"),
        ("typ", json!("jwt"), "ok"),
        ("typ", json!("at+jwt"), "ok"),
        ("typ", json!("AT+JWT"), "ok"),
        // RFC 7515 §4.1.9: `application/` may be omitted.
        ("typ", json!("application/at+jwt"), "ok"),
        ("typ", json!("application/jwt"), "ok"),
        ("typ", json!("Application/AT+JWT"), "ok"),
        ("b64", json!(false), "ok"),
        ("x", json!({ "any": ["thing", 1] }), "ok"),
        // Keys and key URLs in the header are ignored, and nothing is fetched from them.
        ("jwk", own_key, "ok"),
        ("jku", json!(format!("{}other.json", issuer.iss())), "ok"),
        ("x5u", json!(format!("{}other.pem", issuer.iss())), "ok"),
    ];
    for (name, value, expected) in cases {
        let result = verifier.verify(&issuer.token().header(name, value.clone()).build()).await;
        let verdict = result.map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(verdict, expected, "{name}: {value}");
    }
    let without = verifier.verify(&issuer.token().without_header("alg").build()).await;
    assert_eq!(without.unwrap_err().code(), "malformed", "no alg");
    assert!(verifier.verify(&issuer.token().without_header("typ").build()).await.is_ok(), "no typ");
    assert!(
        verifier.verify(&issuer.token().without_header("kid").build()).await.is_ok(),
        "no kid, one key"
    );
}

#[tokio::test]
async fn a_key_in_the_header_is_ignored() {
    let issuer = TestIssuer::start_with(Algorithm::RS256).unwrap();
    let forger = TestIssuer::offline_with(issuer.iss(), Algorithm::RS256).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let key = forger.jwks_json()["keys"][0].clone();
    let token = issuer.token().signed_by(&forger).header("jwk", key).build();
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), "bad_signature");
}

#[tokio::test]
async fn malformed_tokens_are_rejected() {
    let issuer = TestIssuer::start_with(Algorithm::RS256).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let good = issuer.token().build();
    let [header, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let b64 = |text: &str| {
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text)
    };
    // The last base64url character may have unused bits. Only one encoding is canonical.
    let last = good.chars().last().unwrap();
    let uncanonical = char::from(last as u8 + 1);
    for (name, token, expected) in [
        ("valid", good.clone(), "ok"),
        ("empty", String::new(), "opaque"),
        ("opaque", "6LyqwQ4qPmBFkhzsKzNQJvCBvqZYEVPzWfGZ".to_owned(), "opaque"),
        ("one period", format!("{header}.{payload}"), "malformed"),
        ("two periods only", "..".to_owned(), "malformed"),
        ("no signature", format!("{header}.{payload}."), "bad_signature"),
        ("no header", format!(".{payload}.{signature}"), "malformed"),
        ("no payload", format!("{header}..{signature}"), "malformed"),
        ("four parts", format!("{good}.{signature}"), "malformed"),
        ("five parts, a JWE", format!("{good}.a.b"), "encrypted"),
        ("six parts", format!("{good}.a.b.c"), "malformed"),
        ("padding", format!("{good}="), "malformed"),
        (
            "the standard base64 alphabet",
            format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+") + "+"),
            "malformed",
        ),
        ("leading whitespace", format!(" {good}"), "malformed"),
        ("a trailing newline", format!("{good}\n"), "malformed"),
        ("a NUL", format!("{header}.{payload}.{signature}\0"), "malformed"),
        ("not ASCII", format!("{header}.{payload}.{signature}é"), "malformed"),
        ("JSON serialization", format!(r#"{{"payload":"{payload}"}}"#), "opaque"),
        ("non-canonical", format!("{}{uncanonical}", &good[..good.len() - 1]), "malformed"),
        ("header an array", format!("{}.{payload}.{signature}", b64("[]")), "malformed"),
        ("header not JSON", format!("{}.{payload}.{signature}", b64("alg")), "malformed"),
        (
            "alg twice",
            format!(
                "{}.{payload}.{signature}",
                b64(r#"{"alg":"none","alg":"RS256","kid":"key-1"}"#)
            ),
            "malformed",
        ),
        ("too large", format!("{header}.{payload}.{}", "A".repeat(16 * 1024)), "too_large"),
        (
            "unsecured, RFC 7519 §6.1",
            "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UifQ.".to_owned(),
            "unsupported_algorithm",
        ),
    ] {
        let verdict = verifier.verify(&token).await.map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(verdict, expected, "{name}");
    }
}

/// At every position, because the decoder may treat positions differently.
#[tokio::test]
async fn characters_outside_base64url_are_rejected() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let good = issuer.token().claim("x", "x".repeat(100)).build();
    for (place, own) in good.char_indices().filter(|(_, own)| *own != '.') {
        for other in ['+', '/', '=', '@', '[', '`', '{', ',', ':', ' ', '\0', '\u{7f}', 'é'] {
            let bad = format!("{}{other}{}", &good[..place], &good[place + own.len_utf8()..]);
            let verdict = verifier.verify(&bad).await.map_or_else(|error| error.code(), |_| "ok");
            assert_eq!(verdict, "malformed", "{other:?} at {place}");
        }
    }
}

/// Numbers halfway between two floats are expensive to parse exactly. If only one of the two
/// parsers accepted such a number, the application could not read any claims of a verified token.
#[tokio::test]
async fn verified_tokens_have_only_numbers_that_serde_json_can_parse() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    for number in [
        "1.7976931348623158e308",
        "17976931348623158e292",
        "-1.797693134862315807e308",
        "24703282292062327208e-343",
    ] {
        let good = String::from_utf8(
            base64::Engine::decode(
                &base64::engine::general_purpose::URL_SAFE_NO_PAD,
                issuer.token().build().split('.').nth(1).unwrap(),
            )
            .unwrap(),
        )
        .unwrap();
        let payload = format!("{}, \"x\":{number}}}", &good[..good.len() - 1]);
        if let Ok(token) = verifier.verify(&issuer.token().payload(payload).build()).await {
            assert!(token.claim("x").is_some(), "{number}: an accepted token has readable claims");
            assert_eq!(token.audience().count(), 1, "{number}");
        }
    }
}

#[tokio::test]
async fn tokens_are_limited_to_16_kib() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    // Base64 adds a third to the length of the padding. Find the longest padding that fits.
    let token = |length: usize| issuer.token().claim("x", "x".repeat(length)).build();
    let longest = (11_000..12_500).rev().find(|length| token(*length).len() <= 16 * 1024).unwrap();
    assert!(verifier.verify(&token(longest)).await.is_ok(), "{} bytes", token(longest).len());
    let longer = verifier.verify(&token(longest + 3)).await.unwrap_err();
    assert_eq!(longer.code(), "too_large");
}

#[tokio::test]
async fn each_rsa_key_serves_one_algorithm() {
    for own in [Algorithm::RS256, Algorithm::PS256] {
        let issuer = TestIssuer::offline_with("https://issuer.example/", own).unwrap();
        let mut jwk = issuer.jwks_json()["keys"][0].clone();
        let without_alg = {
            jwk.as_object_mut().unwrap().remove("alg");
            Jwks::from_json(set(&jwk.to_string())).unwrap()
        };
        let base = || Issuer::new(issuer.iss(), portcullis::testing::AUDIENCE).unwrap();
        let only =
            |algorithms: &[Algorithm]| base().algorithms(algorithms.iter().copied()).unwrap();
        let is_own = |expected: Algorithm| if own == expected { "ok" } else { "unknown_key" };
        for (name, config, expected) in [
            ("the key has alg", base().jwks(issuer.jwks()), "ok"),
            ("the default is RS256", base().jwks(without_alg.clone()), is_own(Algorithm::RS256)),
            (
                "the issuer allows PS256",
                only(&[Algorithm::PS256]).jwks(without_alg.clone()),
                if own == Algorithm::PS256 { "ok" } else { "unsupported_algorithm" },
            ),
            (
                "the first RSA algorithm of the issuer applies",
                only(&[Algorithm::PS256, Algorithm::RS256]).jwks(without_alg.clone()),
                is_own(Algorithm::PS256),
            ),
            (
                "the issuer allows EdDSA",
                only(&[Algorithm::EdDSA]).jwks(issuer.jwks()),
                "unsupported_algorithm",
            ),
        ] {
            let verifier = Verifier::new(config).unwrap();
            let verdict = verifier
                .verify(&issuer.token().build())
                .await
                .map_or_else(|error| error.code(), |_| "ok");
            assert_eq!(verdict, expected, "{own}: {name}");
        }
    }
}

/// RFC 9864 §2.2: `Ed25519` is equivalent to `EdDSA` with an Ed25519 key.
#[tokio::test]
async fn ed25519_has_two_algorithm_names() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    for key_says in [Some("EdDSA"), Some("Ed25519"), None] {
        let mut jwk = issuer.jwks_json()["keys"][0].clone();
        match key_says {
            Some(name) => jwk["alg"] = name.into(),
            None => drop(jwk.as_object_mut().unwrap().remove("alg")),
        }
        let config = Issuer::new(issuer.iss(), portcullis::testing::AUDIENCE).unwrap();
        let verifier =
            Verifier::new(config.jwks(Jwks::from_json(set(&jwk.to_string())).unwrap())).unwrap();
        for token_says in ["EdDSA", "Ed25519"] {
            let token = issuer.token().header("alg", token_says).build();
            assert!(verifier.verify(&token).await.is_ok(), "key {key_says:?}, token {token_says}");
        }
    }
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
            let signature = base64::Engine::encode(
                &base64::engine::general_purpose::URL_SAFE_NO_PAD,
                signature,
            );
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

#[test]
fn unusable_keys_are_ignored_and_reported() {
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
        json!(base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, modulus))
    };
    let cases = [
        ("null", json!(null), IgnoredKeyReason::Malformed),
        ("a string", json!("key"), IgnoredKeyReason::Malformed),
        ("no kty", without(&ec, "kty"), IgnoredKeyReason::Malformed),
        (
            "post-quantum",
            json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA" }),
            IgnoredKeyReason::Type,
        ),
        ("secp256k1", with(&ec, "crv", json!("secp256k1")), IgnoredKeyReason::Type),
        ("X25519", json!({ "kty": "OKP", "crv": "X25519", "x": short }), IgnoredKeyReason::Type),
        ("Ed448", json!({ "kty": "OKP", "crv": "Ed448", "x": short }), IgnoredKeyReason::Type),
        ("symmetric", json!({ "kty": "oct", "k": "AAAA" }), IgnoredKeyReason::Symmetric),
        ("private", with(&ec, "d", json!("AAAA")), IgnoredKeyReason::Private),
        ("a private prime", with(&rsa, "p", json!("AQAB")), IgnoredKeyReason::Private),
        (
            "a private exponent of a prime",
            with(&rsa, "dq", json!("AQAB")),
            IgnoredKeyReason::Private,
        ),
        ("for encryption", with(&rsa, "use", json!("enc")), IgnoredKeyReason::Use),
        (
            "key_ops without verify",
            with(&rsa, "key_ops", json!(["wrapKey"])),
            IgnoredKeyReason::Use,
        ),
        ("key_ops not an array", with(&rsa, "key_ops", json!("verify")), IgnoredKeyReason::Use),
        (
            "Keycloak's encryption key",
            with(&rsa, "alg", json!("RSA-OAEP")),
            IgnoredKeyReason::Algorithm,
        ),
        ("alg of another type", with(&rsa, "alg", json!("ES256")), IgnoredKeyReason::Algorithm),
        ("alg of another curve", with(&ec, "alg", json!("ES384")), IgnoredKeyReason::Algorithm),
        ("alg of a secret", with(&rsa, "alg", json!("HS256")), IgnoredKeyReason::Algorithm),
        ("alg none", with(&rsa, "alg", json!("none")), IgnoredKeyReason::Algorithm),
        ("alg a number", with(&rsa, "alg", json!(1)), IgnoredKeyReason::Malformed),
        ("kid a number", with(&rsa, "kid", json!(1)), IgnoredKeyReason::Malformed),
        ("kid too long", with(&rsa, "kid", json!("k".repeat(513))), IgnoredKeyReason::Malformed),
        ("kid null", with(&rsa, "kid", json!(null)), IgnoredKeyReason::Malformed),
        ("use an array", with(&rsa, "use", json!(["sig"])), IgnoredKeyReason::Use),
        ("empty key_ops", with(&rsa, "key_ops", json!([])), IgnoredKeyReason::Use),
        ("no x", without(&ec, "x"), IgnoredKeyReason::Malformed),
        ("no y", without(&ec, "y"), IgnoredKeyReason::Malformed),
        ("no curve", without(&ec, "crv"), IgnoredKeyReason::Malformed),
        ("no modulus", without(&rsa, "n"), IgnoredKeyReason::Malformed),
        ("no exponent", without(&rsa, "e"), IgnoredKeyReason::Malformed),
        ("exponent 1", with(&rsa, "e", json!("AQ")), IgnoredKeyReason::Malformed),
        ("exponent 0", with(&rsa, "e", json!("AA")), IgnoredKeyReason::Malformed),
        ("even exponent", with(&rsa, "e", json!("Ag")), IgnoredKeyReason::Malformed),
        ("huge exponent", with(&rsa, "e", rsa["n"].clone()), IgnoredKeyReason::Malformed),
        ("RSA 1024", with(&rsa, "n", modulus(0xff, 128)), IgnoredKeyReason::RsaSize),
        ("RSA 2047", with(&rsa, "n", modulus(0x7f, 256)), IgnoredKeyReason::RsaSize),
        ("RSA 16384", with(&rsa, "n", modulus(0xff, 2048)), IgnoredKeyReason::RsaSize),
        ("x too short", with(&ec, "x", json!("AQAB")), IgnoredKeyReason::Malformed),
        (
            "y too long",
            with(&ec, "y", json!(format!("AAAA{}", ec["y"].as_str().unwrap()))),
            IgnoredKeyReason::Malformed,
        ),
        ("off the curve", with(&ec, "y", ec["x"].clone()), IgnoredKeyReason::Malformed),
        ("not base64url", with(&ec, "x", json!("+".repeat(43))), IgnoredKeyReason::Malformed),
        (
            "Ed25519 too short",
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "AQAB" }),
            IgnoredKeyReason::Malformed,
        ),
        (
            "Ed25519 too long",
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "A".repeat(44) }),
            IgnoredKeyReason::Malformed,
        ),
    ];
    for (name, odd, reason) in cases {
        let set = json!({ "keys": [odd, ec], "more": { "members": [1] } }).to_string();
        let jwks = Jwks::from_json(&set).unwrap();
        assert_eq!(jwks.ignored(), [reason], "{name}");
        assert!(jwks.verify(&issuer.token().build()).is_ok(), "{name}: the usable key verifies");
    }
}

#[test]
fn irrelevant_key_members_are_ignored() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::RS256).unwrap();
    let base = issuer.jwks_json()["keys"][0].clone();
    for (name, member, value) in [
        ("key_ops with verify", "key_ops", json!(["verify"])),
        ("more key_ops", "key_ops", json!(["sign", "verify"])),
        ("a certificate", "x5c", json!(["MIIC"])),
        (
            "a private extension",
            "issuer",
            json!("https://login.microsoftonline.com/{tenantid}/v2.0"),
        ),
        ("leading zeros of the exponent", "e", json!("AAEAAQ")),
    ] {
        let mut jwk = base.clone();
        jwk[member] = value;
        let jwks = Jwks::from_json(set(&jwk.to_string())).unwrap();
        assert!(jwks.verify(&issuer.token().build()).is_ok(), "{name}");
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
    for (odd, len, ignored) in [(100, 1, 100), (499, 1, 499), (500, 0, 501)] {
        let mut members = vec![json!({ "kty": "AKP" }); odd];
        members.push(key.clone());
        match Jwks::from_json(json!({ "keys": members }).to_string()) {
            Ok(jwks) => assert_eq!((jwks.len(), jwks.ignored().len()), (len, ignored), "{odd}"),
            Err(error) => {
                assert!(len == 0 && error.to_string().contains("TooMany"), "{odd}: {error}");
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

/// Public keys in the formats that OpenSSL writes, and invalid documents.
#[tokio::test]
async fn public_keys_are_parsed_from_pem() {
    // `openssl genpkey -algorithm … | openssl pkey -pubout`, and of RSA also
    // `openssl rsa -RSAPublicKey_out`.
    let keys = include_str!("data/public_keys.pem");
    let blocks: Vec<_> = keys.split_inclusive("-----\n").collect();
    let blocks: Vec<_> = blocks.chunks(2).map(<[_]>::concat).collect();
    assert_eq!(blocks.len(), 6);
    let usable = blocks.iter().filter(|block| Jwks::from_pem(block).is_ok()).count();
    assert_eq!(usable, if cfg!(feature = "aws-lc-rs") { 6 } else { 5 });
    assert_eq!(Jwks::from_pem(blocks[0].clone() + &blocks[1]).unwrap().len(), 2);
    let more = Jwks::from_pem(keys).unwrap_err().to_string();
    assert!(more.contains("only 4 can be tried") || cfg!(not(feature = "aws-lc-rs")), "{more}");

    // A key from PEM has no `kid` and verifies tokens with any `kid`.
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let x = URL_SAFE_NO_PAD.decode(issuer.jwks_json()["keys"][0]["x"].as_str().unwrap()).unwrap();
    let der =
        [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &*x].concat();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(&der)
    );
    let jwks = Jwks::from_pem(&pem).unwrap();
    for token in
        [issuer.token(), issuer.token().header("kid", "any"), issuer.token().without_header("kid")]
    {
        assert!(jwks.verify(&token.build()).is_ok());
    }
    assert_eq!(jwks.verify(&issuer.token().tampered().build()), Err(InvalidToken::BadSignature));
    let verifier =
        Verifier::new(Issuer::new(issuer.iss(), portcullis::testing::AUDIENCE).unwrap().jwks(jwks))
            .unwrap();
    assert!(verifier.verify(&issuer.token().build()).await.is_ok());

    let block = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", STANDARD.encode(der))
    };
    let longer = [&*der, &[0]].concat();
    let mut unused_bits = der.clone();
    unused_bits[11] = 1;
    for (name, pem) in [
        ("empty", String::new()),
        ("HTML", "<html></html>".to_owned()),
        ("no end line", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA".to_owned()),
        ("an empty block", block("PUBLIC KEY", b"")),
        ("a private key", block("PRIVATE KEY", &der)),
        ("a certificate", block("CERTIFICATE", &der)),
        ("another label in the end line", pem.replace("END PUBLIC KEY", "END RSA KEY")),
        ("trailing data", block("PUBLIC KEY", &longer)),
        ("truncated", block("PUBLIC KEY", &der[..der.len() - 1])),
        ("unused bits", block("PUBLIC KEY", &unused_bits)),
        ("not base64", "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----".to_owned()),
        ("a valid and an invalid key", format!("{pem}{}", block("PUBLIC KEY", b"x"))),
        ("a point of small order", block("PUBLIC KEY", &[&der[..12], &[1], &[0; 31]].concat())),
    ] {
        assert!(Jwks::from_pem(&pem).is_err(), "{name}");
    }
    // No DER makes the parser panic or read out of bounds.
    for position in 0..der.len() {
        for value in [0, 1, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff] {
            let mut changed = der.clone();
            changed[position] = value;
            let _ = Jwks::from_pem(block("PUBLIC KEY", &changed));
            let _ = Jwks::from_pem(block("RSA PUBLIC KEY", &changed));
        }
    }
}

/// RSA keys without `alg`, as in RFC 7520 §4.2 and vectors of other projects, serve the configured
/// algorithm.
#[tokio::test]
async fn rsa_keys_without_alg_serve_the_configured_algorithm() {
    use Algorithm::{ES256, PS256, PS384, PS512, RS256, RS384, RS512};
    let issuer = TestIssuer::offline_with("https://issuer.example/", RS256).unwrap();
    let mut set = issuer.jwks_json();
    set["keys"][0].as_object_mut().unwrap().remove("alg");
    let jwks = || Jwks::from_json(set.to_string()).unwrap();
    let verifies = |algorithm: Algorithm| {
        let signer = TestIssuer::offline_with("x", algorithm).unwrap();
        let mut own = signer.jwks_json();
        own["keys"][0].as_object_mut().unwrap().remove("alg");
        let jwks = Jwks::from_json(own.to_string()).unwrap().rsa_algorithm(algorithm).unwrap();
        jwks.verify(&signer.token().build()).is_ok()
    };
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        assert!(verifies(algorithm), "{algorithm}");
    }
    assert!(jwks().verify(&issuer.token().build()).is_ok(), "RS256 by default");
    let other = jwks().rsa_algorithm(PS384).unwrap();
    assert!(other.verify(&issuer.token().build()).is_err(), "only the configured algorithm");
    assert!(jwks().rsa_algorithm(ES256).is_err());
    // As keys of an issuer, the issuer's configuration takes precedence over that of the set.
    let trust =
        |jwks: Jwks| Issuer::new(issuer.iss(), portcullis::testing::AUDIENCE).unwrap().jwks(jwks);
    let token = issuer.token().build();
    for (name, issuer, ok) in [
        ("algorithm of the set", trust(jwks().rsa_algorithm(PS384).unwrap()), false),
        ("default algorithm", trust(jwks()), true),
        (
            "algorithm of the issuer",
            trust(jwks().rsa_algorithm(PS384).unwrap()).algorithms([RS256]).unwrap(),
            true,
        ),
    ] {
        assert_eq!(Verifier::new(issuer).unwrap().verify(&token).await.is_ok(), ok, "{name}");
    }
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
    let rsa = |bytes: usize, e: &[u8], kid: &str| {
        // Not a product of two primes, which does not matter here.
        let mut n = vec![0xff; bytes];
        n[bytes / 2] = 0x5a;
        json!({ "kty": "RSA", "alg": "RS256", "kid": kid, "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) })
    };
    for (name, e, is_key) in [
        ("65537", &[1, 0, 1][..], true),
        ("3", &[3], true),
        ("24 bits", &[0xff, 0xff, 0xff], true),
        ("25 bits", &[1, 0, 0, 1], false),
        ("32 bits", &[0xff, 0xff, 0xff, 0xff], false),
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
    for (name, before, is_found) in [
        ("three of 2048 bits", vec![256, 256, 256], true),
        ("three of 4096 bits", vec![512, 512, 512], true),
        ("four of 2048 bits", vec![256, 256, 256, 256], false),
        ("one of 8192 bits", vec![1024], true),
        ("many of 4104 bits", vec![513; 10], true),
        ("three of 2048 bits and one of 8192", vec![256, 256, 256, 1024], true),
    ] {
        let mut keys: Vec<_> = before.iter().map(|bytes| rsa(*bytes, &[1, 0, 1], &kid)).collect();
        keys.push(good.clone());
        let jwks = Jwks::from_json(json!({ "keys": keys }).to_string()).unwrap();
        assert_eq!(jwks.verify(&token).is_ok(), is_found, "{name}");
    }
}
