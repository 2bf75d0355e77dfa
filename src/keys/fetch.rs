//! One bounded HTTP GET: what may be asked of an issuer's server, and how much is read of its answer.

use std::time::Duration;

use reqwest::{Client, redirect};
use url::Url;

use crate::error::{ConfigError, FetchError};

/// Largest document read, in bytes. Sets of a dozen keys with certificates stay under 50 KiB.
const MAX_BODY: usize = 256 * 1024;

/// To reach the server. A fresh connection takes milliseconds; two seconds outlast one lost SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The client used unless the application brings its own: the system's root certificates, no redirects (they lead where
/// nobody decided), no proxy.
pub(crate) fn default_client() -> Result<Client, ConfigError> {
    let builder = || {
        Client::builder()
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
    };
    let client = builder().build();
    #[cfg(feature = "aws-lc-rs")]
    let client = client.or_else(|error| {
        // Where the system has no root certificates at all. Plain http on loopback still works; https will fail with an
        // error that says what is missing.
        tracing::warn!(target: "portcullis", %error, "HTTP client without root certificates");
        builder().tls_certs_only([]).build()
    });
    client.map_err(|error| ConfigError::new(format!("HTTP client: {error}")))
}

/// A URL for errors and logs: without its query, which may hold a key of another kind.
pub(crate) fn named(url: &Url) -> String {
    url[..url::Position::AfterPath].to_owned()
}

/// GETs a JSON document.
pub(crate) async fn get(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let named = || named(url);
    let transport = |source: reqwest::Error| FetchError::Transport { url: named(), source: source.without_url() };

    let mut response =
        client.get(url.clone()).header(http::header::ACCEPT, "application/json").send().await.map_err(transport)?;
    // An application's own client may follow redirects; the address that was configured is the one that is trusted.
    if response.url()[..url::Position::AfterQuery] != url[..url::Position::AfterQuery] {
        return Err(FetchError::Redirected { url: named() });
    }
    if response.status() != http::StatusCode::OK {
        return Err(FetchError::Status { url: named(), status: response.status().as_u16() });
    }
    let mut body = Vec::new();
    // Counted while reading, and after decompression if the application's client decompresses: `Content-Length` is only
    // what the other side says.
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(FetchError::TooLarge { url: named(), limit: MAX_BODY });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
