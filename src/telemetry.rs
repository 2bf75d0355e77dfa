//! Log events and metrics. Their names and fields are stable.
//!
//! Events are `tracing` events with the target `portcullis`; the field `event` distinguishes them.
//! Metrics (feature `metrics`) go to the recorder that the application installs.
//! `docs/operations.md` lists both, and `tests/events.rs` checks the code against it. No field
//! contains a token or a claim, except that the `detail` of `unknown_issuer` may contain the `iss`.
//! Labels come from the configuration only.

#[cfg(feature = "testing")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use crate::clock::Now;
use crate::error::{Error, FetchError, IgnoredKeyReason, ProofError};

/// An issuer, as events and metrics name it.
#[derive(Clone)]
pub(crate) struct IssuerName {
    pub(crate) iss: Arc<str>,
    /// Set for a resolved issuer, whose keys any client can cause to be fetched by naming it in a
    /// token. Only some of those fetches are logged; metrics count all.
    pub(crate) throttle: Option<Arc<LogThrottle>>,
}

impl IssuerName {
    /// Whether the issuer is configured, and so has a label of its own. Recorders keep every label
    /// forever, and tenants come and go.
    pub(crate) fn is_configured(&self) -> bool {
        self.throttle.is_none()
    }

    /// Returns how many events were suppressed since the last one, or `None` if this one is
    /// suppressed as well.
    fn admit(&self, now: Now) -> Option<u64> {
        self.throttle.as_ref().map_or(Some(0), |throttle| throttle.admit(now.uptime))
    }
}

/// Allows one event per second at most, so that unsigned tokens cannot flood the log.
#[derive(Default)]
pub(crate) struct LogThrottle(Mutex<LastLogged>);

#[derive(Default)]
struct LastLogged {
    at: Option<Duration>,
    suppressed: u64,
}

impl LogThrottle {
    const EVERY: Duration = Duration::from_secs(1);

    /// Returns how many events were suppressed since the last one, or `None` if this one is
    /// suppressed as well.
    pub(crate) fn admit(&self, now: Duration) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| now < at + Self::EVERY) {
            last.suppressed += 1;
            return None;
        }
        last.at = Some(now);
        Some(std::mem::take(&mut last.suppressed))
    }
}

/// Maximum number of reasons in one event: a hostile key set has hundreds.
const MAX_REASONS: usize = 8;

/// A key set that was fetched, or found unchanged.
pub(crate) struct FetchedKeys<'a> {
    pub(crate) changed: bool,
    pub(crate) keys: usize,
    pub(crate) ignored: &'a [IgnoredKeyReason],
    pub(crate) lifetime: Duration,
}

/// Keys were fetched.
pub(crate) fn keys_fetched(
    issuer: &IssuerName,
    fetched: &FetchedKeys<'_>,
    took: Duration,
    now: Now,
) {
    let FetchedKeys { changed, keys, ignored, lifetime } = *fetched;
    if let Some(suppressed) = issuer.admit(now) {
        let (lifetime_s, ignored_keys) = (lifetime.as_secs(), ignored.len());
        let some: Vec<_> = ignored.iter().take(MAX_REASONS).collect();
        tracing::info!(
            target: "portcullis", event = "keys_fetched", issuer = &*issuer.iss, changed, keys, ignored = ?some, ignored_keys,
            lifetime_s, suppressed, "key set fetched"
        );
        if changed && ignored.contains(&IgnoredKeyReason::TooMany) {
            tracing::warn!(
                target: "portcullis", event = "key_set_cut", issuer = &*issuer.iss, keys,
                "key set has too many keys; tokens signed with the ignored ones are rejected"
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
    if let Some(suppressed) = issuer.admit(now) {
        let retry_after_s = retry_after.as_secs_f64();
        tracing::warn!(
            target: "portcullis", event = "key_fetch_failed", issuer = &*issuer.iss, %error, retry_after_s, suppressed,
            "failed to fetch key set"
        );
    }
    meters::fetch(issuer, "failed", took);
}

/// Keys past their lifetime will be used. Logged once for each such period.
pub(crate) fn keys_stale(issuer: &IssuerName, usable_for: Duration) {
    let usable_for_s = usable_for.as_secs();
    tracing::warn!(
        target: "portcullis", event = "keys_stale", issuer = &*issuer.iss, usable_for_s, "using keys past their lifetime"
    );
}

/// A request was served with keys past their lifetime.
pub(crate) fn stale_served(issuer: &IssuerName) {
    meters::stale_serve(issuer);
}

/// No cached key verified a token. `outcome` is what was done about it.
pub(crate) fn unknown_kid(issuer: &IssuerName, outcome: &'static str) {
    tracing::debug!(target: "portcullis", event = "unknown_kid", issuer = &*issuer.iss, outcome, "no cached key verifies the token");
    meters::unknown_kid(issuer, outcome);
}

/// A status list was fetched, or found unchanged.
#[cfg(feature = "status-list")]
pub(crate) fn status_list_fetched(
    issuer: &IssuerName,
    changed: bool,
    lifetime: Duration,
    took: Duration,
    now: Now,
) {
    if let Some(suppressed) = issuer.admit(now) {
        let (lifetime_s, took_s) = (lifetime.as_secs(), took.as_secs_f64());
        tracing::info!(
            target: "portcullis", event = "status_list_fetched", issuer = &*issuer.iss, changed, lifetime_s, took_s,
            suppressed, "status list fetched"
        );
    }
    meters::status_list_fetch(issuer, if changed { "changed" } else { "unchanged" }, took);
}

/// The fetch of a status list failed.
#[cfg(feature = "status-list")]
pub(crate) fn status_list_failed(
    issuer: &IssuerName,
    error: &FetchError,
    retry_after: Duration,
    took: Duration,
    now: Now,
) {
    if let Some(suppressed) = issuer.admit(now) {
        let (retry_after_s, took_s) = (retry_after.as_secs_f64(), took.as_secs_f64());
        tracing::warn!(
            target: "portcullis", event = "status_list_failed", issuer = &*issuer.iss, %error, retry_after_s, took_s,
            suppressed, "failed to fetch status list"
        );
    }
    meters::status_list_fetch(issuer, "failed", took);
}

/// Tokens of the issuer name more status lists than are kept. `suppressed` is as in
/// [`lookup_failed`].
#[cfg(feature = "status-list")]
pub(crate) fn status_lists_full(issuer: &IssuerName, expected: &str, suppressed: u64) {
    tracing::error!(
        target: "portcullis", event = "status_lists_full", issuer = &*issuer.iss, expected, suppressed,
        "tokens of the issuer name more status lists than are kept; those of further lists are answered 503"
    );
}

/// How a question about a token ended (RFC 7662).
#[derive(Clone, Copy)]
pub(crate) enum IntrospectionOutcome {
    /// The token is accepted.
    Active,
    Inactive,
    /// The token is active, but for another audience, or otherwise not accepted.
    Rejected,
    /// There was no usable answer.
    Failed,
}

/// Counts a question about a token. It is not logged: the rejected tokens are.
pub(crate) fn introspection(issuer: &IssuerName, outcome: IntrospectionOutcome, took: Duration) {
    let outcome = match outcome {
        IntrospectionOutcome::Active => "active",
        IntrospectionOutcome::Inactive => "inactive",
        IntrospectionOutcome::Rejected => "rejected",
        IntrospectionOutcome::Failed => "failed",
    };
    meters::introspection(issuer, outcome, took);
}

/// A question had no usable answer. `suppressed` is as in [`lookup_failed`].
pub(crate) fn introspection_failed(issuer: &IssuerName, error: &FetchError, suppressed: u64) {
    tracing::warn!(
        target: "portcullis", event = "introspection_failed", issuer = &*issuer.iss, %error, suppressed,
        "failed to ask the issuer about a token"
    );
}

/// The endpoint rejects this API's credentials, or is not there. `suppressed` is as in
/// [`lookup_failed`].
pub(crate) fn introspection_refused(issuer: &IssuerName, error: &FetchError, suppressed: u64) {
    tracing::error!(
        target: "portcullis", event = "introspection_refused", issuer = &*issuer.iss, %error, suppressed,
        "the issuer refuses questions about tokens; check the endpoint, and the credentials of this API (`ClientAuth`)"
    );
}

/// The endpoint failed several times in a row, or asked to wait.
pub(crate) fn introspection_suspended(issuer: &IssuerName, suspended: Duration) {
    let suspended_s = suspended.as_secs_f64();
    tracing::warn!(
        target: "portcullis", event = "introspection_suspended", issuer = &*issuer.iss, suspended_s,
        "the issuer is not asked about tokens for a while"
    );
}

/// The endpoint responds again.
pub(crate) fn introspection_resumed(issuer: &IssuerName) {
    tracing::info!(
        target: "portcullis", event = "introspection_resumed", issuer = &*issuer.iss,
        "the issuer is asked about tokens again"
    );
}

/// A token was rejected. `issuer` is the issuer that the token names, if it is trusted.
pub(crate) fn token_rejected(
    error: &Error,
    issuer: Option<&str>,
    kid: Option<&str>,
    alg: Option<&str>,
) {
    let reason = error.code();
    if tracing::enabled!(target: "portcullis", tracing::Level::DEBUG) {
        let detail = match error {
            Error::InvalidToken(rejection) => rejection.detail(),
            other => Some(other.to_string()),
        };
        tracing::debug!(
            target: "portcullis", event = "token_rejected", reason, issuer, kid, alg, detail, "access token rejected"
        );
    }
    meters::rejection(reason);
}

/// A request was rejected for a reason other than its token.
pub(crate) fn request_rejected(error: &Error) {
    let reason = error.code();
    // Only what is required. What the token grants is not logged.
    let detail = match error {
        Error::InsufficientScope { required, .. } => Some(format!("scope \"{required}\"")),
        Error::Forbidden { rule, .. } => Some(rule.clone()),
        Error::InvalidRequest(_)
        | Error::InsufficientAuthentication { .. }
        | Error::InvalidProof(_)
        | Error::ClaimsMismatch(_) => Some(error.to_string()),
        _ => None,
    };
    tracing::debug!(target: "portcullis", event = "request_rejected", reason, detail, "request rejected");
    meters::rejection(reason);
}

/// A request to an MCP server was rejected because of its body, its headers or its session.
#[cfg(feature = "mcp")]
pub(crate) fn mcp_request_rejected(reason: &'static str, detail: &str) {
    tracing::debug!(target: "portcullis", event = "mcp_request_rejected", reason, detail, "MCP request rejected");
    meters::rejection(reason);
    request(Outcome::Rejected);
}

/// The outcome of a request, as one layer saw it.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// Let through with its token.
    Accepted,
    /// Let through without a token.
    Anonymous,
    Rejected,
    /// Keys or a lookup were unavailable.
    Unavailable,
}

/// Counts a request. It is not logged: the log would be as long as the access log.
#[inline]
pub(crate) fn request(outcome: Outcome) {
    meters::request(match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Anonymous => "anonymous",
        Outcome::Rejected => "rejected",
        Outcome::Unavailable => "unavailable",
    });
}

/// Counts a hit or a miss of the token cache.
#[inline]
pub(crate) fn token_cache(is_hit: bool) {
    meters::token_cache(if is_hit { "hit" } else { "miss" });
}

/// The span of a verification that waits. It is created only then.
pub(crate) fn waiting() -> tracing::Span {
    tracing::info_span!(target: "portcullis", "verify_access_token")
}

/// A lookup failed. `suppressed` is how many failed lookups were not logged since the last event.
pub(crate) fn lookup_failed(error: &dyn std::error::Error, suppressed: u64) {
    tracing::error!(target: "portcullis", event = "lookup_failed", %error, suppressed, "lookup failed");
}

/// A check of the application failed or took too long. `suppressed` is as in [`lookup_failed`].
pub(crate) fn authorization_failed(error: &dyn std::error::Error, suppressed: u64) {
    tracing::error!(target: "portcullis", event = "authorization_failed", %error, suppressed, "authorization check failed");
}

/// What became of a DPoP proof.
#[derive(Clone, Copy)]
pub(crate) enum ProofOutcome {
    Accepted,
    /// It was used before.
    Used,
    /// It has no recent nonce.
    NonceNeeded,
    Rejected,
    /// Its key has used its share.
    TooMany,
    /// That it was used cannot be recorded.
    Unavailable,
}

impl ProofOutcome {
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::InvalidProof(ProofError::Used) => Self::Used,
            Error::InvalidProof(ProofError::NonceNeeded) => Self::NonceNeeded,
            Error::TooManyProofs => Self::TooMany,
            Error::ReplaysUnavailable { .. } => Self::Unavailable,
            _ => Self::Rejected,
        }
    }
}

/// Counts a DPoP proof. It is not logged: the rejected requests are.
pub(crate) fn proof(outcome: ProofOutcome) {
    meters::proof(match outcome {
        ProofOutcome::Accepted => "accepted",
        ProofOutcome::Used => "used",
        ProofOutcome::NonceNeeded => "nonce_needed",
        ProofOutcome::Rejected => "rejected",
        ProofOutcome::TooMany => "too_many",
        ProofOutcome::Unavailable => "unavailable",
    });
}

/// Records how many used proofs are remembered in this process.
pub(crate) fn replays_kept(number: usize) {
    meters::replays_kept(number);
}

/// That a proof was used cannot be recorded, so the request is rejected. `suppressed` is as in
/// [`lookup_failed`].
pub(crate) fn replays_unavailable(error: &dyn std::fmt::Display, suppressed: u64) {
    tracing::error!(
        target: "portcullis", event = "replays_unavailable", %error, suppressed,
        "used DPoP proofs cannot be recorded; requests with DPoP are answered 503"
    );
}

/// The store that replicas share responds again.
pub(crate) fn replays_available() {
    tracing::info!(target: "portcullis", event = "replays_available", "used DPoP proofs are recorded again");
}

/// The log of revocations was read to its end, at the start or after a failure.
pub(crate) fn revocations_read(entries: usize) {
    tracing::info!(target: "portcullis", event = "revocations_read", entries, "the log of revocations was read");
}

/// The log of revocations cannot be read. `age`: how long ago it was last read to its end.
/// `suppressed` is as in [`lookup_failed`].
pub(crate) fn revocations_stale(
    error: &dyn std::fmt::Display,
    age: Option<Duration>,
    suppressed: u64,
) {
    let age_s = age.map(|age| age.as_secs_f64());
    tracing::error!(
        target: "portcullis", event = "revocations_stale", %error, age_s, suppressed,
        "the log of revocations cannot be read; tokens are accepted for a limited time, then requests are answered 503"
    );
}

/// An entry was appended, or could not be.
pub(crate) fn revocation(outcome: &'static str) {
    meters::revocation(outcome);
}

/// How many revocations are kept.
pub(crate) fn revocations_kept(number: usize) {
    meters::revocations_kept(number);
}

/// When the log of revocations was last read to its end.
pub(crate) fn revocations_read_at(unix: Duration) {
    meters::revocations_read_at(unix);
}

/// A logout token or a security event revoked something. Whom it names is not logged. `suppressed`
/// is as in [`lookup_failed`].
pub(crate) fn revocation_received(issuer: &str, kind: &'static str, suppressed: u64) {
    tracing::info!(target: "portcullis", event = "revocation_received", issuer, kind, suppressed, "an issuer revoked tokens");
}

/// A receiver could not record a revocation; the sender is told to try again. `suppressed` is as in
/// [`lookup_failed`].
pub(crate) fn revocation_not_recorded(error: &dyn std::fmt::Display, suppressed: u64) {
    tracing::error!(
        target: "portcullis", event = "revocation_not_recorded", %error, suppressed,
        "a received revocation was not recorded"
    );
}

/// A logout token was rejected. `suppressed` is as in [`lookup_failed`].
pub(crate) fn logout_rejected(expected: &str, suppressed: u64) {
    tracing::warn!(target: "portcullis", event = "logout_rejected", expected, suppressed, "logout token rejected");
}

/// A security event token was rejected. `suppressed` is as in [`lookup_failed`].
pub(crate) fn security_event_rejected(reason: &'static str, expected: &str, suppressed: u64) {
    tracing::warn!(
        target: "portcullis", event = "security_event_rejected", reason, expected, suppressed,
        "security event rejected"
    );
}

/// A security event was acknowledged and revoked nothing. `suppressed` is as in [`lookup_failed`].
pub(crate) fn security_event_ignored(issuer: &str, name: &str, suppressed: u64) {
    let name: String = name.chars().take(200).collect();
    tracing::info!(
        target: "portcullis", event = "security_event_ignored", issuer, name, suppressed,
        "security event revokes nothing"
    );
}

/// A layer requires bound tokens, and its verifier verifies no binding: every request is rejected.
pub(crate) fn bound_without_binding() {
    tracing::warn!(
        target: "portcullis", event = "bound_without_binding",
        "a layer requires bound tokens, but its verifier has neither `dpop` nor `client_certificates`; it rejects every request"
    );
}

/// A request has the header of a client certificate and does not come from the trusted proxy.
/// `suppressed` is as in [`lookup_failed`].
pub(crate) fn client_certificate_untrusted(suppressed: u64) {
    tracing::warn!(
        target: "portcullis", event = "client_certificate_untrusted", suppressed,
        "a peer that is not trusted sent the header of a client certificate, which is ignored"
    );
}

/// The trusted proxy sent a client certificate in another form than configured. `suppressed` is as
/// in [`lookup_failed`].
pub(crate) fn client_certificate_unreadable(expected: &dyn std::fmt::Display, suppressed: u64) {
    tracing::error!(
        target: "portcullis", event = "client_certificate_unreadable", %expected, suppressed,
        "the header of a client certificate is not in the configured form; the request counts as one without a certificate"
    );
}

/// Counts a failed lookup, whether or not [`lookup_failed`] logs it.
pub(crate) fn lookup_failure_counted() {
    meters::lookup_failure();
}

/// A lookup returned an issuer that cannot be used. `iss` is that of the returned issuer, not the
/// one that was looked up; `suppressed` is as in [`lookup_failed`].
pub(crate) fn lookup_unusable(iss: &str, error: &dyn std::fmt::Display, suppressed: u64) {
    tracing::warn!(
        target: "portcullis", event = "lookup_unusable", issuer = iss, %error, suppressed, "issuer lookup returned an unusable issuer"
    );
}

/// A claim is configured by a path with dots, which matches no claim, but the nested claim that was
/// probably meant exists. Logged once per process.
pub(crate) fn dotted_claim_path(configured: &str, pointer: &str) {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| {
        tracing::warn!(
            target: "portcullis", event = "dotted_claim_path", configured, pointer,
            "no claim has this name; use a JSON Pointer for a nested claim"
        );
    });
}

/// The system has no root certificates.
#[cfg(feature = "aws-lc-rs")]
pub(crate) fn no_root_certificates(error: &reqwest::Error) {
    tracing::warn!(target: "portcullis", event = "no_root_certificates", %error, "HTTP client has no root certificates");
}

/// A verifier that requires FIPS mode was created.
pub(crate) fn fips_mode() {
    #[cfg(feature = "aws-lc-rs")]
    tracing::info!(
        target: "portcullis", event = "fips_mode", module = aws_lc_rs::awslc_version(),
        "cryptography is in FIPS mode"
    );
}

/// A handler extracts a token, but no layer verified the request.
#[cfg(feature = "axum")]
pub(crate) fn not_protected() {
    tracing::error!(
        target: "portcullis",
        event = "not_protected",
        "a handler extracts the access token on a route without `ProtectLayer`; add `.route_layer(protect)`"
    );
}

/// Warns if the feature `testing` is enabled without debug assertions, as in a release build: code
/// that can reach `TestIssuer` can sign any token. Repeats until a subscriber records it.
#[cfg(feature = "testing")]
pub(crate) fn testing_in_release() {
    static WAS_HEARD: AtomicBool = AtomicBool::new(false);
    if cfg!(debug_assertions) || WAS_HEARD.load(Ordering::Relaxed) {
        return;
    }
    // Repeated until a subscriber is enabled. A consumer of the `log` crate is not detected.
    tracing::warn!(
        target: "portcullis",
        event = "testing_in_release",
        "the feature `testing` of portcullis is enabled in a release build; enable it in `[dev-dependencies]` only"
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
        if issuer.is_configured() { Arc::clone(&issuer.iss).into() } else { "resolved".into() }
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

    #[cfg(feature = "status-list")]
    pub(super) fn status_list_fetch(issuer: &IssuerName, outcome: &'static str, took: Duration) {
        counter!("portcullis_status_list_fetches_total", "issuer" => label(issuer), "outcome" => outcome)
            .increment(1);
        histogram!("portcullis_status_list_fetch_duration_seconds", "issuer" => label(issuer), "outcome" => outcome)
            .record(took.as_secs_f64());
    }

    /// The time of the last fetch, as is common with Prometheus. The age of a key set is the
    /// current time minus this value; an age would be out of date when it is read. Resolved issuers
    /// share one label, so they have no such value.
    pub(super) fn fetched_at(issuer: &IssuerName, unix: Duration) {
        if issuer.is_configured() {
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

    pub(super) fn rejection(reason: &'static str) {
        counter!("portcullis_rejections_total", "reason" => reason).increment(1);
    }

    pub(super) fn introspection(issuer: &IssuerName, outcome: &'static str, took: Duration) {
        counter!("portcullis_introspections_total", "issuer" => label(issuer), "outcome" => outcome)
            .increment(1);
        histogram!("portcullis_introspection_duration_seconds", "issuer" => label(issuer), "outcome" => outcome)
            .record(took.as_secs_f64());
    }

    pub(super) fn proof(outcome: &'static str) {
        counter!("portcullis_proofs_total", "outcome" => outcome).increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge, and fewer than 2^53 proofs")]
    pub(super) fn replays_kept(number: usize) {
        gauge!("portcullis_replays_kept").set(number as f64);
    }

    pub(super) fn revocation(outcome: &'static str) {
        counter!("portcullis_revocations_total", "outcome" => outcome).increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge, and fewer than 2^53 entries")]
    pub(super) fn revocations_kept(number: usize) {
        gauge!("portcullis_revocations_kept").set(number as f64);
    }

    pub(super) fn revocations_read_at(unix: Duration) {
        gauge!("portcullis_revocations_read_at_seconds").set(unix.as_secs_f64());
    }

    pub(super) fn lookup_failure() {
        counter!("portcullis_lookup_failures_total").increment(1);
    }
}

/// Without the feature `metrics`, nothing is counted.
#[cfg(not(feature = "metrics"))]
mod meters {
    use std::time::Duration;

    use super::IssuerName;

    pub(super) fn request(_: &'static str) {}
    pub(super) fn token_cache(_: &'static str) {}
    pub(super) fn fetch(_: &IssuerName, _: &'static str, _: Duration) {}
    #[cfg(feature = "status-list")]
    pub(super) fn status_list_fetch(_: &IssuerName, _: &'static str, _: Duration) {}
    pub(super) fn fetched_at(_: &IssuerName, _: Duration) {}
    pub(super) fn stale_serve(_: &IssuerName) {}
    pub(super) fn unknown_kid(_: &IssuerName, _: &'static str) {}
    pub(super) fn rejection(_: &'static str) {}
    pub(super) fn introspection(_: &IssuerName, _: &'static str, _: Duration) {}
    pub(super) fn proof(_: &'static str) {}
    pub(super) fn replays_kept(_: usize) {}
    pub(super) fn revocation(_: &'static str) {}
    pub(super) fn revocations_kept(_: usize) {}
    pub(super) fn revocations_read_at(_: Duration) {}
    pub(super) fn lookup_failure() {}
}
