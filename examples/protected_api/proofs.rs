//! Proofs at the token endpoint of the demo's issuer (DPoP, RFC 9449 §5). Tokens that are requested
//! with a proof are bound to its key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::Jwks;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The algorithms of proofs. Keys on these curves are small, and each has one text only, so that it
/// has one thumbprint.
pub(crate) const ALGORITHMS: [&str; 3] = ["ES256", "ES384", "EdDSA"];

/// How far `iat` may be from the issuer's clock, in seconds.
const WINDOW: u64 = 60;
const MAX_BYTES: usize = 4 * 1024;
const MAX_JTI: usize = 256;
/// How many proofs are remembered. More are rejected: to forget one would allow its second use.
const MAX_KEPT: usize = 1_000;

/// The proofs that were used, each with the last second in which it would be accepted again.
#[derive(Default)]
pub(crate) struct Proofs(Mutex<HashMap<[u8; 32], u64>>);

impl Proofs {
    /// Returns the thumbprint (RFC 7638) of the key that signed the proof of a POST to `url`, or
    /// `None` if the request has no proof. A proof is accepted once.
    ///
    /// # Errors
    ///
    /// Returns an error if the proof is invalid, with a description.
    pub(crate) fn key_of(
        &self,
        headers: &HeaderMap,
        url: &str,
        now: SystemTime,
    ) -> Result<Option<String>, &'static str> {
        let mut proofs = headers.get_all("dpop").iter();
        let Some(proof) = proofs.next() else { return Ok(None) };
        if proofs.next().is_some() {
            return Err("DPoP: expected one header");
        }
        let proof = proof.to_str().ok().filter(|proof| proof.len() <= MAX_BYTES);
        let proof = proof.ok_or("DPoP: expected at most 4096 bytes of ASCII")?;
        let (key, claims) = verify(proof)?;
        check(&claims, url)?;
        let jti = claims["jti"].as_str().filter(|jti| (1..=MAX_JTI).contains(&jti.len()));
        let jti = jti.ok_or("jti: expected 1 to 256 bytes")?;
        let issued = claims["iat"].as_f64().ok_or("iat: expected a number of seconds")?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let jkt = thumbprint(&key);
        self.use_once(&format!("{jkt} {jti}"), issued as u64, now)?;
        Ok(Some(jkt))
    }

    /// Checks the time of a proof, and remembers the proof until its time has passed.
    fn use_once(&self, name: &str, issued: u64, now: u64) -> Result<(), &'static str> {
        if issued.abs_diff(now) > WINDOW {
            return Err("iat: expected at most 60 seconds from the clock of the issuer");
        }
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, last| *last >= now);
        let name = Sha256::digest(name).into();
        if used.contains_key(&name) {
            return Err("jti: expected a new proof, found one that was used before");
        }
        if used.len() >= MAX_KEPT {
            return Err("DPoP: expected fewer proofs; try again in two minutes");
        }
        used.insert(name, issued + WINDOW);
        Ok(())
    }
}

/// Verifies the signature with the key in the header (RFC 9449 §4.3), and returns that key and the
/// claims.
fn verify(proof: &str) -> Result<(Map<String, Value>, Value), &'static str> {
    const NOT_A_JWT: &str = "DPoP: expected a signed JWT";
    let header = proof.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header: Value =
        header.and_then(|header| serde_json::from_slice(&header).ok()).ok_or(NOT_A_JWT)?;
    if !header["typ"].as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("dpop+jwt")) {
        return Err("typ: expected dpop+jwt");
    }
    if !ALGORITHMS.iter().any(|name| header["alg"] == *name) {
        return Err("alg: expected ES256, ES384 or EdDSA");
    }
    let jwk = header["jwk"].as_object().ok_or("jwk: expected a public key")?;
    if jwk.contains_key("d") {
        return Err("jwk: expected a public key, found a private one");
    }
    // Only what every key of its type has, in the order of RFC 7638 §3.2.
    let members = ["crv", "kty", "x", "y"].into_iter();
    let members = members.filter_map(|name| Some((name.to_owned(), jwk.get(name)?.clone())));
    let key: Map<String, Value> = members.collect();
    let mut named = key.clone();
    if let Some(kid) = header.get("kid") {
        named.insert("kid".to_owned(), kid.clone());
    }
    let keys = Jwks::from_json(json!({ "keys": [named] }).to_string());
    let keys = keys.map_err(|_| "jwk: expected a public key on P-256, P-384 or Ed25519")?;
    let signed = keys.verify(proof).map_err(|_| "DPoP: the signature is not that of the key")?;
    let claims = serde_json::from_slice(&signed.payload).map_err(|_| NOT_A_JWT)?;
    Ok((key, claims))
}

/// Checks that the proof is for a POST to `url`, whose query and fragment do not count.
fn check(claims: &Value, url: &str) -> Result<(), &'static str> {
    if claims["htm"] != "POST" {
        return Err("htm: expected POST");
    }
    let named = claims["htu"].as_str().and_then(|htu| reqwest::Url::parse(htu).ok());
    let is_target = named.is_some_and(|mut named| {
        named.set_query(None);
        named.set_fragment(None);
        named.as_str() == url
    });
    if is_target { Ok(()) } else { Err("htu: expected the URL of the token endpoint") }
}

/// RFC 7638 §3: `key` has the required members only, and their names are in order.
fn thumbprint(key: &Map<String, Value>) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(json!(key).to_string()))
}
