//! Status lists: which tokens are rejected, which lists are used, and for how long.

#[path = "support/eventually.rs"]
mod eventually;
#[path = "support/verdict.rs"]
mod verdict;

use std::io::Write as _;
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, ETAG};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventually::eventually;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer, TokenBuilder};
use portcullis::{Issuer, Issuers, StatusLists, Verifier};
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
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&vec![0; 16 * 1024 * 1024]).unwrap();
    let lst = URL_SAFE_NO_PAD.encode(packed.finish().unwrap());
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
