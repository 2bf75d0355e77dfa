//! Extractors for axum handlers: [`AccessToken`] itself, and [`Claims`].

use std::ops::Deref;
use std::sync::Arc;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::access_token::AccessToken;
use crate::error::{Error, InvalidToken};
use crate::events;
use crate::http::challenge::{Challenges, DEFAULT_REALM};
use crate::token::scope::Scope;

/// The verified claims, as your own type: an axum extractor behind a [`ProtectLayer`](crate::ProtectLayer).
///
/// Claims that do not fit the type are answered 401 `invalid_token`: the token is genuine, but not one this handler can
/// work with.
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
pub struct Claims<T>(pub Arc<T>);

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

/// Why an extractor refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// No [`ProtectLayer`](crate::ProtectLayer) verified this request: the route is wired wrongly. Answered 500, because
    /// no client can mend it; the log has a hint.
    NotProtected,
    /// The claims do not fit the type asked for. Answered 401 `invalid_token`.
    Refused(Error),
}

/// For handlers that check for themselves, with [`AccessToken::require_scope`] say: status and challenge by the table of
/// [`Error`], in the realm `api`.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let required = match &self {
            Self::InsufficientScope { required, .. } => required.clone(),
            _ => Scope::default(),
        };
        Challenges::new(DEFAULT_REALM, &required).response(self)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            Self::NotProtected => {
                events::not_protected();
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
            Self::Refused(error) => error.into_response(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for AccessToken {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        parts.extensions.get::<AccessToken>().cloned().ok_or(Rejection::NotProtected)
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Claims<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let token = parts.extensions.get::<AccessToken>().ok_or(Rejection::NotProtected)?;
        token.claims().map(Self).map_err(|error| {
            let error = InvalidToken::from(error).into();
            events::token_refused(&error, Some(token.issuer()), None, None);
            Rejection::Refused(error)
        })
    }
}
