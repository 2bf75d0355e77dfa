//! `forget`: trust, keys and cached tokens of an issuer are dropped at once.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Issuer, Issuers, Verifier};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::poll_once::poll_once;
use crate::support::start;
use crate::verdict::verdict;

/// For a tenant that leaves or whose keys were stolen: trust, keys and cached tokens are dropped
/// immediately.
#[tokio::test]
async fn forget_drops_trust_keys_and_tokens_of_a_resolved_issuer() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let is_tenant = Arc::new(Mutex::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let find = {
        let (is_tenant, asked, iss) =
            (Arc::clone(&is_tenant), Arc::clone(&asked), acme.iss().to_owned());
        move |name: &str| {
            asked.fetch_add(1, Ordering::SeqCst);
            let issuer = || Issuer::new(&iss, AUDIENCE).unwrap().alias("acme").unwrap();
            (*is_tenant.lock().unwrap() && [&*iss, "acme"].contains(&name)).then(issuer)
        }
    };
    let issuers = Issuers::lookup(find).danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    let (token, aliased) = (acme.token().build(), acme.token().issued_by("acme").build());
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &token).await, "ok");
        assert_eq!(verdict(&verifier, &aliased).await, "ok");
    }
    assert_eq!((acme.jwks_fetches(), asked.load(Ordering::SeqCst)), (1, 2));

    *is_tenant.lock().unwrap() = false;
    assert_eq!(verdict(&verifier, &token).await, "ok", "trusted for ten minutes without `forget`");
    assert!(verifier.forget("acme"), "accepts any name of the issuer");
    for token in [&token, &aliased] {
        assert_eq!(verdict(&verifier, token).await, "unknown_issuer");
    }
    assert!(verifier.health().is_empty());

    // The tenant returns: `forget` also clears the negative cache.
    *is_tenant.lock().unwrap() = true;
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer", "cached for 30 s");
    assert!(verifier.forget(acme.iss()));
    assert_eq!(verdict(&verifier, &token).await, "ok");
    assert_eq!(acme.jwks_fetches(), 2, "its keys were also dropped");
    assert!(!verifier.forget("https://unheard-of.example/"));
}

/// A configured issuer loses only its keys. They are fetched again, without a withdrawn key.
#[tokio::test]
async fn forget_drops_the_keys_of_a_configured_issuer() {
    let acme = start().await;
    let verifier = Verifier::new(acme.issuer()).unwrap();
    let old = acme.token().build();
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &old).await, "ok");
    }
    acme.rotate().unwrap();
    acme.withdraw_old_keys();
    assert_eq!(verdict(&verifier, &old).await, "ok");
    assert!(verifier.clone().forget(acme.iss()));
    assert_eq!(verdict(&verifier, &old).await, "unknown_key");
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
}

/// Also by a name that no token has used but that the lookup's answer contains.
#[tokio::test]
async fn forget_accepts_any_name_of_a_resolved_issuer() {
    let acme = start().await;
    let is_tenant = Arc::new(Mutex::new(true));
    let find = {
        let (is_tenant, iss) = (Arc::clone(&is_tenant), acme.iss().to_owned());
        move |name: &str| {
            let issuer = || Issuer::new(&iss, AUDIENCE).unwrap().alias("acme").unwrap();
            (*is_tenant.lock().unwrap() && [&*iss, "acme"].contains(&name)).then(issuer)
        }
    };
    let verifier = Verifier::new(Issuers::lookup(find).danger_allow_private_addresses()).unwrap();
    let token = acme.token().issued_by("acme").build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    *is_tenant.lock().unwrap() = false;
    assert!(verifier.forget(acme.iss()), "tokens have used only its alias");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
}

/// The answer of a lookup that was called before `forget` is discarded, even if it arrives later.
#[tokio::test]
async fn answers_from_before_forget_are_discarded() {
    let acme = start().await;
    let (is_tenant, gate) = (Arc::new(Mutex::new(true)), Arc::new(Semaphore::new(0)));
    let issuers = {
        let (is_tenant, gate) = (Arc::clone(&is_tenant), Arc::clone(&gate));
        Issuers::lookup_async(move |iss: String| {
            let found = is_tenant.lock().unwrap().then(|| Issuer::new(iss, AUDIENCE).unwrap());
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(found)
            }
        })
    };
    let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
    let token = acme.token().build();
    let mut first = pin!(verifier.verify(&token));
    assert!(poll_once(first.as_mut()).is_pending());
    *is_tenant.lock().unwrap() = false;
    verifier.forget(acme.iss());
    gate.add_permits(10);
    assert_eq!(first.await.unwrap_err().code(), "unknown_issuer");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
}

/// Requests that wait for keys while `forget` drops them wait for the next fetch.
#[tokio::test]
async fn forget_during_a_fetch_fails_no_request() {
    let acme = start().await;
    acme.set_delay(Duration::from_millis(100));
    let verifier = Verifier::new(acme.issuer()).unwrap();
    let mut requests = JoinSet::new();
    for number in 0..20 {
        let (verifier, token) = (verifier.clone(), acme.token().claim("jti", number).build());
        requests.spawn(async move { verdict(&verifier, &token).await });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(verifier.forget(acme.iss()));
    assert!(requests.join_all().await.iter().all(|verdict| *verdict == "ok"));
}

/// Each of the first fetches is outdated before it ends.
#[tokio::test]
async fn a_request_waits_for_at_most_three_fetches() {
    const ISS: &str = "https://issuer.example/";
    for (outdated, expected) in [(2, "ok"), (3, "keys_unavailable")] {
        let keys = TestIssuer::offline(ISS).unwrap();
        let (jwks, fetches) = (keys.jwks_json().to_string(), Arc::new(AtomicUsize::new(0)));
        let verifier = Arc::new(OnceLock::<Verifier>::new());
        let forgetting = Arc::clone(&verifier);
        let router = Router::new().fallback(async move || {
            if fetches.fetch_add(1, Ordering::SeqCst) < outdated {
                assert!(forgetting.get().unwrap().forget(ISS));
            }
            jwks.clone()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let issuer = Issuer::new(ISS, AUDIENCE).and_then(|issuer| issuer.jwks_uri(&uri)).unwrap();
        // So long that no late fetch is repeated.
        let issuer = issuer.keys_fetch_timeout(Duration::from_secs(60)).unwrap();
        let verifier = verifier.get_or_init(|| Verifier::new(issuer).unwrap());
        assert_eq!(verdict(verifier, &keys.token().build()).await, expected, "{outdated}");
    }
}
