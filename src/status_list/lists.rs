//! The status lists of one issuer at run time, and where the status of a token is in them.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::{Origin, Url};

use super::StatusLists;
use super::budget::{Account, NoRoom, ResolvedBudget, Usage};
use super::fetch::ResolvedLimit;
use super::reference::Reference;
use super::slot::{Counters, Fetches, Place, SHORTEST, Slot, StatusCheck};
use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, InvalidToken};
use crate::health::StatusListHealth;
use crate::http_client::{HttpClients, Purpose};
use crate::introspection::{Introspection, JwtPolicy};
use crate::issuer::Issuer;
use crate::issuer::active::ActiveIssuer;
use crate::keys::remote::AddressPolicy;
use crate::keys::remote::schedule::KeyPolicy;
use crate::keys::url::{PlainHttp, secure_url};
use crate::telemetry::{self, IssuerName, LogThrottle};

/// How long a list must have been unused before another one takes its place. Otherwise, the tokens
/// of one list too many would fetch a list with each request.
const UNUSED_FOR: Duration = Duration::from_secs(300);

/// The lists of one issuer.
pub(crate) struct ActiveStatusLists {
    /// Where lists may be.
    origins: Vec<Origin>,
    /// Whether each token must name a list.
    is_required: bool,
    plain_http: PlainHttp,
    fetches: Fetches,
    slots: Mutex<HashMap<Place, Arc<Slot>>>,
    /// Of tokens with one list too many.
    full: LogThrottle,
}

/// Where the status of a verified token is.
pub(crate) struct TokenStatus {
    slot: Arc<Slot>,
    index: u32,
}

/// The place of a token's status, at an allowed URL.
pub(crate) struct CheckedReference {
    place: Place,
    url: Url,
    index: u32,
}

impl ActiveStatusLists {
    pub(crate) fn new(
        config: &Issuer,
        issuer: &IssuerName,
        addresses: AddressPolicy,
        of_resolved: Option<Arc<ResolvedBudget>>,
        clients: &HttpClients,
        clock: &Clock,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(lists) = &config.status_lists else { return Ok(None) };
        let own = config.names().filter_map(|iss| Url::parse(iss).ok()).map(|url| url.origin());
        let origins: Vec<_> =
            own.filter(Origin::is_tuple).chain(lists.origins.iter().cloned()).collect();
        if origins.is_empty() {
            return Err(ConfigError::new(format!(
                "status lists of issuer {:?}: expected `StatusLists::allow_origin`, since the issuer is not a URL",
                config.iss
            )));
        }
        let is_asked = |introspection: &Introspection| introspection.jwts == JwtPolicy::Ask;
        if config.introspection.as_ref().is_some_and(is_asked) {
            return Err(ConfigError::new(format!(
                "status lists of issuer {:?}: expected JWTs that are verified, found `Introspection::instead_of_keys`, by which the issuer is asked about every token",
                config.iss
            )));
        }
        let client = clients.get(config.client.as_ref(), addresses, Purpose::Keys)?;
        let StatusLists { is_required, max_stale, .. } = *lists;
        let policy = KeyPolicy { max_stale, ..config.key_policy.clone() };
        let (issuer, clock, leeway) = (issuer.clone(), clock.clone(), config.leeway);
        let resolved_limit = match of_resolved {
            Some(_) => ResolvedLimit::new(),
            None => ResolvedLimit::none(),
        };
        let (account, counters) = (Arc::new(Account::new(of_resolved)), Arc::default());
        let fetches = Fetches {
            issuer,
            client,
            addresses,
            clock,
            policy,
            leeway,
            resolved_limit,
            account,
            counters,
        };
        let (slots, full) = (Mutex::default(), LogThrottle::default());
        Ok(Some(Self { origins, is_required, plain_http: config.plain_http, fetches, slots, full }))
    }

    /// Reads where the status of a token is. The payload is unverified: it can only cause a
    /// rejection. `tenant`: that of the token, for an issuer that has many.
    pub(crate) fn reference(
        &self,
        payload: &[u8],
        tenant: Option<&str>,
    ) -> Result<Option<CheckedReference>, InvalidToken> {
        let Some(Reference { uri, index }) = Reference::read(payload)? else {
            return if self.is_required {
                Err(InvalidToken::MissingClaim("status.status_list"))
            } else {
                Ok(None)
            };
        };
        let expected = |expected: &str| InvalidToken::ClaimValue {
            claim: "status".to_owned(),
            expected: expected.to_owned(),
        };
        let url = secure_url("status list", &uri, self.plain_http)
            .map_err(|_| expected("the https URL of a status list"))?;
        if !self.origins.contains(&url.origin()) {
            return Err(expected(
                "a status list at the issuer's origin, or at one that `StatusLists::allow_origin` names",
            ));
        }
        let place = Place { uri: uri.into(), tenant: tenant.map(Box::from) };
        Ok(Some(CheckedReference { place, url, index }))
    }

    /// The status of a token that was verified. Fetches nothing.
    pub(crate) fn status(
        &self,
        reference: CheckedReference,
        issuer: &Arc<ActiveIssuer>,
    ) -> Result<TokenStatus, Error> {
        let CheckedReference { place, url, index } = reference;
        let now = self.fetches.clock.now();
        let mut slots = self.slots();
        if let Some(slot) = slots.get(&place) {
            return Ok(TokenStatus { slot: Arc::clone(slot), index });
        }
        let account = &self.fetches.account;
        let added = account.add_list().or_else(|no_room| {
            if drop_unused(&mut slots, now) { account.add_list() } else { Err(no_room) }
        });
        if let Err(NoRoom(expected)) = added {
            drop(slots);
            if let Some(suppressed) = self.full.admit(now.uptime) {
                telemetry::status_lists_full(&self.fetches.issuer, expected, suppressed);
            }
            return Err(Error::RevocationsUnavailable);
        }
        let slot = Arc::new(Slot::new(place.clone(), url, issuer, self.fetches.clone(), now));
        slots.insert(place, Arc::clone(&slot));
        Ok(TokenStatus { slot, index })
    }

    /// Drops all lists. The next token that names one starts a fetch.
    pub(crate) fn forget(&self) {
        for (_, slot) in self.slots().drain() {
            slot.retire();
        }
    }

    pub(crate) fn health(&self) -> StatusListHealth {
        let Fetches { account, counters, .. } = &self.fetches;
        let Usage { lists, bytes } = account.usage();
        let Counters { fetches, failed, last_error } = &**counters;
        StatusListHealth {
            lists,
            bytes,
            fetches: fetches.load(Ordering::Relaxed),
            failed_fetches: failed.load(Ordering::Relaxed),
            last_error: last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Place, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveStatusLists {
    /// Tokens of an issuer that was evicted may be kept for long, and with them its lists.
    fn drop(&mut self) {
        self.forget();
    }
}

/// Drops the list that has not been used for the longest time, unless that is too short. Returns
/// whether a list was dropped.
fn drop_unused(slots: &mut HashMap<Place, Arc<Slot>>, now: Now) -> bool {
    let unused_since = now.uptime.saturating_sub(UNUSED_FOR);
    let oldest = slots.iter().min_by_key(|(_, slot)| slot.used_at());
    let oldest = oldest.filter(|(_, slot)| slot.used_at() < unused_since);
    let Some(place) = oldest.map(|(place, _)| place.clone()) else { return false };
    slots.remove(&place).inspect(|slot| slot.retire()).is_some()
}

impl TokenStatus {
    /// Whether the status can be looked up: not if the list was dropped, so that the token must be
    /// verified again.
    pub(crate) fn is_kept(&self) -> bool {
        !self.slot.is_retired()
    }

    /// Looks up the status. Starts a fetch if one is due.
    pub(crate) fn check(&self, now: Now) -> StatusCheck {
        self.slot.check(self.index, now)
    }

    /// Waits until the status is not valid. A list that is not available revokes nothing.
    pub(crate) async fn until_revoked(&self) {
        // While the stream is open, its issuer may be evicted by others. Its lists are then still
        // fetched.
        let _issuer = self.slot.issuer.upgrade();
        let mut current = Self { slot: Arc::clone(&self.slot), index: self.index };
        let clock = &self.slot.fetches.clock;
        loop {
            if let Some(renewed) = current.renewed() {
                current = renewed;
            }
            let mut check = current.check(clock.now());
            if let StatusCheck::Pending(fetching) = check {
                fetching.finished().await;
                check = current.check(clock.now());
            }
            if matches!(check, StatusCheck::Rejected(_)) {
                return;
            }
            tokio::time::sleep(SHORTEST).await;
        }
    }

    /// The same place, if the list was dropped.
    fn renewed(&self) -> Option<Self> {
        if self.is_kept() {
            return None;
        }
        let issuer = self.slot.issuer.upgrade()?;
        let Slot { place, url, .. } = &*self.slot;
        let (place, url, index) = (place.clone(), url.clone(), self.index);
        let reference = CheckedReference { place, url, index };
        issuer.status(Some(reference)).ok()?
    }
}
