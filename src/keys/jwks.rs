//! RFC 7517 §5: a key set, read tolerantly; the key selected.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::jwk::{Jwk, SignedPayload};
use crate::algorithm::Algorithm;
use crate::error::{ConfigError, IgnoredKey, InvalidToken};
use crate::token::jws::{Header, Jws};

/// Keys kept of one set, and members read for them. No real set comes near; the bounds are for hostile ones: parsing a key
/// costs up to a tenth of a millisecond.
const MAX_KEYS: usize = 100;
const MAX_MEMBERS: usize = 500;

/// Keys tried for one token: several may share a `kid`, or a token have none (RFC 7517 §4.5). Each costs a signature.
const MAX_CANDIDATES: usize = 4;

/// A set of verification keys (RFC 7517 §5), of one issuer.
///
/// One strange member never loses the set: what cannot be used is left out and counted in [`ignored`](Self::ignored).
/// For an issuer that publishes its keys, use [`Issuer::new`](crate::Issuer::new) and have them fetched; this type is for
/// keys that come another way, and for signed things that are not access tokens.
///
/// ```
/// use portcullis::Jwks;
///
/// let jwks = Jwks::from_json(r#"{"keys":[
///     {"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
///     {"kty":"AKP","alg":"ML-DSA-44","kid":"b","pub":"…"}
/// ]}"#)?;
/// assert_eq!(jwks.len(), 1);
/// assert_eq!(jwks.ignored().len(), 1);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Jwks {
    keys: Vec<Arc<Jwk>>,
    ignored: Vec<IgnoredKey>,
}

impl Jwks {
    /// Reads a JWK Set in JSON. RSA keys without `alg` serve `RS256`.
    ///
    /// # Errors
    ///
    /// When the text is not an object with an array `keys`, or no key in it can be used.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let set = Self::read(json.as_ref(), Algorithm::RS256)
            .ok_or_else(|| ConfigError::new("JWK Set: expected a JSON object with an array `keys` (RFC 7517 §5)"))?;
        match set.is_empty() {
            true => Err(ConfigError::new(format!(
                "JWK Set: expected at least one usable key, found none and ignored {:?}",
                set.ignored
            ))),
            false => Ok(set),
        }
    }

    /// As [`from_json`](Self::from_json), for an issuer whose RSA keys without `alg` serve `rsa`; may come out empty.
    /// `None` if it is no key set at all.
    pub(crate) fn read(json: &[u8], rsa: Algorithm) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let members = set.get("keys")?.as_array()?;
        let mut jwks = Self { keys: Vec::new(), ignored: Vec::new() };
        for (number, member) in members.iter().enumerate() {
            if number == MAX_MEMBERS || jwks.keys.len() == MAX_KEYS {
                jwks.ignored.push(IgnoredKey::TooMany);
                break;
            }
            match Jwk::read(member, rsa) {
                Ok(key) => jwks.keys.push(Arc::new(key)),
                Err(reason) => jwks.ignored.push(reason),
            }
        }
        Some(jwks)
    }

    /// A set of these keys.
    pub(crate) fn of(keys: Vec<Arc<Jwk>>) -> Self {
        Self { keys, ignored: Vec::new() }
    }

    /// The names of the keys that have one.
    pub(crate) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }

    /// The same keys for an issuer whose RSA keys serve `rsa` where the set does not say.
    pub(crate) fn with_rsa_algorithm(&self, rsa: Algorithm) -> Self {
        let mut jwks = Self { keys: Vec::new(), ignored: self.ignored.clone() };
        for key in &self.keys {
            match key.with_rsa_algorithm(rsa) {
                None => jwks.keys.push(Arc::clone(key)),
                Some(Ok(changed)) => jwks.keys.push(Arc::new(changed)),
                Some(Err(reason)) => jwks.ignored.push(reason),
            }
        }
        jwks
    }

    /// Whether `other` is a clone of this set.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.len() == other.len() && self.keys.iter().zip(&other.keys).all(|(own, other)| Arc::ptr_eq(own, other))
    }

    /// Whether a key is for one of these algorithms.
    pub(crate) fn serves_any(&self, algorithms: &[Algorithm]) -> bool {
        self.keys.iter().any(|key| algorithms.contains(&key.algorithm))
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Why the other members of the set were left out, one reason each; a last `TooMany` stands for all that were not read.
    pub fn ignored(&self) -> &[IgnoredKey] {
        &self.ignored
    }

    /// Verifies the signature of a compact JWS, and nothing else: for signed things that are not access tokens, such as
    /// webhooks, logout tokens and security event tokens. Which `typ`, claims and time they must have is up to you.
    ///
    /// The key rules are those for access tokens: one algorithm per key, `kid` respected, no symmetric keys, `crit` refused.
    ///
    /// ```
    /// use portcullis::Jwks;
    ///
    /// // RFC 8037 appendix A.4
    /// let jwks = Jwks::from_json(
    ///     r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    /// )?;
    /// let signed = jwks.verify(
    ///     "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
    ///      hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    /// )?;
    /// assert_eq!(signed.payload, b"Example of Ed25519 signing");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidToken`]: the JWS is misshapen, its algorithm or key unknown here, or its signature wrong.
    pub fn verify(&self, compact: &str) -> Result<VerifiedJws, InvalidToken> {
        let jws = Jws::split(compact)?;
        jws.check_unpadded()?;
        let payload = self.verify_signature(&jws, &jws.header()?, None)?;
        Ok(VerifiedJws { header: jws.header_bytes().to_vec(), payload: payload.bytes().to_vec() })
    }

    /// The key selected by `kid` and `alg`, the signature verified. `tenant`: of an issuer that has many.
    pub(crate) fn verify_signature<'a>(
        &self,
        jws: &'a Jws<'_>,
        header: &Header<'_>,
        tenant: Option<&str>,
    ) -> Result<SignedPayload<'a>, InvalidToken> {
        let mut candidates = self.candidates(header).filter(|key| key.serves(tenant)).take(MAX_CANDIDATES).peekable();
        if candidates.peek().is_none() {
            return Err(InvalidToken::UnknownKey { kid: header.kid.as_deref().map(str::to_owned) });
        }
        candidates.find_map(|key| key.verify(jws)).ok_or(InvalidToken::Signature)
    }

    fn candidates<'a>(&'a self, header: &'a Header<'_>) -> impl Iterator<Item = &'a Arc<Jwk>> {
        self.keys
            .iter()
            .filter(|key| key.algorithm == header.algorithm)
            .filter(|key| header.kid.is_none() || key.kid.as_deref() == header.kid.as_deref())
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| (key.kid.as_deref(), key.algorithm));
        formatter.debug_struct("Jwks").field("keys", &keys.collect::<Vec<_>>()).field("ignored", &self.ignored).finish()
    }
}

/// The decoded parts of a JWS whose signature [`Jwks::verify`] verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedJws {
    /// The JOSE header: JSON (RFC 7515 §4).
    pub header: Vec<u8>,
    /// The payload: any bytes.
    pub payload: Vec<u8>,
}
