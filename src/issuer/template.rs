//! One issuer for many tenants: an `iss` that contains the tenant's identifier, as in Microsoft
//! Entra ID.

use std::collections::BTreeSet;

use crate::error::{ConfigError, InvalidToken};
use crate::token::tenant::{PLACEHOLDER, is_tenant};

/// The parts of `iss` before and after the tenant, and the trusted tenants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    before: String,
    after: String,
    /// `None` trusts every tenant.
    tenants: Option<BTreeSet<String>>,
}

impl Template {
    pub(crate) fn new(iss: &str) -> Result<Self, ConfigError> {
        match iss.split_once(PLACEHOLDER) {
            Some((before, after)) if !after.contains(PLACEHOLDER) => {
                Ok(Self { before: before.to_owned(), after: after.to_owned(), tenants: None })
            }
            _ => Err(ConfigError::new(format!(
                "issuer template {iss:?}: expected {PLACEHOLDER} in it exactly once"
            ))),
        }
    }

    pub(crate) fn only(&mut self, tenants: Vec<String>) -> Result<(), ConfigError> {
        if let Some(odd) = tenants.iter().find(|tenant| !is_tenant(tenant)) {
            return Err(ConfigError::new(format!("tenant {odd:?}: expected a GUID in lowercase")));
        }
        self.tenants = Some(tenants.into_iter().collect());
        Ok(())
    }

    /// The tenant in `iss`, if `iss` matches the template and the tenant is trusted.
    pub(crate) fn tenant<'a>(&self, iss: &'a str) -> Option<&'a str> {
        let tenant = iss.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let trusted = || self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant));
        (is_tenant(tenant) && trusted()).then_some(tenant)
    }

    /// Returns the tenant, and an error unless `tid` is the tenant in `iss`: Microsoft's rule for
    /// issuers with many tenants.
    pub(crate) fn check<'a>(
        &self,
        iss: &'a str,
        tid: Option<&str>,
    ) -> Result<&'a str, InvalidToken> {
        let rejection = || InvalidToken::TenantMismatch { presented: tid.map(str::to_owned) };
        self.tenant(iss).filter(|tenant| tid == Some(tenant)).ok_or_else(rejection)
    }
}
