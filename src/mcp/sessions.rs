//! Sessions belong to the user and the client that started them. Their identifiers are no
//! credentials: they appear in logs, and MCP forbids to authenticate by them.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::access_token::AccessToken;

/// How many sessions of one owner are remembered. One who starts more loses the oldest of them, and
/// not those of others.
const MAX_PER_OWNER: usize = 100;

/// The owner of each session that this process has seen to start.
#[derive(Debug)]
pub(super) struct Sessions {
    owners: Cache<HeaderValue, Owner>,
    /// The sessions of each owner, the newest last.
    started: Cache<Owner, Arc<Mutex<VecDeque<HeaderValue>>>>,
    hashers: [RandomState; 2],
}

/// A user at a client, as 128 bits of a keyed hash: claims are long, and there are many sessions.
/// Not the token, which is refreshed during a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owner([u64; 2]);

impl Sessions {
    pub(super) fn new(capacity: u64) -> Self {
        // LRU: an admission policy by frequency would drop new sessions.
        let (owners, started) = (Cache::builder(), Cache::builder());
        Self {
            owners: owners.max_capacity(capacity).eviction_policy(EvictionPolicy::lru()).build(),
            started: started.max_capacity(capacity).eviction_policy(EvictionPolicy::lru()).build(),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// `None`: an anonymous request.
    fn owner(&self, token: Option<&AccessToken>) -> Owner {
        let identity = token.map(|token| {
            let names = (token.subject(), token.client_id());
            // A token that names neither is an owner of its own.
            let token_itself = (names == (None, None)).then(|| token.expose_token());
            (token.issuer(), names, token_itself)
        });
        Owner(std::array::from_fn(|half| {
            self.hashers.get(half).map_or(0, |hasher| hasher.hash_one(identity))
        }))
    }

    /// Whether a request with this token may use the session. A session that another process
    /// started is unknown here, and left to the service.
    pub(super) fn may_use(&self, session: &HeaderValue, token: Option<&AccessToken>) -> bool {
        self.owners.get(session).is_none_or(|owner| owner == self.owner(token))
    }

    /// Records who started a session. A session that has an owner keeps it.
    pub(super) fn started(&self, session: &HeaderValue, token: Option<&AccessToken>) {
        // Copied: a header value is a slice of the connection's buffer.
        let Ok(session) = HeaderValue::from_bytes(session.as_bytes()) else { return };
        let owner = self.owner(token);
        if !self.owners.entry(session.clone()).or_insert(owner).is_fresh() {
            return;
        }
        let started = self.started.get_with(owner, Arc::default);
        let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
        started.push_back(session);
        if started.len() > MAX_PER_OWNER
            && let Some(oldest) = started.pop_front()
        {
            self.owners.invalidate(&oldest);
        }
    }

    pub(super) fn ended(&self, session: &HeaderValue) {
        let Some(owner) = self.owners.remove(session) else { return };
        if let Some(started) = self.started.get(&owner) {
            let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
            started.retain(|own| own != session);
        }
    }
}
