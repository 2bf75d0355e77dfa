use crate::error::IgnoredKeyReason;

/// A key set: the number of the fetch that returned it.
#[derive(Debug, PartialEq)]
pub(crate) struct Jwks(pub(crate) usize);

impl Jwks {
    pub(crate) fn len(&self) -> usize {
        1
    }

    pub(crate) fn ignored(&self) -> &[IgnoredKeyReason] {
        &[]
    }

    pub(crate) fn has_kid(&self, _: &str) -> bool {
        true
    }
}
