//! tower-oauth2-resource-server 0.12.5 (jsonwebtoken 11, backend by
//! [`choose_backend`](super::choose_backend)), with OpenID Connect discovery.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::http::header::AUTHORIZATION;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;
use tower::ServiceExt;
use tower_oauth2_resource_server::claims::DefaultClaims;
use tower_oauth2_resource_server::server::OAuth2ResourceServer;
use tower_oauth2_resource_server::tenant::TenantConfiguration;

use super::Failure;

pub async fn router(
    issuer: &TestIssuer,
    audience: &str,
    algorithm: Algorithm,
) -> Result<Option<Router>, Failure> {
    let Ok(algorithm) = algorithm.name().parse() else { return Ok(None) };
    let tenant = TenantConfiguration::builder(issuer.iss())
        .audiences(&[audience])
        .allowed_algorithms(&[algorithm])
        .build()
        .await?;
    let server = <OAuth2ResourceServer>::builder().add_tenant(tenant).build().await?;
    let subject =
        async |Extension(claims): Extension<DefaultClaims>| claims.sub.unwrap_or_default();
    let app = Router::new().route("/", get(subject)).route_layer(server.into_layer());
    until_keys_are_loaded(&app, &issuer.token().audience(audience).build()).await?;
    Ok(Some(app))
}

/// Waits until its background task has fetched the keys, which only a verified token shows.
async fn until_keys_are_loaded(app: &Router, token: &str) -> Result<(), Failure> {
    for _ in 0..500 {
        let request = Request::get("/")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())?;
        if app.clone().oneshot(request).await?.status() == StatusCode::OK {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("tower-oauth2-resource-server loaded no keys within 5 seconds".into())
}
