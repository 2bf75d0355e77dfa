//! What revocations cost a cached token, how much memory an entry takes, what a burst of entries
//! costs the requests beside it, and how long a revocation takes to reach another replica.
//!
//! `benches/run revocations`, with Redis for the last part.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::testing::TestIssuer;
use portcullis::{
    Algorithm, LogEntries, LogPosition, RedisStore, Revocations, SharedStore, StoreError,
    StoreFuture, Verifier,
};
use portcullis_benches::contenders::{self, Failure};
use portcullis_benches::limit::{Limit, tokens};
use portcullis_benches::rounds::{Way, median, sorted};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 61;
const PER_ROUND: usize = 200;
const SIZES: [usize; 4] = [0, 1, 1_000, 1_000_000];
const BURST: usize = 100_000;
const BURST_ROUNDS: usize = 15;
const REQUESTS: u32 = 12_000;
const PACE: Duration = Duration::from_micros(250);
const KNOWN: usize = 500;
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

/// A log in memory, of which a replica sees as much as is `shown`.
#[derive(Default)]
struct Log {
    entries: Mutex<Vec<Vec<u8>>>,
    shown: AtomicUsize,
    read: AtomicUsize,
}

impl SharedStore for Log {
    fn insert_if_absent<'a>(&'a self, _: &'a str, _: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async { Err(StoreError::new("not used")) })
    }

    fn append<'a>(&'a self, entry: &'a [u8], _: Duration) -> StoreFuture<'a, ()> {
        self.lock().push(entry.to_vec());
        Box::pin(async { Ok(()) })
    }

    fn read<'a>(&'a self, position: Option<&'a LogPosition>) -> StoreFuture<'a, LogEntries> {
        let from = position.and_then(|position| position.0.parse().ok()).unwrap_or(0);
        let to = (from + 1000).min(self.shown.load(Ordering::Relaxed));
        let entries = self.lock()[from..to].to_vec();
        self.read.store(to, Ordering::Relaxed);
        let position = Some(LogPosition(to.to_string()));
        Box::pin(async { Ok(LogEntries { entries, position }) })
    }
}

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The 99th percentile of the time from when a request is due until it is verified, in a task for
/// each request.
async fn p99(verifier: &Verifier, known: &Arc<Vec<String>>) -> Result<f64, Failure> {
    let mut requests = JoinSet::new();
    let mut times = Vec::new();
    let start = Instant::now();
    for number in 0..REQUESTS {
        let due = start + PACE * number;
        // Without a timer, which is no more exact than a millisecond.
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        let (verifier, known) = (verifier.clone(), Arc::clone(known));
        requests.spawn(async move {
            let verified = verifier.verify(&known[number as usize % KNOWN]).await;
            verified.map(|_| due.elapsed().as_secs_f64())
        });
        while let Some(time) = requests.try_join_next() {
            times.push(time??);
        }
    }
    for time in requests.join_all().await {
        times.push(time?);
    }
    Ok(sorted(times)[REQUESTS as usize * 99 / 100])
}

/// All entries are there at once, which is the fastest that a log can be.
fn burst() -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let issuer = TestIssuer::start_with(Algorithm::EdDSA)?;
    let known: Arc<Vec<_>> =
        Arc::new((0..KNOWN).map(|one| issuer.token().subject(&one.to_string()).build()).collect());
    let log = Arc::<Log>::default();
    let (mut quiet, mut disturbed) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let source = Revocations::shared(Arc::clone(&log));
        for number in 0..BURST {
            source.subject(issuer.iss(), &format!("revoked-{number}")).await?;
        }
        drop(source);
        for round in 0..2 * BURST_ROUNDS {
            log.shown.store(0, Ordering::Relaxed);
            let revocations = Revocations::shared(Arc::clone(&log));
            let verifier = Verifier::builder(issuer.issuer()).revocations(&revocations).build()?;
            verifier.warm_up().await?;
            for token in known.iter() {
                verifier.verify(token).await?;
            }
            let has_burst = round % 2 == 1;
            // Read within the first of the three seconds that the requests take.
            log.shown.store(if has_burst { BURST } else { 0 }, Ordering::Relaxed);
            let known = Arc::clone(&known);
            let measured = tokio::spawn(async move { p99(&verifier, &known).await }).await??;
            if has_burst && log.read.load(Ordering::Relaxed) < BURST {
                return Err("expected all entries to be read".into());
            }
            if has_burst { disturbed.push(measured) } else { quiet.push(measured) }
        }
        Ok::<_, Failure>(())
    })?;
    let ratios: Vec<_> = disturbed.iter().zip(&quiet).map(|(burst, quiet)| burst / quiet).collect();
    println!("\nA burst of {BURST} entries beside {REQUESTS} requests in {:?}", PACE * REQUESTS);
    println!(
        "  p99 from when a request is due: quiet {:.1} µs, with the burst {:.1} µs, ratio {:.2}",
        median(&quiet) * 1e6,
        median(&disturbed) * 1e6,
        median(&ratios)
    );
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
        for number in 0..100 {
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
    let times = sorted(times);
    println!("\nTo another replica: median {:.2} s, p99 of 100 {:.2} s", median(&times), times[98]);
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    costs(&runtime)?;
    burst()?;
    match std::env::var("REDIS_URL") {
        Ok(url) => propagation(&runtime, &url),
        Err(_) => Err("REDIS_URL: expected the address of a Redis, found none".into()),
    }
}
