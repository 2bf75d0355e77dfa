//! The forms in which proxies write a certificate or its hash into a header.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ClientCertificate;
use crate::keys::pem;

/// The form of a header's value. All base64 is the standard one with padding (RFC 4648 §4).
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A byte sequence (RFC 9440 §2.1, RFC 8941 §3.3.5).
    StructuredField,
    EscapedPem,
    PemWithSpaces,
    Traefik,
    /// DER in base64.
    Der,
    /// DER after DER in base64, the client's certificate first.
    DerChain,
    HexHash,
    Base64Hash,
}

impl Form {
    /// Reads a value that is not empty and has at most 16 KiB. The error is what was expected.
    pub(super) fn read(self, value: &str) -> Result<Option<ClientCertificate>, &'static str> {
        let (certificate, expected) = match self {
            // mod_headers writes this for a variable without value.
            Self::PemWithSpaces if value == "(null)" => return Ok(None),
            Self::StructuredField => {
                (structured_field(value), "one DER certificate in base64 between colons (RFC 9440)")
            }
            // The unescaped variable of nginx. Its line breaks have become spaces, or have cut the
            // value off.
            Self::EscapedPem if value.contains([' ', '\t']) => (
                None,
                "percent-encoded PEM, in nginx `$ssl_client_escaped_cert`; found white space",
            ),
            Self::EscapedPem => (escaped_pem(value), "a percent-encoded PEM certificate"),
            Self::PemWithSpaces => (first_of_pem(value), "a PEM certificate"),
            Self::Traefik => (traefik(value), "a DER certificate in base64, without BEGIN and END"),
            Self::Der => {
                (base64(value).and_then(|der| only(&der)), "one DER certificate in base64")
            }
            Self::DerChain => {
                (base64(value).and_then(|der| first(&der)), "DER certificates in base64")
            }
            Self::HexHash => (hex_hash(value), "a SHA-256 hash in hexadecimal"),
            Self::Base64Hash => (base64_hash(value), "a SHA-256 hash in base64 with padding"),
        };
        certificate.map(Some).ok_or(expected)
    }
}

/// An item without its parameters (RFC 8941 §3.3). A comma would make it a list.
fn structured_field(value: &str) -> Option<ClientCertificate> {
    let (der, parameters) = value.strip_prefix(':')?.split_once(':')?;
    let is_item = parameters.is_empty() || parameters.starts_with(';');
    (is_item && !parameters.contains(',')).then(|| only(&base64(der)?)).flatten()
}

/// The first certificate of percent-encoded PEM.
pub(super) fn escaped_pem(value: &str) -> Option<ClientCertificate> {
    first_of_pem(&percent_decoded(value)?)
}

/// The first certificate of PEM. TLS sends the client's own certificate first (RFC 8446 §4.4.2),
/// and proxies keep the order.
fn first_of_pem(pem: &str) -> Option<ClientCertificate> {
    only(&pem::certificate(pem::blocks(pem).next()?)?)
}

/// The first of several certificates. Base64 has no commas, so those are separators, escaped or
/// not.
fn traefik(value: &str) -> Option<ClientCertificate> {
    let decoded = percent_decoded(value)?;
    only(&base64(decoded.split(',').next()?)?)
}

/// Decodes each `%XX` (RFC 3986 §2.1). A `+` remains a `+`: it is part of base64, and means a space
/// only in forms. Returns `None` for other escapes, and for those of characters that are not ASCII.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = String::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            byte => byte,
        };
        decoded.push(byte.is_ascii().then(|| char::from(byte))?);
    }
    Some(decoded)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The certificate that is all of this DER.
fn only(der: &[u8]) -> Option<ClientCertificate> {
    match pem::split_sequence(der)? {
        (certificate, []) => Some(ClientCertificate::from_der(certificate)),
        _ => None,
    }
}

/// The first of the certificates that are all of this DER.
fn first(der: &[u8]) -> Option<ClientCertificate> {
    let (certificate, mut chain) = pem::split_sequence(der)?;
    while !chain.is_empty() {
        (_, chain) = pem::split_sequence(chain)?;
    }
    Some(ClientCertificate::from_der(certificate))
}

/// 32 bytes as `0a1b…` or `0A:1B:…`.
pub(super) fn hex_hash(text: &str) -> Option<ClientCertificate> {
    let width = match text.len() {
        64 => 2,
        95 => 3,
        _ => return None,
    };
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(width)) {
        *byte = match *digits {
            [high, low] | [high, low, b':'] => hex_digit(high)? << 4 | hex_digit(low)?,
            _ => return None,
        };
    }
    Some(ClientCertificate::from_sha256(hash))
}

fn base64_hash(text: &str) -> Option<ClientCertificate> {
    Some(ClientCertificate::from_sha256(base64(text)?.try_into().ok()?))
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
