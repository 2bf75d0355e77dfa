//! The body decides which rules a request needs.

use axum::http::StatusCode;
use portcullis::Rule;
use portcullis::mcp::McpLayer;
use portcullis::testing::challenges;

use crate::support::{Api, call};

/// Each way to a tool, a resource or a prompt has its rule; everything else the base rule only.
#[tokio::test]
async fn every_way_to_the_same_thing_has_the_same_rule() {
    struct Case {
        name: &'static str,
        body: String,
        needs_writer: bool,
    }
    let api = Api::new();
    let mcp = api.mcp();
    for Case { name, body, needs_writer } in [
        Case {
            name: "tool",
            body: call("tools/call", r#"{"name":"write_note","arguments":{}}"#),
            needs_writer: true,
        },
        Case {
            name: "tool, escaped",
            body:
                r#"{"id":1,"m\u0065thod":"tools\/call","params":{"\u006eame":"write\u005fnote"}}"#
                    .to_owned(),
            needs_writer: true,
        },
        Case {
            name: "tool, params first",
            body: r#"{"params":{"name":"write_note"},"method":"tools/call","id":1}"#.to_owned(),
            needs_writer: true,
        },
        Case {
            name: "tool, as a notification",
            body: r#"{"method":"tools/call","params":{"name":"write_note"}}"#.to_owned(),
            needs_writer: true,
        },
        Case {
            name: "a method that does not exist yet",
            body: call("tools/stream", r#"{"name":"write_note"}"#),
            needs_writer: true,
        },
        Case {
            name: "resource read",
            body: call("resources/read", r#"{"uri":"drafts://1"}"#),
            needs_writer: true,
        },
        Case {
            name: "resource subscribe",
            body: call("resources/subscribe", r#"{"uri":"drafts://1"}"#),
            needs_writer: true,
        },
        Case {
            name: "resource unsubscribe",
            body: call("resources/unsubscribe", r#"{"uri":"drafts://1"}"#),
            needs_writer: true,
        },
        Case {
            name: "directory",
            body: call("resources/directory/read", r#"{"uri":"drafts://"}"#),
            needs_writer: true,
        },
        Case {
            name: "skill",
            body: call("skills/get", r#"{"uri":"drafts://1"}"#),
            needs_writer: true,
        },
        Case {
            name: "listen",
            body: call(
                "subscriptions/listen",
                r#"{"notifications":{"resourceSubscriptions":["notes://1","drafts://1"]}}"#,
            ),
            needs_writer: true,
        },
        Case {
            name: "completion of a resource",
            body: call(
                "completion/complete",
                r#"{"ref":{"type":"ref/resource","uri":"drafts://{id}"},"argument":{"name":"id","value":""}}"#,
            ),
            needs_writer: true,
        },
        Case {
            name: "prompt",
            body: call("prompts/get", r#"{"name":"summarise"}"#),
            needs_writer: true,
        },
        Case {
            name: "completion of a prompt",
            body: call(
                "completion/complete",
                r#"{"ref":{"type":"ref/prompt","name":"summarise"},"argument":{"name":"a","value":""}}"#,
            ),
            needs_writer: true,
        },
        Case {
            name: "batch",
            body: format!(
                "[{},{}]",
                call("tools/list", "{}"),
                call("tools/call", r#"{"name":"write_note"}"#)
            ),
            needs_writer: true,
        },
        Case {
            name: "resource in upper case",
            body: call("resources/read", r#"{"uri":"DRAFTS://1"}"#),
            needs_writer: true,
        },
        Case {
            name: "resource, encoded",
            body: call("resources/read", r#"{"uri":"dr%61fts://1"}"#),
            needs_writer: true,
        },
        Case {
            name: "resource with dots",
            body: call("resources/read", r#"{"uri":"notes://../drafts/1"}"#),
            needs_writer: true,
        },
        Case {
            name: "another tool",
            body: call("tools/call", r#"{"name":"whoami"}"#),
            needs_writer: false,
        },
        Case {
            name: "a tool in other case",
            body: call("tools/call", r#"{"name":"Write_note"}"#),
            needs_writer: false,
        },
        Case {
            name: "a tool with the name of the prompt",
            body: call("tools/call", r#"{"name":"summarise"}"#),
            needs_writer: false,
        },
        Case {
            name: "a prompt with the name of the tool",
            body: call("prompts/get", r#"{"name":"write_note"}"#),
            needs_writer: false,
        },
        Case {
            name: "another resource",
            body: call("resources/read", r#"{"uri":"notes://drafts"}"#),
            needs_writer: false,
        },
        Case {
            name: "an argument with the name",
            body: call("tools/call", r#"{"name":"whoami","arguments":{"name":"write_note"}}"#),
            needs_writer: false,
        },
        Case { name: "list", body: call("tools/list", "{}"), needs_writer: false },
        Case { name: "task", body: call("tasks/get", r#"{"taskId":"1"}"#), needs_writer: false },
        Case { name: "unknown", body: call("x/y", "{}"), needs_writer: false },
        Case {
            name: "response",
            body: r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(),
            needs_writer: false,
        },
        Case { name: "no name", body: call("tools/call", "{}"), needs_writer: false },
    ] {
        let answer = api.post(&mcp, Some(&api.reader()), &body).await;
        let reached = api.reached();
        if needs_writer {
            assert_eq!(answer.status, 403, "{name}: {answer:?}");
            assert!(reached.is_empty(), "{name}: {reached:?}");
            let challenge = answer.challenge.unwrap();
            assert!(challenge.contains("error=\"insufficient_scope\""), "{name}: {challenge}");
            assert!(challenge.contains("scope=\"notes:read notes:write\""), "{name}: {challenge}");
        } else {
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(reached.len(), 1, "{name}");
        }
        // With the scope, the same bytes reach the service.
        let answer = api.post(&mcp, Some(&api.writer()), &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "served"), "{name}");
        assert_eq!(api.reached(), [(body, Some("alice".to_owned()))], "{name}");
    }
}

/// One sign-in suffices: the challenge names the scopes of the base rule and of all operations.
#[tokio::test]
async fn one_challenge_names_everything_that_the_request_needs() {
    let api = Api::new();
    let mcp = api
        .mcp()
        .tool("share", Rule::scope("notes:share"))
        .tool("both", Rule::role("admin").and(Rule::scope("notes:admin")));
    let poor = api.token().build();
    let share_and_write = format!(
        "[{},{},{}]",
        call("tools/call", r#"{"name":"share"}"#),
        call("tools/call", r#"{"name":"write_note"}"#),
        call("tools/call", r#"{"name":"share"}"#),
    );
    struct Case {
        name: &'static str,
        token: Option<String>,
        body: String,
        status: u16,
        scope: Option<&'static str>,
        error: Option<&'static str>,
    }
    for Case { name, token, body, status, scope, error } in [
        Case {
            name: "no token: the base scopes",
            token: None,
            body: call("tools/call", r#"{"name":"write_note"}"#),
            status: 401,
            scope: Some("notes:read"),
            error: None,
        },
        Case {
            name: "a token without the base scope: one challenge, not two",
            token: Some(poor.clone()),
            body: call("tools/call", r#"{"name":"write_note"}"#),
            status: 403,
            scope: Some("notes:read notes:write"),
            error: Some("insufficient_scope"),
        },
        Case {
            name: "nothing named",
            token: Some(poor),
            body: call("tools/list", "{}"),
            status: 403,
            scope: Some("notes:read"),
            error: Some("insufficient_scope"),
        },
        Case {
            name: "a batch",
            token: Some(api.reader()),
            body: share_and_write,
            status: 403,
            scope: Some("notes:read notes:share notes:write"),
            error: Some("insufficient_scope"),
        },
        Case {
            name: "a role: no sign-in helps",
            token: Some(api.reader()),
            body: call("tools/call", r#"{"name":"admin"}"#),
            status: 403,
            scope: None,
            error: None,
        },
        Case {
            name: "a role and a scope",
            token: Some(api.reader()),
            body: call("tools/call", r#"{"name":"both"}"#),
            status: 403,
            scope: Some("notes:read notes:admin"),
            error: Some("insufficient_scope"),
        },
    ] {
        let request = crate::support::request(token.as_deref(), &[], &body);
        let response = api.respond(&mcp, request, &[]).await;
        assert_eq!(response.status(), status, "{name}");
        let challenges = challenges(response.headers()).unwrap();
        assert_eq!(challenges.len(), 1, "{name}");
        assert_eq!(challenges[0].parameter("scope"), scope, "{name}");
        assert_eq!(challenges[0].parameter("error"), error, "{name}");
        assert_eq!(
            challenges[0].parameter("resource_metadata"),
            Some("https://api.example.com/.well-known/oauth-protected-resource/mcp"),
            "{name}"
        );
        assert!(api.reached().is_empty(), "{name}");
    }
    let admin = api.token().scope("notes:read").claim("roles", serde_json::json!(["admin"]));
    let body = call("tools/call", r#"{"name":"admin"}"#);
    assert_eq!(api.post(&mcp, Some(&admin.build()), &body).await.status, 200);
}

#[tokio::test]
async fn a_scope_that_implies_another_satisfies_its_rule() {
    let api = Api::new();
    let config = portcullis::Issuer::new(api.issuer.iss(), crate::support::URL).unwrap();
    let verifier = portcullis::Verifier::builder(config.jwks(api.issuer.jwks()))
        .scope_implies(|granted, _| granted == "notes:admin")
        .build()
        .unwrap();
    let mcp = McpLayer::new(portcullis::ProtectLayer::new(verifier).scope("notes:read"))
        .unwrap()
        .tool("write_note", Rule::scope("notes:write"));
    let token = api.token().scope("notes:admin").build();
    let body = call("tools/call", r#"{"name":"write_note"}"#);
    assert_eq!(api.post(&mcp, Some(&token), &body).await.status, 200);
}

#[tokio::test]
async fn unreadable_bodies_are_rejected() {
    struct Case {
        name: &'static str,
        body: &'static str,
        code: i64,
    }
    let api = Api::new();
    let mcp = api.mcp();
    for Case { name, body, code } in [
        Case { name: "empty", body: "", code: -32700 },
        Case { name: "not JSON", body: "{", code: -32700 },
        Case { name: "two documents", body: "{}{}", code: -32700 },
        Case { name: "form", body: "method=tools/call", code: -32700 },
        Case { name: "text", body: "\"tools/call\"", code: -32600 },
        Case {
            name: "repeated method",
            body: r#"{"method":"tools/list","method":"tools/call","params":{"name":"write_note"}}"#,
            code: -32600,
        },
        Case {
            name: "repeated name",
            body: r#"{"method":"tools/call","params":{"name":"whoami","name":"write_note"}}"#,
            code: -32600,
        },
        Case {
            name: "repeated params",
            body: r#"{"method":"tools/call","params":{"name":"whoami"},"params":{"name":"write_note"}}"#,
            code: -32600,
        },
        Case {
            name: "name in an array",
            body: r#"{"method":"tools/call","params":{"name":["write_note"]}}"#,
            code: -32600,
        },
        Case {
            name: "a reference as an array",
            body: r#"{"method":"completion/complete","params":{"ref":["ref/resource","drafts://1"]}}"#,
            code: -32600,
        },
        Case {
            name: "notifications as an array",
            body: r#"{"method":"subscriptions/listen","params":{"notifications":[null,null,null,["drafts://1"]]}}"#,
            code: -32600,
        },
        Case {
            name: "an object as id",
            body: r#"{"id":{"":0},"method":"tools/list"}"#,
            code: -32600,
        },
        Case {
            name: "raw value",
            body: r#"{"method":"tools/call","params":{"$serde_json::private::RawValue":"{\"name\":\"write_note\"}"}}"#,
            code: -32600,
        },
    ] {
        let answer = api.post(&mcp, Some(&api.reader()), body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (400, Some(code)),
            "{name}: {answer:?}"
        );
        // The client's text is not repeated.
        assert!(!answer.body.contains("write_note"), "{name}: {answer:?}");
        assert!(api.reached().is_empty(), "{name}");
        // A client without a token learns nothing about its body.
        assert_eq!(api.post(&mcp, None, body).await.status, 401, "{name}");
    }
}

#[tokio::test]
async fn names_without_a_rule_have_the_rule_for_the_others() {
    let api = Api::new();
    let strict = api
        .mcp()
        .resource("public://{id}", Rule::scope("notes:read"))
        .unregistered(Rule::role("operator"));
    let operator =
        api.token().scope("notes:read").claim("roles", serde_json::json!(["operator"])).build();
    struct Case {
        name: &'static str,
        body: String,
        reader: u16,
        operator: u16,
    }
    for Case { name, body, reader, operator: of_operator } in [
        Case {
            name: "another tool",
            body: call("tools/call", r#"{"name":"whoami"}"#),
            reader: 403,
            operator: 200,
        },
        Case {
            name: "another resource",
            body: call("resources/read", r#"{"uri":"notes://1"}"#),
            reader: 403,
            operator: 200,
        },
        Case {
            name: "another prompt",
            body: call("prompts/get", r#"{"name":"x"}"#),
            reader: 403,
            operator: 200,
        },
        Case {
            name: "registered",
            body: call("tools/call", r#"{"name":"write_note"}"#),
            reader: 403,
            operator: 403,
        },
        Case {
            name: "a registered resource, then another",
            body: call(
                "subscriptions/listen",
                r#"{"notifications":{"resourceSubscriptions":["public://1","secret://1"]}}"#,
            ),
            reader: 403,
            operator: 200,
        },
        Case {
            name: "a registered resource",
            body: call("resources/read", r#"{"uri":"public://1"}"#),
            reader: 200,
            operator: 200,
        },
        Case {
            name: "another spelling of it",
            body: call("resources/read", r#"{"uri":"PUBLIC://1"}"#),
            reader: 403,
            operator: 200,
        },
        Case {
            name: "a resource that may be any",
            body: call("resources/read", r#"{"uri":"public://a/../1"}"#),
            reader: 403,
            operator: 403,
        },
        Case { name: "list", body: call("tools/list", "{}"), reader: 200, operator: 200 },
    ] {
        assert_eq!(api.post(&strict, Some(&api.reader()), &body).await.status, reader, "{name}");
        assert_eq!(api.post(&strict, Some(&operator), &body).await.status, of_operator, "{name}");
    }
}
