//! Options of an [`Issuer`] for its tokens: where they are read from, what they must contain, and
//! which claims hold scopes, permissions, roles and groups.

use std::time::Duration;

use super::{Issuer, checked_audience};
use crate::error::ConfigError;
use crate::introspection::Introspection;
#[cfg(feature = "status-list")]
use crate::status_list::StatusLists;
use crate::token::audience::Audience;
use crate::token::claim_path::ClaimPath;
use crate::token::profile::{ClaimRequirement, Condition};
use crate::token::token_type::AllowedTypes;
use crate::token_source::TokenSource;

impl Issuer {
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
    pub fn forbid_claim(self, claim: impl Into<String>) -> Self {
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

    /// Rejects tokens that were issued longer ago than this, whatever their `exp`: for issuers that
    /// issue tokens for days, and APIs that need newer ones. Tokens must then have `iat` (RFC 7519
    /// §4.1.6). The leeway applies. There is no limit by default.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use portcullis::Issuer;
    ///
    /// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?
    ///     .max_token_age(Duration::from_secs(3600))?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if it is less than 1 second.
    pub fn max_token_age(mut self, age: Duration) -> Result<Self, ConfigError> {
        if age < Duration::from_secs(1) {
            return Err(ConfigError::new(format!("max_token_age {age:?}: expected at least 1s")));
        }
        self.max_token_age = Some(age);
        Ok(self)
    }

    /// Asks the issuer about its opaque tokens (RFC 7662), and on request about its JWTs. The guide
    /// [Opaque tokens](crate::guide::opaque_tokens) shows it for several authorization servers.
    ///
    /// The answer has to name this API in `aud`, like a JWT, or what [`Audience`] says instead. The
    /// other settings of the issuer apply to the answer as to the claims of a JWT: leeway, required
    /// claims, where roles and permissions are. Those of the JOSE header do not.
    ///
    /// If the endpoint gives no usable answer, the request is rejected with 503
    /// ([`Error::IntrospectionUnavailable`](crate::Error::IntrospectionUnavailable)), never with
    /// 401: a client would throw a good token away. This needs a Tokio runtime with I/O and time
    /// enabled.
    ///
    /// ```
    /// use portcullis::{ClientAuth, Introspection, Issuer};
    ///
    /// let hydra = Issuer::new("https://hydra.example.com/", "https://api.example.com")?
    ///     .introspection(Introspection::new(ClientAuth::client_secret("orders-api", "secret")));
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn introspection(mut self, introspection: Introspection) -> Self {
        self.introspection = Some(introspection);
        self
    }

    /// Looks up the status of its JWTs in the lists that they name (draft-ietf-oauth-status-list),
    /// on each request. A token whose status is not 0 is rejected
    /// ([`InvalidToken::Revoked`](crate::InvalidToken::Revoked)). While its list is not available,
    /// requests are answered 503
    /// ([`Error::RevocationsUnavailable`](crate::Error::RevocationsUnavailable)).
    ///
    /// Without this setting, the claim `status` is ignored. If the issuer is asked about each JWT
    /// ([`Introspection::instead_of_keys`]), its answer counts, and a
    /// [`Verifier`](crate::Verifier) with both settings cannot be built.
    ///
    /// ```
    /// use portcullis::{Issuer, StatusLists};
    ///
    /// let issuer = Issuer::new("https://issuer.example.com/", "https://api.example.com")?
    ///     .status_lists(StatusLists::new());
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    #[cfg(feature = "status-list")]
    #[cfg_attr(docsrs, doc(cfg(feature = "status-list")))]
    pub fn status_lists(mut self, lists: StatusLists) -> Self {
        self.status_lists = Some(lists);
        self
    }
}
