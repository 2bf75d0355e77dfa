//! Options of an [`Issuer`] for its keys: where they are, how they are fetched, and what they may
//! sign.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::{Issuer, KeySource};
use crate::algorithm::Algorithm;
use crate::error::ConfigError;
use crate::http_client::HttpClient;
use crate::keys::jwk::Jwk;
use crate::keys::jwks::Jwks;
use crate::keys::signature::is_supported;
use crate::keys::url::{PlainHttp, normal_url, secure_url};

impl Issuer {
    /// Fetches the keys from this URL, without discovery.
    ///
    /// # Errors
    ///
    /// Returns an error if `uri` is not an absolute `https` URL. `http` is accepted for loopback
    /// hosts, and for all hosts after [`danger_allow_http`](Self::danger_allow_http).
    pub fn jwks_uri(mut self, uri: &str) -> Result<Self, ConfigError> {
        let uri = secure_url("jwks_uri", uri, self.plain_http)?;
        self.key_source = KeySource::JwksUri(uri);
        Ok(self)
    }

    /// Discovers the keys at this URL instead of at `iss`, for an issuer that this service reaches
    /// under another name. The well-known paths are resolved against it. The `issuer` in the
    /// metadata must still be identical to `iss`, and their `jwks_uri` is used unchanged.
    ///
    /// # Errors
    ///
    /// Returns an error if `address` is not an `https` URL in normalized form, or if it has a query
    /// or a fragment. `http` is accepted for loopback hosts, and for all hosts after
    /// [`danger_allow_http`](Self::danger_allow_http).
    pub fn discovery_url(mut self, address: &str) -> Result<Self, ConfigError> {
        let at = Some(normal_url("discovery_url", address, self.plain_http)?);
        self.key_source = KeySource::Discovery { at };
        Ok(self)
    }

    /// Allows plain `http` for metadata and keys on any host, for an issuer inside a cluster or a
    /// Compose file (`http://keycloak:8080`). Dangerous: an attacker who can answer for the issuer,
    /// on the network or through DNS, can replace the keys and then sign any token. Must be called
    /// before [`jwks_uri`](Self::jwks_uri) or [`discovery_url`](Self::discovery_url), which check
    /// the URL that they are given.
    ///
    /// Only for configured issuers. An issuer with this setting is not trusted if a lookup returns
    /// it.
    ///
    /// ```
    /// use portcullis::{Issuer, Verifier};
    ///
    /// let keycloak = portcullis::providers::keycloak("http://keycloak:8080", "shop", "orders-api")?.danger_allow_http();
    /// let verifier = Verifier::new(keycloak)?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn danger_allow_http(mut self) -> Self {
        self.plain_http = PlainHttp::Anywhere;
        self
    }

    /// Requires the `jwks_uri` in the metadata to have the same scheme, host and port as the URL of
    /// the metadata. Not the default, because some issuers serve their keys from another host. An
    /// error if the keys are fetched from a configured URL; without effect if no keys are fetched.
    pub fn require_same_origin_keys(mut self) -> Self {
        self.same_origin = true;
        self
    }

    /// Sets the HTTP client (`reqwest` 0.13) for this issuer, instead of the
    /// [verifier's](crate::VerifierBuilder::client): for a certificate authority, a client
    /// certificate, a proxy or a bearer token that only this issuer needs.
    ///
    /// Clients cannot be compared: if a lookup returns the same issuer with a different client, the
    /// first client stays in use. A custom client does its own name resolution, so a resolved
    /// issuer with one may reach a private address by name. Configure it not to follow redirects.
    pub fn client(mut self, client: impl Into<HttpClient>) -> Self {
        self.client = Some(client.into());
        self
    }

    /// Fetches each key separately, in PEM, from this URL followed by the `kid`. AWS load balancers
    /// publish their keys this way.
    ///
    /// There is no key set to fetch, so each new `kid` causes a request: a burst of at most eight,
    /// and one more per second. An attacker who can send tokens without passing through the gateway
    /// that signs them can exhaust this limit.
    ///
    /// # Errors
    ///
    /// Returns an error if `prefix` is not an absolute `https` URL that ends with a slash. `http`
    /// is accepted for loopback hosts, and for all hosts after
    /// [`danger_allow_http`](Self::danger_allow_http).
    pub fn pem_key_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        let url = secure_url("pem_key_prefix", prefix, self.plain_http)?;
        if !url.path().ends_with('/') || url.query().is_some() || url.fragment().is_some() {
            return Err(ConfigError::new(format!(
                "pem_key_prefix {prefix:?}: expected a slash at the end"
            )));
        }
        self.key_source = KeySource::PemByKid(url);
        Ok(self)
    }

    /// Keys to start with, for keys that are fetched: a set that was stored before a restart, or is
    /// part of the deployment. Tokens are verified with it at once, and the first of them starts a
    /// refresh in the background. On a platform that starts a process for each burst of requests
    /// (AWS Lambda), no request waits for the issuer, and none fails because it is down.
    ///
    /// The set counts as fresh for 60 seconds after the [`Verifier`](crate::Verifier) is created,
    /// whatever [`keys_max_age`](Self::keys_max_age) is. A first request after that waits for a
    /// fetch. While fetching fails, the set is used for
    /// [`keys_max_stale`](Self::keys_max_stale), like any other. A withdrawn key in it is trusted
    /// for as long. Without effect on [`jwks`](Self::jwks), [`secret`](Self::secret), and issuers
    /// from a lookup.
    pub fn seed(mut self, jwks: Jwks) -> Self {
        self.seed = Some(jwks);
        self
    }

    /// Uses exactly these keys and never fetches any.
    pub fn jwks(mut self, jwks: Jwks) -> Self {
        self.key_source = KeySource::Fixed(jwks);
        self
    }

    /// Verifies with a secret shared with the issuer, by this HMAC algorithm (RFC 7518 §3.2) and no
    /// other: [`algorithms`](Self::algorithms) applies to public keys only. Every service that can
    /// verify can also sign, so prefer public keys.
    ///
    /// # Errors
    ///
    /// Returns an error if `algorithm` is not `HS256`, `HS384` or `HS512`, or if the secret is
    /// shorter than the hash.
    pub fn secret(mut self, algorithm: Algorithm, secret: &[u8]) -> Result<Self, ConfigError> {
        let (Some(least), Some(key)) = (algorithm.secret_bytes(), Jwk::secret(secret, algorithm))
        else {
            return Err(ConfigError::new(format!(
                "algorithm {algorithm} with a secret: expected HS256, HS384 or HS512"
            )));
        };
        if secret.len() < least {
            return Err(ConfigError::new(format!(
                "secret for {algorithm} of issuer {:?}: expected at least {least} bytes, found {}",
                self.iss,
                secret.len()
            )));
        }
        self.key_source = KeySource::Secret(Arc::new(key));
        Ok(self)
    }

    /// Sets the algorithms that this issuer may sign with (RFC 8725 §3.1). By default, all
    /// asymmetric algorithms except ML-DSA are allowed, each only with keys made for it.
    ///
    /// A key is used with exactly one algorithm. An RSA key whose JWK has no `alg` is used with the
    /// first RSA algorithm of this list, or with `RS256` by default.
    ///
    /// ML-DSA (RFC 9964) is allowed only if it is listed, and requires the feature `aws-lc-rs`. A
    /// token signed with ML-DSA-87 has 6 KiB more than its claims, so proxies and servers have to
    /// accept header lines of that length.
    ///
    /// ```
    /// use portcullis::{Algorithm, Issuer};
    ///
    /// let issuer = Issuer::new("https://issuer.example/", "https://api.example.com")?
    ///     .algorithms([Algorithm::ES256, Algorithm::MlDsa65])?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the list is empty or contains an HMAC algorithm, if the cryptography
    /// backend supports none of the algorithms, or if the issuer has a [`secret`](Self::secret),
    /// which sets the only algorithm.
    pub fn algorithms(
        mut self,
        algorithms: impl IntoIterator<Item = Algorithm>,
    ) -> Result<Self, ConfigError> {
        let algorithms: Vec<_> = algorithms.into_iter().collect();
        if algorithms.is_empty() || matches!(self.key_source, KeySource::Secret(_)) {
            return Err(ConfigError::new(format!(
                "algorithms {algorithms:?} of issuer {:?}: expected at least one, and no call after `secret`, which sets the only algorithm",
                self.iss
            )));
        }
        if let Some(hmac) = algorithms.iter().find(|algorithm| algorithm.secret_bytes().is_some()) {
            return Err(ConfigError::new(format!(
                "algorithm {hmac} of issuer {:?}: expected asymmetric algorithms; for HMAC, use `secret`",
                self.iss
            )));
        }
        if !algorithms.iter().copied().any(is_supported) {
            return Err(ConfigError::new(format!(
                "algorithms {algorithms:?} of issuer {:?}: expected one that the cryptography backend supports",
                self.iss
            )));
        }
        self.algorithms = Cow::Owned(algorithms);
        Ok(self)
    }

    /// Sets how long fetched keys are fresh, instead of the lifetime that the server states. By
    /// default, the lifetime is `Cache-Control: max-age` less `Age`, clamped to between 60 seconds
    /// and 1 hour, or 10 minutes if the server states none. A SPIFFE bundle has another lifetime:
    /// see [`providers::spiffe`](crate::providers::spiffe).
    ///
    /// The lifetime limits how long a withdrawn key stays trusted. A new key is found before the
    /// lifetime ends: a token that no cached key verifies causes a refetch of the key set, in a
    /// burst of at most three, and then once every 5 seconds.
    ///
    /// # Errors
    ///
    /// Returns an error if it is less than 1 second or more than 24 hours.
    pub fn keys_max_age(mut self, max_age: Duration) -> Result<Self, ConfigError> {
        if max_age < Duration::from_secs(1) || max_age > Duration::from_secs(24 * 3600) {
            return Err(ConfigError::new(format!("keys_max_age {max_age:?}: expected 1s to 24h")));
        }
        self.key_policy.max_age = Some(max_age);
        Ok(self)
    }

    /// Sets how long keys stay in use after their lifetime while they cannot be fetched. The
    /// default of 1 hour outlasts nearly every outage. With zero, an outage takes effect when the
    /// lifetime ends.
    ///
    /// # Errors
    ///
    /// Returns an error if it is more than 24 hours, because a withdrawn key stays trusted during
    /// this time.
    pub fn keys_max_stale(mut self, max_stale: Duration) -> Result<Self, ConfigError> {
        if max_stale > Duration::from_secs(24 * 3600) {
            return Err(ConfigError::new(format!(
                "keys_max_stale {max_stale:?}: expected at most 24h"
            )));
        }
        self.key_policy.max_stale = max_stale;
        Ok(self)
    }

    /// Sets the time limit for fetching the keys, for discovery and key set together. This is the
    /// longest that a request waits for keys. The default is 5 seconds: shorter limits have failed
    /// in production elsewhere, and longer ones pile up requests.
    ///
    /// # Errors
    ///
    /// Returns an error if it is zero or more than 60 seconds.
    pub fn keys_fetch_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if timeout.is_zero() || timeout > Duration::from_secs(60) {
            return Err(ConfigError::new(format!(
                "keys_fetch_timeout {timeout:?}: expected up to 60s, and not 0"
            )));
        }
        self.key_policy.timeout = timeout;
        Ok(self)
    }
}
