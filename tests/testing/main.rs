//! The test kit.

mod authenticated;
mod challenge;
mod issuer;
mod token_builder;

#[path = "../support/verdict.rs"]
mod verdict;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Verifier};
use serde_json::Value;

/// Decodes header and claims of a token without verification.
fn parts(token: &str) -> (Value, Value) {
    let part = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let mut parts = token.split('.');
    (part(parts.next().unwrap()), part(parts.next().unwrap()))
}

async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}

/// Verifies with a new verifier. Returns `ok`, or the code of the error.
async fn verdict(issuer: &TestIssuer, token: &str) -> &'static str {
    verdict::verdict(&Verifier::new(issuer.issuer()).unwrap(), token).await
}
