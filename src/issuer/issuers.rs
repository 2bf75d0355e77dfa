//! Several issuers: a list, or a lookup that decides which issuers are trusted.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{BoxError, ConfigError};
use crate::issuer::Issuer;
use crate::keys::remote::AddressPolicy;

/// The issuers that a [`Verifier`](crate::Verifier) trusts: one issuer, a list, or a lookup.
///
/// ```
/// use portcullis::{Issuer, Issuers, Verifier};
///
/// let acme = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let globex = Issuer::new("https://globex.okta.com/oauth2/default", "api://default")?;
/// let verifier = Verifier::new([acme, globex])?;
///
/// // With thousands of tenants, a lookup returns the issuers to trust. Nothing is fetched for an
/// // issuer that it does not return. Do not return issuers that merely match a pattern: attackers
/// // could then choose what is fetched. An error is answered 503, and `None` 401.
/// let tenants = std::collections::HashSet::from(["https://acme.eu.auth0.com/"]);
/// let verifier = Verifier::new(Issuers::lookup(move |iss: &str| {
///     // Build the issuer from the spelling in your record, not from the argument. Otherwise a
///     // database that compares case-insensitively could confuse one tenant with another.
///     tenants.get(iss).map(|tenant| Issuer::new(*tenant, "https://api.example.com")).transpose()
/// }))?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Issuers {
    pub(crate) configured: Vec<Issuer>,
    pub(crate) lookup: Option<Lookup>,
    /// The name of a lookup setting that was called without a lookup.
    pub(crate) unused: Option<&'static str>,
}

/// A lookup, and the settings for caching its answers.
#[derive(Clone)]
pub(crate) struct Lookup {
    pub(crate) call: LookupFn,
    /// Maximum number of cached issuers.
    pub(crate) capacity: u64,
    /// Time after the last request at which an issuer is evicted.
    pub(crate) idle: Duration,
    /// Lifetime of an answer, after which the lookup is called again.
    pub(crate) fresh: Duration,
    /// From where the keys of resolved issuers are fetched.
    pub(crate) addresses: AddressPolicy,
}

/// Opaque closures rather than a public trait, so that callers need not name the type.
#[derive(Clone)]
pub(crate) enum LookupFn {
    Sync(Arc<SyncLookup>),
    Async(Arc<AsyncLookup>),
}

type SyncLookup = dyn Fn(&str) -> Result<Option<Issuer>, BoxError> + Send + Sync;
type AsyncLookup = dyn Fn(String) -> Answer + Send + Sync;
type Answer = Pin<Box<dyn Future<Output = Result<Option<Issuer>, BoxError>> + Send>>;

/// The return type of the closure of [`Issuers::lookup`]: `Option<Issuer>`, or
/// `Result<Option<Issuer>, E>` if it can fail.
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
    /// Calls a closure to find the issuer for an `iss`. `None` means that it is not trusted. If the
    /// closure can fail, it returns `Result<Option<Issuer>, E>`; an error means that the answer is
    /// unknown (503), as with [`lookup_async`](Self::lookup_async). The closure runs on the task of
    /// the request, so it must not block. Use [`lookup_async`](Self::lookup_async) if it has to
    /// wait.
    ///
    /// The returned [`Issuer`] must have the requested `iss` as its name or among its aliases;
    /// otherwise, it is not trusted. Build it from the spelling in your record rather than from the
    /// argument, so that this check is effective. An answer applies to the requested name only. The
    /// lookup is called separately for each other name of the issuer, and all names share the keys.
    ///
    /// Up to 1,024 answers are cached ([`max_cached`](Self::max_cached)), each until it has not
    /// been used for 24 hours. An answer is valid for 10 minutes
    /// ([`refresh_after`](Self::refresh_after)); then the closure is called again, so that a
    /// removed or changed tenant is noticed. An issuer that has not changed keeps its keys. `None`
    /// is cached for 30 seconds, for up to 1,024 untrusted issuers, so a new tenant may be rejected
    /// for that long.
    ///
    /// The keys of resolved issuers are not fetched from private, loopback or link-local addresses,
    /// even if the address comes from name resolution, unless
    /// [`danger_allow_private_addresses`](Self::danger_allow_private_addresses) is called. Name
    /// resolution is checked only with the built-in HTTP client.
    pub fn lookup<A: LookupAnswer>(call: impl Fn(&str) -> A + Send + Sync + 'static) -> Self {
        Self::with_lookup(LookupFn::Sync(Arc::new(move |iss: &str| call(iss).into_result())))
    }

    /// Like [`lookup`](Self::lookup), with an asynchronous closure that may wait, for example for a
    /// database. Concurrent requests for the same name share one call. At most 64 calls for
    /// uncached names run at once.
    ///
    /// An error, or no answer within 5 seconds (including the wait for a permit), results in 503
    /// ([`LookupFailed`](crate::Error::LookupFailed)), never in 401. An issuer with a cached answer
    /// stays trusted for up to an hour longer while the lookup fails. The closure is called in the
    /// background when 80 % of the lifetime of an answer has passed, so that no request waits for
    /// it, and every 10 seconds while it fails.
    ///
    /// Each new `iss` costs one call, and unsigned tokens can contain any `iss`. If that load is a
    /// concern, keep the list of tenants in memory.
    pub fn lookup_async<F, E>(call: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<Issuer>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let call = move |iss| {
            let found = call(iss);
            Box::pin(async move { found.await.map_err(Into::into) }) as Answer
        };
        Self::with_lookup(LookupFn::Async(Arc::new(call)))
    }

    fn with_lookup(call: LookupFn) -> Self {
        let lookup = Lookup {
            call,
            capacity: 1024,
            idle: Duration::from_secs(24 * 3600),
            fresh: Duration::from_secs(600),
            addresses: AddressPolicy::PublicOnly,
        };
        Self { configured: Vec::new(), lookup: Some(lookup), unused: None }
    }

    /// Trusts these issuers in addition to those of the lookup. They take precedence over the
    /// lookup, and resolved issuers never evict them.
    ///
    /// # Errors
    ///
    /// Returns an error if an issuer is configured twice.
    pub fn with_issuers(
        mut self,
        issuers: impl IntoIterator<Item = Issuer>,
    ) -> Result<Self, ConfigError> {
        self.add(issuers)?;
        Ok(self)
    }

    /// Sets how many names of resolved issuers are cached with their keys; 1,024 by default. **Set
    /// it higher than the number of your tenants and their aliases**: an evicted one costs a lookup
    /// and a fetch each time it is used again. Issuers without a verified token are cached
    /// separately, up to the same number, so forged `iss` values can evict only those.
    pub fn max_cached(mut self, issuers: u64) -> Self {
        if let Some(lookup) = &mut self.lookup {
            lookup.capacity = issuers;
        } else {
            self.unused = Some("max_cached");
        }
        self
    }

    /// Sets how long an answer of the lookup is valid, from 1 second to 24 hours; 10 minutes by
    /// default. A removed tenant stays trusted for up to this time, and for up to an hour longer
    /// while the lookup fails.
    pub fn refresh_after(mut self, time: Duration) -> Self {
        if let Some(lookup) = &mut self.lookup {
            lookup.fresh = time;
        } else {
            self.unused = Some("refresh_after");
        }
        self
    }

    /// Allows the keys of resolved issuers to be fetched from private, loopback and link-local
    /// addresses. Dangerous if untrusted parties may register issuers: the URL of their keys could
    /// point into your network.
    pub fn danger_allow_private_addresses(mut self) -> Self {
        if let Some(lookup) = &mut self.lookup {
            lookup.addresses = AddressPolicy::Any;
        } else {
            self.unused = Some("danger_allow_private_addresses");
        }
        self
    }

    /// Trusts no issuer: for an API that accepts only API keys
    /// ([`VerifierBuilder::api_keys`](crate::VerifierBuilder::api_keys)).
    pub fn none() -> Self {
        Self { configured: Vec::new(), lookup: None, unused: None }
    }

    pub(crate) fn are_none(&self) -> bool {
        self.configured.is_empty() && self.lookup.is_none()
    }

    fn configured(issuers: impl IntoIterator<Item = Issuer>) -> Result<Self, ConfigError> {
        let mut configured = Self { configured: Vec::new(), lookup: None, unused: None };
        configured.add(issuers)?;
        if configured.configured.is_empty() {
            Err(ConfigError::new("issuers: expected at least one, the list is empty"))
        } else {
            Ok(configured)
        }
    }

    fn add(&mut self, issuers: impl IntoIterator<Item = Issuer>) -> Result<(), ConfigError> {
        self.configured.extend(issuers);
        let mut seen = HashSet::new();
        match self.configured.iter().flat_map(Issuer::names).find(|iss| !seen.insert(*iss)) {
            None => Ok(()),
            Some(twice) => Err(ConfigError::new(format!(
                "issuer {twice:?}: expected once, it is in the list twice"
            ))),
        }
    }
}

impl From<Issuer> for Issuers {
    fn from(issuer: Issuer) -> Self {
        Self { configured: vec![issuer], lookup: None, unused: None }
    }
}

impl<const N: usize> TryFrom<[Issuer; N]> for Issuers {
    type Error = ConfigError;

    fn try_from(issuers: [Issuer; N]) -> Result<Self, ConfigError> {
        Self::configured(issuers)
    }
}

impl TryFrom<Vec<Issuer>> for Issuers {
    type Error = ConfigError;

    fn try_from(issuers: Vec<Issuer>) -> Result<Self, ConfigError> {
        Self::configured(issuers)
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Issuers");
        debug.field("configured", &self.configured);
        if self.lookup.is_some() {
            debug.field("lookup", &"…");
        }
        debug.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults are those of DESIGN.md. How long an issuer may be idle is measured by the clock
    /// of the cache, which no test can move.
    #[test]
    fn the_names_of_a_lookup_are_cached_for_a_day_without_use() {
        let issuers = Issuers::lookup(|_: &str| None::<Issuer>);
        assert_eq!(issuers.lookup.unwrap().idle, Duration::from_secs(86_400));
    }
}
