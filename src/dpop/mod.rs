//! Sender-constrained access tokens by DPoP (RFC 9449): a stolen token is useless without the key
//! of the client.
//!
//! `proof.rs` reads and verifies a proof and knows no HTTP, `target.rs` compares URLs,
//! `thumbprint.rs` hashes keys, `nonces.rs` makes nonces, `replays.rs` remembers used proofs, and
//! `check.rs` runs the steps in order.

pub(crate) mod accepted;
pub(crate) mod check;
pub(crate) mod nonces;
pub(crate) mod proof;
mod replays;
pub(crate) mod request;
pub(crate) mod request_url;
mod shared_replays;
pub(crate) mod target;
mod thumbprint;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::algorithm::Algorithm;
use crate::error::ConfigError;
use crate::keys::signature::is_supported;
use crate::shared_store::SharedStore;
use nonces::Nonces;
use request_url::{ForwardedUrl, OwnHosts};
use target::Base;

/// How old a proof may be, and how far ahead of this API's clock, without nonces. Real devices need
/// more than 15 s; the restart of a process makes its past proofs acceptable again, so not more
/// than this by default.
const PAST: Duration = Duration::from_secs(60);
const FUTURE: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(300);

/// Accepted algorithms, in the order of the challenge: those that clients have, and that are cheap
/// to verify.
const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::ES256, Algorithm::EdDSA, Algorithm::PS256, Algorithm::RS256, Algorithm::ES384];

/// How many proofs are remembered at once: more than one processor core verifies in a minute.
const MAX_PROOFS: usize = 1_000_000;

/// DPoP (RFC 9449) for a [`Verifier`](crate::Verifier), with
/// [`VerifierBuilder::dpop`](crate::VerifierBuilder::dpop).
#[derive(Clone)]
#[must_use]
pub struct Dpop {
    bases: Vec<Base>,
    required: bool,
    pub(crate) algorithms: Vec<Algorithm>,
    past: Duration,
    future: Duration,
    nonces: Option<Nonces>,
    max_proofs: usize,
    max_proofs_per_key: Option<u32>,
    path_from: Option<Arc<PathFn>>,
    hosts: Option<OwnHosts>,
    store: Option<Store>,
}

/// Where replicas share which proofs were used.
#[derive(Clone)]
struct Store(Arc<dyn SharedStore>);

type PathFn = dyn for<'a> Fn(&'a Parts) -> Option<Cow<'a, str>> + Send + Sync;

impl Dpop {
    /// Accepts DPoP beside `Bearer`. `url`: how the URLs of this API begin, as its clients write
    /// them. The path of a request follows it, so it includes a prefix that a proxy or
    /// `Router::nest` strips.
    ///
    /// A proof is made for one URL. That of this API is not read from the request, where the client
    /// chooses `Host`: otherwise a proof that was made for another API could be used here.
    ///
    /// # Errors
    ///
    /// Returns an error if `url` is not an absolute `https` or `http` URL, or if it has a user, a
    /// query or a fragment.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        Ok(Self {
            bases: vec![base(url.as_ref())?],
            required: false,
            algorithms: ALGORITHMS.to_vec(),
            past: PAST,
            future: FUTURE,
            nonces: None,
            max_proofs: MAX_PROOFS,
            max_proofs_per_key: None,
            path_from: None,
            hosts: None,
            store: None,
        })
    }

    /// Another beginning of this API's URLs. A proof is accepted once, whichever it names.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn also_at(mut self, url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.bases.push(base(url.as_ref())?);
        Ok(self)
    }

    /// Also accepts proofs for hosts that `is_own` accepts, for APIs with one host for each tenant.
    /// Scheme and prefix are those of the URL that [`new`](Self::new) was given. `is_own` gets the
    /// authority that the request names, in lower case and without the default port:
    /// `acme.example.com`, or `acme.example.com:8443`.
    ///
    /// The client chooses that authority. Accept no host that is another API: a proof that was made
    /// for it could be used here.
    ///
    /// ```
    /// use portcullis::Dpop;
    ///
    /// let dpop = Dpop::new("https://api.example.com")?.at_hosts(|host| {
    ///     host.strip_suffix(".tenants.example.com").is_some_and(|tenant| !tenant.contains('.'))
    /// });
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    pub fn at_hosts(mut self, is_own: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let forwarded = self.hosts.and_then(|hosts| hosts.forwarded);
        self.hosts = Some(OwnHosts { is_own: Arc::new(is_own), forwarded });
        self
    }

    /// Reads the host for [`at_hosts`](Self::at_hosts), and the prefix that was stripped from the
    /// path, from headers of a proxy. `is_trusted` decides whether a request comes from that proxy,
    /// by the address of the peer or by a secret header. The headers of other requests are ignored.
    ///
    /// The proxy must remove these headers from the requests of clients. A value that is no host or
    /// no path is answered 400.
    pub fn forwarded_url(
        mut self,
        headers: ForwardedUrl,
        is_trusted: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        let is_own =
            self.hosts.map_or_else(|| Arc::new(|_: &str| false) as Arc<_>, |hosts| hosts.is_own);
        self.hosts = Some(OwnHosts { is_own, forwarded: Some((headers, Arc::new(is_trusted))) });
        self
    }

    /// Rejects access tokens that are not bound to a key.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets the algorithms that proofs may be signed with, in the order of the challenge. By
    /// default ES256, EdDSA, PS256, RS256 and ES384.
    ///
    /// # Errors
    ///
    /// Returns an error if the list is empty, or contains an HMAC algorithm (RFC 9449 §4.2 requires
    /// asymmetric ones), ML-DSA, an algorithm that the cryptography backend does not support, or
    /// one algorithm twice.
    pub fn algorithms(
        mut self,
        algorithms: impl IntoIterator<Item = Algorithm>,
    ) -> Result<Self, ConfigError> {
        self.algorithms = algorithms.into_iter().collect();
        let symmetric = self.algorithms.iter().find(|one| one.secret_bytes().is_some());
        if self.algorithms.is_empty() || symmetric.is_some() {
            let found = symmetric.map_or("none".to_owned(), |one| one.name().to_owned());
            return Err(ConfigError::new(format!(
                "algorithms of proofs: expected asymmetric ones, found {found}"
            )));
        }
        // The key and the signature of ML-DSA-87 exceed the length limit of proofs.
        if let Some(one) = self.algorithms.iter().find(|one| one.is_ml_dsa()) {
            return Err(ConfigError::new(format!(
                "algorithms of proofs: expected RSA, ECDSA or EdDSA, found {one}"
            )));
        }
        for (number, one) in self.algorithms.iter().enumerate() {
            if self.algorithms.iter().take(number).any(|earlier| earlier == one) {
                let name = one.name();
                return Err(ConfigError::new(format!(
                    "algorithms of proofs: expected each once, found {name} twice"
                )));
            }
            if !is_supported(*one) {
                let name = one.name();
                return Err(ConfigError::new(format!(
                    "algorithms of proofs: expected those of the cryptography backend, found {name}"
                )));
            }
        }
        Ok(self)
    }

    /// Sets how old a proof may be (60 seconds by default), and how far its `iat` may be ahead of
    /// this API's clock (30 seconds). With nonces, neither is used.
    ///
    /// # Errors
    ///
    /// Returns an error if one of them is longer than 300 seconds.
    pub fn window(mut self, past: Duration, future: Duration) -> Result<Self, ConfigError> {
        if past > LONGEST || future > LONGEST {
            return Err(ConfigError::new(format!(
                "window of proofs: expected at most {LONGEST:?}, found {past:?} and {future:?}"
            )));
        }
        (self.past, self.future) = (past, future);
        Ok(self)
    }

    /// Requires a nonce of this API in each proof (RFC 9449 §9).
    pub fn nonces(mut self, nonces: Nonces) -> Self {
        self.nonces = Some(nonces);
        self
    }

    /// Sets how many proofs are remembered at once: 1,000,000 by default, about 30 MB. A proof is
    /// remembered for as long as it is accepted: 90 seconds by default, the whole
    /// [`window`](Self::window), or six minutes with nonces. If there are more, requests with DPoP
    /// are answered 503: set it to the proofs per second times these seconds.
    ///
    /// # Errors
    ///
    /// Returns an error if `number` is 0.
    pub fn max_proofs(mut self, number: usize) -> Result<Self, ConfigError> {
        self.max_proofs = at_least_one("maximum number of proofs", number)?;
        Ok(self)
    }

    /// Sets how many proofs one key may use while a proof is remembered: by default an eighth of
    /// [`max_proofs`](Self::max_proofs). More are answered 429.
    ///
    /// # Errors
    ///
    /// Returns an error if `number` is 0.
    pub fn max_proofs_per_key(mut self, number: u32) -> Result<Self, ConfigError> {
        self.max_proofs_per_key = Some(at_least_one("maximum number of proofs of a key", number)?);
        Ok(self)
    }

    /// Records used proofs also in a store that the replicas of this API share, so that a proof
    /// that one of them accepted is used at all of them. Without it, each
    /// [`Verifier`](crate::Verifier) remembers its own; its clones share them. With it, two
    /// verifiers must not check one request.
    ///
    /// While the store cannot be used, requests with DPoP are answered 503. Requests with bearer
    /// tokens do not depend on it. A request waits for the store for at most 250 ms, on a Tokio
    /// runtime with time enabled. The clocks of the replicas may differ by up to 60 seconds.
    pub fn share_replays(mut self, store: impl SharedStore) -> Self {
        self.store = Some(Store(Arc::new(store)));
        self
    }

    /// Sets where the path of a request is found, if a router has shortened the URI: in axum, in
    /// `OriginalUri`. If the closure returns `None`, the path of the URI is used.
    pub fn path_from(
        mut self,
        path: impl for<'a> Fn(&'a Parts) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    ) -> Self {
        self.path_from = Some(Arc::new(path));
        self
    }
}

/// 0 would reject every request.
fn at_least_one<N: PartialEq + Default>(what: &str, number: N) -> Result<N, ConfigError> {
    if number == N::default() {
        return Err(ConfigError::new(format!("{what}: expected at least 1, found 0")));
    }
    Ok(number)
}

fn base(url: &str) -> Result<Base, ConfigError> {
    Base::new(url).ok_or_else(|| {
        // It may have a password.
        let url = if url.contains('@') { "with a user" } else { url };
        ConfigError::new(format!(
            "URL for DPoP {url:?}: expected an absolute https or http URL without user, query and fragment"
        ))
    })
}

impl fmt::Debug for Dpop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Dpop")
            .field("urls", &self.bases.iter().map(Base::as_str).collect::<Vec<_>>())
            .field("required", &self.required)
            .field("algorithms", &self.algorithms)
            .field("past", &self.past)
            .field("future", &self.future)
            .field("nonces", &self.nonces)
            .field("max_proofs", &self.max_proofs)
            .finish_non_exhaustive()
    }
}
