//! How long an answer of the lookup applies, and what happens when it is looked up again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestClock};
use portcullis::{Issuer, Issuers, Verifier};

use crate::eventually::eventually;
use crate::support::start;
use crate::verdict::verdict;

#[tokio::test]
async fn removed_and_changed_tenants_are_noticed_after_a_refresh() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let long_lived =
        |issuer: Issuer| Some(issuer.keys_max_age(Duration::from_secs(24 * 3600)).unwrap());
    let tenant = Arc::new(Mutex::new(long_lived(acme.issuer())));
    let current = Arc::clone(&tenant);
    let issuers =
        Issuers::lookup(move |_| current.lock().unwrap().clone()).danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    let verdict = async || verdict(&verifier, &acme.token().build()).await;
    assert_eq!(verdict().await, "ok");
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict().await, "ok");
    assert_eq!(
        acme.metadata_fetches(),
        1,
        "looked up again without a change, so its keys stay cached"
    );

    let with_audience = |audience: &str| long_lived(Issuer::new(acme.iss(), audience).unwrap());
    struct Case {
        change: &'static str,
        tenant_now: Option<Issuer>,
        expected: &'static str,
    }
    for Case { change, tenant_now, expected } in [
        Case {
            change: "another audience",
            tenant_now: with_audience("https://other.example"),
            expected: "wrong_audience",
        },
        Case { change: "the first audience", tenant_now: with_audience(AUDIENCE), expected: "ok" },
        Case { change: "removed", tenant_now: None, expected: "unknown_issuer" },
        // An untrusted issuer is cached for 30 seconds only.
        Case { change: "signed up again", tenant_now: with_audience(AUDIENCE), expected: "ok" },
    ] {
        let before = verdict().await;
        *tenant.lock().unwrap() = tenant_now;
        assert_eq!(verdict().await, before, "{change}: not yet");
        // Constant requests, also forged ones, do not extend the lifetime of the answer.
        for _ in 0..10 {
            clock.advance(Duration::from_secs(60));
            let junk = acme.token().header("kid", "junk").expired().build();
            assert!(verifier.verify(&junk).await.is_err());
        }
        assert_eq!(verdict().await, expected, "{change}");
    }
}

#[tokio::test]
async fn untrusted_issuers_are_cached_for_30_seconds() {
    let (untrusted, clock) = (start().await, TestClock::new());
    untrusted.set_clock(&clock);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    });
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    for (passes, times) in [(0, 1), (29, 1), (1, 2), (29, 2), (1, 3)] {
        clock.advance(Duration::from_secs(passes));
        for _ in 0..10 {
            assert_eq!(verdict(&verifier, &untrusted.token().build()).await, "unknown_issuer");
        }
        assert_eq!(asked.load(Ordering::SeqCst), times, "{passes} s later");
    }
    // The cache is bounded, so a very long `iss` is not looked up.
    let long =
        untrusted.token().issued_by(&format!("https://{}.example/", "x".repeat(2048))).build();
    assert_eq!(verdict(&verifier, &long).await, "unknown_issuer");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn the_lifetime_of_an_answer_is_configurable() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |iss| {
        // Trusted the first time only.
        (count.fetch_add(1, Ordering::SeqCst) == 0).then(|| Issuer::new(iss, AUDIENCE).unwrap())
    });
    let issuers = issuers.refresh_after(Duration::from_secs(30)).danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    for (passes, expected) in [(0, "ok"), (29, "ok"), (1, "unknown_issuer")] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict(&verifier, &acme.token().build()).await, expected, "{passes} s later");
    }
}

/// An unavailable database says nothing about the tenants: those that were trusted stay trusted for
/// a bounded time.
#[tokio::test]
async fn tenants_stay_trusted_for_one_hour_while_the_lookup_fails() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let (asked, away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let issuers = {
        let (iss, asked, away) = (acme.iss().to_owned(), Arc::clone(&asked), Arc::clone(&away));
        Issuers::lookup_async(move |asked_for| {
            asked.fetch_add(1, Ordering::SeqCst);
            let answer = match away.load(Ordering::SeqCst) {
                0 => Ok((asked_for == iss).then(|| Issuer::new(asked_for, AUDIENCE).unwrap())),
                1 => Err("the database is unavailable"),
                _ => Ok(None),
            };
            async move { answer }
        })
    };
    let verifier =
        Verifier::builder(issuers.danger_allow_private_addresses()).clock(&clock).build().unwrap();
    let verdict = async || verdict(&verifier, &acme.token().build()).await;
    assert_eq!(verdict().await, "ok");
    away.store(1, Ordering::SeqCst);
    struct Case {
        passes: u64,
        expected: &'static str,
        times: usize,
    }
    for Case { passes, expected, times } in [
        Case { passes: 479, expected: "ok", times: 1 },
        // Called in the background before the answer expires, then every ten seconds instead of for
        // each request.
        Case { passes: 1, expected: "ok", times: 2 },
        Case { passes: 9, expected: "ok", times: 2 },
        Case { passes: 1, expected: "ok", times: 3 },
        // After an idle period, the request waits for the lookup.
        Case { passes: 3709, expected: "ok", times: 4 },
        Case { passes: 1, expected: "lookup_failed", times: 5 },
        Case { passes: 0, expected: "lookup_failed", times: 6 },
    ] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict().await, expected, "{passes} s later");
        eventually("the lookup is called", || asked.load(Ordering::SeqCst) == times).await;
        assert_eq!(verdict().await, expected, "{passes} s later, again");
        let again = usize::from(expected != "ok");
        assert_eq!(asked.swap(times, Ordering::SeqCst), times + again, "{passes} s later");
    }
    away.store(0, Ordering::SeqCst);
    assert_eq!(verdict().await, "ok");
    away.store(2, Ordering::SeqCst);
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict().await, "unknown_issuer", "a successful lookup applies at once");
    away.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(30));
    assert_eq!(
        verdict().await,
        "lookup_failed",
        "an outage does not make a removed tenant trusted again"
    );
}

/// The tenant is removed while its first token waits for keys.
#[tokio::test]
async fn a_tenant_removed_during_a_key_fetch_stays_removed() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    acme.set_delay(Duration::from_millis(50));
    let state = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&state);
    let issuers = Issuers::lookup_async(move |iss: String| {
        let answer = match now.load(Ordering::SeqCst) {
            0 => Ok(Some(Issuer::new(iss, AUDIENCE).unwrap())),
            1 => Ok(None),
            _ => Err("the database is unavailable"),
        };
        async move { answer }
    });
    let verifier =
        Verifier::builder(issuers.danger_allow_private_addresses()).clock(&clock).build().unwrap();
    let token = acme.token().build();
    let first = tokio::spawn({
        let (verifier, token) = (verifier.clone(), token.clone());
        async move { verifier.verify(&token).await.is_ok() }
    });
    eventually("its keys are fetched", || acme.metadata_fetches() == 1).await;
    state.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
    assert!(first.await.unwrap(), "it was trusted when the request arrived");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
    state.store(2, Ordering::SeqCst);
    clock.advance(Duration::from_secs(30));
    assert_eq!(verdict(&verifier, &token).await, "lookup_failed");
}

/// A failed lookup is repeated after ten seconds, and may take five.
#[tokio::test]
async fn no_request_waits_while_a_failed_lookup_is_repeated() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let is_away = Arc::new(AtomicBool::new(false));
    let away = Arc::clone(&is_away);
    let issuers = Issuers::lookup_async(move |iss: String| {
        let is_away = away.load(Ordering::SeqCst);
        async move {
            if is_away {
                return Err("the database is unavailable");
            }
            Ok(Some(Issuer::new(iss, AUDIENCE).unwrap()))
        }
    });
    let issuers = issuers.danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    let token = acme.token().build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    is_away.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(600));
    assert!(verifier.try_verify(&token).is_none(), "the answer has ended");
    assert_eq!(verdict(&verifier, &token).await, "ok");
    clock.advance(Duration::from_secs(15) - Duration::from_nanos(1));
    assert!(verifier.try_verify(&token).unwrap().is_ok(), "until the next answer");
}
