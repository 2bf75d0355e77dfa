//! What a proof is compared with, of the request that carries it.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};

use super::target::Base;
use crate::error::ProofError;

/// The header with the proof (RFC 9449 §4.1).
pub(super) const HEADER: HeaderName = HeaderName::from_static("dpop");

/// The parts of a request that the checks of its proof need.
pub(crate) struct ProofRequest<'a> {
    /// The only header `DPoP`. `None` if the request has none.
    pub(crate) proof: Option<&'a HeaderValue>,
    pub(crate) method: &'a Method,
    /// As its client wrote it.
    pub(crate) path: Cow<'a, str>,
    /// How the URL begins, if its host is not configured.
    pub(crate) base: Option<Base>,
}

/// The only header `DPoP` of a request, if it has one.
pub(crate) fn only_proof(request: &Parts) -> Result<Option<&HeaderValue>, ProofError> {
    let mut headers = request.headers.get_all(HEADER).iter();
    match (headers.next(), headers.next()) {
        (_, Some(_)) => Err(ProofError::Repeated),
        (proof, None) => Ok(proof),
    }
}
