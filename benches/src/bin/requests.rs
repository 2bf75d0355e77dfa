//! The cost of whole requests, in process, through an axum router, compared with the signature
//! alone (the limit).
//!
//! `benches/run requests`
//!
//! One thread. Each of many rounds measures every contender in turn. The cost of an unprotected
//! handler, which gets the same requests, is subtracted. Every request has a new token, except in
//! the rows for no token and for a cached one.

use axum::routing::get;
use axum::{Extension, Router};
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{AccessToken, Algorithm, ProtectLayer, Verifier};
use portcullis_benches::contenders::{self, Failure};
use portcullis_benches::limit::{ALGORITHMS, Limit, tokens};
use portcullis_benches::rounds::{Way, median, minimum};
use tokio::runtime::Runtime;
use tower::layer::util::Identity;

const ROUNDS: usize = 61;
const PER_ROUND: usize = 200;

#[derive(serde::Deserialize)]
struct User {
    sub: String,
}

/// The default configuration, with a required scope and claims of the application's own type.
fn usual(verifier: &Verifier) -> Result<Router, Failure> {
    let typed = async |Extension(token): Extension<AccessToken>| {
        token.claims::<User>().map(|user| user.sub.clone()).unwrap_or_default()
    };
    let layer = ProtectLayer::new(verifier.clone()).scope("read:orders");
    Ok(Router::new().route("/", get(typed)).route_layer(layer))
}

/// Returns the median ratio to the limit for each contender.
fn measure(algorithm: Algorithm, runtime: &Runtime) -> Result<Vec<(String, f64)>, Failure> {
    let issuer = TestIssuer::start_with(algorithm)?;
    // Including those of the warm-up.
    let distinct = tokens(&issuer, ROUNDS * PER_ROUND + 10);
    let limit = Limit::new(&issuer, algorithm, &distinct)?;
    let verifier = Verifier::new(issuer.issuer())?;
    runtime.block_on(verifier.warm_up())?;

    let mut unprotected = Way::new("unprotected", contenders::unprotected(), &distinct);
    let mut ways = vec![
        Way::new(
            contenders::SIGNATURE_ALONE,
            contenders::signature_alone(Limit::new(&issuer, algorithm, &[])?),
            &distinct,
        ),
        Way::new("portcullis, no token", usual(&verifier)?, &[]),
        Way::new(
            "portcullis, a cached token, scope, typed claims",
            usual(&verifier)?,
            &distinct[..1],
        ),
        Way::new("portcullis, a new token", contenders::portcullis(&verifier), &distinct),
        Way::without_state(
            "a layer that does nothing, router without state",
            contenders::behind_nothing(),
            &distinct,
        ),
        Way::without_state(
            "the signature alone, behind a layer that does nothing, router without state",
            contenders::signature_alone(Limit::new(&issuer, algorithm, &[])?)
                .route_layer(Identity::new()),
            &distinct,
        ),
        Way::without_state(
            "portcullis, a cached token, scope, typed claims, router without state",
            usual(&verifier)?,
            &distinct[..1],
        ),
        Way::without_state(
            "portcullis, a new token, router without state",
            contenders::portcullis(&verifier),
            &distinct,
        ),
    ];
    for contender in runtime.block_on(contenders::all(&issuer, AUDIENCE, algorithm))? {
        ways.push(Way::new(contender.name, contender.app, &distinct));
    }
    ways.iter_mut().try_for_each(|way| way.warm_up(runtime))?;

    let mut limits = Vec::new();
    for round in 0..ROUNDS {
        limits.push(limit.time(round * PER_ROUND, PER_ROUND)?.as_secs_f64() / PER_ROUND as f64);
        unprotected.round(PER_ROUND, runtime)?;
        for way in &mut ways {
            way.round(PER_ROUND, runtime)?;
        }
    }
    let ratios = |way: &Way<'_>| -> Vec<f64> {
        let rounds = way.times.iter().zip(&unprotected.times).zip(&limits);
        rounds.map(|((time, handler), limit)| (time - handler) / limit).collect()
    };
    let (least, handler) = (minimum(&limits), minimum(&unprotected.times));
    println!(
        "\n{algorithm}: tokens of {} bytes; the limit is {:.1} µs",
        distinct[0].len(),
        median(&limits) * 1e6
    );
    println!("  {:<76} {:>9} {:>9}", "× limit", "median", "minimum");
    for way in &ways {
        let minimum = (minimum(&way.times) - handler) / least;
        println!("  {:<76} {:>9.3} {:>9.3}", way.name, median(&ratios(way)), minimum);
    }
    println!(
        "  {:<76} {:>9.3}",
        "(an unprotected handler)",
        median(&unprotected.times) / median(&limits)
    );
    Ok(ways.iter().map(|way| (way.name.clone(), median(&ratios(way)))).collect())
}

fn main() -> Result<(), Failure> {
    contenders::choose_backend()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for algorithm in ALGORITHMS {
        for (name, ratio) in measure(algorithm, &runtime)? {
            rows.push(format!("{algorithm}\t{name}\t{ratio:.3}\n"));
        }
    }
    // Input of `plot`.
    if let Some(file) = std::env::args().nth(1) {
        std::fs::write(file, rows.concat())?;
    }
    Ok(())
}
