//! The number of concurrent fetches is limited per process, so this file has a single test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Issuers, Verifier};
use tokio::sync::Semaphore;

/// Sixty tenants on three servers are used at once: 32 fetches run in total, and at most 16 for one
/// server.
#[tokio::test]
async fn at_most_32_fetches_run_at_once_and_16_for_one_server() {
    let keys = TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let mut issuers = Vec::new();
    let mut servers = Vec::new();
    for server in 0..3 {
        let (jwks, held, asked) =
            (keys.jwks_json().to_string(), Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
        servers.push(Arc::clone(&asked));
        let router = Router::new().fallback(async move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let _passed = held.acquire().await.unwrap();
            jwks.clone()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        for tenant in 0..20 {
            let iss = format!("https://{server}-{tenant}.example/");
            let issuer =
                Issuer::new(iss, AUDIENCE).and_then(|issuer| issuer.jwks_uri(&uri)).unwrap();
            issuers.push(issuer.keys_fetch_timeout(std::time::Duration::from_secs(60)).unwrap());
        }
    }
    let names: Vec<_> = issuers.iter().map(|issuer| issuer.iss().to_owned()).collect();
    let verifier = Verifier::new(issuers).unwrap();
    let mut requests = tokio::task::JoinSet::new();
    for iss in names {
        let (verifier, token) = (verifier.clone(), keys.token().issued_by(&iss).build());
        requests.spawn(async move { verifier.verify(&token).await.is_ok() });
    }
    let asked = || servers.iter().map(|asked| asked.load(Ordering::SeqCst)).collect::<Vec<_>>();
    while asked().iter().sum::<usize>() < 32 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // Gives further fetches the time to start.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked().iter().sum::<usize>(), 32);
    assert!(asked().iter().all(|asked| *asked <= 16), "{:?}", asked());
    gate.add_permits(1);
    assert!(
        requests.join_all().await.into_iter().all(|verified| verified),
        "every request gets a permit"
    );
    assert_eq!(asked(), [20, 20, 20]);
    probationary_and_failing_issuers_do_not_starve_established_ones().await;
}

/// Forged tokens name tenants with a hanging server each.
async fn probationary_and_failing_issuers_do_not_starve_established_ones() {
    let (acme, clock) = (TestIssuer::start_with(Algorithm::EdDSA).unwrap(), TestClock::new());
    acme.set_clock(&clock);
    let mut hanging = Vec::new();
    for _ in 0..40 {
        let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
        issuer.set_behavior(Behavior::Hang);
        hanging.push(issuer);
    }
    let issuers = Issuers::lookup(|iss| {
        Issuer::new(iss, AUDIENCE)
            .and_then(|issuer| issuer.keys_fetch_timeout(std::time::Duration::from_secs(60)))
            .ok()
    });
    let verifier =
        Verifier::builder(issuers.danger_allow_private_addresses()).clock(&clock).build().unwrap();
    assert!(verifier.verify(&acme.token().build()).await.is_ok());
    let mut requests = tokio::task::JoinSet::new();
    for issuer in &hanging {
        let (verifier, token) = (verifier.clone(), issuer.token().build());
        requests.spawn(async move { verifier.verify(&token).await.is_ok() });
    }
    let asked = || hanging.iter().map(TestIssuer::metadata_fetches).sum::<usize>();
    while asked() < 16 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // A new key of a tenant in use is fetched immediately.
    clock.advance(std::time::Duration::from_secs(10));
    acme.rotate().unwrap();
    assert!(verifier.verify(&acme.token().build()).await.is_ok());
    assert_eq!(asked(), 16);
}
