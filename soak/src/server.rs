//! The server under test: an API with every kind of credential that portcullis accepts. Settings
//! are the defaults, except where a comment says why.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use portcullis::mcp::McpLayer;
use portcullis::testing::AUDIENCE;
use portcullis::{
    AccessToken, ApiKey, ApiKeys, BackChannelLogout, ClientAuth, Dpop, Introspection, Issuer,
    Issuers, ProtectLayer, RedisStore, Revocations, Rule, SecurityEvents, StatusLists, Verifier,
};
use redis::aio::ConnectionManagerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;
use tower::Layer as _;
use tracing_subscriber::EnvFilter;

use crate::Failure;
use crate::plant::Plant;
use crate::stats::Counters;

/// What `keep_for` is set to: twice the lifetime of the tokens of the load.
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(600);
/// The client that logout tokens are for.
pub(crate) const WEB_SHOP: &str = "web-shop";
/// The receiver that security events are for, and the header that its sender authenticates with.
pub(crate) const EVENTS: &str = "https://api.example.com/events";
pub(crate) const EVENTS_SECRET: &str = "Bearer secret-of-the-stream";
/// Contains `Error::code()` of a rejection, for the judge.
pub(crate) const REASON: &str = "x-soak-reason";

pub(crate) async fn run() -> Result<(), Failure> {
    let filter = EnvFilter::try_new("info")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let counters = Counters::install()?;

    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).await?;
    let config: Value = serde_json::from_str(&line)?;
    let text = |name: &str| -> Result<&str, Failure> {
        config[name].as_str().ok_or_else(|| format!("{name}: expected text").into())
    };
    let plant: Plant = text("plant")?.parse()?;

    let (revocations, store) = shared(text("redis")?)?;
    let verifier = Verifier::builder(issuers(&config)?)
        .revocations(&revocations)
        .dpop(Dpop::new(AUDIENCE)?.share_replays(store))
        .api_keys(api_keys(&config)?)
        // A cached token stays in memory until another one needs its slot. With the default of
        // 10,000 tokens, the table of opaque tokens would fill for half an hour, and a leak could
        // not be told from it. The tokens in constant use are fewer.
        .token_cache_capacity(500)
        .build()?;
    let app = routes(&verifier, &revocations, counters)?;
    let app = app
        .layer(axum::middleware::from_fn(move |request, next| with_reason(request, next, plant)));
    verifier.warm_up().await?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        // The load has ended.
        _ = input.read_u8() => {}
    }
    Ok(())
}

fn issuers(config: &Value) -> Result<Issuers, Failure> {
    let list = |name: &str| -> Vec<String> {
        let members = config[name].as_array().into_iter().flatten();
        members.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let tenants: HashSet<String> = list("tenants").into_iter().collect();
    let configured = list("configured");
    let configured = configured.iter().enumerate().map(|(number, iss)| {
        let issuer = Issuer::new(iss, AUDIENCE)?.status_lists(StatusLists::new());
        // Only one of several issuers may be asked about opaque tokens without a prefix.
        Ok(match number {
            0 => issuer.introspection(Introspection::new(ClientAuth::client_secret("api", "x"))),
            _ => issuer,
        })
    });
    let configured: Vec<_> = configured.collect::<Result<_, portcullis::ConfigError>>()?;
    let issuers = Issuers::lookup(move |iss| {
        tenants.get(iss).map(|tenant| Issuer::new(tenant, AUDIENCE)).transpose()
    });
    // The tenants' issuers are on loopback.
    let issuers = issuers.danger_allow_private_addresses();
    // `max_cached` stays at 1,024 although there are more tenants: they are to evict each other.
    Ok(issuers.with_issuers(configured)?)
}

type Store = RedisStore<redis::aio::ConnectionManager>;

fn shared(url: &str) -> Result<(Revocations, Store), Failure> {
    // As in docs/revocation.md.
    let config = ConnectionManagerConfig::new()
        .set_max_delay(Duration::from_millis(500))
        .set_number_of_retries(usize::MAX);
    let connection = redis::Client::open(url)?.get_connection_manager_lazy(config)?;
    let store = RedisStore::new(connection, "soak")?;
    Ok((Revocations::shared(store.clone()).keep_for(LONGEST_LIFETIME)?, store))
}

fn api_keys(config: &Value) -> Result<ApiKeys, Failure> {
    let mut keys = Vec::new();
    for (number, hash) in config["api_keys"].as_array().into_iter().flatten().enumerate() {
        let hash = hash.as_str().unwrap_or_default().parse()?;
        let key = ApiKey::new(format!("machine-{number}"), hash);
        keys.push(key.scope("orders:read sessions:end".parse()?));
    }
    Ok(ApiKeys::new("https://keys.example.com", keys)?)
}

fn routes(
    verifier: &Verifier,
    revocations: &Revocations,
    counters: Counters,
) -> Result<Router, Failure> {
    let protect = ProtectLayer::new(verifier.clone());
    let logout = BackChannelLogout::new(verifier, revocations, [WEB_SHOP]);
    let events = SecurityEvents::new(verifier, revocations, EVENTS).authorization(EVENTS_SECRET);
    let mcp = McpLayer::new(protect.clone().scope("orders:read"))?
        .tool("write_note", Rule::scope("notes:write"));
    let reply = post(async || Json(json!({ "jsonrpc": "2.0", "id": 1, "result": {} })));
    let revoke = Router::new()
        .route("/revoke/{what}/{iss}/{name}", post(revoke))
        .route_layer(protect.clone().scope("sessions:end"))
        .with_state(revocations.clone());
    Ok(Router::new()
        .route("/orders", get(orders))
        .route_layer(protect.scope("orders:read"))
        .merge(revoke)
        .route_service("/mcp", mcp.layer(reply))
        .route_service("/backchannel-logout", logout)
        .route_service("/events", events)
        .route("/stats", get(async move || Json(counters.to_json()))))
}

async fn orders(token: AccessToken) -> String {
    format!("orders of {}\n", token.subject().unwrap_or("unknown"))
}

async fn revoke(
    State(revocations): State<Revocations>,
    Path((what, iss, name)): Path<(String, String, String)>,
) -> Result<StatusCode, impl IntoResponse> {
    let done = match &*what {
        "subject" => revocations.subject(&iss, &name).await,
        _ => {
            let until = std::time::SystemTime::now() + LONGEST_LIFETIME / 2;
            revocations.token(&iss, &name, until).await
        }
    };
    let unavailable = |_| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "5")]);
    done.map(|()| StatusCode::NO_CONTENT).map_err(unavailable)
}

async fn with_reason(request: Request, next: Next, plant: Plant) -> Response {
    if let Some(code) = plant.instead(request.headers().contains_key("dpop")) {
        let headers = [("retry-after", "1"), (REASON, code)];
        return (StatusCode::SERVICE_UNAVAILABLE, headers).into_response();
    }
    let mut response = next.run(request).await;
    let code = response.extensions().get::<portcullis::Error>().map(portcullis::Error::code);
    if let Some(code) = code {
        response.headers_mut().insert(REASON, HeaderValue::from_static(code));
    }
    *response.status_mut() = plant.act(response.status(), code).await;
    response
}
