//! oauth-resource-server 0.4.1 (jsonwebtoken 9, ring), with discovery and background refresh.
//! Accepts only `at+jwt`, as it recommends if no scope is required.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use oauth_resource_server::axum::AuthLayer;
use oauth_resource_server::{
    AuthorizedToken, KeyNaming, OAuthConfig, OAuthValidator, parse_algorithm, static_token_policy,
};
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;

use super::Failure;

pub async fn router(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Option<Router>, Failure> {
    if parse_algorithm(algorithm.name()).is_err() {
        return Ok(None);
    }
    let config = OAuthConfig {
        enabled: true,
        issuer: issuer.iss().to_owned(),
        audience: audience.to_owned(),
        resource: "https://api.example.com/".to_owned(),
        algorithms: vec![algorithm.name().to_owned()],
        require_at_jwt: true,
        ..OAuthConfig::default()
    };
    let config =
        config.resolve(KeyNaming::Dotted("oauth"))?.ok_or("oauth-resource-server is off")?;
    let validator = Arc::new(OAuthValidator::new(&config)?);
    validator.spawn_background_refresh();
    validator.refresh_now().await?;
    let decision = static_token_policy(None, Some(&config), false)?;
    let layer = AuthLayer::from_decision(decision, Some(validator))?;
    let subject = async |token: AuthorizedToken| token.subject.unwrap_or_default();
    Ok(Some(Router::new().route("/", get(subject)).route_layer(layer)))
}
