//! The keys of one issuer: fetches, and tokens that were cached with earlier keys. The keys of a
//! fetch are named after the `kid` that it was started for.

use std::sync::Arc;

use loom::sync::atomic::AtomicUsize;

use super::{Event, Exploration, join, poll_and_cancel, spawn, wait};
use crate::access_token::AccessToken;
use crate::clock::Clock;
use crate::issuer::resolution::ResolvedIssuer;
use crate::keys::jwks::Jwks;
use crate::keys::remote::schedule::KeyPolicy;
use crate::keys::remote::{KeysState, Location, Mismatch, RefetchOutcome, RemoteJwks, Source};
use crate::reqwest::Client;
use crate::telemetry::IssuerName;
use crate::token_cache::{Entry, TokenCache};
use crate::tokio::runtime;
use crate::url::Url;

/// The issuer, as the requests see it.
#[derive(Clone)]
struct Keys {
    remote: Arc<RemoteJwks>,
    clock: Clock,
}

impl Keys {
    fn new() -> Self {
        let source = Source {
            issuer: IssuerName { iss: "issuer".into() },
            location: Location::Jwks(Url),
            policy: KeyPolicy::default(),
            begun: AtomicUsize::new(0),
        };
        let clock = Clock::default();
        clock.set(10);
        Self { remote: RemoteJwks::new(source, Client, clock.clone(), None), clock }
    }

    /// With the keys of a fetch for this `kid`.
    fn fetched(kid: &str) -> (Self, Arc<Jwks>) {
        let keys = Self::new();
        let fetched = keys.request(kid).expect("the fetch succeeds");
        runtime::join_all();
        (keys, fetched)
    }

    /// What a request gets. It waits as often as it has to.
    fn request(&self, kid: &str) -> Option<Arc<Jwks>> {
        for _ in 0..3 {
            match self.remote.keys(Some(kid), self.clock.now()) {
                KeysState::Ready(keys) => return Some(keys),
                KeysState::Pending(fetching, _) => wait(fetching.finished()),
                KeysState::Unavailable(_) => return None,
            }
        }
        panic!("a request waits again and again");
    }

    /// What a request gets whose key is not in `seen`.
    fn request_another(&self, seen: &Arc<Jwks>, kid: &str) -> Option<Arc<Jwks>> {
        let now = self.clock.now();
        match self.remote.refetch(seen, Some(kid), Mismatch::Kid, 0, now) {
            RefetchOutcome::Pending(fetching) => wait(fetching.finished()),
            RefetchOutcome::Retry => {}
            RefetchOutcome::Rejected(_) => return None,
        }
        self.request(kid)
    }
}

/// Two requests and a canceled one, without keys.
pub(super) const ONE_FETCH: Exploration = Exploration {
    name: "one fetch at a time, for all requests, and each of them gets its keys",
    preemptions: 2,
    run: || {
        let keys = Keys::new();
        let other = {
            let keys = keys.clone();
            spawn(move || {
                if let KeysState::Pending(fetching, _) = keys.remote.keys(None, keys.clock.now()) {
                    poll_and_cancel(fetching.finished());
                }
                keys.request("")
            })
        };
        let fetched = [keys.request(""), join(other)];
        assert!(fetched.iter().all(Option::is_some), "{fetched:?}");
        runtime::join_all();
        assert_eq!(keys.remote.fetches_begun(), 1, "fetches");
    },
};

/// A fetch begins, the issuer is forgotten, and another fetch begins before the first one ends.
pub(super) const NEWER_KEYS_STAY: Exploration = Exploration {
    name: "a fetch that ends late does not replace newer keys",
    preemptions: 3,
    run: || {
        let keys = Keys::new();
        let first = keys.remote.keys(Some("old"), keys.clock.now());
        assert!(matches!(first, KeysState::Pending(..)));
        keys.remote.forget();
        assert_eq!(keys.request("new").expect("keys").0, "new");
        runtime::join_all();
        assert_eq!(keys.request("new").expect("keys").0, "new", "at last");
    },
};

/// The runtime of a fetch is shut down while two requests wait.
pub(super) const INTERRUPTED_FETCH_ENDS: Exploration = Exploration {
    name: "a fetch that is interrupted wakes all requests, and a later request starts another",
    preemptions: 3,
    run: || {
        let keys = Keys::new();
        runtime::shut_down(true);
        let other = {
            let keys = keys.clone();
            spawn(move || keys.request(""))
        };
        keys.request("");
        join(other);
        runtime::shut_down(false);
        // After the back-off, and before a fetch without a sign of life is given up.
        keys.clock.set(13);
        assert!(keys.request("").is_some(), "the next request");
        runtime::join_all();
    },
};

/// An issuer is forgotten while requests use its keys.
pub(super) const KEYS_OR_A_FETCH: Exploration = Exploration {
    name: "a request gets keys, or a fetch to wait for, also while the issuer is forgotten",
    preemptions: 3,
    run: || {
        let (keys, _) = Keys::fetched("old");
        // The keys are due for a refresh, so that requests decide under the lock.
        keys.clock.set(10 + 590);
        let other = {
            let keys = keys.clone();
            spawn(move || keys.remote.forget())
        };
        assert!(keys.request("new").is_some(), "unavailable, and no fetch has failed");
        join(other);
        runtime::join_all();
    },
};

/// Two requests with tokens of a new key, which both have seen the old set.
pub(super) const ONE_FETCH_FOR_A_STALE_SET: Exploration = Exploration {
    name: "two requests that see a stale set cause one fetch, and both get its keys",
    preemptions: 2,
    run: || {
        let (keys, seen) = Keys::fetched("old");
        let other = {
            let (keys, seen) = (keys.clone(), Arc::clone(&seen));
            spawn(move || keys.request_another(&seen, "new"))
        };
        let fetched = [keys.request_another(&seen, "new"), join(other)];
        for fetched in fetched {
            assert_eq!(fetched.expect("keys").0, "new");
        }
        runtime::join_all();
        assert_eq!(keys.remote.fetches_begun(), 2, "fetches, with the first one");
    },
};

/// A token is cached with the keys that verified it. Then the issuer rotates its keys.
pub(super) const NO_HIT_WITH_REPLACED_KEYS: Exploration = Exploration {
    name: "no hit whose keys were replaced before the request began",
    preemptions: 2,
    run: || {
        let (keys, seen) = Keys::fetched("old");
        let (table, text) = (Arc::new(TokenCache::new(1)), "one.signature");
        let token = AccessToken::new(text, 100);
        let now = keys.clock.now();
        table.insert(text, now, Entry::new(token, &ResolvedIssuer::new(), Some(&seen), now));
        let replaced = Event::new();
        let other = {
            let (keys, table, replaced) = (keys.clone(), Arc::clone(&table), replaced.clone());
            spawn(move || {
                let must_miss = replaced.has_happened();
                let is_good = |entry: &Entry| {
                    entry.keys().is_some_and(|own| keys.remote.recheck(own, keys.clock.now()))
                };
                assert!(!must_miss || table.get(text, is_good).is_none(), "a hit");
            })
        };
        let new = keys.request_another(&seen, "new");
        assert_eq!(new.expect("keys").0, "new");
        replaced.happens();
        let is_good = |entry: &Entry| keys.remote.recheck(entry.keys().expect("keys"), now);
        assert!(table.get(text, is_good).is_none(), "a hit of the thread that saw the new keys");
        join(other);
        runtime::join_all();
    },
};
