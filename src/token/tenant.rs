//! Tenants of an issuer that has many, as Microsoft Entra ID names them in `iss`, in `tid`, and in
//! its published keys.

/// Stands for the tenant in an issuer template, and in Entra ID's metadata and key sets.
pub(crate) const PLACEHOLDER: &str = "{tenantid}";

pub(crate) fn has_placeholder(iss: &str) -> bool {
    iss.contains(PLACEHOLDER)
}

/// Whether a key with this member `issuer` may sign for this tenant. A template serves all tenants,
/// any other value only the tenant that it names. Only the tenant is compared, since keys with
/// `…/v2.0` also sign tokens of version 1.0.
pub(crate) fn key_serves(key_issuer: &str, tenant: &str) -> bool {
    has_placeholder(key_issuer) || key_issuer.split('/').any(|segment| segment == tenant)
}

/// Whether this is a GUID in lower case, as Entra ID writes it, so that each tenant has one
/// spelling.
pub(crate) fn is_tenant(text: &str) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut groups = text.split('-');
    let fits = |length| {
        groups.next().is_some_and(|group| {
            group.len() == length
                && group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    GROUPS.into_iter().all(fits) && groups.next().is_none()
}
