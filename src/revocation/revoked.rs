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

    /// Returns what is full if there is no room for an entry. Otherwise, it counts as appended.
    pub(super) fn full(&self, entry: &Entry, source: Source, now: Now) -> Option<Full> {
        let mut counted = self.counted();
        let limit = match source {
            Source::Trusted => None,
            // In the log, a later entry about the same subject takes room as well.
            Source::Tenant if !counted.append(entry, now.unix) => return Some(Full::OfIssuer),
            Source::Tenant => Some(MOST_OF_TENANT),
        };
        if self.get(&entry.hash).is_some() {
            return None;
        }
        let find = |counted: &Counted| {
            let of_issuer = counted.by_issuer.get(&issuer_of(&entry.hash)).copied().unwrap_or(0);
            match (self.len(), limit) {
                (MOST.., _) => Some(Full::All),
                (MOST_FOR_TENANTS.., Some(_)) => Some(Full::OfTenants),
                (_, Some(limit)) if of_issuer >= limit => Some(Full::OfIssuer),
                _ => None,
            }
        };
        find(&counted)?;
        self.drop_ended(&mut counted, now);
        find(&counted)
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
    /// Counts an entry of a tenant. Returns `false` if it has appended as many as it may until its
    /// first ones have ended.
    fn append(&mut self, entry: &Entry, now: Duration) -> bool {
        let (until, count) =
            self.appended.entry(issuer_of(&entry.hash)).or_insert((entry.until, 0));
        if now >= *until {
            (*until, *count) = (entry.until, 0);
        }
        *count += 1;
        *count <= MOST_OF_TENANT
    }
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
mod tests {
    use super::super::entry::Kind;
    use super::*;

    const UNIX: Duration = Duration::from_secs(1_000_000);
    const NOW: Now = Now { unix: UNIX, uptime: Duration::ZERO };

    fn entry(iss: &str, number: usize, until: Duration) -> Entry {
        Entry::new(Kind::Subject, iss, &number.to_string(), UNIX, until)
    }

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_looked_up_again_once_the_count_is_another() {
        let token = LookedUpAt::default();
        assert!(!token.is(Revoked::default().count()), "a new token");
        token.set(7);
        for (count, expected) in [(6, false), (7, true), (8, false)] {
            assert_eq!(token.is(count), expected, "{count}");
        }
    }

    #[test]
    fn the_count_is_known_until_the_log_is_to_be_read_again() {
        let revoked = Revoked::default();
        let add = |number| {
            assert!(revoked.insert([entry("issuer", number, UNIX + second(100))], NOW));
        };
        let check = |name: &str, known_for: u64, expected: Count| {
            let at = |uptime| revoked.count_at(second(uptime));
            assert_eq!(
                at(known_for.saturating_sub(1)),
                (known_for > 0).then_some(expected),
                "{name}"
            );
            assert_eq!(at(known_for), None, "{name}");
            assert_eq!(at(known_for + 1), None, "{name}");
            assert_eq!(revoked.count(), expected, "{name}");
        };
        check("at the start", 0, 1);
        revoked.was_read(second(10), second(60));
        check("the log was read", 10, 1);
        add(0);
        check("an entry", 10, 2);
        add(0);
        check("the same entry", 10, 2);
        revoked.was_read(second(21), second(60));
        check("the log was read again", 21, 2);
        revoked.read_again_before(Duration::ZERO);
        check("the task has ended", 0, 2);
        revoked.state.store((30 << 32) | u64::from(Count::MAX), Ordering::Release);
        add(1);
        check("the count wraps around to the first one, since 0 is that of a new token", 30, 1);
        revoked.was_read(Duration::MAX, Duration::MAX);
        check("no log", u64::from(u32::MAX), 1);
    }

    #[test]
    fn the_set_counts_as_complete_for_a_while() {
        let revoked = Revoked::default();
        assert!(!revoked.is_complete(Duration::ZERO), "at the start");
        revoked.was_read(second(10), second(60));
        for (uptime, expected) in [(0, true), (59, true), (60, false), (61, false)] {
            assert_eq!(revoked.is_complete(second(uptime)), expected, "{uptime}");
        }
    }

    /// Two entries about one subject: up to when it is revoked, and until when, in seconds from the
    /// first one on.
    #[test]
    fn an_entry_changes_the_set_if_it_reaches_further() {
        struct Case {
            name: &'static str,
            issued_before: i64,
            until: i64,
            is_change: bool,
            /// Whether the first one makes the second one unnecessary.
            covers: bool,
        }

        let of = |issued_before: i64, until: i64| {
            let from = |base: Duration, seconds: i64| {
                second(base.as_secs().checked_add_signed(seconds).unwrap())
            };
            let (issued_before, until) = (from(UNIX, issued_before), from(UNIX * 2, until));
            Entry::new(Kind::Subject, "issuer", "alice", issued_before, until)
        };
        let case = |name, issued_before, until, is_change, covers| Case {
            name,
            issued_before,
            until,
            is_change,
            covers,
        };
        for Case { name, issued_before, until, is_change, covers } in [
            case("the same", 0, 0, false, true),
            case("an earlier one", -1, -1, false, true),
            case("about later tokens", 1, 0, true, false),
            case("about later tokens, for less time", 1, -1, true, false),
            case("about earlier tokens, for a second more", -1, 1, true, true),
            case("for a minute more", 0, 60, true, true),
            case("for more than a minute more", 0, 61, true, false),
            case("about later tokens, and for more than a minute more", 1, 61, true, false),
        ] {
            let (revoked, first, next) = (Revoked::default(), of(0, 0), of(issued_before, until));
            assert!(!revoked.covers(&first), "{name}");
            assert!(revoked.insert([first.clone()], NOW));
            assert_eq!(revoked.covers(&next), covers, "{name}");
            let count = revoked.count();
            assert!(revoked.insert([next.clone()], NOW));
            assert_eq!(revoked.count() != count, is_change, "{name}");
            assert_eq!(revoked.len(), 1, "{name}");
            // Of both, what reaches further.
            let times = revoked.get(&first.hash).unwrap();
            let expected = first.issued_before.max(next.issued_before);
            assert_eq!(times.issued_before(), seconds(expected), "{name}");
            assert_eq!(times.until(), seconds(first.until.max(next.until)), "{name}");
        }
    }

    #[test]
    fn entries_count_until_they_end() {
        let (revoked, until) = (Revoked::default(), UNIX + second(100));
        let ends = entry("issuer", 0, until);
        assert!(revoked.insert([ends.clone()], NOW));
        for (name, unix, expected) in
            [("before", until - second(1), true), ("at its end", until, false)]
        {
            let now = Now { unix, uptime: Duration::ZERO };
            assert_eq!(revoked.has(&ends, now), expected, "{name}");
            assert_eq!(revoked.contains(&[ends.hash], Some(UNIX), unix), expected, "{name}");
        }
        for (name, issued_at, expected) in [
            ("issued before", Some(UNIX), true),
            ("issued later", Some(UNIX + second(1)), false),
            ("issued at an unknown time", None, false),
        ] {
            assert_eq!(revoked.contains(&[ends.hash], issued_at, UNIX), expected, "{name}");
        }
    }

    #[test]
    fn entries_that_have_ended_are_dropped_once_a_minute() {
        let (revoked, end) = (Revoked::default(), UNIX + second(100));
        let at = |unix, uptime| Now { unix, uptime: second(uptime) };
        let ends =
            [(0, end), (1, end + second(1))].map(|(number, until)| entry("issuer", number, until));
        revoked.tidy(NOW);
        assert!(revoked.insert(ends, NOW));
        for (name, now, expected) in [
            ("less than a minute after the last time", at(end * 2, 59), 2),
            ("at the end of the first one", at(end, 60), 1),
            ("a minute later", at(end + second(1), 120), 0),
        ] {
            revoked.tidy(now);
            assert_eq!(revoked.len(), expected, "{name}");
            assert_eq!(revoked.counted().by_issuer.values().sum::<usize>(), expected, "{name}");
        }
    }

    /// In the log, each entry takes room until it has ended, also one about the same subject.
    #[test]
    fn a_tenant_appends_as_many_entries_as_it_may_keep() {
        let (revoked, until) = (Revoked::default(), UNIX + second(100));
        let at = |unix, uptime| Now { unix, uptime: second(uptime) };
        let of_tenant = entry("tenant", 0, until);
        let append = |now| revoked.full(&of_tenant, Source::Tenant, now);
        for number in 0..MOST_OF_TENANT {
            assert_eq!(append(NOW), None, "{number}");
        }
        assert_eq!(append(NOW), Some(Full::OfIssuer), "one more");
        assert_eq!(revoked.full(&of_tenant, Source::Trusted, NOW), None, "by the application");
        let other = entry("other", 0, until);
        assert_eq!(revoked.full(&other, Source::Tenant, NOW), None, "another tenant");
        revoked.tidy(at(until - second(1), 60));
        assert_eq!(append(at(until - second(1), 60)), Some(Full::OfIssuer), "before they end");
        assert_eq!(append(at(until, 60)), None, "when they have ended");
        // The count of the other tenant, from its first entry on, has ended as well.
        revoked.tidy(at(until, 120));
        assert!(!revoked.counted().appended.contains_key(&issuer_of(&other.hash)));
    }

    #[test]
    fn reasons_state_the_limits() {
        assert_eq!([MOST, MOST_FOR_TENANTS, MOST_OF_TENANT], [1_000_000, 750_000, 125_000]);
        for (full, expected) in [
            (Full::All, "a million revocations, "),
            (Full::OfTenants, "750,000 revocations, "),
            (Full::OfIssuer, "125,000 revocations of one issuer "),
        ] {
            assert!(full.reason().starts_with(expected), "{full:?}");
        }
    }

    #[test]
    fn a_tenant_has_an_eighth_of_the_room() {
        let (revoked, until) = (Revoked::default(), UNIX + Duration::from_secs(100));
        let of_tenant = (0..MOST_OF_TENANT).map(|number| entry("tenant", number, until));
        assert!(revoked.insert(of_tenant, NOW));
        let next = entry("tenant", MOST_OF_TENANT, until);
        let later = DROP_EVERY * 2;
        let new = Now { unix: UNIX + later, uptime: later };
        for (name, entry, source, now, expected) in [
            ("one more", &next, Source::Tenant, NOW, Some(Full::OfIssuer)),
            ("one of them", &entry("tenant", 7, until), Source::Tenant, NOW, None),
            ("another tenant", &entry("other", 0, until), Source::Tenant, NOW, None),
            ("by the application", &next, Source::Trusted, NOW, None),
            ("after they have ended", &next, Source::Tenant, new, None),
        ] {
            assert_eq!(revoked.full(entry, source, now), expected, "{name}");
        }
        assert_eq!(revoked.len(), 0);
    }

    #[test]
    fn tenants_leave_a_quarter_of_the_room() {
        let (revoked, until) = (Revoked::default(), UNIX + Duration::from_secs(100));
        let all =
            (0..MOST_FOR_TENANTS).map(|number| entry(&(number % 8).to_string(), number, until));
        assert!(revoked.insert(all, NOW));
        let next = entry("another", 0, until);
        assert_eq!(revoked.full(&next, Source::Tenant, NOW), Some(Full::OfTenants));
        assert_eq!(revoked.full(&next, Source::Trusted, NOW), None);
    }

    #[test]
    fn the_log_may_hold_a_tenth_more_than_is_accepted() {
        let (revoked, until) = (Revoked::default(), UNIX + Duration::from_secs(1000));
        let numbered = |numbers: std::ops::Range<usize>| {
            numbers.map(move |number| entry("issuer", number, until))
        };
        assert!(revoked.insert(numbered(0..MOST), NOW));
        let next = entry("issuer", MOST, until);
        assert_eq!(revoked.full(&next, Source::Trusted, NOW), Some(Full::All));
        assert!(revoked.insert(numbered(MOST..MOST_IN_LOG), NOW), "appended by other replicas");
        assert!(!revoked.insert(numbered(MOST_IN_LOG..MOST_IN_LOG + 1), NOW));
        assert!(revoked.insert(numbered(0..1), NOW), "an entry that is there");
    }
}
