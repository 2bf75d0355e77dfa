//! Tokens that were verified before.
//!
//! A hit costs a look-up and a comparison instead of a signature, and gives what the application made of the claims back with
//! it. It must never say yes where a verification would say no, so whatever may have changed since is looked at each time: the
//! time, the issuer, and whether its keys are still the ones.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::access_token::AccessToken;
use crate::clock::Now;
use crate::keys::jwks::Jwks;
use crate::trusted::TrustedIssuer;

/// Tokens kept unless configured otherwise.
pub(crate) const DEFAULT_CAPACITY: u64 = 10_000;

/// Longest time that a token is taken for verified, whatever it says itself. Some are good for 30 days.
const LONGEST: Duration = Duration::from_secs(300);

/// A token up to this length, in bytes, counts as one; a longer one as several.
const UNIT: usize = 4096;

/// How much of a token it is found by. The end of a signature: no two good tokens share it, and what somebody else makes up is
/// compared as a whole.
const KEY_BYTES: usize = 32;

/// The tokens that one verifier has verified. Not shared with others: what a token is good for is the verifier's own affair.
pub(crate) struct TokenCache(Option<Cache<[u8; KEY_BYTES], Arc<Entry>>>);

/// What a token was verified with.
pub(crate) struct Entry {
    pub(crate) token: AccessToken,
    pub(crate) issuer: Arc<TrustedIssuer>,
    /// `None` if the issuer's never change.
    pub(crate) keys: Option<Arc<Jwks>>,
    pub(crate) at: Duration,
}

impl TokenCache {
    /// `capacity`: 0 for none.
    pub(crate) fn new(capacity: u64) -> Self {
        let weight = |_: &[u8; KEY_BYTES], entry: &Arc<Entry>| {
            u32::try_from(1 + entry.token.expose_token().len() / UNIT).unwrap_or(u32::MAX)
        };
        // The lifetime is the clock's, below; this one only gives the memory back.
        let cache = || Cache::builder().max_capacity(capacity).weigher(weight).time_to_live(LONGEST).build();
        Self((capacity > 0).then(cache))
    }

    /// What is known of exactly this token, if it was verified within the last minutes. All else is for the caller to look at.
    pub(crate) fn get(&self, token: &str, now: Now) -> Option<Arc<Entry>> {
        let entry = self.0.as_ref()?.get(&key(token)?)?;
        let is_recent = now.uptime.saturating_sub(entry.at) < LONGEST;
        (is_recent && entry.token.expose_token() == token).then_some(entry)
    }

    pub(crate) fn insert(&self, entry: Entry) {
        if let (Some(cache), Some(key)) = (&self.0, key(entry.token.expose_token())) {
            cache.insert(key, Arc::new(entry));
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.is_none()
    }
}

fn key(token: &str) -> Option<[u8; KEY_BYTES]> {
    token.as_bytes().last_chunk().copied()
}
