//! Whom we trust: for which audience, with which keys and rules.

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

/// For clocks kept by NTP; more would prolong a stolen token's life.
const LEEWAY: Duration = Duration::from_secs(30);

/// An authorization server that we trust: its `iss`, our audience there, where its keys are, which algorithms it may use.
///
/// What is required is an argument of [`new`](Self::new), what is optional is a method. Of [`jwks_uri`](Self::jwks_uri) and
/// [`jwks`](Self::jwks), the last one called counts; a [`secret`](Self::secret) stands alone.
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
#[must_use]
pub struct Issuer {
    pub(crate) iss: Arc<str>,
    /// Other spellings of it.
    pub(crate) aliases: Vec<Arc<str>>,
    /// Which tenants `iss` stands for, if for many.
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
    /// Where requests have its tokens, if not in `Authorization`.
    pub(crate) token_source: Option<TokenSource>,
}

/// Where an issuer's keys come from.
#[derive(Clone)]
pub(crate) enum KeySource {
    Discovery,
    JwksUri(Url),
    /// One key at each address that begins with this, in PEM.
    PemByKid(Url),
    Fixed(Jwks),
    Secret(Arc<Jwk>),
}

/// Where an issuer's metadata are, and what they may say.
#[derive(Clone, Default, PartialEq)]
struct Discovery {
    /// In place of `iss`.
    at: Option<Url>,
    same_origin: bool,
}

impl KeySource {
    /// Fixed keys and secrets are unchanged if they are one and the same.
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
    /// An issuer, exactly as it stands in `iss` (trailing slash included: comparison is byte by byte, RFC 7519 §2), and
    /// this API's identifier there, as it stands in `aud`.
    ///
    /// Keys are discovered when the first token needs them: OpenID Connect Discovery 1.0 §4, else RFC 8414 §3; the
    /// metadata's `issuer` must be identical to `iss`.
    ///
    /// # Errors
    ///
    /// When `iss` or the audience is empty, or has white space around it.
    pub fn new(iss: impl Into<String>, audience: impl Into<Audience>) -> Result<Self, ConfigError> {
        let iss = iss.into();
        if tenant::has_placeholder(&iss) {
            return Err(ConfigError::new(format!(
                "issuer {iss:?}: expected one tenant's; for many use `template`"
            )));
        }
        Self::with(iss, audience.into())
    }

    /// Many tenants of one issuer, as Microsoft Entra ID has them: `{tenantid}` in `iss` stands for the tenant, a GUID. A
    /// token's claim `tid` must be the tenant in its `iss`; and a key with a member `issuer` that names one tenant signs for
    /// no other. Say where the keys are with [`discovery_url`](Self::discovery_url) or [`jwks_uri`](Self::jwks_uri).
    ///
    /// Tokens of version 1.0 have another `iss`: add a second template, `https://sts.windows.net/{tenantid}/`, discovered at
    /// `https://login.microsoftonline.com/common`. Where tenants come and go, a look-up that returns `Issuer::new(iss, …)` for
    /// each of them is the better way.
    ///
    /// This trusts **every** tenant that there is, hence everybody in the world that may get a token for the audience;
    /// [`tenants`](Self::tenants) names those that you mean. Only a list of issuers has templates, no look-up.
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
    /// When `iss` has no `{tenantid}` in it, or two; otherwise as [`new`](Self::new).
    pub fn template(
        iss: impl Into<String>,
        audience: impl Into<Audience>,
    ) -> Result<Self, ConfigError> {
        let iss = iss.into();
        let template = Some(Template::new(&iss)?);
        Ok(Self { template, ..Self::with(iss, audience.into())? })
    }

    /// Trusts only these tenants of a [`template`](Self::template).
    ///
    /// # Errors
    ///
    /// When one is no GUID in lower case, or this issuer is no template.
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

    /// Trusts tokens that name this issuer otherwise, with the same keys and rules: another spelling (Google's
    /// `accounts.google.com`), or a custom domain of the same tenant. Metadata must still name the issuer itself.
    ///
    /// A look-up that is asked for the alias may return the issuer with it: then both share the keys, too.
    ///
    /// # Errors
    ///
    /// When `iss` is empty, or has white space around it.
    pub fn alias(mut self, iss: impl Into<String>) -> Result<Self, ConfigError> {
        self.aliases.push(checked_iss(iss.into())?.into());
        // In whatever order a look-up lists them, they have not changed.
        self.aliases.sort_unstable();
        Ok(self)
    }

    /// Fetches the keys from this address, without discovery.
    ///
    /// # Errors
    ///
    /// When `uri` is no absolute `https` URL; `http` is accepted on loopback.
    pub fn jwks_uri(mut self, uri: &str) -> Result<Self, ConfigError> {
        self.key_source = KeySource::JwksUri(secure_url("jwks_uri", uri, self.plain_http)?);
        self.discovery = Discovery::default();
        Ok(self)
    }

    /// Discovers the keys at this address instead of at `iss`: for an issuer that is known to the world by one name and
    /// reached from here by another. The well-known paths are looked for under it; the metadata's `issuer` must still be
    /// identical to `iss`, and its `jwks_uri` is used as it stands.
    ///
    /// # Errors
    ///
    /// When `address` is no `https` URL in its normal form, without query and fragment; `http` is accepted on loopback.
    pub fn discovery_url(mut self, address: &str) -> Result<Self, ConfigError> {
        self.discovery.at = Some(normal_url("discovery_url", address, self.plain_http)?);
        Ok(self)
    }

    /// Fetches metadata and keys over plain http, too, from wherever the issuer is: for an issuer inside a cluster or a compose
    /// file (`http://keycloak:8080`). Dangerous, because whoever can answer in its place, on the network or by DNS, can replace
    /// the keys and then sign any token. Call it before [`jwks_uri`](Self::jwks_uri) or [`discovery_url`](Self::discovery_url).
    ///
    /// For configured issuers only: a looked-up issuer that has it is not trusted.
    ///
    /// ```
    /// use portcullis::{Issuer, Verifier};
    ///
    /// let keycloak = providers::keycloak("http://keycloak:8080", "shop", "orders-api")?.danger_allow_http();
    /// let verifier = Verifier::new(keycloak)?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn danger_allow_http(mut self) -> Self {
        self.plain_http = PlainHttp::Anywhere;
        self
    }

    /// Uses the metadata's `jwks_uri` only if it has the same scheme, host and port as the address that the metadata came
    /// from. Some issuers have their keys elsewhere, so this is not the default.
    pub fn require_same_origin_keys(mut self) -> Self {
        self.discovery.same_origin = true;
        self
    }

    /// The HTTP client (of `reqwest` 0.13) for this issuer, in place of the [verifier's](crate::VerifierBuilder::client): for
    /// a certificate authority, a client certificate, a proxy or a bearer token that only this one needs.
    ///
    /// Clients cannot be compared: a looked-up issuer that comes back with another client, and is otherwise the same, keeps
    /// the first. And yours resolves names by itself: a looked-up issuer with one may be reached at a private address by
    /// name. Have it follow no redirects.
    pub fn client(mut self, client: impl Into<HttpClient>) -> Self {
        self.client = Some(client.into());
        self
    }

    /// Fetches each key by itself, in PEM, from this address with its `kid` at the end, as AWS load balancers have theirs.
    ///
    /// A set cannot be fetched, so each new `kid` is: at most eight at once, and one more each second. Whoever can send tokens
    /// past the gateway that signs them can use that up.
    ///
    /// # Errors
    ///
    /// When `prefix` is no absolute `https` URL that ends with a slash; `http` is accepted on loopback.
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

    /// Uses exactly these keys. Nothing is ever fetched.
    pub fn jwks(mut self, jwks: Jwks) -> Self {
        self.key_source = KeySource::Fixed(jwks);
        self.discovery = Discovery::default();
        self
    }

    /// Verifies with a secret that is shared with the issuer: HMAC (RFC 7518 §3.2), that one algorithm and no other.
    /// Whoever can verify can also sign; prefer public keys where there is a choice.
    ///
    /// # Errors
    ///
    /// When `algorithm` is not `HS256`, `HS384` or `HS512`, or the secret is shorter than the hash.
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

    /// The algorithms that this issuer may sign with (RFC 8725 §3.1); by default all asymmetric ones, each only with keys
    /// made for it.
    ///
    /// A key serves exactly one algorithm. An RSA key whose JWK does not say which serves the first RSA algorithm of this
    /// list; by default `RS256`.
    ///
    /// # Errors
    ///
    /// When the list is empty, or names an HMAC algorithm: those come with [`secret`](Self::secret) and never with a key set.
    pub fn algorithms(
        mut self,
        algorithms: impl IntoIterator<Item = Algorithm>,
    ) -> Result<Self, ConfigError> {
        let algorithms: Vec<_> = algorithms.into_iter().collect();
        if algorithms.is_empty() || matches!(self.key_source, KeySource::Secret(_)) {
            return Err(ConfigError::new(format!(
                "algorithms {algorithms:?} of issuer {:?}: expected at least one; and none beside a `secret`, which brings its own",
                self.iss
            )));
        }
        if let Some(hmac) = algorithms.iter().find(|algorithm| algorithm.secret_bytes().is_some()) {
            return Err(ConfigError::new(format!(
                "algorithm {hmac} of issuer {:?}: expected asymmetric ones; HMAC comes with `secret`",
                self.iss
            )));
        }
        self.algorithms = Cow::Owned(algorithms);
        Ok(self)
    }

    pub(crate) fn profile(&mut self) -> &mut TokenProfile {
        Arc::make_mut(&mut self.profile)
    }

    /// Another audience than that given to [`new`](Self::new), or to a preset.
    ///
    /// # Errors
    ///
    /// When it is empty, or has white space around it.
    pub fn audience(mut self, audience: impl Into<Audience>) -> Result<Self, ConfigError> {
        self.audience = checked_audience(audience.into(), &self.iss)?;
        Ok(self)
    }

    /// Accepts only access tokens by RFC 9068: `typ` is `at+jwt`, and `aud`, `sub`, `client_id`, `iat` and `jti` are there. The
    /// strictest choice, and what keeps ID tokens out for certain; take it if the issuer can do it.
    ///
    /// By default `typ` may be absent, `JWT` or `at+jwt`.
    pub fn require_rfc9068(mut self) -> Self {
        self.profile().typ = AllowedTypes::Rfc9068;
        self
    }

    /// Which `typ` the header may have, if it has one (RFC 7515 §4.1.9): without `application/`, and in any case.
    ///
    /// # Errors
    ///
    /// When one is by its specification another kind of JWT (`logout+jwt`, `dpop+jwt`, …): those never pass.
    pub fn allowed_types<T: Into<String>>(
        mut self,
        types: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        self.profile().typ = AllowedTypes::one_of(types.into_iter().map(Into::into).collect())?;
        Ok(self)
    }

    /// Accepts any `typ`, but for those that are by their specification another kind of JWT. Dangerous where the issuer signs
    /// other things with the same keys: then only the audience tells them from access tokens.
    pub fn danger_allow_any_type(mut self) -> Self {
        self.profile().typ = AllowedTypes::Any;
        self
    }

    /// Accepts only tokens where this claim is one of these values (strings, numbers, booleans), or an array with one of them.
    ///
    /// `claim` is a name, dots and URLs included; or, with a slash in front, a JSON Pointer (RFC 6901): `/kubernetes.io/namespace`.
    pub fn require_claim<T: Into<serde_json::Value>>(
        self,
        claim: impl Into<String>,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.claim_rule(claim, Condition::OneOf(values.into_iter().map(Into::into).collect()))
    }

    /// Refuses tokens where this claim is one of these values, or an array with one of them; named as in
    /// [`require_claim`](Self::require_claim).
    pub fn reject_claim<T: Into<serde_json::Value>>(
        self,
        claim: impl Into<String>,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.claim_rule(claim, Condition::NoneOf(values.into_iter().map(Into::into).collect()))
    }

    /// Refuses tokens that do not have this claim, or have `null` for it; named as in [`require_claim`](Self::require_claim).
    pub fn require_claim_present(self, claim: impl Into<String>) -> Self {
        self.claim_rule(claim, Condition::Present)
    }

    /// Refuses tokens that have this claim at all; named as in [`require_claim`](Self::require_claim).
    pub fn without_claim(self, claim: impl Into<String>) -> Self {
        self.claim_rule(claim, Condition::Absent)
    }

    pub(crate) fn claim_rule(mut self, claim: impl Into<String>, is: Condition) -> Self {
        self.profile().claims.push(ClaimRequirement { path: ClaimPath::new(claim), is });
        self
    }

    /// Grants scope tokens that begin with this also without it: Amazon Cognito's `orders-api/read` is `read`, too.
    pub fn scope_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.profile().scope_prefix = Some(prefix.into());
        self
    }

    /// Where [`AccessToken::has_permission`](crate::AccessToken::has_permission) looks, instead of in `permissions`; claims are
    /// named as in [`require_claim`](Self::require_claim). Their form may be an array of strings, an object, or one string, which
    /// is split at commas. Of an object those members count whose values are objects.
    pub fn permissions_at<T: Into<String>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.profile().permissions = claims.into_iter().map(ClaimPath::new).collect();
        self
    }

    /// Where [`AccessToken::has_role`](crate::AccessToken::has_role) looks, instead of in `roles`; named as in
    /// [`require_claim`](Self::require_claim). Their form may be an array of strings, an object whose members count (Zitadel),
    /// or one string.
    pub fn roles_at<T: Into<String>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.profile().roles = claims.into_iter().map(ClaimPath::new).collect();
        self
    }

    /// Where [`AccessToken::in_group`](crate::AccessToken::in_group) looks, instead of in `groups`; as
    /// [`roles_at`](Self::roles_at).
    pub fn groups_at<T: Into<String>>(mut self, claims: impl IntoIterator<Item = T>) -> Self {
        self.profile().groups = claims.into_iter().map(ClaimPath::new).collect();
        self
    }

    /// Looks for this issuer's tokens in this header, which a gateway in front sets, instead of in `Authorization`: by default,
    /// where [`ProtectLayer::token_sources`](crate::ProtectLayer::token_sources) says nothing else, and if the issuer is listed.
    ///
    /// # Errors
    ///
    /// When `name` is no header's name.
    pub fn token_in_header(mut self, name: &str) -> Result<Self, ConfigError> {
        self.token_source = Some(TokenSource::header(name)?);
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

    /// How long fetched keys are fresh, in place of what the server says. By default its `Cache-Control: max-age` counts,
    /// less `Age`, within 60 seconds and 1 hour; 10 minutes if it says nothing.
    ///
    /// The lifetime bounds how long a withdrawn key is still trusted. A new key needs no expiry to be found: a token that no
    /// key at hand verifies has the set fetched again, at most three times at once, and then once in 5 seconds.
    ///
    /// # Errors
    ///
    /// When it is less than 1 second or more than 24 hours.
    pub fn keys_max_age(mut self, max_age: Duration) -> Result<Self, ConfigError> {
        if max_age < Duration::from_secs(1) || max_age > Duration::from_secs(24 * 3600) {
            return Err(ConfigError::new(format!("keys_max_age {max_age:?}: expected 1s to 24h")));
        }
        self.key_policy.max_age = Some(max_age);
        Ok(self)
    }

    /// How long keys past their lifetime still serve while they cannot be fetched; 1 hour by default, longer than nearly
    /// every outage. Zero to serve none: then an outage is felt when the lifetime ends.
    ///
    /// # Errors
    ///
    /// When it is more than 24 hours: a withdrawn key is trusted meanwhile.
    pub fn keys_max_stale(mut self, max_stale: Duration) -> Result<Self, ConfigError> {
        if max_stale > Duration::from_secs(24 * 3600) {
            return Err(ConfigError::new(format!(
                "keys_max_stale {max_stale:?}: expected at most 24h"
            )));
        }
        self.key_policy.max_stale = max_stale;
        Ok(self)
    }

    /// How long fetching the keys may take, discovery and key set together: the longest that a request can be asked to
    /// wait; 5 seconds by default. Shorter limits failed in production elsewhere, longer ones pile up requests.
    ///
    /// # Errors
    ///
    /// When it is zero or more than 60 seconds.
    pub fn keys_fetch_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        if timeout.is_zero() || timeout > Duration::from_secs(60) {
            return Err(ConfigError::new(format!(
                "keys_fetch_timeout {timeout:?}: expected up to 60s, and not 0"
            )));
        }
        self.key_policy.timeout = timeout;
        Ok(self)
    }

    /// The claim `iss` of this issuer's tokens.
    pub fn iss(&self) -> &str {
        &self.iss
    }

    /// Whether the lookup has returned the same issuer again, but for its aliases: then it keeps its keys. Clients cannot be
    /// compared, and are taken to be the same.
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

    /// Every `iss` that its tokens may have.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::once(&self.iss).chain(&self.aliases)
    }

    /// What only the whole configuration shows.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.key_source {
            KeySource::Discovery => drop(self.metadata_url()?),
            KeySource::JwksUri(_)
            | KeySource::PemByKid(_)
            | KeySource::Fixed(_)
            | KeySource::Secret(_) => {
                if self.discovery != Discovery::default() {
                    return Err(ConfigError::new(format!(
                        "issuer {:?}: expected keys by discovery beside `discovery_url` and `require_same_origin_keys`, others came",
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

    /// Whether the keys must be where the metadata are.
    pub(crate) fn is_same_origin(&self) -> bool {
        self.discovery.same_origin
    }

    /// The address that the metadata are discovered at: `iss`, unless configured otherwise.
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

    /// What an RSA key serves whose JWK does not say.
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
            // Its query may hold a key of another kind.
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
            "issuer {iss:?}: expected the value of the claim `iss`, without white space around it"
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
