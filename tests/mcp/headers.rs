//! The MCP headers can only cause a rejection.

use axum::http::HeaderValue;

use crate::support::{Api, call, request};

#[tokio::test]
async fn lying_headers_do_not_change_which_rule_applies() {
    struct Case {
        name: &'static str,
        headers: &'static [(&'static str, &'static str)],
        body: String,
        status: u16,
        code: Option<i64>,
    }
    let api = Api::new();
    let mcp = api.mcp();
    let write = || call("tools/call", r#"{"name":"write_note"}"#);
    let whoami = || call("tools/call", r#"{"name":"whoami"}"#);
    for Case { name, headers, body, status, code } in [
        Case {
            name: "an old version and another name",
            headers: &[("mcp-protocol-version", "2025-11-25"), ("mcp-name", "whoami")],
            body: write(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "an old version and another method",
            headers: &[("mcp-protocol-version", "2025-11-25"), ("mcp-method", "tools/list")],
            body: write(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "two versions",
            headers: &[
                ("mcp-protocol-version", "2025-11-25"),
                ("mcp-protocol-version", "2026-07-28"),
            ],
            body: whoami(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "two methods",
            headers: &[("mcp-method", "tools/call"), ("mcp-method", "tools/list")],
            body: whoami(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "two equal names",
            headers: &[("mcp-name", "whoami"), ("mcp-name", "whoami")],
            body: whoami(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "the method alone",
            headers: &[("mcp-method", "tools/call")],
            body: whoami(),
            status: 200,
            code: None,
        },
        Case {
            name: "the method in other case",
            headers: &[("mcp-method", "Tools/call")],
            body: whoami(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "both",
            headers: &[("mcp-method", "tools/call"), ("mcp-name", "whoami")],
            body: whoami(),
            status: 200,
            code: None,
        },
        Case {
            name: "true headers, and no permission",
            headers: &[("mcp-method", "tools/call"), ("mcp-name", "write_note")],
            body: write(),
            status: 403,
            code: None,
        },
        Case {
            name: "Base64",
            headers: &[("mcp-name", "=?base64?d2hvYW1p?=")],
            body: whoami(),
            status: 200,
            code: None,
        },
        Case {
            name: "another name in Base64",
            headers: &[("mcp-name", "=?base64?d2hvYW1p?=")],
            body: write(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "bad Base64",
            headers: &[("mcp-name", "=?base64?!?=")],
            body: whoami(),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "a resource",
            headers: &[("mcp-name", "notes://1")],
            body: call("resources/read", r#"{"uri":"drafts://1"}"#),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "a task",
            headers: &[("mcp-name", "1")],
            body: call("tasks/get", r#"{"taskId":"2"}"#),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "a method with a batch",
            headers: &[("mcp-method", "tools/list")],
            body: format!("[{}]", call("tools/list", "{}")),
            status: 400,
            code: Some(-32020),
        },
        Case {
            name: "a method with a response",
            headers: &[("mcp-method", "tools/list")],
            body: r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(),
            status: 400,
            code: Some(-32020),
        },
    ] {
        let answer = api.send(&mcp, request(Some(&api.reader()), headers, &body)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{name}: {answer:?}");
        assert_eq!(api.reached().len(), usize::from(status == 200), "{name}");
    }
}

/// The identifier of the request is in the error, so that the client finds the request.
#[tokio::test]
async fn a_header_mismatch_answers_the_request() {
    let api = Api::new();
    let body = r#"{"jsonrpc":"2.0","id":"a-7","method":"tools/list"}"#;
    let request = request(Some(&api.reader()), &[("mcp-method", "tools/call")], body);
    let answer = api.send(&api.mcp(), request).await;
    assert!(answer.body.contains(r#""id":"a-7""#), "{answer:?}");
}

#[tokio::test]
async fn headers_that_are_not_text_are_a_mismatch() {
    let api = Api::new();
    let mut request = request(Some(&api.reader()), &[], &call("tools/list", "{}"));
    request.headers_mut().insert("mcp-method", HeaderValue::from_bytes(b"tools/\xff").unwrap());
    assert_eq!(api.send(&api.mcp(), request).await.code(), Some(-32020));
}
