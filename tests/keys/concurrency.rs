//! Concurrent requests share fetches. Requests that are dropped and responses that are late change
//! nothing for the others.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::eventually::eventually;
use crate::poll_once::poll_once;
use crate::scripted::{ScriptedApi, Server, keys, reply};
use crate::support::api;

#[tokio::test]
async fn concurrent_requests_at_a_cold_start_share_one_fetch() {
    let api = Arc::new(api().await);
    api.issuer.set_delay(Duration::from_millis(50));
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let api = Arc::clone(&api);
        requests.spawn(async move { api.good().await });
    }
    assert!(requests.join_all().await.iter().all(|verdict| *verdict == "ok"));
    assert_eq!((api.issuer.metadata_fetches(), api.issuer.jwks_fetches()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_with_a_new_key_share_one_fetch() {
    let api = Arc::new(api().await);
    let old = api.issuer.token().build();
    assert_eq!(api.verdict(&old).await, "ok");
    api.seconds_pass(10);
    api.issuer.rotate().unwrap();
    api.issuer.set_delay(Duration::from_millis(20));
    let mut requests = JoinSet::new();
    // Tokens of old and new keys interleaved.
    for number in 0..200 {
        let api = Arc::clone(&api);
        let token = if number % 3 == 0 { old.clone() } else { api.issuer.token().build() };
        requests.spawn(async move { assert_eq!(api.verdict(&token).await, "ok") });
    }
    requests.join_all().await;
    assert_eq!(api.issuer.jwks_fetches(), 2);
}

#[tokio::test]
async fn known_keys_verify_without_waiting() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    let token = api.issuer.token().build();
    assert!(matches!(poll_once(pin!(api.verifier.verify(&token))), Poll::Ready(Ok(_))));
}

#[tokio::test]
async fn a_dropped_request_does_not_cancel_its_fetch() {
    let api = api().await;
    api.issuer.set_delay(Duration::from_millis(20));
    let token = api.issuer.token().build();
    {
        let mut first = pin!(api.verifier.verify(&token));
        assert!(poll_once(first.as_mut()).is_pending());
    }
    eventually("the fetch ends without its request", || api.issuer.jwks_fetches() == 1).await;
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.jwks_fetches(), 1);
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
    let api = ScriptedApi::at_keys(&server, &keys);
    assert_eq!(api.good().await, "ok");
    keys.rotate().unwrap();
    keys.withdraw_old_keys();
    api.seconds_pass(10);
    let new = keys.token().build();
    assert!(
        poll_once(pin!(api.verifier.verify(&new))).is_pending(),
        "starts a fetch and is dropped"
    );
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
