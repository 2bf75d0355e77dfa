//! Which claims make a token acceptable (RFC 7519 §4.1, RFC 9068 §4), tested through
//! `Verifier::verify` with a clock that stands still.

use portcullis::testing::{AUDIENCE, TestIssuer, TokenBuilder};
use portcullis::{Algorithm, Issuer, Verifier};
use serde_json::{Value, json};

use crate::verdict::verdict;
use crate::{ClaimValue, ISS, api, check_values, with_claims};

#[tokio::test]
async fn iss_aud_and_exp_are_required() {
    let api = api(|issuer| issuer);
    for (claim, expected) in [
        ("iss", "missing_claim"),
        ("aud", "missing_claim"),
        ("exp", "missing_claim"),
        ("iat", "ok"),
        ("sub", "ok"),
        ("client_id", "ok"),
    ] {
        assert_eq!(
            api.verdict(api.issuer.token().without_claim(claim)).await,
            expected,
            "without {claim}"
        );
    }
}

#[tokio::test]
async fn iss_is_compared_byte_by_byte() {
    let cases = [
        ClaimValue { name: "identical", value: json!(ISS), expected: "ok" },
        ClaimValue {
            name: "without the trailing slash",
            value: json!("https://issuer.example/tenant"),
            expected: "unknown_issuer",
        },
        ClaimValue {
            name: "host in uppercase",
            value: json!("https://ISSUER.example/tenant/"),
            expected: "unknown_issuer",
        },
        ClaimValue {
            name: "with the default port",
            value: json!("https://issuer.example:443/tenant/"),
            expected: "unknown_issuer",
        },
        ClaimValue {
            name: "with a user",
            value: json!("https://user@issuer.example/tenant/"),
            expected: "unknown_issuer",
        },
        ClaimValue {
            name: "with a query",
            value: json!("https://issuer.example/tenant/?"),
            expected: "unknown_issuer",
        },
        ClaimValue {
            name: "http",
            value: json!("http://issuer.example/tenant/"),
            expected: "unknown_issuer",
        },
        ClaimValue { name: "empty", value: json!(""), expected: "unknown_issuer" },
        ClaimValue {
            name: "an array that contains it",
            value: json!([ISS]),
            expected: "claim_type",
        },
        ClaimValue { name: "a number", value: json!(1), expected: "claim_type" },
        ClaimValue { name: "null", value: json!(null), expected: "claim_type" },
    ];
    check_values("iss", &cases).await;
}

#[tokio::test]
async fn sub_must_be_a_string_if_present() {
    let cases = [
        ClaimValue { name: "a string", value: json!("alice"), expected: "ok" },
        ClaimValue { name: "a number", value: json!(42), expected: "claim_type" },
        ClaimValue { name: "null", value: json!(null), expected: "claim_type" },
    ];
    check_values("sub", &cases).await;
}

/// RFC 9449 §7.2, RFC 8705 §3: rejected, although this crate supports neither. If `cnf` were
/// ignored, anyone could use a stolen token.
#[tokio::test]
async fn sender_constrained_tokens_are_rejected() {
    let cases = [
        ClaimValue {
            name: "DPoP",
            value: json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
            expected: "sender_constrained",
        },
        ClaimValue {
            name: "mutual TLS",
            value: json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" }),
            expected: "sender_constrained",
        },
        ClaimValue {
            name: "an unknown confirmation method",
            value: json!({ "x": 1 }),
            expected: "sender_constrained",
        },
        ClaimValue { name: "an empty object", value: json!({}), expected: "sender_constrained" },
        ClaimValue { name: "a string", value: json!("jkt"), expected: "sender_constrained" },
        ClaimValue { name: "null", value: json!(null), expected: "ok" },
    ];
    check_values("cnf", &cases).await;
}

#[tokio::test]
async fn the_payload_is_a_json_object_without_duplicate_members() {
    struct Case {
        name: &'static str,
        payload: String,
        expected: &'static str,
    }

    let api = api(|issuer| issuer);
    let exp = api.now() + 60;
    let good = format!(r#""iss":"{ISS}","aud":"{AUDIENCE}","exp":{exp}"#);
    for Case { name, payload, expected } in [
        Case { name: "valid", payload: format!("{{{good}}}"), expected: "ok" },
        Case {
            name: "a duplicate claim",
            payload: format!(r#"{{{good},"aud":"{AUDIENCE}"}}"#),
            expected: "malformed",
        },
        Case {
            name: "a duplicate claim, once escaped",
            payload: format!(r#"{{{good},"\u0061ud":"{AUDIENCE}"}}"#),
            expected: "malformed",
        },
        Case {
            name: "a duplicate private claim",
            payload: format!(r#"{{{good},"role":"user","role":"admin"}}"#),
            expected: "malformed",
        },
        Case {
            name: "a duplicate member inside a claim",
            payload: format!(r#"{{{good},"x":{{"role":1,"role":2}}}}"#),
            expected: "malformed",
        },
        Case { name: "an array", payload: format!("[{{{good}}}]"), expected: "malformed" },
        Case { name: "two objects", payload: format!("{{{good}}}{{}}"), expected: "malformed" },
        Case {
            name: "a byte order mark",
            payload: format!("\u{feff}{{{good}}}"),
            expected: "malformed",
        },
        Case {
            name: "nested 15 deep",
            payload: format!(r#"{{{good},"x":{}{}}}"#, "[".repeat(15), "]".repeat(15)),
            expected: "ok",
        },
        Case {
            name: "nested 16 deep",
            payload: format!(r#"{{{good},"x":{}{}}}"#, "[".repeat(16), "]".repeat(16)),
            expected: "malformed",
        },
        Case {
            name: "nested 4000 deep",
            payload: format!(r#"{{{good},"x":{}"#, "[".repeat(4000)),
            expected: "malformed",
        },
        Case { name: "truncated", payload: format!("{{{good}"), expected: "malformed" },
        Case { name: "empty", payload: String::new(), expected: "malformed" },
    ] {
        assert_eq!(api.verdict(api.issuer.token().payload(payload)).await, expected, "{name}");
    }
    let mut latin1 = format!(r#"{{{good},"name":"Zo"#).into_bytes();
    latin1.extend([0xeb, b'"', b'}']);
    assert_eq!(api.verdict(api.issuer.token().payload(latin1)).await, "malformed", "not UTF-8");
}

/// The configuration can require and forbid claims of an issuer's access tokens.
#[tokio::test]
async fn claims_can_be_required_and_rejected() {
    struct Case {
        name: &'static str,
        configure: fn(Issuer) -> Issuer,
        claims: Value,
        expected: &'static str,
    }

    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let cases = vec![
        Case {
            name: "required",
            configure: |i| i.require_claim("use", ["access"]),
            claims: json!({ "use": "access" }),
            expected: "ok",
        },
        Case {
            name: "one of several",
            configure: |i| i.require_claim("use", ["a", "b"]),
            claims: json!({ "use": "b" }),
            expected: "ok",
        },
        Case {
            name: "in an array",
            configure: |i| i.require_claim("use", ["a"]),
            claims: json!({ "use": ["x", "a"] }),
            expected: "ok",
        },
        Case {
            name: "another value",
            configure: |i| i.require_claim("use", ["a"]),
            claims: json!({ "use": "x" }),
            expected: "claim_value",
        },
        Case {
            name: "missing",
            configure: |i| i.require_claim("use", ["a"]),
            claims: json!({}),
            expected: "claim_value",
        },
        Case {
            name: "null",
            configure: |i| i.require_claim("use", ["a"]),
            claims: json!({ "use": null }),
            expected: "claim_value",
        },
        Case {
            name: "a number",
            configure: |i| i.require_claim("use", ["1"]),
            claims: json!({ "use": 1 }),
            expected: "claim_value",
        },
        Case {
            name: "nested in another claim",
            configure: |i| i.require_claim("/k8s.io/ns", ["prod"]),
            claims: json!({ "k8s.io": { "ns": "prod" } }),
            expected: "ok",
        },
        Case {
            name: "rejected value",
            configure: |i| i.reject_claim("typ", ["ID"]),
            claims: json!({ "typ": "ID" }),
            expected: "claim_value",
        },
        Case {
            name: "another value than the rejected one",
            configure: |i| i.reject_claim("typ", ["ID"]),
            claims: json!({ "typ": "Bearer" }),
            expected: "ok",
        },
        Case {
            name: "rejected value, claim missing",
            configure: |i| i.reject_claim("typ", ["ID"]),
            claims: json!({}),
            expected: "ok",
        },
        Case {
            name: "rejected value in an array",
            configure: |i| i.reject_claim("typ", ["ID"]),
            claims: json!({ "typ": ["x", "ID"] }),
            expected: "claim_value",
        },
        Case {
            name: "forbidden claim, absent",
            configure: |i| i.forbid_claim("nonce"),
            claims: json!({}),
            expected: "ok",
        },
        Case {
            name: "forbidden claim, present",
            configure: |i| i.forbid_claim("nonce"),
            claims: json!({ "nonce": null }),
            expected: "claim_value",
        },
        Case {
            name: "two rules",
            configure: |i| i.require_claim("a", ["1"]).require_claim("b", ["2"]),
            claims: json!({ "a": "1", "b": "x" }),
            expected: "claim_value",
        },
    ];
    for Case { name, configure, claims, expected } in cases {
        let verifier = Verifier::new(configure(issuer.issuer())).unwrap();
        let token = with_claims(issuer.token(), &claims);
        assert_eq!(verdict(&verifier, &token.build()).await, expected, "{name}");
    }
}

/// Claim requirements are checked before the signature only if the claims are cheap to read.
/// Otherwise each unsigned token could make the verifier read a megabyte of JSON.
#[tokio::test]
async fn claims_that_are_expensive_to_read_are_checked_after_the_signature() {
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        expected: &'static str,
    }

    let api = api(|issuer| issuer.require_claim("token_use", ["access"]));
    let cheap = || api.issuer.token().claim("token_use", "id");
    let dear = || cheap().claim("profile", json!(vec![json!({ "": 0 }); 1500]));
    let slow_text = || cheap().claim("profile", "x".repeat(11_000));
    for Case { name, token, expected } in [
        Case { name: "cheap", token: cheap(), expected: "claim_value" },
        Case { name: "cheap, forged", token: cheap().tampered(), expected: "claim_value" },
        Case { name: "expensive", token: dear(), expected: "claim_value" },
        Case { name: "expensive, forged", token: dear().tampered(), expected: "bad_signature" },
        Case {
            name: "long but cheap, forged",
            token: slow_text().tampered(),
            expected: "claim_value",
        },
        Case {
            name: "expensive, valid",
            token: dear().claim("token_use", "access"),
            expected: "ok",
        },
    ] {
        assert_eq!(api.verdict(token).await, expected, "{name}");
    }
}

/// Logout tokens and security events name an event of OpenID (RFC 8417 §2.2).
#[tokio::test]
async fn only_the_events_of_openid_are_not_those_of_an_access_token() {
    let cases = [
        ClaimValue { name: "no event", value: json!({}), expected: "ok" },
        ClaimValue { name: "another event", value: json!({ "x": 1 }), expected: "ok" },
        ClaimValue {
            name: "a name with a backslash",
            value: json!({ "a\\b": { "c": "\"" } }),
            expected: "ok",
        },
        ClaimValue { name: "a string", value: json!("x"), expected: "ok" },
        ClaimValue {
            name: "a logout",
            value: json!({ "http://schemas.openid.net/event/backchannel-logout": {} }),
            expected: "claim_value",
        },
        ClaimValue {
            name: "a revoked session, beside another event",
            value: json!({
                "a\\b": {},
                "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {},
            }),
            expected: "claim_value",
        },
    ];
    check_values("events", &cases).await;
}
