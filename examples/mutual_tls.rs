//! axum with mutual TLS: access tokens that are bound to a certificate of their client (RFC 8705).
//! Clients authenticate with self-signed certificates, and the issuer binds a token to one of them.
//!
//! `cargo run --example mutual_tls` prints commands to try it.

#[path = "mutual_tls/authority.rs"]
mod authority;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::middleware::map_request;
use axum::routing::get;
use axum::serve::{IncomingStream, Listener};
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, ClientCertificate, ClientCertificates, ProtectLayer, Verifier};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio_rustls::server::TlsStream;

use authority::{Authority, Identity, print_curl, self_signed, write_files};

/// How long a client may take for its handshake.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How many handshakes may be in progress. Further connections wait in the queue of the kernel.
const MAX_HANDSHAKES: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A test issuer. In production: `Issuer::new("https://…", "https://api.example.com")?`.
    let issuer = TestIssuer::start()?;
    let verifier = Verifier::builder(issuer.issuer())
        .client_certificates(ClientCertificates::from_connection())
        .build()?;

    let authority = Authority::new()?;
    let config = server_config(authority.server()?)?;
    let listener = TcpListener::bind("127.0.0.1:3443").await?;

    let (client, other) = (self_signed("client.example")?, self_signed("other.example")?);
    let token = issuer.token().subject("alice").bound_to_certificate(&client.0).build();
    write_files(&authority, &client, &other, &token)?;
    print_curl("https://localhost:3443/orders");
    serve(listener, config, ProtectLayer::new(verifier)).await?;
    Ok(())
}

pub(crate) async fn serve(
    listener: TcpListener,
    config: ServerConfig,
    protect: ProtectLayer,
) -> io::Result<()> {
    let app = Router::new()
        .route("/orders", get(orders).route_layer(protect))
        // The last layer is the outermost one: it runs before the token is verified.
        .layer(map_request(insert_certificate));
    let listener = TlsListener::new(listener, config)?;
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>()).await
}

async fn orders(token: AccessToken) -> String {
    format!("orders of {}\n", token.subject().unwrap_or("unknown"))
}

/// What is known about a connection.
#[derive(Clone)]
struct Peer {
    certificate: Option<ClientCertificate>,
}

/// Called once per connection, so the certificate is hashed once.
impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (_, connection) = stream.io().get_ref();
        let leaf = connection.peer_certificates().and_then(|chain| chain.first());
        Self { certificate: leaf.map(|der| ClientCertificate::from_der(der)) }
    }
}

/// Inserts the certificate where `ClientCertificates::from_connection` finds it.
async fn insert_certificate(ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request) -> Request {
    if let Some(certificate) = peer.certificate {
        request.extensions_mut().insert(certificate);
    }
    request
}

/// A listener whose connections have completed their TLS handshake.
struct TlsListener {
    address: SocketAddr,
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(1);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), sender));
        Ok(Self { address, connections })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The task that accepts connections has panicked. This method cannot return an error.
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Accepts connections until the `TlsListener` is dropped. Each handshake is a task, so a slow
/// client does not delay others.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let accepted = async {
            let permit = Arc::clone(&handshakes).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((permit, listener.accept().await?))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = connections.closed() => return,
        };
        let (permit, (stream, address)) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                // The process may have too many open files. Closed connections free some.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
                // Fails only if the listener has been dropped.
                Ok(Ok(stream)) => drop(connections.send((stream, address)).await),
                Ok(Err(error)) => eprintln!("handshake with {address}: {error}"),
                Err(_) => eprintln!("handshake with {address}: not completed in time"),
            }
            drop(permit);
        });
    }
}

/// Accepts clients that have any certificate, and clients without a certificate.
pub(crate) fn server_config((certificate, key): Identity) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyCertificate(provider)))
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts every client certificate, also a self-signed one (RFC 8705 §2.2), and clients without a
/// certificate. A bound token names the one certificate that it may be used with, so the
/// certificate need not come from an authority. The signature of the handshake is checked: it
/// proves that the client has the key.
///
/// If your clients have certificates of an authority, use `WebPkiClientVerifier`, as in
/// `mutual_tls_hyper`.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
