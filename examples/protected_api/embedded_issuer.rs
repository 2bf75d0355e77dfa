//! The demo's own issuer, on a loopback port. It does what the Auth0 tutorials need of a tenant.
//!
//! For the demo only: it has one user, asks for no password, grants every requested scope, gives a
//! machine client any audience and claims, and holds its state in memory. It follows the rules of
//! the protocol: exact redirect URIs, PKCE with S256 only, codes that are used once and by the
//! client they were issued to, resource indicators (RFC 8707), dynamic registration of native apps
//! (RFC 7591), refresh tokens that are rotated and revoked, tokens that are bound to a key of the
//! client (DPoP, RFC 9449), sign-out that the API is told about, errors by their RFC names. Keys,
//! signatures and the clock come from `portcullis::testing::TestIssuer`.

// Paths, so that tests and other examples can include this file.
#[path = "opaque_tokens.rs"]
pub(crate) mod opaque_tokens;
#[path = "proofs.rs"]
mod proofs;
#[path = "sign_out.rs"]
pub(crate) mod sign_out;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use form_urlencoded::Serializer;
use portcullis::Algorithm;
use portcullis::testing::{TestIssuer, TokenBuilder};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tower_http::cors::{AllowOrigin, CorsLayer};

use opaque_tokens::OpaqueTokens;
use proofs::Proofs;
use sign_out::{Receivers, session_of};

/// A public client: a native app (RFC 8252).
pub(crate) const NATIVE_APP: &str = "native-app";
/// The redirect URI of the native app, before and after the port. Any port is allowed (RFC 8252
/// §7.3); the rest is compared byte by byte (RFC 9700 §2.1).
pub(crate) const NATIVE_APP_REDIRECT_URI: (&str, &str) = ("http://127.0.0.1:", "/callback");
/// A public client: the demo's page. Its redirect URI is the URL of the page.
pub(crate) const SINGLE_PAGE_APP: &str = "single-page-app";
/// The confidential client for `client_credentials`: identifier and secret.
pub(crate) const MACHINE: (&str, &str) = ("machine", "machine-secret");

const USER: &str = "auth0|6553da60a54af58e29493993";
const IDENTITY_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];
const API_SCOPES: [&str; 2] = ["read:messages", "write:messages"];
const CODE_LIFETIME: Duration = Duration::from_secs(60);
const CONSENT_LIFETIME: Duration = Duration::from_secs(600);
const TOKEN_LIFETIME: u64 = 3600;
/// Limits on what a client can make the issuer store or sign: codes, pending consents and families
/// of refresh tokens; bytes of `state`, `nonce` and `audience`; tokens and bytes of `scope`;
/// members and bytes of `claims`.
const MAX_KEPT: usize = 1_000;
/// Of a registration: redirect URIs, and bytes of each.
const MAX_REDIRECT_URIS: usize = 10;
const MAX_OPAQUE: usize = 1_024;
const MAX_SCOPE_TOKENS: usize = 20;
const MAX_SCOPE: usize = 1_024;
const MAX_CLAIMS_MEMBERS: usize = 50;
const MAX_CLAIMS: usize = 4_096;
/// Claims that a client cannot choose. The issuer sets issuer, dates, subject and client; audience
/// and scope have their own parameters; `cnf` would bind the token to a key without a proof; with
/// `events`, it could pass for a logout token.
const RESERVED_CLAIMS: [&str; 11] =
    ["iss", "aud", "exp", "iat", "nbf", "jti", "sub", "client_id", "scope", "cnf", "events"];

/// An issuer with the endpoints that an app needs to obtain a token.
#[derive(Clone)]
pub(crate) struct EmbeddedIssuer(Arc<Inner>);

struct Inner {
    issuer: TestIssuer,
    /// The API, by its identifier and its URLs. The first is the default.
    audiences: Vec<String>,
    /// The scope of a machine client that requests none.
    api_scopes: Vec<String>,
    /// The redirect URI of the single-page app.
    page: String,
    state: Mutex<Grants>,
    opaque: OpaqueTokens,
    proofs: Proofs,
    /// Whom the issuer tells about sign-outs.
    receivers: OnceLock<Receivers>,
}

#[derive(Default)]
struct Grants {
    /// Authorization requests that wait for the user's decision.
    pending: HashMap<String, (SystemTime, Authorization)>,
    codes: HashMap<String, Code>,
    /// Each has one valid token: `FAMILY.TOKEN`.
    families: HashMap<String, Family>,
    /// Apps that have registered themselves, by identifier.
    apps: HashMap<String, App>,
}

/// A native app that has registered itself (RFC 7591).
struct App {
    redirect_uris: Vec<String>,
    registered: SystemTime,
}

/// A checked authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3).
#[derive(Clone)]
struct Authorization {
    client: String,
    redirect_uri: String,
    /// The API that the token is for.
    audience: String,
    scope: String,
    state: Option<String>,
    nonce: Option<String>,
    challenge: String,
    /// The thumbprint of the key that the code is bound to: `dpop_jkt` (RFC 9449 §10).
    jkt: Option<String>,
}

struct Code {
    request: Authorization,
    issued: SystemTime,
    /// The refresh tokens issued for this code. If the code is used twice, they are revoked (RFC
    /// 6749 §4.1.2).
    family: String,
    used: bool,
}

/// The refresh tokens of one sign-in (RFC 9700 §4.14): rotated with each use, and all revoked when
/// an old one is used.
struct Family {
    client: String,
    audience: String,
    scope: String,
    token: String,
    used: SystemTime,
    /// The thumbprint of the key that its tokens are bound to (RFC 9449 §5): the clients have no
    /// secret.
    jkt: Option<String>,
}

impl EmbeddedIssuer {
    /// Creates an issuer of tokens for the API with these `audiences`, to be served at `iss`. A
    /// machine client that requests no scope gets `API_SCOPES` and `scope`. `page` is the URL of
    /// the single-page app: an origin and a slash.
    pub(crate) fn new(iss: &str, audiences: &[&str], scope: &str, page: &str) -> io::Result<Self> {
        let mut api_scopes: Vec<_> = API_SCOPES.map(str::to_owned).into();
        api_scopes.extend(
            scope.split(' ').filter(|token| !API_SCOPES.contains(token)).map(str::to_owned),
        );
        // Each process creates new keys. The suffix keeps an API that cached the keys of a previous
        // process from mistaking these for them.
        let issuer = TestIssuer::offline_with(iss, Algorithm::RS256)?
            .kid_suffix(&format!("-{:08x}", rand::random::<u32>()));
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        let page = page.to_owned();
        let (state, opaque) = (Mutex::default(), OpaqueTokens::default());
        let (proofs, receivers) = (Proofs::default(), OnceLock::new());
        Ok(Self(Arc::new(Inner {
            issuer,
            audiences,
            api_scopes,
            page,
            state,
            opaque,
            proofs,
            receivers,
        })))
    }

    pub(crate) fn iss(&self) -> &str {
        self.0.issuer.iss()
    }

    /// The underlying `TestIssuer`, for example to rotate its keys or to set its clock.
    pub(crate) fn keys(&self) -> &TestIssuer {
        &self.0.issuer
    }

    /// Only pages with an origin in `readers` may read responses. Browsers also send the requests
    /// of other pages, but without reading the tokens they are harmless.
    pub(crate) fn router(&self, readers: AllowOrigin) -> Router {
        let headers = ["dpop", "mcp-protocol-version"].map(HeaderName::from_static);
        let cors = CorsLayer::new()
            .allow_origin(readers)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(headers.into_iter().chain([header::CONTENT_TYPE]).collect::<Vec<_>>());
        Router::new()
            .route("/oauth/token", post(token))
            .route("/oauth/revoke", post(revoke))
            .route("/oauth/logout", get(sign_out::end_session).post(sign_out::end_session))
            .route("/oauth/register", post(register))
            .fallback(metadata_or_keys)
            .layer(cors)
            // Only servers ask about tokens.
            .route("/oauth/introspect", post(introspect))
            // Users navigate to these routes; scripts do not fetch them.
            .route("/authorize", get(authorize).post(decide))
            .route(
                "/issuer.css",
                get(async || {
                    ([(header::CONTENT_TYPE, "text/css")], include_str!("page/issuer.css"))
                }),
            )
            .layer(middleware::from_fn_with_state(self.clone(), only_by_its_own_name))
            .with_state(self.clone())
    }

    /// A token that the API must reject, for exactly one reason. The page cannot create such tokens
    /// without the issuer.
    pub(crate) fn bad_token(&self, case: &str) -> Option<String> {
        let issuer = self.keys();
        let token = self.access_token(
            USER,
            SINGLE_PAGE_APP,
            self.audience(),
            &format!("openid {}", self.0.api_scopes.join(" ")),
        );
        let token = match case {
            "expired" => token.expired(),
            "other-audience" => token.audience("https://other-api.example.com"),
            "other-issuer" => token.issued_by("https://issuer.example.org/"),
            "unknown-kid" => token.header("kid", "unknown-key"),
            "alg-none" => token.unsigned(),
            "tampered" => token.tampered(),
            // RFC 8725 §2.1: the public key used as the secret of an HMAC.
            "hs-confusion" => {
                let public_key = issuer.jwks_json()["keys"][0].to_string();
                let forger = TestIssuer::offline_with_secret(
                    self.iss(),
                    Algorithm::HS256,
                    public_key.as_bytes(),
                );
                token.signed_by(&forger)
            }
            _ => return None,
        };
        Some(token.build())
    }

    fn audience(&self) -> &str {
        self.0.audiences.first().map_or("", String::as_str)
    }

    /// Whether a public client with this identifier exists.
    fn is_app(&self, id: &str) -> bool {
        [NATIVE_APP, SINGLE_PAGE_APP].contains(&id) || self.grants().apps.contains_key(id)
    }

    fn may_redirect(&self, app: &str, uri: &str) -> bool {
        let (before, after) = NATIVE_APP_REDIRECT_URI;
        let port = uri.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        match app {
            NATIVE_APP => port.is_some_and(|port| {
                port.parse().is_ok_and(|number: u16| number > 0 && number.to_string() == port)
            }),
            SINGLE_PAGE_APP => uri == self.0.page,
            app => {
                self.grants().apps.get(app).is_some_and(|app| {
                    app.redirect_uris.iter().any(|own| is_same_but_port(own, uri))
                })
            }
        }
    }

    fn age(&self, of: SystemTime) -> Duration {
        self.keys().now().duration_since(of).unwrap_or_default()
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks an authorization request: RFC 6749 §4.1.1, RFC 7636 §4.3, and `audience` as Auth0 has
    /// it.
    fn check(&self, query: &HashMap<String, String>) -> Result<Authorization, Refusal> {
        let parameter =
            |name: &str| query.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let Some(client) = parameter("client_id").filter(|id| self.is_app(id)) else {
            return Err(Refusal::Page(format!(
                "client_id: expected {NATIVE_APP}, {SINGLE_PAGE_APP}, or a client that has registered"
            )));
        };
        // Check this first: an invalid redirect URI is shown to the user and never redirected to.
        let Some(redirect_uri) =
            parameter("redirect_uri").filter(|uri| self.may_redirect(client, uri))
        else {
            let (before, after) = NATIVE_APP_REDIRECT_URI;
            let expected = match client {
                NATIVE_APP => format!("{before}PORT{after}"),
                SINGLE_PAGE_APP => self.0.page.clone(),
                _ => "a redirect URI of the registration".to_owned(),
            };
            return Err(Refusal::Page(format!("redirect_uri: expected exactly {expected}")));
        };
        let state = parameter("state").map(str::to_owned);
        if [&state, &parameter("nonce").map(str::to_owned)]
            .into_iter()
            .flatten()
            .any(|text| text.len() > MAX_OPAQUE)
        {
            return Err(Refusal::Page(format!(
                "state and nonce: expected at most {MAX_OPAQUE} bytes"
            )));
        }
        let refuse = |error, description: &str| {
            let (iss, to, description) =
                (self.iss().to_owned(), redirect_uri.to_owned(), description.to_owned());
            Err(Refusal::Redirect { iss, to, error, description, state: state.clone() })
        };
        if parameter("response_type") != Some("code") {
            return refuse("unsupported_response_type", "response_type: expected code");
        }
        // RFC 8707 §2: `resource` is the standard name of `audience`.
        let asked = parameter("resource").or(parameter("audience"));
        let Some(audience) = asked.filter(|asked| self.0.audiences.iter().any(|own| own == asked))
        else {
            // A sign-in is for the demo's API only, whose audience is set when the demo starts.
            let own = self.audience();
            if parameter("resource").is_some() {
                return refuse("invalid_target", &format!("resource: expected {own}"));
            }
            let sentence = format!("audience: expected {own}, or start the demo with --audience");
            return refuse("access_denied", &sentence);
        };
        if parameter("code_challenge_method") != Some("S256") {
            return refuse(
                "invalid_request",
                "code_challenge_method: expected S256 (plain gives no proof)",
            );
        }
        let Some(challenge) = parameter("code_challenge").filter(|text| is_hash(text)) else {
            let sentence = "code_challenge: expected a SHA-256 hash in base64url";
            return refuse("invalid_request", sentence);
        };
        let jkt = parameter("dpop_jkt");
        if jkt.is_some_and(|jkt| !is_hash(jkt)) {
            return refuse("invalid_request", "dpop_jkt: expected a SHA-256 hash in base64url");
        }
        let scope = match granted(parameter("scope").unwrap_or_default(), true) {
            Ok(scope) => scope,
            Err(sentence) => return refuse("invalid_scope", &sentence),
        };
        Ok(Authorization {
            client: client.to_owned(),
            audience: audience.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            scope,
            nonce: parameter("nonce").map(str::to_owned),
            challenge: challenge.to_owned(),
            jkt: jkt.map(str::to_owned),
            state,
        })
    }

    fn redirect_with_code(&self, request: Authorization) -> Response {
        let code = random();
        let parameters = [
            ("code", Some(code.as_str())),
            ("state", request.state.as_deref()),
            ("iss", Some(self.iss())),
        ];
        let location = redirect(&request.redirect_uri, &parameters);
        let mut grants = self.grants();
        grants.codes.retain(|_, code| self.age(code.issued) < CODE_LIFETIME);
        make_room(&mut grants.codes, |code| code.issued);
        grants.codes.insert(
            code,
            Code { request, issued: self.keys().now(), family: random(), used: false },
        );
        location
    }

    fn client<'a>(&self, parameters: &'a Parameters) -> Result<&'a str, TokenError> {
        let client = parameters.get("client_id").filter(|id| self.is_app(id));
        client.ok_or(TokenError::client("client_id: unknown"))
    }

    /// RFC 7591 §3: registers a native app, without a secret. Its redirect URIs are on loopback, so
    /// a code reaches only this machine.
    fn register(&self, body: &[u8]) -> Result<Value, TokenError> {
        let invalid = |description: &'static str| {
            TokenError::new(StatusCode::BAD_REQUEST, "invalid_redirect_uri", description)
        };
        let request: Value = serde_json::from_slice(body)
            .map_err(|_| TokenError::request("body: expected a JSON object"))?;
        let uris = request["redirect_uris"].as_array().map(Vec::as_slice).unwrap_or_default();
        let uris: Option<Vec<_>> = uris.iter().map(|uri| uri.as_str().map(str::to_owned)).collect();
        let uris = uris.filter(|uris| (1..=MAX_REDIRECT_URIS).contains(&uris.len()));
        let redirect_uris = uris.ok_or(invalid("redirect_uris: expected 1 to 10 URIs"))?;
        let is_loopback = |text: &String| {
            let Ok(uri) = reqwest::Url::parse(text) else { return false };
            text.len() <= MAX_OPAQUE
                && uri.as_str() == text
                && uri.scheme() == "http"
                && matches!(uri.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
                && uri.username().is_empty()
                && uri.password().is_none()
                && uri.query().is_none()
                && uri.fragment().is_none()
        };
        if !redirect_uris.iter().all(is_loopback) {
            return Err(invalid("redirect_uris: expected http on loopback, for native apps"));
        }
        let (id, now) = (random(), self.keys().now());
        let mut grants = self.grants();
        make_room(&mut grants.apps, |app| app.registered);
        let answer = json!({
            "client_id": id,
            "client_id_issued_at": now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            "redirect_uris": redirect_uris,
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        });
        grants.apps.insert(id, App { redirect_uris, registered: now });
        Ok(answer)
    }

    /// RFC 6749 §4.1.3, RFC 7636 §4.6. `jkt`: the thumbprint of the key whose proof the request
    /// has.
    fn exchange_code(
        &self,
        parameters: &Parameters,
        jkt: Option<&str>,
    ) -> Result<Value, TokenError> {
        let client = self.client(parameters)?;
        let code = parameters.required("code")?;
        let verifier = parameters.required("code_verifier")?;
        let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(is_unreserved) {
            return Err(TokenError::grant(
                "code_verifier: expected 43 to 128 letters, digits or -._~ (RFC 7636 §4.1)",
            ));
        }
        let redirect_uri = parameters.required("redirect_uri")?;
        let mut grants = self.grants();
        let Some(code) =
            grants.codes.get_mut(code).filter(|code| self.age(code.issued) < CODE_LIFETIME)
        else {
            return Err(TokenError::grant("code: unknown or expired"));
        };
        let (request, family) = (code.request.clone(), code.family.clone());
        if client != request.client {
            return Err(TokenError::grant("code: issued to another client"));
        }
        if std::mem::replace(&mut code.used, true) {
            grants.families.remove(&family);
            return Err(TokenError::grant("code: already used; its refresh tokens are revoked"));
        }
        if redirect_uri != request.redirect_uri {
            return Err(TokenError::grant("redirect_uri: differs from the authorization request"));
        }
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != request.challenge {
            return Err(TokenError::grant("code_verifier: does not match the code_challenge"));
        }
        if request.jkt.is_some() && request.jkt.as_deref() != jkt {
            return Err(TokenError::grant("DPoP: expected a proof of the key in dpop_jkt"));
        }
        if parameters.get("resource").is_some_and(|asked| asked != request.audience) {
            return Err(TokenError::new(
                StatusCode::BAD_REQUEST,
                "invalid_target",
                "resource: differs from the authorization request",
            ));
        }
        let sid = session_of(&family);
        let token = self.access_token(USER, client, &request.audience, &request.scope);
        let token = token.claim("sid", sid.as_str());
        let mut answer = self.token_response(token, &request.scope, parameters, jkt);
        if has(&request.scope, "openid") {
            answer["id_token"] = self.id_token(client, &sid, request.nonce.as_deref()).into();
        }
        if has(&request.scope, "offline_access") {
            let request = Authorization { jkt: jkt.map(str::to_owned), ..request };
            answer["refresh_token"] =
                grants.refresh_token(request, family, self.keys().now()).into();
        }
        Ok(answer)
    }

    /// RFC 6749 §6, with rotation (RFC 9700 §4.14): using a refresh token twice revokes its family.
    /// `jkt`: the thumbprint of the key whose proof the request has. It binds a family that was not
    /// bound before.
    fn refresh(&self, parameters: &Parameters, jkt: Option<&str>) -> Result<Value, TokenError> {
        let client = self.client(parameters)?;
        let presented = parameters.required("refresh_token")?;
        let mut grants = self.grants();
        // First, so that a copy of the token cannot end the family without the key.
        if grants.binding_of(presented).is_some_and(|bound| Some(bound) != jkt) {
            return Err(TokenError::grant("refresh_token: bound to another key"));
        }
        let family =
            grants.end_family(client, presented).filter(|family| family.token == presented);
        let Some(family) = family else {
            return Err(TokenError::grant("refresh_token: unknown, revoked or already used"));
        };
        let name = name_of(presented).to_owned();
        let token = self.access_token(USER, client, &family.audience, &family.scope);
        let token = token.claim("sid", session_of(&name));
        let mut answer = self.token_response(token, &family.scope, parameters, jkt);
        let family = Family { jkt: jkt.map(str::to_owned), ..family };
        let refresh_token = grants.next_token(name, family, self.keys().now());
        answer["refresh_token"] = refresh_token.into();
        Ok(answer)
    }

    /// RFC 7009 §2: revokes a refresh token and all others of the same sign-in, or an opaque access
    /// token. An unknown token is not an error. Access tokens that are JWTs remain valid until they
    /// expire, because an API verifies them without asking the issuer.
    fn revoke(&self, parameters: &Parameters) -> Result<Value, TokenError> {
        let client = self.client(parameters)?;
        let token = parameters.required("token")?;
        self.grants().end_family(client, token);
        if self.answer_about(token)["azp"] == client {
            self.0.opaque.revoke(token);
        }
        Ok(json!({}))
    }

    /// RFC 7662 §2.2, RFC 9449 §6.2: what an API learns about a token, opaque or not.
    fn answer_about(&self, token: &str) -> Value {
        let mut answer = self.keys().introspect(&self.0.opaque.resolve(token));
        if answer["cnf"]["jkt"].is_string() {
            answer["token_type"] = "DPoP".into();
        }
        answer
    }

    /// RFC 7662 §2.1.
    fn introspect(
        &self,
        headers: &HeaderMap,
        parameters: &Parameters,
    ) -> Result<Value, TokenError> {
        let (id, secret) = (parameters.get("client_id"), parameters.get("client_secret"));
        if !opaque_tokens::is_of_api(headers, id, secret) {
            return Err(TokenError::client("client_id and client_secret: invalid"));
        }
        Ok(self.answer_about(parameters.required("token")?))
    }

    /// RFC 6749 §4.4. The token is for the API that `audience` names and has the members of
    /// `claims`, so the demo can be the issuer of an API under development. `jkt`: the thumbprint
    /// of the key whose proof the request has.
    fn machine(&self, parameters: &Parameters, jkt: Option<&str>) -> Result<Value, TokenError> {
        let (id, secret) = MACHINE;
        if parameters.get("client_id") != Some(id)
            || parameters.get("client_secret") != Some(secret)
        {
            return Err(TokenError::client("client_id and client_secret: invalid"));
        }
        let audience = match parameters.get("resource") {
            Some(resource) => resource,
            None => parameters.required("audience")?,
        };
        if audience.len() > MAX_OPAQUE {
            let found = audience.len();
            let sentence = format!("audience: expected at most {MAX_OPAQUE} bytes, found {found}");
            return Err(TokenError::request(sentence));
        }
        let scope = match parameters.get("scope") {
            Some(asked) => granted(asked, false).map_err(TokenError::scope)?,
            // As with Auth0, a machine client that requests no scope gets every scope of the demo's
            // API.
            None => self.0.api_scopes.join(" "),
        };
        let claims = match parameters.get("claims") {
            Some(text) if !text.is_empty() => custom_claims(text).map_err(TokenError::request)?,
            _ => Map::new(),
        };
        let mut token = self
            .access_token(&format!("{id}@clients"), id, audience, &scope)
            .claim("aud", audience);
        for (name, value) in claims {
            token = token.claim(&name, value);
        }
        Ok(self.token_response(token, &scope, parameters, jkt))
    }

    /// RFC 6749 §5.1. With `token_format=opaque`, the access token is opaque. With `jkt`, it is
    /// bound to the key with that thumbprint (RFC 9449 §5, §6.1).
    fn token_response(
        &self,
        token: TokenBuilder,
        scope: &str,
        parameters: &Parameters,
        jkt: Option<&str>,
    ) -> Value {
        let (token, token_type) = match jkt {
            Some(jkt) => (token.claim("cnf", json!({ "jkt": jkt })), "DPoP"),
            None => (token, "Bearer"),
        };
        let token = match parameters.get("token_format") {
            Some("opaque") => self.0.opaque.issue(token.build(), self.keys().now()),
            _ => token.build(),
        };
        json!({ "access_token": token, "token_type": token_type, "expires_in": TOKEN_LIFETIME, "scope": scope })
    }

    /// An access token with the claims of Auth0's.
    fn access_token(
        &self,
        subject: &str,
        client: &str,
        audience: &str,
        scope: &str,
    ) -> TokenBuilder {
        let userinfo = format!("{}userinfo", self.iss());
        let audience =
            if has(scope, "openid") { json!([audience, userinfo]) } else { json!(audience) };
        let is_permission = |token: &&str| !token.is_empty() && !IDENTITY_SCOPES.contains(token);
        let permissions: Vec<_> = scope.split(' ').filter(is_permission).collect();
        let token = self.0.issuer.token().like_auth0().subject(subject).scope(scope);
        let token = token
            .claim("aud", audience)
            .claim("azp", client)
            .valid_for(Duration::from_secs(TOKEN_LIFETIME));
        let token =
            token.claim("permissions", json!(permissions)).claim("https://example.com/plan", "pro");
        token.claim("jti", random())
    }

    fn id_token(&self, client: &str, sid: &str, nonce: Option<&str>) -> String {
        let token = self.0.issuer.token().header("typ", "JWT").subject(USER).audience(client);
        let token =
            token.without_claim("client_id").claim("name", "Alice Example").claim("sid", sid);
        match nonce {
            Some(nonce) => token.claim("nonce", nonce).build(),
            None => token.build(),
        }
    }
}

impl Grants {
    /// Issues the first token of a family.
    fn refresh_token(&mut self, request: Authorization, name: String, now: SystemTime) -> String {
        let Authorization { client, audience, scope, jkt, .. } = request;
        let family = Family { client, audience, scope, token: String::new(), used: now, jkt };
        self.next_token(name, family, now)
    }

    /// Issues the new valid token of a family.
    fn next_token(&mut self, name: String, family: Family, now: SystemTime) -> String {
        make_room(&mut self.families, |family| family.used);
        let token = format!("{name}.{}", random());
        self.families.insert(name, Family { token: token.clone(), used: now, ..family });
        token
    }

    /// The thumbprint of the key that the family of this token is bound to, if any.
    fn binding_of(&self, token: &str) -> Option<&str> {
        self.families.get(name_of(token))?.jkt.as_deref()
    }

    /// Ends the family of this token, valid or not, if the family belongs to `client`.
    fn end_family(&mut self, client: &str, token: &str) -> Option<Family> {
        let is_own =
            self.families.get(name_of(token)).is_some_and(|family| family.client == client);
        if is_own { self.families.remove(name_of(token)) } else { None }
    }
}

/// `GET /authorize` (RFC 6749 §4.1.1).
async fn authorize(
    State(issuer): State<EmbeddedIssuer>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let query = once_each(query.unwrap_or_default().as_bytes()).ok_or_else(|| {
        Refusal::Page("each parameter: expected at most once (RFC 6749 §3.1)".to_owned())
    })?;
    let request = issuer.check(&query)?;
    if query.get("prompt").is_some_and(|prompt| prompt == "none") {
        return Ok(issuer.redirect_with_code(request));
    }
    let id = random();
    let page = consent_page(&id, &request.client, &request.scope);
    let mut grants = issuer.grants();
    grants.pending.retain(|_, (asked, _)| issuer.age(*asked) < CONSENT_LIFETIME);
    make_room(&mut grants.pending, |(asked, _)| *asked);
    grants.pending.insert(id, (issuer.keys().now(), request));
    Ok(page)
}

/// `POST /authorize`: the user's decision.
async fn decide(State(issuer): State<EmbeddedIssuer>, body: Bytes) -> Result<Response, Refusal> {
    let form = once_each(&body).unwrap_or_default();
    let pending = form.get("request").and_then(|id| issuer.grants().pending.remove(id));
    let (_, request) = pending
        .ok_or_else(|| Refusal::Page("this request was already used; start again".to_owned()))?;
    match form.get("decision").map(String::as_str) {
        Some("allow") => Ok(issuer.redirect_with_code(request)),
        _ => Err(Refusal::Redirect {
            iss: issuer.iss().to_owned(),
            to: request.redirect_uri,
            error: "access_denied",
            description: "the user denied the request".to_owned(),
            state: request.state,
        }),
    }
}

/// `POST /oauth/token` (RFC 6749 §3.2): a form, or JSON as in Auth0's documentation; with a DPoP
/// proof, for bound tokens.
async fn token(State(issuer): State<EmbeddedIssuer>, headers: HeaderMap, body: Bytes) -> Response {
    let url = format!("{}oauth/token", issuer.iss());
    let answer = Parameters::read(&headers, &body).and_then(|parameters| {
        let key = issuer.0.proofs.key_of(&headers, &url, issuer.keys().now());
        let jkt = key.map_err(TokenError::proof)?;
        match parameters.required("grant_type")? {
            "authorization_code" => issuer.exchange_code(&parameters, jkt.as_deref()),
            "refresh_token" => issuer.refresh(&parameters, jkt.as_deref()),
            "client_credentials" => issuer.machine(&parameters, jkt.as_deref()),
            _ => Err(TokenError::new(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "grant_type: unknown",
            )),
        }
    });
    answered(answer)
}

/// `POST /oauth/register` (RFC 7591 §3.1).
async fn register(State(issuer): State<EmbeddedIssuer>, body: Bytes) -> Response {
    let answer = issuer.register(&body);
    let is_registered = answer.is_ok();
    let mut response = answered(answer);
    if is_registered {
        *response.status_mut() = StatusCode::CREATED;
    }
    response
}

/// `POST /oauth/revoke` (RFC 7009 §2.1).
async fn revoke(State(issuer): State<EmbeddedIssuer>, headers: HeaderMap, body: Bytes) -> Response {
    answered(Parameters::read(&headers, &body).and_then(|parameters| issuer.revoke(&parameters)))
}

/// `POST /oauth/introspect` (RFC 7662 §2.1).
async fn introspect(
    State(issuer): State<EmbeddedIssuer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let parameters = Parameters::read(&headers, &body);
    answered(parameters.and_then(|parameters| issuer.introspect(&headers, &parameters)))
}

fn answered(answer: Result<Value, TokenError>) -> Response {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            (error.status, json!({ "error": error.error, "error_description": error.description }))
        }
    };
    (
        status,
        [(header::CACHE_CONTROL, "no-store"), (header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
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
            metadata["revocation_endpoint"] = format!("{iss}oauth/revoke").into();
            metadata["introspection_endpoint"] = format!("{iss}oauth/introspect").into();
            metadata["introspection_endpoint_auth_methods_supported"] =
                json!(["client_secret_basic", "client_secret_post"]);
            metadata["end_session_endpoint"] = format!("{iss}oauth/logout").into();
            metadata["backchannel_logout_supported"] = true.into();
            metadata["backchannel_logout_session_supported"] = true.into();
            metadata["registration_endpoint"] = format!("{iss}oauth/register").into();
            metadata["token_endpoint_auth_methods_supported"] =
                json!(["none", "client_secret_post"]);
            metadata["response_types_supported"] = json!(["code"]);
            metadata["grant_types_supported"] =
                json!(["authorization_code", "refresh_token", "client_credentials"]);
            // Required by OpenID Connect Discovery §3. The MCP SDKs check that they are there.
            metadata["subject_types_supported"] = json!(["public"]);
            metadata["id_token_signing_alg_values_supported"] = json!(["RS256"]);
            metadata["code_challenge_methods_supported"] = json!(["S256"]);
            metadata["dpop_signing_alg_values_supported"] = json!(proofs::ALGORITHMS);
            metadata["authorization_response_iss_parameter_supported"] = true.into();
            metadata["scopes_supported"] =
                json!(IDENTITY_SCOPES.iter().chain(&API_SCOPES).collect::<Vec<_>>());
            metadata.to_string()
        }
        _ => body,
    });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=15"));
    response.into_response()
}

/// The response to an authorization request that gets no code.
enum Refusal {
    /// A page for the user, because no redirect URI can be trusted.
    Page(String),
    /// RFC 6749 §4.1.2.1, RFC 9207 §2.
    Redirect {
        iss: String,
        to: String,
        error: &'static str,
        description: String,
        state: Option<String>,
    },
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Page(text) => {
                let text = format!("<h1>This request cannot go on</h1><p>{text}</p>");
                (StatusCode::BAD_REQUEST, page(&text)).into_response()
            }
            Self::Redirect { iss, to, error, description, state } => redirect(
                &to,
                &[
                    ("error", Some(error)),
                    ("error_description", Some(&description)),
                    ("state", state.as_deref()),
                    ("iss", Some(&iss)),
                ],
            ),
        }
    }
}

/// RFC 6749 §5.2.
struct TokenError {
    status: StatusCode,
    error: &'static str,
    description: Cow<'static, str>,
}

impl TokenError {
    fn new(
        status: StatusCode,
        error: &'static str,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, error, description: description.into() }
    }

    fn request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    fn scope(description: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_scope", description)
    }

    fn grant(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", description)
    }

    fn client(description: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
    }

    /// RFC 9449 §5.
    fn proof(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_dpop_proof", description)
    }
}

struct Parameters(HashMap<String, String>);

impl Parameters {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, TokenError> {
        let media_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if !media_type.starts_with("application/json") {
            return Self::from_form(body);
        }
        let expected = "body: expected a JSON object of strings";
        let members: HashMap<String, Value> =
            serde_json::from_slice(body).map_err(|_| TokenError::request(expected))?;
        let as_text = |(name, value): (String, Value)| match value {
            Value::String(text) => Ok((name, text)),
            // In a form, `claims` is JSON in a string; in JSON it may also be an object.
            Value::Object(_) if name == "claims" => Ok((name, value.to_string())),
            _ => Err(TokenError::request(expected)),
        };
        members.into_iter().map(as_text).collect::<Result<_, TokenError>>().map(Self)
    }

    /// Reads a form or a query.
    fn from_form(form: &[u8]) -> Result<Self, TokenError> {
        let repeated = "each parameter: expected at most once (RFC 6749 §3.2)";
        once_each(form).map(Self).ok_or(TokenError::request(repeated))
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
                    "token" => "token: missing",
                    "audience" => "audience: missing",
                    "id_token_hint" => "id_token_hint: missing",
                    _ => "grant_type: missing",
                },
            )
        })
    }
}

/// The parameters of a form or a query; `None` if one is repeated, because two readers may disagree
/// on which value counts.
fn once_each(form: &[u8]) -> Option<HashMap<String, String>> {
    let mut parameters = HashMap::new();
    let is_first = |(name, value)| parameters.insert(name, value).is_none();
    form_urlencoded::parse(form).into_owned().all(is_first).then_some(parameters)
}

/// Removes the oldest entry if the map is full. An attacker can evict the pending requests of
/// others but cannot block new ones.
fn make_room<T>(kept: &mut HashMap<String, T>, since: impl Fn(&T) -> SystemTime) {
    if kept.len() >= MAX_KEPT {
        let oldest = kept.iter().min_by_key(|(_, one)| since(one)).map(|(name, _)| name.clone());
        kept.remove(&oldest.unwrap_or_default());
    }
}

/// Rejects requests for another host name. Otherwise, a page whose host name resolves to this
/// address (DNS rebinding) could obtain tokens for every API that trusts this issuer.
async fn only_by_its_own_name(
    State(issuer): State<EmbeddedIssuer>,
    request: Request,
    next: Next,
) -> Response {
    let own = issuer.iss().parse::<Uri>().ok().and_then(|iss| iss.authority().cloned());
    let asked = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let is_own = |host: &str, own: &str| {
        let port = own.rsplit_once(':').map_or("", |(_, port)| port);
        host == own || host == format!("localhost:{port}") || host == format!("127.0.0.1:{port}")
    };
    match (asked, own) {
        (Some(host), Some(own)) if !is_own(host, own.as_str()) => {
            (StatusCode::MISDIRECTED_REQUEST, format!("host: expected {own}, found another\n"))
                .into_response()
        }
        _ => next.run(request).await,
    }
}

/// Whether this is a SHA-256 hash in base64url.
fn is_hash(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|hash| hash.len() == 32)
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// Returns the requested scope tokens without duplicates, in the order of the request; identity
/// scopes only for a user.
///
/// Returns an error if `asked` is not a scope (RFC 6749 §3.3) or is too large, with a description.
fn granted(asked: &str, person: bool) -> Result<String, String> {
    if asked.len() > MAX_SCOPE {
        return Err(format!("scope: expected at most {MAX_SCOPE} bytes, found {}", asked.len()));
    }
    let is_allowed = |char: char| matches!(char, ' ' | '!' | '#'..='[' | ']'..='~');
    if let Some(other) = asked.chars().find(|char| !is_allowed(*char)) {
        // As a number: `error_description` may not contain the character either (RFC 6749 §5.2).
        let found = u32::from(other);
        let expected = "printable ASCII without quotation mark and backslash";
        return Err(format!("scope: expected {expected}, found U+{found:04X}"));
    }
    let mut tokens: Vec<&str> = Vec::new();
    for token in asked.split(' ').filter(|token| !token.is_empty()) {
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    if tokens.len() > MAX_SCOPE_TOKENS {
        let found = tokens.len();
        return Err(format!("scope: expected at most {MAX_SCOPE_TOKENS} tokens, found {found}"));
    }
    tokens.retain(|token| person || !IDENTITY_SCOPES.contains(token));
    Ok(tokens.join(" "))
}

/// Parses the requested claims.
///
/// Returns an error if the client may not set them, with a description.
fn custom_claims(text: &str) -> Result<Map<String, Value>, String> {
    if text.len() > MAX_CLAIMS {
        return Err(format!("claims: expected at most {MAX_CLAIMS} bytes, found {}", text.len()));
    }
    let claims = match serde_json::from_str(text) {
        Ok(Value::Object(claims)) => claims,
        Ok(_) => return Err("claims: expected a JSON object, found another JSON value".to_owned()),
        Err(_) => return Err("claims: expected a JSON object, found invalid JSON".to_owned()),
    };
    if claims.len() > MAX_CLAIMS_MEMBERS {
        let found = claims.len();
        return Err(format!(
            "claims: expected at most {MAX_CLAIMS_MEMBERS} members, found {found}"
        ));
    }
    let reserved = RESERVED_CLAIMS.into_iter().find(|name| claims.contains_key(*name));
    match reserved {
        Some(name) => Err(format!("claims: expected no claim that the issuer sets, found {name}")),
        None => Ok(claims),
    }
}

fn has(scope: &str, token: &str) -> bool {
    scope.split(' ').any(|own| own == token)
}

/// RFC 8252 §7.3: a native app may listen on another port for each sign-in. Everything else is
/// compared byte by byte.
fn is_same_but_port(registered: &str, presented: &str) -> bool {
    let without_port = |text: &str| {
        let mut url = reqwest::Url::parse(text).ok().filter(|url| url.as_str() == text)?;
        url.set_port(None).ok().map(|()| url)
    };
    without_port(registered).is_some_and(|own| without_port(presented) == Some(own))
}

/// The name of the family of a refresh token.
fn name_of(token: &str) -> &str {
    token.split('.').next().unwrap_or_default()
}

fn redirect(to: &str, parameters: &[(&str, Option<&str>)]) -> Response {
    let mut query = Serializer::new(String::new());
    for (name, value) in parameters.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        query.append_pair(name, value);
    }
    let location = format!("{to}?{}", query.finish());
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

/// Only the scope comes from the request. [`granted`] has checked that it is printable ASCII; `<`
/// and `&` are escaped.
fn consent_page(request: &str, client: &str, scope: &str) -> Response {
    let scope = scope.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let body = format!(
        "<h1>Sign in to the demo</h1><p><b>{client}</b> wants to act for Alice with the scope:</p><p><code>{scope}</code></p>\
         <form method=post action=/authorize><input type=hidden name=request value={request}>\
         <button name=decision value=allow>Allow</button> <button name=decision value=deny>Deny</button></form>\
         <p><small>A demo: there is no password, and every user is Alice.</small></p>"
    );
    page(&body).into_response()
}

/// An HTML page that other sites cannot frame, to prevent clickjacking (RFC 9700 §4.16).
fn page(body: &str) -> impl IntoResponse {
    let html = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Demo issuer</title>\
         <meta name=viewport content=\"width=device-width\"><link rel=stylesheet href=/issuer.css>\
         <link rel=icon href=data:,></head><body><main>{body}</main></body></html>"
    );
    let policy = "default-src 'none'; style-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")], Html(html))
}
