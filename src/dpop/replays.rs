//! Which proofs were used (RFC 9449 §11.1), in the memory of one process.
//!
//! There is a set of hashes for each second of `iat`, and the whole set is dropped when no proof
//! with that second would be accepted any more. So entries have no expiry of their own, and nothing
//! has to be swept.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks, each for a part of the proofs. They are held for the insertion of one hash.
const SHARDS: usize = 64;

/// Counters of the proofs of keys. Two keys may share one, which counts only if one of them reaches
/// its share: with eight such keys, for one other key in 2,000.
const COUNTERS: usize = 16 * 1024;

/// The proofs that were used.
pub(crate) struct Replays {
    shards: Box<[Mutex<Shard>]>,
    /// Keys of the hash that selects shard and counter, so that a client cannot choose them.
    hash: RandomState,
    live: AtomicUsize,
    most: usize,
    /// Proofs of earlier seconds are not accepted, whatever the clock says: their sets are gone. A
    /// wall clock that is set back does not make them acceptable again.
    edge: AtomicU64,
    shares: Shares,
}

/// A set of hashes for each second. A map without values, because a set has no [`Entry`].
struct Shard(BTreeMap<u64, HashMap<[u8; 16], ()>>);

/// How many proofs each key has used in the current period.
struct Shares {
    counters: Box<[AtomicU32]>,
    most: u32,
    /// How long proofs are counted together: as long as they are remembered.
    period: Duration,
    /// Uptime when the period began, in seconds.
    since: AtomicU64,
}

/// Why a proof is not accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refused {
    /// It was used before.
    Used,
    /// Its second is over.
    TooOld,
    /// The key has used its share of the table.
    TooMany,
    /// The table is full.
    Full,
    /// The clock was set back: not even a proof that is made now is accepted.
    SetBack,
}

/// A proof to remember.
pub(crate) struct Use<'a> {
    /// The first 16 bytes of a hash of key and `jti`.
    pub(crate) hash: [u8; 16],
    pub(crate) jkt: &'a [u8; 32],
    /// The second of `iat`.
    pub(crate) second: u64,
    /// The first second that is still accepted.
    pub(crate) oldest: u64,
    /// That of a proof that is made now.
    pub(crate) current: u64,
    pub(crate) uptime: Duration,
}

impl Replays {
    /// `most`: how many proofs are remembered at once. `share`: how many of one key in a `period`,
    /// which is as long as a proof is accepted.
    pub(crate) fn new(most: usize, share: u32, period: Duration) -> Self {
        let shard = || Mutex::new(Shard(BTreeMap::new()));
        let shares = Shares {
            counters: (0..COUNTERS).map(|_| AtomicU32::new(0)).collect(),
            most: share,
            period,
            since: AtomicU64::new(0),
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hash: RandomState::new(),
            live: AtomicUsize::new(0),
            most,
            edge: AtomicU64::new(0),
            shares,
        }
    }

    /// Number of proofs that are remembered.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Remembers a proof, and returns how many are remembered, or says why it is not accepted.
    pub(crate) fn insert(&self, used: &Use<'_>) -> Result<usize, Refused> {
        let edge = self.edge.fetch_max(used.oldest, Ordering::Relaxed).max(used.oldest);
        if used.second < edge {
            let is_set_back = used.current < edge;
            return Err(if is_set_back { Refused::SetBack } else { Refused::TooOld });
        }
        if self.live() >= self.most {
            self.drop_old(edge);
            if self.live() >= self.most {
                return Err(Refused::Full);
            }
        }
        let place = self.hash.hash_one(used.hash);
        let Some(shard) = self.shards.get(place as usize % SHARDS) else {
            return Err(Refused::Full);
        };
        let mut shard = lock(shard);
        self.drop_old_of(&mut shard, edge);
        // The set of this second may have been dropped since the first look at the edge.
        if used.second < self.edge.load(Ordering::Relaxed) {
            return Err(Refused::TooOld);
        }
        let Entry::Vacant(free) = shard.0.entry(used.second).or_default().entry(used.hash) else {
            return Err(Refused::Used);
        };
        if !self.shares.take(self.hash.hash_one(used.jkt), used.uptime) {
            return Err(Refused::TooMany);
        }
        free.insert(());
        Ok(self.live.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn drop_old(&self, edge: u64) {
        for shard in &self.shards {
            self.drop_old_of(&mut lock(shard), edge);
        }
    }

    fn drop_old_of(&self, shard: &mut Shard, edge: u64) {
        while let Some(first) = shard.0.first_entry().filter(|first| *first.key() < edge) {
            self.live.fetch_sub(first.remove().len(), Ordering::Relaxed);
        }
    }
}

impl Shares {
    /// Counts a proof of a key. Returns `false` if the key has used its share.
    fn take(&self, key: u64, uptime: Duration) -> bool {
        let (now, since) = (uptime.as_secs(), self.since.load(Ordering::Relaxed));
        if now >= since + self.period.as_secs()
            && self.since.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.counters.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        }
        let Some(counter) = self.counters.get(key as usize % COUNTERS) else { return false };
        counter.fetch_add(1, Ordering::Relaxed) < self.most
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const MINUTE: Duration = Duration::from_secs(60);

    fn used(number: u8, second: u64, oldest: u64) -> Use<'static> {
        let hash = [number; 16];
        let (current, uptime) = (oldest + 60, Duration::from_secs(second));
        Use { hash, jkt: &KEY, second, oldest, current, uptime }
    }

    #[test]
    fn a_proof_is_accepted_once() {
        let replays = Replays::new(10, 10, MINUTE);
        assert_eq!(replays.insert(&used(1, 100, 40)), Ok(1));
        assert_eq!(replays.insert(&used(1, 100, 40)), Err(Refused::Used));
        assert_eq!(replays.insert(&used(2, 100, 40)), Ok(2));
        assert_eq!(replays.insert(&used(1, 100, 100)), Err(Refused::Used), "its last second");
        assert_eq!(replays.insert(&used(1, 100, 101)), Err(Refused::TooOld));
        // The wall clock is set back.
        assert_eq!(replays.insert(&used(1, 100, 60)), Err(Refused::TooOld), "by a little");
        assert_eq!(replays.insert(&used(1, 100, 40)), Err(Refused::SetBack), "by a minute");
        assert!(replays.insert(&used(3, 101, 40)).is_ok());
        assert_eq!(replays.insert(&used(4, 20, 10)), Err(Refused::SetBack), "an hour");
    }

    #[test]
    fn seconds_that_are_over_make_room() {
        let replays = Replays::new(3, 10, MINUTE);
        for number in 0..3 {
            assert!(replays.insert(&used(number, 100, 40)).is_ok());
        }
        assert_eq!(replays.insert(&used(4, 101, 40)), Err(Refused::Full));
        assert!(replays.insert(&used(4, 101, 101)).is_ok());
        assert_eq!(replays.live(), 1);
    }

    #[test]
    fn a_key_has_a_share_in_a_minute() {
        let replays = Replays::new(100, 2, MINUTE);
        let other = [8; 32];
        assert!(replays.insert(&used(0, 100, 40)).is_ok());
        assert_eq!(replays.insert(&used(0, 100, 40)), Err(Refused::Used), "not counted");
        assert!(replays.insert(&used(1, 100, 40)).is_ok());
        assert_eq!(replays.insert(&used(2, 100, 40)), Err(Refused::TooMany));
        assert!(replays.insert(&Use { jkt: &other, ..used(2, 100, 40) }).is_ok());
        assert!(replays.insert(&used(3, 160, 100)).is_ok(), "a minute later");
    }

    /// About 30 of a thousand keys share a counter with an earlier one.
    #[test]
    fn few_keys_share_a_counter() {
        let replays = Replays::new(1000, 1, MINUTE);
        let shared = (0..1000_u16).filter(|number| {
            let (mut jkt, mut hash) = ([0; 32], [0; 16]);
            jkt[..2].copy_from_slice(&number.to_be_bytes());
            hash[..2].copy_from_slice(&number.to_be_bytes());
            let proof = Use { hash, jkt: &jkt, ..used(0, 100, 40) };
            replays.insert(&proof) == Err(Refused::TooMany)
        });
        assert!(shared.count() < 100);
    }

    #[test]
    fn of_identical_proofs_at_once_one_is_accepted() {
        let replays = Replays::new(1000, 1000, MINUTE);
        for number in 0..50 {
            let accepted = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let is_new = replays.insert(&used(number, 100, 40)).is_ok();
                        accepted.fetch_add(usize::from(is_new), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!(accepted.into_inner(), 1);
        }
    }
}
