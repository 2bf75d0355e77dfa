//! The cache of verified tokens never accepts a token that a verification would reject.
//!
//! The tests recognize a cached token by its claims: they are parsed once, so a hit returns the
//! same allocation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{AccessToken, Algorithm, Issuer, Issuers, Verifier};
use serde_json::Value;

use crate::eventually::eventually;
use crate::verdict::verdict;

struct Api {
    issuer: TestIssuer,
    clock: TestClock,
    verifier: Verifier,
}

async fn api() -> Api {
    let (issuer, clock) = (TestIssuer::start_with(Algorithm::EdDSA).unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    Api { issuer, clock, verifier }
}

async fn claims(verifier: &Verifier, token: &str) -> Arc<Value> {
    verifier.verify(token).await.unwrap().claims().unwrap()
}

/// Whether the token comes from the cache. It is cached from its second verification on.
async fn is_hit(verifier: &Verifier, token: &str) -> bool {
    claims(verifier, token).await;
    Arc::ptr_eq(&claims(verifier, token).await, &claims(verifier, token).await)
}

#[tokio::test]
async fn a_cached_token_is_verified_once_and_its_claims_are_parsed_once() {
    let api = api().await;
    let token = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &token).await);
    let off = Verifier::builder(api.issuer.issuer()).without_token_cache().build().unwrap();
    assert!(!is_hit(&off, &token).await, "the cache is disabled");
    // For five minutes at most, whatever the lifetime of the token.
    let first = claims(&api.verifier, &token).await;
    for (passes, hit) in [(299, true), (1, false)] {
        api.clock.advance(Duration::from_secs(passes));
        assert_eq!(
            Arc::ptr_eq(&first, &claims(&api.verifier, &token).await),
            hit,
            "{passes} s later"
        );
    }
}

#[tokio::test]
async fn every_hit_checks_the_validity_period() {
    struct Case {
        correction: i64,
        short_is: &'static str,
        early_is: &'static str,
    }

    let api = api().await;
    let now = api.clock.unix_seconds();
    let short = api.issuer.token().claim("exp", now + 60).build();
    let early = api.issuer.token().claim("iat", now).claim("nbf", now).build();
    for token in [&short, &early] {
        assert!(is_hit(&api.verifier, token).await);
    }
    // The leeway of 30 seconds applies as without a cache.
    for Case { correction, short_is, early_is } in [
        Case { correction: 89, short_is: "ok", early_is: "ok" },
        Case { correction: 1, short_is: "expired", early_is: "ok" },
        Case { correction: -120, short_is: "ok", early_is: "ok" },
        Case { correction: -1, short_is: "ok", early_is: "not_yet_valid" },
        Case { correction: 31, short_is: "ok", early_is: "ok" },
    ] {
        api.clock.correct_by(correction);
        assert_eq!(verdict(&api.verifier, &early).await, early_is, "{correction}");
        let short_now = verdict(&api.verifier, &short).await;
        // Its `iat` is the time of the start, so it is also early when the clock is set back.
        assert!(
            short_now == short_is || early_is != "ok" && short_now == "issued_in_the_future",
            "{correction}: {short_now}"
        );
    }
}

#[tokio::test]
async fn tokens_of_a_withdrawn_key_are_dropped() {
    let api = api().await;
    let old = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &old).await);
    api.issuer.rotate().unwrap();
    api.issuer.withdraw_old_keys();
    api.clock.advance(Duration::from_secs(10));
    assert_eq!(
        verdict(&api.verifier, &api.issuer.token().build()).await,
        "ok",
        "the new key is fetched"
    );
    assert_eq!(verdict(&api.verifier, &old).await, "unknown_key");

    // Without a request that names the new key, they are dropped with the next refresh.
    let token = api.issuer.token().claim("exp", 4_000_000_000_u64).build();
    assert!(is_hit(&api.verifier, &token).await);
    api.issuer.rotate().unwrap();
    api.issuer.withdraw_old_keys();
    api.clock.advance(Duration::from_secs(250));
    assert_eq!(verdict(&api.verifier, &token).await, "ok");
    for _ in 0..2 {
        api.clock.advance(Duration::from_secs(150));
        assert_eq!(verdict(&api.verifier, &token).await, "ok");
    }
    let refreshed = async {
        while verdict(&api.verifier, &token).await == "ok" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(10), refreshed).await.is_ok(),
        "a hit also starts a refresh of the keys"
    );
    assert_eq!(verdict(&api.verifier, &token).await, "unknown_key");
}

/// After a refetch, a token is verified once more and then cached again.
#[tokio::test]
async fn tokens_of_a_key_in_a_new_set_are_cached_again() {
    let api = api().await;
    let token = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &token).await);
    let before = claims(&api.verifier, &token).await;
    api.issuer.rotate().unwrap();
    api.clock.advance(Duration::from_secs(10));
    assert_eq!(
        verdict(&api.verifier, &api.issuer.token().build()).await,
        "ok",
        "the new key is fetched"
    );
    assert!(
        !Arc::ptr_eq(&before, &claims(&api.verifier, &token).await),
        "verified with the new set"
    );
    assert!(is_hit(&api.verifier, &token).await);
}

/// During and after an outage, the result is the same as without a cache.
#[tokio::test]
async fn cache_hits_respect_key_staleness() {
    let api = api().await;
    let token = api.issuer.token().claim("exp", 4_000_000_000_u64).build();
    assert_eq!(verdict(&api.verifier, &token).await, "ok");
    api.issuer.set_behavior(Behavior::Status(404));
    for (passes, expected) in [(550, "ok"), (3599, "ok"), (60, "keys_unavailable")] {
        api.clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict(&api.verifier, &token).await, expected, "{passes} s later");
        eventually("the fetch ends", || !api.verifier.health()[0].fetching).await;
    }
}

#[tokio::test]
async fn tokens_are_compared_as_a_whole() {
    let api = api().await;
    let token = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &token).await);
    let last = if token.ends_with('A') { "Q" } else { "A" };
    let forged = format!("{}{last}", &token[..token.len() - 1]);
    assert_ne!(verdict(&api.verifier, &forged).await, "ok", "the last byte");
    // The same signature with another payload or header.
    for (name, other) in [
        ("payload", api.issuer.token().subject("admin").build()),
        ("header", api.issuer.token().header("x", "y").build()),
    ] {
        let at = other.rfind('.').unwrap();
        let spliced = format!("{}{}", &other[..at], &token[token.rfind('.').unwrap()..]);
        assert_eq!(verdict(&api.verifier, &spliced).await, "bad_signature", "{name}");
        assert!(is_hit(&api.verifier, &token).await, "the cached token is not evicted");
    }
    for short in ["", "a", "a.b.c"] {
        assert_ne!(verdict(&api.verifier, short).await, "ok");
    }
}

#[tokio::test]
async fn verifiers_do_not_share_cached_tokens() {
    let api = api().await;
    let token = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &token).await);
    let other = Issuer::new(api.issuer.iss(), "https://other.example").unwrap();
    let other = Verifier::builder(other).clock(&api.clock).build().unwrap();
    assert_eq!(verdict(&other, &token).await, "wrong_audience");
    let clone = api.verifier.clone();
    assert!(
        Arc::ptr_eq(&claims(&clone, &token).await, &claims(&api.verifier, &token).await),
        "a clone shares the cache"
    );
}

#[tokio::test]
async fn failures_are_not_cached() {
    let api = api().await;
    assert_eq!(verdict(&api.verifier, &api.issuer.token().build()).await, "ok");
    api.issuer.rotate().unwrap();
    let token = api.issuer.token().build();
    for number in 0..3 {
        let junk = api.issuer.token().header("kid", number.to_string()).tampered().build();
        assert_eq!(verdict(&api.verifier, &junk).await, "unknown_key");
    }
    api.issuer.rotate().unwrap();
    let token = if verdict(&api.verifier, &token).await == "ok" {
        api.issuer.token().build()
    } else {
        token
    };
    assert_eq!(verdict(&api.verifier, &token).await, "unknown_key", "the budget is spent");
    api.clock.advance(Duration::from_secs(10));
    assert_eq!(verdict(&api.verifier, &token).await, "ok");
}

/// The cached tokens of a removed or changed tenant are dropped, whether its keys are fetched or
/// fixed.
#[tokio::test]
async fn removing_or_changing_a_tenant_drops_its_cached_tokens() {
    for fixed in [false, true] {
        let (acme, clock) = (TestIssuer::start_with(Algorithm::EdDSA).unwrap(), TestClock::new());
        acme.set_clock(&clock);
        let (audience, is_tenant) =
            (Arc::new(Mutex::new(AUDIENCE)), Arc::new(AtomicBool::new(true)));
        let (current, still, keys) = (Arc::clone(&audience), Arc::clone(&is_tenant), acme.jwks());
        let issuers = Issuers::lookup(move |iss| {
            let issuer = Issuer::new(iss, *current.lock().unwrap()).ok()?;
            still.load(Ordering::SeqCst).then_some(if fixed {
                issuer.jwks(keys.clone())
            } else {
                issuer
            })
        });
        let issuers =
            issuers.refresh_after(Duration::from_secs(60)).danger_allow_private_addresses();
        let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
        let token = acme.token().build();
        assert!(is_hit(&verifier, &token).await, "fixed: {fixed}");
        clock.advance(Duration::from_secs(60));
        assert!(is_hit(&verifier, &token).await, "looked up again, unchanged; fixed: {fixed}");
        *audience.lock().unwrap() = "https://other.example";
        clock.advance(Duration::from_secs(60));
        assert_eq!(verdict(&verifier, &token).await, "wrong_audience", "fixed: {fixed}");
        *audience.lock().unwrap() = AUDIENCE;
        clock.advance(Duration::from_secs(60));
        assert_eq!(verdict(&verifier, &token).await, "ok", "fixed: {fixed}");
        is_tenant.store(false, Ordering::SeqCst);
        clock.advance(Duration::from_secs(60));
        assert_eq!(verdict(&verifier, &token).await, "unknown_issuer", "fixed: {fixed}");
    }
}

/// As many tokens as the capacity are cached at the same time.
#[tokio::test]
async fn tokens_up_to_the_capacity_are_cached() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::builder(issuer.issuer()).token_cache_capacity(1000).build().unwrap();
    let tokens: Vec<_> =
        (0..1000).map(|number| issuer.token().claim("jti", number).build()).collect();
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.clear();
        for token in &tokens {
            kept.push(claims(&verifier, token).await);
        }
    }
    let mut hits = 0;
    for (token, first) in tokens.iter().zip(&kept) {
        hits += usize::from(Arc::ptr_eq(first, &claims(&verifier, token).await));
    }
    assert!(hits >= 980, "{hits} of 1,000");
}

/// Many clients obtain a new token for every request.
#[tokio::test]
async fn a_token_used_once_is_not_cached() {
    let api = api().await;
    for (number, (requests, kept)) in
        [(1, false), (2, true), (3, true), (1, false)].into_iter().enumerate()
    {
        let token = api.issuer.token().claim("jti", number).build();
        let mut last = std::sync::Weak::<Value>::new();
        for _ in 0..requests {
            last = Arc::downgrade(&claims(&api.verifier, &token).await);
        }
        assert_eq!(last.strong_count() > 0, kept, "after {requests} requests");
    }
}

/// Clients present more valid tokens than fit. The number of cached tokens stays bounded.
#[tokio::test]
async fn a_flood_of_valid_tokens_does_not_exceed_the_capacity() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::builder(issuer.issuer()).token_cache_capacity(100).build().unwrap();
    let mut tokens: Vec<(String, std::sync::Weak<Value>)> = Vec::new();
    for number in 0..2000 {
        let token = issuer.token().claim("jti", number).build();
        verifier.verify(&token).await.unwrap();
        let verified: AccessToken = verifier.verify(&token).await.unwrap();
        tokens.push((token, Arc::downgrade(&verified.claims().unwrap())));
    }
    // Claims live as long as their token, and here only the cache holds tokens.
    let kept = || tokens.iter().filter(|(_, claims)| claims.strong_count() > 0).count();
    // The table has twice as many slots as the capacity, and 2,000 tokens fill all of them.
    assert_eq!(kept(), 200);
}

/// A token in use stays cached, however many others arrive.
#[tokio::test]
async fn a_flood_does_not_evict_a_token_in_use() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::builder(issuer.issuer()).token_cache_capacity(2).build().unwrap();
    let used = issuer.token().build();
    claims(&verifier, &used).await;
    let first = claims(&verifier, &used).await;
    for number in 0..200 {
        let token = issuer.token().claim("jti", number).build();
        for _ in 0..2 {
            claims(&verifier, &token).await;
        }
        assert!(Arc::ptr_eq(&first, &claims(&verifier, &used).await), "after {number} others");
    }
}

/// The bound of 8 KiB per token of the capacity includes parsed claims and holds for long tokens.
#[tokio::test]
async fn long_tokens_do_not_exceed_the_memory_bound() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::builder(issuer.issuer()).token_cache_capacity(400).build().unwrap();
    let mut kept = Vec::new();
    for number in 0..1000 {
        let token = issuer.token().claim("jti", number).claim("groups", "x".repeat(8000)).build();
        claims(&verifier, &token).await;
        kept.push(Arc::downgrade(&claims(&verifier, &token).await));
    }
    // Each takes 10,900 bytes for the token, 8,160 for its payload and about 10,500 for its claims
    // as a tree.
    let kept = kept.iter().filter(|claims| claims.strong_count() > 0).count();
    // The signatures differ in each run, and with them the sets that the tokens compete for.
    assert!((70..=140).contains(&kept), "{kept} are cached");
}

/// Long tokens that are not used any more free their memory for others.
#[tokio::test]
async fn expired_entries_free_their_memory() {
    let (issuer, clock) = (
        TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap(),
        TestClock::new(),
    );
    issuer.set_clock(&clock);
    let verifier =
        Verifier::builder(issuer.issuer()).clock(&clock).token_cache_capacity(400).build().unwrap();
    for number in 0..1000 {
        let long = issuer.token().claim("jti", number).claim("groups", "x".repeat(8000)).build();
        claims(&verifier, &long).await;
        claims(&verifier, &long).await;
    }
    clock.advance(Duration::from_secs(300));
    let mut hits = 0;
    for number in 0..400 {
        let short = issuer.token().claim("jti", number).build();
        hits += usize::from(is_hit(&verifier, &short).await);
    }
    assert!(hits >= 390, "{hits} of 400");
}
