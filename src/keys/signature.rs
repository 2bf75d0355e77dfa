//! RFC 7518 §3, RFC 9964: one public key, or one secret, prepared for one algorithm.
//!
//! No process-wide crypto provider is used. `jsonwebtoken` has one, which panics at the first token
//! if feature unification leaves it with none or two. This module names the provider of its backend
//! instead, or calls aws-lc-rs with a key that was parsed once (1.17 times faster for RSA than
//! building the key for each signature).

use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::CryptoProvider;

use crate::algorithm::Algorithm;
#[cfg(feature = "aws-lc-rs")]
use crate::crypto;
use crate::error::IgnoredKeyReason;

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::{
    digest,
    signature::{self as aws, ParsedPublicKey, RsaPublicKeyComponents},
};
#[cfg(feature = "aws-lc-rs")]
use jsonwebtoken::crypto::aws_lc as provider;
#[cfg(not(feature = "aws-lc-rs"))]
use jsonwebtoken::crypto::rust_crypto as provider;

/// The `jsonwebtoken` provider of this build's backend.
pub(crate) const PROVIDER: &CryptoProvider = &provider::DEFAULT_PROVIDER;

/// A public key as numbers of the right length, not yet bound to an algorithm.
#[derive(Clone, Debug)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point: `04 ‖ x ‖ y`.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519([u8; 32]),
    /// An ML-DSA key (FIPS 204 §7.2) has the length of its parameter set.
    MlDsa {
        parameters: MlDsa,
        key: Vec<u8>,
    },
}

/// Curves of EC keys (RFC 7518 §6.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

/// Parameter sets of ML-DSA (FIPS 204 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MlDsa {
    MlDsa44,
    MlDsa65,
    MlDsa87,
}

impl MlDsa {
    /// The parameter set of an algorithm (RFC 9964 §5).
    pub(crate) fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::MlDsa44 => Some(Self::MlDsa44),
            Algorithm::MlDsa65 => Some(Self::MlDsa65),
            Algorithm::MlDsa87 => Some(Self::MlDsa87),
            _ => None,
        }
    }

    /// The only algorithm of a key with these parameters.
    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Self::MlDsa44 => Algorithm::MlDsa44,
            Self::MlDsa65 => Algorithm::MlDsa65,
            Self::MlDsa87 => Algorithm::MlDsa87,
        }
    }

    /// The length of a public key, in bytes (FIPS 204 §4, table 2).
    pub(crate) fn public_key_bytes(self) -> usize {
        match self {
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }
}

/// The points of Curve25519 whose order divides 8, as Ed25519 encodes them, without the sign bit:
/// the neutral element, the points of order 2, 4 and 8, and their encodings that are not reduced,
/// which some decoders accept.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    small(1, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    small(0xec, 0xff, 0x7f),
    small(0xed, 0xff, 0x7f),
    small(0xee, 0xff, 0x7f),
];

/// 32 bytes: `first`, then 30 times `between`, then `last`.
const fn small(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// Bits of a coefficient in an ML-DSA public key (FIPS 204 §7.2).
const COEFFICIENT_BITS: usize = 10;

/// Different coefficients that an ML-DSA public key must have.
const FEWEST_COEFFICIENTS: usize = 256;

impl PublicKey {
    /// Whether this is an Ed25519 point of small order, for which anyone can sign.
    fn is_of_small_order(&self) -> bool {
        let Self::Ed25519(point) = self else { return false };
        let mut without_sign = *point;
        if let Some(last) = without_sign.last_mut() {
            *last &= 0x7f;
        }
        SMALL_ORDER.contains(&without_sign)
    }

    /// Whether this is an ML-DSA key whose `t1` (FIPS 204 §5.3) has few different coefficients, as
    /// that of a placeholder. If they are all close to zero, anyone can sign. A key that was
    /// generated has more than 600 different ones.
    fn is_degenerate(&self) -> bool {
        let Self::MlDsa { key, .. } = self else { return false };
        let mut seen = [false; 1 << COEFFICIENT_BITS];
        // After 32 bytes of seed, four coefficients are in five bytes, from the lowest bit on.
        for five in key.get(32..).unwrap_or_default().chunks_exact(5) {
            let bits = five.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            for number in 0..4 {
                let coefficient =
                    bits >> (number * COEFFICIENT_BITS) & ((1 << COEFFICIENT_BITS) - 1);
                let seen = usize::try_from(coefficient).ok().and_then(|at| seen.get_mut(at));
                seen.into_iter().for_each(|seen| *seen = true);
            }
        }
        seen.iter().filter(|seen| **seen).count() < FEWEST_COEFFICIENTS
    }

    /// Whether a verification with this key takes much longer than usual.
    pub(crate) fn is_large(&self) -> bool {
        matches!(self, Self::Rsa { n, .. } if n.len() > 4096 / 8)
    }

    /// Whether keys of this type can be used with `algorithm`.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => algorithm.is_rsa(),
            Self::Ec { curve: Curve::P256, .. } => algorithm == Algorithm::ES256,
            Self::Ec { curve: Curve::P384, .. } => algorithm == Algorithm::ES384,
            Self::Ec { curve: Curve::P521, .. } => algorithm == Algorithm::ES512,
            Self::Ed25519(_) => algorithm == Algorithm::EdDSA,
            Self::MlDsa { parameters, .. } => algorithm == parameters.algorithm(),
        }
    }
}

/// Verifies signatures with one key and one algorithm.
pub(crate) struct SignatureVerifier(Prepared);

enum Prepared {
    /// If the algorithm signs a hash of the message, the hash is computed here: the library would
    /// first set up an incremental hash. ML-DSA signs the message itself (RFC 9964 §5). A FIPS
    /// module also takes the message: FIPS 140-3 approves no verification of a hash that was
    /// computed apart.
    #[cfg(feature = "aws-lc-rs")]
    Parsed { key: ParsedPublicKey, digest: Option<&'static digest::Algorithm> },
    /// `jsonwebtoken`'s verifiers are not `Sync`, so each verification creates one.
    Provided { algorithm: jsonwebtoken::Algorithm, key: DecodingKey },
}

impl SignatureVerifier {
    /// Prepares a public key. Returns an error if it is not valid, for example if its point is not
    /// on the curve.
    pub(crate) fn public(key: &PublicKey, algorithm: Algorithm) -> Result<Self, IgnoredKeyReason> {
        if !key.fits(algorithm) {
            return Err(IgnoredKeyReason::UnsupportedAlgorithm);
        }
        if key.is_of_small_order() {
            return Err(IgnoredKeyReason::SmallOrder);
        }
        if key.is_degenerate() {
            return Err(IgnoredKeyReason::Degenerate);
        }
        prepare(key, algorithm).map(Self)
    }

    /// Prepares an HMAC secret. Returns `None` if `algorithm` is not an HMAC algorithm.
    pub(crate) fn secret(secret: &[u8], algorithm: Algorithm) -> Option<Self> {
        algorithm.secret_bytes()?;
        let algorithm = provided(algorithm)?;
        Some(Self(Prepared::Provided { algorithm, key: DecodingKey::from_secret(secret) }))
    }

    /// Whether `signature` is the signature of this key over `message`. ECDSA signatures are
    /// `r ‖ s`, with exactly the length of the curve (RFC 7518 §3.4).
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            #[cfg(feature = "aws-lc-rs")]
            Prepared::Parsed { key, digest: Some(digest) } => {
                key.verify_digest_sig(&digest::digest(digest, message), signature).is_ok()
            }
            #[cfg(feature = "aws-lc-rs")]
            Prepared::Parsed { key, digest: None } => key.verify_sig(message, signature).is_ok(),
            Prepared::Provided { algorithm, key } => (PROVIDER.verifier_factory)(algorithm, key)
                .is_ok_and(|verifier| verifier.verify(message, &signature.to_vec()).is_ok()),
        }
    }
}

#[cfg(feature = "aws-lc-rs")]
fn prepare(key: &PublicKey, algorithm: Algorithm) -> Result<Prepared, IgnoredKeyReason> {
    use Algorithm::{ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512};
    let is_fips = crypto::is_fips();
    let parsed = match key {
        PublicKey::Rsa { n, e } if is_fips && !is_rsa_of_fips(n, e) => {
            return Err(IgnoredKeyReason::NotInThisBackend);
        }
        PublicKey::Rsa { n, e } => {
            let parameters = match algorithm {
                RS256 => &aws::RSA_PKCS1_2048_8192_SHA256,
                RS384 => &aws::RSA_PKCS1_2048_8192_SHA384,
                RS512 => &aws::RSA_PKCS1_2048_8192_SHA512,
                PS256 => &aws::RSA_PSS_2048_8192_SHA256,
                PS384 => &aws::RSA_PSS_2048_8192_SHA384,
                PS512 => &aws::RSA_PSS_2048_8192_SHA512,
                _ => return Err(IgnoredKeyReason::UnsupportedAlgorithm),
            };
            RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters)
        }
        PublicKey::Ec { point, .. } => match algorithm {
            ES256 => ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point),
            ES384 => ParsedPublicKey::new(&aws::ECDSA_P384_SHA384_FIXED, point),
            ES512 => ParsedPublicKey::new(&aws::ECDSA_P521_SHA512_FIXED, point),
            _ => return Err(IgnoredKeyReason::UnsupportedAlgorithm),
        },
        PublicKey::Ed25519(key) => ParsedPublicKey::new(&aws::ED25519, key),
        PublicKey::MlDsa { parameters, key } => {
            let parameters = match parameters {
                MlDsa::MlDsa44 => &aws::ML_DSA_44,
                MlDsa::MlDsa65 => &aws::ML_DSA_65,
                MlDsa::MlDsa87 => &aws::ML_DSA_87,
            };
            ParsedPublicKey::new(parameters, key)
        }
    };
    let digest = match algorithm {
        _ if is_fips => None,
        RS256 | PS256 | ES256 => Some(&digest::SHA256),
        RS384 | PS384 | ES384 => Some(&digest::SHA384),
        RS512 | PS512 | ES512 => Some(&digest::SHA512),
        _ => None,
    };
    parsed.map(|key| Prepared::Parsed { key, digest }).map_err(|_| IgnoredKeyReason::Malformed)
}

/// Whether FIPS 186-5 allows an RSA key of at least 2048 bits: its number of bits is even (§5.1),
/// and its exponent is greater than 2^16 (§A.1.1), so at least 65537. Both numbers are without
/// leading zeros, and the exponent is odd.
#[cfg(feature = "aws-lc-rs")]
fn is_rsa_of_fips(n: &[u8], e: &[u8]) -> bool {
    n.first().is_some_and(|first| first.leading_zeros() % 2 == 0) && e.len() > 2
}

#[cfg(not(feature = "aws-lc-rs"))]
fn prepare(key: &PublicKey, algorithm: Algorithm) -> Result<Prepared, IgnoredKeyReason> {
    /// The limit of the `rsa` crate.
    const MAX_RSA_BYTES: usize = 4096 / 8;
    let key = match key {
        PublicKey::Rsa { n, .. } if n.len() > MAX_RSA_BYTES => {
            return Err(IgnoredKeyReason::NotInThisBackend);
        }
        PublicKey::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
        PublicKey::Ec { point, .. } => DecodingKey::from_ec_der(point),
        PublicKey::Ed25519(key) => DecodingKey::from_ed_der(key),
        PublicKey::MlDsa { .. } => return Err(IgnoredKeyReason::NotInThisBackend),
    };
    let algorithm = provided(algorithm).ok_or(IgnoredKeyReason::NotInThisBackend)?;
    match (PROVIDER.verifier_factory)(&algorithm, &key) {
        Ok(_) => Ok(Prepared::Provided { algorithm, key }),
        Err(_) => Err(IgnoredKeyReason::Malformed),
    }
}

/// Whether signatures of this algorithm can be verified with the cryptography backend.
pub(crate) fn is_supported(algorithm: Algorithm) -> bool {
    cfg!(feature = "aws-lc-rs") || provided(algorithm).is_some()
}

/// The same algorithm, as `jsonwebtoken` names it. Its providers support neither ES512 nor
/// ML-DSA.
pub(crate) fn provided(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    use jsonwebtoken::Algorithm as Provided;
    Some(match algorithm {
        Algorithm::RS256 => Provided::RS256,
        Algorithm::RS384 => Provided::RS384,
        Algorithm::RS512 => Provided::RS512,
        Algorithm::PS256 => Provided::PS256,
        Algorithm::PS384 => Provided::PS384,
        Algorithm::PS512 => Provided::PS512,
        Algorithm::ES256 => Provided::ES256,
        Algorithm::ES384 => Provided::ES384,
        Algorithm::ES512 | Algorithm::MlDsa44 | Algorithm::MlDsa65 | Algorithm::MlDsa87 => {
            return None;
        }
        Algorithm::EdDSA => Provided::EdDSA,
        Algorithm::HS256 => Provided::HS256,
        Algorithm::HS384 => Provided::HS384,
        Algorithm::HS512 => Provided::HS512,
    })
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests {
    use super::*;

    #[test]
    fn fips_allows_an_even_number_of_bits_and_exponents_from_65537_on() {
        struct Case {
            name: &'static str,
            first_byte: u8,
            e: &'static [u8],
            is_allowed: bool,
        }

        for Case { name, first_byte, e, is_allowed } in [
            Case { name: "2048 bits", first_byte: 0x80, e: &[1, 0, 1], is_allowed: true },
            Case { name: "2047 bits", first_byte: 0x7f, e: &[1, 0, 1], is_allowed: false },
            Case { name: "2046 bits", first_byte: 0x3f, e: &[1, 0, 1], is_allowed: true },
            Case { name: "exponent 3", first_byte: 0x80, e: &[3], is_allowed: false },
            Case { name: "exponent 65535", first_byte: 0x80, e: &[0xff; 2], is_allowed: false },
        ] {
            let mut n = [0xff; 256];
            n[0] = first_byte;
            assert_eq!(is_rsa_of_fips(&n, e), is_allowed, "{name}");
        }
    }
}
