//! One issuer for many tenants: an `iss` with the tenant's identifier in it, as Microsoft Entra ID has them.

use std::collections::BTreeSet;

use crate::error::{ConfigError, InvalidToken};

/// What stands for the tenant, in Entra's metadata and key sets too.
const PLACEHOLDER: &str = "{tenantid}";

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
            _ => Err(ConfigError::new(format!("issuer template {iss:?}: expected {PLACEHOLDER} in it, once"))),
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
    pub(crate) fn check<'a>(&self, iss: &'a str, tid: Option<&str>) -> Result<&'a str, InvalidToken> {
        let refusal = || InvalidToken::Tenant { presented: tid.map(str::to_owned) };
        self.tenant(iss).filter(|tenant| tid == Some(tenant)).ok_or_else(refusal)
    }
}

pub(crate) fn has_placeholder(iss: &str) -> bool {
    iss.contains(PLACEHOLDER)
}

/// Whether a key with this member `issuer` may sign for this tenant: a template is for all of them, anything else for the
/// one that it names. Compared by tenant and not as a whole, since keys say `…/v2.0` that sign tokens of version 1.0 too.
pub(crate) fn key_serves(key_issuer: &str, tenant: &str) -> bool {
    has_placeholder(key_issuer) || key_issuer.split('/').any(|segment| segment == tenant)
}

/// A GUID in lower case, as Entra writes it: one tenant, one spelling.
pub(crate) fn is_tenant(text: &str) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut groups = text.split('-');
    let fits = |length| {
        groups.next().is_some_and(|group| {
            group.len() == length && group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    GROUPS.into_iter().all(fits) && groups.next().is_none()
}
