//! The [`Verifier`], which turns a token string into an [`AccessToken`] or an [`Error`].

mod builder;
pub(crate) mod documents;
mod introspections;
#[cfg(feature = "status-list")]
mod statuses;
mod verification;

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::access_token::{AccessToken, Implies};
use crate::api_key::active::ActiveApiKeys;
use crate::api_key::keys::ApiKeys;
use crate::binding::Bindings;
use crate::clock::Clock;
use crate::crypto::Fips;
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::{IssuerHealth, WarmUpError};
use crate::issuer::issuers::Issuers;
use crate::issuer::registry::IssuerRegistry;
use crate::keys::remote::limits::MAX_PER_ORIGIN;
use crate::revocation::Revocations;
use crate::token::audience::Audience;
use crate::token_cache::{self, TokenCache};
use crate::token_source::TokenSource;
use introspections::Introspections;

pub use builder::VerifierBuilder;
pub(crate) use verification::Verification;

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
    /// The tokens that their issuers were asked about.
    introspections: Introspections,
    api_keys: Option<ActiveApiKeys>,
    /// What tokens may be bound to.
    bindings: Bindings,
    revocations: Option<Revocations>,
}

/// A configured issuer, as the metadata of a resource describes it.
#[derive(Debug)]
pub(crate) struct AuthorizationServer {
    pub(crate) iss: Arc<str>,
    pub(crate) audience: Audience,
    pub(crate) is_template: bool,
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
            api_keys: None,
            dpop: None,
            certificates: None,
            revocations: None,
            fips: Fips::default(),
        }
    }

    /// Verifies one access token: its format, issuer, audience, validity period and signature.
    /// Scopes are not checked; that is up to the caller. A token that is bound to a key or a
    /// certificate is rejected, because only a request proves the binding: use
    /// [`ProtectLayer::verify_request`](crate::ProtectLayer::verify_request).
    ///
    /// Waits only if an issuer must be looked up or asked about the token, or keys or a status list
    /// must be fetched.
    /// Asking and fetching need a Tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidToken`] if the token is rejected, [`Error::KeysUnavailable`] if the
    /// issuer is trusted but its keys are not available, [`Error::IntrospectionUnavailable`] if the
    /// issuer cannot be asked about the token, [`Error::RevocationsUnavailable`] if it is not known
    /// whether the token was revoked, or [`Error::LookupFailed`] if the lookup of the issuer fails.
    pub async fn verify(&self, token: &str) -> Result<AccessToken, Error> {
        match self.begin(token) {
            Verification::Ready(result) => {
                result.and_then(|verified| self.unbound(token, verified))
            }
            Verification::Pending(future) => {
                future.await.and_then(|verified| self.unbound(token, verified))
            }
        }
    }

    /// Like [`verify`](Self::verify), for callers that cannot wait. Returns `None` if it would have
    /// to wait.
    ///
    /// If keys are missing, their fetch was started, and continues in the background. Load them at
    /// startup with [`warm_up`](Self::warm_up), so that this does not happen. Likewise, a question
    /// to the issuer was started, and a later call finds its answer. A lookup of the issuer
    /// ([`Issuers::lookup_async`]) was not started.
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
            Verification::Ready(result) => {
                Some(result.and_then(|verified| self.unbound(token, verified)))
            }
            Verification::Pending(_) => None,
        }
    }

    /// Loads the keys of all configured issuers: fetches missing ones, 16 at a time, and waits for
    /// them. Also discovers their introspection endpoints. Call it at startup, so that no request
    /// has to wait, or in a `/readyz` handler, where it costs nothing while the keys are loaded. It
    /// is optional: without it, the first request of each issuer waits. Issuers from a lookup are
    /// unknown until a token names them, so their keys are not loaded. Then waits up to 5 seconds
    /// for the log of shared [`Revocations`](crate::Revocations).
    ///
    /// # Errors
    ///
    /// Returns an error if the keys of an issuer cannot be loaded, if its introspection endpoint
    /// cannot be discovered, or if the log cannot be read; [`WarmUpError`] names the issuers, and
    /// the log as `revocations`. The verifier remains usable, and fetches the keys again when they
    /// are needed.
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
                    if let Some(introspection) = &issuer.introspection {
                        introspection.warm_up().await;
                    }
                };
                fetches.spawn_on(warm_up, &runtime);
            }
        }
        while fetches.join_next().await.is_some() {}
        let loaded = match &self.0.revocations {
            Some(revocations) => revocations.loaded().await,
            None => Ok(()),
        };
        let failed = issuers
            .iter()
            .filter(|issuer| issuer.can_warm_up())
            .map(|issuer| issuer.health(self.0.clock.now()))
            .filter(|health| !health.is_ready());
        let reason = |health: IssuerHealth| {
            let of_endpoint =
                health.introspection.and_then(|introspection| introspection.last_error);
            health.last_error.or(of_endpoint).unwrap_or(FetchError::NoRuntime)
        };
        let failed = failed.map(|health| (Arc::clone(&health.iss), reason(health)));
        let of_log = loaded.err().map(|error| (Arc::from("revocations"), error));
        let failed: Vec<_> = failed.chain(of_log).collect();
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
    /// drops the fetched keys and the tokens verified with them; the issuer stays trusted. The
    /// issuer's answers about tokens are dropped as well.
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
        self.0.introspections.forget(iss);
        self.0.issuers.forget(iss)
    }

    /// Replaces the list of API keys, at once and for all clones of this verifier. A key that both
    /// lists have is accepted throughout. Call it in each process.
    ///
    /// # Errors
    ///
    /// Returns an error if this verifier has no list of API keys
    /// ([`ApiKeys::new`](crate::ApiKeys::new)), or if `keys` is not one, has another issuer, or has
    /// a key with which opaque tokens begin
    /// ([`Introspection::prefix`](crate::Introspection::prefix)).
    pub fn replace_api_keys(&self, keys: &ApiKeys) -> Result<(), ConfigError> {
        match &self.0.api_keys {
            Some(own) => {
                self.0.issuers.check_api_keys(keys)?;
                own.replace(keys)
            }
            None => Err(ConfigError::new(
                "replacement of API keys: expected `VerifierBuilder::api_keys`, found none",
            )),
        }
    }

    /// Drops the cached answer of [`ApiKeys::lookup`](crate::ApiKeys::lookup) about this key, at
    /// once: for a key that was withdrawn. `id` is its public identifier. Call it in each process.
    /// Returns whether anything was cached.
    pub fn forget_api_key(&self, id: &str) -> bool {
        self.0.api_keys.as_ref().is_some_and(|keys| keys.forget(id))
    }

    /// Whether a token is an API key, known or not.
    pub(crate) fn is_api_key(&self, token: &str) -> bool {
        self.0.api_keys.as_ref().is_some_and(|keys| keys.is_key(token))
    }

    /// The configured issuers that clients can get tokens from: not gateways, which log users in
    /// themselves, and not SPIFFE trust domains, which have no URL.
    pub(crate) fn authorization_servers(&self) -> Vec<AuthorizationServer> {
        let mut servers: Vec<_> = self
            .0
            .issuers
            .configured()
            .iter()
            .filter(|issuer| issuer.config.token_source.is_none())
            .filter(|issuer| issuer.config.profile.trust_domain.is_none())
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
            || (self.0.issuers.has_lookup() || self.0.api_keys.is_some())
                && !sources.contains(&TokenSource::authorization())
        {
            sources.push(TokenSource::authorization());
        }
        sources
    }

    /// Rejects a token that is bound to a key or a certificate: without the request, there is no
    /// proof.
    fn unbound(&self, token: &str, verified: AccessToken) -> Result<AccessToken, Error> {
        match verified.binding() {
            None => Ok(verified),
            Some(_) => Err(self.reject(token, InvalidToken::SenderConstrained)),
        }
    }

    /// What tokens may be bound to.
    pub(crate) fn bindings(&self) -> &Bindings {
        &self.0.bindings
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Whether this verifier or a clone of it verified the token, and the token has neither expired
    /// nor been revoked.
    pub(crate) fn still_accepts(&self, token: &AccessToken) -> bool {
        let now = self.0.clock.now();
        token.verifier() == self.0.id
            && token.is_good_at(now)
            && token.check_revoked(now).is_ok()
            && self.has_valid_status(token, now)
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
