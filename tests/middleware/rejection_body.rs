//! The body of a rejection: problem details, a custom body, or a gRPC status. Errors that handlers
//! and extractors return have the same body.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, Version, header};
use axum::routing::get;
use axum::{Json, Router};
use portcullis::testing::assert_challenge;
use portcullis::{AccessToken, Claims, Error};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{offline_issuer, protect, request, text};

#[tokio::test]
async fn problem_json_adds_problem_details_to_rejections() {
    struct Case {
        name: &'static str,
        token: Option<String>,
        status: u16,
        title: &'static str,
        detail: &'static str,
    }

    let issuer = offline_issuer();
    let app = Router::new()
        .route("/", get(async || ""))
        .route_layer(protect(&issuer).scope("a").problem_json());
    for Case { name, token, status, title, detail } in [
        Case {
            name: "no token",
            token: None,
            status: 401,
            title: "Unauthorized",
            detail: "An access token is needed",
        },
        Case {
            name: "malformed",
            token: Some("a,b".to_owned()),
            status: 400,
            title: "Bad Request",
            detail: "The credentials are malformed",
        },
        Case {
            name: "expired",
            token: Some(issuer.token().expired().build()),
            status: 401,
            title: "Unauthorized",
            detail: "The access token expired",
        },
        Case {
            name: "forged",
            token: Some(issuer.token().tampered().build()),
            status: 401,
            title: "Unauthorized",
            detail: "The access token is invalid",
        },
        Case {
            name: "without scope",
            token: Some(issuer.token().build()),
            status: 403,
            title: "Forbidden",
            detail: "The access token does not grant what this operation needs",
        },
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
    let issuer = offline_issuer();
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
    struct Client {
        content_type: &'static str,
        method: Method,
        version: Version,
        answer: Option<&'static str>,
    }

    struct Credentials {
        name: &'static str,
        token: Option<String>,
        grpc_status: &'static str,
        status: u16,
    }

    let issuer = offline_issuer();
    let inner =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let service = protect(&issuer).scope("a").problem_json().layer(inner);
    for Client { content_type, method, version, answer } in [
        Client {
            content_type: "application/grpc",
            method: Method::POST,
            version: Version::HTTP_2,
            answer: Some("application/grpc"),
        },
        Client {
            content_type: "application/grpc+proto",
            method: Method::POST,
            version: Version::HTTP_2,
            answer: Some("application/grpc"),
        },
        Client {
            content_type: "Application/GRPC; x=y",
            method: Method::POST,
            version: Version::HTTP_2,
            answer: Some("application/grpc"),
        },
        Client {
            content_type: "application/grpc-web+proto",
            method: Method::POST,
            version: Version::HTTP_11,
            answer: Some("application/grpc-web"),
        },
        Client {
            content_type: "application/grpc-web-text",
            method: Method::POST,
            version: Version::HTTP_11,
            answer: Some("application/grpc-web-text"),
        },
        // A request that is not gRPC never receives 200, whatever its content type.
        Client {
            content_type: "application/grpc",
            method: Method::POST,
            version: Version::HTTP_11,
            answer: None,
        },
        Client {
            content_type: "application/grpc",
            method: Method::GET,
            version: Version::HTTP_2,
            answer: None,
        },
        Client {
            content_type: "application/grpc-web",
            method: Method::GET,
            version: Version::HTTP_11,
            answer: None,
        },
        Client {
            content_type: "application/grpcfoo",
            method: Method::POST,
            version: Version::HTTP_2,
            answer: None,
        },
        Client {
            content_type: "application/json",
            method: Method::POST,
            version: Version::HTTP_2,
            answer: None,
        },
    ] {
        let is_grpc = answer.is_some();
        for Credentials { name, token, grpc_status, status } in [
            Credentials { name: "no token", token: None, grpc_status: "16", status: 401 },
            Credentials {
                name: "malformed",
                token: Some("a,b".to_owned()),
                grpc_status: "16",
                status: 400,
            },
            Credentials {
                name: "expired",
                token: Some(issuer.token().expired().build()),
                grpc_status: "16",
                status: 401,
            },
            Credentials {
                name: "without scope",
                token: Some(issuer.token().build()),
                grpc_status: "7",
                status: 403,
            },
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

/// Errors returned by handlers and extractors are rendered as the layer is configured: its realm,
/// its body, with or without a challenge.
#[tokio::test]
async fn handler_and_extractor_errors_use_the_configuration_of_their_layer() {
    struct Case<'a> {
        path: &'static str,
        token: Option<&'a str>,
        status: u16,
        code: &'static str,
    }

    #[derive(serde::Deserialize)]
    struct Organization {
        #[allow(dead_code)]
        org_id: String,
    }
    let issuer = offline_issuer();
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
        Case { path: "/claims", token: Some(&token), status: 403, code: "claims_mismatch" },
        Case { path: "/token", token: None, status: 401, code: "missing" },
        Case { path: "/handler", token: Some(&token), status: 403, code: "insufficient_scope" },
    ];
    for Case { path, token, status, code } in cases {
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
