//! A DPoP proof: a JWT that the client signs for one request (RFC 9449 §4.2, §4.3). This module
//! knows no HTTP: method, path and token are handed in.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::target::{Base, is_target};
use super::thumbprint::thumbprint;
use crate::algorithm::Algorithm;
use crate::error::ProofError;
use crate::keys::jwk;
use crate::keys::signature::{PublicKey, SignatureVerifier};
use crate::token::claims::MAX_NUMERIC_DATE;
use crate::token::json::{self, Value};
use crate::token::jws::Jws;
use crate::token::token_type;

/// Maximum length of a proof, in bytes. An RSA key of 4096 bits in the header takes 1.1 KiB.
pub(crate) const MAX_BYTES: usize = 8 * 1024;

/// Maximum length of `jti`, in bytes. Only a hash is kept; the limit is that of a sensible
/// identifier.
const MAX_JTI_BYTES: usize = 256;

/// Maximum length of the expected URL in an error, in characters.
const MAX_QUOTED_URL: usize = 200;

/// Maximum size of RSA keys. The client chooses its key, and thereby the cost of a verification.
const MAX_RSA_BYTES: usize = 4096 / 8;

/// Members of a JWK with a private or secret key. A client that sends its private key has given it
/// away.
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// Why the key of a proof is not used.
#[derive(Debug, PartialEq)]
pub(crate) enum Rejected {
    Proof(ProofError),
    /// The access token is bound to another key (RFC 9449 §7.1): it is the token that is rejected.
    OtherKey,
}

impl From<ProofError> for Rejected {
    fn from(error: ProofError) -> Self {
        Self::Proof(error)
    }
}

/// What a proof is compared with.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) method: &'a str,
    pub(crate) bases: &'a [Base],
    /// The beginning of the URL at a host that is not configured.
    pub(crate) own: Option<&'a Base>,
    pub(crate) path: &'a str,
    /// The hash of the access token as sent (RFC 9449 §4.2).
    pub(crate) ath: &'a str,
    /// The thumbprint that the token is bound to.
    pub(crate) jkt: &'a [u8; 32],
    pub(crate) algorithms: &'a [Algorithm],
}

/// A key of a client, prepared: its proofs have the same header each time.
pub(crate) struct ProofKey {
    /// The encoded header that it was read from.
    header: Box<str>,
    thumbprint: [u8; 32],
    verifier: SignatureVerifier,
}

/// A proof that fits the request and the token. Its time and its signature are not checked yet.
pub(crate) struct Proof<'a> {
    jws: &'a Jws<'a>,
    claims: Claims<'a>,
}

/// A proof whose signature was verified.
pub(crate) struct VerifiedProof<'a> {
    /// With the key, this identifies the proof.
    pub(crate) jti: Cow<'a, str>,
}

struct Claims<'a> {
    jti: Cow<'a, str>,
    issued_at: Duration,
    nonce: Option<Cow<'a, str>>,
}

/// Maximum length of an encoded header that is kept with its key, in bytes: enough for an RSA key
/// of 4096 bits. A client can fill the header with members of its own.
const MAX_KEPT_HEADER: usize = 1536;

impl ProofKey {
    /// The memory of a kept key at most, in bytes. A prepared RSA key of 4096 bits takes half a
    /// kibibyte.
    pub(crate) const MOST_BYTES: usize = size_of::<Self>() + MAX_KEPT_HEADER + 512;

    /// Whether the key may be kept with its token.
    pub(crate) fn is_kept(&self) -> bool {
        self.header.len() <= MAX_KEPT_HEADER
    }

    /// The key of a proof, if the token is bound to it. The thumbprint is compared before anything
    /// that costs more than a hash: the key is the client's choice.
    pub(crate) fn read(jws: &Jws<'_>, expected: &Expected<'_>) -> Result<Self, Rejected> {
        const NOT_AN_OBJECT: ProofError = ProofError::Malformed("a header that is one JSON object");
        let text = std::str::from_utf8(jws.header_bytes()).map_err(|_| NOT_AN_OBJECT)?;
        let [typ, alg, crit, jwk] =
            json::read_object(text, &["typ", "alg", "crit", "jwk"]).map_err(|_| NOT_AN_OBJECT)?;
        let is_proof = matches!(&typ, Some(Value::Text(typ)) if token_type::is(typ, "dpop+jwt"));
        if !is_proof {
            return Err(ProofError::Malformed("a header with the `typ` dpop+jwt").into());
        }
        if crit.is_some() {
            return Err(ProofError::Malformed("a header without `crit`").into());
        }
        let Some(Value::Text(alg)) = alg else {
            return Err(ProofError::Malformed("a header whose `alg` is a string").into());
        };
        let allowed = Algorithm::from_name(&alg).filter(|one| expected.algorithms.contains(one));
        let algorithm = allowed.ok_or(ProofError::UnsupportedAlgorithm)?;
        let Some(Value::Object(jwk)) = jwk else {
            return Err(ProofError::Malformed("a header whose `jwk` is an object").into());
        };
        let key = public_key(jwk, &alg)?;
        if !key.fits(algorithm) {
            return Err(ProofError::Malformed("a key that fits `alg`").into());
        }
        let thumbprint = thumbprint(&key);
        if thumbprint != *expected.jkt {
            return Err(Rejected::OtherKey);
        }
        let verifier = SignatureVerifier::public(&key, algorithm)
            .map_err(|_| ProofError::Malformed("a valid public key"))?;
        Ok(Self { header: jws.encoded_header.into(), thumbprint, verifier })
    }

    /// Whether the proof has the header that this key was read from.
    pub(crate) fn is_of(&self, jws: &Jws<'_>, expected: &Expected<'_>) -> bool {
        jws.encoded_header == &*self.header && self.thumbprint == *expected.jkt
    }
}

impl<'a> Proof<'a> {
    /// Splits a proof.
    pub(crate) fn split(text: &'a str) -> Result<Jws<'a>, ProofError> {
        const NOT_A_JWS: ProofError =
            ProofError::Malformed("three parts in base64url without padding");
        if text.len() > MAX_BYTES {
            return Err(ProofError::Malformed("at most 8 KiB"));
        }
        let jws = Jws::split(text).map_err(|_| NOT_A_JWS)?;
        if jws.is_padded { Err(NOT_A_JWS) } else { Ok(jws) }
    }

    /// Checks that the proof was made for this request and this token.
    pub(crate) fn read(jws: &'a Jws<'a>, expected: &Expected<'_>) -> Result<Self, ProofError> {
        const NOT_AN_OBJECT: ProofError =
            ProofError::Malformed("a payload that is one JSON object without duplicate members");
        let text = std::str::from_utf8(jws.unverified_payload()).map_err(|_| NOT_AN_OBJECT)?;
        let [jti, htm, htu, iat, ath, nonce] =
            json::read_object(text, &["jti", "htm", "htu", "iat", "ath", "nonce"])
                .map_err(|_| NOT_AN_OBJECT)?;
        let claim = |name, value| match value {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(ProofError::MissingClaim(name)),
        };
        let jti = claim("jti", jti)?;
        if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
            return Err(ProofError::Malformed("a `jti` of 1 to 256 bytes"));
        }
        let (htm, htu, ath) = (claim("htm", htm)?, claim("htu", htu)?, claim("ath", ath)?);
        let issued_at = match iat {
            // JavaScript's `Date.now() / 1000` has a fraction.
            Some(Value::Number(seconds)) if (0.0..=MAX_NUMERIC_DATE).contains(&seconds) => {
                Duration::from_secs_f64(seconds.floor())
            }
            _ => return Err(ProofError::MissingClaim("iat")),
        };
        let nonce = match nonce {
            None | Some(Value::Null) => None,
            Some(Value::Text(nonce)) => Some(nonce),
            Some(_) => return Err(ProofError::Malformed("a `nonce` that is a string")),
        };
        if htm != expected.method {
            return Err(ProofError::OtherMethod);
        }
        if !is_target(&htu, expected.path, expected.bases.iter().chain(expected.own)) {
            return Err(other_url(expected));
        }
        if ath != expected.ath {
            return Err(ProofError::OtherToken);
        }
        Ok(Self { jws, claims: Claims { jti, issued_at, nonce } })
    }

    pub(crate) fn nonce(&self) -> Option<&str> {
        self.claims.nonce.as_deref()
    }

    pub(crate) fn issued_at(&self) -> Duration {
        self.claims.issued_at
    }

    pub(crate) fn verify(self, key: &ProofKey) -> Result<VerifiedProof<'a>, ProofError> {
        let Self { jws, claims } = self;
        if !key.verifier.verifies(jws.signing_input.as_bytes(), jws.signature()) {
            return Err(ProofError::BadSignature);
        }
        Ok(VerifiedProof { jti: claims.jti })
    }
}

fn other_url(expected: &Expected<'_>) -> ProofError {
    let base = expected.own.or(expected.bases.first()).map_or("", Base::as_str);
    let url = base.chars().chain(expected.path.chars());
    ProofError::OtherUrl { expected: url.take(MAX_QUOTED_URL).collect() }
}

/// The nonce of a proof that may be invalid.
pub(crate) fn unverified_nonce(proof: &str) -> Option<String> {
    let payload = proof.split('.').nth(1).filter(|_| proof.len() <= MAX_BYTES)?;
    let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    match json::read_object(&payload, &["nonce"]).ok()? {
        [Some(Value::Text(nonce))] => Some(nonce.into_owned()),
        _ => None,
    }
}

/// The public key of a JWK (RFC 7517 §4, RFC 7518 §6), with one text only for each key: a key has
/// one thumbprint.
fn public_key(jwk: &str, alg: &str) -> Result<PublicKey, ProofError> {
    const MALFORMED: ProofError = ProofError::Malformed("a public key in `jwk`");
    let private = json::read_object(jwk, &PRIVATE).map_err(|_| MALFORMED)?;
    if private.iter().any(Option::is_some) {
        return Err(ProofError::PrivateKey);
    }
    let [kty, crv, x, y, n, e, own_alg] =
        json::read_object(jwk, &["kty", "crv", "x", "y", "n", "e", "alg"])
            .map_err(|_| MALFORMED)?;
    let text = |value: Option<Value<'_>>| match value {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text.into_owned())),
        Some(_) => Err(MALFORMED),
    };
    // EdDSA and Ed25519 are two names of one algorithm (RFC 9864 §2.2).
    let is_other = |own: &str| Algorithm::from_name(own) != Algorithm::from_name(alg);
    if text(own_alg)?.is_some_and(|own| is_other(&own)) {
        return Err(MALFORMED);
    }
    let (kty, crv, x, y) = (text(kty)?, text(crv)?, text(x)?, text(y)?);
    let (n, e) = (text(n)?, text(e)?);
    let key = match kty.as_deref() {
        Some("EC") => jwk::ec_key(crv.as_deref(), x.as_deref(), y.as_deref()),
        Some("OKP") => jwk::okp_key(crv.as_deref(), x.as_deref()),
        Some("RSA") => jwk::rsa_key(n.as_deref(), e.as_deref()),
        _ => return Err(MALFORMED),
    }
    .map_err(|_| MALFORMED)?;
    if let PublicKey::Rsa { n: modulus, e: exponent } = &key {
        let is_canonical = |bytes: &[u8], text: Option<String>| {
            text.is_some_and(|text| URL_SAFE_NO_PAD.encode(bytes) == text)
        };
        if modulus.len() > MAX_RSA_BYTES || !is_canonical(modulus, n) || !is_canonical(exponent, e)
        {
            return Err(MALFORMED);
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9449 §7.1.
    const ATH: &str = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo";
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    /// The same with the other signature that ECDSA has for it: `n - s` in place of `s`.
    const TWIN_ENDS: &str = "el_fuFVO46DNVBNVNqYZjPFpbmdA8d0H3BbGP5h-8jZxQ";

    fn thumbprint_of(text: &str) -> [u8; 32] {
        URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
    }

    fn verify(proof: &str, expected: &Expected<'_>) -> Result<String, Rejected> {
        let jws = Proof::split(proof)?;
        let key = ProofKey::read(&jws, expected)?;
        let proof = Proof::read(&jws, expected)?;
        Ok(proof.verify(&key)?.jti.into_owned())
    }

    #[test]
    fn the_proof_of_the_rfc_verifies() {
        let bases = [Base::new("https://resource.example.org").unwrap()];
        let jkt = thumbprint_of("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let expected = Expected {
            method: "GET",
            bases: &bases,
            own: None,
            path: "/protectedresource",
            ath: ATH,
            jkt: &jkt,
            algorithms: &[Algorithm::ES256],
        };
        assert_eq!(verify(PROOF, &expected), Ok("e1j3V_bKic8-LAEB".to_owned()));
        let twin = format!("{}{TWIN_ENDS}", &PROOF[..PROOF.len() - TWIN_ENDS.len()]);
        assert_eq!(verify(&twin, &expected), Ok("e1j3V_bKic8-LAEB".to_owned()));

        let altered = PROOF.replace("2oW9", "3oW9");
        let proof = |error: ProofError| Err(Rejected::Proof(error));
        assert_eq!(verify(&altered, &expected), proof(ProofError::BadSignature));
        for (name, other, rejected) in [
            ("method", Expected { method: "get", ..expected }, proof(ProofError::OtherMethod)),
            (
                "path",
                Expected { path: "/", ..expected },
                proof(ProofError::OtherUrl {
                    expected: "https://resource.example.org/".to_owned(),
                }),
            ),
            ("token", Expected { ath: "other", ..expected }, proof(ProofError::OtherToken)),
            ("key", Expected { jkt: &[0; 32], ..expected }, Err(Rejected::OtherKey)),
            (
                "algorithm",
                Expected { algorithms: &[Algorithm::PS256], ..expected },
                proof(ProofError::UnsupportedAlgorithm),
            ),
        ] {
            assert_eq!(verify(PROOF, &other), rejected, "{name}");
        }
    }

    #[test]
    fn a_prepared_key_is_used_for_the_same_header_and_binding_only() {
        let jkt = thumbprint_of("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let expected = Expected {
            method: "GET",
            bases: &[],
            own: None,
            path: "/",
            ath: ATH,
            jkt: &jkt,
            algorithms: &[Algorithm::ES256],
        };
        let (header, rest) = PROOF.split_once('.').unwrap();
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        let with_header = |json: &str| format!("{}.{rest}", URL_SAFE_NO_PAD.encode(json));
        let key = ProofKey::read(&Proof::split(PROOF).unwrap(), &expected).unwrap();
        struct Case {
            name: &'static str,
            proof: String,
            jkt: [u8; 32],
            is_of: bool,
        }
        for Case { name, proof, jkt, is_of } in [
            Case { name: "the same", proof: PROOF.to_owned(), jkt, is_of: true },
            Case {
                name: "another header",
                proof: with_header(&format!("{json} ")),
                jkt,
                is_of: false,
            },
            Case {
                name: "a token of another key",
                proof: PROOF.to_owned(),
                jkt: [0; 32],
                is_of: false,
            },
        ] {
            let jws = Proof::split(&proof).unwrap();
            assert_eq!(key.is_of(&jws, &Expected { jkt: &jkt, ..expected }), is_of, "{name}");
        }

        // White space after the object, so that the encoded header has the length.
        for (length, is_kept) in [(1535, true), (1536, true), (1538, false), (4000, false)] {
            let proof = with_header(&format!("{json:<0$}", length * 3 / 4));
            let jws = Proof::split(&proof).unwrap();
            assert_eq!(jws.encoded_header.len(), length);
            let key = ProofKey::read(&jws, &expected).unwrap();
            assert_eq!(key.is_kept(), is_kept, "{length} bytes");
        }
    }

    #[test]
    fn a_proof_has_at_most_8_kib() {
        for (length, expected) in
            [(8191, true), (8192, true), (8193, false), (8196, false), (10_000, false)]
        {
            let proof = format!("e30.e30.{}", "A".repeat(length - "e30.e30.".len()));
            let error = Proof::split(&proof).err();
            let too_long = ProofError::Malformed("at most 8 KiB");
            assert_eq!(error, (!expected).then_some(too_long), "{length} bytes");
        }
    }

    #[test]
    fn rsa_keys_have_at_most_4096_bits() {
        for (bytes, expected) in [(256, true), (512, true), (513, false), (1024, false)] {
            let modulus = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
            let jwk = format!(r#"{{"kty":"RSA","n":"{modulus}","e":"AQAB"}}"#);
            assert_eq!(public_key(&jwk, "PS256").is_ok(), expected, "{bytes} bytes");
        }
    }

    #[test]
    fn keys_have_one_thumbprint() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let rsa = |n: &str, e: &str| format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"}}"#);
        let okp =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        // RFC 7638 §3.1, RFC 8037 A.3.
        for (jwk, alg, expected) in [
            (rsa(n, "AQAB"), "RS256", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
            (okp.to_owned(), "EdDSA", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            (
                okp.replace("{", r#"{"kid":"1","alg":"EdDSA","#),
                "EdDSA",
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ] {
            let key = public_key(&jwk, alg).unwrap();
            assert_eq!(thumbprint(&key), thumbprint_of(expected), "{jwk}");
        }
        for (name, jwk) in [
            ("leading zeros", rsa(&format!("AAAA{n}"), "AQAB")),
            ("another spelling of the exponent", rsa(n, "AAEAAQ")),
            ("stray bits", okp.replace("HURo", "HURp")),
            ("padding", okp.replace("HURo", "HURo=")),
            ("a private key", okp.replace("{", r#"{"d":"x","#)),
            ("a private key of ML-DSA", okp.replace("{", r#"{"priv":"x","#)),
            ("a secret", okp.replace("{", r#"{"k":"x","#)),
            ("symmetric", r#"{"kty":"oct"}"#.to_owned()),
            ("another `alg`", okp.replace("{", r#"{"alg":"ES256","#)),
            ("a member twice", okp.replace("{", r#"{"kty":"OKP","#)),
            ("no type", "{}".to_owned()),
        ] {
            assert!(public_key(&jwk, "EdDSA").is_err(), "{name}");
        }
    }
}
