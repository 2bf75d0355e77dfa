//! Which claims make a token acceptable (RFC 7519 §4.1, RFC 9068 §4), tested through
//! `Verifier::verify` with a clock that stands still.

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
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(configure(issuer.issuer())).clock(&clock).build().unwrap();
    Api { issuer, verifier, now: clock.unix_seconds() }
}

/// Returns `ok`, or the code of the error.
async fn verdict(api: &Api, token: TokenBuilder) -> &'static str {
    match api.verifier.verify(&token.build()).await {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

/// Sets `claim` to each value in an otherwise valid token.
async fn check_values(claim: &str, cases: &[(&str, Value, &str)]) {
    let api = api(|issuer| issuer);
    for (name, value, expected) in cases {
        let token = api.issuer.token().claim(claim, value.clone());
        assert_eq!(verdict(&api, token).await, *expected, "{claim}: {name}");
    }
}

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
            verdict(&api, api.issuer.token().without_claim(claim)).await,
            expected,
            "without {claim}"
        );
    }
}

#[tokio::test]
async fn aud_must_contain_the_configured_audience() {
    let cases = [
        ("a string", json!(AUDIENCE), "ok"),
        ("one of an array", json!(["https://other.example", AUDIENCE]), "ok"),
        ("audience of another API", json!("https://other.example"), "wrong_audience"),
        ("with a trailing slash", json!(format!("{AUDIENCE}/")), "wrong_audience"),
        ("in uppercase", json!(AUDIENCE.to_uppercase()), "wrong_audience"),
        ("a prefix", json!("https://api"), "wrong_audience"),
        ("empty", json!(""), "wrong_audience"),
        ("an empty array", json!([]), "wrong_audience"),
        ("an array of arrays", json!([[AUDIENCE]]), "claim_type"),
        ("a number", json!(42), "claim_type"),
        ("an array with a number in it", json!([AUDIENCE, 42]), "claim_type"),
        ("null", json!(null), "claim_type"),
        ("an object", json!({ AUDIENCE: true }), "claim_type"),
    ];
    check_values("aud", &cases).await;
}

#[tokio::test]
async fn one_of_several_configured_audiences_suffices() {
    let api = api(|issuer| {
        let jwks =
            Issuer::new(issuer.iss(), ["https://old.example", "https://new.example"]).unwrap();
        jwks.jwks(TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap().jwks())
    });
    // The keys are another issuer's, so a token that passes the audience check fails at the key.
    for (audience, expected) in [
        ("https://old.example", "unknown_key"),
        ("https://new.example", "unknown_key"),
        (AUDIENCE, "wrong_audience"),
    ] {
        let token = api.issuer.token().audience(audience).header("kid", "none");
        assert_eq!(verdict(&api, token).await, expected, "{audience}");
    }
}

#[tokio::test]
async fn iss_is_compared_byte_by_byte() {
    let cases = [
        ("identical", json!(ISS), "ok"),
        ("without the trailing slash", json!("https://issuer.example/tenant"), "unknown_issuer"),
        ("host in uppercase", json!("https://ISSUER.example/tenant/"), "unknown_issuer"),
        ("with the default port", json!("https://issuer.example:443/tenant/"), "unknown_issuer"),
        ("with a user", json!("https://user@issuer.example/tenant/"), "unknown_issuer"),
        ("with a query", json!("https://issuer.example/tenant/?"), "unknown_issuer"),
        ("http", json!("http://issuer.example/tenant/"), "unknown_issuer"),
        ("empty", json!(""), "unknown_issuer"),
        ("an array that contains it", json!([ISS]), "claim_type"),
        ("a number", json!(1), "claim_type"),
        ("null", json!(null), "claim_type"),
    ];
    check_values("iss", &cases).await;
}

#[tokio::test]
async fn dates_are_numbers_of_seconds_up_to_the_year_9999() {
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
        assert_eq!(
            verdict(&api, api.issuer.token().payload(payload)).await,
            "malformed",
            "exp: {name}"
        );
    }
}

#[tokio::test]
async fn dates_are_checked_with_a_leeway_of_30_seconds() {
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
        assert_eq!(
            verdict(&api, api.issuer.token().claim(claim, now + offset)).await,
            expected,
            "{claim} {offset:+}"
        );
    }
}

#[tokio::test]
async fn the_leeway_is_configurable() {
    let api = api(|issuer| issuer.leeway(Duration::ZERO).unwrap());
    let now = api.now;
    for (claim, value, expected) in [
        ("exp", now + 1, "ok"),
        ("exp", now, "expired"),
        ("nbf", now, "ok"),
        ("nbf", now + 1, "not_yet_valid"),
        ("iat", now + 1, "issued_in_the_future"),
    ] {
        assert_eq!(
            verdict(&api, api.issuer.token().claim(claim, value)).await,
            expected,
            "{claim} {value}"
        );
    }
}

#[tokio::test]
async fn a_token_expires_as_time_passes() {
    let clock = TestClock::new();
    let issuer = TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let token = issuer.token().build();
    for (passes, accepted) in [(0, true), (3600 + 29, true), (1, false)] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verifier.verify(&token).await.is_ok(), accepted, "after {passes}s more");
    }
}

#[tokio::test]
async fn the_payload_is_a_json_object_without_duplicate_members() {
    let api = api(|issuer| issuer);
    let exp = api.now + 60;
    let good = format!(r#""iss":"{ISS}","aud":"{AUDIENCE}","exp":{exp}"#);
    for (name, payload, expected) in [
        ("valid", format!("{{{good}}}"), "ok"),
        ("a duplicate claim", format!(r#"{{{good},"aud":"{AUDIENCE}"}}"#), "malformed"),
        (
            "a duplicate claim, once escaped",
            format!(r#"{{{good},"\u0061ud":"{AUDIENCE}"}}"#),
            "malformed",
        ),
        (
            "a duplicate private claim",
            format!(r#"{{{good},"role":"user","role":"admin"}}"#),
            "malformed",
        ),
        (
            "a duplicate member inside a claim",
            format!(r#"{{{good},"x":{{"role":1,"role":2}}}}"#),
            "malformed",
        ),
        ("an array", format!("[{{{good}}}]"), "malformed"),
        ("two objects", format!("{{{good}}}{{}}"), "malformed"),
        ("a byte order mark", format!("\u{feff}{{{good}}}"), "malformed"),
        ("nested 15 deep", format!(r#"{{{good},"x":{}{}}}"#, "[".repeat(15), "]".repeat(15)), "ok"),
        (
            "nested 16 deep",
            format!(r#"{{{good},"x":{}{}}}"#, "[".repeat(16), "]".repeat(16)),
            "malformed",
        ),
        ("nested 4000 deep", format!(r#"{{{good},"x":{}"#, "[".repeat(4000)), "malformed"),
        ("truncated", format!("{{{good}"), "malformed"),
        ("empty", String::new(), "malformed"),
    ] {
        assert_eq!(verdict(&api, api.issuer.token().payload(payload)).await, expected, "{name}");
    }
    let mut latin1 = format!(r#"{{{good},"name":"Zo"#).into_bytes();
    latin1.extend([0xeb, b'"', b'}']);
    assert_eq!(verdict(&api, api.issuer.token().payload(latin1)).await, "malformed", "not UTF-8");
}

/// RFC 9449 §7.2, RFC 8705 §3: rejected, although this crate supports neither. If `cnf` were
/// ignored, anyone could use a stolen token.
#[tokio::test]
async fn sender_constrained_tokens_are_rejected() {
    let cases = [
        (
            "DPoP",
            json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
            "sender_constrained",
        ),
        (
            "mutual TLS",
            json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" }),
            "sender_constrained",
        ),
        ("an unknown confirmation method", json!({ "x": 1 }), "sender_constrained"),
        ("an empty object", json!({}), "sender_constrained"),
        ("a string", json!("jkt"), "sender_constrained"),
        ("null", json!(null), "ok"),
    ];
    check_values("cnf", &cases).await;
}

#[tokio::test]
async fn sub_must_be_a_string_if_present() {
    let cases = [
        ("a string", json!("alice"), "ok"),
        ("a number", json!(42), "claim_type"),
        ("null", json!(null), "claim_type"),
    ];
    check_values("sub", &cases).await;
}

#[tokio::test]
async fn scopes_are_read_from_scope_or_scp_as_string_or_array() {
    let api = api(|issuer| issuer);
    let token = || api.issuer.token();
    for (name, token, expected) in [
        ("no claim", token(), ""),
        ("scope", token().claim("scope", "a b"), "a b"),
        ("scope with extra spaces", token().claim("scope", "  a   b "), "a b"),
        ("scope, an array", token().claim("scope", json!(["a", "b"])), "a b"),
        ("scp", token().claim("scp", "a b"), "a b"),
        ("scp, an array", token().claim("scp", json!(["a", "b"])), "a b"),
        ("both: scope takes precedence", token().claim("scope", "a").claim("scp", "b"), "a"),
        ("both: an empty scope takes precedence", token().claim("scope", "").claim("scp", "b"), ""),
        ("a number grants nothing", token().claim("scope", 1), ""),
        ("mixed types grant nothing", token().claim("scope", json!(["a", 1])), ""),
        ("case is preserved", token().claim("scope", "Read read"), "Read read"),
    ] {
        let token = api.verifier.verify(&token.build()).await.unwrap();
        assert_eq!(token.scope().as_str(), expected, "{name}");
    }
}

#[tokio::test]
async fn the_client_is_read_from_client_id_azp_or_cid() {
    let api = api(|issuer| issuer);
    let token = || api.issuer.token().without_claim("client_id");
    for (name, token, expected) in [
        ("no claim", token(), None),
        ("RFC 9068", token().claim("client_id", "c").claim("azp", "a"), Some("c")),
        ("OpenID Connect", token().claim("azp", "a").claim("cid", "o"), Some("a")),
        ("Okta", token().claim("cid", "o"), Some("o")),
        ("a number", token().claim("cid", 7), None),
    ] {
        let token = api.verifier.verify(&token.build()).await.unwrap();
        assert_eq!(token.client_id(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_verified_token_returns_the_signed_claims() {
    #[derive(serde::Deserialize)]
    struct Own {
        org_id: String,
    }

    let api = api(|issuer| issuer);
    let compact =
        api.issuer.token().subject("alice").scope("read").claim("org_id", "org_1").build();
    let token = api.verifier.verify(&compact).await.unwrap();

    assert_eq!(token.issuer(), ISS);
    assert_eq!(token.subject(), Some("alice"));
    assert_eq!(token.audience().collect::<Vec<_>>(), [AUDIENCE]);
    assert_eq!(token.client_id(), Some("test-client"));
    assert_eq!(token.expires_at(), std::time::UNIX_EPOCH + Duration::from_secs(api.now + 3600));
    assert_eq!(token.claims::<Own>().unwrap().org_id, "org_1");
    assert_eq!(serde_json::from_str::<Value>(token.raw_claims()).unwrap()["org_id"], "org_1");
    assert_eq!(token.expose_token(), compact);
    assert!(matches!(
        token.require_scope(&"read write".parse().unwrap()),
        Err(Error::InsufficientScope { .. })
    ));
    assert_eq!(
        format!("{token:?}"),
        format!("AccessToken {{ issuer: {ISS:?}, .. }}"),
        "no token, no claims"
    );
}

#[tokio::test]
async fn errors_of_mismatched_claims_do_not_contain_their_values() {
    let api = api(|issuer| issuer);
    let token = api.issuer.token().claim("org_id", "CANARY").build();
    let token = api.verifier.verify(&token).await.unwrap();
    let error = token.claims::<std::collections::HashMap<String, u64>>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
}

/// Every mode rejects other kinds of JWT.
#[tokio::test]
async fn the_allowed_types_are_configurable() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let config = || issuer.issuer();
    let cases = [
        (
            "default",
            config(),
            ["ok", "ok", "ok", "unexpected_type", "unexpected_type", "unexpected_type"],
        ),
        (
            "RFC 9068",
            config().require_rfc9068(),
            [
                "unexpected_type",
                "unexpected_type",
                "ok",
                "unexpected_type",
                "unexpected_type",
                "unexpected_type",
            ],
        ),
        (
            "a list",
            config().allowed_types(["application/at+jwt", "x+jwt"]).unwrap(),
            ["ok", "unexpected_type", "ok", "ok", "unexpected_type", "unexpected_type"],
        ),
        (
            "any",
            config().danger_allow_any_type(),
            ["ok", "ok", "ok", "ok", "unexpected_type", "unexpected_type"],
        ),
    ];
    let types = [
        None,
        Some("JWT"),
        Some("at+jwt"),
        Some("x+jwt"),
        Some("logout+jwt; x=y"),
        Some("application/DPOP+JWT"),
    ];
    for (name, config, expected) in cases {
        let verifier = Verifier::new(config).unwrap();
        for (typ, expected) in types.iter().zip(expected) {
            let token = issuer.token().claim("jti", "1");
            let token = match typ {
                Some(typ) => token.header("typ", *typ),
                None => token.without_header("typ"),
            };
            let verdict =
                verifier.verify(&token.build()).await.map_or_else(|error| error.code(), |_| "ok");
            assert_eq!(verdict, expected, "{name}: {typ:?}");
        }
    }
    let strict = Verifier::new(config().require_rfc9068()).unwrap();
    for claim in ["sub", "client_id", "iat", "jti", "aud"] {
        let token = issuer.token().claim("jti", "1").without_claim(claim).build();
        let code = strict.verify(&token).await.unwrap_err().code();
        assert_eq!(code, "missing_claim", "{claim}");
    }
    for other in ["dpop+jwt", "application/logout+jwt", "SecEvent+JWT"] {
        assert!(config().allowed_types([other]).is_err(), "{other}");
    }
}

/// If an issuer sends no `aud`, another claim identifies the audience.
#[tokio::test]
async fn the_audience_may_be_read_from_another_claim() {
    use portcullis::Audience;
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let bare = || issuer.token().without_claim("aud").without_claim("client_id");
    let cases = [
        ("aud", Audience::any_of(["a", "b"]), issuer.token().audience("b"), "ok"),
        ("no aud", Audience::any_of(["a", "b"]), bare().claim("client_id", "a"), "missing_claim"),
        ("client_id", Audience::client_id(["a", "b"]), bare().claim("client_id", "b"), "ok"),
        (
            "client_id before azp",
            Audience::client_id(["a"]),
            bare().claim("client_id", "x").claim("azp", "a"),
            "wrong_audience",
        ),
        ("Okta's cid", Audience::client_id(["a"]), bare().claim("cid", "a"), "ok"),
        (
            "another client",
            Audience::client_id(["a"]),
            bare().claim("client_id", "b"),
            "wrong_audience",
        ),
        (
            "aud instead of client_id",
            Audience::client_id(["a"]),
            bare().audience("a"),
            "missing_claim",
        ),
        (
            "a client_id that is not a string",
            Audience::client_id(["a"]),
            bare().claim("client_id", ["a"]),
            "missing_claim",
        ),
        ("azp", Audience::authorized_party(["a"]), bare().claim("azp", "a"), "ok"),
        (
            "another azp",
            Audience::authorized_party(["a"]),
            bare().claim("azp", "b"),
            "wrong_audience",
        ),
        (
            "client_id instead of azp",
            Audience::authorized_party(["a"]),
            bare().claim("client_id", "a"),
            "missing_claim",
        ),
        ("any audience", Audience::danger_any_audience(), bare(), "ok"),
        (
            "any audience, aud of the wrong type",
            Audience::danger_any_audience(),
            bare().claim("aud", 7),
            "claim_type",
        ),
    ];
    for (name, audience, token, expected) in cases {
        let config = Issuer::new("https://issuer.example/", audience).unwrap().jwks(issuer.jwks());
        let verifier = Verifier::new(config).unwrap();
        let verdict =
            verifier.verify(&token.build()).await.map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(verdict, expected, "{name}");
    }
    for unusable in [
        Audience::client_id(Vec::<String>::new()),
        Audience::authorized_party([""]),
        Audience::any_of([" a"]),
    ] {
        assert!(Issuer::new("https://issuer.example/", unusable.clone()).is_err(), "{unusable}");
    }
}

/// The configuration can require and forbid claims of an issuer's access tokens.
#[tokio::test]
async fn claims_can_be_required_and_rejected() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    type Configure = fn(Issuer) -> Issuer;
    let cases: Vec<(&str, Configure, serde_json::Value, &str)> = vec![
        ("required", |i| i.require_claim("use", ["access"]), json!({ "use": "access" }), "ok"),
        ("one of several", |i| i.require_claim("use", ["a", "b"]), json!({ "use": "b" }), "ok"),
        ("in an array", |i| i.require_claim("use", ["a"]), json!({ "use": ["x", "a"] }), "ok"),
        ("another value", |i| i.require_claim("use", ["a"]), json!({ "use": "x" }), "claim_value"),
        ("missing", |i| i.require_claim("use", ["a"]), json!({}), "claim_value"),
        ("null", |i| i.require_claim("use", ["a"]), json!({ "use": null }), "claim_value"),
        ("a number", |i| i.require_claim("use", ["1"]), json!({ "use": 1 }), "claim_value"),
        (
            "nested in another claim",
            |i| i.require_claim("/k8s.io/ns", ["prod"]),
            json!({ "k8s.io": { "ns": "prod" } }),
            "ok",
        ),
        (
            "rejected value",
            |i| i.reject_claim("typ", ["ID"]),
            json!({ "typ": "ID" }),
            "claim_value",
        ),
        (
            "another value than the rejected one",
            |i| i.reject_claim("typ", ["ID"]),
            json!({ "typ": "Bearer" }),
            "ok",
        ),
        ("rejected value, claim missing", |i| i.reject_claim("typ", ["ID"]), json!({}), "ok"),
        (
            "rejected value in an array",
            |i| i.reject_claim("typ", ["ID"]),
            json!({ "typ": ["x", "ID"] }),
            "claim_value",
        ),
        ("forbidden claim, absent", |i| i.without_claim("nonce"), json!({}), "ok"),
        (
            "forbidden claim, present",
            |i| i.without_claim("nonce"),
            json!({ "nonce": null }),
            "claim_value",
        ),
        (
            "two rules",
            |i| i.require_claim("a", ["1"]).require_claim("b", ["2"]),
            json!({ "a": "1", "b": "x" }),
            "claim_value",
        ),
    ];
    for (name, configure, claims, expected) in cases {
        let verifier = Verifier::new(configure(issuer.issuer())).unwrap();
        let claims = claims.as_object().unwrap().clone();
        let token = claims
            .into_iter()
            .fold(issuer.token(), |token, (name, value)| token.claim(&name, value));
        let verdict =
            verifier.verify(&token.build()).await.map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(verdict, expected, "{name}");
    }
}

/// Handlers see unescaped values.
#[tokio::test]
async fn json_escapes_in_claims_are_decoded() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    for (name, sub, client, aud) in [
        ("plain", r#""alice""#, r#""app""#, format!(r#"["x","{AUDIENCE}"]"#)),
        ("escaped", r#""al\u0069ce""#, r#""a\u0070p""#, format!(r#"["\u0078","{AUDIENCE}"]"#)),
        ("whitespace", " \n\"alice\" ", " \"app\"", format!(" [ \"x\" , \"{AUDIENCE}\" ] ")),
    ] {
        let claims = format!(
            r#"{{"iss":"https://issuer.example/","sub":{sub},"client_id":{client},"aud":{aud},"scope":"a  b","exp":4000000000}}"#
        );
        let token = verifier.verify(&issuer.token().payload(claims.clone()).build()).await.unwrap();
        assert_eq!((token.subject(), token.client_id()), (Some("alice"), Some("app")), "{name}");
        assert_eq!(token.audience().collect::<Vec<_>>(), ["x", AUDIENCE], "{name}");
        assert_eq!(
            (token.scope().as_str(), token.raw_claims()),
            ("a b", claims.as_str()),
            "{name}"
        );
    }
}

/// RFC 6749 §3.3: the delimiter is a space.
#[tokio::test]
async fn scope_is_split_at_spaces_only() {
    let api = api(|issuer| issuer);
    for (name, scope, grants) in [
        ("spaces", "a read  b", true),
        ("a tab", "b\tread", false),
        ("a line feed", "b\nread", false),
        ("a form feed", "b\u{c}read", false),
        ("a no-break space", "b\u{a0}read", false),
        ("a comma", "b,read", false),
    ] {
        for claim in [json!(scope), json!([scope])] {
            let token = api
                .verifier
                .verify(&api.issuer.token().claim("scope", claim).build())
                .await
                .unwrap();
            assert_eq!(token.has_scope("read"), grants, "{name}");
            assert_eq!(token.has_scope(scope), !grants, "{name}: matches only the unsplit value");
        }
    }
}

/// All machines behind one gateway have an empty `sub`: they would be the same user.
#[tokio::test]
async fn an_empty_sub_is_no_subject() {
    let api = api(|issuer| issuer);
    let token = api.verifier.verify(&api.issuer.token().subject("").build()).await.unwrap();
    assert_eq!(token.subject(), None);
    let strict = self::api(Issuer::require_rfc9068);
    let token = strict.issuer.token().header("typ", "at+jwt").subject("");
    assert_eq!(verdict(&strict, token).await, "missing_claim");
}

/// RFC 7519 §4.1.3: a token whose `aud` names another API is rejected, even if another claim
/// identifies the audience.
#[tokio::test]
async fn aud_of_another_api_is_rejected_even_if_another_claim_identifies_the_audience() {
    let other = "https://other-api.example";
    for (name, audience) in [
        ("client_id", portcullis::Audience::client_id(["app"])),
        ("azp", portcullis::Audience::authorized_party(["app"])),
    ] {
        let strict = api(|issuer| issuer.audience(audience.clone()).unwrap());
        let named =
            api(|issuer| issuer.audience(audience.clone().aud_if_present([AUDIENCE])).unwrap());
        let cases = [
            ("absent", Value::Null, "ok", "ok"),
            ("of another API", json!(other), "wrong_audience", "wrong_audience"),
            ("of several other APIs", json!([other, "x"]), "wrong_audience", "wrong_audience"),
            ("is an empty array", json!([]), "wrong_audience", "wrong_audience"),
            ("of this API", json!(AUDIENCE), "wrong_audience", "ok"),
            ("of this API and another", json!([other, AUDIENCE]), "wrong_audience", "ok"),
            ("of the application", json!("app"), "wrong_audience", "wrong_audience"),
        ];
        for (case, aud, without, with) in cases {
            for (api, expected) in [(&strict, without), (&named, with)] {
                let token = api.issuer.token().claim("client_id", "app").claim("azp", "app");
                let token = if aud.is_null() {
                    token.without_claim("aud")
                } else {
                    token.claim("aud", aud.clone())
                };
                assert_eq!(verdict(api, token).await, expected, "{name}, aud {case}");
            }
        }
        let token = named.issuer.token().claim("client_id", "x").claim("azp", "x");
        assert_eq!(
            verdict(&named, token).await,
            "wrong_audience",
            "{name}: aud of this API, token of another application"
        );
    }
    let any = api(|issuer| {
        issuer
            .audience(portcullis::Audience::danger_any_audience().aud_if_present([AUDIENCE]))
            .unwrap()
    });
    for (aud, expected) in [(json!(AUDIENCE), "ok"), (json!(other), "wrong_audience")] {
        assert_eq!(verdict(&any, any.issuer.token().claim("aud", aud)).await, expected);
    }
    assert_eq!(verdict(&any, any.issuer.token().without_claim("aud")).await, "ok");
    let both = api(|issuer| {
        issuer.audience(portcullis::Audience::from(AUDIENCE).aud_if_present(["region"])).unwrap()
    });
    for (aud, expected) in [
        (json!([AUDIENCE, "region"]), "ok"),
        (json!(AUDIENCE), "wrong_audience"),
        (json!("region"), "wrong_audience"),
    ] {
        assert_eq!(
            verdict(&both, both.issuer.token().claim("aud", aud)).await,
            expected,
            "aud_if_present in addition to the audience"
        );
    }
    for odd in ["", " x"] {
        let audience = portcullis::Audience::client_id(["app"]).aud_if_present([odd]);
        assert!(Issuer::new(ISS, audience).is_err(), "{odd:?}");
    }
}

/// Claim requirements are checked before the signature only if the claims are cheap to read.
/// Otherwise each unsigned token could make the verifier read a megabyte of JSON.
#[tokio::test]
async fn claims_that_are_expensive_to_read_are_checked_after_the_signature() {
    let api = api(|issuer| issuer.require_claim("token_use", ["access"]));
    let cheap = || api.issuer.token().claim("token_use", "id");
    let dear = || cheap().claim("profile", json!(vec![json!({ "": 0 }); 1500]));
    let slow_text = || cheap().claim("profile", "x".repeat(11_000));
    for (name, token, expected) in [
        ("cheap", cheap(), "claim_value"),
        ("cheap, forged", cheap().tampered(), "claim_value"),
        ("expensive", dear(), "claim_value"),
        ("expensive, forged", dear().tampered(), "bad_signature"),
        ("long but cheap, forged", slow_text().tampered(), "claim_value"),
        ("expensive, valid", dear().claim("token_use", "access"), "ok"),
    ] {
        assert_eq!(verdict(&api, token).await, expected, "{name}");
    }
}

#[test]
fn an_issuer_can_be_created_from_owned_strings() {
    let (iss, audience) = (ISS.to_owned(), AUDIENCE.to_owned());
    assert!(Issuer::new(&iss, &audience).is_ok());
}
