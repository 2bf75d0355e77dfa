//! `Issuers::lookup`: which issuers it is asked about, how often, and which answers are trusted.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, Error, Issuer, Issuers, Jwks, Verifier};
use tokio::task::JoinSet;

use crate::poll_once::poll_once;
use crate::support::start;
use crate::verdict::verdict;

#[tokio::test]
async fn a_lookup_decides_which_issuers_are_trusted_and_is_called_once_for_each() {
    let (acme, globex, untrusted) = (start().await, start().await, start().await);
    let asked = Arc::new(AtomicUsize::new(0));
    let known = [acme.iss().to_owned(), globex.iss().to_owned()];
    let find = {
        let asked = Arc::clone(&asked);
        move |iss: &str| {
            asked.fetch_add(1, Ordering::SeqCst);
            known.iter().any(|known| known == iss).then(|| Issuer::new(iss, AUDIENCE).unwrap())
        }
    };
    let later = find.clone();
    let verifiers = [
        Verifier::new(Issuers::lookup(find).danger_allow_private_addresses()).unwrap(),
        Verifier::new(
            Issuers::lookup_async(move |iss: String| {
                let found = later(&iss);
                async move { Ok::<_, Infallible>(found) }
            })
            .danger_allow_private_addresses(),
        )
        .unwrap(),
    ];
    for verifier in verifiers {
        asked.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
            assert_eq!(verdict(&verifier, &globex.token().build()).await, "ok");
            assert_eq!(
                verdict(&verifier, &globex.token().signed_by(&acme).build()).await,
                "bad_signature"
            );
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(verdict(&verifier, &untrusted.token().build()).await, "unknown_issuer");
    }
    assert_eq!(
        (acme.jwks_fetches(), untrusted.metadata_fetches()),
        (2, 0),
        "one key set for each verifier"
    );
}

#[tokio::test]
async fn a_failed_lookup_does_not_make_the_token_invalid() {
    let acme = start().await;
    let broken = Issuers::lookup_async(|_| async {
        Err::<Option<Issuer>, _>("the database is unavailable")
    });
    match Verifier::new(broken).unwrap().verify(&acme.token().build()).await {
        Err(Error::LookupFailed { reason, .. }) => {
            assert_eq!(reason.to_string(), "the database is unavailable");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lookup_that_does_not_wait_may_fail_as_well() {
    let (acme, is_broken) = (start().await, Arc::new(AtomicBool::new(true)));
    let (issuer, broken) = (acme.issuer(), Arc::clone(&is_broken));
    let issuers = Issuers::lookup(move |iss| {
        if broken.load(Ordering::SeqCst) {
            return Err("the map is locked");
        }
        Ok((iss == issuer.iss()).then(|| issuer.clone()))
    });
    let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
    match verifier.verify(&acme.token().build()).await {
        Err(Error::LookupFailed { reason, .. }) => {
            assert_eq!(reason.to_string(), "the map is locked");
        }
        other => panic!("{other:?}"),
    }
    is_broken.store(false, Ordering::SeqCst);
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    let other = acme.token().issued_by("https://other.example/").build();
    assert_eq!(verdict(&verifier, &other).await, "unknown_issuer");
}

/// Unusable answers are not trusted, nor is an `iss` that an attacker chose and the lookup accepts
/// by pattern.
#[tokio::test]
async fn unusable_answers_of_the_lookup_are_not_trusted() {
    let acme = start().await;
    let (iss, keys): (_, Jwks) = (acme.iss().to_owned(), acme.jwks());
    let wrong = Issuers::lookup(move |_| {
        Issuer::new("https://other.example/", AUDIENCE).ok().map(|issuer| issuer.jwks(keys.clone()))
    });
    let unusable = Issuers::lookup(move |_| {
        let issuer = Issuer::new(iss.clone(), AUDIENCE).ok()?;
        Some(issuer.jwks_uri("https://keys.example/").ok()?.require_same_origin_keys())
    });
    for (name, issuers) in [("another issuer", wrong), ("an invalid issuer", unusable)] {
        assert_eq!(
            verdict(&Verifier::new(issuers).unwrap(), &acme.token().build()).await,
            "unknown_issuer",
            "{name}"
        );
    }
    let anybody = Verifier::new(Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok())).unwrap();
    for iss in
        ["not a url", "http://a.example/", "ftp://a.example/", "https://", "javascript:1", "a\nb"]
    {
        assert_eq!(
            verdict(&anybody, &acme.token().issued_by(iss).build()).await,
            "unknown_issuer",
            "{iss}"
        );
    }
}

/// Names that no issuer can have are not looked up; some databases reject NUL.
#[tokio::test]
async fn implausible_names_are_not_looked_up() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    });
    let verifier = Verifier::new(issuers).unwrap();
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    for iss in [
        "",
        " https://a.example/",
        "https://a.example/ ",
        "https://a\u{0}.example/",
        "a\u{85}b",
        "a\nb",
    ] {
        assert_eq!(
            verdict(&verifier, &acme.token().issued_by(iss).build()).await,
            "unknown_issuer",
            "{iss:?}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn concurrent_requests_for_the_same_issuer_share_one_lookup() {
    for (answer, expected) in
        [("trusted", "ok"), ("untrusted", "unknown_issuer"), ("broken", "lookup_failed")]
    {
        let acme = start().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let issuers = Issuers::lookup_async(move |iss: String| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::task::yield_now().await;
                match answer {
                    "trusted" => Ok(Issuer::new(iss, AUDIENCE).ok()),
                    "untrusted" => Ok(None),
                    _ => Err("the database is unavailable"),
                }
            }
        });
        let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
        let token = acme.token().build();
        // The first request is dropped during its lookup; another one continues.
        {
            let mut dropped = pin!(verifier.verify(&token));
            assert!(poll_once(dropped.as_mut()).is_pending());
        }
        let mut requests = JoinSet::new();
        for _ in 0..50 {
            let (verifier, token) = (verifier.clone(), token.clone());
            requests.spawn(async move { verdict(&verifier, &token).await });
        }
        assert!(requests.join_all().await.iter().all(|verdict| *verdict == expected), "{answer}");
        assert_eq!(
            asked.load(Ordering::SeqCst),
            2,
            "{answer}: once for the dropped request, once for all others"
        );
    }
}

/// Sync lookups run on the threads of the requests, possibly on several at once. They still share
/// one key set.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_sync_lookups_share_one_key_set() {
    let acme = start().await;
    let together = Arc::new(std::sync::Barrier::new(4));
    let issuers = Issuers::lookup(move |iss| {
        together.wait();
        Issuer::new(iss, AUDIENCE).ok()
    });
    let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
    let mut requests = JoinSet::new();
    for _ in 0..4 {
        let (verifier, token) = (verifier.clone(), acme.token().build());
        requests.spawn(async move { verdict(&verifier, &token).await });
    }
    assert!(requests.join_all().await.iter().all(|verdict| *verdict == "ok"));
    assert_eq!((acme.jwks_fetches(), verifier.health().len()), (1, 1));
}

/// A request may be dropped whenever it waits: for the lookup, for the keys, or for a refetch. No
/// result is lost and nothing is fetched twice.
#[tokio::test]
async fn requests_may_be_dropped_at_every_await_point() {
    let mut points = 0;
    for polls in 0.. {
        let (acme, clock) = (start().await, TestClock::new());
        acme.set_clock(&clock);
        let issuers = Issuers::lookup_async(|iss: String| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Issuer::new(iss, AUDIENCE).ok())
        });
        let issuers = issuers.danger_allow_private_addresses();
        let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
        let poll_and_drop = async |token: String| {
            let mut request = pin!(verifier.verify(&token));
            for _ in 0..polls {
                if poll_once(request.as_mut()).is_ready() {
                    return true;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            false
        };
        let cold = poll_and_drop(acme.token().build()).await;
        assert_eq!(
            verdict(&verifier, &acme.token().build()).await,
            "ok",
            "dropped after {polls} polls"
        );
        assert_eq!(acme.jwks_fetches(), 1, "dropped after {polls} polls");

        acme.rotate().unwrap();
        clock.advance(Duration::from_secs(10));
        let warm = poll_and_drop(acme.token().build()).await;
        assert_eq!(
            verdict(&verifier, &acme.token().build()).await,
            "ok",
            "dropped after {polls} polls, warm"
        );
        assert_eq!(acme.jwks_fetches(), 2, "dropped after {polls} polls, warm");
        points += 1;
        if cold && warm {
            break;
        }
    }
    assert!(points > 3, "expected to wait for lookup and fetch, found {points} await points");
}
