//! Signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864, RFC 9964 §5).

use std::fmt;
use std::str::FromStr;

use crate::error::ConfigError;

/// A signature algorithm, named as in JOSE (RFC 7518 §3.1). There is no variant for `none`.
///
/// ```
/// use portcullis::Algorithm;
///
/// assert_eq!("RS256".parse::<Algorithm>()?, Algorithm::RS256);
/// assert_eq!("Ed25519".parse::<Algorithm>()?, Algorithm::EdDSA);
/// assert_eq!(Algorithm::MlDsa65.to_string(), "ML-DSA-65");
/// assert!("none".parse::<Algorithm>().is_err());
/// assert!("rs256".parse::<Algorithm>().is_err(), "names are case-sensitive (RFC 7515 §4.1.1)");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3).
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384 (RFC 7518 §3.3).
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512 (RFC 7518 §3.3).
    RS512,
    /// RSASSA-PSS with SHA-256 (RFC 7518 §3.5).
    PS256,
    /// RSASSA-PSS with SHA-384 (RFC 7518 §3.5).
    PS384,
    /// RSASSA-PSS with SHA-512 (RFC 7518 §3.5).
    PS512,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    ES256,
    /// ECDSA on P-384 with SHA-384 (RFC 7518 §3.4).
    ES384,
    /// ECDSA on P-521 with SHA-512 (RFC 7518 §3.4). Requires the feature `aws-lc-rs`.
    ES512,
    /// Ed25519, by its old name `EdDSA` (RFC 8037 §3.1) and its new name `Ed25519` (RFC 9864 §2.2).
    /// Ed448 is a different algorithm and not supported.
    EdDSA,
    /// ML-DSA-44 (RFC 9964 §5, FIPS 204), a post-quantum algorithm with signatures of 2420 bytes.
    /// An issuer may use it only if [`Issuer::algorithms`](crate::Issuer::algorithms) lists it.
    /// Requires the feature `aws-lc-rs`.
    MlDsa44,
    /// ML-DSA-65 (RFC 9964 §5, FIPS 204), with signatures of 3309 bytes. Otherwise as
    /// [`MlDsa44`](Self::MlDsa44).
    MlDsa65,
    /// ML-DSA-87 (RFC 9964 §5, FIPS 204), with signatures of 4627 bytes. Otherwise as
    /// [`MlDsa44`](Self::MlDsa44).
    MlDsa87,
    /// HMAC with SHA-256 (RFC 7518 §3.2). Only with a configured secret, never with a key from a
    /// key set.
    HS256,
    /// HMAC with SHA-384 (RFC 7518 §3.2). Only with a configured secret, never with a key from a
    /// key set.
    HS384,
    /// HMAC with SHA-512 (RFC 7518 §3.2). Only with a configured secret, never with a key from a
    /// key set.
    HS512,
}

impl Algorithm {
    /// The algorithms that an issuer may sign with, unless
    /// [`Issuer::algorithms`](crate::Issuer::algorithms) says otherwise. ML-DSA is not one of them:
    /// an application has to choose it, as its tokens can exceed the header limits of proxies.
    pub(crate) const ASYMMETRIC: [Self; 10] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "ES512" => Self::ES512,
            "EdDSA" | "Ed25519" => Self::EdDSA,
            "ML-DSA-44" => Self::MlDsa44,
            "ML-DSA-65" => Self::MlDsa65,
            "ML-DSA-87" => Self::MlDsa87,
            "HS256" => Self::HS256,
            "HS384" => Self::HS384,
            "HS512" => Self::HS512,
            _ => return None,
        })
    }

    /// The JOSE name (RFC 7518 §3.1, RFC 9964 §5). `EdDSA` for Ed25519.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
            Self::MlDsa44 => "ML-DSA-44",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }

    /// For HMAC, the minimum length of a secret in bytes: the size of the hash (RFC 7518 §3.2).
    pub(crate) fn secret_bytes(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            _ => None,
        }
    }

    pub(crate) fn is_ml_dsa(self) -> bool {
        matches!(self, Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87)
    }

    pub(crate) fn is_rsa(self) -> bool {
        matches!(
            self,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512
        )
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = ConfigError;

    /// Parses a JOSE name, which is case-sensitive (RFC 7515 §4.1.1).
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not the name of a supported algorithm.
    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::from_name(name).ok_or_else(|| {
            ConfigError::new(format!(
                "algorithm {name:?}: expected a JWS signature algorithm such as \"RS256\""
            ))
        })
    }
}
