//! The issuers: 10,000 tenants at four servers, and two configured ones with a server each. Each
//! server can be made to fail.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portcullis::Algorithm;
use portcullis::testing::{TestIssuer, TokenBuilder};
use tokio::net::TcpListener;

use crate::Failure;

pub(crate) const TENANTS: usize = 10_000;
/// How many servers the tenants are spread over.
pub(crate) const SHARDS: usize = 4;
/// The configured issuer that is asked about opaque tokens, and binds tokens to keys.
pub(crate) const MAIN: usize = TENANTS;
/// The other configured issuer.
pub(crate) const PLAIN: usize = TENANTS + 1;
const SERVERS: usize = SHARDS + 2;

/// What an issuer's server offers; each can fail alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Endpoint {
    /// Metadata and key sets.
    Keys,
    Introspection,
    StatusList,
}

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    Serve,
    /// Accepts the request, and never answers.
    Hang,
    /// Answers 500.
    Fail,
    /// Answers 200 with something else than JSON.
    Garbage,
}

pub(crate) struct World {
    issuers: Vec<OnceLock<TestIssuer>>,
    /// How often the key of each issuer was replaced.
    rotations: Vec<AtomicU64>,
    servers: Vec<Server>,
}

struct Server {
    base: String,
    moods: [AtomicU8; 3],
}

impl World {
    pub(crate) async fn start() -> Result<Arc<Self>, Failure> {
        let mut listeners = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let base = format!("http://{}", listener.local_addr()?);
            servers.push(Server { base, moods: Default::default() });
            listeners.push(listener);
        }
        let issuers = (0..TENANTS + 2).map(|_| OnceLock::new()).collect();
        let rotations = (0..TENANTS + 2).map(|_| AtomicU64::new(0)).collect();
        let world = Arc::new(Self { issuers, rotations, servers });
        for (server, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(Arc::clone(&world).serve(server, listener));
        }
        Ok(world)
    }

    /// The number of the server of an issuer.
    pub(crate) fn server_of(issuer: usize) -> usize {
        if issuer < TENANTS { issuer % SHARDS } else { SHARDS + issuer - TENANTS }
    }

    pub(crate) fn iss(&self, issuer: usize) -> String {
        format!("{}/t/{issuer}", self.servers[Self::server_of(issuer)].base)
    }

    pub(crate) fn issuer(&self, issuer: usize) -> &TestIssuer {
        self.issuers[issuer].get_or_init(|| {
            let iss = self.iss(issuer);
            // Ed25519 for the tenants, since signing with it is cheap.
            let algorithm = if issuer < TENANTS { Algorithm::EdDSA } else { Algorithm::ES256 };
            // A `kid` that no other issuer has. A token that names the next `kid` of an issuer has
            // it rejected for up to a minute (DESIGN.md, "Defaults"), and the tokens of one tenant
            // in the name of another would do that.
            let made = TestIssuer::offline_with(&iss, algorithm).expect("a key");
            let made = made.kid_suffix(&format!("-of-{issuer}"));
            if issuer >= TENANTS {
                // The lifetime of keys and status lists; 10 and 5 minutes without it, too long to
                // see anything in a soak of 5 minutes.
                made.set_header(axum::http::header::CACHE_CONTROL, "max-age=60");
            }
            made
        })
    }

    /// A token that the API accepts, valid for 5 minutes.
    pub(crate) fn token(&self, issuer: usize) -> TokenBuilder {
        let token = self.issuer(issuer).token().valid_for(Duration::from_secs(300));
        token.scope("orders:read")
    }

    pub(crate) fn rotations(&self, issuer: usize) -> u64 {
        self.rotations[issuer].load(Ordering::SeqCst)
    }

    /// Makes the issuer sign with a new key.
    pub(crate) fn rotate(&self, issuer: usize) -> Result<(), Failure> {
        self.issuer(issuer).rotate()?;
        self.rotations[issuer].fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn set(&self, server: usize, endpoint: Endpoint, mood: Mood) {
        self.servers[server].moods[endpoint as usize].store(mood as u8, Ordering::SeqCst);
    }

    async fn serve(self: Arc<Self>, server: usize, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let world = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let world = Arc::clone(&world);
                    async move { Ok::<_, Infallible>(world.answer(server, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                // An error is a client that has closed the connection.
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(&self, server: usize, request: Request<Incoming>) -> Response<String> {
        let path = request.uri().path().to_owned();
        let endpoint = match path.rsplit('/').next() {
            Some("introspect") => Endpoint::Introspection,
            Some("status-list") => Endpoint::StatusList,
            _ => Endpoint::Keys,
        };
        let mood = self.servers[server].moods[endpoint as usize].load(Ordering::SeqCst);
        if mood == Mood::Hang as u8 {
            // Longer than any time limit of the server under test.
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let issuer = path.split('/').nth(2).and_then(|number| number.parse().ok());
        let issuer = issuer.filter(|issuer| *issuer < self.issuers.len());
        let Some(issuer) = issuer.filter(|issuer| Self::server_of(*issuer) == server) else {
            return status(StatusCode::NOT_FOUND);
        };
        if mood == Mood::Fail as u8 {
            return status(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if mood == Mood::Garbage as u8 {
            return Response::new("\u{fffd}{[<html>".repeat(1000));
        }
        let issuer = self.issuer(issuer);
        if endpoint == Endpoint::Introspection && request.method() == Method::POST {
            let Ok(form) = request.into_body().collect().await else {
                return status(StatusCode::BAD_REQUEST);
            };
            let form = form.to_bytes();
            let form = std::str::from_utf8(&form).unwrap_or_default();
            // The names of opaque tokens need no decoding.
            let token = form.split('&').find_map(|pair| pair.strip_prefix("token="));
            let answer = issuer.introspect(token.unwrap_or_default()).to_string();
            let mut response = Response::new(answer);
            let json = axum::http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(axum::http::header::CONTENT_TYPE, json);
            return response;
        }
        issuer.answer(&path).unwrap_or_else(|| status(StatusCode::NOT_FOUND))
    }
}

fn status(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}
