//! jwt-authorizer 0.15.0 (jsonwebtoken 9, ring), with OpenID Connect discovery. Fetches the keys on
//! the first request.
//!
//! Its extractor and its rejections are for axum 0.7. So its layer wraps only the route, the
//! handler reads the claims from the extension that the extractor uses, and [`Answer`] converts its
//! rejections.

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
    // Its validation accepts a token without `iss` or `aud`; its documented claims checker rejects
    // it.
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
