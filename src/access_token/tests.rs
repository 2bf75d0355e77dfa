//! What a token takes of the cache's memory, and when it has expired.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use super::charge::Budget;
use super::{AccessToken, Charge, Inner};
use crate::binding::Binding;
use crate::clock::Now;
use crate::token::claims::Thumbprints;
use crate::token::json::most_bytes_read;

#[test]
fn the_memory_of_a_token_is_that_of_its_parts() {
    let scope = "read:things ".repeat(10);
    for (name, claims, more) in [
        ("nothing more", json!({ "sub": "a", "client_id": "b" }), 0),
        ("a scope", json!({ "scope": scope.trim() }), 0),
        ("a subject with escapes", json!({ "sub": "a\"b\"c" }), 5),
        ("a client with escapes", json!({ "client_id": "\"\"" }), 2),
        ("both", json!({ "sub": "a\"b\"c", "client_id": "\"\"" }), 7),
    ] {
        let mut token = AccessToken::for_tests(claims);
        let texts = token.expose_token().len() + token.raw_claims().len();
        let scope = token.0.scope.capacity();
        assert!(scope >= token.scope().as_str().len(), "{name}");
        let parts = size_of::<Inner>() + texts + scope + more;
        assert_eq!(token.bytes(), parts, "{name}");
        let bound_to = Thumbprints { key: Some([7; 32]), certificate: None };
        let binding = Binding::new(bound_to, "token", None);
        Arc::get_mut(&mut token.0).unwrap().binding = Some(Box::new(binding));
        assert_eq!(token.bytes(), parts + Binding::most_bytes(), "{name}, bound to a key");
    }
}

/// A budget of so many bytes, which records what it was asked.
struct Recorded {
    most: usize,
    reserved: AtomicUsize,
    removed: Mutex<Vec<String>>,
}

impl Recorded {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, reserved: AtomicUsize::new(100), removed: Mutex::default() })
    }
}

impl Budget for Recorded {
    fn reserve(&self, bytes: usize, charged: usize) -> bool {
        assert_eq!(charged, self.reserved.load(Ordering::Relaxed));
        let fits = charged + bytes <= self.most;
        if fits {
            self.reserved.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn remove(&self, token: &str) {
        self.removed.lock().unwrap().push(token.to_owned());
    }
}

fn charged(budget: &Arc<Recorded>) -> AccessToken {
    let token = AccessToken::for_tests(json!({ "roles": ["admin"], "plan": { "seats": 5 } }));
    assert_eq!(token.charged(), 0, "not cached");
    token.charge(Charge::new(Arc::downgrade(budget) as Weak<dyn Budget>, 100));
    token
}

#[test]
fn claims_that_are_read_are_charged_once() {
    let budget = Recorded::new(usize::MAX);
    let token = charged(&budget);
    assert_eq!(token.charged(), 100);
    let tree = most_bytes_read(token.raw_claims());
    for _ in 0..2 {
        assert!(token.claim("/plan/seats").is_some());
        assert_eq!(token.charged(), 100 + tree, "as a tree");
    }
    for _ in 0..2 {
        token.claims::<Value>().unwrap();
        assert_eq!(token.charged(), 100 + 2 * tree + size_of::<Value>(), "as an own type");
    }
    assert_eq!(budget.reserved.load(Ordering::Relaxed), token.charged());
    drop(token);
    assert_eq!(budget.reserved.load(Ordering::Relaxed), 0);
}

#[test]
fn a_token_without_memory_for_its_claims_leaves_the_cache_and_is_read() {
    let budget = Recorded::new(100);
    let token = charged(&budget);
    assert_eq!(token.claim("/plan/seats"), Some(&json!(5)));
    assert_eq!(*budget.removed.lock().unwrap(), [token.expose_token()]);
    assert_eq!(token.claims::<Value>().unwrap()["plan"]["seats"], 5);
    assert_eq!(token.charged(), 100);
}

#[test]
fn a_token_has_expired_at_its_end_and_after_it() {
    let token = AccessToken::for_tests(json!({}));
    let end = token.0.expires_at + token.0.terms.leeway;
    assert!(token.0.terms.leeway > Duration::ZERO);
    for (name, unix, has_expired) in [
        ("at `exp`", token.0.expires_at, false),
        ("a moment before the leeway ends", end - Duration::from_nanos(1), false),
        ("when the leeway ends", end, true),
        ("later", end + Duration::from_secs(1), true),
    ] {
        let now = Now { unix, ..token.clock().now() };
        assert_eq!(token.has_expired(now), has_expired, "{name}");
    }
}
