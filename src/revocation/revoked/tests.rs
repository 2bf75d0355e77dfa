//! What the set keeps and drops, how much of it a tenant may fill, and until when its count is
//! known.

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
        assert_eq!(at(known_for.saturating_sub(1)), (known_for > 0).then_some(expected), "{name}");
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
/// Appends an entry of a tenant, if there is room.
fn appended(revoked: &Revoked, entry: &Entry, kept_until: Duration, now: Now) -> Option<Full> {
    let full = revoked.full(entry, Source::Tenant, now);
    if full.is_none() {
        revoked.count_appended(entry, kept_until, now.unix);
    }
    full
}

#[test]
fn what_was_not_appended_does_not_count() {
    let (revoked, until) = (Revoked::default(), UNIX + second(100));
    let of_tenant = entry("tenant", 0, UNIX);
    let counts = || {
        let counted = revoked.counted();
        let sum: usize = counted.appended.values().map(|(_, count)| *count).sum();
        (sum, counted.appended_by_all)
    };
    let first = revoked.count_appended(&of_tenant, until, UNIX);
    let next = revoked.count_appended(&of_tenant, until + second(1), UNIX + second(1));
    revoked.uncount(&next);
    assert_eq!(counts(), (1, 1), "one of two");
    // In the next window, an entry of the one before is not taken back.
    revoked.count_appended(&of_tenant, until + second(100), until);
    revoked.uncount(&first);
    assert_eq!(counts(), (1, 1), "in the next window");
    revoked.count_appended(&of_tenant, until, UNIX);
    assert_eq!(counts(), (1, 1), "after the clock was ahead");
}

/// A sender tries again for as long as the store fails.
#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn what_the_store_rejects_does_not_count() {
    use crate::testing::{StoreBehavior, TestStore};

    let store = TestStore::new();
    let revocations = crate::Revocations::shared(store.clone());
    for (name, behavior, expected) in [
        ("rejected", StoreBehavior::Fail, 0),
        ("stored", StoreBehavior::Normal, 1),
        ("rejected again", StoreBehavior::Fail, 1),
        ("perhaps stored", StoreBehavior::Hang, 2),
    ] {
        store.set_behavior(behavior);
        let until = revocations.now().unix + second(100);
        let stored = revocations.append(entry(name, 0, until), Source::Tenant).await;
        assert_eq!(stored.is_ok(), behavior == StoreBehavior::Normal, "{name}");
        assert_eq!(revocations.0.revoked.counted().appended_by_all, expected, "{name}");
    }
}

#[test]
fn a_tenant_appends_as_many_entries_as_it_may_keep() {
    let (revoked, until) = (Revoked::default(), UNIX + second(100));
    let at = |unix, uptime| Now { unix, uptime: second(uptime) };
    // The log has the entries for longer than they count.
    let of_tenant = entry("tenant", 0, UNIX + second(1));
    let append = |now| appended(&revoked, &of_tenant, until, now);
    for number in 0..MOST_OF_TENANT {
        assert_eq!(append(NOW), None, "{number}");
    }
    assert_eq!(append(NOW), Some(Full::OfIssuer), "one more");
    assert_eq!(revoked.full(&of_tenant, Source::Trusted, NOW), None, "by the application");
    let other = entry("other", 0, until);
    assert_eq!(appended(&revoked, &other, until, NOW), None, "another tenant");
    revoked.tidy(at(until - second(1), 60));
    assert_eq!(append(at(until - second(1), 60)), Some(Full::OfIssuer), "before they are dropped");
    assert_eq!(append(at(until, 60)), None, "when they were dropped");
    // The count of the other tenant, from its first entry on, has ended as well.
    revoked.tidy(at(until, 120));
    assert!(!revoked.counted().appended.contains_key(&issuer_of(&other.hash)));
}

#[test]
fn tenants_append_as_many_entries_together_as_they_may_keep() {
    let (revoked, until) = (Revoked::default(), UNIX + second(100));
    let at = |unix, uptime| Now { unix, uptime: second(uptime) };
    let append = |number: usize, now| {
        let one = entry(&(number / MOST_OF_TENANT).to_string(), 0, UNIX + second(1));
        appended(&revoked, &one, until, now)
    };
    for number in 0..MOST_FOR_TENANTS {
        assert_eq!(append(number, NOW), None, "{number}");
    }
    let next = MOST_FOR_TENANTS;
    assert_eq!(append(next, NOW), Some(Full::OfTenants), "one more, of another tenant");
    assert_eq!(
        append(next, at(until - second(1), 60)),
        Some(Full::OfTenants),
        "before they are dropped"
    );
    assert_eq!(append(next, at(until, 120)), None, "when they were dropped");
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
    let all = (0..MOST_FOR_TENANTS).map(|number| entry(&(number % 8).to_string(), number, until));
    assert!(revoked.insert(all, NOW));
    let next = entry("another", 0, until);
    assert_eq!(revoked.full(&next, Source::Tenant, NOW), Some(Full::OfTenants));
    assert_eq!(revoked.full(&next, Source::Trusted, NOW), None);
}

#[test]
fn the_log_may_hold_a_tenth_more_than_is_accepted() {
    let (revoked, until) = (Revoked::default(), UNIX + Duration::from_secs(1000));
    let numbered =
        |numbers: std::ops::Range<usize>| numbers.map(move |number| entry("issuer", number, until));
    assert!(revoked.insert(numbered(0..MOST), NOW));
    let next = entry("issuer", MOST, until);
    assert_eq!(revoked.full(&next, Source::Trusted, NOW), Some(Full::All));
    assert!(revoked.insert(numbered(MOST..MOST_IN_LOG), NOW), "appended by other replicas");
    assert!(!revoked.insert(numbered(MOST_IN_LOG..MOST_IN_LOG + 1), NOW));
    assert!(revoked.insert(numbered(0..1), NOW), "an entry that is there");
    let later = Now { unix: until, uptime: DROP_EVERY };
    assert!(revoked.insert(numbered(MOST_IN_LOG..MOST_IN_LOG + 1), later), "the others have ended");
}
