//! Introspection answers: active only if `active` is true, and an access token only if the answer
//! says so.

#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::{is_access_token, is_active};
use portcullis_fuzz::Strict;

/// What an access token without a key is called.
const ACCESS_TOKENS: [&str; 5] = ["bearer", "access_token", "access-token", "access", "at+jwt"];

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
    static PLAIN: Once = Once::new();
    PLAIN.call_once(|| assert!(is_access_token(r#"{"active":true,"token_type":"Bearer"}"#)));
    if is_access_token(answer) {
        assert_eq!(found, Some(true));
        let json = json.expect("an answer that is JSON");
        let named = ["token_type", "token_use", "token_usage", "typ"].map(|name| json.get(name));
        let mut is_named = false;
        for kind in named.into_iter().flatten().filter(|kind| **kind != Strict::Null) {
            let kind = kind.text().expect("a string").to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            let is_access_token = ACCESS_TOKENS.contains(&kind);
            // `JWT` says nothing.
            assert!(is_access_token || kind == "jwt", "{kind:?}");
            is_named |= is_access_token;
        }
        assert!(is_named, "{answer:?}");
    }
});
