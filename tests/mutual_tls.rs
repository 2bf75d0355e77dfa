//! Access tokens that are bound to a certificate of the client (RFC 8705 §3), over TLS: the servers
//! of the examples with axum, hyper and tonic, called by clients with certificates of their own.
//! The binding itself is tested in `client_certificates.rs`.

#![allow(clippy::duplicate_mod, reason = "each example contains the module `authority`")]

#[path = "../examples/mutual_tls/authority.rs"]
mod authority;
#[path = "../examples/mutual_tls.rs"]
#[allow(dead_code, reason = "its `main`")]
mod axum_server;
#[path = "../examples/mutual_tls_hyper.rs"]
#[allow(dead_code, reason = "its `main`")]
mod hyper_server;
#[path = "../examples/mutual_tls_tonic.rs"]
#[allow(dead_code, reason = "its `main`")]
mod tonic_server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use authority::{Authority, Identity, self_signed};
use hyper_util::rt::TokioIo;
use portcullis::testing::TestIssuer;
use portcullis::{ClientCertificates, ProtectLayer, Verifier};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

const DESCRIPTION: &str = "error_description=\"The access token is bound to a client certificate that the request does not have\"";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framework {
    Axum,
    Hyper,
    Tonic,
}

const FRAMEWORKS: [Framework; 3] = [Framework::Axum, Framework::Hyper, Framework::Tonic];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Accepted,
    /// 401, with the description of a token that is bound to another certificate.
    Rejected,
}

/// A server of an example, and two clients of it.
struct Server {
    framework: Framework,
    address: SocketAddr,
    authority: Authority,
    own: Identity,
    other: Identity,
    /// Bound to the certificate of `own`.
    bound: String,
    unbound: String,
}

impl Server {
    async fn start(framework: Framework) -> Self {
        let authority = Authority::new().unwrap();
        let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let layer = |source| {
            let verifier = Verifier::builder(issuer.issuer()).client_certificates(source);
            ProtectLayer::new(verifier.build().unwrap())
        };
        let (identity, clients) = (authority.server().unwrap(), authority.certificate());
        let client = |name| match framework {
            Framework::Axum => self_signed(name).unwrap(),
            Framework::Hyper | Framework::Tonic => authority.client(name).unwrap(),
        };
        let (own, other) = (client("client.example"), client("other.example"));
        match framework {
            Framework::Axum => {
                let config = axum_server::server_config(identity).unwrap();
                let layer = layer(ClientCertificates::from_connection());
                tokio::spawn(axum_server::serve(listener, config, layer));
            }
            Framework::Hyper => {
                let config = hyper_server::server_config(identity, clients).unwrap();
                let layer = layer(ClientCertificates::from_connection());
                tokio::spawn(hyper_server::serve(listener, config, layer));
            }
            Framework::Tonic => {
                let config = tonic_server::server_config(&identity, &clients);
                let layer = layer(ClientCertificates::by(tonic_server::client_certificate));
                tokio::spawn(tonic_server::serve(listener, config, layer));
            }
        }
        let bound = issuer.token().bound_to_certificate(&own.0).build();
        let unbound = issuer.token().build();
        Self { framework, address, authority, own, other, bound, unbound }
    }

    /// A client with sessions of its own. Its own certificate is the first of the chain that it
    /// sends. The key may be that of another certificate.
    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<&Identity>,
    ) -> Client<'_> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => {
                let key = provider.key_provider.load_private_key(key.clone_key()).unwrap();
                let chain = vec![certificate.clone(), self.authority.certificate()];
                let certified = CertifiedKey::new(chain, key);
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![match self.framework {
            Framework::Axum | Framework::Hyper => b"http/1.1".to_vec(),
            Framework::Tonic => b"h2".to_vec(),
        }];
        Client { server: self, config: Arc::new(config) }
    }
}

struct Client<'a> {
    server: &'a Server,
    config: Arc<ClientConfig>,
}

impl Client<'_> {
    /// Sends two requests on a new connection.
    async fn call(&self, token: &str) -> io::Result<(HandshakeKind, Verdict)> {
        let stream = TcpStream::connect(self.server.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        let handshake = stream.get_ref().1.handshake_kind().unwrap();
        let verdict = match self.server.framework {
            Framework::Axum => call_http(stream, "/orders", token).await?,
            Framework::Hyper => call_http(stream, "/", token).await?,
            Framework::Tonic => call_grpc(stream, token).await?,
        };
        Ok((handshake, verdict))
    }
}

async fn call_http(
    mut stream: TlsStream<TcpStream>,
    path: &str,
    token: &str,
) -> io::Result<Verdict> {
    let request = |connection| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    let requests = request("keep-alive") + &request("close");
    stream.write_all(requests.as_bytes()).await?;
    let mut responses = String::new();
    stream.read_to_string(&mut responses).await?;
    let count = |text| responses.matches(text).count();
    match (count("HTTP/1.1 200 "), count("HTTP/1.1 401 "), count(DESCRIPTION)) {
        (2, 0, 0) => Ok(Verdict::Accepted),
        (0, 2, 2) => Ok(Verdict::Rejected),
        _ => panic!("{responses}"),
    }
}

async fn call_grpc(stream: TlsStream<TcpStream>, token: &str) -> io::Result<Verdict> {
    let mut stream = Some(stream);
    let connect = service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::other("closed"));
        async { stream.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connect).await.map_err(io::Error::other)?;
    let mut client = HealthClient::new(channel);
    let first = check(&mut client, token).await.map_err(io::Error::other)?;
    assert_eq!(check(&mut client, token).await.unwrap(), first);
    Ok(first)
}

async fn check(client: &mut HealthClient<Channel>, token: &str) -> Result<Verdict, Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    match client.check(request).await {
        Ok(_) => Ok(Verdict::Accepted),
        Err(status) if status.code() == Code::Unauthenticated => {
            let challenge = status.metadata().get("www-authenticate").unwrap().to_str().unwrap();
            assert!(challenge.contains(DESCRIPTION), "{challenge}");
            Ok(Verdict::Rejected)
        }
        Err(status) => Err(status),
    }
}

#[tokio::test]
async fn a_bound_token_needs_the_certificate_of_the_connection() {
    for framework in FRAMEWORKS {
        let server = Server::start(framework).await;
        struct Case<'a> {
            name: &'a str,
            token: &'a str,
            certificate: Option<&'a Identity>,
            expected: Verdict,
        }
        for Case { name, token, certificate, expected } in [
            Case {
                name: "its certificate",
                token: &server.bound,
                certificate: Some(&server.own),
                expected: Verdict::Accepted,
            },
            Case {
                name: "the certificate of another client",
                token: &server.bound,
                certificate: Some(&server.other),
                expected: Verdict::Rejected,
            },
            Case {
                name: "no certificate",
                token: &server.bound,
                certificate: None,
                expected: Verdict::Rejected,
            },
            Case {
                name: "an unbound token without a certificate",
                token: &server.unbound,
                certificate: None,
                expected: Verdict::Accepted,
            },
            Case {
                name: "an unbound token with a certificate",
                token: &server.unbound,
                certificate: Some(&server.other),
                expected: Verdict::Accepted,
            },
        ] {
            for version in [&TLS12, &TLS13] {
                let client = server.client(version, certificate);
                // The certificate of a resumed session is that of its first handshake.
                for handshake in [HandshakeKind::Full, HandshakeKind::Resumed] {
                    let name = format!("{framework:?}, {:?}, {name}", version.version);
                    let found = client.call(token).await;
                    let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(found, (handshake, expected), "{name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_proves_its_certificate_in_the_handshake() {
    for framework in FRAMEWORKS {
        let server = Server::start(framework).await;
        let copied = (server.own.0.clone(), server.other.1.clone_key());
        let foreign = Authority::new().unwrap().client("client.example").unwrap();
        // The example with axum accepts the certificates of all authorities, and self-signed ones.
        let any = framework == Framework::Axum;
        for (name, identity, accepted) in [
            ("its certificate", &server.own, true),
            ("a copy of it, without its key", &copied, false),
            ("a certificate of another authority", &foreign, any),
            ("a self-signed certificate", &self_signed("client.example").unwrap(), any),
        ] {
            for version in [&TLS12, &TLS13] {
                let found = server.client(version, Some(identity)).call(&server.unbound).await;
                let name = format!("{framework:?}, {:?}, {name}: {found:?}", version.version);
                assert_eq!(found.is_ok(), accepted, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn clients_of_tonic_have_an_identity() {
    let server = Server::start(Framework::Tonic).await;
    for (name, identity, expected) in [
        ("its certificate", Some(&server.own), Verdict::Accepted),
        ("the certificate of another client", Some(&server.other), Verdict::Rejected),
        ("no certificate", None, Verdict::Rejected),
    ] {
        let config = tonic_server::client_config(&server.authority.certificate(), identity);
        let url = format!("https://localhost:{}", server.address.port());
        let endpoint = Endpoint::new(url).unwrap().tls_config(config).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        let found = check(&mut client, &server.bound).await;
        let found = found.unwrap_or_else(|status| panic!("{name}: {status}"));
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test]
async fn slow_handshakes_delay_no_other_client() {
    for (framework, handshake_time) in [
        (Framework::Axum, axum_server::HANDSHAKE_TIME),
        (Framework::Hyper, hyper_server::HANDSHAKE_TIME),
        (Framework::Tonic, tonic_server::HANDSHAKE_TIME),
    ] {
        let server = Server::start(framework).await;
        let mut slow = Vec::new();
        for _ in 0..50 {
            slow.push(TcpStream::connect(server.address).await.unwrap());
        }
        // One after the other, the handshakes would take 50 times as long.
        let limit: Duration = handshake_time * 3;
        let client = server.client(&TLS13, Some(&server.own));
        let found = timeout(limit, client.call(&server.bound)).await;
        let found = found.unwrap_or_else(|_| panic!("{framework:?}: delayed"));
        let found = found.unwrap_or_else(|error| panic!("{framework:?}: {error}"));
        assert_eq!(found, (HandshakeKind::Full, Verdict::Accepted), "{framework:?}");
    }
}
