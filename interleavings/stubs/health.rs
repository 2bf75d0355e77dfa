use std::sync::Arc;
use std::time::Duration;

use crate::error::{FetchError, IgnoredKeyReason};
use crate::shared_store::StoreError;

pub(crate) struct RevocationsHealth {
    pub(crate) entries: usize,
    pub(crate) is_available: bool,
    pub(crate) log: Option<RevocationLogHealth>,
}

pub(crate) struct RevocationLogHealth {
    pub(crate) age: Option<Duration>,
    pub(crate) reads: u64,
    pub(crate) failed_reads: u64,
    pub(crate) last_error: Option<StoreError>,
}

pub(crate) struct IssuerHealth {
    pub(crate) iss: Arc<str>,
    pub(crate) keys: usize,
    pub(crate) ignored: Vec<IgnoredKeyReason>,
    pub(crate) age: Option<Duration>,
    pub(crate) next_fetch: Option<Duration>,
    pub(crate) unknown_key_after: Option<Duration>,
    pub(crate) fetching: bool,
    pub(crate) stale: bool,
    pub(crate) last_error: Option<FetchError>,
    pub(crate) fetches: u64,
    pub(crate) failed_fetches: u64,
    pub(crate) stale_serves: u64,
    pub(crate) unknown_kids: u64,
    pub(crate) introspection: Option<()>,
    pub(crate) needs_keys: bool,
}
