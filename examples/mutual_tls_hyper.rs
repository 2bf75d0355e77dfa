//! hyper 1 and tokio-rustls with mutual TLS: access tokens that are bound to the certificate of
//! their client (RFC 8705). Clients have certificates of an authority; for self-signed ones, see
//! `mutual_tls`.
//!
//! `cargo run --example mutual_tls_hyper` prints commands to try it.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ClientCertificate, ClientCertificates, ProtectLayer, Verifier};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

/// How long a client may take for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A test issuer. In production: `Issuer::new("https://…", "https://api.example.com")?`.
    let issuer = TestIssuer::start()?;
    let verifier = Verifier::builder(issuer.issuer())
        .client_certificates(ClientCertificates::from_connection())
        .build()?;
    let protect = ProtectLayer::new(verifier);
    let service = ServiceBuilder::new().layer(protect).service(service_fn(greet));

    let authority = Authority::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config()?));
    let listener = TcpListener::bind("127.0.0.1:3444").await?;
    print_commands(&issuer, &authority)?;

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

/// Issues the certificates of the server and of the clients. In production, that of the server may
/// come from a public authority.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let mut params = rcgen::CertificateParams::default();
        // Otherwise it would have the name of the certificates that it issues.
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of the example");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, issuer: rcgen::Issuer::new(params, key) })
    }

    fn issue(
        &self,
        name: &str,
        purpose: rcgen::ExtendedKeyUsagePurpose,
    ) -> Result<(rcgen::Certificate, rcgen::KeyPair), rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new([name.to_owned()])?;
        params.extended_key_usages = vec![purpose];
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    fn server_config(&self) -> Result<ServerConfig, Box<dyn std::error::Error>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone())?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                // For clients whose tokens are not bound to a certificate.
                .allow_unauthenticated()
                .build()?;
        let (certificate, key) =
            self.issue("localhost", rcgen::ExtendedKeyUsagePurpose::ServerAuth)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Stands in for a client that has registered its certificate at the issuer.
fn print_commands(
    issuer: &TestIssuer,
    authority: &Authority,
) -> Result<(), Box<dyn std::error::Error>> {
    let (certificate, key) =
        authority.issue("client.example", rcgen::ExtendedKeyUsagePurpose::ClientAuth)?;
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));
    let token = issuer.token().subject("alice").claim("cnf", json!({ "x5t#S256": hash })).build();
    let folder = std::env::temp_dir().join(format!("portcullis-mutual-tls-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    write_pem(&folder.join("authority.pem"), "CERTIFICATE", authority.certificate.der())?;
    write_pem(&folder.join("client.pem"), "CERTIFICATE", certificate.der())?;
    write_pem(&folder.join("client-key.pem"), "PRIVATE KEY", &key.serialize_der())?;

    println!("cd {}", folder.display());
    println!("TOKEN={token}");
    let curl = "curl -i https://localhost:3444/ --cacert authority.pem";
    let token = "-H \"Authorization: Bearer $TOKEN\"";
    println!("With the client's certificate, 200:");
    println!("  {curl} --cert client.pem --key client-key.pem {token}");
    println!("Without it, 401:");
    println!("  {curl} {token}");
    Ok(())
}

fn write_pem(path: &Path, label: &str, der: &[u8]) -> io::Result<()> {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let body = lines.join("\n");
    std::fs::write(path, format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"))
}
