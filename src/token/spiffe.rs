//! SPIFFE: the names of workloads and of trust domains (SPIFFE-ID §2), and which trust domain
//! issued a JWT-SVID.

use std::sync::Arc;

use crate::error::{ConfigError, InvalidToken};

const SCHEME: &str = "spiffe://";

/// Maximum length, in bytes, of the name of a trust domain (SPIFFE-ID §2.3).
const MAX_NAME_BYTES: usize = 255;

/// Maximum length, in bytes, of a SPIFFE ID (SPIFFE-ID §2.3).
const MAX_ID_BYTES: usize = 2048;

/// A trust domain, by its ID: `spiffe://example.org`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Checks the name (SPIFFE-ID §2.1). It has one spelling, so that IDs are compared byte by
    /// byte: lower case, without port and user information.
    pub(crate) fn new(name: &str) -> Result<Self, ConfigError> {
        let is_plain = |byte: u8| !byte.is_ascii_uppercase() && is_name_byte(byte);
        if !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_plain) {
            Ok(Self(format!("{SCHEME}{name}").into()))
        } else {
            Err(ConfigError::new(format!(
                "trust domain {name:?}: expected 1 to {MAX_NAME_BYTES} of the characters a-z, 0-9, `.`, `-` and `_`, without `{SCHEME}`"
            )))
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.0
    }

    /// Whether this is the SPIFFE ID of a workload in this trust domain. The ID of the trust domain
    /// itself, without a path, names no workload.
    pub(crate) fn contains(&self, id: &str) -> bool {
        id.len() <= MAX_ID_BYTES
            && id
                .strip_prefix(&*self.0)
                .and_then(|path| path.strip_prefix('/'))
                .is_some_and(|path| path.split('/').all(is_segment))
    }
}

/// A path segment (SPIFFE-ID §2.2): not empty, not relative, and not percent-encoded, so that each
/// ID has one spelling.
fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// The configured trust domains. Only their tokens may have no `iss`: `sub` names the issuer.
#[derive(Debug, Default)]
pub(crate) struct TrustDomains(Vec<TrustDomain>);

impl TrustDomains {
    pub(crate) fn new(domains: impl IntoIterator<Item = TrustDomain>) -> Self {
        Self(domains.into_iter().collect())
    }

    /// The ID of the trust domain that the subject of a token without `iss` is in. It may only be
    /// used to find the issuer, whose keys then verify the signature.
    pub(crate) fn issuer_of(&self, subject: Option<&str>) -> Result<&str, InvalidToken> {
        if self.0.is_empty() {
            return Err(InvalidToken::MissingClaim("iss"));
        }
        let subject = subject.ok_or(InvalidToken::MissingClaim("sub"))?;
        let domain = self.0.iter().find(|domain| domain.contains(subject));
        domain.map(TrustDomain::id).ok_or_else(|| InvalidToken::ClaimValue {
            claim: "sub".to_owned(),
            expected: "a SPIFFE ID in a configured trust domain, as there is no `iss`".to_owned(),
        })
    }
}
