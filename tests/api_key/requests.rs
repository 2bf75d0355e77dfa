//! Keys in requests: where they are, and what routes require of them.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use portcullis::testing::{TestClock, TestIssuer};
use portcullis::{AccessToken, ApiKeys, Error, ProtectLayer, TokenSource, Verifier};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{ISS, generate, verifier, worker};

async fn call(
    layer: &ProtectLayer,
    headers: &[(&str, &str)],
) -> (StatusCode, Option<&'static str>) {
    let request = headers
        .iter()
        .fold(Request::get("/"), |request, (name, value)| request.header(*name, *value));
    let inner = service_fn(async |request: Request<Body>| {
        assert!(request.extensions().get::<AccessToken>().is_some());
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let response = layer.layer(inner).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let code = response.extensions().get::<Error>().map(Error::code);
    (response.status(), code)
}

#[tokio::test]
async fn a_header_of_its_own_is_accepted_on_request() {
    let (key, other, clock) = (generate(), generate(), TestClock::new());
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    issuer.set_clock(&clock);
    let keys = ApiKeys::new(ISS, [worker(&key)]).unwrap();
    let verifier = Verifier::builder(issuer.issuer()).api_keys(keys).clock(&clock).build().unwrap();
    let default = ProtectLayer::new(verifier);
    let both = default.clone().token_sources([
        TokenSource::authorization(),
        TokenSource::api_key_header("X-Api-Key").unwrap(),
    ]);
    let (text, jwt) = (key.expose_key(), issuer.token().build());
    let (bearer, jwt_bearer) = (format!("Bearer {text}"), format!("Bearer {jwt}"));
    let ok = (StatusCode::OK, None);
    let rejected = |status: u16, code| (StatusCode::from_u16(status).unwrap(), Some(code));
    let cases = [
        ("in Authorization", &default, vec![("authorization", &*bearer)], ok),
        (
            "in a header that is not configured",
            &default,
            vec![("x-api-key", text)],
            rejected(401, "missing"),
        ),
        ("in the header", &both, vec![("x-api-key", text)], ok),
        ("in Authorization, with both allowed", &both, vec![("authorization", &bearer)], ok),
        ("an access token in Authorization", &both, vec![("authorization", &jwt_bearer)], ok),
        (
            "an access token in the header",
            &both,
            vec![("x-api-key", &jwt)],
            rejected(401, "malformed"),
        ),
        (
            "two keys",
            &both,
            vec![("x-api-key", text), ("x-api-key", text)],
            rejected(400, "invalid_request"),
        ),
        (
            "a key and an access token",
            &both,
            vec![("x-api-key", text), ("authorization", &jwt_bearer)],
            rejected(400, "invalid_request"),
        ),
        (
            "an unknown key",
            &both,
            vec![("x-api-key", other.expose_key())],
            rejected(401, "unknown_api_key"),
        ),
        ("not a key", &both, vec![("x-api-key", "a b")], rejected(400, "invalid_request")),
        ("nothing", &both, vec![("x-api-key", "")], rejected(400, "invalid_request")),
        // Pages of other sites cannot send the header without a preflight.
        ("from a page", &both, vec![("x-api-key", text), ("origin", "https://other.example")], ok),
    ];
    for (name, layer, headers, expected) in cases {
        assert_eq!(call(layer, &headers).await, expected, "{name}");
    }
    assert!(TokenSource::api_key_header("authorization").is_err());
    assert!(TokenSource::api_key_header("x api key").is_err());
}

#[tokio::test]
async fn rules_apply_to_keys() {
    let (key, clock) = (generate(), TestClock::new());
    let record = worker(&key)
        .scope("orders:read".parse().unwrap())
        .claim("roles", serde_json::json!(["clerk"]));
    let protect = ProtectLayer::new(verifier(ApiKeys::new(ISS, [record]).unwrap(), &clock));
    let bearer = format!("Bearer {}", key.expose_key());
    let cases = [
        ("its scope", protect.clone().scope("orders:read"), 200),
        ("another scope", protect.clone().scope("orders:write"), 403),
        ("its role", protect.clone().role("clerk"), 200),
        ("another role", protect.clone().role("admin"), 403),
        ("its issuer", protect.clone().rule(portcullis::Rule::issuer(ISS)), 200),
        (
            "another issuer",
            protect.clone().rule(portcullis::Rule::issuer("https://x.example/")),
            403,
        ),
        ("a user who signed in", protect.clone().acr(["mfa"]), 401),
        (
            "not a key",
            protect.clone().rule(portcullis::Rule::custom("a user", |token, _| {
                token.kind() != portcullis::TokenKind::ApiKey
            })),
            403,
        ),
    ];
    for (name, layer, status) in cases {
        assert_eq!(call(&layer, &[("authorization", &bearer)]).await.0.as_u16(), status, "{name}");
    }
    // Nested layers.
    let inner = protect.clone().scope("orders:read").layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    let request = Request::get("/").header("authorization", &bearer).body(Body::empty()).unwrap();
    assert_eq!(protect.layer(inner).oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn keys_are_accepted_in_authorization_beside_any_issuer() {
    let (key, clock) = (generate(), TestClock::new());
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    issuer.set_clock(&clock);
    let behind_a_gateway = issuer.issuer().token_in_header("x-goog-iap-jwt-assertion").unwrap();
    let keys = ApiKeys::new(ISS, [worker(&key)]).unwrap();
    let verifier = Verifier::builder(behind_a_gateway).api_keys(keys).clock(&clock).build();
    let layer = ProtectLayer::new(verifier.unwrap());
    let bearer = format!("Bearer {}", key.expose_key());
    assert_eq!(call(&layer, &[("authorization", &bearer)]).await, (StatusCode::OK, None));
}

/// Tokens keep the identifier of the key in place of its text.
#[tokio::test]
async fn the_identifier_of_a_key_is_no_credential_in_a_nested_layer() {
    let (key, clock) = (generate(), TestClock::new());
    let inner = ProtectLayer::new(verifier(ApiKeys::new(ISS, [worker(&key)]).unwrap(), &clock));
    let in_header = [TokenSource::api_key_header("x-api-key").unwrap()];
    let outer = inner.clone().token_sources(in_header);
    let service =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let nested = outer.layer(inner.layer(service));
    for (credential, expected) in
        [(key.hash().id(), StatusCode::UNAUTHORIZED), (key.expose_key(), StatusCode::OK)]
    {
        let request = Request::get("/")
            .header("x-api-key", key.expose_key())
            .header("authorization", format!("Bearer {credential}"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(nested.clone().oneshot(request).await.unwrap().status(), expected);
    }
}
