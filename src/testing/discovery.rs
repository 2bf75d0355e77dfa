//! [`assert_discoverable`]: follows the way of a client that knows nothing but the URL of the API.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_TYPE, ORIGIN,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Buf as _};
use serde_json::Value;
use tower_service::Service;
use url::Url;

use super::challenge::assert_challenge;
use crate::middleware::resource_metadata::WELL_KNOWN;

/// Asserts that a client without configuration finds the metadata of the resource at `path`
/// (RFC 9728), as MCP clients do:
///
/// 1. A request without a token is rejected with 401, and the challenge names the document.
/// 2. `app` serves that document without a token, and to a preflight of another origin.
/// 3. Its `resource` has this path, and the URL of the document is the one that RFC 9728 §3.1
///    derives from it.
///
/// Returns the document. `B` is the body type of the requests. `app` is the whole application: a
/// document inside axum's `nest` is not at the root of the host, where clients look for it.
///
/// ```
/// use axum::{Router, body::Body, routing::get};
/// use portcullis::testing::{TestIssuer, assert_discoverable};
/// use portcullis::{Issuer, ProtectLayer, ResourceMetadata, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), portcullis::ConfigError> {
/// let url = "https://api.example.com/orders";
/// let verifier = Verifier::new(Issuer::new("https://issuer.example/", url)?)?;
/// let metadata = ResourceMetadata::new(url, &verifier)?;
/// let app: Router = Router::new()
///     .route("/orders", get(async || ""))
///     .route_layer(ProtectLayer::new(verifier).resource_metadata(&metadata))
///     .layer(metadata.layer());
///
/// let document = assert_discoverable::<Body>(app, "/orders").await;
/// assert_eq!(document["authorization_servers"][0], "https://issuer.example/");
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Panics at the first step that fails. The message says what was expected and what was found.
pub async fn assert_discoverable<B: Default>(
    mut app: impl Service<
        Request<B>,
        Response = Response<impl Body<Error: fmt::Debug>>,
        Error: fmt::Debug,
    >,
    path: &str,
) -> Value {
    let mut response = call(&mut app, request(Method::GET, path)).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = call(&mut app, request(Method::POST, path)).await;
    }
    assert_challenge(&response).status(401);
    let challenge = super::challenges(response.headers()).unwrap_or_default();
    let url = challenge.iter().find_map(|one| one.parameter("resource_metadata"));
    let Some(url) = url else {
        panic!("expected `resource_metadata` in the challenge of {path}, found {challenge:?}");
    };
    let url = Url::parse(url)
        .unwrap_or_else(|error| panic!("expected a URL as `resource_metadata`: {url:?}: {error}"));
    let at = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();

    let response = call(&mut app, request(Method::GET, &at)).await;
    assert_eq!(response.status(), StatusCode::OK, "expected 200 at {at}");
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    assert!(
        content_type
            .as_ref()
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json")),
        "expected application/json at {at}, found {content_type:?}"
    );
    let body = collect(response.into_body()).await;
    let document: Value = serde_json::from_slice(&body)
        .unwrap_or_else(|error| panic!("expected a JSON document at {at}: {error}"));

    let resource = document.get("resource").and_then(Value::as_str).unwrap_or_default();
    let Ok(parsed) = Url::parse(resource) else {
        panic!("expected a URL as `resource` at {at}, found {resource:?}");
    };
    let own = parsed.path().trim_end_matches('/');
    assert!(
        own.is_empty() || own == path.trim_end_matches('/'),
        "expected a resource with the path {path}, found {resource:?}"
    );
    let derived = format!("{WELL_KNOWN}{}", if own.is_empty() { "" } else { parsed.path() });
    assert_eq!(
        (url.origin(), url.path()),
        (parsed.origin(), &*derived),
        "expected the document of {resource:?} at the URL that RFC 9728 section 3.1 derives"
    );
    let servers = document.get("authorization_servers").and_then(Value::as_array);
    assert!(
        servers.is_some_and(|servers| !servers.is_empty()),
        "expected `authorization_servers` at {at}, found {document}"
    );

    let mut preflight = request::<B>(Method::OPTIONS, &at);
    for (name, value) in [
        (ORIGIN, "https://client.example"),
        (ACCESS_CONTROL_REQUEST_METHOD, "GET"),
        (ACCESS_CONTROL_REQUEST_HEADERS, "mcp-protocol-version"),
    ] {
        preflight.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    let response = call(&mut app, preflight).await;
    assert!(
        response.status().is_success()
            && response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN),
        "expected a preflight of another origin to succeed at {at}, found {} {:?}",
        response.status(),
        response.headers()
    );
    document
}

fn request<B: Default>(method: Method, uri: &str) -> Request<B> {
    match Request::builder().method(method).uri(uri).body(B::default()) {
        Ok(request) => request,
        Err(error) => panic!("expected a path, found {uri:?}: {error}"),
    }
}

async fn call<S, B, R>(app: &mut S, request: Request<B>) -> Response<R>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: fmt::Debug,
{
    let response = async {
        poll_fn(|context| app.poll_ready(context)).await?;
        app.call(request).await
    };
    match response.await {
        Ok(response) => response,
        Err(error) => panic!("expected a response, found {error:?}"),
    }
}

async fn collect<R>(body: R) -> Vec<u8>
where
    R: Body,
    R::Error: fmt::Debug,
{
    let (mut body, mut bytes) = (pin!(body), Vec::new());
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        match frame {
            Ok(frame) => {
                if let Ok(mut data) = frame.into_data() {
                    while data.has_remaining() {
                        let chunk = data.chunk();
                        bytes.extend_from_slice(chunk);
                        data.advance(chunk.len());
                    }
                }
            }
            Err(error) => panic!("expected a body, found {error:?}"),
        }
    }
    bytes
}
