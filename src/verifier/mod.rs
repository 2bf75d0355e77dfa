//! The [`Verifier`], which turns a token string into an [`AccessToken`] or an [`Error`].

mod builder;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::access_token::{AccessToken, Implies, Terms};
use crate::clock::Clock;
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::{IssuerHealth, WarmUpError};
use crate::issuer::Issuer;
use crate::issuer::active::SignatureCheck;
use crate::issuer::issuers::Issuers;
use crate::issuer::registry::IssuerRegistry;
use crate::issuer::resolution::{LookupFuture, Resolution, ResolvedIssuer};
use crate::keys::remote::Fetching;
use crate::keys::remote::limits::MAX_PER_ORIGIN;
use crate::telemetry;
use crate::token::audience::Audience;
use crate::token::claims::RegisteredClaims;
use crate::token::jws::{Header, Jws};
use crate::token::token_type::reject_other_jwt_types;
use crate::token_cache::{self, Entry, EntryIssuer, TokenCache};
use crate::token_source::TokenSource;

pub use builder::VerifierBuilder;

/// Verifies access tokens (RFC 9068 §4, RFC 8725), independently of HTTP.
///
/// Cheap to clone. Clones share the keys. For HTTP, pass it to a
/// [`ProtectLayer`](crate::ProtectLayer).
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
    /// Identifies this verifier and its clones among all verifiers in the process.
    id: u64,
    issuers: IssuerRegistry,
    clock: Clock,
    implies: Option<Arc<Implies>>,
    cache: Arc<TokenCache>,
}

/// The state of a verification.
pub(crate) enum Verification {
    Ready(Result<AccessToken, Error>),
    Pending(Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>),
}

/// What a verification has waited for so far.
#[derive(Default)]
struct Resume {
    issuer: Option<ResolvedIssuer>,
    /// Number of fetches waited for.
    waits: u8,
}

/// A configured issuer, as the metadata of a resource describes it.
#[derive(Debug)]
pub(crate) struct AuthorizationServer {
    pub(crate) iss: Arc<str>,
    pub(crate) audience: Audience,
    pub(crate) is_template: bool,
}

enum Attempt {
    Ready(AccessToken),
    Pending(Pending),
}

enum Pending {
    Lookup(LookupFuture),
    /// Holds the issuer, which may be evicted while the fetch runs.
    Fetch(ResolvedIssuer, Fetching),
}

impl Verifier {
    /// Creates a verifier for one [`Issuer`](crate::Issuer), an array or `Vec` of issuers, or
    /// [`Issuers`] with a lookup.
    ///
    /// # Errors
    ///
    /// Returns an error if an issuer is configured twice, if the list is empty, if keys are to be
    /// discovered at an `iss` that is not an `https` URL in normalized form, or if an issuer has
    /// both a secret and a key set.
    pub fn new<I>(issuers: I) -> Result<Self, ConfigError>
    where
        I: TryInto<Issuers>,
        ConfigError: From<I::Error>,
    {
        Self::builder(issuers).build()
    }

    /// Like [`new`](Self::new), with optional settings.
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

    /// Verifies one access token: its format, issuer, audience, validity period and signature.
    /// Scopes are not checked; that is up to the caller.
    ///
    /// Waits only if an issuer must be looked up or keys must be fetched. Fetching needs a Tokio
    /// runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidToken`] if the token is rejected, [`Error::KeysUnavailable`] if the
    /// issuer is trusted but its keys are not available, or [`Error::LookupFailed`] if the lookup
    /// of the issuer fails.
    pub async fn verify(&self, token: &str) -> Result<AccessToken, Error> {
        match self.begin(token) {
            Verification::Ready(result) => result,
            Verification::Pending(future) => future.await,
        }
    }

    /// Like [`verify`](Self::verify), for callers that cannot wait. Returns `None` if it would have
    /// to wait.
    ///
    /// If keys are missing, their fetch was started, and continues in the background. Load them at
    /// startup with [`warm_up`](Self::warm_up), so that this does not happen. A lookup of the
    /// issuer ([`Issuers::lookup_async`]) was not started.
    ///
    /// ```
    /// use portcullis::Verifier;
    ///
    /// fn subject(verifier: &Verifier, token: &str) -> Option<String> {
    ///     match verifier.try_verify(token)? {
    ///         Ok(token) => token.subject().map(str::to_owned),
    ///         Err(error) => {
    ///             eprintln!("{error}");
    ///             None
    ///         }
    ///     }
    /// }
    /// # let _ = subject;
    /// ```
    pub fn try_verify(&self, token: &str) -> Option<Result<AccessToken, Error>> {
        match self.begin(token) {
            Verification::Ready(result) => Some(result),
            Verification::Pending(_) => None,
        }
    }

    /// Loads the keys of all configured issuers: fetches missing ones, 16 at a time, and waits for
    /// them. Call it at startup, so that no request has to wait, or in a `/readyz` handler, where
    /// it costs nothing while the keys are loaded. It is optional: without it, the first request of
    /// each issuer waits. Issuers from a lookup are unknown until a token names them, so their keys
    /// are not loaded.
    ///
    /// # Errors
    ///
    /// Returns an error if the keys of an issuer cannot be loaded; [`WarmUpError`] names the
    /// issuers. The verifier remains usable, and fetches the keys again when they are needed.
    pub async fn warm_up(&self) -> Result<(), WarmUpError> {
        let issuers = self.0.issuers.configured();
        // Limit concurrency to the per-origin limit; otherwise fetches time out while queued.
        let permits = Arc::new(Semaphore::new(MAX_PER_ORIGIN));
        let mut fetches = JoinSet::new();
        if let Ok(runtime) = Handle::try_current() {
            for issuer in &issuers {
                let (issuer, permits, clock) =
                    (Arc::clone(issuer), Arc::clone(&permits), self.0.clock.clone());
                let warm_up = async move {
                    let _permit = permits.acquire().await;
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

    /// Returns the state of the keys of each configured issuer and of each cached issuer from the
    /// lookup. Performs no I/O.
    pub fn health(&self) -> Vec<IssuerHealth> {
        let now = self.0.clock.now();
        let mut health: Vec<_> =
            self.0.issuers.all().iter().map(|issuer| issuer.health(now)).collect();
        health.sort_by(|one, other| one.iss.cmp(&other.iss));
        health
    }

    /// Drops what is cached of the issuer with this name, at once. Use it when a tenant is removed
    /// or compromised, or when keys are withdrawn before their lifetime ends.
    ///
    /// For an issuer from the lookup, this drops all cached state under this name and its other
    /// names: a positive answer, a negative answer (so that a new tenant need not wait for 30
    /// seconds), its keys and its verified tokens. The lookup is called when the next token names
    /// the issuer, and an answer to an earlier call is discarded. For a configured issuer, this
    /// drops the fetched keys and the tokens verified with them; the issuer stays trusted.
    /// Verifications in progress may still complete with the previous state.
    ///
    /// Affects this verifier and its clones. If the service runs in several processes, call it in
    /// each. Returns whether anything was cached for the issuer.
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

    /// Completes synchronously if nothing has to be looked up or fetched, without a future.
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

    /// Returns the cached token if nothing has changed since it was verified. Otherwise, the full
    /// verification reports the reason.
    fn cached(&self, token: &str) -> Option<AccessToken> {
        self.0.cache.get(token, |entry| {
            let now = self.0.clock.now();
            if !entry.is_recent(now) || !entry.token().is_good_at(now) {
                return false;
            }
            match entry.issuer() {
                EntryIssuer::Configured(issuer) => issuer.recheck(entry.keys(), now),
                EntryIssuer::Resolved(issuer) => {
                    match self.0.issuers.find(entry.token().issuer(), now) {
                        Ok(Resolution::Ready(resolved)) => {
                            std::ptr::eq(Arc::as_ptr(&resolved.issuer), issuer.as_ptr())
                                && resolved.issuer.recheck(entry.keys(), now)
                        }
                        _ => false,
                    }
                }
            }
        })
    }

    async fn resume(self, mut wait: Pending, token: String) -> Result<AccessToken, Error> {
        let mut progress = Resume::default();
        // Terminates: once the issuer is resolved, there is no further lookup, and waits for
        // fetches are limited.
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

    /// Runs the steps of the verification in order.
    ///
    /// All checks that need no key come first, so that a token that fails one of them causes no
    /// network access and does not count toward the fetch limits.
    fn attempt(&self, token: &str, progress: &Resume) -> Result<Attempt, Error> {
        let now = self.0.clock.now();
        let jws = Jws::split(token)?;
        let header = jws.header()?;
        reject_other_jwt_types(header.typ.as_deref())?;
        let claims = RegisteredClaims::parse(jws.unverified_payload())?;
        let resolved = match &progress.issuer {
            Some(resolved) => resolved.clone(),
            None => match self
                .0
                .issuers
                .find(&claims.issuer, now)
                .map_err(|error| clarify_microsoft_token(error, &header))?
            {
                Resolution::Ready(resolved) => resolved,
                Resolution::Pending(lookup) => {
                    return Ok(Attempt::Pending(Pending::Lookup(lookup)));
                }
            },
        };
        let issuer = &resolved.issuer;
        issuer.check_algorithm(&header)?;
        let tenant = issuer.check_tenant(&claims)?;
        let Issuer { audience, leeway, max_token_age, .. } = &issuer.config;
        match claims.check(audience, *leeway, *max_token_age, now) {
            Ok(()) => {}
            Err(InvalidToken::Expired { expires_at, now: unix, .. }) => {
                // No keys are fetched for an expired token. The client is told that it expired only
                // if a cached key verifies the signature.
                let verified = issuer.verifies_with_cached_keys(&jws, &header, tenant, now);
                return Err(InvalidToken::Expired { expires_at, now: unix, verified }.into());
            }
            Err(rejection) => return Err(clarify_microsoft_token(rejection.into(), &header)),
        }
        issuer.check_profile(&jws, &header, &claims, now)?;
        let signature = issuer.verify_signature(&jws, &header, tenant, progress.waits, now);
        let (payload, keys) =
            match signature.map_err(|error| clarify_microsoft_token(error, &header))? {
                SignatureCheck::Ready(payload, keys) => (payload, keys),
                SignatureCheck::Pending(fetching) => {
                    return Ok(Attempt::Pending(Pending::Fetch(resolved.clone(), fetching)));
                }
            };
        if issuer.checks_claims_late(&jws) {
            issuer.check_claims(&jws, now)?;
        }
        self.0.issuers.record_verified(&resolved);
        let terms = Terms {
            issuer: issuer.config.name(&claims.issuer),
            profile: Arc::clone(&issuer.config.profile),
            leeway: issuer.config.leeway,
            max_token_age: issuer.config.max_token_age,
            verifier: self.0.id,
            clock: self.0.clock.clone(),
            implies: self.0.implies.clone(),
        };
        let verified = AccessToken::new(token, &payload, claims, terms);
        self.0
            .cache
            .insert(token, now, || Entry::new(verified.clone(), &resolved, keys.as_ref(), now));
        Ok(Attempt::Ready(verified))
    }

    /// Logs the rejection, without the token and its verified or unverified claims.
    fn log_rejection(&self, token: &str, error: Error) -> Error {
        if !tracing::enabled!(target: "portcullis", tracing::Level::DEBUG) {
            telemetry::token_rejected(&error, None, None, None);
            return error;
        }
        let jws = Jws::split(token).ok();
        let header = jws.as_ref().and_then(|jws| jws.header().ok());
        let claims =
            jws.as_ref().and_then(|jws| RegisteredClaims::parse(jws.unverified_payload()).ok());
        let issuer = claims.and_then(|claims| self.0.issuers.cached(&claims.issuer));
        let issuer = issuer.as_ref().map(|issuer| &*issuer.config.iss);
        let kid = header.as_ref().and_then(|header| header.kid.as_deref());
        let alg = header.as_ref().map(|header| header.algorithm.name());
        telemetry::token_rejected(&error, issuer, kid, alg);
        error
    }

    /// The configured issuers that clients can get tokens from: not those of gateways, which log
    /// users in themselves.
    pub(crate) fn authorization_servers(&self) -> Vec<AuthorizationServer> {
        let mut servers: Vec<_> = self
            .0
            .issuers
            .configured()
            .iter()
            .filter(|issuer| issuer.config.token_source.is_none())
            .map(|issuer| AuthorizationServer {
                iss: Arc::clone(&issuer.config.iss),
                audience: issuer.config.audience.clone(),
                is_template: issuer.config.template.is_some(),
            })
            .collect();
        servers.sort_by(|one, other| one.iss.cmp(&other.iss));
        servers
    }

    /// The token locations of the configured issuers: the header that a gateway sets, or
    /// `Authorization`.
    pub(crate) fn token_sources(&self) -> Vec<TokenSource> {
        let mut sources = Vec::new();
        for issuer in self.0.issuers.configured() {
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

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Whether this verifier or a clone of it verified the token, and the token has not expired.
    pub(crate) fn still_accepts(&self, token: &AccessToken) -> bool {
        token.verifier() == self.0.id && token.is_good_at(self.0.clock.now())
    }
}

/// Replaces a misleading error for tokens issued to Microsoft's own APIs, which no third party can
/// verify.
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
        let resolved = self.0.issuers.all();
        let mut debug = formatter.debug_struct("Verifier");
        debug
            .field("issuers", &resolved.iter().map(|issuer| &issuer.config).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
