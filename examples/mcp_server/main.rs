//! An MCP server whose tools, resources and prompts have scopes: `cargo run --example mcp_server`,
//! then point an MCP client at the URL that it prints.
//!
//! Without `--issuer`, it starts the embedded issuer of the demo, with which clients register
//! themselves. The part that your own server needs is in `app`; `notes.rs` is an rmcp server like
//! any other.

// The page of the demo uses the rest of the issuer.
#[allow(dead_code)]
#[path = "../protected_api/embedded_issuer.rs"]
pub(crate) mod embedded_issuer;
mod notes;

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, Method, Uri, header};
use axum::response::IntoResponse;
use clap::Parser;
use portcullis::mcp::McpLayer;
use portcullis::{
    Audience, Dpop, EXPOSED_HEADERS, Issuer, ProtectLayer, ResourceMetadata, Rule, Verifier,
};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tower::{Layer as _, Service};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use embedded_issuer::{EmbeddedIssuer, MACHINE};
use notes::Notes;

const EXAMPLES: &str = "\
Tools: whoami (notes:read), write_note (notes:write), admin (notes:read and the role admin).
Resources: notes://{id} (notes:read), drafts://{id} (notes:write). Prompt: summarise (notes:write).

With an authorization server of yours, which issues tokens for the resource http://127.0.0.1:3000/mcp:
  cargo run --example mcp_server -- --issuer https://issuer.example.com/

RUST_LOG=portcullis=debug logs why a request was rejected.";

/// An MCP server behind OAuth 2.0 access tokens. Without --issuer, it starts its own issuer.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// Address of the MCP server
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:3000")]
    listen: String,
    /// What users type into their client: the resource, and the audience of its tokens [default:
    /// http://{listen}/mcp]
    #[arg(long, env = "PUBLIC_URL")]
    public_url: Option<String>,
    /// Issuer whose tokens are accepted, exactly as in `iss` [default: an embedded one]
    #[arg(long, env = "ISSUER")]
    issuer: Option<String>,
    /// Address of the embedded issuer
    #[arg(
        long,
        env = "ISSUER_LISTEN",
        default_value = "127.0.0.1:4000",
        conflicts_with = "issuer"
    )]
    issuer_listen: String,
    /// Serves without the layer, so that its responses can be compared with those behind it.
    /// Anyone may then call everything
    #[arg(long, conflicts_with = "issuer")]
    without_authorization: bool,
}

#[tokio::main]
async fn main() {
    let levels = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    tracing_subscriber::registry().with(tracing_subscriber::fmt::layer()).with(levels).init();
    if let Err(error) = run(Arguments::parse()).await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let listener = bind(&arguments.listen, "--listen").await?;
    let own = format!("http://{}/mcp", listener.local_addr()?);
    let public_url = arguments.public_url.unwrap_or(own);
    if arguments.without_authorization {
        println!("MCP server on {public_url}, without authorization. Ctrl-C stops it.");
        let app = at(&public_url, service(&public_url)?)?;
        axum::serve(listener, app).with_graceful_shutdown(ctrl_c()).await?;
        return Ok(());
    }
    let issuer = match arguments.issuer {
        Some(issuer) => issuer,
        None => {
            let listener = bind(&arguments.issuer_listen, "--issuer-listen").await?;
            let iss = format!("http://{}/", listener.local_addr()?);
            let issuer = EmbeddedIssuer::new(&iss, &[&public_url], "notes:read notes:write", "")?;
            // Web pages on this machine may read its responses, such as the MCP Inspector.
            let local = AllowOrigin::predicate(|origin, _| is_local(origin.as_bytes()));
            let router = issuer.router(local);
            tokio::spawn(async move { axum::serve(listener, router).await });
            print_what_to_type(&public_url, &iss);
            iss
        }
    };
    let app = app(&public_url, &issuer)?;
    println!("MCP server on {public_url}, accepting tokens of {issuer}. Ctrl-C stops it.");
    axum::serve(listener, app).with_graceful_shutdown(ctrl_c()).await?;
    Ok(())
}

// ---- what your own server needs ---------------------------------------------------------------

pub(crate) fn app(url: &str, issuer: &str) -> Result<Router, Box<dyn Error>> {
    // Clients may bind their tokens to a key (DPoP), with proofs up to 5 minutes old (SEP-1932).
    let five_minutes = Duration::from_secs(300);
    let dpop = Dpop::new(url)?.window(five_minutes, five_minutes)?;
    let issuer = Issuer::new(issuer, Audience::resource(url))?;
    let verifier = Verifier::builder(issuer).dpop(dpop).build()?;
    let metadata =
        ResourceMetadata::builder(url, &verifier).scopes(["notes:read"]).name("Notes").build()?;
    let protect = ProtectLayer::new(verifier).scope("notes:read").resource_metadata(&metadata);
    let mcp = McpLayer::new(protect)?
        .tool("write_note", Rule::scope("notes:write"))
        .tool("admin", Rule::role("admin"))
        .resource("drafts://{id}", Rule::scope("notes:write"))
        .prompt("summarise", Rule::scope("notes:write"));

    Ok(at(url, mcp.layer(service(url)?))?.layer(metadata.layer()).layer(cors()))
}

/// A router with the service at the path of the URL.
fn at<S>(url: &str, service: S) -> Result<Router, Box<dyn Error>>
where
    S: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    Ok(match url.parse::<Uri>()?.path() {
        "/" => Router::new().fallback_service(service),
        path => Router::new().nest_service(path, service),
    })
}

type McpService = StreamableHttpService<Notes, LocalSessionManager>;

fn service(url: &str) -> Result<McpService, Box<dyn Error>> {
    // Against DNS rebinding: requests for other hosts, and of pages of other origins.
    let uri: Uri = url.parse()?;
    let host = uri.host().unwrap_or_default();
    let origin = format!(
        "{}://{}",
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", |authority| authority.as_str())
    );
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts([host, "127.0.0.1", "localhost"])
        .with_allowed_origins([&*origin, "http://127.0.0.1:*", "http://localhost:*"]);
    let notes = Notes::default();
    let sessions = Arc::new(LocalSessionManager::default());
    Ok(StreamableHttpService::new(move || Ok(notes.clone()), sessions, config))
}

/// For clients in a browser. Outside of everything else: a preflight has no token.
fn cors() -> CorsLayer {
    let mcp = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            mcp("dpop"),
            mcp("last-event-id"),
            mcp("mcp-method"),
            mcp("mcp-name"),
            mcp("mcp-protocol-version"),
            mcp("mcp-session-id"),
        ])
        .expose_headers([&EXPOSED_HEADERS[..], &[mcp("mcp-session-id")]].concat())
}

// -----------------------------------------------------------------------------------------------

/// Whether an origin is a page on this machine.
fn is_local(origin: &[u8]) -> bool {
    [&b"http://127.0.0.1:"[..], b"http://localhost:"].iter().any(|local| origin.starts_with(local))
}

async fn bind(address: &str, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another with {flag}"))
}

async fn ctrl_c() {
    // Without a signal handler, wait forever; the process can still be killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    // Event streams do not end by themselves.
    std::process::exit(0);
}

fn print_what_to_type(url: &str, iss: &str) {
    let (id, secret) = MACHINE;
    println!(
        "\
Connect an MCP client to {url}, for example the Inspector (Node.js 22):

  npx @modelcontextprotocol/inspector --cli {url} --transport http --method tools/call --tool-name whoami

or call it with curl, as a machine client:

  TOKEN=$(curl -s {iss}oauth/token -d grant_type=client_credentials -d client_id={id} -d client_secret={secret} \\
    --data-urlencode 'resource={url}' --data-urlencode 'scope=notes:read' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')

  curl -i {url} -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\
    -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' \\
    -H 'Mcp-Method: tools/call' -H 'Mcp-Name: whoami' -d '{}'

With `write_note` in place of `whoami`, the answer is 403, and the challenge names the scopes.
",
        notes::call("whoami"),
    );
}
