//! One bounded HTTP GET: what may be asked of an issuer's server, and how much is read of its answer.

use std::pin::pin;
use std::time::Duration;

use http::StatusCode;
use http::header::{
    ACCEPT, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    RETRY_AFTER,
};
use reqwest::{Client, redirect};
use tokio::time::{sleep, timeout};
use url::Url;

use super::address::{PublicAddressResolver, is_public};
use super::cache_control::lifetime;
use super::hedge::first_good;
use crate::error::{ConfigError, FetchError, TransportError};

/// Largest document read, in bytes. Sets of a dozen keys with certificates stay under 50 KiB.
const MAX_BODY: usize = 256 * 1024;

/// To reach the server. A fresh connection takes milliseconds; two seconds outlast one lost SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// From the metadata to the keys. Longer, and whoever names tenants in tokens leaves a connection open for each.
const KEEP_CONNECTION: Duration = Duration::from_secs(1);

/// Longest validator kept, in bytes. Real ones are a hash.
const MAX_VALIDATOR: usize = 1024;

/// The longest `Retry-After` that is waited for; a request may be waiting for the answer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The client used unless the application brings its own: the system's root certificates, no redirects (they lead where
/// nobody decided), no proxy.
///
/// A guarded one does not go to private addresses, by whatever name: for issuers that strangers may have registered.
pub(crate) fn default_client(guarded: bool) -> Result<Client, ConfigError> {
    let builder = || {
        let builder = if guarded {
            Client::builder().dns_resolver(PublicAddressResolver)
        } else {
            Client::builder()
        };
        builder
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(KEEP_CONNECTION)
            .redirect(redirect::Policy::none())
            .no_proxy()
    };
    let client = builder().build();
    #[cfg(feature = "aws-lc-rs")]
    let client = client.or_else(|error| {
        // Where the system has no root certificates at all. Plain http on loopback still works; https will fail with an
        // error that says what is missing.
        crate::telemetry::no_root_certificates(&error);
        builder().tls_certs_only([]).build()
    });
    client.map_err(|error| ConfigError::new(format!("HTTP client: {error}")))
}

/// A URL for errors and logs: without its query, which may hold a key of another kind.
pub(crate) fn redacted(url: &Url) -> String {
    url[..url::Position::AfterPath].to_owned()
}

/// What a server gave to ask later whether its document has changed (RFC 9110 §8.8).
#[derive(Clone, Debug, Default)]
pub(crate) struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

/// A document, or the news that the one at hand is still the one; and how long the server says that it is fresh.
pub(crate) enum Fetched {
    Document { body: Vec<u8>, validators: Validators, lifetime: Option<Duration> },
    NotModified { lifetime: Option<Duration> },
}

/// The client, and where it may go.
pub(crate) struct Http<'a> {
    pub(crate) client: &'a Client,
    pub(crate) private_addresses: bool,
    /// How long a first try may go without an answer before a second one is started beside it.
    pub(crate) hedge_after: Duration,
}

impl Http<'_> {
    /// GETs a JSON document, unless it is the one that `known` belongs to.
    ///
    /// Tries once more if the first answer is lost on the way, is late, or comes from a server that is overwhelmed: a kept
    /// connection that had died meanwhile is the commonest failure of all, and it may die without a sound. A late answer is
    /// still taken. The caller limits the time that both may take.
    pub(crate) async fn get(&self, url: &Url, known: &Validators) -> Result<Fetched, FetchError> {
        if !self.private_addresses && !is_public(url) {
            return Err(FetchError::PrivateAddress { url: redacted(url) });
        }
        let mut first = pin!(try_get(self.client, url, known));
        let answer = match timeout(self.hedge_after, first.as_mut()).await {
            Ok(Err(Failure { retry_after: Some(after), .. })) => {
                sleep(after).await;
                try_get(self.client, url, known).await
            }
            Ok(answer) => answer,
            Err(_) => first_good([first, pin!(try_get(self.client, url, known))]).await,
        };
        answer.map_err(|failure| failure.error)
    }
}

struct Failure {
    error: FetchError,
    /// Whether, and when, to try once more.
    retry_after: Option<Duration>,
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self { error, retry_after: None }
    }
}

async fn try_get(client: &Client, url: &Url, known: &Validators) -> Result<Fetched, Failure> {
    let transport = |source: reqwest::Error| Failure {
        retry_after: Some(Duration::ZERO),
        error: FetchError::Transport { url: redacted(url), reason: TransportError::new(source) },
    };
    let mut request = client.get(url.clone()).header(ACCEPT, "application/json");
    for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)] {
        if let Some(value) = value {
            request = request.header(name, value.clone());
        }
    }
    let mut response = request.send().await.map_err(transport)?;
    // An application's own client may follow redirects; the address that was configured is the one that is trusted.
    if response.url()[..url::Position::AfterQuery] != url[..url::Position::AfterQuery] {
        return Err(FetchError::Redirected { url: redacted(url) }.into());
    }
    let lifetime = lifetime(response.headers());
    let asked_for_changes = known.etag.is_some() || known.last_modified.is_some();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if asked_for_changes => {
            return Ok(Fetched::NotModified { lifetime });
        }
        status => {
            let error = FetchError::Status { url: redacted(url), status: status.as_u16() };
            return Err(Failure { error, retry_after: retry_after(status, response.headers()) });
        }
    }
    // Copied: a header's value is a piece of the connection's whole buffer, and keeps it.
    let copied = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    let short = |value: &&HeaderValue| value.len() <= MAX_VALIDATOR;
    let validator = |name| response.headers().get(name).filter(short).and_then(copied);
    let validators = Validators { etag: validator(ETAG), last_modified: validator(LAST_MODIFIED) };
    let mut body = Vec::new();
    // Counted while reading, and after decompression if the application's client decompresses: `Content-Length` is only
    // what the other side says.
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(FetchError::TooLarge { url: redacted(url), limit: MAX_BODY }.into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched::Document { body, validators, lifetime })
}

/// Statuses that another try may mend: of a server in trouble, or one that asks to come back within a second.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let after =
        || headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs);
    match status {
        StatusCode::REQUEST_TIMEOUT => Some(Duration::ZERO),
        StatusCode::TOO_MANY_REQUESTS => after().filter(|after| *after <= MAX_RETRY_AFTER),
        status if status.is_server_error() => {
            Some(after().unwrap_or_default()).filter(|after| *after <= MAX_RETRY_AFTER)
        }
        _ => None,
    }
}
