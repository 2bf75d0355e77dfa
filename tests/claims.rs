//! Which claims make a token acceptable (RFC 7519 §4.1, RFC 9068 §4): through `Verifier::verify`, on a clock that stands.

use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestClock, TestIssuer, TokenBuilder};
use portcullis::{Algorithm, Error, Issuer, Verifier};
use serde_json::{Value, json};

const ISS: &str = "https://issuer.example/tenant/";

struct Api {
    issuer: TestIssuer,
    verifier: Verifier,
    now: u64,
}

fn api(configure: impl Fn(Issuer) -> Issuer) -> Api {
    let clock = TestClock::new();
    let issuer = TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap();
    issuer.clock(&clock);
    let verifier = Verifier::builder(configure(issuer.issuer())).clock(&clock).build().unwrap();
    Api { issuer, verifier, now: clock.unix_seconds() }
}

/// `ok`, or the code of the refusal.
async fn verdict(api: &Api, token: TokenBuilder) -> &'static str {
    match api.verifier.verify(&token.build()).await {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

/// `claim` set to each value in turn; all else good.
async fn check_values(claim: &str, cases: &[(&str, Value, &str)]) {
    let api = api(|issuer| issuer);
    for (name, value, expected) in cases {
        let token = api.issuer.token().claim(claim, value.clone());
        assert_eq!(verdict(&api, token).await, *expected, "{claim}: {name}");
    }
}

#[tokio::test]
async fn required_claims_are_required() {
    let api = api(|issuer| issuer);
    for (claim, expected) in [
        ("iss", "missing_claim"),
        ("aud", "missing_claim"),
        ("exp", "missing_claim"),
        ("iat", "ok"),
        ("sub", "ok"),
        ("client_id", "ok"),
    ] {
        assert_eq!(verdict(&api, api.issuer.token().without_claim(claim)).await, expected, "without {claim}");
    }
}

#[tokio::test]
async fn the_audience_must_be_this_api() {
    let cases = [
        ("a string", json!(AUDIENCE), "ok"),
        ("one of an array", json!(["https://other.example", AUDIENCE]), "ok"),
        ("another", json!("https://other.example"), "audience"),
        ("with a slash", json!(format!("{AUDIENCE}/")), "audience"),
        ("in upper case", json!(AUDIENCE.to_uppercase()), "audience"),
        ("a part of it", json!("https://api"), "audience"),
        ("empty", json!(""), "audience"),
        ("an empty array", json!([]), "audience"),
        ("an array of arrays", json!([[AUDIENCE]]), "claim_type"),
        ("a number", json!(42), "claim_type"),
        ("an array with a number in it", json!([AUDIENCE, 42]), "claim_type"),
        ("null", json!(null), "claim_type"),
        ("an object", json!({ AUDIENCE: true }), "claim_type"),
    ];
    check_values("aud", &cases).await;
}

#[tokio::test]
async fn any_of_several_configured_audiences_is_enough() {
    let api = api(|issuer| {
        let jwks = Issuer::new(issuer.iss(), ["https://old.example", "https://new.example"]).unwrap();
        jwks.jwks(TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap().jwks())
    });
    // The keys are another issuer's: whoever passes the audience check fails at the signature.
    for (audience, expected) in
        [("https://old.example", "unknown_key"), ("https://new.example", "unknown_key"), (AUDIENCE, "audience")]
    {
        let token = api.issuer.token().audience(audience).header("kid", "none");
        assert_eq!(verdict(&api, token).await, expected, "{audience}");
    }
}

#[tokio::test]
async fn the_issuer_is_compared_byte_by_byte() {
    let cases = [
        ("itself", json!(ISS), "ok"),
        ("without the slash", json!("https://issuer.example/tenant"), "unknown_issuer"),
        ("host in upper case", json!("https://ISSUER.example/tenant/"), "unknown_issuer"),
        ("with the default port", json!("https://issuer.example:443/tenant/"), "unknown_issuer"),
        ("with a user", json!("https://user@issuer.example/tenant/"), "unknown_issuer"),
        ("with a query", json!("https://issuer.example/tenant/?"), "unknown_issuer"),
        ("http", json!("http://issuer.example/tenant/"), "unknown_issuer"),
        ("empty", json!(""), "unknown_issuer"),
        ("an array with it", json!([ISS]), "claim_type"),
        ("a number", json!(1), "claim_type"),
        ("null", json!(null), "claim_type"),
    ];
    check_values("iss", &cases).await;
}

#[tokio::test]
async fn dates_are_numbers_of_seconds() {
    for claim in ["exp", "nbf", "iat"] {
        let cases = [
            ("negative", json!(-1), "claim_type"),
            ("a string", json!("1795000000"), "claim_type"),
            ("null", json!(null), "claim_type"),
            ("true", json!(true), "claim_type"),
            ("an array", json!([1_795_000_000]), "claim_type"),
            ("beyond the year 9999", json!(253_402_300_800_u64), "claim_type"),
            ("the largest i64", json!(i64::MAX), "claim_type"),
            ("the largest u64", json!(u64::MAX), "claim_type"),
            ("the largest float", json!(f64::MAX), "claim_type"),
            ("the smallest i64", json!(i64::MIN), "claim_type"),
        ];
        check_values(claim, &cases).await;
    }
    let api = api(|issuer| issuer);
    for (name, payload) in [
        ("1e400", r#"{"iss":"ISS","aud":"AUD","exp":1e400}"#),
        ("-1e400", r#"{"iss":"ISS","aud":"AUD","exp":-1e400}"#),
        ("400 digits", &format!(r#"{{"iss":"ISS","aud":"AUD","exp":{}}}"#, "9".repeat(400))),
        ("NaN", r#"{"iss":"ISS","aud":"AUD","exp":NaN}"#),
        ("Infinity", r#"{"iss":"ISS","aud":"AUD","exp":Infinity}"#),
    ] {
        let payload = payload.replace("ISS", ISS).replace("AUD", AUDIENCE);
        assert_eq!(verdict(&api, api.issuer.token().payload(payload)).await, "malformed", "exp: {name}");
    }
}

#[tokio::test]
async fn dates_hold_to_the_second_with_a_leeway_of_30() {
    let api = api(|issuer| issuer);
    let now = api.now as f64;
    for (claim, offset, expected) in [
        ("exp", 1.0, "ok"),
        ("exp", 0.0, "ok"),
        ("exp", -29.0, "ok"),
        ("exp", -29.5, "ok"),
        ("exp", -30.0, "expired"),
        ("exp", -30.5, "expired"),
        ("exp", -3600.0, "expired"),
        ("nbf", 0.0, "ok"),
        ("nbf", 30.0, "ok"),
        ("nbf", 30.5, "not_yet_valid"),
        ("nbf", 31.0, "not_yet_valid"),
        ("iat", 30.0, "ok"),
        ("iat", 30.5, "issued_in_the_future"),
        ("iat", 31.0, "issued_in_the_future"),
        ("iat", -1e9, "ok"),
    ] {
        assert_eq!(verdict(&api, api.issuer.token().claim(claim, now + offset)).await, expected, "{claim} {offset:+}");
    }
}

#[tokio::test]
async fn the_leeway_can_be_set() {
    let api = api(|issuer| issuer.leeway(Duration::ZERO).unwrap());
    let now = api.now;
    for (claim, value, expected) in [
        ("exp", now + 1, "ok"),
        ("exp", now, "expired"),
        ("nbf", now, "ok"),
        ("nbf", now + 1, "not_yet_valid"),
        ("iat", now + 1, "issued_in_the_future"),
    ] {
        assert_eq!(verdict(&api, api.issuer.token().claim(claim, value)).await, expected, "{claim} {value}");
    }
}

#[tokio::test]
async fn a_token_expires_while_time_passes() {
    let clock = TestClock::new();
    let issuer = TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap();
    issuer.clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let token = issuer.token().build();
    for (passes, accepted) in [(0, true), (3600 + 29, true), (1, false)] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verifier.verify(&token).await.is_ok(), accepted, "after {passes}s more");
    }
}

#[tokio::test]
async fn the_payload_is_one_strict_json_object() {
    let api = api(|issuer| issuer);
    let exp = api.now + 60;
    let good = format!(r#""iss":"{ISS}","aud":"{AUDIENCE}","exp":{exp}"#);
    for (name, payload, expected) in [
        ("good", format!("{{{good}}}"), "ok"),
        ("the same claim twice", format!(r#"{{{good},"aud":"{AUDIENCE}"}}"#), "malformed"),
        ("twice, once escaped", format!(r#"{{{good},"\u0061ud":"{AUDIENCE}"}}"#), "malformed"),
        ("an own claim twice", format!(r#"{{{good},"role":"user","role":"admin"}}"#), "malformed"),
        ("twice inside a claim", format!(r#"{{{good},"x":{{"role":1,"role":2}}}}"#), "malformed"),
        ("an array", format!("[{{{good}}}]"), "malformed"),
        ("two objects", format!("{{{good}}}{{}}"), "malformed"),
        ("a byte order mark", format!("\u{feff}{{{good}}}"), "malformed"),
        ("nested 15 deep", format!(r#"{{{good},"x":{}{}}}"#, "[".repeat(15), "]".repeat(15)), "ok"),
        ("nested 16 deep", format!(r#"{{{good},"x":{}{}}}"#, "[".repeat(16), "]".repeat(16)), "malformed"),
        ("nested 4000 deep", format!(r#"{{{good},"x":{}"#, "[".repeat(4000)), "malformed"),
        ("cut off", format!("{{{good}"), "malformed"),
        ("nothing", String::new(), "malformed"),
    ] {
        assert_eq!(verdict(&api, api.issuer.token().payload(payload)).await, expected, "{name}");
    }
    let mut latin1 = format!(r#"{{{good},"name":"Zo"#).into_bytes();
    latin1.extend([0xeb, b'"', b'}']);
    assert_eq!(verdict(&api, api.issuer.token().payload(latin1)).await, "malformed", "not UTF-8");
}

/// RFC 9449 §7.2, RFC 8705 §3: refused even though neither is supported, or a stolen token would be good for anybody.
#[tokio::test]
async fn a_sender_constrained_token_is_no_bearer_token() {
    let cases = [
        ("DPoP", json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }), "sender_constrained"),
        ("mutual TLS", json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" }), "sender_constrained"),
        ("an unknown way", json!({ "x": 1 }), "sender_constrained"),
        ("an empty object", json!({}), "sender_constrained"),
        ("a string", json!("jkt"), "sender_constrained"),
        ("null", json!(null), "ok"),
    ];
    check_values("cnf", &cases).await;
}

#[tokio::test]
async fn the_subject_is_a_string_if_there_is_one() {
    let cases = [
        ("a string", json!("alice"), "ok"),
        ("a number", json!(42), "claim_type"),
        ("null", json!(null), "claim_type"),
    ];
    check_values("sub", &cases).await;
}

#[tokio::test]
async fn scopes_come_as_scope_or_scp_as_string_or_array() {
    let api = api(|issuer| issuer);
    let token = || api.issuer.token();
    for (name, token, expected) in [
        ("none", token(), ""),
        ("scope", token().claim("scope", "a b"), "a b"),
        ("scope with more spaces", token().claim("scope", "  a   b "), "a b"),
        ("scope, an array", token().claim("scope", json!(["a", "b"])), "a b"),
        ("scp", token().claim("scp", "a b"), "a b"),
        ("scp, an array", token().claim("scp", json!(["a", "b"])), "a b"),
        ("both: scope counts", token().claim("scope", "a").claim("scp", "b"), "a"),
        ("an empty scope counts too", token().claim("scope", "").claim("scp", "b"), ""),
        ("a number grants nothing", token().claim("scope", 1), ""),
        ("mixed types grant nothing", token().claim("scope", json!(["a", 1])), ""),
        ("case is kept", token().claim("scope", "Read read"), "Read read"),
    ] {
        let token = api.verifier.verify(&token.build()).await.unwrap();
        assert_eq!(token.scope().as_str(), expected, "{name}");
    }
}

#[tokio::test]
async fn the_client_is_client_id_or_azp_or_cid() {
    let api = api(|issuer| issuer);
    let token = || api.issuer.token().without_claim("client_id");
    for (name, token, expected) in [
        ("none", token(), None),
        ("RFC 9068", token().claim("client_id", "c").claim("azp", "a"), Some("c")),
        ("OpenID Connect", token().claim("azp", "a").claim("cid", "o"), Some("a")),
        ("Okta", token().claim("cid", "o"), Some("o")),
        ("somebody's number", token().claim("cid", 7), None),
    ] {
        let token = api.verifier.verify(&token.build()).await.unwrap();
        assert_eq!(token.client_id(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_verified_token_tells_what_was_signed() {
    #[derive(serde::Deserialize)]
    struct Own {
        org_id: String,
    }

    let api = api(|issuer| issuer);
    let compact = api.issuer.token().subject("alice").scope("read").claim("org_id", "org_1").build();
    let token = api.verifier.verify(&compact).await.unwrap();

    assert_eq!(token.issuer(), ISS);
    assert_eq!(token.subject(), Some("alice"));
    assert_eq!(token.audience().collect::<Vec<_>>(), [AUDIENCE]);
    assert_eq!(token.client_id(), Some("test-client"));
    assert_eq!(token.expires_at(), std::time::UNIX_EPOCH + Duration::from_secs(api.now + 3600));
    assert_eq!(token.claims::<Own>().unwrap().org_id, "org_1");
    assert_eq!(serde_json::from_str::<Value>(token.raw_claims()).unwrap()["org_id"], "org_1");
    assert_eq!(token.expose_token(), compact);
    assert!(matches!(token.require_scope(&"read write".parse().unwrap()), Err(Error::InsufficientScope { .. })));
    assert_eq!(format!("{token:?}"), format!("AccessToken {{ issuer: {ISS:?}, .. }}"), "no token, no claims");
}

#[tokio::test]
async fn claims_that_do_not_fit_are_an_error_without_their_text() {
    let api = api(|issuer| issuer);
    let token = api.issuer.token().claim("org_id", "CANARY").build();
    let token = api.verifier.verify(&token).await.unwrap();
    let error = token.claims::<std::collections::HashMap<String, u64>>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
}
