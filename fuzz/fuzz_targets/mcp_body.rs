//! MCP bodies: the methods and names that rules see are those that `serde_json` reads, and no
//! member that rules depend on is repeated.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::mcp_messages;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// What rules depend on. For these structs, serde rejects a repeated member.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only deserialized")]
struct Message {
    jsonrpc: Option<IgnoredAny>,
    method: Option<String>,
    id: Option<IgnoredAny>,
    params: Option<Params>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only deserialized")]
#[serde(rename_all = "camelCase")]
struct Params {
    name: Option<String>,
    uri: Option<String>,
    task_id: Option<String>,
    r#ref: Option<Reference>,
    notifications: Option<Notifications>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only deserialized")]
struct Reference {
    name: Option<String>,
    uri: Option<String>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only deserialized")]
#[serde(rename_all = "camelCase")]
struct Notifications {
    resource_subscriptions: Option<Vec<String>>,
}

fuzz_target!(|body: &[u8]| {
    let Some(messages) = mcp_messages(body) else { return };
    let is_batch = body.trim_ascii_start().starts_with(b"[");
    let read = if is_batch {
        serde_json::from_slice::<Vec<Option<Message>>>(body).map(drop)
    } else {
        serde_json::from_slice::<Message>(body).map(drop)
    };
    read.unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(body)));
    // What no rule reads may be invalid, such as half of a character. A service rejects it.
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return };
    let expected = match &json {
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    };
    assert_eq!(messages.len(), expected.len());
    for ((method, names), message) in messages.iter().zip(expected) {
        if !message.is_object() {
            // Such as `[null]`, in which a service finds nothing to do.
            assert!(method.is_none() && names.is_empty(), "{message}");
            continue;
        }
        assert_eq!(method.as_deref(), message["method"].as_str());
        let Some(method) = method else { continue };
        let params = &message["params"];
        let mut all = Vec::new();
        for (value, kind) in [
            (&params["name"], "name"),
            (&params["uri"], "resource"),
            (&params["ref"]["name"], "prompt"),
            (&params["ref"]["uri"], "resource"),
        ] {
            let Some(text) = value.as_str() else { continue };
            match kind {
                "name" => {
                    if method != "prompts/get" {
                        all.push(("tool", text));
                    }
                    if method != "tools/call" {
                        all.push(("prompt", text));
                    }
                }
                kind => all.push((kind, text)),
            }
        }
        let subscriptions = params["notifications"]["resourceSubscriptions"].as_array();
        for uri in subscriptions.into_iter().flatten() {
            all.push(("resource", uri.as_str().expect("a string")));
        }
        let names: Vec<_> = names.iter().map(|(kind, name)| (*kind, &**name)).collect();
        assert_eq!(names, all, "{json}");
    }
});
