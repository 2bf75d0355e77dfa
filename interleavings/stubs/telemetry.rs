//! Nothing is logged.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::error::{FetchError, IgnoredKeyReason};
use crate::shared_store::StoreError;

#[derive(Clone)]
pub(crate) struct IssuerName {
    pub(crate) iss: Arc<str>,
}

impl IssuerName {
    pub(crate) fn is_configured(&self) -> bool {
        true
    }
}

#[derive(Default)]
pub(crate) struct LogThrottle;

impl LogThrottle {
    pub(crate) fn admit(&self, _: Duration) -> Option<u64> {
        None
    }
}

pub(crate) struct FetchedKeys<'a> {
    pub(crate) changed: bool,
    pub(crate) keys: usize,
    pub(crate) ignored: &'a [IgnoredKeyReason],
    pub(crate) lifetime: Duration,
}

pub(crate) fn keys_fetched(_: &IssuerName, _: &FetchedKeys<'_>, _: Duration, _: Now) {}
pub(crate) fn key_fetch_failed(_: &IssuerName, _: &FetchError, _: Duration, _: Duration, _: Now) {}
pub(crate) fn keys_stale(_: &IssuerName, _: Duration) {}
pub(crate) fn stale_served(_: &IssuerName) {}
pub(crate) fn unknown_kid(_: &IssuerName, _: &'static str) {}
pub(crate) fn revocation(_: &'static str) {}
pub(crate) fn revocation_not_recorded(_: &StoreError, _: u64) {}
pub(crate) fn revocation_received(_: &str, _: &'static str, _: u64) {}
pub(crate) fn revocations_kept(_: usize) {}
pub(crate) fn revocations_read(_: usize) {}
pub(crate) fn revocations_read_at(_: Duration) {}
pub(crate) fn revocations_stale(_: &StoreError, _: Option<Duration>, _: u64) {}
