//! An axum API whose users make API keys for their machines, beside the access tokens of users.
//!
//! `cargo run --example api_keys`, and `cargo run --example api_keys -- generate acme_live` makes a
//! key for a list.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, RwLock};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use portcullis::testing::TestIssuer;
use portcullis::{
    AccessToken, ApiKey, ApiKeys, ProtectLayer, Rule, TokenKind, TokenSource, Verifier,
};
use serde_json::{Value, json};

/// Stands in for a table of a database: the owner and the hash of each key, by its identifier.
#[derive(Clone, Default)]
struct KeyTable(Arc<RwLock<HashMap<String, Row>>>);

#[derive(Clone)]
struct Row {
    owner: String,
    hash: String,
}

impl KeyTable {
    fn insert(&self, id: &str, row: Row) {
        if let Ok(mut rows) = self.0.write() {
            rows.insert(id.to_owned(), row);
        }
    }

    async fn find(&self, id: &str) -> io::Result<Option<Row>> {
        let rows = self.0.read().map_err(|_| io::Error::other("the table is not available"))?;
        Ok(rows.get(id).cloned())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt::init();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [command, prefix] = arguments.as_slice()
        && command == "generate"
    {
        let generated = ApiKey::generate(prefix)?;
        println!("key, for its owner:    {}", generated.expose_key());
        println!("hash, to be stored:    {}", generated.hash());
        return Ok(());
    }
    let table = KeyTable::default();

    // Stands in for your issuer, whose tokens users have.
    let issuer = TestIssuer::start()?;

    let rows = table.clone();
    let keys = ApiKeys::lookup("https://api.example.com", "demo_key", move |id: String| {
        let rows = rows.clone();
        async move {
            // `None`: there is no such key, 401. An error: 503, and an event in the log.
            let Some(row) = rows.find(&id).await? else { return Ok(None) };
            let key = ApiKey::new(row.owner, row.hash.parse()?).scope("orders:read".parse()?);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Some(key))
        }
    })?;
    let verifier = Verifier::builder(issuer.issuer()).api_keys(keys).build()?;
    let protect = ProtectLayer::new(verifier).token_sources([
        TokenSource::authorization(),
        // For clients that cannot send `Authorization: Bearer`.
        TokenSource::api_key_header("x-api-key")?,
    ]);

    // A key must not make further keys: a stolen one would otherwise give access for good.
    let no_key = Rule::custom("an access token, not an API key", |token, _| {
        token.kind() != TokenKind::ApiKey
    });
    let app = Router::new()
        .route("/orders", get(orders).route_layer(protect.clone().scope("orders:read")))
        .route("/keys", post(make_key).route_layer(protect.rule(no_key)))
        .with_state(table);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3002").await?;
    let token = issuer.token().subject("alice").scope("orders:read").build();
    println!("TOKEN={token}");
    println!("As a user, make a key:");
    println!(
        "  KEY=$(curl -s -X POST http://127.0.0.1:3002/keys -H \"Authorization: Bearer $TOKEN\" | sed 's/.*\"key\":\"\\([^\"]*\\)\".*/\\1/')"
    );
    println!("As a machine, use it:");
    println!("  curl -i http://127.0.0.1:3002/orders -H \"X-Api-Key: $KEY\"");
    axum::serve(listener, app).await?;
    Ok(())
}

/// The same for users and machines.
async fn orders(token: AccessToken) -> String {
    format!("orders of {}\n", token.subject().unwrap_or("unknown"))
}

/// Returns a new key, which is not stored and cannot be shown again.
async fn make_key(
    State(table): State<KeyTable>,
    token: AccessToken,
) -> Result<Json<Value>, StatusCode> {
    let owner = token.subject().ok_or(StatusCode::FORBIDDEN)?.to_owned();
    let generated = ApiKey::generate("demo_key").map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let (id, hash) = (generated.hash().id(), generated.hash().to_string());
    table.insert(id, Row { owner, hash });
    Ok(Json(json!({ "key": generated.expose_key(), "id": id })))
}
