//! Checks that every contender does the work that it is measured for: it passes the valid token to
//! the handler, and rejects each token that is invalid in one way.

use std::process::ExitCode;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::AUTHORIZATION;
use axum::http::{Request, StatusCode};
use portcullis::Algorithm;
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis_benches::contenders::{Failure, all, choose_backend};
use tower::ServiceExt;

const SUBJECT: &str = "auth0|6553da60a54af58e29493993";

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    choose_backend()?;
    let mut exit = ExitCode::SUCCESS;
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
        let issuer = TestIssuer::start_with(algorithm)?;
        let untrusted = TestIssuer::start_with(algorithm)?;
        let token = || issuer.token().subject(SUBJECT).scope("read:messages");
        let good = token().build();
        let bad = [
            ("wrong audience", token().audience("https://other.example/").build()),
            ("wrong issuer", token().issued_by("https://evil.example/").build()),
            ("no audience", token().without_claim("aud").build()),
            ("no issuer", token().without_claim("iss").build()),
            ("expired", token().expired().build()),
            ("forged", token().signed_by(&untrusted).build()),
        ];
        for contender in all(&issuer, AUDIENCE, algorithm).await? {
            let (status, body) = answer(&contender.app, &good).await?;
            let mut right = status == StatusCode::OK && body == SUBJECT;
            let mut line = format!("good {} {body:?}", status.as_u16());
            for (what, token) in &bad {
                let (status, _) = answer(&contender.app, token).await?;
                right &= status != StatusCode::OK;
                line += &format!(", {what} {}", status.as_u16());
            }
            if !right {
                exit = ExitCode::FAILURE;
            }
            let verdict = if right { "ok" } else { "NOT OK" };
            println!("{:5} {:28} {verdict}: {line}", algorithm.name(), contender.name);
        }
    }
    Ok(exit)
}

async fn answer(app: &Router, token: &str) -> Result<(StatusCode, String), Failure> {
    let request =
        Request::get("/").header(AUTHORIZATION, format!("Bearer {token}")).body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let status = response.status();
    let body = to_bytes(response.into_body(), 65536).await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
