//! What a request with a DPoP proof costs, compared with the signatures alone; the table of used
//! proofs; two threads; and the store that replicas share.
//!
//! `benches/run proofs`, with Redis for the last part.
//!
//! Like `requests`: one thread, rounds that measure every contender in turn, and the cost of an
//! unprotected handler subtracted. Proofs are made before each round.

// The table is private. It needs nothing of the crate.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/dpop/replays.rs"]
mod replays;

use std::hint::black_box;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use portcullis::testing::{AUDIENCE, DpopClient, TestIssuer};
use portcullis::{Algorithm, Dpop, RedisStore, Verifier};
use portcullis_benches::contenders::{self, Failure, PROOF_URL};
use portcullis_benches::limit::{ALGORITHMS, Limit, tokens, tokens_with};
use portcullis_benches::rounds::{Way, median};
use replays::{Replays, Use};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;
use tower::Service as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 31;
const PER_ROUND: usize = 200;

fn verifier(issuer: &TestIssuer, change: impl FnOnce(Dpop) -> Dpop) -> Result<Verifier, Failure> {
    // The table must not fill up during the measurement.
    let dpop = Dpop::new(PROOF_URL)?.max_proofs(10_000_000)?;
    Ok(Verifier::builder(issuer.issuer()).dpop(change(dpop)).build()?)
}

fn proofs(client: &DpopClient, token: &str, count: usize) -> Vec<String> {
    (0..count).map(|_| client.proof("GET", PROOF_URL, token).build()).collect()
}

/// Allocations per request beyond those of an unprotected handler, after a warm-up.
fn allocations(way: &mut Way<'_>, runtime: &Runtime, handler: usize) -> Result<usize, Failure> {
    let first = way.requests(PER_ROUND)?;
    way.serve(first, runtime);
    let requests = way.requests(PER_ROUND)?;
    let region = Region::new(ALLOCATOR);
    way.serve(requests, runtime);
    let change = region.change();
    Ok(((change.allocations + change.reallocations) / PER_ROUND).saturating_sub(handler))
}

/// Requests with proofs of one algorithm, and tokens of RS256.
fn costs(algorithm: Algorithm, runtime: &Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
    let client = DpopClient::with_algorithm(algorithm)?;
    let bound = tokens_with(&issuer, (ROUNDS + 2) * PER_ROUND, |token| token.bound_to(&client));
    let of_tokens = Limit::new(&issuer, Algorithm::RS256, &bound)?;
    let of_proofs = Limit::of_proofs(algorithm, &proofs(&client, &bound[0], PER_ROUND))?;
    let verifier = verifier(&issuer, |dpop| dpop)?;
    runtime.block_on(verifier.warm_up())?;
    let app = contenders::portcullis(&verifier);

    let mut unprotected = Way::with_proofs("", contenders::unprotected(), &bound[..1], &client);
    let mut ways = vec![
        Way::with_proofs("cached token, known key", app.clone(), &bound[..1], &client),
        Way::with_proofs("new token, new key", app, &bound[1..], &client),
    ];
    for contender in runtime.block_on(contenders::all(&issuer, AUDIENCE, Algorithm::RS256))? {
        if contender.name.starts_with("huskarl") {
            ways.push(Way::with_proofs(contender.name, contender.app, &bound, &client));
        }
    }
    ways.iter_mut().try_for_each(|way| way.warm_up(runtime))?;
    let (mut limits, mut both) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let per_signature = |limit: &Limit| -> Result<f64, Failure> {
            Ok(limit.time(round * PER_ROUND, PER_ROUND)?.as_secs_f64() / PER_ROUND as f64)
        };
        limits.push(per_signature(&of_proofs)?);
        both.push(per_signature(&of_proofs)? + per_signature(&of_tokens)?);
        unprotected.round(PER_ROUND, runtime)?;
        for way in &mut ways {
            way.round(PER_ROUND, runtime)?;
        }
    }
    println!("\n{algorithm} proofs: the signature takes {:.1} µs", median(&limits) * 1e6);
    println!("  {:<44} {:>9} {:>16} {:>12}", "", "× proof", "× both signatures", "allocations");
    let handler = allocations(&mut unprotected, runtime, 0)?;
    for way in &mut ways {
        let ratio = |limits: &[f64]| {
            let rounds = way.times.iter().zip(&unprotected.times).zip(limits);
            let ratios: Vec<_> =
                rounds.map(|((time, handler), limit)| (time - handler) / limit).collect();
            median(&ratios)
        };
        let (of_proof, of_both, name) = (ratio(&limits), ratio(&both), way.name.clone());
        let allocations = allocations(way, runtime, handler)?;
        println!("  {name:<44} {of_proof:>9.3} {of_both:>16.3} {allocations:>12}");
    }
    Ok(())
}

/// Memory and insertions of the table, at several sizes.
fn table() {
    println!("\nThe table of used proofs: median of 11 runs");
    println!("  {:>10} {:>16} {:>18}", "proofs", "bytes per proof", "µs per insertion");
    const MOST: u64 = 1_000_000;
    let hash = |number: u64| {
        // Spread as a hash is.
        let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let low = (number ^ 0x5555).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    };
    let (mut times, mut sizes) = (vec![Vec::new(); 4], vec![Vec::new(); 4]);
    for _ in 0..11 {
        let region = Region::new(ALLOCATOR);
        let replays = Replays::new(2 * MOST as usize, u32::MAX, Duration::from_secs(90));
        let empty = region.change();
        let mut inserted = 0;
        for (step, size) in [1_000, 10_000, 100_000, MOST].into_iter().enumerate() {
            let start = Instant::now();
            let before = inserted;
            while inserted < size {
                // Over a minute, as they come.
                let second = 1_000_000 + inserted * 60 / MOST;
                let used = Use {
                    hash: hash(inserted),
                    jkt: &[7; 32],
                    second,
                    oldest: 1_000_000,
                    current: 1_000_060,
                    uptime: Duration::from_secs(second),
                };
                let _ = black_box(replays.insert(&used));
                inserted += 1;
            }
            times[step].push(start.elapsed().as_secs_f64() / (inserted - before) as f64 * 1e6);
            let now = region.change();
            let bytes = |stats: &stats_alloc::Stats| {
                stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
            };
            sizes[step].push((bytes(&now) - bytes(&empty)) / size as f64);
        }
    }
    for (step, size) in [1_000, 10_000, 100_000, MOST].into_iter().enumerate() {
        println!("  {size:>10} {:>16.1} {:>18.3}", median(&sizes[step]), median(&times[step]));
    }
}

/// What two threads serve compared with one, beside the same for bare signatures.
fn threads() -> Result<(), Failure> {
    println!("\nTwo threads, each serving half of the requests (cached token, known key)");
    const COUNT: usize = 4_000;
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
        let issuer = TestIssuer::start_with(Algorithm::EdDSA)?;
        let client = DpopClient::with_algorithm(algorithm)?;
        let tokens = tokens_with(&issuer, 1, |token| token.bound_to(&client));
        let verifier = verifier(&issuer, |dpop| dpop)?;
        let runtime = Runtime::new()?;
        runtime.block_on(verifier.warm_up())?;
        let app = contenders::portcullis(&verifier);
        Way::with_proofs("", app.clone(), &tokens, &client).warm_up(&runtime)?;
        let limit = Limit::of_proofs(algorithm, &proofs(&client, &tokens[0], 100))?;
        let (mut scaling, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..11 {
            let serve = |count: usize| -> Result<f64, Failure> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let mut way = Way::with_proofs("", app.clone(), &tokens, &client);
                let requests = way.requests(count)?;
                Ok(way.serve(requests, &runtime).as_secs_f64())
            };
            // The proofs are made first, and the threads start together.
            let both = |work: &(dyn Fn() -> Result<f64, Failure> + Sync)| -> Result<f64, Failure> {
                std::thread::scope(|scope| {
                    let other = scope.spawn(work);
                    let own = work()?;
                    let other = other.join().map_err(|_| "a thread panicked")??;
                    Ok(own.max(other))
                })
            };
            let one = serve(COUNT)?;
            let two = both(&|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let mut way = Way::with_proofs("", app.clone(), &tokens, &client);
                let requests = way.requests(COUNT)?;
                // Both threads are here at about the same time: making proofs takes the same time.
                Ok(way.serve(requests, &runtime).as_secs_f64())
            })?;
            scaling.push(2.0 * one / two);
            let one = limit.time(0, COUNT)?.as_secs_f64();
            let two = both(&|| Ok(limit.time(0, COUNT)?.as_secs_f64()))?;
            bare.push(2.0 * one / two);
        }
        let (served, signatures) = (median(&scaling), median(&bare));
        println!(
            "  {algorithm:<6} requests {served:.2} times as many, signatures {signatures:.2} times; ratio {:.3}",
            served / signatures
        );
    }
    Ok(())
}

/// CPU time of this process, in seconds.
fn cpu() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    let own: f64 = stat.split(' ').next().ok_or("schedstat has numbers")?.parse()?;
    Ok(own / 1e9)
}

/// What the shared store costs, on one thread.
fn store(url: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connection =
        runtime.block_on(async { redis::Client::open(url)?.get_connection_manager().await })?;
    let store = RedisStore::new(connection.clone(), "bench")?;
    let issuer = TestIssuer::start_with(Algorithm::EdDSA)?;
    let client = DpopClient::with_algorithm(Algorithm::EdDSA)?;
    let bound = tokens_with(&issuer, 1, |token| token.bound_to(&client));
    let (alone, sharing) =
        (verifier(&issuer, |dpop| dpop)?, verifier(&issuer, |dpop| dpop.share_replays(store))?);
    let mut ways = Vec::new();
    for verifier in [&alone, &sharing] {
        runtime.block_on(verifier.warm_up())?;
        let mut way = Way::with_proofs("", contenders::portcullis(verifier), &bound, &client);
        way.warm_up(&runtime)?;
        ways.push((way, Vec::new(), Vec::new()));
    }
    // One at a time shows how long a request waits; 32 at once is what a server does.
    let mut concurrent = [Vec::new(), Vec::new()];
    for _ in 0..15 {
        for (way, times, cpus) in &mut ways {
            let requests = way.requests(2_000)?;
            let before = cpu()?;
            times.push(way.serve(requests, &runtime).as_secs_f64() / 2_000.0 * 1e6);
            cpus.push((cpu()? - before) / 2_000.0 * 1e6);
        }
        for (number, verifier) in [&alone, &sharing].into_iter().enumerate() {
            let requests = ways[number].0.requests(4_000)?;
            let app = contenders::portcullis(verifier).with_state(());
            let before = cpu()?;
            runtime.block_on(at_once(app, requests))?;
            concurrent[number].push((cpu()? - before) / 4_000.0 * 1e6);
        }
    }
    let connections: String = runtime.block_on(async {
        let mut connection = connection.clone();
        redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await
    })?;
    let [(_, alone, cpu_alone), (_, sharing, cpu_sharing)] = &ways[..] else {
        return Err("two ways".into());
    };
    println!("\nWith Redis (EdDSA proofs, cached token, known key, on one thread)");
    println!("  a request in memory {:.1} µs, with Redis {:.1} µs", median(alone), median(sharing));
    println!(
        "  CPU of the API: one request at a time {:.1} µs more, 32 at once {:.1} µs more",
        median(cpu_sharing) - median(cpu_alone),
        median(&concurrent[1]) - median(&concurrent[0])
    );
    println!("  connections to Redis: {}", connections.lines().count());
    Ok(())
}

async fn at_once(app: axum::Router, requests: Vec<Request<Body>>) -> Result<(), Failure> {
    let mut waiting = tokio::task::JoinSet::new();
    for request in requests {
        if waiting.len() == 32 {
            waiting.join_next().await;
        }
        let mut app = app.clone();
        waiting.spawn(async move { app.call(request).await.map(|response| response.status()) });
    }
    while let Some(status) = waiting.join_next().await {
        if status?? != 200 {
            return Err("a request was rejected".into());
        }
    }
    Ok(())
}

/// Requests with bearer tokens, with and without DPoP configured.
fn bearer(runtime: &Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
    let distinct = tokens(&issuer, 1);
    let limit = Limit::new(&issuer, Algorithm::RS256, &distinct)?;
    let (without, with) = (Verifier::new(issuer.issuer())?, verifier(&issuer, |dpop| dpop)?);
    let app = contenders::portcullis;
    let mut unprotected = Way::new("", contenders::unprotected(), &distinct);
    let mut ways = [
        Way::new("without DPoP", app(&without), &distinct),
        Way::new("with DPoP", app(&with), &distinct),
    ];
    ways.iter_mut().try_for_each(|way| way.warm_up(runtime))?;
    let mut limits = Vec::new();
    for round in 0..2 * ROUNDS {
        limits.push(limit.time(round * PER_ROUND, PER_ROUND)?.as_secs_f64() / PER_ROUND as f64);
        unprotected.round(PER_ROUND, runtime)?;
        for way in &mut ways {
            way.round(PER_ROUND, runtime)?;
        }
    }
    println!("\nA cached bearer token, × the signature (RS256)");
    for way in &ways {
        let rounds = way.times.iter().zip(&unprotected.times).zip(&limits);
        let ratios: Vec<_> =
            rounds.map(|((time, handler), limit)| (time - handler) / limit).collect();
        println!("  {:<16} {:.4}", way.name, median(&ratios));
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    contenders::choose_backend()?;
    bearer(&runtime)?;
    for algorithm in ALGORITHMS {
        costs(algorithm, &runtime)?;
    }
    table();
    threads()?;
    match std::env::var("REDIS_URL") {
        Ok(url) => store(&url),
        Err(_) => Err("REDIS_URL: expected the address of a Redis, found none".into()),
    }
}
