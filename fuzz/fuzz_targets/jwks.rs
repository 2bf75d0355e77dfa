//! Key sets: each member is kept or reported, and a key that is kept verifies signatures of its
//! algorithms, or rejects them, but is never unusable.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::{InvalidToken, Jwks};
use portcullis_fuzz::base64url;

const MOST: usize = 500;

fuzz_target!(|document: &[u8]| {
    let Ok(keys) = Jwks::from_json(document) else { return };
    let json: serde_json::Value =
        serde_json::from_slice(document).expect("a document that is JSON");
    let members = json["keys"].as_array().expect("an array of keys");
    assert!(keys.len() <= MOST);
    assert!(keys.len() + keys.ignored().len() >= members.len().min(MOST), "{members:?}");
    for member in members.iter().take(MOST) {
        for alg in ["RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"] {
            let header = match member["kid"].as_str() {
                Some(kid) => serde_json::json!({ "alg": alg, "kid": kid }),
                None => serde_json::json!({ "alg": alg }),
            };
            let compact = format!("{}.e30.{}", base64url(header.to_string()), base64url([1; 64]));
            match keys.verify(&compact) {
                Ok(_) => panic!("an invalid signature is accepted: {compact}"),
                Err(
                    InvalidToken::BadSignature
                    | InvalidToken::UnknownKey { .. }
                    | InvalidToken::UnsupportedAlgorithm { .. }
                    | InvalidToken::Malformed(_),
                ) => {}
                Err(other) => panic!("{other:?}: {compact}"),
            }
        }
    }
});
