//! One issuer for many tenants: an `iss` with the tenant's identifier in it, as Microsoft Entra ID has them.

use std::collections::BTreeSet;

use crate::error::{ConfigError, InvalidToken};
use crate::token::tenant::{PLACEHOLDER, is_tenant};

/// What comes before and after the tenant in `iss`, and which tenants are trusted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    before: String,
    after: String,
    /// All, if `None`.
    tenants: Option<BTreeSet<String>>,
}

impl Template {
    pub(crate) fn new(iss: &str) -> Result<Self, ConfigError> {
        match iss.split_once(PLACEHOLDER) {
            Some((before, after)) if !after.contains(PLACEHOLDER) => {
                Ok(Self { before: before.to_owned(), after: after.to_owned(), tenants: None })
            }
            _ => Err(ConfigError::new(format!(
                "issuer template {iss:?}: expected {PLACEHOLDER} in it, once"
            ))),
        }
    }

    pub(crate) fn only(&mut self, tenants: Vec<String>) -> Result<(), ConfigError> {
        if let Some(odd) = tenants.iter().find(|tenant| !is_tenant(tenant)) {
            return Err(ConfigError::new(format!("tenant {odd:?}: expected a GUID in lower case")));
        }
        self.tenants = Some(tenants.into_iter().collect());
        Ok(())
    }

    /// The tenant that `iss` names, if it is one of this issuer's that are trusted.
    pub(crate) fn tenant<'a>(&self, iss: &'a str) -> Option<&'a str> {
        let tenant = iss.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let trusted = || self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant));
        (is_tenant(tenant) && trusted()).then_some(tenant)
    }

    /// Microsoft's rule for tokens of many tenants: `tid` is the tenant in `iss`.
    pub(crate) fn check<'a>(
        &self,
        iss: &'a str,
        tid: Option<&str>,
    ) -> Result<&'a str, InvalidToken> {
        let refusal = || InvalidToken::TenantMismatch { presented: tid.map(str::to_owned) };
        self.tenant(iss).filter(|tenant| tid == Some(tenant)).ok_or_else(refusal)
    }
}
