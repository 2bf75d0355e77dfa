//! [`DpopProof`]: a proof that was accepted.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderValue, Method};
use serde_json::Value;

use super::check::HEADER;

/// The *accepted* DPoP proof of a request (RFC 9449 §4): its client has the key that the access
/// token is bound to. With the feature `axum`, it is an extractor;
/// [`AccessToken::dpop_proof`](crate::AccessToken::dpop_proof) returns it elsewhere.
///
/// Only claims that the client signed beyond those of RFC 9449 are of use to a handler, such as a
/// hash of the body. Its `Debug` output does not contain the proof.
///
/// ```
/// use portcullis::AccessToken;
///
/// fn digest(token: &AccessToken) -> Option<&str> {
///     token.dpop_proof()?.claim("content_digest")?.as_str()
/// }
/// # let _ = digest;
/// ```
#[derive(Clone)]
pub struct DpopProof(Arc<Inner>);

struct Inner {
    method: Method,
    proof: HeaderValue,
    jkt: [u8; 32],
    claims: OnceLock<Value>,
}

impl DpopProof {
    pub(crate) fn new(method: &Method, proof: &HeaderValue, jkt: [u8; 32]) -> Self {
        let (method, proof) = (method.clone(), proof.clone());
        Self(Arc::new(Inner { method, proof, jkt, claims: OnceLock::new() }))
    }

    /// Returns a claim of the proof.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.0.claims.get_or_init(|| read(&self.0.proof).unwrap_or_default()).get(name)
    }

    /// Returns the thumbprint of the client's key (RFC 7638), as `cnf.jkt` has it.
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.jkt)
    }

    /// Whether a request still has this proof and the method that was checked. Its path may have
    /// been shortened by a router since.
    pub(crate) fn is_of(&self, request: &Parts) -> bool {
        let mut headers = request.headers.get_all(HEADER).iter();
        let is_same = headers.next() == Some(&self.0.proof) && headers.next().is_none();
        is_same && request.method == self.0.method
    }
}

fn read(proof: &HeaderValue) -> Option<Value> {
    let payload = proof.to_str().ok()?.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

impl fmt::Debug for DpopProof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DpopProof").finish_non_exhaustive()
    }
}
