//! Where the introspection endpoint is, and which methods of authentication it supports: RFC 8414
//! §2, RFC 8705 §5.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use super::client_auth::ClientAuth;
use crate::clock::{Clock, Now};
use crate::error::FetchError;
use crate::keys::remote::discovery::{Member, Metadata, metadata};
use crate::keys::remote::fetch::{Http, redacted};
use crate::keys::remote::schedule::KeyPolicy;
use crate::keys::url::PlainHttp;

/// The endpoint, as configured or discovered.
pub(crate) struct EndpointLocation {
    /// `None`: the URL is configured.
    discovery: Option<Discovery>,
    /// The last discovery, if it failed. Held during a discovery: concurrent questions wait for it.
    last: Mutex<Option<Failed>>,
    current: RwLock<Option<Arc<Endpoint>>>,
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
}

/// A discovery that failed.
struct Failed {
    at: Duration,
    error: FetchError,
}

pub(super) struct Endpoint {
    pub(super) url: Url,
    /// The methods of client authentication that the metadata list; empty if they list none.
    pub(super) methods: Vec<String>,
    /// Uptime of the discovery, and uptime at which it is discovered again. `None` if it is
    /// configured.
    since: Option<Duration>,
    until: Option<Duration>,
    /// Whether it may have moved.
    is_suspect: AtomicBool,
}

/// How long a discovered endpoint that fails is not discovered again.
const SUSPECT_AFTER: Duration = Duration::from_secs(60);

impl EndpointLocation {
    pub(crate) fn at(url: Url) -> Self {
        let (methods, is_suspect) = (Vec::new(), AtomicBool::new(false));
        let endpoint = Endpoint { url, methods, since: None, until: None, is_suspect };
        let current = RwLock::new(Some(Arc::new(endpoint)));
        Self { discovery: None, last: Mutex::default(), current }
    }

    pub(crate) fn discovered(discovery: Discovery) -> Self {
        Self { discovery: Some(discovery), last: Mutex::default(), current: RwLock::default() }
    }

    fn current(&self) -> Option<Arc<Endpoint>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_known(&self) -> bool {
        self.current().is_some()
    }

    /// Discovers the endpoint again for the next question, because it may have moved. Not more
    /// often than once in [`SUSPECT_AFTER`].
    pub(super) fn suspect(&self, now: Now) {
        if let Some(current) = self.current()
            && current.since.is_some_and(|since| now.uptime >= since + SUSPECT_AFTER)
        {
            current.is_suspect.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the endpoint, and discovers it if necessary.
    pub(super) async fn find(
        &self,
        http: &Http<'_>,
        auth: &ClientAuth,
        clock: &Clock,
    ) -> Result<Arc<Endpoint>, FetchError> {
        let fresh = |now: Now| {
            self.current().filter(|one| {
                one.until.is_none_or(|until| now.uptime < until)
                    && !one.is_suspect.load(Ordering::Relaxed)
            })
        };
        let began = clock.now();
        if let Some(endpoint) = fresh(began) {
            return Ok(endpoint);
        }
        let Some(discovery) = &self.discovery else { return Err(FetchError::Interrupted) };
        let limit = discovery.policy.timeout;
        // The task that holds it may be on a runtime that is no longer driven.
        let Ok(mut last) = timeout(limit, self.last.lock()).await else {
            return Err(FetchError::Timeout { limit });
        };
        if let Some(endpoint) = fresh(clock.now()) {
            return Ok(endpoint);
        }
        // Failed while this question waited for it.
        if let Some(failed) = last.as_ref().filter(|failed| failed.at > began.uptime) {
            return Err(failed.error.clone());
        }
        match discovery.run(http, auth, clock).await {
            Ok(endpoint) => {
                let endpoint = Arc::new(endpoint);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) =
                    Some(Arc::clone(&endpoint));
                *last = None;
                Ok(endpoint)
            }
            // It has probably not moved while the metadata cannot be fetched.
            Err(error) => {
                *last = Some(Failed { at: clock.now().uptime, error: error.clone() });
                self.current().ok_or(error)
            }
        }
    }
}

impl Discovery {
    async fn run(
        &self,
        http: &Http<'_>,
        auth: &ClientAuth,
        clock: &Clock,
    ) -> Result<Endpoint, FetchError> {
        let limit = self.policy.timeout;
        let found = timeout(limit, metadata(http, &self.iss, &self.at)).await;
        let metadata = found.map_err(|_| FetchError::Timeout { limit })??;
        let url = self.endpoint(&metadata, auth)?;
        let methods = metadata.document.get("introspection_endpoint_auth_methods_supported");
        let methods: Vec<_> = methods
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|method| method.as_str().map(str::to_owned))
            .collect();
        let own = auth.methods();
        let fits = methods.is_empty()
            || own.is_empty()
            || methods.iter().any(|method| own.contains(&method.as_str()));
        if !fits {
            return Err(FetchError::UnsupportedClientAuth {
                url: redacted(&metadata.url),
                configured: own.join(" or "),
                supported: methods.into_iter().take(16).collect(),
            });
        }
        let since = clock.now().uptime;
        let until = since + self.policy.lifetime(metadata.lifetime);
        let is_suspect = AtomicBool::new(false);
        Ok(Endpoint { url, methods, since: Some(since), until: Some(until), is_suspect })
    }

    fn endpoint(&self, metadata: &Metadata, auth: &ClientAuth) -> Result<Url, FetchError> {
        let by_certificate = Member::INTROSPECTION_BY_CERTIFICATE;
        let has_alias = metadata.document.pointer(by_certificate.pointer).is_some();
        let member =
            if auth.is_certificate() && has_alias { by_certificate } else { Member::INTROSPECTION };
        let url = metadata.endpoint(&member, self.plain_http)?;
        if self.same_origin && url.origin() != self.at.origin() {
            return Err(FetchError::OtherOrigin { url: redacted(&url) });
        }
        Ok(url)
    }
}
