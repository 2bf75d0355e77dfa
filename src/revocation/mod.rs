//! Revocation of tokens that their signature still makes valid: by token, subject, session, client
//! or issuer.
//!
//! `entry.rs` is one revocation, `revoked.rs` the set of all of them with a counter, and
//! `follow.rs` the task that reads what other replicas have revoked.
//!
//! Each replica has the whole set, so no request asks another server. A verified token remembers
//! the count at which it was last looked up, so a token in use is looked up once after each
//! revocation.

mod entry;
mod follow;
pub(crate) mod receiver;
mod revoked;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::access_token::{AccessToken, TokenKind};
use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::RevocationsHealth;
use crate::shared_store::{SharedStore, StoreError};
use crate::telemetry::{self, LogThrottle};
use crate::verifier::documents::VerifiedDocument;
use tokio::time::{sleep, timeout};

use entry::{Entry, Identifiers, Kind};
use follow::{Follower, NotAppended};
use revoked::{Full, Revoked};

pub(crate) use revoked::{LookedUpAt, Source};

/// How long an entry about all tokens of a subject, session, client or issuer is kept: the longest
/// lifetime of a token that most issuers allow without a change of their defaults.
const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long an entry about one token is kept beyond its end: the longest leeway of `exp`.
const LEEWAY: Duration = Duration::from_secs(300);

/// How long tokens are accepted while the log cannot be read.
const MAX_STALE: Duration = Duration::from_secs(60);
/// A few reads, so that one slow answer is no outage.
const SHORTEST_STALE: Duration = Duration::from_secs(5);
const LONGEST_STALE: Duration = Duration::from_secs(3600);

/// How often an open stream looks its token up, at most. Many streams and many revocations would
/// otherwise take all of the processor.
const LOOKED_UP_EVERY: Duration = Duration::from_millis(250);

/// How long `warm_up` waits for the log. Reading continues in the background.
const LOADED_WITHIN: Duration = Duration::from_secs(5);

/// Tokens that are rejected though their issuer's signature is valid, for
/// [`VerifierBuilder::revocations`](crate::VerifierBuilder::revocations).
///
/// Cheap to clone; clones share the entries. Each call is done when the entry is in the log, and
/// takes effect in this process at once, and in other replicas within two seconds.
///
/// ```
/// use portcullis::{Issuer, Revocations, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let revocations = Revocations::in_memory();
/// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let verifier = Verifier::builder(issuer).revocations(&revocations).build()?;
///
/// // The user signed out everywhere.
/// revocations.subject("https://acme.eu.auth0.com/", "auth0|42").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

/// What an issuer has told to revoke, of its own tokens.
#[derive(Debug, PartialEq)]
struct Revoke<'a> {
    kind: Kind,
    value: &'a str,
    /// Up to when the tokens were issued. For one token, [`Duration::MAX`].
    issued_before: Duration,
}

/// Whether an entry is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    Now,
    Before,
}

struct Inner {
    keep_for: Duration,
    max_stale: Duration,
    revoked: Revoked,
    /// The log that replicas share. Without it, the entries live in this process only.
    follower: Option<Follower>,
    failures: LogThrottle,
    /// Limits the events about what issuers of a lookup revoke.
    received: LogThrottle,
    clock: OnceLock<Clock>,
}

impl Revocations {
    /// Keeps the entries in the memory of this process. They are lost when it ends, and other
    /// replicas do not learn of them.
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    /// Shares the entries with all replicas through the log of a store. Each replica reads the
    /// whole log at its start, and then once a second.
    pub fn shared(store: impl SharedStore) -> Self {
        Self::new(Some(Follower::new(Arc::new(store))))
    }

    fn new(follower: Option<Follower>) -> Self {
        let revoked = Revoked::default();
        if follower.is_none() {
            revoked.was_read(Duration::MAX, Duration::MAX);
        }
        Self(Arc::new(Inner {
            keep_for: KEEP_FOR,
            max_stale: MAX_STALE,
            revoked,
            follower,
            failures: LogThrottle::default(),
            received: LogThrottle::default(),
            clock: OnceLock::new(),
        }))
    }

    /// Sets how long an entry about a subject, session, client or issuer is kept: 24 hours by
    /// default. Give it the longest lifetime of an access token. A token that was issued longer ago
    /// is rejected, because what was revoked then is no longer known.
    ///
    /// # Errors
    ///
    /// Returns an error if `duration` is shorter than a minute or longer than 90 days, or if these
    /// revocations were cloned before.
    pub fn keep_for(mut self, duration: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_secs(60)..=LONGEST).contains(&duration) {
            return Err(ConfigError::new(format!(
                "lifetime of revocations: expected a minute to 90 days, found {duration:?}"
            )));
        }
        self.config()?.keep_for = duration;
        Ok(self)
    }

    /// Sets for how long tokens are accepted while the log cannot be read: 60 seconds by default.
    /// After that, requests are answered 503.
    ///
    /// # Errors
    ///
    /// Returns an error if `duration` is shorter than 5 seconds or longer than an hour, or if these
    /// revocations were cloned before.
    pub fn max_stale(mut self, duration: Duration) -> Result<Self, ConfigError> {
        if !(SHORTEST_STALE..=LONGEST_STALE).contains(&duration) {
            return Err(ConfigError::new(format!(
                "staleness of revocations: expected 5 seconds to an hour, found {duration:?}"
            )));
        }
        self.config()?.max_stale = duration;
        Ok(self)
    }

    fn config(&mut self) -> Result<&mut Inner, ConfigError> {
        Arc::get_mut(&mut self.0).ok_or_else(|| {
            ConfigError::new("revocations: expected to be configured before they are cloned")
        })
    }

    /// Revokes one token: the one with this `jti` of this issuer. `until` is its `exp`; the entry
    /// is not needed after that.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails, so that other replicas do not learn of it, or if there
    /// are a million entries. The caller should try again. Returns an error, too, if `until` is
    /// further ahead than [`keep_for`](Self::keep_for): the log would lose the entry before.
    pub async fn token(&self, iss: &str, jti: &str, until: SystemTime) -> Result<(), StoreError> {
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (kept_until, keep_for) =
            (self.now().unix.saturating_add(self.0.keep_for), self.0.keep_for);
        if until > kept_until.saturating_add(LEEWAY) {
            return Err(StoreError::new(format!(
                "expected a token that ends within `Revocations::keep_for` ({keep_for:?}), found one that ends {:?} later",
                until.saturating_sub(kept_until)
            )));
        }
        let until = until.saturating_add(LEEWAY);
        let entry = Entry::new(Kind::Token, iss, jti, Duration::MAX, until);
        self.append(entry, Source::Trusted).await.map(|_| ())
    }

    /// Revokes all tokens of a subject (`sub`) that were issued up to now.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    pub async fn subject(&self, iss: &str, sub: &str) -> Result<(), StoreError> {
        self.revoke(Kind::Subject, iss, sub).await
    }

    /// Revokes all tokens of a subject (`sub`) that were issued up to a time, such as that of an
    /// event. A time in the future counts as now: it would revoke tokens that are issued later.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    pub async fn subject_before(
        &self,
        iss: &str,
        sub: &str,
        issued_before: SystemTime,
    ) -> Result<(), StoreError> {
        let time = issued_before.duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = self.entry(Kind::Subject, iss, sub, time.min(self.now().unix));
        self.append(entry, Source::Trusted).await.map(|_| ())
    }

    /// Revokes all tokens of a session (`sid`) that were issued up to now.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    pub async fn session(&self, iss: &str, sid: &str) -> Result<(), StoreError> {
        self.revoke(Kind::Session, iss, sid).await
    }

    /// Revokes all tokens of a client (`client_id`) that were issued up to now.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    pub async fn client(&self, iss: &str, client_id: &str) -> Result<(), StoreError> {
        self.revoke(Kind::Client, iss, client_id).await
    }

    /// Revokes all tokens of an issuer that were issued up to now.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    pub async fn issuer(&self, iss: &str) -> Result<(), StoreError> {
        self.revoke(Kind::Issuer, iss, "").await
    }

    async fn revoke(&self, kind: Kind, iss: &str, value: &str) -> Result<(), StoreError> {
        let entry = self.entry(kind, iss, value, self.now().unix);
        self.append(entry, Source::Trusted).await.map(|_| ())
    }

    /// The entry that revokes what was issued up to a time.
    fn entry(&self, kind: Kind, iss: &str, value: &str, issued_before: Duration) -> Entry {
        // Until the youngest of these tokens is as old as tokens may be. For what has a time, from
        // that time on: a recorded event that is sent again then has the same entry.
        let from = match issued_before {
            Duration::MAX => self.now().unix.saturating_add(LEEWAY),
            before => before.saturating_add(Duration::from_secs(1)),
        };
        Entry::new(kind, iss, value, issued_before, from.saturating_add(self.0.keep_for))
    }

    /// Records what an issuer has told.
    async fn record(
        &self,
        document: &VerifiedDocument,
        told: &Revoke<'_>,
    ) -> Result<(), StoreError> {
        // Tokens that old are rejected in any case. Those in use are looked up only if the set
        // changes, and are accepted for as long as the leeway before.
        if self.is_forgotten(told.issued_before.saturating_add(LEEWAY)) {
            return Ok(());
        }
        let entry = self.entry(told.kind, &document.iss, told.value, told.issued_before);
        if told.issued_before == Duration::MAX && self.has(&entry) {
            return Ok(());
        }
        let appended = self.append(entry, document.source).await;
        // A sender may repeat what is recorded as often as it likes.
        if appended.inspect_err(|error| self.log_failure(error))? == Recorded::Before {
            return Ok(());
        }
        let suppressed = match document.source {
            Source::Trusted => Some(0),
            Source::Tenant => self.0.received.admit(self.now().uptime),
        };
        if let Some(suppressed) = suppressed {
            telemetry::revocation_received(&document.iss, told.kind.name(), suppressed);
        }
        Ok(())
    }

    /// A sender may repeat what cannot be recorded as often as it likes.
    fn log_failure(&self, error: &StoreError) {
        if let Some(suppressed) = self.0.failures.admit(self.now().uptime) {
            telemetry::revocation_not_recorded(error, suppressed);
        }
    }

    /// Whether this is known already. An entry without a time ends later each time that it is
    /// created, so when it ends is not compared.
    fn has(&self, entry: &Entry) -> bool {
        self.0.revoked.has(entry, self.now())
    }

    /// Whether something happened so long ago that entries about it have ended.
    fn is_forgotten(&self, time: Duration) -> bool {
        self.forgets(Some(time), self.now())
    }

    async fn append(&self, entry: Entry, source: Source) -> Result<Recorded, StoreError> {
        // What arrives twice is recorded once.
        if self.0.revoked.covers(&entry) {
            return Ok(Recorded::Before);
        }
        if let Err(error) = self.has_room(&entry, source) {
            telemetry::revocation("failed");
            return Err(error);
        }
        self.store(entry, source).await.map(|()| Recorded::Now)
    }

    /// Returns an error if there is no room for an entry.
    fn has_room(&self, entry: &Entry, source: Source) -> Result<(), StoreError> {
        match self.0.revoked.full(entry, source, self.now()) {
            Some(full) => Err(StoreError::new(full.reason())),
            None => Ok(()),
        }
    }

    /// Appends an entry for which there is room.
    async fn store(&self, entry: Entry, source: Source) -> Result<(), StoreError> {
        let stored = self.try_store(entry, source).await;
        telemetry::revocation(if stored.is_ok() { "recorded" } else { "failed" });
        stored
    }

    async fn try_store(&self, entry: Entry, source: Source) -> Result<(), StoreError> {
        let (revoked, now) = (&self.0.revoked, self.now().unix);
        let kept_until = now.saturating_add(self.kept_in_log_for()).max(entry.until);
        // Before the wait: a sender that disconnects may have appended the entry.
        let counted = match source {
            Source::Trusted => None,
            Source::Tenant => Some(revoked.count_appended(&entry, kept_until, now)),
        };
        if let Some(follower) = &self.0.follower {
            match follower.append(&entry, self.kept_in_log_for()).await {
                Ok(()) => {}
                Err(NotAppended::Perhaps(error)) => return Err(error),
                // Otherwise, a sender that tries again would use up the room while the store fails.
                Err(NotAppended::Failed(error)) => {
                    counted.iter().for_each(|counted| revoked.uncount(counted));
                    return Err(error);
                }
            }
        }
        if !self.0.revoked.insert([entry], self.now()) {
            return Err(StoreError::new(Full::All.reason()));
        }
        telemetry::revocations_kept(self.0.revoked.len());
        Ok(())
    }

    /// Longer than any entry counts: that of a token may end later by the leeway, and its time may
    /// be ahead by as much.
    fn kept_in_log_for(&self) -> Duration {
        self.0.keep_for.saturating_add(2 * LEEWAY)
    }

    /// The state of these revocations, for readiness checks and dashboards.
    pub fn health(&self) -> RevocationsHealth {
        let now = self.now().uptime;
        RevocationsHealth {
            entries: self.0.revoked.len(),
            is_available: self.0.revoked.is_complete(now),
            log: self.0.follower.as_ref().map(|follower| follower.health(now)),
        }
    }

    /// How long entries are kept, which is how old a token may be.
    pub(crate) fn kept_for(&self) -> Duration {
        self.0.keep_for
    }

    pub(crate) fn set_clock(&self, clock: &Clock) {
        let _ = self.0.clock.set(clock.clone());
    }

    fn now(&self) -> Now {
        self.0.clock.get_or_init(Clock::default).now()
    }

    /// Starts to read the log, if no task does.
    pub(crate) fn follow(&self) {
        if let Some(follower) = &self.0.follower {
            follower.start(self);
        }
    }

    /// Waits until it is known what is revoked, at most for a while.
    pub(crate) async fn loaded(&self) -> Result<(), FetchError> {
        let Some(follower) = &self.0.follower else { return Ok(()) };
        follower.start(self);
        let is_available = || self.0.revoked.is_complete(self.now().uptime);
        let loaded = timeout(LOADED_WITHIN, follower.wait_until(is_available)).await;
        loaded.map_err(|_| FetchError::Timeout { limit: LOADED_WITHIN })
    }

    /// Whether a verified token is still accepted. For a token in use, this is one atomic load.
    pub(crate) fn check(&self, token: &AccessToken, now: Now) -> Result<(), Error> {
        match self.0.revoked.count_at(now.uptime) {
            Some(count) if token.looked_up_at().is(count) => Ok(()),
            _ => self.look_up(token, now),
        }
    }

    #[cold]
    fn look_up(&self, token: &AccessToken, now: Now) -> Result<(), Error> {
        // The log should have been read by now: the task may have ended with its runtime.
        self.follow();
        if !self.0.revoked.is_complete(now.uptime) {
            return Err(Error::RevocationsUnavailable);
        }
        // First, so that an entry that is added now changes it.
        let count = self.0.revoked.count();
        if token.looked_up_at().is(count) {
            return Ok(());
        }
        // Without it, it is not known whether the entry about the token has ended already. The
        // issuer was asked about the others.
        if token.issued_at().is_none() && token.kind() == TokenKind::Jwt {
            return Err(InvalidToken::MissingClaim("iat").into());
        }
        if self.is_revoked(token, now)? {
            return Err(InvalidToken::Revoked.into());
        }
        token.looked_up_at().set(count);
        Ok(())
    }

    /// Whether a token is revoked, by what is known.
    fn is_revoked(&self, token: &AccessToken, now: Now) -> Result<bool, InvalidToken> {
        let (identifiers, issued_at) = (Identifiers::read(token)?, token.issued_at());
        let is_listed = || self.0.revoked.contains(&identifiers.hashes(), issued_at, now.unix);
        Ok(self.forgets(issued_at, now) || self.0.revoked.len() > 0 && is_listed())
    }

    /// Whether a token was issued so long ago that it is no longer known what was revoked then.
    pub(crate) fn forgets(&self, issued_at: Option<Duration>, now: Now) -> bool {
        issued_at.is_some_and(|issued_at| issued_at.saturating_add(self.0.keep_for) < now.unix)
    }

    /// Waits until a token is revoked. A log that cannot be read revokes nothing.
    pub(crate) async fn until_revoked(&self, token: &AccessToken) {
        let mut changes = self.0.revoked.changes();
        while self.is_revoked(token, self.now()) == Ok(false) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(LOOKED_UP_EVERY).await;
        }
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Revocations")
            .field("entries", &self.0.revoked.len())
            .field("keep_for", &self.0.keep_for)
            .field("max_stale", &self.0.max_stale)
            .finish_non_exhaustive()
    }
}
