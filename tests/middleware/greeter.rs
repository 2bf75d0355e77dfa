//! A service that responds with the subject of its token, behind a layer.

use std::convert::Infallible;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, Algorithm, ProtectLayer, Verifier};
use tower::{Layer as _, ServiceExt as _, service_fn};

pub(crate) type Body = Full<bytes::Bytes>;

pub(crate) fn request(headers: &[(HeaderName, &[u8])]) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    }
    request
}

pub(crate) fn bearer(token: &str) -> Request<()> {
    request(&[(AUTHORIZATION, format!("Bearer {token}").as_bytes())])
}

/// A service that responds with the subject of the token.
pub(crate) async fn greet(request: Request<()>) -> Result<Response<Body>, Infallible> {
    let token = request
        .extensions()
        .get::<AccessToken>()
        .expect("the layer forwards no request without a token");
    Ok(Response::new(Full::from(token.subject().unwrap_or_default().to_owned())))
}

pub(crate) fn started_issuer() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}

pub(crate) fn verifier(issuer: &TestIssuer) -> Verifier {
    Verifier::new(issuer.issuer()).unwrap()
}

pub(crate) async fn answer(layer: &ProtectLayer, request: Request<()>) -> Response<Body> {
    layer.layer(service_fn(greet)).oneshot(request).await.unwrap()
}
