//! DPoP proofs with any header and any payload: a proof that fits was made for this request, this
//! token and this key. Its time and its signature are not part of this target.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::proof_fits;
use portcullis_fuzz::{Strict, base64url, is_same_url, parts};
use serde_json::{Value, json};

const BASE: &str = "https://api.example.com";
const METHODS: [&str; 2] = ["GET", "POST"];
const PATHS: [&str; 2] = ["/a", "/b/c%20d"];
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The keys of RFC 9449 §4.1, RFC 8037 §A.3 and RFC 7638 §3.1, with their algorithms.
const KEYS: [(&str, &[&str]); 3] = [
    (
        r#"{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}"#,
        &["ES256"],
    ),
    (
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        &["EdDSA", "Ed25519"],
    ),
    (
        r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#,
        &["RS256", "PS256"],
    ),
];

/// The thumbprints of the keys. The valid proof of each request and key fits it, and no other one.
static THUMBPRINTS: LazyLock<[[u8; 32]; 3]> = LazyLock::new(|| {
    let thumbprints = KEYS.map(|(key, _)| thumbprint(&Strict::read(key).expect("JSON")));
    let all = || (0..Choice::NUMBER).map(Choice::of);
    for made in all() {
        for alg in KEYS[made.key].1 {
            let key: Value = serde_json::from_str(KEYS[made.key].0).expect("JSON");
            let header = json!({ "typ": "dpop+jwt", "alg": alg, "jwk": key }).to_string();
            let htu = format!("{BASE}{}", made.path);
            let payload =
                json!({ "jti": "j", "htm": made.method, "htu": htu, "iat": 1, "ath": "hash" });
            let proof = proof(&header, &payload.to_string(), "signature");
            for other in all() {
                assert_eq!(other.fits(&proof, &thumbprints), made == other, "{made:?} {other:?}");
            }
        }
    }
    thumbprints
});

/// What a proof is compared with.
#[derive(Debug, PartialEq)]
struct Choice {
    method: &'static str,
    path: &'static str,
    key: usize,
}

impl Choice {
    const NUMBER: u8 = 12;

    fn of(number: u8) -> Self {
        let number = usize::from(number);
        Self { method: METHODS[number % 2], path: PATHS[number / 2 % 2], key: number / 4 % 3 }
    }

    fn fits(&self, proof: &str, thumbprints: &[[u8; 32]; 3]) -> bool {
        proof_fits(proof, self.method, BASE, self.path, "hash", &thumbprints[self.key])
    }
}

fn proof(header: &str, payload: &str, signature: &str) -> String {
    format!("{}.{}.{}", base64url(header), base64url(payload), base64url(signature))
}

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

// Header, payload and signature. A fourth part is optional: a character from `0` to `;` that
// chooses method, path and key.
fuzz_target!(|input: &str| {
    let Some([header, payload, rest]) = parts(input) else { return };
    let (signature, choice) = rest.split_once('\n').unwrap_or((rest, ""));
    let choice = Choice::of(choice.bytes().next().map_or(0, |one| one.wrapping_sub(b'0')));
    if !choice.fits(&proof(header, payload, signature), &THUMBPRINTS) {
        return;
    }
    let header = Strict::read(header).expect("a header that is JSON");
    let payload = Strict::read(payload).expect("a payload that is JSON");
    let text = |name| payload.get(name).and_then(Strict::text);
    let typ = header.get("typ").and_then(Strict::text).unwrap_or_default().to_ascii_lowercase();
    assert!(["dpop+jwt", "application/dpop+jwt"].contains(&&*typ), "{typ}");
    let jwk = header.get("jwk").expect("a key");
    assert!(PRIVATE.iter().all(|private| jwk.get(private).is_none()), "{jwk:?}");
    assert_eq!(thumbprint(jwk), THUMBPRINTS[choice.key], "{jwk:?}");
    // Only the algorithms of the key that has this thumbprint.
    let algorithms = KEYS[choice.key].1;
    let alg = header.get("alg").and_then(Strict::text).expect("an algorithm");
    assert!(algorithms.contains(&alg), "{alg}");
    let own = jwk.get("alg").map(|own| own.text().expect("text"));
    // EdDSA and Ed25519 are two names of one algorithm.
    assert!(own.is_none_or(|own| own == alg || choice.key == 1 && algorithms.contains(&own)));
    assert!(header.get("crit").is_none(), "{header:?}");
    assert_eq!(text("htm"), Some(choice.method));
    assert_eq!(text("ath"), Some("hash"));
    let is_same = |htu| is_same_url(htu, choice.path, BASE);
    assert_eq!(text("htu").and_then(is_same), Some(true));
    assert!(text("jti").is_some_and(|jti| !jti.is_empty() && jti.len() <= 256));
    assert!(payload.get("iat").and_then(Strict::number).is_some_and(|iat| iat >= 0.0));
});
