//! RFC 7662, RFC 9701: asking the issuer about a token.

pub(crate) mod answer;
mod assertion;
pub(crate) mod client;
pub(crate) mod client_auth;
pub(crate) mod endpoint;
mod request;
pub(crate) mod signed;

use std::fmt;
use std::time::Duration;

use crate::error::ConfigError;
use crate::keys::url::{PlainHttp, secure_url};
use client_auth::ClientAuth;

/// Time limit of one question, without discovery. Each request with a token that is not cached
/// waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer is used. A revoked token is accepted for this long, and a token in use is
/// asked about once in this time.
const LIFETIME: Duration = Duration::from_secs(60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// The longest time that an answer is used past its lifetime, while the endpoint is down.
const LONGEST_STALE: Duration = Duration::from_secs(300);

/// How an [`Issuer`](crate::Issuer) is asked about its tokens (RFC 7662), for
/// [`Issuer::introspection`](crate::Issuer::introspection).
///
/// By default, the issuer is asked about opaque tokens only: those that are not JWTs by their form.
/// JWTs are verified with its keys. A JWT that fails this is rejected; the issuer is not asked
/// about it.
///
/// ```
/// use portcullis::{ClientAuth, Introspection, Issuer};
///
/// let hydra = Issuer::new("https://hydra.example.com/", "https://api.example.com")?
///     .introspection(Introspection::new(ClientAuth::client_secret("orders-api", "secret")));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Introspection {
    pub(crate) auth: ClientAuth,
    /// The URL of the endpoint, unless it is discovered.
    pub(crate) url: Option<String>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) jwts: JwtPolicy,
    /// Whether the issuer is asked about opaque tokens.
    pub(crate) opaque: bool,
    pub(crate) signed: bool,
    pub(crate) timeout: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) max_stale: Duration,
}

/// What happens to JWTs of an issuer that can be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum JwtPolicy {
    /// Verified with the keys.
    Verify,
    /// Verified with the keys, then asked about.
    VerifyAndAsk,
    /// Asked about.
    Ask,
}

impl Introspection {
    /// Asks the endpoint that the issuer's metadata name as `introspection_endpoint` (RFC 8414 §2).
    pub fn new(auth: ClientAuth) -> Self {
        Self {
            auth,
            url: None,
            prefixes: Vec::new(),
            jwts: JwtPolicy::Verify,
            opaque: true,
            signed: false,
            timeout: TIMEOUT,
            lifetime: LIFETIME,
            max_stale: Duration::ZERO,
        }
    }

    /// Asks the endpoint with this URL, without discovery. It must be an absolute `https` URL, or
    /// an `http` URL where [`Issuer::danger_allow_http`](crate::Issuer::danger_allow_http) or a
    /// loopback host allows it; [`Verifier::new`](crate::Verifier::new) checks it.
    pub fn at(url: impl Into<String>, auth: ClientAuth) -> Self {
        Self { url: Some(url.into()), ..Self::new(auth) }
    }

    /// Asks only about opaque tokens that start with `prefix`, such as `ory_at_`. Further calls add
    /// prefixes. If several issuers are asked about opaque tokens, all but one need a prefix.
    /// Otherwise, one issuer would receive the tokens of another.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefixes.push(prefix.into());
        self
    }

    /// Also asks about JWTs, after they were verified with the issuer's keys: a revoked token is
    /// then rejected within [`cache_for`](Self::cache_for). The claims are those of the JWT.
    pub fn jwts_too(mut self) -> Self {
        self.jwts = JwtPolicy::VerifyAndAsk;
        self
    }

    /// Asks about JWTs instead of verifying them, for an issuer whose keys are not published, or
    /// whose access tokens only it can verify (Okta's org authorization server). They are
    /// recognized by their `iss`. The claims are those of the answer.
    pub fn instead_of_keys(mut self) -> Self {
        self.jwts = JwtPolicy::Ask;
        self
    }

    /// Does not ask about opaque tokens, for an issuer whose access tokens are all JWTs. They are
    /// then rejected without a question. Together with [`jwts_too`](Self::jwts_too) or
    /// [`instead_of_keys`](Self::instead_of_keys).
    pub fn only_jwts(mut self) -> Self {
        self.opaque = false;
        self
    }

    /// Requires signed answers (RFC 9701), verified with the issuer's keys. An unsigned answer
    /// counts as a failure of the endpoint. Encrypted answers are not supported.
    pub fn signed(mut self) -> Self {
        self.signed = true;
        self
    }

    /// Sets how long an answer is used: 60 seconds by default, and never past the token's `exp`. A
    /// revoked token is accepted for up to this long. The answer about a token in use is renewed in
    /// the background when 80 % of this time has passed. With zero, the issuer is asked for each
    /// request.
    ///
    /// The number of cached tokens is that of
    /// [`token_cache_capacity`](crate::VerifierBuilder::token_cache_capacity). Rejections are
    /// cached for 5 seconds, up to 1,000 of them.
    ///
    /// # Errors
    ///
    /// Returns an error if it is more than an hour.
    pub fn cache_for(mut self, lifetime: Duration) -> Result<Self, ConfigError> {
        self.lifetime = at_most(LONGEST_LIFETIME, "cache_for", lifetime)?;
        Ok(self)
    }

    /// Sets how long an answer is used past [`cache_for`](Self::cache_for) while the endpoint is
    /// down. Zero by default: then, tokens are answered 503 as soon as their answers have ended. A
    /// token that is revoked meanwhile stays accepted.
    ///
    /// # Errors
    ///
    /// Returns an error if it is more than 5 minutes.
    pub fn max_stale(mut self, time: Duration) -> Result<Self, ConfigError> {
        self.max_stale = at_most(LONGEST_STALE, "max_stale", time)?;
        Ok(self)
    }

    /// Sets the time limit of one question, which is the longest that a request waits for it: 2
    /// seconds by default. The first question may also wait for discovery
    /// ([`Verifier::warm_up`](crate::Verifier::warm_up)).
    ///
    /// # Errors
    ///
    /// Returns an error if it is zero or more than 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if timeout.is_zero() {
            return Err(ConfigError::new("timeout 0ns: expected up to 10s, and not 0"));
        }
        self.timeout = at_most(LONGEST_TIMEOUT, "timeout", timeout)?;
        Ok(self)
    }

    /// Checks the settings that depend on each other, or on the issuer. `iss`: its name.
    pub(crate) fn check(&self, iss: &str, plain_http: PlainHttp) -> Result<(), ConfigError> {
        let error = |what: &str| Err(ConfigError::new(format!("introspection of {iss:?}: {what}")));
        if let Some(url) = &self.url {
            secure_url("introspection endpoint", url, plain_http)?;
        }
        if let Some(what) = self.auth.mistake() {
            return error(what);
        }
        if self.signed && self.auth.client_id().is_none() {
            return error(
                "expected client authentication with a client identifier for `signed`, since the answers name it as their audience",
            );
        }
        if !self.opaque && self.jwts == JwtPolicy::Verify {
            return error("expected `jwts_too` or `instead_of_keys` for `only_jwts`");
        }
        if self.prefixes.iter().any(String::is_empty) {
            return error("expected a prefix that is not empty");
        }
        Ok(())
    }

    /// Whether the settings are the same. Closures cannot be compared and are assumed to be the
    /// same.
    pub(crate) fn is_unchanged_from(&self, other: &Self) -> bool {
        let Self { auth, url, prefixes, jwts, opaque, signed, timeout, lifetime, max_stale } = self;
        auth.is_unchanged_from(&other.auth)
            && *url == other.url
            && *prefixes == other.prefixes
            && *jwts == other.jwts
            && *opaque == other.opaque
            && *signed == other.signed
            && *timeout == other.timeout
            && *lifetime == other.lifetime
            && *max_stale == other.max_stale
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may contain an API key.
        formatter
            .debug_struct("Introspection")
            .field("auth", &self.auth)
            .field("prefixes", &self.prefixes)
            .field("jwts", &self.jwts)
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}

fn at_most(longest: Duration, name: &str, given: Duration) -> Result<Duration, ConfigError> {
    if given > longest {
        return Err(ConfigError::new(format!("{name} {given:?}: expected at most {longest:?}")));
    }
    Ok(given)
}
