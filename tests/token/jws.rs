//! The compact serialization (RFC 7515 §7.1): which strings are a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Error, InvalidToken, Verifier};

use crate::verdict::verdict;

#[tokio::test]
async fn malformed_tokens_are_rejected() {
    struct Case {
        name: &'static str,
        token: String,
        expected: &'static str,
    }

    let issuer = TestIssuer::start_with(Algorithm::RS256).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let good = issuer.token().build();
    let [header, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    // The last base64url character may have unused bits. Only one encoding is canonical.
    let last = good.chars().last().unwrap();
    let uncanonical = char::from(last as u8 + 1);
    for Case { name, token, expected } in [
        Case { name: "valid", token: good.clone(), expected: "ok" },
        Case { name: "empty", token: String::new(), expected: "opaque" },
        Case {
            name: "opaque",
            token: "6LyqwQ4qPmBFkhzsKzNQJvCBvqZYEVPzWfGZ".to_owned(),
            expected: "opaque",
        },
        Case { name: "one period", token: format!("{header}.{payload}"), expected: "malformed" },
        Case { name: "two periods only", token: "..".to_owned(), expected: "malformed" },
        Case {
            name: "no signature",
            token: format!("{header}.{payload}."),
            expected: "bad_signature",
        },
        Case { name: "no header", token: format!(".{payload}.{signature}"), expected: "malformed" },
        Case { name: "no payload", token: format!("{header}..{signature}"), expected: "malformed" },
        Case { name: "four parts", token: format!("{good}.{signature}"), expected: "malformed" },
        Case { name: "five parts, a JWE", token: format!("{good}.a.b"), expected: "encrypted" },
        Case { name: "six parts", token: format!("{good}.a.b.c"), expected: "malformed" },
        Case { name: "padding", token: format!("{good}="), expected: "malformed" },
        Case {
            name: "the standard base64 alphabet",
            token: format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+") + "+"),
            expected: "malformed",
        },
        Case { name: "leading whitespace", token: format!(" {good}"), expected: "malformed" },
        Case { name: "a trailing newline", token: format!("{good}\n"), expected: "malformed" },
        Case {
            name: "a NUL",
            token: format!("{header}.{payload}.{signature}\0"),
            expected: "malformed",
        },
        Case {
            name: "not ASCII",
            token: format!("{header}.{payload}.{signature}é"),
            expected: "malformed",
        },
        Case {
            name: "JSON serialization",
            token: format!(r#"{{"payload":"{payload}"}}"#),
            expected: "opaque",
        },
        Case {
            name: "non-canonical",
            token: format!("{}{uncanonical}", &good[..good.len() - 1]),
            expected: "malformed",
        },
        Case {
            name: "header an array",
            token: format!("{}.{payload}.{signature}", b64("[]")),
            expected: "malformed",
        },
        Case {
            name: "header not JSON",
            token: format!("{}.{payload}.{signature}", b64("alg")),
            expected: "malformed",
        },
        Case {
            name: "alg twice",
            token: format!(
                "{}.{payload}.{signature}",
                b64(r#"{"alg":"none","alg":"RS256","kid":"key-1"}"#)
            ),
            expected: "malformed",
        },
        Case {
            name: "too large",
            token: format!("{header}.{payload}.{}", "A".repeat(16 * 1024)),
            expected: "too_large",
        },
        Case {
            name: "unsecured, RFC 7519 §6.1",
            token: "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UifQ.".to_owned(),
            expected: "unsupported_algorithm",
        },
    ] {
        assert_eq!(verdict(&verifier, &token).await, expected, "{name}");
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
            assert_eq!(verdict(&verifier, &bad).await, "malformed", "{other:?} at {place}");
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
            URL_SAFE_NO_PAD.decode(issuer.token().build().split('.').nth(1).unwrap()).unwrap(),
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
async fn the_error_names_the_part_that_is_malformed() {
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let good = issuer.token().build();
    let [header, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let periods = "three parts separated by periods";
    for (name, token, expected) in [
        ("header", format!("!.{payload}.{signature}"), "a header in base64url without padding"),
        ("payload", format!("{header}.!.{signature}"), "a payload in base64url without padding"),
        ("signature", format!("{header}.{payload}.!"), "a signature in base64url without padding"),
        ("two parts", format!("{header}.{payload}"), periods),
        ("four parts", format!("{good}.{signature}"), periods),
    ] {
        match verifier.verify(&token).await {
            Err(Error::InvalidToken(InvalidToken::Malformed(found))) => {
                assert_eq!(found, expected, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
