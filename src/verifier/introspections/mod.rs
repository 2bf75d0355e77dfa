//! Tokens that their issuer is asked about (RFC 7662): one question for all concurrent requests
//! with the same token, and the cache of the answers.

mod question;
mod under_way;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::runtime::Handle;
use tokio::time::timeout;

use question::Question;
use under_way::{Answer, Key, UnderWay};

use super::Verifier;
use super::verification::{Attempt, Pending};
use crate::access_token::AccessToken;
use crate::clock::Now;
use crate::error::{Error, FetchError, InvalidToken};
use crate::introspection::JwtPolicy;
use crate::introspection::client::Familiarity;
use crate::issuer::active::ActiveIssuer;
use crate::issuer::resolution::{Resolution, ResolvedIssuer};
use crate::keys::jwks::Jwks;
use crate::token::jws::MAX_BYTES;
use crate::token_cache::{Entry, EntryIssuer, TokenCache};

/// How long a rejection is remembered, and how many. A client that repeats a bad token causes a
/// question every five seconds. A longer time would keep a token rejected that was issued a moment
/// ago, and has not reached all servers of its issuer.
const REJECTED_FOR: Duration = Duration::from_secs(5);
const MAX_REJECTED: u64 = 1000;

/// How long a request waits for an answer beyond the limits of the question.
const SLACK: Duration = Duration::from_secs(1);

/// Maximum number of audiences of a rejected token that are kept with the rejection, and of
/// characters of a text of the issuer.
const MAX_PRESENTED: usize = 8;
const MAX_QUOTED: usize = 200;

type Outcome = Result<AccessToken, Error>;

/// Questions in progress, and the answers to earlier ones.
pub(super) struct Introspections {
    capacity: u64,
    /// Accepted tokens. Created for the first of them.
    accepted: OnceLock<Arc<TokenCache>>,
    /// Rejected tokens, and until when. By hash: the tokens are not needed.
    rejected: Cache<Key, (Duration, Arc<InvalidToken>)>,
    under_way: Arc<UnderWay<Outcome>>,
    /// Keys of the hash that identifies a token. A client that knew them could have another token
    /// rejected.
    hash: [RandomState; 2],
    /// Whether an issuer was asked about a JWT: only then are the answers searched for JWTs.
    asks_about_jwts: AtomicBool,
}

/// A JWT that was verified with the keys of its issuer.
pub(super) struct VerifiedJwt {
    pub(super) token: AccessToken,
    pub(super) keys: Option<Arc<Jwks>>,
}

/// The answer to wait for.
pub(super) struct Answering {
    answer: Answer<Outcome>,
    key: Key,
    limit: Duration,
    issuer: Arc<ActiveIssuer>,
    /// A token whose answer has ended. It is accepted if the endpoint is down.
    stale: Option<AccessToken>,
}

impl Answering {
    pub(super) async fn finished(mut self, verifier: &Verifier) -> Outcome {
        let question = self.answer.clone();
        let outcome = match timeout(self.limit, self.answer.wait_for(Option::is_some)).await {
            Ok(outcome) => outcome.ok().and_then(|outcome| outcome.clone()),
            Err(_) => {
                // The runtime that the question was started on is no longer driven.
                verifier.0.introspections.under_way.give_up(self.key, &question);
                Some(Err(unavailable(&self.issuer, FetchError::Timeout { limit: self.limit })))
            }
        };
        let outcome =
            outcome.unwrap_or_else(|| Err(unavailable(&self.issuer, FetchError::Interrupted)));
        match (outcome, self.stale) {
            (Err(Error::IntrospectionUnavailable { .. }), Some(stale))
                if stale.is_good_at(verifier.0.clock.now()) =>
            {
                Ok(stale)
            }
            (outcome, _) => outcome,
        }
    }
}

impl Introspections {
    pub(super) fn new(capacity: u64) -> Self {
        let rejected = Cache::builder().max_capacity(MAX_REJECTED);
        Self {
            capacity,
            accepted: OnceLock::new(),
            // The time to live only frees memory: the clock of a test may stand still.
            rejected: rejected
                .time_to_live(REJECTED_FOR)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            under_way: Arc::default(),
            hash: [RandomState::new(), RandomState::new()],
            asks_about_jwts: AtomicBool::new(false),
        }
    }

    pub(super) fn asks_about_jwts(&self) -> bool {
        self.asks_about_jwts.load(Ordering::Relaxed)
    }

    /// Identifies a token at its issuer. An issuer whose configuration changed is another one.
    fn key(&self, issuer: &Arc<ActiveIssuer>, token: &str) -> Key {
        self.hash.each_ref().map(|key| key.hash_one((Arc::as_ptr(issuer), token)))
    }

    /// Drops the answers of the issuer with this name. Later requests do not join the questions in
    /// progress, whose answers may be outdated.
    pub(super) fn forget(&self, iss: &str) {
        self.under_way.give_up_all(|| {
            if let Some(accepted) = self.accepted.get() {
                accepted.remove_where(|entry| entry.has_name(iss));
            }
            self.rejected.invalidate_all();
        });
    }

    fn remember_rejection(&self, key: Key, rejection: &InvalidToken, now: Now) {
        let rejection = match rejection.clone() {
            InvalidToken::WrongAudience { expected, presented } => {
                let presented = presented.iter().take(MAX_PRESENTED).map(|text| quoted(text));
                InvalidToken::WrongAudience { expected, presented: presented.collect() }
            }
            other => other,
        };
        self.rejected.insert(key, (now.uptime + REJECTED_FOR, Arc::new(rejection)));
    }
}

/// The beginning of a text of the issuer. An answer may be long, and a rejection is kept.
fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}

impl Verifier {
    /// What an earlier answer says about the token.
    pub(super) fn answered(&self, token: &str, now: Now) -> Option<Outcome> {
        let accepted = self.0.introspections.accepted.get()?;
        let found = accepted.find(token)?;
        let entry = found.as_ref()?;
        if !entry.holds(Duration::ZERO, now) || !self.is_trusted(entry, now) {
            return None;
        }
        if !entry.token().is_good_at(now) {
            // The issuer need not be asked about a token that has expired by its own answer.
            return entry.token().has_expired(now).then(|| {
                let (expires_at, now) = (entry.token().expires_at(), now.wall());
                Err(InvalidToken::Expired { expires_at, now, verified: true }.into())
            });
        }
        entry.mark_used();
        if entry.try_claim_renewal(now) {
            self.renew(entry, token, now);
        }
        Some(Ok(entry.token().clone()))
    }

    /// Asks about a token in use before its answer ends, so that no request waits.
    fn renew(&self, entry: &Entry, token: &str, now: Now) {
        let issuer = match entry.issuer() {
            EntryIssuer::Configured(issuer) => ResolvedIssuer::configured(issuer),
            EntryIssuer::Resolved(_, name) => match self.0.issuers.find(name, now) {
                Ok(Resolution::Ready(issuer)) => issuer,
                _ => return,
            },
        };
        let keys = entry.keys().and_then(|keys| keys.upgrade());
        let jwt = (policy_of(&issuer.issuer) == Some(JwtPolicy::VerifyAndAsk))
            .then(|| VerifiedJwt { token: entry.token().clone(), keys });
        if let Some(introspection) = &issuer.issuer.introspection
            && introspection.check(Familiarity::Known).is_ok()
        {
            // A failure is not reported to the request, whose token is still accepted.
            let iss = Arc::clone(entry.token().issuer_name());
            let _ = self.question(&issuer, token, iss, jwt, Familiarity::Known);
        }
    }

    /// Asks the issuer about a token, unless that was answered a moment ago. `iss`: the name of the
    /// issuer, as in the token if it is a JWT. `jwt`: the token, if it was verified with the
    /// issuer's keys.
    pub(super) fn ask(
        &self,
        issuer: &ResolvedIssuer,
        token: &str,
        iss: &str,
        jwt: Option<VerifiedJwt>,
    ) -> Result<Attempt, Error> {
        if token.is_empty() {
            return Err(InvalidToken::Opaque.into());
        }
        if token.len() > MAX_BYTES {
            let presented = token.len();
            return Err(InvalidToken::TooLarge { limit: MAX_BYTES, presented }.into());
        }
        let introspections = &self.0.introspections;
        let Some(introspection) = &issuer.issuer.introspection else {
            return Err(InvalidToken::Opaque.into());
        };
        let now = self.0.clock.now();
        let rejected = introspections.rejected.get(&introspections.key(&issuer.issuer, token));
        if let Some((_, rejection)) = rejected.filter(|(until, _)| now.uptime < *until) {
            return Err((*rejection).clone().into());
        }
        let found = introspections.accepted.get().and_then(|accepted| accepted.find(token));
        let entry = found
            .as_ref()
            .and_then(|found| found.as_ref())
            .filter(|entry| self.is_trusted(entry, now));
        // A client cannot make up a JWT that the issuer's keys verify.
        let familiarity = if entry.is_some() || jwt.is_some() {
            Familiarity::Known
        } else {
            Familiarity::Unknown
        };
        let max_stale = introspection.config.max_stale;
        let stale = entry
            .filter(|entry| entry.holds(max_stale, now) && entry.token().is_good_at(now))
            .map(|entry| entry.token().clone());
        if let Err(error) = introspection.check(familiarity) {
            return match stale {
                Some(stale) => Ok(Attempt::Ready(stale)),
                None => Err(unavailable(&issuer.issuer, error)),
            };
        }
        let iss = issuer.issuer.config.name(iss);
        let answer = self
            .question(issuer, token, iss, jwt, familiarity)
            .map_err(|error| unavailable(&issuer.issuer, error))?;
        let key = introspections.key(&issuer.issuer, token);
        let limit = introspection.config.timeout + issuer.issuer.config.key_policy.timeout + SLACK;
        let issuer = Arc::clone(&issuer.issuer);
        Ok(Attempt::Pending(Pending::Answer(Answering { answer, key, limit, issuer, stale })))
    }

    /// Joins the question about this token that is in progress, or starts one.
    fn question(
        &self,
        issuer: &ResolvedIssuer,
        token: &str,
        iss: Arc<str>,
        jwt: Option<VerifiedJwt>,
        familiarity: Familiarity,
    ) -> Result<Answer<Outcome>, FetchError> {
        let runtime = Handle::try_current().map_err(|_| FetchError::NoRuntime)?;
        let introspections = &self.0.introspections;
        if policy_of(&issuer.issuer) != Some(JwtPolicy::Verify) {
            introspections.asks_about_jwts.store(true, Ordering::Relaxed);
        }
        let key = introspections.key(&issuer.issuer, token);
        let (answer, asking) = introspections.under_way.join(key);
        let Some(asking) = asking else { return Ok(answer) };
        let question = Question {
            verifier: self.clone(),
            issuer: issuer.clone(),
            iss,
            token: token.to_owned(),
            jwt,
            familiarity,
            result: None,
            asking,
        };
        // Not under the lock: a runtime that is shutting down drops the task at once, and its
        // `drop` takes the lock.
        runtime.spawn(question.run());
        Ok(answer)
    }
}

fn policy_of(issuer: &ActiveIssuer) -> Option<JwtPolicy> {
    issuer.config.introspection.as_ref().map(|introspection| introspection.jwts)
}

fn unavailable(issuer: &ActiveIssuer, reason: FetchError) -> Error {
    Error::IntrospectionUnavailable { issuer: Arc::clone(&issuer.config.iss), reason }
}
