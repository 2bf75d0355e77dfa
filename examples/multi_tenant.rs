//! A service for many tenants: a look-up decides whom to trust, and nothing is fetched for anybody else.
//!
//! `cargo run --example multi_tenant`

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Issuer, Issuers, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (acme, globex, stranger) = (TestIssuer::start().await?, TestIssuer::start().await?, TestIssuer::start().await?);

    // Stands for a database of tenants, by the `iss` of their tokens.
    let tenants: HashMap<String, &str> = [(acme.iss().to_owned(), "acme"), (globex.iss().to_owned(), "globex")].into();
    let tenants = Arc::new(tenants);

    let by_issuer = Arc::clone(&tenants);
    let issuers = Issuers::lookup_async(move |iss: String| {
        let tenants = Arc::clone(&by_issuer);
        async move {
            let known = tenants.contains_key(&iss);
            // An error would mean that the database could not be asked: 503, not 401.
            Ok::<_, Infallible>(known.then(|| Issuer::new(iss, AUDIENCE).ok()).flatten())
        }
    });
    // These test issuers are on loopback. Leave it away where strangers may register issuers.
    let verifier = Verifier::new(issuers.danger_allow_private_addresses())?;

    for issuer in [&acme, &globex, &stranger] {
        match verifier.verify(&issuer.token().subject("alice").build()).await {
            Ok(token) => println!("{} of {}", token.subject().unwrap_or_default(), tenants[token.issuer()]),
            Err(error) => println!("refused: {error}"),
        }
    }
    println!("asked the stranger for keys: {} times", stranger.jwks_fetches());
    Ok(())
}
