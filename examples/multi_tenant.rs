//! A service for many tenants: a look-up decides whom to trust, and nothing is fetched for anybody else.
//!
//! `cargo run --example multi_tenant`

use std::collections::HashMap;
use std::sync::Arc;

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Issuer, Issuers, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (acme, globex, stranger) =
        (TestIssuer::start()?, TestIssuer::start()?, TestIssuer::start()?);

    // Stands for a database of tenants, by the `iss` of their tokens.
    let tenants: HashMap<String, &str> =
        [(acme.iss().to_owned(), "acme"), (globex.iss().to_owned(), "globex")].into();
    let tenants = Arc::new(tenants);

    let by_issuer = Arc::clone(&tenants);
    let issuers = Issuers::lookup_async(move |iss: String| {
        let tenants = Arc::clone(&by_issuer);
        async move {
            // `None`: not one of ours, 401. An error (of the database, or a record that cannot work): 503, and in the log.
            // Made of the record's own spelling: a database that compares without case or accents would otherwise have an issuer of
            // another spelling pass for this tenant.
            tenants.get_key_value(&iss).map(|(own, _)| Issuer::new(own, AUDIENCE)).transpose()
        }
    });
    // As many as there are tenants, and some more: else they push each other's keys out.
    let issuers = issuers.max_cached(10_000);
    // Only because these test issuers are on loopback: leave this call out.
    let verifier = Verifier::new(issuers.danger_allow_private_addresses())?;

    for issuer in [&acme, &globex, &stranger] {
        match verifier.verify(&issuer.token().subject("alice").build()).await {
            Ok(token) => {
                println!("{} of {}", token.subject().unwrap_or_default(), tenants[token.issuer()]);
            }
            Err(error) => println!("refused: {error}"),
        }
    }
    println!("asked the stranger for keys: {} times", stranger.jwks_fetches());
    Ok(())
}
