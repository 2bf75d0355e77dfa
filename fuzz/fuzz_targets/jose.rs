//! Compact JWS and their headers: what is accepted has one spelling, and says what `serde_json`
//! reads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::{jose_header, split_jws};
use portcullis_fuzz::{MAX_JWS, Strict, base64url};

// A header, or a whole JWS.
fuzz_target!(|text: &str| {
    let is_header = text.starts_with('{');
    let compact = if is_header { format!("{}.e30.", base64url(text)) } else { text.to_owned() };
    let Some((parts, is_padded)) = split_jws(&compact) else {
        assert!(!is_header || compact.len() > MAX_JWS, "every header can be split: {text:?}");
        return;
    };
    let spelled = parts.each_ref().map(base64url).join(".");
    assert_eq!(compact == spelled, !is_padded, "{compact:?}");
    assert_eq!(compact.replace('=', ""), spelled);
    let Some((alg, kid, typ)) = jose_header(&compact) else { return };
    let header = std::str::from_utf8(&parts[0]).ok().and_then(Strict::read);
    let header = header.unwrap_or_else(|| panic!("accepted: {compact:?}"));
    assert!(header.get("crit").is_none(), "{header:?}");
    let text = |name| header.get(name).and_then(Strict::text);
    // Ed25519 has two names (RFC 9864 §2.2), of which the older one is reported.
    let expected = text("alg").map(|alg| if alg == "Ed25519" { "EdDSA" } else { alg });
    assert_eq!(expected, Some(&*alg));
    assert_eq!(text("kid"), kid.as_deref());
    assert_eq!(text("typ"), typ.as_deref());
});
