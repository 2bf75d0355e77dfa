//! OpenID Connect Discovery 1.0 §4, RFC 8414 §3: from an issuer to its `jwks_uri`.

use reqwest::Client;
use serde_json::Value;
use url::Url;

use super::fetch;
use crate::error::FetchError;
use crate::issuer::secure_url;

/// Finds the issuer's `jwks_uri`. The next well-known address is only tried where the one before does not exist.
pub(crate) async fn jwks_uri(client: &Client, iss: &str, issuer: &Url) -> Result<Url, FetchError> {
    let mut last = None;
    for url in well_known(issuer) {
        match fetch::get(client, &url).await {
            Ok(document) => return read(&url, &document, iss),
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
    for candidate in [format!("{path}{OPENID}"), format!("{OAUTH}{path}"), format!("{OPENID}{path}")] {
        let mut url = issuer.clone();
        url.set_path(&candidate);
        url.set_query(None);
        url.set_fragment(None);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

fn read(url: &Url, document: &[u8], iss: &str) -> Result<Url, FetchError> {
    let unreadable = |expected| FetchError::Document { url: url.as_str().to_owned(), expected };
    let document: Value =
        serde_json::from_slice(document).map_err(|_| unreadable("a JSON object with the issuer's metadata"))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);

    let presented = text("issuer").ok_or_else(|| unreadable("metadata with a string `issuer`"))?;
    // Identical, or an issuer could hand out another's keys under its own name.
    if presented != iss {
        return Err(FetchError::IssuerMismatch {
            url: url.as_str().to_owned(),
            expected: iss.to_owned(),
            presented: presented.to_owned(),
        });
    }
    let jwks_uri = text("jwks_uri").ok_or_else(|| unreadable("metadata with a string `jwks_uri`"))?;
    secure_url("jwks_uri", jwks_uri).map_err(FetchError::JwksUri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_specifications_say() {
        let cases = [
            (
                "https://h",
                vec!["https://h/.well-known/openid-configuration", "https://h/.well-known/oauth-authorization-server"],
            ),
            (
                "https://h/",
                vec!["https://h/.well-known/openid-configuration", "https://h/.well-known/oauth-authorization-server"],
            ),
            (
                "https://h:8443/t/1",
                vec![
                    "https://h:8443/t/1/.well-known/openid-configuration",
                    "https://h:8443/.well-known/oauth-authorization-server/t/1",
                    "https://h:8443/.well-known/openid-configuration/t/1",
                ],
            ),
            (
                "https://h/t/?q#f",
                vec![
                    "https://h/t/.well-known/openid-configuration",
                    "https://h/.well-known/oauth-authorization-server/t",
                    "https://h/.well-known/openid-configuration/t",
                ],
            ),
        ];
        for (issuer, expected) in cases {
            let urls = well_known(&Url::parse(issuer).unwrap());
            assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), expected, "{issuer}");
        }
    }
}
