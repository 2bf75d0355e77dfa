//! What a route asks for.

use std::fmt::Display;
use std::sync::Arc;

use tower_layer::Layer;

use super::challenge::{Challenges, DEFAULT_REALM};
use super::service::{Protect, Route};
use crate::token::scope::Scope;
use crate::verifier::Verifier;

/// A [`tower_layer::Layer`] that lets a request through only with a verified access token, and puts that
/// [`AccessToken`](crate::AccessToken) into the request's extensions.
///
/// A request that is refused is answered, not failed: see [`Error`](crate::Error) for the table. The body of such an answer
/// is empty (`Default`), whatever type your service's bodies have.
///
/// Layers of the same [`Verifier`] may be nested: the token is verified once, and each layer asks for its own scope.
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
pub struct ProtectLayer {
    verifier: Verifier,
    scope: Scope,
    realm: String,
}

impl ProtectLayer {
    /// Asks for an access token that `verifier` accepts.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, scope: Scope::default(), realm: DEFAULT_REALM.to_owned() }
    }

    /// Asks for these scope tokens too, all of them; several calls add up. A token that does not grant them is refused
    /// with 403 `insufficient_scope` (RFC 6750 §3.1).
    ///
    /// # Panics
    ///
    /// When `scope` is no scope (RFC 6749 §3.3), as a router does for a path that is none: at start-up, at the line that
    /// says it. For a value that is not written in the source, `parse` a [`Scope`] first; that one cannot panic here.
    #[track_caller]
    pub fn scope<S>(mut self, scope: S) -> Self
    where
        S: TryInto<Scope>,
        S::Error: Display,
    {
        match scope.try_into() {
            Ok(scope) => self.scope.extend(&scope),
            Err(error) => panic!("{error}"),
        }
        self
    }

    /// The protection space named in challenges (RFC 9110 §11.5); `api` by default.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }
}

impl<S> Layer<S> for ProtectLayer {
    type Service = Protect<S>;

    fn layer(&self, inner: S) -> Protect<S> {
        let challenges = Challenges::new(&self.realm, &self.scope);
        let route = Route { verifier: self.verifier.clone(), scope: self.scope.clone(), challenges };
        Protect::new(inner, Arc::new(route))
    }
}
