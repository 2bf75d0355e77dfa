//! Tokens that were verified before.
//!
//! A hit costs a look-up and a comparison instead of a signature, and gives what the application made of the claims back with
//! it. It must never say yes where a verification would say no, so whatever may have changed since is looked at each time: the
//! time, the issuer, and whether its keys are still the ones.
//!
//! A token is kept when it is verified for the second time. Many come only once (a machine that gets one for each job), and
//! to keep one costs a tenth of an RSA signature, and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::access_token::AccessToken;
use crate::clock::Now;
use crate::keys::jwks::Jwks;
use crate::lookup::Known;

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
pub(crate) struct TokenCache(Option<Tables>);

struct Tables {
    kept: Cache<Key, Arc<Entry>>,
    /// Which were kept. A token that was not is not looked for, which in a large table costs as much as reading its claims.
    may_be_kept: Marks,
    /// Which were verified.
    seen: Marks,
}

type Key = [u8; KEY_BYTES];

/// What a token was verified with.
pub(crate) struct Entry {
    pub(crate) token: AccessToken,
    pub(crate) issuer: Known,
    /// `None` if the issuer's never change.
    pub(crate) keys: Option<Arc<Jwks>>,
    pub(crate) at: Duration,
}

impl Entry {
    pub(crate) fn is_recent(&self, now: Now) -> bool {
        now.uptime.saturating_sub(self.at) < LONGEST
    }
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
        Self(Some(Tables { kept, may_be_kept: Marks::new(capacity), seen: Marks::new(capacity) }))
    }

    /// What is known of exactly this token. Whether it still holds is for the caller to look at.
    pub(crate) fn get(&self, token: &str) -> Option<Arc<Entry>> {
        let (tables, key) = (self.0.as_ref()?, key(token)?);
        let entry = if tables.may_be_kept.has(key) { tables.kept.get(key)? } else { return None };
        (entry.token.expose_token() == token).then_some(entry)
    }

    /// Keeps a token that was just verified, if it was before.
    pub(crate) fn insert(&self, token: &str, entry: impl FnOnce() -> Entry) {
        if let (Some(tables), Some(key)) = (&self.0, key(token))
            && !tables.seen.set(key)
        {
            tables.kept.insert(*key, Arc::new(entry()));
            tables.may_be_kept.set(key);
        }
    }
}

/// Tokens that something is known of: one bit of many for each. All are cleared when one in eight is set, so at the most one in
/// eight other tokens is taken for one of them. Whoever loses his mark is verified once more, and whoever has another's is kept
/// or looked for too soon; nothing else hangs on it.
struct Marks {
    words: Box<[AtomicU64]>,
    bits_set: AtomicUsize,
}

impl Marks {
    /// For each token that may be kept.
    const BITS: usize = 32;

    /// At the most, 4 MiB.
    const MOST_TOKENS: usize = 1 << 20;

    fn new(capacity: u64) -> Self {
        let tokens = usize::try_from(capacity).unwrap_or(Self::MOST_TOKENS).min(Self::MOST_TOKENS);
        let words = (tokens * Self::BITS).div_ceil(64);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), bits_set: AtomicUsize::new(0) }
    }

    fn has(&self, key: &Key) -> bool {
        self.find(key).is_some_and(|(word, mask)| word.load(Ordering::Relaxed) & mask != 0)
    }

    /// Sets the mark; whether it was not set before.
    fn set(&self, key: &Key) -> bool {
        let Some((word, mask)) = self.find(key) else { return true };
        let is_new = word.fetch_or(mask, Ordering::Relaxed) & mask == 0;
        if is_new && self.bits_set.fetch_add(1, Ordering::Relaxed) >= self.words.len() * 64 / 8 {
            self.bits_set.store(0, Ordering::Relaxed);
            self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        is_new
    }

    fn find(&self, key: &Key) -> Option<(&AtomicU64, u64)> {
        // A signature is as good as drawn by lot. Its end, in base64url, is spread over all bits by a multiplication, of which
        // the upper half depends on every character.
        let [.., a, b, c, d, e, f, g, h] = *key;
        let spread = u64::from_le_bytes([a, b, c, d, e, f, g, h]).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let bit = ((spread * self.words.len() as u64 * 64) >> 32) as usize;
        Some((self.words.get(bit / 64)?, 1 << (bit % 64)))
    }
}

fn key(token: &str) -> Option<&Key> {
    token.as_bytes().last_chunk()
}
