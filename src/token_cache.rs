//! Tokens that were verified before.
//!
//! A hit costs a look at one or two places and a comparison instead of a signature, and gives what the application made of the
//! claims back with it. It must never say yes where a verification would say no, so whatever may have changed since is looked
//! at each time: the time, the issuer, and whether its keys are still the ones.
//!
//! A token is kept when it is verified for the second time. Many come only once (a machine that gets one for each job), and
//! what is kept of those is two bytes, for a while: a doorkeeper.
//!
//! The table is one of sets, as a processor's cache is: a token has its place in one of two sets, by the end of its
//! signature, which is as good as drawn by lot. (A tenant that grinds the ends of its own tokens can crowd two sets: that
//! costs verifications.) A hit writes nothing that threads share but the token's own count of references, which no cache can
//! say that keeps an order of use; DESIGN.md has what moka cost here.

use std::array;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::access_token::AccessToken;
use crate::clock::Now;
use crate::issuer::active::ActiveIssuer;
use crate::issuer::registry::ResolvedIssuer;
use crate::keys::jwks::Jwks;

/// Tokens that there is room for unless configured otherwise.
pub(crate) const DEFAULT_CAPACITY: u64 = 10_000;

/// The largest capacity, whatever is configured: the table has 32 bytes for each token from the start.
const MAX_CAPACITY: u64 = 1 << 21;

/// Places for each token that there should be room for: they find theirs by lot, and some would find theirs taken.
const PLACES_PER_TOKEN: u64 = 2;

/// Longest time that a token is taken for verified, whatever it says itself. Some are good for 30 days.
const LONGEST: Duration = Duration::from_secs(300);

/// Bytes that tokens and their claims take at the most, for each token that there should be room for: a token of 1.5 KiB with
/// its claims read as a tree and as one type of the application's.
const BYTES_PER_TOKEN: usize = 8192;

/// Bytes that one token and its claims take at the most. A token of 16 KiB can have claims of a megabyte once they are read: it
/// is verified each time, or few such tokens would leave no room for others.
const MOST_BYTES_OF_ONE: usize = 128 * 1024;

/// Sets that are searched for tokens older than [`LONGEST`] when there is no memory for another token.
const SWEPT_AT_ONCE: usize = 16;

/// Tokens in one set.
const WAYS: usize = 4;

/// The tokens that one verifier has verified. Not shared with others: what a token is good for is the verifier's own affair.
pub(crate) struct TokenCache {
    sets: Box<[Set]>,
    /// Of all tokens that are kept and of their claims that were read, until they are really free: a request may hold a token for
    /// longer.
    bytes: AtomicUsize,
    most_bytes: usize,
    /// Where the search for old tokens goes on.
    swept: AtomicUsize,
}

/// What one kept token takes of the cache's memory. Given back when dropped.
pub(crate) struct Charge {
    cache: Weak<TokenCache>,
    bytes: AtomicUsize,
}

impl Charge {
    /// Takes as many bytes more; `false`, and none, if there is no room for them.
    pub(crate) fn add(&self, bytes: usize) -> bool {
        let Some(cache) = self.cache.upgrade() else { return true };
        let is_too_much = self.bytes().saturating_add(bytes) > MOST_BYTES_OF_ONE;
        let has_room = || cache.take(bytes, 0) || cache.sweep(None) && cache.take(bytes, 0);
        if is_too_much || !has_room() {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Takes the token out of the cache.
    pub(crate) fn remove(&self, token: &str) {
        if let Some(cache) = self.cache.upgrade() {
            cache.remove(token);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
        }
    }
}

/// One line of the processor's cache: a token that is not kept costs two of them, one for each of its sets.
#[repr(align(64))]
struct Set {
    /// Some bits of each token's signature, so that only the right one is looked at. Nothing else hangs on them.
    tags: [AtomicU32; WAYS],
    /// Two bytes of each of the last eight tokens that were verified and not kept, the newest in the lowest bits of the first.
    seen: [AtomicU64; 2],
    kept: [ArcSwapOption<Entry>; WAYS],
}

/// A token, and what it was verified with.
pub(crate) struct Entry {
    token: AccessToken,
    issuer: EntryIssuer,
    /// `None` if the issuer's never change. Weak: a cached token keeps no set alive that is not the newest any more.
    keys: Option<Weak<Jwks>>,
    at: Duration,
    /// Since another token last wanted its place.
    was_used: AtomicBool,
}

/// Whose token it is.
pub(crate) enum EntryIssuer {
    /// Trusted as long as the verifier lives.
    Listed(Arc<ActiveIssuer>),
    /// By a look-up's word. Weak: a cached token keeps no tenant alive that was evicted.
    LookedUp(Weak<ActiveIssuer>),
}

impl Entry {
    pub(crate) fn new(
        token: AccessToken,
        known: &ResolvedIssuer,
        keys: Option<&Arc<Jwks>>,
        now: Now,
    ) -> Self {
        let issuer = match known.is_listed() {
            true => EntryIssuer::Listed(Arc::clone(&known.issuer)),
            false => EntryIssuer::LookedUp(Arc::downgrade(&known.issuer)),
        };
        let keys = keys.map(Arc::downgrade);
        Self { token, issuer, keys, at: now.uptime, was_used: AtomicBool::new(false) }
    }

    pub(crate) fn token(&self) -> &AccessToken {
        &self.token
    }

    pub(crate) fn issuer(&self) -> &EntryIssuer {
        &self.issuer
    }

    pub(crate) fn keys(&self) -> Option<&Weak<Jwks>> {
        self.keys.as_ref()
    }

    pub(crate) fn is_recent(&self, now: Now) -> bool {
        now.uptime.saturating_sub(self.at) < LONGEST
    }
}

impl TokenCache {
    /// `capacity`: 0 for none.
    pub(crate) fn new(capacity: u64) -> Self {
        let sets = (capacity.min(MAX_CAPACITY) * PLACES_PER_TOKEN).div_ceil(WAYS as u64);
        let set = || Set {
            tags: array::from_fn(|_| AtomicU32::new(0)),
            seen: array::from_fn(|_| AtomicU64::new(0)),
            kept: array::from_fn(|_| ArcSwapOption::empty()),
        };
        let most_bytes = usize::try_from(capacity.min(MAX_CAPACITY))
            .unwrap_or(usize::MAX)
            .saturating_mul(BYTES_PER_TOKEN);
        let (bytes, swept) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { sets: (0..sets).map(|_| set()).collect(), bytes, most_bytes, swept }
    }

    /// Takes as many bytes, if there is room for them once `leaving` bytes are free.
    fn take(&self, bytes: usize, leaving: usize) -> bool {
        let taken = |used: usize| {
            let all = used.checked_add(bytes)?;
            // What is no larger than what it replaces always fits.
            (bytes <= leaving || all.saturating_sub(leaving) <= self.most_bytes).then_some(all)
        };
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Frees what is older than [`LONGEST`] (with `now`), and what takes more than its share, in some of the sets, others each
    /// time: else one tenant's large tokens would take the room of all others. Whether anything was freed.
    fn sweep(&self, now: Option<Now>) -> bool {
        let from = self.swept.fetch_add(SWEPT_AT_ONCE, Ordering::Relaxed) % self.sets.len().max(1);
        let may_go = |entry: &Arc<Entry>| {
            now.is_some_and(|now| !entry.is_recent(now)) || entry.token.charged() > BYTES_PER_TOKEN
        };
        let mut has_freed = false;
        for set in self.sets.iter().cycle().skip(from).take(SWEPT_AT_ONCE) {
            for (own, kept) in set.slots() {
                if kept.load().as_ref().is_some_and(may_go) {
                    own.store(0, Ordering::Relaxed);
                    kept.store(None);
                    has_freed = true;
                }
            }
        }
        has_freed
    }

    fn remove(&self, token: &str) {
        let Some(place) = self.candidates(token) else { return };
        for (own, kept) in place.sets.into_iter().flat_map(Set::slots) {
            let found = kept.load();
            if found.as_ref().is_some_and(|entry| entry.token.expose_token() == token) {
                // Not if another token has taken the slot meanwhile.
                let previous = kept.compare_and_swap(&found, None);
                if let (Some(previous), Some(found)) = (previous.as_ref(), found.as_ref())
                    && Arc::ptr_eq(previous, found)
                {
                    own.store(0, Ordering::Relaxed);
                }
            }
        }
    }

    /// Exactly this token, if it is kept and still `is_good`.
    pub(crate) fn get(
        &self,
        token: &str,
        is_good: impl FnOnce(&Entry) -> bool,
    ) -> Option<AccessToken> {
        let Candidates { sets, tag, .. } = self.candidates(token)?;
        let kept = sets.into_iter().find_map(|set| {
            let way = set.tags.iter().position(|own| own.load(Ordering::Relaxed) == tag)?;
            let kept = set.kept.get(way)?.load();
            let is_this = kept.as_ref().is_some_and(|entry| entry.token.expose_token() == token);
            is_this.then_some(kept)
        })?;
        let entry = kept.as_ref().filter(|entry| is_good(entry))?;
        // Written once, not each time: a write would take the line from the other processors.
        if !entry.was_used.load(Ordering::Relaxed) {
            entry.was_used.store(true, Ordering::Relaxed);
        }
        Some(entry.token.clone())
    }

    /// Keeps a token that was just verified, if it was before.
    pub(crate) fn insert(self: &Arc<Self>, token: &str, now: Now, entry: impl FnOnce() -> Entry) {
        let Some(place) = self.candidates(token) else { return };
        let [first, _] = place.sets;
        if !first.record_sighting(place.rest) {
            return;
        }
        let Some((own, kept)) = place.choose(now) else { return };
        let entry = entry();
        let bytes = entry.token.bytes() + size_of::<Entry>();
        let leaving = kept.load().as_ref().map_or(0, |entry| entry.token.charged());
        let has_room =
            self.take(bytes, leaving) || self.sweep(Some(now)) && self.take(bytes, leaving);
        if !has_room {
            return;
        }
        // Counted before it is there, so that nothing that takes it out again can count below zero.
        entry.token.charge(Charge { cache: Arc::downgrade(self), bytes: AtomicUsize::new(bytes) });
        kept.store(Some(Arc::new(entry)));
        own.store(place.tag, Ordering::Relaxed);
    }

    fn candidates(&self, token: &str) -> Option<Candidates<'_>> {
        let [a, b, c, d, e, f, g, h] = *token.as_bytes().last_chunk()?;
        let end = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        // It is base64url. A multiplication spreads it: the upper half depends on every character.
        let spread = |by: u64| end.wrapping_mul(by) >> 32;
        let set = |spread: u64| self.sets.get(((spread * self.sets.len() as u64) >> 32) as usize);
        let (one, other) = (spread(0x9e37_79b9_7f4a_7c15), spread(0xc2b2_ae3d_27d4_eb4f));
        // 0, which an empty place has, is no base64url; and where nothing is kept, nothing is found.
        let tag = u32::from_le_bytes([a, b, c, d]);
        Some(Candidates { sets: [set(one)?, set(other)?], tag, rest: one as u16 })
    }
}

/// Where a token belongs: into one of two sets, so that few find both full.
struct Candidates<'a> {
    sets: [&'a Set; 2],
    tag: u32,
    /// What a set remembers it by: bits of the product that did not choose the set.
    rest: u16,
}

impl<'a> Candidates<'a> {
    /// In this order: its own place; one with what is older than [`LONGEST`], so that long tokens which nobody uses do not take
    /// up the bytes of others; an empty one, in the emptier set; one that nobody used since a token last wanted it; any.
    fn choose(&self, now: Now) -> Option<Slot<'a>> {
        let [first, second] = self.sets;
        let sets = if second.empty().count() > first.empty().count() {
            [second, first]
        } else {
            [first, second]
        };
        let slots = || sets.into_iter().flat_map(Set::slots);
        let is_stale = |kept: &ArcSwapOption<Entry>| {
            kept.load().as_ref().is_some_and(|entry| !entry.is_recent(now))
        };
        let is_unused = |kept: &ArcSwapOption<Entry>| {
            kept.load().as_ref().is_none_or(|entry| !entry.was_used.swap(false, Ordering::Relaxed))
        };
        slots()
            .find(|(own, _)| own.load(Ordering::Relaxed) == self.tag)
            .or_else(|| slots().find(|(_, kept)| is_stale(kept)))
            .or_else(|| sets.into_iter().find_map(|set| set.empty().next()))
            .or_else(|| slots().find(|(_, kept)| is_unused(kept)))
            .or_else(|| slots().nth(usize::from(self.rest) % (2 * WAYS)))
    }
}

/// A place in a set: its tag, and what is kept there.
type Slot<'a> = (&'a AtomicU32, &'a ArcSwapOption<Entry>);

impl Set {
    fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.tags.iter().zip(&self.kept)
    }

    fn empty(&self) -> impl Iterator<Item = Slot<'_>> {
        self.slots().filter(|(_, kept)| kept.load().is_none())
    }

    /// Whether this token was verified before; it is, from now on. Two threads at once may forget one, which is verified once
    /// more; one in 8,000 is taken for another, and kept at once.
    fn record_sighting(&self, token: u16) -> bool {
        let [newer, older] = self.seen.each_ref().map(|four| four.load(Ordering::Relaxed));
        let is_one_of = |four: u64| (0..4).any(|number| (four >> (16 * number)) as u16 == token);
        if is_one_of(newer) || is_one_of(older) {
            return true;
        }
        let [first, second] = &self.seen;
        first.store(newer << 16 | u64::from(token), Ordering::Relaxed);
        second.store(older << 16 | newer >> 48, Ordering::Relaxed);
        false
    }
}
