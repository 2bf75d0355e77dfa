//! What a route asks for.

use std::fmt::{self, Display};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Response;
use http::request::Parts;
use serde_json::Value;
use tower_layer::Layer;

use super::challenge::DEFAULT_REALM;
use super::config::{ProtectConfig, TokenPolicy};
use super::rejection::{EmptyBody, ProblemJson, RejectWith};
use super::service::Protect;
use crate::error::Error;
use crate::rule::Rule;
use crate::token::scope::Scope;
use crate::token_source::TokenSource;
use crate::verifier::Verifier;

/// A [`tower_layer::Layer`] that lets a request through only with a verified access token, and puts that
/// [`AccessToken`](crate::AccessToken) into the request's extensions.
///
/// A request that is refused is answered, not failed: see [`Error`](crate::Error) for the table. The body of such an answer
/// is empty (`Default`), whatever type your service's bodies have; [`problem_json`](Self::problem_json) and
/// [`rejection_response`](Self::rejection_response) give it another. gRPC requests are refused as gRPC.
///
/// Layers of the same [`Verifier`] may be nested: the token is verified once, and each layer asks for its own.
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
///     // Two methods of one path, each with a scope of its own: one `route` for each.
///     .route("/orders", get(list_orders).route_layer(protect.clone().scope("orders:read")))
///     .route("/orders", post(place_order).route_layer(protect.clone().scope("orders:write")))
///     .route("/me", get(list_orders))
///     .route_layer(protect); // an unknown path stays 404
///
/// async fn list_orders(token: AccessToken) -> String {
///     format!("orders of {}", token.subject().unwrap_or("nobody"))
/// }
/// # async fn place_order() {}
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
pub struct ProtectLayer<A = EmptyBody> {
    route: Arc<ProtectConfig<A>>,
}

impl ProtectLayer {
    /// Asks for an access token that `verifier` accepts, in `Authorization`; or, where a listed issuer is a gateway
    /// ([`providers::cloudflare_access`](crate::providers::cloudflare_access), `gcp_iap`, `aws_alb`), in that gateway's header.
    pub fn new(verifier: Verifier) -> Self {
        let route = ProtectConfig {
            sources: verifier.token_sources().into(),
            verifier,
            rule: Rule::nothing(),
            realm: DEFAULT_REALM.into(),
            policy: TokenPolicy::Required,
            passes_preflight: false,
            has_challenge: true,
            challenges: OnceLock::new(),
            answer: Arc::new(EmptyBody),
        };
        Self { route: Arc::new(route) }
    }
}

impl<A> ProtectLayer<A> {
    /// The same layer, changed; services that it made before are not.
    fn with(self, change: impl FnOnce(&mut ProtectConfig<A>)) -> Self {
        let mut route = match Arc::try_unwrap(self.route) {
            Ok(mut route) => {
                route.challenges = OnceLock::new();
                route
            }
            Err(shared) => shared.answering(Arc::clone(&shared.answer)),
        };
        change(&mut route);
        Self { route: Arc::new(route) }
    }

    /// Asks for these scope tokens too, all of them; several calls add up, as all methods here that ask for something. A token
    /// that does not grant them is refused with 403 `insufficient_scope` (RFC 6750 §3.1). The challenge names what this layer
    /// asks for, not what others around it do.
    ///
    /// # Panics
    ///
    /// When `scope` is no scope (RFC 6749 §3.3), as a router does for a path that is none: at start-up, at the line that
    /// says it. For a value that is not written in the source, `parse` a [`Scope`] first; that one cannot panic here.
    #[track_caller]
    pub fn scope<S>(self, scope: S) -> Self
    where
        S: TryInto<Scope>,
        S::Error: Display,
    {
        self.rule(Rule::scope(scope))
    }

    /// Asks for one of these scopes; the challenge names the first.
    ///
    /// # Panics
    ///
    /// When one is no scope, as in [`scope`](Self::scope).
    #[track_caller]
    pub fn any_scope<S>(self, scopes: impl IntoIterator<Item = S>) -> Self
    where
        S: TryInto<Scope>,
        S::Error: Display,
    {
        self.rule(Rule::any_scope(scopes))
    }

    /// Asks for this permission: [`AccessToken::has_permission`](crate::AccessToken::has_permission).
    pub fn permission(self, permission: impl Into<String>) -> Self {
        self.rule(Rule::permission(permission))
    }

    /// Asks for this role: [`AccessToken::has_role`](crate::AccessToken::has_role).
    pub fn role(self, role: impl Into<String>) -> Self {
        self.rule(Rule::role(role))
    }

    /// Asks for this group: [`AccessToken::in_group`](crate::AccessToken::in_group).
    pub fn group(self, group: impl Into<String>) -> Self {
        self.rule(Rule::group(group))
    }

    /// Asks for a claim that passes a test; named as in [`AccessToken::claim`](crate::AccessToken::claim).
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

    /// Requires what a [`Rule`] says; for whatever the other methods do not cover, [`Rule::custom`].
    ///
    /// ```
    /// use portcullis::Rule;
    ///
    /// # fn example(protect: portcullis::ProtectLayer) -> portcullis::ProtectLayer {
    /// protect.rule(Rule::custom("own profile", |token, request| {
    ///     // The path is as the service sees it: inside `nest`, without the prefix.
    ///     let own = |subject: &str| !subject.contains('%') && request.uri.path() == format!("/profiles/{subject}");
    ///     token.subject().is_some_and(own)
    /// }))
    /// # }
    /// ```
    pub fn rule(self, rule: impl Into<Rule>) -> Self {
        let rule = rule.into();
        self.with(|config| config.rule = config.rule.clone().and(rule))
    }

    /// Asks that the user signed in by one of these authentication context classes: `acr` (RFC 9470). If not, 401
    /// `insufficient_user_authentication` tells the client to have the user do so.
    pub fn acr<T: Into<String>>(self, classes: impl IntoIterator<Item = T>) -> Self {
        self.rule(Rule::acr(classes))
    }

    /// Asks that the user signed in no longer ago than this: `auth_time` (RFC 9470), in whole seconds.
    pub fn max_auth_age(self, age: Duration) -> Self {
        self.rule(Rule::max_auth_age(age))
    }

    /// Lets requests without a token through, too; a bad token is refused as ever. The handler gets an
    /// `Option<AccessToken>`. What is asked of tokens is asked of those that are there.
    pub fn allow_anonymous(self) -> Self {
        self.with(|config| config.policy = TokenPolicy::Optional)
    }

    /// A bad token counts as none, and requests without one are let through. Dangerous, because nobody learns that his token is bad: he is a
    /// stranger from then on. For pages that only greet whoever is there. While an issuer's keys cannot be had, tokens are
    /// answered 503 all the same; and what is asked of good tokens is asked.
    pub fn danger_ignore_invalid(self) -> Self {
        self.with(|config| config.policy = TokenPolicy::IgnoreInvalid)
    }

    /// Looks for the token in these places, and in no others. A request with tokens in two of them is refused with 400.
    pub fn token_sources(self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        self.with(|config| config.sources = sources.into_iter().collect())
    }

    /// Lets CORS preflights through (`OPTIONS` with `Origin` and `Access-Control-Request-Method`), which browsers send without a
    /// token: for CORS layers inside this one. Better put those outside: anybody can send such a request, and whatever is inside
    /// and takes it for another method lets him in.
    pub fn allow_preflight(self) -> Self {
        self.with(|config| config.passes_preflight = true)
    }

    /// The protection space named in challenges (RFC 9110 §11.5); `api` by default.
    pub fn realm(self, realm: impl Into<String>) -> Self {
        self.with(|config| config.realm = realm.into().into())
    }

    /// Leaves `WWW-Authenticate` out of refusals, against RFC 9110 §11.6.1: for browsers' sakes, say.
    pub fn without_challenge(self) -> Self {
        self.with(|config| config.has_challenge = false)
    }

    /// Refusals get a body, also those of extractors and of handlers that return an [`Error`]: `application/problem+json`
    /// (RFC 9457). The service's response body must come from a `String`.
    pub fn problem_json(self) -> ProtectLayer<ProblemJson> {
        self.answering(ProblemJson)
    }

    /// Refusals get a body, and further headers, by a function of error and request; also those of extractors and of handlers
    /// that return an [`Error`]. A status that the function sets is kept unless it is 2xx, and the challenge is added.
    ///
    /// Tell the client no more than [`Error::oauth_error`] says: it may be the attacker. A layer with a function has a type
    /// that cannot be written; where a function takes it, the bound is
    /// `A: RejectionBody<axum::body::Body> + Send + Sync + 'static`.
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
        ProtectLayer { route: Arc::new(self.route.answering(Arc::new(answer))) }
    }
}

impl<A> Clone for ProtectLayer<A> {
    fn clone(&self) -> Self {
        Self { route: Arc::clone(&self.route) }
    }
}

impl<A> fmt::Debug for ProtectLayer<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProtectLayer")
            .field("verifier", &self.route.verifier)
            .field("rule", &self.route.rule)
            .finish_non_exhaustive()
    }
}

impl<S, A> Layer<S> for ProtectLayer<A> {
    type Service = Protect<S, A>;

    /// Costs the clone of an `Arc`: routers and servers may call it for each request or connection.
    fn layer(&self, inner: S) -> Protect<S, A> {
        Protect::new(inner, Arc::clone(&self.route))
    }
}
