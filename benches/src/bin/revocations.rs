//! What revocations cost a cached token, how much memory an entry takes, and how long a revocation
//! takes to reach another replica.
//!
//! `benches/run revocations`, with Redis for the last part.

use std::time::{Duration, Instant};

use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, RedisStore, Revocations, Verifier};
use portcullis_benches::contenders::{self, Failure};
use portcullis_benches::limit::{Limit, tokens};
use portcullis_benches::rounds::{Way, median, sorted};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 61;
const PER_ROUND: usize = 200;
const SIZES: [usize; 4] = [0, 1, 1_000, 1_000_000];
const ISS: &str = "https://another-issuer.example/";

fn costs(runtime: &Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
    let distinct = tokens(&issuer, 1);
    let limit = Limit::new(&issuer, Algorithm::RS256, &distinct)?;
    let mut verifiers = vec![("without revocations".to_owned(), Verifier::new(issuer.issuer())?)];
    for size in SIZES {
        let revocations = Revocations::in_memory();
        let region = Region::new(ALLOCATOR);
        runtime.block_on(async {
            for number in 0..size {
                revocations.subject(ISS, &number.to_string()).await?;
            }
            Ok::<_, Failure>(())
        })?;
        let change = region.change();
        if size > 1 {
            let bytes = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
            println!("{size} entries: {:.1} bytes each", bytes / size as f64);
        }
        let verifier = Verifier::builder(issuer.issuer()).revocations(&revocations).build()?;
        verifiers.push((format!("{size} entries"), verifier));
    }
    let mut unprotected = Way::new("", contenders::unprotected(), &distinct);
    let mut ways = Vec::new();
    for (name, verifier) in &verifiers {
        let mut way = Way::new(name, contenders::portcullis(verifier), &distinct);
        way.warm_up(runtime)?;
        ways.push(way);
    }
    let mut limits = Vec::new();
    for round in 0..ROUNDS {
        limits.push(limit.time(round * PER_ROUND, PER_ROUND)?.as_secs_f64() / PER_ROUND as f64);
        unprotected.round(PER_ROUND, runtime)?;
        for way in &mut ways {
            way.round(PER_ROUND, runtime)?;
        }
    }
    println!("\nA request with a cached token, whole, × the one without revocations");
    for way in &ways {
        let ratios: Vec<_> =
            way.times.iter().zip(&ways[0].times).map(|(own, first)| own / first).collect();
        println!("  {:<24} {:.3}", way.name, median(&ratios));
    }
    Ok(())
}

/// From the call at one replica to the rejection at another.
fn propagation(runtime: &Runtime, url: &str) -> Result<(), Failure> {
    let issuer = TestIssuer::start_with(Algorithm::EdDSA)?;
    let mut times = Vec::new();
    runtime.block_on(async {
        let connection = redis::Client::open(url)?.get_connection_manager().await?;
        let store = RedisStore::new(connection, "bench-revocations")?;
        let (one, other) = (Revocations::shared(store.clone()), Revocations::shared(store));
        let verifier = Verifier::builder(issuer.issuer()).revocations(&other).build()?;
        verifier.warm_up().await?;
        for number in 0..30 {
            let subject = number.to_string();
            let token = issuer.token().subject(&subject).build();
            verifier.verify(&token).await?;
            // At any point of the other replica's second.
            tokio::time::sleep(Duration::from_millis(number * 331 % 1000)).await;
            let began = Instant::now();
            one.subject(issuer.iss(), &subject).await?;
            while verifier.verify(&token).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            times.push(began.elapsed().as_secs_f64());
        }
        Ok::<_, Failure>(())
    })?;
    let most = sorted(times.clone()).last().copied().unwrap_or_default();
    println!("\nTo another replica: median {:.2} s, longest of 30 {most:.2} s", median(&times));
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    costs(&runtime)?;
    match std::env::var("REDIS_URL") {
        Ok(url) => propagation(&runtime, &url),
        Err(_) => Err("REDIS_URL: expected the address of a Redis, found none".into()),
    }
}
