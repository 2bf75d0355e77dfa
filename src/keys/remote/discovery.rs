//! OpenID Connect Discovery 1.0 §4, RFC 8414 §3: from an issuer to its `jwks_uri`.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::fetch::{self, Fetched, Http, Validators};
use crate::error::FetchError;
use crate::keys::url::{PlainHttp, secure_url};

/// Maximum length, in characters, of an issuer's text that is quoted in an error.
const MAX_QUOTED: usize = 200;
/// Maximum length, in bytes, of a `jwks_uri` that is used.
const MAX_JWKS_URI: usize = 2048;

/// Finds the issuer's `jwks_uri`, and how long its server says that the metadata are fresh.
///
/// The next well-known URL is tried only if the one before does not exist.
pub(crate) async fn jwks_uri(
    http: &Http<'_>,
    iss: &str,
    issuer: &Url,
    plain_http: PlainHttp,
) -> Result<(Url, Option<Duration>), FetchError> {
    let mut last = None;
    for url in well_known(issuer) {
        match http.get(&url, &Validators::default()).await {
            Ok(Fetched::Document { body, lifetime, .. }) => {
                return Ok((read(&url, &body, iss, plain_http)?, lifetime));
            }
            // The request was not conditional, so this is not a valid response.
            Ok(Fetched::NotModified { .. }) => {
                return Err(FetchError::Status { url: fetch::redacted(&url), status: 304 });
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

fn read(url: &Url, document: &[u8], iss: &str, plain_http: PlainHttp) -> Result<Url, FetchError> {
    let unreadable = |expected| FetchError::InvalidDocument { url: fetch::redacted(url), expected };
    let document: Value = serde_json::from_slice(document)
        .map_err(|_| unreadable("a JSON object with the issuer's metadata"))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);

    let presented = text("issuer").ok_or_else(|| unreadable("metadata with a string `issuer`"))?;
    // Must be identical. Otherwise, an issuer could publish the keys of another one under its own
    // name.
    if presented != iss {
        return Err(FetchError::IssuerMismatch {
            url: fetch::redacted(url),
            expected: iss.to_owned(),
            presented: presented.chars().take(MAX_QUOTED).collect(),
        });
    }
    let jwks_uri =
        text("jwks_uri").ok_or_else(|| unreadable("metadata with a string `jwks_uri`"))?;
    if jwks_uri.len() > MAX_JWKS_URI {
        return Err(unreadable("metadata with a `jwks_uri` of at most 2048 bytes"));
    }
    let jwks_uri = secure_url("jwks_uri", jwks_uri, plain_http).map_err(FetchError::JwksUri)?;
    // Plain `http` is for issuers that are reached over `http` themselves. A remote issuer must not
    // point to a service on this machine's loopback interface.
    if jwks_uri.scheme() != "https" && url.scheme() == "https" {
        return Err(unreadable("metadata with a `jwks_uri` over https"));
    }
    Ok(jwks_uri)
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
            assert_eq!(
                read(&url, document(iss).as_bytes(), iss, PlainHttp::OnLoopback).is_ok(),
                used,
                "{iss}"
            );
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
}
