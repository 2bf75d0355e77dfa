//! RFC 7468 §13: one public key in PEM, as AWS load balancers publish theirs, each at an address of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::signature::{Curve, PublicKey};

/// What comes before the point in the DER of a P-256 key (RFC 5480 §2): `SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 },
/// BIT STRING`.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Reads a P-256 key. `None` if it is anything else.
pub(crate) fn p256(document: &[u8]) -> Option<PublicKey> {
    let text = std::str::from_utf8(document).ok()?.trim();
    let base64 = text.strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let base64: String = base64.split_ascii_whitespace().collect();
    let der = STANDARD.decode(base64).ok()?;
    let point = der.strip_prefix(P256_PREFIX.as_slice())?;
    let is_uncompressed = point.len() == 65 && point.first() == Some(&4);
    is_uncompressed.then(|| PublicKey::Ec { curve: Curve::P256, point: point.to_vec() })
}

/// What may be the name of such a key: it becomes part of an address, and a token chose it.
pub(crate) fn is_name(kid: &str) -> bool {
    !kid.is_empty() && kid.len() <= 64 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
