//! Ten thousand tenants, a flood of unknown keys, and a slow key endpoint: the effect of each on
//! valid requests.
//!
//! `benches/run scale`
//!
//! Everything runs in one process on loopback, including the issuer's server, so times are higher
//! than with a separate server. Ratios compare alternating rounds of one run: quiet, disturbed,
//! quiet, … The token cache is off: every request verifies its token.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Issuers, Jwks, Verifier};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const TENANTS: usize = 10_000;
const ROUNDS: usize = 5;
/// Valid requests of one round, one per [`PACE`].
const REQUESTS: u32 = 16_000;
const PACE: Duration = Duration::from_micros(250);
const JUNK: usize = 2_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Serves the metadata and keys of any number of tenants, all with the same keys, and counts
/// requests.
#[derive(Clone)]
struct Server {
    base: String,
    asked: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl Server {
    async fn start(keys: &TestIssuer, delay: Duration) -> Result<Self, Failure> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let server = Self {
            base,
            asked: Arc::default(),
            at_once: Arc::default(),
            most_at_once: Arc::default(),
        };
        let (jwks, own) = (keys.jwks_json().to_string(), server.clone());
        let router = Router::new().fallback(async move |request: Request| {
            own.asked.fetch_add(1, Ordering::Relaxed);
            let at_once = own.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            own.most_at_once.fetch_max(at_once, Ordering::Relaxed);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let path = request.uri().path();
            let answer = match path.strip_suffix("/.well-known/openid-configuration") {
                Some(tenant) => {
                    let iss = format!("{}{tenant}", own.base);
                    serde_json::json!({ "issuer": iss, "jwks_uri": format!("{iss}/keys") })
                        .to_string()
                }
                None => jwks.clone(),
            };
            own.at_once.fetch_sub(1, Ordering::Relaxed);
            answer
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(server)
    }

    fn iss(&self, tenant: usize) -> String {
        format!("{}/tenants/{tenant}", self.base)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn live_bytes(region: &Region<'_, std::alloc::System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}

async fn many_tenants(keys: &TestIssuer) -> Result<(), Failure> {
    // Typical for a server in the same data center.
    let server = Server::start(keys, Duration::from_millis(2)).await?;
    let issuers = Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok());
    let issuers = issuers.danger_allow_private_addresses().max_cached(TENANTS as u64);
    let verifier = Verifier::builder(issuers).without_token_cache().build()?;
    let tokens: Vec<String> =
        (0..TENANTS).map(|tenant| keys.token().issued_by(&server.iss(tenant)).build()).collect();
    // Allocates the buffers of the client and the server before counting.
    verifier.verify(&tokens[0]).await?;

    let region = Region::new(ALLOCATOR);
    let start = Instant::now();
    let mut requests = JoinSet::new();
    for token in &tokens {
        let (verifier, token) = (verifier.clone(), token.clone());
        requests.spawn(async move { verifier.verify(&token).await.is_ok() });
    }
    let verified = requests.join_all().await.into_iter().filter(|verified| *verified).count();
    let cold = start.elapsed();
    // Retry the tokens that got no permit within their five seconds.
    let mut rounds = 1;
    while verifier.health().iter().filter(|health| health.is_ready()).count() < TENANTS {
        rounds += 1;
        for token in &tokens {
            let _ = verifier.verify(token).await;
        }
    }
    let warm = start.elapsed();
    let with_keys = live_bytes(&region) / TENANTS as isize;
    let start = Instant::now();
    for token in &tokens {
        verifier.verify(token).await?;
    }
    let steady = start.elapsed() / TENANTS as u32;
    let one = Instant::now();
    for _ in 0..TENANTS {
        verifier.verify(&tokens[0]).await?;
    }
    let one = one.elapsed() / TENANTS as u32;

    let region = Region::new(ALLOCATOR);
    let json = keys.jwks_json().to_string();
    let sets: Vec<_> = (0..TENANTS).map(|_| Jwks::from_json(&json)).collect::<Result<_, _>>()?;
    let keys_alone = live_bytes(&region) / TENANTS as isize;
    drop(sets);

    println!("\n{TENANTS} resolved tenants, keys discovered at one server");
    println!(
        "  at once, cold: {verified} verified, after {cold:.2?}; all warm after {warm:.2?}, in {rounds} round(s)"
    );
    println!("  fetches in flight at the most: {}", server.most_at_once.load(Ordering::Relaxed));
    println!(
        "  the server was asked {} times, {} for each tenant",
        server.asked(),
        server.asked() / TENANTS
    );
    println!(
        "  memory per tenant: {with_keys} bytes, {} beside the keys themselves",
        with_keys - keys_alone
    );
    println!(
        "  a request, warm: {steady:.2?} over all tenants, {one:.2?} with one of them again and again"
    );
    Ok(())
}

/// The p99 latency of valid requests at a steady rate.
async fn p99(verifier: &Verifier, token: &str) -> Result<Duration, Failure> {
    let mut latencies = Vec::with_capacity(REQUESTS as usize);
    let start = Instant::now();
    for number in 0..REQUESTS {
        let due = start + PACE * number;
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        let before = Instant::now();
        verifier.verify(token).await?;
        latencies.push(before.elapsed());
    }
    latencies.sort();
    Ok(latencies[latencies.len() * 99 / 100])
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn print_ratio(name: &str, quiet: Vec<Duration>, disturbed: Vec<Duration>) {
    let (quiet, disturbed) = (median(quiet), median(disturbed));
    let ratio = disturbed.as_secs_f64() / quiet.as_secs_f64();
    println!(
        "  p99 of good requests: {quiet:.1?} quiet, {disturbed:.1?} {name}: {ratio:.2}x (medians of {ROUNDS} rounds)"
    );
}

async fn flood(keys: &TestIssuer) -> Result<(), Failure> {
    let junk: Vec<_> =
        (0..JUNK).map(|number| keys.token().header("kid", format!("junk-{number}"))).collect();
    let (mut quiet, mut flooded, mut most_fetches) = (Vec::new(), Vec::new(), 0);
    for round in 0..2 * ROUNDS {
        let server = Server::start(keys, Duration::ZERO).await?;
        let (iss, clock) = (server.iss(0), TestClock::new());
        let issuer = Issuer::new(&iss, AUDIENCE)?.jwks_uri(&format!("{iss}/keys"))?;
        let verifier = Verifier::builder(issuer).clock(&clock).without_token_cache().build()?;
        let token = keys.token().issued_by(&iss).build();
        verifier.verify(&token).await?;
        // The budget for unknown keys is full when the flood starts.
        clock.advance(Duration::from_secs(10));
        if round % 2 == 0 {
            quiet.push(p99(&verifier, &token).await?);
            continue;
        }
        let junk: Vec<String> =
            junk.iter().cloned().map(|token| token.issued_by(&iss).build()).collect();
        let flood = tokio::spawn({
            let verifier = verifier.clone();
            async move {
                for token in junk {
                    let _ = verifier.verify(&token).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        flooded.push(p99(&verifier, &token).await?);
        flood.await?;
        most_fetches = most_fetches.max(server.asked());
    }
    println!("\n{JUNK} requests with random key identifiers among {REQUESTS} good ones");
    println!("  fetches: {most_fetches}, the first one included");
    print_ratio("flooded", quiet, flooded);
    Ok(())
}

async fn slow_endpoint(keys: &TestIssuer) -> Result<(), Failure> {
    let (mut quiet, mut refreshing, mut refreshes) = (Vec::new(), Vec::new(), 0);
    for round in 0..2 * ROUNDS {
        let server = Server::start(keys, Duration::from_millis(500)).await?;
        let iss = server.iss(0);
        let seconds = if round % 2 == 0 { 3600 } else { 1 };
        let issuer = Issuer::new(&iss, AUDIENCE)?.jwks_uri(&format!("{iss}/keys"))?;
        let issuer = issuer.keys_max_age(Duration::from_secs(seconds))?;
        let verifier = Verifier::builder(issuer).without_token_cache().build()?;
        let token = keys.token().issued_by(&iss).build();
        verifier.verify(&token).await?;
        let p99 = p99(&verifier, &token).await?;
        if round % 2 == 0 {
            quiet.push(p99);
        } else {
            refreshing.push(p99);
            refreshes += server.asked() - 1;
        }
    }
    println!("\nA key endpoint that takes 500 ms, keys fresh for one second");
    println!("  refreshes: {refreshes} in {ROUNDS} rounds of {:?}", PACE * REQUESTS);
    print_ratio("refreshing", quiet, refreshing);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let keys = TestIssuer::offline_with("https://issuer.example/", Algorithm::RS256)?;
    many_tenants(&TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA)?).await?;
    flood(&keys).await?;
    slow_endpoint(&keys).await
}
