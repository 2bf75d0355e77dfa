use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::signing_key::SigningKey;
use crate::algorithm::Algorithm;
use crate::crypto;

/// A client with a key of its own, which makes DPoP proofs (RFC 9449 §4.2).
///
/// ```
/// use portcullis::testing::{AUDIENCE, DpopClient, TestIssuer};
///
/// # fn main() -> std::io::Result<()> {
/// let (issuer, client) = (TestIssuer::start()?, DpopClient::new()?);
/// let token = issuer.token().bound_to(&client).build();
/// let proof = client.proof("GET", "https://api.example.com/orders", &token).build();
/// let request = http::Request::get("/orders")
///     .header("authorization", format!("DPoP {token}"))
///     .header("dpop", proof);
/// # Ok(())
/// # }
/// ```
pub struct DpopClient {
    key: SigningKey,
    jwk: Value,
    thumbprint: String,
}

impl DpopClient {
    /// Creates a client with an ES256 key.
    ///
    /// # Errors
    ///
    /// Returns an error if no key can be generated.
    pub fn new() -> io::Result<Self> {
        Self::with_algorithm(Algorithm::ES256)
    }

    /// Creates a client with a key for this algorithm.
    ///
    /// # Errors
    ///
    /// Returns an error if no key can be generated for the algorithm, or if it is ML-DSA, which
    /// proofs are not signed with.
    pub fn with_algorithm(algorithm: Algorithm) -> io::Result<Self> {
        if algorithm.is_ml_dsa() {
            return Err(io::Error::other(format!("{algorithm} is not supported for proofs")));
        }
        let key = SigningKey::generate(algorithm)?;
        let no_key = || io::Error::other("the cryptography backend has no public key");
        let jwk = key.jwk("").ok_or_else(no_key)?;
        // In this order (RFC 7638 §3.2).
        let members: Map<_, _> = ["crv", "e", "kty", "n", "x", "y"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), jwk.get(name)?.clone())))
            .collect();
        let jwk = Value::Object(members);
        let thumbprint = URL_SAFE_NO_PAD.encode(crypto::sha256(jwk.to_string().as_bytes()));
        Ok(Self { key, jwk, thumbprint })
    }

    /// The thumbprint of the client's key (RFC 7638), to which tokens are bound in `cnf.jkt`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Makes a proof for a request with this method, URL and access token. It is valid unless a
    /// method of the builder makes it invalid.
    pub fn proof(&self, method: &str, url: &str, token: &str) -> ProofBuilder<'_> {
        let random = crypto::random::<16>().unwrap_or_default();
        let hash = |text: &str| URL_SAFE_NO_PAD.encode(crypto::sha256(text.as_bytes()));
        let claims = json!({
            "jti": URL_SAFE_NO_PAD.encode(random),
            "htm": method,
            "htu": url,
            "ath": hash(token),
        });
        let header = json!({
            "typ": "dpop+jwt",
            "alg": self.key.algorithm().name(),
            "jwk": self.jwk,
        });
        let proof = ProofBuilder { client: self, header, claims, is_tampered: false };
        proof.at(SystemTime::now())
    }
}

/// The order of the group of P-256 (SEC 2, §2.4.2).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

impl DpopClient {
    /// Returns an ES256 proof with the other signature that ECDSA has for it, `n - s` in place of
    /// `s`, which anyone can compute: the same proof, so it must count as used. `None` if the proof
    /// is not signed with ES256.
    pub fn with_other_signature(proof: &str) -> Option<String> {
        let (signed, signature) = proof.rsplit_once('.')?;
        let mut signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let s = signature.get_mut(32..64)?;
        let mut borrowed = false;
        for (digit, order) in s.iter_mut().zip(P256_ORDER).rev() {
            let (difference, under) = order.overflowing_sub(*digit);
            let (difference, under_again) = difference.overflowing_sub(borrowed.into());
            *digit = difference;
            borrowed = under || under_again;
        }
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl std::fmt::Debug for DpopClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DpopClient")
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

/// A builder for a proof, from [`DpopClient::proof`].
#[derive(Clone)]
#[must_use]
pub struct ProofBuilder<'a> {
    client: &'a DpopClient,
    header: Value,
    claims: Value,
    is_tampered: bool,
}

impl ProofBuilder<'_> {
    /// Sets when the proof was made (`iat`).
    pub fn at(self, time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.claim("iat", seconds)
    }

    /// Sets the nonce of the server (RFC 9449 §9).
    pub fn nonce(self, nonce: &str) -> Self {
        self.claim("nonce", nonce)
    }

    /// Sets any claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Some(claims) = self.claims.as_object_mut() {
            claims.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Removes a claim.
    pub fn without_claim(mut self, name: &str) -> Self {
        if let Some(claims) = self.claims.as_object_mut() {
            claims.remove(name);
        }
        self
    }

    /// The public key in the header (RFC 7517).
    pub fn key(&self) -> &Value {
        &self.client.jwk
    }

    /// Sets any member of the header.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Some(header) = self.header.as_object_mut() {
            header.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Removes a member of the header.
    pub fn without_header(mut self, name: &str) -> Self {
        if let Some(header) = self.header.as_object_mut() {
            header.remove(name);
        }
        self
    }

    /// Changes one bit of the signature.
    pub fn tampered_signature(mut self) -> Self {
        self.is_tampered = true;
        self
    }

    /// Returns the proof in its compact serialization.
    pub fn build(self) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&self.header), part(&self.claims));
        let mut signature = self.client.key.sign(signed.as_bytes());
        if self.is_tampered
            && let Some(byte) = signature.first_mut()
        {
            *byte ^= 1;
        }
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl std::fmt::Debug for ProofBuilder<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ProofBuilder")
            .field("header", &self.header)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}
