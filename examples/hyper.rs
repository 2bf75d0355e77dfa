//! hyper 1 without a framework: the service reads the access token from the request's extensions.
//!
//! `cargo run --example hyper`

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ProtectLayer, Verifier};
use tower::{ServiceBuilder, service_fn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A test issuer. In production: `Issuer::new("https://…", "https://api.example.com")?`.
    let issuer = TestIssuer::start()?;
    let protect = ProtectLayer::new(Verifier::new(issuer.issuer())?);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!(
        "curl -i http://127.0.0.1:3000/ -H 'Authorization: Bearer {}'",
        issuer.token().subject("alice").build()
    );

    let service = ServiceBuilder::new().layer(protect).service(service_fn(greet));
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            if let Err(error) =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
            {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn greet(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token = request.extensions().get::<AccessToken>();
    let name = token.and_then(AccessToken::subject).unwrap_or("unknown");
    Ok(Response::new(Full::from(format!("Hello {name}\n"))))
}
