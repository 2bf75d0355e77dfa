use std::sync::{Arc, OnceLock};
use std::{io, thread};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use crate::algorithm::Algorithm;
use crate::keys::signature::{PROVIDER, provided};

#[cfg(feature = "aws-lc-rs")]
use by_aws_lc_rs as backend;
#[cfg(not(feature = "aws-lc-rs"))]
use by_rust_crypto as backend;

/// A private key and the one algorithm it signs with.
pub(super) struct SigningKey {
    algorithm: Algorithm,
    private: Private,
}

enum Private {
    /// `None` if the backend failed.
    Key(Arc<OnceLock<Option<backend::Private>>>),
    Secret(Vec<u8>),
}

/// The public members of a JWK, decoded (RFC 7518 §6, RFC 8037 §2, RFC 9964 §3).
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// `04 ‖ x ‖ y`
    Ec {
        crv: &'static str,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    #[cfg(feature = "aws-lc-rs")]
    MlDsa(Vec<u8>),
}

impl SigningKey {
    /// An RSA key takes a tenth of a second, so it is generated in the background, and the first
    /// use waits for it.
    pub(super) fn generate(algorithm: Algorithm) -> io::Result<Self> {
        let key = Arc::new(OnceLock::new());
        if algorithm.is_rsa() {
            let ahead = Arc::clone(&key);
            // If no thread can be started, the key is generated at its first use.
            let make = move || _ = ahead.get_or_init(|| backend::generate(algorithm));
            let _ = thread::Builder::new().spawn(make);
        } else if key.get_or_init(|| backend::generate(algorithm)).is_none() {
            let sentence =
                format!("the cryptography backend cannot generate a key for {algorithm}");
            return Err(io::Error::other(sentence));
        }
        Ok(Self { algorithm, private: Private::Key(key) })
    }

    pub(super) fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { algorithm, private: Private::Secret(secret.to_vec()) }
    }

    pub(super) fn secret(&self) -> Option<&[u8]> {
        match &self.private {
            Private::Secret(secret) => Some(secret),
            Private::Key(_) => None,
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns an empty signature, which never verifies, if the backend fails.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.private {
            Private::Key(_) => {
                self.key().and_then(|key| backend::sign(key, self.algorithm, message))
            }
            Private::Secret(secret) => provided(self.algorithm).and_then(|algorithm| {
                let key = EncodingKey::from_secret(secret);
                (PROVIDER.signer_factory)(&algorithm, &key).ok()?.try_sign(message).ok()
            }),
        }
        .unwrap_or_default()
    }

    fn key(&self) -> Option<&backend::Private> {
        match &self.private {
            Private::Key(key) => key.get_or_init(|| backend::generate(self.algorithm)).as_ref(),
            Private::Secret(_) => None,
        }
    }

    /// Returns `None` for a secret, which is never published.
    pub(super) fn jwk(&self, kid: &str) -> Option<Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match backend::public(self.key()?, self.algorithm)? {
            Public::Rsa { n, e } => json!({ "kty": "RSA", "n": text(&n), "e": text(&e) }),
            Public::Ec { crv, point } => {
                let (x, y) = point.get(1..)?.split_at_checked(point.len() / 2)?;
                json!({ "kty": "EC", "crv": crv, "x": text(x), "y": text(y) })
            }
            Public::Ed25519(x) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(&x) }),
            #[cfg(feature = "aws-lc-rs")]
            Public::MlDsa(key) => json!({ "kty": "AKP", "pub": text(&key) }),
        };
        let members = jwk.as_object_mut()?;
        members.insert("kid".to_owned(), kid.into());
        members.insert("alg".to_owned(), self.algorithm.name().into());
        members.insert("use".to_owned(), "sig".into());
        Some(jwk)
    }
}

#[cfg(feature = "aws-lc-rs")]
mod by_aws_lc_rs {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair,
        PqdsaSigningAlgorithm, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
    };

    use super::{Algorithm, Public};

    pub(super) enum Private {
        Rsa(RsaKeyPair),
        Ec(EcdsaKeyPair),
        Ed25519(Ed25519KeyPair),
        MlDsa(PqdsaKeyPair),
    }

    fn curve(algorithm: Algorithm) -> Option<(&'static EcdsaSigningAlgorithm, &'static str)> {
        match algorithm {
            Algorithm::ES256 => Some((&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")),
            Algorithm::ES384 => Some((&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")),
            Algorithm::ES512 => Some((&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521")),
            _ => None,
        }
    }

    fn ml_dsa(algorithm: Algorithm) -> Option<&'static PqdsaSigningAlgorithm> {
        match algorithm {
            Algorithm::MlDsa44 => Some(&signature::ML_DSA_44_SIGNING),
            Algorithm::MlDsa65 => Some(&signature::ML_DSA_65_SIGNING),
            Algorithm::MlDsa87 => Some(&signature::ML_DSA_87_SIGNING),
            _ => None,
        }
    }

    fn encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
        Some(match algorithm {
            Algorithm::RS256 => &signature::RSA_PKCS1_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_SHA512,
            _ => return None,
        })
    }

    pub(super) fn generate(algorithm: Algorithm) -> Option<Private> {
        if algorithm.is_rsa() {
            return RsaKeyPair::generate(KeySize::Rsa2048).ok().map(Private::Rsa);
        }
        if algorithm == Algorithm::EdDSA {
            return Ed25519KeyPair::generate().ok().map(Private::Ed25519);
        }
        match curve(algorithm) {
            Some((curve, _)) => EcdsaKeyPair::generate(curve).ok().map(Private::Ec),
            None => PqdsaKeyPair::generate(ml_dsa(algorithm)?).ok().map(Private::MlDsa),
        }
    }

    pub(super) fn sign(key: &Private, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        match key {
            Private::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding(algorithm)?, &SystemRandom::new(), message, &mut signature)
                    .ok()?;
                Some(signature)
            }
            Private::Ec(key) => {
                Some(key.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec())
            }
            Private::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
            Private::MlDsa(key) => {
                let mut signature = vec![0; key.algorithm().signature_len()];
                key.sign(message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }

    pub(super) fn public(key: &Private, algorithm: Algorithm) -> Option<Public> {
        Some(match key {
            Private::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } =
                    RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                Public::Rsa { n, e }
            }
            Private::Ec(key) => {
                Public::Ec { crv: curve(algorithm)?.1, point: key.public_key().as_ref().to_vec() }
            }
            Private::Ed25519(key) => Public::Ed25519(key.public_key().as_ref().to_vec()),
            Private::MlDsa(key) => Public::MlDsa(key.public_key().as_ref().to_vec()),
        })
    }
}

#[cfg(not(feature = "aws-lc-rs"))]
mod by_rust_crypto {
    use jsonwebtoken::EncodingKey;
    use rand::rngs::OsRng;
    use rsa::pkcs1::EncodeRsaPrivateKey as _;
    use rsa::pkcs8::EncodePrivateKey as _;

    use super::{Algorithm, PROVIDER, Public, provided};

    pub(super) type Private = EncodingKey;

    pub(super) fn generate(algorithm: Algorithm) -> Option<Private> {
        Some(match algorithm {
            algorithm if algorithm.is_rsa() => {
                let key = rsa::RsaPrivateKey::new(&mut OsRng, 2048).ok()?;
                EncodingKey::from_rsa_der(key.to_pkcs1_der().ok()?.as_bytes())
            }
            Algorithm::ES256 => EncodingKey::from_ec_der(
                p256::SecretKey::random(&mut OsRng).to_pkcs8_der().ok()?.as_bytes(),
            ),
            Algorithm::ES384 => EncodingKey::from_ec_der(
                p384::SecretKey::random(&mut OsRng).to_pkcs8_der().ok()?.as_bytes(),
            ),
            Algorithm::EdDSA => {
                let key = ed25519_dalek::SigningKey::generate(&mut OsRng);
                EncodingKey::from_ed_der(key.to_pkcs8_der().ok()?.as_bytes())
            }
            _ => return None,
        })
    }

    pub(super) fn sign(key: &Private, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        (PROVIDER.signer_factory)(&provided(algorithm)?, key).ok()?.try_sign(message).ok()
    }

    pub(super) fn public(key: &Private, algorithm: Algorithm) -> Option<Public> {
        let read = &PROVIDER.key_utils;
        Some(match algorithm {
            algorithm if algorithm.is_rsa() => {
                let (n, e) = (read.rsa_pub_components_from_private_key)(key.as_bytes()).ok()?;
                Public::Rsa { n, e }
            }
            Algorithm::EdDSA => {
                let curve = jsonwebtoken::jwk::EllipticCurve::Ed25519;
                Public::Ed25519(
                    (read.ed_pub_components_from_private_key)(key.as_bytes(), &curve).ok()?,
                )
            }
            _ => {
                let crv = if algorithm == Algorithm::ES256 { "P-256" } else { "P-384" };
                let (_, x, y) =
                    (read.ec_pub_components_from_private_key)(key.as_bytes(), provided(algorithm)?)
                        .ok()?;
                Public::Ec { crv, point: [&[4], x.as_slice(), y.as_slice()].concat() }
            }
        })
    }
}
