//! The cost of a request as issuers, keys, cached tokens and threads increase.
//!
//! `benches/run growth`
//!
//! Whole requests, in process, through an axum router. Each of many rounds measures all sizes of a
//! row in turn.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use axum::Router;
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, Issuer, Jwks, Verifier};
use portcullis_benches::contenders::{self, Failure};
use portcullis_benches::limit::{FAR, Limit, tokens};
use portcullis_benches::rounds::{Way, median};
use tokio::runtime::Runtime;

const ROUNDS: usize = 51;
const PER_ROUND: usize = 200;
/// Enough that no token is repeated.
const TOKENS: usize = ROUNDS * PER_ROUND;

fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Measures all sizes in turn, and prints their ratios to the first.
fn print(title: &str, sizes: &[(usize, Router, Vec<String>)]) -> Result<(), Failure> {
    let runtime = runtime()?;
    let mut ways: Vec<_> = sizes
        .iter()
        .map(|(size, app, tokens)| Way::new(size.to_string(), app.clone(), tokens))
        .collect();
    for _ in 0..ROUNDS {
        for way in &mut ways {
            way.round(PER_ROUND, &runtime)?;
        }
    }
    println!("\n{title}");
    let first = ways.first().map(|way| way.times.clone()).unwrap_or_default();
    for way in &ways {
        let ratios: Vec<f64> =
            way.times.iter().zip(&first).map(|(own, first)| own / first).collect();
        println!("  {:>8}  {:>7.2} µs  {:.3}", way.name, median(&way.times) * 1e6, median(&ratios));
    }
    Ok(())
}

/// Many configured issuers, with their tokens in no particular order.
fn issuers() -> Result<(), Failure> {
    let name = |number: usize| format!("https://tenant-{number}.eu.auth0.com/");
    let server = TestIssuer::offline_with(&name(0), Algorithm::RS256)?;
    let one_set = server.jwks();
    let listed = |count, set: &dyn Fn() -> Jwks| -> Result<Router, Failure> {
        let issuer = |number| Ok(Issuer::new(name(number), AUDIENCE)?.jwks(set()));
        let listed = (0..count).map(issuer).collect::<Result<Vec<_>, Failure>>()?;
        Ok(contenders::portcullis(&Verifier::builder(listed).without_token_cache().build()?))
    };
    let (mut sharing, mut apart, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for count in [1, 10, 100, 1_000, 10_000] {
        let token = |number: usize| {
            server.token().issued_by(&name(number * FAR % count)).claim("jti", number).build()
        };
        let tokens: Vec<_> = (0..TOKENS).map(token).collect();
        let limit = Limit::new(&server, Algorithm::RS256, &tokens)?.with_keys(
            &server,
            Algorithm::RS256,
            count,
        )?;
        limits.push((count, limit));
        sharing.push((count, listed(count, &|| one_set.clone())?, tokens.clone()));
        apart.push((count, listed(count, &|| server.jwks())?, tokens));
    }
    print("issuers that share a key, new tokens", &sharing)?;
    print("issuers with a key of their own, new tokens", &apart)?;
    println!("\nkeys, signatures alone");
    let mut times = vec![Vec::new(); limits.len()];
    for round in 0..ROUNDS {
        for ((_, limit), times) in limits.iter().zip(&mut times) {
            times.push(limit.time(round * PER_ROUND, PER_ROUND)?.as_secs_f64() / PER_ROUND as f64);
        }
    }
    for ((count, _), own) in limits.iter().zip(&times) {
        let ratios: Vec<f64> = own.iter().zip(&times[0]).map(|(own, first)| own / first).collect();
        println!("  {count:>8}  {:>7.2} µs  {:.3}", median(own) * 1e6, median(&ratios));
    }
    Ok(())
}

/// Key sets of several sizes, with tokens of all their keys.
fn keys() -> Result<(), Failure> {
    let mut all = Vec::new();
    for count in [1, 10, 100] {
        let issuer = TestIssuer::offline_with("https://acme.eu.auth0.com/", Algorithm::RS256)?;
        let mut distinct = tokens(&issuer, TOKENS / count);
        for _ in 1..count {
            issuer.rotate()?;
            distinct.extend(tokens(&issuer, TOKENS / count));
        }
        let mixed: Vec<_> = (0..distinct.len())
            .map(|number| distinct[number * FAR % distinct.len()].clone())
            .collect();
        let verifier = Verifier::builder(issuer.issuer()).without_token_cache().build()?;
        all.push((count, contenders::portcullis(&verifier), mixed));
    }
    print("keys in the set, new tokens", &all)
}

/// Several numbers of cached tokens, all of them in use.
fn kept_tokens() -> Result<(), Failure> {
    const MOST: usize = 100_000;
    let issuer = TestIssuer::offline_with("https://acme.eu.auth0.com/", Algorithm::EdDSA)?;
    let distinct = tokens(&issuer, MOST);
    let runtime = runtime()?;
    let mut all = Vec::new();
    for count in [1, 100, 10_000, MOST] {
        let verifier =
            Verifier::builder(issuer.issuer()).token_cache_capacity(MOST as u64).build()?;
        let tokens = &distinct[..count];
        for token in tokens.iter().cycle().take(3 * count) {
            runtime.block_on(verifier.verify(token))?;
        }
        let mixed = (0..count).map(|number| distinct[number * FAR % count].clone()).collect();
        all.push((count, contenders::portcullis(&verifier), mixed));
    }
    print("cached tokens, all in use", &all)
}

/// The throughput of two threads compared with one.
fn threads() -> Result<(), Failure> {
    const HOT: usize = 64;
    const SPAN: Duration = Duration::from_millis(100);
    let main = runtime()?;
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
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
    let requests = |app: &Router, thread: usize| -> Result<f64, Failure> {
        let runtime = runtime()?;
        let mut way = Way::new("", app.clone(), &hot);
        // Avoids using the same token as the other thread at the same time.
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
    let (mut of_signatures, mut of_hits, mut of_bare, mut of_verified) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let bare = contenders::unprotected();
    let verified = |thread: usize| -> Result<f64, Failure> {
        let runtime = runtime()?;
        let (start, mut done) = (Instant::now(), thread * HOT / 2);
        let from = done;
        while start.elapsed() < SPAN {
            for _ in 0..PER_ROUND {
                runtime.block_on(verifier.verify(&hot[done % HOT]))?;
                done += 1;
            }
        }
        Ok((done - from) as f64 / start.elapsed().as_secs_f64())
    };
    for _ in 0..ROUNDS {
        of_signatures.push(both(&signatures)?);
        of_hits.push(both(&|thread| requests(&app, thread))?);
        of_verified.push(both(&verified)?);
        of_bare.push(both(&|thread| requests(&bare, thread))?);
    }
    println!("\ntwo threads do, of what one does");
    println!("  signatures          {:.2}", median(&of_signatures));
    println!("  tokens seen before  {:.2}", median(&of_hits));
    println!("  verify alone        {:.2}", median(&of_verified));
    println!("  unprotected         {:.2}", median(&of_bare));
    Ok(())
}

fn main() -> Result<(), Failure> {
    issuers()?;
    keys()?;
    kept_tokens()?;
    threads()
}
