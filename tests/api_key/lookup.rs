//! Keys that the application looks up.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis::testing::TestClock;
use portcullis::{ApiKey, ApiKeys, GeneratedApiKey, Verifier};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::eventually::eventually;
use crate::verdict::verdict;
use crate::{ISS, generate, verifier, with_another_secret, worker};

/// A verifier with a lookup, and how often it was called.
fn looked_up<F>(
    clock: &TestClock,
    find: impl Fn(String) -> F + Send + Sync + 'static,
) -> (Verifier, Arc<AtomicUsize>)
where
    F: Future<Output = Result<Option<ApiKey>, &'static str>> + Send + 'static,
{
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let call = move |id: String| {
        counted.fetch_add(1, Ordering::SeqCst);
        find(id)
    };
    (verifier(ApiKeys::lookup(ISS, "acme_live", call).unwrap(), clock), calls)
}

/// A lookup that knows one key.
fn knows(
    key: &GeneratedApiKey,
) -> impl Fn(String) -> std::future::Ready<Result<Option<ApiKey>, &'static str>> + use<> {
    let record = worker(key);
    let known = key.hash().id().to_owned();
    move |id| std::future::ready(Ok((id == known).then(|| record.clone())))
}

/// A verifier with a lookup that knows this key, and answers once the gate has a permit.
fn held_back(
    clock: &TestClock,
    key: &GeneratedApiKey,
) -> (Verifier, Arc<AtomicUsize>, Arc<Semaphore>) {
    let (gate, find) = (Arc::new(Semaphore::new(0)), knows(key));
    let waits = Arc::clone(&gate);
    let (verifier, calls) = looked_up(clock, move |id| {
        let (waits, found) = (Arc::clone(&waits), find(id));
        async move {
            let _permit = waits.acquire().await;
            found.await
        }
    });
    (verifier, calls, gate)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn answers_are_cached_for_a_minute_and_unknown_keys_for_five_seconds() {
    let (key, unknown, clock) = (generate(), generate(), TestClock::new());
    let (verifier, calls) = looked_up(&clock, knows(&key));
    for (after, text, expected, total) in [
        (0, key.expose_key(), "ok", 1),
        (59, key.expose_key(), "ok", 1),
        (1, key.expose_key(), "ok", 2),
        (0, unknown.expose_key(), "unknown_api_key", 3),
        (4, unknown.expose_key(), "unknown_api_key", 3),
        (1, unknown.expose_key(), "unknown_api_key", 4),
    ] {
        clock.advance(seconds(after));
        assert_eq!(verdict(&verifier, text).await, expected);
        assert_eq!(calls.load(Ordering::SeqCst), total, "{expected}, after {after} seconds");
    }
    // The identifier is looked up, so another secret costs no call.
    assert_eq!(verdict(&verifier, &with_another_secret(&key)).await, "unknown_api_key");
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn what_cannot_be_a_key_is_not_looked_up() {
    let (key, clock) = (generate(), TestClock::new());
    let (verifier, calls) = looked_up(&clock, knows(&key));
    let text = key.expose_key();
    let other = ApiKey::generate("acme_test").unwrap();
    for text in [&text[1..], &text[..text.len() - 1], "acme_live_x", other.expose_key()] {
        assert_ne!(verdict(&verifier, text).await, "ok");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn concurrent_requests_share_a_call() {
    let (key, clock) = (generate(), TestClock::new());
    let (verifier, calls, gate) = held_back(&clock, &key);
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        let (verifier, text) = (verifier.clone(), key.expose_key().to_owned());
        requests.spawn(async move { verdict(&verifier, &text).await });
    }
    eventually("the lookup is called", || calls.load(Ordering::SeqCst) == 1).await;
    gate.add_permits(1);
    assert_eq!(requests.join_all().await, ["ok"; 50]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_lookup_is_503_and_is_called_again() {
    let (key, clock) = (generate(), TestClock::new());
    let (failing, calls) =
        looked_up(&clock, async |_| Err::<Option<ApiKey>, _>("database is down"));
    for total in 1..3 {
        assert_eq!(verdict(&failing, key.expose_key()).await, "lookup_failed");
        assert_eq!(calls.load(Ordering::SeqCst), total);
    }
    let (hanging, _) = looked_up(&clock, |_| std::future::pending());
    assert_eq!(verdict(&hanging, key.expose_key()).await, "lookup_failed", "after 5 seconds");
    let reserved = worker(&key).claim("iss", "https://issuer.example/");
    let (reserved, _) = looked_up(&clock, move |_| std::future::ready(Ok(Some(reserved.clone()))));
    assert_eq!(verdict(&reserved, key.expose_key()).await, "lookup_failed");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_does_not_delay_a_key_in_use() {
    let (key, clock) = (generate(), TestClock::new());
    let (find, known) = (knows(&key), key.hash().id().to_owned());
    let (verifier, calls) = looked_up(&clock, move |id| {
        let (found, is_known) = (find(id.clone()), id == known);
        async move {
            if !is_known {
                std::future::pending::<()>().await;
            }
            found.await
        }
    });
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
    clock.advance(seconds(61));
    let mut flood = JoinSet::new();
    for _ in 0..200 {
        let (verifier, text) = (verifier.clone(), generate().expose_key().to_owned());
        flood.spawn(async move { verdict(&verifier, &text).await });
    }
    while calls.load(Ordering::SeqCst) < 1 + 64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
    assert_eq!(calls.load(Ordering::SeqCst), 1 + 64 + 1, "at most 64 unknown ones at once");
}

#[tokio::test]
async fn a_withdrawn_key_can_be_forgotten_at_once() {
    let (key, clock) = (generate(), TestClock::new());
    let withdrawn = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (find, is_withdrawn) = (knows(&key), Arc::clone(&withdrawn));
    let (verifier, _) = looked_up(&clock, move |id| {
        let found = find(id);
        let is_withdrawn = is_withdrawn.load(Ordering::SeqCst);
        async move { if is_withdrawn { Ok(None) } else { found.await } }
    });
    assert!(!verifier.forget_api_key(key.hash().id()), "nothing is cached yet");
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
    withdrawn.store(true, Ordering::SeqCst);
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok", "still cached");
    assert!(verifier.forget_api_key(key.hash().id()));
    assert_eq!(verdict(&verifier, key.expose_key()).await, "unknown_api_key");
    // And a new key can be used at once.
    withdrawn.store(false, Ordering::SeqCst);
    assert!(verifier.forget_api_key(key.hash().id()));
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
}

#[tokio::test]
async fn an_answer_from_before_it_was_forgotten_is_not_cached() {
    let (key, clock) = (generate(), TestClock::new());
    let (verifier, calls, gate) = held_back(&clock, &key);
    let request = {
        let (verifier, text) = (verifier.clone(), key.expose_key().to_owned());
        tokio::spawn(async move { verdict(&verifier, &text).await })
    };
    eventually("the lookup is called", || calls.load(Ordering::SeqCst) == 1).await;
    verifier.forget_api_key(key.hash().id());
    gate.add_permits(1);
    assert_eq!(request.await.unwrap(), "ok");
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn the_time_of_answers_is_bounded() {
    let lookup = || ApiKeys::lookup(ISS, "acme", async |_| Ok::<_, &str>(None)).unwrap();
    assert!(lookup().cache_for(seconds(3600)).is_ok());
    assert!(lookup().cache_for(seconds(3601)).is_err());
    assert!(ApiKeys::new(ISS, [worker(&generate())]).unwrap().cache_for(seconds(1)).is_err());
    assert!(ApiKeys::lookup(ISS, "Acme", async |_| Ok::<_, &str>(None)).is_err());
}

#[tokio::test]
async fn a_record_of_another_key_is_no_answer_about_this_one() {
    let (key, other, clock) = (generate(), generate(), TestClock::new());
    let record = worker(&other);
    let (verifier, calls) =
        looked_up(&clock, move |_| std::future::ready(Ok(Some(record.clone()))));
    for _ in 0..5 {
        assert_eq!(verdict(&verifier, key.expose_key()).await, "unknown_api_key");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(verdict(&verifier, other.expose_key()).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_bounded_number_of_requests_waits() {
    let clock = TestClock::new();
    let (verifier, calls) = looked_up(&clock, |_| std::future::pending());
    let began = tokio::time::Instant::now();
    let mut requests = JoinSet::new();
    for _ in 0..2000 {
        let (verifier, key) = (verifier.clone(), generate());
        requests.spawn(async move { verdict(&verifier, key.expose_key()).await });
    }
    for number in 0..2000 {
        assert_eq!(requests.join_next().await.unwrap().unwrap(), "lookup_failed");
        let waits = number >= 2000 - 64 - 1024;
        assert_eq!(began.elapsed() >= seconds(5), waits, "request {number} to end");
        assert!(waits || calls.load(Ordering::SeqCst) == 64);
    }
}
