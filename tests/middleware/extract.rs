//! Extractors, in routers as applications write them.

use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use portcullis::testing::{TestIssuer, assert_challenge};
use portcullis::{AccessToken, Claims, Error};
use serde::Deserialize;
use tower::ServiceExt as _;

use crate::{offline_issuer, protect, text};

#[derive(Deserialize)]
struct Organization {
    org_id: String,
}

async fn subject(token: AccessToken) -> String {
    token.subject().unwrap_or_default().to_owned()
}

async fn organization(claims: Claims<Organization>) -> String {
    claims.org_id.clone()
}

/// A handler that checks a scope itself.
async fn delete(token: AccessToken) -> Result<&'static str, Error> {
    token.require_scope(&"orders:delete".parse().unwrap())?;
    Ok("deleted")
}

fn app(issuer: &TestIssuer) -> Router {
    let protect = protect(issuer);
    Router::new()
        .route("/subject", get(subject))
        .route("/organization", get(organization).delete(delete))
        .route("/orders", post(subject).route_layer(protect.clone().scope("orders:write")))
        .route_layer(protect)
        .route("/public", get(async || "open"))
        .route("/forgotten", get(subject))
        .route("/forgotten/claims", get(organization))
}

async fn call(app: &Router, method: &str, path: &str, token: Option<String>) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn handlers_extract_the_token_and_their_own_claims() {
    let issuer = offline_issuer();
    let app = app(&issuer);
    let token = issuer.token().subject("alice").claim("org_id", "org_1").build();
    assert_eq!(text(call(&app, "GET", "/subject", Some(token.clone())).await).await, "alice");
    assert_eq!(text(call(&app, "GET", "/organization", Some(token)).await).await, "org_1");
}

#[tokio::test]
async fn mismatched_claims_are_rejected_without_an_error_in_the_challenge() {
    let issuer = offline_issuer();
    let app = app(&issuer);
    for (name, token) in
        [("missing", issuer.token()), ("of another type", issuer.token().claim("org_id", 1))]
    {
        let response = call(&app, "GET", "/organization", Some(token.build())).await;
        assert_challenge(&response).status(403).realm("api").no_error();
        let error = response.extensions().get::<Error>().unwrap();
        assert_eq!((error.code(), error.oauth_error()), ("claims_mismatch", None), "{name}");
        let Error::ClaimsMismatch(error) = error else { panic!("{name}") };
        assert_eq!(error.missing_field(), (name == "missing").then_some("org_id"), "{name}");
    }
}

#[tokio::test]
async fn an_error_returned_by_a_handler_is_rejected_like_one_of_the_layer() {
    let issuer = offline_issuer();
    let app = app(&issuer);
    let token = issuer.token().scope("orders:delete").build();
    assert_eq!(call(&app, "DELETE", "/organization", Some(token)).await.status(), StatusCode::OK);
    let response = call(&app, "DELETE", "/organization", Some(issuer.token().build())).await;
    assert_challenge(&response)
        .status(403)
        .realm("api")
        .error("insufficient_scope")
        .scope("orders:delete");
}

/// A missing layer is a server error: 500 instead of 401, and no challenge, since no client could
/// satisfy it.
#[tokio::test]
async fn a_route_without_the_layer_is_a_server_error() {
    let issuer = offline_issuer();
    let app = app(&issuer);
    for path in ["/forgotten", "/forgotten/claims"] {
        for token in [None, Some(issuer.token().build())] {
            let response = call(&app, "GET", path, token).await;
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
            assert!(!response.headers().contains_key(WWW_AUTHENTICATE), "{path}");
        }
    }
}

#[tokio::test]
async fn only_the_routes_of_the_layer_are_protected() {
    struct Case<'a> {
        method: &'static str,
        path: &'static str,
        token: Option<&'a String>,
        status: u16,
    }

    let issuer = offline_issuer();
    let app = app(&issuer);
    let (any, writer) = (issuer.token().build(), issuer.token().scope("orders:write").build());
    for Case { method, path, token, status } in [
        Case { method: "GET", path: "/public", token: None, status: 200 },
        Case { method: "GET", path: "/subject", token: None, status: 401 },
        Case { method: "GET", path: "/subject", token: Some(&any), status: 200 },
        Case { method: "POST", path: "/orders", token: None, status: 401 },
        Case { method: "POST", path: "/orders", token: Some(&any), status: 403 },
        Case { method: "POST", path: "/orders", token: Some(&writer), status: 200 },
        Case { method: "GET", path: "/unknown", token: None, status: 404 },
        Case { method: "GET", path: "/unknown", token: Some(&any), status: 404 },
    ] {
        let response = call(&app, method, path, token.cloned()).await;
        assert_eq!(
            response.status().as_u16(),
            status,
            "{method} {path}, with a token: {}",
            token.is_some()
        );
    }
}
