//! Clients that make tokens up, tenants that answer what they like, and servers that fail in parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestClock};
use portcullis::{ClientAuth, Introspection, Issuer, Issuers, Verifier};
use serde_json::json;
use tokio::task::JoinSet;

use crate::eventually::eventually;
use crate::support::{AuthServer, OPAQUE, Reply, api, api_with, auth};
use crate::verdict::verdict;

const UNAVAILABLE: &str = "introspection_unavailable";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_limit_on_invented_tokens_does_not_suspend_questions_about_known_ones() {
    let api = api(|introspection| introspection).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    let active = Reply::json(&api.server.active());
    api.server.reply_with(move |question| {
        if question.form["token"] == OPAQUE { active.clone() } else { Reply::Busy("30") }
    });
    for number in 0..6 {
        api.clock.advance(seconds(61));
        let invented = format!("invented-{number}");
        assert_eq!(verdict(&api.verifier, &invented).await, UNAVAILABLE);
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    }
}

#[tokio::test]
async fn rejected_requests_about_invented_tokens_do_not_end_a_suspension() {
    let api = api(|introspection| introspection).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    api.clock.advance(seconds(61));
    // A gateway rejects long tokens, and what is behind it is down.
    api.server.reply_with(|question| {
        Reply::Status(if question.form["token"] == OPAQUE { 503 } else { 413 })
    });
    for number in 0..40 {
        assert_eq!(verdict(&api.verifier, OPAQUE).await, UNAVAILABLE);
        let invented = format!("invented-{number}");
        assert_eq!(verdict(&api.verifier, &invented).await, UNAVAILABLE);
    }
    let questions = api.server.questions();
    let known = questions.iter().filter(|question| question.form["token"] == OPAQUE).count();
    assert_eq!(known, 1 + 5);
}

#[tokio::test]
async fn jwts_that_their_keys_verify_do_not_wait_behind_invented_tokens() {
    let limit = Duration::from_millis(50);
    let api = api(|introspection| introspection.jwts_too().timeout(limit).unwrap()).await;
    let jwt = |number: u64| api.server.keys().token().claim("n", number).build();
    assert_eq!(verdict(&api.verifier, &jwt(0)).await, "ok");
    let active = Reply::json(&api.server.active());
    api.server.reply_with(move |question| {
        if question.form["token"].starts_with("ey") { active.clone() } else { Reply::Hang }
    });
    for number in 0..6 {
        let invented = format!("invented-{number}");
        assert_eq!(verdict(&api.verifier, &invented).await, UNAVAILABLE);
    }
    assert_eq!(verdict(&api.verifier, &jwt(1)).await, "ok", "a new one");
}

#[tokio::test]
async fn opaque_tokens_can_be_left_out() {
    let api = api(|introspection| introspection.instead_of_keys().only_jwts()).await;
    assert_eq!(verdict(&api.verifier, "an-opaque-token").await, "opaque");
    assert_eq!(api.server.asked(), 0);
    assert_eq!(verdict(&api.verifier, &api.server.keys().token().build()).await, "ok");
}

#[tokio::test]
async fn metadata_that_cannot_be_fetched_do_not_stop_questions_to_a_known_endpoint() {
    for reply in [Reply::Status(500), Reply::Hang, Reply::Body("application/json", "{}".into())] {
        let api = api(|introspection| introspection).await;
        assert_eq!(verdict(&api.verifier, "first").await, "ok");
        api.server.set_metadata_reply(reply.clone());
        let fetches = api.server.metadata_fetches();
        // Past their longest lifetime.
        api.clock.advance(seconds(3601));
        let mut requests = JoinSet::new();
        for number in 0..12 {
            let verifier = api.verifier.clone();
            requests.spawn(async move { verdict(&verifier, &format!("new-{number}")).await });
        }
        assert_eq!(requests.join_all().await, ["ok"; 12], "{reply:?}");
        // One fetch: the first well-known URL, its retry or hedge, and the second URL.
        assert!(api.server.metadata_fetches() <= fetches + 3, "{reply:?}");
    }
}

#[tokio::test]
async fn refused_questions_do_not_cause_a_discovery_each() {
    for metadata in [Reply::Status(404), Reply::Hang] {
        let api = api(|introspection| introspection).await;
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
        api.server.set_metadata_reply(metadata.clone());
        // As if the endpoint had moved.
        api.server.reply(Reply::Status(400));
        for minute in 1..4 {
            api.clock.advance(seconds(61));
            let fetches = api.server.metadata_fetches();
            for number in 0..40 {
                let invented = format!("invented-{minute}-{number}");
                assert_eq!(verdict(&api.verifier, &invented).await, UNAVAILABLE);
            }
            eventually("a discovery", || api.server.metadata_fetches() > fetches).await;
            // The first well-known URL, its retry or hedge, and the second URL.
            assert!(api.server.metadata_fetches() <= fetches + 3, "{metadata:?}");
        }
    }
}

#[tokio::test]
async fn metadata_that_cannot_be_used_are_neither_quoted_at_length_nor_fetched_for_each_token() {
    let api = api(|introspection| introspection).await;
    let methods = json!(["m".repeat(200_000)]);
    api.server.set_metadata("introspection_endpoint_auth_methods_supported", methods);
    let error = api.verifier.verify(OPAQUE).await.unwrap_err();
    assert!(error.to_string().len() < 1000, "{error}");
    for number in 0..20 {
        assert_eq!(verdict(&api.verifier, &format!("new-{number}")).await, UNAVAILABLE);
    }
    assert_eq!(api.server.metadata_fetches(), 1);
    api.clock.advance(seconds(1));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, UNAVAILABLE);
    assert_eq!(api.server.metadata_fetches(), 2);
}

#[tokio::test]
async fn a_redirect_does_not_take_the_token_and_the_secret_elsewhere() {
    for auth in [
        ClientAuth::client_secret_post("orders-api", "secret"),
        ClientAuth::client_secret_basic("orders-api", "secret"),
    ] {
        let (server, elsewhere) = (AuthServer::start().await, AuthServer::start().await);
        server.reply(Reply::Redirect(format!("{}introspect", elsewhere.iss())));
        let url = format!("{}introspect", server.iss());
        let issuer = server.issuer(Introspection::at(url, auth));
        // By default, this client follows redirects.
        let client = reqwest::Client::new();
        let verifier = Verifier::builder(issuer).client(client).build().unwrap();
        assert_eq!(verdict(&verifier, OPAQUE).await, UNAVAILABLE);
        assert_eq!((server.asked(), elsewhere.asked()), (1, 0));
    }
}

#[tokio::test]
async fn answers_to_questions_from_before_forget_are_not_used_after_it() {
    let api = api(|introspection| introspection).await;
    let gate = Duration::from_millis(200);
    let active = Reply::json(&api.server.active());
    api.server.reply(Reply::Late(gate, Box::new(active)));
    let before = {
        let verifier = api.verifier.clone();
        tokio::spawn(async move { verdict(&verifier, OPAQUE).await })
    };
    eventually("the issuer is asked", || api.server.asked() == 1).await;
    api.server.reply(Reply::json(&json!({ "active": false })));
    api.verifier.forget(api.server.iss());
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "inactive", "it does not join the question");
    assert_eq!(before.await.unwrap(), "ok");
    api.clock.advance(seconds(30));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "inactive");
}

#[tokio::test]
async fn the_query_of_the_endpoint_is_not_shown() {
    let api = api_with(|server| {
        let url = format!("{}introspect?api_key=CANARY", server.iss());
        server.issuer(Introspection::at(url, auth()))
    })
    .await;
    api.server.reply(Reply::json(&json!({})));
    let error = api.verifier.verify(OPAQUE).await.unwrap_err();
    let introspection = Introspection::at("https://as.example/i?api_key=CANARY", auth());
    let shown = format!("{error} {error:?} {introspection:?} {:?}", api.verifier.health());
    assert!(!shown.contains("CANARY"), "{shown}");
    assert!(shown.contains(&format!("{}introspect", api.server.iss())), "the rest is: {shown}");
}

/// Answers of 5.8 KB fill the table. Those of 60 KB fill it with few, and each needs room.
#[tokio::test]
async fn a_tenant_with_many_large_answers_does_not_displace_those_of_others() {
    for (bytes, capacity, between) in [(5800, 100, 0), (60_000, 1000, 300)] {
        let clock = TestClock::new();
        let (acme, hostile) = (AuthServer::start().await, AuthServer::start().await);
        for server in [&acme, &hostile] {
            server.keys().set_clock(&clock);
        }
        acme.reply(Reply::json(&acme.active()));
        let large = json!({ "pad": "x".repeat(bytes) });
        hostile.reply(Reply::json(&hostile.active_with(&large)));
        let issuers = [&acme, &hostile]
            .map(|server| server.issuer(Introspection::new(auth()).instead_of_keys()));
        let lookup = move |iss: &str| issuers.iter().find(|issuer| issuer.iss() == iss).cloned();
        let issuers = Issuers::lookup(lookup).danger_allow_private_addresses();
        let builder = Verifier::builder(issuers).clock(&clock).token_cache_capacity(capacity);
        let verifier = builder.build().unwrap();
        let tokens: Vec<_> =
            (0..10).map(|number| acme.keys().token().claim("n", number).build()).collect();
        let mut numbers = 0..;
        for (round, hostile_tokens) in [300, between, between, between].into_iter().enumerate() {
            for number in numbers.by_ref().take(hostile_tokens) {
                let token = hostile.keys().token().claim("n", number).build();
                assert_eq!(verdict(&verifier, &token).await, "ok");
            }
            for token in tokens.iter().chain(&tokens) {
                assert_eq!(verdict(&verifier, token).await, "ok");
            }
            assert_eq!(acme.asked(), 10, "{bytes} bytes, round {round}");
        }
    }
}

#[test]
fn a_runtime_that_is_no_longer_driven_does_not_block_a_token() {
    let limit = Duration::from_millis(50);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(api_with(|server| {
        let introspection = Introspection::new(auth()).timeout(limit).unwrap();
        server.issuer(introspection).keys_fetch_timeout(limit).unwrap()
    }));
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(idle.block_on(async { api.verifier.try_verify(OPAQUE) }).is_none());
    assert_eq!(runtime.block_on(verdict(&api.verifier, OPAQUE)), UNAVAILABLE, "it waits in vain");
    assert_eq!(runtime.block_on(verdict(&api.verifier, OPAQUE)), "ok");
}

#[tokio::test]
async fn a_prefix_does_not_take_jwts() {
    let (one, other) = (AuthServer::start().await, AuthServer::start().await);
    let issuers = [
        one.issuer(Introspection::new(auth()).prefix("ey")),
        Issuer::new(other.iss(), AUDIENCE).unwrap(),
    ];
    let verifier = Verifier::new(issuers).unwrap();
    assert_eq!(verdict(&verifier, &other.keys().token().build()).await, "ok");
    assert_eq!(one.asked(), 0);
}

#[tokio::test]
async fn remembered_rejections_are_small() {
    let api = api(|introspection| introspection).await;
    let long = "x".repeat(60_000);
    for (number, members) in [json!({ "aud": long }), json!({ "iss": long })].iter().enumerate() {
        api.server.reply(Reply::json(&api.server.active_with(members)));
        let token = format!("{OPAQUE}{number}");
        let _first = api.verifier.verify(&token).await.unwrap_err();
        let remembered = api.verifier.verify(&token).await.unwrap_err();
        assert!(format!("{remembered:?}").len() < 1000);
        assert_eq!(api.server.asked(), 1 + number);
    }
}

#[tokio::test]
async fn a_renewal_during_a_suspension_is_repeated() {
    let api = api(|introspection| introspection.cache_for(seconds(3600)).unwrap()).await;
    let tokens: Vec<_> = (0..6).map(|number| format!("in-use-{number}")).collect();
    let [failing @ .., last] = &*tokens else { panic!() };
    for token in &tokens {
        assert_eq!(verdict(&api.verifier, token).await, "ok");
    }
    let failed = || api.verifier.health()[0].introspection.as_ref().unwrap().failed_questions;
    let asked = |token: &str| {
        api.server.questions().iter().filter(|question| question.form["token"] == token).count()
    };
    api.clock.advance(seconds(2881));
    api.server.reply(Reply::Status(503));
    for (token, number) in failing.iter().zip(1..) {
        assert_eq!(verdict(&api.verifier, token).await, "ok");
        eventually("the renewal fails", || failed() == number).await;
    }
    assert_eq!(verdict(&api.verifier, last).await, "ok");
    api.server.reply(Reply::json(&api.server.active()));
    assert_eq!(asked(last), 1, "questions are suspended");
    api.clock.advance(seconds(6));
    eventually("it is renewed", || {
        // The first question after a suspension is the only one until it is answered, so some
        // renewals are put off once more.
        assert!(tokens.iter().all(|token| api.verifier.try_verify(token).unwrap().is_ok()));
        api.clock.advance(Duration::from_millis(100));
        asked(last) == 2
    })
    .await;
}

#[tokio::test]
async fn a_renewal_that_panics_is_repeated() {
    let panics = Arc::new(AtomicBool::new(false));
    let api = api_with(|server| {
        let panics = Arc::clone(&panics);
        server.issuer(Introspection::new(ClientAuth::bearer_token(move || {
            let panics = panics.swap(false, Ordering::SeqCst);
            async move {
                assert!(!panics, "a panic of the application");
                Ok::<_, std::io::Error>("token".to_owned())
            }
        })))
    })
    .await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    panics.store(true, Ordering::SeqCst);
    api.clock.advance(seconds(49));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    eventually("the renewal panics", || !panics.load(Ordering::SeqCst)).await;
    api.clock.advance(seconds(6));
    eventually("it is repeated", || {
        assert!(api.verifier.try_verify(OPAQUE).unwrap().is_ok());
        api.server.asked() == 2
    })
    .await;
}

#[tokio::test]
async fn forgetting_another_issuer_does_not_discard_a_revocation() {
    let hour = |introspection: Introspection| introspection.cache_for(seconds(3600)).unwrap();
    let api = api(hour).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    let inactive = Reply::json(&json!({ "active": false }));
    api.server.reply(Reply::Late(Duration::from_millis(200), Box::new(inactive)));
    api.clock.advance(seconds(2881));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    eventually("the issuer is asked", || api.server.asked() == 2).await;
    api.verifier.forget("https://another.example/");
    eventually("the answer ends", || api.verifier.try_verify(OPAQUE).is_none()).await;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "inactive");
}

#[tokio::test]
async fn a_failed_renewal_is_repeated() {
    let api = api(|introspection| introspection).await;
    let failed = || api.verifier.health()[0].introspection.as_ref().unwrap().failed_questions;
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    api.server.reply(Reply::Status(500));
    api.clock.advance(seconds(49));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    eventually("the renewal fails", || failed() == 1).await;
    api.server.reply(Reply::json(&api.server.active()));
    for (after, questions) in [(4, 2), (2, 3)] {
        api.clock.advance(seconds(after));
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
        eventually("it is asked", || api.server.asked() == questions).await;
    }
}

#[tokio::test]
async fn without_the_token_cache_answers_are_still_cached() {
    let server = AuthServer::start().await;
    server.reply(Reply::json(&server.active()));
    let issuer = server.issuer(Introspection::new(auth()));
    let verifier = Verifier::builder(issuer).without_token_cache().build().unwrap();
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, OPAQUE).await, "ok");
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn tokens_that_cannot_be_accepted_are_not_asked_about() {
    let api = api(Introspection::instead_of_keys).await;
    let token = || api.server.keys().token();
    let cases = [
        ("nothing", String::new(), "opaque"),
        ("an expired JWT", token().expired().build(), "expired"),
        ("a JWT that is not yet valid", token().not_yet_valid().build(), "not_yet_valid"),
        (
            "a JWT that is bound to a key",
            token().claim("cnf", json!({})).build(),
            "sender_constrained",
        ),
    ];
    for (name, token, expected) in cases {
        assert_eq!(verdict(&api.verifier, &token).await, expected, "{name}");
    }
    assert_eq!(api.server.asked(), 0);
}

#[tokio::test]
async fn panics_of_the_application_leave_the_endpoint_usable() {
    let left = Arc::new(AtomicUsize::new(60));
    let api = api_with(|server| {
        let left = Arc::clone(&left);
        server.issuer(Introspection::new(ClientAuth::bearer_token(move || {
            let number = left.load(Ordering::SeqCst);
            left.store(number.saturating_sub(1), Ordering::SeqCst);
            async move {
                assert!(number == 0, "a panic of the application");
                Ok::<_, std::io::Error>("token".to_owned())
            }
        })))
    })
    .await;
    for number in 0..60 {
        assert_eq!(verdict(&api.verifier, &format!("new-{number}")).await, UNAVAILABLE);
    }
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
}

#[tokio::test]
async fn tokens_under_an_alias_are_cached() {
    let server = AuthServer::start().await;
    let mut answer = server.active();
    answer.as_object_mut().unwrap().remove("iss");
    let introspection = Introspection::new(auth()).instead_of_keys();
    let issuer = server.issuer(introspection).alias("https://alias.example/").unwrap();
    let lookup = move |_| std::future::ready(Ok::<_, std::io::Error>(Some(issuer.clone())));
    let issuers = Issuers::lookup_async(lookup).danger_allow_private_addresses();
    let verifier = Verifier::new(issuers).unwrap();
    for (questions, answer) in [(1, answer), (2, server.active())] {
        server.reply(Reply::json(&answer));
        let token = server.keys().token().issued_by("https://alias.example/").claim("n", questions);
        let token = token.build();
        for _ in 0..4 {
            assert_eq!(verdict(&verifier, &token).await, "ok");
        }
        assert_eq!(server.asked(), questions);
    }
}

/// The endpoint receives the credentials of this API.
#[tokio::test]
async fn only_the_metadata_of_a_configured_issuer_may_name_an_endpoint_of_another_origin() {
    for (name, is_resolved, expected) in
        [("configured", false, "ok"), ("of a lookup", true, UNAVAILABLE)]
    {
        let (server, other) = (AuthServer::start().await, AuthServer::start().await);
        let endpoint = format!("{}introspect", other.iss());
        server.set_metadata("introspection_endpoint", json!(endpoint));
        other.reply(Reply::json(&server.active()));
        let issuer = server.issuer(Introspection::new(auth()).jwts_too());
        let verifier = if is_resolved {
            let issuers = Issuers::lookup(move |_| Some(issuer.clone()));
            Verifier::new(issuers.danger_allow_private_addresses()).unwrap()
        } else {
            Verifier::new(issuer).unwrap()
        };
        let jwt = server.keys().token().build();
        assert_eq!(verdict(&verifier, &jwt).await, expected, "{name}");
        assert_eq!(other.asked(), usize::from(!is_resolved), "{name}");
    }
}
