//! Revocation: which tokens are rejected, since when and at which replica; what issuers send; and
//! what attackers try.

#[path = "../support/verdict.rs"]
mod verdict;

mod hostile;
mod log;
mod receivers;
mod revoked;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use portcullis::testing::{TestClock, TestIssuer, TestStore};
use portcullis::{
    BackChannelLogout, Issuer, LogEntries, LogPosition, Revocations, SecurityEvents, SharedStore,
    StoreFuture, Verifier,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const ISS: &str = "https://issuer.example/";
const RECEIVER: &str = "https://api.example.com/events";
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn issuer() -> (TestIssuer, TestClock) {
    let (issuer, clock) = (TestIssuer::offline(ISS).unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    (issuer, clock)
}

fn built(issuer: Issuer, clock: &TestClock, revocations: &Revocations) -> Verifier {
    Verifier::builder(issuer).clock(clock).revocations(revocations).build().unwrap()
}

fn receivers(verifier: &Verifier, revocations: &Revocations) -> Router {
    let logout = BackChannelLogout::new(verifier, revocations, ["web"]);
    let events = SecurityEvents::new(verifier, revocations, RECEIVER);
    Router::new().route_service("/logout", logout).route_service("/events", events)
}

async fn log_out(app: &Router, token: &str) -> u16 {
    let request = Request::post("/logout");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.body(Body::from(format!("logout_token={token}"))).unwrap();
    app.clone().oneshot(request).await.unwrap().status().as_u16()
}

async fn push(app: &Router, event: &str) -> Response<Body> {
    let request = Request::post("/events").header("content-type", "application/secevent+jwt");
    app.clone().oneshot(request.body(Body::from(event.to_owned())).unwrap()).await.unwrap()
}

async fn pass(clock: &TestClock, seconds: u64) {
    for _ in 0..seconds {
        clock.advance(SECOND);
        tokio::time::sleep(SECOND).await;
    }
}

fn user(iss: &str, sub: &str) -> Value {
    json!({ "format": "iss_sub", "iss": iss, "sub": sub })
}

/// An entry of the log about a session that no token has.
fn foreign_entry(number: u64, now: u64) -> Vec<u8> {
    foreign_entry_of([7; 8], number, now)
}

/// `iss`: the first bytes of its hash.
fn foreign_entry_of(iss: [u8; 8], number: u64, now: u64) -> Vec<u8> {
    let mut entry = vec![1, 3];
    entry.extend(iss);
    entry.extend([0; 3]);
    entry.extend(number.to_be_bytes());
    entry.extend(now.to_be_bytes());
    entry.extend((now + 3600).to_be_bytes());
    entry
}

/// A store that takes a moment to answer, and whose pages may be shorter than 1,000.
struct Slow {
    store: TestStore,
    page: usize,
    reads: Arc<AtomicUsize>,
}

impl SharedStore for Slow {
    fn insert_if_absent<'a>(&'a self, key: &'a str, lifetime: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.store.insert_if_absent(key, lifetime).await
        })
    }

    fn append<'a>(&'a self, entry: &'a [u8], keep_for: Duration) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.store.append(entry, keep_for).await
        })
    }

    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let mut found = self.store.read(position).await?;
            found.entries.truncate(self.page);
            let from: usize = position.map_or(0, |position| position.0.parse().unwrap());
            found.position = (!found.entries.is_empty())
                .then(|| LogPosition((from + found.entries.len()).to_string()));
            Ok(found)
        })
    }
}
