//! The parameters of a token's header (RFC 7515 §4.1, RFC 8725).

use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Issuer, Verifier};
use serde_json::{Value, json};

use crate::verdict::verdict;

#[tokio::test]
async fn header_parameters_are_validated() {
    struct Case {
        parameter: &'static str,
        value: Value,
        expected: &'static str,
    }

    let issuer = TestIssuer::start_with(Algorithm::RS256).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let own_key =
        TestIssuer::offline_with(issuer.iss(), Algorithm::RS256).unwrap().jwks_json()["keys"][0]
            .clone();
    let cases = vec![
        Case { parameter: "alg", value: json!("none"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("None"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("NONE"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("nOnE"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!(""), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("rs256"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("RS256 "), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("RSA-OAEP"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("ES256K"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("Ed448"), expected: "unsupported_algorithm" },
        Case { parameter: "alg", value: json!("PS256"), expected: "unknown_key" },
        Case { parameter: "alg", value: json!("RS384"), expected: "unknown_key" },
        Case { parameter: "alg", value: json!(["RS256"]), expected: "malformed" },
        Case { parameter: "alg", value: json!(null), expected: "malformed" },
        Case { parameter: "kid", value: json!(1), expected: "malformed" },
        Case { parameter: "kid", value: json!(["key-1"]), expected: "malformed" },
        Case { parameter: "kid", value: json!(null), expected: "malformed" },
        Case { parameter: "kid", value: json!("k".repeat(513)), expected: "malformed" },
        Case { parameter: "kid", value: json!("../../key-1"), expected: "unknown_key" },
        Case { parameter: "kid", value: json!("key-1' OR '1'='1"), expected: "unknown_key" },
        Case { parameter: "kid", value: json!(""), expected: "unknown_key" },
        Case { parameter: "crit", value: json!(["exp"]), expected: "unsupported_critical" },
        Case { parameter: "crit", value: json!(["b64"]), expected: "unsupported_critical" },
        Case { parameter: "crit", value: json!([]), expected: "unsupported_critical" },
        Case { parameter: "crit", value: json!("exp"), expected: "unsupported_critical" },
        Case { parameter: "crit", value: json!(null), expected: "unsupported_critical" },
        Case { parameter: "typ", value: json!("dpop+jwt"), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!("logout+jwt"), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!("secevent+jwt"), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!("txntoken+jwt"), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!("wit+jwt"), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!("application/WPT+JWT"), expected: "unexpected_type" },
        Case {
            parameter: "typ",
            value: json!("token-introspection+jwt"),
            expected: "unexpected_type",
        },
        Case { parameter: "typ", value: json!("JWE"), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!("id_token"), expected: "unexpected_type" },
        Case {
            parameter: "typ",
            value: json!("application/application/at+jwt"),
            expected: "unexpected_type",
        },
        Case { parameter: "typ", value: json!("at+jwt; v=1"), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!("at+jwt "), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!(""), expected: "unexpected_type" },
        Case { parameter: "typ", value: json!(1), expected: "malformed" },
        Case { parameter: "typ", value: json!("JWT"), expected: "ok" },
        Case { parameter: "typ", value: json!("jwt"), expected: "ok" },
        Case { parameter: "typ", value: json!("at+jwt"), expected: "ok" },
        Case { parameter: "typ", value: json!("AT+JWT"), expected: "ok" },
        // RFC 7515 §4.1.9: `application/` may be omitted.
        Case { parameter: "typ", value: json!("application/at+jwt"), expected: "ok" },
        Case { parameter: "typ", value: json!("application/jwt"), expected: "ok" },
        Case { parameter: "typ", value: json!("Application/AT+JWT"), expected: "ok" },
        Case { parameter: "b64", value: json!(false), expected: "ok" },
        Case { parameter: "x", value: json!({ "any": ["thing", 1] }), expected: "ok" },
        // Keys and key URLs in the header are ignored, and nothing is fetched from them.
        Case { parameter: "jwk", value: own_key, expected: "ok" },
        Case {
            parameter: "jku",
            value: json!(format!("{}other.json", issuer.iss())),
            expected: "ok",
        },
        Case {
            parameter: "x5u",
            value: json!(format!("{}other.pem", issuer.iss())),
            expected: "ok",
        },
    ];
    for Case { parameter, value, expected } in cases {
        let token = issuer.token().header(parameter, value.clone()).build();
        assert_eq!(verdict(&verifier, &token).await, expected, "{parameter}: {value}");
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

/// Every mode rejects other kinds of JWT.
#[tokio::test]
async fn the_allowed_types_are_configurable() {
    /// A `typ`, and what each policy answers.
    struct Case {
        typ: Option<&'static str>,
        default: &'static str,
        rfc9068: &'static str,
        list: &'static str,
        any: &'static str,
    }

    struct Policy {
        name: &'static str,
        config: Issuer,
        expected: fn(&Case) -> &'static str,
    }

    const UNEXPECTED: &str = "unexpected_type";

    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let config = || issuer.issuer();
    let cases = [
        Case { typ: None, default: "ok", rfc9068: UNEXPECTED, list: "ok", any: "ok" },
        Case { typ: Some("JWT"), default: "ok", rfc9068: UNEXPECTED, list: UNEXPECTED, any: "ok" },
        Case { typ: Some("at+jwt"), default: "ok", rfc9068: "ok", list: "ok", any: "ok" },
        Case {
            typ: Some("x+jwt"),
            default: UNEXPECTED,
            rfc9068: UNEXPECTED,
            list: "ok",
            any: "ok",
        },
        Case {
            typ: Some("logout+jwt; x=y"),
            default: UNEXPECTED,
            rfc9068: UNEXPECTED,
            list: UNEXPECTED,
            any: UNEXPECTED,
        },
        Case {
            typ: Some("txntoken+jwt"),
            default: UNEXPECTED,
            rfc9068: UNEXPECTED,
            list: UNEXPECTED,
            any: UNEXPECTED,
        },
        Case {
            typ: Some("wit+jwt"),
            default: UNEXPECTED,
            rfc9068: UNEXPECTED,
            list: UNEXPECTED,
            any: UNEXPECTED,
        },
        Case {
            typ: Some("wpt+jwt"),
            default: UNEXPECTED,
            rfc9068: UNEXPECTED,
            list: UNEXPECTED,
            any: UNEXPECTED,
        },
        Case {
            typ: Some("application/DPOP+JWT"),
            default: UNEXPECTED,
            rfc9068: UNEXPECTED,
            list: UNEXPECTED,
            any: UNEXPECTED,
        },
    ];
    let policies = [
        Policy { name: "default", config: config(), expected: |case| case.default },
        Policy {
            name: "RFC 9068",
            config: config().require_rfc9068(),
            expected: |case| case.rfc9068,
        },
        Policy {
            name: "a list",
            config: config().allowed_types(["application/at+jwt", "x+jwt"]).unwrap(),
            expected: |case| case.list,
        },
        Policy { name: "any", config: config().danger_allow_any_type(), expected: |case| case.any },
    ];
    for Policy { name, config, expected } in policies {
        let verifier = Verifier::new(config).unwrap();
        for case in &cases {
            let token = issuer.token().claim("jti", "1");
            let token = match case.typ {
                Some(typ) => token.header("typ", typ),
                None => token.without_header("typ"),
            };
            let said = verdict(&verifier, &token.build()).await;
            assert_eq!(said, expected(case), "{name}: {:?}", case.typ);
        }
    }
    let strict = Verifier::new(config().require_rfc9068()).unwrap();
    for claim in ["sub", "client_id", "iat", "jti", "aud"] {
        let token = issuer.token().claim("jti", "1").without_claim(claim).build();
        let code = strict.verify(&token).await.unwrap_err().code();
        assert_eq!(code, "missing_claim", "{claim}");
    }
    for other in [
        "dpop+jwt",
        "application/logout+jwt",
        "SecEvent+JWT",
        "txntoken+jwt",
        "wit+jwt",
        "application/wpt+jwt",
    ] {
        assert!(config().allowed_types([other]).is_err(), "{other}");
    }
}
