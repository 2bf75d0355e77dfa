use std::sync::Arc;

pub(crate) struct ActiveIssuer {
    pub(crate) config: Issuer,
}

pub(crate) struct Issuer;

impl Issuer {
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::empty()
    }
}
