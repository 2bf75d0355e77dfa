//! Token string in, [`AccessToken`] or [`Error`] out.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use reqwest::Client;

use crate::access_token::AccessToken;
use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::issuer::{Issuer, Issuers, IssuersKind, KeySource, Lookup, secure_url};
use crate::keys::fetch::default_client;
use crate::keys::jwk::{Jwk, SignedPayload};
use crate::keys::jwks::Jwks;
use crate::keys::remote::{Fetching, Keys, Location, Refetch, RemoteJwks, Source};
use crate::token::claims::{Claims, check_type};
use crate::token::jws::{Header, Jws};

/// Looked-up issuers kept, with their keys, and for how long after the last request for them.
const MAX_LOOKED_UP: u64 = 1024;
const LOOKED_UP_IDLE: Duration = Duration::from_secs(24 * 3600);

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
    issuers: TrustedIssuers,
    client: Client,
    clock: Clock,
}

enum TrustedIssuers {
    Listed(HashMap<Arc<str>, Arc<TrustedIssuer>>),
    LookedUp { lookup: Lookup, kept: Cache<String, Arc<TrustedIssuer>> },
}

/// An [`Issuer`] at work: its configuration and its keys.
pub(crate) struct TrustedIssuer {
    pub(crate) config: Issuer,
    keys: TrustedKeys,
}

enum TrustedKeys {
    Secret(Arc<Jwk>),
    Fixed(Jwks),
    Remote(Arc<RemoteJwks>),
}

impl TrustedIssuer {
    fn new(config: Issuer, client: &Client, clock: &Clock) -> Result<Self, ConfigError> {
        config.check()?;
        let rsa = config.rsa_algorithm();
        let location = match &config.key_source {
            KeySource::Secret(key) => {
                let keys = TrustedKeys::Secret(Arc::clone(key));
                return Ok(Self { config, keys });
            }
            KeySource::Fixed(jwks) => {
                let keys = TrustedKeys::Fixed(jwks.with_rsa_algorithm(rsa));
                return Ok(Self { config, keys });
            }
            KeySource::JwksUri(uri) => Location::Jwks(uri.clone()),
            KeySource::Discovery => Location::Discovery(secure_url("issuer", &config.iss)?),
        };
        let source = Source {
            iss: Arc::clone(&config.iss),
            location,
            rsa,
            max_age: config.keys_max_age,
            timeout: config.fetch_timeout,
        };
        let keys = TrustedKeys::Remote(RemoteJwks::new(source, client.clone(), clock.clone()));
        Ok(Self { config, keys })
    }

    /// RFC 8725bis §3.1: the algorithms are the issuer's, not the token's choice.
    fn check_algorithm(&self, header: &Header<'_>) -> Result<(), InvalidToken> {
        match self.config.algorithms.contains(&header.algorithm) {
            true => Ok(()),
            false => Err(InvalidToken::UnsupportedAlgorithm { presented: header.algorithm.name().to_owned() }),
        }
    }

    /// Selects this issuer's key and verifies the signature, or says what to wait for. `fetched`: this token already
    /// waited for a fetch, and gets no second one.
    fn verify_signature<'a>(
        &self,
        jws: &'a Jws<'_>,
        header: &Header<'_>,
        fetched: bool,
        now: Now,
    ) -> Result<Signature<'a>, Error> {
        let remote = match &self.keys {
            TrustedKeys::Secret(key) => {
                return Ok(Signature::Verified(key.verify(jws).ok_or(InvalidToken::Signature)?));
            }
            TrustedKeys::Fixed(jwks) => {
                return Ok(Signature::Verified(jwks.verify_signature(jws, header)?));
            }
            TrustedKeys::Remote(remote) => remote,
        };
        loop {
            let jwks = match remote.keys(now) {
                Keys::Ready(jwks) => jwks,
                Keys::Wait(fetching, _) if !fetched => return Ok(Signature::Wait(fetching)),
                Keys::Wait(_, failure) | Keys::Unavailable(failure) => {
                    return Err(self.keys_unavailable(failure));
                }
            };
            match jwks.verify_signature(jws, header) {
                Err(unknown @ InvalidToken::UnknownKey { .. }) => {
                    match remote.refetch(&jwks, header.kid.as_deref(), fetched, now) {
                        Refetch::Wait(fetching) => return Ok(Signature::Wait(fetching)),
                        Refetch::LookAgain => {}
                        Refetch::Refuse => return Err(unknown.into()),
                    }
                }
                Err(error) => return Err(error.into()),
                Ok(payload) => return Ok(Signature::Verified(payload)),
            }
        }
    }

    fn keys_unavailable(&self, failure: Option<Arc<FetchError>>) -> Error {
        let source = failure.unwrap_or_else(|| Arc::new(FetchError::Interrupted));
        Error::KeysUnavailable { issuer: Arc::clone(&self.config.iss), source }
    }
}

/// Where a verification stands.
pub(crate) enum Verification {
    Done(Result<AccessToken, Error>),
    Waiting(Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>),
}

/// What was waited for already.
#[derive(Default)]
struct Progress {
    issuer: Option<Arc<TrustedIssuer>>,
    fetched: bool,
}

enum Attempt {
    Verified(AccessToken),
    Wait(Wait),
}

enum Wait {
    Lookup(LookupFuture),
    Keys(Fetching),
}

enum Found {
    Issuer(Arc<TrustedIssuer>),
    Lookup(LookupFuture),
}

type LookupFuture = Pin<Box<dyn Future<Output = Result<Arc<TrustedIssuer>, Error>> + Send>>;

enum Signature<'a> {
    Verified(SignedPayload<'a>),
    Wait(Fetching),
}

fn unknown(iss: &str) -> InvalidToken {
    InvalidToken::UnknownIssuer { presented: iss.to_owned() }
}

/// The look-up broke: no news about the token, so never a 401.
fn unusable(iss: &str, error: String) -> Error {
    tracing::error!(target: "portcullis", %error, "issuer look-up failed");
    Error::KeysUnavailable { issuer: iss.into(), source: Arc::new(FetchError::Lookup(error)) }
}

/// Optional settings of a [`Verifier`]; from [`Verifier::builder`].
#[derive(Debug)]
#[must_use]
pub struct VerifierBuilder {
    issuers: Result<Issuers, ConfigError>,
    client: Option<Client>,
    clock: Clock,
}

impl VerifierBuilder {
    /// The HTTP client that fetches keys: for a private certificate authority, a proxy, a client certificate. One for all
    /// issuers. Give it a connect timeout, and no redirects: a redirected answer is refused.
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Reads the time from a clock that a test moves.
    #[cfg(feature = "testing")]
    pub fn clock(mut self, clock: &crate::testing::TestClock) -> Self {
        self.clock = Clock::Test(clock.clone());
        self
    }

    /// # Errors
    ///
    /// A [`ConfigError`] whose sentence names the value that cannot work.
    pub fn build(self) -> Result<Verifier, ConfigError> {
        let clock = self.clock;
        let client = self.client.map_or_else(default_client, Ok)?;
        let issuers = match self.issuers?.0 {
            IssuersKind::Listed(issuers) => TrustedIssuers::Listed(
                issuers
                    .into_iter()
                    .map(|(iss, issuer)| Ok((iss, Arc::new(TrustedIssuer::new(issuer, &client, &clock)?))))
                    .collect::<Result<_, ConfigError>>()?,
            ),
            IssuersKind::Lookup(lookup) => TrustedIssuers::LookedUp {
                lookup,
                kept: Cache::builder()
                    .max_capacity(MAX_LOOKED_UP)
                    .time_to_idle(LOOKED_UP_IDLE)
                    // Least recently used, since an admission by frequency would keep turning a new tenant away.
                    .eviction_policy(EvictionPolicy::lru())
                    .build(),
            },
        };
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Verifier(Arc::new(Inner { id, issuers, client, clock })))
    }
}

impl Verifier {
    /// A verifier of the tokens of one [`Issuer`], of an array or `Vec` of them, or of looked-up [`Issuers`].
    ///
    /// # Errors
    ///
    /// When an issuer is in the list twice, the list is empty, or keys shall be discovered at an `iss` that is no https URL.
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
            Verification::Done(result) => result,
            Verification::Waiting(future) => future.await,
        }
    }

    /// Verifies at once if nothing has to be fetched: no future, no lock, no task switch.
    pub(crate) fn begin(&self, token: &str) -> Verification {
        match self.attempt(token, &Progress::default()) {
            Ok(Attempt::Verified(token)) => Verification::Done(Ok(token)),
            Ok(Attempt::Wait(wait)) => {
                Verification::Waiting(Box::pin(self.clone().verify_after(wait, token.to_owned())))
            }
            Err(error) => Verification::Done(Err(self.refused(token, error))),
        }
    }

    async fn verify_after(self, mut wait: Wait, token: String) -> Result<AccessToken, Error> {
        let mut progress = Progress::default();
        // Ends: with an issuer at hand no look-up is waited for, and after one fetch no other.
        loop {
            match wait {
                Wait::Lookup(lookup) => {
                    progress.issuer = Some(lookup.await.map_err(|error| self.refused(&token, error))?);
                }
                Wait::Keys(fetching) => {
                    fetching.finished().await;
                    progress.fetched = true;
                }
            }
            match self.attempt(&token, &progress) {
                Ok(Attempt::Verified(token)) => return Ok(token),
                Ok(Attempt::Wait(next)) => wait = next,
                Err(error) => return Err(self.refused(&token, error)),
            }
        }
    }

    /// The steps, in order.
    ///
    /// Whatever can be refused without a key is refused before one is asked for: a token that would be refused anyway
    /// causes no network access and spends no fetch.
    fn attempt(&self, token: &str, progress: &Progress) -> Result<Attempt, Error> {
        let now = self.0.clock.now();
        let jws = Jws::split(token)?;
        let header = jws.header()?;
        check_type(header.typ.as_deref())?;
        let claims = Claims::parse(jws.unverified_payload())?;
        let issuer = match &progress.issuer {
            Some(issuer) => Arc::clone(issuer),
            None => match self.issuer(&claims.issuer)? {
                Found::Issuer(issuer) => issuer,
                Found::Lookup(lookup) => return Ok(Attempt::Wait(Wait::Lookup(lookup))),
            },
        };
        issuer.check_algorithm(&header)?;
        claims.check(&issuer.config.audience, issuer.config.leeway, now)?;
        let payload = match issuer.verify_signature(&jws, &header, progress.fetched, now)? {
            Signature::Verified(payload) => payload,
            Signature::Wait(fetching) => return Ok(Attempt::Wait(Wait::Keys(fetching))),
        };
        Ok(Attempt::Verified(AccessToken::new(token, &payload, claims, &issuer.config.iss, self.0.id)))
    }

    /// Whom `iss` names, if we trust them. Nothing is fetched for a stranger.
    fn issuer(&self, iss: &str) -> Result<Found, Error> {
        let (lookup, kept) = match &self.0.issuers {
            TrustedIssuers::Listed(issuers) => {
                return Ok(Found::Issuer(Arc::clone(issuers.get(iss).ok_or_else(|| unknown(iss))?)));
            }
            TrustedIssuers::LookedUp { lookup, kept } => (lookup, kept),
        };
        if let Some(issuer) = kept.get(iss) {
            return Ok(Found::Issuer(issuer));
        }
        match lookup {
            Lookup::Sync(lookup) => {
                Ok(Found::Issuer(self.keep(iss, lookup(iss).ok_or_else(|| unknown(iss))?, kept)?))
            }
            Lookup::Async(lookup) => {
                let (verifier, kept, found, iss) = (self.clone(), kept.clone(), lookup(iss.to_owned()), iss.to_owned());
                Ok(Found::Lookup(Box::pin(async move {
                    match found.await {
                        Ok(Some(issuer)) => verifier.keep(&iss, issuer, &kept),
                        Ok(None) => Err(unknown(&iss).into()),
                        Err(error) => Err(unusable(&iss, error)),
                    }
                })))
            }
        }
    }

    /// Takes a looked-up issuer in. Of two requests that looked the same one up at once, both get the first: one key set.
    fn keep(
        &self,
        iss: &str,
        issuer: Issuer,
        kept: &Cache<String, Arc<TrustedIssuer>>,
    ) -> Result<Arc<TrustedIssuer>, Error> {
        if *issuer.iss != *iss {
            return Err(unusable(iss, format!("expected issuer {iss:?}, {:?} came", issuer.iss)));
        }
        let issuer = TrustedIssuer::new(issuer, &self.0.client, &self.0.clock)
            .map_err(|error| unusable(iss, error.to_string()))?;
        Ok(kept.entry_by_ref(iss).or_insert(Arc::new(issuer)).into_value())
    }

    /// Tells the log. Never the token, nor a claim of it.
    fn refused(&self, token: &str, error: Error) -> Error {
        if tracing::enabled!(target: "portcullis", tracing::Level::DEBUG) {
            let jws = Jws::split(token);
            let header = jws.as_ref().ok().and_then(|jws| jws.header().ok());
            let kid = header.as_ref().and_then(|header| header.kid.as_deref());
            let alg = header.as_ref().map(|header| header.algorithm.name());
            tracing::debug!(target: "portcullis", reason = error.code(), kid, alg, "access token refused");
        }
        error
    }

    /// Whether this verifier, or a clone of it, verified the token.
    pub(crate) fn verified(&self, token: &AccessToken) -> bool {
        token.verifier() == self.0.id
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Verifier");
        match &self.0.issuers {
            TrustedIssuers::Listed(issuers) => {
                debug.field("issuers", &issuers.values().map(|issuer| &issuer.config).collect::<Vec<_>>())
            }
            TrustedIssuers::LookedUp { kept, .. } => debug.field("looked_up", &kept.entry_count()),
        };
        debug.finish_non_exhaustive()
    }
}
