//! Key sets: each member is kept or reported as it would be without the others, a key that is kept
//! is tried, a known key verifies its signature among any others, and no public key is the secret
//! of an HMAC.

#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair,
    RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis::{IgnoredKeyReason, InvalidToken, Jwks};
use portcullis_fuzz::{MAX_JWS, base64url, signed_with};
use serde_json::{Map, Value, json};

const MOST: usize = 500;
const KNOWN: &str = "known";
/// Each member is also read alone, if they are not more.
const MOST_COMPARED: usize = 32;

/// Algorithms, and signatures that have the right length and are invalid. Those of RSA are for keys
/// of 2048 bits.
static INVALID: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let lengths = [
        ("RS256", 256),
        ("PS256", 256),
        ("ES256", 64),
        ("ES384", 96),
        ("ES512", 132),
        ("EdDSA", 64),
        ("ML-DSA-44", 2420),
        ("ML-DSA-65", 3309),
        ("ML-DSA-87", 4627),
        ("HS256", 32),
    ];
    lengths.map(|(alg, length)| (alg, base64url(vec![1; length]))).to_vec()
});

/// A key, what it has signed, and the signature.
struct Known {
    jwk: Value,
    input: String,
    signature: Vec<u8>,
}

impl Known {
    fn new(alg: &str, mut jwk: Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        jwk["kid"] = KNOWN.into();
        let header = json!({ "alg": alg, "kid": KNOWN }).to_string();
        let input = format!("{}.e30", base64url(header));
        let signature = sign(input.as_bytes());
        Self { jwk, input, signature }
    }

    fn rsa(alg: &str, key: &RsaKeyPair, encoding: &'static dyn RsaEncoding) -> Self {
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
        let (n, e) = (base64url(public.n), base64url(public.e));
        Self::new(alg, json!({ "kty": "RSA", "n": n, "e": e, "alg": alg }), |input| {
            let mut signature = vec![0; key.public_modulus_len()];
            let signed = key.sign(encoding, &SystemRandom::new(), input, &mut signature);
            signed.expect("a signature");
            signature
        })
    }

    fn ec(alg: &str, crv: &str, curve: &'static EcdsaSigningAlgorithm) -> Self {
        let key = EcdsaKeyPair::generate(curve).expect("a key");
        let point = &key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let (x, y) = (base64url(x), base64url(y));
        Self::new(alg, json!({ "kty": "EC", "crv": crv, "x": x, "y": y }), |input| {
            let signature = key.sign(&SystemRandom::new(), input).expect("a signature");
            signature.as_ref().to_vec()
        })
    }

    fn ed25519() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
        let x = base64url(key.public_key().as_ref());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        Self::new("EdDSA", jwk, |input| key.sign(input).as_ref().to_vec())
    }

    fn ml_dsa_44() -> Self {
        let algorithm = &signature::ML_DSA_44_SIGNING;
        let key = PqdsaKeyPair::from_seed(algorithm, &[7; 32]).expect("a key");
        let public = base64url(key.public_key().as_ref());
        let jwk = json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": public });
        Self::new("ML-DSA-44", jwk, |input| {
            let mut signature = vec![0; algorithm.signature_len()];
            key.sign(input, &mut signature).expect("a signature");
            signature
        })
    }

    fn token(&self, signature: &[u8]) -> String {
        format!("{}.{}", self.input, base64url(signature))
    }
}

static ALL_KNOWN: LazyLock<[Known; 7]> = LazyLock::new(|| {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    [
        Known::ed25519(),
        Known::rsa("RS256", &rsa, &signature::RSA_PKCS1_SHA256),
        Known::rsa("PS256", &rsa, &signature::RSA_PSS_SHA256),
        Known::ec("ES256", "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Known::ec("ES384", "P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        Known::ec("ES512", "P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        Known::ml_dsa_44(),
    ]
});

// A document. A digit before it chooses the known key: without one, it is that of Ed25519. The keys
// are generated before the time of the first input counts.
fuzz_target!(init: { LazyLock::force(&ALL_KNOWN); }, |input: &[u8]| {
    let (number, document) = match input {
        [digit @ b'0'..=b'9', document @ ..] => (usize::from(digit - b'0'), document),
        _ => (0, input),
    };
    let known = &ALL_KNOWN[number % ALL_KNOWN.len()];
    let found = Jwks::from_json(document);
    let Ok(json) = serde_json::from_slice::<Value>(document) else {
        assert!(found.is_err());
        return;
    };
    if let Some(members) = json["keys"].as_array() {
        has_known_key(known, document.len(), &json, members);
    }
    let Ok(keys) = found else { return };
    let members = json["keys"].as_array().expect("an array of keys");
    assert!(!keys.is_empty() && keys.len() <= MOST);
    let (read, left) = (members.len().min(MOST), usize::from(members.len() > MOST));
    assert_eq!(keys.len() + keys.ignored().len(), read + left, "{members:?}");
    let last = keys.ignored().last();
    assert!(left == 0 || matches!(last, Some(IgnoredKeyReason::TooMany)), "{last:?}");
    if members.len() <= MOST_COMPARED {
        is_each_kept_or_reported(&keys, members);
    }

    // Each key without a name is tried with each token without one, so that trying all names of 500
    // keys takes seconds.
    let kids: BTreeSet<_> = members.iter().take(32).map(|member| member["kid"].as_str()).collect();
    for kid in kids {
        for (alg, signature) in &*INVALID {
            is_rejected(&keys, alg, kid, signature);
        }
    }
    // What is public about a key, as the secret of an HMAC.
    for member in members.iter().take(16) {
        let mut secrets = vec![member.to_string().into_bytes()];
        for text in ["k", "n", "x", "pub"].iter().filter_map(|name| member[name].as_str()) {
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

/// Verifies an invalid signature, and returns whether a key was tried.
fn is_rejected(keys: &Jwks, alg: &str, kid: Option<&str>, signature: &str) -> bool {
    let header = match kid {
        Some(kid) => json!({ "alg": alg, "kid": kid }).to_string(),
        None => json!({ "alg": alg }).to_string(),
    };
    let compact = format!("{}.e30.{signature}", base64url(header));
    match keys.verify(&compact) {
        Ok(_) => panic!("an invalid signature: {compact}"),
        Err(InvalidToken::BadSignature) => true,
        Err(InvalidToken::UnknownKey { .. }) => false,
        // A name that is too long. A key does not have it.
        Err(InvalidToken::Malformed(_)) if kid.is_some_and(|kid| kid.len() > 512) => false,
        // The header repeats the `kid` of the member.
        Err(InvalidToken::TooLarge { .. }) if compact.len() > MAX_JWS => false,
        Err(other) => panic!("{other:?}: {compact}"),
    }
}

/// Members that are read alone are kept, or reported with the same reasons in the same order. A
/// key that is kept may be used to verify, and is tried for a token of its name and algorithm.
fn is_each_kept_or_reported(keys: &Jwks, members: &[Value]) {
    let mut reasons = Vec::new();
    for member in members {
        let json = json!({ "keys": [member, ALL_KNOWN[0].jwk] }).to_string();
        let alone = Jwks::from_json(json).expect("a set with a usable key");
        if let [reason] = alone.ignored() {
            reasons.push(*reason);
            continue;
        }
        assert_eq!((alone.len(), alone.ignored()), (2, &[][..]), "{member}");
        let member = member.as_object().expect("a key that is an object");
        assert!(is_usable(member), "{member:?}");
        let alg = algorithm(member);
        // Signatures of RS384 are as long as those of RS256.
        let mut signatures = INVALID.iter().filter(|(name, _)| *name == alg);
        let signature = signatures.next().map_or(&INVALID[0].1, |(_, signature)| signature);
        let kid = member.get("kid").and_then(Value::as_str);
        assert!(is_rejected(keys, alg, kid, signature), "a key that is not tried: {member:?}");
    }
    assert_eq!(keys.ignored(), reasons, "{members:?}");
}

/// Whether a key is public and may be used to verify (RFC 7517 §4.2, §4.3).
fn is_usable(member: &Map<String, Value>) -> bool {
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];
    let operations = member.get("key_ops").map(Value::as_array);
    !private.iter().any(|name| member.contains_key(*name))
        && member.get("use").is_none_or(|used| used == "sig")
        && operations.is_none_or(|all| all.is_some_and(|all| all.contains(&json!("verify"))))
}

/// The one algorithm of a key that is kept.
fn algorithm(member: &Map<String, Value>) -> &str {
    let text = |name| member.get(name).and_then(Value::as_str);
    let of_curve = match (text("kty"), text("crv")) {
        (Some("RSA" | "AKP"), _) => return text("alg").unwrap_or("RS256"),
        (Some("EC"), Some("P-256")) => "ES256",
        (Some("EC"), Some("P-384")) => "ES384",
        (Some("EC"), Some("P-521")) => "ES512",
        (Some("OKP"), Some("Ed25519")) => "EdDSA",
        other => panic!("a key that is kept: {other:?}"),
    };
    // The name of RFC 9864.
    assert!(
        text("alg").is_none_or(|alg| alg == of_curve || alg == "Ed25519" && of_curve == "EdDSA")
    );
    of_curve
}

/// The known key verifies its signature in any set that has room for it and no other of its name.
/// A bit that depends on `salt` is flipped.
fn has_known_key(known: &Known, salt: usize, json: &Value, members: &[Value]) {
    if members.iter().any(|member| member["kid"] == KNOWN) {
        return;
    }
    let mut members = members.to_vec();
    members.insert(members.len().min(MOST - 1), known.jwk.clone());
    let mut json = json.clone();
    json["keys"] = members.into();
    let keys = Jwks::from_json(json.to_string()).expect("a set with a usable key");
    assert!(keys.verify(&known.token(&known.signature)).is_ok(), "{json}");
    let mut flipped = known.signature.clone();
    let at = salt % flipped.len();
    flipped[at] ^= 1 << (salt % 8);
    for forged in [flipped, vec![1; known.signature.len()]] {
        let found = keys.verify(&known.token(&forged));
        assert!(matches!(found, Err(InvalidToken::BadSignature)), "{found:?} {json}");
    }
}
