//! Slow lookups and floods of unknown names: no request waits longer than five seconds.
//!
//! The wait for a permit is part of the five seconds. The newest request gets the next permit.

use std::convert::Infallible;
use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, Issuer, Issuers, Verifier};
use tokio::task::JoinSet;

use crate::verdict::verdict;

/// Lets every task run until it has to wait.
async fn everything_runs() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// Verifies one token for each of `names` untrusted issuers, and returns once all of them wait.
/// Each task returns the verdict.
async fn flood_of_unknown_names(
    verifier: &Verifier,
    signer: &TestIssuer,
    names: usize,
) -> JoinSet<&'static str> {
    let mut flood = JoinSet::new();
    for number in 0..names {
        let (verifier, token) = (
            verifier.clone(),
            signer.token().issued_by(&format!("https://{number}.example/")).build(),
        );
        flood.spawn(async move { verdict(&verifier, &token).await });
    }
    everything_runs().await;
    flood
}

#[tokio::test(start_paused = true)]
async fn a_hanging_lookup_fails_after_five_seconds() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert_eq!(start.elapsed().as_secs(), 5);
}

/// With a hanging database, each request waits five seconds at most, however many requests there
/// are.
#[tokio::test(start_paused = true)]
async fn a_hanging_lookup_delays_each_request_by_five_seconds_at_most() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let flood = flood_of_unknown_names(&verifier, &acme, 2000).await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert!(start.elapsed() <= Duration::from_millis(5100), "{:?}", start.elapsed());
    assert!(flood.join_all().await.iter().all(|code| *code == "lookup_failed"));
}

/// Requests that are dropped one after the other do not add up to a longer wait for the next one.
#[tokio::test(start_paused = true)]
async fn dropped_requests_do_not_extend_the_wait_for_a_hanging_lookup() {
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let mut impatient = JoinSet::new();
    for number in 1..=20 {
        let (verifier, token) = (verifier.clone(), acme.token().claim("jti", number).build());
        impatient.spawn(async move {
            drop(
                tokio::time::timeout(Duration::from_millis(200 * number), verifier.verify(&token))
                    .await,
            );
        });
    }
    everything_runs().await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert!(start.elapsed() <= Duration::from_millis(5100), "{:?}", start.elapsed());
    impatient.join_all().await;
}

/// A valid token does not have to wait until a flood of unknown names is over.
#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_names_does_not_delay_a_tenants_first_token() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let jwks = acme.jwks();
    let issuers = Issuers::lookup_async(move |iss: String| {
        let jwks = jwks.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let is_tenant = iss == "https://acme.example/";
            Ok::<_, Infallible>(is_tenant.then(|| Issuer::new(iss, AUDIENCE).unwrap().jwks(jwks)))
        }
    });
    let verifier = Verifier::new(issuers).unwrap();
    let flood = flood_of_unknown_names(&verifier, &acme, 6400).await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    let codes = flood.join_all().await;
    assert!(
        start.elapsed() <= Duration::from_secs(6),
        "no request waits longer than five seconds: {:?}",
        start.elapsed()
    );
    assert!(codes.iter().all(|code| ["unknown_issuer", "lookup_failed"].contains(code)));
}

/// A request that joins an older one for the same name has its own position in the queue.
#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_the_permit_of_an_older_one() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let jwks = acme.jwks();
    let issuers = Issuers::lookup_async(move |iss: String| {
        let jwks = jwks.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let is_tenant = iss == "https://acme.example/";
            Ok::<_, Infallible>(is_tenant.then(|| Issuer::new(iss, AUDIENCE).unwrap().jwks(jwks)))
        }
    });
    let verifier = Verifier::new(issuers).unwrap();
    let mut flood = JoinSet::new();
    let mut junk = |from: usize, to: usize| {
        for number in from..to {
            let token = acme.token().issued_by(&format!("https://{number}.example/")).build();
            let verifier = verifier.clone();
            flood.spawn(async move { drop(verifier.verify(&token).await) });
        }
    };
    junk(0, 64);
    let (early, token) = (verifier.clone(), acme.token().build());
    let early = tokio::spawn(async move { verdict(&early, &token).await });
    everything_runs().await;
    junk(64, 6400);
    everything_runs().await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(
        early.await.unwrap(),
        "ok",
        "the early request also has the answer within its time limit"
    );
    assert!(start.elapsed() <= Duration::from_secs(6), "{:?}", start.elapsed());
}
