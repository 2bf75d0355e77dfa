//! What a configuration makes of a token, step by step: for whoever gets 401 and does not see why.
//!
//! `cargo run --example inspect -- --issuer https://acme.eu.auth0.com/ --audience https://api.example.com TOKEN`
//!
//! The token is read from standard input if it is `-`, so that it need not stand in the shell's history. Nothing is sent to
//! anybody but the issuer, which is asked for its keys.

use std::io::Read as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Parser;
use portcullis::{Audience, Error, InvalidToken, Issuer, Jwks, Verifier};

#[derive(Parser)]
#[command(about = "What a configuration makes of an access token, step by step")]
struct Arguments {
    /// The issuer, exactly as it stands in `iss`.
    #[arg(long)]
    issuer: String,
    /// This API's identifier, as it stands in `aud`.
    #[arg(long, required_unless_present = "client_id")]
    audience: Option<String>,
    /// The application that may call, where the issuer sends no `aud` (Amazon Cognito).
    #[arg(long, conflicts_with = "audience")]
    client_id: Option<String>,
    /// Take the keys from this file (a JWK Set), and ask nobody.
    #[arg(long)]
    jwks: Option<std::path::PathBuf>,
    /// Take the keys from this address, without discovery.
    #[arg(long, conflicts_with = "jwks")]
    jwks_uri: Option<String>,
    /// The access token, or `-` to read it from standard input.
    token: String,
}

/// The steps of a verification, in order, and the errors that each may end with.
const STEPS: [(&str, &[&str]); 6] = [
    (
        "its form and kind: three parts, base64url, JSON, `typ`",
        &["too_large", "opaque", "encrypted", "malformed", "critical", "type"],
    ),
    ("its claims: what every access token has", &["missing_claim", "claim_type"]),
    ("its issuer: trusted, and with this algorithm", &["unknown_issuer", "unsupported_algorithm", "tenant"]),
    (
        "for whom, until when, and what the issuer's tokens say",
        &[
            "audience",
            "expired",
            "not_yet_valid",
            "issued_in_the_future",
            "sender_constrained",
            "claim_value",
            "microsoft_nonce",
        ],
    ),
    ("the issuer's keys", &["keys_unavailable", "unknown_key"]),
    ("its signature", &["signature"]),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let mut token = arguments.token;
    if token == "-" {
        token.clear();
        std::io::stdin().read_to_string(&mut token)?;
    }
    let token = token.trim();
    let audience = match arguments.client_id {
        Some(client) => Audience::client_id([client]),
        None => Audience::any_of(arguments.audience),
    };
    let mut issuer = Issuer::new(arguments.issuer, audience)?;
    if let Some(file) = arguments.jwks {
        issuer = issuer.jwks(Jwks::from_json(std::fs::read(file)?)?);
    }
    if let Some(uri) = arguments.jwks_uri {
        issuer = issuer.jwks_uri(&uri)?;
    }
    let verifier = Verifier::new(issuer)?;

    println!("What it says (nothing of it is verified yet):");
    for (name, part) in ["header", "claims"].iter().zip(token.split('.')) {
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let json = decoded.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        match json {
            Some(json) => println!("  {name}: {json:#}"),
            None => println!("  {name}: not JSON in base64url"),
        }
    }

    println!("\nWhat is checked:");
    let result = verifier.verify(token).await;
    let code = result.as_ref().err().map(Error::code);
    for (step, errors) in STEPS {
        match (&result, code) {
            (Err(error), Some(code)) if errors.contains(&code) => {
                println!("  ✗ {step}\n\nRefused ({code}): {error}");
                if let Err(Error::InvalidToken(InvalidToken::UnknownKey { .. })) = &result {
                    for issuer in verifier.health() {
                        println!("{} has {} usable keys, ignored: {:?}", issuer.iss, issuer.keys, issuer.ignored);
                    }
                }
                std::process::exit(1);
            }
            _ => println!("  ✓ {step}"),
        }
    }
    let token = result?;
    println!("\nAccepted. What handlers see:");
    println!("  issuer    {}", token.issuer());
    println!("  subject   {}", token.subject().unwrap_or("-"));
    println!("  client_id {}", token.client_id().unwrap_or("-"));
    println!("  scope     {}", token.scope());
    for claim in ["permissions", "roles", "groups"] {
        if let Some(value) = token.claim(claim) {
            println!("  {claim:<9} {value}");
        }
    }
    Ok(())
}
