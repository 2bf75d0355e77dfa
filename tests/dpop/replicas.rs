//! Replicas of an API that share which proofs were used, and a store that fails.

use std::pin::pin;

use portcullis::testing::{StoreBehavior, TestStore};
use portcullis::{SharedStore as _, StoreError};
use tower::Service as _;

use super::poll_once::poll_once;
use super::*;

/// A second replica of an API, which trusts the issuer of the first and has its clock.
fn replica(first: &Api, store: &TestStore) -> Api {
    let dpop = Dpop::new("https://api.example.com").unwrap().share_replays(store.clone());
    Api { layer: layer(&first.issuer, &first.clock, dpop), ..api(|dpop| dpop) }
}

fn sharing(store: &TestStore) -> Api {
    let api = api(|dpop| dpop.share_replays(store.clone()));
    store.set_clock(&api.clock);
    api
}

#[tokio::test]
async fn a_proof_is_used_at_one_replica_only() {
    let store = TestStore::new();
    let api = sharing(&store);
    let (token, other) = (api.token(), replica(&api, &store));
    let proof = api.proof(&token).build();
    assert_eq!(api.code(&token, &proof).await, "ok");
    assert_eq!(other.code(&token, &proof).await, "proof_used");
    let asked = store.calls();
    assert_eq!(api.code(&token, &proof).await, "proof_used");
    assert_eq!(store.calls(), asked, "its own table is asked first");

    // For as long as it is accepted, and for the difference of the clocks.
    assert_eq!(store.keys().len(), 1);
    api.clock.advance(Duration::from_secs(120));
    assert_eq!(store.keys().len(), 1);
    api.clock.advance(Duration::from_secs(1));
    assert_eq!(store.keys().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_identical_requests_at_two_replicas_one_is_accepted() {
    let store = TestStore::new();
    let api = sharing(&store);
    let replicas = [api.layer.clone(), replica(&api, &store).layer];
    let token = api.token();
    for _ in 0..20 {
        let proof = api.proof(&token).build();
        let mut requests = tokio::task::JoinSet::new();
        for number in 0..100 {
            let inner = service_fn(async |_: Request<Body>| {
                Ok::<_, Infallible>(Response::new(Body::empty()))
            });
            let mut service = replicas[number % 2].layer(inner);
            let request = request("DPoP", &token, &[&proof]);
            requests.spawn(async move { service.call(request).await.unwrap().status() });
        }
        let statuses = requests.join_all().await;
        let accepted = statuses.iter().filter(|status| status.is_success()).count();
        assert_eq!(accepted, 1, "{statuses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_only_requests_with_proofs_are_rejected() {
    for behavior in [StoreBehavior::Fail, StoreBehavior::Hang] {
        let store = TestStore::new();
        let api = sharing(&store);
        let (token, unbound) = (api.token(), api.issuer.token().scope("orders:read").build());
        store.set_behavior(behavior);
        let (began, asked) = (tokio::time::Instant::now(), store.calls());
        let unavailable = (StatusCode::SERVICE_UNAVAILABLE, Some("replays_unavailable"), vec![]);
        for _ in 0..10 {
            let rejected = request("DPoP", &token, &[&api.proof(&token).build()]);
            assert_eq!(api.call(rejected).await, unavailable);
            assert_eq!(api.call(request("Bearer", &unbound, &[])).await.1, None);
        }
        // After three failures, the store is not asked for a second.
        assert_eq!(store.calls(), asked + 3);
        assert!(began.elapsed() <= Duration::from_millis(750), "{behavior:?}");
        // It is asked once, and fails again.
        api.clock.advance(Duration::from_secs(1));
        for _ in 0..3 {
            assert_eq!(api.code(&token, &api.proof(&token).build()).await, "replays_unavailable");
        }
        assert_eq!(store.calls(), asked + 4);
        // It recovers by itself. Suspensions last five seconds at most.
        store.set_behavior(StoreBehavior::Normal);
        api.clock.advance(Duration::from_secs(5));
        assert_eq!(api.code(&token, &api.proof(&token).build()).await, "ok");
        assert_eq!(api.code(&token, &api.proof(&token).build()).await, "ok");
    }
}

#[tokio::test]
async fn clocks_of_replicas_may_differ_by_a_minute() {
    let store = TestStore::new();
    let first = sharing(&store);
    let slow = TestClock::new();
    // The next second may have begun since the other clock was created.
    slow.correct_by(first.clock.unix_seconds().cast_signed() - slow.unix_seconds().cast_signed());
    slow.correct_by(-60);
    let dpop = Dpop::new("https://api.example.com").unwrap().share_replays(store.clone());
    let other = Api { layer: layer(&first.issuer, &slow, dpop), ..replica(&first, &store) };
    let issued_at = first.clock.unix_seconds() - 60;
    let token = first.issuer.token().claim("iat", issued_at).scope("orders:read");
    let token = token.bound_to(&first.client).build();
    let proof = first.proof(&token).at(first.clock.now() - Duration::from_secs(60)).build();
    assert_eq!(first.code(&token, &proof).await, "ok");
    for seconds in [0, 59, 1] {
        first.clock.advance(Duration::from_secs(seconds));
        slow.advance(Duration::from_secs(seconds));
        assert_eq!(other.code(&token, &proof).await, "proof_used", "{seconds}");
    }
    slow.advance(Duration::from_secs(1));
    assert_eq!(other.code(&token, &proof).await, "proof_wrong_time");
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_dropped_do_not_keep_the_store_suspended() {
    let store = TestStore::new();
    let api = sharing(&store);
    let token = api.token();
    let new = || request("DPoP", &token, &[&api.proof(&token).build()]);
    store.set_behavior(StoreBehavior::Fail);
    for _ in 0..3 {
        assert_eq!(api.call(new()).await.1, Some("replays_unavailable"));
    }
    // The store hangs, and the client of the probe is gone before the time limit.
    api.clock.advance(Duration::from_secs(1));
    store.set_behavior(StoreBehavior::Hang);
    let dropped = tokio::time::timeout(Duration::from_millis(100), api.call(new())).await;
    assert!(dropped.is_err());
    store.set_behavior(StoreBehavior::Normal);
    assert_eq!(api.call(new()).await.1, None);
}

#[tokio::test(start_paused = true)]
async fn a_question_from_before_a_suspension_does_not_end_the_probe() {
    let store = TestStore::new();
    let api = sharing(&store);
    let token = api.token();
    let new = || request("DPoP", &token, &[&api.proof(&token).build()]);
    store.set_behavior(StoreBehavior::Hang);
    let mut old = pin!(api.call(new()));
    assert!(poll_once(old.as_mut()).is_pending());
    store.set_behavior(StoreBehavior::Fail);
    for _ in 0..3 {
        assert_eq!(api.call(new()).await.1, Some("replays_unavailable"));
    }
    tokio::time::advance(Duration::from_millis(100)).await;
    api.clock.advance(Duration::from_secs(1));
    store.set_behavior(StoreBehavior::Hang);
    let mut probe = pin!(api.call(new()));
    assert!(poll_once(probe.as_mut()).is_pending());
    assert_eq!(old.await.1, Some("replays_unavailable"));
    // The probe is still in progress, so the store is not asked.
    let asked = store.calls();
    assert_eq!(api.call(new()).await.1, Some("replays_unavailable"));
    assert_eq!(store.calls(), asked);
    assert_eq!(probe.await.1, Some("replays_unavailable"));
}

#[tokio::test]
async fn with_nonces_a_proof_is_recorded_for_as_long_as_its_nonce_is_accepted() {
    let store = TestStore::new();
    let with_nonces =
        |dpop: Dpop| dpop.nonces(Nonces::new([[7; 32]]).unwrap()).share_replays(store.clone());
    let first = api(with_nonces);
    store.set_clock(&first.clock);
    let dpop = with_nonces(Dpop::new("https://api.example.com").unwrap());
    let other = Api { layer: layer(&first.issuer, &first.clock, dpop), ..api(|dpop| dpop) };
    let token = first.issuer.token().scope("orders:read").valid_for(Duration::from_secs(3600));
    let token = token.bound_to(&first.client).build();
    let (without, _) = request("DPoP", &token, &[&first.proof(&token).build()]).into_parts();
    let rejection = first.layer.verify_request(&without).await.unwrap_err();
    let nonce = rejection.headers()["dpop-nonce"].to_str().unwrap();
    let proof = first.proof(&token).nonce(nonce).build();
    assert_eq!(first.code(&token, &proof).await, "ok");

    // The nonce of this minute and of the four before it are accepted.
    let last_second = 299 - first.clock.unix_seconds() % 60;
    first.clock.advance(Duration::from_secs(last_second));
    assert_eq!(other.code(&token, &proof).await, "proof_used");
    first.clock.advance(Duration::from_secs(1));
    assert_eq!(other.code(&token, &proof).await, "proof_nonce_needed");
    // And for the difference of the clocks.
    for (seconds, recorded) in [(59, 1), (1, 0)] {
        first.clock.advance(Duration::from_secs(seconds));
        assert_eq!(store.keys().len(), recorded, "{seconds} s later");
    }
}

#[tokio::test]
async fn while_the_store_is_suspended_no_share_is_used() {
    let store = TestStore::new();
    let api = api(|dpop| dpop.share_replays(store.clone()).max_proofs_per_key(4).unwrap());
    let token = api.token();
    store.set_behavior(StoreBehavior::Fail);
    for _ in 0..10 {
        assert_eq!(api.code(&token, &api.proof(&token).build()).await, "replays_unavailable");
    }
    store.set_behavior(StoreBehavior::Normal);
    api.clock.advance(Duration::from_secs(1));
    assert_eq!(api.code(&token, &api.proof(&token).build()).await, "ok");
}

#[tokio::test]
async fn a_proof_that_could_not_be_recorded_is_not_used_again() {
    let store = TestStore::new();
    let api = sharing(&store);
    let token = api.token();
    let proof = api.proof(&token).build();
    store.set_behavior(StoreBehavior::Fail);
    assert_eq!(api.code(&token, &proof).await, "replays_unavailable");
    store.set_behavior(StoreBehavior::Normal);
    assert_eq!(api.code(&token, &proof).await, "proof_used");
}

#[tokio::test]
async fn a_store_that_lost_its_content_accepts_a_proof_at_another_replica() {
    // What an eviction or a failover does: the guide says how to avoid it.
    let store = TestStore::new();
    let api = sharing(&store);
    let (token, other) = (api.token(), replica(&api, &store));
    let proof = api.proof(&token).build();
    assert_eq!(api.code(&token, &proof).await, "ok");
    store.lose();
    assert_eq!(api.code(&token, &proof).await, "proof_used");
    assert_eq!(other.code(&token, &proof).await, "ok");
}

#[tokio::test]
async fn the_store_learns_nothing_but_hashes() {
    let store = TestStore::new();
    let api = sharing(&store);
    let token = api.token();
    assert_eq!(api.code(&token, &api.proof(&token).claim("jti", "secret").build()).await, "ok");
    let keys = store.keys();
    let hash = keys[0].strip_prefix("proof:").unwrap();
    assert_eq!(hash.len(), 22, "128 bits in base64url: {hash}");
}

#[tokio::test]
async fn a_request_that_cannot_wait_uses_no_proof() {
    let store = TestStore::new();
    let api = sharing(&store);
    let token = api.token();
    let proof = api.proof(&token).build();
    let (parts, _) = request("DPoP", &token, &[&proof]).into_parts();
    assert!(api.layer.try_verify_request(&parts).is_none());
    assert_eq!(store.calls(), 0);
    assert!(api.layer.verify_request(&parts).await.is_ok());
    let (parts, _) =
        request("Bearer", &api.issuer.token().scope("orders:read").build(), &[]).into_parts();
    assert!(api.layer.try_verify_request(&parts).is_some_and(|accepted| accepted.is_ok()));
    // Without a store, there is nothing to wait for.
    let alone = super::api(|dpop| dpop);
    let token = alone.token();
    let (parts, _) = request("DPoP", &token, &[&alone.proof(&token).build()]).into_parts();
    assert!(alone.layer.try_verify_request(&parts).is_some_and(|accepted| accepted.is_ok()));
}

#[tokio::test]
async fn the_log_of_a_store_is_read_in_order_from_any_position() {
    let store = TestStore::new();
    let hour = Duration::from_secs(3600);
    let read = async |position| store.read(position).await.unwrap();
    assert_eq!(read(None).await, portcullis::LogEntries::default());
    store.append(b"one", hour).await.unwrap();
    store.append(b"two", hour).await.unwrap();
    let first = read(None).await;
    assert_eq!(first.entries, [b"one", b"two"]);
    assert!(read(first.position.as_ref()).await.entries.is_empty());
    store.append(b"three", hour).await.unwrap();
    assert_eq!(read(first.position.as_ref()).await.entries, [b"three"]);
    store.set_behavior(StoreBehavior::Fail);
    let failed: Result<(), StoreError> = store.append(b"four", hour).await;
    assert_eq!(failed.unwrap_err().to_string(), "the store fails");
}
