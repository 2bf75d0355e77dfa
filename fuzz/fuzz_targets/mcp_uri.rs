//! Rules for the URIs of MCP resources: spellings of a registered URI are found, and what is
//! certain is also possible.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::uri_matches;
use portcullis_fuzz::parts;

fuzz_target!(|input: &str| {
    let Some([registered, uri]) = parts(input) else { return };
    let (possible, certain) = uri_matches(registered, uri);
    assert!(possible || !certain);
    if registered.is_empty() || registered.len() > 1000 || registered.contains('{') {
        return;
    }
    // The URI itself, and the ways to spell it that each service understands.
    assert!(uri_matches(registered, registered).0, "{registered:?}");
    let encoded: String = registered.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert!(uri_matches(registered, &encoded).0, "{registered:?}");
    assert!(uri_matches(registered, &registered.to_ascii_uppercase()).0, "{registered:?}");
    assert!(uri_matches(registered, &format!(" {registered}\n")).0, "{registered:?}");
});
