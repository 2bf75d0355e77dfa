//! A gRPC service with tonic and mutual TLS: access tokens that are bound to the certificate of
//! their client (RFC 8705). tonic ends TLS itself. Clients have certificates of an authority.
//!
//! `cargo run --example mutual_tls_tonic` calls the service with and without a certificate.

#[path = "mutual_tls/authority.rs"]
mod authority;

use std::time::Duration;

use axum::http::request::Parts;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ClientCertificate, ClientCertificates, ProtectLayer, Verifier};
use tokio::net::TcpListener;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming, TlsConnectInfo};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use authority::{Authority, Identity, certificate_pem, key_pem, write_files};

/// How long a client may take for its handshake. tonic has no default.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A test issuer. In production: `Issuer::new("https://…", "https://api.example.com")?`.
    let issuer = TestIssuer::start()?;
    let verifier = Verifier::builder(issuer.issuer())
        .client_certificates(ClientCertificates::by(client_certificate))
        .build()?;

    let authority = Authority::new()?;
    let config = server_config(&authority.server()?, &authority.certificate());
    let listener = TcpListener::bind("127.0.0.1:3445").await?;
    let server = tokio::spawn(serve(listener, config, ProtectLayer::new(verifier)));

    let (client, other) = (authority.client("client.example")?, authority.client("other.example")?);
    let token = issuer.token().subject("alice").bound_to_certificate(&client.0).build();
    for (name, identity) in [
        ("with the client's certificate", Some(&client)),
        ("with another certificate", Some(&other)),
        ("without a certificate", None),
    ] {
        let endpoint = Endpoint::from_static("https://localhost:3445")
            .tls_config(client_config(&authority.certificate(), identity))?;
        let mut client = HealthClient::new(endpoint.connect().await?);
        let mut request = Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let response = client.check(request).await;
        println!("{name}: {:?}", response.map(Response::into_inner).map_err(|error| error.code()));
    }

    println!("For a client of yours, until Ctrl-C stops the server at localhost:3445:");
    write_files(&authority, &client, &other, &token)?;
    server.await??;
    Ok(())
}

/// Returns the client's own certificate, from what tonic inserts into each request.
pub(crate) fn client_certificate(request: &Parts) -> Option<ClientCertificate> {
    let connection = request.extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?;
    let chain = connection.peer_certs()?;
    Some(ClientCertificate::from_der(chain.first()?))
}

/// Accepts clients that have a certificate of the authority `clients`, and clients without a
/// certificate.
pub(crate) fn server_config(
    identity: &Identity,
    clients: &CertificateDer<'static>,
) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(pem(identity))
        .client_ca_root(Certificate::from_pem(certificate_pem(clients)))
        // For clients whose tokens are not bound to a certificate.
        .client_auth_optional(true)
        .timeout(HANDSHAKE_TIME)
}

pub(crate) fn client_config(
    server: &CertificateDer<'static>,
    identity: Option<&Identity>,
) -> ClientTlsConfig {
    let config =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate_pem(server)));
    match identity {
        Some(identity) => config.identity(pem(identity)),
        None => config,
    }
}

fn pem((certificate, key): &Identity) -> tonic::transport::Identity {
    tonic::transport::Identity::from_pem(certificate_pem(certificate), key_pem(key))
}

pub(crate) async fn serve(
    listener: TcpListener,
    config: ServerTlsConfig,
    protect: ProtectLayer,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .tls_config(config)?
        .layer(protect)
        .add_service(HealthServer::new(Greeter))
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
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
