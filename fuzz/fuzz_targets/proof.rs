//! DPoP proofs with any header and any payload: a proof that fits was made for this request, this
//! token and this key. Its time and its signature are not part of this target.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::proof_fits;
use portcullis_fuzz::{Strict, base64url, is_same_url, parts};
use serde_json::json;

const BASE: &str = "https://api.example.com";
/// The thumbprint of the key of RFC 9449 §4.1.
static JKT: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let hash = URL_SAFE_NO_PAD.decode("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    hash.ok().and_then(|hash| hash.try_into().ok()).expect("32 bytes")
});

/// RFC 7638 §3: the hash of the members that a key must have, in the order of their names.
fn thumbprint(jwk: &Strict) -> [u8; 32] {
    let names: &[&str] = match jwk.get("kty").and_then(Strict::text) {
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("OKP") => &["crv", "kty", "x"],
        Some("RSA") => &["e", "kty", "n"],
        other => panic!("{other:?}"),
    };
    let members = names.iter().map(|name| {
        let value = jwk.get(name).and_then(Strict::text).expect("a required member");
        format!("{}:{}", json!(name), json!(value))
    });
    let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    digest(&SHA256, text.as_bytes()).as_ref().try_into().expect("32 bytes")
}

fuzz_target!(|input: &str| {
    let Some([header, payload, signature]) = parts(input) else { return };
    let proof = format!("{}.{}.{}", base64url(header), base64url(payload), base64url(signature));
    if !proof_fits(&proof, "GET", BASE, "/a", "hash", &JKT) {
        return;
    }
    let header = Strict::read(header).expect("a header that is JSON");
    let payload = Strict::read(payload).expect("a payload that is JSON");
    let text = |name| payload.get(name).and_then(Strict::text);
    let typ = header.get("typ").and_then(Strict::text).unwrap_or_default().to_ascii_lowercase();
    assert!(["dpop+jwt", "application/dpop+jwt"].contains(&&*typ), "{typ}");
    let jwk = header.get("jwk").expect("a key");
    assert!(["d", "p", "q", "k"].iter().all(|private| jwk.get(private).is_none()), "{jwk:?}");
    assert_eq!(thumbprint(jwk), *JKT, "{jwk:?}");
    // The only algorithm of the key that has this thumbprint.
    assert_eq!(header.get("alg").and_then(Strict::text), Some("ES256"));
    assert!(header.get("crit").is_none(), "{header:?}");
    assert_eq!(text("htm"), Some("GET"));
    assert_eq!(text("ath"), Some("hash"));
    assert_eq!(text("htu").and_then(|htu| is_same_url(htu, "/a", BASE)), Some(true));
    assert!(text("jti").is_some_and(|jti| !jti.is_empty() && jti.len() <= 256));
    assert!(payload.get("iat").and_then(Strict::number).is_some_and(|iat| iat >= 0.0));
});
