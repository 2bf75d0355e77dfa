//! Extractors for axum handlers: [`AccessToken`], [`Claims`] and [`DpopProof`].

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::access_token::AccessToken;
use crate::binding::Scheme;
use crate::dpop::accepted::DpopProof;
use crate::error::{Error, InvalidToken};
use crate::middleware::challenge::{ChallengeParameters, Challenges, DEFAULT_REALM};
use crate::middleware::rejection::{EmptyBody, MadeInside, reject};
use crate::middleware::service::Unauthenticated;
use crate::telemetry;

/// The verified claims, deserialized into your own type: an axum extractor behind a
/// [`ProtectLayer`](crate::ProtectLayer).
///
/// If the claims do not fit the type, the request is rejected with 403 and no `error`: the token is
/// valid, but this handler cannot use it, and another token of the same client would not fit
/// either. The log names the missing field.
///
/// ```
/// use portcullis::Claims;
///
/// #[derive(serde::Deserialize)]
/// struct Organization {
///     org_id: String,
/// }
///
/// async fn orders(claims: Claims<Organization>) -> String {
///     format!("orders of {}", claims.org_id)
/// }
/// # let app: axum::Router = axum::Router::new().route("/orders", axum::routing::get(orders));
/// ```
#[derive(Debug)]
pub struct Claims<T>(Arc<T>);

impl<T> Claims<T> {
    /// The claims, shared with the verified token: cheap to clone.
    pub fn into_inner(self) -> Arc<T> {
        self.0
    }
}

impl<T> Clone for Claims<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Claims<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why an extractor rejected a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum AccessTokenRejection {
    /// No [`ProtectLayer`](crate::ProtectLayer) verified this request: the route is missing the
    /// layer. The status is 500, because no client can fix this. The log has a hint.
    NotProtected,
    /// The claims do not fit the requested type: 403. Or the layer lets requests without a token
    /// through, and this handler requires one: 401.
    Rejected(Error),
}

/// For handlers that perform checks themselves, for example with [`AccessToken::require_scope`].
/// Behind a [`ProtectLayer`](crate::ProtectLayer), the layer builds the response: with its realm
/// and body, and without a challenge if it sends none. Elsewhere, the response follows the table of
/// [`Error`], with realm `api` and without a body.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.is_logged_by_layer() {
            telemetry::request_rejected(&self);
        }
        let challenges = Challenges::for_error(
            ChallengeParameters { realm: DEFAULT_REALM, resource_metadata: None, dpop: None },
            &self,
        );
        let mut response = reject(
            self,
            &http::Request::new(()).into_parts().0,
            &challenges,
            Scheme::Bearer,
            &EmptyBody,
            None,
        );
        response.extensions_mut().insert(MadeInside);
        response
    }
}

impl fmt::Display for AccessTokenRejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProtected => formatter.write_str("no `ProtectLayer` verified this request"),
            Self::Rejected(error) => write!(formatter, "{error}"),
        }
    }
}

impl std::error::Error for AccessTokenRejection {}

impl IntoResponse for AccessTokenRejection {
    fn into_response(self) -> Response {
        match self {
            Self::NotProtected => {
                telemetry::not_protected();
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
            Self::Rejected(error) => error.into_response(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for AccessToken {
    type Rejection = AccessTokenRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AccessTokenRejection> {
        parts.extensions.get::<AccessToken>().cloned().ok_or_else(|| not_there(parts))
    }
}

/// Behind [`ProtectLayer::allow_anonymous`](crate::ProtectLayer::allow_anonymous): `None` if the
/// request has no token.
impl<S: Sync> OptionalFromRequestParts<S> for AccessToken {
    type Rejection = AccessTokenRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> Result<Option<Self>, AccessTokenRejection> {
        match (parts.extensions.get::<AccessToken>(), parts.extensions.get::<Unauthenticated>()) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(_)) => Ok(None),
            (None, None) => Err(AccessTokenRejection::NotProtected),
        }
    }
}

/// Behind [`ProtectLayer::allow_anonymous`](crate::ProtectLayer::allow_anonymous): `None` if the
/// request has no token.
impl<S: Sync, T: DeserializeOwned + Send + Sync + 'static> OptionalFromRequestParts<S>
    for Claims<T>
{
    type Rejection = AccessTokenRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, AccessTokenRejection> {
        match parts.extensions.get::<Unauthenticated>() {
            Some(_) => Ok(None),
            None => <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some),
        }
    }
}

/// Why there is no token: the layer let the request through without one, but the handler requires
/// it, or no layer verified the request.
fn not_there(parts: &Parts) -> AccessTokenRejection {
    match parts.extensions.get::<Unauthenticated>() {
        Some(_) => AccessTokenRejection::Rejected(Error::Missing),
        None => AccessTokenRejection::NotProtected,
    }
}

impl<S: Sync, T: DeserializeOwned + Send + Sync + 'static> FromRequestParts<S> for Claims<T> {
    type Rejection = AccessTokenRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AccessTokenRejection> {
        let token = parts.extensions.get::<AccessToken>().ok_or_else(|| not_there(parts))?;
        token.claims().map(Self).map_err(|error| AccessTokenRejection::Rejected(error.into()))
    }
}

/// The proof of the request: that of its token.
impl<S: Sync> FromRequestParts<S> for DpopProof {
    type Rejection = AccessTokenRejection;

    /// A request whose token is not bound to a key is rejected with 401.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AccessTokenRejection> {
        let token = parts.extensions.get::<AccessToken>().ok_or_else(|| not_there(parts))?;
        let not_bound = || {
            let error = InvalidToken::NotBound.into();
            telemetry::token_rejected(&error, Some(token.issuer()), None, None);
            AccessTokenRejection::Rejected(error)
        };
        token.dpop_proof().cloned().ok_or_else(not_bound)
    }
}

/// `None` if the request has no token, or one that is not bound to a key.
impl<S: Sync> OptionalFromRequestParts<S> for DpopProof {
    type Rejection = AccessTokenRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> Result<Option<Self>, AccessTokenRejection> {
        match (parts.extensions.get::<AccessToken>(), parts.extensions.get::<Unauthenticated>()) {
            (Some(token), _) => Ok(token.dpop_proof().cloned()),
            (None, Some(_)) => Ok(None),
            (None, None) => Err(AccessTokenRejection::NotProtected),
        }
    }
}
