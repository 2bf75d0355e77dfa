//! An axum API that requires a verified access token.
//!
//! Replace the issuer and the audience with those of your tenant, then run
//! `cargo run --example quickstart`. Without a tenant, run the `protected_api` example instead.

use axum::Router;
use axum::routing::get;
use portcullis::{AccessToken, Issuer, ProtectLayer, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
    let protect = ProtectLayer::new(Verifier::new(issuer)?);

    let app = Router::new().route("/orders", get(orders)).route_layer(protect);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!(
        "curl -i http://{}/orders -H \"Authorization: Bearer $TOKEN\"",
        listener.local_addr()?
    );
    axum::serve(listener, app).await?;
    Ok(())
}

async fn orders(token: AccessToken) -> String {
    format!("orders of {}\n", token.subject().unwrap_or("unknown"))
}
