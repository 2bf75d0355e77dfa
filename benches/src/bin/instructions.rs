//! The workload of `benches/run instructions`: a thousand signatures or requests with RS256.

use std::env;
use std::hint::black_box;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Verifier};
use portcullis_benches::contenders::{self, Failure};
use portcullis_benches::limit::{Limit, tokens};
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
    let distinct = tokens(&issuer, COUNT + 3);
    let verifier = Verifier::new(issuer.issuer())?;
    let mut way = match env::args().nth(1).as_deref() {
        Some("limit") => {
            measured_signatures(&Limit::new(&issuer, Algorithm::RS256, &distinct)?)?;
            return Ok(());
        }
        Some("unprotected") => Way::new("unprotected", contenders::unprotected(), &distinct),
        Some("new") => Way::new("new", contenders::portcullis(&verifier), &distinct),
        Some("cached") => Way::new("cached", contenders::portcullis(&verifier), &distinct[..1]),
        _ => return Err("expected limit, unprotected, new or cached".into()),
    };
    way.warm_up(&runtime)?;
    let requests = way.requests(COUNT)?;
    measured_requests(&mut way, requests, &runtime);
    Ok(())
}
