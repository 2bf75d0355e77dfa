//! A native app that signs a user in and calls the demo API (RFC 8252: system browser, loopback
//! redirect, PKCE).
//!
//! Run `cargo run --example native_client` while `cargo run --example protected_api` is running.
//! For a real tenant, pass `--issuer`, `--client-id` and `--audience`, and add
//! `http://127.0.0.1:8976/callback` to its allowed callback URLs.
//!
//! With `--dpop`, the tokens are bound to a key of this app (RFC 9449), and the last step tries to
//! use a copy of one without it.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use http::HeaderValue;
use oauth2::basic::{BasicClient, BasicRequestTokenError};
use oauth2::{
    AsyncHttpClient, AuthUrl, AuthorizationCode, ClientId, CsrfToken, HttpRequest, HttpResponse,
    PkceCodeChallenge, RedirectUrl, RequestTokenError, Scope, TokenResponse, TokenUrl,
};
use portcullis::testing::DpopClient;
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
    /// Bind the tokens to a key of this app (DPoP, RFC 9449), and try to use a copy without it
    #[arg(long)]
    dpop: bool,
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
    let key = if arguments.dpop { Some(Key::new()?) } else { None };
    if let Some(key) = &key {
        println!("\n   Also a key pair. The tokens will be bound to its public key.\n");
        show("dpop_jkt", key.client.thumbprint());
    }
    let http = Http { client: &http, key: key.as_ref() };

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
    if let Some(key) = &key {
        request = request.add_extra_param("dpop_jkt", key.client.thumbprint());
    }
    if arguments.no_browser {
        request = request.add_extra_param("prompt", "none");
    }
    let (url, state) = request.url();
    for (name, value) in url.query_pairs() {
        show(&name, &value);
    }
    let query = if arguments.no_browser {
        let response = http.client.get(url.clone()).send().await?;
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
        .request_async(&http)
        .await
        .map_err(|error| format!("no tokens: {}", told(&error)))?;
    let token_type = tokens.token_type().as_ref();
    if key.is_some() && !token_type.eq_ignore_ascii_case("DPoP") {
        return Err(format!("token_type: expected DPoP, found {token_type}").into());
    }
    show_token(tokens.access_token().secret());

    step(
        5,
        "Call the API with the access token",
        "The API verifies signature, issuer, audience and time, and for /scoped the scope.",
    );
    call(http, &arguments.api, tokens.access_token().secret()).await?;

    step(
        6,
        "Refresh the token and call again",
        "A new access token without the user. The refresh token is also replaced.",
    );
    let refresh = tokens.refresh_token().ok_or("no refresh token: is offline_access allowed?")?;
    let tokens = client
        .exchange_refresh_token(refresh)
        .request_async(&http)
        .await
        .map_err(|error| format!("no new tokens: {}", told(&error)))?;
    show_token(tokens.access_token().secret());
    call(http, &arguments.api, tokens.access_token().secret()).await?;
    match &key {
        Some(key) => use_copies(http, key, &arguments.api, tokens.access_token().secret()).await,
        None => Ok(()),
    }
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

async fn call(http: Http<'_>, api: &str, token: &str) -> Result<(), Box<dyn Error>> {
    let scheme = if http.key.is_some() { "DPoP" } else { "Bearer" };
    for path in ["/private", "/scoped"] {
        let request = get(&format!("{api}{path}"), scheme, token)?;
        let response = http.send_with_proof(request, Some(token)).await?;
        let status = response.status();
        println!("   GET {path}: {status}");
        if !status.is_success() {
            let challenges: String =
                all(&response, "www-authenticate").map(|value| format!(": {value}")).collect();
            return Err(format!("GET {path}: expected 200, found {status}{challenges}").into());
        }
        let body = String::from_utf8_lossy(response.body());
        println!(
            "   {}",
            body.chars().take(100).collect::<String>() + if body.len() > 100 { " …" } else { "" }
        );
    }
    Ok(())
}

/// Uses the token as an attacker would who has copied it, but not the key.
async fn use_copies(
    http: Http<'_>,
    key: &Key,
    api: &str,
    token: &str,
) -> Result<(), Box<dyn Error>> {
    step(
        7,
        "Try a stolen copy of the token",
        "From a log or a proxy: the token, without the key. Each attempt must be rejected.",
    );
    let url = format!("{api}/private");
    attempt(
        http,
        "The token without the key, as a bearer token",
        "The token names its key (cnf), so it is never accepted as a bearer token.",
        get(&url, "Bearer", token)?,
    )
    .await?;

    let other = Key { client: DpopClient::new()?, nonces: Mutex::new(key.nonces().clone()) };
    let request = get(&url, "DPoP", token)?;
    attempt(
        http,
        "The token with a proof by another key",
        "The proof is valid, but the token is bound to another key.",
        other.sign(request, Some(token)),
    )
    .await?;

    let recorded = key.sign(get(&url, "DPoP", token)?, Some(token));
    let first = http.send(recorded.clone()).await?.status();
    if !first.is_success() {
        return Err(format!("the request to record: expected 200, found {first}").into());
    }
    attempt(
        http,
        "A recorded request, sent a second time",
        "The API accepts each proof once. It was accepted when the app sent it.",
        recorded,
    )
    .await
}

async fn attempt(
    http: Http<'_>,
    what: &str,
    why: &str,
    request: HttpRequest,
) -> Result<(), Box<dyn Error>> {
    let response = http.send(request).await?;
    println!("   {what}: {}", response.status());
    for name in ["www-authenticate", "x-demo-reason"] {
        for value in all(&response, name) {
            println!("   {name}: {value}");
        }
    }
    println!("   {why}\n");
    match response.status().as_u16() {
        401 => Ok(()),
        status => Err(format!("{what}: expected 401, found {status}").into()),
    }
}

/// A GET with the token.
fn get(url: &str, scheme: &str, token: &str) -> Result<HttpRequest, http::Error> {
    let request = http::Request::get(url).header("authorization", format!("{scheme} {token}"));
    request.body(Vec::new())
}

/// All values of a header.
fn all<'a>(response: &'a HttpResponse, name: &'a str) -> impl Iterator<Item = &'a str> {
    response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// The key of this app, and the newest nonce of each server. A real app keeps its key where it
/// cannot be copied: in the keystore of the system.
struct Key {
    client: DpopClient,
    /// By the authority of the URL (RFC 9449 §8.2).
    nonces: Mutex<HashMap<String, String>>,
}

impl Key {
    fn new() -> io::Result<Self> {
        Ok(Self { client: DpopClient::new()?, nonces: Mutex::default() })
    }

    fn nonces(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a proof for this request (RFC 9449 §4.2). At the token endpoint, there is no token.
    fn sign(&self, mut request: HttpRequest, token: Option<&str>) -> HttpRequest {
        let url = request.uri().to_string();
        let url = url.split('?').next().unwrap_or_default();
        let mut proof =
            self.client.proof(request.method().as_str(), url, token.unwrap_or_default());
        if token.is_none() {
            proof = proof.without_claim("ath");
        }
        if let Some(nonce) = self.nonces().get(authority(&request)) {
            proof = proof.nonce(nonce);
        }
        // A proof is ASCII.
        if let Ok(proof) = HeaderValue::try_from(proof.build()) {
            request.headers_mut().insert("dpop", proof);
        }
        request
    }

    async fn send(
        &self,
        http: Http<'_>,
        request: HttpRequest,
        token: Option<&str>,
    ) -> Result<HttpResponse, reqwest::Error> {
        let server = authority(&request).to_owned();
        let signed = self.sign(request, token);
        show_proof(&signed);
        let response = http.send(signed).await?;
        let nonce = all(&response, "dpop-nonce").next().map(str::to_owned);
        if let Some(nonce) = nonce {
            self.nonces().insert(server, nonce);
        }
        Ok(response)
    }
}

fn authority(request: &HttpRequest) -> &str {
    request.uri().authority().map_or("", |authority| authority.as_str())
}

/// Whether the server wants a nonce in the proof: an API (RFC 9449 §9) or an issuer (§8).
fn asks_for_nonce(response: &HttpResponse) -> bool {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let mut challenges = all(response, "www-authenticate");
    let asks = challenges.any(|challenge| challenge.contains("error=\"use_dpop_nonce\""));
    response.headers().contains_key("dpop-nonce") && (asks || body["error"] == "use_dpop_nonce")
}

/// Prints the header and the claims of the proof.
fn show_proof(request: &HttpRequest) {
    let proof = request.headers().get("dpop").and_then(|value| value.to_str().ok());
    let parts = proof.unwrap_or_default().split('.');
    for (name, part) in ["proof, header", "proof, claims"].into_iter().zip(parts) {
        let json = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        show(name, &String::from_utf8_lossy(&json));
    }
}

/// Adapts `reqwest` to the HTTP client trait of the `oauth2` crate.
#[derive(Clone, Copy)]
struct Http<'a> {
    client: &'a reqwest::Client,
    /// The key that signs a proof for each request, if the tokens are bound to one.
    key: Option<&'a Key>,
}

impl Http<'_> {
    /// Sends a request as it is.
    async fn send(self, request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
        let response = self.client.execute(request.try_into()?).await?;
        let mut answer = HttpResponse::new(Vec::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        *answer.body_mut() = response.bytes().await?.to_vec();
        Ok(answer)
    }

    /// Sends a request, with a proof if the app has a key; once more if the server asks for its
    /// nonce.
    async fn send_with_proof(
        self,
        request: HttpRequest,
        token: Option<&str>,
    ) -> Result<HttpResponse, reqwest::Error> {
        let Some(key) = self.key else { return self.send(request).await };
        let response = key.send(self, request.clone(), token).await?;
        if asks_for_nonce(&response) {
            println!("   {}: use_dpop_nonce, so once more, with its nonce", response.status());
            return key.send(self, request, token).await;
        }
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Http<'_> {
    type Error = reqwest::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, reqwest::Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send_with_proof(request, None))
    }
}
