//! Sessions belong to the user and the client that started them. Their identifiers are no
//! credentials: they appear in logs, and MCP forbids to authenticate by them.

use std::hash::{BuildHasher as _, RandomState};

use http::HeaderValue;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::access_token::AccessToken;

/// The owner of each session that this process has seen to start.
#[derive(Debug)]
pub(super) struct Sessions {
    owners: Cache<HeaderValue, Owner>,
    hashers: [RandomState; 2],
}

/// A user at a client, as 128 bits of a keyed hash: claims are long, and there are many sessions.
/// Not the token, which is refreshed during a session.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Owner([u64; 2]);

impl Sessions {
    pub(super) fn new(capacity: u64) -> Self {
        // LRU: an admission policy by frequency would drop new sessions.
        let owners = Cache::builder().max_capacity(capacity);
        Self {
            owners: owners.eviction_policy(EvictionPolicy::lru()).build(),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// `None`: an anonymous request.
    fn owner(&self, token: Option<&AccessToken>) -> Owner {
        let identity = token.map(|token| (token.issuer(), token.subject(), token.client_id()));
        Owner(std::array::from_fn(|half| {
            self.hashers.get(half).map_or(0, |hasher| hasher.hash_one(identity))
        }))
    }

    /// Whether a request with this token may use the session. A session that another process
    /// started is unknown here, and left to the service.
    pub(super) fn may_use(&self, session: &HeaderValue, token: Option<&AccessToken>) -> bool {
        self.owners.get(session).is_none_or(|owner| owner == self.owner(token))
    }

    pub(super) fn started(&self, session: &HeaderValue, token: Option<&AccessToken>) {
        // Copied: a header value is a slice of the connection's buffer.
        if let Ok(session) = HeaderValue::from_bytes(session.as_bytes()) {
            self.owners.insert(session, self.owner(token));
        }
    }

    pub(super) fn ended(&self, session: &HeaderValue) {
        self.owners.invalidate(session);
    }
}
