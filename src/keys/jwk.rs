//! RFC 7517 §4: one key, prepared once for verification.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::pem;
use super::signature::{Curve, MlDsa, PublicKey, SignatureVerifier};
use crate::algorithm::Algorithm;
use crate::error::IgnoredKeyReason;
use crate::token::jws::{Jws, MAX_KID_BYTES};
use crate::token::tenant;

/// At least 2048 bits (RFC 7518 §3.3). At most 8192 bits, since the cost of a verification grows
/// with the square of the size.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 2048 / 8..=8192 / 8;

/// What a key set is, which determines the keys that may verify tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SetFormat {
    /// A JWK Set (RFC 7517 §5).
    Jwks,
    /// The bundle of a SPIFFE trust domain (SPIFFE Trust Domain and Bundle §4).
    SpiffeBundle,
}

/// A verification key of a key set, for exactly one algorithm (draft-ietf-oauth-rfc8725bis §3.1).
pub(crate) struct Jwk {
    pub(crate) kid: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// Entra ID's member `issuer`: which tenant the key signs for.
    issuer: Option<Box<str>>,
    /// The public key, if the key set does not specify its algorithm: an issuer may be configured
    /// with another algorithm.
    implicit: Option<PublicKey>,
    verifier: SignatureVerifier,
    /// Cost of a verification, as a multiple of that with a key of usual size.
    pub(crate) cost: usize,
    /// Whether the key is tried for tokens with any `kid`: true for a key that does not come from a
    /// key set.
    pub(crate) any_kid: bool,
}

impl Jwk {
    /// Parses one member of `keys`. An RSA key without `alg` is used with `rsa`; the other key
    /// types determine the algorithm.
    pub(crate) fn read(
        member: &Value,
        rsa: Algorithm,
        format: SetFormat,
    ) -> Result<Self, IgnoredKeyReason> {
        let Value::Object(member) = member else {
            return Err(IgnoredKeyReason::Malformed);
        };
        let text = |name: &str| match member.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(IgnoredKeyReason::Malformed),
        };

        match text("kty")? {
            Some("RSA" | "EC" | "OKP" | "AKP") => {}
            // RFC 8725 §3.1: a published symmetric key is not a secret, and a public key used as an
            // HMAC secret would let anyone sign.
            Some("oct") => return Err(IgnoredKeyReason::Symmetric),
            Some(_) => return Err(IgnoredKeyReason::UnsupportedType),
            None => return Err(IgnoredKeyReason::Malformed),
        }
        // RFC 7518 §6.2.2, §6.3.2: if `d` is published, or the primes that it follows from, anyone
        // can sign. The same is true of `priv` (RFC 9964 §3).
        const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];
        if PRIVATE.iter().any(|name| member.contains_key(*name)) {
            return Err(IgnoredKeyReason::Private);
        }
        if !is_for_verification(member, format) {
            return Err(IgnoredKeyReason::NotForVerification);
        }
        let kid = text("kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(IgnoredKeyReason::Malformed);
        }
        let key = match text("kty")? {
            Some("RSA") => rsa_key(text("n")?, text("e")?)?,
            Some("EC") => ec_key(text("crv")?, text("x")?, text("y")?)?,
            Some("AKP") => akp_key(text("alg")?, text("pub")?)?,
            _ => okp_key(text("crv")?, text("x")?)?,
        };
        let (algorithm, implicit) = match text("alg")? {
            Some(name) => {
                (Algorithm::from_name(name).ok_or(IgnoredKeyReason::UnsupportedAlgorithm)?, None)
            }
            None => (implied_algorithm(&key, rsa), Some(key.clone())),
        };
        let verifier = SignatureVerifier::public(&key, algorithm)?;
        // A value that is not a string names no tenant.
        let issuer = member.get("issuer").map(|issuer| issuer.as_str().unwrap_or_default().into());
        Ok(Self {
            issuer,
            implicit,
            ..Self::new(kid.map(str::to_owned), &key, algorithm, verifier)
        })
    }

    fn new(
        kid: Option<String>,
        key: &PublicKey,
        algorithm: Algorithm,
        verifier: SignatureVerifier,
    ) -> Self {
        let cost = if key.is_large() { LARGE_KEY_COST } else { 1 };
        Self { kid, algorithm, issuer: None, implicit: None, verifier, cost, any_kid: false }
    }

    /// Parses an ES256 key in PEM, which was fetched by this `kid`.
    pub(crate) fn from_pem(kid: &str, document: &[u8]) -> Option<Self> {
        let algorithm = Algorithm::ES256;
        let key = pem::public_key(std::str::from_utf8(document).ok()?)?;
        let verifier = SignatureVerifier::public(&key, algorithm).ok()?;
        Some(Self::new(Some(kid.to_owned()), &key, algorithm, verifier))
    }

    /// A public key in PEM that the application configured. It has no `kid`, and is tried for
    /// tokens with any `kid`.
    pub(crate) fn pinned(key: PublicKey, rsa: Algorithm) -> Result<Self, IgnoredKeyReason> {
        if let PublicKey::Rsa { n, e } = &key {
            check_rsa(n, e)?;
        }
        let algorithm = implied_algorithm(&key, rsa);
        let verifier = SignatureVerifier::public(&key, algorithm)?;
        let own = Self::new(None, &key, algorithm, verifier);
        Ok(Self { implicit: Some(key), any_kid: true, ..own })
    }

    /// An HMAC secret that the application configured. Returns `None` for any other algorithm.
    pub(crate) fn secret(secret: &[u8], algorithm: Algorithm) -> Option<Self> {
        let verifier = SignatureVerifier::secret(secret, algorithm)?;
        Some(Self {
            kid: None,
            algorithm,
            issuer: None,
            implicit: None,
            verifier,
            cost: 1,
            any_kid: false,
        })
    }

    /// Returns the same key with `rsa` as its algorithm, if it is an RSA key without `alg`. Returns
    /// `None` if that changes nothing.
    pub(crate) fn with_rsa_algorithm(
        &self,
        rsa: Algorithm,
    ) -> Option<Result<Self, IgnoredKeyReason>> {
        let key = self.implicit.as_ref()?;
        let algorithm = implied_algorithm(key, rsa);
        (algorithm != self.algorithm).then(|| {
            let verifier = SignatureVerifier::public(key, algorithm)?;
            let own = Self::new(self.kid.clone(), key, algorithm, verifier);
            Ok(Self {
                issuer: self.issuer.clone(),
                implicit: Some(key.clone()),
                any_kid: self.any_kid,
                ..own
            })
        })
    }

    /// Whether the key may sign for this tenant, if the issuer has many.
    pub(crate) fn serves(&self, tenant: Option<&str>) -> bool {
        match (&self.issuer, tenant) {
            (Some(issuer), Some(tenant)) => tenant::key_serves(issuer, tenant),
            _ => true,
        }
    }

    /// Returns the payload if this key signed exactly the received bytes (RFC 7515 §5.2).
    pub(crate) fn verify<'a>(&self, jws: &'a Jws<'_>) -> Option<SignedPayload<'a>> {
        self.verifier
            .verifies(jws.signing_input.as_bytes(), jws.signature())
            .then(|| SignedPayload(jws.unverified_payload()))
    }
}

/// A payload whose signature was verified. Only [`Jwk::verify`] creates one, so the type is proof
/// of verification.
#[derive(Clone, Copy)]
pub(crate) struct SignedPayload<'a>(&'a [u8]);

impl<'a> SignedPayload<'a> {
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Whether a key may be used for verification (RFC 7517 §4.2, §4.3). `use` and `key_ops` are both
/// optional; a member that is present must allow verification. In a SPIFFE bundle, `use` is
/// required, since the bundle also has certificates of the trust domain (`x509-svid`).
fn is_for_verification(member: &serde_json::Map<String, Value>, format: SetFormat) -> bool {
    let used = match format {
        SetFormat::Jwks => member.get("use").is_none_or(|used| used == "sig"),
        SetFormat::SpiffeBundle => member.get("use").is_some_and(|used| used == "jwt-svid"),
    };
    let allowed = member.get("key_ops").is_none_or(|operations| match operations {
        Value::Array(operations) => operations.iter().any(|operation| operation == "verify"),
        _ => false,
    });
    used && allowed
}

fn implied_algorithm(key: &PublicKey, rsa: Algorithm) -> Algorithm {
    match key {
        PublicKey::Rsa { .. } => rsa,
        PublicKey::Ec { curve: Curve::P256, .. } => Algorithm::ES256,
        PublicKey::Ec { curve: Curve::P384, .. } => Algorithm::ES384,
        PublicKey::Ec { curve: Curve::P521, .. } => Algorithm::ES512,
        PublicKey::Ed25519(_) => Algorithm::EdDSA,
        PublicKey::MlDsa { parameters, .. } => parameters.algorithm(),
    }
}

fn bytes(text: Option<&str>) -> Result<Vec<u8>, IgnoredKeyReason> {
    URL_SAFE_NO_PAD
        .decode(text.ok_or(IgnoredKeyReason::Malformed)?)
        .map_err(|_| IgnoredKeyReason::Malformed)
}

/// Decodes a Base64urlUInt (RFC 7518 §2). Leading zeros are not allowed, but common, and do not
/// change the value.
fn unsigned(text: Option<&str>) -> Result<Vec<u8>, IgnoredKeyReason> {
    let mut bytes = bytes(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

/// RSA public key parameters (RFC 7518 §6.3.1).
pub(crate) fn rsa_key(n: Option<&str>, e: Option<&str>) -> Result<PublicKey, IgnoredKeyReason> {
    let (n, e) = (unsigned(n)?, unsigned(e)?);
    check_rsa(&n, &e)?;
    Ok(PublicKey::Rsa { n, e })
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), IgnoredKeyReason> {
    // Counted in bits, since 2047 bits fill 256 bytes as well.
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if bits < RSA_BYTES.start() * 8 || bits > RSA_BYTES.end() * 8 {
        return Err(IgnoredKeyReason::RsaSize);
    }
    // With an exponent of 1, every message is its own signature. Large exponents make verification
    // slow: 65537 has 3 bytes, and no issuer uses a larger one.
    let odd = e.last().is_some_and(|last| last % 2 == 1);
    if !odd || e == [1] || e.len() > 3 {
        return Err(IgnoredKeyReason::Malformed);
    }
    Ok(())
}

/// EC public key parameters (RFC 7518 §6.2.1). Each coordinate must have exactly the length of the
/// curve.
pub(crate) fn ec_key(
    crv: Option<&str>,
    x: Option<&str>,
    y: Option<&str>,
) -> Result<PublicKey, IgnoredKeyReason> {
    let (curve, length) = match crv {
        Some("P-256") => (Curve::P256, 32),
        Some("P-384") => (Curve::P384, 48),
        Some("P-521") => (Curve::P521, 66),
        Some(_) => return Err(IgnoredKeyReason::UnsupportedType),
        None => return Err(IgnoredKeyReason::Malformed),
    };
    let (x, y) = (bytes(x)?, bytes(y)?);
    if x.len() != length || y.len() != length {
        return Err(IgnoredKeyReason::Malformed);
    }
    Ok(PublicKey::Ec { curve, point: [&[4], x.as_slice(), y.as_slice()].concat() })
}

/// OKP public key parameters (RFC 8037 §2).
pub(crate) fn okp_key(crv: Option<&str>, x: Option<&str>) -> Result<PublicKey, IgnoredKeyReason> {
    match crv {
        Some("Ed25519") => {}
        Some(_) => return Err(IgnoredKeyReason::UnsupportedType),
        None => return Err(IgnoredKeyReason::Malformed),
    }
    Ok(PublicKey::Ed25519(bytes(x)?.try_into().map_err(|_| IgnoredKeyReason::Malformed)?))
}

/// AKP public key parameters (RFC 9964 §3): `alg`, which is required, determines the parameter set
/// of `pub`.
fn akp_key(alg: Option<&str>, key: Option<&str>) -> Result<PublicKey, IgnoredKeyReason> {
    let alg = alg.ok_or(IgnoredKeyReason::Malformed)?;
    let parameters = Algorithm::from_name(alg)
        .and_then(MlDsa::of)
        .ok_or(IgnoredKeyReason::UnsupportedAlgorithm)?;
    let key = bytes(key)?;
    // aws-lc-rs would also accept a longer encoding, with an algorithm identifier.
    if key.len() != parameters.public_key_bytes() {
        return Err(IgnoredKeyReason::Malformed);
    }
    Ok(PublicKey::MlDsa { parameters, key })
}

/// Cost of an RSA key over 4096 bits: 8192 bits take 16 times as long as 2048.
const LARGE_KEY_COST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515 appendix A.1. A unit test, since its claims are not those of an access token.
    #[test]
    fn the_hmac_vector_verifies() {
        let k = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = Jwk::secret(&URL_SAFE_NO_PAD.decode(k).unwrap(), Algorithm::HS256).unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(key.verify(&Jws::split(token).unwrap()).is_some());
        assert!(key.verify(&Jws::split(&token.replace("dBjf", "eBjf")).unwrap()).is_none());
    }

    /// The backends also reject a point of another length. They would not notice a coordinate that
    /// is too long beside one that is too short.
    #[test]
    fn each_coordinate_has_the_length_of_its_curve() {
        for (name, lengths, is_key) in [
            ("of the curve", [32, 32], true),
            ("x too short", [31, 32], false),
            ("x too long", [33, 32], false),
            ("y too short", [32, 31], false),
            ("y too long", [32, 33], false),
            ("of the curve together", [33, 31], false),
        ] {
            let [x, y] = lengths.map(|length| URL_SAFE_NO_PAD.encode(vec![1; length]));
            assert_eq!(ec_key(Some("P-256"), Some(&x), Some(&y)).is_ok(), is_key, "{name}");
        }
    }
}
