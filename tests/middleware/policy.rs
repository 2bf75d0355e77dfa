//! Requests without a valid token: which of them each policy admits.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::routing::{any, get};
use axum::{Extension, Router};
use portcullis::testing::{Behavior, TestIssuer};
use portcullis::{AccessToken, Algorithm, Claims, ProtectLayer};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{offline_issuer, protect, request, text};

#[tokio::test]
async fn each_token_policy_admits_the_documented_requests() {
    /// A request, and what each policy answers.
    struct Case {
        name: &'static str,
        token: Option<String>,
        required: &'static str,
        optional: &'static str,
        ignoring_invalid: &'static str,
    }

    struct Policy {
        name: &'static str,
        layer: ProtectLayer,
        expected: fn(&Case) -> &'static str,
    }

    let issuer = offline_issuer();
    let handler = async |token: Option<AccessToken>| {
        token.map_or("anonymous".to_owned(), |token| token.subject().unwrap_or_default().to_owned())
    };
    let strict = async |token: AccessToken| token.subject().unwrap_or_default().to_owned();
    let good = || issuer.token().subject("alice").scope("a");
    let cases = [
        Case {
            name: "valid",
            token: Some(good().build()),
            required: "alice",
            optional: "alice",
            ignoring_invalid: "alice",
        },
        Case {
            name: "no token",
            token: None,
            required: "401",
            optional: "anonymous",
            ignoring_invalid: "anonymous",
        },
        Case {
            name: "expired",
            token: Some(good().expired().build()),
            required: "401",
            optional: "401",
            ignoring_invalid: "anonymous",
        },
        Case {
            name: "forged",
            token: Some(good().tampered().build()),
            required: "401",
            optional: "401",
            ignoring_invalid: "anonymous",
        },
        Case {
            name: "opaque",
            token: Some("opaque".to_owned()),
            required: "401",
            optional: "401",
            ignoring_invalid: "anonymous",
        },
        Case {
            name: "malformed",
            token: Some("a,b".to_owned()),
            required: "400",
            optional: "400",
            ignoring_invalid: "anonymous",
        },
        Case {
            name: "without scope",
            token: Some(issuer.token().build()),
            required: "403",
            optional: "403",
            ignoring_invalid: "403",
        },
    ];
    let policies = [
        Policy {
            name: "required",
            layer: protect(&issuer).scope("a"),
            expected: |case| case.required,
        },
        Policy {
            name: "optional",
            layer: protect(&issuer).scope("a").allow_anonymous(),
            expected: |case| case.optional,
        },
        Policy {
            name: "ignoring invalid tokens",
            layer: protect(&issuer).scope("a").danger_ignore_invalid(),
            expected: |case| case.ignoring_invalid,
        },
    ];
    for Policy { name: policy, layer, expected } in policies {
        let app = Router::new().route("/", get(handler)).route_layer(layer.clone());
        let asks = Router::new().route("/", get(strict)).route_layer(layer);
        for case in &cases {
            let Case { name, token, .. } = case;
            let expected = expected(case);
            let response = app.clone().oneshot(request(token.as_deref())).await.unwrap();
            let said = match response.status() {
                StatusCode::OK => text(response).await,
                status => status.as_u16().to_string(),
            };
            assert_eq!(said, expected, "{policy}: {name}");
            // A handler that extracts `AccessToken` rejects anonymous requests.
            let status =
                asks.clone().oneshot(request(token.as_deref())).await.unwrap().status().as_u16();
            let wanted = match expected {
                "alice" => 200,
                "anonymous" => 401,
                status => status.parse().unwrap(),
            };
            assert_eq!(status, wanted, "{policy}: {name}");
        }
    }
    // A missing layer is a server error.
    let unprotected = Router::new().route("/", get(handler));
    assert_eq!(unprotected.oneshot(request(None)).await.unwrap().status(), 500);
}

/// A token that cannot be verified now is not invalid, even if invalid tokens are ignored.
#[tokio::test]
async fn unavailable_keys_do_not_make_a_token_invalid() {
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    issuer.set_behavior(Behavior::Status(500));
    let app = Router::new()
        .route("/", get(async || ""))
        .route_layer(protect(&issuer).danger_ignore_invalid());
    assert_eq!(app.oneshot(request(Some(&issuer.token().build()))).await.unwrap().status(), 503);
}

#[tokio::test]
async fn allow_preflight_admits_cors_preflights_only() {
    struct Case<'a> {
        name: &'static str,
        layer: ProtectLayer,
        method: &'static str,
        headers: &'a [(&'static str, &'static str)],
        expected: u16,
    }

    let issuer = offline_issuer();
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    for Case { name, layer, method, headers, expected } in [
        Case {
            name: "allowed",
            layer: protect(&issuer).allow_preflight(),
            method: "OPTIONS",
            headers: &preflight[..],
            expected: 200,
        },
        Case {
            name: "not allowed",
            layer: protect(&issuer),
            method: "OPTIONS",
            headers: &preflight[..],
            expected: 401,
        },
        Case {
            name: "another method",
            layer: protect(&issuer).allow_preflight(),
            method: "POST",
            headers: &preflight[..],
            expected: 401,
        },
        Case {
            name: "no requested method",
            layer: protect(&issuer).allow_preflight(),
            method: "OPTIONS",
            headers: &preflight[..1],
            expected: 401,
        },
        Case {
            name: "no origin",
            layer: protect(&issuer).allow_preflight(),
            method: "OPTIONS",
            headers: &preflight[1..],
            expected: 401,
        },
    ] {
        let app = Router::new().route("/", any(async || "")).route_layer(layer);
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri("/"), |request, (name, value)| {
                request.header(*name, *value)
            });
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{name}");
    }
}

/// A preflight is anonymous, even behind a layer that has verified a token.
#[tokio::test]
async fn preflights_reach_the_handler_without_a_token() {
    let (one, other) = (offline_issuer(), offline_issuer());
    let handler = async |token: Option<AccessToken>| token.is_some().to_string();
    let app = Router::new()
        .route("/", any(handler))
        .route_layer(protect(&other).role("admin").allow_preflight())
        .route_layer(protect(&one));
    let mut request = request(Some(&one.token().build()));
    *request.method_mut() = Method::OPTIONS;
    request.headers_mut().insert("origin", "https://app.example".parse().unwrap());
    request.headers_mut().insert("access-control-request-method", "POST".parse().unwrap());
    assert_eq!(text(app.oneshot(request).await.unwrap()).await, "false");
}

/// If a layer forwards a request as anonymous, handlers do not see the token of an outer layer.
#[tokio::test]
async fn layers_of_different_verifiers_do_not_share_tokens() {
    let (one, other) = (offline_issuer(), offline_issuer());
    let seen = async |token: Option<Extension<AccessToken>>| {
        token.map_or("anonymous".to_owned(), |token| token.subject().unwrap_or_default().to_owned())
    };
    let inner_optional = Router::new()
        .route("/", get(seen))
        .route_layer(protect(&other).danger_ignore_invalid())
        .route_layer(protect(&one));
    let token = one.token().subject("alice").build();
    let response = inner_optional.oneshot(request(Some(&token))).await.unwrap();
    assert_eq!(text(response).await, "anonymous", "the inner layer does not accept this token");
    let inner_required = Router::new()
        .route("/", get(seen))
        .route_layer(protect(&one))
        .route_layer(protect(&other).danger_ignore_invalid());
    assert_eq!(
        text(inner_required.clone().oneshot(request(Some(&token))).await.unwrap()).await,
        "alice"
    );
    assert_eq!(inner_required.oneshot(request(None)).await.unwrap().status(), 401);
    let claims = async |claims: Option<Claims<Value>>| claims.is_some().to_string();
    let asks = Router::new().route("/", get(claims));
    let both = asks
        .clone()
        .route_layer(protect(&one))
        .route_layer(protect(&other).danger_ignore_invalid());
    assert_eq!(
        text(both.oneshot(request(Some(&token))).await.unwrap()).await,
        "true",
        "the inner layer decides"
    );
    let optional = asks.route_layer(protect(&one).allow_anonymous());
    assert_eq!(text(optional.oneshot(request(None)).await.unwrap()).await, "false");
}
