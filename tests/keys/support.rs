//! An issuer on loopback, and a verifier of its tokens.

use std::time::Duration;

use portcullis::testing::{TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Verifier};

use crate::eventually::eventually;
use crate::verdict::verdict;

/// An issuer on loopback and a verifier of its tokens.
pub(crate) struct Api {
    pub(crate) clock: TestClock,
    pub(crate) issuer: TestIssuer,
    pub(crate) verifier: Verifier,
}

/// The verifier has not fetched anything yet.
pub(crate) async fn api() -> Api {
    api_with(|issuer| issuer).await
}

pub(crate) async fn api_with(configure: impl Fn(Issuer) -> Issuer) -> Api {
    let clock = TestClock::new();
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(configure(issuer.issuer()))
        .clock(&clock)
        .without_token_cache()
        .build()
        .unwrap();
    Api { clock, issuer, verifier }
}

impl Api {
    /// Returns `ok`, or the code of the error.
    pub(crate) async fn verdict(&self, token: &str) -> &'static str {
        verdict(&self.verifier, token).await
    }

    /// The verdict on a new, valid token.
    pub(crate) async fn good(&self) -> &'static str {
        self.verdict(&self.issuer.token().build()).await
    }

    /// Waits until a background fetch has updated the keys.
    pub(crate) async fn refreshed(&self) {
        eventually("the refresh", || self.verifier.health()[0].age == Some(Duration::ZERO)).await;
    }

    pub(crate) fn seconds_pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}
