//! Status lists: which tokens are rejected, which lists are used, and for how long.

#[path = "support/eventually.rs"]
mod eventually;
#[path = "support/verdict.rs"]
mod verdict;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::{CACHE_CONTROL, ETAG};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventually::eventually;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use portcullis::testing::{AUDIENCE, Behavior, DpopClient, TestClock, TestIssuer, TokenBuilder};
use portcullis::{
    Algorithm, ClientAuth, Dpop, Error, Introspection, Issuer, Issuers, Jwks, ProtectLayer,
    StatusLists, Verifier,
};
use serde_json::json;
use tower::{Layer as _, service_fn};
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

#[tokio::test]
async fn only_status_0_is_accepted() {
    let api = Api::new();
    for (index, status) in [(1, 1), (2, 2), (3, 3), (4, 255), (1023, 1), (2047, 1)] {
        api.issuer.set_status(index, status);
    }
    for (name, index, expected) in [
        ("valid", 0, "ok"),
        ("invalid", 1, "revoked"),
        ("suspended", 2, "revoked"),
        ("of the application", 3, "revoked"),
        ("unknown", 4, "revoked"),
        ("the last one", 2047, "revoked"),
        ("before the last one", 2046, "ok"),
        ("past the last one", 2048, "claim_value"),
        ("the highest index", u32::MAX, "claim_value"),
    ] {
        // From the second time on, it is cached.
        let token = api.token(index);
        for _ in 0..3 {
            assert_eq!(api.verdict(&token).await, expected, "{name}");
        }
    }
    assert_eq!(api.fetches(), 1);
    let without = api.issuer.token().build();
    assert_eq!(api.verdict(&without).await, "ok", "a token without a status");
}

#[tokio::test]
async fn without_the_setting_the_claim_is_ignored() {
    let api = Api::new();
    api.issuer.set_status(1, 1);
    let verifier = Verifier::new(api.issuer.issuer()).unwrap();
    assert_eq!(verdict(&verifier, &api.token(1)).await, "ok");
    assert_eq!(api.fetches(), 0);
}

#[tokio::test]
async fn only_lists_at_allowed_origins_are_fetched() {
    let other = TestIssuer::start().unwrap();
    let at = |uri: &str| json!({ "status_list": { "idx": 0, "uri": uri } });
    let api = Api::new();
    let own = api.issuer.status_list().uri().to_owned();
    for (name, status, expected) in [
        ("own", at(&own), "ok"),
        ("another mechanism", json!({ "other": {} }), "ok"),
        ("another port", at(other.status_list().uri()), "claim_value"),
        ("another host", at("https://issuer.example/1"), "claim_value"),
        ("plain http", at("http://issuer.example/1"), "claim_value"),
        ("no URL", at("list"), "claim_value"),
        ("a file", at("file:///list"), "claim_value"),
        ("with a password", at(&own.replace("://", "://user:password@")), "claim_value"),
        ("no index", json!({ "status_list": { "uri": own } }), "claim_type"),
        ("no URI", json!({ "status_list": { "idx": 0 } }), "claim_type"),
        ("a negative index", json!({ "status_list": { "idx": -1, "uri": own } }), "claim_type"),
        ("no list", json!({ "status_list": true }), "claim_type"),
        ("text", json!("active"), "claim_type"),
    ] {
        assert_eq!(api.verdict(&api.with_status(status)).await, expected, "{name}");
    }
    assert_eq!((api.fetches(), other.status_list_fetches()), (1, 0));
    // A list at an allowed origin must be signed by the issuer, whatever serves it.
    let allowed = StatusLists::new().allow_origin(other.iss()).unwrap();
    let api = Api::with(allowed);
    let uri = other.status_list().uri().to_owned();
    let token = api.with_status(at(&uri));
    assert_eq!(api.verdict(&token).await, "revocations_unavailable");
    let list = api.issuer.status_list_token().subject(&uri).build();
    other.set_status_list_behavior(Behavior::Body(list));
    api.clock.advance(seconds(60));
    assert_eq!(api.verdict(&token).await, "ok");
}

#[tokio::test]
async fn unusable_lists_are_not_used() {
    let other = TestIssuer::offline("https://other.example/").unwrap();
    type Change = fn(TokenBuilder, &TestIssuer, u64) -> TokenBuilder;
    let cases: [(&str, Change, &str); 15] = [
        ("good", |list, _, _| list, "ok"),
        (
            "its whole media type",
            |list, _, _| list.header("typ", "application/statuslist+jwt"),
            "ok",
        ),
        ("without exp", |list, _, _| list.without_claim("exp"), "ok"),
        ("expired within the leeway", |list, _, now| list.claim("exp", now - 10), "ok"),
        ("another type", |list, _, _| list.header("typ", "JWT"), "revocations_unavailable"),
        ("no type", |list, _, _| list.without_header("typ"), "revocations_unavailable"),
        ("another list", |list, _, _| list.subject("x"), "revocations_unavailable"),
        ("without iat", |list, _, _| list.without_claim("iat"), "revocations_unavailable"),
        ("of the future", |list, _, now| list.claim("iat", now + 60), "revocations_unavailable"),
        ("expired", |list, _, now| list.claim("exp", now - 60), "revocations_unavailable"),
        (
            "without a list",
            |list, _, _| list.without_claim("status_list"),
            "revocations_unavailable",
        ),
        ("signed by another", |list, other, _| list.signed_by(other), "revocations_unavailable"),
        ("unsigned", |list, _, _| list.unsigned(), "revocations_unavailable"),
        ("tampered", |list, _, _| list.tampered(), "revocations_unavailable"),
        ("padded", |list, _, _| list.padded(), "revocations_unavailable"),
    ];
    for (name, change, expected) in cases {
        let api = Api::new();
        let now = api.clock.unix_seconds();
        api.serve(change(api.issuer.status_list_token(), &other, now));
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
        assert_eq!(api.fetches(), 1, "{name}");
    }
}

#[tokio::test]
async fn failing_servers_are_answered_503_and_recover() {
    let huge = "x".repeat(4 * 1024 * 1024 + 1);
    for (name, behavior) in [
        ("missing", Behavior::Status(404)),
        ("a redirect", Behavior::Redirect("https://other.example/".to_owned())),
        ("a closed connection", Behavior::Close),
        ("no JWT", Behavior::Body("{}".to_owned())),
        ("more than 4 MiB", Behavior::Body(huge)),
    ] {
        let api = Api::new();
        api.issuer.set_status_list_behavior(behavior);
        let (good, bad) = (api.token(0), api.token(1));
        api.issuer.set_status(1, 1);
        assert_eq!(api.verdict(&good).await, "revocations_unavailable", "{name}");
        let fetches = api.fetches();
        assert_eq!(api.verdict(&good).await, "revocations_unavailable", "{name}");
        assert_eq!(api.fetches(), fetches, "{name}: it backs off");
        api.issuer.set_status_list_behavior(Behavior::Serve);
        api.clock.advance(seconds(60));
        assert_eq!(api.verdict(&good).await, "ok", "{name}");
        assert_eq!(api.verdict(&bad).await, "revoked", "{name}");
    }
}

#[tokio::test]
async fn a_hanging_server_delays_a_request_for_a_bounded_time() {
    let issuer = TestIssuer::start().unwrap();
    let config = issuer.issuer().jwks(issuer.jwks()).status_lists(StatusLists::new());
    let config = config.keys_fetch_timeout(Duration::from_millis(50)).unwrap();
    let clock = TestClock::new();
    let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
    let token = issuer.token().status(&issuer.status_list(), 0).build();
    issuer.set_status_list_behavior(Behavior::Hang);
    for _ in 0..2 {
        assert_eq!(verdict(&verifier, &token).await, "revocations_unavailable");
        // The second one does not wait: it has an answer without a future.
        assert!(verifier.try_verify(&token).is_some());
    }
}

#[tokio::test]
async fn concurrent_requests_share_a_fetch() {
    let api = Api::new();
    assert_eq!(api.verdict(&api.issuer.token().build()).await, "ok", "keys are fetched");
    let mut requests = tokio::task::JoinSet::new();
    for index in 0..32 {
        let (verifier, token) = (api.verifier.clone(), api.token(index));
        requests.spawn(async move { verdict(&verifier, &token).await });
    }
    assert!(requests.join_all().await.into_iter().all(|verdict| verdict == "ok"));
    assert_eq!(api.fetches(), 1);
}

#[tokio::test]
async fn a_change_takes_effect_for_cached_tokens() {
    let api = Api::new();
    let token = api.token(7);
    for _ in 0..3 {
        assert_eq!(api.verdict(&token).await, "ok");
    }
    api.issuer.set_status(7, 1);
    assert_eq!(api.verdict(&token).await, "ok", "the list is still fresh");
    // A refresh begins at 72 to 88 % of the lifetime, and delays no request.
    api.clock.advance(LIFETIME.mul_f64(0.7));
    assert_eq!(api.verdict(&token).await, "ok");
    assert_eq!(api.fetches(), 1);
    api.clock.advance(LIFETIME.mul_f64(0.2));
    api.refresh(&token, 2).await;
    eventually("the change", || {
        api.verifier.try_verify(&token).is_some_and(|verified| verified.is_err())
    })
    .await;
    assert_eq!(api.verdict(&token).await, "revoked");
}

#[tokio::test]
async fn open_streams_notice_a_change() {
    for (name, forget) in [("the list has ended", false), ("the list was dropped", true)] {
        let api = Api::new();
        let token = api.verifier.verify(&api.token(7)).await.unwrap();
        let other = api.verifier.verify(&api.token(8)).await.unwrap();
        api.issuer.set_status(7, 1);
        api.clock.advance(LIFETIME);
        if forget {
            api.verifier.forget(api.issuer.iss());
        }
        let revoked = tokio::time::timeout(seconds(10), token.until_revoked());
        assert!(revoked.await.is_ok(), "{name}");
        let revoked = tokio::time::timeout(Duration::from_millis(1), other.until_revoked());
        assert!(revoked.await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn the_lifetime_is_bounded() {
    struct Case {
        name: &'static str,
        ttl: Option<u64>,
        exp: Option<u64>,
        max_age: Option<u64>,
        /// In seconds.
        expected: u64,
    }
    let case = |name, ttl, exp, max_age, expected| Case { name, ttl, exp, max_age, expected };
    for Case { name, ttl, exp, max_age, expected } in [
        case("none", None, None, None, 300),
        case("short", Some(0), None, None, 60),
        case("within", Some(600), None, None, 600),
        case("long", Some(400_000), None, None, 86_400),
        case("before that of HTTP", Some(600), None, Some(60), 600),
        case("of HTTP", None, None, Some(120), 120),
        case("long, of HTTP", None, None, Some(3600), 300),
        case("until its end", Some(600), Some(100), None, 100),
        case("not past its end", None, Some(100), None, 100),
    ] {
        let api = Api::with(StatusLists::new().max_stale(Duration::ZERO).unwrap());
        let now = api.clock.unix_seconds();
        let mut list = api.issuer.status_list_token().without_claim("exp");
        list = ttl.into_iter().fold(list, |list, ttl| list.claim("ttl", ttl));
        list = exp.into_iter().fold(list, |list, exp| list.claim("exp", now + exp));
        if let Some(max_age) = max_age {
            api.issuer.set_header(CACHE_CONTROL, &format!("max-age={max_age}"));
        }
        api.serve(list);
        let token = api.token(0);
        assert_eq!(api.verdict(&token).await, "ok", "{name}");
        // No refresh before 72 % of the lifetime. At its end, the request waits.
        let before = expected * 7 / 10;
        api.clock.advance(seconds(before));
        assert_eq!(api.verdict(&token).await, "ok", "{name}");
        assert_eq!(api.fetches(), 1, "{name}");
        api.issuer.set_status(0, 1);
        api.issuer.set_status_list_behavior(Behavior::Serve);
        api.clock.advance(seconds(expected - before));
        assert_eq!(api.verdict(&token).await, "revoked", "{name}");
        assert_eq!(api.fetches(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_list_is_used_past_its_lifetime_for_a_bounded_time() {
    let api = Api::with(StatusLists::new().max_stale(seconds(120)).unwrap());
    let (token, revoked) = (api.token(0), api.token(1));
    api.issuer.set_status(1, 1);
    assert_eq!(api.verdict(&token).await, "ok");
    api.issuer.set_status_list_behavior(Behavior::Status(500));
    api.clock.advance(LIFETIME - seconds(30));
    // Each attempt is repeated once.
    api.refresh(&token, 3).await;
    api.clock.advance(seconds(30 + 119));
    assert_eq!(api.verdict(&token).await, "ok");
    assert_eq!(api.verdict(&revoked).await, "revoked");
    api.clock.advance(seconds(1));
    assert_eq!(api.verdict(&token).await, "revocations_unavailable");
    assert_eq!(api.verdict(&revoked).await, "revocations_unavailable");
    api.issuer.set_status_list_behavior(Behavior::Serve);
    api.clock.advance(seconds(60));
    assert_eq!(api.verdict(&token).await, "ok");
    assert_eq!(api.verdict(&revoked).await, "revoked");
}

#[tokio::test]
async fn a_list_is_not_used_past_its_end() {
    let api = Api::with(StatusLists::new().max_stale(HOUR).unwrap());
    let now = api.clock.unix_seconds();
    api.serve(api.issuer.status_list_token().claim("exp", now + 600).claim("ttl", 600));
    let token = api.token(0);
    assert_eq!(api.verdict(&token).await, "ok");
    api.issuer.set_status_list_behavior(Behavior::Status(500));
    api.clock.advance(seconds(550));
    api.refresh(&token, 3).await;
    // 30 seconds of leeway.
    api.clock.advance(seconds(79));
    assert_eq!(api.verdict(&token).await, "ok");
    api.clock.advance(seconds(1));
    assert_eq!(api.verdict(&token).await, "revocations_unavailable");
}

#[tokio::test]
async fn an_unchanged_list_is_not_sent_again() {
    let api = Api::new();
    api.issuer.set_header(ETAG, "\"1\"");
    let token = api.token(0);
    assert_eq!(api.verdict(&token).await, "ok");
    for fetches in 2..5 {
        // Were it sent again, the token would be rejected.
        api.issuer.set_status(0, 1);
        api.clock.advance(LIFETIME);
        assert_eq!(api.verdict(&token).await, "ok");
        assert_eq!(api.fetches(), fetches);
    }
    api.issuer.set_header(ETAG, "\"2\"");
    api.clock.advance(LIFETIME);
    assert_eq!(api.verdict(&token).await, "revoked");
}

#[tokio::test]
async fn an_issuer_has_at_most_64_lists() {
    let api = Api::new();
    let at = |number| api.list_at(number);
    for number in 0..64 {
        let (list, token) = at(number);
        api.serve(list);
        assert_eq!(api.verdict(&token).await, "ok", "{number}");
    }
    let (list, token) = at(64);
    api.serve(list);
    assert_eq!(api.verdict(&token).await, "revocations_unavailable");
    assert_eq!(api.fetches(), 64);
    // One that is no longer used makes room.
    api.clock.advance(LIFETIME + seconds(1));
    assert_eq!(api.verdict(&token).await, "ok");
}

#[tokio::test]
async fn the_lists_of_an_issuer_take_at_most_64_mib() {
    let api = Api::new();
    let lst = large_lst();
    for (number, expected) in
        [(0, "ok"), (1, "ok"), (2, "ok"), (3, "ok"), (4, "revocations_unavailable")]
    {
        let (list, token) = api.list_at(number);
        api.serve(list.claim("status_list", json!({ "bits": 1, "lst": lst })));
        assert_eq!(api.verdict(&token).await, expected, "{number}");
    }
    // A refresh takes the place of the list that it replaces.
    let (list, token) = api.list_at(0);
    api.serve(list.claim("status_list", json!({ "bits": 1, "lst": lst })));
    api.clock.advance(LIFETIME);
    assert_eq!(api.verdict(&token).await, "ok");
    assert_eq!(api.fetches(), 6);
}

#[tokio::test]
async fn forgotten_lists_are_fetched_again() {
    let fetched: fn(&TestIssuer) -> Issuer = TestIssuer::issuer;
    for (name, config) in [
        ("keys that are fetched", fetched),
        ("keys that never change", |issuer| issuer.issuer().jwks(issuer.jwks())),
    ] {
        let issuer = TestIssuer::start().unwrap();
        let config = config(&issuer).status_lists(StatusLists::new());
        let verifier = Verifier::new(config).unwrap();
        let token = issuer.token().status(&issuer.status_list(), 0).build();
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &token).await, "ok", "{name}");
        }
        issuer.set_status(0, 1);
        assert!(verifier.forget(issuer.iss()), "{name}");
        assert_eq!(verdict(&verifier, &token).await, "revoked", "{name}");
        assert_eq!(issuer.status_list_fetches(), 2, "{name}");
    }
}

#[tokio::test]
async fn lists_of_resolved_issuers_are_not_fetched_from_private_addresses() {
    let issuer = TestIssuer::start().unwrap();
    let jwks = issuer.jwks();
    let config = move |iss: &str| {
        Some(Issuer::new(iss, AUDIENCE).ok()?.jwks(jwks.clone()).status_lists(StatusLists::new()))
    };
    let token = issuer.token().status(&issuer.status_list(), 0).build();
    let resolved = Issuers::lookup(config.clone());
    let verifier = Verifier::new(resolved).unwrap();
    assert_eq!(verdict(&verifier, &token).await, "revocations_unavailable");
    assert_eq!(issuer.status_list_fetches(), 0);
    let allowed = Issuers::lookup(config).danger_allow_private_addresses();
    assert_eq!(verdict(&Verifier::new(allowed).unwrap(), &token).await, "ok");
}

#[tokio::test]
async fn an_older_list_does_not_replace_a_newer_one() {
    for (name, issued_before, first, second) in [
        ("newer", -1, "ok", "revoked"),
        ("at the same time", 0, "ok", "revoked"),
        ("older", 1, "revoked", "ok"),
    ] {
        let api = Api::new();
        let (one, other) = (api.token(0), api.token(1));
        let now = i64::try_from(api.clock.unix_seconds()).unwrap();
        api.issuer.set_status(0, 1);
        assert_eq!(api.verdict(&one).await, "revoked", "{name}");
        api.issuer.set_status(0, 0);
        api.issuer.set_status(1, 1);
        api.serve(api.issuer.status_list_token().claim("iat", now - issued_before));
        api.clock.advance(LIFETIME);
        assert_eq!(api.verdict(&one).await, first, "{name}");
        assert_eq!(api.verdict(&other).await, second, "{name}");
        assert_eq!(api.fetches(), 2, "{name}");
        let lists = api.verifier.health()[0].status_lists.clone().unwrap();
        assert_eq!(lists.failed_fetches, u64::from(issued_before > 0), "{name}");
        let error = lists.last_error.map(|error| error.to_string()).unwrap_or_default();
        let expected = format!("`iat` is {now} or later, found {}", now - 1);
        assert_eq!(error.contains(&expected), issued_before > 0, "{name}: {error}");
    }
}

#[tokio::test]
async fn a_list_that_has_expired_must_be_sent_again() {
    let api = Api::new();
    api.issuer.set_header(ETAG, "\"1\"");
    assert_eq!(api.verdict(&api.token(0)).await, "ok");
    // The server still has the same list, and says so, if it is asked.
    api.clock.advance(25 * HOUR);
    assert_eq!(api.verdict(&api.token(0)).await, "ok");
    assert_eq!(api.fetches(), 2);
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

#[tokio::test]
async fn lists_that_are_fetched_together_take_no_more_memory() {
    let (issuer, lists) = (TestIssuer::start().unwrap(), Lists::start().await);
    let allowed = StatusLists::new().allow_origin(&lists.origin).unwrap();
    let config = issuer.issuer().jwks(issuer.jwks()).status_lists(allowed);
    let verifier = Verifier::new(config.keys_fetch_timeout(seconds(30)).unwrap()).unwrap();
    let lst = large_lst();
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..8 {
        let status = lists.serve(&issuer, &format!("/{number}"), &lst);
        let (verifier, token) = (verifier.clone(), issuer.token().claim("status", status).build());
        requests.spawn(async move { verdict(&verifier, &token).await });
    }
    let verdicts = requests.join_all().await;
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == "ok").count(), 4, "{verdicts:?}");
    let health = verifier.health()[0].status_lists.clone().unwrap();
    assert_eq!((health.lists, health.bytes), (8, 64 * 1024 * 1024));
    assert_eq!((health.fetches, health.failed_fetches), (8, 4));
}

#[tokio::test]
async fn a_list_may_shrink() {
    let api = Api::new();
    api.issuer.set_status(2047, 0);
    let (first, last) = (api.token(0), api.token(2047));
    assert_eq!(api.verdict(&last).await, "ok");
    let lst = lst_of(&[0, 0]);
    let list = json!({ "bits": 8, "lst": lst });
    api.serve(api.issuer.status_list_token().claim("status_list", list));
    api.clock.advance(LIFETIME);
    for _ in 0..3 {
        assert_eq!(api.verdict(&last).await, "claim_value");
        assert_eq!(api.verdict(&first).await, "ok");
    }
    assert_eq!(api.verifier.health()[0].status_lists.clone().unwrap().bytes, 2);
}

/// Lists that unpack to more than they should, or not at all.
#[tokio::test]
async fn hostile_payloads_are_answered_503() {
    let good = lst_of(&[0; 64]);
    let bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let bomb = lst_of(&vec![0; 64 * 1024 * 1024]);
    let unavailable = "revocations_unavailable";
    for (name, lst, expected) in [
        ("good", good.clone(), "ok"),
        ("a bomb", bomb, unavailable),
        ("truncated", changed(|bytes| bytes.truncate(bytes.len() - 5)), unavailable),
        ("without its checksum", changed(|bytes| bytes.truncate(bytes.len() - 4)), unavailable),
        ("a wrong checksum", changed(|bytes| *bytes.last_mut().unwrap() ^= 1), unavailable),
        ("a wrong header", changed(|bytes| bytes[0] = 0), unavailable),
        ("with a dictionary", changed(|bytes| bytes[1] |= 0x20), unavailable),
        ("followed by bytes, which are signed too", changed(|bytes| bytes.extend([0; 8])), "ok"),
        ("no compression", URL_SAFE_NO_PAD.encode([0; 64]), unavailable),
    ] {
        let api = Api::new();
        let list = json!({ "bits": 8, "lst": lst });
        api.serve(api.issuer.status_list_token().claim("status_list", list));
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn uris_are_compared_as_tokens_spell_them() {
    let unavailable = "revocations_unavailable";
    let host = |uri: &str| uri.replace("127.0.0.1", "localhost");
    type Change = fn(&str) -> String;
    let cases: [(&str, Change, &str, usize); 8] = [
        ("the same", str::to_owned, "ok", 1),
        ("a fragment", |uri| format!("{uri}#1"), unavailable, 1),
        ("a query", |uri| format!("{uri}?1"), unavailable, 1),
        ("a dot segment", |uri| uri.replace("/status", "/x/../status"), unavailable, 1),
        ("the scheme in uppercase", |uri| uri.replace("http", "HTTP"), unavailable, 1),
        ("another path", |uri| format!("{uri}s"), unavailable, 1),
        ("a user", |uri| uri.replace("://", "://user@"), "claim_value", 0),
        (
            "backslashes to another host",
            |_| r"https:\\issuer.example\1".to_owned(),
            "claim_value",
            0,
        ),
    ];
    for (name, change, expected, slots) in cases {
        let api = Api::new();
        let uri = change(api.issuer.status_list().uri());
        let token = api.with_status(json!({ "status_list": { "idx": 0, "uri": uri } }));
        assert_eq!(api.verdict(&token).await, expected, "{name}");
        assert_eq!(api.verifier.health()[0].status_lists.clone().unwrap().lists, slots, "{name}");
    }
    let api = Api::new();
    let uri = host(api.issuer.status_list().uri());
    let token = api.with_status(json!({ "status_list": { "idx": 0, "uri": uri } }));
    assert_eq!(api.verdict(&token).await, "claim_value", "another name of the host");
    assert_eq!(api.fetches(), 0);
}

#[tokio::test]
async fn tokens_are_not_lists_and_lists_are_not_tokens() {
    let api = Api::new();
    let status = json!({ "status_list": { "idx": 0, "uri": api.issuer.status_list().uri() } });
    // A token with every claim of a list, and a list with every claim of a token.
    let list = json!({ "bits": 1, "lst": "eNrbuRgAAhcBXQ" });
    let token = api.issuer.token().subject(api.issuer.status_list().uri());
    let token = token.claim("status_list", list).claim("status", status.clone());
    api.serve(token.clone());
    assert_eq!(api.verdict(&token.clone().build()).await, "revocations_unavailable");
    let list = token.header("typ", "statuslist+jwt").build();
    assert_eq!(api.verdict(&list).await, "unexpected_type");
}

#[tokio::test]
async fn only_verified_tokens_take_the_place_of_lists() {
    let api = Api::new();
    let other = TestIssuer::offline("https://other.example/").unwrap();
    let now = api.clock.unix_seconds();
    type Change = fn(TokenBuilder, &TestIssuer, u64) -> TokenBuilder;
    let cases: [(&str, Change, &str); 4] = [
        ("tampered", |token, _, _| token.tampered(), "bad_signature"),
        ("signed by another", |token, other, _| token.signed_by(other), "bad_signature"),
        ("expired", |token, _, now| token.claim("exp", now - 3600), "expired"),
        ("for another API", |token, _, _| token.audience("x"), "wrong_audience"),
    ];
    let lists = || api.verifier.health()[0].status_lists.clone().unwrap().lists;
    for (name, change, expected) in cases {
        for number in 0..80 {
            let uri = format!("{}?{name}{number}", api.issuer.status_list().uri());
            let status = json!({ "status_list": { "idx": 0, "uri": uri } });
            let token = change(api.issuer.token().claim("status", status), &other, now).build();
            assert_eq!(api.verdict(&token).await, expected, "{name}");
        }
        assert_eq!(lists(), 0, "{name}");
    }
    assert_eq!(api.verdict(&api.token(0)).await, "ok");
    assert_eq!((api.fetches(), lists()), (1, 1));
}

#[tokio::test]
async fn odd_members_of_a_list() {
    let unavailable = "revocations_unavailable";
    type Change = fn(TokenBuilder) -> TokenBuilder;
    let cases: [(&str, Change, &str); 7] = [
        ("a negative ttl", |list| list.claim("ttl", -1), unavailable),
        ("a huge ttl", |list| list.claim("ttl", 1e300), unavailable),
        ("a large ttl", |list| list.claim("ttl", 253_402_300_799_u64), "ok"),
        ("a fraction of a second", |list| list.claim("ttl", 0.5), "ok"),
        ("ttl as text", |list| list.claim("ttl", "60"), unavailable),
        (
            "aggregation_uri",
            |list| {
                let lst = "eNpjYAAAAAIAAQ";
                let uri = "https://127.0.0.1:1/aggregation";
                list.claim("status_list", json!({ "bits": 1, "lst": lst, "aggregation_uri": uri }))
            },
            "ok",
        ),
        ("an unknown claim", |list| list.claim("x", json!({ "y": [1] })), "ok"),
    ];
    for (name, change, expected) in cases {
        let api = Api::new();
        api.serve(change(api.issuer.status_list_token()));
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
        // Nothing else is fetched, and a ttl that is too long is not taken at its word.
        api.issuer.set_status(0, 1);
        api.issuer.set_status_list_behavior(Behavior::Serve);
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{name}");
        assert_eq!(api.fetches(), 1, "{name}");
        api.clock.advance(24 * HOUR);
        assert_eq!(api.verdict(&api.token(0)).await, "revoked", "{name}");
    }
}

/// Entra ID: one issuer for many tenants, whose keys sign for one of them each.
#[tokio::test]
async fn a_list_is_signed_for_the_tenant_of_the_token() {
    const TENANTS: [&str; 2] =
        ["72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad"];
    let template = "https://login.example/{tenantid}/v2.0";
    let lists = Lists::start().await;
    let keys: Vec<_> =
        TENANTS.map(|_| TestIssuer::offline("https://login.example/common/v2.0").unwrap()).into();
    let mut set = json!({ "keys": [] });
    for (tenant, key) in TENANTS.iter().zip(&keys) {
        let mut jwk = key.jwks_json()["keys"][0].clone();
        jwk["issuer"] = json!(template.replace("{tenantid}", tenant));
        set["keys"].as_array_mut().unwrap().push(jwk);
    }
    let issuer = Issuer::template(template, AUDIENCE).unwrap();
    let allowed = StatusLists::new().allow_origin(&lists.origin).unwrap();
    let issuer =
        issuer.jwks(Jwks::from_json(set.to_string().as_bytes()).unwrap()).status_lists(allowed);
    let verifier = Verifier::new(issuer).unwrap();
    let lst = lst_of(&[0]);
    let own = lists.serve(&keys[0], "/own", &lst);
    let shared = lists.serve(&keys[0], "/shared", &lst);
    let token = |tenant: usize, status: &serde_json::Value| {
        let iss = template.replace("{tenantid}", TENANTS[tenant]);
        let token = keys[tenant].token().issued_by(&iss).claim("tid", TENANTS[tenant]);
        token.claim("status", status.clone()).build()
    };
    for (name, tenant, status, expected) in [
        ("of its tenant", 0, &own, "ok"),
        ("of another tenant", 1, &own, "revocations_unavailable"),
        ("of another tenant first", 1, &shared, "revocations_unavailable"),
        ("of its tenant, afterwards", 0, &shared, "ok"),
    ] {
        assert_eq!(verdict(&verifier, &token(tenant, status)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn nested_layers_see_a_change_between_them() {
    struct Case {
        name: &'static str,
        revoke: bool,
        expected: (u16, Option<&'static str>),
    }
    for Case { name, revoke, expected } in [
        Case { name: "valid", revoke: false, expected: (200, None) },
        Case { name: "revoked in between", revoke: true, expected: (401, Some("revoked")) },
    ] {
        let api = Arc::new(Api::new());
        let layer = ProtectLayer::new(api.verifier.clone());
        let between = {
            let api = Arc::clone(&api);
            tower::util::MapRequestLayer::new(move |request: Request<Body>| {
                if revoke {
                    api.issuer.set_status(0, 1);
                    api.clock.advance(LIFETIME);
                }
                request
            })
        };
        let inner = service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(axum::http::Response::new(Body::empty()))
        });
        let service = layer.layer(between.layer(layer.layer(inner)));
        let request = Request::get("/").header("authorization", format!("Bearer {}", api.token(0)));
        let request = request.body(Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
        let code = response.extensions().get::<Error>().map(Error::code);
        assert_eq!((response.status().as_u16(), code), expected, "{name}");
        assert_eq!(api.fetches(), if revoke { 2 } else { 1 }, "{name}");
    }
}

#[tokio::test]
async fn bound_tokens_have_a_status_too() {
    let issuer = TestIssuer::start_with(Algorithm::ES256).unwrap();
    let dpop = Dpop::new("https://api.example.com").unwrap();
    let dpop = dpop.algorithms([Algorithm::ES256, Algorithm::PS256, Algorithm::EdDSA]).unwrap();
    // Status lists alone are a way to revoke tokens, as FAPI 2.0 requires one.
    let config = issuer.issuer().fapi2();
    assert!(Verifier::builder(config.clone()).dpop(dpop.clone()).build().is_err());
    let config = config.status_lists(StatusLists::new());
    let verifier = Verifier::builder(config).dpop(dpop).build().unwrap();
    let layer = ProtectLayer::new(verifier).layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(axum::http::Response::new(Body::empty()))
    }));
    let client = DpopClient::new().unwrap();
    issuer.set_status(1, 1);
    for (name, index, expected) in
        [("valid", 0, "ok"), ("revoked", 1, "revoked"), ("out of range", 5000, "claim_value")]
    {
        let token = issuer.token().bound_to(&client).status(&issuer.status_list(), index).build();
        for _ in 0..3 {
            let proof = client.proof("GET", "https://api.example.com/", &token).build();
            let request = Request::get("/").header("authorization", format!("DPoP {token}"));
            let request = request.header("dpop", proof).body(Body::empty()).unwrap();
            let response = tower::ServiceExt::oneshot(layer.clone(), request).await.unwrap();
            let code = response.extensions().get::<Error>().map_or("ok", Error::code);
            assert_eq!(code, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn tokens_that_are_asked_about_have_a_status_too() {
    let auth = || ClientAuth::client_secret("orders-api", "secret");
    let (issuer, clock) = (TestIssuer::start().unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let introspection = Introspection::new(auth()).jwts_too();
    let config = issuer.issuer().introspection(introspection).status_lists(StatusLists::new());
    let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
    issuer.set_status(1, 1);
    let token = |index| issuer.token().valid_for(HOUR).status(&issuer.status_list(), index).build();
    let (good, bad) = (token(0), token(1));
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &good).await, "ok");
        assert_eq!(verdict(&verifier, &bad).await, "revoked");
    }
    assert_eq!(issuer.status_list_fetches(), 1);
    issuer.set_status(0, 1);
    clock.advance(LIFETIME);
    assert_eq!(verdict(&verifier, &good).await, "revoked", "the answer is cached or asked again");

    // Where the answer replaces the JWT, its claim `status` is not looked up.
    for introspection in [
        Introspection::new(auth()).instead_of_keys(),
        Introspection::new(auth()).instead_of_keys().signed(),
    ] {
        let config = issuer.issuer().introspection(introspection).status_lists(StatusLists::new());
        let error = Verifier::new(config).unwrap_err().to_string();
        assert!(error.contains("instead_of_keys"), "{error}");
    }
}

#[tokio::test]
async fn callers_that_cannot_wait_start_the_fetch() {
    let issuer = TestIssuer::start().unwrap();
    let config = issuer.issuer().jwks(issuer.jwks()).status_lists(StatusLists::new());
    let verifier = Verifier::new(config).unwrap();
    issuer.set_status(1, 1);
    let token = |index| issuer.token().status(&issuer.status_list(), index).build();
    let (good, bad) = (token(0), token(1));
    assert!(verifier.try_verify(&good).is_none());
    let code = |token: &str| {
        verifier.try_verify(token).map(|found| found.map_or_else(|error| error.code(), |_| "ok"))
    };
    eventually("the list", || code(&good).is_some()).await;
    assert_eq!((code(&good), code(&bad)), (Some("ok"), Some("revoked")));
    assert_eq!(issuer.status_list_fetches(), 1);
}

#[test]
fn without_a_runtime_nothing_is_fetched() {
    let issuer = TestIssuer::start().unwrap();
    let config = issuer.issuer().jwks(issuer.jwks()).status_lists(StatusLists::new());
    let clock = TestClock::new();
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
    let token = issuer.token().valid_for(HOUR).status(&issuer.status_list(), 0).build();
    let code = || verifier.try_verify(&token).map(|found| found.map(|_| ()).map_err(|e| e.code()));
    assert_eq!(code(), Some(Err("revocations_unavailable")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(verdict(&verifier, &token)), "ok");
    assert_eq!(code(), Some(Ok(())));
    // A runtime that is gone does not leave a fetch behind that others wait for.
    clock.advance(LIFETIME);
    issuer.set_status_list_behavior(Behavior::Hang);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(other.block_on(async { verifier.try_verify(&token).is_none() }));
    drop(other);
    issuer.set_status_list_behavior(Behavior::Serve);
    clock.advance(seconds(30));
    assert_eq!(runtime.block_on(verdict(&verifier, &token)), "ok");
}

#[test]
fn settings_are_bounded() {
    let lists = StatusLists::new;
    let issuer = |iss: &str| Issuer::new(iss, AUDIENCE).unwrap().status_lists(lists());
    for (name, is_accepted) in [
        ("an origin", lists().allow_origin("https://status.example.com").is_ok()),
        ("an hour", lists().max_stale(HOUR).is_ok()),
        ("an issuer that is a URL", Verifier::new(issuer("https://issuer.example/")).is_ok()),
    ] {
        assert!(is_accepted, "{name}");
    }
    let jwks = TestIssuer::offline("x").unwrap().jwks();
    for (name, is_accepted) in [
        ("a path", lists().allow_origin("https://status.example.com/lists").is_ok()),
        ("a query", lists().allow_origin("https://status.example.com/?a").is_ok()),
        ("no URL", lists().allow_origin("status.example.com").is_ok()),
        ("another scheme", lists().allow_origin("ftp://status.example.com").is_ok()),
        ("stale for long", lists().max_stale(HOUR + seconds(1)).is_ok()),
        ("an issuer that is no URL", Verifier::new(issuer("x").jwks(jwks)).is_ok()),
    ] {
        assert!(!is_accepted, "{name}");
    }
}
