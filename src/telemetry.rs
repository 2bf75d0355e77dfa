//! What the log and the metrics are told, by names that stay.
//!
//! The log gets `tracing` events of target `portcullis`, told apart by their field `event`. The metrics (feature `metrics`)
//! go to whatever recorder the application installed. `docs/operations.md` lists both, and `tests/events.rs` holds them to it.
//! No token, and no claim of one, is among the fields; labels come from the configuration only.

#[cfg(feature = "testing")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use crate::clock::Now;
use crate::error::{Error, FetchError, IgnoredKeyReason};

/// An issuer, as the log and the metrics name it.
#[derive(Clone)]
pub(crate) struct IssuerName {
    pub(crate) iss: Arc<str>,
    /// Of looked-up issuers, which anyone can have fetched by naming them: the log is told of some of their fetches, the metrics
    /// of all.
    pub(crate) throttle: Option<Arc<Throttle>>,
}

impl IssuerName {
    /// A label of its own is for listed issuers. Recorders keep every label for ever, and tenants come and go.
    pub(crate) fn is_listed(&self) -> bool {
        self.throttle.is_none()
    }

    /// How many events were suppressed since the last one, if this one is to be told.
    fn turn(&self, now: Now) -> Option<u64> {
        self.throttle.as_ref().map_or(Some(0), |throttle| throttle.turn(now.uptime))
    }
}

/// Tells the log of something once a second at the most: unsigned tokens must not fill it.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<Told>);

#[derive(Default)]
struct Told {
    at: Option<Duration>,
    suppressed: u64,
}

impl Throttle {
    const EVERY: Duration = Duration::from_secs(1);

    /// How many times nothing was said since the last time, if something is to be said now.
    pub(crate) fn turn(&self, now: Duration) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now < at + Self::EVERY) {
            told.suppressed += 1;
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.suppressed))
    }
}

/// Reasons that one event lists: a hostile set has hundreds.
const MAX_REASONS: usize = 8;

/// A key set came, or the news that the one at hand has not changed.
pub(crate) fn keys_fetched(
    issuer: &IssuerName,
    changed: bool,
    keys: usize,
    ignored: &[IgnoredKeyReason],
    lifetime: Duration,
    took: Duration,
    now: Now,
) {
    if let Some(suppressed) = issuer.turn(now) {
        let (lifetime_s, ignored_keys) = (lifetime.as_secs(), ignored.len());
        let some: Vec<_> = ignored.iter().take(MAX_REASONS).collect();
        tracing::info!(
            target: "portcullis", event = "keys_fetched", issuer = &*issuer.iss, changed, keys, ignored = ?some, ignored_keys,
            lifetime_s, suppressed, "key set fetched"
        );
        if changed && ignored.contains(&IgnoredKeyReason::TooMany) {
            tracing::warn!(
                target: "portcullis", event = "key_set_cut", issuer = &*issuer.iss, keys,
                "the key set has more keys than are read; tokens of the others are refused"
            );
        }
    }
    meters::fetch(issuer, if changed { "changed" } else { "unchanged" }, took);
    meters::fetched_at(issuer, now.unix);
}

/// A fetch failed.
pub(crate) fn key_fetch_failed(
    issuer: &IssuerName,
    error: &FetchError,
    retry_after: Duration,
    took: Duration,
    now: Now,
) {
    if let Some(suppressed) = issuer.turn(now) {
        let retry_after_s = retry_after.as_secs_f64();
        tracing::warn!(
            target: "portcullis", event = "key_fetch_failed", issuer = &*issuer.iss, %error, retry_after_s, suppressed,
            "key set not fetched"
        );
    }
    meters::fetch(issuer, "failed", took);
}

/// Keys are past their lifetime and will be used all the same; said once for each such period.
pub(crate) fn keys_stale(issuer: &IssuerName, usable_for: Duration) {
    let usable_for_s = usable_for.as_secs();
    tracing::warn!(
        target: "portcullis", event = "keys_stale", issuer = &*issuer.iss, usable_for_s, "keys past their lifetime are used"
    );
}

/// A request was served by such keys.
pub(crate) fn stale_served(issuer: &IssuerName) {
    meters::stale_serve(issuer);
}

/// A token came that no key at hand verifies, and what was done about it.
pub(crate) fn unknown_kid(issuer: &IssuerName, outcome: &'static str) {
    tracing::debug!(target: "portcullis", event = "unknown_kid", issuer = &*issuer.iss, outcome, "no key at hand verifies it");
    meters::unknown_kid(issuer, outcome);
}

/// A token was refused. `issuer`: whose it says to be, if we trust that one.
pub(crate) fn token_refused(
    error: &Error,
    issuer: Option<&str>,
    kid: Option<&str>,
    alg: Option<&str>,
) {
    let reason = error.code();
    if tracing::enabled!(target: "portcullis", tracing::Level::DEBUG) {
        let detail = match error {
            Error::InvalidToken(refusal) => refusal.detail(),
            other => Some(other.to_string()),
        };
        tracing::debug!(
            target: "portcullis", event = "token_refused", reason, issuer, kid, alg, detail, "access token refused"
        );
    }
    meters::refusal(reason);
}

/// A request was refused for something else than its token.
pub(crate) fn request_refused(error: &Error) {
    let reason = error.code();
    // What is asked for; what the token grants is its own affair.
    let detail = match error {
        Error::InsufficientScope { required, .. } => Some(format!("scope \"{required}\"")),
        Error::Forbidden { rule, .. } => Some(rule.clone()),
        Error::InvalidRequest(_) | Error::InsufficientAuthentication { .. } | Error::Claims(_) => {
            Some(error.to_string())
        }
        _ => None,
    };
    tracing::debug!(target: "portcullis", event = "request_refused", reason, detail, "request refused");
    meters::refusal(reason);
}

/// What became of a request, as one layer saw it.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// Let through with its token.
    Accepted,
    /// Let through without a token.
    Anonymous,
    Refused,
    /// Keys or a look-up's answer could not be had.
    Unavailable,
}

/// Counted only: the log would be as long as the access log.
#[inline]
pub(crate) fn request(outcome: Outcome) {
    meters::request(match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Anonymous => "anonymous",
        Outcome::Refused => "refused",
        Outcome::Unavailable => "unavailable",
    });
}

/// Whether a token was verified before.
#[inline]
pub(crate) fn token_cache(is_hit: bool) {
    meters::token_cache(if is_hit { "hit" } else { "miss" });
}

/// How long a verification waits, for those who trace. Made only where something is waited for.
pub(crate) fn waiting() -> tracing::Span {
    tracing::info_span!(target: "portcullis", "verify_access_token")
}

/// A look-up failed. `suppressed`: how many did since the last one that was told.
pub(crate) fn lookup_failed(error: &dyn std::error::Error, suppressed: u64) {
    tracing::error!(target: "portcullis", event = "lookup_failed", %error, suppressed, "issuer look-up failed");
}

/// As [`lookup_failed`], each time.
pub(crate) fn lookup_failure_counted() {
    meters::lookup_failure();
}

/// A look-up returned what cannot be used. `iss`: of what it returned, and not what it was asked for; `suppressed`: as in
/// [`lookup_failed`].
pub(crate) fn lookup_unusable(iss: &str, error: &dyn std::fmt::Display, suppressed: u64) {
    tracing::warn!(
        target: "portcullis", event = "lookup_unusable", issuer = iss, %error, suppressed, "a look-up returned an issuer that cannot be used"
    );
}

/// A claim is configured by a path with dots, which names nothing, and what was probably meant is there. Said once in a process.
pub(crate) fn dotted_claim_path(configured: &str, pointer: &str) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            target: "portcullis", event = "dotted_claim_path", configured, pointer,
            "no claim has this name; a claim inside another is named by a JSON Pointer"
        );
    });
}

/// The system has no root certificates.
#[cfg(feature = "aws-lc-rs")]
pub(crate) fn no_root_certificates(error: &reqwest::Error) {
    tracing::warn!(target: "portcullis", event = "no_root_certificates", %error, "HTTP client without root certificates");
}

/// A handler asks for a token that no layer put there.
#[cfg(feature = "axum")]
pub(crate) fn not_protected() {
    tracing::error!(
        target: "portcullis",
        event = "not_protected",
        "a handler asks for the access token on a route without `ProtectLayer`; add `.route_layer(protect)`"
    );
}

/// The feature `testing` is on where nobody tests: in a build without debug assertions, as a release is. Said until it was
/// heard once. Where `TestIssuer` can be reached, so can what signs any token.
#[cfg(feature = "testing")]
pub(crate) fn testing_in_release() {
    static WAS_HEARD: AtomicBool = AtomicBool::new(false);
    if cfg!(debug_assertions) || WAS_HEARD.load(Ordering::Relaxed) {
        return;
    }
    // Said again until somebody listens; whoever reads `log` instead is not known to.
    tracing::warn!(
        target: "portcullis",
        event = "testing_in_release",
        "the feature `testing` of portcullis is on in a release build; it belongs in `[dev-dependencies]`"
    );
    WAS_HEARD
        .store(tracing::enabled!(target: "portcullis", tracing::Level::WARN), Ordering::Relaxed);
}

#[cfg(feature = "metrics")]
mod meters {
    use std::sync::Arc;
    use std::time::Duration;

    use metrics::{SharedString, counter, gauge, histogram};

    use super::IssuerName;

    fn label(issuer: &IssuerName) -> SharedString {
        match issuer.is_listed() {
            true => Arc::clone(&issuer.iss).into(),
            false => "looked_up".into(),
        }
    }

    pub(super) fn request(outcome: &'static str) {
        counter!("portcullis_requests_total", "outcome" => outcome).increment(1);
    }

    pub(super) fn token_cache(outcome: &'static str) {
        counter!("portcullis_token_cache_total", "outcome" => outcome).increment(1);
    }

    pub(super) fn fetch(issuer: &IssuerName, outcome: &'static str, took: Duration) {
        counter!("portcullis_key_fetches_total", "issuer" => label(issuer), "outcome" => outcome)
            .increment(1);
        histogram!("portcullis_key_fetch_duration_seconds", "issuer" => label(issuer), "outcome" => outcome)
            .record(took.as_secs_f64());
    }

    /// The age of a set is now less this, as Prometheus has it; an age would be out of date when it is read. Of looked-up
    /// issuers together there is no such thing.
    pub(super) fn fetched_at(issuer: &IssuerName, unix: Duration) {
        if issuer.is_listed() {
            gauge!("portcullis_keys_fetched_at_seconds", "issuer" => label(issuer))
                .set(unix.as_secs_f64());
        }
    }

    pub(super) fn stale_serve(issuer: &IssuerName) {
        counter!("portcullis_stale_serves_total", "issuer" => label(issuer)).increment(1);
    }

    pub(super) fn unknown_kid(issuer: &IssuerName, outcome: &'static str) {
        counter!("portcullis_unknown_kids_total", "issuer" => label(issuer), "outcome" => outcome)
            .increment(1);
    }

    pub(super) fn refusal(reason: &'static str) {
        counter!("portcullis_refusals_total", "reason" => reason).increment(1);
    }

    pub(super) fn lookup_failure() {
        counter!("portcullis_lookup_failures_total").increment(1);
    }
}

/// Without the feature, nobody counts.
#[cfg(not(feature = "metrics"))]
mod meters {
    use std::time::Duration;

    use super::IssuerName;

    pub(super) fn request(_: &'static str) {}
    pub(super) fn token_cache(_: &'static str) {}
    pub(super) fn fetch(_: &IssuerName, _: &'static str, _: Duration) {}
    pub(super) fn fetched_at(_: &IssuerName, _: Duration) {}
    pub(super) fn stale_serve(_: &IssuerName) {}
    pub(super) fn unknown_kid(_: &IssuerName, _: &'static str) {}
    pub(super) fn refusal(_: &'static str) {}
    pub(super) fn lookup_failure() {}
}
