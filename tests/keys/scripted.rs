//! An issuer's server that a test scripts. Each test decides what the server answers to which
//! request, and how late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, Error, FetchError, Issuer, Verifier};

use crate::eventually::eventually;
use crate::verdict::verdict;

pub(crate) const METADATA: &str = "/.well-known/openid-configuration";
pub(crate) const OTHER_METADATA: &str = "/.well-known/oauth-authorization-server";

/// A request that the server has received.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) base: String,
    pub(crate) path: String,
    /// Counted for each path, from 1.
    pub(crate) number: usize,
    pub(crate) if_none_match: Option<String>,
}

pub(crate) struct Reply {
    status: u16,
    headers: Vec<(header::HeaderName, &'static str)>,
    body: String,
}

pub(crate) fn reply(status: u16, body: impl Into<String>) -> Reply {
    Reply { status, headers: Vec::new(), body: body.into() }
}

impl Reply {
    pub(crate) fn with(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A server that answers as a test says.
pub(crate) struct Server {
    pub(crate) base: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start<F: Future<Output = Reply> + Send + 'static>(
        answer: impl Fn(Asked) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (asked, counts) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(HashMap::new())));
        let (own_base, log) = (base.clone(), Arc::clone(&asked));
        let router = Router::new().fallback(async move |request: Request| {
            let path = request.uri().path().to_owned();
            log.lock().unwrap().push(path.clone());
            let number = *counts
                .lock()
                .unwrap()
                .entry(path.clone())
                .and_modify(|count| *count += 1)
                .or_insert(1);
            let if_none_match = request.headers().get(header::IF_NONE_MATCH);
            let if_none_match = if_none_match.map(|value| value.to_str().unwrap().to_owned());
            let reply = answer(Asked { base: own_base.clone(), path, number, if_none_match }).await;
            let mut headers = header::HeaderMap::new();
            headers.extend(
                reply.headers.into_iter().map(|(name, value)| (name, value.parse().unwrap())),
            );
            (StatusCode::from_u16(reply.status).unwrap(), headers, reply.body)
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, asked }
    }

    /// The paths of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Signing keys, and a verifier of their tokens that fetches the set from a `Server`.
pub(crate) struct ScriptedApi {
    keys: Arc<TestIssuer>,
    pub(crate) clock: TestClock,
    pub(crate) verifier: Verifier,
}

impl ScriptedApi {
    pub(crate) fn new(keys: &Arc<TestIssuer>, configure: impl Fn(Issuer) -> Issuer) -> Self {
        let clock = TestClock::new();
        keys.set_clock(&clock);
        let issuer = configure(Issuer::new(keys.iss(), AUDIENCE).unwrap());
        let verifier =
            Verifier::builder(issuer).clock(&clock).without_token_cache().build().unwrap();
        Self { keys: Arc::clone(keys), clock, verifier }
    }

    /// The set is at `/keys`.
    pub(crate) fn at_keys(server: &Server, keys: &Arc<TestIssuer>) -> Self {
        Self::new(keys, |issuer| issuer.jwks_uri(&server.at("/keys")).unwrap())
    }

    pub(crate) async fn verdict(&self, token: &str) -> &'static str {
        verdict(&self.verifier, token).await
    }

    /// The verdict on a new, valid token.
    pub(crate) async fn good(&self) -> &'static str {
        self.verdict(&self.keys.token().build()).await
    }

    /// Why the keys are unavailable.
    pub(crate) async fn failure(&self) -> FetchError {
        match self.verifier.verify(&self.keys.token().build()).await {
            Err(Error::KeysUnavailable { reason: source, .. }) => source,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn seconds_pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// The number of seconds until the next fetch.
    pub(crate) fn next_fetch(&self) -> u64 {
        self.verifier.health()[0].next_fetch.unwrap().as_secs()
    }

    /// Waits until the verifier has finished this number of fetches.
    pub(crate) async fn fetched(&self, times: u64) {
        eventually(&format!("{times} fetches"), || self.verifier.health()[0].fetches >= times)
            .await;
    }
}

pub(crate) fn keys() -> Arc<TestIssuer> {
    Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap())
}
