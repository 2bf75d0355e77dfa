//! The options of a [`Verifier`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::introspections::Introspections;
use super::{Inner, Verifier};
use crate::access_token::Implies;
use crate::api_key::active::ActiveApiKeys;
use crate::api_key::keys::ApiKeys;
use crate::binding::Bindings;
use crate::client_certificate::source::ClientCertificates;
use crate::clock::Clock;
use crate::crypto::Fips;
use crate::dpop::Dpop;
use crate::dpop::check::ActiveDpop;
use crate::error::ConfigError;
use crate::http_client::{HttpClient, HttpClients};
use crate::issuer::fapi2::VerifierSettings;
use crate::issuer::issuers::Issuers;
use crate::issuer::registry::IssuerRegistry;
use crate::revocation::Revocations;
use crate::telemetry;
use crate::token_cache::{self, TokenCache};

/// Optional settings of a [`Verifier`], created by [`Verifier::builder`].
#[must_use]
pub struct VerifierBuilder {
    pub(super) issuers: Result<Issuers, ConfigError>,
    pub(super) client: Option<HttpClient>,
    pub(super) clock: Clock,
    pub(super) implies: Option<Arc<Implies>>,
    pub(super) cached_tokens: u64,
    pub(super) api_keys: Option<ApiKeys>,
    pub(super) dpop: Option<Dpop>,
    pub(super) certificates: Option<ClientCertificates>,
    pub(super) revocations: Option<Revocations>,
    pub(super) fips: Fips,
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
    /// Sets the HTTP client (`reqwest` 0.13) that fetches the keys of all issuers: for a private
    /// certificate authority, a proxy or a client certificate. The built-in client uses the root
    /// certificates of the system and no proxy.
    ///
    /// Configure a connect timeout, and no redirects: a redirected response is rejected. A custom
    /// client does its own name resolution, so for resolved issuers only IP addresses written in
    /// the URL are checked for being private.
    pub fn client(mut self, client: impl Into<HttpClient>) -> Self {
        self.client = Some(client.into());
        self
    }

    /// Sets the number of verified tokens that the cache has capacity for; 10,000 by default. A
    /// token is cached when it is verified for the second time, so the third request is the first
    /// that skips the signature. It stays cached for at most 5 minutes. Each request still checks
    /// that the token has not expired and that the issuer and its keys have not changed.
    ///
    /// Set it to the number of tokens in use at the same time. Up to twice as many are cached,
    /// within a memory limit of 8 KiB per token of capacity: 82 MB by default, and 820 MB for
    /// 100,000 tokens. The limit counts the token and its payload (about 1.75 times the length of
    /// the token, plus 400 bytes), and its claims once they are read, both as a tree and as types
    /// of the application. A token whose claims would take more than 128 KiB is verified on each
    /// request.
    ///
    /// The table itself takes 32 bytes per token of capacity, allocated at the start. The maximum
    /// is two million tokens. Expired entries are never served; their memory is freed when another
    /// token needs it.
    pub fn token_cache_capacity(mut self, tokens: u64) -> Self {
        self.cached_tokens = tokens;
        self
    }

    /// Disables the cache of verified tokens: each request verifies the signature of its token. The
    /// answers of issuers about tokens are still cached:
    /// [`Introspection::cache_for`](crate::Introspection::cache_for) disables that.
    pub fn without_token_cache(self) -> Self {
        self.token_cache_capacity(0)
    }

    /// Sets whether a granted scope token (the first argument) implies a required one (the second),
    /// for all tokens and all rules.
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

    /// Also accepts these API keys. What begins with their prefix, or has the form and the checksum
    /// of a key, is a key or nothing: it is never sent to an issuer.
    pub fn api_keys(mut self, keys: ApiKeys) -> Self {
        self.api_keys = Some(keys);
        self
    }

    /// Accepts DPoP proofs (RFC 9449), and with them access tokens that are bound to a key of their
    /// client. Without it, such tokens are rejected.
    pub fn dpop(mut self, dpop: Dpop) -> Self {
        self.dpop = Some(dpop);
        self
    }

    /// Accepts access tokens that are bound to a certificate of their client (RFC 8705 §3), which
    /// authenticated with it in the TLS handshake. Without it, such tokens are rejected.
    pub fn client_certificates(mut self, certificates: ClientCertificates) -> Self {
        self.certificates = Some(certificates);
        self
    }

    /// Rejects tokens that were revoked, also on routes and connections that accepted them before.
    pub fn revocations(mut self, revocations: &Revocations) -> Self {
        self.revocations = Some(revocations.clone());
        self
    }

    /// Requires that cryptography is done by a module in FIPS 140-3 mode: [`build`](Self::build)
    /// returns an error otherwise, so that a service without it does not start. The guide
    /// [FIPS](crate::guide::fips) has the lines of `Cargo.toml` that enable the module, and what is
    /// computed outside of it.
    ///
    /// This is a check, not a switch: the module is chosen when the application is compiled.
    ///
    /// ```
    /// use portcullis::{Issuer, Verifier};
    ///
    /// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
    /// let error = Verifier::builder(issuer).require_fips().build().unwrap_err();
    /// // This example is compiled without the module.
    /// assert!(error.to_string().contains("require_fips: expected aws-lc-rs in FIPS mode"));
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn require_fips(mut self) -> Self {
        self.fips = Fips::Required;
        self
    }

    /// Reads the time from a clock that a test controls.
    #[cfg(feature = "testing")]
    pub fn clock(mut self, clock: &crate::clock::TestClock) -> Self {
        self.clock = Clock::Test(clock.clone());
        self
    }

    /// Builds the verifier.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration is invalid, under the conditions of [`Verifier::new`].
    /// The message names the invalid value. After [`require_fips`](Self::require_fips), also
    /// returns an error if the cryptography backend is not in FIPS mode, or, where the built-in
    /// HTTP client is used, its TLS.
    pub fn build(self) -> Result<Verifier, ConfigError> {
        self.fips.check_backend()?;
        let (clock, implies) = (self.clock, self.implies);
        let cache = Arc::new(TokenCache::new(self.cached_tokens));
        let issuers = self.issuers?;
        if issuers.are_none() && self.api_keys.is_none() {
            return Err(ConfigError::new(
                "issuers: expected at least one, or API keys for `Issuers::none`",
            ));
        }
        let clients = HttpClients::new(self.client, self.fips);
        let reserved = self.api_keys.as_ref().map(ApiKeys::iss);
        let settings = VerifierSettings {
            proof_algorithms: self.dpop.as_ref().map(|dpop| dpop.algorithms.clone()),
            has_certificates: self.certificates.is_some(),
            has_revocations: self.revocations.is_some(),
        };
        let issuers = IssuerRegistry::new(issuers, reserved, clients, clock.clone(), settings)?;
        if let Some(keys) = &self.api_keys {
            issuers.check_api_keys(keys)?;
        }
        #[cfg(feature = "testing")]
        telemetry::testing_in_release();
        if self.fips == Fips::Required {
            telemetry::fips_mode();
        }
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let api_keys = self
            .api_keys
            .map(|keys| ActiveApiKeys::new(keys, id, clock.clone(), implies.clone()))
            .transpose()?;
        // Each question costs a request over the network, so the answers are cached in any case.
        let capacity = match self.cached_tokens {
            0 => token_cache::DEFAULT_CAPACITY,
            capacity => capacity,
        };
        let introspections = Introspections::new(capacity);
        let revocations = self.revocations;
        if let Some(revocations) = &revocations {
            revocations.set_clock(&clock);
            revocations.follow();
        }
        let dpop = self.dpop.map(|dpop| ActiveDpop::new(dpop, clock.clone()));
        let bindings = Bindings::new(dpop, self.certificates, clock.clone());
        let inner = Inner {
            id,
            issuers,
            clock,
            implies,
            cache,
            introspections,
            api_keys,
            bindings,
            revocations,
        };
        Ok(Verifier(Arc::new(inner)))
    }
}
