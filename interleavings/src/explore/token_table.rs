//! The table of verified tokens. It has two slots, and room for 8192 bytes.

use std::cell::Cell;
use std::sync::Arc;

use super::{Exploration, join, spawn};
use crate::access_token::AccessToken;
use crate::access_token::charge::Budget as _;
use crate::clock;
use crate::issuer::resolution::ResolvedIssuer;
use crate::token_cache::{Entry, TokenCache};
use std::time::Duration;

const MOST_BYTES: usize = 8192;

/// Tokens with the same end, and so with the same tag.
const LIKE: [&str; 3] = ["one.signature", "two.signature", "six.signature"];
const OTHER: &str = "one.another-end";

fn table() -> Arc<TokenCache> {
    Arc::new(TokenCache::new(1))
}

fn entry(token: &AccessToken) -> Entry {
    Entry::new(token.clone(), &ResolvedIssuer::new(), None, clock::at(1))
}

fn insert(table: &Arc<TokenCache>, text: &str, bytes: usize) -> AccessToken {
    let token = AccessToken::new(text, bytes);
    table.insert(text, clock::at(1), entry(&token));
    token
}

/// What the cached tokens take.
fn cached_bytes(table: &TokenCache) -> usize {
    let bytes = Cell::new(0);
    table.remove_where(|entry| {
        bytes.set(bytes.get() + entry.token().charged());
        false
    });
    bytes.get()
}

/// Whether exactly no memory is taken.
fn takes_nothing(table: &TokenCache) -> bool {
    table.reserve(MOST_BYTES, 0) && !table.reserve(1, 0)
}

/// Two tokens that no tag tells apart take the place of each other while both are looked for.
pub(super) const HIT_IS_EXACT: Exploration = Exploration {
    name: "a hit returns exactly the token that was asked for",
    preemptions: 2,
    run: || {
        let table = table();
        let [one, two, _] = LIKE;
        insert(&table, one, 100);
        let writer = {
            let table = Arc::clone(&table);
            spawn(move || {
                insert(&table, two, 100);
                insert(&table, OTHER, 100);
            })
        };
        for text in [one, two] {
            let hit = table.get(text, |entry| entry.token().expose_token() == text);
            assert!(hit.is_none_or(|hit| hit.expose_token() == text), "another token");
            let found = table.find(text);
            let found = found.as_ref().and_then(|found| found.as_ref());
            let is_it = found.is_none_or(|entry| entry.token().expose_token() == text);
            assert!(is_it, "the entry of another token");
        }
        join(writer);
    },
};

/// Claims are read by two requests, while another token takes the slot, and the token is removed.
pub(super) const MEMORY_IS_RETURNED: Exploration = Exploration {
    name: "the memory of all tokens is returned exactly once, at whichever time they are dropped",
    preemptions: 2,
    run: || {
        let table = table();
        let [one, two, _] = LIKE;
        let token = insert(&table, one, 100);
        let reader = {
            let token = token.clone();
            spawn(move || token.read_claims(200))
        };
        let writer = {
            let table = Arc::clone(&table);
            spawn(move || {
                insert(&table, two, 300);
                table.remove(two);
            })
        };
        token.read_claims(500);
        drop(token);
        table.remove(one);
        join(reader);
        join(writer);
        table.remove_where(|_| true);
        assert!(takes_nothing(&table), "memory is left, or was returned twice");
    },
};

/// A token is to take the place of a large one. Meanwhile a small one takes it, and another large
/// one the memory.
pub(super) const MEMORY_HAS_A_LIMIT: Exploration = Exploration {
    name: "cached tokens take no more memory than the table has",
    preemptions: 2,
    run: || {
        let table = table();
        let [one, two, three] = LIKE;
        insert(&table, one, 6000);
        let others = {
            let table = Arc::clone(&table);
            spawn(move || {
                insert(&table, two, 500);
                insert(&table, OTHER, 6000);
            })
        };
        insert(&table, three, 5900);
        join(others);
        let bytes = cached_bytes(&table);
        assert!(bytes <= MOST_BYTES, "{bytes} bytes are cached, of {MOST_BYTES}");
    },
};

/// A token is to take the place of a large one, and the sweep for its memory frees that place.
pub(super) const SWEPT_MEMORY_COUNTS_ONCE: Exploration = Exploration {
    name: "a slot that is swept gives its memory to one token",
    preemptions: 3,
    run: || {
        let table = table();
        let [one, two, _] = LIKE;
        insert(&table, one, 6000);
        insert(&table, OTHER, 1500);
        let reader = {
            let table = Arc::clone(&table);
            spawn(move || drop(table.get(OTHER, |_| true)))
        };
        insert(&table, two, 7500);
        join(reader);
        let bytes = cached_bytes(&table);
        assert!(bytes <= MOST_BYTES, "{bytes} bytes are cached, of {MOST_BYTES}");
    },
};

/// Two requests verify a token and cache it, perhaps twice. Then its issuer rejects it.
pub(super) const REMOVED_IS_GONE: Exploration = Exploration {
    name: "a token that was removed is not found, also if it was cached twice at once",
    preemptions: 3,
    run: || {
        let table = table();
        let [one, ..] = LIKE;
        let other = {
            let table = Arc::clone(&table);
            spawn(move || drop(insert(&table, one, 100)))
        };
        insert(&table, one, 100);
        join(other);
        table.remove(one);
        assert!(table.get(one, |_| true).is_none());
        assert_eq!(cached_bytes(&table), 0, "a copy is left");
    },
};

/// Two requests with an introspected token that is due for renewal.
pub(super) const ONE_RENEWAL: Exploration = Exploration {
    name: "a cached token is renewed by one of the requests that use it",
    preemptions: 3,
    run: || {
        let token = AccessToken::new(OTHER, 100);
        let entry = entry(&token).introspected(Duration::from_secs(60), clock::at(1));
        let entry = Arc::new(entry);
        let claim = |entry: &Entry| entry.try_claim_renewal(clock::at(50));
        let other = {
            let entry = Arc::clone(&entry);
            spawn(move || claim(&entry))
        };
        let claimed = [claim(&entry), join(other)];
        assert_eq!(claimed.iter().filter(|claimed| **claimed).count(), 1, "{claimed:?}");
    },
};
