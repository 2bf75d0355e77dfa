//! The workload of `benches/run instructions`: a thousand signatures or requests with RS256 tokens,
//! or with proofs of a client.

use std::env;
use std::hint::black_box;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use portcullis::testing::{DpopClient, TestIssuer};
use portcullis::{Algorithm, Dpop, Verifier};
use portcullis_benches::contenders::{self, Failure, PROOF_URL};
use portcullis_benches::limit::{Limit, tokens_with};
use portcullis_benches::rounds::Way;
use tokio::runtime::Runtime;

const COUNT: usize = 1_000;

#[inline(never)]
fn measured_signatures(limit: &Limit) -> Result<Duration, Failure> {
    black_box(limit.time(0, COUNT))
}

#[inline(never)]
fn measured_requests(
    way: &mut Way<'_>,
    requests: Vec<Request<Body>>,
    runtime: &Runtime,
) -> Duration {
    black_box(way.serve(requests, runtime))
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
    let what = env::args().nth(1).unwrap_or_default();
    // `proof limit ES256`, `proof cached ES256`, `proof new ES256`
    let algorithm = what.rsplit(' ').next().and_then(|name| name.parse().ok());
    let client = algorithm.map(DpopClient::with_algorithm).transpose()?;
    let distinct = tokens_with(&issuer, COUNT + 3, |token| match &client {
        Some(client) => token.bound_to(client),
        None => token,
    });
    let mut builder = Verifier::builder(issuer.issuer());
    if client.is_some() {
        builder = builder.dpop(Dpop::new(PROOF_URL)?);
    }
    let app = contenders::portcullis(&builder.build()?);
    let mut way = match (what.rsplit_once(' ').map_or(&*what, |(what, _)| what), &client) {
        ("limit", None) => {
            measured_signatures(&Limit::new(&issuer, Algorithm::RS256, &distinct)?)?;
            return Ok(());
        }
        ("proof limit", Some(client)) => {
            let proof = |_| client.proof("GET", PROOF_URL, &distinct[0]).build();
            let proofs: Vec<_> = (0..COUNT).map(proof).collect();
            let algorithm = algorithm.unwrap_or(Algorithm::ES256);
            measured_signatures(&Limit::of_proofs(algorithm, &proofs)?)?;
            return Ok(());
        }
        ("unprotected", None) => Way::new("", contenders::unprotected(), &distinct),
        ("new", None) => Way::new("", app, &distinct),
        ("cached", None) => Way::new("", app, &distinct[..1]),
        ("proof new", Some(client)) => Way::with_proofs("", app, &distinct, client),
        ("proof cached", Some(client)) => Way::with_proofs("", app, &distinct[..1], client),
        _ => return Err(format!("expected a workload of benches/run, found {what:?}").into()),
    };
    way.warm_up(&runtime)?;
    let requests = way.requests(COUNT)?;
    measured_requests(&mut way, requests, &runtime);
    Ok(())
}
