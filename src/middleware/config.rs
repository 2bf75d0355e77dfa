//! What one route requires, and how it rejects requests.

use std::sync::{Arc, OnceLock};

use super::authorization::Authorization;
use super::challenge::{ChallengeParameters, Challenges};
use super::resource_metadata::ResourceMetadata;
use crate::rule::Rule;
use crate::token_source::{TokenLocation, TokenSource};
use crate::verifier::Verifier;

/// What one route requires, and how it rejects requests.
///
/// Shared by a layer, its clones and all services that they create, so that creating a service only
/// clones an `Arc`: some routers create one for each request.
pub(crate) struct ProtectConfig<A> {
    pub(crate) verifier: Verifier,
    pub(crate) rule: Rule,
    pub(crate) realm: Arc<str>,
    pub(crate) sources: Arc<[TokenSource]>,
    pub(crate) policy: TokenPolicy,
    /// Checks of the application, after the rule.
    pub(crate) authorization: Authorization,
    pub(crate) passes_preflight: bool,
    pub(crate) has_challenge: bool,
    /// What challenges refer to.
    pub(crate) resource_metadata: Option<ResourceMetadata>,
    /// Built from `realm` and `rule` when the route first rejects a request.
    pub(crate) challenges: OnceLock<Challenges>,
    pub(crate) answer: Arc<A>,
}

impl<A> ProtectConfig<A> {
    /// Returns the same configuration with another way to build rejections.
    pub(crate) fn answering<B>(&self, answer: Arc<B>) -> ProtectConfig<B> {
        ProtectConfig {
            verifier: self.verifier.clone(),
            rule: self.rule.clone(),
            realm: Arc::clone(&self.realm),
            sources: Arc::clone(&self.sources),
            policy: self.policy,
            authorization: self.authorization.clone(),
            passes_preflight: self.passes_preflight,
            has_challenge: self.has_challenge,
            resource_metadata: self.resource_metadata.clone(),
            challenges: OnceLock::new(),
            answer,
        }
    }

    pub(crate) fn challenges(&self) -> &Challenges {
        self.challenges.get_or_init(|| self.challenges_for(&self.rule))
    }

    /// Builds the challenges for another rule than that of the route.
    pub(crate) fn challenges_for(&self, rule: &Rule) -> Challenges {
        let challenges =
            Challenges::new(self.challenge_parameters(), &rule.scopes(), &rule.step_up());
        if self.has_challenge { challenges } else { challenges.off() }
    }

    pub(super) fn challenge_parameters(&self) -> ChallengeParameters<'_> {
        // A client that finds the metadata gets a token and sends it in `Authorization`.
        let reads_header = self
            .sources
            .iter()
            .any(|TokenSource(location)| matches!(location, TokenLocation::Authorization));
        ChallengeParameters {
            realm: &self.realm,
            resource_metadata: self.resource_metadata.as_ref().filter(|_| reads_header),
            dpop: self.verifier.bindings().dpop.as_ref().filter(|_| reads_header),
        }
    }
}

/// Whether a request needs a token. Envoy's JWT filter offers the same choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TokenPolicy {
    Required,
    /// A request without a token is anonymous.
    Optional,
    /// A request without a token, or with an invalid one, is anonymous.
    IgnoreInvalid,
}
