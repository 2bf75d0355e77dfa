//! What the tests of issuers share.

use portcullis::Algorithm;
use portcullis::testing::TestIssuer;

/// An issuer on loopback.
pub(crate) async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}
