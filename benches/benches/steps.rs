//! Benchmarks of the individual steps of a verification, to see which one became slower.
//!
//! `cargo bench --manifest-path benches/Cargo.toml --bench steps`
//!
//! A rejection at a step includes the cost of all steps before it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Jwks, Verifier};
use portcullis_benches::limit::{ALGORITHMS, Limit, tokens};
use tokio::runtime::Runtime;

fn issuer(algorithm: Algorithm) -> TestIssuer {
    TestIssuer::offline_with("https://acme.eu.auth0.com/", algorithm)
        .expect("every backend has these algorithms")
}

/// Verifies the same token repeatedly.
fn verify(criterion: &mut Criterion, name: &str, verifier: &Verifier, token: &str) {
    let runtime = Runtime::new().expect("a runtime");
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| runtime.block_on(verifier.verify(black_box(token))).is_ok());
    });
}

fn refusals(criterion: &mut Criterion) {
    let issuer = issuer(Algorithm::RS256);
    let verifier = Verifier::new(issuer.issuer()).expect("an offline issuer is a good one");
    verify(criterion, "rejected: no JWT", &verifier, "an-opaque-token");
    verify(criterion, "rejected: header", &verifier, &issuer.token().header("alg", "none").build());
    verify(criterion, "rejected: expired", &verifier, &issuer.token().expired().build());
}

fn verifications(criterion: &mut Criterion) {
    for algorithm in ALGORITHMS {
        let issuer = issuer(algorithm);
        let token = tokens(&issuer, 1);
        let limit = Limit::new(&issuer, algorithm, &token).expect("a key of the algorithm");
        criterion.bench_function(&format!("{algorithm}: signature alone"), |bencher| {
            bencher.iter(|| limit.time(0, 1))
        });
        let none_kept = Verifier::builder(issuer.issuer()).without_token_cache().build();
        let none_kept = none_kept.expect("an offline issuer is a good one");
        verify(criterion, &format!("{algorithm}: verified"), &none_kept, &token.concat());
        let keeps = Verifier::new(issuer.issuer()).expect("an offline issuer is a good one");
        verify(criterion, &format!("{algorithm}: verified before"), &keeps, &token.concat());
    }
}

fn key_sets(criterion: &mut Criterion) {
    let issuer = issuer(Algorithm::ES256);
    for keys in [1, 10, 100] {
        let mut json = issuer.jwks_json();
        while json["keys"].as_array().is_some_and(|list| list.len() < keys) {
            issuer.rotate().expect("another key");
            json = issuer.jwks_json();
        }
        let json = json.to_string();
        criterion.bench_function(&format!("key set read: {keys} keys"), |bencher| {
            bencher.iter(|| Jwks::from_json(black_box(&json)).map(|keys| keys.len()));
        });
    }
}

criterion_group!(steps, refusals, verifications, key_sets);
criterion_main!(steps);
