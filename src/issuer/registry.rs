//! Finds the issuer for an `iss`, among the configured and the resolved issuers.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use reqwest::Client;

use super::active::{ActiveIssuer, Origin};
use super::issuers::Issuers;
use super::lookup::{CachedIssuer, ResolvedIssuers, is_plausible};
use crate::clock::{Clock, Now};
use crate::error::{ConfigError, ENTRA_V1, Error, InvalidToken};

/// The [`Issuers`] of a verifier at run time.
pub(crate) struct IssuerRegistry {
    listed: HashMap<Arc<str>, Arc<ActiveIssuer>>,
    /// The configured issuers that serve many tenants.
    templates: Vec<Arc<ActiveIssuer>>,
    looked_up: Option<Arc<ResolvedIssuers>>,
}

/// An issuer, or the lookup to wait for.
pub(crate) enum Resolution {
    Ready(ResolvedIssuer),
    Pending(LookupFuture),
}

/// A trusted issuer. Unless it is configured, with the cache entry of the lookup's answer.
#[derive(Clone)]
pub(crate) struct ResolvedIssuer {
    pub(crate) issuer: Arc<ActiveIssuer>,
    kept: Option<Arc<CachedIssuer>>,
}

impl ResolvedIssuer {
    fn listed(issuer: &Arc<ActiveIssuer>) -> Self {
        Self { issuer: Arc::clone(issuer), kept: None }
    }

    /// Whether the issuer is configured, and so trusted for the lifetime of the verifier.
    pub(crate) fn is_listed(&self) -> bool {
        self.kept.is_none()
    }

    pub(super) fn looked_up(kept: Arc<CachedIssuer>) -> Self {
        Self { issuer: Arc::clone(&kept.issuer), kept: Some(kept) }
    }
}

pub(crate) type LookupFuture = Pin<Box<dyn Future<Output = Result<ResolvedIssuer, Error>> + Send>>;

impl IssuerRegistry {
    /// `guarded` returns the client for resolved issuers, which does not connect to private
    /// addresses.
    pub(crate) fn new(
        issuers: Issuers,
        client: impl Fn() -> Result<Client, ConfigError>,
        guarded: impl FnOnce() -> Result<Client, ConfigError>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        if let Some(setting) = issuers.unused {
            return Err(ConfigError::new(format!(
                "{setting}: expected `Issuers::lookup` or `lookup_async`, found configured issuers only"
            )));
        }
        let (mut listed, mut templates) = (HashMap::new(), Vec::new());
        for config in issuers.listed {
            let issuer = Arc::new(ActiveIssuer::new(config, Origin::Listed, &client, &clock)?);
            if issuer.config.template.is_some() {
                templates.push(Arc::clone(&issuer));
            }
            listed.extend(issuer.config.names().map(|iss| (Arc::clone(iss), Arc::clone(&issuer))));
        }
        let looked_up = issuers
            .lookup
            .map(|lookup| ResolvedIssuers::new(lookup, &client, guarded, clock))
            .transpose()?;
        Ok(Self { listed, templates, looked_up })
    }

    /// The configured issuers and the cached resolved issuers.
    pub(crate) fn known(&self) -> Vec<Arc<ActiveIssuer>> {
        let kept = self.looked_up.iter().flat_map(|looked_up| looked_up.all());
        // An issuer may be cached under several names.
        let mut seen = HashSet::new();
        self.listed()
            .into_iter()
            .chain(kept)
            .filter(|issuer| seen.insert(Arc::as_ptr(issuer)))
            .collect()
    }

    pub(crate) fn has_lookup(&self) -> bool {
        self.looked_up.is_some()
    }

    /// The configured issuers.
    pub(crate) fn listed(&self) -> Vec<Arc<ActiveIssuer>> {
        // Skip aliases.
        let listed = self.listed.iter().filter(|(iss, issuer)| ***iss == *issuer.config.iss);
        listed.map(|(_, issuer)| Arc::clone(issuer)).collect()
    }

    /// Records that a token of this issuer was verified.
    pub(crate) fn verified(&self, known: &ResolvedIssuer) {
        if let (Some(looked_up), Some(kept)) = (&self.looked_up, &known.kept)
            && !kept.is_established()
        {
            looked_up.promote(kept);
        }
    }

    fn template(&self, iss: &str) -> Option<&Arc<ActiveIssuer>> {
        self.templates.iter().find(|issuer| {
            issuer.config.template.as_ref().is_some_and(|template| template.tenant(iss).is_some())
        })
    }

    /// The configured or cached issuer with this `iss`. Does not call the lookup.
    pub(crate) fn known_by(&self, iss: &str) -> Option<Arc<ActiveIssuer>> {
        let kept = || self.looked_up.as_ref()?.kept(iss).map(|kept| Arc::clone(&kept.issuer));
        self.listed.get(iss).or_else(|| self.template(iss)).cloned().or_else(kept)
    }

    /// The trusted issuer with this `iss`, or the lookup to wait for. Nothing is fetched for an
    /// untrusted issuer.
    pub(crate) fn find(&self, iss: &str, now: Now) -> Result<Resolution, Error> {
        if let Some(issuer) = self.listed.get(iss).or_else(|| self.template(iss)) {
            return Ok(Resolution::Ready(ResolvedIssuer::listed(issuer)));
        }
        match &self.looked_up {
            Some(looked_up) if is_plausible(iss) => looked_up.find(iss, now),
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
        let listed = |name: &str| self.listed.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let other = iss.strip_suffix('/').map_or_else(|| format!("{iss}/"), str::to_owned);
        let entra = || {
            let tenant = iss.strip_prefix(ENTRA_V1)?.trim_end_matches('/');
            let version_2 = format!("https://login.microsoftonline.com/{tenant}/v2.0");
            listed(&version_2).or_else(|| self.template(&version_2).map(|_| version_2.into()))
        };
        listed(&other).or_else(entra)
    }

    /// Drops the cached state of the issuer with this name: everything about a resolved issuer, the
    /// keys of a configured one. Returns whether there was such an issuer.
    pub(crate) fn forget(&self, iss: &str) -> bool {
        match self.listed.get(iss).or_else(|| self.template(iss)) {
            Some(issuer) => {
                issuer.forget_keys();
                true
            }
            None => self.looked_up.as_ref().is_some_and(|looked_up| looked_up.forget(iss)),
        }
    }
}
