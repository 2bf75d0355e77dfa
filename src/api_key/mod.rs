//! API keys: what one of them stands for, and how it is made.

pub(crate) mod active;
pub(crate) mod keys;
mod lookup;
mod text;

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::error::ConfigError;
use crate::token::claims::MAX_NUMERIC_DATE;
use crate::token::scope::Scope;
use text::ApiKeyText;

/// What an API key stands for: a machine or a user of this API, and what it may do.
///
/// The key itself is not stored, only its [hash](ApiKeyHash). [`generate`](Self::generate) makes
/// one. Pass it to [`ApiKeys`](crate::ApiKeys).
///
/// ```
/// use portcullis::ApiKey;
///
/// let generated = ApiKey::generate("acme_live")?;
/// println!("Copy this key now, it is not shown again: {}", generated.expose_key());
///
/// // Store this text, in a database or in the configuration.
/// let stored = generated.hash().to_string();
/// let worker = ApiKey::new("orders-worker", stored.parse()?).scope("orders:read".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq)]
#[must_use]
pub struct ApiKey {
    subject: String,
    client_id: Option<String>,
    current: ApiKeyHash,
    next: Option<ApiKeyHash>,
    label: Option<String>,
    scope: Scope,
    claims: Map<String, Value>,
    expires_at: Option<SystemTime>,
}

/// Claims that are set by other methods, or that would be checked by other rules.
const RESERVED: [&str; 10] =
    ["iss", "sub", "client_id", "scope", "exp", "nbf", "iat", "jti", "cnf", "key_label"];

impl ApiKey {
    /// Makes a new key: `PREFIX_ID_SECRET` with 256 random bits and a checksum. `prefix` tells what
    /// kind of key it is, for example `acme_live` and `acme_test`. Secret scanners find keys by it,
    /// with the regular expression `acme_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}`, and
    /// [`has_valid_form`](Self::has_valid_form) tells a key from a text that only looks like one.
    ///
    /// # Errors
    ///
    /// Returns an error if `prefix` is not 1 to 32 lowercase letters, digits and `_`, beginning
    /// with a letter and not ending with `_`, or if the system has no random numbers.
    pub fn generate(prefix: &str) -> Result<GeneratedApiKey, ConfigError> {
        if !text::is_prefix(prefix) {
            return Err(bad_prefix(prefix));
        }
        let (id, key) =
            text::generate(prefix).ok_or_else(|| ConfigError::new("no random numbers"))?;
        let sha256 = crate::crypto::sha256(key.as_bytes());
        Ok(GeneratedApiKey { key, hash: ApiKeyHash { id, sha256 } })
    }

    /// Whether a text has the form of a key that [`generate`](Self::generate) made, with the right
    /// checksum. This finds typing errors without a network, and tells nothing about whether the
    /// key is valid.
    pub fn has_valid_form(text: &str) -> bool {
        ApiKeyText::parse(text).is_some()
    }

    /// Creates the record of a key: `subject` is who it stands for
    /// ([`AccessToken::subject`](crate::AccessToken::subject)), unique in this API.
    pub fn new(subject: impl Into<String>, hash: ApiKeyHash) -> Self {
        Self {
            subject: subject.into(),
            client_id: None,
            current: hash,
            next: None,
            label: None,
            scope: Scope::none(),
            claims: Map::new(),
            expires_at: None,
        }
    }

    /// Also accepts a second key, for a rotation without an outage: add the new key as `next`, give
    /// it to the client, and make it the only one once the client uses it.
    pub fn next(mut self, hash: ApiKeyHash) -> Self {
        self.next = Some(hash);
        self
    }

    /// Sets the client that the key was given to
    /// ([`AccessToken::client_id`](crate::AccessToken::client_id)). By default, it is the subject.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Sets a name for people, such as `CI of the web shop`. Handlers find it as the claim
    /// `key_label`.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the scope that the key grants. It grants none by default.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Adds a claim: `roles`, `permissions` or `groups`, each an array of strings, which rules look
    /// at, or a claim of your own.
    /// [`ApiKeys`](crate::ApiKeys) rejects `iss`, `sub`, `client_id`, `scope`, `exp`, `nbf`, `iat`,
    /// `jti`, `cnf` and `key_label`.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Sets when the key expires: at the end of the year 9999 at the latest. It does not expire by
    /// default.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// The keys, by their hashes.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = &ApiKeyHash> {
        std::iter::once(&self.current).chain(&self.next)
    }

    /// The claims of the token that a handler receives, in JSON. `id`: which key was used.
    pub(crate) fn claims(&self, iss: &str, id: &str) -> Result<String, ConfigError> {
        let error =
            |what: &str| ConfigError::new(format!("API key {id:?} of {:?}: {what}", self.subject));
        if self.subject.is_empty() {
            return Err(error("expected a subject"));
        }
        if let Some(name) = RESERVED.into_iter().find(|name| self.claims.contains_key(*name)) {
            return Err(error(&format!(
                "claim {name:?}: expected another one; `claim` cannot set it, use the method of `ApiKey` for it, if there is one"
            )));
        }
        let mut claims = self.claims.clone();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set("iss", iss.into());
        set("sub", self.subject.as_str().into());
        set("client_id", self.client_id.as_ref().unwrap_or(&self.subject).as_str().into());
        set("scope", self.scope.as_str().into());
        set("jti", id.into());
        if let Some(label) = &self.label {
            set("key_label", label.as_str().into());
        }
        if let Some(time) = self.expires_at {
            let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            // The latest time of some libraries stands for "never".
            set("exp", time.as_secs_f64().min(MAX_NUMERIC_DATE).into());
        }
        Ok(Value::Object(claims).to_string())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiKey")
            .field("subject", &self.subject)
            .field("current", &self.current)
            .field("next", &self.next)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A new API key, from [`ApiKey::generate`].
pub struct GeneratedApiKey {
    key: String,
    hash: ApiKeyHash,
}

impl GeneratedApiKey {
    /// Returns the key, to be shown to its owner once. Do not store or log it.
    pub fn expose_key(&self) -> &str {
        &self.key
    }

    /// Returns what to store of the key.
    pub fn hash(&self) -> &ApiKeyHash {
        &self.hash
    }
}

impl fmt::Debug for GeneratedApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GeneratedApiKey").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// What is stored of an API key: its public identifier, and the SHA-256 hash of the whole key.
///
/// As text, for a database or the configuration: `acme_live_7Fq2kP9xLm3R:` and 64 hexadecimal
/// digits. A key cannot be found from it. `Debug` shows the identifier only.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyHash {
    id: String,
    sha256: [u8; 32],
}

impl ApiKeyHash {
    /// Returns what the key is found by: its prefix and its identifier, `acme_live_7Fq2kP9xLm3R`.
    /// It is public.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

impl fmt::Display for ApiKeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.id)?;
        self.sha256.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ApiKeyHash").field(&self.id).finish()
    }
}

impl FromStr for ApiKeyHash {
    type Err = ConfigError;

    /// Parses the text of a hash.
    ///
    /// # Errors
    ///
    /// Returns an error if it is not an identifier, a colon and 64 hexadecimal digits. The message
    /// does not quote it: it may be a key, given by mistake.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let parsed = || {
            let (id, hex) = text.split_once(':')?;
            let digit =
                |byte: u8| char::from(byte).to_digit(16).and_then(|one| u8::try_from(one).ok());
            let mut sha256 = [0_u8; 32];
            let pairs = hex.as_bytes().chunks_exact(2);
            if hex.len() != 64 || !text::is_id(id) {
                return None;
            }
            for (byte, pair) in sha256.iter_mut().zip(pairs) {
                let [high, low]: [u8; 2] = pair.try_into().ok()?;
                *byte = digit(high)? << 4 | digit(low)?;
            }
            Some(Self { id: id.to_owned(), sha256 })
        };
        parsed().ok_or_else(|| {
            ConfigError::new(
                "hash of an API key: expected an identifier, a colon and 64 hexadecimal digits",
            )
        })
    }
}

fn bad_prefix(prefix: &str) -> ConfigError {
    ConfigError::new(format!(
        "prefix of API keys {prefix:?}: expected up to 32 lowercase letters, digits and `_`, beginning with a letter and not ending with `_`"
    ))
}
