//! Requests without a valid token: which of them each policy admits, and what rejections look like.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, Version, header};
use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use http_body_util::BodyExt as _;
use portcullis::testing::{Behavior, TestIssuer, assert_challenge};
use portcullis::{AccessToken, Algorithm, Claims, Error, ProtectLayer, Verifier};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

fn issuer() -> TestIssuer {
    TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap()
}

fn protect(issuer: &TestIssuer) -> ProtectLayer {
    ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap())
}

fn request(token: Option<&str>) -> Request<Body> {
    let request = token.into_iter().fold(Request::get("/"), |request, token| {
        request.header(header::AUTHORIZATION, format!("Bearer {token}"))
    });
    request.body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn each_token_policy_admits_the_documented_requests() {
    let issuer = issuer();
    let handler = async |token: Option<AccessToken>| {
        token.map_or("anonymous".to_owned(), |token| token.subject().unwrap_or_default().to_owned())
    };
    let strict = async |token: AccessToken| token.subject().unwrap_or_default().to_owned();
    let good = || issuer.token().subject("alice").scope("a");
    let requests = [
        ("valid", Some(good().build())),
        ("no token", None),
        ("expired", Some(good().expired().build())),
        ("forged", Some(good().tampered().build())),
        ("opaque", Some("opaque".to_owned())),
        ("malformed", Some("a,b".to_owned())),
        ("without scope", Some(issuer.token().build())),
    ];
    let cases = [
        (
            "required",
            protect(&issuer).scope("a"),
            ["alice", "401", "401", "401", "401", "400", "403"],
        ),
        (
            "optional",
            protect(&issuer).scope("a").allow_anonymous(),
            ["alice", "anonymous", "401", "401", "401", "400", "403"],
        ),
        (
            "ignoring invalid tokens",
            protect(&issuer).scope("a").danger_ignore_invalid(),
            ["alice", "anonymous", "anonymous", "anonymous", "anonymous", "anonymous", "403"],
        ),
    ];
    for (policy, layer, expected) in cases {
        let app = Router::new().route("/", get(handler)).route_layer(layer.clone());
        let asks = Router::new().route("/", get(strict)).route_layer(layer);
        for ((name, token), expected) in requests.iter().zip(expected) {
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

/// A preflight is anonymous, even behind a layer that has verified a token.
#[tokio::test]
async fn preflights_reach_the_handler_without_a_token() {
    let (one, other) = (issuer(), issuer());
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
    let (one, other) = (issuer(), issuer());
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

#[tokio::test]
async fn problem_json_adds_problem_details_to_rejections() {
    let issuer = issuer();
    let app = Router::new()
        .route("/", get(async || ""))
        .route_layer(protect(&issuer).scope("a").problem_json());
    for (name, token, status, title, detail) in [
        ("no token", None, 401, "Unauthorized", "An access token is needed"),
        ("malformed", Some("a,b".to_owned()), 400, "Bad Request", "The credentials are malformed"),
        (
            "expired",
            Some(issuer.token().expired().build()),
            401,
            "Unauthorized",
            "The access token expired",
        ),
        (
            "forged",
            Some(issuer.token().tampered().build()),
            401,
            "Unauthorized",
            "The access token is invalid",
        ),
        (
            "without scope",
            Some(issuer.token().build()),
            403,
            "Forbidden",
            "The access token does not grant what this operation needs",
        ),
    ] {
        let response = app.clone().oneshot(request(token.as_deref())).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{name}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{name}");
        assert!(
            response.headers().contains_key(header::WWW_AUTHENTICATE),
            "{name}: the challenge stays"
        );
        let problem: Value = serde_json::from_str(&text(response).await).unwrap();
        let expected =
            json!({ "type": "about:blank", "title": title, "status": status, "detail": detail });
        assert_eq!(problem, expected, "{name}");
    }
}

#[tokio::test]
async fn rejection_response_replaces_the_response_of_a_rejection() {
    let issuer = issuer();
    let layer = protect(&issuer).rejection_response(|error, request| {
        let body = json!({ "code": error.code(), "path": request.uri.path() });
        let mut response = axum::response::IntoResponse::into_response(Json(body));
        match error {
            Error::InvalidRequest(_) => *response.status_mut() = StatusCode::IM_A_TEAPOT,
            Error::InvalidToken(_) => *response.status_mut() = StatusCode::NO_CONTENT,
            _ => {}
        }
        response
    });
    let app = Router::new().route("/", get(async || "")).route_layer(layer);
    let response = app.clone().oneshot(request(None)).await.unwrap();
    assert_eq!(response.status(), 401, "a rejection is never 200");
    assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    assert_eq!(text(response).await, r#"{"code":"missing","path":"/"}"#);
    assert_eq!(
        app.clone().oneshot(request(Some("opaque"))).await.unwrap().status(),
        401,
        "nor 204"
    );
    assert_eq!(app.oneshot(request(Some("a,b"))).await.unwrap().status(), 418);
}

/// gRPC clients receive gRPC responses, whatever body is configured for other clients.
#[tokio::test]
async fn grpc_requests_receive_grpc_rejections() {
    let issuer = issuer();
    let inner =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let service = protect(&issuer).scope("a").problem_json().layer(inner);
    for (content_type, method, version, answer) in [
        ("application/grpc", Method::POST, Version::HTTP_2, Some("application/grpc")),
        ("application/grpc+proto", Method::POST, Version::HTTP_2, Some("application/grpc")),
        ("Application/GRPC; x=y", Method::POST, Version::HTTP_2, Some("application/grpc")),
        (
            "application/grpc-web+proto",
            Method::POST,
            Version::HTTP_11,
            Some("application/grpc-web"),
        ),
        (
            "application/grpc-web-text",
            Method::POST,
            Version::HTTP_11,
            Some("application/grpc-web-text"),
        ),
        // A request that is not gRPC never receives 200, whatever its content type.
        ("application/grpc", Method::POST, Version::HTTP_11, None),
        ("application/grpc", Method::GET, Version::HTTP_2, None),
        ("application/grpc-web", Method::GET, Version::HTTP_11, None),
        ("application/grpcfoo", Method::POST, Version::HTTP_2, None),
        ("application/json", Method::POST, Version::HTTP_2, None),
    ] {
        let is_grpc = answer.is_some();
        for (name, token, grpc_status, status) in [
            ("no token", None, "16", 401),
            ("malformed", Some("a,b".to_owned()), "16", 400),
            ("expired", Some(issuer.token().expired().build()), "16", 401),
            ("without scope", Some(issuer.token().build()), "7", 403),
        ] {
            let mut request = request(token.as_deref());
            request.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            (*request.method_mut(), *request.version_mut()) = (method.clone(), version);
            let response = service.clone().oneshot(request).await.unwrap();
            let headers = response.headers().clone();
            assert!(headers.contains_key(header::WWW_AUTHENTICATE), "{content_type}: {name}");
            assert_eq!(
                response.status().as_u16(),
                if is_grpc { 200 } else { status },
                "{content_type}: {name}"
            );
            let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap());
            assert_eq!(kind, answer.or(Some("application/problem+json")), "{content_type}: {name}");
            assert_eq!(
                headers.contains_key(header::CACHE_CONTROL),
                is_grpc,
                "{content_type}: {name}"
            );
            let said = headers.get("grpc-status").map(|status| status.to_str().unwrap());
            assert_eq!(said, is_grpc.then_some(grpc_status), "{content_type}: {name}");
            assert_eq!(text(response).await.is_empty(), is_grpc, "{content_type}: {name}");
        }
    }
}

#[tokio::test]
async fn allow_preflight_admits_cors_preflights_only() {
    let issuer = issuer();
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    for (name, layer, method, headers, expected) in [
        ("allowed", protect(&issuer).allow_preflight(), "OPTIONS", &preflight[..], 200),
        ("not allowed", protect(&issuer), "OPTIONS", &preflight[..], 401),
        ("another method", protect(&issuer).allow_preflight(), "POST", &preflight[..], 401),
        (
            "no requested method",
            protect(&issuer).allow_preflight(),
            "OPTIONS",
            &preflight[..1],
            401,
        ),
        ("no origin", protect(&issuer).allow_preflight(), "OPTIONS", &preflight[1..], 401),
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

/// Errors returned by handlers and extractors are rendered as the layer is configured: its realm,
/// its body, with or without a challenge.
#[tokio::test]
async fn handler_and_extractor_errors_use_the_configuration_of_their_layer() {
    #[derive(serde::Deserialize)]
    struct Organization {
        #[allow(dead_code)]
        org_id: String,
    }
    let issuer = issuer();
    let checks = async |token: AccessToken| -> Result<&'static str, Error> {
        token.require_scope(&"orders:delete".parse().unwrap())?;
        Ok("")
    };
    let hidden = async |token: AccessToken| {
        let error = token.require_scope(&"orders:delete".parse().unwrap()).unwrap_err();
        (StatusCode::NOT_FOUND, error)
    };
    let marked = async |token: AccessToken| {
        let error = token.require_scope(&"orders:delete".parse().unwrap()).unwrap_err();
        let mut response = axum::response::IntoResponse::into_response(error);
        for cookie in ["session=; Max-Age=0", "csrf=; Max-Age=0"] {
            response.headers_mut().append(header::SET_COOKIE, cookie.parse().unwrap());
        }
        response.headers_mut().insert(header::ETAG, "\"of another body\"".parse().unwrap());
        response
    };
    let router = || {
        Router::new()
            .route("/claims", get(async |_: Claims<Organization>| ""))
            .route("/token", get(async |_: AccessToken| ""))
            .route("/handler", get(checks))
            .route("/hidden", get(hidden))
            .route("/marked", get(marked))
    };
    let token = issuer.token().build();
    let call = async |app: Router, path: &str, token: Option<&str>| {
        let mut request = request(token);
        *request.uri_mut() = path.parse().unwrap();
        app.oneshot(request).await.unwrap()
    };
    let cases = [
        ("/claims", Some(&*token), 403, "claims_mismatch"),
        ("/token", None, 401, "missing"),
        ("/handler", Some(&*token), 403, "insufficient_scope"),
    ];
    for (path, token, status, code) in cases {
        let layer = protect(&issuer).allow_anonymous().realm("shop");
        let response = call(router().route_layer(layer.clone().problem_json()), path, token).await;
        assert_eq!(response.extensions().get::<Error>().map(Error::code), Some(code), "{path}");
        assert_challenge(&response).status(status).realm("shop");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{path}");
        assert!(text(response).await.contains(&format!("\"status\":{status}")), "{path}");

        let response =
            call(router().route_layer(layer.clone().without_challenge()), path, token).await;
        assert_eq!(response.status(), status, "{path}");
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE), "{path}");

        let own = layer.clone().rejection_response(|error, request| {
            Response::new(Body::from(format!(
                "{} {}",
                request.uri.path(),
                error.oauth_error().unwrap_or("-")
            )))
        });
        let response = call(router().route_layer(own), path, token).await;
        assert_challenge(&response).status(status).realm("shop");
        let said = text(response).await;
        assert!(said.starts_with(path), "{path}: {said}");

        // With nested layers, the innermost one applies.
        let nested =
            router().route_layer(layer.clone().problem_json()).route_layer(layer.realm("outer"));
        let response = call(nested, path, token).await;
        assert_challenge(&response).status(status).realm("shop");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{path}");
        assert_eq!(
            response.headers().get_all(header::WWW_AUTHENTICATE).iter().count(),
            1,
            "{path}"
        );
    }
    // A handler's own status and headers are preserved.
    let json = protect(&issuer).realm("shop").problem_json();
    let response = call(router().route_layer(json.clone()), "/hidden", Some(&token)).await;
    assert_eq!(response.status(), 404);
    assert!(!response.headers().contains_key(header::CONTENT_TYPE), "the handler's own response");
    let response = call(router().route_layer(json), "/marked", Some(&token)).await;
    assert_challenge(&response).status(403).realm("shop").scope("orders:delete");
    assert_eq!(
        response.headers().get_all(header::SET_COOKIE).iter().count(),
        2,
        "each header line"
    );
    assert!(!response.headers().contains_key(header::ETAG));
}
