//! A gRPC service behind the same layer: a health service with tonic that reads the access token.
//!
//! `cargo run --example tonic`

use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ProtectLayer, Verifier};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A test issuer. In production: `Issuer::new("https://…", "https://api.example.com")?`.
    let issuer = TestIssuer::start()?;
    let protect = ProtectLayer::new(Verifier::new(issuer.issuer())?).scope("health:read");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(
        Server::builder()
            .layer(protect)
            .add_service(HealthServer::new(Greeter))
            .serve_with_incoming(incoming),
    );

    let mut client = HealthClient::new(Endpoint::new(address)?.connect().await?);
    let refused = client.check(HealthCheckRequest::default()).await;
    println!("without a token: {:?}", refused.map_err(|status| status.code()));

    let mut request = Request::new(HealthCheckRequest::default());
    let token = issuer.token().subject("alice").scope("health:read").build();
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    println!("with a token: {:?}", client.check(request).await?.into_inner());
    Ok(())
}

struct Greeter;

#[tonic::async_trait]
impl Health for Greeter {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        // Inserted by the layer; missing if the service is called without it.
        let token = request
            .extensions()
            .get::<AccessToken>()
            .ok_or_else(|| Status::internal("the ProtectLayer is missing"))?;
        println!("called by {}", token.subject().unwrap_or("a machine"));
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}
