//! [`HttpClient`], which fetches metadata and keys.

use std::fmt;

/// The HTTP client that fetches metadata and keys, created from a `reqwest::Client` of version
/// 0.13.
///
/// The type is opaque, so that supporting a later version of `reqwest` only adds a `From`
/// implementation and is not a breaking change.
///
/// ```
/// use portcullis::{Issuer, Verifier};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
/// let verifier = Verifier::builder(issuer).client(client).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpClient(pub(crate) reqwest::Client);

impl From<reqwest::Client> for HttpClient {
    fn from(client: reqwest::Client) -> Self {
        Self(client)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpClient(…)")
    }
}
