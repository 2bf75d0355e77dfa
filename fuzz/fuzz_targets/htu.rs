//! `htu` of DPoP proofs: the comparison agrees with a slow one, finds other spellings of the URL,
//! and accepts no URL that the WHATWG parser reads as another host.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::is_htu;
use portcullis_fuzz::{is_same_url, parts};
use url::Url;

fuzz_target!(|input: &str| {
    let Some([htu, path, base]) = parts(input) else { return };
    let found = is_htu(htu, path, base);
    assert_eq!(found, is_same_url(htu, path, base), "{htu:?} {path:?} {base:?}");
    let Some(is_target) = found else { return };
    // The URL itself, if its path has one reading.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_~".contains(&byte);
    let has_dots = base.contains("/.") || base.contains('%');
    if path.starts_with('/') && path.bytes().all(is_plain) && !has_dots {
        let own = format!("{}{path}", base.trim_end_matches('/'));
        assert_eq!(is_htu(&own, path, base), Some(true), "{own:?}");
        assert_eq!(is_htu(&format!("{own}?a#b"), path, base), Some(true), "{own:?}");
        let encoded = format!("{}{}", base.trim_end_matches('/'), path.replace('a', "%61"));
        assert_eq!(is_htu(&encoded, path, base), Some(true), "{encoded:?}");
    }
    if !is_target {
        return;
    }
    let (parsed, base_url) = match (Url::parse(htu), Url::parse(base)) {
        (Ok(parsed), Ok(base_url)) => (parsed, base_url),
        // RFC 3986 allows hosts that this parser rejects: `a.1` ends in a number, and `xn--a` is no
        // Punycode.
        (Err(_), Err(_)) => return,
        other => panic!("{other:?}: {htu:?} {base:?}"),
    };
    assert_eq!(parsed.scheme(), base_url.scheme());
    assert_eq!(parsed.host(), base_url.host(), "{htu:?} {base:?}");
    assert_eq!(parsed.port_or_known_default(), base_url.port_or_known_default());
    assert!(parsed.username().is_empty() && parsed.password().is_none());
});
