//! Rules for the URIs of MCP resources: spellings of a registered URI are found, and a match that
//! is certain is one for every parser.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::uri_matches;
use portcullis_fuzz::{parts, unreserved_decoded};
use url::Url;

fuzz_target!(|input: &str| {
    let Some([registered, uri]) = parts(input) else { return };
    let (possible, certain) = uri_matches(registered, uri);
    assert!(possible || !certain);
    if certain {
        is_certain(registered, uri);
    }
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

/// Checks that the URI is the registered one to a service that compares texts, to one that decodes
/// them, and to one with the WHATWG parser.
fn is_certain(registered: &str, uri: &str) {
    let (own, is_template) =
        registered.split_once('{').map_or((registered, false), |(prefix, _)| (prefix, true));
    let is_same = |own: &str, uri: &str| own == uri || is_template && uri.starts_with(own);
    let both = format!("{registered:?} {uri:?}");
    // Decoded, apart from what a `%` would mean otherwise.
    let normal = |text: &str| {
        let encoded: String = text.chars().map(encoded).collect();
        unreserved_decoded(&encoded).unwrap_or(encoded)
    };
    assert!(is_same(&normal(own), &normal(uri)), "{both}");
    let Ok(parsed) = Url::parse(uri) else { return };
    if !is_template {
        assert_eq!(Url::parse(own).map(|own| normal(own.as_str())), Ok(normal(parsed.as_str())));
        return;
    }
    // No dot segment leads out of what the template begins with.
    let segments = |path: &str| path.split('/').map(normal).collect::<Vec<_>>();
    if let (Ok(own), true) = (Url::parse(own), own.matches('/').count() > 2) {
        assert_eq!(own.scheme(), parsed.scheme(), "{both}");
        assert_eq!(own.host_str(), parsed.host_str(), "{both}");
        let (own, found) = (segments(own.path()), segments(parsed.path()));
        let (last, whole) = own.split_last().expect("a segment");
        assert!(found.len() >= own.len() && found[..whole.len()] == *whole, "{both}");
        assert!(found[whole.len()].starts_with(last) || found[whole.len()].is_empty(), "{both}");
    }
}

/// Encodes a character that a URI may not have.
fn encoded(one: char) -> String {
    if one.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(one) {
        return one.to_string();
    }
    one.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect()
}
