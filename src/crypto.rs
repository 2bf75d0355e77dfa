//! Random numbers and hashes, by the cryptography backend of this build.

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
