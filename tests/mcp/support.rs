//! An MCP service that records what reaches it, behind a layer with rules.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use portcullis::mcp::{McpBody, McpLayer};
use portcullis::testing::{TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Algorithm, Issuer, ProtectLayer, ResourceMetadata, Rule, Verifier};
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _, service_fn};

pub(crate) const URL: &str = "https://api.example.com/mcp";

/// A body that reached the service, and the subject of the token.
pub(crate) type Reached = (String, Option<String>);

pub(crate) struct Api {
    pub(crate) issuer: TestIssuer,
    pub(crate) protect: ProtectLayer,
    reached: Arc<Mutex<Vec<Reached>>>,
}

/// A response, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) challenge: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    /// The code of the JSON-RPC error, if the body is one.
    pub(crate) fn code(&self) -> Option<i64> {
        serde_json::from_str::<Value>(&self.body).ok()?["error"]["code"].as_i64()
    }
}

impl Api {
    pub(crate) fn new() -> Self {
        let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
        let config = Issuer::new(issuer.iss(), URL).unwrap().jwks(issuer.jwks());
        let verifier = Verifier::new(config).unwrap();
        let metadata = ResourceMetadata::new(URL, &verifier).unwrap();
        let protect = ProtectLayer::new(verifier).scope("notes:read").resource_metadata(&metadata);
        Self { issuer, protect, reached: Arc::default() }
    }

    /// A layer with a rule for one thing of each kind.
    pub(crate) fn mcp(&self) -> McpLayer {
        McpLayer::new(self.protect.clone())
            .unwrap()
            .tool("write_note", Rule::scope("notes:write"))
            .tool("admin", Rule::role("admin"))
            .resource("drafts://{id}", Rule::scope("notes:write"))
            .prompt("summarise", Rule::scope("notes:write"))
    }

    pub(crate) fn token(&self) -> TokenBuilder {
        self.issuer.token().audience(URL).subject("alice")
    }

    pub(crate) fn reader(&self) -> String {
        self.token().scope("notes:read").build()
    }

    pub(crate) fn writer(&self) -> String {
        self.token().scope("notes:read notes:write").build()
    }

    /// Takes what has reached the service.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        std::mem::take(&mut self.reached.lock().unwrap())
    }

    pub(crate) async fn post(&self, mcp: &McpLayer, token: Option<&str>, body: &str) -> Answer {
        self.send(mcp, request(token, &[], body)).await
    }

    pub(crate) async fn send(&self, mcp: &McpLayer, request: Request<Body>) -> Answer {
        read(self.respond(mcp, request, &[]).await).await
    }

    /// As [`send`](Self::send); the service responds with these headers.
    pub(crate) async fn respond(
        &self,
        mcp: &McpLayer,
        request: Request<Body>,
        headers: &[(&'static str, &str)],
    ) -> Response<McpBody<Full<Bytes>>> {
        let headers: Arc<[_]> =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let reached = Arc::clone(&self.reached);
        let service = service_fn(move |request: Request<Body>| {
            let (reached, headers) = (Arc::clone(&reached), Arc::clone(&headers));
            async move {
                let token = request.extensions().get::<AccessToken>();
                let subject = token.and_then(AccessToken::subject).map(str::to_owned);
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body = String::from_utf8(body.to_vec()).unwrap();
                reached.lock().unwrap().push((body, subject));
                let response = Response::builder();
                let response = headers
                    .iter()
                    .fold(response, |response, (name, value)| response.header(*name, value));
                Ok::<_, Infallible>(response.body(Full::from("served")).unwrap())
            }
        });
        let service = mcp.layer(service);
        service.oneshot(request).await.unwrap()
    }
}

pub(crate) async fn read(response: Response<McpBody<Full<Bytes>>>) -> Answer {
    let challenge = response.headers().get(header::WWW_AUTHENTICATE);
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, challenge, body: String::from_utf8(body.to_vec()).unwrap() }
}

pub(crate) fn request(token: Option<&str>, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri("/mcp");
    let request = token.into_iter().fold(request, |request, token| {
        request.header(header::AUTHORIZATION, format!("Bearer {token}"))
    });
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}

/// A request for a method with these `params`.
pub(crate) fn call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}
