//! MCP bodies: the methods and names that rules see are those that `serde_json` reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::mcp_messages;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let Some(messages) = mcp_messages(body) else { return };
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
