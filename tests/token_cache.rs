//! Tokens that were verified before: never good where a verification would say no.
//!
//! Whether one came from the cache shows in its claims: they are read once, so the same ones come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{AccessToken, Algorithm, Issuer, Issuers, Verifier};
use serde_json::Value;

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

async fn verdict(verifier: &Verifier, token: &str) -> &'static str {
    verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
}

async fn claims(verifier: &Verifier, token: &str) -> Arc<Value> {
    verifier.verify(token).await.unwrap().claims().unwrap()
}

/// Whether the token is one that was verified before. It is kept from the second time on.
async fn is_hit(verifier: &Verifier, token: &str) -> bool {
    claims(verifier, token).await;
    Arc::ptr_eq(&claims(verifier, token).await, &claims(verifier, token).await)
}

#[tokio::test]
async fn a_token_is_verified_once_and_its_claims_are_read_once() {
    let api = api().await;
    let token = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &token).await);
    let off = Verifier::builder(api.issuer.issuer()).without_token_cache().build().unwrap();
    assert!(!is_hit(&off, &token).await, "off with one call");
    // Five minutes at the most, whatever the token says.
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
async fn the_time_is_looked_at_each_time() {
    let api = api().await;
    let now = api.clock.unix_seconds();
    let short = api.issuer.token().claim("exp", now + 60).build();
    let early = api.issuer.token().claim("iat", now).claim("nbf", now).build();
    for token in [&short, &early] {
        assert!(is_hit(&api.verifier, token).await);
    }
    // With the leeway of 30 seconds, as without a cache.
    for (correction, short_is, early_is) in [
        (89, "ok", "ok"),
        (1, "expired", "ok"),
        (-120, "ok", "ok"),
        (-1, "ok", "not_yet_valid"),
        (31, "ok", "ok"),
    ] {
        api.clock.correct_by(correction);
        assert_eq!(verdict(&api.verifier, &early).await, early_is, "{correction}");
        let short_now = verdict(&api.verifier, &short).await;
        // Its `iat` is the present of the start, so it too is early when the clock is set back.
        assert!(
            short_now == short_is || early_is != "ok" && short_now == "issued_in_the_future",
            "{correction}: {short_now}"
        );
    }
}

#[tokio::test]
async fn a_key_that_leaves_the_set_takes_its_tokens_along() {
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

    // And where nobody came with a new key: with the refresh.
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
        "a hit has the keys refreshed, too"
    );
    assert_eq!(verdict(&api.verifier, &token).await, "unknown_key");
}

/// A set that came anew has a token verified once more, and then it is kept again.
#[tokio::test]
async fn a_key_that_stays_in_a_new_set_keeps_its_tokens() {
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

/// Through an outage and after it, as if there were no cache.
#[tokio::test]
async fn a_hit_is_no_better_than_the_keys() {
    let api = api().await;
    let token = api.issuer.token().claim("exp", 4_000_000_000_u64).build();
    assert_eq!(verdict(&api.verifier, &token).await, "ok");
    api.issuer.set_behavior(Behavior::Status(404));
    for (passes, expected) in [(550, "ok"), (3599, "ok"), (60, "keys_unavailable")] {
        api.clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict(&api.verifier, &token).await, expected, "{passes} s later");
        while api.verifier.health()[0].fetching {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn tokens_that_differ_in_anything_are_different() {
    let api = api().await;
    let token = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &token).await);
    let last = if token.ends_with('A') { "Q" } else { "A" };
    let forged = format!("{}{last}", &token[..token.len() - 1]);
    assert_ne!(verdict(&api.verifier, &forged).await, "ok", "the last byte");
    // The same end of the signature, another payload, or header.
    for (name, other) in [
        ("payload", api.issuer.token().subject("admin").build()),
        ("header", api.issuer.token().header("x", "y").build()),
    ] {
        let at = other.rfind('.').unwrap();
        let spliced = format!("{}{}", &other[..at], &token[token.rfind('.').unwrap()..]);
        assert_eq!(verdict(&api.verifier, &spliced).await, "bad_signature", "{name}");
        assert!(is_hit(&api.verifier, &token).await, "and pushes nobody out");
    }
    for short in ["", "a", "a.b.c"] {
        assert_ne!(verdict(&api.verifier, short).await, "ok");
    }
}

#[tokio::test]
async fn what_one_policy_accepts_another_does_not() {
    let api = api().await;
    let token = api.issuer.token().build();
    assert!(is_hit(&api.verifier, &token).await);
    let other = Issuer::new(api.issuer.iss(), "https://other.example").unwrap();
    let other = Verifier::builder(other).clock(&api.clock).build().unwrap();
    assert_eq!(verdict(&other, &token).await, "wrong_audience");
    let clone = api.verifier.clone();
    assert!(
        Arc::ptr_eq(&claims(&clone, &token).await, &claims(&api.verifier, &token).await),
        "a clone is the same one"
    );
}

#[tokio::test]
async fn failures_are_not_kept() {
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

/// A tenant that was removed, or changed, has no tokens that were verified before; be its keys fetched or fixed.
#[tokio::test]
async fn a_tenant_takes_its_tokens_along() {
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
        assert!(is_hit(&verifier, &token).await, "looked up again, the same; fixed: {fixed}");
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

/// Each has a place of its own.
#[tokio::test]
async fn many_tokens_are_kept_at_a_time() {
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

/// Many clients get a token for one request.
#[tokio::test]
async fn a_token_that_comes_once_is_not_kept() {
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

/// More good tokens than are kept, from clients that get a new one for each request: memory stays what it is.
#[tokio::test]
async fn a_flood_of_good_tokens_is_kept_within_bounds() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::builder(issuer.issuer()).token_cache_capacity(100).build().unwrap();
    let mut tokens: Vec<(String, std::sync::Weak<Value>)> = Vec::new();
    for number in 0..2000 {
        let token = issuer.token().claim("jti", number).build();
        verifier.verify(&token).await.unwrap();
        let verified: AccessToken = verifier.verify(&token).await.unwrap();
        tokens.push((token, Arc::downgrade(&verified.claims().unwrap())));
    }
    // Claims live as long as somebody keeps their token; nobody does here but the cache.
    let kept = || tokens.iter().filter(|(_, claims)| claims.strong_count() > 0).count();
    // Twice as many as there should be room for, at the most; and 2,000 find every place.
    assert_eq!(kept(), 200);
}

/// A token that is in use has its place, however many others come.
#[tokio::test]
async fn a_flood_does_not_push_out_what_is_used() {
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

/// However long they are: 8 KiB for each that there is room for, claims that were read included.
#[tokio::test]
async fn long_tokens_are_kept_within_bounds() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::builder(issuer.issuer()).token_cache_capacity(400).build().unwrap();
    let mut kept = Vec::new();
    for number in 0..1000 {
        let token = issuer.token().claim("jti", number).claim("groups", "x".repeat(8000)).build();
        claims(&verifier, &token).await;
        kept.push(Arc::downgrade(&claims(&verifier, &token).await));
    }
    // A token of 10,900 bytes with its payload of 8,160, and its claims as a tree of about 10,500.
    let kept = kept.iter().filter(|claims| claims.strong_count() > 0).count();
    assert!((95..=140).contains(&kept), "{kept} are kept");
}

/// Nobody uses the long ones any more: others get their room.
#[tokio::test]
async fn room_comes_back() {
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
