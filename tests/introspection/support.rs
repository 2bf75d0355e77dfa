//! An authorization server on loopback, with an introspection endpoint whose answers a test sets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::{get, post};
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, ClientAuth, Introspection, Issuer, Verifier, VerifierBuilder};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const OPAQUE: &str = "ory_at_mZ2Yt3UJq9.Xw7bA";

/// A question that the endpoint received.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) headers: HeaderMap,
    pub(crate) form: HashMap<String, String>,
}

impl Question {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What the endpoint does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status 200 and this body, of this type.
    Body(&'static str, String),
    Status(u16),
    /// Status 429 and this `Retry-After`.
    Busy(&'static str),
    /// Status 307 to this URL.
    Redirect(String),
    /// Never responds.
    Hang,
    /// Responds with this after the time has passed.
    Late(Duration, Box<Reply>),
}

impl Reply {
    pub(crate) fn json(answer: &Value) -> Self {
        Self::Body("application/json", answer.to_string())
    }
}

type Answer = Box<dyn Fn(&Question) -> Reply + Send + Sync>;

struct Shared {
    issuer: TestIssuer,
    /// Further members of the metadata.
    metadata: Mutex<Map<String, Value>>,
    metadata_fetches: Mutex<usize>,
    /// What is sent instead of the metadata.
    metadata_reply: Mutex<Option<Reply>>,
    questions: Mutex<Vec<Question>>,
    answer: Mutex<Answer>,
}

pub(crate) struct AuthServer {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Drop for AuthServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl AuthServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let iss = format!("http://{}/", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            issuer: TestIssuer::offline_with(&iss, Algorithm::ES256).unwrap(),
            metadata: Mutex::default(),
            metadata_fetches: Mutex::default(),
            metadata_reply: Mutex::default(),
            questions: Mutex::default(),
            answer: Mutex::new(Box::new(|_| Reply::Status(500))),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route(
                "/jwks",
                get(async |shared: State<Arc<Shared>>| shared.issuer.jwks_json().to_string()),
            )
            .route("/introspect", post(introspect))
            .route("/mtls/introspect", post(introspect))
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self { shared, serving }
    }

    pub(crate) fn keys(&self) -> &TestIssuer {
        &self.shared.issuer
    }

    pub(crate) fn iss(&self) -> &str {
        self.shared.issuer.iss()
    }

    /// The answer about an active token for the API.
    pub(crate) fn active(&self) -> Value {
        json!({
            "active": true, "iss": self.iss(), "aud": AUDIENCE, "sub": "alice",
            "client_id": "app", "scope": "read:messages", "token_type": "Bearer",
        })
    }

    /// The answer about an active token, with other members.
    pub(crate) fn active_with(&self, members: &Value) -> Value {
        let mut answer = self.active();
        for (name, value) in members.as_object().unwrap() {
            answer.as_object_mut().unwrap().insert(name.clone(), value.clone());
        }
        answer
    }

    pub(crate) fn reply(&self, reply: Reply) {
        self.reply_with(move |_| reply.clone());
    }

    pub(crate) fn reply_with(&self, answer: impl Fn(&Question) -> Reply + Send + Sync + 'static) {
        *self.shared.answer.lock().unwrap() = Box::new(answer);
    }

    pub(crate) fn set_metadata(&self, name: &str, value: Value) {
        self.shared.metadata.lock().unwrap().insert(name.to_owned(), value);
    }

    pub(crate) fn set_metadata_reply(&self, reply: Reply) {
        *self.shared.metadata_reply.lock().unwrap() = Some(reply);
    }

    pub(crate) fn questions(&self) -> Vec<Question> {
        self.shared.questions.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> usize {
        self.questions().len()
    }

    pub(crate) fn metadata_fetches(&self) -> usize {
        *self.shared.metadata_fetches.lock().unwrap()
    }

    /// The issuer as an API trusts it.
    pub(crate) fn issuer(&self, introspection: Introspection) -> Issuer {
        Issuer::new(self.iss(), AUDIENCE).unwrap().introspection(introspection)
    }
}

/// The usual client authentication.
pub(crate) fn auth() -> ClientAuth {
    ClientAuth::client_secret("orders-api", "secret")
}

/// A server, a verifier that asks it, and their clock.
pub(crate) struct Api {
    pub(crate) server: AuthServer,
    pub(crate) clock: TestClock,
    pub(crate) verifier: Verifier,
}

pub(crate) fn builder(issuer: Issuer, clock: &TestClock) -> VerifierBuilder {
    Verifier::builder(issuer).clock(clock)
}

/// An API that asks about opaque tokens, with a server that answers that they are active.
pub(crate) async fn api(configure: impl FnOnce(Introspection) -> Introspection) -> Api {
    api_with(|server| server.issuer(configure(Introspection::new(auth())))).await
}

pub(crate) async fn api_with(configure: impl FnOnce(&AuthServer) -> Issuer) -> Api {
    let (server, clock) = (AuthServer::start().await, TestClock::new());
    server.keys().set_clock(&clock);
    server.reply(Reply::json(&server.active()));
    let verifier = builder(configure(&server), &clock).build().unwrap();
    Api { server, clock, verifier }
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Response<Body> {
    *shared.metadata_fetches.lock().unwrap() += 1;
    let reply = shared.metadata_reply.lock().unwrap().clone();
    let base = shared.issuer.iss();
    let mut metadata = json!({
        "issuer": base,
        "jwks_uri": format!("{base}jwks"),
        "introspection_endpoint": format!("{base}introspect"),
    });
    for (name, value) in shared.metadata.lock().unwrap().iter() {
        metadata.as_object_mut().unwrap().insert(name.clone(), value.clone());
    }
    respond(reply.unwrap_or(Reply::json(&metadata))).await
}

async fn introspect(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: String,
) -> Response<Body> {
    let form = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let question = Question { headers, form };
    let reply = (shared.answer.lock().unwrap())(&question);
    shared.questions.lock().unwrap().push(question);
    respond(reply).await
}

async fn respond(mut reply: Reply) -> Response<Body> {
    while let Reply::Late(delay, later) = reply {
        tokio::time::sleep(delay).await;
        reply = *later;
    }
    let response = Response::builder();
    match reply {
        Reply::Body(media_type, body) => {
            response.header(header::CONTENT_TYPE, media_type).body(body.into()).unwrap()
        }
        Reply::Status(status) => response
            .status(StatusCode::from_u16(status).unwrap())
            .header(header::CONTENT_TYPE, "text/html")
            .body("<html>".into())
            .unwrap(),
        Reply::Busy(retry_after) => response
            .status(429)
            .header(header::RETRY_AFTER, retry_after)
            .body(Body::empty())
            .unwrap(),
        Reply::Redirect(to) => {
            response.status(307).header(header::LOCATION, to).body(Body::empty()).unwrap()
        }
        Reply::Hang | Reply::Late(..) => std::future::pending().await,
    }
}
