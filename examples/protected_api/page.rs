//! The demo's page and its endpoints: the configuration, the state of the keys, the operator's
//! actions, and tokens that must be rejected.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use portcullis::{IssuerHealth, Verifier};
use serde_json::{Value, json};

use crate::embedded_issuer::EmbeddedIssuer;
use crate::issuer_port::IssuerPort;

/// The state of the page and its endpoints.
pub(crate) struct Page {
    /// `/demo/config`: where to sign in, and for which audience and scope.
    pub(crate) config: Value,
    /// The origin of the page, as browsers serialize it.
    pub(crate) origin: String,
    /// The issuers whose tokens are accepted. The page may connect to them.
    pub(crate) issuers: Vec<String>,
    /// The issuer's token endpoint, whose origin may differ from that of `iss`; set once the
    /// metadata has been fetched.
    pub(crate) token_endpoint: OnceLock<String>,
    pub(crate) verifier: Verifier,
    /// The embedded issuer, if the demo runs one.
    pub(crate) embedded: Option<(EmbeddedIssuer, IssuerPort)>,
}

impl Page {
    pub(crate) fn router(self) -> Router {
        let html = (CONTENT_TYPE, "text/html; charset=utf-8");
        let css = (CONTENT_TYPE, "text/css; charset=utf-8");
        let script = |text: &'static str| {
            get(async move || ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], text))
        };
        let levers = Router::new()
            .route("/demo/issuer/{lever}", post(pull))
            .route("/demo/token/{case}", post(bad_token))
            .route_layer(middleware::from_fn_with_state(self.origin.clone(), from_the_page_only));
        let page = Arc::new(self);
        let index = async move |State(page): State<Arc<Self>>| {
            page.ask_for_token_endpoint().await;
            ([html], include_str!("page/index.html"))
        };
        Router::new()
            .route("/", get(index))
            .route("/app.css", get(async move || ([css], include_str!("page/app.css"))))
            .route("/app.js", script(include_str!("page/app.js")))
            .route("/dpop.js", script(include_str!("page/dpop.js")))
            .route("/encoding.js", script(include_str!("page/encoding.js")))
            .route(
                "/demo/config",
                get(async |State(page): State<Arc<Page>>| Json(page.config.clone())),
            )
            .route(
                "/demo/health",
                get(async |State(page): State<Arc<Page>>| Json(page.health().await)),
            )
            .merge(levers)
            .with_state(Arc::clone(&page))
            .layer(middleware::map_response_with_state(page, with_page_headers))
    }

    async fn ask_for_token_endpoint(&self) {
        let (None, None, Some(iss)) =
            (self.token_endpoint.get(), &self.embedded, self.issuers.first())
        else {
            return;
        };
        if let Some(url) = token_endpoint(iss).await {
            let _ = self.token_endpoint.set(url);
        }
    }

    /// Allows only the page's own files, and connections to the issuers.
    fn content_security_policy(&self) -> HeaderValue {
        let origins = self
            .issuers
            .iter()
            .chain(self.token_endpoint.get())
            .filter_map(|iss| reqwest::Url::parse(iss).ok());
        let origins: BTreeSet<_> = origins.map(|iss| iss.origin().ascii_serialization()).collect();
        let origins: String = origins.iter().map(|origin| format!(" {origin}")).collect();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{origins}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    }

    async fn health(&self) -> Value {
        let mut health = health(&self.verifier);
        if let Some((issuer, port)) = &self.embedded {
            let keys = issuer.keys().jwks_json();
            let kids = keys["keys"].as_array().into_iter().flatten().map(|key| key["kid"].clone());
            health["published_kids"] = kids.collect();
            health["issuer_running"] = port.is_open().await.into();
        }
        health
    }
}

async fn with_page_headers(State(page): State<Arc<Page>>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, page.content_security_policy());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The authorization code arrives in the page's URL, which must not leak in a `Referer`.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The state of the keys of each issuer. Fetches nothing.
pub(crate) fn health(verifier: &Verifier) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    let one = |issuer: IssuerHealth| {
        json!({
            "issuer": *issuer.iss,
            "keys": issuer.keys,
            "ignored_keys": issuer.ignored.iter().map(|reason| format!("{reason:?}")).collect::<Vec<_>>(),
            "age_seconds": seconds(issuer.age),
            "next_fetch_seconds": seconds(issuer.next_fetch),
            "unknown_key_after_seconds": issuer.unknown_key_after.map(|time| time.as_secs_f64().ceil()),
            "fetching": issuer.fetching,
            "stale": issuer.stale,
            "fetches": issuer.fetches,
            "failed_fetches": issuer.failed_fetches,
            "stale_serves": issuer.stale_serves,
            "unknown_kids": issuer.unknown_kids,
            "introspection": issuer.introspection.as_ref().map(|endpoint| json!({
                "discovered": endpoint.is_discovered,
                "suspended_seconds": endpoint.suspended_for.map(|time| time.as_secs_f64().ceil()),
                "questions": endpoint.questions,
                "failed_questions": endpoint.failed_questions,
                "last_error": endpoint.last_error.as_ref().map(|error| error.to_string()),
            })),
            "last_error": issuer.last_error.as_ref().map(|error| error.to_string()),
        })
    };
    json!({ "issuers": verifier.health().into_iter().map(one).collect::<Vec<_>>() })
}

/// Accepts only requests with the header `X-Demo` and without the `Origin` of another page. A page
/// of another origin can send simple requests, but a custom header needs a CORS preflight, and the
/// demo allows none. A page whose host name resolves to this machine (DNS rebinding) is same-origin
/// for its browser, but its `Origin` is not ours. Clients that are not browsers can send any header
/// and are not restricted.
async fn from_the_page_only(State(own): State<String>, request: Request, next: Next) -> Response {
    let (headers, mut origins) = (request.headers(), request.headers().get_all(ORIGIN).iter());
    if headers.contains_key("x-demo") && origins.all(|origin| *origin == own) {
        next.run(request).await
    } else {
        failed(StatusCode::FORBIDDEN, "expected the header X-Demo, and no other page's Origin")
    }
}

async fn token_endpoint(iss: &str) -> Option<String> {
    let url = format!("{}/.well-known/openid-configuration", iss.trim_end_matches('/'));
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let client = client.timeout(Duration::from_secs(3)).build().ok()?;
    let metadata: Value = client.get(url).send().await.ok()?.json().await.ok()?;
    metadata["token_endpoint"].as_str().map(str::to_owned)
}

/// `POST /demo/issuer/{lever}`: an action of the operator.
async fn pull(State(page): State<Arc<Page>>, Path(lever): Path<String>) -> Response {
    let Some((issuer, port)) = &page.embedded else {
        return failed(StatusCode::NOT_FOUND, "expected the embedded issuer, found another one");
    };
    let said = match lever.as_str() {
        "rotate" => {
            let issuer = issuer.clone();
            // Generating an RSA key takes a while.
            match tokio::task::spawn_blocking(move || issuer.keys().rotate()).await {
                Ok(Ok(kid)) => {
                    format!("New tokens are signed with {kid}. The old keys are still published.")
                }
                Ok(Err(error)) => {
                    return failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
                }
                Err(error) => return failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            }
        }
        "withdraw" => {
            issuer.keys().withdraw_old_keys();
            "Only the newest key is published. The API trusts the old ones until its next fetch."
                .to_owned()
        }
        "stop" => {
            port.close().await;
            "The issuer refuses connections: users cannot sign in, and keys cannot be fetched."
                .to_owned()
        }
        "start" => match port.open().await {
            Ok(()) => "The issuer is running again.".to_owned(),
            Err(error) => {
                return failed(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &format!("cannot open its port: {error}"),
                );
            }
        },
        _ => return failed(StatusCode::NOT_FOUND, "expected rotate, withdraw, stop or start"),
    };
    Json(json!({ "said": said })).into_response()
}

/// `POST /demo/token/{case}`: an invalid token for one case.
async fn bad_token(State(page): State<Arc<Page>>, Path(case): Path<String>) -> Response {
    let Some((issuer, _)) = &page.embedded else {
        return failed(
            StatusCode::NOT_FOUND,
            "only the demo's embedded issuer creates invalid tokens",
        );
    };
    match issuer.bad_token(&case) {
        Some(token) => Json(json!({ "token": token })).into_response(),
        None => failed(StatusCode::NOT_FOUND, "no such case"),
    }
}

fn failed(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
