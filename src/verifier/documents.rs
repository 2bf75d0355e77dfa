//! Signed documents of issuers that are not access tokens: logout tokens, security events.

use std::sync::Arc;
use std::time::Duration;

use super::Verifier;
use crate::clock::Now;
use crate::error::{Error, InvalidToken};
use crate::issuer::active::{ActiveIssuer, SignatureCheck};
use crate::issuer::resolution::Resolution;
use crate::revocation::Source;
use crate::token::claims::{NotAnIssuer, issuer_of};
use crate::token::jws::Jws;

/// A document whose signature was verified with the keys of the issuer that it names.
pub(crate) struct VerifiedDocument {
    pub(crate) iss: Arc<str>,
    /// The issuer of the document.
    pub(crate) issuer: Arc<ActiveIssuer>,
    /// Whether the issuer is configured, or of a lookup.
    pub(crate) source: Source,
    /// The payload: one JSON object, in UTF-8.
    pub(crate) payload: String,
    pub(crate) leeway: Duration,
    pub(crate) now: Now,
}

impl VerifiedDocument {
    /// Whether tokens of its issuer may have this `iss`.
    pub(crate) fn is_own(&self, iss: &str) -> bool {
        *self.iss == *iss
            || self.issuer.names.iter().flat_map(|names| &**names).any(|name| **name == *iss)
    }
}

/// Why a document is not used.
#[derive(Debug)]
pub(crate) enum DocumentError {
    /// It is not a JWT of the expected form or type.
    Malformed,
    UnknownIssuer,
    /// No key of the issuer verifies it.
    BadSignature,
    /// The keys or the lookup of the issuer are unavailable, or the keys were not fetched again
    /// although the document may be signed with a new one.
    Unavailable,
}

impl Verifier {
    /// Verifies a document. `is_type`: whether the header's `typ` is the expected one.
    pub(crate) async fn verify_document(
        &self,
        jwt: &str,
        is_type: impl Fn(Option<&str>) -> bool,
    ) -> Result<VerifiedDocument, DocumentError> {
        let malformed = |_: InvalidToken| DocumentError::Malformed;
        let jws = Jws::split(jwt).map_err(malformed)?;
        jws.check_unpadded().map_err(malformed)?;
        let header = jws.header().map_err(malformed)?;
        if !is_type(header.typ.as_deref()) {
            return Err(DocumentError::Malformed);
        }
        let text = std::str::from_utf8(jws.unverified_payload());
        let text = text.map_err(|_| DocumentError::Malformed)?;
        let iss = issuer_of(text).map_err(|NotAnIssuer| DocumentError::Malformed)?;
        let failed = |error| match error {
            Error::InvalidToken(_) => DocumentError::UnknownIssuer,
            _ => DocumentError::Unavailable,
        };
        let resolved = match self.0.issuers.find(&iss, self.0.clock.now()).map_err(failed)? {
            Resolution::Ready(resolved) => resolved,
            Resolution::Pending(lookup) => lookup.await.map_err(failed)?,
        };
        let issuer = &resolved.issuer;
        let source = if resolved.looked_up_as().is_some() || issuer.config.template.is_some() {
            Source::Tenant
        } else {
            Source::Trusted
        };
        // The key of one tenant must not sign for another one.
        let tenant = issuer.tenant_of(&iss);
        issuer.check_algorithm(&header).map_err(|_| DocumentError::BadSignature)?;
        let mut waits = 0;
        loop {
            let now = self.0.clock.now();
            match issuer.verify_signature(&jws, &header, tenant, waits, now) {
                Ok(SignatureCheck::Ready(..)) => {
                    let (payload, leeway) = (text.to_owned(), issuer.config.leeway);
                    let iss = issuer.config.name(&iss);
                    let issuer = Arc::clone(issuer);
                    return Ok(VerifiedDocument { iss, issuer, source, payload, leeway, now });
                }
                Ok(SignatureCheck::Pending(fetching)) => {
                    fetching.finished().await;
                    waits += 1;
                }
                // Forged tokens can spend the budget of fetches right after a rotation. Whether the
                // issuer has this key is then not known, and the sender is to try again: after a
                // 400 it would not, and the revocation would be lost.
                Err(Error::InvalidToken(InvalidToken::UnknownKey { .. }))
                    if waits == 0 && issuer.may_fetch_key(header.kid.as_deref()) =>
                {
                    return Err(DocumentError::Unavailable);
                }
                Err(Error::InvalidToken(_)) => return Err(DocumentError::BadSignature),
                Err(_) => return Err(DocumentError::Unavailable),
            }
        }
    }
}
