//! What one route asks for, and how it refuses.

use std::sync::{Arc, OnceLock};

use super::challenge::Challenges;
use crate::rule::Rule;
use crate::token_source::TokenSource;
use crate::verifier::Verifier;

/// What one route asks for, and how it says no. Shared by a layer, its clones and all services that they made, so that making
/// a service costs nothing: some routers make one for each request.
pub(crate) struct ProtectConfig<A> {
    pub(crate) verifier: Verifier,
    pub(crate) rule: Rule,
    pub(crate) realm: Arc<str>,
    pub(crate) sources: Arc<[TokenSource]>,
    pub(crate) policy: TokenPolicy,
    pub(crate) passes_preflight: bool,
    pub(crate) has_challenge: bool,
    /// Of `realm` and `rule`, once they are needed.
    pub(crate) challenges: OnceLock<Challenges>,
    pub(crate) answer: Arc<A>,
}

impl<A> ProtectConfig<A> {
    /// The same, with another way to answer.
    pub(crate) fn answering<B>(&self, answer: Arc<B>) -> ProtectConfig<B> {
        ProtectConfig {
            verifier: self.verifier.clone(),
            rule: self.rule.clone(),
            realm: Arc::clone(&self.realm),
            sources: Arc::clone(&self.sources),
            policy: self.policy,
            passes_preflight: self.passes_preflight,
            has_challenge: self.has_challenge,
            challenges: OnceLock::new(),
            answer,
        }
    }

    pub(super) fn challenges(&self) -> &Challenges {
        self.challenges.get_or_init(|| {
            let challenges =
                Challenges::new(&self.realm, &self.rule.scopes(), &self.rule.step_up());
            if self.has_challenge { challenges } else { challenges.off() }
        })
    }
}

/// Whether a token is needed, as Envoy's JWT filter has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TokenPolicy {
    Required,
    /// Without one, nobody.
    Optional,
    /// With a bad one, too.
    IgnoreInvalid,
}
