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
