//! Verified tokens for the tests of handlers.

use std::fmt;
use std::task::{Context, Poll};

use http::Request;
use serde::Serialize;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use super::{TestIssuer, TokenBuilder};
use crate::access_token::AccessToken;
use crate::algorithm::Algorithm;
use crate::middleware::service::Unauthenticated;
use crate::token::audience::Audience;
use crate::verifier::{Verification, Verifier};

/// The issuer, if the claims have no `iss`.
const ISS: &str = "https://issuer.example/";

impl AccessToken {
    /// Creates a verified token with these claims, for the test of a handler. Claims that are not
    /// given are those of a [`TestIssuer`]'s tokens; `null` removes a claim.
    ///
    /// The token was signed with a key generated for it, and then verified, since verification
    /// cannot be skipped. It therefore behaves like any other token. `iss` and `aud` can have any
    /// value.
    ///
    /// ```
    /// use portcullis::AccessToken;
    /// use serde_json::json;
    ///
    /// async fn orders(token: AccessToken) -> String {
    ///     format!("orders of {}", token.subject().unwrap_or("unknown"))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let token = AccessToken::for_tests(json!({ "sub": "alice", "scope": "orders:read" }));
    /// assert_eq!(orders(token).await, "orders of alice");
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if the claims are not a JSON object, or if no verifier would accept them, for example
    /// because they have expired: no handler would ever see such a token.
    #[track_caller]
    pub fn for_tests(claims: impl Serialize) -> Self {
        let claims = match serde_json::to_value(claims) {
            Ok(Value::Object(claims)) => claims,
            Ok(other) => panic!("claims: expected an object, found {other}"),
            Err(error) => panic!("claims: {error}"),
        };
        let iss = claims.get("iss").and_then(Value::as_str).unwrap_or(ISS);
        let issuer = match TestIssuer::offline_with(iss, Algorithm::EdDSA) {
            Ok(issuer) => issuer,
            Err(error) => panic!("{error}"),
        };
        let with = |token: TokenBuilder, (name, value): (&String, &Value)| match value {
            Value::Null => token.without_claim(name),
            value => token.claim(name, value.clone()),
        };
        let token = claims.iter().fold(issuer.token(), with).build();
        let issuer = issuer.issuer().audience(Audience::danger_any_audience());
        let verifier =
            issuer.and_then(|issuer| Verifier::builder(issuer).without_token_cache().build());
        match verifier.map(|verifier| verifier.begin(&token)) {
            Ok(Verification::Ready(Ok(token))) => token,
            Ok(Verification::Ready(Err(error))) => {
                panic!("claims that no verifier accepts: {error}")
            }
            // A verification only waits for keys, and those are available.
            Ok(Verification::Pending(_)) => unreachable!("nothing is fetched"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns a layer that replaces [`ProtectLayer`](crate::ProtectLayer) in the test of a handler or
/// a router: every request gets [`AccessToken::for_tests`] with these claims.
///
/// It does not open a protected route: in front of a `ProtectLayer`, requests still need a token of
/// their own.
///
/// ```
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use portcullis::{AccessToken, testing::authenticated_as};
/// use serde_json::json;
/// use tower::ServiceExt;
///
/// async fn orders(token: AccessToken) -> String {
///     format!("orders of {}", token.subject().unwrap_or("unknown"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app: Router = Router::new()
///     .route("/", get(orders))
///     .layer(authenticated_as(json!({ "sub": "alice" })));
/// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
/// assert_eq!(axum::body::to_bytes(response.into_body(), 100).await?, "orders of alice");
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Panics if [`AccessToken::for_tests`] does.
#[track_caller]
pub fn authenticated_as(claims: impl Serialize) -> AuthenticatedAs {
    AuthenticatedAs { token: AccessToken::for_tests(claims) }
}

/// The layer that [`authenticated_as`] returns.
#[derive(Clone, Debug)]
pub struct AuthenticatedAs {
    token: AccessToken,
}

impl<S> Layer<S> for AuthenticatedAs {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { inner, token: self.token.clone() }
    }
}

/// The service that [`AuthenticatedAs`] wraps around another one.
#[derive(Clone)]
pub struct Authenticated<S> {
    inner: S,
    token: AccessToken,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Authenticated<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().remove::<Unauthenticated>();
        request.extensions_mut().insert(self.token.clone());
        self.inner.call(request)
    }
}

impl<S: fmt::Debug> fmt::Debug for Authenticated<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authenticated").field("inner", &self.inner).finish_non_exhaustive()
    }
}
