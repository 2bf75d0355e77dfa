//! What a request costs when there is more of everything: issuers, keys, kept tokens, threads.
//!
//! `benches/run growth`
//!
//! Whole requests, in process, through an axum router. All sizes of one row are measured in turn, in each of many rounds.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use axum::Router;
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, Issuer, Verifier};
use portcullis_benches::contenders::{self, Failure};
use portcullis_benches::limit::{Limit, tokens};
use portcullis_benches::rounds::{Way, median};
use tokio::runtime::Runtime;

const ROUNDS: usize = 51;
const PER_ROUND: usize = 200;
const TOKENS: usize = 2_000;

fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Serves all sizes in turn, and prints each beside the first.
fn print(title: &str, sizes: &[(usize, Router, Vec<String>)]) -> Result<(), Failure> {
    let runtime = runtime()?;
    let mut ways: Vec<_> =
        sizes.iter().map(|(size, app, tokens)| Way::new(size.to_string(), app.clone(), tokens)).collect();
    for _ in 0..ROUNDS {
        for way in &mut ways {
            way.round(PER_ROUND, &runtime)?;
        }
    }
    println!("\n{title}");
    let first = ways.first().map(|way| way.times.clone()).unwrap_or_default();
    for way in &ways {
        let ratios: Vec<f64> = way.times.iter().zip(&first).map(|(own, first)| own / first).collect();
        println!("  {:>8}  {:>7.2} µs  {:.3}", way.name, median(&way.times) * 1e6, median(&ratios));
    }
    Ok(())
}

/// As many issuers as that, listed, each with the same keys; the tokens of all of them in no order.
fn issuers() -> Result<(), Failure> {
    let name = |number: usize| format!("https://tenant-{number}.eu.auth0.com/");
    let server = TestIssuer::offline_with(&name(0), Algorithm::RS256)?;
    let issuer = |number| Ok(Issuer::new(name(number), AUDIENCE)?.jwks(server.jwks()));
    let mut all = Vec::new();
    for count in [1, 10, 100, 1_000, 10_000] {
        let listed = (0..count).map(issuer).collect::<Result<Vec<_>, Failure>>()?;
        let app = contenders::portcullis(&Verifier::builder(listed).without_token_cache().build()?);
        // 7,919 is a prime: every issuer has its turn, far from the one before.
        let token =
            |number: usize| server.token().issued_by(&name(number * 7_919 % count)).claim("jti", number).build();
        all.push((count, app, (0..TOKENS).map(token).collect()));
    }
    print("issuers, tokens never seen", &all)
}

/// A key set with as many keys as that, and tokens of all of them.
fn keys() -> Result<(), Failure> {
    let mut all = Vec::new();
    for count in [1, 10, 100] {
        let issuer = TestIssuer::offline_with("https://acme.eu.auth0.com/", Algorithm::RS256)?;
        let mut distinct = tokens(&issuer, TOKENS / count);
        for _ in 1..count {
            issuer.rotate()?;
            distinct.extend(tokens(&issuer, TOKENS / count));
        }
        let mixed: Vec<_> =
            (0..distinct.len()).map(|number| distinct[number * 7_919 % distinct.len()].clone()).collect();
        let verifier = Verifier::builder(issuer.issuer()).without_token_cache().build()?;
        all.push((count, contenders::portcullis(&verifier), mixed));
    }
    print("keys in the set, tokens never seen", &all)
}

/// As many kept tokens as that, all of them in use.
fn kept_tokens() -> Result<(), Failure> {
    const MOST: usize = 100_000;
    let issuer = TestIssuer::offline_with("https://acme.eu.auth0.com/", Algorithm::EdDSA)?;
    let distinct = tokens(&issuer, MOST);
    let runtime = runtime()?;
    let mut all = Vec::new();
    for count in [1, 100, 10_000, MOST] {
        let verifier = Verifier::builder(issuer.issuer()).cache_tokens(2 * MOST as u64).build()?;
        let tokens = &distinct[..count];
        for token in tokens.iter().chain(tokens) {
            runtime.block_on(verifier.verify(token))?;
        }
        all.push((count, contenders::portcullis(&verifier), tokens.to_vec()));
    }
    print("kept tokens, all in use", &all)
}

/// What two threads do in the time of one.
fn threads() -> Result<(), Failure> {
    const HOT: usize = 64;
    const SPAN: Duration = Duration::from_millis(100);
    let main = runtime()?;
    let issuer = main.block_on(TestIssuer::start_with(Algorithm::RS256))?;
    let hot = tokens(&issuer, HOT);
    let limit = Limit::new(&issuer, Algorithm::RS256, &hot)?;
    let verifier = Verifier::new(issuer.issuer())?;
    main.block_on(verifier.warm_up())?;
    let app = contenders::portcullis(&verifier);

    let signatures = |thread: usize| -> Result<f64, Failure> {
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed() < SPAN {
            limit.time(done + thread * HOT / 2, 10)?;
            done += 10;
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    };
    let hits = |thread: usize| -> Result<f64, Failure> {
        let runtime = runtime()?;
        let mut way = Way::new("", app.clone(), &hot);
        // Not the same token as the other thread at the same time.
        way.requests(thread * HOT / 2)?;
        let (mut done, mut spent) = (0, Duration::ZERO);
        while spent < SPAN {
            let requests = way.requests(PER_ROUND)?;
            spent += way.serve(requests, &runtime);
            done += PER_ROUND;
        }
        Ok(done as f64 / spent.as_secs_f64())
    };
    let both = |work: &(dyn Fn(usize) -> Result<f64, Failure> + Sync)| -> Result<f64, Failure> {
        let alone = work(0)?;
        let start = Barrier::new(2);
        let work = |thread| {
            start.wait();
            work(thread)
        };
        let together = std::thread::scope(|scope| {
            let other = scope.spawn(|| work(1));
            let own = work(0)?;
            Ok::<_, Failure>(own + other.join().map_err(|_| "a thread panicked")??)
        })?;
        Ok(together / alone)
    };
    let (mut of_signatures, mut of_hits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_signatures.push(both(&signatures)?);
        of_hits.push(both(&hits)?);
    }
    println!("\ntwo threads do, of what one does");
    println!("  signatures          {:.2}", median(&of_signatures));
    println!("  tokens seen before  {:.2}", median(&of_hits));
    Ok(())
}

fn main() -> Result<(), Failure> {
    issuers()?;
    keys()?;
    kept_tokens()?;
    threads()
}
