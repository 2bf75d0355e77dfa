//! The layer itself: what it requires of its configuration and of requests without a body.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Request, Response, header};
use bytes::Bytes;
use http_body_util::Full;
use portcullis::mcp::McpLayer;
use portcullis::{AccessToken, Rule, TokenSource};
use serde_json::json;
use tower::{Layer as _, Service};

use crate::support::{Api, call, read, request};

const LIST: &str = r#"{"method":"tools/list"}"#;

#[test]
fn layers_that_mcp_forbids_are_errors() {
    let api = Api::new();
    let query = api.protect.clone().token_sources([TokenSource::danger_query("access_token")]);
    assert!(McpLayer::new(query).unwrap_err().to_string().contains("query"));
    let ignoring = api.protect.clone().danger_ignore_invalid();
    assert!(McpLayer::new(ignoring).unwrap_err().to_string().contains("danger_ignore_invalid"));
}

#[tokio::test]
async fn every_method_needs_a_token_that_satisfies_the_base_rule() {
    let api = Api::new();
    let (mcp, poor) = (api.mcp(), api.token().build());
    for method in [Method::GET, Method::DELETE, Method::POST, Method::PUT, Method::OPTIONS] {
        for (token, status) in [(None, 401), (Some(&poor), 403), (Some(&api.reader()), 200)] {
            let mut request = request(token.map(String::as_str), &[], &call("tools/list", "{}"));
            *request.method_mut() = method.clone();
            assert_eq!(api.send(&mcp, request).await.status, status, "{method} {token:?}");
        }
    }
    let in_query = Request::post(format!("/mcp?access_token={}", api.reader()));
    let in_query = in_query.body(Body::from(call("tools/list", "{}"))).unwrap();
    assert_eq!(api.send(&mcp, in_query).await.status, 401, "a token in the query");
    let session = request(None, &[("mcp-session-id", "s1")], &call("tools/list", "{}"));
    assert_eq!(api.send(&mcp, session).await.status, 401, "a session is no credential");
}

#[tokio::test]
async fn the_body_of_a_request_without_a_valid_token_is_not_read() {
    let api = Api::new();
    let expired = api.token().expired().build();
    for token in [None, Some(expired.as_str()), Some("x")] {
        let read = |()| -> Result<Bytes, std::io::Error> { panic!("the body was read") };
        let mut request = request(token, &[], "");
        *request.body_mut() =
            Body::from_stream(tokio_stream::StreamExt::map(tokio_stream::iter([()]), read));
        assert_eq!(api.send(&api.mcp(), request).await.status, 401);
    }
}

/// A service may read the message of a PUT, or of a GET.
#[tokio::test]
async fn a_body_counts_whatever_the_method() {
    let api = Api::new();
    let mcp = api.mcp();
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        for (body, status) in [
            (call("tools/call", r#"{"name":"write_note"}"#), 403),
            (call("tools/call", r#"{"name":"whoami"}"#), 200),
            ("x".to_owned(), 400),
            (String::new(), 200),
        ] {
            let mut request = request(Some(&api.reader()), &[], &body);
            *request.method_mut() = method.clone();
            assert_eq!(api.send(&mcp, request).await.status, status, "{method} {body}");
        }
        // HTTP/2 may end a request without a body only after its headers.
        let mut request = request(Some(&api.reader()), &[], "");
        *request.method_mut() = method.clone();
        *request.body_mut() =
            Body::from_stream(tokio_stream::empty::<Result<Bytes, std::io::Error>>());
        assert_eq!(api.send(&mcp, request).await.status, 200, "{method}");
    }
}

/// A preflight has no body. One that a client adds does not reach the service.
#[tokio::test]
async fn a_preflight_does_not_carry_a_message() {
    let api = Api::new();
    let mcp = McpLayer::new(api.protect.clone().allow_preflight())
        .unwrap()
        .tool("write_note", Rule::scope("notes:write"));
    let preflight = &[("origin", "https://a.example"), ("access-control-request-method", "POST")];
    for body in ["", r#"{"method":"tools/list"}"#] {
        let stream = [Ok::<_, std::io::Error>(Bytes::copy_from_slice(body.as_bytes()))];
        for body in [Body::from(body), Body::from_stream(tokio_stream::iter(stream))] {
            let mut request = request(None, preflight, "");
            *request.method_mut() = Method::OPTIONS;
            *request.body_mut() = body;
            assert_eq!(api.send(&mcp, request).await.status, 200);
        }
    }
    assert!(api.reached().iter().all(|(body, _)| body.is_empty()), "{:?}", api.reached());
}

/// The check runs after the rules of what the body names.
#[tokio::test]
async fn checks_of_the_application_decide_last() {
    let api = Api::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let protect = api.protect.clone().authorize(move |token, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        let allowed = token.subject() == Some("alice");
        async move { Ok::<_, Infallible>(allowed) }
    });
    let mcp = McpLayer::new(protect).unwrap().tool("write_note", Rule::scope("notes:write"));
    let token = |subject| api.token().subject(subject).scope("notes:read").build();
    for (name, token, tool, status, calls) in [
        ("allowed", Some(token("alice")), "whoami", 200, 1),
        ("denied", Some(token("bob")), "whoami", 403, 1),
        ("rejected by the rule", Some(token("alice")), "write_note", 403, 0),
        ("no token", None, "whoami", 401, 0),
    ] {
        asked.store(0, Ordering::Relaxed);
        let body = call("tools/call", &format!(r#"{{"name":"{tool}"}}"#));
        assert_eq!(api.post(&mcp, token.as_deref(), &body).await.status, status, "{name}");
        assert_eq!(asked.load(Ordering::Relaxed), calls, "{name}");
    }
}

/// An MCP server serves no gRPC, whose rejections have status 200.
#[tokio::test]
async fn a_grpc_request_is_rejected_with_a_status() {
    let api = Api::new();
    let grpc = &[("content-type", "application/grpc-web")];
    assert_eq!(api.send(&api.mcp(), request(None, grpc, "")).await.status, 401);
}

/// One buffer, however a body arrives.
#[tokio::test]
async fn a_body_may_arrive_byte_by_byte() {
    let api = Api::new();
    let body = call("tools/call", r#"{"name":"whoami"}"#);
    let bytes: Vec<_> =
        body.bytes().map(|byte| Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[byte]))).collect();
    let mut request = request(Some(&api.reader()), &[], "");
    *request.body_mut() = Body::from_stream(tokio_stream::iter(bytes));
    assert_eq!(api.send(&api.mcp(), request).await.status, 200);
    assert_eq!(api.reached()[0].0, body);
}

#[tokio::test]
async fn large_bodies_are_rejected() {
    struct Case {
        name: &'static str,
        body: String,
        status: u16,
        code: Option<i64>,
    }
    let api = Api::new();
    let fits = call("tools/list", "{}");
    let mcp = api.mcp().body_limit(fits.len());
    for Case { name, body, status, code } in [
        Case { name: "the limit", body: fits.clone(), status: 200, code: None },
        Case { name: "a byte more", body: format!("{fits} "), status: 413, code: Some(-32600) },
        Case { name: "twice as much", body: fits.repeat(2), status: 413, code: Some(-32600) },
    ] {
        let declared = api.post(&mcp, Some(&api.reader()), &body).await;
        assert_eq!((declared.status.as_u16(), declared.code()), (status, code), "{name}: declared");
        let chunks: Vec<_> = body
            .as_bytes()
            .chunks(10)
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut streamed = request(Some(&api.reader()), &[], "");
        *streamed.body_mut() = Body::from_stream(tokio_stream::iter(chunks));
        let streamed = api.send(&mcp, streamed).await;
        assert_eq!((streamed.status.as_u16(), streamed.code()), (status, code), "{name}: streamed");
        assert_eq!(api.post(&mcp, None, &body).await.status, 401, "{name}: without a token");
    }
    // 4 MiB by default.
    let padded = |bytes: usize| {
        let params = |padding: usize| format!(r#"{{"x":"{}"}}"#, "y".repeat(padding));
        let message = |padding: usize| call("tools/list", &params(padding));
        message(bytes - message(0).len())
    };
    for (bytes, status) in [(4 << 20, 200), ((4 << 20) + 1, 413)] {
        let answer = api.post(&api.mcp(), Some(&api.reader()), &padded(bytes)).await;
        assert_eq!(answer.status, status, "{bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_rejected() {
    let api = Api::new();
    let mut request = request(Some(&api.reader()), &[], "");
    *request.body_mut() =
        Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
    let start = tokio::time::Instant::now();
    let answer = api.send(&api.mcp(), request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (408, Some(-32600)));
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_rejected() {
    let api = Api::new();
    let mut request = request(Some(&api.reader()), &[], "");
    let broken = [Ok(Bytes::from("{\"method\":")), Err(std::io::Error::other("reset"))];
    *request.body_mut() = Body::from_stream(tokio_stream::iter(broken));
    let answer = api.send(&api.mcp(), request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, Some(-32700)));
}

/// Without rules for names there is nothing to find in a body, so it streams to the service.
#[tokio::test]
async fn a_layer_without_rules_does_not_read_bodies() {
    let api = Api::new();
    let mcp = McpLayer::new(api.protect.clone()).unwrap().body_limit(1);
    assert_eq!(api.post(&mcp, Some(&api.reader()), "not JSON").await.status, 200);
    assert_eq!(api.reached().len(), 1);
}

#[tokio::test]
async fn anonymous_requests_may_use_what_has_no_rule() {
    let api = Api::new();
    let protect = api.protect.clone().allow_anonymous();
    let mcp = McpLayer::new(protect).unwrap().tool("write_note", Rule::scope("notes:write"));
    assert_eq!(api.post(&mcp, None, &call("tools/call", r#"{"name":"whoami"}"#)).await.status, 200);
    assert_eq!(api.reached()[0].1, None);
    let answer = api.post(&mcp, None, &call("tools/call", r#"{"name":"write_note"}"#)).await;
    assert_eq!(answer.status, 401);
    let challenge = answer.challenge.unwrap();
    assert!(challenge.contains("scope=\"notes:read notes:write\""), "{challenge}");
    assert!(!challenge.contains("error"), "{challenge}");
    assert!(api.reached().is_empty());
}

#[tokio::test]
async fn rejections_have_the_body_of_the_layer() {
    let api = Api::new();
    let mcp = McpLayer::new(api.protect.clone().problem_json())
        .unwrap()
        .tool("write_note", Rule::scope("notes:write"));
    let service = tower::Layer::layer(
        &mcp,
        tower::service_fn(async |_: Request<Body>| {
            Ok::<_, std::convert::Infallible>(axum::http::Response::new(http_body_util::Full::<
                Bytes,
            >::default()))
        }),
    );
    let body = call("tools/call", r#"{"name":"write_note"}"#);
    let response = tower::ServiceExt::oneshot(service, request(Some(&api.reader()), &[], &body));
    let response = response.await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
}

#[tokio::test]
async fn permits_says_what_a_token_may_use() {
    let api = Api::new();
    let mcp = api.mcp();
    let writer = AccessToken::for_tests(json!({ "scope": "notes:read notes:write" }));
    let reader = AccessToken::for_tests(json!({ "scope": "notes:read" }));
    let poor = AccessToken::for_tests(json!({}));
    for (token, write, whoami) in
        [(&writer, true, true), (&reader, false, true), (&poor, false, false)]
    {
        assert_eq!(mcp.permits_tool(token, "write_note"), write);
        assert_eq!(mcp.permits_prompt(token, "summarise"), write);
        assert_eq!(mcp.permits_resource(token, "drafts://1"), write);
        assert_eq!(mcp.permits_tool(token, "whoami"), whoami);
        assert_eq!(mcp.permits_resource(token, "notes://1"), whoami);
    }
}

/// Servers declare it as `Content-Length`.
#[tokio::test]
async fn the_length_of_a_response_is_known() {
    struct Case {
        name: &'static str,
        token: Option<String>,
        body: &'static str,
        status: u16,
        is_empty: bool,
    }
    let api = Api::new();
    for Case { name, token, body, status, is_empty } in [
        Case {
            name: "of the service",
            token: Some(api.reader()),
            body: LIST,
            status: 200,
            is_empty: false,
        },
        Case { name: "a rejection", token: None, body: LIST, status: 401, is_empty: true },
        Case {
            name: "a JSON-RPC error",
            token: Some(api.reader()),
            body: "x",
            status: 400,
            is_empty: false,
        },
    ] {
        let request = request(token.as_deref(), &[], body);
        let response = api.respond(&api.mcp(), request, &[]).await;
        let (is_end, size) = (response.body().is_end_stream(), response.body().size_hint());
        let answer = read(response).await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!((is_end, answer.body.is_empty()), (is_empty, is_empty), "{name}");
        assert_eq!(size.exact(), Some(answer.body.len() as u64), "{name}");
    }
}

/// A service that is in this state when it is polled.
#[derive(Clone)]
struct InState(Poll<Result<(), &'static str>>);

impl Service<Request<Body>> for InState {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

#[test]
fn the_layer_is_ready_when_the_service_is() {
    let api = Api::new();
    for state in [Poll::Pending, Poll::Ready(Err("closed")), Poll::Ready(Ok(()))] {
        let mut service = api.mcp().layer(InState(state));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(service.poll_ready(&mut context), state);
    }
}
