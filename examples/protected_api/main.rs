//! A protected API, with everything it needs: `cargo run --example protected_api`.
//!
//! Given no issuer, it starts one of its own on another loopback port (`embedded_issuer.rs`), so that real tokens from
//! a real Authorization Code + PKCE flow can be had at once. Given one, it protects against that tenant:
//! `cargo run --example protected_api -- --issuer https://TENANT.auth0.com/ --audience https://api.example.com`.

mod embedded_issuer;

use std::error::Error;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use portcullis::{AccessToken, Issuer, ProtectLayer, Scope, Verifier};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use embedded_issuer::EmbeddedIssuer;

/// A demo API behind OAuth 2.0 access tokens. Without --issuer it brings an issuer of its own.
#[derive(Parser)]
struct Arguments {
    /// Address of the API
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:3000")]
    listen: String,
    /// Issuer whose tokens are accepted, exactly as in `iss`; several with commas between
    #[arg(long, env = "ISSUER", value_delimiter = ',')]
    issuer: Vec<String>,
    /// This API's identifier, as in `aud`
    #[arg(long, env = "AUDIENCE", default_value = "https://api.example.com")]
    audience: String,
    /// Address of the key set, in place of discovery (with one issuer)
    #[arg(long, env = "JWKS_URI")]
    jwks_uri: Option<String>,
    /// Lifetime of fetched keys in seconds
    #[arg(long, env = "KEYS_MAX_AGE")]
    keys_max_age: Option<u64>,
    /// Scope that /scoped asks for
    #[arg(long, env = "REQUIRED_SCOPE", default_value = "read:messages")]
    required_scope: Scope,
    /// Address of the embedded issuer
    #[arg(long, env = "ISSUER_LISTEN", default_value = "127.0.0.1:4000")]
    issuer_listen: String,
}

#[tokio::main]
async fn main() {
    // `RUST_LOG=portcullis=debug` tells why a token was refused.
    let levels = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(levels).init();
    if let Err(error) = run(Arguments::parse()).await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let listener = bind(&arguments.listen, "--listen").await?;
    let api = format!("http://{}", listener.local_addr()?);

    let (issuers, embedded) = match arguments.issuer.as_slice() {
        [] => {
            let listener = bind(&arguments.issuer_listen, "--issuer-listen").await?;
            let iss = format!("http://{}/", listener.local_addr()?);
            let issuer = EmbeddedIssuer::new(&iss, &arguments.audience, arguments.required_scope.as_str())?;
            (vec![iss], Some((listener, issuer)))
        }
        issuers => (issuers.to_vec(), None),
    };
    let verifier = Verifier::new(issuers.iter().map(|iss| trust(iss, &arguments)).collect::<Result<Vec<_>, _>>()?)?;
    let (protect, warm) = (ProtectLayer::new(verifier.clone()), verifier.clone());
    let app = Router::new()
        .route("/private", get(private).route_layer(protect.clone()))
        .route("/scoped", get(private).route_layer(protect.scope(arguments.required_scope.clone())))
        .route("/public", get(public))
        .route("/readyz", get(async move || ready(&verifier).await));

    // In the background: the API answers at once, also while an issuer is down; `/readyz` tells when the keys are there.
    tokio::spawn(async move { warm.warm_up().await });
    match embedded {
        None => println!("API on {api}, for tokens of {} with audience {}", issuers.join(", "), arguments.audience),
        Some((listener, issuer)) => {
            print_what_to_type(&api, &issuer, &arguments);
            tokio::spawn(async move { axum::serve(listener, issuer.router()).await });
        }
    }
    axum::serve(listener, app).with_graceful_shutdown(ctrl_c()).await?;
    Ok(())
}

async fn public() -> Json<Value> {
    Json(json!({ "message": "Everybody may read this." }))
}

/// Whether every issuer's keys are at hand, or can be brought now: 200, or 503 with the reasons.
async fn ready(verifier: &Verifier) -> (StatusCode, Json<Value>) {
    let warm = verifier.warm_up().await;
    let issuers = verifier.health();
    let status = if warm.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    let issuers = issuers.iter().map(|issuer| {
        json!({
            "issuer": *issuer.iss,
            "keys": issuer.keys,
            "ignored_keys": issuer.ignored.iter().map(|reason| format!("{reason:?}")).collect::<Vec<_>>(),
            "age_seconds": seconds(issuer.age),
            "next_fetch_seconds": seconds(issuer.next_fetch),
            "fetching": issuer.fetching,
            "stale": issuer.stale,
            "fetches": issuer.fetches,
            "failed_fetches": issuer.failed_fetches,
            "stale_serves": issuer.stale_serves,
            "unknown_kids": issuer.unknown_kids,
            "last_error": issuer.last_error.as_ref().map(|error| error.to_string()),
        })
    });
    (status, Json(json!({ "issuers": issuers.collect::<Vec<_>>() })))
}

async fn private(token: AccessToken) -> Json<Value> {
    let claims: Value = serde_json::from_str(token.raw_claims()).unwrap_or_default();
    Json(json!({ "claims": claims }))
}

fn trust(iss: &str, arguments: &Arguments) -> Result<Issuer, Box<dyn Error>> {
    let mut issuer = Issuer::new(iss, arguments.audience.as_str())?;
    if let Some(uri) = &arguments.jwks_uri {
        if arguments.issuer.len() != 1 {
            return Err(format!("--jwks-uri: expected with one --issuer, {} came", arguments.issuer.len()).into());
        }
        issuer = issuer.jwks_uri(uri)?;
    }
    if let Some(seconds) = arguments.keys_max_age {
        issuer = issuer.keys_max_age(Duration::from_secs(seconds))?;
    }
    Ok(issuer)
}

async fn bind(address: &str, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another with {flag}"))
}

/// Waits for Ctrl-C; then requests under way have two seconds to end.
async fn ctrl_c() {
    // Without signals there is nothing to wait for; the process can still be killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::spawn(async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        std::process::exit(0);
    });
}

fn print_what_to_type(api: &str, issuer: &EmbeddedIssuer, arguments: &Arguments) {
    let (iss, audience, scope) = (issuer.iss(), &arguments.audience, &arguments.required_scope);
    let (id, secret) = embedded_issuer::MACHINE;
    let mut client = "cargo run --example native_client".to_owned();
    for (flag, value, usual) in [
        ("issuer", iss, "http://127.0.0.1:4000/"),
        ("api", api, "http://127.0.0.1:3000"),
        ("audience", audience, "https://api.example.com"),
        ("scope", scope.as_str(), "read:messages"),
    ] {
        if value != usual {
            let dashes = if client.contains(" -- ") { "" } else { " --" };
            client = format!("{client}{dashes} --{flag} '{value}'");
        }
    }
    println!(
        "\
API on {api}, embedded issuer on {iss} (a demo: anybody gets a token)

Get a token, as a machine:

  TOKEN=$(curl -s {iss}oauth/token -d grant_type=client_credentials -d client_id={id} -d client_secret={secret} \\
    --data-urlencode 'audience={audience}' --data-urlencode 'scope={scope}' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')

and call the API:

  curl -i {api}/public
  curl -i {api}/private -H \"Authorization: Bearer $TOKEN\"
  curl -i {api}/scoped -H \"Authorization: Bearer $TOKEN\"

or sign in as a person, with Authorization Code + PKCE, from another terminal:

  {client}

Ctrl-C stops both.
"
    );
}
