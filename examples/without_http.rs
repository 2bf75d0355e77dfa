//! Verification without HTTP: the token is in a message from a queue, or is the first message of a
//! websocket.
//!
//! `cargo run --example without_http`

use portcullis::testing::TestIssuer;
use portcullis::{Error, Scope, Verifier};

struct Message {
    token: String,
    order: &'static str,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A test issuer. In production: `Issuer::new("https://…", "https://api.example.com")?`.
    let issuer = TestIssuer::start()?;
    let verifier = Verifier::new(issuer.issuer())?;

    let required: Scope = "orders:write".parse()?;
    let messages = [
        Message {
            token: issuer.token().subject("alice").scope("orders:write").build(),
            order: "a bicycle",
        },
        Message { token: issuer.token().subject("bob").build(), order: "a boat" },
        Message { token: issuer.token().expired().build(), order: "yesterday's paper" },
    ];
    for message in messages {
        match place(&verifier, &required, &message).await {
            Ok(who) => println!("{who} ordered {}", message.order),
            // Temporary: retry this message later. Drop messages with any other error.
            Err(error @ Error::KeysUnavailable { .. }) => println!("retry later: {error}"),
            Err(error) => println!("rejected order of {}: {error}", message.order),
        }
    }
    Ok(())
}

async fn place(verifier: &Verifier, required: &Scope, message: &Message) -> Result<String, Error> {
    let token = verifier.verify(&message.token).await?;
    token.require_scope(required)?;
    Ok(token.subject().unwrap_or("a machine").to_owned())
}
