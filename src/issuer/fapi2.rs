//! [`Issuer::fapi2`]: the FAPI 2.0 Security Profile for resource servers.

use std::borrow::Cow;
use std::time::Duration;

use super::{Issuer, KeySource};
use crate::algorithm::Algorithm;
use crate::error::ConfigError;
use crate::introspection::JwtPolicy;
use crate::keys::url::PlainHttp;

/// The algorithms of tokens and proofs (FAPI 2.0 Security Profile §5.4.1).
pub(crate) const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// Tokens that live this long need no revocation.
const SHORT_LIFETIME: Duration = Duration::from_secs(600);

/// What a verifier has beside its issuers.
#[derive(Clone, Debug)]
pub(crate) struct VerifierSettings {
    /// The algorithms of DPoP proofs, if DPoP is configured.
    pub(crate) proof_algorithms: Option<Vec<Algorithm>>,
    pub(crate) has_certificates: bool,
    pub(crate) has_revocations: bool,
}

impl Issuer {
    /// Requires what the FAPI 2.0 Security Profile (§5.3.3) asks of a resource server:
    ///
    /// - Tokens are in the header `Authorization` only.
    /// - Tokens and DPoP proofs are signed with PS256, ES256 or EdDSA. Of the algorithms that are
    ///   configured before, the others are removed.
    /// - Keys are fetched over TLS, except on loopback.
    /// - Tokens are bound to a key or a certificate of their client, and the request proves that:
    ///   [`dpop`](crate::VerifierBuilder::dpop),
    ///   [`client_certificates`](crate::VerifierBuilder::client_certificates), or both.
    /// - A token can be revoked: [`introspection`](Self::introspection) of its JWTs,
    ///   [`revocations`](crate::VerifierBuilder::revocations), required status lists (feature
    ///   `status-list`), or a [`max_token_age`](Self::max_token_age) of at most 10 minutes.
    ///
    /// [`VerifierBuilder::build`](crate::VerifierBuilder::build) returns an error that names what
    /// is missing. An issuer that a lookup returns is not trusted if something is missing. TLS is
    /// left to the server (BCP 195).
    pub fn fapi2(mut self) -> Self {
        let allowed: Vec<_> =
            self.algorithms.iter().copied().filter(|one| ALGORITHMS.contains(one)).collect();
        // Otherwise, the error names the algorithms that are configured.
        if !allowed.is_empty() {
            self.algorithms = Cow::Owned(allowed);
        }
        self.is_fapi2 = true;
        self
    }

    /// Returns an error if something that FAPI 2.0 asks for is missing.
    pub(crate) fn check_fapi2(&self, settings: &VerifierSettings) -> Result<(), ConfigError> {
        if !self.is_fapi2 {
            return Ok(());
        }
        let missing = |expected: String| {
            Err(ConfigError::new(format!("FAPI 2.0 issuer {:?}: expected {expected}", self.iss)))
        };
        let other = |algorithms: &[Algorithm]| {
            algorithms.iter().copied().find(|one| !ALGORITHMS.contains(one))
        };
        if self.token_source.is_some() {
            return missing("tokens in `Authorization`, found another location".to_owned());
        }
        if let KeySource::Secret(_) = self.key_source {
            return missing("public keys, found a shared secret".to_owned());
        }
        if self.plain_http == PlainHttp::Anywhere {
            return missing("`https`, found `danger_allow_http`".to_owned());
        }
        if let Some(other) = other(&self.algorithms) {
            return missing(format!("only PS256, ES256 or EdDSA in `algorithms`, found {other}"));
        }
        if settings.proof_algorithms.is_none() && !settings.has_certificates {
            return missing(
                "`VerifierBuilder::dpop` or `VerifierBuilder::client_certificates`, found neither"
                    .to_owned(),
            );
        }
        if let Some(other) = settings.proof_algorithms.as_deref().and_then(other) {
            return missing(format!(
                "only PS256, ES256 or EdDSA in `Dpop::algorithms`, found {other}"
            ));
        }
        #[cfg(feature = "status-list")]
        let has_status_lists = self.status_lists.as_ref().is_some_and(|lists| lists.is_required);
        #[cfg(not(feature = "status-list"))]
        let has_status_lists = false;
        let is_short = self.max_token_age.is_some_and(|age| age <= SHORT_LIFETIME);
        // Otherwise, the issuer is not asked about its JWTs.
        let asks = self.introspection.as_ref().is_some_and(|asked| asked.jwts != JwtPolicy::Verify);
        if !asks && !settings.has_revocations && !has_status_lists && !is_short {
            return missing(
                "`Introspection::jwts_too` or `instead_of_keys`, `VerifierBuilder::revocations`, `StatusLists::required` (feature `status-list`), or a `max_token_age` of at most 10 minutes, found none of them"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
