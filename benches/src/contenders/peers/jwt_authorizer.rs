//! jwt-authorizer 0.15.0 (jsonwebtoken 9, ring), by OpenID Connect discovery. It fetches the keys at the first request.
//!
//! Its extractor and its refusals are those of axum 0.7; so its layer wraps the route alone, the handler finds the claims
//! where that extractor looks for them, and [`Answer`] carries its refusals over.

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use jsonwebtoken_9::TokenData;
use jwt_authorizer::{
    AuthError, Authorizer, IntoLayer, JwtAuthorizer, RegisteredClaims, Validation,
};
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;
use tower::Layer;
use tower::util::MapResponseLayer;

use super::Failure;

struct Answer(Response);

pub async fn router(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Option<Router>, Failure> {
    let Ok(algorithm) = algorithm.name().parse() else { return Ok(None) };
    let validation = Validation::new().iss(&[issuer.iss()]).aud(&[audience]).algs(vec![algorithm]);
    // Its validation lets a token without `iss` or `aud` pass, its documented claims checker does not.
    let authorizer: Authorizer = JwtAuthorizer::from_oidc(issuer.iss())
        .validation(validation)
        .check(|claims: &RegisteredClaims| claims.iss.is_some() && claims.aud.is_some())
        .build()
        .await?;
    let subject = async |Extension(token): Extension<TokenData<RegisteredClaims>>| {
        token.claims.sub.unwrap_or_default()
    };
    let handler: MethodRouter = get(subject);
    let protected = (authorizer.into_layer(), MapResponseLayer::new(Answer)).layer(handler);
    Ok(Some(Router::new().route_service("/", protected)))
}

impl From<AuthError> for Answer {
    fn from(error: AuthError) -> Self {
        Self(axum_07::response::Response::from(error).map(Body::new))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        self.0
    }
}
