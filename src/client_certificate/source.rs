//! Where the client's certificate is found: in the connection, by a closure, or in the header of a
//! proxy. Exactly one of them is configured, and no other is read.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use super::ClientCertificate;
use super::header::{CertificateHeader, Unreadable};

/// Where a verifier finds the certificate of a client (RFC 8705), for
/// [`VerifierBuilder::client_certificates`](crate::VerifierBuilder::client_certificates).
///
/// Only the configured source is read. Behind a proxy that ends TLS, the certificate of the
/// connection is that of the proxy. Without a proxy, every client could write its header.
#[derive(Clone)]
#[must_use]
pub struct ClientCertificates(Source);

#[derive(Clone)]
enum Source {
    Connection,
    Closure(Arc<CertificateFn>),
    Header { header: CertificateHeader, is_trusted: Arc<TrustFn> },
}

type CertificateFn = dyn Fn(&Parts) -> Option<ClientCertificate> + Send + Sync;
type TrustFn = dyn Fn(&Parts) -> bool + Send + Sync;

/// What a source finds in a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// The client authenticated without a certificate.
    None,
    Certificate(ClientCertificate),
    /// The header came from a peer that is not the proxy, so it is ignored.
    Untrusted,
    /// The proxy sent a header of another form than configured, so its certificate is unknown.
    Unreadable(Unreadable),
}

impl ClientCertificates {
    /// In the request's extensions, where the server that accepted the TLS connection inserted a
    /// [`ClientCertificate`].
    pub fn from_connection() -> Self {
        Self(Source::Connection)
    }

    /// By a closure, for a server that inserts a type of its own into the request's extensions.
    ///
    /// ```
    /// use portcullis::{ClientCertificate, ClientCertificates};
    ///
    /// /// What the server of this application inserts for each connection.
    /// #[derive(Clone)]
    /// struct Connection {
    ///     certificate_sha256: Option<[u8; 32]>,
    /// }
    ///
    /// let source = ClientCertificates::by(|request| {
    ///     let connection = request.extensions.get::<Connection>()?;
    ///     connection.certificate_sha256.map(ClientCertificate::from_sha256)
    /// });
    /// ```
    pub fn by(
        certificate: impl Fn(&Parts) -> Option<ClientCertificate> + Send + Sync + 'static,
    ) -> Self {
        Self(Source::Closure(Arc::new(certificate)))
    }

    /// In the header of a proxy that ends TLS. `is_trusted` decides whether a request came from
    /// that proxy: by the address of the peer, or by a header with a secret that the proxy adds.
    /// Clients can write the header as well, so that of any other peer is ignored.
    ///
    /// The proxy must replace or remove a header of this name that a client sends, also if the
    /// client has no certificate.
    ///
    /// ```
    /// use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    ///
    /// use axum::extract::ConnectInfo;
    /// use portcullis::{CertificateHeader, ClientCertificates};
    ///
    /// const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
    ///
    /// let header = CertificateHeader::nginx("ssl-client-cert")?;
    /// // Needs `into_make_service_with_connect_info::<SocketAddr>()`.
    /// let source = ClientCertificates::forwarded(header, |request| {
    ///     let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    ///     peer.is_some_and(|ConnectInfo(address)| address.ip() == PROXY)
    /// });
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn forwarded(
        header: CertificateHeader,
        is_trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Source::Header { header, is_trusted: Arc::new(is_trusted) })
    }

    /// In a header, whichever peer sends it. Dangerous: a client that reaches the API without the
    /// proxy can write the certificate of another client into the header, and use a stolen token
    /// that is bound to it. Only for networks where no peer but the proxy can reach the API.
    pub fn danger_forwarded_by_any_peer(header: CertificateHeader) -> Self {
        Self::forwarded(header, |_| true)
    }

    /// Finds the certificate that the client of a request authenticated with.
    pub(crate) fn find(&self, request: &Parts) -> Found {
        let certificate = match &self.0 {
            Source::Connection => request.extensions.get::<ClientCertificate>().copied(),
            Source::Closure(certificate) => certificate(request),
            Source::Header { header, .. } if !header.is_in(&request.headers) => None,
            Source::Header { is_trusted, .. } if !is_trusted(request) => return Found::Untrusted,
            Source::Header { header, .. } => match header.read(&request.headers) {
                Ok(certificate) => certificate,
                Err(unreadable) => return Found::Unreadable(unreadable),
            },
        };
        certificate.map_or(Found::None, Found::Certificate)
    }
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Connection => formatter.write_str("ClientCertificates::from_connection"),
            Source::Closure(_) => formatter.write_str("ClientCertificates::by"),
            Source::Header { header, .. } => {
                formatter.debug_tuple("ClientCertificates::forwarded").field(header).finish()
            }
        }
    }
}
