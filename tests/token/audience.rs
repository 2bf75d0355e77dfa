//! `aud`, and the claims that may take its place.

use portcullis::testing::{AUDIENCE, TestIssuer, TokenBuilder};
use portcullis::{Algorithm, Audience, Issuer, Verifier};
use serde_json::{Value, json};

use crate::verdict::verdict;
use crate::{ClaimValue, ISS, api, check_values};

#[tokio::test]
async fn aud_must_contain_the_configured_audience() {
    let cases = [
        ClaimValue { name: "a string", value: json!(AUDIENCE), expected: "ok" },
        ClaimValue {
            name: "one of an array",
            value: json!(["https://other.example", AUDIENCE]),
            expected: "ok",
        },
        ClaimValue {
            name: "audience of another API",
            value: json!("https://other.example"),
            expected: "wrong_audience",
        },
        ClaimValue {
            name: "with a trailing slash",
            value: json!(format!("{AUDIENCE}/")),
            expected: "wrong_audience",
        },
        ClaimValue {
            name: "in uppercase",
            value: json!(AUDIENCE.to_uppercase()),
            expected: "wrong_audience",
        },
        ClaimValue { name: "a prefix", value: json!("https://api"), expected: "wrong_audience" },
        ClaimValue { name: "empty", value: json!(""), expected: "wrong_audience" },
        ClaimValue { name: "an empty array", value: json!([]), expected: "wrong_audience" },
        ClaimValue {
            name: "an array of arrays",
            value: json!([[AUDIENCE]]),
            expected: "claim_type",
        },
        ClaimValue { name: "a number", value: json!(42), expected: "claim_type" },
        ClaimValue {
            name: "an array with a number in it",
            value: json!([AUDIENCE, 42]),
            expected: "claim_type",
        },
        ClaimValue { name: "null", value: json!(null), expected: "claim_type" },
        ClaimValue { name: "an object", value: json!({ AUDIENCE: true }), expected: "claim_type" },
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
        assert_eq!(api.verdict(token).await, expected, "{audience}");
    }
}

/// If an issuer sends no `aud`, another claim identifies the audience.
#[tokio::test]
async fn the_audience_may_be_read_from_another_claim() {
    struct Case {
        name: &'static str,
        audience: Audience,
        token: TokenBuilder,
        expected: &'static str,
    }

    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let bare = || issuer.token().without_claim("aud").without_claim("client_id");
    let cases = [
        Case {
            name: "aud",
            audience: Audience::any_of(["a", "b"]),
            token: issuer.token().audience("b"),
            expected: "ok",
        },
        Case {
            name: "no aud",
            audience: Audience::any_of(["a", "b"]),
            token: bare().claim("client_id", "a"),
            expected: "missing_claim",
        },
        Case {
            name: "client_id",
            audience: Audience::client_id(["a", "b"]),
            token: bare().claim("client_id", "b"),
            expected: "ok",
        },
        Case {
            name: "client_id before azp",
            audience: Audience::client_id(["a"]),
            token: bare().claim("client_id", "x").claim("azp", "a"),
            expected: "wrong_audience",
        },
        Case {
            name: "Okta's cid",
            audience: Audience::client_id(["a"]),
            token: bare().claim("cid", "a"),
            expected: "ok",
        },
        Case {
            name: "another client",
            audience: Audience::client_id(["a"]),
            token: bare().claim("client_id", "b"),
            expected: "wrong_audience",
        },
        Case {
            name: "aud instead of client_id",
            audience: Audience::client_id(["a"]),
            token: bare().audience("a"),
            expected: "missing_claim",
        },
        Case {
            name: "a client_id that is not a string",
            audience: Audience::client_id(["a"]),
            token: bare().claim("client_id", ["a"]),
            expected: "missing_claim",
        },
        Case {
            name: "azp",
            audience: Audience::authorized_party(["a"]),
            token: bare().claim("azp", "a"),
            expected: "ok",
        },
        Case {
            name: "another azp",
            audience: Audience::authorized_party(["a"]),
            token: bare().claim("azp", "b"),
            expected: "wrong_audience",
        },
        Case {
            name: "client_id instead of azp",
            audience: Audience::authorized_party(["a"]),
            token: bare().claim("client_id", "a"),
            expected: "missing_claim",
        },
        Case {
            name: "any audience",
            audience: Audience::danger_any_audience(),
            token: bare(),
            expected: "ok",
        },
        Case {
            name: "any audience, aud of the wrong type",
            audience: Audience::danger_any_audience(),
            token: bare().claim("aud", 7),
            expected: "claim_type",
        },
    ];
    for Case { name, audience, token, expected } in cases {
        let config = Issuer::new("https://issuer.example/", audience).unwrap().jwks(issuer.jwks());
        let verifier = Verifier::new(config).unwrap();
        assert_eq!(verdict(&verifier, &token.build()).await, expected, "{name}");
    }
    for unusable in [
        Audience::client_id(Vec::<String>::new()),
        Audience::authorized_party([""]),
        Audience::any_of([" a"]),
    ] {
        assert!(Issuer::new("https://issuer.example/", unusable.clone()).is_err(), "{unusable}");
    }
}

/// RFC 7519 §4.1.3: a token whose `aud` names another API is rejected, even if another claim
/// identifies the audience.
#[tokio::test]
async fn aud_of_another_api_is_rejected_even_if_another_claim_identifies_the_audience() {
    struct Case {
        name: &'static str,
        aud: Value,
        without: &'static str,
        with: &'static str,
    }

    let other = "https://other-api.example";
    for (source, audience) in
        [("client_id", Audience::client_id(["app"])), ("azp", Audience::authorized_party(["app"]))]
    {
        let strict = api(|issuer| issuer.audience(audience.clone()).unwrap());
        let named =
            api(|issuer| issuer.audience(audience.clone().aud_if_present([AUDIENCE])).unwrap());
        let cases = [
            Case { name: "absent", aud: Value::Null, without: "ok", with: "ok" },
            Case {
                name: "of another API",
                aud: json!(other),
                without: "wrong_audience",
                with: "wrong_audience",
            },
            Case {
                name: "of several other APIs",
                aud: json!([other, "x"]),
                without: "wrong_audience",
                with: "wrong_audience",
            },
            Case {
                name: "is an empty array",
                aud: json!([]),
                without: "wrong_audience",
                with: "wrong_audience",
            },
            Case {
                name: "of this API",
                aud: json!(AUDIENCE),
                without: "wrong_audience",
                with: "ok",
            },
            Case {
                name: "of this API and another",
                aud: json!([other, AUDIENCE]),
                without: "wrong_audience",
                with: "ok",
            },
            Case {
                name: "of the application",
                aud: json!("app"),
                without: "wrong_audience",
                with: "wrong_audience",
            },
        ];
        for Case { name, aud, without, with } in cases {
            for (api, expected) in [(&strict, without), (&named, with)] {
                let token = api.issuer.token().claim("client_id", "app").claim("azp", "app");
                let token = if aud.is_null() {
                    token.without_claim("aud")
                } else {
                    token.claim("aud", aud.clone())
                };
                assert_eq!(api.verdict(token).await, expected, "{source}, aud {name}");
            }
        }
        let token = named.issuer.token().claim("client_id", "x").claim("azp", "x");
        assert_eq!(
            named.verdict(token).await,
            "wrong_audience",
            "{source}: aud of this API, token of another application"
        );
    }
    let any = api(|issuer| {
        issuer.audience(Audience::danger_any_audience().aud_if_present([AUDIENCE])).unwrap()
    });
    for (aud, expected) in [(json!(AUDIENCE), "ok"), (json!(other), "wrong_audience")] {
        assert_eq!(any.verdict(any.issuer.token().claim("aud", aud)).await, expected);
    }
    assert_eq!(any.verdict(any.issuer.token().without_claim("aud")).await, "ok");
    let both =
        api(|issuer| issuer.audience(Audience::from(AUDIENCE).aud_if_present(["region"])).unwrap());
    for (aud, expected) in [
        (json!([AUDIENCE, "region"]), "ok"),
        (json!(AUDIENCE), "wrong_audience"),
        (json!("region"), "wrong_audience"),
    ] {
        assert_eq!(
            both.verdict(both.issuer.token().claim("aud", aud)).await,
            expected,
            "aud_if_present in addition to the audience"
        );
    }
    for odd in ["", " x"] {
        let audience = Audience::client_id(["app"]).aud_if_present([odd]);
        assert!(Issuer::new(ISS, audience).is_err(), "{odd:?}");
    }
}

#[test]
fn an_issuer_can_be_created_from_owned_strings() {
    let (iss, audience) = (ISS.to_owned(), AUDIENCE.to_owned());
    assert!(Issuer::new(&iss, &audience).is_ok());
}
