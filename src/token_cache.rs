//! Cache of verified tokens.
//!
//! A hit costs the read of one or two slots and a comparison instead of a signature, and returns
//! the claims as the application has already deserialized them. A hit must never accept a token
//! that a verification would reject. So everything that may have changed is checked on each hit:
//! the time, the issuer, and whether the issuer still has the same keys.
//!
//! A token is cached when it is verified for the second time. Many tokens are used only once, such
//! as those of a machine that gets one for each job. Of those, only two bytes are stored, for a
//! while. TinyLFU calls this a doorkeeper.
//!
//! Tokens that their issuer was asked about (RFC 7662) have a table of their own, with the same
//! structure. They are cached at once, since each question costs a request over the network.
//!
//! The table is set-associative, like a processor's cache: the end of a token's signature, which is
//! as good as random, selects two sets that may hold the token. (A tenant that searches for tokens
//! with certain signatures can crowd two sets. That costs verifications.) The end of an opaque
//! token may be the same for all, so there a keyed hash of the token selects the sets. The only
//! shared memory that a hit writes to is the token's own reference count. A cache that maintains an
//! order of use cannot do that; DESIGN.md has the measured cost of moka here.

use std::array;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};

use crate::access_token::AccessToken;
use crate::access_token::charge::{Budget, Charge};
use crate::clock::{Now, nanos};
use crate::issuer::active::ActiveIssuer;
use crate::issuer::resolution::ResolvedIssuer;
use crate::keys::jwks::Jwks;

/// Default capacity, in tokens.
pub(crate) const DEFAULT_CAPACITY: u64 = 10_000;

/// Maximum capacity, in tokens, whatever is configured: the table takes 32 bytes for each from the
/// start.
const MAX_CAPACITY: u64 = 1 << 21;

/// Slots for each token of capacity. Tokens hash to slots; without spare slots, collisions evict
/// entries below capacity.
const SLOTS_PER_TOKEN: u64 = 2;

/// Maximum time that a token stays cached, whatever its `exp`. Some tokens are valid for 30 days.
const LONGEST: Duration = Duration::from_secs(300);

/// How long it is known, after an entry of an introspected token has ended, that the token was
/// accepted before. The next question about it does not wait behind those about unknown tokens.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The fraction of the lifetime of an introspected token's entry after which it is renewed, if the
/// token is used.
const RENEWED_AT: f64 = 0.8;

/// How long after the start of a renewal the next one starts, if the first brings no new entry.
const RENEWED_AGAIN: Duration = Duration::from_secs(5);

/// Maximum memory of the tokens and their claims, in bytes for each token of capacity: enough for a
/// token of 1.5 KiB with its claims read as a tree and as one type of the application.
const BYTES_PER_TOKEN: usize = 8192;

/// Maximum memory of one token and its claims, in bytes. A token of 16 KiB can have claims that
/// take a megabyte once they are read. Such a token is verified each time: a few of them would
/// leave no memory for others.
const MOST_BYTES_OF_ONE: usize = 128 * 1024;

/// Sets that one sweep searches for entries to free, when there is no memory for another token.
const SWEPT_AT_ONCE: usize = 16;

/// Slots in one set.
const WAYS: usize = 4;

/// The tokens that one verifier has verified. Verifiers do not share a cache: what a token is
/// accepted for depends on the verifier's configuration.
pub(crate) struct TokenCache {
    sets: Box<[Set]>,
    /// The key of the hash that selects the sets. `None`: the end of the token selects them.
    hash: Option<RandomState>,
    /// The memory of all cached tokens, including their claims that were read. It counts until it
    /// is actually freed: a request may hold a token for longer than the cache does.
    bytes: AtomicUsize,
    most_bytes: usize,
    /// Where the next sweep starts.
    swept: AtomicUsize,
}

/// One line of the processor's cache: a token that is not cached costs the read of two, one for
/// each of its sets.
#[repr(align(64))]
struct Set {
    /// Some bits of each token's signature, so that only the matching slot is read. Correctness
    /// does not depend on them.
    tags: [AtomicU32; WAYS],
    /// Two bytes of each of the last eight tokens that were verified and not cached, the newest in
    /// the lowest bits of the first.
    seen: [AtomicU64; 2],
    entries: [ArcSwapOption<Entry>; WAYS],
}

/// A cached token, and what it was verified with.
pub(crate) struct Entry {
    token: AccessToken,
    issuer: EntryIssuer,
    /// `None` if the issuer's keys never change. Weak: a cached token must not keep a replaced key
    /// set alive.
    keys: Option<Weak<Jwks>>,
    /// Uptime until which the entry may be used.
    holds_until: Duration,
    /// Uptime until which the entry stays, so that it is known that the token was accepted before.
    /// Not before `holds_until`.
    kept_until: Duration,
    /// When the entry is to be renewed in the background, in nanoseconds of uptime.
    renew_from: AtomicU64,
    /// Whether there was a hit since another token last competed for the slot.
    was_used: AtomicBool,
}

/// The issuer of a cached token.
pub(crate) enum EntryIssuer {
    /// A configured issuer: trusted as long as the verifier lives.
    Configured(Arc<ActiveIssuer>),
    /// A resolved issuer, and the name that was looked up. Weak: a cached token must not keep an
    /// evicted tenant alive.
    Resolved(Weak<ActiveIssuer>, Arc<str>),
}

impl Entry {
    pub(crate) fn new(
        token: AccessToken,
        issuer: &ResolvedIssuer,
        keys: Option<&Arc<Jwks>>,
        now: Now,
    ) -> Self {
        let issuer = match issuer.looked_up_as() {
            None => EntryIssuer::Configured(Arc::clone(&issuer.issuer)),
            Some(name) => EntryIssuer::Resolved(Arc::downgrade(&issuer.issuer), Arc::clone(name)),
        };
        let keys = keys.map(Arc::downgrade);
        let until = now.uptime + LONGEST;
        let (renew_from, was_used) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        Self { token, issuer, keys, holds_until: until, kept_until: until, renew_from, was_used }
    }

    /// The entry of a token that its issuer was asked about. It holds for `lifetime`, and stays
    /// for a while after that.
    pub(crate) fn introspected(self, lifetime: Duration, now: Now) -> Self {
        let holds_until = now.uptime + lifetime;
        Self {
            holds_until,
            kept_until: holds_until + REMEMBERED,
            renew_from: nanos(now.uptime + lifetime.mul_f64(RENEWED_AT)).into(),
            ..self
        }
    }

    /// Whether the caller has to renew the entry in the background. A renewal that ends without a
    /// new entry, for whatever reason, is repeated by a use of the token a little later.
    pub(crate) fn try_claim_renewal(&self, now: Now) -> bool {
        let due = self.renew_from.load(Ordering::Relaxed);
        let next = nanos(now.uptime + RENEWED_AGAIN);
        nanos(now.uptime) >= due
            && self
                .renew_from
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether the entry may be used for up to `max_stale` longer than it holds.
    pub(crate) fn holds(&self, max_stale: Duration, now: Now) -> bool {
        now.uptime < self.holds_until + max_stale
    }

    pub(crate) fn token(&self) -> &AccessToken {
        &self.token
    }

    /// Written once, not on each hit: a write would take the cache line from the other processors.
    pub(crate) fn mark_used(&self) {
        if !self.was_used.load(Ordering::Relaxed) {
            self.was_used.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn issuer(&self) -> &EntryIssuer {
        &self.issuer
    }

    /// Whether its issuer has this name.
    pub(crate) fn has_name(&self, iss: &str) -> bool {
        let has_name = |issuer: &ActiveIssuer| issuer.config.names().any(|name| **name == *iss);
        match &self.issuer {
            EntryIssuer::Configured(issuer) => has_name(issuer),
            EntryIssuer::Resolved(issuer, _) => issuer.upgrade().is_some_and(|one| has_name(&one)),
        }
    }

    pub(crate) fn keys(&self) -> Option<&Weak<Jwks>> {
        self.keys.as_ref()
    }

    /// Whether another token may not take the place of this one for its age.
    fn is_kept(&self, now: Now) -> bool {
        now.uptime < self.kept_until
    }
}

impl TokenCache {
    /// With a `capacity` of 0, nothing is cached.
    pub(crate) fn new(capacity: u64) -> Self {
        Self::with_hash(capacity, None)
    }

    /// A cache for tokens that do not end with a signature.
    pub(crate) fn for_opaque_tokens(capacity: u64) -> Self {
        Self::with_hash(capacity, Some(RandomState::new()))
    }

    fn with_hash(capacity: u64, hash: Option<RandomState>) -> Self {
        let sets = (capacity.min(MAX_CAPACITY) * SLOTS_PER_TOKEN).div_ceil(WAYS as u64);
        let set = || Set {
            tags: array::from_fn(|_| AtomicU32::new(0)),
            seen: array::from_fn(|_| AtomicU64::new(0)),
            entries: array::from_fn(|_| ArcSwapOption::empty()),
        };
        let most_bytes = usize::try_from(capacity.min(MAX_CAPACITY))
            .unwrap_or(usize::MAX)
            .saturating_mul(BYTES_PER_TOKEN);
        let (bytes, swept) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { sets: (0..sets).map(|_| set()).collect(), hash, bytes, most_bytes, swept }
    }

    /// Takes `bytes` if there is memory for them once `leaving` bytes are freed.
    fn take(&self, bytes: usize, leaving: usize) -> bool {
        let taken = |used: usize| {
            let all = used.checked_add(bytes)?;
            // An entry that is no larger than the one it replaces always fits.
            (bytes <= leaving || all.saturating_sub(leaving) <= self.most_bytes).then_some(all)
        };
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Frees entries that have ended (with `now`) or that take more than their share. For a token
    /// that does not take more itself, also frees those that were not used since the last sweep. A
    /// large token must not: a tenant with many of them would cause a sweep with each, so that
    /// between two uses of another tenant's token its entry would be swept twice. Searches only
    /// some of the sets, and others the next time. Returns whether anything was freed.
    fn sweep(&self, now: Option<Now>, bytes: usize) -> bool {
        let from = self.swept.fetch_add(SWEPT_AT_ONCE, Ordering::Relaxed) % self.sets.len().max(1);
        let may_go = |entry: &Arc<Entry>| {
            now.is_some_and(|now| !entry.holds(Duration::ZERO, now))
                || entry.token.charged() > BYTES_PER_TOKEN
                || bytes <= BYTES_PER_TOKEN && !entry.was_used.swap(false, Ordering::Relaxed)
        };
        // Each set once: in a second pass, every entry would count as unused.
        let most = SWEPT_AT_ONCE.min(self.sets.len());
        let mut has_freed = false;
        for set in self.sets.iter().cycle().skip(from).take(most) {
            for (tag, slot) in set.slots() {
                if slot.load().as_ref().is_some_and(may_go) {
                    tag.store(0, Ordering::Relaxed);
                    slot.store(None);
                    has_freed = true;
                }
            }
        }
        has_freed
    }

    /// Returns exactly this token, if it is cached and `is_good` accepts its entry.
    pub(crate) fn get(
        &self,
        token: &str,
        is_good: impl FnOnce(&Entry) -> bool,
    ) -> Option<AccessToken> {
        let cached = self.find(token)?;
        let entry = cached.as_ref().filter(|entry| is_good(entry))?;
        entry.mark_used();
        Some(entry.token.clone())
    }

    /// Returns the entry of exactly this token.
    pub(crate) fn find(&self, token: &str) -> Option<Guard<Option<Arc<Entry>>>> {
        let Candidates { sets, tag, .. } = self.candidates(token)?;
        sets.into_iter().find_map(|set| {
            let way = set.tags.iter().position(|own| own.load(Ordering::Relaxed) == tag)?;
            let cached = set.entries.get(way)?.load();
            let is_this = cached.as_ref().is_some_and(|entry| entry.token.expose_token() == token);
            is_this.then_some(cached)
        })
    }

    /// Caches a token that was just verified, if it was verified before.
    pub(crate) fn insert_repeated(
        self: &Arc<Self>,
        token: &str,
        now: Now,
        entry: impl FnOnce() -> Entry,
    ) {
        let Some(candidates) = self.candidates(token) else { return };
        let [first, _] = candidates.sets;
        if first.record_sighting(candidates.rest) {
            self.insert_at(&candidates, now, entry);
        }
    }

    /// Caches a token.
    pub(crate) fn insert(self: &Arc<Self>, token: &str, now: Now, entry: Entry) {
        if let Some(candidates) = self.candidates(token) {
            self.insert_at(&candidates, now, || entry);
        }
    }

    fn insert_at(
        self: &Arc<Self>,
        candidates: &Candidates<'_>,
        now: Now,
        entry: impl FnOnce() -> Entry,
    ) {
        let Some((tag, slot)) = candidates.choose(now) else { return };
        let entry = entry();
        let bytes = entry.token.bytes() + size_of::<Entry>();
        // Held until the new entry is stored. Its memory would otherwise be returned as soon as the
        // sweep or another request frees the slot, and then count as free twice.
        let leaving = slot.load();
        let freed = leaving.as_ref().map_or(0, |entry| entry.token.charged());
        let has_room =
            self.take(bytes, freed) || self.sweep(Some(now), bytes) && self.take(bytes, freed);
        if !has_room {
            return;
        }
        // Charged before the entry is visible, so that its removal cannot make the count negative.
        let budget = Arc::downgrade(self) as Weak<dyn Budget>;
        entry.token.charge(Charge::new(budget, bytes));
        slot.store(Some(Arc::new(entry)));
        tag.store(candidates.tag, Ordering::Relaxed);
        drop(leaving);
    }

    fn candidates(&self, token: &str) -> Option<Candidates<'_>> {
        let end = match &self.hash {
            None => u64::from_le_bytes(*token.as_bytes().last_chunk()?),
            Some(key) => key.hash_one(token),
        };
        // The end is base64url. The multiplication spreads it: the upper half depends on every
        // character.
        let spread = |by: u64| end.wrapping_mul(by) >> 32;
        let set = |spread: u64| self.sets.get(((spread * self.sets.len() as u64) >> 32) as usize);
        let (one, other) = (spread(0x9e37_79b9_7f4a_7c15), spread(0xc2b2_ae3d_27d4_eb4f));
        // An empty slot has the tag 0, which is not base64url. Even a match would find no entry
        // there. Little-endian: the first four of the last eight characters.
        let tag = end as u32;
        Some(Candidates { sets: [set(one)?, set(other)?], tag, rest: one as u16 })
    }

    /// Removes the tokens whose entries `is_unwanted` selects. Searches the whole table.
    pub(crate) fn remove_where(&self, is_unwanted: impl Fn(&Entry) -> bool) {
        for (tag, slot) in self.sets.iter().flat_map(Set::slots) {
            if slot.load().as_ref().is_some_and(|entry| is_unwanted(entry)) {
                tag.store(0, Ordering::Relaxed);
                slot.store(None);
            }
        }
    }

    /// Removes the token.
    pub(crate) fn remove(&self, token: &str) {
        let Some(candidates) = self.candidates(token) else { return };
        for (tag, slot) in candidates.sets.into_iter().flat_map(Set::slots) {
            let found = slot.load();
            if found.as_ref().is_some_and(|entry| entry.token.expose_token() == token) {
                // Unless another token has taken the slot meanwhile.
                let previous = slot.compare_and_swap(&found, None);
                if let (Some(previous), Some(found)) = (previous.as_ref(), found.as_ref())
                    && Arc::ptr_eq(previous, found)
                {
                    tag.store(0, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Budget for TokenCache {
    fn reserve(&self, bytes: usize, charged: usize) -> bool {
        let all = charged.saturating_add(bytes);
        all <= MOST_BYTES_OF_ONE
            && (self.take(bytes, 0) || self.sweep(None, all) && self.take(bytes, 0))
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn remove(&self, token: &str) {
        Self::remove(self, token);
    }
}

/// The two sets that may hold a token. With two, few tokens find both full.
struct Candidates<'a> {
    sets: [&'a Set; 2],
    tag: u32,
    /// What the `seen` of a set stores of the token: bits of the product that did not select the
    /// set.
    rest: u16,
}

impl<'a> Candidates<'a> {
    /// Chooses a slot. In order of preference:
    ///
    /// 1. the slot with this token's tag;
    /// 2. one with an entry older than [`LONGEST`], so that long tokens that are no longer used do
    ///    not take the memory of others;
    /// 3. an empty one, in the emptier set;
    /// 4. one without a hit since a token last competed for it;
    /// 5. any.
    fn choose(&self, now: Now) -> Option<Slot<'a>> {
        let [first, second] = self.sets;
        let sets = if second.empty().count() > first.empty().count() {
            [second, first]
        } else {
            [first, second]
        };
        let slots = || sets.into_iter().flat_map(Set::slots);
        let is_stale = |slot: &ArcSwapOption<Entry>| {
            slot.load().as_ref().is_some_and(|entry| !entry.is_kept(now))
        };
        let is_unused = |slot: &ArcSwapOption<Entry>| {
            slot.load().as_ref().is_none_or(|entry| !entry.was_used.swap(false, Ordering::Relaxed))
        };
        slots()
            .find(|(tag, _)| tag.load(Ordering::Relaxed) == self.tag)
            .or_else(|| slots().find(|(_, slot)| is_stale(slot)))
            .or_else(|| sets.into_iter().find_map(|set| set.empty().next()))
            .or_else(|| slots().find(|(_, slot)| is_unused(slot)))
            .or_else(|| slots().nth(usize::from(self.rest) % (2 * WAYS)))
    }
}

/// A slot of a set: its tag and its entry.
type Slot<'a> = (&'a AtomicU32, &'a ArcSwapOption<Entry>);

impl Set {
    fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.tags.iter().zip(&self.entries)
    }

    fn empty(&self) -> impl Iterator<Item = Slot<'_>> {
        self.slots().filter(|(_, slot)| slot.load().is_none())
    }

    /// Records that this token was verified, and returns whether it was verified before. Two
    /// threads at once may lose one record; that token is verified once more. One token in 8,000 is
    /// mistaken for another one, and cached at once.
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

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
