//! When a list is fetched, and for how long it is used.

use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, ETAG};
use portcullis::testing::{Behavior, TestClock, TestIssuer};
use portcullis::{Issuer, StatusLists, Verifier};

use crate::eventually::eventually;
use crate::verdict::verdict;
use crate::{Api, HOUR, LIFETIME, seconds};

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

/// Its server says that a list has not changed, also one that is signed with a withdrawn key.
#[tokio::test]
async fn a_list_is_sent_again_once_the_keys_of_the_issuer_have_changed() {
    struct Case {
        name: &'static str,
        keys_change: fn(&TestIssuer),
        expected: &'static str,
    }

    for Case { name, keys_change, expected } in [
        Case { name: "the same keys", keys_change: |_| (), expected: "ok" },
        Case {
            name: "another key",
            keys_change: |issuer| drop(issuer.rotate().unwrap()),
            expected: "revoked",
        },
        Case {
            name: "a withdrawn key",
            keys_change: |issuer| {
                issuer.rotate().unwrap();
                issuer.withdraw_old_keys();
            },
            expected: "revoked",
        },
    ] {
        let api = Api::new();
        assert_eq!(api.verdict(&api.issuer.token().build()).await, "ok", "{name}");
        // The keys have no validator, so they are sent again.
        api.issuer.set_header(ETAG, "\"1\"");
        assert_eq!(api.verdict(&api.token(0)).await, "ok", "{name}");
        keys_change(&api.issuer);
        api.clock.advance(seconds(10));
        let token = api.token(0);
        assert_eq!(api.verdict(&token).await, "ok", "{name}: until its lifetime ends");
        assert_eq!(api.fetches(), 1, "{name}");
        // Only a list that is sent again has this status.
        api.issuer.set_status(0, 1);
        api.clock.advance(LIFETIME);
        assert_eq!(api.verdict(&token).await, expected, "{name}");
        assert_eq!(api.fetches(), 2, "{name}");
    }
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
async fn a_list_may_be_issued_as_far_ahead_as_clocks_may_differ() {
    for (ahead, expected) in [(60, "ok"), (61, "revocations_unavailable")] {
        let issuer = TestIssuer::start().unwrap();
        let clock = TestClock::new();
        issuer.set_clock(&clock);
        let config = issuer.issuer().leeway(seconds(60)).unwrap();
        let config = config.status_lists(StatusLists::new());
        let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
        let api = Api { issuer, clock, verifier };
        let issued_at = api.clock.unix_seconds() + ahead;
        api.serve(api.issuer.status_list_token().claim("iat", issued_at));
        assert_eq!(api.verdict(&api.token(0)).await, expected, "{ahead} s ahead");
    }
}

/// Where no runtime can fetch a list, a cached one is used for as long as it may be.
#[test]
fn without_a_runtime_a_cached_list_is_used_while_it_is_usable() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let api = Api::new();
    let (good, bad) = (api.token(0), api.token(1));
    api.issuer.set_status(1, 1);
    runtime.block_on(async {
        for (token, expected) in [(&good, "ok"), (&bad, "revoked")] {
            assert_eq!(api.verdict(token).await, expected);
        }
    });
    let is_ok = |token: &str| api.verifier.try_verify(token).map(|verdict| verdict.is_ok());
    for (name, passes, expected) in [
        ("fresh", 0, Some(true)),
        ("past its lifetime", LIFETIME.as_secs(), Some(true)),
        ("past the time that it may be stale", 61, Some(false)),
    ] {
        api.clock.advance(seconds(passes));
        assert_eq!(is_ok(&good), expected, "{name}");
        assert_eq!(is_ok(&bad), Some(false), "{name}");
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

/// A pooled connection may have been lost silently.
#[tokio::test]
async fn a_late_request_for_a_list_is_hedged() {
    let issuer = TestIssuer::start().unwrap();
    let config = issuer.issuer().jwks(issuer.jwks()).status_lists(StatusLists::new());
    let config = config.keys_fetch_timeout(Duration::from_secs(1)).unwrap();
    let verifier = Verifier::new(config).unwrap();
    let token = issuer.token().status(&issuer.status_list(), 0).build();
    issuer.set_status_list_behavior(Behavior::Hang);
    let recovers = async {
        eventually("the first request", || issuer.status_list_fetches() == 1).await;
        issuer.set_status_list_behavior(Behavior::Serve);
    };
    assert_eq!(tokio::join!(verdict(&verifier, &token), recovers).0, "ok");
    assert_eq!(issuer.status_list_fetches(), 2);
}

/// The runtime of a fetch ends after another fetch has taken its place, or after its list was
/// dropped.
#[test]
fn a_fetch_that_ends_too_late_counts_for_nothing() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (name, is_forgotten) in [("abandoned", false), ("dropped", true)] {
        let (outlasting, ending, clock) = (runtime(), runtime(), TestClock::new());
        let issuer = TestIssuer::start().unwrap();
        issuer.set_clock(&clock);
        let config = issuer.issuer().jwks(issuer.jwks()).status_lists(StatusLists::new());
        let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
        let token = issuer.token().status(&issuer.status_list(), 0).build();
        ending.block_on(async { assert!(verifier.try_verify(&token).is_none(), "{name}") });
        if is_forgotten {
            assert!(verifier.forget(issuer.iss()), "{name}");
        } else {
            clock.advance(seconds(10));
        }
        assert_eq!(outlasting.block_on(verdict(&verifier, &token)), "ok", "{name}");
        drop(ending);
        let lists = verifier.health()[0].status_lists.clone().unwrap();
        assert_eq!((lists.fetches, lists.failed_fetches), (1, 0), "{name}");
        assert_eq!(outlasting.block_on(verdict(&verifier, &token)), "ok", "{name}");
        assert_eq!(issuer.status_list_fetches(), 1, "{name}");
    }
}

/// Without a runtime, the list of a token is known, but no fetch was started.
#[test]
fn a_list_that_was_never_fetched_can_be_dropped() {
    let issuer = TestIssuer::start().unwrap();
    let config = issuer.issuer().jwks(issuer.jwks()).status_lists(StatusLists::new());
    let verifier = Verifier::new(config).unwrap();
    let token = issuer.token().status(&issuer.status_list(), 0).build();
    assert!(verifier.try_verify(&token).is_some_and(|found| found.is_err()));
    let lists = || verifier.health()[0].status_lists.clone().unwrap().lists;
    assert_eq!(lists(), 1);
    assert!(verifier.forget(issuer.iss()));
    assert_eq!(lists(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(verdict(&verifier, &token)), "ok");
}
