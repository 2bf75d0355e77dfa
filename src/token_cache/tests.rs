//! Which slot a token takes, what a sweep frees, and what is charged.

use std::ptr;

use serde_json::json;

use super::*;

const NOW: Now = Now { unix: Duration::from_secs(1_000_000), uptime: Duration::from_secs(1000) };
const LATER: Duration = Duration::from_nanos(1_000_000_000_001);

/// The tag of the token that looks for a slot, and that of another one.
const TAG: u32 = 7;
const OTHER: u32 = 8;

fn token() -> AccessToken {
    AccessToken::for_tests(json!({}))
}

/// An entry that holds for a moment, and was not used.
fn entry(token: &AccessToken) -> Entry {
    Entry {
        token: token.clone(),
        issuer: EntryIssuer::Resolved(Weak::new(), Arc::from("https://issuer.example/")),
        keys: None,
        holds_until: LATER,
        kept_until: LATER,
        renew_from: AtomicU64::new(u64::MAX),
        was_used: AtomicBool::new(false),
    }
}

/// What is in a slot. All but [`Held::Nothing`] and [`Held::Ended`] are kept for another moment.
#[derive(Clone, Copy)]
enum Held {
    Nothing,
    /// An entry with the tag of the token.
    Same,
    /// An entry that is kept until now.
    Ended,
    Unused,
    Used,
}

/// A table of two sets with these slots.
fn filled(slots: [Held; 2 * WAYS], token: &AccessToken) -> TokenCache {
    let cache = TokenCache::new(4);
    let all = cache.sets.iter().flat_map(Set::slots);
    for ((tag, slot), held) in all.zip(slots) {
        let (own, kept_until, was_used) = match held {
            Held::Nothing => continue,
            Held::Same => (TAG, LATER, true),
            Held::Ended => (OTHER, NOW.uptime, true),
            Held::Unused => (OTHER, LATER, false),
            Held::Used => (OTHER, LATER, true),
        };
        tag.store(own, Ordering::Relaxed);
        let entry = Entry { kept_until, was_used: was_used.into(), ..entry(token) };
        slot.store(Some(Arc::new(entry)));
    }
    cache
}

/// The number of the slot that the token takes, whose sets are the two of the table.
fn chosen(cache: &TokenCache, rest: u16) -> Option<usize> {
    let [first, second] = &*cache.sets else { panic!("a table of two sets") };
    let candidates = Candidates { sets: [first, second], tag: TAG, rest };
    let (_, chosen) = candidates.choose(NOW)?;
    cache.sets.iter().flat_map(Set::slots).position(|(_, slot)| ptr::eq(slot, chosen))
}

#[test]
fn a_token_takes_the_slot_that_is_needed_least() {
    use Held::{Ended, Nothing, Same, Unused, Used};
    struct Case {
        name: &'static str,
        slots: [Held; 2 * WAYS],
        takes: usize,
    }

    let token = token();
    for Case { name, slots, takes } in [
        Case {
            name: "its own, before one that has ended",
            slots: [Ended, Nothing, Unused, Used, Used, Used, Used, Same],
            takes: 7,
        },
        Case {
            name: "one that has ended, before an empty one",
            slots: [Nothing, Nothing, Unused, Used, Used, Used, Ended, Used],
            takes: 6,
        },
        Case {
            name: "an empty one, before one without a hit",
            slots: [Unused, Used, Used, Used, Used, Used, Used, Nothing],
            takes: 7,
        },
        Case {
            name: "the second set is emptier",
            slots: [Nothing, Used, Used, Used, Used, Nothing, Nothing, Used],
            takes: 5,
        },
        Case {
            name: "the first set is emptier",
            slots: [Used, Nothing, Nothing, Used, Nothing, Used, Used, Used],
            takes: 1,
        },
        // So that a hit reads one set.
        Case {
            name: "both are equally empty",
            slots: [Used, Used, Used, Nothing, Nothing, Used, Used, Used],
            takes: 3,
        },
        Case { name: "both are empty", slots: [Nothing; 2 * WAYS], takes: 0 },
        Case {
            name: "one without a hit",
            slots: [Used, Used, Used, Used, Used, Unused, Used, Used],
            takes: 5,
        },
    ] {
        assert_eq!(chosen(&filled(slots, &token), 1), Some(takes), "{name}");
    }
}

#[test]
fn any_slot_is_taken_of_entries_in_use() {
    let token = token();
    for (rest, takes) in
        [(0, 0), (1, 1), (3, 3), (4, 4), (6, 6), (7, 7), (8, 0), (14, 6), (u16::MAX, 7)]
    {
        let cache = filled([Held::Used; 2 * WAYS], &token);
        assert_eq!(chosen(&cache, rest), Some(takes), "{rest}");
    }
}

/// A token that is charged with so many bytes.
fn charged(cache: &Arc<TokenCache>, bytes: usize) -> AccessToken {
    let token = token();
    assert!(cache.take(bytes, 0));
    token.charge(Charge::new(Arc::downgrade(cache) as Weak<dyn Budget>, bytes));
    token
}

/// Stores an entry in the first slot of a set.
fn store(cache: &TokenCache, set: usize, entry: Entry) {
    cache.sets[set].tags[0].store(OTHER, Ordering::Relaxed);
    cache.sets[set].entries[0].store(Some(Arc::new(entry)));
}

fn bytes(cache: &TokenCache) -> usize {
    cache.bytes.load(Ordering::Relaxed)
}

#[test]
fn a_sweep_frees_what_has_ended_or_is_large_and_for_a_small_token_what_is_unused() {
    #[derive(Clone, Copy)]
    struct Case {
        name: &'static str,
        holds_until: Duration,
        was_used: bool,
        charged: usize,
        now: Option<Now>,
        /// For a token of so many bytes.
        bytes: usize,
        is_freed: bool,
    }

    const IN_USE: Case = Case {
        name: "in use",
        holds_until: LATER,
        was_used: true,
        charged: BYTES_PER_TOKEN,
        now: Some(NOW),
        bytes: BYTES_PER_TOKEN,
        is_freed: false,
    };
    const LARGE: usize = BYTES_PER_TOKEN + 1;
    for case in [
        IN_USE,
        Case { name: "in use, for a large token", bytes: LARGE, ..IN_USE },
        Case { name: "ended", holds_until: NOW.uptime, bytes: LARGE, is_freed: true, ..IN_USE },
        Case { name: "without a time", holds_until: NOW.uptime, now: None, ..IN_USE },
        Case { name: "large", charged: LARGE, bytes: LARGE, is_freed: true, ..IN_USE },
        Case { name: "unused", was_used: false, is_freed: true, ..IN_USE },
        Case { name: "unused, for a large token", was_used: false, bytes: LARGE, ..IN_USE },
    ] {
        let cache = Arc::new(TokenCache::new(4));
        let token = charged(&cache, case.charged);
        let (holds_until, was_used) = (case.holds_until, case.was_used.into());
        store(&cache, 0, Entry { holds_until, was_used, ..entry(&token) });
        drop(token);
        assert_eq!(cache.sweep(case.now, case.bytes), case.is_freed, "{}", case.name);
        let expected = if case.is_freed { 0 } else { case.charged };
        assert_eq!(bytes(&cache), expected, "{}", case.name);
    }
}

#[test]
fn an_entry_that_was_used_since_the_last_sweep_stays() {
    // Of fewer sets than one sweep searches, and of more.
    for capacity in [1, 4, 100] {
        let cache = Arc::new(TokenCache::new(capacity));
        store(&cache, 0, entry(&token()));
        let use_it = || cache.sets[0].entries[0].load().as_ref().unwrap().mark_used();
        let sweep_all = || {
            cache.swept.store(0, Ordering::Relaxed);
            cache.sweep(Some(NOW), 0)
        };
        for _ in 0..2 {
            use_it();
            assert!(!sweep_all(), "{capacity}");
        }
        assert!(sweep_all(), "{capacity}: not used since");
    }
}

#[test]
fn sweeps_search_one_part_of_the_table_after_another() {
    struct Case {
        name: &'static str,
        /// Where the first sweep starts.
        swept: usize,
        set: usize,
        /// How many sweeps it takes to free an entry of the set.
        sweeps: usize,
    }

    for Case { name, swept, set, sweeps } in [
        Case { name: "the last of the first part", swept: 0, set: 15, sweeps: 1 },
        Case { name: "the next one", swept: 0, set: 16, sweeps: 2 },
        Case { name: "the last one", swept: 14, set: 29, sweeps: 1 },
        Case { name: "the first one again", swept: 30, set: 0, sweeps: 1 },
        Case { name: "the end of the counter", swept: usize::MAX, set: 15, sweeps: 1 },
        Case { name: "the next after the end of the table", swept: usize::MAX, set: 0, sweeps: 1 },
    ] {
        let cache = TokenCache::new(60);
        assert_eq!(cache.sets.len(), 30);
        cache.swept.store(swept, Ordering::Relaxed);
        store(&cache, set, Entry { holds_until: NOW.uptime, ..entry(&token()) });
        let freed_by = (1..10).find(|_| cache.sweep(Some(NOW), usize::MAX));
        assert_eq!(freed_by, Some(sweeps), "{name}");
    }
}

/// Whether a sweep makes enough room.
const ROOM: [(&str, usize); 2] = [("as much as is needed", 0), ("a byte too little", 1)];

#[test]
fn a_token_is_cached_if_a_sweep_makes_room_for_it_and_then_charged() {
    for (name, missing) in ROOM {
        let cache = Arc::new(TokenCache::new(1));
        let token = token();
        let needed = token.bytes() + size_of::<Entry>();
        // It has ended, and is still kept, so that the new token takes another slot.
        let ended = charged(&cache, needed - missing);
        store(&cache, 0, Entry { holds_until: NOW.uptime, ..entry(&ended) });
        drop(ended);
        assert!(cache.take(cache.most_bytes - bytes(&cache), 0), "the rest");

        cache.insert(token.expose_token(), NOW, entry(&token));
        let is_cached = missing == 0;
        assert_eq!(cache.find(token.expose_token()).is_some(), is_cached, "{name}");
        assert_eq!(token.charged(), if is_cached { needed } else { 0 }, "{name}");
        let left = cache.most_bytes - bytes(&cache);
        assert_eq!(left, if is_cached { 0 } else { needed - missing }, "{name}");
    }
}

#[test]
fn memory_for_claims_is_reserved_if_a_sweep_makes_room_for_them() {
    const FREED: usize = 1000;
    for (name, missing) in ROOM {
        let cache = Arc::new(TokenCache::new(1));
        store(&cache, 0, entry(&charged(&cache, FREED)));
        assert!(cache.take(cache.most_bytes - FREED, 0), "the rest");
        let is_reserved = missing == 0;
        assert_eq!(cache.reserve(FREED + missing, 0), is_reserved, "{name}");
        let left = cache.most_bytes - bytes(&cache);
        assert_eq!(left, if is_reserved { 0 } else { FREED }, "{name}");
    }
}
