//! Verification of a request without a tower service.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use portcullis::testing::{TestIssuer, assert_challenge};
use portcullis::{AccessToken, ProtectLayer, Rule, TokenSource, Verifier};
use tower::{Layer as _, ServiceExt as _};

use super::{offline_issuer, protect};

/// A layer, a request, and what both of its forms answer.
struct Case {
    name: &'static str,
    layer: fn(ProtectLayer) -> ProtectLayer,
    request: fn(&str) -> http::request::Builder,
    expected: Expected,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Token,
    Anonymous,
    Rejected { status: u16, code: &'static str, grpc: i32 },
}

fn bearer(token: &str) -> http::request::Builder {
    Request::get("/orders").header(header::AUTHORIZATION, format!("Bearer {token}"))
}

/// The token with another signature.
fn tampered(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{first}{}", &signature[1..])
}

const CASES: [Case; 10] = [
    Case {
        name: "a valid token",
        layer: |protect| protect.scope("orders:read"),
        request: bearer,
        expected: Expected::Token,
    },
    Case {
        name: "no token",
        layer: |protect| protect.scope("orders:read"),
        request: |_| Request::get("/orders"),
        expected: Expected::Rejected { status: 401, code: "missing", grpc: 16 },
    },
    Case {
        name: "no token, which the layer lets through",
        layer: ProtectLayer::allow_anonymous,
        request: |_| Request::get("/orders"),
        expected: Expected::Anonymous,
    },
    Case {
        name: "an invalid token",
        layer: ProtectLayer::allow_anonymous,
        request: |token| bearer(&tampered(token)),
        expected: Expected::Rejected { status: 401, code: "bad_signature", grpc: 16 },
    },
    Case {
        name: "two tokens",
        layer: |protect| protect,
        request: |token| bearer(token).header(header::AUTHORIZATION, "Bearer abc"),
        expected: Expected::Rejected { status: 400, code: "invalid_request", grpc: 16 },
    },
    Case {
        name: "a scope that the token lacks",
        layer: |protect| protect.scope("orders:write"),
        request: bearer,
        expected: Expected::Rejected { status: 403, code: "insufficient_scope", grpc: 7 },
    },
    Case {
        name: "a rule about the request",
        layer: |protect| protect.rule(Rule::custom("path", |_, request| request.uri.path() == "/")),
        request: bearer,
        expected: Expected::Rejected { status: 403, code: "forbidden", grpc: 7 },
    },
    Case {
        name: "a token in the query",
        layer: |protect| protect.token_sources([TokenSource::danger_query("access_token")]),
        request: |token| Request::get(format!("/orders?access_token={token}.A")),
        expected: Expected::Rejected { status: 401, code: "malformed", grpc: 16 },
    },
    Case {
        name: "a CORS preflight",
        layer: ProtectLayer::allow_preflight,
        request: |_| {
            Request::options("/orders")
                .header(header::ORIGIN, "https://app.example")
                .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
        },
        expected: Expected::Anonymous,
    },
    Case {
        name: "a gRPC request",
        layer: |protect| protect.scope("orders:write"),
        request: |token| {
            Request::post("/orders.Orders/List")
                .version(Version::HTTP_2)
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
        },
        expected: Expected::Rejected { status: 200, code: "insufficient_scope", grpc: 7 },
    },
];

/// The answers for frameworks without tower are those of the layer.
#[tokio::test]
async fn requests_are_verified_without_a_service_as_with_one() {
    let issuer = offline_issuer();
    let token = issuer.token().subject("alice").scope("orders:read").build();
    for Case { name, layer, request, expected } in CASES {
        let layer = layer(protect(&issuer)).problem_json();
        let request = request(&token).body(Body::empty()).unwrap();
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        parts.headers = request.headers().clone();

        let verdict = layer.verify_request(&parts).await;
        let at_once = layer.try_verify_request(&parts).expect("the keys are configured");
        let service = layer.layer(tower::service_fn(async |_: Request<Body>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty()))
        }));
        let response = service.oneshot(request).await.unwrap();
        let answer = match &verdict {
            Ok(Some(token)) => {
                assert_eq!(token.subject(), Some("alice"), "{name}");
                Expected::Token
            }
            Ok(None) => Expected::Anonymous,
            Err(rejection) => Expected::Rejected {
                status: rejection.status().as_u16(),
                code: rejection.error().code(),
                grpc: rejection.grpc_code(),
            },
        };
        assert_eq!(answer, expected, "{name}");
        match (verdict, at_once) {
            (Ok(one), Ok(other)) => {
                assert_eq!(one.is_some(), other.is_some(), "{name}");
                assert_eq!(response.status(), StatusCode::OK, "{name}");
                assert!(response.extensions().get::<portcullis::Error>().is_none(), "{name}");
            }
            (Err(one), Err(other)) => {
                assert_eq!(one.headers(), response.headers(), "{name}");
                assert_eq!(one.headers(), other.headers(), "{name}");
                assert_eq!(one.body(), other.body(), "{name}");
                let one = one.into_response::<Body>();
                assert_eq!(one.status(), response.status(), "{name}");
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(one.into_body().collect().await.unwrap().to_bytes(), bytes, "{name}");
            }
            (one, other) => panic!("{name}: {one:?} and {other:?}"),
        }
    }
}

/// An error of a handler gets the layer's realm and body, and its own scope.
#[test]
fn errors_of_handlers_become_responses_of_the_layer() {
    let issuer = offline_issuer();
    let token = AccessToken::for_tests(serde_json::json!({ "scope": "orders:read" }));
    let error = token.require_scope(&"orders:write".parse().unwrap()).unwrap_err();
    let layer = protect(&issuer).realm("orders").scope("orders:read").problem_json();
    let (parts, ()) = Request::get("/orders").body(()).unwrap().into_parts();
    let rejection = layer.rejection(error.clone(), &parts);
    assert_eq!((rejection.status().as_u16(), rejection.grpc_code()), (403, 7));
    let message = "The access token does not grant what this operation needs";
    assert_eq!(rejection.message(), message);
    assert!(rejection.body().contains(message), "{}", rejection.body());
    let response = rejection.into_response::<Body>();
    assert_challenge(&response)
        .status(403)
        .realm("orders")
        .error("insufficient_scope")
        .scope("orders:write");

    let rule = Rule::acr(["gold"]).and(Rule::max_auth_age(Duration::from_secs(60)));
    let rejection = layer.rejection(rule.check(&token).unwrap_err(), &parts);
    assert_eq!(rejection.message(), "The user must sign in again, or in a stronger way");
    assert_challenge(&rejection.into_response::<Body>())
        .status(401)
        .realm("orders")
        .error("insufficient_user_authentication")
        .parameter("acr_values", "gold")
        .parameter("max_age", "60")
        .without("scope");

    // A token in the query leaves its mark on every response.
    let layer = layer.without_challenge().token_sources([TokenSource::danger_query("t")]);
    let (parts, ()) = Request::get("/orders?t=abc").body(()).unwrap().into_parts();
    let rejection = layer.rejection(error, &parts);
    assert_eq!(rejection.headers()[header::CACHE_CONTROL], "no-store");
    assert!(!rejection.headers().contains_key(header::WWW_AUTHENTICATE));
}

#[tokio::test]
async fn a_verification_that_has_to_wait_says_so_and_fetches_the_keys() {
    let issuer = TestIssuer::start().unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let token = issuer.token().build();
    let protect = ProtectLayer::new(verifier.clone());
    let (parts, ()) = bearer(&token).body(()).unwrap().into_parts();

    assert!(protect.try_verify_request(&parts).is_none(), "no keys yet");
    assert!(verifier.try_verify(&token).is_none(), "no keys yet");
    // Joins the fetch that was started.
    verifier.verify(&token).await.unwrap();
    assert_eq!(issuer.jwks_fetches(), 1, "one fetch");
    assert!(verifier.try_verify(&token).unwrap().is_ok());
    assert!(protect.try_verify_request(&parts).unwrap().unwrap().is_some());
}
