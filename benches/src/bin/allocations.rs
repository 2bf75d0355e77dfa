//! Allocations per request, beyond those of an unprotected handler, and the memory of a cached
//! token.
//!
//! `benches/run requests`
//!
//! A separate program, because counting takes time.

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, Verifier};
use portcullis_benches::contenders::{self, Contender, Failure};
use portcullis_benches::limit::{ALGORITHMS, tokens};
use portcullis_benches::rounds::Way;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 1_000;

/// Allocations per request, after a warm-up.
fn count(way: &mut Way<'_>, runtime: &Runtime) -> Result<usize, Failure> {
    let first = way.requests(REQUESTS)?;
    way.serve(first, runtime);
    let requests = way.requests(REQUESTS)?;
    let region = Region::new(ALLOCATOR);
    way.serve(requests, runtime);
    let change = region.change();
    Ok((change.allocations + change.reallocations) / REQUESTS)
}

fn measure(algorithm: Algorithm, runtime: &Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::start_with(algorithm)?;
    let distinct = tokens(&issuer, 2 * REQUESTS);
    let verifier = Verifier::new(issuer.issuer())?;
    let app = || contenders::portcullis(&verifier);
    let handler = count(&mut Way::new("", contenders::unprotected(), &distinct), runtime)?;
    let mut ways = vec![
        Way::new("portcullis, no token", app(), &[]),
        Way::new("portcullis, the same token again", app(), &distinct[..1]),
        Way::new("portcullis, a new token", app(), &distinct),
        Way::without_state(
            "a layer that does nothing, router without state",
            contenders::behind_nothing(),
            &distinct,
        ),
        Way::without_state(
            "portcullis, the same token again, router without state",
            app(),
            &distinct[..1],
        ),
        Way::without_state("portcullis, a new token, router without state", app(), &distinct),
    ];
    let contenders = runtime.block_on(contenders::all(&issuer, AUDIENCE, algorithm))?;
    ways.extend(
        contenders.into_iter().map(|Contender { name, app }| Way::new(name, app, &distinct)),
    );
    println!("\n{algorithm}: allocations of a request");
    for way in &mut ways {
        let count = count(way, runtime)?;
        println!("  {:<58} {:>9}", way.name, count.saturating_sub(handler));
    }
    Ok(())
}

fn memory(runtime: &Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::offline_with("https://acme.eu.auth0.com/", Algorithm::EdDSA)?;
    println!("\nmemory of a cached token");
    for padding in [0, 500, 2500] {
        let token =
            |number| issuer.token().claim("jti", number).claim("pad", "x".repeat(padding)).build();
        let tokens: Vec<_> = (0..10_000).map(token).collect();
        let verifier = Verifier::new(issuer.issuer())?;
        let region = Region::new(ALLOCATOR);
        for token in tokens.iter().chain(&tokens) {
            runtime.block_on(verifier.verify(token))?;
        }
        let change = region.change();
        let bytes = (change.bytes_allocated - change.bytes_deallocated) / tokens.len();
        println!("  of {} bytes: {bytes} bytes", tokens[0].len());
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    contenders::choose_backend()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    ALGORITHMS.into_iter().try_for_each(|algorithm| measure(algorithm, &runtime))?;
    memory(&runtime)
}
