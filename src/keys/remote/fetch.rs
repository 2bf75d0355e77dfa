//! One bounded HTTP GET: which URLs may be requested, and how much of the response is read.

use std::pin::pin;
use std::time::Duration;

use http::StatusCode;
use http::header::{
    ACCEPT, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    RETRY_AFTER,
};
use reqwest::{Client, Response, redirect};
use tokio::time::{sleep, timeout};
use url::Url;

use super::address::{AddressPolicy, PublicAddressResolver, is_public};
use super::cache_control::lifetime;
use super::hedge::first_good;
use crate::error::{ConfigError, FetchError, TransportError};

/// Maximum size of a JSON document, in bytes. Sets of a dozen keys with certificates stay under
/// 50 KiB.
const MAX_BODY: usize = 256 * 1024;

/// What a document is requested as, and how much of it is read.
#[derive(Clone, Copy)]
pub(crate) struct Document {
    pub(crate) accept: &'static str,
    pub(crate) max_bytes: usize,
}

impl Document {
    const JSON: Self = Self { accept: "application/json", max_bytes: MAX_BODY };
}

/// The connections of a client.
#[derive(Clone, Copy)]
pub(crate) struct Connections {
    /// Time limit for connecting.
    pub(crate) connect_timeout: Duration,
    /// How long an idle connection stays open, and how many of them at one host.
    pub(crate) idle: Duration,
    pub(crate) max_idle_per_host: usize,
}

impl Connections {
    /// A new connection takes milliseconds; two seconds allow for one lost SYN. An idle one stays
    /// open long enough to fetch the keys after the metadata. If that were longer, each tenant that
    /// a forged token names could leave a connection open.
    pub(crate) const FOR_KEYS: Self = Self {
        connect_timeout: Duration::from_secs(2),
        idle: Duration::from_secs(1),
        max_idle_per_host: usize::MAX,
    };
}

/// Maximum length of a stored validator, in bytes. Real ones are a hash.
const MAX_VALIDATOR: usize = 1024;

/// Maximum `Retry-After` that is waited for, since a request may be waiting for the result.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The client that is used unless the application brings its own: the system's root certificates,
/// no proxy, and no redirects, since they lead to URLs that were not configured.
///
/// With [`AddressPolicy::PublicOnly`], it does not connect to private addresses, whatever the host
/// name.
pub(crate) fn default_client(
    addresses: AddressPolicy,
    connections: Connections,
) -> Result<Client, ConfigError> {
    let builder = || {
        let builder = match addresses {
            AddressPolicy::Any => Client::builder(),
            AddressPolicy::PublicOnly => Client::builder().dns_resolver(PublicAddressResolver),
        };
        builder
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connections.connect_timeout)
            .pool_idle_timeout(connections.idle)
            .pool_max_idle_per_host(connections.max_idle_per_host)
            .redirect(redirect::Policy::none())
            .no_proxy()
    };
    let client = builder().build();
    #[cfg(feature = "aws-lc-rs")]
    let client = client.or_else(|error| {
        // The system has no root certificates. Plain `http` on loopback still works, and https
        // fails with an error that names the cause.
        crate::telemetry::no_root_certificates(&error);
        builder().tls_certs_only([]).build()
    });
    client.map_err(|error| ConfigError::new(format!("HTTP client: {error}")))
}

/// A URL for errors and logs, without its query, which may contain an API key.
pub(crate) fn redacted(url: &Url) -> String {
    url[..url::Position::AfterPath].to_owned()
}

/// Validators of a response, for a conditional request (RFC 9110 §8.8).
#[derive(Clone, Debug, Default)]
pub(crate) struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

/// A document, or the confirmation that the cached one has not changed. `lifetime` is how long the
/// server says that it is fresh.
pub(crate) enum Fetched {
    Document { body: Vec<u8>, validators: Validators, lifetime: Option<Duration> },
    NotModified { lifetime: Option<Duration> },
}

/// The client, and which URLs it may request.
pub(crate) struct Http<'a> {
    pub(crate) client: &'a Client,
    pub(crate) addresses: AddressPolicy,
    /// How long the first request may take before a hedged request is sent.
    pub(crate) hedge_after: Duration,
}

impl Http<'_> {
    /// GETs a JSON document, unless it is still the one that `cached` belongs to.
    pub(crate) async fn get(&self, url: &Url, cached: &Validators) -> Result<Fetched, FetchError> {
        self.get_document(url, cached, Document::JSON).await
    }

    /// GETs a document, unless it is still the one that `cached` belongs to.
    ///
    /// Retries once if the connection is lost or the server is overloaded. Hedges: if the first
    /// request has not ended after `hedge_after`, a second one is sent, and the first success wins.
    /// Pooled connections that died meanwhile are the most common failure, and they may do so
    /// silently. The caller limits the time of both requests together.
    pub(crate) async fn get_document(
        &self,
        url: &Url,
        cached: &Validators,
        document: Document,
    ) -> Result<Fetched, FetchError> {
        check_address(url, self.addresses)?;
        let attempt = || try_get(self.client, url, cached, document);
        let mut first = pin!(attempt());
        let answer = match timeout(self.hedge_after, first.as_mut()).await {
            Ok(Err(Failure { retry_after: Some(after), .. })) => {
                sleep(after).await;
                attempt().await
            }
            Ok(answer) => answer,
            Err(_) => first_good([first, pin!(attempt())]).await,
        };
        answer.map_err(|failure| failure.error)
    }
}

/// Returns an error if the URL itself shows that its address may not be requested.
pub(crate) fn check_address(url: &Url, addresses: AddressPolicy) -> Result<(), FetchError> {
    if addresses == AddressPolicy::PublicOnly && !is_public(url) {
        return Err(FetchError::PrivateAddress { url: redacted(url) });
    }
    Ok(())
}

struct Failure {
    error: FetchError,
    /// How long to wait before a retry; `None` if there is no retry.
    retry_after: Option<Duration>,
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self { error, retry_after: None }
    }
}

async fn try_get(
    client: &Client,
    url: &Url,
    cached: &Validators,
    document: Document,
) -> Result<Fetched, Failure> {
    let transport = |source: reqwest::Error| Failure {
        retry_after: Some(Duration::ZERO),
        error: FetchError::Transport { url: redacted(url), reason: TransportError::new(source) },
    };
    let mut request = client.get(url.clone()).header(ACCEPT, document.accept);
    for (name, value) in [(IF_NONE_MATCH, &cached.etag), (IF_MODIFIED_SINCE, &cached.last_modified)]
    {
        if let Some(value) = value {
            request = request.header(name, value.clone());
        }
    }
    let mut response = request.send().await.map_err(transport)?;
    if was_redirected(&response, url) {
        return Err(FetchError::Redirected { url: redacted(url) }.into());
    }
    let lifetime = lifetime(response.headers());
    let is_conditional = cached.etag.is_some() || cached.last_modified.is_some();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if is_conditional => {
            return Ok(Fetched::NotModified { lifetime });
        }
        status => {
            let error = FetchError::Status { url: redacted(url), status: status.as_u16() };
            return Err(Failure { error, retry_after: retry_after(status, response.headers()) });
        }
    }
    // Copied: a header value is a slice of the connection's buffer, and keeps all of it in memory.
    let copied = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    let short = |value: &&HeaderValue| value.len() <= MAX_VALIDATOR;
    let validator = |name| response.headers().get(name).filter(short).and_then(copied);
    let validators = Validators { etag: validator(ETAG), last_modified: validator(LAST_MODIFIED) };
    let body = match read_body(&mut response, document.max_bytes).await {
        Ok(Some(body)) => body,
        Ok(None) => {
            let limit = document.max_bytes;
            return Err(FetchError::TooLarge { url: redacted(url), limit }.into());
        }
        Err(error) => return Err(transport(error)),
    };
    Ok(Fetched::Document { body, validators, lifetime })
}

/// Reads the body of a response. Returns `None` if it is longer than `limit` bytes.
pub(crate) async fn read_body(
    response: &mut Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    // Counted while reading, and after decompression if the application's client decompresses:
    // `Content-Length` is only a claim of the server.
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Whether an application's own client followed a redirect, which could lead to any host.
pub(crate) fn was_redirected(response: &Response, url: &Url) -> bool {
    response.url()[..url::Position::AfterQuery] != url[..url::Position::AfterQuery]
}

/// The statuses that a retry may fix: the server failed, or asks to retry within a second.
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
