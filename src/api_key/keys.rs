//! The API keys that a verifier accepts: a list, or a lookup.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{ApiKey, bad_prefix, text};
use crate::error::{BoxError, ConfigError};

/// How long an answer of the lookup is used. A key that was withdrawn is accepted for this long.
const LIFETIME: Duration = Duration::from_secs(60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// The API keys that a [`Verifier`](crate::Verifier) accepts beside access tokens, for
/// [`VerifierBuilder::api_keys`](crate::VerifierBuilder::api_keys).
///
/// A key is sent like an access token, in `Authorization: Bearer`, and on request in a header of
/// its own ([`TokenSource::api_key_header`](crate::TokenSource::api_key_header)). The handler
/// receives an [`AccessToken`](crate::AccessToken) as for any other token; rules work unchanged,
/// and [`kind`](crate::AccessToken::kind) tells where it matters. The guide [API
/// keys](crate::guide::api_keys) has more.
///
/// ```
/// use portcullis::{ApiKey, ApiKeys, Issuers, Verifier};
///
/// let generated = ApiKey::generate("acme_live")?;
/// let worker = ApiKey::new("orders-worker", generated.hash().clone());
/// let keys = ApiKeys::new("https://api.example.com", [worker])?;
/// // For an API that accepts nothing else. With access tokens: `Verifier::builder(issuer)`.
/// let verifier = Verifier::builder(Issuers::none()).api_keys(keys).build()?;
///
/// let token = verifier.try_verify(generated.expose_key()).unwrap()?;
/// assert_eq!(token.subject(), Some("orders-worker"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ApiKeys {
    pub(super) iss: Arc<str>,
    pub(super) source: KeySource,
}

#[derive(Clone)]
pub(super) enum KeySource {
    List(Vec<ApiKey>),
    Lookup { prefix: String, call: Arc<LookupFn>, lifetime: Duration },
}

pub(super) type LookupFn = dyn Fn(String) -> Answer + Send + Sync;
type Answer = Pin<Box<dyn Future<Output = Result<Option<ApiKey>, BoxError>> + Send>>;

impl ApiKeys {
    /// Accepts exactly these keys. `iss` is the issuer of the tokens that handlers receive
    /// ([`AccessToken::issuer`](crate::AccessToken::issuer)): the URL of this API, or any name that
    /// is not that of another issuer.
    ///
    /// # Errors
    ///
    /// Returns an error if `iss` or a subject is empty, if two keys have the same identifier, or if
    /// a claim has a name that [`ApiKey::claim`] does not allow.
    pub fn new(
        iss: impl Into<String>,
        keys: impl IntoIterator<Item = ApiKey>,
    ) -> Result<Self, ConfigError> {
        let keys: Vec<_> = keys.into_iter().collect();
        let mut ids = HashSet::new();
        // Without their prefixes, since that is how a key is found.
        for hash in keys.iter().flat_map(ApiKey::hashes) {
            if !ids.insert(text::short(hash.id())) {
                return Err(ConfigError::new(format!(
                    "API key {:?}: expected an identifier that no other key has",
                    hash.id()
                )));
            }
        }
        Self::with(iss.into(), KeySource::List(keys))
    }

    /// Looks keys up, for example in a database, by their prefix and identifier
    /// ([`ApiKeyHash::id`](crate::ApiKeyHash::id)). The lookup returns the record with the hash of
    /// the key, `None` if no key has this identifier, or an error, which is answered 503
    /// ([`LookupFailed`](crate::Error::LookupFailed)).
    ///
    /// Only keys with this prefix and a valid checksum are looked up. Concurrent requests with the
    /// same key share one call. At most 64 requests with uncached identifiers are served at once,
    /// and 1,024 wait. A lookup may take 5 seconds. An answer is cached for 60 seconds
    /// ([`cache_for`](Self::cache_for)), for up to 10,000 keys, and `None` for 5 seconds, for up to
    /// 1,000. This needs a Tokio runtime with time enabled.
    ///
    /// ```
    /// use portcullis::{ApiKey, ApiKeys};
    ///
    /// # struct Row { owner: String, hash: String }
    /// # async fn find(_: &str) -> Result<Option<Row>, std::io::Error> { Ok(None) }
    /// let keys = ApiKeys::lookup("https://api.example.com", "acme_live", async |id: String| {
    ///     let Some(row) = find(&id).await? else { return Ok(None) };
    ///     let key = ApiKey::new(row.owner, row.hash.parse()?);
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Some(key))
    /// })?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if `iss` is empty, or if `prefix` is not one that
    /// [`ApiKey::generate`] accepts.
    pub fn lookup<F, E>(
        iss: impl Into<String>,
        prefix: impl Into<String>,
        call: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> Result<Self, ConfigError>
    where
        F: Future<Output = Result<Option<ApiKey>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let prefix = prefix.into();
        if !text::is_prefix(&prefix) {
            return Err(bad_prefix(&prefix));
        }
        let call = move |id| {
            let found = call(id);
            Box::pin(async move { found.await.map_err(Into::into) }) as Answer
        };
        let source = KeySource::Lookup { prefix, call: Arc::new(call), lifetime: LIFETIME };
        Self::with(iss.into(), source)
    }

    pub(crate) fn iss(&self) -> Arc<str> {
        Arc::clone(&self.iss)
    }

    /// The prefixes of the keys. Some of them may be equal.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let (list, prefix) = match &self.source {
            KeySource::List(keys) => (&**keys, None),
            KeySource::Lookup { prefix, .. } => (&[][..], Some(&**prefix)),
        };
        list.iter().flat_map(ApiKey::hashes).map(|hash| text::prefix_of(hash.id())).chain(prefix)
    }

    fn with(iss: String, source: KeySource) -> Result<Self, ConfigError> {
        if iss.is_empty() {
            return Err(ConfigError::new("issuer of API keys: expected a name, found none"));
        }
        let keys = Self { iss: iss.into(), source };
        if let KeySource::List(list) = &keys.source {
            for key in list {
                for hash in key.hashes() {
                    key.claims(&keys.iss, hash.id())?;
                }
            }
        }
        Ok(keys)
    }

    /// Sets how long an answer of the [`lookup`](Self::lookup) is used: 60 seconds by default. A
    /// withdrawn key is accepted for up to this long; to end it at once, call
    /// [`Verifier::forget_api_key`](crate::Verifier::forget_api_key).
    ///
    /// # Errors
    ///
    /// Returns an error if it is more than an hour, or if this is a list.
    pub fn cache_for(mut self, time: Duration) -> Result<Self, ConfigError> {
        match &mut self.source {
            KeySource::Lookup { lifetime, .. } if time <= LONGEST_LIFETIME => *lifetime = time,
            KeySource::Lookup { .. } => {
                return Err(ConfigError::new(format!(
                    "cache_for {time:?}: expected at most {LONGEST_LIFETIME:?}"
                )));
            }
            KeySource::List(_) => {
                return Err(ConfigError::new(
                    "cache_for: expected `ApiKeys::lookup`, found a list",
                ));
            }
        }
        Ok(self)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("ApiKeys");
        debug.field("iss", &self.iss);
        match &self.source {
            KeySource::List(keys) => debug.field("keys", &keys.len()),
            KeySource::Lookup { prefix, .. } => debug.field("prefix", prefix),
        };
        debug.finish()
    }
}
