//! A multi-tenant service: a lookup decides which issuers are trusted. Nothing is fetched for other
//! issuers.
//!
//! `cargo run --example multi_tenant`

use std::collections::HashMap;
use std::sync::Arc;

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Issuer, Issuers, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (acme, globex, untrusted) =
        (TestIssuer::start()?, TestIssuer::start()?, TestIssuer::start()?);

    // Stands in for a database of tenants, by the `iss` of their tokens.
    let tenants: HashMap<String, &str> =
        [(acme.iss().to_owned(), "acme"), (globex.iss().to_owned(), "globex")].into();
    let tenants = Arc::new(tenants);

    let by_issuer = Arc::clone(&tenants);
    let issuers = Issuers::lookup_async(move |iss: String| {
        let tenants = Arc::clone(&by_issuer);
        async move {
            // `None`: not a tenant, 401. An error (of the database, or an invalid record): 503,
            // and an event in the log. Use the spelling of the record, not that of the token:
            // otherwise, with a database that ignores case or accents, an issuer of another
            // spelling could pass for this tenant.
            tenants.get_key_value(&iss).map(|(own, _)| Issuer::new(own, AUDIENCE)).transpose()
        }
    });
    // More than the number of tenants. Otherwise tenants evict each other's keys.
    let issuers = issuers.max_cached(10_000);
    // Only for these test issuers, which are on loopback. Do not call this in production.
    let verifier = Verifier::new(issuers.danger_allow_private_addresses())?;

    for issuer in [&acme, &globex, &untrusted] {
        match verifier.verify(&issuer.token().subject("alice").build()).await {
            Ok(token) => {
                println!("{} of {}", token.subject().unwrap_or_default(), tenants[token.issuer()]);
            }
            Err(error) => println!("rejected: {error}"),
        }
    }
    println!("key fetches from the untrusted issuer: {}", untrusted.jwks_fetches());
    Ok(())
}
