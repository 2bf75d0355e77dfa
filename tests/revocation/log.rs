//! The log that replicas share: outages, clocks, and runtimes that end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::testing::{StoreBehavior, TestClock, TestStore};
use portcullis::{LogEntries, LogPosition, Revocations, SharedStore, StoreFuture};
use tokio::runtime::{Builder, Runtime};

use crate::verdict::verdict;
use crate::{HOUR, ISS, SECOND, Slow, built, foreign_entry, issuer, log_out, pass, receivers};

/// A runtime whose tasks run only while a test blocks on it.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[tokio::test]
async fn a_session_that_ended_does_not_come_back() {
    let (issuer, clock) = issuer();
    let revocations = Revocations::in_memory().keep_for(HOUR).unwrap();
    let verifier = built(issuer.issuer(), &clock, &revocations);
    let app = receivers(&verifier, &revocations);
    // The issuer's clock is 30 seconds ahead. Its tokens live for an hour, as `keep_for` says.
    let ahead = clock.unix_seconds() + 30;
    let token = issuer.token().claim("sid", "1").claim("iat", ahead).claim("exp", ahead + 3600);
    let token = token.build();
    let logout = issuer.logout_token("web").claim("sid", "1").claim("iat", ahead).build();
    assert_eq!(log_out(&app, &logout).await, 200);
    for _ in 0..370 {
        let code = verdict(&verifier, &token).await;
        assert_ne!(code, "ok", "at {} seconds", clock.unix_seconds() + 30 - ahead);
        clock.advance(Duration::from_secs(10));
    }
}

#[tokio::test]
async fn one_revoked_token_stays_revoked_with_the_longest_leeway() {
    let (issuer, clock) = issuer();
    let revocations = Revocations::in_memory();
    let config = issuer.issuer().leeway(Duration::from_secs(300)).unwrap();
    let verifier = built(config, &clock, &revocations);
    let token = issuer.token().claim("jti", "a").build();
    revocations.token(ISS, "a", clock.now() + HOUR).await.unwrap();
    assert_eq!(verdict(&verifier, &token).await, "revoked");
    clock.advance(HOUR + Duration::from_secs(200));
    assert_ne!(verdict(&verifier, &token).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_was_wrong_for_a_moment_loses_no_revocation() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    // The other replica has a clock of its own, which is right.
    let right = TestClock::new();
    let (one, other) = (Revocations::shared(store.clone()), Revocations::shared(store.clone()));
    let (_other, verifier) =
        (built(issuer.issuer(), &right, &other), built(issuer.issuer(), &clock, &one));
    verifier.warm_up().await.unwrap();
    let token = issuer.token().subject("alice").build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    clock.correct_by(3 * 24 * 3600);
    other.subject(ISS, "alice").await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    clock.correct_by(-3 * 24 * 3600);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(verdict(&verifier, &token).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn open_streams_end_after_an_outage_of_the_store() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    // As over a network: other tasks run while it answers.
    let slow = Slow { store: store.clone(), page: 1000, reads: Arc::default() };
    let (one, other) = (Revocations::shared(slow), Revocations::shared(store.clone()));
    let _other = built(issuer.issuer(), &clock, &other);
    let verifier = built(issuer.issuer(), &clock, &one);
    verifier.warm_up().await.unwrap();
    let text = issuer.token().subject("alice").build();
    let token = verifier.verify(&text).await.unwrap();
    let stream = tokio::spawn(async move { token.until_revoked().await });
    tokio::task::yield_now().await;
    // This replica reads nothing for 70 seconds, in which others append a thousand entries.
    store.set_behavior(StoreBehavior::Hang);
    pass(&clock, 70).await;
    let now = clock.unix_seconds();
    store.set_behavior(StoreBehavior::Normal);
    other.subject(ISS, "alice").await.unwrap();
    for number in 0..999 {
        store.append(&foreign_entry(number, now), HOUR).await.unwrap();
    }
    pass(&clock, 10).await;
    assert_eq!(verdict(&verifier, &text).await, "revoked");
    assert!(stream.is_finished(), "the stream is still open");
}

#[test]
fn a_runtime_that_is_no_longer_driven_does_not_end_the_service() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let revocations = Revocations::shared(store);
    let (startup, serving) = (runtime(), runtime());
    let verifier = startup.block_on(async {
        let verifier = built(issuer.issuer(), &clock, &revocations);
        verifier.warm_up().await.unwrap();
        verifier
    });
    serving.block_on(async {
        let token = issuer.token().build();
        let mut codes = Vec::new();
        for _ in 0..30 {
            pass(&clock, 10).await;
            codes.push(verdict(&verifier, &token).await);
        }
        assert_eq!(codes.last(), Some(&"ok"), "{codes:?}");
    });
    drop(startup);
}

#[test]
fn a_runtime_that_ended_does_not_delay_revocations() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let (one, other) = (Revocations::shared(store.clone()), Revocations::shared(store));
    let token = issuer.token().subject("alice").build();
    let startup = runtime();
    let verifier = startup.block_on(async {
        let verifier = built(issuer.issuer(), &clock, &one);
        verifier.warm_up().await.unwrap();
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &token).await, "ok");
        }
        verifier
    });
    drop(startup);
    runtime().block_on(async {
        let _other = built(issuer.issuer(), &clock, &other);
        other.subject(ISS, "alice").await.unwrap();
        for _ in 0..5 {
            let _ = verdict(&verifier, &token).await;
            pass(&clock, 1).await;
        }
        assert_eq!(verdict(&verifier, &token).await, "revoked", "after five seconds");
    });
}

#[tokio::test(start_paused = true)]
async fn warm_up_fails_while_every_request_is_answered_503() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let verifier = built(issuer.issuer(), &clock, &Revocations::shared(store.clone()));
    verifier.warm_up().await.unwrap();
    store.set_behavior(StoreBehavior::Fail);
    pass(&clock, 70).await;
    assert_eq!(verdict(&verifier, &issuer.token().build()).await, "revocations_unavailable");
    assert!(verifier.warm_up().await.is_err(), "a replica that answers 503 only counts as ready");
}

#[tokio::test(start_paused = true)]
async fn a_store_with_short_pages_is_read_to_its_end_before_a_token_is_accepted() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let now = clock.unix_seconds();
    for number in 0..2000 {
        store.append(&foreign_entry(number, now), HOUR).await.unwrap();
    }
    let other = Revocations::shared(store.clone());
    let _other = built(issuer.issuer(), &clock, &other);
    other.subject(ISS, "alice").await.unwrap();
    // "at most 1,000"
    let slow = Slow { store, page: 100, reads: Arc::default() };
    let verifier = built(issuer.issuer(), &clock, &Revocations::shared(slow));
    verifier.warm_up().await.unwrap();
    assert_eq!(verdict(&verifier, &issuer.token().subject("alice").build()).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn one_task_reads_the_log() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let verifier = built(issuer.issuer(), &clock, &Revocations::shared(store.clone()));
    for _ in 0..3 {
        // Each call starts the task if none is running.
        verifier.warm_up().await.unwrap();
        tokio::time::sleep(SECOND / 10).await;
    }
    assert_eq!(store.calls(), 1);
}

#[test]
fn a_task_without_a_sign_of_life_for_five_seconds_is_replaced() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let revocations = Revocations::shared(store.clone());
    let (startup, serving) = (runtime(), runtime());
    let verifier = startup.block_on(async {
        let verifier = built(issuer.issuer(), &clock, &revocations);
        verifier.warm_up().await.unwrap();
        verifier
    });
    let calls = store.calls();
    for (name, seconds, expected) in [("4 seconds", 4, calls), ("5 seconds", 1, calls + 1)] {
        clock.advance(seconds * SECOND);
        serving.block_on(async {
            verifier.warm_up().await.unwrap();
            tokio::time::sleep(SECOND / 10).await;
        });
        assert_eq!(store.calls(), expected, "{name}");
    }
    // Once it is driven again, it finds that another one reads.
    startup.block_on(async { tokio::time::sleep(10 * SECOND).await });
    assert_eq!(store.calls(), calls + 1, "the task that was replaced");
    serving.block_on(async { tokio::time::sleep(10 * SECOND).await });
    assert!(store.calls() >= calls + 10, "the task that replaced it");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_behind_thousands_takes_effect_within_two_seconds() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let (one, other) = (Revocations::shared(store.clone()), Revocations::shared(store.clone()));
    let _other = built(issuer.issuer(), &clock, &other);
    let verifier = built(issuer.issuer(), &clock, &one);
    verifier.warm_up().await.unwrap();
    let (token, now) = (issuer.token().subject("alice").build(), clock.unix_seconds());
    assert_eq!(verdict(&verifier, &token).await, "ok");
    for number in 0..5000 {
        store.append(&foreign_entry(number, now), HOUR).await.unwrap();
    }
    other.subject(ISS, "alice").await.unwrap();
    pass(&clock, 2).await;
    assert_eq!(verdict(&verifier, &token).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_read_again_from_its_beginning_after_the_clock_was_set_back() {
    let ((issuer, clock), store) = (issuer(), TestStore::new());
    let now = clock.unix_seconds();
    for number in 0..1000 {
        store.append(&foreign_entry(number, now), HOUR).await.unwrap();
    }
    let verifier = built(issuer.issuer(), &clock, &Revocations::shared(store.clone()));
    verifier.warm_up().await.unwrap();
    tokio::time::sleep(SECOND / 2).await;
    // A first page of a thousand entries is followed by a second one.
    for (name, correction, calls) in [
        ("no correction", 0, 1),
        ("a day ahead", 24 * 3600, 1),
        ("back by a minute", -60, 1),
        ("back by more than a minute", -61, 2),
        ("back by most of a day", -23 * 3600, 2),
        ("it stays there", 0, 1),
    ] {
        let before = store.calls();
        clock.correct_by(correction);
        tokio::time::sleep(SECOND).await;
        assert_eq!(store.calls() - before, calls, "{name}");
    }
}

/// Records for how long the log keeps entries.
struct Keeping(TestStore, Arc<Mutex<Vec<Duration>>>);

impl SharedStore for Keeping {
    fn insert_if_absent<'a>(&'a self, key: &'a str, lifetime: Duration) -> StoreFuture<'a, bool> {
        self.0.insert_if_absent(key, lifetime)
    }

    fn append<'a>(&'a self, entry: &'a [u8], keep_for: Duration) -> StoreFuture<'a, ()> {
        self.1.lock().unwrap().push(keep_for);
        self.0.append(entry, keep_for)
    }

    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries> {
        self.0.read(position)
    }
}

/// An entry of a token ends up to ten minutes after `keep_for`: twice the longest leeway of `exp`.
#[tokio::test]
async fn the_log_keeps_entries_for_longer_than_they_count() {
    let ((issuer, clock), kept) = (issuer(), Arc::default());
    let store = Keeping(TestStore::new(), Arc::clone(&kept));
    let revocations = Revocations::shared(store).keep_for(HOUR).unwrap();
    let _verifier = built(issuer.issuer(), &clock, &revocations);
    revocations.subject(ISS, "alice").await.unwrap();
    revocations.token(ISS, "1", clock.now() + HOUR + 300 * SECOND).await.unwrap();
    assert_eq!(*kept.lock().unwrap(), [HOUR + 600 * SECOND; 2]);
}
