use crate::error::IgnoredKeyReason;

/// A key set with one key, and its `kid`.
#[derive(Debug, PartialEq)]
pub(crate) struct Jwks(pub(crate) String);

impl Jwks {
    pub(crate) fn len(&self) -> usize {
        1
    }

    pub(crate) fn ignored(&self) -> &[IgnoredKeyReason] {
        &[]
    }

    pub(crate) fn has_kid(&self, kid: &str) -> bool {
        self.0 == kid
    }
}
