//! Introspection answers: active only if `active` is true, and an access token only if the answer
//! says so.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::{is_access_token, is_active};
use portcullis_fuzz::Strict;

fuzz_target!(|answer: &str| {
    let found = is_active(answer);
    let json = Strict::read(answer);
    let active = json.as_ref().and_then(|json| match json.get("active") {
        Some(Strict::Bool(active)) => Some(*active),
        _ => None,
    });
    if let Some(found) = found {
        assert_eq!(active, Some(found), "{answer:?}");
    }
    if is_access_token(answer) {
        assert_eq!(found, Some(true));
        let json = json.expect("an answer that is JSON");
        let named = ["token_type", "token_use", "token_usage", "typ"].map(|name| json.get(name));
        let kinds = named.into_iter().flatten().filter_map(Strict::text);
        let lower: Vec<_> = kinds.map(str::to_ascii_lowercase).collect();
        let is_refresh = |kind: &String| kind.contains("refresh") || kind.contains("id_token");
        assert!(!lower.iter().any(is_refresh), "{lower:?}");
        assert!(!lower.is_empty());
    }
});
