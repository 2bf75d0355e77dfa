//! `htu` of DPoP proofs: the comparison is reflexive, ignores spellings, and agrees with a slow one
//! on what it accepts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::is_htu;
use portcullis_fuzz::parts;
use url::Url;

fuzz_target!(|input: &str| {
    let Some([htu, path, base]) = parts(input) else { return };
    let Some(is_target) = is_htu(htu, path, base) else { return };
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
    // What is accepted is the same URL to a parser by another standard, which decodes nothing.
    let parsed = Url::parse(htu).unwrap_or_else(|error| panic!("{error}: {htu:?}"));
    let base_url = Url::parse(base).unwrap_or_else(|error| panic!("{error}: {base:?}"));
    assert_eq!(parsed.scheme(), base_url.scheme());
    assert_eq!(parsed.host(), base_url.host(), "{htu:?} {base:?}");
    assert_eq!(parsed.port_or_known_default(), base_url.port_or_known_default());
    assert!(parsed.username().is_empty() && parsed.password().is_none());
    let lower = |text: &str| percent_decoded(text).to_ascii_lowercase();
    let own = format!("{}{path}", base_url.path().trim_end_matches('/'));
    let own = Url::parse(&format!("http://x{own}")).map_or(own, |url| url.path().to_owned());
    let same = lower(parsed.path()) == lower(&own);
    // A trailing slash of a root: see `is_target`.
    let same =
        same || lower(parsed.path()).trim_end_matches('/') == lower(&own).trim_end_matches('/');
    // `url` does not remove a segment that looks like a drive letter, which only files have.
    let is_letter = |segment: &str| segment.len() == 2 && segment.ends_with([':', '|']);
    let has_letter = percent_decoded(htu).split('/').any(is_letter);
    assert!(same || has_letter, "{htu:?} {path:?} {base:?}");
});

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
