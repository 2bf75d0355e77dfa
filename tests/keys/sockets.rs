//! Issuers that misbehave below HTTP, and TLS, with real sockets on loopback.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Error, FetchError, Issuer, Verifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::scripted::keys;

/// Starts a server that reads a request and then calls `behave` with the connection.
async fn serve<F: Future<Output = ()> + Send>(
    behave: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            behave(stream).await;
        }
    });
    address
}

/// Fetches the keys at `uri` with a verifier and returns the kind of failure.
async fn fetch(
    keys: &TestIssuer,
    uri: &str,
    client: Option<reqwest::Client>,
) -> Result<(), String> {
    let issuer = Issuer::new(keys.iss(), AUDIENCE)
        .and_then(|issuer| issuer.jwks_uri(uri))
        .and_then(|issuer| issuer.keys_fetch_timeout(Duration::from_millis(500)))
        .unwrap();
    let issuer = client.into_iter().fold(issuer, Issuer::client);
    match Verifier::new(issuer).unwrap().verify(&keys.token().build()).await {
        Ok(_) => Ok(()),
        Err(Error::KeysUnavailable { reason: source, .. }) => Err(match source {
            FetchError::Timeout { .. } => "timeout".to_owned(),
            FetchError::TooLarge { .. } => "too large".to_owned(),
            FetchError::Transport { .. } => "transport".to_owned(),
            other => other.to_string(),
        }),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn misbehaving_connections_end_with_an_error() {
    let keys = keys();
    let good = keys.jwks_json().to_string();
    let answer = |headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{headers}\r\n");
        [head.as_bytes(), body].concat()
    };
    let length = |bytes: usize| format!("content-length: {bytes}\r\n");
    struct Case {
        name: &'static str,
        bytes: Vec<u8>,
        expected: Result<(), &'static str>,
    }
    let cases = [
        Case {
            name: "a valid response",
            bytes: answer(&length(good.len()), good.as_bytes()),
            expected: Ok(()),
        },
        Case { name: "no content-length", bytes: answer("", good.as_bytes()), expected: Ok(()) },
        Case { name: "no response", bytes: vec![], expected: Err("transport") },
        Case {
            name: "another protocol",
            bytes: b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            expected: Err("transport"),
        },
        Case {
            name: "truncated",
            bytes: answer(&length(good.len() + 1), good.as_bytes()),
            expected: Err("transport"),
        },
        Case {
            name: "a wrong content-length",
            bytes: answer(&length(usize::MAX), good.as_bytes()),
            expected: Err("transport"),
        },
        Case {
            name: "endless headers",
            bytes: answer(&"x: y\r\n".repeat(100_000), b""),
            expected: Err("transport"),
        },
        Case {
            name: "a large chunked body",
            bytes: answer(
                "transfer-encoding: chunked\r\n",
                format!("{:x}\r\n{}\r\n0\r\n\r\n", 300_000, " ".repeat(300_000)).as_bytes(),
            ),
            expected: Err("too large"),
        },
    ];
    for Case { name, bytes, expected } in cases {
        let address = serve(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        })
        .await;
        let result = fetch(&keys, &format!("http://{address}/keys"), None).await;
        assert_eq!(result.as_ref().map_err(String::as_str).copied(), expected, "{name}");
    }
}

/// The server sends one byte at a time and never ends. The time limit covers the whole response,
/// not each byte.
#[tokio::test]
async fn a_slow_response_ends_at_the_time_limit() {
    let keys = keys();
    for head in ["HTTP/1.1 200 OK\r\nx: ", "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"] {
        let address = serve(move |mut stream| async move {
            let _ = stream.write_all(head.as_bytes()).await;
            tokio::spawn(async move {
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        })
        .await;
        let result = fetch(&keys, &format!("http://{address}/keys"), None).await;
        assert_eq!(result, Err("timeout".to_owned()), "after {head:?}");
    }
}

/// The compressed body is small. The limit applies to the decompressed body, which is held in
/// memory.
#[tokio::test]
async fn the_size_limit_applies_to_the_decompressed_body() {
    let keys = keys();
    let good = keys.jwks_json().to_string();
    for (padding, expected) in [(1_000, Ok(())), (200_000_000, Err("too large".to_owned()))] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(good.as_bytes()).unwrap();
        let blank = [b' '; 10_000];
        for _ in 0..padding / blank.len() {
            encoder.write_all(&blank).unwrap();
        }
        let body = encoder.finish().unwrap();
        let address = serve(move |mut stream| {
            let body = body.clone();
            async move {
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: gzip\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body).await;
                let _ = stream.shutdown().await;
            }
        })
        .await;
        let client = reqwest::Client::builder().gzip(true).build().unwrap();
        let result = fetch(&keys, &format!("http://{address}/keys"), Some(client)).await;
        assert_eq!(result, expected, "{padding} bytes of padding");
    }
}

#[cfg(feature = "aws-lc-rs")]
#[tokio::test]
async fn a_private_certificate_authority_is_trusted_only_by_a_client_configured_for_it() {
    use std::sync::Arc;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
            .unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));

    let keys = keys();
    let body = keys.jwks_json().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    assert_eq!(fetch(&keys, &uri, None).await, Err("transport".to_owned()), "an unknown authority");
    let authority = reqwest::Certificate::from_der(cert.der()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    assert_eq!(fetch(&keys, &uri, Some(client)).await, Ok(()));
}
