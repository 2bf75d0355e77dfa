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
    assert!(is_same(&normal(own), &normal(uri)), "{both}");
    // This parser removes tabs, and white space around a URL. A service with it knows a resource by
    // another URI than the registered one, if it has these, or by none, if the URI is invalid.
    let is_removed = |one: char| one == ' ' || one.is_ascii_control();
    if own.contains('\t') || own.trim_matches(is_removed) != own {
        return;
    }
    let (Ok(own_parsed), Ok(parsed)) = (Url::parse(own), Url::parse(uri)) else { return };
    if !is_template {
        assert_eq!(normal(own_parsed.as_str()), normal(parsed.as_str()), "{both}");
        return;
    }
    // No dot segment leads out of what the template begins with.
    let segments = |path: &str| path.split('/').map(normal).collect::<Vec<_>>();
    if own.matches('/').count() > 2 {
        assert_eq!(own_parsed.scheme(), parsed.scheme(), "{both}");
        assert_eq!(own_parsed.host_str(), parsed.host_str(), "{both}");
        let (own, found) = (segments(own_parsed.path()), segments(parsed.path()));
        let (last, whole) = own.split_last().expect("a segment");
        assert!(found.len() >= own.len() && found[..whole.len()] == *whole, "{both}");
        assert!(found[whole.len()].starts_with(last) || found[whole.len()].is_empty(), "{both}");
    }
}

/// Decodes what means the same decoded, and leaves a `%` that begins no escape as it is.
fn normal(text: &str) -> String {
    let encoded: String = text.chars().map(encoded).collect();
    let mut parts = encoded.split('%');
    let mut normal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = format!("%{part}");
        normal += &unreserved_decoded(&escape).unwrap_or(escape);
    }
    normal
}

/// Encodes a character that a URI may not have.
fn encoded(one: char) -> String {
    if one.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(one) {
        return one.to_string();
    }
    one.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect()
}
