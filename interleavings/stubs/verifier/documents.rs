use std::sync::Arc;

use crate::revocation::Source;

pub(crate) struct VerifiedDocument {
    pub(crate) iss: Arc<str>,
    pub(crate) source: Source,
}
