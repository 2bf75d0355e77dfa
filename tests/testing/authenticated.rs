//! Tests of handlers without an issuer: `AccessToken::for_tests` and `authenticated_as`.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use axum::{Json, Router};
use portcullis::testing::{AUDIENCE, TestIssuer, assert_challenge, authenticated_as};
use portcullis::{AccessToken, Algorithm, Claims, ProtectLayer, Verifier};
use serde_json::{Value, json};
use tower::ServiceExt as _;

async fn who(token: AccessToken) -> Json<Value> {
    Json(json!({ "sub": token.subject(), "iss": token.issuer(), "scope": token.scope().as_str() }))
}

#[tokio::test]
async fn handlers_can_be_tested_without_an_issuer() {
    let token = AccessToken::for_tests(
        json!({ "sub": "alice", "scope": "a b", "roles": ["admin"], "plan": "pro" }),
    );
    assert!(token.has_scope("b") && token.has_role("admin"));
    assert_eq!(token.claim("plan"), Some(&json!("pro")));
    assert_eq!(token.audience().collect::<Vec<_>>(), [AUDIENCE]);
    assert_eq!(who(token).await.0["sub"], "alice");

    let own = json!({ "iss": "https://acme.eu.auth0.com/", "aud": "another", "sub": null });
    let token = AccessToken::for_tests(&own);
    assert_eq!((token.issuer(), token.subject()), ("https://acme.eu.auth0.com/", None));

    #[derive(serde::Serialize)]
    struct Own {
        sub: &'static str,
        exp: u64,
    }
    let token = AccessToken::for_tests(Own { sub: "bob", exp: 4_102_444_800 });
    assert_eq!(token.expires_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800));
    assert_ne!(
        token.expose_token(),
        AccessToken::for_tests(Own { sub: "bob", exp: 4_102_444_800 }).expose_token()
    );
}

#[test]
fn for_tests_panics_for_claims_that_no_verifier_accepts() {
    struct Case {
        name: &'static str,
        claims: Value,
        expected: &'static str,
    }

    for Case { name, claims, expected } in [
        Case {
            name: "expired",
            claims: json!({ "exp": 1 }),
            expected: "claims that no verifier accepts: ",
        },
        Case {
            name: "not yet valid",
            claims: json!({ "nbf": 4_102_444_800_u64 }),
            expected: "claims that no verifier accepts: ",
        },
        Case {
            name: "sender-constrained",
            claims: json!({ "cnf": { "jkt": "x" } }),
            expected: "claims that no verifier accepts: ",
        },
        Case {
            name: "no issuer",
            claims: json!({ "iss": null }),
            expected: "claims that no verifier accepts: ",
        },
        Case {
            name: "an array",
            claims: json!([1]),
            expected: "claims: expected an object, found [1]",
        },
    ] {
        let panicked = std::panic::catch_unwind(|| AccessToken::for_tests(claims)).unwrap_err();
        let said = panicked.downcast_ref::<String>().unwrap();
        assert!(said.starts_with(expected), "{name}: {said}");
    }
}

#[tokio::test]
async fn authenticated_as_does_not_bypass_the_layer() {
    let as_alice = || authenticated_as(json!({ "sub": "alice" }));
    let call = async |app: Router| {
        app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap()
    };

    let response = call(Router::new().route("/", get(who)).layer(as_alice())).await;
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["sub"], "alice");

    // Outside a `ProtectLayer` it has no effect: the request has no token.
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let protect = ProtectLayer::new(verifier.clone());
    let response =
        call(Router::new().route("/", get(who)).layer(protect.clone()).layer(as_alice())).await;
    assert_challenge(&response).status(401).realm("api").no_error();

    // Nor does the layer accept its token, which another issuer signed.
    let forged = AccessToken::for_tests(json!({ "sub": "alice", "iss": issuer.iss() }));
    assert_eq!(verifier.verify(forged.expose_token()).await.unwrap_err().code(), "bad_signature");
    let app = Router::new().route("/", get(who)).layer(protect);
    let mut request =
        Request::get("/").header("authorization", format!("Bearer {}", forged.expose_token()));
    request.extensions_mut().unwrap().insert(forged);
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_challenge(&response).status(401).error("invalid_token").reason("bad_signature");

    // Outside `allow_anonymous`, the request is anonymous. Inside, every extractor returns alice.
    type Both = (Option<AccessToken>, Option<Claims<Value>>);
    let both = async |token: Option<AccessToken>, claims: Option<Claims<Value>>| {
        let both: Both = (token, claims);
        format!("{} {}", both.0.is_some(), both.1.is_some())
    };
    let optional = || ProtectLayer::new(verifier.clone()).allow_anonymous();
    let app = || Router::new().route("/", get(both));
    for (app, expected) in [
        (app().layer(optional()).layer(as_alice()), "false false"),
        (app().layer(as_alice()).layer(optional()), "true true"),
    ] {
        let response = call(app).await;
        assert_eq!(axum::body::to_bytes(response.into_body(), 20).await.unwrap(), expected);
    }
}
