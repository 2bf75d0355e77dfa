//! Finds the issuer for an `iss`, among the configured and the resolved issuers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::active::{ActiveIssuer, Provenance};
use super::fapi2::VerifierSettings;
use super::introspecting::IntrospectingIssuers;
use super::issuers::Issuers;
use super::lookup::{ResolvedIssuers, is_plausible};
use super::resolution::{Resolution, ResolvedIssuer};
use crate::api_key::keys::ApiKeys;
use crate::clock::{Clock, Now};
use crate::error::{ConfigError, ENTRA_V1, Error, InvalidToken};
use crate::http_client::HttpClients;
use crate::token::spiffe::TrustDomains;

/// The [`Issuers`] of a verifier at run time.
pub(crate) struct IssuerRegistry {
    configured: HashMap<Arc<str>, Arc<ActiveIssuer>>,
    /// The configured issuers that serve many tenants.
    templates: Vec<Arc<ActiveIssuer>>,
    /// The configured issuers whose tokens may have no `iss`.
    trust_domains: TrustDomains,
    resolved: Option<Arc<ResolvedIssuers>>,
    /// The configured issuers that are asked about opaque tokens.
    introspecting: IntrospectingIssuers,
}

impl IssuerRegistry {
    /// `reserved`: a name that no issuer may have.
    pub(crate) fn new(
        issuers: Issuers,
        reserved: Option<Arc<str>>,
        clients: HttpClients,
        clock: Clock,
        settings: VerifierSettings,
    ) -> Result<Self, ConfigError> {
        if let Some(setting) = issuers.unused {
            return Err(ConfigError::new(format!(
                "{setting}: expected `Issuers::lookup` or `lookup_async`, found configured issuers only"
            )));
        }
        let clients = Arc::new(clients);
        let trust_domains = TrustDomains::new(
            issuers.configured.iter().filter_map(|config| config.profile.trust_domain.clone()),
        );
        let (mut configured, mut templates) = (HashMap::new(), Vec::new());
        let mut introspecting = Vec::new();
        for config in issuers.configured {
            config.check_fapi2(&settings)?;
            let issuer =
                Arc::new(ActiveIssuer::new(config, Provenance::Configured, &clients, &clock)?);
            if issuer.config.template.is_some() {
                templates.push(Arc::clone(&issuer));
            }
            if issuer.introspection.is_some() {
                introspecting.push(Arc::clone(&issuer));
            }
            configured
                .extend(issuer.config.names().map(|iss| (Arc::clone(iss), Arc::clone(&issuer))));
        }
        let resolved = issuers
            .lookup
            .map(|lookup| ResolvedIssuers::new(lookup, reserved, clients, clock, settings))
            .transpose()?;
        let introspecting = IntrospectingIssuers::new(introspecting)?;
        Ok(Self { configured, templates, trust_domains, resolved, introspecting })
    }

    /// Returns an error if the API keys have the name of an issuer, so that handlers could not tell
    /// its tokens from keys, or if all opaque tokens with a prefix would be API keys.
    pub(crate) fn check_api_keys(&self, keys: &ApiKeys) -> Result<(), ConfigError> {
        let iss = keys.iss();
        if self.configured.contains_key(&iss) || self.template(&iss).is_some() {
            return Err(ConfigError::new(format!(
                "issuer of API keys {iss:?}: expected a name that is not that of a trusted issuer"
            )));
        }
        keys.prefixes().try_for_each(|prefix| self.introspecting.check_api_keys(prefix))
    }

    /// The configured trust domains, whose tokens may have no `iss`. Their IDs are names of
    /// configured issuers, so the lookup is not called for them.
    pub(crate) fn trust_domains(&self) -> &TrustDomains {
        &self.trust_domains
    }

    /// The issuer to ask about an opaque token.
    pub(crate) fn introspecting(&self, token: &str) -> Option<&Arc<ActiveIssuer>> {
        self.introspecting.find(token)
    }

    /// The configured issuers and the cached resolved issuers.
    pub(crate) fn all(&self) -> Vec<Arc<ActiveIssuer>> {
        let cached = self.resolved.iter().flat_map(|resolved| resolved.all());
        // An issuer may be cached under several names.
        let mut seen = HashSet::new();
        self.configured()
            .into_iter()
            .chain(cached)
            .filter(|issuer| seen.insert(Arc::as_ptr(issuer)))
            .collect()
    }

    pub(crate) fn has_lookup(&self) -> bool {
        self.resolved.is_some()
    }

    /// The configured issuers.
    pub(crate) fn configured(&self) -> Vec<Arc<ActiveIssuer>> {
        // Skip aliases.
        let configured =
            self.configured.iter().filter(|(iss, issuer)| ***iss == *issuer.config.iss);
        configured.map(|(_, issuer)| Arc::clone(issuer)).collect()
    }

    /// Records that a token of this issuer was verified.
    pub(crate) fn record_verified(&self, issuer: &ResolvedIssuer) {
        if let (Some(resolved), Some(cached)) = (&self.resolved, &issuer.cached)
            && !cached.is_established()
        {
            resolved.promote(cached);
        }
    }

    fn template(&self, iss: &str) -> Option<&Arc<ActiveIssuer>> {
        self.templates.iter().find(|issuer| {
            issuer.config.template.as_ref().is_some_and(|template| template.tenant(iss).is_some())
        })
    }

    /// The configured or cached issuer with this `iss`. Does not call the lookup.
    pub(crate) fn cached(&self, iss: &str) -> Option<Arc<ActiveIssuer>> {
        let cached =
            || self.resolved.as_ref()?.cached(iss).map(|cached| Arc::clone(&cached.issuer));
        self.configured.get(iss).or_else(|| self.template(iss)).cloned().or_else(cached)
    }

    /// The trusted issuer with this `iss`, or the lookup to wait for. Nothing is fetched for an
    /// untrusted issuer.
    pub(crate) fn find(&self, iss: &str, now: Now) -> Result<Resolution, Error> {
        if let Some(issuer) = self.configured.get(iss).or_else(|| self.template(iss)) {
            return Ok(Resolution::Ready(ResolvedIssuer::configured(issuer)));
        }
        match &self.resolved {
            Some(resolved) if is_plausible(iss) => resolved.find(iss, now),
            _ => Err(InvalidToken::UnknownIssuer {
                presented: iss.to_owned(),
                similar: self.similar(iss),
            }
            .into()),
        }
    }

    /// The configured issuer that was probably meant by this `iss`. Covers the most common mistakes
    /// of client and configuration: a trailing slash, and version 1.0 tokens of Entra ID.
    fn similar(&self, iss: &str) -> Option<Arc<str>> {
        let configured =
            |name: &str| self.configured.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let other = iss.strip_suffix('/').map_or_else(|| format!("{iss}/"), str::to_owned);
        let entra = || {
            let tenant = iss.strip_prefix(ENTRA_V1)?.trim_end_matches('/');
            let version_2 = format!("https://login.microsoftonline.com/{tenant}/v2.0");
            configured(&version_2).or_else(|| self.template(&version_2).map(|_| version_2.into()))
        };
        configured(&other).or_else(entra)
    }

    /// Drops the cached state of the issuer with this name: everything about a resolved issuer, the
    /// keys of a configured one. Returns whether there was such an issuer.
    pub(crate) fn forget(&self, iss: &str) -> bool {
        match self.configured.get(iss).or_else(|| self.template(iss)) {
            Some(issuer) => {
                issuer.forget_fetched();
                true
            }
            None => self.resolved.as_ref().is_some_and(|resolved| resolved.forget(iss)),
        }
    }
}
