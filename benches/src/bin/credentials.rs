//! What an opaque token and an API key cost, compared with a signature (the limit) and with a
//! cached JWT, and what a flood of invented opaque tokens costs the tokens in use.
//!
//! `benches/run credentials`
//!
//! Like `requests`: one thread, rounds that measure every contender in turn, and the cost of an
//! unprotected handler subtracted. The flood runs beside its issuer in one process.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{
    Algorithm, ApiKey, ApiKeys, ClientAuth, Introspection, Issuer, Issuers, Verifier,
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
const KEYS: usize = 10_000;

const FLOOD_ROUNDS: usize = 10;
/// Requests with known tokens of one round, one per [`PACE`].
const REQUESTS: u32 = 16_000;
const PACE: Duration = Duration::from_micros(250);
/// Each is used every 125 ms, so that it is renewed in time.
const KNOWN: usize = 500;
const LIFETIME: Duration = Duration::from_secs(2);
/// Invented tokens: this many every [`FLOOD_PACE`], 10,000 per second.
const BURST: usize = 50;
const FLOOD_PACE: Duration = Duration::from_millis(5);

fn introspection() -> Introspection {
    Introspection::new(ClientAuth::client_secret("orders-api", "secret"))
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

fn costs(runtime: &Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
    let distinct = tokens(&issuer, 1_000);
    let limit = Limit::new(&issuer, Algorithm::RS256, &distinct)?;
    let verifier = Verifier::new(issuer.issuer())?;
    let asking = Verifier::new(issuer.issuer().introspection(introspection()))?;
    let claims = || issuer.token().subject("auth0|6553da60a54af58e29493993").scope("read:orders");
    let opaque: Vec<_> = (0..1_000).map(|_| issuer.opaque_token(claims())).collect();

    let mut keys = Vec::new();
    let mut records = Vec::new();
    for _ in 0..KEYS {
        let generated = ApiKey::generate("acme_live")?;
        let record = ApiKey::new("orders-worker", generated.hash().clone());
        records.push(record.scope("read:orders".parse()?));
        keys.push(generated.expose_key().to_owned());
    }
    let with_keys = Verifier::builder(Issuers::none())
        .api_keys(ApiKeys::new("https://api.example.com", records)?)
        .build()?;
    runtime.block_on(async {
        verifier.warm_up().await?;
        asking.warm_up().await?;
        // Each is asked about once, and each JWT verified twice, so that both are cached.
        for token in &opaque {
            asking.verify(token).await?;
        }
        for token in distinct.iter().chain(&distinct) {
            verifier.verify(token).await?;
        }
        Ok::<_, Failure>(())
    })?;

    let app = contenders::portcullis;
    let mut unprotected = Way::new("unprotected", contenders::unprotected(), &distinct);
    let mut ways = [
        Way::new("a cached JWT, one", app(&verifier), &distinct[..1]),
        Way::new("a cached JWT, 1,000 in turn", app(&verifier), &distinct),
        Way::new("a cached opaque token, one", app(&asking), &opaque[..1]),
        Way::new("a cached opaque token, 1,000 in turn", app(&asking), &opaque),
        Way::new("an API key of a list of 10,000, one", app(&with_keys), &keys[..1]),
        Way::new("an API key of a list of 10,000, all in turn", app(&with_keys), &keys),
    ];
    ways.iter_mut().try_for_each(|way| way.warm_up(runtime))?;
    let mut limits = Vec::new();
    for round in 0..ROUNDS {
        limits.push(limit.time(round * PER_ROUND, PER_ROUND)?.as_secs_f64() / PER_ROUND as f64);
        unprotected.round(PER_ROUND, runtime)?;
        for way in &mut ways {
            way.round(PER_ROUND, runtime)?;
        }
    }
    println!("the limit (RS256) is {:.1} µs", median(&limits) * 1e6);
    println!("  {:<50} {:>9} {:>12}", "", "× limit", "allocations");
    let handler = allocations(&mut unprotected, runtime, 0)?;
    for way in &mut ways {
        let rounds = way.times.iter().zip(&unprotected.times).zip(&limits);
        let ratios: Vec<_> =
            rounds.map(|((time, handler), limit)| (time - handler) / limit).collect();
        let name = way.name.clone();
        let allocations = allocations(way, runtime, handler)?;
        println!("  {name:<50} {:>9.3} {allocations:>12}", median(&ratios));
    }
    Ok(())
}

/// Answers in a few milliseconds that `known-…` is active, and anything else is not.
async fn issuer() -> Result<(String, tokio::task::JoinHandle<()>), Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/", listener.local_addr()?);
    let iss = base.clone();
    let answer = async move |request: Request| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let body = axum::body::to_bytes(request.into_body(), 65_536).await.unwrap_or_default();
        if body.starts_with(b"token=known") {
            format!(
                r#"{{"active":true,"iss":"{iss}","aud":"{AUDIENCE}","sub":"alice","token_type":"Bearer"}}"#
            )
        } else {
            r#"{"active":false}"#.to_owned()
        }
    };
    let router = Router::new().route("/introspect", post(answer));
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok((base, serving))
}

/// The 99th percentile of the time that requests with known tokens take.
async fn p99(verifier: &Verifier, known: &[String]) -> Result<f64, Failure> {
    let mut times = Vec::new();
    let start = Instant::now();
    for number in 0..REQUESTS {
        // Without a timer, which is no more exact than a millisecond.
        while start.elapsed() < PACE * number {
            tokio::task::yield_now().await;
        }
        let token = &known[number as usize % known.len()];
        let began = Instant::now();
        verifier.verify(token).await?;
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(sorted(times)[REQUESTS as usize * 99 / 100])
}

async fn invent(verifier: Verifier) {
    let mut every = tokio::time::interval(FLOOD_PACE);
    let mut requests = JoinSet::new();
    loop {
        every.tick().await;
        for _ in 0..BURST {
            let verifier = verifier.clone();
            let token = format!("{:016x}", RandomState::new().hash_one(()));
            requests.spawn(async move {
                let _ = verifier.verify(&token).await;
            });
        }
        while requests.try_join_next().is_some() {}
    }
}

/// Known tokens are renewed meanwhile.
fn flood() -> Result<(), Failure> {
    // The issuer and the flood have a runtime of their own, as they are other machines.
    let others =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (base, _serving) = others.block_on(issuer())?;
    let known: Vec<_> = (0..KNOWN).map(|number| format!("known-{number}")).collect();
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    let mut questions = 0;
    for round in 0..2 * FLOOD_ROUNDS {
        let introspection = Introspection::at(
            format!("{base}introspect"),
            ClientAuth::client_secret("orders-api", "secret"),
        );
        let issuer =
            Issuer::new(&base, AUDIENCE)?.introspection(introspection.cache_for(LIFETIME)?);
        let verifier = Verifier::new(issuer)?;
        let known = Arc::new(known.clone());
        let is_flooded = round % 2 == 1;
        runtime.block_on(async {
            let mut first = JoinSet::new();
            for number in 0..known.len() {
                let (verifier, known) = (verifier.clone(), Arc::clone(&known));
                first.spawn(async move { verifier.verify(&known[number]).await.map(drop) });
            }
            first.join_all().await.into_iter().collect::<Result<(), _>>()
        })?;
        let flood = is_flooded.then(|| runtime.spawn(invent(verifier.clone())));
        let measured = runtime.block_on(runtime.spawn({
            let (verifier, known) = (verifier.clone(), Arc::clone(&known));
            async move { p99(&verifier, &known).await }
        }))??;
        if let Some(flood) = flood {
            flood.abort();
            questions += verifier.health()[0].introspection.as_ref().map_or(0, |one| one.questions);
            flooded.push(measured);
        } else {
            quiet.push(measured);
        }
    }
    println!("\n10,000 invented opaque tokens per second beside {KNOWN} known ones");
    println!("  questions per round: {}", questions / FLOOD_ROUNDS as u64);
    let ratios: Vec<_> =
        flooded.iter().zip(&quiet).map(|(flooded, quiet)| flooded / quiet).collect();
    println!(
        "  p99 of the known ones: quiet {:.1} µs, flooded {:.1} µs, ratio {:.2}",
        median(&quiet) * 1e6,
        median(&flooded) * 1e6,
        median(&ratios)
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    costs(&runtime)?;
    drop(runtime);
    flood()
}
