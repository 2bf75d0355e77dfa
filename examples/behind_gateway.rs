//! An API that accepts the token of a gateway, which signs users in and adds a header, and a token
//! in a cookie. Browsers send both by themselves, so a rule decides which requests may use them
//! (docs/rules.md, "Cookies and gateways").
//!
//! `cargo run --example behind_gateway` prints a token and a command to try it. `ci/gateway.sh`
//! tests the example with Chromium.

use axum::Router;
use axum::routing::any;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ProtectLayer, TokenSource, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let address = listener.local_addr()?;

    // Stands in for the gateway's signing keys. For real gateways, use
    // `providers::cloudflare_access`, `gcp_iap` or `aws_alb`.
    let gateway = TestIssuer::offline("https://gateway.example/")?;
    let protect = ProtectLayer::new(Verifier::new(gateway.issuer())?);

    // Pages of the API's own origin may use both. Pages of other origins may if configured here.
    let header =
        TokenSource::header("x-gateway-assertion")?.from_origins(["https://partner.test:8443"])?;
    let cookie = TokenSource::cookie("session", ["https://partner.test:8443"])?;
    let app = Router::new()
        .route("/header", any(hello).layer(protect.clone().token_sources([header])))
        .route("/cookie", any(hello).layer(protect.token_sources([cookie])));

    println!("TOKEN={}", gateway.token().subject("alice").build());
    println!("curl -i http://{address}/header -H \"x-gateway-assertion: $TOKEN\"");
    axum::serve(listener, app).await?;
    Ok(())
}

async fn hello(token: AccessToken) -> String {
    format!("hello {}", token.subject().unwrap_or("machine"))
}
