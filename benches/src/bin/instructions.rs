//! The workloads of `benches/run instructions` and `benches/run profile`: a thousand signatures, or
//! requests with RS256 tokens, proofs of a client, opaque tokens or API keys.

use std::env;
use std::hint::black_box;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use portcullis::testing::{DpopClient, TestIssuer};
use portcullis::{Algorithm, ApiKey, ApiKeys, ClientAuth, Dpop, Introspection, Issuers, Verifier};
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

/// Keys and answers take long to fetch under valgrind.
const PATIENCE: Duration = Duration::from_secs(10);

/// An opaque token, and an API whose issuer is asked about it once.
fn opaque(issuer: &TestIssuer) -> Result<(Verifier, String), Failure> {
    let introspection = Introspection::new(ClientAuth::client_secret("orders-api", "secret"));
    let config = issuer.issuer().keys_fetch_timeout(PATIENCE)?;
    let verifier = Verifier::new(config.introspection(introspection.timeout(PATIENCE)?))?;
    let claims = issuer.token().subject("auth0|6553da60a54af58e29493993").scope("read:orders");
    Ok((verifier, issuer.opaque_token(claims)))
}

/// A key of a list, and its API.
fn api_key() -> Result<(Verifier, String), Failure> {
    let generated = ApiKey::generate("acme_live")?;
    let record = ApiKey::new("orders-worker", generated.hash().clone());
    let keys = ApiKeys::new("https://api.example.com", [record.scope("read:orders".parse()?)])?;
    let verifier = Verifier::builder(Issuers::none()).api_keys(keys).build()?;
    Ok((verifier, generated.expose_key().to_owned()))
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
    let what = env::args().nth(1).unwrap_or_default();
    // `proof limit ES256`, `proof cached ES256`, `proof new ES256`
    let algorithm = what.rsplit(' ').next().and_then(|name| name.parse().ok());
    let client = algorithm.map(DpopClient::with_algorithm).transpose()?;
    // Signing takes longer than everything else.
    let distinct = if what.contains("new") || what == "limit" { COUNT + 3 } else { 1 };
    let tokens = tokens_with(&issuer, distinct, |token| match &client {
        Some(client) => token.bound_to(client),
        None => token,
    });
    let mut builder = Verifier::builder(issuer.issuer().keys_fetch_timeout(PATIENCE)?);
    if client.is_some() {
        builder = builder.dpop(Dpop::new(PROOF_URL)?);
    }
    let app = contenders::portcullis(&builder.build()?);
    let (asking, opaque) = opaque(&issuer)?;
    let (with_keys, key) = api_key()?;
    let (opaque, key) = ([opaque], [key]);
    // The name of an algorithm follows the kind of a workload with proofs.
    let kind = what.rsplit_once(' ').filter(|_| client.is_some()).map_or(&*what, |(kind, _)| kind);
    let mut way = match (kind, &client) {
        ("limit", None) => {
            measured_signatures(&Limit::new(&issuer, Algorithm::RS256, &tokens)?)?;
            return Ok(());
        }
        ("proof limit", Some(client)) => {
            let proof = |_| client.proof("GET", PROOF_URL, &tokens[0]).build();
            let proofs: Vec<_> = (0..COUNT).map(proof).collect();
            let algorithm = algorithm.unwrap_or(Algorithm::ES256);
            measured_signatures(&Limit::of_proofs(algorithm, &proofs)?)?;
            return Ok(());
        }
        ("unprotected", None) => Way::new("", contenders::unprotected(), &tokens),
        ("new", None) => Way::new("", app, &tokens),
        ("cached", None) => Way::new("", app, &tokens),
        ("cached opaque", None) => Way::new("", contenders::portcullis(&asking), &opaque),
        ("api key", None) => Way::new("", contenders::portcullis(&with_keys), &key),
        ("proof new", Some(client)) => Way::with_proofs("", app, &tokens, client),
        ("proof cached", Some(client)) => Way::with_proofs("", app, &tokens, client),
        _ => return Err(format!("expected a workload of benches/run, found {what:?}").into()),
    };
    way.warm_up(&runtime)?;
    let requests = way.requests(COUNT)?;
    measured_requests(&mut way, requests, &runtime);
    Ok(())
}
