//! Status lists: which tokens are rejected, which lists are used, and for how long.

#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/verdict.rs"]
mod verdict;

mod fetching;
mod hostile;
mod status;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventually::eventually;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use portcullis::testing::{Behavior, TestClock, TestIssuer, TokenBuilder};
use portcullis::{StatusLists, Verifier};
use serde_json::json;
use verdict::verdict;

const HOUR: Duration = Duration::from_secs(3600);

/// How long a list without `ttl` is cached.
const LIFETIME: Duration = Duration::from_secs(300);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Api {
    issuer: TestIssuer,
    clock: TestClock,
    verifier: Verifier,
}

impl Api {
    fn new() -> Self {
        Self::with(StatusLists::new())
    }

    fn with(lists: StatusLists) -> Self {
        let (issuer, clock) = (TestIssuer::start().unwrap(), TestClock::new());
        issuer.set_clock(&clock);
        let config = issuer.issuer().status_lists(lists);
        let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
        Self { issuer, clock, verifier }
    }

    /// A token with this place in the issuer's list.
    fn token(&self, index: u32) -> String {
        self.builder(index).build()
    }

    fn builder(&self, index: u32) -> TokenBuilder {
        self.issuer.token().valid_for(48 * HOUR).status(&self.issuer.status_list(), index)
    }

    /// A token with this claim `status`.
    fn with_status(&self, status: serde_json::Value) -> String {
        self.issuer.token().claim("status", status).build()
    }

    /// One of many lists, and a token whose status is in it.
    fn list_at(&self, number: usize) -> (TokenBuilder, String) {
        let uri = format!("{}?{number}", self.issuer.status_list().uri());
        let list = self.issuer.status_list_token().subject(&uri);
        (list, self.with_status(json!({ "status_list": { "idx": 0, "uri": uri } })))
    }

    async fn verdict(&self, token: &str) -> &'static str {
        verdict(&self.verifier, token).await
    }

    /// Serves this list from now on.
    fn serve(&self, list: TokenBuilder) {
        self.issuer.set_status_list_behavior(Behavior::Body(list.build()));
    }

    fn fetches(&self) -> usize {
        self.issuer.status_list_fetches()
    }

    /// Uses the token, and waits until the refresh in the background has been asked for.
    async fn refresh(&self, token: &str, fetches: usize) {
        assert_eq!(self.verdict(token).await, "ok");
        eventually("a refresh", || self.fetches() == fetches).await;
    }
}

/// A server with many lists, at an origin of its own.
#[derive(Clone)]
struct Lists {
    origin: String,
    served: Arc<Mutex<HashMap<String, String>>>,
}

impl Lists {
    async fn start() -> Self {
        let served = Arc::<Mutex<HashMap<String, String>>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let lists = served.clone();
        let app = axum::Router::new().fallback(async move |uri: axum::http::Uri| {
            lists.lock().unwrap().get(uri.path()).cloned().unwrap_or_default()
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { origin, served }
    }

    /// Serves a list of this many bytes, signed by the issuer, and returns the claim `status` of a
    /// token in it.
    fn serve(&self, issuer: &TestIssuer, path: &str, lst: &str) -> serde_json::Value {
        let uri = format!("{}{path}", self.origin);
        let list = json!({ "bits": 1, "lst": lst });
        let list = issuer.status_list_token().subject(&uri).claim("status_list", list).build();
        self.served.lock().unwrap().insert(path.to_owned(), list);
        json!({ "status_list": { "idx": 0, "uri": uri } })
    }
}

/// A list of 16 MiB.
fn large_lst() -> String {
    lst_of(&vec![0; 16 * 1024 * 1024])
}

fn lst_of(statuses: &[u8]) -> String {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(statuses).unwrap();
    URL_SAFE_NO_PAD.encode(packed.finish().unwrap())
}
