//! Signed answers: RFC 9701.

use portcullis::testing::{AUDIENCE, TestIssuer, TokenBuilder};
use portcullis::{Algorithm, Error, Introspection};
use serde_json::{Value, json};

use crate::support::{Api, OPAQUE, Reply, api, api_with, auth};
use crate::verdict::verdict;

const MEDIA_TYPE: &str = "application/token-introspection+jwt";
const UNAVAILABLE: &str = "introspection_unavailable";

/// A signed answer about an active token. The test kit's claims of access tokens are removed.
fn answer(api: &Api) -> TokenBuilder {
    ["sub", "client_id", "exp"]
        .into_iter()
        .fold(api.server.keys().token(), TokenBuilder::without_claim)
        .header("typ", "token-introspection+jwt")
        .audience("orders-api")
        .claim("token_introspection", api.server.active())
}

struct Case {
    name: &'static str,
    change: fn(TokenBuilder, &Api) -> TokenBuilder,
    expected: &'static str,
}

fn now(api: &Api) -> u64 {
    api.clock.unix_seconds()
}

#[tokio::test]
async fn signed_answers_are_verified() {
    let cases = [
        Case { name: "as is, without exp and sub", change: |jwt, _| jwt, expected: "ok" },
        Case {
            name: "typ with application/",
            change: |jwt, _| jwt.header("typ", MEDIA_TYPE),
            expected: "ok",
        },
        Case {
            name: "typ of an access token",
            change: |jwt, _| jwt.header("typ", "at+jwt"),
            expected: UNAVAILABLE,
        },
        Case { name: "no typ", change: |jwt, _| jwt.without_header("typ"), expected: UNAVAILABLE },
        Case {
            name: "another key",
            change: |jwt, api| {
                jwt.signed_by(
                    &TestIssuer::offline_with(api.server.iss(), Algorithm::ES256).unwrap(),
                )
            },
            expected: UNAVAILABLE,
        },
        Case { name: "unsigned", change: |jwt, _| jwt.unsigned(), expected: UNAVAILABLE },
        Case { name: "tampered with", change: |jwt, _| jwt.tampered(), expected: UNAVAILABLE },
        Case {
            name: "another issuer",
            change: |jwt, _| jwt.claim("iss", "https://other.example/"),
            expected: UNAVAILABLE,
        },
        Case {
            name: "no issuer",
            change: |jwt, _| jwt.without_claim("iss"),
            expected: UNAVAILABLE,
        },
        Case {
            name: "the API as audience, not the client",
            change: |jwt, _| jwt.audience(AUDIENCE),
            expected: UNAVAILABLE,
        },
        Case {
            name: "the client among others",
            change: |jwt, _| jwt.claim("aud", json!(["x", "orders-api"])),
            expected: "ok",
        },
        Case { name: "no aud", change: |jwt, _| jwt.without_claim("aud"), expected: UNAVAILABLE },
        Case { name: "no iat", change: |jwt, _| jwt.without_claim("iat"), expected: UNAVAILABLE },
        Case {
            name: "an old answer",
            change: |jwt, api| jwt.claim("iat", now(api) - 91),
            expected: UNAVAILABLE,
        },
        Case {
            name: "at the end of age and leeway",
            change: |jwt, api| jwt.claim("iat", now(api) - 90),
            expected: UNAVAILABLE,
        },
        Case {
            name: "within age and leeway",
            change: |jwt, api| jwt.claim("iat", now(api) - 89),
            expected: "ok",
        },
        Case {
            name: "from the future",
            change: |jwt, api| jwt.claim("iat", now(api) + 31),
            expected: UNAVAILABLE,
        },
        Case {
            name: "expired",
            change: |jwt, api| jwt.claim("exp", now(api) - 31),
            expected: UNAVAILABLE,
        },
        Case {
            name: "no answer in it",
            change: |jwt, _| jwt.without_claim("token_introspection"),
            expected: UNAVAILABLE,
        },
        Case {
            name: "an answer that is no object",
            change: |jwt, _| jwt.claim("token_introspection", "{\"active\":true}"),
            expected: UNAVAILABLE,
        },
        Case {
            name: "active outside",
            change: |jwt, _| jwt.claim("active", true).claim("token_introspection", json!({})),
            expected: UNAVAILABLE,
        },
        Case {
            name: "inactive",
            change: |jwt, _| jwt.claim("token_introspection", json!({ "active": false })),
            expected: "inactive",
        },
        Case {
            name: "active, for another API",
            change: |jwt, api| {
                let other = api.server.active_with(&json!({ "aud": "https://other.example" }));
                jwt.claim("token_introspection", other)
            },
            expected: "wrong_audience",
        },
    ];
    let api = api(Introspection::signed).await;
    for (number, Case { name, change, expected }) in cases.into_iter().enumerate() {
        api.server.reply(Reply::Body(MEDIA_TYPE, change(answer(&api), &api).build()));
        let token = format!("{OPAQUE}{number}");
        assert_eq!(verdict(&api.verifier, &token).await, expected, "{name}");
    }
}

#[tokio::test]
async fn answers_are_signed_with_an_algorithm_of_the_issuer() {
    for (algorithm, expected) in [(Algorithm::ES256, "ok"), (Algorithm::RS256, UNAVAILABLE)] {
        let api = api_with(|server| {
            let introspection = Introspection::new(auth()).signed();
            server.issuer(introspection).algorithms([algorithm]).unwrap()
        })
        .await;
        // Signed with ES256.
        api.server.reply(Reply::Body(MEDIA_TYPE, answer(&api).build()));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, expected, "{algorithm}");
    }
}

#[tokio::test]
async fn the_answer_within_is_what_handlers_receive() {
    let api = api(Introspection::signed).await;
    let jwt = answer(&api).claim("sub", "outside").build();
    api.server.reply(Reply::Body(MEDIA_TYPE, jwt));
    let token = api.verifier.verify(OPAQUE).await.unwrap();
    assert_eq!(token.subject(), Some("alice"));
    let claims: Value = serde_json::from_str(token.raw_claims()).unwrap();
    assert_eq!(claims, api.server.active());
    let [question] = &*api.server.questions() else { panic!("one question") };
    assert_eq!(question.header("accept"), MEDIA_TYPE);
}

#[tokio::test]
async fn unsigned_and_encrypted_answers_are_not_used_where_signed_ones_are_required() {
    let api = api(Introspection::signed).await;
    let signed = answer(&api).build();
    let cases = [
        ("JSON", Reply::json(&api.server.active())),
        ("JSON that claims to be signed", Reply::Body(MEDIA_TYPE, api.server.active().to_string())),
        ("a signed answer of another type", Reply::Body("application/jwt", signed.clone())),
        ("encrypted", Reply::Body(MEDIA_TYPE, format!("{signed}.a.b"))),
    ];
    for (name, reply) in cases {
        api.server.reply(reply);
        assert_eq!(verdict(&api.verifier, OPAQUE).await, UNAVAILABLE, "{name}");
    }
}

#[tokio::test]
async fn a_signed_answer_is_not_an_access_token_and_the_reverse() {
    let api = api(Introspection::signed).await;
    let as_token = answer(&api).audience(AUDIENCE).claim("exp", now(&api) + 600).build();
    assert_eq!(verdict(&api.verifier, &as_token).await, "unexpected_type");
    let access_token = api.server.keys().token().audience("orders-api").build();
    api.server.reply(Reply::Body(MEDIA_TYPE, access_token));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, UNAVAILABLE);
}

#[tokio::test]
async fn answers_signed_with_a_new_key_are_verified() {
    let api = api(Introspection::signed).await;
    api.server.reply(Reply::Body(MEDIA_TYPE, answer(&api).build()));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    api.server.keys().rotate().unwrap();
    api.server.reply(Reply::Body(MEDIA_TYPE, answer(&api).build()));
    assert_eq!(verdict(&api.verifier, "another").await, "ok");
}

#[tokio::test]
async fn the_error_says_why_an_answer_is_not_a_signed_one() {
    let api = api(Introspection::signed).await;
    let signed = answer(&api).build();
    for (name, body, expected) in [
        ("encrypted", format!("{signed}.a.b"), "a signed answer, not an encrypted one"),
        ("of four parts", format!("{signed}.a"), "a signed answer that is a JWT"),
        ("no JWT", "x".to_owned(), "a signed answer that is a JWT"),
    ] {
        api.server.reply(Reply::Body(MEDIA_TYPE, body));
        match api.verifier.verify(OPAQUE).await {
            Err(Error::IntrospectionUnavailable { reason, .. }) => {
                let reason = reason.to_string();
                assert!(reason.contains(expected), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_signed_with_an_unknown_key_causes_one_fetch_and_is_counted_once() {
    let api = api(Introspection::signed).await;
    api.server.reply(Reply::Body(MEDIA_TYPE, answer(&api).build()));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    let other = TestIssuer::offline_with(api.server.iss(), Algorithm::ES256).unwrap();
    let jwt = answer(&api).signed_by(&other).header("kid", "unknown");
    api.server.reply(Reply::Body(MEDIA_TYPE, jwt.build()));
    assert_eq!(verdict(&api.verifier, "another").await, UNAVAILABLE);
    let health = api.verifier.health().remove(0);
    assert_eq!((health.fetches, health.unknown_kids), (2, 1));
}
