//! RFC 7518 §3: a private key that signs with one algorithm.

use jsonwebtoken::EncodingKey;

use super::pem::PrivateKey;
use super::signature::{PROVIDER, provided};
use crate::algorithm::Algorithm;

/// A private key, prepared for one algorithm.
pub(crate) struct Signer {
    algorithm: Algorithm,
    provided: jsonwebtoken::Algorithm,
    key: EncodingKey,
}

impl Signer {
    /// Returns `None` if the key cannot sign with `algorithm`.
    pub(crate) fn new(key: &PrivateKey, algorithm: Algorithm) -> Option<Self> {
        let key = match key {
            PrivateKey::Rsa(der) if algorithm.is_rsa() => EncodingKey::from_rsa_der(der),
            PrivateKey::Ec(der) => EncodingKey::from_ec_der(der),
            PrivateKey::Ed25519(der) => EncodingKey::from_ed_der(der),
            PrivateKey::Rsa(_) => return None,
        };
        let signer = Self { algorithm, provided: provided(algorithm)?, key };
        // The key is parsed for each signature, so that is tried here.
        signer.sign(b"").map(|_| signer)
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.key.as_bytes() == other.key.as_bytes()
    }

    /// Returns the signature, or `None` if the backend fails.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        (PROVIDER.signer_factory)(&self.provided, &self.key).ok()?.try_sign(message).ok()
    }
}
