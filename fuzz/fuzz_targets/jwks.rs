//! Key sets: each member is kept or reported, a key that is kept is usable, a known key verifies
//! its signature among any others, and no public key is the secret of an HMAC.

#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis::{InvalidToken, Jwks};
use portcullis_fuzz::{MAX_JWS, base64url, signed_with};
use serde_json::{Value, json};

const MOST: usize = 500;
const KNOWN: &str = "known";

/// A key, and what it has signed.
static SIGNED: LazyLock<(Value, String)> = LazyLock::new(|| {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let x = base64url(key.public_key().as_ref());
    let header = json!({ "alg": "EdDSA", "kid": KNOWN }).to_string();
    let input = format!("{}.e30", base64url(header));
    let token = format!("{input}.{}", base64url(key.sign(input.as_bytes())));
    (json!({ "kty": "OKP", "crv": "Ed25519", "kid": KNOWN, "x": x }), token)
});

fuzz_target!(|document: &[u8]| {
    let found = Jwks::from_json(document);
    let Ok(json) = serde_json::from_slice::<Value>(document) else {
        assert!(found.is_err());
        return;
    };
    if let Some(members) = json["keys"].as_array() {
        has_known_key(&json, members);
    }
    let Ok(keys) = found else { return };
    let members = json["keys"].as_array().expect("an array of keys");
    assert!(keys.len() <= MOST);
    assert!(keys.len() + keys.ignored().len() >= members.len().min(MOST), "{members:?}");
    // Each key without a name is tried with each token without one, so that trying all names of 500
    // keys takes seconds.
    let kids: BTreeSet<_> = members.iter().take(32).map(|member| member["kid"].as_str()).collect();
    for kid in kids {
        let header = |alg| match kid {
            Some(kid) => json!({ "alg": alg, "kid": kid }).to_string(),
            None => json!({ "alg": alg }).to_string(),
        };
        for alg in ["RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"] {
            let compact = format!("{}.e30.{}", base64url(header(alg)), base64url([1; 64]));
            match keys.verify(&compact) {
                Ok(_) => panic!("an invalid signature: {compact}"),
                Err(
                    InvalidToken::BadSignature
                    | InvalidToken::UnknownKey { .. }
                    | InvalidToken::UnsupportedAlgorithm { .. }
                    | InvalidToken::Malformed(_),
                ) => {}
                // The header repeats the `kid` of the member.
                Err(InvalidToken::TooLarge { .. }) if compact.len() > MAX_JWS => {}
                Err(other) => panic!("{other:?}: {compact}"),
            }
        }
    }
    // What is public about a key, as the secret of an HMAC.
    for member in members.iter().take(16) {
        let mut secrets = vec![member.to_string().into_bytes()];
        for text in ["k", "n", "x"].iter().filter_map(|name| member[name].as_str()) {
            secrets.push(text.as_bytes().to_vec());
            secrets.extend(URL_SAFE_NO_PAD.decode(text));
        }
        for header in [json!({ "alg": "HS256", "kid": member["kid"] }), json!({ "alg": "HS256" })] {
            for secret in &secrets {
                let token = signed_with(secret, header.to_string().as_bytes(), b"{}");
                assert!(keys.verify(&token).is_err(), "{token}");
            }
        }
    }
});

/// The known key verifies its signature in any set that has room for it and no other of its name.
fn has_known_key(json: &Value, members: &[Value]) {
    if members.iter().any(|member| member["kid"] == KNOWN) {
        return;
    }
    let (key, token) = &*SIGNED;
    let mut members = members.to_vec();
    members.insert(members.len().min(MOST - 1), key.clone());
    let mut json = json.clone();
    json["keys"] = members.into();
    let keys = Jwks::from_json(json.to_string()).expect("a set with a usable key");
    assert!(keys.verify(token).is_ok(), "{json}");
    let (input, _) = token.rsplit_once('.').expect("three parts");
    let forged = format!("{input}.{}", base64url([1; 64]));
    assert!(matches!(keys.verify(&forged), Err(InvalidToken::BadSignature)), "{json}");
}
