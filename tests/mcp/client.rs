//! The example `mcp_server` with a real client: rmcp discovers the issuer, registers, signs in with
//! PKCE, calls a tool, and signs in again for more.

use std::error::Error;

use portcullis::testing::assert_discoverable;
use rmcp::model::{CallToolRequestParams, ReadResourceRequestParams};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{AuthClient, AuthorizationRequest, OAuthState};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, ServiceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_http::cors::AllowOrigin;

// `main` is not called here.
#[allow(dead_code)]
#[path = "../../examples/mcp_server/main.rs"]
mod mcp_server;

use mcp_server::embedded_issuer::EmbeddedIssuer;

const CALLBACK: &str = "http://127.0.0.1:8976/callback";

type Client = RunningService<RoleClient, ()>;

/// Starts the example on loopback ports. Returns the URL of the MCP server.
async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let at = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let iss = format!("http://{}/", at.local_addr().unwrap());
    let issuer = EmbeddedIssuer::new(&iss, &[&url], "notes:read", "").unwrap();
    let router = issuer.router(AllowOrigin::predicate(|_, _| false));
    tokio::spawn(async move { axum::serve(at, router).await });
    let app = mcp_server::app(&url, &iss).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// Follows the authorization URL as a user does who allows everything. Returns the callback URL,
/// and the scope that the client requested.
async fn browser(authorization_url: &str) -> (String, String) {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = http.build().unwrap();
    let url = reqwest::Url::parse(authorization_url).unwrap();
    let scope = url.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned();
    let page = http.get(url.clone()).send().await.unwrap();
    assert_eq!(page.status(), 200, "{authorization_url}");
    let page = page.text().await.unwrap();
    let request = page.split("name=request value=").nth(1).unwrap().split('>').next().unwrap();
    let form = [("request", request), ("decision", "allow")];
    let allowed = http.post(url.join("/authorize").unwrap()).form(&form).send().await.unwrap();
    (allowed.headers()["location"].to_str().unwrap().to_owned(), scope)
}

/// Connects with the token of a sign-in that the challenge asks for. Returns the scope of the
/// authorization request.
async fn sign_in(url: &str, challenge: &str) -> (Client, String) {
    let mut state = OAuthState::new(url, None).await.unwrap();
    let request = AuthorizationRequest::new(CALLBACK).with_challenge(challenge);
    state.start_authorization(request).await.unwrap();
    let (callback, scope) = browser(&state.get_authorization_url().await.unwrap()).await;
    state.handle_callback_url(&callback).await.unwrap();
    let manager = state.into_authorization_manager().unwrap();
    let config = StreamableHttpClientTransportConfig::with_uri(url);
    let transport = StreamableHttpClientTransport::with_client(
        AuthClient::new(reqwest::Client::default(), manager),
        config,
    );
    (().serve(transport).await.unwrap(), scope)
}

async fn call(client: &Client, tool: &'static str, arguments: Value) -> Result<String, String> {
    let mut request = CallToolRequestParams::new(tool);
    request.arguments = arguments.as_object().cloned();
    match client.call_tool(request).await {
        Ok(result) => Ok(result.content[0].as_text().unwrap().text.clone()),
        Err(error) => Err(match error.auth_challenge() {
            Some(challenge) => challenge.to_owned(),
            // A 403 without `error` is not an invitation to sign in again.
            None => {
                let mut text = error.to_string();
                let mut source = error.source();
                while let Some(cause) = source {
                    text += &format!(": {cause}");
                    source = cause.source();
                }
                text
            }
        }),
    }
}

#[tokio::test]
async fn a_client_signs_in_and_signs_in_again_for_more() {
    let url = start().await;
    // Without a token, the challenge says where and for what.
    let transport = StreamableHttpClientTransport::from_uri(url.clone());
    let error = ().serve(transport).await.unwrap_err();
    let challenge = error.auth_challenge().unwrap().to_owned();
    assert!(challenge.contains("scope=\"notes:read\""), "{challenge}");

    let (client, scope) = sign_in(&url, &challenge).await;
    assert!(scope.split(' ').any(|one| one == "notes:read"), "{scope}");
    assert!(!scope.contains("notes:write"), "{scope}");
    let whoami: Value =
        serde_json::from_str(&call(&client, "whoami", json!({})).await.unwrap()).unwrap();
    assert_eq!(whoami["subject"], "auth0|6553da60a54af58e29493993");

    // More is needed: one challenge names all of it, and one further sign-in is enough.
    let note = json!({ "id": "1", "text": "hello" });
    let challenge = call(&client, "write_note", note.clone()).await.unwrap_err();
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"notes:read notes:write\""), "{challenge}");
    let (writer, scope) = sign_in(&url, &challenge).await;
    assert!(scope.contains("notes:read") && scope.contains("notes:write"), "{scope}");
    assert_eq!(call(&writer, "write_note", note).await.unwrap(), "written: notes://1");

    // A role is missing: no sign-in is asked for.
    let rejected = call(&writer, "admin", json!({})).await.unwrap_err();
    assert!(!rejected.contains("insufficient_scope"), "{rejected}");

    // The reader sees the note, and no draft.
    let read = async |client: &Client, uri: &str| {
        client.read_resource(ReadResourceRequestParams::new(uri)).await.is_ok()
    };
    assert!(read(&client, "notes://1").await);
    assert!(!read(&client, "drafts://1").await && !read(&client, "DRAFTS://1").await);
    assert!(read(&writer, "drafts://1").await);
}

/// A rejected call leaves no trace in what the server stores.
#[tokio::test]
async fn a_rejected_call_does_not_reach_the_server() {
    let url = start().await;
    let error = ().serve(StreamableHttpClientTransport::from_uri(url.clone())).await.unwrap_err();
    let (client, _) = sign_in(&url, error.auth_challenge().unwrap()).await;
    let marker = json!({ "id": "marker", "text": "marker" });
    assert!(call(&client, "write_note", marker).await.is_err());
    let notes = client.list_all_resources().await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
}

#[tokio::test]
async fn the_example_is_discoverable() {
    let app = mcp_server::app("http://127.0.0.1:3000/mcp", "http://127.0.0.1:4000/").unwrap();
    let document = assert_discoverable::<axum::body::Body>(app, "/mcp").await;
    assert_eq!(document["scopes_supported"], json!(["notes:read"]));
}
