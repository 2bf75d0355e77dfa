//! How long keys are used and when they are fetched again: `Cache-Control`, validators and the
//! clock.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::http::header;
use serde_json::json;

use crate::poll_once::poll_once;
use crate::scripted::{METADATA, ScriptedApi, Server, keys, reply};
use crate::support::{Api, api, api_with};

/// Checks that keys are refreshed at 80 % of their lifetime, ±10 % of that: not before 72 % and not
/// after 88 %.
async fn check_lifetime(api: &Api, name: &str, lifetime: u64) {
    assert_eq!(api.good().await, "ok", "{name}");
    let before = api.issuer.jwks_fetches();
    api.seconds_pass(lifetime * 72 / 100 - 1);
    assert_eq!(api.good().await, "ok", "{name}");
    assert_eq!(api.issuer.jwks_fetches(), before, "{name}: too early");
    api.seconds_pass(lifetime * 16 / 100 + 2);
    let token = api.issuer.token().build();
    let served = poll_once(pin!(api.verifier.verify(&token)));
    assert!(matches!(served, Poll::Ready(Ok(_))), "{name}: no request waits for the refresh");
    for _ in 0..10 {
        assert_eq!(api.good().await, "ok", "{name}");
    }
    api.refreshed().await;
    assert_eq!(api.issuer.jwks_fetches(), before + 1, "{name}: once");
}

#[tokio::test]
async fn keys_are_cached_for_ten_minutes_and_refreshed_ahead() {
    let api = api().await;
    check_lifetime(&api, "first", 600).await;
    check_lifetime(&api, "refreshed", 600).await;
}

#[tokio::test]
async fn cache_control_sets_the_lifetime_within_bounds() {
    for (value, lifetime) in [
        ("max-age=900", 900),
        ("max-age=15", 60),
        ("no-store", 60),
        ("max-age=soon", 60),
        ("max-age=315360000", 3600),
    ] {
        let api = api().await;
        api.issuer.set_header(header::CACHE_CONTROL, value);
        check_lifetime(&api, value, lifetime).await;
    }
    let api = api_with(|issuer| issuer.keys_max_age(Duration::from_secs(100)).unwrap()).await;
    api.issuer.set_header(header::CACHE_CONTROL, "max-age=900");
    check_lifetime(&api, "configured", 100).await;
}

/// After an hour without requests, the keys are past their lifetime although no fetch has failed. A
/// key may have been withdrawn.
#[tokio::test]
async fn keys_of_an_idle_issuer_are_fetched_before_they_are_used_again() {
    let api = api().await;
    let withdrawn = api.issuer.token().build();
    assert_eq!(api.verdict(&withdrawn).await, "ok");
    api.issuer.rotate().unwrap();
    api.issuer.withdraw_old_keys();
    api.seconds_pass(3600);
    assert_eq!(api.verdict(&withdrawn).await, "unknown_key");
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.jwks_fetches(), 2);
}

#[tokio::test]
async fn unchanged_keys_are_not_transferred_again() {
    for (validator, value) in
        [(header::ETAG, "\"v1\""), (header::LAST_MODIFIED, "Fri, 20 Nov 2026 12:00:00 GMT")]
    {
        let api = api().await;
        api.issuer.set_header(validator.clone(), value);
        assert_eq!(api.good().await, "ok");
        // Requests with the validator receive 304, so the keys in use from here on came with the
        // first response.
        for round in 1..=3 {
            api.seconds_pass(530);
            assert_eq!(api.good().await, "ok", "{validator}");
            api.refreshed().await;
            assert_eq!(api.issuer.jwks_fetches(), round + 1, "{validator}");
        }
        api.issuer.rotate().unwrap();
        api.seconds_pass(10);
        assert_eq!(api.good().await, "unknown_key", "{validator}: the server reports no change");
        api.issuer.set_header(validator.clone(), "\"v2\"");
        api.seconds_pass(10);
        assert_eq!(api.good().await, "ok", "{validator}");
    }
}

/// RFC 9111 §4.3.4: a 304 updates the lifetime if it has `Cache-Control`, and otherwise renews the
/// previous one.
#[tokio::test]
async fn a_304_renews_the_lifetime() {
    struct Case {
        name: &'static str,
        first: Option<&'static str>,
        then: Option<&'static str>,
        expected: u64,
    }
    for Case { name, first, then, expected } in [
        Case { name: "never given", first: None, then: None, expected: 480 },
        Case {
            name: "in the first response",
            first: Some("max-age=3600"),
            then: None,
            expected: 2880,
        },
        Case { name: "in the 304", first: None, then: Some("max-age=900"), expected: 720 },
        Case {
            name: "in both",
            first: Some("max-age=3600"),
            then: Some("max-age=900"),
            expected: 720,
        },
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
        let api = ScriptedApi::at_keys(&server, &keys);
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
        let api = ScriptedApi::at_keys(&server, &keys);
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
    let api = ScriptedApi::new(&old, |issuer| issuer.discovery_url(&server.base).unwrap());
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
    let api = ScriptedApi::at_keys(&server, &keys);
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
