//! No HTTP: the token comes in a message, from a queue or as the first one of a websocket.
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
    // An issuer to try it with; yours is `Issuer::new("https://…", "https://api.example.com")?`.
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
            // Try such a message again later; drop the others.
            Err(error @ Error::KeysUnavailable { .. }) => println!("not now: {error}"),
            Err(error) => println!("no {}: {error}", message.order),
        }
    }
    Ok(())
}

async fn place(verifier: &Verifier, required: &Scope, message: &Message) -> Result<String, Error> {
    let token = verifier.verify(&message.token).await?;
    token.require_scope(required)?;
    Ok(token.subject().unwrap_or("a machine").to_owned())
}
