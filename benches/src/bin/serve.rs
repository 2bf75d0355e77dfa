//! One contender over HTTP, for `benches/run http`. `serve NAME FILE` writes tokens to the file,
//! one per line, prints its address, and serves on one thread.

use std::env;

use axum::Router;
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, Verifier};
use portcullis_benches::contenders::{self, Failure};
use portcullis_benches::limit::{Limit, tokens};

const TOKENS: usize = 10_000;

async fn named(name: &str, issuer: &TestIssuer) -> Result<Router, Failure> {
    if name == "unprotected" {
        return Ok(contenders::unprotected());
    }
    if name == "portcullis" {
        return Ok(contenders::portcullis(&Verifier::new(issuer.issuer())?));
    }
    if name == contenders::SIGNATURE_ALONE {
        return Ok(contenders::signature_alone(Limit::new(issuer, Algorithm::RS256, &[])?));
    }
    let all = contenders::all(issuer, AUDIENCE, Algorithm::RS256).await?;
    let names: Vec<_> = all.iter().map(|contender| contender.name.clone()).collect();
    let names = names.join(", ");
    let found = all.into_iter().find(|contender| contender.name == name);
    found
        .map(|found| found.app)
        .ok_or_else(|| format!("{name}: expected unprotected, portcullis, {names}").into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    contenders::choose_backend()?;
    let mut arguments = env::args().skip(1);
    let (Some(name), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("expected the name of a contender, and a file for tokens".into());
    };
    let issuer = TestIssuer::start_with(Algorithm::RS256)?;
    let app = named(&name, &issuer).await?;
    std::fs::write(file, tokens(&issuer, TOKENS).join("\n"))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
