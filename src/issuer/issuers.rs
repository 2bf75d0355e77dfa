//! Many issuers: a list, or a look-up that decides whom to trust.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ConfigError;
use crate::issuer::Issuer;

/// Whom a [`Verifier`](crate::Verifier) trusts: one issuer, a list, or a look-up.
///
/// ```
/// use portcullis::{Issuer, Issuers, Verifier};
///
/// let acme = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let globex = Issuer::new("https://globex.okta.com/oauth2/default", "api://default")?;
/// let verifier = Verifier::new([acme, globex])?;
///
/// // Thousands of tenants: a look-up decides whom to trust, among those it knows. Nothing is fetched for an issuer that
/// // it does not return; a look-up that returns one for whatever fits a pattern lets negative choose what is fetched.
/// let tenants = std::collections::HashSet::from(["https://acme.eu.auth0.com/"]);
/// let verifier = Verifier::new(Issuers::lookup(move |iss: &str| {
///     // The issuer is made of the record's own spelling, not of the one that was asked for: else a database that compares
///     // without case would have one tenant pass for another.
///     tenants.get(iss).and_then(|tenant| Issuer::new(*tenant, "https://api.example.com").ok())
/// }))?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Issuers {
    pub(crate) listed: Vec<Issuer>,
    pub(crate) lookup: Option<Lookup>,
    /// A setting of lookups, where there is none.
    pub(crate) unused: Option<&'static str>,
}

/// A look-up, and what is kept of its answers.
#[derive(Clone)]
pub(crate) struct Lookup {
    pub(crate) ask: LookupFn,
    /// Issuers kept.
    pub(crate) capacity: u64,
    /// For how long after the last request for one.
    pub(crate) idle: Duration,
    /// After which time the look-up is asked again, whoever asks for the issuer meanwhile.
    pub(crate) fresh: Duration,
    /// Whether their keys may be at private addresses.
    pub(crate) private_addresses: bool,
}

/// Opaque closures rather than a public trait: nobody has to name the type.
#[derive(Clone)]
pub(crate) enum LookupFn {
    Sync(Arc<SyncLookup>),
    Async(Arc<AsyncLookup>),
}

type SyncLookup = dyn Fn(&str) -> Result<Option<Issuer>, BoxError> + Send + Sync;
type AsyncLookup = dyn Fn(String) -> Answer + Send + Sync;
type Answer = Pin<Box<dyn Future<Output = Result<Option<Issuer>, BoxError>> + Send>>;

/// An error of any type.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the closure of [`Issuers::lookup`] returns: `Option<Issuer>`, or `Result<Option<Issuer>, E>` if it can fail.
pub trait LookupAnswer: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<Option<Issuer>, Box<dyn std::error::Error + Send + Sync>>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for Option<super::Issuer> {}
    impl<E> Sealed for Result<Option<super::Issuer>, E> {}
}

impl LookupAnswer for Option<Issuer> {
    fn into_result(self) -> Result<Option<Issuer>, BoxError> {
        Ok(self)
    }
}

impl<E: Into<BoxError>> LookupAnswer for Result<Option<Issuer>, E> {
    fn into_result(self) -> Result<Option<Issuer>, BoxError> {
        self.map_err(Into::into)
    }
}

impl Issuers {
    /// Asks a closure for the issuer of an `iss`; `None` means: not trusted. It runs on the request's task, so it must not
    /// block, and cannot say that it does not know; [`lookup_async`](Self::lookup_async) may wait and fail.
    ///
    /// The [`Issuer`] returned must have the `iss` asked for as its name or among its aliases, or it is not trusted: make it of
    /// the spelling in your record, and not of the one that was asked for, so that this is a check. It
    /// counts for that name only; by another of its names it is asked for again, and then shares the keys. Answers are kept,
    /// up to 1,024 ([`max_cached`](Self::max_cached)), each until nobody has asked for it for 24 hours. The closure is
    /// asked again after 10 minutes ([`refresh_after`](Self::refresh_after)), so that a tenant that was removed or
    /// changed is noticed; one that has not changed keeps its keys. `None` is remembered for 30 seconds, for up to 1,024
    /// negative; a new tenant may be kept out for so long.
    ///
    /// Keys of looked-up issuers are not fetched from private, loopback or link-local addresses, not even by a name that
    /// resolves to one, unless [`danger_allow_private_addresses`](Self::danger_allow_private_addresses) says so. (By name
    /// only with the built-in HTTP client.)
    pub fn lookup<A: LookupAnswer>(ask: impl Fn(&str) -> A + Send + Sync + 'static) -> Self {
        Self::looked_up(LookupFn::Sync(Arc::new(move |iss: &str| ask(iss).into_result())))
    }

    /// As [`lookup`](Self::lookup), with a closure that may wait, for a database say. Requests that ask for the same name at
    /// once share one answer; 64 names that are not kept are asked for at once at the most.
    ///
    /// An error, or no answer within 5 seconds (the wait for a permit included), means that it could not be found out: 503
    /// ([`LookupFailed`](crate::Error::LookupFailed)), never 401. But whoever was trusted when the look-up last worked stays so
    /// for an hour. The closure is asked in the background 2 minutes before an answer ends, so that no request waits for it,
    /// and every 10 seconds while it fails.
    ///
    /// Each new `iss` that anybody writes into a token costs one look-up: keep the list of tenants in memory if that hurts.
    pub fn lookup_async<F, E>(ask: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<Issuer>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let ask = move |iss| {
            let found = ask(iss);
            Box::pin(async move { found.await.map_err(Into::into) }) as Answer
        };
        Self::looked_up(LookupFn::Async(Arc::new(ask)))
    }

    fn looked_up(ask: LookupFn) -> Self {
        let lookup = Lookup {
            ask,
            capacity: 1024,
            idle: Duration::from_secs(24 * 3600),
            fresh: Duration::from_secs(600),
            private_addresses: false,
        };
        Self { listed: Vec::new(), lookup: Some(lookup), unused: None }
    }

    /// Trusts these issuers beside the looked-up ones. They are asked for first, and no looked-up one pushes them out.
    ///
    /// # Errors
    ///
    /// When one is in the list twice.
    pub fn with_issuers(
        mut self,
        issuers: impl IntoIterator<Item = Issuer>,
    ) -> Result<Self, ConfigError> {
        self.add(issuers)?;
        Ok(self)
    }

    /// How many names of looked-up issuers are kept, with their keys; 1,024 by default. **Give it more than you have tenants**
    /// (and aliases): one that is pushed out costs a look-up and a fetch each time it comes back. As many again are kept, apart,
    /// of which no token was verified yet: tokens that anybody can write push out only those.
    pub fn max_cached(mut self, issuers: u64) -> Self {
        if let Some(lookup) = &mut self.lookup {
            lookup.capacity = issuers;
        } else {
            self.unused = Some("max_cached");
        }
        self
    }

    /// How long an answer of the look-up holds, from 1 second to 24 hours; 10 minutes by default. For so long a tenant that was
    /// removed is still trusted; and for an hour more while [`lookup_async`](Self::lookup_async) fails.
    pub fn refresh_after(mut self, time: Duration) -> Self {
        if let Some(lookup) = &mut self.lookup {
            lookup.fresh = time;
        } else {
            self.unused = Some("refresh_after");
        }
        self
    }

    /// Fetches looked-up issuers' keys from private, loopback and link-local addresses too. Dangerous where negative may
    /// register issuers: theirs could name an address inside your network.
    pub fn danger_allow_private_addresses(mut self) -> Self {
        if let Some(lookup) = &mut self.lookup {
            lookup.private_addresses = true;
        } else {
            self.unused = Some("danger_allow_private_addresses");
        }
        self
    }

    fn listed(issuers: impl IntoIterator<Item = Issuer>) -> Result<Self, ConfigError> {
        let mut listed = Self { listed: Vec::new(), lookup: None, unused: None };
        listed.add(issuers)?;
        match listed.listed.is_empty() {
            true => Err(ConfigError::new("issuers: expected at least one, the list is empty")),
            false => Ok(listed),
        }
    }

    fn add(&mut self, issuers: impl IntoIterator<Item = Issuer>) -> Result<(), ConfigError> {
        self.listed.extend(issuers);
        let mut seen = HashSet::new();
        match self.listed.iter().flat_map(Issuer::names).find(|iss| !seen.insert(*iss)) {
            None => Ok(()),
            Some(twice) => Err(ConfigError::new(format!(
                "issuer {twice:?}: expected once, it is in the list twice"
            ))),
        }
    }
}

impl From<Issuer> for Issuers {
    fn from(issuer: Issuer) -> Self {
        Self { listed: vec![issuer], lookup: None, unused: None }
    }
}

impl<const N: usize> TryFrom<[Issuer; N]> for Issuers {
    type Error = ConfigError;

    fn try_from(issuers: [Issuer; N]) -> Result<Self, ConfigError> {
        Self::listed(issuers)
    }
}

impl TryFrom<Vec<Issuer>> for Issuers {
    type Error = ConfigError;

    fn try_from(issuers: Vec<Issuer>) -> Result<Self, ConfigError> {
        Self::listed(issuers)
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Issuers");
        debug.field("listed", &self.listed);
        if self.lookup.is_some() {
            debug.field("lookup", &"…");
        }
        debug.finish()
    }
}
