//! `exp`, `nbf` and `iat`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Verifier};
use serde_json::json;

use crate::verdict::verdict;
use crate::{ClaimValue, ISS, api, check_values};

#[tokio::test]
async fn dates_are_numbers_of_seconds_up_to_the_year_9999() {
    for claim in ["exp", "nbf", "iat"] {
        let cases = [
            ClaimValue { name: "negative", value: json!(-1), expected: "claim_type" },
            ClaimValue { name: "a string", value: json!("1795000000"), expected: "claim_type" },
            ClaimValue { name: "null", value: json!(null), expected: "claim_type" },
            ClaimValue { name: "true", value: json!(true), expected: "claim_type" },
            ClaimValue { name: "an array", value: json!([1_795_000_000]), expected: "claim_type" },
            ClaimValue {
                name: "beyond the year 9999",
                value: json!(253_402_300_800_u64),
                expected: "claim_type",
            },
            ClaimValue { name: "the largest i64", value: json!(i64::MAX), expected: "claim_type" },
            ClaimValue { name: "the largest u64", value: json!(u64::MAX), expected: "claim_type" },
            ClaimValue {
                name: "the largest float",
                value: json!(f64::MAX),
                expected: "claim_type",
            },
            ClaimValue { name: "the smallest i64", value: json!(i64::MIN), expected: "claim_type" },
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
        assert_eq!(
            api.verdict(api.issuer.token().payload(payload)).await,
            "malformed",
            "exp: {name}"
        );
    }
}

#[tokio::test]
async fn dates_are_checked_with_a_leeway_of_30_seconds() {
    struct Case {
        claim: &'static str,
        offset: f64,
        expected: &'static str,
    }

    let api = api(|issuer| issuer);
    let now = api.now() as f64;
    for Case { claim, offset, expected } in [
        Case { claim: "exp", offset: 1.0, expected: "ok" },
        Case { claim: "exp", offset: 0.0, expected: "ok" },
        Case { claim: "exp", offset: -29.0, expected: "ok" },
        Case { claim: "exp", offset: -29.5, expected: "ok" },
        Case { claim: "exp", offset: -30.0, expected: "expired" },
        Case { claim: "exp", offset: -30.5, expected: "expired" },
        Case { claim: "exp", offset: -3600.0, expected: "expired" },
        Case { claim: "nbf", offset: 0.0, expected: "ok" },
        Case { claim: "nbf", offset: 30.0, expected: "ok" },
        Case { claim: "nbf", offset: 30.5, expected: "not_yet_valid" },
        Case { claim: "nbf", offset: 31.0, expected: "not_yet_valid" },
        Case { claim: "iat", offset: 30.0, expected: "ok" },
        Case { claim: "iat", offset: 30.5, expected: "issued_in_the_future" },
        Case { claim: "iat", offset: 31.0, expected: "issued_in_the_future" },
        Case { claim: "iat", offset: -1e9, expected: "ok" },
    ] {
        assert_eq!(
            api.verdict(api.issuer.token().claim(claim, now + offset)).await,
            expected,
            "{claim} {offset:+}"
        );
    }
}

#[tokio::test]
async fn the_leeway_is_configurable() {
    struct Case {
        claim: &'static str,
        value: u64,
        expected: &'static str,
    }

    let api = api(|issuer| issuer.leeway(Duration::ZERO).unwrap());
    let now = api.now();
    for Case { claim, value, expected } in [
        Case { claim: "exp", value: now + 1, expected: "ok" },
        Case { claim: "exp", value: now, expected: "expired" },
        Case { claim: "nbf", value: now, expected: "ok" },
        Case { claim: "nbf", value: now + 1, expected: "not_yet_valid" },
        Case { claim: "iat", value: now + 1, expected: "issued_in_the_future" },
    ] {
        assert_eq!(
            api.verdict(api.issuer.token().claim(claim, value)).await,
            expected,
            "{claim} {value}"
        );
    }
}

#[tokio::test]
async fn a_token_expires_as_time_passes() {
    let api = api(|issuer| issuer);
    let token = api.issuer.token().build();
    for (passes, accepted) in [(0, true), (3600 + 29, true), (1, false)] {
        api.clock.advance(Duration::from_secs(passes));
        assert_eq!(api.verifier.verify(&token).await.is_ok(), accepted, "after {passes}s more");
    }
}

/// `iat` is required then, and the leeway applies. A cached token becomes too old as well.
#[tokio::test]
async fn the_age_of_tokens_can_be_limited() {
    let limited = |issuer: Issuer| issuer.max_token_age(Duration::from_secs(600)).unwrap();
    struct Case {
        name: &'static str,
        age: Option<f64>,
        expected: &'static str,
    }
    let api = api(limited);
    for Case { name, age, expected } in [
        Case { name: "new", age: Some(0.0), expected: "ok" },
        Case { name: "within the limit", age: Some(599.0), expected: "ok" },
        Case { name: "within the leeway", age: Some(625.0), expected: "ok" },
        Case { name: "too old", age: Some(635.0), expected: "too_old" },
        Case { name: "years", age: Some(1e8), expected: "too_old" },
        Case { name: "without iat", age: None, expected: "missing_claim" },
    ] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let token = api.issuer.token().valid_for(Duration::from_secs(3600));
        let token = match age {
            Some(age) => token.claim("iat", now - age).without_claim("nbf"),
            None => token.without_claim("iat"),
        };
        assert_eq!(api.verdict(token).await, expected, "{name}");
    }

    let unlimited = self::api(|issuer| issuer.max_token_age(Duration::MAX).unwrap());
    assert_eq!(unlimited.verdict(unlimited.issuer.token()).await, "ok");

    let clock = TestClock::new();
    let issuer = TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(limited(issuer.issuer())).clock(&clock).build().unwrap();
    let token = issuer.token().valid_for(Duration::from_secs(3600)).build();
    for (passes, expected) in [(0, "ok"), (0, "ok"), (0, "ok"), (629, "ok"), (2, "too_old")] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict(&verifier, &token).await, expected, "{passes}");
    }
}
