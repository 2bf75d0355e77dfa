//! OpenID Connect Discovery 1.0 §4, RFC 8414 §3: from an issuer to its `jwks_uri`.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::fetch::{self, Fetched, Http, Validators};
use crate::error::FetchError;
use crate::keys::url::{PlainHttp, secure_url};

/// How much of what an issuer wrote is quoted in an error, in characters; and the longest address that is used, in bytes.
const MAX_QUOTED: usize = 200;
const MAX_JWKS_URI: usize = 2048;

/// Finds the issuer's `jwks_uri`. The next well-known address is only tried where the one before does not exist.
///
/// With it comes how long the server says that its metadata are fresh.
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
            // Nothing was asked that this could answer.
            Ok(Fetched::NotModified { .. }) => {
                return Err(FetchError::Status { url: fetch::redacted(&url), status: 304 });
            }
            Err(error @ FetchError::Status { status: 404 | 405 | 410, .. }) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or(FetchError::Interrupted))
}

/// The addresses where an issuer's metadata may be: appended (OpenID Connect), inserted before the path (RFC 8414 §3.1),
/// and inserted under OpenID Connect's name (RFC 8414 §5).
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
    // Identical, or an issuer could hand out another's keys under its own name.
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
    // Plain http is for an issuer that is itself reached so; another one has no business on our loopback.
    if jwks_uri.scheme() != "https" && url.scheme() == "https" {
        return Err(unreadable("metadata with a `jwks_uri` over https"));
    }
    Ok(jwks_uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_elsewhere_has_no_business_on_our_loopback() {
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
    fn metadata_is_looked_for_where_the_specifications_say() {
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
