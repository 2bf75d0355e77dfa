//! What requests are answered while the endpoint fails.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use portcullis::{Error, FetchError, Introspection, ProtectLayer};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::eventually::eventually;
use crate::support::{Api, OPAQUE, Reply, api, api_with, auth};
use crate::verdict::verdict;

const UNAVAILABLE: &str = "introspection_unavailable";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A token that was not used before.
fn new(number: usize) -> String {
    format!("opaque-{number}")
}

#[tokio::test]
async fn a_failure_is_503_for_the_client_whatever_the_endpoint_says() {
    let replies = [
        Reply::Status(500),
        Reply::Status(502),
        Reply::Status(503),
        Reply::Status(408),
        Reply::Status(302),
        Reply::Status(204),
        Reply::Status(400),
        Reply::Status(401),
        Reply::Status(403),
        Reply::Status(404),
        Reply::Busy("1"),
        Reply::Hang,
    ];
    for reply in replies {
        let api =
            api(|introspection| introspection.timeout(Duration::from_millis(100)).unwrap()).await;
        api.server.reply(reply.clone());
        let inner = service_fn(async |_: Request<Body>| {
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        });
        let service = ProtectLayer::new(api.verifier.clone()).layer(inner);
        let request = Request::get("/")
            .header(header::AUTHORIZATION, format!("Bearer {OPAQUE}"))
            .body(Body::empty())
            .unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
        assert!(response.headers().contains_key(header::RETRY_AFTER), "{reply:?}");
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE), "{reply:?}");
        let error = response.extensions().get::<Error>().unwrap();
        assert_eq!(error.code(), UNAVAILABLE, "{reply:?}");
        assert!(!format!("{error} {error:?}").contains(OPAQUE), "{reply:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_503() {
    let api = api(|introspection| introspection).await;
    api.verifier.warm_up().await.unwrap();
    let Api { server, verifier, .. } = api;
    drop(server);
    tokio::task::yield_now().await;
    assert_eq!(verdict(&verifier, OPAQUE).await, UNAVAILABLE);
    let health = verifier.health().remove(0).introspection.unwrap();
    assert_eq!((health.questions, health.failed_questions), (1, 1));
    assert!(matches!(health.last_error, Some(FetchError::Transport { .. })));
}

/// Asks about `number` new tokens in a row.
async fn ask(api: &Api, number: usize) {
    let before = api.server.asked();
    for one in 0..number {
        assert_eq!(verdict(&api.verifier, &new(1000 * before + one)).await, UNAVAILABLE);
    }
}

#[tokio::test]
async fn five_failures_in_a_row_suspend_the_questions() {
    let counted = [Reply::Status(502), Reply::Status(503), Reply::Status(504), Reply::Status(401)];
    for reply in counted {
        let api = api(|introspection| introspection).await;
        api.server.reply(reply.clone());
        ask(&api, 8).await;
        assert_eq!(api.server.asked(), 5, "{reply:?}");
        let health = api.verifier.health().remove(0).introspection.unwrap();
        let suspended = health.suspended_for.unwrap();
        assert!(suspended <= seconds(1), "{suspended:?}");
        assert_eq!(health.failed_questions, 5, "{reply:?}: without a question, none fails");
        assert!(api.verifier.try_verify(OPAQUE).is_some(), "{reply:?}: nothing to wait for");
        assert!(matches!(
            api.verifier.verify(OPAQUE).await,
            Err(Error::IntrospectionUnavailable { reason: FetchError::Suspended { .. }, .. })
        ));

        // One question probes, and fails; the next one succeeds.
        api.clock.advance(seconds(1));
        ask(&api, 3).await;
        assert_eq!(api.server.asked(), 6, "{reply:?}");
        api.clock.advance(seconds(2));
        api.server.reply(Reply::json(&api.server.active()));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok", "{reply:?}");
        let health = api.verifier.health().remove(0).introspection.unwrap();
        assert_eq!(health.suspended_for, None);
    }
}

#[tokio::test]
async fn answers_that_are_unusable_do_not_suspend_the_questions() {
    // A client may know tokens that cause them.
    for reply in [
        Reply::Status(500),
        Reply::Status(400),
        Reply::Status(404),
        Reply::Body("application/json", "{}".to_owned()),
    ] {
        let api = api(|introspection| introspection).await;
        api.server.reply(reply.clone());
        ask(&api, 8).await;
        assert_eq!(api.server.asked(), 8, "{reply:?}");
    }
}

#[tokio::test]
async fn metadata_that_cannot_be_fetched_suspend_the_questions_and_others_do_not() {
    let http = Some(("introspection_endpoint", json!("http://as.example/introspect")));
    let methods = json!(["private_key_jwt"]);
    let methods = Some(("introspection_endpoint_auth_methods_supported", methods));
    for (name, member, is_suspended) in [
        ("not fetched", None, true),
        ("an endpoint that must not be asked", http, false),
        ("another method of authentication", methods, false),
    ] {
        let api = api(|introspection| introspection).await;
        match member {
            Some((member, value)) => api.server.set_metadata(member, value),
            None => api.server.set_metadata_reply(Reply::Status(500)),
        }
        ask(&api, 5).await;
        let health = api.verifier.health().remove(0).introspection.unwrap();
        assert_eq!(health.suspended_for.is_some(), is_suspended, "{name}");
    }
}

/// The time for which the server hangs passes at once.
async fn time_passes(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn late_metadata_are_requested_again_and_do_not_shorten_the_time_for_the_answer() {
    let api = api(|introspection| introspection.timeout(seconds(4)).unwrap()).await;
    api.server.set_metadata_reply(Reply::Hang);
    let verifier = api.verifier.clone();
    let token = tokio::spawn(async move { verdict(&verifier, OPAQUE).await });
    eventually("the first request", || api.server.metadata_fetches() == 1).await;
    let iss = api.server.iss();
    api.server.set_metadata_reply(Reply::json(&json!({
        "issuer": iss, "introspection_endpoint": format!("{iss}introspect"),
    })));
    // A hedged request is sent after half of the five seconds that discovery may take.
    time_passes(seconds(3)).await;
    assert_eq!(token.await.unwrap(), "ok");
    assert_eq!(api.server.metadata_fetches(), 2);
}

#[tokio::test]
async fn an_endpoint_that_hangs_on_unknown_tokens_is_still_asked_about_known_ones() {
    let api = api(|introspection| introspection.timeout(Duration::from_millis(50)).unwrap()).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    let active = Reply::json(&api.server.active());
    api.server.reply_with(move |question| {
        if question.form.get("token").unwrap() == OPAQUE { active.clone() } else { Reply::Hang }
    });
    ask(&api, 5).await;
    assert_eq!(verdict(&api.verifier, "unknown").await, UNAVAILABLE);
    api.clock.advance(Duration::from_secs(61));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok", "its answer had ended");
}

#[tokio::test]
async fn an_endpoint_that_asks_to_wait_is_obeyed_up_to_a_limit() {
    for (retry_after, waits) in [("7", 7), ("3600", 30), ("0", 1), ("soon", 1)] {
        let api = api(|introspection| introspection).await;
        api.server.reply(Reply::Busy(retry_after));
        ask(&api, 3).await;
        assert_eq!(api.server.asked(), 1, "{retry_after}");
        api.server.reply(Reply::json(&api.server.active()));
        api.clock.advance(seconds(waits) - Duration::from_millis(1));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, UNAVAILABLE, "{retry_after}");
        api.clock.advance(Duration::from_millis(1));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok", "{retry_after}");
    }
}

#[tokio::test]
async fn ended_answers_are_used_during_an_outage_only_if_configured() {
    for (max_stale, expected) in [(0, UNAVAILABLE), (60, "ok")] {
        let api = api(|introspection| introspection.max_stale(seconds(max_stale)).unwrap()).await;
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
        api.server.reply(Reply::Status(503));
        api.clock.advance(seconds(90));
        // Enough to suspend the questions.
        for _ in 0..8 {
            assert_eq!(verdict(&api.verifier, OPAQUE).await, expected, "{max_stale}");
        }
        assert_eq!(api.server.asked(), 1 + 5, "{max_stale}");
        api.clock.advance(seconds(31));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, UNAVAILABLE, "{max_stale}");
    }
    // Neither an inactive token nor an expired one.
    let api = api(|introspection| introspection.max_stale(seconds(300)).unwrap()).await;
    let exp = api.clock.unix_seconds() + 40;
    api.server.reply(Reply::json(&api.server.active_with(&json!({ "exp": exp }))));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    api.server.reply(Reply::Status(503));
    api.clock.advance(seconds(90));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, UNAVAILABLE);
    api.server.reply(Reply::json(&json!({ "active": false })));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "inactive");
}

#[tokio::test]
async fn questions_about_unknown_tokens_have_half_of_the_places() {
    let api = api(|introspection| introspection.timeout(seconds(10)).unwrap()).await;
    let known: Vec<_> = (0..16).map(|number| format!("known-{number}")).collect();
    for token in &known {
        assert_eq!(verdict(&api.verifier, token).await, "ok");
    }
    api.clock.advance(seconds(61));
    let active = Reply::json(&api.server.active());
    api.server.reply_with(move |question| {
        let is_known = question.form.get("token").unwrap().starts_with("known");
        if is_known { active.clone() } else { Reply::Hang }
    });
    let asked = api.server.asked();
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..200 {
        let verifier = api.verifier.clone();
        flood.spawn(async move { verdict(&verifier, &new(number)).await });
    }
    eventually("the places are taken", || api.server.asked() == asked + 16).await;
    for token in &known {
        assert_eq!(verdict(&api.verifier, token).await, "ok");
    }
    assert_eq!(api.server.asked(), asked + 32, "no more than 16 unknown ones");
}

#[tokio::test]
async fn more_questions_than_may_wait_give_up_the_oldest() {
    let api = api(|introspection| introspection.timeout(seconds(10)).unwrap()).await;
    api.verifier.warm_up().await.unwrap();
    api.server.reply(Reply::Hang);
    let mut flood = tokio::task::JoinSet::new();
    for number in 0..16 + 1024 + 10 {
        let verifier = api.verifier.clone();
        flood.spawn(async move { verifier.verify(&new(number)).await });
    }
    for _ in 0..10 {
        let rejected = flood.join_next().await.unwrap().unwrap();
        assert!(matches!(
            rejected,
            Err(Error::IntrospectionUnavailable {
                reason: FetchError::ConcurrencyLimit { .. },
                ..
            })
        ));
    }
    assert_eq!(flood.len(), 16 + 1024);
}

#[test]
fn without_a_runtime_nothing_is_asked() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(api_with(|server| server.issuer(Introspection::new(auth()))));
    let outside = api.verifier.try_verify(OPAQUE).unwrap();
    assert!(matches!(
        outside,
        Err(Error::IntrospectionUnavailable { reason: FetchError::NoRuntime, .. })
    ));
    // A runtime that shuts down during the question does not block later ones.
    api.server.reply(Reply::Hang);
    let other = tokio::runtime::Runtime::new().unwrap();
    assert!(other.block_on(async { api.verifier.try_verify(OPAQUE) }).is_none());
    drop(other);
    api.server.reply(Reply::json(&api.server.active()));
    assert_eq!(runtime.block_on(verdict(&api.verifier, OPAQUE)), "ok");
}

#[tokio::test]
async fn an_ended_answer_is_not_used_for_a_token_that_expires_during_the_question() {
    // The leeway is 30 seconds.
    for (name, lifetime, expected) in
        [("expires later", 600, "ok"), ("expires meanwhile", 70, UNAVAILABLE)]
    {
        let api = api(|introspection| introspection.max_stale(seconds(300)).unwrap()).await;
        let exp = api.clock.unix_seconds() + lifetime;
        api.server.reply(Reply::json(&api.server.active_with(&json!({ "exp": exp }))));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok", "{name}");
        api.clock.advance(seconds(99));
        let clock = api.clock.clone();
        api.server.reply_with(move |_| {
            clock.advance(seconds(1));
            Reply::Status(503)
        });
        assert_eq!(verdict(&api.verifier, OPAQUE).await, expected, "{name}");
        assert_eq!(api.server.asked(), 2, "{name}");
    }
}
