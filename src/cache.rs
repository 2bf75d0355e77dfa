//! Tokens that were verified before.
//!
//! A hit costs a look-up and a comparison instead of a signature, and gives what the application made of the claims back with
//! it. It must never say yes where a verification would say no, so whatever may have changed since is looked at each time: the
//! time, the issuer, and whether its keys are still the ones.
//!
//! A token is kept when it is verified for the second time. Many come only once (a machine that gets one for each job), and
//! to keep one costs a tenth of an RSA signature, and memory. Of the first time a few bits are remembered, and who has none of
//! those is not looked for either.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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

/// Places for what is remembered of first verifications, per token that may be kept, so that they seldom take each other's;
/// and how many there are at the most (4 bytes each).
const SEEN_PER_KEPT: usize = 4;
const MAX_SEEN: usize = 1 << 20;

/// How much of a token it is found by. The end of a signature: no two good tokens share it, and what somebody else makes up is
/// compared as a whole.
const KEY_BYTES: usize = 32;

/// The tokens that one verifier has verified. Not shared with others: what a token is good for is the verifier's own affair.
pub(crate) struct TokenCache(Option<Tables>);

struct Tables {
    kept: Cache<Key, Arc<Entry>>,
    /// Of each token that was verified, a few bits, until another takes its place: who loses it is verified once more.
    seen: Box<[AtomicU32]>,
}

type Key = [u8; KEY_BYTES];

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
        if capacity == 0 {
            return Self(None);
        }
        let weight = |_: &Key, entry: &Arc<Entry>| {
            u32::try_from(1 + entry.token.expose_token().len() / UNIT).unwrap_or(u32::MAX)
        };
        // The lifetime is the clock's, below; this one only gives the memory back.
        let kept = Cache::builder().max_capacity(capacity).weigher(weight).time_to_live(LONGEST).build();
        let seen = usize::try_from(capacity).unwrap_or(MAX_SEEN).saturating_mul(SEEN_PER_KEPT).min(MAX_SEEN);
        Self(Some(Tables { kept, seen: (0..seen).map(|_| AtomicU32::new(0)).collect() }))
    }

    /// What is known of exactly this token, if it was verified within the last minutes. All else is for the caller to look at.
    pub(crate) fn get(&self, token: &str, now: Now) -> Option<Arc<Entry>> {
        let (tables, key) = (self.0.as_ref()?, key(token)?);
        let (place, print) = tables.seen(key)?;
        let entry = if place.load(Ordering::Relaxed) == print { tables.kept.get(key)? } else { return None };
        let is_recent = now.uptime.saturating_sub(entry.at) < LONGEST;
        (is_recent && entry.token.expose_token() == token).then_some(entry)
    }

    /// Keeps a token that was just verified, if it was before.
    pub(crate) fn insert(&self, token: &str, entry: impl FnOnce() -> Entry) {
        if let (Some(tables), Some(key)) = (&self.0, key(token))
            && let Some((place, print)) = tables.seen(key)
            && place.swap(print, Ordering::Relaxed) == print
        {
            tables.kept.insert(*key, Arc::new(entry()));
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.is_none()
    }
}

impl Tables {
    /// Where it is remembered that a token was verified, and by what.
    fn seen(&self, key: &Key) -> Option<(&AtomicU32, u32)> {
        // Of a signature in base64url, that are 48 bits at random. The last character is not: some of its bits are padding.
        let [.., a, b, c, d, e, f, g, h, _] = key;
        let place = u32::from_le_bytes([*a, *b, *c, *d]).wrapping_mul(0x9e37_79b1) as usize;
        let place = place.checked_rem(self.seen.len())?;
        Some((self.seen.get(place)?, u32::from_le_bytes([*e, *f, *g, *h])))
    }
}

fn key(token: &str) -> Option<&Key> {
    token.as_bytes().last_chunk()
}
