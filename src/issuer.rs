//! Whom we trust: for which audience, with which keys and rules.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::algorithm::Algorithm;
use crate::error::ConfigError;
use crate::keys::jwk::Jwk;
use crate::keys::jwks::Jwks;
use crate::token::audience::Audience;

/// An authorization server that we trust: its `iss`, our audience there, where its keys are, which algorithms it may use.
///
/// What is required is an argument of [`new`](Self::new), what is optional is a method.
///
/// ```
/// use portcullis::Issuer;
///
/// // Keys by discovery, on first use.
/// let auth0 = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
///
/// // The keys' address is known, or `iss` is no address.
/// let descope = Issuer::new("P2PqjhPcC8Hri2nXUY7f234F", "https://api.example.com")?
///     .jwks_uri("https://api.descope.com/P2PqjhPcC8Hri2nXUY7f234F/.well-known/jwks.json")?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Issuer {
    pub(crate) iss: Arc<str>,
    pub(crate) audience: Audience,
    pub(crate) key_source: KeySource,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) leeway: Duration,
    pub(crate) keys_max_age: Duration,
    pub(crate) fetch_timeout: Duration,
}

/// Where an issuer's keys come from.
#[derive(Clone)]
pub(crate) enum KeySource {
    Discovery,
    JwksUri(Url),
    Fixed(Jwks),
    Secret(Arc<Jwk>),
}

impl Issuer {
    /// An issuer, exactly as it stands in `iss` (trailing slash included: comparison is byte by byte, RFC 7519 §2), and
    /// this API's identifier there, as it stands in `aud`.
    ///
    /// Keys are discovered when the first token needs them: OpenID Connect Discovery 1.0 §4, else RFC 8414 §3; the
    /// metadata's `issuer` must be identical to `iss`.
    ///
    /// # Errors
    ///
    /// When `iss` or the audience is empty.
    pub fn new(iss: impl Into<String>, audience: impl Into<Audience>) -> Result<Self, ConfigError> {
        let (iss, audience) = (iss.into(), audience.into());
        if iss.trim().is_empty() {
            return Err(ConfigError::new(format!("issuer {iss:?}: expected the value of the claim `iss`")));
        }
        if !audience.is_usable() {
            return Err(ConfigError::new(format!(
                "audience {audience} of issuer {iss:?}: expected this API's identifier as it stands in the claim `aud`"
            )));
        }
        Ok(Self {
            iss: iss.into(),
            audience,
            key_source: KeySource::Discovery,
            algorithms: Algorithm::ASYMMETRIC.to_vec(),
            leeway: Duration::from_secs(30),
            keys_max_age: Duration::from_secs(600),
            fetch_timeout: Duration::from_secs(5),
        })
    }

    /// Fetches the keys from this address, without discovery.
    ///
    /// # Errors
    ///
    /// When `uri` is no absolute `https` URL; `http` is accepted on loopback.
    pub fn jwks_uri(mut self, uri: &str) -> Result<Self, ConfigError> {
        self.key_source = KeySource::JwksUri(secure_url("jwks_uri", uri)?);
        Ok(self)
    }

    /// Uses exactly these keys. Nothing is ever fetched.
    pub fn jwks(mut self, jwks: Jwks) -> Self {
        self.key_source = KeySource::Fixed(jwks);
        self
    }

    /// Verifies with a secret that is shared with the issuer: HMAC (RFC 7518 §3.2), that one algorithm and no other.
    /// Whoever can verify can also sign; prefer public keys where there is a choice.
    ///
    /// # Errors
    ///
    /// When `algorithm` is not `HS256`, `HS384` or `HS512`, or the secret is shorter than the hash.
    pub fn secret(mut self, algorithm: Algorithm, secret: &[u8]) -> Result<Self, ConfigError> {
        let (Some(least), Some(key)) = (algorithm.secret_bytes(), Jwk::secret(secret, algorithm)) else {
            return Err(ConfigError::new(format!(
                "algorithm {algorithm} with a secret: expected HS256, HS384 or HS512"
            )));
        };
        if secret.len() < least {
            return Err(ConfigError::new(format!(
                "secret for {algorithm} of issuer {:?}: expected at least {least} bytes, {} came",
                self.iss,
                secret.len()
            )));
        }
        self.algorithms = vec![algorithm];
        self.key_source = KeySource::Secret(Arc::new(key));
        Ok(self)
    }

    /// The algorithms that this issuer may sign with (RFC 8725 §3.1); by default all asymmetric ones, each only with keys
    /// made for it.
    ///
    /// A key serves exactly one algorithm. An RSA key whose JWK does not say which serves the first RSA algorithm of this
    /// list; by default `RS256`.
    ///
    /// # Errors
    ///
    /// When the list is empty, or names an HMAC algorithm: those come with [`secret`](Self::secret) and never with a key set.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Result<Self, ConfigError> {
        let algorithms: Vec<_> = algorithms.into_iter().collect();
        if algorithms.is_empty() || matches!(self.key_source, KeySource::Secret(_)) {
            return Err(ConfigError::new(format!(
                "algorithms {algorithms:?} of issuer {:?}: expected at least one, and no `secret`",
                self.iss
            )));
        }
        if let Some(hmac) = algorithms.iter().find(|algorithm| algorithm.secret_bytes().is_some()) {
            return Err(ConfigError::new(format!(
                "algorithm {hmac} of issuer {:?}: expected asymmetric ones; HMAC comes with `secret`",
                self.iss
            )));
        }
        self.algorithms = algorithms;
        Ok(self)
    }

    /// How far the issuer's clock and ours may be apart, for `exp`, `nbf` and `iat`; 30 seconds by default: enough for
    /// clocks kept by NTP, too little to prolong a stolen token's life.
    ///
    /// # Errors
    ///
    /// When it is more than 5 minutes ("usually no more than a few minutes", RFC 7519 §4.1.4).
    pub fn leeway(mut self, leeway: Duration) -> Result<Self, ConfigError> {
        if leeway > Duration::from_secs(300) {
            return Err(ConfigError::new(format!("leeway {leeway:?}: expected at most 300s")));
        }
        self.leeway = leeway;
        Ok(self)
    }

    /// How long fetched keys are fresh; 10 minutes by default. It bounds how long a withdrawn key is still trusted. A new
    /// key needs no expiry to be found: an unknown `kid` has the set fetched again.
    ///
    /// # Errors
    ///
    /// When it is less than 1 second or more than 24 hours.
    pub fn keys_max_age(mut self, max_age: Duration) -> Result<Self, ConfigError> {
        if max_age < Duration::from_secs(1) || max_age > Duration::from_secs(24 * 3600) {
            return Err(ConfigError::new(format!("keys_max_age {max_age:?}: expected 1s to 24h")));
        }
        self.keys_max_age = max_age;
        Ok(self)
    }

    /// How long fetching the keys may take, discovery and key set together: the longest that a request can be asked to
    /// wait; 5 seconds by default. Shorter limits failed in production elsewhere, longer ones pile up requests.
    ///
    /// # Errors
    ///
    /// When it is zero or more than 60 seconds.
    pub fn fetch_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if timeout.is_zero() || timeout > Duration::from_secs(60) {
            return Err(ConfigError::new(format!("fetch_timeout {timeout:?}: expected up to 60s, and not 0")));
        }
        self.fetch_timeout = timeout;
        Ok(self)
    }

    /// The claim `iss` of this issuer's tokens.
    pub fn iss(&self) -> &str {
        &self.iss
    }

    /// What only the whole configuration shows.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.key_source {
            KeySource::Discovery => {
                secure_url("issuer", &self.iss).map_err(|error| {
                    ConfigError::new(format!(
                        "{error}, as its keys are to be discovered; else name them with `jwks_uri`"
                    ))
                })?;
            }
            KeySource::JwksUri(_) | KeySource::Fixed(_) | KeySource::Secret(_) => {}
        }
        let hmac = self.algorithms.iter().any(|algorithm| algorithm.secret_bytes().is_some());
        if hmac != matches!(self.key_source, KeySource::Secret(_)) {
            return Err(ConfigError::new(format!("issuer {:?}: expected a secret or a key set, both came", self.iss)));
        }
        Ok(())
    }

    /// What an RSA key serves whose JWK does not say.
    pub(crate) fn rsa_algorithm(&self) -> Algorithm {
        self.algorithms.iter().copied().find(|algorithm| algorithm.is_rsa()).unwrap_or(Algorithm::RS256)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match &self.key_source {
            KeySource::Discovery => "discovery",
            KeySource::JwksUri(uri) => uri.as_str(),
            KeySource::Fixed(_) => "fixed",
            KeySource::Secret(_) => "secret",
        };
        formatter
            .debug_struct("Issuer")
            .field("iss", &self.iss)
            .field("audience", &self.audience)
            .field("keys", &keys)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// An absolute `https` URL without credentials; `http` only where nobody sits in between.
pub(crate) fn secure_url(what: &str, text: &str) -> Result<Url, ConfigError> {
    let error = |expected| ConfigError::new(format!("{what} {text:?}: expected {expected}"));
    let url = Url::parse(text).map_err(|_| error("an absolute https URL"))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(error("an absolute https URL")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(error("a URL without user and password"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err(error("https (http only on loopback)")),
    }
}

/// Whom a [`Verifier`](crate::Verifier) trusts: one issuer, a list, or a look-up.
///
/// ```
/// use portcullis::{Issuer, Issuers, Verifier};
///
/// let acme = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let globex = Issuer::new("https://globex.okta.com/oauth2/default", "api://default")?;
/// let verifier = Verifier::new([acme, globex])?;
///
/// // Thousands of tenants: a look-up decides whom to trust. Nothing is fetched for an issuer it does not return.
/// let verifier = Verifier::new(Issuers::lookup(|iss: &str| {
///     let tenant = iss.strip_prefix("https://")?.strip_suffix(".tenants.example.com")?;
///     tenant.chars().all(|c| c.is_ascii_alphanumeric()).then_some(())?;
///     Issuer::new(iss, "https://api.example.com").ok()
/// }))?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Issuers(pub(crate) IssuersKind);

#[derive(Clone)]
pub(crate) enum IssuersKind {
    Listed(HashMap<Arc<str>, Issuer>),
    Lookup(Lookup),
}

/// Opaque closures rather than a public trait: nobody has to name the type.
#[derive(Clone)]
pub(crate) enum Lookup {
    Sync(Arc<SyncLookup>),
    Async(Arc<AsyncLookup>),
}

type SyncLookup = dyn Fn(&str) -> Option<Issuer> + Send + Sync;
type AsyncLookup = dyn Fn(String) -> LookupFuture + Send + Sync;

type LookupFuture = Pin<Box<dyn Future<Output = Result<Option<Issuer>, String>> + Send>>;

impl Issuers {
    /// Asks a closure for the issuer of each `iss` not seen before; `None` means: not trusted. It runs on the request's
    /// task, so it must not block; [`lookup_async`](Self::lookup_async) may wait.
    ///
    /// The [`Issuer`] returned must have exactly the `iss` asked for. What was returned is kept, with its keys: up to 1,024
    /// issuers, each until it was not asked for in 24 hours.
    pub fn lookup(lookup: impl Fn(&str) -> Option<Issuer> + Send + Sync + 'static) -> Self {
        Self(IssuersKind::Lookup(Lookup::Sync(Arc::new(lookup))))
    }

    /// As [`lookup`](Self::lookup), with a closure that may wait, for a database say. An error means that it could not be
    /// found out: the request is answered 503, never 401.
    pub fn lookup_async<F, E>(lookup: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<Issuer>, E>> + Send + 'static,
        E: fmt::Display,
    {
        let lookup = move |iss| {
            let found = lookup(iss);
            Box::pin(async move { found.await.map_err(|error| error.to_string()) }) as LookupFuture
        };
        Self(IssuersKind::Lookup(Lookup::Async(Arc::new(lookup))))
    }

    fn listed(issuers: impl IntoIterator<Item = Issuer>) -> Result<Self, ConfigError> {
        let mut listed = HashMap::new();
        for issuer in issuers {
            if let Some(twice) = listed.insert(Arc::clone(&issuer.iss), issuer) {
                return Err(ConfigError::new(format!(
                    "issuer {:?}: expected once, it is in the list twice",
                    twice.iss
                )));
            }
        }
        if listed.is_empty() {
            return Err(ConfigError::new("issuers: expected at least one, the list is empty"));
        }
        Ok(Self(IssuersKind::Listed(listed)))
    }
}

impl From<Issuer> for Issuers {
    fn from(issuer: Issuer) -> Self {
        Self(IssuersKind::Listed(HashMap::from([(Arc::clone(&issuer.iss), issuer)])))
    }
}

impl<const N: usize> TryFrom<[Issuer; N]> for Issuers {
    type Error = ConfigError;

    fn try_from(issuers: [Issuer; N]) -> Result<Self, ConfigError> {
        Self::listed(issuers)
    }
}

impl TryFrom<Vec<Issuer>> for Issuers {
    type Error = ConfigError;

    fn try_from(issuers: Vec<Issuer>) -> Result<Self, ConfigError> {
        Self::listed(issuers)
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            IssuersKind::Listed(issuers) => formatter.debug_list().entries(issuers.values()).finish(),
            IssuersKind::Lookup(_) => formatter.write_str("Issuers::lookup(…)"),
        }
    }
}
