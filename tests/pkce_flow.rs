//! The demo's embedded issuer, used as a native app uses an authorization server: authorization
//! code with PKCE, refresh, client credentials, and errors by their RFC names. The tokens are for a
//! real API behind the layer.

#[path = "../examples/protected_api/embedded_issuer.rs"]
mod embedded_issuer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use embedded_issuer::sign_out::{Receiver, Receivers};
use embedded_issuer::{EmbeddedIssuer, MACHINE, NATIVE_APP, SINGLE_PAGE_APP, opaque_tokens};
use portcullis::testing::{DpopClient, ProofBuilder, TestClock, TestIssuer};
use portcullis::{AccessToken, Algorithm, Dpop, Issuer, ProtectLayer, Verifier};
use reqwest::{Client, StatusCode, redirect};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tower_http::cors::AllowOrigin;

const AUDIENCE: &str = "https://api.example.com";
/// The audience of another API, which the demo does not know.
const ORDERS: &str = "https://orders.example.com";
/// The redirect URI of the native app.
const CALLBACK: &str = "http://127.0.0.1:8976/callback";
/// The redirect URI of the single-page app.
const PAGE: &str = "http://127.0.0.1:3000/";
const CODE_VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

struct Demo {
    http: Client,
    iss: String,
    api: String,
    issuer: EmbeddedIssuer,
}

/// Starts issuer and API on loopback ports.
async fn demo() -> Demo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let iss = format!("http://{}/", listener.local_addr().unwrap());
    let issuer = EmbeddedIssuer::new(&iss, &[AUDIENCE], "read:messages orders:read", PAGE).unwrap();
    let router =
        issuer.router(AllowOrigin::exact(HeaderValue::from_static("http://127.0.0.1:3000")));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let verifier = Verifier::builder(Issuer::new(&iss, AUDIENCE).unwrap());
    let verifier = verifier.dpop(Dpop::new(&api).unwrap()).build().unwrap();
    let protect = ProtectLayer::new(verifier);
    let app = Router::new()
        .route(
            "/private",
            get(async |token: AccessToken| token.raw_claims().to_owned())
                .route_layer(protect.clone()),
        )
        .route("/scoped", get(async || "scoped").route_layer(protect.scope("read:messages")));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    Demo { http, iss, api, issuer }
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// Sets one of `pairs`, or removes it if `value` is empty.
fn with<'a>(mut pairs: Pairs<'a>, name: &'a str, value: &'a str) -> Pairs<'a> {
    pairs.retain(|(other, _)| *other != name);
    if !value.is_empty() {
        pairs.push((name, value));
    }
    pairs
}

fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(CODE_VERIFIER))
}

fn authorization(challenge: &str) -> Pairs<'_> {
    vec![
        ("response_type", "code"),
        ("client_id", NATIVE_APP),
        ("redirect_uri", CALLBACK),
        ("audience", AUDIENCE),
        ("scope", "openid offline_access read:messages"),
        ("state", "af0ifjsldkj"),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
        ("prompt", "none"),
    ]
}

fn exchange(code: &str) -> Pairs<'_> {
    vec![
        ("grant_type", "authorization_code"),
        ("client_id", NATIVE_APP),
        ("redirect_uri", CALLBACK),
        ("code", code),
        ("code_verifier", CODE_VERIFIER),
    ]
}

fn machine() -> Pairs<'static> {
    let (id, secret) = MACHINE;
    vec![
        ("grant_type", "client_credentials"),
        ("client_id", id),
        ("client_secret", secret),
        ("audience", AUDIENCE),
        ("scope", "openid read:messages"),
    ]
}

impl Demo {
    async fn authorize(&self, query: &Pairs<'_>) -> reqwest::Response {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        self.http.get(format!("{}authorize?{query}", self.iss)).send().await.unwrap()
    }

    async fn code(&self) -> String {
        let answer = redirected(&self.authorize(&authorization(&challenge())).await);
        answer["code"].clone()
    }

    async fn token(&self, form: &Pairs<'_>) -> (StatusCode, Value) {
        self.token_with(form, &[]).await
    }

    /// A token request with these headers `DPoP`.
    async fn token_with(&self, form: &Pairs<'_>, proofs: &[String]) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}oauth/token", self.iss)).form(form);
        let request = proofs.iter().fold(request, |request, proof| request.header("dpop", proof));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        (response.status(), response.json().await.unwrap())
    }

    /// A proof for the token endpoint.
    fn proof<'a>(&self, client: &'a DpopClient) -> ProofBuilder<'a> {
        let url = format!("{}oauth/token", self.iss);
        client.proof("POST", &url, "").without_claim("ath").at(self.issuer.keys().now())
    }

    /// The `error` of a token request with a proof of this key, if any; `none` if it succeeds.
    async fn outcome(&self, form: &Pairs<'_>, client: Option<&DpopClient>) -> String {
        let proofs: Vec<_> = client.iter().map(|client| self.proof(client).build()).collect();
        let (_, body) = self.token_with(form, &proofs).await;
        body["error"].as_str().unwrap_or("none").to_owned()
    }

    /// What the API learns about a token.
    async fn introspect(&self, token: &str) -> Value {
        let (id, secret) = opaque_tokens::API_CLIENT;
        let request = self.http.post(format!("{}oauth/introspect", self.iss));
        let request = request.form(&[("token", token)]).basic_auth(id, Some(secret));
        request.send().await.unwrap().json().await.unwrap()
    }

    /// The status and `error` of an error response.
    async fn refusal(&self, form: &Pairs<'_>) -> (u16, String) {
        let (status, body) = self.token(form).await;
        (status.as_u16(), body["error"].as_str().unwrap_or("none").to_owned())
    }

    /// The `error` and `error_description` of an error response with status 400.
    async fn error(&self, form: &Pairs<'_>) -> (String, String) {
        let (status, body) = self.token(form).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (text("error"), text("error_description"))
    }

    /// The token response of a new sign-in.
    async fn sign_in(&self) -> Value {
        self.token(&exchange(&self.code().await)).await.1
    }

    /// A request to end a session.
    async fn sign_out(&self, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}oauth/logout", self.iss);
        let response = self.http.post(url).form(form).send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn post_json(&self, body: &Value) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}oauth/token", self.iss)).json(body);
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn call(&self, path: &str, token: &str) -> (StatusCode, String) {
        let response =
            self.http.get(format!("{}{path}", self.api)).bearer_auth(token).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }
}

/// The query of the redirect to the app.
fn redirected(response: &reqwest::Response) -> HashMap<String, String> {
    assert_eq!(response.status(), StatusCode::FOUND);
    let location = response.headers()["location"].to_str().unwrap();
    let query = [CALLBACK, PAGE]
        .iter()
        .find_map(|uri| location.strip_prefix(uri)?.strip_prefix('?'))
        .unwrap_or_else(|| panic!("{location}"));
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[tokio::test]
async fn a_native_app_signs_in_and_refreshes_its_token() {
    let demo = demo().await;
    let answer = redirected(&demo.authorize(&authorization(&challenge())).await);
    assert_eq!(answer["state"], "af0ifjsldkj");
    assert_eq!(answer["iss"], demo.iss, "RFC 9207");

    let (status, tokens) = demo.token(&exchange(&answer["code"])).await;
    assert_eq!(status, StatusCode::OK, "{tokens}");
    assert_eq!(tokens["token_type"], "Bearer");
    let (status, claims) = demo.call("/private", tokens["access_token"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    let claims: Value = serde_json::from_str(&claims).unwrap();
    assert_eq!(claims["iss"], demo.iss);
    assert_eq!(claims["aud"], json!([AUDIENCE, format!("{}userinfo", demo.iss)]));
    assert_eq!(claims["azp"], NATIVE_APP);
    assert_eq!(claims["scope"], "openid offline_access read:messages");
    assert_eq!(claims["permissions"], json!(["read:messages"]));
    assert_eq!(claims["https://example.com/plan"], "pro");

    let refresh = tokens["refresh_token"].as_str().unwrap();
    let form = |token| {
        vec![("grant_type", "refresh_token"), ("client_id", NATIVE_APP), ("refresh_token", token)]
    };
    let (status, renewed) = demo.token(&form(refresh)).await;
    assert_eq!(status, StatusCode::OK, "{renewed}");
    let renewed_refresh = renewed["refresh_token"].as_str().unwrap();
    assert_ne!(renewed_refresh, refresh, "rotated");
    assert_ne!(renewed["access_token"], tokens["access_token"]);
    assert_eq!(
        demo.call("/scoped", renewed["access_token"].as_str().unwrap()).await.0,
        StatusCode::OK
    );

    assert_eq!(
        demo.refusal(&form(refresh)).await,
        (400, "invalid_grant".into()),
        "reuse of a refresh token counts as theft"
    );
    assert_eq!(
        demo.refusal(&form(renewed_refresh)).await,
        (400, "invalid_grant".into()),
        "its family is revoked"
    );
    assert_eq!(demo.refusal(&form("unknown")).await, (400, "invalid_grant".into()));
}

#[tokio::test]
async fn the_id_token_is_not_accepted_as_an_access_token() {
    let demo = demo().await;
    let (_, tokens) = demo.token(&exchange(&demo.code().await)).await;
    let id_token = tokens["id_token"].as_str().unwrap();
    assert_eq!(demo.call("/private", id_token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_user_must_consent_unless_prompt_is_none() {
    let demo = demo().await;
    let challenge = challenge();
    for (decision, expected) in [("allow", "code"), ("deny", "error")] {
        let page = demo.authorize(&with(authorization(&challenge), "prompt", "")).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert!(
            page.headers()["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("frame-ancestors 'none'")
        );
        let page = page.text().await.unwrap();
        let request = page.split("name=request value=").nth(1).unwrap().split('>').next().unwrap();
        let form = [("request", request), ("decision", decision)];
        let decide = || demo.http.post(format!("{}authorize", demo.iss)).form(&form).send();
        assert!(redirected(&decide().await.unwrap()).contains_key(expected), "{decision}");
        assert_eq!(
            decide().await.unwrap().status(),
            StatusCode::BAD_REQUEST,
            "{decision}, a second time"
        );
    }
}

#[tokio::test]
async fn requested_scopes_are_granted() {
    struct Case {
        asked: &'static str,
        granted: &'static str,
        refresh: bool,
        id: bool,
        scoped: u16,
    }

    let demo = demo().await;
    let challenge = challenge();
    for Case { asked, granted, refresh, id, scoped } in [
        Case {
            asked: "openid offline_access read:messages",
            granted: "openid offline_access read:messages",
            refresh: true,
            id: true,
            scoped: 200,
        },
        Case {
            asked: "write:messages",
            granted: "write:messages",
            refresh: false,
            id: false,
            scoped: 403,
        },
        Case {
            asked: "read:messages admin",
            granted: "read:messages admin",
            refresh: false,
            id: false,
            scoped: 200,
        },
        Case {
            asked: "invoices:pay openid",
            granted: "invoices:pay openid",
            refresh: false,
            id: true,
            scoped: 403,
        },
        Case {
            asked: "read:messages read:messages",
            granted: "read:messages",
            refresh: false,
            id: false,
            scoped: 200,
        },
        Case {
            asked: " read:messages  admin ",
            granted: "read:messages admin",
            refresh: false,
            id: false,
            scoped: 200,
        },
        Case {
            asked: "orders:read",
            granted: "orders:read",
            refresh: false,
            id: false,
            scoped: 403,
        },
        Case { asked: "", granted: "", refresh: false, id: false, scoped: 403 },
    ] {
        let answer =
            redirected(&demo.authorize(&with(authorization(&challenge), "scope", asked)).await);
        let (_, tokens) = demo.token(&exchange(&answer["code"])).await;
        assert_eq!(tokens["scope"], granted, "{asked}");
        assert_eq!(
            (tokens.get("refresh_token").is_some(), tokens.get("id_token").is_some()),
            (refresh, id),
            "{asked}"
        );
        let (status, _) = demo.call("/scoped", tokens["access_token"].as_str().unwrap()).await;
        assert_eq!(status.as_u16(), scoped, "{asked}");
    }
}

#[tokio::test]
async fn invalid_authorization_requests_receive_no_code() {
    struct NotRedirected<'a> {
        name: &'static str,
        parameter: &'static str,
        value: &'a str,
    }

    struct Redirected {
        name: &'static str,
        parameter: &'static str,
        value: &'static str,
        error: &'static str,
    }

    let demo = demo().await;
    let challenge = challenge();
    // Without a trusted redirect URI, there is no redirect.
    for NotRedirected { name, parameter, value } in [
        NotRedirected { name: "unknown client", parameter: "client_id", value: "other" },
        NotRedirected { name: "no client", parameter: "client_id", value: "" },
        NotRedirected { name: "no redirect_uri", parameter: "redirect_uri", value: "" },
        NotRedirected {
            name: "another redirect_uri",
            parameter: "redirect_uri",
            value: "https://evil.example/callback",
        },
        NotRedirected {
            name: "a longer redirect_uri",
            parameter: "redirect_uri",
            value: "http://127.0.0.1:8976/callback/x",
        },
        NotRedirected {
            name: "another host",
            parameter: "redirect_uri",
            value: "http://127.0.0.2:8976/callback",
        },
        NotRedirected {
            name: "no port",
            parameter: "redirect_uri",
            value: "http://127.0.0.1/callback",
        },
        NotRedirected {
            name: "an invalid port",
            parameter: "redirect_uri",
            value: "http://127.0.0.1:65536/callback",
        },
        NotRedirected {
            name: "port 0",
            parameter: "redirect_uri",
            value: "http://127.0.0.1:0/callback",
        },
        NotRedirected {
            name: "a port in another spelling",
            parameter: "redirect_uri",
            value: "http://127.0.0.1:08976/callback",
        },
        NotRedirected {
            name: "a host in the userinfo",
            parameter: "redirect_uri",
            value: "http://127.0.0.1:1@evil.example/callback",
        },
        NotRedirected {
            name: "another spelling",
            parameter: "redirect_uri",
            value: "http://127.0.0.1:8976/Callback",
        },
        NotRedirected {
            name: "another app's redirect_uri",
            parameter: "redirect_uri",
            value: PAGE,
        },
        NotRedirected { name: "another app", parameter: "client_id", value: SINGLE_PAGE_APP },
        NotRedirected { name: "a huge state", parameter: "state", value: &"x".repeat(1025) },
    ] {
        let response = demo.authorize(&with(authorization(&challenge), parameter, value)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name}");
        assert!(!response.headers().contains_key("location"), "{name}");
        let page = response.text().await.unwrap();
        assert!(page.contains("This request cannot go on"), "{name}: {page}");
        assert!(!page.contains("evil"), "{name}: the page contains nothing of the request");
    }
    for Redirected { name, parameter, value, error } in [
        Redirected {
            name: "no response_type",
            parameter: "response_type",
            value: "",
            error: "unsupported_response_type",
        },
        Redirected {
            name: "the implicit flow",
            parameter: "response_type",
            value: "token",
            error: "unsupported_response_type",
        },
        Redirected {
            name: "no audience",
            parameter: "audience",
            value: "",
            error: "access_denied",
        },
        Redirected {
            name: "unknown audience",
            parameter: "audience",
            value: "https://other.example",
            error: "access_denied",
        },
        Redirected {
            name: "no challenge",
            parameter: "code_challenge",
            value: "",
            error: "invalid_request",
        },
        Redirected {
            name: "a challenge that is not a hash",
            parameter: "code_challenge",
            value: "abc",
            error: "invalid_request",
        },
        Redirected {
            name: "plain",
            parameter: "code_challenge_method",
            value: "plain",
            error: "invalid_request",
        },
        Redirected {
            name: "no method, which means plain",
            parameter: "code_challenge_method",
            value: "",
            error: "invalid_request",
        },
    ] {
        let answer =
            redirected(&demo.authorize(&with(authorization(&challenge), parameter, value)).await);
        assert_eq!(
            (answer["error"].as_str(), answer["state"].as_str()),
            (error, "af0ifjsldkj"),
            "{name}"
        );
        assert_eq!(answer["iss"], demo.iss, "{name}: RFC 9207");
        assert!(!answer.contains_key("code"), "{name}");
    }
}

#[tokio::test]
async fn invalid_token_requests_receive_no_token() {
    struct Case {
        name: &'static str,
        parameter: &'static str,
        value: String,
        status: u16,
        error: &'static str,
    }

    let demo = demo().await;
    for Case { name, parameter, value, status, error } in [
        Case {
            name: "another verifier",
            parameter: "code_verifier",
            value: "x".repeat(43),
            status: 400,
            error: "invalid_grant",
        },
        Case {
            name: "a short verifier",
            parameter: "code_verifier",
            value: "x".repeat(42),
            status: 400,
            error: "invalid_grant",
        },
        Case {
            name: "a long verifier",
            parameter: "code_verifier",
            value: "x".repeat(129),
            status: 400,
            error: "invalid_grant",
        },
        Case {
            name: "a verifier with a space",
            parameter: "code_verifier",
            value: " ".repeat(43),
            status: 400,
            error: "invalid_grant",
        },
        Case {
            name: "no verifier",
            parameter: "code_verifier",
            value: String::new(),
            status: 400,
            error: "invalid_request",
        },
        Case {
            name: "the challenge as verifier",
            parameter: "code_verifier",
            value: challenge(),
            status: 400,
            error: "invalid_grant",
        },
        Case {
            name: "another redirect_uri",
            parameter: "redirect_uri",
            value: "http://127.0.0.1:1/".into(),
            status: 400,
            error: "invalid_grant",
        },
        Case {
            name: "no redirect_uri",
            parameter: "redirect_uri",
            value: String::new(),
            status: 400,
            error: "invalid_request",
        },
        Case {
            name: "another code",
            parameter: "code",
            value: "x".repeat(43),
            status: 400,
            error: "invalid_grant",
        },
        Case {
            name: "no code",
            parameter: "code",
            value: String::new(),
            status: 400,
            error: "invalid_request",
        },
        Case {
            name: "another client",
            parameter: "client_id",
            value: "other".into(),
            status: 401,
            error: "invalid_client",
        },
        Case {
            name: "another grant",
            parameter: "grant_type",
            value: "password".into(),
            status: 400,
            error: "unsupported_grant_type",
        },
        Case {
            name: "no grant",
            parameter: "grant_type",
            value: String::new(),
            status: 400,
            error: "invalid_request",
        },
    ] {
        let code = demo.code().await;
        let refusal = demo.refusal(&with(exchange(&code), parameter, &value)).await;
        assert_eq!(refusal, (status, error.to_owned()), "{name}");
    }
}

/// RFC 6749 §4.1.2: reuse of a code counts as theft and revokes the tokens issued for it.
#[tokio::test]
async fn a_code_can_be_used_only_once() {
    let demo = demo().await;
    let code = demo.code().await;
    let (status, tokens) = demo.token(&exchange(&code)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(demo.refusal(&exchange(&code)).await, (400, "invalid_grant".into()));
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let form = vec![
        ("grant_type", "refresh_token"),
        ("client_id", NATIVE_APP),
        ("refresh_token", refresh),
    ];
    assert_eq!(demo.refusal(&form).await, (400, "invalid_grant".into()));
}

#[tokio::test]
async fn client_credentials_are_accepted_as_form_and_json() {
    struct Case<'a> {
        name: &'static str,
        parameter: &'static str,
        value: &'a str,
        status: u16,
        error: &'static str,
    }

    let demo = demo().await;
    let pairs = machine();
    let json: HashMap<_, _> = pairs.iter().copied().collect();
    let by_json =
        demo.http.post(format!("{}oauth/token", demo.iss)).json(&json).send().await.unwrap();
    for tokens in [demo.token(&pairs).await.1, by_json.json().await.unwrap()] {
        assert_eq!(tokens["scope"], "read:messages", "`openid` is not granted to machines");
        assert!(tokens.get("refresh_token").is_none());
        let (status, claims) =
            demo.call("/private", tokens["access_token"].as_str().unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(claims.contains(&format!("\"sub\":\"{}@clients\"", MACHINE.0)), "{claims}");
    }
    for Case { name, parameter, value, status, error } in [
        Case {
            name: "wrong secret",
            parameter: "client_secret",
            value: "x",
            status: 401,
            error: "invalid_client",
        },
        Case {
            name: "no secret",
            parameter: "client_secret",
            value: "",
            status: 401,
            error: "invalid_client",
        },
        Case {
            name: "the native app",
            parameter: "client_id",
            value: NATIVE_APP,
            status: 401,
            error: "invalid_client",
        },
        Case {
            name: "a long audience",
            parameter: "audience",
            value: &"x".repeat(1_025),
            status: 400,
            error: "invalid_request",
        },
        Case {
            name: "no audience",
            parameter: "audience",
            value: "",
            status: 400,
            error: "invalid_request",
        },
    ] {
        let refusal = demo.refusal(&with(pairs.clone(), parameter, value)).await;
        assert_eq!(refusal, (status, error.to_owned()), "{name}");
    }
    let not_json = demo
        .http
        .post(format!("{}oauth/token", demo.iss))
        .header("content-type", "application/json");
    assert_eq!(not_json.body("{").send().await.unwrap().status(), StatusCode::BAD_REQUEST);
}

/// The demo can serve as the issuer of an API under development.
#[tokio::test]
async fn client_credentials_select_audience_scope_and_claims() {
    let demo = demo().await;
    let verifier = Verifier::new(Issuer::new(&demo.iss, ORDERS).unwrap()).unwrap();
    let claims = json!({ "org_id": "org_1", "roles": ["clerk"], "permissions": ["refund"] });
    let text = claims.to_string();
    let pairs = with(machine(), "audience", ORDERS);
    let pairs = with(with(pairs, "scope", "openid invoices:pay orders:read"), "claims", &text);

    // JSON may have the claims as an object, or as a string as in a form.
    let members = pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    let as_text = Value::Object(members.collect());
    let mut as_object = as_text.clone();
    as_object["claims"] = claims;
    for (name, (status, tokens)) in [
        ("form", demo.token(&pairs).await),
        ("text in JSON", demo.post_json(&as_text).await),
        ("an object in JSON", demo.post_json(&as_object).await),
    ] {
        assert_eq!(status, StatusCode::OK, "{name}: {tokens}");
        assert_eq!(tokens["scope"], "invoices:pay orders:read", "{name}");
        let access_token = tokens["access_token"].as_str().unwrap();
        let token = verifier.verify(access_token).await.unwrap();
        assert_eq!(token.audience().collect::<Vec<_>>(), [ORDERS], "{name}");
        assert_eq!(token.scope().as_str(), "invoices:pay orders:read", "{name}");
        assert_eq!(token.claim("org_id"), Some(&json!("org_1")), "{name}");
        assert!(token.has_role("clerk"), "{name}");
        assert_eq!(token.claim("permissions"), Some(&json!(["refund"])), "{name}: not the scope");
        let (status, _) = demo.call("/private", access_token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}: for another API");
    }
}

#[tokio::test]
async fn client_credentials_have_a_default_scope() {
    struct Case {
        asked: &'static str,
        granted: &'static str,
        scoped: u16,
    }

    let demo = demo().await;
    for Case { asked, granted, scoped } in [
        Case { asked: "", granted: "read:messages write:messages orders:read", scoped: 200 },
        Case { asked: "invoices:pay", granted: "invoices:pay", scoped: 403 },
        Case { asked: "openid", granted: "", scoped: 403 },
    ] {
        let (_, tokens) = demo.token(&with(machine(), "scope", asked)).await;
        assert_eq!(tokens["scope"], granted, "{asked}");
        let token = tokens["access_token"].as_str().unwrap();
        assert_eq!(demo.call("/private", token).await.0, StatusCode::OK, "{asked}");
        assert_eq!(demo.call("/scoped", token).await.0.as_u16(), scoped, "{asked}");
    }
}

/// RFC 6749 §3.3 and the limits of the issuer.
#[tokio::test]
async fn scopes_have_limits() {
    struct Refused {
        name: &'static str,
        scope: String,
        found: &'static str,
    }

    let demo = demo().await;
    let challenge = challenge();
    let tokens = |count: usize| {
        let tokens: Vec<_> = (0..count).map(|number| format!("scope:{number}")).collect();
        tokens.join(" ")
    };
    for (name, scope) in [
        ("20 tokens", tokens(20)),
        ("one token, 21 times", ["read:messages"; 21].join(" ")),
        ("1,024 bytes", "x".repeat(1_024)),
        ("every special character", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~".to_owned()),
    ] {
        let (status, answer) = demo.token(&with(machine(), "scope", &scope)).await;
        assert_eq!(status, StatusCode::OK, "{name}: {answer}");
        let asked = with(authorization(&challenge), "scope", &scope);
        let query = redirected(&demo.authorize(&asked).await);
        assert!(query.contains_key("code"), "{name}: {query:?}");
    }
    for Refused { name, scope, found } in [
        Refused { name: "21 tokens", scope: tokens(21), found: "found 21" },
        Refused { name: "1,025 bytes", scope: "x".repeat(1_025), found: "found 1025" },
        Refused { name: "a quotation mark", scope: "a\"b".to_owned(), found: "found U+0022" },
        Refused { name: "a backslash", scope: "a\\b".to_owned(), found: "found U+005C" },
        Refused { name: "a tab", scope: "a\tb".to_owned(), found: "found U+0009" },
        Refused { name: "a letter outside ASCII", scope: "ä".to_owned(), found: "found U+00E4" },
    ] {
        let (error, sentence) = demo.error(&with(machine(), "scope", &scope)).await;
        assert_eq!(error, "invalid_scope", "{name}");
        assert!(sentence.ends_with(found), "{name}: {sentence}");
        let asked = with(authorization(&challenge), "scope", &scope);
        let query = redirected(&demo.authorize(&asked).await);
        assert_eq!(query["error"], "invalid_scope", "{name}");
        assert_eq!(query["error_description"], sentence, "{name}");
    }
}

/// The consent page shows the scope as text, whatever an app requests.
#[tokio::test]
async fn scopes_are_escaped_on_the_consent_page() {
    let demo = demo().await;
    let challenge = challenge();
    let asked = with(with(authorization(&challenge), "scope", "<b>&lt;"), "prompt", "");
    let page = demo.authorize(&asked).await.text().await.unwrap();
    assert!(page.contains("<code>&lt;b&gt;&amp;lt;</code>"), "{page}");
}

#[tokio::test]
async fn claims_have_limits() {
    struct Refused {
        name: &'static str,
        claims: String,
        found: &'static str,
    }

    let demo = demo().await;
    let members = |count: usize| {
        let members: Vec<_> = (0..count).map(|number| format!("\"c{number}\":{number}")).collect();
        format!("{{{}}}", members.join(","))
    };
    let bytes = |count: usize| format!("{{\"c\":\"{}\"}}", "x".repeat(count - 8));
    assert_eq!(bytes(4_096).len(), 4_096);
    for (name, claims) in [
        ("no member", "{}".to_owned()),
        ("a reserved name within", "{\"org\":{\"sub\":\"org_1\"}}".to_owned()),
        ("50 members", members(50)),
        ("4,096 bytes", bytes(4_096)),
    ] {
        let (status, answer) = demo.token(&with(machine(), "claims", &claims)).await;
        assert_eq!(status, StatusCode::OK, "{name}: {answer}");
        let token = answer["access_token"].as_str().unwrap();
        assert_eq!(demo.call("/private", token).await.0, StatusCode::OK, "{name}");
    }
    for Refused { name, claims, found } in [
        Refused { name: "51 members", claims: members(51), found: "found 51" },
        Refused { name: "4,097 bytes", claims: bytes(4_097), found: "found 4097" },
        Refused { name: "an array", claims: "[]".to_owned(), found: "found another JSON value" },
        Refused {
            name: "a string",
            claims: "\"org_id\"".to_owned(),
            found: "found another JSON value",
        },
        Refused {
            name: "a truncated object",
            claims: "{\"org_id\":".to_owned(),
            found: "found invalid JSON",
        },
        Refused {
            name: "not JSON",
            claims: "org_id=org_1".to_owned(),
            found: "found invalid JSON",
        },
    ] {
        let (error, sentence) = demo.error(&with(machine(), "claims", &claims)).await;
        assert_eq!(error, "invalid_request", "{name}");
        assert!(sentence.ends_with(found), "{name}: {sentence}");
    }
    for name in
        ["iss", "aud", "exp", "iat", "nbf", "jti", "sub", "client_id", "scope", "cnf", "events"]
    {
        let claims = json!({ "org_id": "org_1", name: 1 }).to_string();
        let (error, sentence) = demo.error(&with(machine(), "claims", &claims)).await;
        assert_eq!(error, "invalid_request", "{name}");
        assert!(sentence.ends_with(&format!("found {name}")), "{sentence}");
    }
    // In a JSON body, every parameter except `claims` must be a string.
    for (name, value) in [("claims", json!([])), ("scope", json!({})), ("audience", json!(1))] {
        let body = json!({ "grant_type": "client_credentials", name: value });
        let (status, answer) = demo.post_json(&body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}");
        assert_eq!(answer["error"], "invalid_request", "{name}");
    }
}

#[tokio::test]
async fn clients_can_use_the_metadata() {
    let demo = demo().await;
    let url = format!("{}.well-known/openid-configuration", demo.iss);
    let metadata: Value = demo.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["issuer"], demo.iss);
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(metadata["dpop_signing_alg_values_supported"], json!(["ES256", "ES384", "EdDSA"]));
    // The members that OpenID Connect Discovery §3 requires: clients check them all.
    for required in [
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "response_types_supported",
        "subject_types_supported",
        "id_token_signing_alg_values_supported",
    ] {
        assert!(!metadata[required].is_null(), "{required}");
    }
    assert_eq!(metadata["end_session_endpoint"], format!("{}oauth/logout", demo.iss));
    assert_eq!(metadata["backchannel_logout_supported"], true);
    assert_eq!(metadata["backchannel_logout_session_supported"], true);
    let keys: Value = demo
        .http
        .get(metadata["jwks_uri"].as_str().unwrap())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(keys["keys"][0]["kid"], demo.issuer.keys().jwks_json()["keys"][0]["kid"]);
    assert!(keys["keys"][0].get("d").is_none());
}

/// RFC 6749 §4.1.2: a code is valid for one minute by the issuer's clock.
#[tokio::test]
async fn a_code_expires() {
    let (demo, clock) = (demo().await, TestClock::new());
    demo.issuer.keys().set_clock(&clock);
    for (seconds, expected) in [(59, 200), (60, 400)] {
        let code = demo.code().await;
        clock.advance(Duration::from_secs(seconds));
        let (status, answer) = demo.token(&exchange(&code)).await;
        assert_eq!(status.as_u16(), expected, "after {seconds} seconds: {answer}");
        if expected == 400 {
            assert_eq!(answer["error"], "invalid_grant");
        }
    }
}

/// RFC 7009: revocation applies to all tokens of one sign-in, and not to those of other clients.
#[tokio::test]
async fn refresh_tokens_can_be_revoked() {
    let demo = demo().await;
    let revoke = async |client: &str, token: &str| {
        let form = [("client_id", client), ("token", token)];
        demo.http
            .post(format!("{}oauth/revoke", demo.iss))
            .form(&form)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let (_, tokens) = demo.token(&exchange(&demo.code().await)).await;
    let form = |token| {
        vec![("grant_type", "refresh_token"), ("client_id", NATIVE_APP), ("refresh_token", token)]
    };
    let (_, renewed) = demo.token(&form(tokens["refresh_token"].as_str().unwrap())).await;
    let refresh = renewed["refresh_token"].as_str().unwrap();

    assert_eq!(
        revoke(SINGLE_PAGE_APP, refresh).await,
        200,
        "another client's token: success without effect"
    );
    assert_eq!(revoke(NATIVE_APP, "unknown").await, 200);
    assert_eq!(revoke("unknown", refresh).await, 401);
    assert_eq!(revoke(NATIVE_APP, "").await, 400);
    let stolen = with(form(refresh), "client_id", SINGLE_PAGE_APP);
    assert_eq!(demo.refusal(&stolen).await, (400, "invalid_grant".into()), "by another client");
    let (status, renewed) = demo.token(&form(refresh)).await;
    assert_eq!(status, StatusCode::OK, "{renewed}");

    let refresh = renewed["refresh_token"].as_str().unwrap();
    assert_eq!(revoke(NATIVE_APP, refresh).await, 200);
    assert_eq!(demo.refusal(&form(refresh)).await, (400, "invalid_grant".into()));
}

/// RFC 8252 §7.3: a native app may use any loopback port.
#[tokio::test]
async fn a_native_app_may_listen_on_any_port() {
    let demo = demo().await;
    let challenge = challenge();
    let elsewhere = "http://127.0.0.1:40404/callback";
    let response =
        demo.authorize(&with(authorization(&challenge), "redirect_uri", elsewhere)).await;
    let location = response.headers()["location"].to_str().unwrap();
    let query = location.strip_prefix(elsewhere).and_then(|rest| rest.strip_prefix('?')).unwrap();
    let (_, code) =
        form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "code").unwrap();
    let (status, _) = demo.token(&with(exchange(&code), "redirect_uri", elsewhere)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn the_page_signs_in_as_a_separate_client() {
    let demo = demo().await;
    let challenge = challenge();
    let of_page = |pairs| with(with(pairs, "client_id", SINGLE_PAGE_APP), "redirect_uri", PAGE);
    let code = async || {
        redirected(&demo.authorize(&of_page(authorization(&challenge))).await)["code"].clone()
    };
    let used = code().await;
    let (status, tokens) = demo.token(&of_page(exchange(&used))).await;
    assert_eq!(status, StatusCode::OK, "{tokens}");
    let (_, claims) = demo.call("/private", tokens["access_token"].as_str().unwrap()).await;
    assert!(claims.contains(&format!("\"azp\":\"{SINGLE_PAGE_APP}\"")), "{claims}");

    // RFC 6749 §4.1.3: a code is valid only for the client to which it was issued.
    let stolen = code().await;
    assert_eq!(
        demo.refusal(&with(exchange(&stolen), "redirect_uri", PAGE)).await,
        (400, "invalid_grant".into())
    );

    // Only the page's origin may read the responses, and its preflights are accepted.
    for (origin, expected) in
        [("http://127.0.0.1:3000", true), ("http://127.0.0.1:3001", false), ("null", false)]
    {
        let request = |method| {
            demo.http.request(method, format!("{}oauth/token", demo.iss)).header("origin", origin)
        };
        let preflight =
            request(reqwest::Method::OPTIONS).header("access-control-request-method", "POST");
        for request in [preflight, request(reqwest::Method::POST)] {
            let answer = request.send().await.unwrap();
            let allowed = answer
                .headers()
                .get("access-control-allow-origin")
                .is_some_and(|value| value == origin);
            assert_eq!(allowed, expected, "{origin}");
            if let Some(headers) = answer.headers().get("access-control-allow-headers") {
                assert!(headers.to_str().unwrap().contains("dpop"), "{origin}: {headers:?}");
            }
        }
    }
}

/// Each token is rejected for the one reason in its name.
#[tokio::test]
async fn each_bad_token_has_a_single_fault() {
    let demo = demo().await;
    let verifier = Verifier::new(demo.issuer.keys().issuer()).unwrap();
    for (case, expected) in [
        ("expired", "expired"),
        ("other-audience", "wrong_audience"),
        ("other-issuer", "unknown_issuer"),
        ("unknown-kid", "unknown_key"),
        ("alg-none", "unsupported_algorithm"),
        ("hs-confusion", "unsupported_algorithm"),
        ("tampered", "bad_signature"),
    ] {
        let token = demo.issuer.bad_token(case).unwrap();
        assert_eq!(verifier.verify(&token).await.unwrap_err().code(), expected, "{case}");
    }
    assert!(demo.issuer.bad_token("good").is_none());
}

/// RFC 6749 §3.1, §3.2: for a duplicate parameter, two parsers may choose different values.
#[tokio::test]
async fn duplicate_parameters_are_rejected() {
    let demo = demo().await;
    let challenge = challenge();
    for (name, value) in
        [("redirect_uri", "https://evil.example/"), ("code_challenge_method", "plain"), ("x", "1")]
    {
        let mut twice = authorization(&challenge);
        twice.extend([(name, value), (name, value)]);
        assert_eq!(demo.authorize(&twice).await.status(), StatusCode::BAD_REQUEST, "{name}");
    }
    let code = demo.code().await;
    let mut twice = exchange(&code);
    twice.push(("code_verifier", CODE_VERIFIER));
    assert_eq!(demo.refusal(&twice).await, (400, "invalid_request".into()));
}

/// Any page can make a browser request codes that are never used. Further requests still receive
/// one.
#[tokio::test]
async fn requests_beyond_the_limit_evict_the_oldest_codes() {
    let demo = demo().await;
    let challenge = challenge();
    let asked = with(authorization(&challenge), "prompt", "");
    for _ in 0..1_001 {
        demo.code().await;
        assert_eq!(demo.authorize(&asked).await.status(), StatusCode::OK);
    }
    let (status, _) = demo.token(&exchange(&demo.code().await)).await;
    assert_eq!(status, StatusCode::OK);
}

/// RFC 8707: `resource` is the standard name of `audience`, which only some providers have.
#[tokio::test]
async fn the_resource_parameter_names_the_api() {
    let demo = demo().await;
    let challenge = challenge();
    let query = with(with(authorization(&challenge), "audience", ""), "resource", AUDIENCE);
    let code = redirected(&demo.authorize(&query).await)["code"].clone();
    let (status, body) = demo.token(&with(exchange(&code), "resource", AUDIENCE)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(demo.call("/private", body["access_token"].as_str().unwrap()).await.0, 200);

    let query = with(query, "resource", ORDERS);
    assert_eq!(redirected(&demo.authorize(&query).await)["error"], "invalid_target");
    let code = demo.code().await;
    assert_eq!(demo.error(&with(exchange(&code), "resource", ORDERS)).await.0, "invalid_target");
    let (_, body) = demo.token(&with(with(machine(), "audience", ""), "resource", AUDIENCE)).await;
    assert_eq!(demo.call("/private", body["access_token"].as_str().unwrap()).await.0, 200);
}

/// RFC 7591: a native app registers itself, with redirect URIs on loopback only.
#[tokio::test]
async fn native_apps_can_register_themselves() {
    let demo = demo().await;
    let register = async |body: Value| {
        let request = demo.http.post(format!("{}oauth/register", demo.iss)).json(&body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let own = "http://127.0.0.1:4567/oauth/callback";
    let (status, app) = register(json!({ "redirect_uris": [own], "client_name": "x" })).await;
    assert_eq!((status, app["token_endpoint_auth_method"].as_str()), (201, Some("none")));
    let id = app["client_id"].as_str().unwrap();

    let challenge = challenge();
    let query = with(authorization(&challenge), "client_id", id);
    let response = demo.authorize(&with(query.clone(), "redirect_uri", own)).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let code = location.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let form = with(with(exchange(code), "client_id", id), "redirect_uri", own);
    let (status, body) = demo.token(&form).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    // On another port, but compared byte by byte otherwise.
    for (other, status) in [
        ("http://127.0.0.1:9999/oauth/callback", 302),
        ("http://127.0.0.1:4567/oauth/callback/", 400),
        ("http://127.0.0.1:4567/oauth/../oauth/callback", 400),
        ("http://localhost:4567/oauth/callback", 400),
        ("http://127.0.0.1:4567@evil.example/oauth/callback", 400),
        (CALLBACK, 400),
    ] {
        let response = demo.authorize(&with(query.clone(), "redirect_uri", other)).await;
        assert_eq!(response.status(), status, "{other}");
    }

    struct Case {
        name: &'static str,
        body: Value,
        error: &'static str,
    }
    for Case { name, body, error } in [
        Case { name: "no URI", body: json!({}), error: "invalid_redirect_uri" },
        Case {
            name: "an empty list",
            body: json!({ "redirect_uris": [] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "eleven",
            body: json!({ "redirect_uris": vec![own; 11] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "another machine",
            body: json!({ "redirect_uris": ["http://evil.example/callback"] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "one of another machine",
            body: json!({ "redirect_uris": [own, "https://evil.example/callback"] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "a user named loopback",
            body: json!({ "redirect_uris": ["http://127.0.0.1@evil.example/"] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "a fragment",
            body: json!({ "redirect_uris": [format!("{own}#f")] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "a query",
            body: json!({ "redirect_uris": [format!("{own}?x=1")] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "no port number",
            body: json!({ "redirect_uris": ["http://localhost:evil/"] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "too long",
            body: json!({ "redirect_uris": [format!("{own}{}", "x".repeat(1024))] }),
            error: "invalid_redirect_uri",
        },
        Case {
            name: "a number",
            body: json!({ "redirect_uris": [1] }),
            error: "invalid_redirect_uri",
        },
    ] {
        let (status, body) = register(body).await;
        assert_eq!((status, body["error"].as_str()), (400, Some(error)), "{name}");
    }
}

fn claims_of(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// RFC 9449 §5: tokens that are requested with a proof are bound to its key.
#[tokio::test]
async fn a_proof_binds_the_tokens_to_its_key() {
    let (demo, client) = (demo().await, DpopClient::new().unwrap());
    let code = demo.code().await;
    let grants = [
        ("a code", exchange(&code)),
        ("a machine", machine()),
        ("an opaque token", with(machine(), "token_format", "opaque")),
    ];
    for (name, form) in grants {
        let (status, tokens) = demo.token_with(&form, &[demo.proof(&client).build()]).await;
        assert_eq!(status, StatusCode::OK, "{name}: {tokens}");
        assert_eq!(tokens["token_type"], "DPoP", "{name}");
        let token = tokens["access_token"].as_str().unwrap();
        let answer = demo.introspect(token).await;
        assert_eq!(answer["active"], true, "{name}");
        assert_eq!(answer["token_type"], "DPoP", "{name}");
        assert_eq!(answer["cnf"], json!({ "jkt": client.thumbprint() }), "{name}");
        if name == "an opaque token" {
            continue;
        }
        assert_eq!(claims_of(token)["cnf"], json!({ "jkt": client.thumbprint() }), "{name}");
        assert_eq!(demo.call("/private", token).await.0, 401, "{name}: as a bearer token");
        let url = format!("{}/private", demo.api);
        let request = demo.http.get(&url).header("authorization", format!("DPoP {token}"));
        let request = request.header("dpop", client.proof("GET", &url, token).build());
        assert_eq!(request.send().await.unwrap().status(), 200, "{name}: with a proof");
    }
    // As before.
    for (name, form) in [("a code", exchange(&demo.code().await)), ("a machine", machine())] {
        let (_, tokens) = demo.token(&form).await;
        assert_eq!(tokens["token_type"], "Bearer", "{name} without a proof");
        let token = tokens["access_token"].as_str().unwrap();
        assert_eq!(claims_of(token).get("cnf"), None, "{name} without a proof");
        let answer = demo.introspect(token).await;
        assert_eq!(answer["token_type"], "Bearer", "{name} without a proof");
        assert_eq!(demo.call("/private", token).await.0, 200, "{name} without a proof");
    }
}

#[tokio::test]
async fn invalid_proofs_receive_no_token() {
    let (demo, client) = (demo().await, DpopClient::new().unwrap());
    let clock = TestClock::new();
    demo.issuer.keys().set_clock(&clock);
    let (now, seconds) = (clock.now(), Duration::from_secs);
    let proof = || demo.proof(&client);
    let url = format!("{}oauth/token", demo.iss);
    let (ed25519, p384, rsa) = (Algorithm::EdDSA, Algorithm::ES384, Algorithm::RS256);
    let [ed25519, p384, rsa] =
        [ed25519, p384, rsa].map(|algorithm| DpopClient::with_algorithm(algorithm).unwrap());
    let used = vec![proof().build()];
    assert_eq!(demo.token_with(&machine(), &used).await.0, StatusCode::OK);

    struct Case {
        name: &'static str,
        proofs: Vec<String>,
        error: &'static str,
    }
    let case =
        |name, proof: ProofBuilder<'_>, error| Case { name, proofs: vec![proof.build()], error };
    let invalid = "invalid_dpop_proof";
    let private_key = json!({ "kty": "EC", "crv": "P-256", "x": "x", "y": "y", "d": "d" });
    for Case { name, proofs, error } in [
        Case { name: "a used proof", proofs: used, error: invalid },
        Case { name: "two proofs", proofs: vec![proof().build(), proof().build()], error: invalid },
        Case { name: "not a JWT", proofs: vec!["x".to_owned()], error: invalid },
        Case { name: "an empty proof", proofs: vec![String::new()], error: invalid },
        case("of 4 KiB", proof().claim("x", "x".repeat(4096)), invalid),
        case("another method", proof().claim("htm", "GET"), invalid),
        case("of the API", proof().claim("htu", format!("{}/private", demo.api)), invalid),
        case("a longer path", proof().claim("htu", format!("{url}/")), invalid),
        case("a query", proof().claim("htu", format!("{url}?x#y")), "none"),
        case("no htu", proof().without_claim("htu"), invalid),
        case("no htm", proof().without_claim("htm"), invalid),
        case("no jti", proof().without_claim("jti"), invalid),
        case("an empty jti", proof().claim("jti", ""), invalid),
        case("the longest jti", proof().claim("jti", "j".repeat(256)), "none"),
        case("a longer jti", proof().claim("jti", "j".repeat(257)), invalid),
        case("no iat", proof().without_claim("iat"), invalid),
        case("iat as text", proof().claim("iat", "1"), invalid),
        case("a negative iat", proof().claim("iat", -1), invalid),
        case("a huge iat", proof().claim("iat", 1e300), invalid),
        case("60 s ago", proof().at(now - seconds(60)), "none"),
        case("61 s ago", proof().at(now - seconds(61)), invalid),
        case("60 s ahead", proof().at(now + seconds(60)), "none"),
        case("61 s ahead", proof().at(now + seconds(61)), invalid),
        case("tampered", proof().tampered_signature(), invalid),
        case("another type", proof().header("typ", "JWT"), invalid),
        case("no type", proof().without_header("typ"), invalid),
        case("alg none", proof().header("alg", "none"), invalid),
        case("HMAC", proof().header("alg", "HS256"), invalid),
        case("critical", proof().header("crit", json!(["x"])), invalid),
        case("no key", proof().without_header("jwk"), invalid),
        case("a key that is no object", proof().header("jwk", "x"), invalid),
        case("a private key", proof().header("jwk", private_key), invalid),
        case("an unknown key", proof().header("jwk", json!({ "kty": "AKP" })), invalid),
        case("a kid", proof().header("kid", "1"), "none"),
        case("with Ed25519", demo.proof(&ed25519), "none"),
        case("with P-384", demo.proof(&p384), "none"),
        case("with RSA", demo.proof(&rsa), invalid),
    ] {
        let (status, body) = demo.token_with(&machine(), &proofs).await;
        assert_eq!(body["error"].as_str().unwrap_or("none"), error, "{name}: {body}");
        assert_eq!(status == StatusCode::OK, error == "none", "{name}");
    }
}

/// To forget a proof would allow its second use.
#[tokio::test]
async fn more_proofs_than_are_remembered_are_rejected() {
    let (demo, client, clock) = (demo().await, DpopClient::new().unwrap(), TestClock::new());
    demo.issuer.keys().set_clock(&clock);
    for number in 0..1_000 {
        assert_eq!(demo.outcome(&machine(), Some(&client)).await, "none", "{number}");
    }
    assert_eq!(demo.outcome(&machine(), Some(&client)).await, "invalid_dpop_proof");
    assert_eq!(demo.outcome(&machine(), None).await, "none", "without a proof");
    clock.advance(Duration::from_secs(61));
    assert_eq!(demo.outcome(&machine(), Some(&client)).await, "none", "once they are too old");
}

/// RFC 9449 §10: a code that was requested with `dpop_jkt` is bound to that key.
#[tokio::test]
async fn a_code_can_be_bound_to_a_key() {
    struct Case<'a> {
        name: &'static str,
        dpop_jkt: &'a str,
        proof: Option<&'a DpopClient>,
        error: &'static str,
    }

    let demo = demo().await;
    let (own, other) = (DpopClient::new().unwrap(), DpopClient::new().unwrap());
    let jkt = own.thumbprint();
    let challenge = challenge();
    for Case { name, dpop_jkt, proof, error } in [
        Case { name: "its key", dpop_jkt: jkt, proof: Some(&own), error: "none" },
        Case { name: "another key", dpop_jkt: jkt, proof: Some(&other), error: "invalid_grant" },
        Case { name: "no proof", dpop_jkt: jkt, proof: None, error: "invalid_grant" },
        Case { name: "not bound", dpop_jkt: "", proof: Some(&other), error: "none" },
        Case { name: "not bound, no proof", dpop_jkt: "", proof: None, error: "none" },
    ] {
        let query = with(authorization(&challenge), "dpop_jkt", dpop_jkt);
        let code = redirected(&demo.authorize(&query).await)["code"].clone();
        assert_eq!(demo.outcome(&exchange(&code), proof).await, error, "{name}");
    }
    for (name, wrong) in [("a short hash", "abc"), ("padded", &*format!("{jkt}="))] {
        let query = with(authorization(&challenge), "dpop_jkt", wrong);
        let answer = redirected(&demo.authorize(&query).await);
        assert_eq!(answer["error"], "invalid_request", "{name}");
    }
}

/// RFC 9449 §5: the refresh tokens of a public client are bound to its key.
#[tokio::test]
async fn refresh_tokens_are_bound_to_the_key() {
    struct Case<'a> {
        name: &'static str,
        proof: Option<&'a DpopClient>,
        token_type: &'static str,
    }

    let demo = demo().await;
    let (own, other) = (DpopClient::new().unwrap(), DpopClient::new().unwrap());
    let refresh = async |token: &str, proof: Option<&DpopClient>| {
        let form = vec![
            ("grant_type", "refresh_token"),
            ("client_id", NATIVE_APP),
            ("refresh_token", token),
        ];
        let proofs: Vec<_> = proof.iter().map(|client| demo.proof(client).build()).collect();
        demo.token_with(&form, &proofs).await.1
    };
    // A rejected request does not end the family, so each case goes on with the last token.
    let code = demo.code().await;
    let (_, mut tokens) = demo.token(&exchange(&code)).await;
    for Case { name, proof, token_type } in [
        Case { name: "not bound yet", proof: None, token_type: "Bearer" },
        Case { name: "a proof binds it", proof: Some(&own), token_type: "DPoP" },
        Case { name: "another key", proof: Some(&other), token_type: "none" },
        Case { name: "no proof", proof: None, token_type: "none" },
        Case { name: "its key", proof: Some(&own), token_type: "DPoP" },
        Case { name: "its key again", proof: Some(&own), token_type: "DPoP" },
    ] {
        let answer = refresh(tokens["refresh_token"].as_str().unwrap(), proof).await;
        assert_eq!(answer["token_type"].as_str().unwrap_or("none"), token_type, "{name}: {answer}");
        match token_type {
            "none" => assert_eq!(answer["error"], "invalid_grant", "{name}"),
            _ => tokens = answer,
        }
    }
    let (_, tokens) =
        demo.token_with(&exchange(&demo.code().await), &[demo.proof(&own).build()]).await;
    let token = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(token, Some(&other)).await["error"], "invalid_grant", "bound by the code");
    assert_eq!(refresh(token, Some(&own)).await["token_type"], "DPoP", "bound by the code");
}

const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const STREAM: &str = "Bearer secret-of-the-stream";

/// A request to an endpoint of the API.
struct Told {
    path: String,
    content_type: String,
    authorization: Option<String>,
    body: String,
}

/// Starts an API that keeps what the issuer tells it.
async fn told_by(issuer: &EmbeddedIssuer) -> Arc<Mutex<Vec<Told>>> {
    let told: Arc<Mutex<Vec<Told>>> = Arc::default();
    let kept = Arc::clone(&told);
    let app = Router::new().fallback(async move |uri: Uri, headers: HeaderMap, body: String| {
        let header = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        kept.lock().unwrap().push(Told {
            path: uri.path().to_owned(),
            content_type: header("content-type").unwrap_or_default(),
            authorization: header("authorization"),
            body,
        });
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    issuer.notify(receivers(&api));
    told
}

fn receivers(api: &str) -> Receivers {
    Receivers {
        logout: Receiver {
            url: format!("{api}/backchannel-logout"),
            audience: SINGLE_PAGE_APP.to_owned(),
        },
        events: Receiver { url: format!("{api}/events"), audience: format!("{api}/events") },
        authorization: Some(STREAM.to_owned()),
    }
}

fn header_of(token: &str) -> Value {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice(&header).unwrap()
}

fn text<'a>(tokens: &'a Value, name: &str) -> &'a str {
    tokens[name].as_str().unwrap()
}

/// The tokens of a sign-in have the same `sid`, also after a refresh, and a machine's have none.
#[tokio::test]
async fn the_tokens_of_a_sign_in_name_their_session() {
    let demo = demo().await;
    let first = demo.sign_in().await;
    let sid = claims_of(text(&first, "access_token"))["sid"].clone();
    assert!(sid.is_string());
    let refresh = text(&first, "refresh_token");
    assert!(!refresh.contains(sid.as_str().unwrap()), "not the name of the family");
    let form =
        [("grant_type", "refresh_token"), ("client_id", NATIVE_APP), ("refresh_token", refresh)];
    let (_, renewed) = demo.token(&form.to_vec()).await;
    let second = demo.sign_in().await;
    let (_, machine) = demo.token(&machine()).await;
    for (name, token, is_same) in [
        ("the ID token", text(&first, "id_token"), true),
        ("after a refresh", text(&renewed, "access_token"), true),
        ("another sign-in", text(&second, "access_token"), false),
        ("a machine", text(&machine, "access_token"), false),
    ] {
        let claims = claims_of(token);
        assert_eq!(claims["sid"] == sid, is_same, "{name}");
        assert_eq!(claims["sid"].is_null(), name == "a machine", "{name}");
    }
    let jti = |tokens: &Value| claims_of(text(tokens, "access_token"))["jti"].clone();
    assert!(jti(&first).is_string());
    assert_ne!(jti(&first), jti(&renewed), "each access token has its own jti");
}

/// OpenID Connect Back-Channel Logout 1.0 §2.4, §2.5, RFC 8935 §2.1, CAEP 1.0 §3.1.
#[tokio::test]
async fn a_sign_out_is_told_to_the_api() {
    for (name, everywhere) in [("one session", ""), ("all sessions", "true")] {
        let demo = demo().await;
        let told = told_by(&demo.issuer).await;
        let tokens = demo.sign_in().await;
        let claims = claims_of(text(&tokens, "id_token"));
        let form = [("id_token_hint", text(&tokens, "id_token")), ("everywhere", everywhere)];
        let (status, answer) = demo.sign_out(&form).await;
        assert_eq!(status, 200, "{name}: {answer}");
        assert_eq!(answer["logout"]["status"], 200, "{name}");
        assert_eq!(answer["event"]["status"], 200, "{name}");

        let mut told = std::mem::take(&mut *told.lock().unwrap());
        told.sort_by(|one, other| one.path.cmp(&other.path));
        let [logout, event] = &told[..] else { panic!("{name}: {} requests", told.len()) };
        assert_eq!(logout.path, "/backchannel-logout");
        assert_eq!(logout.content_type, "application/x-www-form-urlencoded");
        assert_eq!(logout.authorization, None, "the logout token is its own proof");
        let token = logout.body.strip_prefix("logout_token=").unwrap();
        assert_eq!(token, answer["logout"]["token"], "{name}");
        demo.issuer.keys().jwks().verify(token).unwrap();
        let found = claims_of(token);
        let sid = if everywhere.is_empty() { claims["sid"].clone() } else { Value::Null };
        let age = found["exp"].as_u64().unwrap() - found["iat"].as_u64().unwrap();
        for (claim, found, expected) in [
            ("typ", &header_of(token)["typ"], json!("logout+jwt")),
            ("iss", &found["iss"], json!(demo.iss)),
            ("aud", &found["aud"], json!(SINGLE_PAGE_APP)),
            ("sub", &found["sub"], claims["sub"].clone()),
            ("sid", &found["sid"], sid.clone()),
            ("events", &found["events"], json!({ LOGOUT: {} })),
            ("exp", &json!(age), json!(120)),
            ("nonce", &found["nonce"], Value::Null),
            ("client_id", &found["client_id"], Value::Null),
            ("jti", &json!(found["jti"].is_string()), json!(true)),
        ] {
            assert_eq!(*found, expected, "{name}: {claim} of the logout token");
        }

        assert_eq!(event.path, "/events");
        assert_eq!(event.content_type, "application/secevent+jwt");
        assert_eq!(event.authorization.as_deref(), Some(STREAM));
        assert_eq!(event.body, answer["event"]["token"], "{name}");
        demo.issuer.keys().jwks().verify(&event.body).unwrap();
        let found = claims_of(&event.body);
        let user = json!({ "format": "iss_sub", "iss": demo.iss, "sub": claims["sub"] });
        let subject = match everywhere {
            "" => json!({
                "format": "complex",
                "user": user,
                "session": { "format": "opaque", "id": sid },
            }),
            _ => user,
        };
        let revoked = &found["events"][SESSION_REVOKED];
        for (claim, found, expected) in [
            ("typ", &header_of(&event.body)["typ"], json!("secevent+jwt")),
            ("iss", &found["iss"], json!(demo.iss)),
            ("aud", &found["aud"], answer["event"]["url"].clone()),
            ("sub_id", &found["sub_id"], subject),
            ("sub", &found["sub"], Value::Null),
            ("exp", &found["exp"], Value::Null),
            ("jti", &json!(found["jti"].is_string()), json!(true)),
            ("event_timestamp", &json!(revoked["event_timestamp"].is_u64()), json!(true)),
        ] {
            assert_eq!(*found, expected, "{name}: {claim} of the event");
        }
    }
}

/// The refresh tokens and the opaque tokens of what ended are useless; those of other sessions are
/// not.
#[tokio::test]
async fn a_sign_out_ends_one_session_or_all() {
    fn refresh(tokens: &Value) -> Pairs<'_> {
        let token = text(tokens, "refresh_token");
        vec![("grant_type", "refresh_token"), ("client_id", NATIVE_APP), ("refresh_token", token)]
    }

    for (name, everywhere, other) in [("one", "false", 200), ("all", "true", 400)] {
        let demo = demo().await;
        let codes = [demo.code().await, demo.code().await, demo.code().await];
        let [first, second, unused] = codes.each_ref().map(|code| exchange(code));
        let (_, first) = demo.token(&with(first, "token_format", "opaque")).await;
        let (_, second) = demo.token(&with(second, "token_format", "opaque")).await;
        let active =
            async |tokens| demo.introspect(text(tokens, "access_token")).await["active"] == true;
        assert!(active(&first).await && active(&second).await, "{name}");
        // Without receivers, nothing is told.
        let hint = [("id_token_hint", text(&first, "id_token")), ("everywhere", everywhere)];
        assert_eq!(demo.sign_out(&hint).await, (200, json!({})), "{name}");
        assert!(!active(&first).await, "{name}");
        assert_eq!(active(&second).await, other == 200, "{name}");
        assert_eq!(demo.refusal(&refresh(&first)).await.0, 400, "{name}");
        assert_eq!(demo.refusal(&refresh(&second)).await.0, other, "{name}");
        assert_eq!(demo.refusal(&unused).await.0, other, "{name}: an unused code");
    }
}

/// OpenID Connect RP-Initiated Logout 1.0 §2: only with an ID token of this issuer.
#[tokio::test]
async fn invalid_sign_outs_are_rejected() {
    let (demo, clock) = (demo().await, TestClock::new());
    demo.issuer.keys().set_clock(&clock);
    let told = told_by(&demo.issuer).await;
    let tokens = demo.sign_in().await;
    let id_token = text(&tokens, "id_token");
    let forger = TestIssuer::offline(&demo.iss).unwrap();
    let claims = claims_of(id_token);
    let builder = |issuer: &TestIssuer| {
        let token = issuer.token().subject(text(&claims, "sub")).audience(NATIVE_APP);
        token.claim("sid", claims["sid"].clone())
    };
    let forged = builder(&forger).build();
    let tampered = builder(demo.issuer.keys()).tampered().build();
    let unsigned = builder(demo.issuer.keys()).unsigned().build();
    let machine = with(machine(), "audience", NATIVE_APP);
    let sid = json!({ "sid": claims["sid"] }).to_string();
    let (_, machine) = demo.token(&with(machine, "claims", &sid)).await;
    for (name, form) in [
        ("no hint", vec![]),
        ("an empty hint", vec![("id_token_hint", "")]),
        ("no JWT", vec![("id_token_hint", "x")]),
        ("an access token", vec![("id_token_hint", text(&tokens, "access_token"))]),
        ("a machine's token", vec![("id_token_hint", text(&machine, "access_token"))]),
        ("forged", vec![("id_token_hint", &forged)]),
        ("tampered", vec![("id_token_hint", &tampered)]),
        ("unsigned", vec![("id_token_hint", &unsigned)]),
        ("twice", vec![("id_token_hint", id_token), ("id_token_hint", id_token)]),
        ("another client", vec![("id_token_hint", id_token), ("client_id", SINGLE_PAGE_APP)]),
    ] {
        let (status, answer) = demo.sign_out(&form).await;
        assert_eq!((status, text(&answer, "error")), (400, "invalid_request"), "{name}");
    }
    assert_eq!(told.lock().unwrap().len(), 0);
    // §2: an expired ID token still names the session. By GET as by POST.
    clock.advance(Duration::from_secs(86_400));
    let query = format!("id_token_hint={id_token}&client_id={NATIVE_APP}");
    let url = format!("{}oauth/logout?{query}", demo.iss);
    assert_eq!(demo.http.get(url).send().await.unwrap().status(), 200);
    assert_eq!(told.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_sign_out_succeeds_when_the_api_does_not_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (name, api) in [
        ("a closed port", format!("http://{closed}")),
        ("not on loopback", "http://192.0.2.1".to_owned()),
        ("a name", "http://localhost.example".to_owned()),
    ] {
        let demo = demo().await;
        demo.issuer.notify(receivers(&api));
        let tokens = demo.sign_in().await;
        let (status, answer) = demo.sign_out(&[("id_token_hint", text(&tokens, "id_token"))]).await;
        assert_eq!(status, 200, "{name}: {answer}");
        for receiver in ["logout", "event"] {
            assert!(answer[receiver]["status"].is_null(), "{name}: {answer}");
        }
    }
}
