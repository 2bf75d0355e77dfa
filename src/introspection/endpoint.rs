//! Where the introspection endpoint is, and which methods of authentication it supports: RFC 8414
//! §2, RFC 8705 §5.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use super::client_auth::ClientAuth;
use crate::clock::{Clock, Now, nanos};
use crate::error::FetchError;
use crate::keys::remote::AddressPolicy;
use crate::keys::remote::discovery::{Member, Metadata, metadata};
use crate::keys::remote::fetch::{Http, check_address, redacted};
use crate::keys::remote::schedule::KeyPolicy;
use crate::keys::url::PlainHttp;

/// The endpoint, as configured or discovered. Clones share it.
#[derive(Clone)]
pub(crate) struct EndpointLocation(Arc<Shared>);

struct Shared {
    /// `None`: the URL is configured.
    discovery: Option<Discovery>,
    current: RwLock<Option<Arc<Endpoint>>>,
    /// The last discovery, if it failed. Held during a discovery: concurrent questions wait for it.
    last: Mutex<Option<Failed>>,
    /// How many discoveries have ended.
    ended: AtomicU64,
}

/// How the endpoint is discovered.
pub(crate) struct Discovery {
    pub(crate) iss: Arc<str>,
    /// The base URL of the metadata.
    pub(crate) at: Url,
    /// Whether the endpoint must have the same origin as the metadata. It receives the credentials
    /// of this API, and anyone may be able to register a resolved issuer.
    pub(crate) same_origin: bool,
    pub(crate) plain_http: PlainHttp,
    pub(crate) policy: KeyPolicy,
    pub(crate) http: Client,
    pub(crate) addresses: AddressPolicy,
    pub(crate) auth: ClientAuth,
    pub(crate) clock: Clock,
}

/// A discovery that failed.
struct Failed {
    number: u64,
    at: Duration,
    error: FetchError,
}

pub(super) struct Endpoint {
    pub(super) url: Url,
    /// The methods of client authentication that the metadata list; empty if they list none.
    pub(super) methods: Vec<String>,
    /// Uptime of the discovery. `None` if the URL is configured.
    since: Option<Duration>,
    /// When it is discovered again, in nanoseconds of uptime.
    refresh_from: AtomicU64,
}

/// How long a discovered endpoint is not discovered again, because it fails or because its metadata
/// cannot be fetched.
const REFRESHED_AFTER: Duration = Duration::from_secs(60);

/// How long an endpoint that could not be discovered is not discovered again.
const RETRIED_AFTER: Duration = Duration::from_secs(1);

/// How much of the metadata is quoted in an error: methods, and characters of each.
const MAX_QUOTED_METHODS: usize = 16;
const MAX_QUOTED: usize = 64;

impl EndpointLocation {
    pub(crate) fn at(url: Url) -> Self {
        let refresh_from = AtomicU64::new(u64::MAX);
        let endpoint = Endpoint { url, methods: Vec::new(), since: None, refresh_from };
        Self::new(None, Some(Arc::new(endpoint)))
    }

    pub(crate) fn discovered(discovery: Discovery) -> Self {
        Self::new(Some(discovery), None)
    }

    fn new(discovery: Option<Discovery>, current: Option<Arc<Endpoint>>) -> Self {
        let (current, ended) = (RwLock::new(current), AtomicU64::new(0));
        Self(Arc::new(Shared { discovery, current, last: Mutex::default(), ended }))
    }

    fn current(&self) -> Option<Arc<Endpoint>> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_known(&self) -> bool {
        self.current().is_some()
    }

    /// The URL for errors, without its query.
    pub(super) fn redacted(&self) -> String {
        let current = self.current().map(|endpoint| redacted(&endpoint.url));
        current.unwrap_or_else(|| "the introspection endpoint".to_owned())
    }

    /// Discovers the endpoint again with the next question, because it may have moved.
    pub(super) fn suspect(&self, now: Now) {
        if let Some(current) = self.current()
            && current.since.is_some_and(|since| now.uptime >= since + REFRESHED_AFTER)
        {
            current.refresh_from.fetch_min(nanos(now.uptime), Ordering::Relaxed);
        }
    }

    /// Returns the endpoint. Waits only for its first discovery: later ones run in the background,
    /// so that metadata that cannot be fetched do not delay questions to an endpoint that works.
    pub(super) async fn find(&self) -> Result<Arc<Endpoint>, FetchError> {
        let (Some(discovery), Some(current)) = (&self.0.discovery, self.current()) else {
            return match self.current() {
                Some(current) => Ok(current),
                None => self.discover_first().await,
            };
        };
        let now = discovery.clock.now().uptime;
        let due = current.refresh_from.load(Ordering::Relaxed);
        let next = nanos(now + REFRESHED_AFTER);
        if nanos(now) >= due
            && current
                .refresh_from
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let this = self.clone();
            tokio::spawn(async move {
                if let Some(discovery) = &this.0.discovery
                    && let Ok(endpoint) = discovery.run().await
                {
                    this.set(endpoint);
                }
            });
        }
        Ok(current)
    }

    fn set(&self, endpoint: Endpoint) -> Arc<Endpoint> {
        let endpoint = Arc::new(endpoint);
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::clone(&endpoint));
        endpoint
    }

    async fn discover_first(&self) -> Result<Arc<Endpoint>, FetchError> {
        let Some(discovery) = &self.0.discovery else { return Err(FetchError::Interrupted) };
        let ended = self.0.ended.load(Ordering::Acquire);
        let limit = discovery.policy.timeout;
        // The task that holds it may be on a runtime that is no longer driven.
        let Ok(mut last) = timeout(limit, self.0.last.lock()).await else {
            return Err(FetchError::Timeout { limit });
        };
        if let Some(current) = self.current() {
            return Ok(current);
        }
        // Failed while this question waited for it, or a moment ago.
        let now = discovery.clock.now().uptime;
        if let Some(failed) =
            last.as_ref().filter(|failed| failed.number >= ended || now < failed.at + RETRIED_AFTER)
        {
            return Err(failed.error.clone());
        }
        let found = discovery.run().await;
        let number = self.0.ended.fetch_add(1, Ordering::AcqRel);
        match found {
            Ok(endpoint) => {
                *last = None;
                Ok(self.set(endpoint))
            }
            Err(error) => {
                let at = discovery.clock.now().uptime;
                *last = Some(Failed { number, at, error: error.clone() });
                Err(error)
            }
        }
    }
}

impl Discovery {
    async fn run(&self) -> Result<Endpoint, FetchError> {
        let limit = self.policy.timeout;
        let (client, addresses, hedge_after) = (&self.http, self.addresses, limit / 2);
        let http = Http { client, addresses, hedge_after };
        let found = timeout(limit, metadata(&http, &self.iss, &self.at)).await;
        let metadata = found.map_err(|_| FetchError::Timeout { limit })??;
        let url = self.endpoint(&metadata)?;
        check_address(&url, addresses)?;
        let methods = metadata.document.get("introspection_endpoint_auth_methods_supported");
        let methods: Vec<_> = methods
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .take(MAX_QUOTED_METHODS)
            .map(|method| method.chars().take(MAX_QUOTED).collect::<String>())
            .collect();
        let own = self.auth.methods();
        let fits = methods.is_empty()
            || own.is_empty()
            || methods.iter().any(|method| own.contains(&method.as_str()));
        if !fits {
            return Err(FetchError::UnsupportedClientAuth {
                url: redacted(&metadata.url),
                configured: own.join(" or "),
                supported: methods,
            });
        }
        let since = self.clock.now().uptime;
        let refresh_from = nanos(since + self.policy.lifetime(metadata.lifetime)).into();
        Ok(Endpoint { url, methods, since: Some(since), refresh_from })
    }

    fn endpoint(&self, metadata: &Metadata) -> Result<Url, FetchError> {
        let by_certificate = Member::INTROSPECTION_BY_CERTIFICATE;
        let has_alias = metadata.document.pointer(by_certificate.pointer).is_some();
        let member = if self.auth.is_certificate() && has_alias {
            by_certificate
        } else {
            Member::INTROSPECTION
        };
        let url = metadata.endpoint(&member, self.plain_http)?;
        if self.same_origin && url.origin() != self.at.origin() {
            return Err(FetchError::OtherOrigin { url: redacted(&url) });
        }
        Ok(url)
    }
}
