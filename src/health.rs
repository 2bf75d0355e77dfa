//! The state of the issuers' keys, for readiness checks and dashboards.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{FetchError, IgnoredKeyReason};
use crate::shared_store::StoreError;

/// The state of one issuer's keys, from [`Verifier::health`](crate::Verifier::health).
///
/// ```no_run
/// # async fn example(verifier: portcullis::Verifier) {
/// // For a `/readyz`: the keys of every configured issuer are loaded, or fetched now. With
/// // `health` alone, an instance out of rotation gets no requests, so its keys are never fetched
/// // and it stays out.
/// let ready = verifier.warm_up().await.is_ok();
/// for issuer in verifier.health() {
///     println!("{}: {} keys, {:?} old", issuer.iss, issuer.keys, issuer.age);
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IssuerHealth {
    /// The issuer, as configured.
    pub iss: Arc<str>,
    /// How many keys can be used without waiting. 0 before the first fetch, and when the keys are
    /// past their lifetime and not [`stale`](Self::stale): the keys of an issuer without requests
    /// are not fetched until the next request needs them.
    pub keys: usize,
    /// Why the other members of the key set were ignored.
    pub ignored: Vec<IgnoredKeyReason>,
    /// How long ago the keys were fetched or found unchanged. `None` for fixed keys and before the
    /// first fetch.
    pub age: Option<Duration>,
    /// How long until a request causes the next fetch. A request with an unknown `kid` may cause it
    /// earlier. `None` for fixed keys.
    pub next_fetch: Option<Duration>,
    /// How long until a token that no cached key verifies may cause a fetch. The budget is three
    /// fetches at once, then one every 5 seconds; where keys are fetched one by one, eight at once,
    /// then one every second. `None` for fixed keys.
    pub unknown_key_after: Option<Duration>,
    /// Whether a fetch is in progress.
    pub fetching: bool,
    /// Whether keys past their lifetime are still in use, because refreshing them fails or has not
    /// finished.
    pub stale: bool,
    /// The error of the last fetch, if it failed.
    pub last_error: Option<FetchError>,
    /// How many fetches have ended since the start, successful or not. All counts here are since
    /// the start.
    pub fetches: u64,
    /// How many of these fetches failed.
    pub failed_fetches: u64,
    /// How many tokens were checked against keys past their lifetime.
    pub stale_serves: u64,
    /// How many tokens no cached key verified, because of an unknown `kid` or a signature that does
    /// not match.
    pub unknown_kids: u64,
    /// The state of the introspection endpoint, if the issuer is asked about tokens
    /// ([`Issuer::introspection`](crate::Issuer::introspection)).
    pub introspection: Option<IntrospectionHealth>,
    /// The state of the status lists, if the status of tokens is looked up
    /// ([`Issuer::status_lists`](crate::Issuer::status_lists)).
    #[cfg(feature = "status-list")]
    pub status_lists: Option<StatusListHealth>,
    /// Whether tokens are verified with the keys.
    pub(crate) needs_keys: bool,
}

/// The state of an issuer's introspection endpoint (RFC 7662).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IntrospectionHealth {
    /// Whether the URL of the endpoint is known: configured, or discovered by
    /// [`Verifier::warm_up`](crate::Verifier::warm_up) or for the first token.
    pub is_discovered: bool,
    /// How long the endpoint is not asked, because it failed several times in a row or asked to
    /// wait. Meanwhile, tokens that are not cached are answered 503.
    pub suspended_for: Option<Duration>,
    /// How many questions were sent.
    pub questions: u64,
    /// How many questions had no usable answer, including those that were not sent.
    pub failed_questions: u64,
    /// The error of the last question that failed.
    pub last_error: Option<FetchError>,
}

/// The state of an issuer's status lists (draft-ietf-oauth-status-list).
#[cfg(feature = "status-list")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StatusListHealth {
    /// How many lists tokens have named, including those that could not be fetched.
    pub lists: usize,
    /// The memory of the cached lists, in bytes.
    pub bytes: usize,
    /// How many fetches have ended since the start, successful or not.
    pub fetches: u64,
    /// How many of these fetches failed.
    pub failed_fetches: u64,
    /// The error of the last fetch of any of the lists, if it failed.
    pub last_error: Option<FetchError>,
}

impl IssuerHealth {
    /// The state of an issuer whose keys are never fetched.
    pub(crate) fn fixed(iss: &Arc<str>, keys: usize, ignored: Vec<IgnoredKeyReason>) -> Self {
        Self {
            iss: Arc::clone(iss),
            keys,
            ignored,
            age: None,
            next_fetch: None,
            unknown_key_after: None,
            fetching: false,
            stale: false,
            last_error: None,
            fetches: 0,
            failed_fetches: 0,
            stale_serves: 0,
            unknown_kids: 0,
            introspection: None,
            #[cfg(feature = "status-list")]
            status_lists: None,
            needs_keys: true,
        }
    }

    /// Whether tokens of this issuer can be verified: its keys are there, unless it has none, and
    /// its introspection endpoint is known. An endpoint that fails does not count: tokens with
    /// cached answers are still accepted, and every instance of a service would stop at once.
    pub fn is_ready(&self) -> bool {
        let is_known = self.introspection.as_ref().is_none_or(|endpoint| endpoint.is_discovered);
        is_known && (self.keys > 0 || !self.needs_keys)
    }
}

/// The state of [`Revocations`](crate::Revocations), from
/// [`Revocations::health`](crate::Revocations::health).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RevocationsHealth {
    /// How many entries are kept, of at most a million. Entries that have ended are dropped once a
    /// minute at most.
    pub entries: usize,
    /// Whether tokens can be accepted: the log was read within
    /// [`max_stale`](crate::Revocations::max_stale). Otherwise, requests are answered 503.
    pub is_available: bool,
    /// The state of the log that replicas share. `None` for entries in memory.
    pub log: Option<RevocationLogHealth>,
}

/// The state of the log of revocations that replicas share. All counts are since the start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RevocationLogHealth {
    /// How long ago the log was read to its end. `None` before that.
    pub age: Option<Duration>,
    /// How many reads have ended, successful or not. A long log takes several reads.
    pub reads: u64,
    /// How many of these reads failed.
    pub failed_reads: u64,
    /// The error of the last read, if it failed.
    pub last_error: Option<StoreError>,
}

/// The issuers whose keys could not be fetched, from
/// [`Verifier::warm_up`](crate::Verifier::warm_up).
#[derive(Clone, Debug)]
pub struct WarmUpError {
    failures: Vec<(Arc<str>, FetchError)>,
}

impl WarmUpError {
    pub(crate) fn new(failures: Vec<(Arc<str>, FetchError)>) -> Self {
        Self { failures }
    }

    /// Issuer and reason, for each that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &FetchError)> {
        self.failures.iter().map(|(iss, reason)| (&**iss, reason))
    }
}

impl fmt::Display for WarmUpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("failed to load the keys of")?;
        for (number, (iss, reason)) in self.failures().enumerate() {
            let comma = if number == 0 { "" } else { ";" };
            write!(formatter, "{comma} {iss}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for WarmUpError {}
