//! The demo's own issuer: what the Auth0 tutorials ask of a tenant, on a loopback port.
//!
//! A demo. It knows one person, asks for no password and keeps everything in memory; the rules of the protocol it keeps:
//! exact redirect URIs, PKCE with S256 only, codes used once, refresh tokens rotated, errors by their RFC names. Keys and
//! signatures are those of `portcullis::testing::TestIssuer`.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use form_urlencoded::Serializer;
use portcullis::Algorithm;
use portcullis::testing::TestIssuer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The public client: a native app (RFC 8252).
pub(crate) const NATIVE_APP: &str = "native-app";
/// Its one redirect URI, compared byte by byte (RFC 9700 §2.1).
pub(crate) const NATIVE_APP_REDIRECT_URI: &str = "http://127.0.0.1:8976/callback";
/// The confidential client, for `client_credentials`: identifier and secret.
pub(crate) const MACHINE: (&str, &str) = ("machine", "machine-secret");

const USER: &str = "auth0|6553da60a54af58e29493993";
const IDENTITY_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];
const API_SCOPES: [&str; 2] = ["read:messages", "write:messages"];
const CODE_LIFETIME: Duration = Duration::from_secs(60);
const CONSENT_LIFETIME: Duration = Duration::from_secs(600);
const TOKEN_LIFETIME: u64 = 3600;
/// Codes, pending consents and families of refresh tokens kept, and the longest `state` or `nonce`, in bytes: what a
/// stranger can ask for has a bound.
const MAX_KEPT: usize = 1_000;
const MAX_OPAQUE: usize = 1_024;

/// An issuer with the endpoints that an app needs to get a token.
#[derive(Clone)]
pub(crate) struct EmbeddedIssuer(Arc<Inner>);

struct Inner {
    issuer: TestIssuer,
    audience: String,
    /// What may be granted for the API.
    api_scopes: Vec<String>,
    state: Mutex<Grants>,
}

#[derive(Default)]
struct Grants {
    /// Authorization requests waiting for the person's decision.
    pending: HashMap<String, (Instant, Authorization)>,
    codes: HashMap<String, Code>,
    /// Each with its one token that is good: `FAMILY.TOKEN`.
    families: HashMap<String, Family>,
}

/// A checked authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3).
#[derive(Clone)]
struct Authorization {
    redirect_uri: String,
    scope: String,
    state: Option<String>,
    nonce: Option<String>,
    challenge: String,
}

struct Code {
    request: Authorization,
    issued: Instant,
    /// The refresh tokens that came of it; a code used twice takes them along (RFC 6749 §4.1.2).
    family: String,
    used: bool,
}

/// The refresh tokens that came of one sign-in (RFC 9700 §4.14): rotated, and all revoked when an old one is used.
struct Family {
    scope: String,
    token: String,
    used: Instant,
}

impl EmbeddedIssuer {
    /// An issuer of tokens for `audience`, to be served at `iss`; it may also grant `scope`.
    pub(crate) fn new(iss: &str, audience: &str, scope: &str) -> io::Result<Self> {
        let mut api_scopes: Vec<_> = API_SCOPES.map(str::to_owned).into();
        api_scopes.extend(scope.split(' ').filter(|token| !API_SCOPES.contains(token)).map(str::to_owned));
        let issuer = TestIssuer::offline_with(iss, Algorithm::RS256)?;
        Ok(Self(Arc::new(Inner { issuer, audience: audience.to_owned(), api_scopes, state: Mutex::default() })))
    }

    pub(crate) fn iss(&self) -> &str {
        self.0.issuer.iss()
    }

    /// The keys and tokens behind it: to rotate the keys, or to stop answering.
    #[allow(dead_code, reason = "the demo itself does not; tests that include this file do")]
    pub(crate) fn keys(&self) -> &TestIssuer {
        &self.0.issuer
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/authorize", get(authorize).post(decide))
            .route("/oauth/token", post(token))
            .fallback(metadata_or_keys)
            .with_state(self.clone())
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What RFC 6749 §4.1.1, RFC 7636 §4.3 and Auth0 (`audience`) ask of an authorization request.
    fn check(&self, query: &HashMap<String, String>) -> Result<Authorization, Refusal> {
        let parameter = |name: &str| query.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if parameter("client_id") != Some(NATIVE_APP) {
            return Err(Refusal::Page(format!("client_id: expected {NATIVE_APP:?}")));
        }
        // Before anything is sent there: a wrong address is told the person, never redirected to.
        if parameter("redirect_uri") != Some(NATIVE_APP_REDIRECT_URI) {
            return Err(Refusal::Page(format!("redirect_uri: expected exactly {NATIVE_APP_REDIRECT_URI}")));
        }
        let state = parameter("state").map(str::to_owned);
        if [&state, &parameter("nonce").map(str::to_owned)].into_iter().flatten().any(|text| text.len() > MAX_OPAQUE) {
            return Err(Refusal::Page(format!("state and nonce: expected at most {MAX_OPAQUE} bytes")));
        }
        let refuse = |error, description: &str| {
            let (iss, description) = (self.iss().to_owned(), description.to_owned());
            Err(Refusal::Redirect { iss, error, description, state: state.clone() })
        };
        if parameter("response_type") != Some("code") {
            return refuse("unsupported_response_type", "response_type: expected code");
        }
        if parameter("audience") != Some(&self.0.audience) {
            return refuse("access_denied", &format!("audience: expected {}", self.0.audience));
        }
        if parameter("code_challenge_method") != Some("S256") {
            return refuse("invalid_request", "code_challenge_method: expected S256 (plain proves nothing)");
        }
        let challenge = match parameter("code_challenge") {
            Some(challenge) if URL_SAFE_NO_PAD.decode(challenge).is_ok_and(|hash| hash.len() == 32) => challenge,
            _ => {
                return refuse("invalid_request", "code_challenge: expected a SHA-256 hash in base64url");
            }
        };
        Ok(Authorization {
            redirect_uri: NATIVE_APP_REDIRECT_URI.to_owned(),
            scope: self.granted(parameter("scope").unwrap_or_default(), true),
            nonce: parameter("nonce").map(str::to_owned),
            challenge: challenge.to_owned(),
            state,
        })
    }

    fn redirect_with_code(&self, request: Authorization) -> Response {
        let code = random();
        let location =
            redirect(&[("code", Some(&code)), ("state", request.state.as_deref()), ("iss", Some(self.iss()))]);
        let mut grants = self.grants();
        grants.codes.retain(|_, code| code.issued.elapsed() < CODE_LIFETIME);
        if grants.codes.len() >= MAX_KEPT {
            return (StatusCode::SERVICE_UNAVAILABLE, "too many codes at once").into_response();
        }
        grants.codes.insert(code, Code { request, issued: Instant::now(), family: random(), used: false });
        location
    }

    /// RFC 6749 §4.1.3, RFC 7636 §4.6.
    fn exchange_code(&self, parameters: &Parameters) -> Result<Value, TokenError> {
        if parameters.get("client_id") != Some(NATIVE_APP) {
            return Err(TokenError::client("client_id: unknown"));
        }
        let code = parameters.required("code")?;
        let verifier = parameters.required("code_verifier")?;
        if !(43..=128).contains(&verifier.len()) {
            return Err(TokenError::grant("code_verifier: expected 43 to 128 characters (RFC 7636 §4.1)"));
        }
        let redirect_uri = parameters.required("redirect_uri")?;
        let mut grants = self.grants();
        let Some(code) = grants.codes.get_mut(code).filter(|code| code.issued.elapsed() < CODE_LIFETIME) else {
            return Err(TokenError::grant("code: unknown or expired"));
        };
        let (request, family) = (code.request.clone(), code.family.clone());
        if std::mem::replace(&mut code.used, true) {
            grants.families.remove(&family);
            return Err(TokenError::grant("code: used before; what came of it is revoked"));
        }
        if redirect_uri != request.redirect_uri {
            return Err(TokenError::grant("redirect_uri: not that of the authorization request"));
        }
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != request.challenge {
            return Err(TokenError::grant("code_verifier: does not fit the code_challenge"));
        }
        let mut answer = self.tokens(USER, NATIVE_APP, &request.scope);
        if has(&request.scope, "openid") {
            answer["id_token"] = self.id_token(request.nonce.as_deref()).into();
        }
        if has(&request.scope, "offline_access") {
            answer["refresh_token"] = grants.refresh_token(request.scope, family).into();
        }
        Ok(answer)
    }

    /// RFC 6749 §6, with rotation (RFC 9700 §4.14): a refresh token used twice revokes the whole family.
    fn refresh(&self, parameters: &Parameters) -> Result<Value, TokenError> {
        if parameters.get("client_id") != Some(NATIVE_APP) {
            return Err(TokenError::client("client_id: unknown"));
        }
        let presented = parameters.required("refresh_token")?;
        let name = presented.split('.').next().unwrap_or_default();
        let mut grants = self.grants();
        let Some(family) = grants.families.remove(name).filter(|family| family.token == presented) else {
            return Err(TokenError::grant("refresh_token: unknown, revoked or used before"));
        };
        let mut answer = self.tokens(USER, NATIVE_APP, &family.scope);
        answer["refresh_token"] = grants.refresh_token(family.scope, name.to_owned()).into();
        Ok(answer)
    }

    /// RFC 6749 §4.4.
    fn machine(&self, parameters: &Parameters) -> Result<Value, TokenError> {
        let (id, secret) = MACHINE;
        if parameters.get("client_id") != Some(id) || parameters.get("client_secret") != Some(secret) {
            return Err(TokenError::client("client_id and client_secret: wrong"));
        }
        if parameters.required("audience")? != self.0.audience {
            return Err(TokenError::new(StatusCode::FORBIDDEN, "access_denied", "audience: unknown"));
        }
        // Auth0 grants a machine all that it may have unless it asks for less; never an identity.
        let everything = self.0.api_scopes.join(" ");
        let scope = self.granted(parameters.get("scope").unwrap_or(&everything), false);
        Ok(self.tokens(&format!("{id}@clients"), id, &scope))
    }

    /// Of the scope asked for, what there is, each token once; an identity only for a person.
    fn granted(&self, asked: &str, person: bool) -> String {
        let asked = |token: &&str| has(asked, token);
        let identity = IDENTITY_SCOPES.into_iter().filter(|_| person);
        let tokens = identity.chain(self.0.api_scopes.iter().map(String::as_str)).filter(asked);
        tokens.collect::<Vec<_>>().join(" ")
    }

    fn tokens(&self, subject: &str, client: &str, scope: &str) -> Value {
        let userinfo = format!("{}userinfo", self.iss());
        let audience = match has(scope, "openid") {
            true => json!([self.0.audience, userinfo]),
            false => json!(self.0.audience),
        };
        let permissions: Vec<_> = self.0.api_scopes.iter().filter(|token| has(scope, token)).collect();
        let token = self.0.issuer.token().header("typ", "JWT").subject(subject).scope(scope);
        let token = token.claim("aud", audience).claim("azp", client).without_claim("client_id");
        let token = token.claim("permissions", json!(permissions)).claim("https://example.com/plan", "pro");
        let token = token.claim("jti", random());
        json!({ "access_token": token.build(), "token_type": "Bearer", "expires_in": TOKEN_LIFETIME, "scope": scope })
    }

    fn id_token(&self, nonce: Option<&str>) -> String {
        let token = self.0.issuer.token().header("typ", "JWT").subject(USER).audience(NATIVE_APP);
        let token = token.without_claim("client_id").claim("name", "Alice Example");
        match nonce {
            Some(nonce) => token.claim("nonce", nonce).build(),
            None => token.build(),
        }
    }
}

impl Grants {
    /// The one good token of a family. Where there are too many families, the one that was not used for longest goes.
    fn refresh_token(&mut self, scope: String, family: String) -> String {
        if self.families.len() >= MAX_KEPT {
            let oldest = self.families.iter().min_by_key(|(_, family)| family.used).map(|(name, _)| name.clone());
            self.families.remove(&oldest.unwrap_or_default());
        }
        let token = format!("{family}.{}", random());
        self.families.insert(family, Family { scope, token: token.clone(), used: Instant::now() });
        token
    }
}

/// `GET /authorize` (RFC 6749 §4.1.1).
async fn authorize(
    State(issuer): State<EmbeddedIssuer>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    let request = issuer.check(&query)?;
    if query.get("prompt").is_some_and(|prompt| prompt == "none") {
        return Ok(issuer.redirect_with_code(request));
    }
    let id = random();
    let page = consent_page(&id, &request.scope);
    let mut grants = issuer.grants();
    grants.pending.retain(|_, (asked, _)| asked.elapsed() < CONSENT_LIFETIME);
    if grants.pending.len() >= MAX_KEPT {
        return Err(Refusal::Page("too many people are asked at once; try again later".to_owned()));
    }
    grants.pending.insert(id, (Instant::now(), request));
    Ok(page)
}

/// `POST /authorize`: the person decided.
async fn decide(State(issuer): State<EmbeddedIssuer>, body: Bytes) -> Result<Response, Refusal> {
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let pending = form.get("request").and_then(|id| issuer.grants().pending.remove(id));
    let (_, request) =
        pending.ok_or_else(|| Refusal::Page("this request was answered before; start again".to_owned()))?;
    match form.get("decision").map(String::as_str) {
        Some("allow") => Ok(issuer.redirect_with_code(request)),
        _ => Err(Refusal::Redirect {
            iss: issuer.iss().to_owned(),
            error: "access_denied",
            description: "the person said no".to_owned(),
            state: request.state,
        }),
    }
}

/// `POST /oauth/token` (RFC 6749 §3.2): a form, or JSON as Auth0's documentation writes it.
async fn token(State(issuer): State<EmbeddedIssuer>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = Parameters::read(&headers, &body).and_then(|parameters| match parameters.required("grant_type")? {
        "authorization_code" => issuer.exchange_code(&parameters),
        "refresh_token" => issuer.refresh(&parameters),
        "client_credentials" => issuer.machine(&parameters),
        _ => Err(TokenError::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type: unknown")),
    });
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (error.status, json!({ "error": error.error, "error_description": error.description })),
    };
    (status, [(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "application/json")], body.to_string())
        .into_response()
}

async fn metadata_or_keys(State(issuer): State<EmbeddedIssuer>, uri: Uri) -> Response {
    let Some(answer) = issuer.0.issuer.answer(uri.path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = answer.map(|body| match serde_json::from_str::<Value>(&body) {
        Ok(mut metadata) if metadata.get("issuer").is_some() => {
            let iss = issuer.iss();
            metadata["authorization_endpoint"] = format!("{iss}authorize").into();
            metadata["token_endpoint"] = format!("{iss}oauth/token").into();
            metadata["response_types_supported"] = json!(["code"]);
            metadata["grant_types_supported"] = json!(["authorization_code", "refresh_token", "client_credentials"]);
            metadata["code_challenge_methods_supported"] = json!(["S256"]);
            metadata["authorization_response_iss_parameter_supported"] = true.into();
            metadata["scopes_supported"] = json!(IDENTITY_SCOPES.iter().chain(&API_SCOPES).collect::<Vec<_>>());
            metadata.to_string()
        }
        _ => body,
    });
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("max-age=15"));
    response.into_response()
}

/// An authorization request that gets no code.
enum Refusal {
    /// Told the person: there is nobody safe to redirect to.
    Page(String),
    /// RFC 6749 §4.1.2.1, RFC 9207 §2.
    Redirect { iss: String, error: &'static str, description: String, state: Option<String> },
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Page(text) => (StatusCode::BAD_REQUEST, page(&format!("<p>{text}</p>"))).into_response(),
            Self::Redirect { iss, error, description, state } => redirect(&[
                ("error", Some(error)),
                ("error_description", Some(&description)),
                ("state", state.as_deref()),
                ("iss", Some(&iss)),
            ]),
        }
    }
}

/// RFC 6749 §5.2.
struct TokenError {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
}

impl TokenError {
    fn new(status: StatusCode, error: &'static str, description: &'static str) -> Self {
        Self { status, error, description }
    }

    fn grant(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", description)
    }

    fn client(description: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
    }
}

struct Parameters(HashMap<String, String>);

impl Parameters {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, TokenError> {
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !media_type.starts_with("application/json") {
            return Ok(Self(form_urlencoded::parse(body).into_owned().collect()));
        }
        serde_json::from_slice(body).map(Self).map_err(|_| {
            TokenError::new(StatusCode::BAD_REQUEST, "invalid_request", "body: expected a JSON object of strings")
        })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &'static str) -> Result<&str, TokenError> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            TokenError::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                match name {
                    "code" => "code: missing",
                    "code_verifier" => "code_verifier: missing",
                    "redirect_uri" => "redirect_uri: missing",
                    "refresh_token" => "refresh_token: missing",
                    "audience" => "audience: missing",
                    _ => "grant_type: missing",
                },
            )
        })
    }
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn has(scope: &str, token: &str) -> bool {
    scope.split(' ').any(|own| own == token)
}

fn redirect(parameters: &[(&str, Option<&str>)]) -> Response {
    let mut query = Serializer::new(String::new());
    for (name, value) in parameters.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        query.append_pair(name, value);
    }
    let location = format!("{NATIVE_APP_REDIRECT_URI}?{}", query.finish());
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

/// What is written into it was generated or chosen here; nothing of the request is.
fn consent_page(request: &str, scope: &str) -> Response {
    let body = format!(
        "<h1>Sign in to the demo</h1><p>{NATIVE_APP} wants to act for Alice: <code>{scope}</code></p>\
         <form method=post action=/authorize><input type=hidden name=request value={request}>\
         <button name=decision value=allow>Allow</button> <button name=decision value=deny>Deny</button></form>"
    );
    page(&body).into_response()
}

/// Never inside another site's frame, where a click could be stolen (RFC 9700 §4.16).
fn page(body: &str) -> impl IntoResponse {
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Demo issuer</title><body>{body}</body></html>"
    );
    ([(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'")], Html(html))
}
