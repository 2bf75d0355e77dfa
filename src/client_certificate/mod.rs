//! Which certificate a client authenticated with in the TLS handshake. Access tokens can be bound
//! to its SHA-256 (RFC 8705 §3.1).
//!
//! `source.rs` finds the certificate of a request. `header.rs` lists the headers of proxies,
//! `encoding.rs` decodes their values, and `xfcc.rs` parses Envoy's header.
//!
//! The hash is all that a binding needs. The handshake has proved that the client has the key, so
//! the certificate itself is never parsed, and it may be self-signed (RFC 8705 §2.2).

mod encoding;
pub(crate) mod header;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod xfcc;

use std::fmt;

use crate::crypto;

/// The certificate that a client authenticated with in the TLS handshake, as its SHA-256
/// (RFC 8705 §3.1). It takes 32 bytes.
///
/// The server that accepts TLS connections inserts it into the extensions of each request, and
/// [`ClientCertificates::from_connection`](crate::ClientCertificates::from_connection) finds it
/// there. With rustls, it is the first of the peer's certificates. Hash it once per connection:
///
/// ```
/// use portcullis::ClientCertificate;
/// use tokio_rustls::rustls::ServerConnection;
///
/// fn client_certificate(connection: &ServerConnection) -> Option<ClientCertificate> {
///     let leaf = connection.peer_certificates()?.first()?;
///     Some(ClientCertificate::from_der(leaf))
/// }
/// ```
///
/// `examples/mutual_tls.rs` (axum), `examples/mutual_tls_hyper.rs` and
/// `examples/mutual_tls_tonic.rs` are whole servers.
#[derive(Clone, Copy)]
pub struct ClientCertificate([u8; 32]);

impl ClientCertificate {
    /// The certificate with this DER encoding: the client's own, without its chain.
    pub fn from_der(der: &[u8]) -> Self {
        Self(crypto::sha256(der))
    }

    /// The certificate whose DER encoding has this SHA-256, as computed by a proxy or a TLS
    /// library.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    pub(crate) fn sha256(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Without the hash, which identifies the client in logs.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}
