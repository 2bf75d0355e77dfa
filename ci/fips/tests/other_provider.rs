//! The application installed a TLS provider with algorithms that the module does not approve. A
//! process of its own, because there is one such provider per process.

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Issuer, Verifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};

#[test]
fn another_tls_provider_is_an_error_where_the_built_in_client_is_used() {
    let provider = CryptoProvider {
        kx_groups: aws_lc_rs::ALL_KX_GROUPS.to_vec(),
        ..aws_lc_rs::default_provider()
    };
    assert!(!provider.fips(), "X25519 alone is not approved");
    provider.install_default().unwrap();

    let issuer = || Issuer::new("https://issuer.example/", AUDIENCE).unwrap();
    let fetched = Verifier::builder(issuer()).require_fips().build().unwrap_err();
    assert!(fetched.to_string().contains("TLS provider in FIPS mode"), "{fetched}");

    let client = reqwest::Client::new();
    assert!(
        Verifier::builder(issuer()).client(client).require_fips().build().is_ok(),
        "own client"
    );
    let keys = TestIssuer::offline("https://issuer.example/").unwrap().jwks();
    assert!(Verifier::builder(issuer().jwks(keys)).require_fips().build().is_ok(), "fixed keys");
    assert!(Verifier::new(issuer()).is_ok(), "FIPS mode is not required");
}
