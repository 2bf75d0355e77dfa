//! SHA-256 thumbprints of public keys (RFC 7638 §3, RFC 8037 §2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crypto::sha256;
use crate::keys::signature::{Curve, PublicKey};

/// The hash of the members that every key of its type has, in the order of their names and without
/// white space.
pub(crate) fn thumbprint(key: &PublicKey) -> [u8; 32] {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let json = match key {
        PublicKey::Rsa { n, e } => {
            format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n))
        }
        PublicKey::Ec { curve, point } => {
            let crv = match curve {
                Curve::P256 => "P-256",
                Curve::P384 => "P-384",
                Curve::P521 => "P-521",
            };
            let coordinates = point.get(1..).unwrap_or_default();
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            format!(r#"{{"crv":"{crv}","kty":"EC","x":"{}","y":"{}"}}"#, text(x), text(y))
        }
        PublicKey::Ed25519(x) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(x)),
    };
    sha256(json.as_bytes())
}
