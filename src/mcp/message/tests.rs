use std::collections::BTreeSet;

use super::*;

/// The method and the names of the only message, as texts.
fn read(body: &str) -> Result<(Option<String>, Vec<String>), ReadError> {
    let body = Body::read(body.as_bytes())?;
    let [message] = body.messages() else { panic!("{body:?}") };
    let mut names = Vec::new();
    message.names(|name| names.push(format!("{name:?}")));
    Ok((message.method.as_deref().map(str::to_owned), names))
}

#[test]
fn each_way_to_name_something_is_found() {
    struct Case {
        body: &'static str,
        names: &'static [&'static str],
    }
    for Case { body, names } in [
        Case { body: r#"{"method":"tools/call","params":{"name":"a"}}"#, names: &[r#"Tool("a")"#] },
        Case { body: r#"{"params":{"name":"a"},"method":"tools/call"}"#, names: &[r#"Tool("a")"#] },
        Case {
            body: r#"{"m\u0065thod":"tools\/call","par\u0061ms":{"n\u0061me":"\u0061"}}"#,
            names: &[r#"Tool("a")"#],
        },
        Case {
            body: r#"{"method":"prompts/get","params":{"name":"a"}}"#,
            names: &[r#"Prompt("a")"#],
        },
        Case {
            body: r#"{"method":"resources/read","params":{"uri":"n://1"}}"#,
            names: &[r#"Resource("n://1")"#],
        },
        Case {
            body: r#"{"method":"resources/directory/read","params":{"uri":"n://1"}}"#,
            names: &[r#"Resource("n://1")"#],
        },
        Case {
            body: r#"{"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["n://1","n://2"]}}}"#,
            names: &[r#"Resource("n://1")"#, r#"Resource("n://2")"#],
        },
        Case {
            body: r#"{"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a"},"argument":{"name":"x","value":"y"}}}"#,
            names: &[r#"Prompt("a")"#],
        },
        // The type of the reference does not decide: a service may look at the other member.
        Case {
            body: r#"{"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a","uri":"n://{id}"}}}"#,
            names: &[r#"Prompt("a")"#, r#"Resource("n://{id}")"#],
        },
        Case {
            body: r#"{"method":"tools/describe","params":{"name":"a"}}"#,
            names: &[r#"Tool("a")"#, r#"Prompt("a")"#],
        },
        Case {
            body: r#"{"method":"initialize","params":{"clientInfo":{"name":"a"}}}"#,
            names: &[],
        },
        Case { body: r#"{"method":"tools/list"}"#, names: &[] },
        Case { body: r#"{"method":"tools/list","params":null}"#, names: &[] },
        Case {
            body: r#"{"method":"tools/call","params":{"ref":null,"notifications":null}}"#,
            names: &[],
        },
        Case { body: r#"{"id":1,"result":{"name":"a"}}"#, names: &[] },
    ] {
        assert_eq!(read(body).expect(body).1, names, "{body}");
    }
}

#[test]
fn bodies_that_can_be_understood_in_two_ways_are_rejected() {
    let invalid = [
        r#"{"method":"a","method":"a"}"#,
        r#"{"method":"a","m\u0065thod":"b"}"#,
        r#"{"method":"a","params":{},"params":{}}"#,
        r#"{"method":"a","params":{"name":"a","name":"a"}}"#,
        r#"{"method":"a","params":{"uri":"a","uri":"b"}}"#,
        r#"{"method":"a","params":{"ref":{},"ref":{}}}"#,
        r#"{"method":"a","params":{"ref":{"name":"a","name":"b"}}}"#,
        r#"{"method":"a","params":{"notifications":{"resourceSubscriptions":[],"resourceSubscriptions":[]}}}"#,
        r#"{"id":1,"id":2,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","method":"a"}"#,
        r#"{"method":1}"#,
        r#"{"method":"a","params":[1]}"#,
        r#"{"method":"a","params":"{}"}"#,
        r#"{"method":"a","params":{"name":{"$serde_json::private::RawValue":"\"a\""}}}"#,
        r#"{"method":"a","params":{"$serde_json::private::RawValue":"{\"name\":\"a\"}"}}"#,
        r#"{"$serde_json::private::RawValue":"{}"}"#,
        r#"{"\u0024serde_json::private::Number":"1"}"#,
        r#"{"method":"a","params":{"notifications":{"resourceSubscriptions":["a",1]}}}"#,
        r#"[1]"#,
        // serde reads a struct from an array of its values, too.
        r#"{"method":"a","params":{"ref":["ref/resource","n://1"]}}"#,
        r#"{"method":"a","params":{"ref":1}}"#,
        r#"{"method":"a","params":{"notifications":[null,null,null,["n://1"]]}}"#,
        r#"{"method":"a","params":{"notifications":{"resourceSubscriptions":"n://1"}}}"#,
        r#"{"id":[],"method":"a"}"#,
        r#"{"id":{},"method":"a"}"#,
        r#"{"id":true,"method":"a"}"#,
    ];
    for body in invalid {
        assert!(matches!(read(body), Err(ReadError::Invalid { .. })), "{body}: {:?}", read(body));
    }
    for body in ["", "{", "{}x", "{'method':1}", "nul", "\u{feff}{}", r#"{"method":"\ud800"}"#] {
        assert_eq!(read(body), Err(ReadError::NotJson), "{body:?}");
    }
    assert!(matches!(Body::read(b"\"text\""), Err(ReadError::Invalid { .. })));
    assert_eq!(Body::read(b"{\"method\":\"\xff\"}").map(drop), Err(ReadError::NotJson));
    let deep = format!("{{\"method\":\"a\",\"x\":{}", "[".repeat(200));
    assert_eq!(Body::read(deep.as_bytes()).map(drop), Err(ReadError::NotJson));
}

#[test]
fn the_number_of_names_is_bounded() {
    let batch = |count: usize| format!("[{}]", vec![r#"{"method":"a"}"#; count].join(","));
    assert_eq!(Body::read(batch(100).as_bytes()).unwrap().messages().len(), 100);
    assert!(Body::read(batch(101).as_bytes()).is_err());
    let listen = |count: usize| {
        let uris = vec!["\"n://1\""; count].join(",");
        format!(
            r#"{{"method":"a","params":{{"notifications":{{"resourceSubscriptions":[{uris}]}}}}}}"#
        )
    };
    assert_eq!(read(&listen(1000)).unwrap().1.len(), 1000);
    assert!(read(&listen(1001)).is_err());
    // In all messages of a batch together.
    let two = |first, second| format!("[{},{}]", listen(first), listen(second));
    assert!(Body::read(two(500, 500).as_bytes()).is_ok());
    assert!(Body::read(two(500, 501).as_bytes()).is_err());
    // An error response repeats only a short `id`.
    let id = |length: usize| format!(r#"{{"id":"{}","method":"a"}}"#, "x".repeat(length));
    for (length, is_kept) in [(256, true), (257, false)] {
        let text = id(length);
        let body = Body::read(text.as_bytes()).unwrap();
        assert_eq!(body.messages()[0].id.as_ref().unwrap().0.is_string(), is_kept, "{length}");
    }
}

/// What rmcp executes when it reads a body: the names in its own types.
fn names_in_rmcp(body: &str) -> Option<Vec<String>> {
    use rmcp::model::{ClientJsonRpcMessage, ClientRequest, Reference};
    let message: ClientJsonRpcMessage = serde_json::from_str(body).ok()?;
    let ClientJsonRpcMessage::Request(request) = message else { return Some(Vec::new()) };
    Some(match request.request {
        ClientRequest::CallToolRequest(request) => vec![request.params.name.into_owned()],
        ClientRequest::GetPromptRequest(request) => vec![request.params.name],
        ClientRequest::ReadResourceRequest(request) => vec![request.params.uri],
        ClientRequest::SubscribeRequest(request) => vec![request.params.uri],
        ClientRequest::UnsubscribeRequest(request) => vec![request.params.uri],
        ClientRequest::CompleteRequest(request) => match request.params.r#ref {
            Reference::Prompt(prompt) => vec![prompt.name],
            Reference::Resource(resource) => vec![resource.uri],
            _ => Vec::new(),
        },
        ClientRequest::SubscriptionsListenRequest(request) => {
            request.params.notifications.resource_subscriptions.unwrap_or_default()
        }
        _ => Vec::new(),
    })
}

/// `serde_json`'s own tree has the same method and the same names, or the body is rejected. rmcp
/// names nothing that was not found here. The bodies are made of pieces that matter, in random
/// order.
#[test]
fn this_reader_and_serde_json_agree_or_the_body_is_rejected() {
    const PIECES: [&str; 34] = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"method\"",
        "\"m\\u0065thod\"",
        "\"params\"",
        "\"name\"",
        "\"uri\"",
        "\"ref\"",
        "\"notifications\"",
        "\"resourceSubscriptions\"",
        "\"tools/call\"",
        "\"tools\\/call\"",
        "\"resources/read\"",
        "\"completion/complete\"",
        "\"a\"",
        "\"b\"",
        "\"n://1\"",
        "null",
        "1",
        "1e400",
        "true",
        " ",
        "\"$serde_json::private::RawValue\"",
        "\"\\ud83d\\ude00\"",
        "\"jsonrpc\":\"2.0\"",
        "\"id\":1",
        "\"prompts/get\"",
        "[\"ref/resource\",\"n://1\"]",
        "[null,null,null,[\"n://1\"]]",
        "[\"a\",{}]",
    ];
    let templates = [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":[1,{"y":null}]}}}"#,
        r#"{"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["n://1"]}}}"#,
        r#"{"method":"completion/complete","params":{"ref":{"type":"ref/resource","uri":"n://1"}}}"#,
        r#"{"method":"resources/read","params":{"uri":"n://1"}}"#,
    ];
    let mut random = random();
    let (mut agreed, mut rejected) = (0, 0);
    for _ in 0..100_000 {
        let mut body = templates[random(templates.len())].to_owned();
        for _ in 0..=random(3) {
            let mut at = random(body.len() + 1);
            while !body.is_char_boundary(at) {
                at -= 1;
            }
            let mut end = (at + random(12)).min(body.len());
            while !body.is_char_boundary(end) {
                end -= 1;
            }
            let piece = if random(3) == 0 { "" } else { PIECES[random(PIECES.len())] };
            body.replace_range(at..end.max(at), piece);
        }
        match Body::read(body.as_bytes()) {
            Err(_) => rejected += 1,
            Ok(read) => {
                // What this reader skips, such as a number that is too large, the service may
                // reject.
                let Ok(tree) = serde_json::from_str::<Value>(&body) else { continue };
                let trees = tree.as_array().cloned().unwrap_or_else(|| vec![tree]);
                assert_eq!(read.messages().len(), trees.len(), "{body}");
                for (message, tree) in read.messages().iter().zip(&trees) {
                    assert_eq!(message.method.as_deref(), tree["method"].as_str(), "{body}");
                    let mut names = BTreeSet::new();
                    message.names(|name| {
                        let (Name::Tool(name) | Name::Prompt(name) | Name::Resource(name)) = name;
                        names.insert(name.to_owned());
                    });
                    let params = &tree["params"];
                    let subscriptions = params["notifications"]["resourceSubscriptions"].as_array();
                    let expected: BTreeSet<_> = [
                        &params["name"],
                        &params["uri"],
                        &params["ref"]["name"],
                        &params["ref"]["uri"],
                    ]
                    .into_iter()
                    .chain(subscriptions.into_iter().flatten())
                    .filter(|_| tree["method"].is_string())
                    .filter_map(|value| value.as_str().map(str::to_owned))
                    .collect();
                    assert_eq!(names, expected, "{body}");
                }
                check_rmcp(&body);
                agreed += 1;
            }
        }
    }
    assert!(agreed > 5_000 && rejected > 5_000, "{agreed} agreed, {rejected} rejected");
}

/// Random numbers below a bound. With a fixed seed, so that a failure can be repeated.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

/// Everything that rmcp names in this body was found here, or the body is rejected here.
fn check_rmcp(text: &str) {
    let Ok(body) = Body::read(text.as_bytes()) else { return };
    let Some(executed) = names_in_rmcp(text) else { return };
    let mut found = BTreeSet::new();
    for message in body.messages() {
        message.names(|name| {
            let (Name::Tool(name) | Name::Prompt(name) | Name::Resource(name)) = name;
            found.insert(name.to_owned());
        });
    }
    for name in executed {
        assert!(found.contains(&name), "rmcp executes {name:?} of {text}");
    }
}

/// As above, with valid JSON in which values are replaced by others. serde accepts some types in
/// place of an object that `serde_json`'s tree does not show.
#[test]
fn rmcp_executes_nothing_that_was_not_found() {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let templates = [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"a"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"n://1"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"n://1"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/resource","uri":"n://1"},"argument":{"name":"x","value":"y"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a"},"argument":{"name":"x","value":"y"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["n://1"]},META}}"#,
    ];
    let values: Vec<Value> = [
        "null",
        "1",
        "\"n://2\"",
        "[]",
        "{}",
        r#"["ref/resource","n://2"]"#,
        r#"["ref/prompt","b",null]"#,
        r#"[null,null,null,["n://2"]]"#,
        r#"["b",{}]"#,
        r#"{"name":"b"}"#,
        r#"{"uri":"n://2"}"#,
        r#"{"type":"ref/prompt","name":"b","uri":"n://2"}"#,
        r#"{"resourceSubscriptions":["n://2"]}"#,
    ]
    .map(|text| serde_json::from_str(text).unwrap())
    .into();
    let mut random = random();
    let mut executed = 0;
    for _ in 0..100_000 {
        let template = templates[random(templates.len())].replace("META", meta);
        let mut tree: Value = serde_json::from_str(&template).unwrap();
        for _ in 0..=random(2) {
            let mut node = &mut tree;
            for _ in 0..=random(4) {
                let count = match node {
                    Value::Object(members) => members.len(),
                    Value::Array(items) => items.len(),
                    _ => 0,
                };
                if count == 0 {
                    break;
                }
                let at = random(count);
                node = match node {
                    Value::Object(members) => members.values_mut().nth(at).unwrap(),
                    Value::Array(items) => &mut items[at],
                    _ => unreachable!("it has no items"),
                };
            }
            let as_array = |members: &serde_json::Map<String, Value>| {
                Value::Array(members.values().cloned().collect())
            };
            *node = match node {
                Value::Object(members) if random(3) == 0 => as_array(members),
                _ => values[random(values.len())].clone(),
            };
        }
        let text = tree.to_string();
        executed += usize::from(names_in_rmcp(&text).is_some_and(|names| !names.is_empty()));
        check_rmcp(&text);
    }
    assert!(executed > 2_000, "{executed}");
}
