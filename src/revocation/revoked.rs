//! The set of all revocations, and the counter with which tokens in use notice a new one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Now;

use super::entry::{Entry, Hash, IssuerHash, issuer_of};

/// How many entries are accepted: about 60 MB.
const MOST: usize = 1_000_000;

/// How many more are accepted from the log, which replicas that append at the same moment fill
/// beyond [`MOST`].
const MOST_IN_LOG: usize = MOST + MOST / 10;

/// How many entries one issuer of a lookup may add with its logout tokens and security events: an
/// eighth, so that one hostile tenant cannot take the room of the others.
const MOST_OF_TENANT: usize = MOST / 8;

/// How many entries there may be for such an issuer to add one: the rest is for configured issuers
/// and the application.
const MOST_FOR_TENANTS: usize = MOST / 4 * 3;

/// How often entries that have ended are dropped, at most: this reads all of them.
const DROP_EVERY: Duration = Duration::from_secs(60);

/// A power of two. One lock for all entries would make requests wait while it grows.
const SHARDS: usize = 16;

/// How often the set has changed. Wraps around after four billion changes.
type Count = u32;

/// The count when a token was last looked up.
#[derive(Default)]
pub(crate) struct LookedUpAt(AtomicU32);

impl LookedUpAt {
    /// Whether nothing was revoked since then.
    pub(super) fn is(&self, count: Count) -> bool {
        self.0.load(Ordering::Relaxed) == count
    }

    /// `count`: read before the token was looked up, so that an entry that is added meanwhile is
    /// noticed.
    pub(super) fn set(&self, count: Count) {
        self.0.store(count, Ordering::Relaxed);
    }
}

/// Who adds an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The application, or a configured issuer.
    Trusted,
    /// An issuer that the application's lookup returned, for its own tokens.
    Tenant,
}

/// When an entry counts: [`issued_before`](Self::issued_before) and [`until`](Self::until), in
/// seconds since 1970. 32 bits last until 2106, and bytes need no alignment, which keeps an entry
/// small.
#[derive(Clone, Copy)]
struct Times([u8; 4], [u8; 4]);

impl Times {
    fn new(issued_before: u32, until: u32) -> Self {
        Self(issued_before.to_ne_bytes(), until.to_ne_bytes())
    }

    fn issued_before(self) -> u32 {
        u32::from_ne_bytes(self.0)
    }

    fn until(self) -> u32 {
        u32::from_ne_bytes(self.1)
    }
}

type Shard = RwLock<HashMap<Hash, Times>>;

/// The entries that have not ended.
pub(super) struct Revoked {
    shards: [Shard; SHARDS],
    /// Held while entries are added, so that they are counted once.
    counted: Mutex<Counted>,
    /// The number of entries.
    len: AtomicUsize,
    /// Until which uptime the log need not be read again, in seconds, and how often the set has
    /// changed. In one number, so that a request reads both at once.
    state: AtomicU64,
    /// Until which uptime the set counts as complete, in seconds.
    complete_until: AtomicU64,
    /// For those that wait for a change.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Counted {
    by_issuer: HashMap<IssuerHash, usize>,
    /// How many entries each tenant has appended at this replica, and until when they count.
    appended: HashMap<IssuerHash, (Duration, usize)>,
    /// Their sum.
    appended_by_all: usize,
    /// Before this uptime, no entry is dropped.
    drop_from: Duration,
}

impl Default for Revoked {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            counted: Mutex::default(),
            len: AtomicUsize::new(0),
            // A new token has looked up nothing, which is count 0.
            state: AtomicU64::new(1),
            complete_until: AtomicU64::new(0),
            changes: watch::Sender::new(()),
        }
    }
}

impl Revoked {
    /// How often the set has changed, or `None` if the log should have been read again by now.
    pub(super) fn count_at(&self, uptime: Duration) -> Option<Count> {
        let state = self.state.load(Ordering::Acquire);
        let (read_until, count) = (state >> 32, state as u32);
        (uptime.as_secs() < read_until).then_some(count)
    }

    pub(super) fn count(&self) -> Count {
        self.state.load(Ordering::Acquire) as u32
    }

    /// Whether it is known what is revoked.
    pub(super) fn is_complete(&self, uptime: Duration) -> bool {
        uptime.as_secs() < self.complete_until.load(Ordering::Acquire)
    }

    /// The log was read to its end. It is to be read again before the uptime `next`, and the set
    /// counts as complete until `complete_until`.
    pub(super) fn was_read(&self, next: Duration, complete_until: Duration) {
        self.complete_until.store(complete_until.as_secs(), Ordering::Release);
        self.read_again_before(next);
    }

    /// From this uptime on, requests start the task that reads the log, if none is running.
    pub(super) fn read_again_before(&self, uptime: Duration) {
        let until = u64::from(seconds(uptime)) << 32;
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some(until | state & u64::from(u32::MAX))
        });
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The number of entries, with those that have ended and are not dropped yet.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    fn get(&self, hash: &Hash) -> Option<Times> {
        let shard = self.shard(hash)?;
        shard.read().unwrap_or_else(PoisonError::into_inner).get(hash).copied()
    }

    fn shard(&self, hash: &Hash) -> Option<&Shard> {
        // Its last byte is one of the value's hash, so the entries of an issuer are spread.
        let [.., last] = hash;
        self.shards.get(usize::from(*last) % SHARDS)
    }

    /// Whether an entry like this one is there, and has not ended.
    pub(super) fn has(&self, entry: &Entry, now: Now) -> bool {
        self.inserted(entry).is_some_and(|times| times.until() > seconds(now.unix))
    }

    /// Whether an entry like this one, which ends no earlier than a minute before it, is there.
    pub(super) fn covers(&self, entry: &Entry) -> bool {
        self.inserted(entry)
            .is_some_and(|times| times.until().saturating_add(60) >= seconds(entry.until))
    }

    /// The times of an entry that revokes what this one revokes.
    fn inserted(&self, entry: &Entry) -> Option<Times> {
        // After an insertion in progress, which changes the count at its end: only then, no token
        // that is revoked by the entry is accepted any more.
        let _inserted = self.counted();
        self.get(&entry.hash).filter(|times| times.issued_before() >= seconds(entry.issued_before))
    }

    /// Returns what is full if there is no room for an entry.
    pub(super) fn full(&self, entry: &Entry, source: Source, now: Now) -> Option<Full> {
        let mut counted = self.counted();
        self.find_full(&counted, entry, source, now.unix)?;
        self.drop_ended(&mut counted, now);
        self.find_full(&counted, entry, source, now.unix)
    }

    /// Counts an entry that a tenant appends. It counts until the log drops it, at `kept_until` or
    /// with an earlier entry: it takes room there also after it has ended, and if it is about a
    /// subject that has an entry already.
    pub(super) fn count_appended(
        &self,
        entry: &Entry,
        kept_until: Duration,
        now: Duration,
    ) -> Appended {
        self.counted().append(entry, kept_until, now)
    }

    /// For an entry that was not appended.
    pub(super) fn uncount(&self, appended: &Appended) {
        self.counted().uncount(appended);
    }

    fn find_full(
        &self,
        counted: &Counted,
        entry: &Entry,
        source: Source,
        now: Duration,
    ) -> Option<Full> {
        let is_of_tenant = source == Source::Tenant;
        if is_of_tenant && counted.appended_by(entry, now) >= MOST_OF_TENANT {
            return Some(Full::OfIssuer);
        }
        if is_of_tenant && counted.appended_by_all >= MOST_FOR_TENANTS {
            return Some(Full::OfTenants);
        }
        if self.get(&entry.hash).is_some() {
            return None;
        }
        let of_issuer = counted.by_issuer.get(&issuer_of(&entry.hash)).copied().unwrap_or(0);
        match self.len() {
            MOST.. => Some(Full::All),
            MOST_FOR_TENANTS.. if is_of_tenant => Some(Full::OfTenants),
            _ if is_of_tenant && of_issuer >= MOST_OF_TENANT => Some(Full::OfIssuer),
            _ => None,
        }
    }

    /// Adds entries, and extends those with the same hash. Returns `false` if there was no room for
    /// all of them.
    pub(super) fn insert(&self, entries: impl IntoIterator<Item = Entry>, now: Now) -> bool {
        let (mut has_changed, mut fits) = (false, true);
        let mut counted = self.counted();
        // Those that have ended too: the clock may be wrong for a moment.
        for entry in entries {
            if self.len() >= MOST_IN_LOG {
                self.drop_ended(&mut counted, now);
            }
            match self.add(&entry, &mut counted) {
                Added::Nothing => {}
                Added::Something => has_changed = true,
                Added::NoRoom => fits = false,
            }
        }
        if has_changed {
            // After the entries: a token that reads the new count finds them. Only the lower half
            // changes, also when it wraps around.
            let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                let count = (state as u32).wrapping_add(1).max(1);
                Some(state & !u64::from(u32::MAX) | u64::from(count))
            });
            self.changes.send_replace(());
        }
        fits
    }

    fn add(&self, entry: &Entry, counted: &mut Counted) -> Added {
        let Some(shard) = self.shard(&entry.hash) else { return Added::Nothing };
        let mut entries = write(shard);
        let (issued_before, until) = (seconds(entry.issued_before), seconds(entry.until));
        if let Some(old) = entries.get_mut(&entry.hash) {
            let extends = old.issued_before() < issued_before || old.until() < until;
            *old = Times::new(old.issued_before().max(issued_before), old.until().max(until));
            return if extends { Added::Something } else { Added::Nothing };
        }
        if self.len() >= MOST_IN_LOG {
            return Added::NoRoom;
        }
        entries.insert(entry.hash, Times::new(issued_before, until));
        self.len.fetch_add(1, Ordering::AcqRel);
        *counted.by_issuer.entry(issuer_of(&entry.hash)).or_default() += 1;
        Added::Something
    }

    /// Drops the entries that have ended, unless that was done a moment ago.
    pub(super) fn tidy(&self, now: Now) {
        self.drop_ended(&mut self.counted(), now);
    }

    fn drop_ended(&self, counted: &mut Counted, now: Now) {
        if now.uptime < counted.drop_from {
            return;
        }
        counted.drop_from = now.uptime.saturating_add(DROP_EVERY);
        let now = now.unix;
        counted.by_issuer.clear();
        counted.appended.retain(|_, (until, _)| *until > now);
        counted.appended_by_all = counted.appended.values().map(|(_, count)| count).sum();
        let mut len = 0;
        for shard in &self.shards {
            let mut entries = write(shard);
            entries.retain(|_, times| u64::from(times.until()) > now.as_secs());
            len += entries.len();
            for hash in entries.keys() {
                *counted.by_issuer.entry(issuer_of(hash)).or_default() += 1;
            }
        }
        self.len.store(len, Ordering::Release);
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of the hashes is revoked for a token that was issued at this time. One that does
    /// not say when it was issued is revoked only by itself: whether it was issued before the
    /// others were revoked, the issuer knows, which was asked about it.
    pub(super) fn contains(
        &self,
        hashes: &[Hash],
        issued_at: Option<Duration>,
        now: Duration,
    ) -> bool {
        let issued_at = issued_at.map_or(u64::from(u32::MAX), |time| time.as_secs());
        hashes.iter().filter_map(|hash| self.get(hash)).any(|times| {
            u64::from(times.until()) > now.as_secs()
                && issued_at <= u64::from(times.issued_before())
        })
    }
}

impl Counted {
    /// How many entries the tenant of this one has appended, until the first of them is dropped.
    fn appended_by(&self, entry: &Entry, now: Duration) -> usize {
        match self.appended.get(&issuer_of(&entry.hash)) {
            Some((until, count)) if now < *until => *count,
            _ => 0,
        }
    }

    fn append(&mut self, entry: &Entry, kept_until: Duration, now: Duration) -> Appended {
        let issuer = issuer_of(&entry.hash);
        let (until, count) = self.appended.entry(issuer).or_insert((kept_until, 0));
        // Also if the clock was ahead when the first one was appended.
        if now >= *until || kept_until < *until {
            self.appended_by_all -= *count;
            (*until, *count) = (kept_until, 0);
        }
        *count += 1;
        self.appended_by_all += 1;
        Appended { issuer, until: *until }
    }

    fn uncount(&mut self, Appended { issuer, until }: &Appended) {
        if let Some((current, count)) = self.appended.get_mut(issuer)
            && current == until
            && *count > 0
        {
            *count -= 1;
            self.appended_by_all -= 1;
        }
    }
}

/// An entry of a tenant that was counted: the tenant, and until when its entries count.
pub(super) struct Appended {
    issuer: IssuerHash,
    until: Duration,
}

/// What became of an entry.
enum Added {
    /// It was there.
    Nothing,
    Something,
    NoRoom,
}

/// What has no room for a further entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    All,
    OfTenants,
    OfIssuer,
}

impl Full {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::All => "a million revocations, as many as are kept",
            Self::OfTenants => "750,000 revocations, as many as issuers of a lookup may add to",
            Self::OfIssuer => "125,000 revocations of one issuer of a lookup, as many as are kept",
        }
    }
}

fn write(shard: &Shard) -> RwLockWriteGuard<'_, HashMap<Hash, Times>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
