//! How the issuers' keys are doing: for readiness checks and dashboards.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{FetchError, IgnoredKeyReason};

/// The state of one issuer's keys, from [`Verifier::health`](crate::Verifier::health).
///
/// ```no_run
/// # async fn example(verifier: portcullis::Verifier) {
/// // For a `/readyz`: every listed issuer's keys are loaded, or fetched now. With `health` alone, an instance that was taken
/// // out of rotation gets no requests, so nothing would fetch its keys, and it would stay out.
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
    /// How many keys can be used without waiting; 0 before the first fetch, and when they are past their lifetime and not
    /// [`stale`](Self::stale): an issuer that nobody asked for is fetched when somebody does.
    pub keys: usize,
    /// Why the other members of the key set were left out.
    pub ignored: Vec<IgnoredKeyReason>,
    /// How long ago the keys were fetched or found unchanged; `None` for fixed keys and before the first fetch.
    pub age: Option<Duration>,
    /// How long until a request causes the next fetch; one with an unknown `kid` may cause it earlier. `None` for fixed keys.
    pub next_fetch: Option<Duration>,
    /// How long until a token that no key verifies may cause a fetch: three may at once, and then one in 5 seconds. `None` for
    /// fixed keys.
    pub unknown_key_after: Option<Duration>,
    /// Whether a fetch is under way.
    pub fetching: bool,
    /// Whether the keys are past their lifetime and used all the same: because refreshing fails, or has not quite ended.
    pub stale: bool,
    /// What the last fetch ended with, if it failed.
    pub last_error: Option<FetchError>,
    /// How many fetches have ended, well or not, since the start; as all counts here.
    pub fetches: u64,
    /// How many of them failed.
    pub failed_fetches: u64,
    /// How many tokens were checked against keys past their lifetime.
    pub stale_serves: u64,
    /// How many tokens came that no key at hand verified: of an unknown `kid`, or with a signature that does not fit.
    pub unknown_kids: u64,
}

impl IssuerHealth {
    /// Of an issuer whose keys are never fetched.
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
        }
    }

    /// Whether tokens of this issuer can be verified without waiting.
    pub fn is_ready(&self) -> bool {
        self.keys > 0
    }
}

/// The issuers whose keys could not be fetched, from [`Verifier::warm_up`](crate::Verifier::warm_up).
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
        formatter.write_str("no keys of")?;
        for (number, (iss, reason)) in self.failures().enumerate() {
            let comma = if number == 0 { "" } else { ";" };
            write!(formatter, "{comma} {iss}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for WarmUpError {}
