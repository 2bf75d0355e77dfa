//! Trusted issuers: their audience, keys and rules.

pub(crate) mod active;
pub(crate) mod issuers;
pub(crate) mod lookup;
pub(crate) mod permits;
pub(crate) mod registry;
pub(crate) mod single_flight;
pub(crate) mod template;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::algorithm::Algorithm;
use crate::error::ConfigError;
use crate::http_client::HttpClient;
use crate::keys::jwk::Jwk;
use crate::keys::jwks::Jwks;
use crate::keys::remote::schedule::KeyPolicy;
use crate::keys::url::{PlainHttp, normal_url, secure_url};
use crate::token::audience::Audience;
use crate::token::claim_path::ClaimPath;
use crate::token::profile::{ClaimRequirement, Condition, TokenProfile};
use crate::token::tenant;
use crate::token::token_type::AllowedTypes;
use crate::token_source::TokenSource;
use template::Template;

/// Enough for clocks synchronized by NTP. A larger leeway would extend the life of a stolen token.
const LEEWAY: Duration = Duration::from_secs(30);

/// A trusted authorization server: its `iss`, the audience of this API, the source of its keys, and
/// the algorithms that it may use.
///
/// Required values are arguments of [`new`](Self::new); optional ones are methods. If both
/// [`jwks_uri`](Self::jwks_uri) and [`jwks`](Self::jwks) are called, the last call wins. A
/// [`secret`](Self::secret) cannot be combined with a key set.
///
/// ```
/// use portcullis::Issuer;
///
/// // The keys are discovered on first use.
/// let auth0 = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
///
/// // The key set URL is known, or `iss` is not a URL.
/// let descope = Issuer::new("P2PqjhPcC8Hri2nXUY7f234F", "https://api.example.com")?
///     .jwks_uri("https://api.descope.com/P2PqjhPcC8Hri2nXUY7f234F/.well-known/jwks.json")?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Issuer {
    pub(crate) iss: Arc<str>,
    /// Other values of `iss` that this issuer may use.
    pub(crate) aliases: Vec<Arc<str>>,
    /// The tenants that `iss` stands for, if it is a template.
    pub(crate) template: Option<Template>,
    pub(crate) audience: Audience,
    pub(crate) profile: Arc<TokenProfile>,
    pub(crate) key_source: KeySource,
    discovery: Discovery,
    pub(crate) algorithms: Cow<'static, [Algorithm]>,
    pub(crate) leeway: Duration,
    pub(crate) key_policy: KeyPolicy,
    pub(crate) plain_http: PlainHttp,
    pub(crate) client: Option<HttpClient>,
    /// Where requests carry its tokens, if not in `Authorization`.
    pub(crate) token_source: Option<TokenSource>,
}

/// Where an issuer's keys come from.
#[derive(Clone)]
pub(crate) enum KeySource {
    Discovery,
    JwksUri(Url),
    /// One PEM key per URL: this prefix followed by the `kid`.
    PemByKid(Url),
    Fixed(Jwks),
    Secret(Arc<Jwk>),
}

/// Where the metadata of an issuer are, and what they may contain.
#[derive(Clone, Default, PartialEq)]
struct Discovery {
    /// Used instead of `iss`.
    at: Option<Url>,
    same_origin: bool,
}

impl KeySource {
    /// Fixed keys and secrets are unchanged only if they are the same allocation.
    fn is_unchanged_from(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Discovery, Self::Discovery) => true,
            (Self::JwksUri(own), Self::JwksUri(other))
            | (Self::PemByKid(own), Self::PemByKid(other)) => own == other,
            (Self::Fixed(own), Self::Fixed(other)) => own.is(other),
            (Self::Secret(own), Self::Secret(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl Issuer {
    /// Creates an issuer from its exact `iss` and from the identifier of this API in `aud`. The
    /// issuer is compared byte by byte (RFC 7519 §2), including any trailing slash.
    ///
    /// The keys are discovered when the first token needs them: by OpenID Connect Discovery 1.0 §4,
    /// then by RFC 8414 §3. The `issuer` in the metadata must be identical to `iss`.
    ///
    /// # Errors
    ///
    /// Returns an error if `iss` or the audience is empty or has surrounding whitespace.
    pub fn new(iss: impl Into<String>, audience: impl Into<Audience>) -> Result<Self, ConfigError> {
        let iss = iss.into();
        if tenant::has_placeholder(&iss) {
            return Err(ConfigError::new(format!(
                "issuer {iss:?}: expected the issuer of one tenant; for many tenants, use `template`"
            )));
        }
        Self::with(iss, audience.into())
    }

    /// Creates an issuer with many tenants, such as Microsoft Entra ID. `{tenantid}` in `iss`
    /// stands for the tenant, a GUID. The claim `tid` must equal the tenant in `iss`, and a key
    /// whose member `issuer` names one tenant is not used for any other. Set the location of the
    /// keys with [`discovery_url`](Self::discovery_url) or [`jwks_uri`](Self::jwks_uri).
    ///
    /// Tokens of version 1.0 have a different `iss`. To accept them, add a second template,
    /// `https://sts.windows.net/{tenantid}/`, discovered at
    /// `https://login.microsoftonline.com/common`. If tenants are added and removed at run time,
    /// prefer a lookup that returns `Issuer::new(iss, …)` for each of them.
    ///
    /// By default, **every** tenant is trusted, and so is any account worldwide that can get a
    /// token for the audience. Restrict them with [`tenants`](Self::tenants). Templates work only
    /// for configured issuers, not in a lookup.
    ///
    /// ```
    /// use portcullis::Issuer;
    ///
    /// let entra = Issuer::template("https://login.microsoftonline.com/{tenantid}/v2.0", "6e74172b-be56-4843-9ff4-e66a39bb12e3")?
    ///     .discovery_url("https://login.microsoftonline.com/common/v2.0")?
    ///     .tenants(["72f988bf-86f1-41af-91ab-2d7cd011db47"])?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if `iss` does not contain `{tenantid}` exactly once, or under the
    /// conditions of [`new`](Self::new).
    pub fn template(
        iss: impl Into<String>,
        audience: impl Into<Audience>,
    ) -> Result<Self, ConfigError> {
        let iss = iss.into();
        let template = Some(Template::new(&iss)?);
        Ok(Self { template, ..Self::with(iss, audience.into())? })
    }

    /// Restricts a [`template`](Self::template) to these tenants.
    ///
    /// # Errors
    ///
    /// Returns an error if a tenant is not a lowercase GUID, or if this issuer is not a template.
    pub fn tenants<T: Into<String>>(
        mut self,
        tenants: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let tenants = tenants.into_iter().map(Into::into).collect();
        match &mut self.template {
            Some(template) => template.only(tenants)?,
            None => {
                return Err(ConfigError::new(format!(
                    "tenants {tenants:?} of {:?}: expected a `template`",
                    self.iss
                )));
            }
        }
        Ok(self)
    }

    fn with(iss: String, audience: Audience) -> Result<Self, ConfigError> {
        let iss = checked_iss(iss)?;
        let audience = checked_audience(audience, &iss)?;
        Ok(Self {
            iss: iss.into(),
            aliases: Vec::new(),
            template: None,
            audience,
            profile: TokenProfile::shared(),
            key_source: KeySource::Discovery,
            discovery: Discovery::default(),
            algorithms: Cow::Borrowed(&Algorithm::ASYMMETRIC),
            leeway: LEEWAY,
            key_policy: KeyPolicy::default(),
            plain_http: PlainHttp::OnLoopback,
            client: None,
            token_source: None,
        })
    }

    /// Accepts another `iss` for this issuer, with the same keys and rules: a second spelling
    /// (Google's `accounts.google.com`), or a custom domain of the same tenant. The metadata must
    /// still name the issuer itself.
    ///
    /// A lookup that is called with the alias may return this issuer. Both names then share the
    /// keys.
    ///
    /// # Errors
    ///
    /// Returns an error if `iss` is empty or has surrounding whitespace.
    pub fn alias(mut self, iss: impl Into<String>) -> Result<Self, ConfigError> {
        self.aliases.push(checked_iss(iss.into())?.into());
        // Sorted, so that the order in which a lookup adds them does not count as a change.
        self.aliases.sort_unstable();
        Ok(self)
    }

    /// Fetches the keys from this URL, without discovery.
    ///
    /// # Errors
    ///
    /// Returns an error if `uri` is not an absolute `https` URL. `http` is accepted for loopback
    /// hosts, and for all hosts after [`danger_allow_http`](Self::danger_allow_http).
    pub fn jwks_uri(mut self, uri: &str) -> Result<Self, ConfigError> {
        self.key_source = KeySource::JwksUri(secure_url("jwks_uri", uri, self.plain_http)?);
        self.discovery = Discovery::default();
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
        self.discovery.at = Some(normal_url("discovery_url", address, self.plain_http)?);
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
    /// the metadata. Not the default, because some issuers serve their keys from another host.
    pub fn require_same_origin_keys(mut self) -> Self {
        self.discovery.same_origin = true;
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
        self.discovery = Discovery::default();
        Ok(self)
    }

    /// Uses exactly these keys and never fetches any.
    pub fn jwks(mut self, jwks: Jwks) -> Self {
        self.key_source = KeySource::Fixed(jwks);
        self.discovery = Discovery::default();
        self
    }

    /// Verifies with a secret shared with the issuer, by this HMAC algorithm (RFC 7518 §3.2) and no
    /// other. Every service that can verify can also sign, so prefer public keys.
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
                "secret for {algorithm} of issuer {:?}: expected at least {least} bytes, {} came",
                self.iss,
                secret.len()
            )));
        }
        self.algorithms = Cow::Owned(vec![algorithm]);
        self.key_source = KeySource::Secret(Arc::new(key));
        self.discovery = Discovery::default();
        Ok(self)
    }

    /// Sets the algorithms that this issuer may sign with (RFC 8725 §3.1). By default, all
    /// asymmetric algorithms are allowed, each only with keys made for it.
    ///
    /// A key is used with exactly one algorithm. An RSA key whose JWK has no `alg` is used with the
    /// first RSA algorithm of this list, or with `RS256` by default.
    ///
    /// # Errors
    ///
    /// Returns an error if the list is empty or contains an HMAC algorithm, or if the issuer has a
    /// [`secret`](Self::secret), which sets the only algorithm.
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
        self.algorithms = Cow::Owned(algorithms);
        Ok(self)
    }

    pub(crate) fn profile(&mut self) -> &mut TokenProfile {
        Arc::make_mut(&mut self.profile)
    }

    /// Replaces the audience given to [`new`](Self::new) or to a preset.
    ///
    /// # Errors
    ///
    /// Returns an error if the audience is empty or has surrounding whitespace.
    pub fn audience(mut self, audience: impl Into<Audience>) -> Result<Self, ConfigError> {
        self.audience = checked_audience(audience.into(), &self.iss)?;
        Ok(self)
    }

    /// Accepts only access tokens that follow RFC 9068: `typ` is `at+jwt`, and `aud`, `sub`,
    /// `client_id`, `iat` and `jti` are present. This is the strictest setting, and the one that
    /// reliably rejects ID tokens. Use it if the issuer supports it.
    ///
    /// By default, `typ` may be absent, `JWT` or `at+jwt`.
    pub fn require_rfc9068(mut self) -> Self {
        self.profile().typ = AllowedTypes::Rfc9068;
        self
    }

    /// Sets the accepted values of the header `typ`, if it is present (RFC 7515 §4.1.9). Values are
    /// written without `application/` and compared case-insensitively.
    ///
    /// # Errors
    ///
    /// Returns an error if a type is specified as another kind of JWT (`logout+jwt`, `dpop+jwt`,
    /// …). Those are always rejected.
    pub fn allowed_types<T: Into<String>>(
        mut self,
        types: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        self.profile().typ = AllowedTypes::one_of(types.into_iter().map(Into::into).collect())?;
        Ok(self)
    }

    /// Accepts any `typ`, except types specified as another kind of JWT. Dangerous if the issuer
    /// signs other JWTs with the same keys: only the audience then distinguishes them from access
    /// tokens.
    pub fn danger_allow_any_type(mut self) -> Self {
        self.profile().typ = AllowedTypes::Any;
        self
    }

    /// Accepts only tokens in which this claim is one of these values (strings, numbers, booleans),
    /// or an array that contains one of them.
    ///
    /// `claim` is a name, which may contain dots or be a URL, or a JSON Pointer (RFC 6901) if it
    /// starts with a slash: `/kubernetes.io/namespace`.
    pub fn require_claim<T: Into<serde_json::Value>>(
        self,
        claim: impl Into<String>,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.claim_rule(claim, Condition::OneOf(values.into_iter().map(Into::into).collect()))
    }

    /// Rejects tokens in which this claim is one of these values, or an array that contains one of
    /// them. Claims are named as in [`require_claim`](Self::require_claim).
    pub fn reject_claim<T: Into<serde_json::Value>>(
        self,
        claim: impl Into<String>,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.claim_rule(claim, Condition::NoneOf(values.into_iter().map(Into::into).collect()))
    }

    /// Rejects tokens in which this claim is missing or `null`. Claims are named as in
    /// [`require_claim`](Self::require_claim).
    pub fn require_claim_present(self, claim: impl Into<String>) -> Self {
        self.claim_rule(claim, Condition::Present)
    }

    /// Rejects tokens that have this claim. Claims are named as in
    /// [`require_claim`](Self::require_claim).
    pub fn without_claim(self, claim: impl Into<String>) -> Self {
        self.claim_rule(claim, Condition::Absent)
    }

    pub(crate) fn claim_rule(mut self, claim: impl Into<String>, is: Condition) -> Self {
        self.profile().claims.push(ClaimRequirement { path: ClaimPath::new(claim), is });
        self
    }

    /// Also grants scope tokens that begin with this prefix under their name without it: Amazon
    /// Cognito's `orders-api/read` also grants `read`.
    pub fn scope_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.profile().scope_prefix = Some(prefix.into());
        self
    }

    /// Sets the claims that [`AccessToken::has_permission`](crate::AccessToken::has_permission)
    /// reads instead of `permissions`. Claims are named as in
    /// [`require_claim`](Self::require_claim). A claim may be an array of strings, an object, or a
    /// string that is split at commas. In an object, the members whose values are objects count.
    pub fn permissions_at<T: Into<String>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.profile().permissions = claims.into_iter().map(ClaimPath::new).collect();
        self
    }

    /// Sets the claims that [`AccessToken::has_role`](crate::AccessToken::has_role) reads instead
    /// of `roles`. Claims are named as in [`require_claim`](Self::require_claim). A claim may be an
    /// array of strings, an object whose member names are the roles (Zitadel), or a string.
    pub fn roles_at<T: Into<String>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.profile().roles = claims.into_iter().map(ClaimPath::new).collect();
        self
    }

    /// Sets the claims that [`AccessToken::in_group`](crate::AccessToken::in_group) reads instead
    /// of `groups`, in the forms that [`roles_at`](Self::roles_at) accepts.
    pub fn groups_at<T: Into<String>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.profile().groups = claims.into_iter().map(ClaimPath::new).collect();
        self
    }

    /// Reads the tokens of this issuer from this header, set by a gateway in front, instead of from
    /// `Authorization`. Applies only to configured issuers.
    /// [`ProtectLayer::token_sources`](crate::ProtectLayer::token_sources) overrides it.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name.
    pub fn token_in_header(mut self, name: &str) -> Result<Self, ConfigError> {
        self.token_source = Some(TokenSource::header(name)?);
        Ok(self)
    }

    /// Sets the permitted difference between the clocks of the issuer and of this machine, for
    /// `exp`, `nbf` and `iat`. The default of 30 seconds is enough for clocks synchronized by NTP
    /// and adds little to the life of a stolen token.
    ///
    /// # Errors
    ///
    /// Returns an error if it is more than 5 minutes ("usually no more than a few minutes", RFC
    /// 7519 §4.1.4).
    pub fn leeway(mut self, leeway: Duration) -> Result<Self, ConfigError> {
        if leeway > Duration::from_secs(300) {
            return Err(ConfigError::new(format!("leeway {leeway:?}: expected at most 300s")));
        }
        self.leeway = leeway;
        Ok(self)
    }

    /// Sets how long fetched keys are fresh, instead of the lifetime that the server states. By
    /// default, the lifetime is `Cache-Control: max-age` less `Age`, clamped to between 60 seconds
    /// and 1 hour, or 10 minutes if the server states none.
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

    /// Returns the `iss` of this issuer.
    pub fn iss(&self) -> &str {
        &self.iss
    }

    /// Returns `true` if the configuration is the same apart from the aliases, in which case a
    /// resolved issuer keeps its keys. Clients cannot be compared and are assumed to be the same.
    pub(crate) fn is_unchanged_from(&self, other: &Self) -> bool {
        let Self {
            iss,
            aliases: _,
            template,
            audience,
            profile,
            key_source,
            discovery,
            algorithms,
            leeway,
            key_policy,
            plain_http,
            client,
            token_source,
        } = self;
        *iss == other.iss
            && *template == other.template
            && *audience == other.audience
            && *profile == other.profile
            && key_source.is_unchanged_from(&other.key_source)
            && *discovery == other.discovery
            && *algorithms == other.algorithms
            && *leeway == other.leeway
            && *key_policy == other.key_policy
            && *plain_http == other.plain_http
            && client.is_some() == other.client.is_some()
            && *token_source == other.token_source
    }

    /// Every `iss` that its tokens may have: its own and its aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::once(&self.iss).chain(&self.aliases)
    }

    /// Checks the settings that depend on each other.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.key_source {
            KeySource::Discovery => drop(self.metadata_url()?),
            KeySource::JwksUri(_)
            | KeySource::PemByKid(_)
            | KeySource::Fixed(_)
            | KeySource::Secret(_) => {
                if self.discovery != Discovery::default() {
                    return Err(ConfigError::new(format!(
                        "issuer {:?}: `discovery_url` and `require_same_origin_keys` apply only to keys by discovery",
                        self.iss
                    )));
                }
            }
        }
        if let Some(rule) =
            self.profile.claims.iter().find(|rule| rule.is == Condition::OneOf(Vec::new()))
        {
            let claim = rule.path.as_str();
            return Err(ConfigError::new(format!(
                "claim {claim:?}: expected at least one value that it may have"
            )));
        }
        if let (Some(_), Some(alias)) = (&self.template, self.aliases.first()) {
            return Err(ConfigError::new(format!(
                "alias {alias:?} of {:?}: expected none of a template",
                self.iss
            )));
        }
        let hmac = self.algorithms.iter().any(|algorithm| algorithm.secret_bytes().is_some());
        if hmac != matches!(self.key_source, KeySource::Secret(_)) {
            return Err(ConfigError::new(format!(
                "issuer {:?}: expected a secret or a key set, both came",
                self.iss
            )));
        }
        Ok(())
    }

    /// Whether the keys must have the same origin as the metadata.
    pub(crate) fn is_same_origin(&self) -> bool {
        self.discovery.same_origin
    }

    /// The base URL for discovery: `iss`, unless configured otherwise.
    pub(crate) fn metadata_url(&self) -> Result<Url, ConfigError> {
        match &self.discovery.at {
            Some(at) => Ok(at.clone()),
            None => normal_url("issuer", &self.iss, self.plain_http).map_err(|error| {
                ConfigError::new(format!(
                    "{error}, as its keys are to be discovered there; if they are elsewhere, say where with `discovery_url` or `jwks_uri`"
                ))
            }),
        }
    }

    /// The algorithm of an RSA key whose JWK has no `alg`.
    pub(crate) fn rsa_algorithm(&self) -> Algorithm {
        self.algorithms
            .iter()
            .copied()
            .find(|algorithm| algorithm.is_rsa())
            .unwrap_or(Algorithm::RS256)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match &self.key_source {
            KeySource::Discovery => "discovery",
            // The query may contain an API key.
            KeySource::JwksUri(uri) | KeySource::PemByKid(uri) => {
                uri.host_str().unwrap_or_default()
            }
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

fn checked_iss(iss: String) -> Result<String, ConfigError> {
    match !iss.is_empty() && iss.trim() == iss {
        true => Ok(iss),
        false => Err(ConfigError::new(format!(
            "issuer {iss:?}: expected the value of the claim `iss`, without surrounding whitespace"
        ))),
    }
}

fn checked_audience(audience: Audience, iss: &str) -> Result<Audience, ConfigError> {
    match audience.is_usable() {
        true => Ok(audience),
        false => Err(ConfigError::new(format!(
            "audience {audience} of issuer {iss:?}: expected this API's identifier as it stands in the claim `aud`"
        ))),
    }
}
