//! RFC 7517 §5: key sets, parsed tolerantly, and the selection of the key for a token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::jwk::{Jwk, SetFormat, SignedPayload};
use super::pem;
use crate::algorithm::Algorithm;
use crate::error::{ConfigError, IgnoredKeyReason, InvalidToken};
use crate::token::jws::{Header, Jws};

/// Maximum number of members read from one set. The largest real sets have a few hundred keys. The
/// limit is for hostile sets, since parsing a key takes up to 0.1 ms.
const MAX_MEMBERS: usize = 500;

/// Maximum number of keys tried for one token: several keys may share a `kid`, and a token may have
/// none (RFC 7517 §4.5). Each try costs a signature verification. An RSA key over 4096 bits is
/// tried last, and no other key after it.
const MAX_CANDIDATES: usize = 4;

/// A set of verification keys (RFC 7517 §5) of one issuer.
///
/// A member that cannot be used never invalidates the set. It is skipped, and
/// [`ignored`](Self::ignored) returns the reason.
///
/// For an issuer that publishes its key set, use [`Issuer::new`](crate::Issuer::new), which fetches
/// the keys. Use `Jwks` for keys from another source, and for signed data other than access tokens
/// (see [`verify`](Self::verify)).
///
/// ```
/// use portcullis::Jwks;
///
/// let jwks = Jwks::from_json(r#"{"keys":[
///     {"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
///     {"kty":"OKP","crv":"Ed448","kid":"b","x":"…"}
/// ]}"#)?;
/// assert_eq!(jwks.len(), 1);
/// assert_eq!(jwks.ignored().len(), 1);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Jwks {
    keys: Vec<Arc<Jwk>>,
    ignored: Vec<IgnoredKeyReason>,
    /// The algorithm that the application set with `rsa_algorithm`.
    rsa: Option<Algorithm>,
    format: SetFormat,
    /// How often the publisher of a SPIFFE bundle wants it to be fetched.
    refresh_hint: Option<Duration>,
}

impl Jwks {
    /// Parses a JWK Set in JSON. RSA keys without `alg` are used with `RS256`, unless
    /// [`rsa_algorithm`](Self::rsa_algorithm) sets another algorithm.
    ///
    /// # Errors
    ///
    /// Returns an error if `json` is not a JSON object with an array `keys`, or if no key in it can
    /// be used.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::from_document(json.as_ref(), SetFormat::Jwks, "JWK Set")
    }

    /// Parses the bundle of a SPIFFE trust domain, for
    /// [`providers::spiffe`](crate::providers::spiffe): a JWK Set in which `use` is `jwt-svid` for
    /// the keys that sign JWT-SVIDs. All other keys are skipped, including the certificates of the
    /// trust domain (`x509-svid`), which never verify a JWT. RSA keys are used as in
    /// [`from_json`](Self::from_json), which skips `jwt-svid` keys.
    ///
    /// ```
    /// use portcullis::{Jwks, providers};
    ///
    /// let bundle = Jwks::from_spiffe_bundle(r#"{"spiffe_sequence":1,"spiffe_refresh_hint":300,"keys":[
    ///     {"use":"jwt-svid","kty":"EC","crv":"P-256","kid":"a",
    ///      "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    ///      "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}
    /// ]}"#)?;
    /// let issuer = providers::spiffe("example.org", "orders")?.jwks(bundle);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error under the conditions of [`from_json`](Self::from_json).
    pub fn from_spiffe_bundle(json: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::from_document(json.as_ref(), SetFormat::SpiffeBundle, "SPIFFE bundle")
    }

    fn from_document(json: &[u8], format: SetFormat, what: &str) -> Result<Self, ConfigError> {
        let set = Self::read(json, Algorithm::RS256, format).ok_or_else(|| {
            ConfigError::new(format!(
                "{what}: expected a JSON object with an array `keys` (RFC 7517 §5)"
            ))
        })?;
        if set.is_empty() {
            Err(ConfigError::new(format!(
                "{what}: expected at least one usable key, found none and ignored {:?}",
                set.ignored
            )))
        } else {
            Ok(set)
        }
    }

    /// Parses one or more public keys in PEM (RFC 7468 §13): RSA (also PKCS #1), EC on P-256, P-384
    /// or P-521 with an uncompressed point, and Ed25519.
    ///
    /// Keys in PEM have no `kid`, so each key is tried for every token, whatever the token's `kid`.
    /// At most four keys are accepted for that reason. RSA keys are used with `RS256`, unless
    /// [`rsa_algorithm`](Self::rsa_algorithm) sets another algorithm.
    ///
    /// ```
    /// use portcullis::{Issuer, Jwks};
    ///
    /// let jwks = Jwks::from_pem(
    ///     "-----BEGIN PUBLIC KEY-----\n\
    ///      MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    ///      -----END PUBLIC KEY-----\n",
    /// )?;
    /// let issuer = Issuer::new("https://issuer.example/", "https://api.example.com")?.jwks(jwks);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if `pem` contains no public key, more than four, or a block that is not a
    /// usable public key. A certificate is not accepted: extract its public key, for example with
    /// `openssl x509 -pubkey`.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let error = |found: String| {
            ConfigError::new(format!(
                "PEM: expected public keys (`BEGIN PUBLIC KEY`, `BEGIN RSA PUBLIC KEY`), found {found}"
            ))
        };
        let text = std::str::from_utf8(pem.as_ref())
            .map_err(|_| error("bytes that are not UTF-8".to_owned()))?;
        let mut jwks = Self::of(Vec::new());
        for block in pem::blocks(text).take(MAX_MEMBERS) {
            let key =
                pem::public_key(block).ok_or_else(|| error(format!("{:?}", pem::label(block))))?;
            let key = Jwk::pinned(key, Algorithm::RS256)
                .map_err(|reason| error(format!("an unusable key ({reason:?})")))?;
            jwks.keys.push(Arc::new(key));
        }
        match jwks.len() {
            0 => Err(error("none".to_owned())),
            number if number > MAX_CANDIDATES => Err(error(format!(
                "{number} keys, but only {MAX_CANDIDATES} can be tried for a token; use a JWK Set"
            ))),
            _ => Ok(jwks),
        }
    }

    /// Sets the algorithm of RSA keys that have no `alg`, for example `RS384` or `PS256` instead of
    /// `RS256`. Keys of other types are not affected: their type determines the algorithm.
    ///
    /// If an issuer with these keys is configured with [`algorithms`](crate::Issuer::algorithms),
    /// that configuration takes precedence.
    ///
    /// ```
    /// use portcullis::{Algorithm, Jwks};
    ///
    /// # let json_text = r#"{"keys":[{"kty":"OKP","crv":"Ed25519",
    /// #     "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    /// let jwks = Jwks::from_json(json_text)?.rsa_algorithm(Algorithm::PS384)?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if `algorithm` is not an RSA algorithm.
    pub fn rsa_algorithm(self, algorithm: Algorithm) -> Result<Self, ConfigError> {
        if algorithm.is_rsa() {
            Ok(Self { rsa: Some(algorithm), ..self.with_rsa_algorithm(algorithm) })
        } else {
            Err(ConfigError::new(format!(
                "rsa_algorithm {algorithm}: expected an RSA algorithm, such as RS256"
            )))
        }
    }

    /// The algorithm that the application set with [`rsa_algorithm`](Self::rsa_algorithm).
    pub(crate) fn own_rsa_algorithm(&self) -> Option<Algorithm> {
        self.rsa
    }

    /// Like [`from_json`](Self::from_json), with `rsa` as the algorithm of RSA keys without `alg`.
    /// The result may be empty. Returns `None` if `json` is not a key set.
    pub(crate) fn read(json: &[u8], rsa: Algorithm, format: SetFormat) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let members = set.get("keys")?.as_array()?;
        let mut jwks = Self { format, ..Self::of(Vec::new()) };
        if format == SetFormat::SpiffeBundle {
            let hint = set.get("spiffe_refresh_hint").and_then(Value::as_u64);
            jwks.refresh_hint = hint.map(Duration::from_secs);
        }
        for (number, member) in members.iter().enumerate() {
            if number == MAX_MEMBERS {
                jwks.ignored.push(IgnoredKeyReason::TooMany);
                break;
            }
            match Jwk::read(member, rsa, format) {
                Ok(key) => jwks.keys.push(Arc::new(key)),
                Err(reason) => jwks.ignored.push(reason),
            }
        }
        Some(jwks)
    }

    /// Creates a set of these keys.
    pub(crate) fn of(keys: Vec<Arc<Jwk>>) -> Self {
        let (format, refresh_hint) = (SetFormat::Jwks, None);
        Self { keys, ignored: Vec::new(), rsa: None, format, refresh_hint }
    }

    /// Whether these are keys of the bundle of a trust domain.
    pub(crate) fn is_spiffe_bundle(&self) -> bool {
        self.format == SetFormat::SpiffeBundle
    }

    /// How often the publisher wants the set to be fetched, if the set says so (SPIFFE Trust Domain
    /// and Bundle §4.1.2).
    pub(crate) fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// The `kid` of each key that has one.
    pub(crate) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }

    /// Whether a key has this `kid`, for any algorithm.
    pub(crate) fn has_kid(&self, kid: &str) -> bool {
        self.kids().any(|own| own == kid)
    }

    /// Returns the same keys with `rsa` as the algorithm of RSA keys without `alg`.
    pub(crate) fn with_rsa_algorithm(&self, rsa: Algorithm) -> Self {
        let mut jwks = Self { keys: Vec::new(), ignored: self.ignored.clone(), ..*self };
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
        self.len() == other.len()
            && self.keys.iter().zip(&other.keys).all(|(own, other)| Arc::ptr_eq(own, other))
    }

    /// Whether a key is for one of these algorithms.
    pub(crate) fn serves_any(&self, algorithms: &[Algorithm]) -> bool {
        self.keys.iter().any(|key| algorithms.contains(&key.algorithm))
    }

    /// Returns the number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns `true` if the set has no usable key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns why the other members of the set were skipped, with one reason per member. A final
    /// [`TooMany`](IgnoredKeyReason::TooMany) stands for all members that were not read.
    pub fn ignored(&self) -> &[IgnoredKeyReason] {
        &self.ignored
    }

    /// Verifies the signature of a compact JWS, and nothing else. Use it for signed data other than
    /// access tokens, such as webhooks, logout tokens and security event tokens. The caller has to
    /// check `typ`, claims and expiry.
    ///
    /// The key is selected by the same rules as for access tokens: each key has one algorithm,
    /// `kid` must match, symmetric keys are ignored, and a header with `crit` is rejected.
    ///
    /// ```
    /// use portcullis::Jwks;
    ///
    /// // RFC 8037 appendix A.4
    /// let jwks = Jwks::from_json(
    ///     r#"{"keys":[{"kty":"OKP","crv":"Ed25519",
    ///         "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    /// )?;
    /// let signed = jwks.verify(
    ///     "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
    ///      hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_\
    ///      MuM0KAg",
    /// )?;
    /// assert_eq!(signed.payload, b"Example of Ed25519 signing");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an [`InvalidToken`] if the JWS is malformed, if no key matches its algorithm and
    /// `kid`, or if the signature is wrong.
    pub fn verify(&self, compact: &str) -> Result<VerifiedJws, InvalidToken> {
        let jws = Jws::split(compact)?;
        jws.check_unpadded()?;
        let payload = self.verify_signature(&jws, &jws.header()?, None)?;
        Ok(VerifiedJws { header: jws.header_bytes().to_vec(), payload: payload.bytes().to_vec() })
    }

    /// Selects the key by `kid` and `alg`, and verifies the signature. `tenant`: the token's
    /// tenant, for an issuer that has many.
    pub(crate) fn verify_signature<'a>(
        &self,
        jws: &'a Jws<'_>,
        header: &Header<'_>,
        tenant: Option<&str>,
    ) -> Result<SignedPayload<'a>, InvalidToken> {
        // Keys of usual size first, so that a large key does not use up the tries of the others.
        let fitting = |is_large: bool| {
            self.candidates(header)
                .filter(move |key| key.serves(tenant) && (key.cost > 1) == is_large)
        };
        let mut cost = 0;
        let is_affordable = |key: &&Arc<Jwk>| {
            let is_affordable = cost < MAX_CANDIDATES;
            cost += key.cost;
            is_affordable
        };
        let mut candidates =
            fitting(false).chain(fitting(true)).take_while(is_affordable).peekable();
        if candidates.peek().is_none() {
            return Err(InvalidToken::UnknownKey { kid: header.kid.as_deref().map(str::to_owned) });
        }
        candidates.find_map(|key| key.verify(jws)).ok_or(InvalidToken::BadSignature)
    }

    fn candidates<'a>(&'a self, header: &'a Header<'_>) -> impl Iterator<Item = &'a Arc<Jwk>> {
        self.keys.iter().filter(|key| key.algorithm == header.algorithm).filter(|key| {
            key.any_kid || header.kid.is_none() || key.kid.as_deref() == header.kid.as_deref()
        })
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| (key.kid.as_deref(), key.algorithm));
        formatter
            .debug_struct("Jwks")
            .field("keys", &keys.collect::<Vec<_>>())
            .field("ignored", &self.ignored)
            .finish()
    }
}

/// The decoded parts of a JWS whose signature was verified by [`Jwks::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedJws {
    /// The JOSE header, in JSON (RFC 7515 §4).
    pub header: Vec<u8>,
    /// The payload, which may be any bytes.
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clone_is_the_same_set() {
        let read = |keys: &str| Jwks::from_json(format!("{{\"keys\":[{keys}]}}")).unwrap();
        let key =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let (one, two) = (read(key), read(&[key, key].join(",")));
        let first_of_two = Jwks::of(two.keys.iter().take(1).cloned().collect());
        let cases = [
            ("a clone", &two, two.clone(), true),
            ("a clone of one key", &one, one.clone(), true),
            ("the same text", &one, read(key), false),
            ("without the last key", &two, first_of_two, false),
        ];
        for (name, jwks, other, is_same) in cases {
            assert_eq!((jwks.is(&other), other.is(jwks)), (is_same, is_same), "{name}");
        }
    }
}
