//! Which answers make a token accepted.

use portcullis::testing::AUDIENCE;
use portcullis::{Audience, Error, InvalidToken, Issuer, Scope, TokenKind};
use serde_json::{Value, json};

use crate::support::{OPAQUE, Reply, api, api_with, auth};
use crate::verdict::verdict;
use portcullis::Introspection;

#[tokio::test]
async fn handlers_receive_a_token_as_from_a_jwt() {
    let api = api(|introspection| introspection).await;
    let expires = api.clock.unix_seconds() + 600;
    let answer = api.server.active_with(&json!({
        "exp": expires, "username": "alice@example.com", "permissions": ["orders"],
    }));
    api.server.reply(Reply::json(&answer));
    let token = api.verifier.verify(OPAQUE).await.unwrap();
    assert_eq!(token.kind(), TokenKind::Introspected);
    assert_eq!(token.subject(), Some("alice"), "`username` is not the subject");
    assert_eq!(token.client_id(), Some("app"));
    assert_eq!(token.issuer(), api.server.iss());
    assert_eq!(token.scope(), &Scope::try_from("read:messages").unwrap());
    assert!(token.has_scope("read:messages") && token.has_permission("orders"));
    assert_eq!(token.audience().collect::<Vec<_>>(), [AUDIENCE]);
    assert_eq!(token.claim("username").unwrap(), "alice@example.com");
    assert_eq!(token.raw_claims(), answer.to_string());
    assert_eq!(token.expose_token(), OPAQUE);
    let unix = token.expires_at().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(unix.as_secs(), expires);
}

#[tokio::test]
async fn only_the_boolean_true_means_active() {
    let api = api(|introspection| introspection).await;
    let active = api.server.active().to_string();
    let with = |value: &str| active.replace("\"active\":true", &format!("\"active\":{value}"));
    let padded = |bytes: usize| format!("{active}{}", " ".repeat(bytes - active.len()));
    let unavailable = "introspection_unavailable";
    let cases = [
        ("true", active.clone(), "ok"),
        ("false", with("false"), "inactive"),
        ("false, and nothing else", json!({ "active": false }).to_string(), "inactive"),
        ("a string", with("\"true\""), unavailable),
        ("another string", with("\"false\""), unavailable),
        ("a number", with("1"), unavailable),
        ("null", with("null"), unavailable),
        ("missing", active.replace("\"active\":true,", ""), unavailable),
        ("twice", with("true,\"active\":true"), unavailable),
        ("another member twice", with("true,\"sub\":\"bob\""), unavailable),
        ("in an array", format!("[{active}]"), unavailable),
        ("HTML", "<html>".to_owned(), unavailable),
        ("nothing", String::new(), unavailable),
        ("cut off", active[..active.len() - 1].to_owned(), unavailable),
        ("after a byte order mark", format!("\u{feff}{active}"), unavailable),
        ("64 KiB", padded(64 * 1024), "ok"),
        ("64 KiB and a byte", padded(64 * 1024 + 1), unavailable),
    ];
    for (number, (name, body, expected)) in cases.into_iter().enumerate() {
        api.server.reply(Reply::Body("application/json", body));
        let token = format!("{OPAQUE}{number}");
        assert_eq!(verdict(&api.verifier, &token).await, expected, "{name}");
    }
}

struct Case {
    name: &'static str,
    audience: Audience,
    members: Value,
    expected: &'static str,
}

#[tokio::test]
async fn an_answer_is_checked_like_claims() {
    let aud = || Audience::from(AUDIENCE);
    let now = portcullis::testing::TestClock::new().unix_seconds();
    let cases = [
        Case { name: "as is", audience: aud(), members: json!({}), expected: "ok" },
        Case {
            name: "no iss",
            audience: aud(),
            members: json!({ "iss": null }),
            expected: "claim_type",
        },
        Case {
            name: "another iss",
            audience: aud(),
            members: json!({ "iss": "https://other.example/" }),
            expected: "unknown_issuer",
        },
        Case {
            name: "aud with this API",
            audience: aud(),
            members: json!({ "aud": ["x", AUDIENCE] }),
            expected: "ok",
        },
        Case {
            name: "another aud",
            audience: aud(),
            members: json!({ "aud": "https://other.example" }),
            expected: "wrong_audience",
        },
        Case {
            name: "the client",
            audience: Audience::client_id(["app"]).aud_if_present([AUDIENCE]),
            members: json!({}),
            expected: "ok",
        },
        Case {
            name: "another client",
            audience: Audience::client_id(["other"]).aud_if_present([AUDIENCE]),
            members: json!({}),
            expected: "wrong_audience",
        },
        Case {
            name: "expired",
            audience: aud(),
            members: json!({ "exp": now - 60 }),
            expected: "expired",
        },
        Case {
            name: "within the leeway",
            audience: aud(),
            members: json!({ "exp": now - 10 }),
            expected: "ok",
        },
        Case {
            name: "not yet valid",
            audience: aud(),
            members: json!({ "nbf": now + 600 }),
            expected: "not_yet_valid",
        },
        Case {
            name: "issued in the future",
            audience: aud(),
            members: json!({ "iat": now + 600 }),
            expected: "issued_in_the_future",
        },
        Case {
            name: "exp as text",
            audience: aud(),
            members: json!({ "exp": "1" }),
            expected: "claim_type",
        },
        Case {
            name: "bound to a key",
            audience: aud(),
            members: json!({ "cnf": { "jkt": "x" }, "token_type": "DPoP" }),
            expected: "sender_constrained",
        },
        Case {
            name: "DPoP without a key",
            audience: aud(),
            members: json!({ "token_type": "DPoP" }),
            expected: "sender_constrained",
        },
        Case {
            name: "bearer in capitals",
            audience: aud(),
            members: json!({ "token_type": "BEARER" }),
            expected: "ok",
        },
        Case {
            name: "a refresh token of Hydra",
            audience: aud(),
            members: json!({ "token_use": "refresh_token" }),
            expected: "unexpected_type",
        },
        Case {
            name: "an access token of Hydra",
            audience: aud(),
            members: json!({ "token_use": "access_token" }),
            expected: "ok",
        },
        Case {
            name: "an ID token of Keycloak",
            audience: aud(),
            members: json!({ "typ": "ID" }),
            expected: "unexpected_type",
        },
        Case {
            name: "an access token of OpenIddict",
            audience: aud(),
            members: json!({ "token_usage": "access_token" }),
            expected: "ok",
        },
        Case {
            name: "a MAC token",
            audience: aud(),
            members: json!({ "token_type": "mac" }),
            expected: "unexpected_type",
        },
        Case {
            name: "token_type that is a number",
            audience: aud(),
            members: json!({ "token_type": 1 }),
            expected: "unexpected_type",
        },
        Case {
            name: "a member of another server that is null",
            audience: aud(),
            members: json!({ "token_use": null }),
            expected: "ok",
        },
        Case {
            name: "aud with this API, and no token_type",
            audience: aud(),
            members: json!({ "token_type": null }),
            expected: "ok",
        },
    ];
    for Case { name, audience, members, expected } in cases {
        let api = api_with(|server| {
            Issuer::new(server.iss(), audience).unwrap().introspection(Introspection::new(auth()))
        })
        .await;
        api.server.reply(Reply::json(&api.server.active_with(&members)));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_type_that_is_not_that_of_an_access_token_is_quoted_up_to_64_characters() {
    let api = api(|introspection| introspection).await;
    let cases = [
        ("text", json!("ID"), Some("ID".to_owned())),
        ("long text", json!("ü".repeat(65)), Some("ü".repeat(64))),
        ("a number", json!(1), None),
    ];
    for (name, value, quoted) in cases {
        api.server.reply(Reply::json(&api.server.active_with(&json!({ "typ": value }))));
        match api.verifier.verify(&format!("{OPAQUE}{value}")).await {
            Err(Error::InvalidToken(InvalidToken::UnexpectedType { presented, .. })) => {
                assert_eq!(presented, quoted, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn without_aud_the_configuration_says_what_an_answer_must_have() {
    let by_issuer = || Audience::checked_by_issuer();
    let client = || Audience::client_id(["app"]);
    let without = |members: &[&str]| {
        let mut answer =
            json!({ "active": true, "sub": "alice", "client_id": "app", "token_type": "Bearer" });
        members.iter().for_each(|name| drop(answer.as_object_mut().unwrap().remove(*name)));
        answer
    };
    let cases = [
        ("`aud` is configured", Audience::from(AUDIENCE), without(&[]), "missing_claim"),
        ("the client is", client(), without(&[]), "ok"),
        ("the issuer checks", by_issuer(), without(&[]), "ok"),
        (
            "what kind of token it is, is not said",
            by_issuer(),
            without(&["token_type"]),
            "missing_claim",
        ),
        ("nor here", client(), without(&["token_type"]), "missing_claim"),
        (
            "the `typ` of any JWT does not say it",
            client(),
            json!({ "active": true, "client_id": "app", "typ": "JWT" }),
            "missing_claim",
        ),
        (
            "the issuer checks, but it is for another API",
            by_issuer().aud_if_present([AUDIENCE]),
            json!({ "active": true, "aud": "x", "token_type": "Bearer" }),
            "wrong_audience",
        ),
    ];
    for (name, audience, answer, expected) in cases {
        let api = api_with(|server| {
            let introspection = Introspection::new(auth()).instead_of_keys();
            Issuer::new(server.iss(), audience).unwrap().introspection(introspection)
        })
        .await;
        api.server.reply(Reply::json(&answer));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, expected, "{name}");
    }
}

#[tokio::test]
async fn the_settings_of_the_issuer_apply_to_answers() {
    let now = portcullis::testing::TestClock::new().unix_seconds();
    type Configure = fn(Issuer) -> Issuer;
    let cases: [(&str, Configure, Value, &str); 7] = [
        (
            "alias",
            |issuer| issuer.alias("https://alias.example/").unwrap(),
            json!({ "iss": "https://alias.example/" }),
            "ok",
        ),
        (
            "required claim",
            |issuer| issuer.require_claim("org", ["acme"]),
            json!({ "org": "acme" }),
            "ok",
        ),
        (
            "required claim, another value",
            |issuer| issuer.require_claim("org", ["acme"]),
            json!({ "org": "x" }),
            "claim_value",
        ),
        (
            "age",
            |issuer| issuer.max_token_age(std::time::Duration::from_secs(60)).unwrap(),
            json!({ "iat": now - 30 }),
            "ok",
        ),
        (
            "too old",
            |issuer| issuer.max_token_age(std::time::Duration::from_secs(60)).unwrap(),
            json!({ "iat": now - 120 }),
            "too_old",
        ),
        (
            "age unknown",
            |issuer| issuer.max_token_age(std::time::Duration::from_secs(60)).unwrap(),
            json!({}),
            "missing_claim",
        ),
        ("claims of RFC 9068 are those of JWTs", Issuer::require_rfc9068, json!({}), "ok"),
    ];
    for (name, configure, members, expected) in cases {
        let api = api_with(|server| configure(server.issuer(Introspection::new(auth())))).await;
        api.server.reply(Reply::json(&api.server.active_with(&members)));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, expected, "{name}");
    }
}

/// It is known to be an access token for this API.
#[tokio::test]
async fn an_answer_about_a_verified_jwt_need_not_say_what_it_is_about() {
    let api = api_with(|server| {
        let introspection = Introspection::new(auth()).jwts_too();
        let audience = Audience::client_id(["app"]).aud_if_present([AUDIENCE]);
        Issuer::new(server.iss(), audience).unwrap().introspection(introspection)
    })
    .await;
    api.server.reply(Reply::json(&json!({ "active": true })));
    let jwt = api.server.keys().token().claim("client_id", "app").build();
    assert_eq!(verdict(&api.verifier, &jwt).await, "ok");
}

#[tokio::test]
async fn a_rejection_quotes_what_the_answer_names() {
    let api = api(|introspection| introspection).await;
    let (short, long) = ("https://other.example/".to_owned(), "ü".repeat(201));
    for (name, text, quoted) in [("short", &short, short.clone()), ("long", &long, "ü".repeat(200))]
    {
        let token = format!("{OPAQUE}{name}");
        api.server.reply(Reply::json(&api.server.active_with(&json!({ "iss": text }))));
        match api.verifier.verify(&token).await {
            Err(Error::InvalidToken(InvalidToken::UnknownIssuer { presented, .. })) => {
                assert_eq!(presented, quoted, "{name} iss");
            }
            other => panic!("{name}: {other:?}"),
        }
        // The list of audiences is cut only in the rejection that is remembered.
        let token = format!("{token}2");
        api.server.reply(Reply::json(&api.server.active_with(&json!({ "aud": vec![text; 9] }))));
        for expected in [vec![text.clone(); 9], vec![quoted; 8]] {
            match api.verifier.verify(&token).await {
                Err(Error::InvalidToken(InvalidToken::WrongAudience { presented, .. })) => {
                    assert_eq!(presented, expected, "{name} aud");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
