//! [`DpopProof`]: a proof that was accepted.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderValue, Method};
use serde_json::Value;

use super::request::{HEADER, ProofRequest};
use crate::clock::Now;

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
    /// The path of the request, as the checks saw it.
    path: Box<str>,
    proof: HeaderValue,
    jkt: [u8; 32],
    /// Uptime of the check.
    at: Duration,
    claims: OnceLock<Value>,
}

/// How long an inner layer accepts what an outer one has checked: as long as a proof can be
/// accepted at most. A queue between the layers may delay the request.
const HOLDS_FOR: Duration = Duration::from_secs(300);

impl DpopProof {
    pub(crate) fn new(
        request: &ProofRequest<'_>,
        proof: &HeaderValue,
        jkt: [u8; 32],
        now: Now,
    ) -> Self {
        Self(Arc::new(Inner {
            method: request.method.clone(),
            path: (*request.path).into(),
            proof: proof.clone(),
            jkt,
            at: now.uptime,
            claims: OnceLock::new(),
        }))
    }

    /// Returns a claim of the proof.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.0.claims.get_or_init(|| read(&self.0.proof).unwrap_or_default()).get(name)
    }

    /// Returns the thumbprint of the client's key (RFC 7638), as `cnf.jkt` has it.
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.jkt)
    }

    /// Whether a request is the one that was checked: it has this proof, the method and the path,
    /// whose beginning a router may have removed since. Otherwise, an application that keeps an
    /// `AccessToken` would make the proof good for other requests.
    pub(crate) fn is_of(&self, request: &Parts, path: &str, now: Now) -> bool {
        let Inner { method, path: checked, proof, at, .. } = &*self.0;
        let mut headers = request.headers.get_all(HEADER).iter();
        let has_proof = headers.next() == Some(proof) && headers.next().is_none();
        let has_path = &**checked == path
            || path == "/" && !checked.is_empty()
            || path.starts_with('/') && checked.ends_with(path);
        has_proof
            && has_path
            && request.method == *method
            && now.uptime.saturating_sub(*at) <= HOLDS_FOR
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
