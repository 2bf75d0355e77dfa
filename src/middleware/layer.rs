//! [`ProtectLayer`]: what a route requires.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Response;
use http::request::Parts;
use serde_json::Value;
use tower_layer::Layer;

use super::authorization::Authorization;
use super::challenge::DEFAULT_REALM;
use super::config::{ProtectConfig, TokenPolicy};
use super::rejection::{EmptyBody, ProblemJson, RejectWith};
use super::resource_metadata::ResourceMetadata;
use super::service::Protect;
use crate::access_token::AccessToken;
use crate::error::Error;
use crate::rule::Rule;
use crate::telemetry;
use crate::token::scope::Scope;
use crate::token_source::TokenSource;
use crate::verifier::Verifier;

/// A [`tower_layer::Layer`] that lets only requests with a verified access token through, and
/// inserts that [`AccessToken`](crate::AccessToken) into the request's extensions.
///
/// A rejected request results in a response, not in an error of the service: see the table of
/// [`Error`](crate::Error). The body of such a response is empty (`Default`), whatever body type
/// your service has. To send a body, use [`problem_json`](Self::problem_json) or
/// [`rejection_response`](Self::rejection_response). A gRPC request is rejected with a gRPC status.
///
/// Layers of the same [`Verifier`] may be nested: the token is verified once, and each layer checks
/// its own rules.
///
/// ```
/// use axum::Router;
/// use axum::routing::{get, post};
/// use portcullis::{AccessToken, Issuer, ProtectLayer, Verifier};
///
/// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let protect = ProtectLayer::new(Verifier::new(issuer)?);
///
/// let app: Router = Router::new()
///     // Two methods of one path with different scopes: call `route` once for each.
///     .route("/orders", get(list_orders).route_layer(protect.clone().scope("orders:read")))
///     .route("/orders", post(place_order).route_layer(protect.clone().scope("orders:write")))
///     .route("/me", get(list_orders))
///     .route_layer(protect); // an unknown path is still 404
///
/// async fn list_orders(token: AccessToken) -> String {
///     format!("orders of {}", token.subject().unwrap_or("unknown"))
/// }
/// # async fn place_order() {}
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
pub struct ProtectLayer<A = EmptyBody> {
    pub(crate) config: Arc<ProtectConfig<A>>,
}

impl ProtectLayer {
    /// Requires an access token that `verifier` accepts, in the `Authorization` header
    /// (RFC 6750 §2.1). Tokens of a configured issuer that is a gateway
    /// ([`cloudflare_access`](crate::providers::cloudflare_access), `gcp_iap`, `aws_alb`) are
    /// expected in that gateway's header instead.
    pub fn new(verifier: Verifier) -> Self {
        let config = ProtectConfig {
            sources: verifier.token_sources().into(),
            verifier,
            rule: Rule::nothing(),
            realm: DEFAULT_REALM.into(),
            policy: TokenPolicy::Required,
            authorization: Authorization::default(),
            passes_preflight: false,
            has_challenge: true,
            resource_metadata: None,
            challenges: OnceLock::new(),
            answer: Arc::new(EmptyBody),
        };
        Self { config: Arc::new(config) }
    }
}

impl<A> ProtectLayer<A> {
    /// Changes this layer. Services that it created before keep their configuration.
    fn with(self, change: impl FnOnce(&mut ProtectConfig<A>)) -> Self {
        let mut config = match Arc::try_unwrap(self.config) {
            Ok(mut config) => {
                config.challenges = OnceLock::new();
                config
            }
            Err(shared) => shared.answering(Arc::clone(&shared.answer)),
        };
        change(&mut config);
        Self { config: Arc::new(config) }
    }

    /// Requires every scope token (RFC 6749 §3.3) of `scope`, which separates them by spaces. Calls
    /// of this method and of the others that require something add up.
    ///
    /// A token that lacks one of them is rejected with 403 `insufficient_scope` (RFC 6750 §3.1).
    /// The challenge names the scope that this layer requires, without that of layers around it.
    ///
    /// # Panics
    ///
    /// Panics if `scope` is empty or not a valid scope, as routers do for an invalid path. The
    /// message names the caller's line. If the value is not written in the source, parse it into a
    /// [`Scope`] first and handle the error: of parsed scopes, only an empty one panics here.
    #[track_caller]
    pub fn scope<S>(self, scope: S) -> Self
    where
        S: TryInto<Scope>,
        S::Error: Display,
    {
        self.rule(Rule::scope(scope))
    }

    /// Requires one of these scopes. A scope of several tokens requires all of them. The challenge
    /// names the first scope.
    ///
    /// # Panics
    ///
    /// Panics if one of `scopes` is empty or not a valid scope, as [`scope`](Self::scope) does.
    #[track_caller]
    pub fn any_scope<S>(self, scopes: impl IntoIterator<Item = S>) -> Self
    where
        S: TryInto<Scope>,
        S::Error: Display,
    {
        self.rule(Rule::any_scope(scopes))
    }

    /// Requires this permission, as
    /// [`AccessToken::has_permission`](crate::AccessToken::has_permission) finds it.
    pub fn permission(self, permission: impl Into<String>) -> Self {
        self.rule(Rule::permission(permission))
    }

    /// Requires this role, as [`AccessToken::has_role`](crate::AccessToken::has_role) finds it.
    pub fn role(self, role: impl Into<String>) -> Self {
        self.rule(Rule::role(role))
    }

    /// Requires membership in this group, as
    /// [`AccessToken::in_group`](crate::AccessToken::in_group) finds it.
    pub fn group(self, group: impl Into<String>) -> Self {
        self.rule(Rule::group(group))
    }

    /// Requires a claim that is present and for which `test` returns `true`. The claim is named as
    /// in [`AccessToken::claim`](crate::AccessToken::claim).
    ///
    /// ```
    /// # fn example(protect: portcullis::ProtectLayer) -> portcullis::ProtectLayer {
    /// protect.claim("org_id", |org| org == "org_1")
    /// # }
    /// ```
    pub fn claim(
        self,
        claim: impl Into<String>,
        test: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rule(Rule::claim(claim, test))
    }

    /// Requires a [`Rule`]. For a condition that no other method expresses, use [`Rule::custom`].
    ///
    /// ```
    /// use portcullis::Rule;
    ///
    /// # fn example(protect: portcullis::ProtectLayer) -> portcullis::ProtectLayer {
    /// protect.rule(Rule::custom("own profile", |token, request| {
    ///     // The path that the service receives: inside `nest`, it lacks the prefix.
    ///     let own = |subject: &str| !subject.contains('%') && request.uri.path() == format!("/profiles/{subject}");
    ///     token.subject().is_some_and(own)
    /// }))
    /// # }
    /// ```
    pub fn rule(self, rule: impl Into<Rule>) -> Self {
        let rule = rule.into();
        self.with(|config| config.rule = config.rule.clone().and(rule))
    }

    /// Requires that the user signed in with one of these authentication context classes: the claim
    /// `acr` (RFC 9470 §3). Otherwise the rejection is 401 `insufficient_user_authentication`,
    /// which tells the client to have the user sign in that way.
    pub fn acr<T: Into<String>>(self, classes: impl IntoIterator<Item = T>) -> Self {
        self.rule(Rule::acr(classes))
    }

    /// Requires that the user signed in at most `age` ago: the claim `auth_time` (RFC 9470 §3).
    /// Otherwise the rejection is the same as for [`acr`](Self::acr). Its challenge gives the age
    /// in whole seconds.
    pub fn max_auth_age(self, age: Duration) -> Self {
        self.rule(Rule::max_auth_age(age))
    }

    /// Requires that the token is bound to a key (DPoP, RFC 9449) or a certificate (RFC 8705) of
    /// its client: [`Rule::bound`]. For routes where a stolen token would do harm, while others
    /// still accept bearer tokens. The verifier needs [`dpop`](crate::VerifierBuilder::dpop) or
    /// [`client_certificates`](crate::VerifierBuilder::client_certificates).
    pub fn bound(self) -> Self {
        if self.config.verifier.bindings().are_none() {
            telemetry::bound_without_binding();
        }
        self.rule(Rule::bound())
    }

    /// Asks the application whether a request may continue: a check that waits, for example for a
    /// database or a policy service. It runs after the rules, only for requests that satisfy them,
    /// and not for requests without a token that the layer lets through. Checks add up; they run in
    /// order. The guide [Authorization](crate::guide::authorization) has an example with the
    /// AuthZEN Authorization API.
    ///
    /// `Ok(false)` is rejected with 403 without `error`, since another token would not help. An
    /// error, or no answer within 2 seconds
    /// ([`authorization_timeout`](Self::authorization_timeout)), is rejected with 503
    /// ([`Error::AuthorizationFailed`]). The check gets a copy of the request's head with its
    /// extensions. Nothing is cached. It needs a Tokio runtime with time enabled.
    ///
    /// A subject is unique at its issuer only: with several issuers, ask about both. Do not decide
    /// by headers that a client chooses, such as `Mcp-Name`.
    ///
    /// ```
    /// # #[derive(Clone)] struct Database;
    /// # impl Database { async fn owns(&self, _: (&str, &str), _: &str) -> Result<bool, std::io::Error> { Ok(true) } }
    /// # fn example(protect: portcullis::ProtectLayer, database: Database) -> portcullis::ProtectLayer {
    /// protect.authorize(move |token, request| {
    ///     let database = database.clone();
    ///     async move {
    ///         let Some(subject) = token.subject() else { return Ok(false) };
    ///         database.owns((token.issuer(), subject), request.uri.path()).await
    ///     }
    /// })
    /// # }
    /// ```
    pub fn authorize<F, E>(
        self,
        check: impl Fn(AccessToken, Parts) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<bool, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.with(|config| config.authorization.add(check))
    }

    /// Sets how long the checks of [`authorize`](Self::authorize) may take together. The default is
    /// 2 seconds.
    pub fn authorization_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.authorization.timeout = timeout)
    }

    /// Also lets requests without a token through. An invalid token is still rejected. Handlers
    /// receive an `Option<AccessToken>`.
    ///
    /// Rules apply only to requests that have a token: with `allow_anonymous().scope(…)`, a request
    /// without a token still passes.
    pub fn allow_anonymous(self) -> Self {
        self.with(|config| config.policy = TokenPolicy::Optional)
    }

    /// Treats an invalid token as absent, and lets requests without a token through.
    ///
    /// Dangerous: the request continues unauthenticated, and the client is never told that its
    /// token is invalid. Use it only where authentication is cosmetic, such as for a page that
    /// greets its user. While an issuer's keys are unavailable, its tokens are still rejected with
    /// 503. Rules still apply to valid tokens.
    pub fn danger_ignore_invalid(self) -> Self {
        self.with(|config| config.policy = TokenPolicy::IgnoreInvalid)
    }

    /// Reads the token only from these locations. A request with tokens in two of them is rejected
    /// with 400 (RFC 6750 §2).
    pub fn token_sources(self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        self.with(|config| config.sources = sources.into_iter().collect())
    }

    /// Lets CORS preflights (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) through,
    /// which browsers send without a token. For a CORS layer inside this one.
    ///
    /// Prefer a CORS layer outside this one. Any client can forge a preflight; an inner service
    /// that overrides the method would then run unauthenticated.
    pub fn allow_preflight(self) -> Self {
        self.with(|config| config.passes_preflight = true)
    }

    /// Sets the protection space that challenges name (RFC 9110 §11.5). The default is `api`.
    pub fn realm(self, realm: impl Into<String>) -> Self {
        self.with(|config| config.realm = realm.into().into())
    }

    /// Names the metadata document of the resource in challenges: the parameter `resource_metadata`
    /// (RFC 9728 §5.1), with which a client without configuration finds out where to get a token.
    /// 400, 401 and 403 have it, also if a handler or an extractor rejects the request, but not
    /// 503. It does not serve the document; see [`ResourceMetadata`].
    ///
    /// Challenges of layers that do not read tokens in `Authorization` do not have it.
    pub fn resource_metadata(self, metadata: &ResourceMetadata) -> Self {
        self.with(|config| config.resource_metadata = Some(metadata.clone()))
    }

    /// Omits the `WWW-Authenticate` header from rejections, for example for browser clients.
    /// RFC 9110 §11.6.1 requires it with 401.
    pub fn without_challenge(self) -> Self {
        self.with(|config| config.has_challenge = false)
    }

    /// Gives rejections an `application/problem+json` body (RFC 9457), including those of
    /// extractors and of handlers that return an [`Error`]. The body type of the service's
    /// responses must implement `From<String>`.
    pub fn problem_json(self) -> ProtectLayer<ProblemJson> {
        self.answering(ProblemJson)
    }

    /// Builds rejections with a function of the error and the request, which sets the body and
    /// further headers. This includes the rejections of extractors and of handlers that return an
    /// [`Error`]. The challenge is added, whatever the status. A status that the function sets is
    /// kept unless it is 2xx. To hide a resource behind 404, also call
    /// [`without_challenge`](Self::without_challenge).
    ///
    /// Do not tell the client more than [`Error::oauth_error`] does: it may be an attacker. The
    /// type of a layer with a function cannot be named. A function that takes such a layer needs
    /// the bound `A: RejectionBody<axum::body::Body> + Send + Sync + 'static`.
    ///
    /// ```
    /// use portcullis::{Issuer, ProtectLayer, Verifier};
    ///
    /// let verifier = Verifier::new(Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?)?;
    /// let protect = ProtectLayer::new(verifier).rejection_response(|error, request| {
    ///     let word = error.oauth_error().unwrap_or("access_denied");
    ///     axum::response::Response::new(format!("{}: {word}", request.uri.path()).into())
    /// });
    ///
    /// fn app<A>(protect: portcullis::ProtectLayer<A>) -> axum::Router
    /// where
    ///     A: portcullis::RejectionBody<axum::body::Body> + Send + Sync + 'static,
    /// {
    ///     axum::Router::new().route("/", axum::routing::get(async || "")).route_layer(protect)
    /// }
    /// # app(protect);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn rejection_response<R, F>(self, answer: F) -> ProtectLayer<RejectWith<F>>
    where
        F: Fn(&Error, &Parts) -> Response<R>,
    {
        self.answering(RejectWith(answer))
    }

    fn answering<B>(self, answer: B) -> ProtectLayer<B> {
        ProtectLayer { config: Arc::new(self.config.answering(Arc::new(answer))) }
    }
}

impl<A> Clone for ProtectLayer<A> {
    fn clone(&self) -> Self {
        Self { config: Arc::clone(&self.config) }
    }
}

impl<A> fmt::Debug for ProtectLayer<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProtectLayer")
            .field("verifier", &self.config.verifier)
            .field("rule", &self.config.rule)
            .finish_non_exhaustive()
    }
}

impl<S, A> Layer<S> for ProtectLayer<A> {
    type Service = Protect<S, A>;

    /// Only clones an `Arc`: routers and servers may call it for each request or connection.
    fn layer(&self, inner: S) -> Protect<S, A> {
        Protect::new(inner, Arc::clone(&self.config))
    }
}
