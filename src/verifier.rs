//! Token string in, [`AccessToken`] or [`Error`] out.

use std::cell::LazyCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::access_token::{AccessToken, Implies};
use crate::clock::Clock;
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::{IssuerHealth, WarmUpError};
use crate::http_client::HttpClient;
use crate::issuer::active::SignatureCheck;
use crate::issuer::issuers::Issuers;
use crate::issuer::registry::{IssuerRegistry, LookupFuture, Resolution, ResolvedIssuer};
use crate::keys::remote::Fetching;
use crate::keys::remote::fetch::default_client;
use crate::keys::remote::limits::MAX_PER_ORIGIN;
use crate::telemetry;
use crate::token::claims::Claims;
use crate::token::jws::{Header, Jws};
use crate::token::token_type::reject_other_jwt_types;
use crate::token_cache::{self, Entry, EntryIssuer, TokenCache};
use crate::token_source::TokenSource;

/// Verifies access tokens (RFC 9068 §4, RFC 8725): everything but HTTP.
///
/// Cheap to clone; clones share their keys. For HTTP, give it to a [`ProtectLayer`](crate::ProtectLayer).
///
/// ```no_run
/// use portcullis::{Issuer, Verifier};
///
/// # async fn example(message_token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let verifier = Verifier::new(issuer)?;
///
/// let token = verifier.verify(message_token).await?;
/// println!("from {:?}, until {:?}", token.subject(), token.expires_at());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    /// Tells this verifier and its clones from all others in the process.
    id: u64,
    issuers: IssuerRegistry,
    clock: Clock,
    implies: Option<Arc<Implies>>,
    cache: Arc<TokenCache>,
}

/// Where a verification stands.
pub(crate) enum Verification {
    Ready(Result<AccessToken, Error>),
    Pending(Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>),
}

/// What was waited for already.
#[derive(Default)]
struct Resume {
    issuer: Option<ResolvedIssuer>,
    /// How often a fetch was waited for.
    waits: u8,
}

enum Attempt {
    Ready(AccessToken),
    Pending(Pending),
}

enum Pending {
    Lookup(LookupFuture),
    /// Of this issuer, which may be evicted meanwhile.
    Fetch(ResolvedIssuer, Fetching),
}

/// Optional settings of a [`Verifier`]; from [`Verifier::builder`].
#[must_use]
pub struct VerifierBuilder {
    issuers: Result<Issuers, ConfigError>,
    client: Option<HttpClient>,
    clock: Clock,
    implies: Option<Arc<Implies>>,
    cached_tokens: u64,
}

impl fmt::Debug for VerifierBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerifierBuilder")
            .field("issuers", &self.issuers)
            .finish_non_exhaustive()
    }
}

impl VerifierBuilder {
    /// The HTTP client (of `reqwest` 0.13) that fetches keys, for all issuers: for a private certificate authority, a proxy, a
    /// client certificate. The built-in one takes the system's root certificates and no proxy. Give yours a connect timeout,
    /// and no redirects: a redirected answer is refused. It resolves names by itself, so of looked-up issuers only addresses
    /// that are written as such are checked for being private.
    pub fn client(mut self, client: impl Into<HttpClient>) -> Self {
        self.client = Some(client.into());
        self
    }

    /// For how many verified tokens there is room; 10,000 by default. A token is kept when it is verified for the second time,
    /// so the third request with it is the first that saves the signature, for 5 minutes at the most. On every request it is
    /// checked that the time has not run out, and that issuer and keys are still the ones.
    ///
    /// Set it to the number of tokens in use at a time. Up to twice as many are kept, and they take at most 8 KiB of memory for
    /// each that there is room for: with the default 80 MB, with 100,000 tokens 800 MB. Counted are the token and its payload
    /// (about 1.75 times the token's length and 400 bytes), and its claims once they are read, as a tree and as types of the
    /// application's; a token whose claims would take more than 128 KiB is verified each time. The table itself takes 64 bytes for
    /// each, from the start; two million are the most. What has expired is never used; its memory is freed when another token
    /// needs it.
    pub fn token_cache_capacity(mut self, tokens: u64) -> Self {
        self.cached_tokens = tokens;
        self
    }

    /// Keeps no verified tokens: each request verifies its token's signature.
    pub fn without_token_cache(self) -> Self {
        self.token_cache_capacity(0)
    }

    /// Whether a scope token that is granted (the first) implies one that is asked for (the second), for all tokens and all
    /// rules.
    ///
    /// ```
    /// use portcullis::{Issuer, Verifier};
    ///
    /// // `orders` implies `orders:read`
    /// let verifier = Verifier::builder(Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?)
    ///     .scope_implies(|granted, asked| asked.strip_prefix(granted).is_some_and(|rest| rest.starts_with(':')))
    ///     .build()?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn scope_implies(
        mut self,
        implies: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.implies = Some(Arc::new(implies));
        self
    }

    /// Reads the time from a clock that a test moves.
    #[cfg(feature = "testing")]
    pub fn clock(mut self, clock: &crate::clock::TestClock) -> Self {
        self.clock = Clock::Test(clock.clone());
        self
    }

    /// # Errors
    ///
    /// A [`ConfigError`] whose sentence names the value that cannot work.
    pub fn build(self) -> Result<Verifier, ConfigError> {
        let (clock, implies) = (self.clock, self.implies);
        let cache = Arc::new(TokenCache::new(self.cached_tokens));
        let own = |guarded| {
            self.client.as_ref().map_or_else(|| default_client(guarded), |own| Ok(own.0.clone()))
        };
        // Made when it is needed, once: it reads the system's root certificates, which takes tens of milliseconds.
        let client = LazyCell::new(|| own(false));
        let issuers =
            IssuerRegistry::new(self.issuers?, || client.clone(), || own(true), clock.clone())?;
        #[cfg(feature = "testing")]
        telemetry::testing_in_release();
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Verifier(Arc::new(Inner { id, issuers, clock, implies, cache })))
    }
}

impl Verifier {
    /// A verifier of the tokens of one [`Issuer`](crate::Issuer), of an array or `Vec` of them, or of looked-up [`Issuers`].
    ///
    /// # Errors
    ///
    /// When an issuer is in the list twice, the list is empty, keys shall be discovered at an `iss` that is no https URL in
    /// its normal form, or an issuer has both a secret and a key set.
    pub fn new<I>(issuers: I) -> Result<Self, ConfigError>
    where
        I: TryInto<Issuers>,
        ConfigError: From<I::Error>,
    {
        Self::builder(issuers).build()
    }

    /// As [`new`](Self::new), with settings.
    pub fn builder<I>(issuers: I) -> VerifierBuilder
    where
        I: TryInto<Issuers>,
        ConfigError: From<I::Error>,
    {
        VerifierBuilder {
            issuers: issuers.try_into().map_err(ConfigError::from),
            client: None,
            clock: Clock::default(),
            implies: None,
            cached_tokens: token_cache::DEFAULT_CAPACITY,
        }
    }

    /// Verifies one access token: its form, issuer, audience, time and signature. Scopes are for the caller to ask for.
    ///
    /// Waits only when keys must be fetched, and that needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidToken`], or [`Error::KeysUnavailable`] when the issuer is trusted but its keys cannot be had.
    pub async fn verify(&self, token: &str) -> Result<AccessToken, Error> {
        match self.begin(token) {
            Verification::Ready(result) => result,
            Verification::Pending(future) => future.await,
        }
    }

    /// Makes sure that the keys of all listed issuers are loaded: fetches what is missing, 16 at a time, and waits. At start-up,
    /// so that no request has to wait; and in a `/readyz`, where it costs nothing while the keys are there. Optional: without
    /// it, the first request of each issuer waits. Looked-up issuers are not known before somebody asks for them, so of those
    /// there is nothing to warm up.
    ///
    /// # Errors
    ///
    /// [`WarmUpError`] says which issuers failed. The verifier works on all the same, and tries again when asked.
    pub async fn warm_up(&self) -> Result<(), WarmUpError> {
        let issuers = self.0.issuers.listed();
        // Not more at once than one server is asked at once: their time limits would run while they stand in line.
        let turns = Arc::new(Semaphore::new(MAX_PER_ORIGIN));
        let mut fetches = JoinSet::new();
        if let Ok(runtime) = Handle::try_current() {
            for issuer in &issuers {
                let (issuer, turns, clock) =
                    (Arc::clone(issuer), Arc::clone(&turns), self.0.clock.clone());
                let warm_up = async move {
                    let _turn = turns.acquire().await;
                    if let Some(fetching) = issuer.warm_up(clock.now()) {
                        fetching.finished().await;
                    }
                };
                fetches.spawn_on(warm_up, &runtime);
            }
        }
        while fetches.join_next().await.is_some() {}
        let failed = issuers
            .iter()
            .filter(|issuer| issuer.can_warm_up())
            .map(|issuer| issuer.health(self.0.clock.now()))
            .filter(|health| !health.is_ready());
        let reason = |health: IssuerHealth| health.last_error.unwrap_or(FetchError::NoRuntime);
        let failed: Vec<_> =
            failed.map(|health| (Arc::clone(&health.iss), reason(health))).collect();
        if failed.is_empty() { Ok(()) } else { Err(WarmUpError::new(failed)) }
    }

    /// How the keys of each issuer are doing: of the listed ones, and of those that look-ups brought and that are kept.
    /// Fetches nothing.
    pub fn health(&self) -> Vec<IssuerHealth> {
        let now = self.0.clock.now();
        let mut health: Vec<_> =
            self.0.issuers.known().iter().map(|issuer| issuer.health(now)).collect();
        health.sort_by(|one, other| one.iss.cmp(&other.iss));
        health
    }

    /// Forgets the issuer with this name: at once, and not only when its time is over. For a tenant that is removed or
    /// compromised, and for keys that are withdrawn before their lifetime ends.
    ///
    /// Of a looked-up issuer, everything is dropped that is kept of it by this and its other names: that it is trusted, that it
    /// is not (so that a new tenant need not wait for 30 seconds), its keys, and its verified tokens. The look-up is called when
    /// the next token names it; answers that it gave before do not count. Of a configured issuer, keys that are fetched and
    /// tokens verified with them are dropped; it stays trusted. Requests that are being verified may still end as before.
    ///
    /// It acts on this verifier and its clones: in each process, where there are several. Returns whether anything was known of
    /// such an issuer.
    ///
    /// ```
    /// # fn example(verifier: portcullis::Verifier) {
    /// // A tenant was removed from the database.
    /// verifier.forget("https://acme.eu.auth0.com/");
    /// # }
    /// ```
    pub fn forget(&self, iss: &str) -> bool {
        self.0.issuers.forget(iss)
    }

    /// Verifies at once if nothing has to be fetched: no future, no lock, no task switch.
    pub(crate) fn begin(&self, token: &str) -> Verification {
        let cached = self.cached(token);
        telemetry::token_cache(cached.is_some());
        if let Some(token) = cached {
            return Verification::Ready(Ok(token));
        }
        match self.attempt(token, &Resume::default()) {
            Ok(Attempt::Ready(token)) => Verification::Ready(Ok(token)),
            Ok(Attempt::Pending(wait)) => {
                let verification = self.clone().resume(wait, token.to_owned());
                Verification::Pending(Box::pin(verification.instrument(telemetry::waiting())))
            }
            Err(error) => Verification::Ready(Err(self.log_rejection(token, error))),
        }
    }

    /// The token, if it was verified a moment ago and nothing has changed since. If anything has, the steps will say what.
    fn cached(&self, token: &str) -> Option<AccessToken> {
        self.0.cache.get(token, |entry| {
            let now = self.0.clock.now();
            if !entry.is_recent(now) || !entry.token().is_good_at(now) {
                return false;
            }
            match entry.issuer() {
                EntryIssuer::Listed(issuer) => issuer.recheck(entry.keys(), now),
                EntryIssuer::LookedUp(issuer) => {
                    match self.0.issuers.find(entry.token().issuer(), now) {
                        Ok(Resolution::Ready(known)) => {
                            std::ptr::eq(Arc::as_ptr(&known.issuer), issuer.as_ptr())
                                && known.issuer.recheck(entry.keys(), now)
                        }
                        _ => false,
                    }
                }
            }
        })
    }

    async fn resume(self, mut wait: Pending, token: String) -> Result<AccessToken, Error> {
        let mut progress = Resume::default();
        // Ends: once there is an issuer, no lookup is waited for; and the waits for fetches are counted.
        loop {
            match wait {
                Pending::Lookup(lookup) => {
                    progress.issuer =
                        Some(lookup.await.map_err(|error| self.log_rejection(&token, error))?);
                }
                Pending::Fetch(issuer, fetching) => {
                    fetching.finished().await;
                    progress =
                        Resume { issuer: Some(issuer), waits: progress.waits.saturating_add(1) };
                }
            }
            match self.attempt(&token, &progress) {
                Ok(Attempt::Ready(token)) => return Ok(token),
                Ok(Attempt::Pending(next)) => wait = next,
                Err(error) => return Err(self.log_rejection(&token, error)),
            }
        }
    }

    /// The steps, in order.
    ///
    /// Whatever can be refused without a key is refused before one is asked for: a token that would be refused anyway
    /// causes no network access and spends no fetch.
    fn attempt(&self, token: &str, progress: &Resume) -> Result<Attempt, Error> {
        let now = self.0.clock.now();
        let jws = Jws::split(token)?;
        let header = jws.header()?;
        reject_other_jwt_types(header.typ.as_deref())?;
        let claims = Claims::parse(jws.unverified_payload())?;
        let known = match &progress.issuer {
            Some(known) => known.clone(),
            None => match self
                .0
                .issuers
                .find(&claims.issuer, now)
                .map_err(|error| clarify_microsoft_token(error, &header))?
            {
                Resolution::Ready(known) => known,
                Resolution::Pending(lookup) => {
                    return Ok(Attempt::Pending(Pending::Lookup(lookup)));
                }
            },
        };
        let issuer = &known.issuer;
        issuer.check_algorithm(&header)?;
        let tenant = issuer.check_tenant(&claims)?;
        match claims.check(&issuer.config.audience, issuer.config.leeway, now) {
            Ok(()) => {}
            Err(InvalidToken::Expired { expires_at, now: unix, .. }) => {
                // Nothing is fetched for it. The client is told that it expired only if that is the issuer's word.
                let verified = issuer.verifies_with_cached_keys(&jws, &header, tenant, now);
                return Err(InvalidToken::Expired { expires_at, now: unix, verified }.into());
            }
            Err(refusal) => return Err(clarify_microsoft_token(refusal.into(), &header)),
        }
        issuer.check_profile(&jws, &header, &claims, now)?;
        let signature = issuer.verify_signature(&jws, &header, tenant, progress.waits, now);
        let (payload, keys) =
            match signature.map_err(|error| clarify_microsoft_token(error, &header))? {
                SignatureCheck::Ready(payload, keys) => (payload, keys),
                SignatureCheck::Pending(fetching) => {
                    return Ok(Attempt::Pending(Pending::Fetch(known.clone(), fetching)));
                }
            };
        if issuer.checks_claims_late(&jws) {
            issuer.check_claims(&jws, now)?;
        }
        self.0.issuers.verified(&known);
        let (id, clock, implies) = (self.0.id, self.0.clock.clone(), self.0.implies.clone());
        let verified =
            AccessToken::new(token, &payload, claims, &issuer.config, id, clock, implies);
        self.0
            .cache
            .insert(token, now, || Entry::new(verified.clone(), &known, keys.as_ref(), now));
        Ok(Attempt::Ready(verified))
    }

    /// Tells the log. Never the token, nor a claim of it.
    fn log_rejection(&self, token: &str, error: Error) -> Error {
        if !tracing::enabled!(target: "portcullis", tracing::Level::DEBUG) {
            telemetry::token_refused(&error, None, None, None);
            return error;
        }
        let jws = Jws::split(token).ok();
        let header = jws.as_ref().and_then(|jws| jws.header().ok());
        let claims = jws.as_ref().and_then(|jws| Claims::parse(jws.unverified_payload()).ok());
        let issuer = claims.and_then(|claims| self.0.issuers.known_by(&claims.issuer));
        let issuer = issuer.as_ref().map(|issuer| &*issuer.config.iss);
        let kid = header.as_ref().and_then(|header| header.kid.as_deref());
        let alg = header.as_ref().map(|header| header.algorithm.name());
        telemetry::token_refused(&error, issuer, kid, alg);
        error
    }

    /// Where requests have the tokens of the listed issuers: in the header that a gateway sets, or else in `Authorization`.
    pub(crate) fn token_sources(&self) -> Vec<TokenSource> {
        let mut sources = Vec::new();
        for issuer in self.0.issuers.listed() {
            let source =
                issuer.config.token_source.clone().unwrap_or_else(TokenSource::authorization);
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        if sources.is_empty()
            || self.0.issuers.has_lookup() && !sources.contains(&TokenSource::authorization())
        {
            sources.push(TokenSource::authorization());
        }
        sources
    }

    /// Whether this verifier, or a clone of it, verified the token, and its time has not run out since.
    pub(crate) fn still_accepts(&self, token: &AccessToken) -> bool {
        token.verifier() == self.0.id && token.is_good_at(self.0.clock.now())
    }
}

/// Says what is the matter with a token of Microsoft's own, where it would otherwise be a riddle.
fn clarify_microsoft_token(error: Error, header: &Header<'_>) -> Error {
    match error {
        Error::InvalidToken(
            InvalidToken::UnknownIssuer { .. }
            | InvalidToken::WrongAudience { .. }
            | InvalidToken::BadSignature,
        ) if header.has_nonce => InvalidToken::MicrosoftNonce.into(),
        other => other,
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.issuers.known();
        let mut debug = formatter.debug_struct("Verifier");
        debug
            .field("issuers", &known.iter().map(|issuer| &issuer.config).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
