//! How long answers are used, and how many questions concurrent requests cause.

use std::time::Duration;

use portcullis::testing::TestClock;
use portcullis::{Error, Introspection, Issuers, Verifier};
use serde_json::json;
use tokio::task::JoinSet;

use crate::eventually::eventually;
use crate::support::{AuthServer, OPAQUE, Reply, api, api_with, auth, builder};
use crate::verdict::verdict;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn an_answer_is_used_for_a_minute_and_renewed_before_it_ends() {
    let api = api(|introspection| introspection).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    api.clock.advance(seconds(47));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    assert_eq!(api.server.asked(), 1, "not before 80 % of the time");
    api.clock.advance(seconds(2));
    for _ in 0..10 {
        assert!(api.verifier.try_verify(OPAQUE).unwrap().is_ok(), "no request waits");
    }
    eventually("it is renewed", || api.server.asked() == 2).await;
    api.clock.advance(seconds(30));
    // The renewal may not have ended when the endpoint has received it.
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    assert_eq!(api.server.asked(), 2, "30 seconds after the renewal, 79 after the first question");

    // Unused, it is not renewed, and the next request waits.
    api.clock.advance(seconds(61));
    assert!(api.verifier.try_verify(OPAQUE).is_none());
    eventually("it is asked", || api.server.asked() == 3).await;
}

#[tokio::test]
async fn a_revoked_token_is_rejected_when_its_answer_is_renewed() {
    let api = api(|introspection| introspection).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    api.server.reply(Reply::json(&json!({ "active": false })));
    api.clock.advance(seconds(50));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    eventually("the token is rejected", || {
        matches!(api.verifier.try_verify(OPAQUE), Some(Err(Error::InvalidToken(_))))
    })
    .await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "inactive");
}

#[tokio::test]
async fn a_token_that_expires_meanwhile_is_rejected_without_a_question() {
    let api = api(|introspection| introspection).await;
    let exp = api.clock.unix_seconds() + 10;
    api.server.reply(Reply::json(&api.server.active_with(&json!({ "exp": exp }))));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    // The leeway is 30 seconds.
    api.clock.advance(seconds(39));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    api.clock.advance(seconds(2));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "expired");
    assert_eq!(api.server.asked(), 1);
}

#[tokio::test]
async fn a_rejection_is_remembered_for_five_seconds() {
    let answers = [
        (json!({ "active": false }), "inactive"),
        (json!({ "active": true, "aud": "x", "token_type": "Bearer" }), "wrong_audience"),
    ];
    for (answer, expected) in answers {
        let api = api(|introspection| introspection).await;
        api.server.reply(Reply::json(&answer));
        for (after, questions) in [(0, 1), (4, 1), (1, 2)] {
            api.clock.advance(seconds(after));
            assert_eq!(verdict(&api.verifier, OPAQUE).await, expected);
            assert_eq!(api.server.asked(), questions, "{expected}, {after} seconds later");
        }
    }
}

#[tokio::test]
async fn failures_are_not_remembered() {
    let api = api(|introspection| introspection).await;
    api.server.reply(Reply::Status(500));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "introspection_unavailable");
    api.server.reply(Reply::json(&api.server.active()));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
}

#[tokio::test]
async fn with_a_time_of_zero_each_request_asks() {
    let api = api(|introspection| introspection.cache_for(Duration::ZERO).unwrap()).await;
    for questions in 1..4 {
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
        assert_eq!(api.server.asked(), questions);
    }
    api.server.reply(Reply::json(&json!({ "active": false })));
    for questions in 4..6 {
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "inactive");
        assert_eq!(api.server.asked(), questions);
    }
}

#[tokio::test]
async fn concurrent_requests_share_a_question_that_none_of_them_cancels() {
    let api = api(|introspection| introspection).await;
    api.server
        .reply(Reply::Late(Duration::from_millis(50), Box::new(Reply::json(&api.server.active()))));
    // The first request starts the question, and is dropped.
    {
        let mut first = Box::pin(api.verifier.verify(OPAQUE));
        assert!(crate::poll_once::poll_once(first.as_mut()).is_pending());
    }
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        let verifier = api.verifier.clone();
        requests.spawn(async move { verdict(&verifier, OPAQUE).await });
    }
    let verdicts = requests.join_all().await;
    assert_eq!(verdicts, ["ok"; 200]);
    assert_eq!(api.server.asked(), 1);
}

#[tokio::test]
async fn forgotten_issuers_do_not_vouch_for_cached_answers() {
    let clock = TestClock::new();
    let server = AuthServer::start().await;
    server.keys().set_clock(&clock);
    server.reply(Reply::json(&server.active()));
    let issuer = server.issuer(Introspection::new(auth()).jwts_too());
    let issuers = Issuers::lookup(move |_| Some(issuer.clone())).danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    let jwt = server.keys().token().build();
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &jwt).await, "ok");
    }
    assert_eq!(server.asked(), 1);
    verifier.forget(server.iss());
    server.reply(Reply::json(&json!({ "active": false })));
    assert_eq!(verdict(&verifier, &jwt).await, "inactive");
}

#[tokio::test]
async fn the_answers_of_a_forgotten_issuer_are_dropped() {
    let api = api(|introspection| introspection).await;
    for (answer, expected) in
        [(api.server.active(), "ok"), (json!({ "active": false }), "inactive")]
    {
        api.server.reply(Reply::json(&answer));
        let asked = api.server.asked();
        for _ in 0..3 {
            assert_eq!(verdict(&api.verifier, OPAQUE).await, expected);
        }
        assert_eq!(api.server.asked(), asked + 1);
        api.verifier.forget(api.server.iss());
    }
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "inactive");
    assert_eq!(api.server.asked(), 3);
}

#[tokio::test]
async fn the_answers_of_other_issuers_stay_when_one_is_forgotten() {
    let api = api(|introspection| introspection).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    for (iss, asked) in [("https://another.example/", 1), (api.server.iss(), 2)] {
        api.verifier.forget(iss);
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok", "{iss}");
        assert_eq!(api.server.asked(), asked, "{iss}");
    }
}

#[tokio::test]
async fn tokens_of_another_verifier_are_not_shared() {
    let api = api_with(|server| server.issuer(Introspection::new(auth()))).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    let issuer = api.server.issuer(Introspection::new(auth()));
    let other = builder(issuer, &api.clock).build().unwrap();
    assert_eq!(verdict(&other, OPAQUE).await, "ok");
    assert_eq!(api.server.asked(), 2);
}

#[tokio::test]
async fn a_renewed_answer_replaces_the_earlier_one() {
    let api = api(|introspection| introspection).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    let answer = api.server.active_with(&json!({ "scope": "write:messages" }));
    api.server.reply(Reply::json(&answer));
    api.clock.advance(seconds(49));
    assert!(api.verifier.try_verify(OPAQUE).unwrap().is_ok());
    eventually("it is renewed", || api.server.asked() == 2).await;
    api.clock.advance(seconds(30));
    let token = api.verifier.verify(OPAQUE).await.unwrap();
    assert_eq!(token.raw_claims(), answer.to_string());
    assert_eq!(api.server.asked(), 2);
}

/// The answer opens nothing without the JWT: it has neither `iss` nor `aud`.
#[tokio::test]
async fn the_answer_about_a_jwt_is_renewed_with_the_claims_of_the_jwt() {
    for is_resolved in [false, true] {
        let name = if is_resolved { "of a lookup" } else { "configured" };
        let (server, clock) = (AuthServer::start().await, TestClock::new());
        server.keys().set_clock(&clock);
        server.reply(Reply::json(&json!({ "active": true })));
        let issuer = server.issuer(Introspection::new(auth()).jwts_too());
        let verifier = if is_resolved {
            let issuers = Issuers::lookup(move |_| Some(issuer.clone()));
            let issuers = issuers.danger_allow_private_addresses();
            Verifier::builder(issuers).clock(&clock).build().unwrap()
        } else {
            builder(issuer, &clock).build().unwrap()
        };
        let jwt = server.keys().token().build();
        assert_eq!(verdict(&verifier, &jwt).await, "ok", "{name}");
        clock.advance(seconds(49));
        assert!(verifier.try_verify(&jwt).unwrap().is_ok(), "{name}: no request waits");
        eventually("it is renewed", || server.asked() == 2).await;
        clock.advance(seconds(30));
        assert_eq!(verdict(&verifier, &jwt).await, "ok", "{name}: renewed");
        assert_eq!(server.asked(), 2, "{name}");
    }
}
