//! RFC 7523 §3: the assertions of `private_key_jwt`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::algorithm::Algorithm;
use crate::clock::Now;
use crate::crypto;
use crate::error::{ConfigError, FetchError};
use crate::keys::pem;
use crate::keys::signer::Signer;

/// How long an assertion is valid: enough for clocks that differ, and for the way to the issuer.
const LIFETIME: Duration = Duration::from_secs(60);

/// Signs assertions. Each is used once (OpenID Connect Core §9): many servers reject a `jti` that
/// they have seen. An RSA signature takes a millisecond, and a question about a token takes longer.
pub(super) struct AssertionSigner {
    client_id: String,
    signer: Signer,
    key_id: Option<String>,
}

impl AssertionSigner {
    pub(super) fn new(
        client_id: String,
        algorithm: Algorithm,
        pem: &[u8],
        key_id: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(pem).unwrap_or_default();
        let signer = pem::blocks(text)
            .next()
            .and_then(pem::private_key)
            .and_then(|key| Signer::new(&key, algorithm));
        let Some(signer) = signer else {
            return Err(ConfigError::new(format!(
                "private key: expected one in PEM, PKCS #8 or PKCS #1, that can sign with {algorithm}"
            )));
        };
        let key_id = key_id.map(str::to_owned);
        Ok(Self { client_id, signer, key_id })
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.client_id == other.client_id
            && self.key_id == other.key_id
            && self.signer.is_same_as(&other.signer)
    }

    /// Returns a new assertion for this issuer.
    pub(super) fn assertion(&self, iss: &str, now: Now) -> Result<String, FetchError> {
        let issued = now.unix.as_secs();
        let mut header = json!({ "alg": self.signer.algorithm().name(), "typ": "JWT" });
        if let (Some(key_id), Some(header)) = (&self.key_id, header.as_object_mut()) {
            header.insert("kid".to_owned(), key_id.as_str().into());
        }
        let failed = |what: &str| FetchError::Credentials(Arc::from(Box::from(what)));
        let jti: [u8; 16] = crypto::random().ok_or_else(|| failed("no random number"))?;
        // The issuer alone as audience: with another one, a server could use the assertion at the
        // issuer (RFC 7523bis).
        let claims = json!({
            "iss": self.client_id, "sub": self.client_id, "aud": iss, "iat": issued,
            "exp": issued.saturating_add(LIFETIME.as_secs()), "jti": URL_SAFE_NO_PAD.encode(jti),
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature =
            self.signer.sign(message.as_bytes()).ok_or_else(|| failed("signing failed"))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
