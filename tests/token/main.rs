//! Tokens: which of them verify, and what a verified token returns.

mod access_token;
mod algorithms;
mod audience;
mod claims;
mod dates;
mod header;
mod jwks;
mod jws;
mod ml_dsa;
mod pem;
mod scope;
mod signature;
mod vectors;

#[path = "../support/verdict.rs"]
mod verdict;

use portcullis::testing::{TestClock, TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Algorithm, Issuer, Verifier};
use serde_json::Value;

const ISS: &str = "https://issuer.example/tenant/";

/// An issuer and a verifier with one clock.
struct Api {
    issuer: TestIssuer,
    clock: TestClock,
    verifier: Verifier,
}

fn api(configure: impl Fn(Issuer) -> Issuer) -> Api {
    let clock = TestClock::new();
    let issuer = TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(configure(issuer.issuer())).clock(&clock).build().unwrap();
    Api { issuer, clock, verifier }
}

impl Api {
    fn now(&self) -> u64 {
        self.clock.unix_seconds()
    }

    /// Returns `ok`, or the code of the error.
    async fn verdict(&self, token: TokenBuilder) -> &'static str {
        verdict::verdict(&self.verifier, &token.build()).await
    }

    async fn verified(&self, token: TokenBuilder) -> AccessToken {
        self.verifier.verify(&token.build()).await.unwrap()
    }
}

/// A value of a claim.
struct ClaimValue {
    name: &'static str,
    value: Value,
    expected: &'static str,
}

/// Sets `claim` to each value in an otherwise valid token.
async fn check_values(claim: &str, cases: &[ClaimValue]) {
    let api = api(|issuer| issuer);
    for ClaimValue { name, value, expected } in cases {
        let token = api.issuer.token().claim(claim, value.clone());
        assert_eq!(api.verdict(token).await, *expected, "{claim}: {name}");
    }
}

/// A token with the members of a JSON object as claims.
fn with_claims(token: TokenBuilder, claims: &Value) -> TokenBuilder {
    let claims = claims.as_object().unwrap().clone();
    claims.into_iter().fold(token, |token, (name, value)| token.claim(&name, value))
}

/// A JWK set with one key.
fn set(jwk: &str) -> String {
    format!("{{\"keys\":[{jwk}]}}")
}
