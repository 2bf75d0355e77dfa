//! Where the introspection endpoint is, and which methods of authentication it supports: RFC 8414
//! §2, RFC 8705 §5.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use super::client_auth::ClientAuth;
use crate::clock::{Clock, nanos};
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
    /// Uptime when the metadata's lifetime ends.
    holds_until: Duration,
    /// Whether a question failed as if the endpoint had moved.
    is_suspected: AtomicBool,
    /// When the last discovery began, whatever its result, in nanoseconds of uptime.
    discovered_at: AtomicU64,
}

/// How long after a discovery the next one begins at the earliest, whatever the result of the first
/// and of the questions: otherwise each question that fails could cause one.
const DISCOVERED_AFTER: Duration = Duration::from_secs(60);

/// How long an endpoint that could not be discovered is not discovered again.
const RETRIED_AFTER: Duration = Duration::from_secs(1);

/// How much of the metadata is quoted in an error: methods, and characters of each.
const MAX_QUOTED_METHODS: usize = 16;
const MAX_QUOTED: usize = 64;

impl EndpointLocation {
    pub(crate) fn at(url: Url) -> Self {
        let endpoint = Endpoint::new(url, Vec::new(), Duration::ZERO, Duration::MAX);
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

    /// Discovers the endpoint again with one of the next questions, because it may have moved.
    pub(super) fn suspect(&self) {
        if let Some(current) = self.current() {
            current.is_suspected.store(true, Ordering::Relaxed);
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
        if current.try_claim_discovery(discovery.clock.now().uptime) {
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

impl Endpoint {
    fn new(url: Url, methods: Vec<String>, now: Duration, holds_until: Duration) -> Self {
        let (is_suspected, discovered_at) = (AtomicBool::new(false), nanos(now).into());
        Self { url, methods, holds_until, is_suspected, discovered_at }
    }

    /// Whether the caller has to discover the endpoint again.
    fn try_claim_discovery(&self, now: Duration) -> bool {
        let last = self.discovered_at.load(Ordering::Relaxed);
        (now >= self.holds_until || self.is_suspected.load(Ordering::Relaxed))
            && nanos(now) >= last.saturating_add(nanos(DISCOVERED_AFTER))
            && self
                .discovered_at
                .compare_exchange(last, nanos(now), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
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
        let now = self.clock.now().uptime;
        Ok(Endpoint::new(url, methods, now, now + self.policy.lifetime(metadata.lifetime)))
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
