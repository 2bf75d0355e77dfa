//! Trusted issuers: their audience, keys and rules.

pub(crate) mod active;
pub(crate) mod fapi2;
mod introspecting;
pub(crate) mod issuers;
mod key_options;
pub(crate) mod lookup;
pub(crate) mod registry;
pub(crate) mod resolution;
pub(crate) mod template;
mod token_options;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::algorithm::Algorithm;
use crate::error::ConfigError;
use crate::http_client::HttpClient;
use crate::introspection::{Introspection, JwtPolicy};
use crate::keys::jwk::Jwk;
use crate::keys::jwks::Jwks;
use crate::keys::remote::schedule::KeyPolicy;
use crate::keys::url::{PlainHttp, normal_url};
#[cfg(feature = "status-list")]
use crate::status_list::StatusLists;
use crate::token::audience::{Audience, AudienceClaim};
use crate::token::profile::{Condition, TokenProfile};
use crate::token::tenant;
use crate::token_source::TokenSource;
use template::Template;

/// Enough for clocks synchronized by NTP. A larger leeway would extend the life of a stolen token.
const LEEWAY: Duration = Duration::from_secs(30);

/// A trusted authorization server: its `iss`, the audience of this API, the source of its keys, and
/// the algorithms that it may use.
///
/// Required values are arguments of [`new`](Self::new); optional ones are methods. An issuer has
/// one source of keys: of [`discovery_url`](Self::discovery_url), [`jwks_uri`](Self::jwks_uri),
/// [`pem_key_prefix`](Self::pem_key_prefix), [`jwks`](Self::jwks) and [`secret`](Self::secret), the
/// last call replaces the others.
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
    /// Whether the keys must have the same origin as the metadata.
    pub(crate) same_origin: bool,
    /// The algorithms of its public keys. Those of a secret are in [`KeySource::Secret`].
    pub(crate) algorithms: Cow<'static, [Algorithm]>,
    pub(crate) leeway: Duration,
    pub(crate) max_token_age: Option<Duration>,
    /// Keys to start with, before the first fetch.
    pub(crate) seed: Option<Jwks>,
    pub(crate) key_policy: KeyPolicy,
    pub(crate) plain_http: PlainHttp,
    pub(crate) client: Option<HttpClient>,
    /// Where requests carry its tokens, if not in `Authorization`.
    pub(crate) token_source: Option<TokenSource>,
    /// How it is asked about its tokens, if it is.
    pub(crate) introspection: Option<Introspection>,
    /// Whether its tokens must satisfy the FAPI 2.0 Security Profile.
    pub(crate) is_fapi2: bool,
    /// Where the status of its tokens is looked up, if it is.
    #[cfg(feature = "status-list")]
    pub(crate) status_lists: Option<StatusLists>,
}

/// Where an issuer's keys come from.
#[derive(Clone)]
pub(crate) enum KeySource {
    Discovery {
        /// The base URL, if it is not `iss`.
        at: Option<Url>,
    },
    JwksUri(Url),
    /// One PEM key per URL: this prefix followed by the `kid`.
    PemByKid(Url),
    Fixed(Jwks),
    Secret(Arc<Jwk>),
}

impl KeySource {
    /// Fixed keys and secrets are unchanged only if they are the same allocation.
    fn is_unchanged_from(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Discovery { at: own }, Self::Discovery { at: other }) => own == other,
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
            key_source: KeySource::Discovery { at: None },
            same_origin: false,
            algorithms: Cow::Borrowed(&Algorithm::ASYMMETRIC),
            leeway: LEEWAY,
            max_token_age: None,
            seed: None,
            key_policy: KeyPolicy::default(),
            plain_http: PlainHttp::OnLoopback,
            client: None,
            token_source: None,
            introspection: None,
            is_fapi2: false,
            #[cfg(feature = "status-list")]
            status_lists: None,
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

    /// Returns the `iss` of this issuer.
    pub fn iss(&self) -> &str {
        &self.iss
    }

    pub(crate) fn profile(&mut self) -> &mut TokenProfile {
        Arc::make_mut(&mut self.profile)
    }

    /// Returns `true` if the configuration is the same, in which case a resolved issuer keeps its
    /// keys. Clients cannot be compared and are assumed to be the same.
    pub(crate) fn is_unchanged_from(&self, other: &Self) -> bool {
        let Self {
            iss,
            aliases,
            template,
            audience,
            profile,
            key_source,
            same_origin,
            algorithms,
            leeway,
            max_token_age,
            // Used only once.
            seed: _,
            key_policy,
            plain_http,
            client,
            token_source,
            introspection,
            is_fapi2,
            #[cfg(feature = "status-list")]
            status_lists,
        } = self;
        #[cfg(feature = "status-list")]
        if *status_lists != other.status_lists {
            return false;
        }
        // Revocations under any of its names concern all of its tokens.
        *iss == other.iss
            && *aliases == other.aliases
            && *template == other.template
            && *audience == other.audience
            && *profile == other.profile
            && key_source.is_unchanged_from(&other.key_source)
            && *same_origin == other.same_origin
            && *algorithms == other.algorithms
            && *leeway == other.leeway
            && *max_token_age == other.max_token_age
            && *is_fapi2 == other.is_fapi2
            && *key_policy == other.key_policy
            && *plain_http == other.plain_http
            && client.is_some() == other.client.is_some()
            && *token_source == other.token_source
            && match (introspection, &other.introspection) {
                (Some(own), Some(other)) => own.is_unchanged_from(other),
                (own, other) => own.is_none() && other.is_none(),
            }
    }

    /// Every `iss` that its tokens may have: its own and its aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::once(&self.iss).chain(&self.aliases)
    }

    /// The name that a token uses: shared with the configuration, unless the token names a tenant
    /// of a template.
    pub(crate) fn name(&self, iss: &str) -> Arc<str> {
        self.names().find(|name| ***name == *iss).map_or_else(|| Arc::from(iss), Arc::clone)
    }

    /// Whether keys are used: to verify JWTs, or signed answers about tokens.
    pub(crate) fn needs_keys(&self) -> bool {
        self.introspection.as_ref().is_none_or(|introspection| {
            introspection.jwts != JwtPolicy::Ask || introspection.signed
        })
    }

    fn check_introspection(&self) -> Result<(), ConfigError> {
        let error = |what: &str| Err(ConfigError::new(format!("issuer {:?}: {what}", self.iss)));
        let policy = self.introspection.as_ref().map(|introspection| introspection.jwts);
        if self.audience.claim() == AudienceClaim::Issuer
            && policy.is_none_or(|policy| policy == JwtPolicy::Verify)
        {
            return error(
                "expected `Introspection::jwts_too` or `instead_of_keys` for `Audience::checked_by_issuer`; otherwise, the issuer does not check its JWTs",
            );
        }
        let Some(introspection) = &self.introspection else { return Ok(()) };
        if self.template.is_some() {
            return error("expected the issuer of one tenant for introspection, found a template");
        }
        introspection.check(&self.iss, self.plain_http)
    }

    /// The keys of a trust domain are those of its bundle, never a shared secret, and its tokens
    /// must have an `aud` (JWT-SVID §3.2).
    fn check_trust_domain(&self) -> Result<(), ConfigError> {
        if self.profile.trust_domain.is_none() {
            return Ok(());
        }
        let error = |what: &str| Err(ConfigError::new(format!("issuer {:?}: {what}", self.iss)));
        match &self.key_source {
            KeySource::JwksUri(_) => {}
            KeySource::Fixed(jwks) if jwks.is_spiffe_bundle() => {}
            _ => {
                return error(
                    "expected the bundle of the trust domain; set its URL with `jwks_uri`, or the bundle itself with `Jwks::from_spiffe_bundle` and `jwks`",
                );
            }
        }
        if self.audience.claim() != AudienceClaim::Audience {
            return error("expected an audience that `aud` must contain");
        }
        Ok(())
    }

    /// Checks the settings that depend on each other.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.check_introspection()?;
        self.check_trust_domain()?;
        // The URL for discovery is checked where it is used: an issuer without keys needs none.
        if self.same_origin
            && matches!(self.key_source, KeySource::JwksUri(_) | KeySource::PemByKid(_))
        {
            return Err(ConfigError::new(format!(
                "issuer {:?}: expected keys by discovery for `require_same_origin_keys`, found a URL of the keys",
                self.iss
            )));
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
        Ok(())
    }

    /// The base URL for discovery: `iss`, unless configured otherwise.
    pub(crate) fn metadata_url(&self) -> Result<Url, ConfigError> {
        match &self.key_source {
            KeySource::Discovery { at: Some(at) } => Ok(at.clone()),
            _ => normal_url("issuer", &self.iss, self.plain_http).map_err(|error| {
                ConfigError::new(format!(
                    "{error}, as its keys are to be discovered there; if they are elsewhere, say where with `discovery_url` or `jwks_uri`"
                ))
            }),
        }
    }

    /// Whether a token of this issuer may be signed with this algorithm.
    pub(crate) fn accepts(&self, algorithm: Algorithm) -> bool {
        match &self.key_source {
            KeySource::Secret(key) => key.algorithm == algorithm,
            _ => self.algorithms.contains(&algorithm),
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
            KeySource::Discovery { .. } => "discovery",
            // The query may contain an API key.
            KeySource::JwksUri(uri) | KeySource::PemByKid(uri) => {
                uri.host_str().unwrap_or_default()
            }
            KeySource::Fixed(_) => "fixed",
            KeySource::Secret(_) => "secret",
        };
        let algorithms = match &self.key_source {
            KeySource::Secret(key) => vec![key.algorithm],
            _ => self.algorithms.to_vec(),
        };
        formatter
            .debug_struct("Issuer")
            .field("iss", &self.iss)
            .field("audience", &self.audience)
            .field("keys", &keys)
            .field("algorithms", &algorithms)
            .finish_non_exhaustive()
    }
}

fn checked_iss(iss: String) -> Result<String, ConfigError> {
    if !iss.is_empty() && iss.trim() == iss {
        Ok(iss)
    } else {
        Err(ConfigError::new(format!(
            "issuer {iss:?}: expected the value of the claim `iss`, without surrounding whitespace"
        )))
    }
}

fn checked_audience(audience: Audience, iss: &str) -> Result<Audience, ConfigError> {
    if audience.is_usable() {
        Ok(audience)
    } else {
        Err(ConfigError::new(format!(
            "audience {audience} of issuer {iss:?}: expected this API's identifier as it stands in the claim `aud`"
        )))
    }
}
