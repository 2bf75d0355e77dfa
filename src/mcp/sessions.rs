//! Sessions belong to the user and the client that started them. Their identifiers are no
//! credentials: they appear in logs, and MCP forbids to authenticate by them.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;

use http::HeaderValue;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::access_token::AccessToken;

/// How many sessions of one user are remembered, and at most a tenth of all. One who starts more
/// loses the oldest of them, and not those of others. Per user and not per client: anyone may
/// register many clients.
const MAX_PER_USER: u64 = 100;

/// The owner of each session that this process has seen to start.
#[derive(Debug)]
pub(super) struct Sessions {
    owners: Cache<HeaderValue, Owner>,
    /// The sessions of each user, the newest last. Its size is the number of sessions.
    started: Cache<Id, Arc<[HeaderValue]>>,
    max_per_user: usize,
    hashers: [RandomState; 2],
}

/// Who started a session: a user at a client. Not the token, which is refreshed during a session.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Owner {
    user: Id,
    user_at_client: Id,
}

/// 128 bits of a keyed hash: claims are long, and there are many sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id([u64; 2]);

impl Sessions {
    pub(super) fn new(capacity: u64) -> Self {
        // LRU: an admission policy by frequency would drop new sessions.
        let (owners, started) = (Cache::builder(), Cache::builder());
        let weigh = |_: &Id, sessions: &Arc<[HeaderValue]>| {
            u32::try_from(sessions.len()).unwrap_or(u32::MAX)
        };
        Self {
            owners: owners.max_capacity(capacity).eviction_policy(EvictionPolicy::lru()).build(),
            started: started
                .max_capacity(capacity)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            max_per_user: usize::try_from(MAX_PER_USER.min(capacity / 10).max(1)).unwrap_or(1),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// `None`: an anonymous request.
    fn owner(&self, token: Option<&AccessToken>) -> Owner {
        let identity = token.map(|token| {
            let (subject, client) = (token.subject(), token.client_id());
            // A token that names neither is a user of its own.
            let user = subject.or(client).unwrap_or_else(|| token.expose_token());
            (token.issuer(), (subject.is_some(), user), client)
        });
        Owner {
            user: self.id(identity.map(|(issuer, user, _)| (issuer, user))),
            user_at_client: self.id(identity),
        }
    }

    fn id(&self, identity: impl Hash) -> Id {
        Id(std::array::from_fn(|half| {
            self.hashers.get(half).map_or(0, |hasher| hasher.hash_one(&identity))
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
        let mut forgotten = None;
        self.started.entry(owner.user).and_upsert_with(|sessions| {
            let sessions = sessions.map_or_else(Arc::default, moka::Entry::into_value);
            let is_full = sessions.len() >= self.max_per_user;
            forgotten = sessions.first().filter(|_| is_full).cloned();
            sessions.iter().skip(usize::from(is_full)).chain([&session]).cloned().collect()
        });
        if let Some(oldest) = forgotten {
            self.owners.invalidate(&oldest);
        }
    }

    pub(super) fn ended(&self, session: &HeaderValue) {
        let Some(owner) = self.owners.remove(session) else { return };
        self.started.entry(owner.user).and_compute_with(|sessions| {
            let sessions = sessions.map_or_else(Arc::default, moka::Entry::into_value);
            let left: Arc<[_]> = sessions.iter().filter(|own| *own != session).cloned().collect();
            // An empty list counts as nothing and would never be evicted.
            if left.is_empty() { Op::Remove } else { Op::Put(left) }
        });
    }
}
