//! Random numbers and hashes, by the cryptography backend of this build, and whether that is a FIPS
//! module.

use crate::error::ConfigError;

/// Whether a verifier requires cryptography in FIPS mode.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Fips {
    #[default]
    NotRequired,
    Required,
}

impl Fips {
    /// Returns an error if FIPS mode is required and the cryptography backend is not in it.
    pub(crate) fn check_backend(self) -> Result<(), ConfigError> {
        if self == Self::NotRequired || is_fips() {
            return Ok(());
        }
        Err(ConfigError::new(if cfg!(feature = "aws-lc-rs") {
            "require_fips: expected aws-lc-rs in FIPS mode, found its ordinary build; enable the feature `fips` of `rustls` 0.23 in the application's Cargo.toml"
        } else {
            "require_fips: expected aws-lc-rs in FIPS mode, found RustCrypto; enable the feature `aws-lc-rs` of portcullis"
        }))
    }

    /// Returns an error if FIPS mode is required and the TLS of the built-in HTTP client is not in
    /// it. That client uses the provider of the process, if the application installed one.
    #[cfg(feature = "aws-lc-rs")]
    pub(crate) fn check_tls(self) -> Result<(), ConfigError> {
        use rustls::crypto::{CryptoProvider, aws_lc_rs};
        let is_fips = || match CryptoProvider::get_default() {
            Some(provider) => provider.fips(),
            None => aws_lc_rs::default_provider().fips(),
        };
        if self == Self::NotRequired || is_fips() {
            return Ok(());
        }
        Err(ConfigError::new(
            "require_fips: expected a TLS provider in FIPS mode for the built-in HTTP client; enable the feature `fips` of `rustls` 0.23 in the application's Cargo.toml, and install no other provider",
        ))
    }

    #[cfg(not(feature = "aws-lc-rs"))]
    pub(crate) fn check_tls(self) -> Result<(), ConfigError> {
        self.check_backend()
    }
}

/// Whether the cryptography backend of this process is a FIPS module that passed its self-tests.
#[cfg(feature = "aws-lc-rs")]
pub(crate) fn is_fips() -> bool {
    aws_lc_rs::try_fips_mode().is_ok()
}

/// RustCrypto has no FIPS module.
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) fn is_fips() -> bool {
    false
}

/// Returns random bytes for secrets, or `None` if the system has none.
#[cfg(feature = "aws-lc-rs")]
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns random bytes for secrets, or `None` if the system has none.
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    use rand::RngCore as _;
    let mut bytes = [0; N];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).ok()?;
    Some(bytes)
}

/// SHA-256 (FIPS 180-4).
#[cfg(feature = "aws-lc-rs")]
pub(crate) fn sha256(message: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
    digest.as_ref().try_into().unwrap_or_default()
}

/// SHA-256 (FIPS 180-4).
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) fn sha256(message: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(message).into()
}

/// Whether two texts are equal, in a time that depends only on their lengths.
pub(crate) fn is_equal_text(one: &str, other: &str) -> bool {
    let pairs = one.bytes().zip(other.bytes());
    let differences = pairs.fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
pub(crate) fn is_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other));
    std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where two bytes differ by the same bits, their differences must not cancel out.
    #[test]
    fn texts_and_hashes_are_equal_only_if_each_byte_is() {
        for (one, other, expected) in [
            ("", "", true),
            ("ab", "ab", true),
            ("ab", "ac", false),
            ("ab", "bb", false),
            ("ab", "ba", false),
            ("aa", "bb", false),
            ("a", "ab", false),
            ("ab", "a", false),
        ] {
            assert_eq!(is_equal_text(one, other), expected, "{one:?}, {other:?}");
        }
        for (name, differs_at, expected) in [
            ("none", &[][..], true),
            ("the first", &[0], false),
            ("the last", &[31], false),
            ("two by the same bits", &[0, 31], false),
            ("all", &Vec::from_iter(0..32), false),
        ] {
            let mut other = [7; 32];
            for at in differs_at {
                other[*at] ^= 1;
            }
            assert_eq!(is_equal(&[7; 32], &other), expected, "{name}");
        }
    }

    /// Both are checked, because the application may have installed another TLS provider.
    #[test]
    fn what_is_not_in_fips_mode_is_an_error_where_that_is_required() {
        assert!(Fips::NotRequired.check_backend().is_ok());
        assert!(Fips::NotRequired.check_tls().is_ok());
        assert_eq!(Fips::Required.check_backend().is_ok(), is_fips());
        assert_eq!(Fips::Required.check_tls().is_ok(), is_fips());
    }
}
