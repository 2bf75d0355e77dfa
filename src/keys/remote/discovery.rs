//! OpenID Connect Discovery 1.0 §4, RFC 8414 §3: from an issuer to its metadata, and to the
//! `jwks_uri` in them.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::fetch::{Fetched, Http, Validators, redacted};
use crate::error::{ConfigError, FetchError};
use crate::keys::url::{PlainHttp, secure_url};

/// Maximum length, in characters, of an issuer's text that is quoted in an error.
const MAX_QUOTED: usize = 200;
/// Maximum length, in bytes, of the URL of an endpoint that is used.
const MAX_URL: usize = 2048;

/// The metadata of an issuer.
pub(crate) struct Metadata {
    /// Where they were found.
    pub(crate) url: Url,
    pub(crate) document: Value,
    /// How long their server says that they are fresh.
    pub(crate) lifetime: Option<Duration>,
}

/// Finds the issuer's metadata.
///
/// The next well-known URL is tried only if the one before does not exist.
pub(crate) async fn metadata(
    http: &Http<'_>,
    iss: &str,
    issuer: &Url,
) -> Result<Metadata, FetchError> {
    let mut last = None;
    for url in well_known(issuer) {
        match http.get(&url, &Validators::default()).await {
            Ok(Fetched::Document { body, lifetime, .. }) => {
                return Metadata::read(url, &body, iss, lifetime);
            }
            // The request was not conditional, so this is not a valid response.
            Ok(Fetched::NotModified { .. }) => {
                return Err(FetchError::Status { url: redacted(&url), status: 304 });
            }
            Err(error @ FetchError::Status { status: 404 | 405 | 410, .. }) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or(FetchError::Interrupted))
}

/// The URLs where an issuer's metadata may be: the well-known path appended (OpenID Connect),
/// inserted before the path (RFC 8414 §3.1), and inserted with OpenID Connect's name (RFC 8414 §5).
fn well_known(issuer: &Url) -> Vec<Url> {
    const OPENID: &str = "/.well-known/openid-configuration";
    const OAUTH: &str = "/.well-known/oauth-authorization-server";
    let path = issuer.path().trim_end_matches('/');
    let mut urls = Vec::new();
    for candidate in
        [format!("{path}{OPENID}"), format!("{OAUTH}{path}"), format!("{OPENID}{path}")]
    {
        let mut url = issuer.clone();
        url.set_path(&candidate);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

impl Metadata {
    pub(crate) fn read(
        url: Url,
        document: &[u8],
        iss: &str,
        lifetime: Option<Duration>,
    ) -> Result<Self, FetchError> {
        let unreadable = |expected| FetchError::InvalidDocument { url: redacted(&url), expected };
        let document: Value = serde_json::from_slice(document)
            .map_err(|_| unreadable("a JSON object with the issuer's metadata"))?;
        let presented = document
            .get("issuer")
            .and_then(Value::as_str)
            .ok_or_else(|| unreadable("metadata with a string `issuer`"))?;
        // Must be identical. Otherwise, an issuer could publish the keys of another one under its
        // own name.
        if presented != iss {
            return Err(FetchError::IssuerMismatch {
                url: redacted(&url),
                expected: iss.to_owned(),
                presented: presented.chars().take(MAX_QUOTED).collect(),
            });
        }
        Ok(Self { url, document, lifetime })
    }

    /// The URL of an endpoint.
    pub(crate) fn endpoint(
        &self,
        member: &Member,
        plain_http: PlainHttp,
    ) -> Result<Url, FetchError> {
        let unreadable =
            |expected| FetchError::InvalidDocument { url: redacted(&self.url), expected };
        let text = self.document.pointer(member.pointer).and_then(Value::as_str);
        let text = text.ok_or_else(|| unreadable(member.expected))?;
        if text.len() > MAX_URL {
            return Err(unreadable(member.expected_length));
        }
        let url = secure_url(member.name, text, plain_http).map_err(member.error)?;
        // Plain `http` is for issuers that are reached over `http` themselves. A remote issuer must
        // not point to a service on this machine's loopback interface.
        if url.scheme() != "https" && self.url.scheme() == "https" {
            return Err(unreadable(member.expected_scheme));
        }
        Ok(url)
    }
}

/// A member of the metadata that is the URL of an endpoint.
pub(crate) struct Member {
    name: &'static str,
    pub(crate) pointer: &'static str,
    expected: &'static str,
    expected_length: &'static str,
    expected_scheme: &'static str,
    error: fn(ConfigError) -> FetchError,
}

impl Member {
    /// The key set (RFC 8414 §2).
    pub(crate) const JWKS_URI: Self = Self {
        name: "jwks_uri",
        pointer: "/jwks_uri",
        expected: "metadata with a string `jwks_uri`",
        expected_length: "metadata with a `jwks_uri` of at most 2048 bytes",
        expected_scheme: "metadata with a `jwks_uri` over https",
        error: FetchError::JwksUri,
    };

    /// The introspection endpoint (RFC 8414 §2).
    pub(crate) const INTROSPECTION: Self = Self {
        name: "introspection_endpoint",
        pointer: "/introspection_endpoint",
        expected: "metadata with a string `introspection_endpoint`",
        expected_length: "metadata with an `introspection_endpoint` of at most 2048 bytes",
        expected_scheme: "metadata with an `introspection_endpoint` over https",
        error: FetchError::IntrospectionEndpoint,
    };

    /// The introspection endpoint for clients that authenticate with a certificate (RFC 8705 §5).
    pub(crate) const INTROSPECTION_BY_CERTIFICATE: Self =
        Self { pointer: "/mtls_endpoint_aliases/introspection_endpoint", ..Self::INTROSPECTION };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_issuer_cannot_point_to_loopback() {
        let document = |iss: &str| {
            format!(r#"{{"issuer":"{iss}","jwks_uri":"http://127.0.0.1:2375/containers"}}"#)
        };
        for (iss, used) in [("https://hostile.example", false), ("http://127.0.0.1:4000", true)] {
            let url = Url::parse(&format!("{iss}/.well-known/openid-configuration")).unwrap();
            let metadata = Metadata::read(url, document(iss).as_bytes(), iss, None).unwrap();
            let read = metadata.endpoint(&Member::JWKS_URI, PlainHttp::OnLoopback);
            assert_eq!(read.is_ok(), used, "{iss}");
        }
    }

    #[test]
    fn metadata_urls_are_those_of_the_specifications() {
        let cases = [
            (
                "https://h",
                vec![
                    "https://h/.well-known/openid-configuration",
                    "https://h/.well-known/oauth-authorization-server",
                ],
            ),
            (
                "https://h/",
                vec![
                    "https://h/.well-known/openid-configuration",
                    "https://h/.well-known/oauth-authorization-server",
                ],
            ),
            (
                "https://h:8443/t/1",
                vec![
                    "https://h:8443/t/1/.well-known/openid-configuration",
                    "https://h:8443/.well-known/oauth-authorization-server/t/1",
                    "https://h:8443/.well-known/openid-configuration/t/1",
                ],
            ),
        ];
        for (issuer, expected) in cases {
            let urls = well_known(&Url::parse(issuer).unwrap());
            assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), expected, "{issuer}");
        }
    }

    #[test]
    fn the_url_of_an_endpoint_has_at_most_2048_bytes() {
        const ISS: &str = "https://issuer.example";
        for (length, expected) in
            [(100, true), (2047, true), (2048, true), (2049, false), (5000, false)]
        {
            let jwks_uri = format!("{ISS}/{}", "a".repeat(length - ISS.len() - 1));
            let document = format!(r#"{{"issuer":"{ISS}","jwks_uri":"{jwks_uri}"}}"#);
            let url = Url::parse(ISS).unwrap();
            let metadata = Metadata::read(url, document.as_bytes(), ISS, None).unwrap();
            let read = metadata.endpoint(&Member::JWKS_URI, PlainHttp::OnLoopback);
            assert_eq!(read.is_ok(), expected, "{length} bytes");
        }
    }
}
