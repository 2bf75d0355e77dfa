//! The layer around a service: which requests it rejects, which it forwards, and what it leaves
//! unchanged.

mod authorize;
mod credentials;
mod extract;
mod greeter;
mod layers;
mod origin;
mod policy;
mod readiness;
mod rejection;
mod rejection_body;
mod resource_metadata;
mod rules;
mod token_sources;
mod tonic;
mod verify_request;

#[path = "../support/poll_once.rs"]
mod poll_once;

use axum::body::Body;
use axum::http::{Request, Response, header};
use http_body_util::BodyExt as _;
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, ProtectLayer, Verifier};

fn offline_issuer() -> TestIssuer {
    TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap()
}

fn protect(issuer: &TestIssuer) -> ProtectLayer {
    ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap())
}

/// A request for `/`, with or without a token.
fn request(token: Option<&str>) -> Request<Body> {
    let request = token.into_iter().fold(Request::get("/"), |request, token| {
        request.header(header::AUTHORIZATION, format!("Bearer {token}"))
    });
    request.body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
