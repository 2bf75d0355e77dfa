//! A native app that signs a user in and calls the demo API (RFC 8252: system browser, loopback
//! redirect, PKCE).
//!
//! Run `cargo run --example native_client` while `cargo run --example protected_api` is running.
//! For a real tenant, pass `--issuer`, `--client-id` and `--audience`, and add
//! `http://127.0.0.1:8976/callback` to its allowed callback URLs.

use std::error::Error;
use std::io::{self, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use oauth2::basic::{BasicClient, BasicRequestTokenError};
use oauth2::{
    AsyncHttpClient, AuthUrl, AuthorizationCode, ClientId, CsrfToken, HttpRequest, HttpResponse,
    PkceCodeChallenge, RedirectUrl, RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Signs in with Authorization Code + PKCE, calls the API, refreshes the token and calls again.
#[derive(Parser)]
struct Arguments {
    /// Issuer at which the user signs in
    #[arg(long, env = "ISSUER", default_value = "http://127.0.0.1:4000/")]
    issuer: String,
    /// This app's client identifier at the issuer
    #[arg(long, env = "CLIENT_ID", default_value = "native-app")]
    client_id: String,
    /// The API's identifier
    #[arg(long, env = "AUDIENCE", default_value = "https://api.example.com")]
    audience: String,
    /// Base URL of the API
    #[arg(long, env = "API", default_value = "http://127.0.0.1:3000")]
    api: String,
    /// Scope to request, in addition to openid and offline_access
    #[arg(long, env = "SCOPE", default_value = "read:messages")]
    scope: String,
    /// Address that the issuer redirects to; http://ADDRESS/callback must be registered there
    #[arg(long, default_value = "127.0.0.1:8976")]
    callback: String,
    /// Follow the issuer's redirect without a browser: for scripts, without consent (`prompt=none`)
    #[arg(long)]
    no_browser: bool,
}

#[tokio::main]
async fn main() {
    if let Err(error) = run(Arguments::parse()).await {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    // Only the browser follows redirects: an HTTP client that does can be sent to any server.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let callback = TcpListener::bind(&arguments.callback).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another with --callback", arguments.callback)
    })?;

    let callback_address = callback.local_addr()?;
    let metadata = discover(&http, &arguments.issuer).await?;
    let endpoint =
        |name: &str| metadata[name].as_str().ok_or(format!("the issuer's metadata has no {name}"));
    let client = BasicClient::new(ClientId::new(arguments.client_id.clone()))
        .set_auth_uri(AuthUrl::new(endpoint("authorization_endpoint")?.to_owned())?)
        .set_token_uri(TokenUrl::new(endpoint("token_endpoint")?.to_owned())?)
        .set_redirect_uri(RedirectUrl::new(format!("http://{callback_address}/callback"))?);

    step(
        1,
        "Create a code verifier",
        "A new secret. A stolen authorization code cannot be used without it.",
    );
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    show("code_verifier", verifier.secret());

    step(
        2,
        "Create the code challenge",
        "The SHA-256 hash of the verifier (S256). It is public: the hash cannot be reversed.",
    );
    show("code_challenge", challenge.as_str());

    step(
        3,
        "Have the user authorize the app",
        "In the browser, at the issuer. This app never sees the user's credentials.",
    );
    let mut request = client
        .authorize_url(CsrfToken::new_random)
        .set_pkce_challenge(challenge)
        .add_extra_param("audience", &arguments.audience)
        .add_scopes(
            ["openid", "offline_access", &arguments.scope]
                .map(|scope| Scope::new(scope.to_owned())),
        );
    if arguments.no_browser {
        request = request.add_extra_param("prompt", "none");
    }
    let (url, state) = request.url();
    for (name, value) in url.query_pairs() {
        show(&name, &value);
    }
    let query = if arguments.no_browser {
        let response = http.get(url.clone()).send().await?;
        match response.headers().get("location").and_then(|value| value.to_str().ok()) {
            Some(location) => {
                location.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default()
            }
            None => {
                let status = response.status();
                return Err(format!(
                    "expected a redirect, found {status}: {}",
                    response.text().await?
                )
                .into());
            }
        }
    } else {
        println!(
            "\n   Open this URL in a browser. Waiting for the redirect to {callback_address} …\n\n   {url}\n"
        );
        receive_callback(&callback, state.secret()).await
    };
    let parameter = |name: &str| parameter(&query, name);
    // A forged response would sign this app in as another user (RFC 6749 §10.12), or send the code
    // of another issuer to this one (RFC 9207 §2.4).
    if parameter("state").as_ref() != Some(state.secret()) {
        return Err("the state of the response is not that of the request".into());
    }
    let is_promised = metadata["authorization_response_iss_parameter_supported"] == true;
    match parameter("iss") {
        Some(iss) if iss != arguments.issuer => {
            return Err(format!("iss: expected {}, found {iss}", arguments.issuer).into());
        }
        None if is_promised => {
            return Err("the response has no iss, which this issuer always sends".into());
        }
        _ => {}
    }
    if let Some(error) = parameter("error") {
        return Err(
            format!("{error}: {}", parameter("error_description").unwrap_or_default()).into()
        );
    }
    let code = parameter("code").ok_or("the response has no code")?;
    println!("\n   Received the response, and its state matches.\n");
    show("code", &code);

    step(
        4,
        "Exchange code and verifier for tokens",
        "The issuer checks the verifier against the challenge, so only this app gets the tokens.",
    );
    let tokens = client
        .exchange_code(AuthorizationCode::new(code))
        .set_pkce_verifier(verifier)
        .request_async(&Http(&http))
        .await
        .map_err(|error| format!("no tokens: {}", told(&error)))?;
    show_token(tokens.access_token().secret());

    step(
        5,
        "Call the API with the access token",
        "The API verifies signature, issuer, audience and time, and for /scoped the scope.",
    );
    call(&http, &arguments.api, tokens.access_token().secret()).await?;

    step(
        6,
        "Refresh the token and call again",
        "A new access token without the user. The refresh token is also replaced.",
    );
    let refresh = tokens.refresh_token().ok_or("no refresh token: is offline_access allowed?")?;
    let tokens = client
        .exchange_refresh_token(refresh)
        .request_async(&Http(&http))
        .await
        .map_err(|error| format!("no new tokens: {}", told(&error)))?;
    show_token(tokens.access_token().secret());
    call(&http, &arguments.api, tokens.access_token().secret()).await
}

fn step(number: u8, what: &str, why: &str) {
    println!("\n{number}. {what}\n   {why}\n");
    let _ = io::stdout().flush();
}

fn show(name: &str, value: &str) {
    println!("   {name:<22} {value}");
}

/// Prints the token and its claims, decoded but not verified: the API verifies them.
fn show_token(token: &str) {
    show("access_token", token);
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
    let claims: Map<String, Value> =
        payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default();
    for (name, value) in claims {
        show(&format!("  {name}"), &value.to_string());
    }
}

/// The error as the issuer reported it, if it did.
fn told<E: Error + 'static>(error: &BasicRequestTokenError<E>) -> String {
    match error {
        RequestTokenError::ServerResponse(answer) => answer.to_string(),
        RequestTokenError::Request(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

async fn discover(http: &reqwest::Client, issuer: &str) -> Result<Value, Box<dyn Error>> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let unreachable = |error| {
        format!("cannot reach {url}: {error}; is `cargo run --example protected_api` running?")
    };
    let metadata: Value =
        http.get(&url).send().await.map_err(unreachable)?.error_for_status()?.json().await?;
    match metadata["issuer"].as_str() {
        Some(presented) if presented == issuer => Ok(metadata),
        Some(presented) => Err(format!("--issuer: expected {presented}, found {issuer}").into()),
        None => Err(format!("{url}: expected metadata with an issuer").into()),
    }
}

/// Waits for the browser's GET with the response to this request, and returns its query. Ignores
/// all other requests to the port, from other pages or programs.
async fn receive_callback(listener: &TcpListener, state: &str) -> String {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Browsers open speculative connections and send nothing on them.
        let served =
            tokio::time::timeout(Duration::from_secs(1), serve_callback(stream, state)).await;
        if let Ok(Ok(Some(query))) = served {
            return query;
        }
    }
}

async fn serve_callback(stream: TcpStream, state: &str) -> io::Result<Option<String>> {
    const LONGEST: u64 = 8 * 1024;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LONGEST).read_line(&mut line).await?;
    let target = line.split(' ').nth(1).unwrap_or_default();
    let query = target
        .strip_prefix("/callback?")
        .filter(|query| parameter(query, "state").as_deref() == Some(state));
    let (status, text) = match query {
        Some(_) => ("200 OK", "You can close this window."),
        // For example, a favicon.
        None => ("404 Not Found", "This is not the expected response."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(query.map(str::to_owned))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

async fn call(http: &reqwest::Client, api: &str, token: &str) -> Result<(), Box<dyn Error>> {
    for path in ["/private", "/scoped"] {
        let response = http.get(format!("{api}{path}")).bearer_auth(token).send().await?;
        let status = response.status();
        let challenge =
            response.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
        println!("   GET {path}: {status}");
        if !status.is_success() {
            let challenge = challenge.map(|challenge| format!(": {challenge}")).unwrap_or_default();
            return Err(format!("GET {path}: expected 200, found {status}{challenge}").into());
        }
        let body = response.text().await?;
        println!(
            "   {}",
            body.chars().take(100).collect::<String>() + if body.len() > 100 { " …" } else { "" }
        );
    }
    Ok(())
}

/// Adapts `reqwest` to the HTTP client trait of the `oauth2` crate.
struct Http<'a>(&'a reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http<'_> {
    type Error = reqwest::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, reqwest::Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let response = self.0.execute(request.try_into()?).await?;
            let mut answer = HttpResponse::new(Vec::new());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = response.headers().clone();
            *answer.body_mut() = response.bytes().await?.to_vec();
            Ok(answer)
        })
    }
}
