//! Why a DPoP proof is rejected.

/// Why a DPoP proof (RFC 9449 §4.3) is rejected. It contains no part of the
/// proof.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The access token is bound to a key or sent with the scheme `DPoP`, and there is no proof.
    #[error("expected a header `DPoP` with a proof, found none")]
    Missing,
    /// The request has several headers `DPoP`.
    #[error("expected one proof, found several")]
    Repeated,
    /// The proof is not a JWT of the required form.
    #[error("expected {0}")]
    Malformed(&'static str),
    /// The proof's `alg` is not one of the accepted algorithms.
    #[error("expected one of the accepted algorithms (`Dpop::algorithms`)")]
    UnsupportedAlgorithm,
    /// The JWK in the header has private members. The client has given its key away.
    #[error("expected a public key, found a private or secret one")]
    PrivateKey,
    /// A claim is missing or has the wrong type.
    #[error("expected the claim `{0}`")]
    MissingClaim(&'static str),
    /// `htm` is not the method of the request.
    #[error("expected `htm` to be the method of the request")]
    OtherMethod,
    /// `htu` is not the URL of the request.
    #[error("expected `htu` to be the URL of the request, {expected:?}")]
    #[non_exhaustive]
    OtherUrl {
        /// What [`Dpop::new`](crate::Dpop::new) was given, followed by the path as the layer sees
        /// it, which is input of the client; at most 200 characters.
        expected: String,
    },
    /// `ath` is not the hash of the access token.
    #[error("expected `ath` to be the hash of the access token")]
    OtherToken,
    /// `iat` is not within the accepted time.
    #[error("expected `iat` to be at most {past:?} ago or {future:?} ahead")]
    #[non_exhaustive]
    WrongTime {
        /// How old a proof may be.
        past: std::time::Duration,
        /// How far ahead its time may be.
        future: std::time::Duration,
    },
    /// The nonce is missing, or is not one of this API's recent nonces.
    #[error("expected a recent nonce of this API")]
    NonceNeeded,
    /// The signature is not that of the key in the header.
    #[error("signature is invalid")]
    BadSignature,
    /// The proof was used before.
    #[error("expected a new proof, found one that was used before")]
    Used,
}

impl ProofError {
    /// The stable name of the reason, as [`Error::code`](crate::Error::code) returns it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Missing => "proof_missing",
            Self::Repeated => "proof_repeated",
            Self::Malformed(_) => "proof_malformed",
            Self::UnsupportedAlgorithm => "proof_unsupported_algorithm",
            Self::PrivateKey => "proof_private_key",
            Self::MissingClaim(_) => "proof_missing_claim",
            Self::OtherMethod => "proof_wrong_method",
            Self::OtherUrl { .. } => "proof_wrong_url",
            Self::OtherToken => "proof_wrong_token",
            Self::WrongTime { .. } => "proof_wrong_time",
            Self::NonceNeeded => "proof_nonce_needed",
            Self::BadSignature => "proof_bad_signature",
            Self::Used => "proof_used",
        }
    }
}
