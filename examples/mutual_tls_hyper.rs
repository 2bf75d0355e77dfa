//! hyper 1 and tokio-rustls with mutual TLS: access tokens that are bound to the certificate of
//! their client (RFC 8705). Clients have certificates of an authority; for self-signed ones, see
//! `mutual_tls`.
//!
//! `cargo run --example mutual_tls_hyper` prints commands to try it.

#[path = "mutual_tls/authority.rs"]
mod authority;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ClientCertificate, ClientCertificates, ProtectLayer, Verifier};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

use authority::{Authority, Identity, print_curl, write_files};

/// How long a client may take for its handshake.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A test issuer. In production: `Issuer::new("https://…", "https://api.example.com")?`.
    let issuer = TestIssuer::start()?;
    let verifier = Verifier::builder(issuer.issuer())
        .client_certificates(ClientCertificates::from_connection())
        .build()?;

    let authority = Authority::new()?;
    let config = server_config(authority.server()?, authority.certificate())?;
    let listener = TcpListener::bind("127.0.0.1:3444").await?;

    let (client, other) = (authority.client("client.example")?, authority.client("other.example")?);
    let token = issuer.token().subject("alice").bound_to_certificate(&client.0).build();
    write_files(&authority, &client, &other, &token)?;
    print_curl("https://localhost:3444/");
    serve(listener, config, ProtectLayer::new(verifier)).await;
    Ok(())
}

/// Accepts clients that have a certificate of the authority `clients`, and clients without a
/// certificate.
pub(crate) fn server_config(
    (certificate, key): Identity,
    clients: CertificateDer<'static>,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(clients)?;
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            // For clients whose tokens are not bound to a certificate.
            .allow_unauthenticated()
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

pub(crate) async fn serve(listener: TcpListener, config: ServerConfig, protect: ProtectLayer) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let service = ServiceBuilder::new().layer(protect).service(service_fn(greet));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                // The process may have too many open files. Closed connections free some.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, service) = (acceptor.clone(), service.clone());
        // The handshake is part of the task, so a slow client does not delay others.
        tokio::spawn(async move {
            let stream = match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return eprintln!("handshake with {address}: {error}"),
                Err(_) => return eprintln!("handshake with {address}: not completed in time"),
            };
            let (_, connection) = stream.get_ref();
            let leaf = connection.peer_certificates().and_then(|chain| chain.first());
            // Hashed once per connection.
            let certificate = leaf.map(|der| ClientCertificate::from_der(der));
            let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                if let Some(certificate) = certificate {
                    request.extensions_mut().insert(certificate);
                }
                service.clone().oneshot(request)
            });
            let mut server = http1::Builder::new();
            // With a timer, a client also has a limited time to send the headers of a request.
            server.timer(TokioTimer::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection of {address}: {error}");
            }
        });
    }
}

async fn greet(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token = request.extensions().get::<AccessToken>();
    let name = token.and_then(AccessToken::subject).unwrap_or("unknown");
    Ok(Response::new(Full::from(format!("Hello {name}\n"))))
}
