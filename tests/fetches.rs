//! Which requests an issuer's server receives, in which order, and how long a response may take.
//! The server is scripted: each case determines how late its responses are.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, Error, FetchError, Issuer, Verifier};
use serde_json::json;
use tokio::sync::Semaphore;

const METADATA: &str = "/.well-known/openid-configuration";
const OTHER_METADATA: &str = "/.well-known/oauth-authorization-server";

#[derive(Clone)]
struct Asked {
    base: String,
    path: String,
    /// Counted for each path, from 1.
    number: usize,
    if_none_match: Option<String>,
}

struct Reply {
    status: u16,
    headers: Vec<(header::HeaderName, &'static str)>,
    body: String,
}

fn reply(status: u16, body: impl Into<String>) -> Reply {
    Reply { status, headers: Vec::new(), body: body.into() }
}

impl Reply {
    fn with(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

struct Server {
    base: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start<F: Future<Output = Reply> + Send + 'static>(
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

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Signing keys and a verifier of their tokens that fetches the set from `/keys`.
struct Api {
    keys: Arc<TestIssuer>,
    clock: TestClock,
    verifier: Verifier,
}

impl Api {
    fn new(keys: &Arc<TestIssuer>, configure: impl Fn(Issuer) -> Issuer) -> Self {
        let clock = TestClock::new();
        keys.set_clock(&clock);
        let issuer = configure(Issuer::new(keys.iss(), AUDIENCE).unwrap());
        let verifier =
            Verifier::builder(issuer).clock(&clock).without_token_cache().build().unwrap();
        Self { keys: Arc::clone(keys), clock, verifier }
    }

    fn at_keys(server: &Server, keys: &Arc<TestIssuer>) -> Self {
        Self::new(keys, |issuer| issuer.jwks_uri(&server.at("/keys")).unwrap())
    }

    async fn verdict(&self, token: &str) -> &'static str {
        self.verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
    }

    async fn good(&self) -> &'static str {
        self.verdict(&self.keys.token().build()).await
    }

    async fn failure(&self) -> FetchError {
        match self.verifier.verify(&self.keys.token().build()).await {
            Err(Error::KeysUnavailable { reason: source, .. }) => source,
            other => panic!("{other:?}"),
        }
    }

    fn seconds_pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn next_fetch(&self) -> u64 {
        self.verifier.health()[0].next_fetch.unwrap().as_secs()
    }

    async fn fetched(&self, times: u64) {
        let wait = async {
            while self.verifier.health()[0].fetches < times {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(),
            "never fetched {times} times"
        );
    }
}

fn keys() -> Arc<TestIssuer> {
    Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap())
}

fn poll_once(future: std::pin::Pin<&mut impl Future>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A response arrives after its fetch was abandoned and another one has succeeded.
#[tokio::test]
async fn a_late_response_does_not_replace_a_newer_one() {
    let (keys, gate) = (keys(), Arc::new(Semaphore::new(0)));
    let old = keys.token().build();
    let (late, source, held) = (keys.jwks_json().to_string(), Arc::clone(&keys), Arc::clone(&gate));
    let server = Server::start(move |asked| {
        let (late, now, held) = (late.clone(), source.jwks_json().to_string(), Arc::clone(&held));
        async move {
            if asked.number == 2 {
                held.acquire().await.unwrap().forget();
                return reply(200, late);
            }
            reply(200, now)
        }
    })
    .await;
    let api = Api::at_keys(&server, &keys);
    assert_eq!(api.good().await, "ok");
    keys.rotate().unwrap();
    keys.withdraw_old_keys();
    api.seconds_pass(10);
    let new = keys.token().build();
    assert!(!poll_once(pin!(api.verifier.verify(&new))), "starts a fetch and is dropped");
    while server.asked().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    api.seconds_pass(10);
    assert_eq!(api.verdict(&new).await, "ok", "the fetch was abandoned, another one succeeded");
    assert_eq!(api.verdict(&old).await, "unknown_key", "fetched once more, then remembered");
    let (asked, fetches) = (server.asked().len(), api.verifier.health()[0].fetches);
    gate.add_permits(1);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!((api.verdict(&new).await, api.verdict(&old).await), ("ok", "unknown_key"));
    }
    assert_eq!((server.asked().len(), api.verifier.health()[0].fetches), (asked, fetches));
}

/// RFC 9111 §4.3.4: a 304 updates the lifetime if it has `Cache-Control`, and otherwise renews the
/// previous one.
#[tokio::test]
async fn a_304_renews_the_lifetime() {
    for (name, first, then, expected) in [
        ("never given", None, None, 480),
        ("in the first response", Some("max-age=3600"), None, 2880),
        ("in the 304", None, Some("max-age=900"), 720),
        ("in both", Some("max-age=3600"), Some("max-age=900"), 720),
    ] {
        let keys = keys();
        let jwks = keys.jwks_json().to_string();
        let server = Server::start(move |asked| {
            let (jwks, unchanged) =
                (jwks.clone(), asked.if_none_match.as_deref() == Some("\"v1\""));
            async move {
                let (answer, hint) =
                    if unchanged { (reply(304, ""), then) } else { (reply(200, jwks), first) };
                let answer = answer.with(header::ETAG, "\"v1\"");
                match hint {
                    Some(hint) => answer.with(header::CACHE_CONTROL, hint),
                    None => answer,
                }
            }
        })
        .await;
        let api = Api::at_keys(&server, &keys);
        assert_eq!(api.good().await, "ok");
        api.seconds_pass(if first.is_some() { 3300 } else { 550 });
        assert_eq!(api.good().await, "ok");
        api.fetched(2).await;
        let next = api.next_fetch();
        assert!((expected * 9 / 10 - 1..=expected * 11 / 10).contains(&next), "{name}: {next}");
    }
}

/// An ETag is stored and sent back, unless it is too long to be a hash.
#[tokio::test]
async fn validators_of_up_to_a_kilobyte_are_stored() {
    for (length, sent_back) in [(1022, true), (1023, false)] {
        let keys = keys();
        let (jwks, asked) = (keys.jwks_json().to_string(), Arc::new(Mutex::new(Vec::new())));
        let etag: &'static str = Box::leak(format!("\"{}\"", "x".repeat(length)).into_boxed_str());
        let log = Arc::clone(&asked);
        let server = Server::start(move |asked| {
            log.lock().unwrap().push(asked.if_none_match.is_some());
            let answer = reply(200, jwks.clone()).with(header::ETAG, etag);
            async move { answer }
        })
        .await;
        let api = Api::at_keys(&server, &keys);
        assert_eq!(api.good().await, "ok");
        api.seconds_pass(550);
        assert_eq!(api.good().await, "ok");
        api.fetched(2).await;
        assert_eq!(*asked.lock().unwrap(), [false, sent_back], "{length}");
    }
}

/// The metadata change to another `jwks_uri`, whose set happens to have the same ETag.
#[tokio::test]
async fn validators_of_one_url_are_not_sent_to_another() {
    let (old, new) = (keys(), keys());
    let (first, second) = (old.jwks_json().to_string(), new.jwks_json().to_string());
    let server = Server::start(move |asked| {
        let (first, second) = (first.clone(), second.clone());
        async move {
            let uri = format!("{}/{}", asked.base, if asked.number == 1 { "a" } else { "b" });
            match &*asked.path {
                METADATA => reply(
                    200,
                    json!({ "issuer": "https://issuer.example/", "jwks_uri": uri }).to_string(),
                ),
                _ if asked.if_none_match.is_some() => reply(304, ""),
                "/a" => reply(200, first).with(header::ETAG, "\"v1\""),
                _ => reply(200, second).with(header::ETAG, "\"v1\""),
            }
        }
    })
    .await;
    let api = Api::new(&old, |issuer| issuer.discovery_url(&server.base).unwrap());
    assert_eq!(api.good().await, "ok");
    api.seconds_pass(550);
    assert_eq!(api.good().await, "ok", "refreshed in the background");
    api.fetched(2).await;
    new.set_clock(&api.clock);
    api.seconds_pass(550);
    assert_eq!(api.good().await, "ok", "the metadata have expired, so the refresh fetches both");
    api.fetched(3).await;
    assert_eq!(api.verdict(&new.token().build()).await, "ok", "{:?}", server.asked());
    assert_eq!(api.good().await, "bad_signature", "the old server's key has left the set");
}

#[tokio::test]
async fn the_next_well_known_url_is_tried_only_if_the_first_does_not_exist() {
    for (status, expected, both) in [
        (404, "ok", true),
        (405, "ok", true),
        (410, "ok", true),
        (400, "keys_unavailable", false),
        (401, "keys_unavailable", false),
        (403, "keys_unavailable", false),
        (500, "keys_unavailable", false),
        (503, "keys_unavailable", false),
    ] {
        let keys = keys();
        let jwks = keys.jwks_json().to_string();
        let server = Server::start(move |asked| {
            let jwks = jwks.clone();
            async move {
                match &*asked.path {
                    METADATA => reply(status, ""),
                    OTHER_METADATA => {
                        let uri = format!("{}/keys", asked.base);
                        reply(
                            200,
                            json!({ "issuer": "https://issuer.example/", "jwks_uri": uri })
                                .to_string(),
                        )
                    }
                    _ => reply(200, jwks),
                }
            }
        })
        .await;
        let api = Api::new(&keys, |issuer| issuer.discovery_url(&server.base).unwrap());
        assert_eq!(api.good().await, expected, "{status}");
        assert_eq!(server.asked().iter().any(|path| path == OTHER_METADATA), both, "{status}");
    }
}

/// For a connection that was dropped without a reset, a second request is sent while the first
/// waits. Either may succeed.
#[tokio::test]
async fn a_late_request_is_hedged() {
    for (name, answers, expected) in [
        ("the first is never answered", [None, Some(200)], "ok"),
        ("the second is never answered", [Some(200), None], "ok"),
        ("the second fails, the first is late", [Some(200), Some(404)], "ok"),
        ("neither is answered", [None, None], "timeout"),
    ] {
        let keys = keys();
        let (jwks, gate) = (keys.jwks_json().to_string(), Arc::new(Semaphore::new(0)));
        let server = Server::start(move |asked| {
            let (jwks, gate) = (jwks.clone(), Arc::clone(&gate));
            async move {
                // The first response waits until the second request has arrived.
                match asked.number {
                    1 => gate.acquire().await.unwrap().forget(),
                    _ => drop(tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        gate.add_permits(1);
                    })),
                }
                match answers[asked.number - 1] {
                    Some(status) => reply(status, jwks),
                    None => std::future::pending().await,
                }
            }
        })
        .await;
        let limit = Duration::from_millis(400);
        let uri = server.at("/keys");
        let api = Api::new(&keys, |issuer| {
            issuer.jwks_uri(&uri).unwrap().keys_fetch_timeout(limit).unwrap()
        });
        match expected {
            "ok" => assert_eq!(api.good().await, "ok", "{name}"),
            _ => assert!(matches!(api.failure().await, FetchError::Timeout { .. }), "{name}"),
        }
        assert_eq!(server.asked().len(), 2, "{name}");
    }
}

#[tokio::test]
async fn one_time_limit_covers_metadata_keys_and_retries() {
    for (name, limit, delay, status, asked) in [
        ("each within the limit, but not both", 1000, 600, 200, vec![METADATA, "/keys"]),
        ("a retry after one second", 400, 0, 429, vec![METADATA]),
    ] {
        let keys = keys();
        let jwks = keys.jwks_json().to_string();
        let server = Server::start(move |asked| {
            let jwks = jwks.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let uri = format!("{}/keys", asked.base);
                let metadata = json!({ "issuer": "https://issuer.example/", "jwks_uri": uri });
                let body = if asked.path == METADATA { metadata.to_string() } else { jwks };
                reply(status, body).with(header::RETRY_AFTER, "1")
            }
        })
        .await;
        let limit = Duration::from_millis(limit);
        let api = Api::new(&keys, |issuer| {
            issuer.discovery_url(&server.base).unwrap().keys_fetch_timeout(limit).unwrap()
        });
        assert!(matches!(api.failure().await, FetchError::Timeout { .. }), "{name}");
        let mut paths = server.asked();
        paths.dedup();
        assert_eq!(paths, asked, "{name}");
    }
}

/// The server at the old URL stops responding. The metadata already name the new URL.
#[tokio::test]
async fn metadata_are_fetched_again_after_a_timeout() {
    let keys = keys();
    let jwks = keys.jwks_json().to_string();
    let server = Server::start(move |asked| {
        let jwks = jwks.clone();
        async move {
            let uri = format!("{}/{}", asked.base, if asked.number == 1 { "old" } else { "new" });
            match (&*asked.path, asked.number) {
                (METADATA, _) => reply(
                    200,
                    json!({ "issuer": "https://issuer.example/", "jwks_uri": uri }).to_string(),
                ),
                ("/old", 2..) => std::future::pending().await,
                _ => reply(200, jwks).with(header::CACHE_CONTROL, "max-age=60"),
            }
        }
    })
    .await;
    let limit = Duration::from_millis(200);
    let api = Api::new(&keys, |issuer| {
        issuer.discovery_url(&server.base).unwrap().keys_fetch_timeout(limit).unwrap()
    });
    assert_eq!(api.good().await, "ok");
    api.seconds_pass(55);
    assert_eq!(api.good().await, "ok");
    api.fetched(2).await;
    api.seconds_pass(2);
    assert_eq!(api.good().await, "ok");
    api.fetched(3).await;
    assert_eq!(server.asked().last().unwrap(), "/new", "{:?}", server.asked());
}

#[tokio::test]
async fn the_stored_error_is_returned_during_back_off() {
    let keys = keys();
    let server = Server::start(|_| async { reply(418, "") }).await;
    let api = Api::at_keys(&server, &keys);
    let first = api.failure().await;
    assert!(matches!(first, FetchError::Status { status: 418, .. }), "{first}");
    let token = keys.token().build();
    let mut again = pin!(api.verifier.verify(&token));
    assert!(poll_once(again.as_mut()), "does not wait");
    assert_eq!(api.failure().await.to_string(), first.to_string());
    assert_eq!(server.asked().len(), 1);
}

fn pem(keys: &TestIssuer) -> String {
    let jwk = keys.jwks_json()["keys"][0].clone();
    let coordinate =
        |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let prefix = (0..26).map(|at| u8::from_str_radix(&prefix[2 * at..2 * at + 2], 16).unwrap());
    let der: Vec<u8> = prefix.chain([4]).chain(coordinate("x")).chain(coordinate("y")).collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        BASE64_STANDARD.encode(der)
    )
}

/// Each key has its own URL, as with AWS load balancers. Cached keys verify whatever happens to
/// other fetches.
#[tokio::test]
async fn keys_can_be_fetched_one_by_one() {
    let new =
        || Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap());
    let (first, second) = (new(), new());
    let published = Arc::new(Mutex::new(HashMap::from([
        ("/keys/a-1".to_owned(), pem(&first)),
        ("/keys/b-2".to_owned(), pem(&second)),
        (
            "/keys/odd".to_owned(),
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".to_owned(),
        ),
    ])));
    let documents = Arc::clone(&published);
    let server = Server::start(move |asked| {
        let document = documents.lock().unwrap().get(&asked.path).cloned();
        async move { document.map_or_else(|| reply(404, ""), |document| reply(200, document)) }
    })
    .await;
    let prefix = server.at("/keys/");
    let api = Api::new(&first, |issuer| issuer.pem_key_prefix(&prefix).unwrap());
    second.set_clock(&api.clock);
    let by = |keys: &Arc<TestIssuer>, kid: &str| keys.token().header("kid", kid).build();
    assert!(api.verifier.warm_up().await.is_ok(), "no token has named a key yet");
    for kid in ["", "../a-1", "a/1", "a?1", "a%2f1", "ä", &"a".repeat(65)] {
        assert_eq!(api.verdict(&by(&first, kid)).await, "unknown_key", "{kid:?}");
    }
    assert_eq!(api.verdict(&first.token().without_header("kid").build()).await, "unknown_key");
    assert_eq!(
        server.asked(),
        Vec::<String>::new(),
        "an invalid key name never becomes part of a URL"
    );

    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok");
    assert_eq!(api.verdict(&by(&second, "a-1")).await, "bad_signature");
    assert_eq!(api.verdict(&by(&second, "b-2")).await, "ok");
    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok", "both are cached");
    api.seconds_pass(10);
    assert_eq!(api.verdict(&by(&first, "c-3")).await, "unknown_key");
    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok");
    api.seconds_pass(20);
    assert_eq!(
        api.verdict(&by(&first, "odd")).await,
        "keys_unavailable",
        "the document is not a key"
    );
    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok", "the previous set stays cached");

    // Of two concurrent requests, one waits for the other's fetch and then for its own.
    api.seconds_pass(20);
    let (one, other) = (by(&first, "d-4"), by(&first, "e-5"));
    assert_eq!(
        tokio::join!(api.verdict(&one), api.verdict(&other)),
        ("unknown_key", "unknown_key")
    );

    // A withdrawn key disappears with the next refresh.
    published.lock().unwrap().remove("/keys/a-1");
    api.seconds_pass(550);
    assert_eq!(api.verdict(&by(&second, "b-2")).await, "ok");
    api.fetched(8).await;
    assert_ne!(api.verdict(&by(&first, "a-1")).await, "ok");
    assert_eq!(api.verdict(&by(&second, "b-2")).await, "ok");
    for prefix in [
        "https://keys.example",
        "https://keys.example/a",
        "https://keys.example/?a=/",
        "http://keys.example/",
        "a/",
    ] {
        let issuer = Issuer::new("https://issuer.example/", AUDIENCE).unwrap();
        assert_eq!(
            issuer.pem_key_prefix(prefix).is_ok(),
            prefix == "https://keys.example",
            "{prefix}"
        );
    }
}

/// Tokens with nonexistent keys, from the start and every second, do not block tokens whose keys
/// exist.
#[tokio::test]
async fn a_nonexistent_key_does_not_count_as_a_failed_fetch() {
    let keys =
        Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap());
    let document = pem(&keys);
    let server = Server::start(move |asked| {
        let reply = if asked.path == "/keys/good-1" {
            reply(200, document.clone())
        } else {
            reply(404, "")
        };
        async move { reply }
    })
    .await;
    let prefix = server.at("/keys/");
    let api = Api::new(&keys, |issuer| issuer.pem_key_prefix(&prefix).unwrap());
    let good = keys.token().header("kid", "good-1").claim("exp", 4_000_000_000_u64).build();
    for second in 0..600 {
        let junk = keys.token().header("kid", format!("junk-{second}")).tampered().build();
        let verdict = api.verdict(&junk).await;
        assert!(["unknown_key", "keys_unavailable"].contains(&verdict), "{verdict}");
        assert_eq!(api.verdict(&good).await, "ok", "after {second} s");
        api.seconds_pass(1);
    }
    assert!(server.asked().len() < 2 * 610, "{} requests in ten minutes", server.asked().len());
}

/// A correction of the wall clock does not change the age of the keys.
#[tokio::test]
async fn a_jump_of_the_wall_clock_causes_no_fetch() {
    const DAY: i64 = 24 * 3600;
    let keys = keys();
    let jwks = keys.jwks_json().to_string();
    let server = Server::start(move |_| {
        let jwks = jwks.clone();
        async move { reply(200, jwks) }
    })
    .await;
    let api = Api::at_keys(&server, &keys);
    assert_eq!(api.good().await, "ok");
    let token = keys.token().build();
    for (by, expected) in [(DAY, "expired"), (-2 * DAY, "issued_in_the_future"), (DAY, "ok")] {
        api.clock.correct_by(by);
        assert_eq!(api.verdict(&token).await, expected, "{by}");
        assert_eq!(api.good().await, "ok", "a token issued at the new time, {by}");
    }
    let health = &api.verifier.health()[0];
    assert_eq!((health.fetches, health.age), (1, Some(Duration::ZERO)));
}

/// The runtime on which the fetch was started exists, but is not driven, for example because
/// `block_on` is blocked.
#[test]
fn a_fetch_on_a_stalled_runtime_is_abandoned() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (driven, standing) = (runtime(), runtime());
    let keys = keys();
    let server = driven.block_on(Server::start(|_| std::future::pending()));
    let uri = server.at("/keys");
    let limit = Duration::from_millis(50);
    let api =
        Api::new(&keys, |issuer| issuer.jwks_uri(&uri).unwrap().keys_fetch_timeout(limit).unwrap());
    let token = keys.token().build();
    standing.block_on(async { assert!(!poll_once(pin!(api.verifier.verify(&token)))) });
    let waited = async { tokio::time::timeout(Duration::from_secs(10), api.failure()).await };
    assert!(driven.block_on(waited).is_ok());
}
