//! What a route asks for.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::request::Parts;
use serde_json::Value;
use tower_layer::Layer;

use super::answer::{AnswerWith, EmptyBody, ProblemJson};
use super::challenge::{Challenges, DEFAULT_REALM};
use super::service::{Policy, Protect, Route};
use crate::access_token::AccessToken;
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
/// [`answer_with`](Self::answer_with) give it another. gRPC requests are refused as gRPC.
///
/// Layers of the same [`Verifier`] may be nested: the token is verified once, and each layer asks for its own.
///
/// ```
/// use axum::{Router, routing::get};
/// use portcullis::{AccessToken, Issuer, ProtectLayer, Verifier};
///
/// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let protect = ProtectLayer::new(Verifier::new(issuer)?);
///
/// let app: Router = Router::new()
///     .route("/orders", get(list_orders).post(place_order).route_layer(protect.clone().scope("orders:write")))
///     .route("/me", get(list_orders))
///     .route_layer(protect); // an unknown path stays 404
///
/// async fn list_orders(token: AccessToken) -> String {
///     format!("orders of {}", token.subject().unwrap_or("nobody"))
/// }
/// # async fn place_order() {}
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ProtectLayer<A = EmptyBody> {
    verifier: Verifier,
    rule: Rule,
    realm: String,
    sources: Vec<TokenSource>,
    policy: Policy,
    passes_preflight: bool,
    has_challenge: bool,
    answer: A,
}

impl ProtectLayer {
    /// Asks for an access token that `verifier` accepts, in `Authorization`; or, where a listed issuer is a gateway
    /// ([`Issuer::cloudflare_access`](crate::Issuer::cloudflare_access), `gcp_iap`, `aws_alb`), in that gateway's header.
    pub fn new(verifier: Verifier) -> Self {
        Self {
            sources: verifier.token_sources(),
            verifier,
            rule: Rule::nothing(),
            realm: DEFAULT_REALM.to_owned(),
            policy: Policy::Required,
            passes_preflight: false,
            has_challenge: true,
            answer: EmptyBody,
        }
    }
}

impl<A> ProtectLayer<A> {
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
        self.require(Rule::scope(scope))
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
        self.require(Rule::any_scope(scopes))
    }

    /// Asks for this permission: [`AccessToken::has_permission`].
    pub fn permission(self, permission: impl Into<Cow<'static, str>>) -> Self {
        self.require(Rule::permission(permission))
    }

    /// Asks for this role: [`AccessToken::has_role`].
    pub fn role(self, role: impl Into<Cow<'static, str>>) -> Self {
        self.require(Rule::role(role))
    }

    /// Asks for this group: [`AccessToken::in_group`].
    pub fn group(self, group: impl Into<Cow<'static, str>>) -> Self {
        self.require(Rule::group(group))
    }

    /// Asks for a claim that passes a test; named as in [`AccessToken::claim`].
    ///
    /// ```
    /// # fn example(protect: portcullis::ProtectLayer) -> portcullis::ProtectLayer {
    /// protect.claim("org_id", |org| org == "org_1")
    /// # }
    /// ```
    pub fn claim(
        self,
        claim: impl Into<Cow<'static, str>>,
        test: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.require(Rule::claim(claim, test))
    }

    /// Asks for whatever none of the others covers, by token and request.
    ///
    /// ```
    /// # fn example(protect: portcullis::ProtectLayer) -> portcullis::ProtectLayer {
    /// protect.rule(|token, request| {
    ///     // As the service sees the path: inside `nest`, without what it is nested under.
    ///     token.subject().is_some_and(|subject| !subject.contains('%') && request.uri.path() == format!("/profiles/{subject}"))
    /// })
    /// # }
    /// ```
    pub fn rule(self, test: impl Fn(&AccessToken, &Parts) -> bool + Send + Sync + 'static) -> Self {
        self.require(Rule::test("a rule of this route", test))
    }

    /// Asks for what a [`Rule`] says.
    pub fn require(mut self, rule: Rule) -> Self {
        self.rule = self.rule.and(rule);
        self
    }

    /// Asks that the user signed in by one of these authentication context classes: `acr` (RFC 9470). If not, 401
    /// `insufficient_user_authentication` tells the client to have the user do so.
    pub fn acr<T: Into<String>>(self, classes: impl IntoIterator<Item = T>) -> Self {
        self.require(Rule::acr(classes))
    }

    /// Asks that the user signed in no longer ago than this: `auth_time` (RFC 9470), in whole seconds.
    pub fn max_auth_age(self, age: Duration) -> Self {
        self.require(Rule::max_auth_age(age))
    }

    /// Lets requests without a token through, too; a bad token is refused as ever. The handler gets an
    /// `Option<AccessToken>`. What is asked of tokens is asked of those that are there.
    pub fn optional(mut self) -> Self {
        self.policy = Policy::Optional;
        self
    }

    /// A bad token counts as none, and requests without one are let through. Dangerous, because nobody learns that his token is bad: he is a
    /// stranger from then on. For pages that only greet whoever is there. While an issuer's keys cannot be had, tokens are
    /// answered 503 all the same; and what is asked of good tokens is asked.
    pub fn danger_ignore_invalid(mut self) -> Self {
        self.policy = Policy::IgnoreInvalid;
        self
    }

    /// Looks for the token in these places, and in no others. A request with tokens in two of them is refused with 400.
    pub fn token_from(mut self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        self.sources = sources.into_iter().collect();
        self
    }

    /// Lets CORS preflights through (`OPTIONS` with `Origin` and `Access-Control-Request-Method`), which browsers send without a
    /// token: for CORS layers inside this one. Better put those outside: anybody can send such a request, and whatever is inside
    /// and takes it for another method lets him in.
    pub fn allow_preflight(mut self) -> Self {
        self.passes_preflight = true;
        self
    }

    /// The protection space named in challenges (RFC 9110 §11.5); `api` by default.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// Leaves `WWW-Authenticate` out of refusals, against RFC 9110 §11.6.1: for browsers' sakes, say.
    pub fn without_challenge(mut self) -> Self {
        self.has_challenge = false;
        self
    }

    /// Refusals get a body: `application/problem+json` (RFC 9457). The service's response body must come from a `String`.
    pub fn problem_json(self) -> ProtectLayer<ProblemJson> {
        self.answering(ProblemJson)
    }

    /// Refusals get a body, and further headers, by a function of error and request. A status other than 200 is taken over, too;
    /// the challenge is added.
    ///
    /// ```
    /// use portcullis::{Issuer, ProtectLayer, Verifier};
    ///
    /// let verifier = Verifier::new(Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?)?;
    /// let protect = ProtectLayer::new(verifier).answer_with(|error, request| {
    ///     axum::response::Response::new(format!("{}: {}", request.uri.path(), error.code()).into())
    /// });
    /// # let app: axum::Router = axum::Router::new().route("/", axum::routing::get(async || "")).route_layer(protect);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn answer_with<R, F>(self, answer: F) -> ProtectLayer<AnswerWith<F>>
    where
        F: Fn(&Error, &Parts) -> Response<R>,
    {
        self.answering(AnswerWith(answer))
    }

    fn answering<B>(self, answer: B) -> ProtectLayer<B> {
        let Self { verifier, rule, realm, sources, policy, passes_preflight, has_challenge, .. } = self;
        ProtectLayer { verifier, rule, realm, sources, policy, passes_preflight, has_challenge, answer }
    }
}

impl<S, A: Clone> Layer<S> for ProtectLayer<A> {
    type Service = Protect<S, A>;

    fn layer(&self, inner: S) -> Protect<S, A> {
        let challenges = Challenges::new(&self.realm, &self.rule.scopes(), &self.rule.step_up());
        let route = Route {
            verifier: self.verifier.clone(),
            rule: self.rule.clone(),
            challenges: if self.has_challenge { challenges } else { challenges.off() },
            sources: self.sources.clone(),
            policy: self.policy,
            passes_preflight: self.passes_preflight,
            answer: self.answer.clone(),
        };
        Protect::new(inner, Arc::new(route))
    }
}
