//! A complete demo of a protected API: `cargo run --example protected_api`, then open a browser.
//!
//! Without `--issuer`, the demo starts its own issuer on another loopback port
//! (`embedded_issuer.rs`), which issues real tokens in a real Authorization Code + PKCE flow. With
//! `--issuer`, it accepts the tokens of that tenant. Its page (`page.rs`, `page/`) signs in, calls
//! the API, tries to break in, and shows the state of the keys. The part that your own service
//! needs is between the two lines in `run`.

mod embedded_issuer;
mod issuer_port;
mod page;
mod revocation;
mod sender_constrained;

use std::error::Error;
use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use clap::builder::BoolishValueParser;
use portcullis::{
    AccessToken, ClientAuth, EXPOSED_HEADERS, Introspection, Issuer, ProtectLayer,
    ResourceMetadata, Scope, Verifier,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use embedded_issuer::{EmbeddedIssuer, SINGLE_PAGE_APP, opaque_tokens};
use issuer_port::IssuerPort;
use page::Page;
use revocation::Revocation;
use sender_constrained::{Mode, SenderConstrained};

const EXAMPLES: &str = "\
Without flags: an API on http://127.0.0.1:3000 and its own issuer on http://127.0.0.1:4000.
Open http://127.0.0.1:3000 in a browser, or run the commands that the demo prints.

  GET /public    no token required
  GET /private   requires a valid token
  GET /scoped    requires a token with --required-scope
  GET /readyz    whether the issuers' keys are loaded
  GET /.well-known/oauth-protected-resource    the metadata of the API (RFC 9728)
  POST /backchannel-logout    logout tokens, with --logout-audience
  POST /events   security events, with --events-audience

`cargo run --example native_client` signs in at the demo as a native app does. With `-- --dpop`, its
tokens are bound to a key.

As the issuer of your own API:
  Issuer::new(\"http://127.0.0.1:4000/\", \"https://orders.example.com\")
The token request sets the audience, the scope and the claims:
  curl http://127.0.0.1:4000/oauth/token -d grant_type=client_credentials \\
    -d client_id=machine -d client_secret=machine-secret \\
    -d audience=https://orders.example.com -d scope=orders:read \\
    --data-urlencode 'claims={\"org_id\":\"org_1\"}'
With `-d token_format=opaque`, the token is opaque, and the API asks the issuer about it (RFC 7662),
as the client demo-api with the secret demo-api-secret.
Each start creates new keys.

With a tenant of yours:
  cargo run --example protected_api -- --issuer https://TENANT.eu.auth0.com/ \\
    --audience https://api.example.com --client-id CLIENT
In the settings of the single-page app CLIENT, http://127.0.0.1:3000/ must be an allowed callback
URL and http://127.0.0.1:3000 an allowed web origin.

RUST_LOG=portcullis=debug logs why a token was rejected. Each flag can also be set in the
environment.";

/// A demo API behind OAuth 2.0 access tokens, with a page to try it. Without --issuer, it starts
/// its own issuer.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// Address of the API and its page. The browser must use 127.0.0.1: from another machine,
    /// forward both ports
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:3000")]
    listen: String,
    /// Issuer whose tokens are accepted, exactly as in `iss`; separate several with commas
    #[arg(long, env = "ISSUER", value_delimiter = ',')]
    issuer: Vec<String>,
    /// This API's identifier, as in `aud`
    #[arg(long, env = "AUDIENCE", default_value = "https://api.example.com")]
    audience: String,
    /// URL of the key set, instead of discovery (with one issuer)
    #[arg(long, env = "JWKS_URI")]
    jwks_uri: Option<String>,
    /// The page's client identifier at --issuer, to sign in (Authorization Code + PKCE)
    #[arg(long, env = "CLIENT_ID")]
    client_id: Option<String>,
    /// Lifetime of fetched keys in seconds; default: set by the issuer, or 30 with the embedded one
    #[arg(long, env = "KEYS_MAX_AGE", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    keys_max_age: Option<u64>,
    /// Scope that /scoped requires
    #[arg(long, env = "REQUIRED_SCOPE", default_value = "read:messages")]
    required_scope: Scope,
    /// Address of the embedded issuer
    #[arg(
        long,
        env = "ISSUER_LISTEN",
        default_value = "127.0.0.1:4000",
        conflicts_with = "issuer"
    )]
    issuer_listen: String,
    /// Ask --issuer about opaque tokens (RFC 7662). The embedded issuer is always asked about its
    /// own
    #[arg(
        long,
        env = "INTROSPECTION",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true"
    )]
    introspection: bool,
    /// This API's client identifier at --issuer, for --introspection
    #[arg(long, env = "INTROSPECTION_CLIENT_ID")]
    introspection_client_id: Option<String>,
    /// This API's client secret at --issuer, for --introspection
    #[arg(long, env = "INTROSPECTION_CLIENT_SECRET", hide_env_values = true)]
    introspection_client_secret: Option<String>,
    /// How long an answer about a token is used, in seconds; default: 60, or 5 with the embedded
    /// issuer
    #[arg(long, env = "INTROSPECTION_MAX_AGE", value_parser = clap::value_parser!(u64).range(0..=3_600))]
    introspection_max_age: Option<u64>,
    #[command(flatten)]
    sender_constrained: SenderConstrained,
    #[command(flatten)]
    revocation: Revocation,
}

#[tokio::main]
async fn main() {
    // `RUST_LOG=portcullis=debug` logs why a token was rejected.
    let levels = std::env::var("RUST_LOG").ok().map(|levels| levels.parse::<Targets>());
    if let Some(Err(error)) = &levels {
        eprintln!("RUST_LOG: {error}; INFO and above is logged");
    }
    let levels = levels
        .and_then(Result::ok)
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let log = tracing_subscriber::fmt::layer().with_ansi(std::io::stdout().is_terminal());
    tracing_subscriber::registry().with(log).with(levels).init();
    if let Err(error) = run(Arguments::parse()).await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

async fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.client_id.is_some() && arguments.issuer.is_empty() {
        return Err(
            "--client-id: expected with --issuer; the embedded issuer knows this page".into()
        );
    }
    if arguments.jwks_uri.is_some() && arguments.issuer.len() != 1 {
        return Err(format!(
            "--jwks-uri: expected exactly one --issuer, found {}",
            arguments.issuer.len()
        )
        .into());
    }
    let introspection = arguments.introspection()?;
    let listener = bind(&arguments.listen, "--listen").await?;
    let api = origin(listener.local_addr()?)?;
    let page_at = format!("{api}/");

    let (issuers, embedded) = match arguments.issuer.as_slice() {
        [] => {
            let listener = bind(&arguments.issuer_listen, "--issuer-listen").await?;
            let iss = format!("{}/", origin(listener.local_addr()?)?);
            let scope = arguments.required_scope.as_str();
            let audiences = [&*arguments.audience, &api, &page_at];
            let issuer = EmbeddedIssuer::new(&iss, &audiences, scope, &page_at)?;
            issuer.notify(arguments.revocation.receive_from_embedded(&api));
            let page = AllowOrigin::exact(HeaderValue::from_str(&api)?);
            let port = IssuerPort::serve(listener, issuer.router(page))?;
            (vec![iss], Some((issuer, port)))
        }
        issuers => (issuers.to_vec(), None),
    };

    // ---- what your own service needs ------------------------------------------------------------
    let mut verifier = Verifier::builder(
        issuers
            .iter()
            .map(|iss| trust(iss, &api, &arguments, introspection.as_ref()))
            .collect::<Result<Vec<_>, _>>()?,
    );
    let store = arguments.sender_constrained.store()?;
    if let Some(dpop) = arguments.sender_constrained.dpop(&api, store.as_ref())? {
        verifier = verifier.dpop(dpop);
    }
    if let Some(certificates) = arguments.sender_constrained.certificates()? {
        verifier = verifier.client_certificates(certificates);
    }
    // Tokens that are rejected before they expire, because their issuer has said so.
    let revocations = arguments.revocation.revocations(store.as_ref())?;
    match &revocations {
        Some(revocations) => verifier = verifier.revocations(revocations),
        None if store.is_some() && arguments.sender_constrained.dpop == Mode::Off => {
            return Err("--redis-url: expected without --dpop off".into());
        }
        None => {}
    }
    let verifier = verifier.build()?;
    // Where a client without configuration finds out which issuer has tokens for this API.
    let metadata = ResourceMetadata::builder(&api, &verifier)
        .scopes([arguments.required_scope.clone()])
        .name("Demo of portcullis")
        .build()?;
    let protect = ProtectLayer::new(verifier.clone()).resource_metadata(&metadata);
    let api_routes = Router::new()
        .route("/private", get(private).route_layer(protect.clone()))
        .route("/scoped", get(private).route_layer(protect.scope(arguments.required_scope.clone())))
        .route("/public", get(public))
        // CORS goes outside the `ProtectLayer`, because a browser's preflight has no token. Any
        // page may call with a token and without cookies, and may read why the request was
        // rejected, and the nonce for the next DPoP proof.
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods([Method::GET])
                .allow_headers([AUTHORIZATION, HeaderName::from_static("dpop")])
                .expose_headers(EXPOSED_HEADERS),
        );
    // Only issuers send these requests, so pages of other origins may not.
    let receivers = match &revocations {
        Some(revocations) => arguments.revocation.router(&verifier, revocations),
        None => Router::new(),
    };
    // ---------------------------------------------------------------------------------------------

    let page = Page {
        config: json!({
            "api": api,
            "issuer": issuers.first(),
            "audience": arguments.audience,
            "scope": arguments.required_scope.as_str(),
            "client_id": if embedded.is_some() { Some(SINGLE_PAGE_APP) } else { arguments.client_id.as_deref() },
            "redirect_uri": page_at,
            "embedded": embedded.is_some(),
            "dpop": arguments.sender_constrained.dpop.name(),
            "public_url": arguments.sender_constrained.public_url(&api),
        }),
        origin: api.clone(),
        issuers: issuers.clone(),
        token_endpoint: OnceLock::new(),
        verifier: verifier.clone(),
        embedded: embedded.clone(),
    };
    let (probed, warm) = (verifier.clone(), verifier);
    let app = api_routes
        .layer(middleware::map_response(tell_reason))
        .route("/readyz", get(async move || ready(&probed).await))
        .merge(receivers)
        .merge(page.router())
        .layer(metadata.layer());

    // In the background, so that the API serves at once, even while an issuer is down. `/readyz`
    // reports when the keys are loaded.
    tokio::spawn(async move { warm.warm_up().await });
    match &embedded {
        None => print_tenant(&api, &issuers, &arguments),
        Some((issuer, _)) => print_what_to_type(&api, issuer, &arguments),
    }
    // With the address of each peer, for `CLIENT_CERTIFICATE`.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(ctrl_c()).await?;
    if let Some((_, port)) = embedded {
        port.close().await;
    }
    Ok(())
}

async fn public() -> Json<Value> {
    Json(json!({ "message": "This route is public." }))
}

/// Returns 200 if every issuer's keys are cached or can be fetched now, otherwise 503 with the
/// reasons. Until what is revoked has been read once from a Redis, the API is not ready either.
async fn ready(verifier: &Verifier) -> (StatusCode, Json<Value>) {
    // Without a limit, a probe would wait as long as Redis is down.
    let warm = tokio::time::timeout(Duration::from_secs(8), verifier.warm_up()).await;
    let is_ready = warm.is_ok_and(|warm| warm.is_ok());
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(page::health(verifier)))
}

async fn private(token: AccessToken) -> Json<Value> {
    let claims: Value = serde_json::from_str(token.raw_claims()).unwrap_or_default();
    Json(json!({ "claims": claims }))
}

/// Tells the page which check rejected the request. Only a demo does this: a real API writes the
/// reason to its log, because the client may be an attacker.
async fn tell_reason(mut response: Response) -> Response {
    if let Some(code) =
        response.extensions().get::<portcullis::Error>().map(portcullis::Error::code)
    {
        response.headers_mut().insert("x-demo-reason", HeaderValue::from_static(code));
    }
    response
}

/// The origin of `address` for a browser on this machine: loopback in place of an unspecified
/// address, and without the default port.
fn origin(mut address: SocketAddr) -> Result<String, Box<dyn Error>> {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(reqwest::Url::parse(&format!("http://{address}"))?.origin().ascii_serialization())
}

/// Tokens are for the audience of the flag, or for the URL of this API: a client that reads the
/// metadata requests a token for that URL.
fn trust(
    iss: &str,
    api: &str,
    arguments: &Arguments,
    introspection: Option<&Introspection>,
) -> Result<Issuer, Box<dyn Error>> {
    let audience = [arguments.audience.as_str(), api, &format!("{api}/")];
    let mut issuer = Issuer::new(iss, audience)?;
    if let Some(uri) = &arguments.jwks_uri {
        issuer = issuer.jwks_uri(uri)?;
    }
    // The default is between a minute and an hour. The demo uses a short lifetime, so that the page
    // shows keys being fetched and becoming stale.
    let to_watch = arguments.issuer.is_empty().then_some(30);
    if let Some(seconds) = arguments.keys_max_age.or(to_watch) {
        issuer = issuer.keys_max_age(Duration::from_secs(seconds))?;
    }
    if let Some(introspection) = introspection {
        issuer = issuer.introspection(introspection.clone());
    }
    Ok(issuer)
}

impl Arguments {
    /// How the issuer is asked about opaque tokens.
    fn introspection(&self) -> Result<Option<Introspection>, Box<dyn Error>> {
        let credentials = (&self.introspection_client_id, &self.introspection_client_secret);
        let (introspection, seconds) = match (self.issuer.len(), self.introspection, credentials) {
            (0, _, (None, None)) => {
                let (id, secret) = opaque_tokens::API_CLIENT;
                let auth = ClientAuth::client_secret(id, secret);
                // Opaque tokens of other issuers are not sent to this one. The lifetime is short,
                // so that the page shows a revocation.
                (Introspection::new(auth).prefix(opaque_tokens::PREFIX), 5)
            }
            (1, true, (Some(id), Some(secret))) => {
                (Introspection::new(ClientAuth::client_secret(id, secret)), 60)
            }
            (_, false, (None, None)) => return Ok(None),
            (0, ..) => return Err("--introspection-client-id: expected with --issuer; the embedded issuer knows this API".into()),
            (_, true, (None, _) | (_, None)) => return Err("--introspection: expected --introspection-client-id and --introspection-client-secret".into()),
            (found, true, _) => return Err(format!("--introspection: expected one --issuer, found {found}").into()),
            (_, false, _) => return Err("--introspection-client-id: expected with --introspection".into()),
        };
        let seconds = self.introspection_max_age.unwrap_or(seconds);
        Ok(Some(introspection.cache_for(Duration::from_secs(seconds))?))
    }
}

async fn bind(address: &str, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another with {flag}"))
}

/// Waits for Ctrl-C. Requests in flight then have two seconds to complete.
async fn ctrl_c() {
    // Without a signal handler, wait forever; the process can still be killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::spawn(async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        std::process::exit(0);
    });
}

fn print_tenant(api: &str, issuers: &[String], arguments: &Arguments) {
    println!(
        "API on {api}, accepting tokens of {} for audience {}",
        issuers.join(", "),
        arguments.audience
    );
    println!("\nOpen {api} in a browser, or call it with your own token:\n");
    println!("  curl -i {api}/private -H \"Authorization: Bearer $TOKEN\"\n\nCtrl-C stops it.\n");
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
    let dashes = if client.contains(" -- ") { "" } else { " --" };
    let bound = format!("{client}{dashes} --dpop");
    let sign_in = match arguments.sender_constrained.dpop {
        Mode::Off => client,
        Mode::Accept => {
            format!("{client}\n\nor with tokens that are bound to a key (DPoP):\n\n  {bound}")
        }
        Mode::Require => format!(
            "{bound}\n\nThe API requires tokens that are bound to a key. It rejects the token of the machine client."
        ),
    };
    println!(
        "\
API on {api}, embedded issuer on {iss} (a demo: anyone can get a token)

Open {api} in a browser, or get a token as a machine client:

  TOKEN=$(curl -s {iss}oauth/token -d grant_type=client_credentials -d client_id={id} -d client_secret={secret} \\
    --data-urlencode 'audience={audience}' --data-urlencode 'scope={scope}' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')

and call the API:

  curl -i {api}/public
  curl -i {api}/private -H \"Authorization: Bearer $TOKEN\"
  curl -i {api}/scoped -H \"Authorization: Bearer $TOKEN\"

or sign in as a user, with Authorization Code + PKCE, from another terminal:

  {sign_in}

To use it as the issuer of your own API, set the audience, the scope and the claims:

  curl -s {iss}oauth/token -d grant_type=client_credentials -d client_id={id} \\
    -d client_secret={secret} -d audience=https://orders.example.com -d scope=orders:read \\
    --data-urlencode 'claims={{\"org_id\":\"org_1\"}}'

Ctrl-C stops both.
"
    );
}
