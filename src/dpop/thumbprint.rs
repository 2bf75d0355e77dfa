//! SHA-256 thumbprints of public keys (RFC 7638 §3, RFC 8037 §2, RFC 9964 §6).

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
        PublicKey::MlDsa { parameters, key } => {
            let alg = parameters.algorithm();
            format!(r#"{{"alg":"{alg}","kty":"AKP","pub":"{}"}}"#, text(key))
        }
    };
    sha256(json.as_bytes())
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests {
    use aws_lc_rs::signature::{KeyPair as _, ML_DSA_44_SIGNING, PqdsaKeyPair};

    use super::*;
    use crate::keys::signature::MlDsa;

    /// RFC 9964 A.1: the `kid` of the key whose seed is all zeros is its thumbprint.
    #[test]
    fn the_ml_dsa_vector_has_its_thumbprint() {
        let pair = PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, &[0; 32]).unwrap();
        let key = pair.public_key().as_ref().to_vec();
        let key = PublicKey::MlDsa { parameters: MlDsa::MlDsa44, key };
        assert_eq!(
            URL_SAFE_NO_PAD.encode(thumbprint(&key)),
            "T4xl70S7MT6Zeq6r9V9fPJGVn76wfnXJ21-gyo0Gu6o"
        );
    }
}
