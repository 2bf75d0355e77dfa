//! The headers in which proxies forward the client's certificate, and the form of each.

use std::borrow::Cow;
use std::fmt::Display;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::encoding::Form;
use super::{ClientCertificate, xfcc};
use crate::error::ConfigError;

/// Maximum length of a header value, in bytes. A chain of four certificates takes about 8 KiB, and
/// common servers limit all headers of a request to 8 to 64 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// The header in which a proxy forwards the client's certificate, and the form of its value, for
/// [`ClientCertificates::forwarded`](crate::ClientCertificates::forwarded).
///
/// An empty header means that the client has no certificate. So does a header that is repeated,
/// longer than 16 KiB or of another form, which is also logged.
#[derive(Clone, Debug)]
#[must_use]
pub struct CertificateHeader {
    /// The first that a request has is read.
    names: Vec<HeaderName>,
    syntax: Syntax,
}

/// How the value of a header is parsed.
#[derive(Clone, Copy, Debug)]
enum Syntax {
    /// Envoy's list of elements.
    Xfcc,
    Value(Form),
}

/// A header that is not of the configured form. Its message contains nothing of the value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("header `{header}`: expected {expected}")]
pub(crate) struct Unreadable {
    header: HeaderName,
    pub(super) expected: &'static str,
}

impl CertificateHeader {
    /// `Client-Cert` (RFC 9440 §2.2): DER in base64 between colons. Google Cloud load balancers
    /// have this form in their variable `{client_cert_leaf}`, and Cloudflare in its field
    /// `cf.tls_client_auth.cert_rfc9440`.
    pub fn rfc9440() -> Self {
        Self::known(["client-cert"], Syntax::Value(Form::StructuredField))
    }

    /// `X-Forwarded-Client-Cert` of Envoy and Istio. Its `Hash` is the SHA-256, so Envoy need not
    /// add `Cert`. If both are present, they must agree.
    ///
    /// Use `forward_client_cert_details: SANITIZE_SET`. With `APPEND_FORWARD`, the last element
    /// counts: the one that the nearest proxy has appended.
    ///
    /// Envoy copies `URI` and `DNS` from the client's certificate without quoting them, so a client
    /// can write `,Hash=…` into its own certificate. A header in which `Hash`, `Cert` or another
    /// element follows them is therefore unreadable.
    pub fn envoy() -> Self {
        Self::known(["x-forwarded-client-cert"], Syntax::Xfcc)
    }

    /// A header with nginx's variable `$ssl_client_escaped_cert`, percent-encoded PEM. In
    /// ingress-nginx it is `ssl-client-cert`. The variable `$ssl_client_cert` is not supported: it
    /// has line breaks, which HTTP does not allow in headers.
    ///
    /// ```
    /// use portcullis::CertificateHeader;
    ///
    /// let header = CertificateHeader::nginx("ssl-client-cert")?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name.
    pub fn nginx<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        Self::named(name, Syntax::Value(Form::EscapedPem))
    }

    /// The headers of AWS Application Load Balancers: `X-Amzn-Mtls-Clientcert-Leaf` (the mode
    /// "verify with trust store") and otherwise `X-Amzn-Mtls-Clientcert` ("passthrough"), whose
    /// first certificate is the client's. Both are percent-encoded PEM. If a request has both, the
    /// leaf counts.
    ///
    /// AWS does not document that a load balancer removes the header of the other mode from the
    /// requests of clients. If it does not, a client could write the certificate of another client
    /// into it. To read only the header of your mode, or one that the listener renames, name it
    /// with [`nginx`](Self::nginx), which has the same form.
    pub fn aws_alb() -> Self {
        let names = ["x-amzn-mtls-clientcert-leaf", "x-amzn-mtls-clientcert"];
        Self::known(names, Syntax::Value(Form::EscapedPem))
    }

    /// `X-Forwarded-Tls-Client-Cert` of Traefik's middleware `PassTLSClientCert` with `pem: true`:
    /// base64 without `BEGIN` and `END`, percent-encoded by older versions. If there are several,
    /// separated by commas, the first is the client's.
    pub fn traefik() -> Self {
        Self::known(["x-forwarded-tls-client-cert"], Syntax::Value(Form::Traefik))
    }

    /// `X-ARR-ClientCert` of Azure App Service: DER in base64. App Service does not validate the
    /// certificate. A binding does not need that.
    pub fn azure() -> Self {
        Self::known(["x-arr-clientcert"], Syntax::Value(Form::DerChain))
    }

    /// A header with HAProxy's `%[ssl_c_der,base64]`. `ssl_c_chain_der` is not supported: with
    /// OpenSSL, it is the chain without the client's certificate.
    ///
    /// If HAProxy sets the header on a condition, use `ssl_c_used`. `ssl_fc_has_crt` is false in a
    /// resumed TLS session, so tokens that are bound to its certificate would be rejected.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name.
    pub fn haproxy<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        Self::named(name, Syntax::Value(Form::Der))
    }

    /// A header with `%{SSL_CLIENT_CERT}s` of Apache's `RequestHeader`: PEM with spaces for line
    /// breaks. The value `(null)` means that the client has no certificate.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name.
    pub fn apache<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        Self::named(name, Syntax::Value(Form::PemWithSpaces))
    }

    /// A header with the SHA-256 of the certificate's DER in hexadecimal, with or without colons,
    /// such as `CloudFront-Viewer-Cert-Sha256`.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name.
    pub fn sha256_hex<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        Self::named(name, Syntax::Value(Form::HexHash))
    }

    /// A header with the SHA-256 of the certificate's DER in base64, such as the variable
    /// `{client_cert_sha256_fingerprint}` of Google Cloud load balancers.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name.
    pub fn sha256_base64<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        Self::named(name, Syntax::Value(Form::Base64Hash))
    }

    fn known<const N: usize>(names: [&'static str; N], syntax: Syntax) -> Self {
        Self { names: names.map(HeaderName::from_static).into(), syntax }
    }

    fn named<N>(name: N, syntax: Syntax) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        let name = name.try_into().map_err(|error| {
            ConfigError::new(format!("certificate header: expected a header name: {error}"))
        })?;
        Ok(Self { names: vec![name], syntax })
    }

    /// Whether a request has this header.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        self.names.iter().any(|name| headers.contains_key(name))
    }

    /// Returns the client's certificate, or `None` if the client has none.
    pub(super) fn read(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<ClientCertificate>, Unreadable> {
        let Some(name) = self.names.iter().find(|name| headers.contains_key(*name)) else {
            return Ok(None);
        };
        let value = match self.syntax {
            // A list, so several lines are one value (RFC 9110 §5.3).
            Syntax::Xfcc => joined(headers, name),
            _ => single(headers, name),
        };
        value
            .and_then(|value| match value.trim() {
                "" => Ok(None),
                value => match self.syntax {
                    Syntax::Xfcc => xfcc::read(value),
                    Syntax::Value(form) => form.read(value),
                },
            })
            .map_err(|expected| Unreadable { header: name.clone(), expected })
    }
}

/// The value of a header that must not be repeated: another server on the way could read the other
/// line.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Cow<'a, str>, &'static str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if line.len() > MAX_BYTES => Err(TOO_LONG),
        (Some(line), None) => text(line).map(Cow::Borrowed),
        _ => Err("one header line"),
    }
}

/// The lines of a header, separated by commas.
fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Cow<'a, str>, &'static str> {
    let lines = headers.get_all(name);
    if lines.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_BYTES + 1 {
        return Err(TOO_LONG);
    }
    let lines: Vec<&str> = lines.iter().map(text).collect::<Result<_, _>>()?;
    Ok(Cow::Owned(lines.join(",")))
}

fn text(line: &HeaderValue) -> Result<&str, &'static str> {
    line.to_str().map_err(|_| "visible ASCII characters")
}

const TOO_LONG: &str = "at most 16 KiB";
