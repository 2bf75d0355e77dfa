//! Revoked tokens: which are rejected, since when, and at which replica.

use std::time::Duration;

use portcullis::testing::{StoreBehavior, TestClock, TestIssuer, TestStore, TokenBuilder};
use portcullis::{ApiKey, ApiKeys, ConfigError, Revocations, Verifier};
use tokio::time::timeout;

use crate::verdict::verdict;

const ISS: &str = "https://issuer.example/";
const HOUR: Duration = Duration::from_secs(3600);

struct Api {
    issuer: TestIssuer,
    clock: TestClock,
}

impl Api {
    fn new() -> Self {
        let (issuer, clock) = (TestIssuer::offline(ISS).unwrap(), TestClock::new());
        issuer.set_clock(&clock);
        Self { issuer, clock }
    }

    fn verifier(&self, revocations: &Revocations) -> Verifier {
        let builder = Verifier::builder(self.issuer.issuer()).clock(&self.clock);
        builder.revocations(revocations).build().unwrap()
    }

    fn token(&self) -> TokenBuilder {
        let token = self.issuer.token().subject("alice").claim("sid", "1").claim("jti", "a");
        token.claim("client_id", "app").valid_for(48 * HOUR)
    }
}

/// What was revoked.
#[derive(Clone, Copy, Debug)]
enum What {
    Token,
    Subject,
    Session,
    Client,
    Issuer,
}

const ALL: [What; 5] = [What::Token, What::Subject, What::Session, What::Client, What::Issuer];

async fn revoke(api: &Api, revocations: &Revocations, what: What) {
    match what {
        What::Token => revocations.token(ISS, "a", api.clock.now() + HOUR).await,
        What::Subject => revocations.subject(ISS, "alice").await,
        What::Session => revocations.session(ISS, "1").await,
        What::Client => revocations.client(ISS, "app").await,
        What::Issuer => revocations.issuer(ISS).await,
    }
    .unwrap();
}

#[tokio::test]
async fn revoked_tokens_are_rejected_at_once() {
    for what in ALL {
        let (api, revocations) = (Api::new(), Revocations::in_memory());
        let verifier = api.verifier(&revocations);
        let (token, other) = (api.token().build(), api.token());
        let other = other.subject("bob").claim("sid", "2").claim("jti", "b");
        let other = other.claim("client_id", "other").build();
        // From the second time on, it is cached.
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &token).await, "ok");
            assert_eq!(verdict(&verifier, &other).await, "ok");
        }
        revoke(&api, &revocations, what).await;
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &token).await, "revoked", "{what:?}");
            let expected = if matches!(what, What::Issuer) { "revoked" } else { "ok" };
            assert_eq!(verdict(&verifier, &other).await, expected, "{what:?}");
        }
        // A token that was issued later is another one, except by its identifier.
        api.clock.advance(Duration::from_secs(1));
        let expected = if matches!(what, What::Token) { "revoked" } else { "ok" };
        assert_eq!(verdict(&verifier, &api.token().build()).await, expected, "{what:?}");
        // Without its time, it is not known whether the entry about it has ended.
        let undated = api.token().without_claim("iat").build();
        assert_eq!(verdict(&verifier, &undated).await, "missing_claim", "{what:?}");
    }
}

#[tokio::test]
async fn entries_end() {
    let (api, revocations) = (Api::new(), Revocations::in_memory());
    let verifier = api.verifier(&revocations);
    revoke(&api, &revocations, What::Token).await;
    let token = api.token().build();
    assert_eq!(verdict(&verifier, &token).await, "revoked");
    // An hour, and the leeway.
    api.clock.advance(HOUR + Duration::from_secs(299));
    assert_eq!(verdict(&verifier, &token).await, "revoked");
    api.clock.advance(Duration::from_secs(1));
    assert_eq!(verdict(&verifier, &token).await, "ok");
}

#[tokio::test]
async fn a_token_that_is_older_than_entries_are_kept_is_rejected() {
    let revocations = Revocations::in_memory().keep_for(HOUR).unwrap();
    let api = Api::new();
    let verifier = api.verifier(&revocations);
    let token = api.token().build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    api.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(verdict(&verifier, &token).await, "revoked");
}

#[tokio::test(start_paused = true)]
async fn a_revocation_takes_effect_at_another_replica_within_two_seconds() {
    for what in ALL {
        let (api, store) = (Api::new(), TestStore::new());
        let (one, other) = (Revocations::shared(store.clone()), Revocations::shared(store.clone()));
        let (first, second) = (api.verifier(&one), api.verifier(&other));
        first.warm_up().await.unwrap();
        second.warm_up().await.unwrap();
        let token = api.token().build();
        assert_eq!(verdict(&second, &token).await, "ok");
        revoke(&api, &one, what).await;
        assert_eq!(verdict(&first, &token).await, "revoked", "{what:?}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(verdict(&second, &token).await, "revoked", "{what:?}");
        // A replica that starts later reads the log from its beginning.
        let restarted = api.verifier(&Revocations::shared(store));
        assert_eq!(verdict(&restarted, &token).await, "revocations_unavailable");
        restarted.warm_up().await.unwrap();
        assert_eq!(verdict(&restarted, &token).await, "revoked", "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_log_tokens_are_accepted_for_a_minute() {
    for behavior in [StoreBehavior::Fail, StoreBehavior::Hang] {
        let (api, store) = (Api::new(), TestStore::new());
        let revocations = Revocations::shared(store.clone());
        let verifier = api.verifier(&revocations);
        verifier.warm_up().await.unwrap();
        let (good, bad) = (api.token().build(), api.token().subject("bob").build());
        revocations.subject(ISS, "bob").await.unwrap();
        store.set_behavior(behavior);
        assert!(revocations.subject(ISS, "carol").await.is_err());
        let pass = async |seconds: u64| {
            for _ in 0..seconds {
                api.clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        pass(59).await;
        assert_eq!(verdict(&verifier, &good).await, "ok", "{behavior:?}");
        assert_eq!(verdict(&verifier, &bad).await, "revoked", "{behavior:?}");
        pass(3).await;
        assert_eq!(verdict(&verifier, &good).await, "revocations_unavailable", "{behavior:?}");
        assert_eq!(verdict(&verifier, &bad).await, "revocations_unavailable", "{behavior:?}");
        // It recovers by itself.
        store.set_behavior(StoreBehavior::Normal);
        pass(3).await;
        assert_eq!(verdict(&verifier, &good).await, "ok", "{behavior:?}");
        assert_eq!(verdict(&verifier, &bad).await, "revoked", "{behavior:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn warm_up_does_not_wait_for_a_store_that_is_down() {
    let (api, store) = (Api::new(), TestStore::new());
    store.set_behavior(StoreBehavior::Fail);
    let verifier = api.verifier(&Revocations::shared(store.clone()));
    let error = verifier.warm_up().await.unwrap_err();
    assert!(error.to_string().contains("revocations"), "{error}");
    assert_eq!(verdict(&verifier, &api.token().build()).await, "revocations_unavailable");
    store.set_behavior(StoreBehavior::Normal);
    verifier.warm_up().await.unwrap();
    assert_eq!(verdict(&verifier, &api.token().build()).await, "ok");
}

#[tokio::test]
async fn open_streams_end_when_their_token_is_revoked() {
    let (api, revocations) = (Api::new(), Revocations::in_memory());
    let verifier = api.verifier(&revocations);
    let token = verifier.verify(&api.token().build()).await.unwrap();
    let stream = tokio::spawn(async move { token.until_revoked().await });
    revocations.subject(ISS, "bob").await.unwrap();
    tokio::task::yield_now().await;
    assert!(!stream.is_finished());
    revocations.session(ISS, "1").await.unwrap();
    stream.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn open_streams_end_when_their_token_is_older_than_entries_are_kept() {
    let revocations = Revocations::in_memory().keep_for(HOUR).unwrap();
    let api = Api::new();
    let token = api.verifier(&revocations).verify(&api.token().build()).await.unwrap();
    for (after, ends) in [(0, false), (3599, false), (1, true)] {
        api.clock.advance(Duration::from_secs(after));
        let ended = timeout(Duration::ZERO, token.until_expired()).await;
        assert_eq!(ended.is_ok(), ends, "{after} seconds later");
    }
}

#[tokio::test]
async fn the_log_has_hashes_only() {
    use portcullis::SharedStore as _;
    let store = TestStore::new();
    let (api, revocations) = (Api::new(), Revocations::shared(store.clone()));
    for what in ALL {
        revoke(&api, &revocations, what).await;
    }
    let log = store.read(None).await.unwrap().entries;
    assert_eq!(log.len(), ALL.len());
    for entry in log {
        assert_eq!(entry.len(), 37);
        assert!(!String::from_utf8_lossy(&entry).contains("alice"));
    }
}

#[test]
fn settings_are_checked() {
    struct Case {
        name: &'static str,
        result: Result<Revocations, ConfigError>,
        is_valid: bool,
    }

    const SECOND: Duration = Duration::from_secs(1);
    let keep_for = |duration| Revocations::in_memory().keep_for(duration);
    let max_stale = |duration| Revocations::in_memory().max_stale(duration);
    for Case { name, result, is_valid } in [
        Case { name: "too short", result: keep_for(59 * SECOND), is_valid: false },
        Case { name: "a minute", result: keep_for(60 * SECOND), is_valid: true },
        Case { name: "90 days", result: keep_for(90 * 24 * HOUR), is_valid: true },
        Case { name: "too long", result: keep_for(90 * 24 * HOUR + SECOND), is_valid: false },
        Case { name: "stale too soon", result: max_stale(4 * SECOND), is_valid: false },
        Case { name: "stale after 5 seconds", result: max_stale(5 * SECOND), is_valid: true },
        Case { name: "stale after an hour", result: max_stale(HOUR), is_valid: true },
        Case { name: "stale too late", result: max_stale(HOUR + SECOND), is_valid: false },
    ] {
        assert_eq!(result.is_ok(), is_valid, "{name}");
    }
    let cloned = Revocations::in_memory();
    let _other = cloned.clone();
    assert!(cloned.keep_for(HOUR).is_err(), "cloned before");
}

#[tokio::test]
async fn a_cached_token_that_is_older_than_entries_are_kept_is_rejected() {
    let revocations = Revocations::in_memory().keep_for(HOUR).unwrap();
    let api = Api::new();
    let verifier = api.verifier(&revocations);
    let token = api.token().build();
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &token).await, "ok");
    }
    api.clock.advance(HOUR + Duration::from_secs(1));
    assert_eq!(verdict(&verifier, &token).await, "revoked");
}

#[tokio::test]
async fn api_keys_are_not_revoked() {
    let (api, revocations) = (Api::new(), Revocations::in_memory());
    const KEYS: &str = "https://keys.example/";
    let key = ApiKey::generate("acme_live").unwrap();
    let keys = ApiKeys::new(KEYS, [ApiKey::new("alice", key.hash().clone())]).unwrap();
    let builder = Verifier::builder(api.issuer.issuer()).api_keys(keys).clock(&api.clock);
    let verifier = builder.revocations(&revocations).build().unwrap();
    revocations.subject(KEYS, "alice").await.unwrap();
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn health_describes_the_log() {
    let (api, store) = (Api::new(), TestStore::new());
    let revocations = Revocations::shared(store.clone());
    let verifier = api.verifier(&revocations);
    let health = || {
        let health = revocations.health();
        let log = health.log.unwrap();
        (health.is_available, health.entries, log.age, log.last_error.is_some())
    };
    let reads = || {
        let log = revocations.health().log.unwrap();
        (log.reads, log.failed_reads)
    };
    assert_eq!(health(), (false, 0, None, false), "at the start");
    assert_eq!(reads(), (0, 0), "at the start");
    verifier.warm_up().await.unwrap();
    assert_eq!(health(), (true, 0, Some(Duration::ZERO), false));
    assert_eq!(reads(), (1, 0), "the log was read");
    revocations.subject(ISS, "alice").await.unwrap();
    store.set_behavior(StoreBehavior::Fail);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(reads(), (2, 1), "a second later");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(reads(), (4, 3), "then four times a second");
    assert_eq!(health(), (true, 1, Some(Duration::ZERO), true), "the log cannot be read");
    api.clock.advance(Duration::from_secs(62));
    assert_eq!(health(), (false, 1, Some(Duration::from_secs(62)), true), "for too long");
    assert!(verifier.warm_up().await.is_err());
    store.set_behavior(StoreBehavior::Normal);
    verifier.warm_up().await.unwrap();
    assert_eq!(health(), (true, 1, Some(Duration::ZERO), false));
    let entries = Revocations::in_memory().health();
    assert!(entries.is_available && entries.log.is_none());
}
