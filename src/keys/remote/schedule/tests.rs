use super::model::{Event, LIFETIME, World};
use super::*;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What happens to a schedule, in order, and the expected decision.
enum Step {
    Request(f64, Decision),
    UnknownKid(f64, &'static str, Decision),
    /// The key is known, but the signature does not match.
    WrongSignature(f64, Decision),
    /// After the request waited for a fetch.
    StillWrongSignature(f64),
    /// A readiness check.
    WarmUp(f64, Decision),
    /// After the request waited for a fetch.
    StillUnknownKid(f64, &'static str),
    Succeeded(f64),
    Failed(f64),
}

#[test]
fn fetches_start_when_they_should() {
    use Decision::{Fetch, Join, Serve, ServeAndFetch, Unavailable};
    const COOLING_DOWN: Decision = Decision::Skip(NoFetch::CoolingDown);
    const REMEMBERED: Decision = Decision::Skip(NoFetch::Remembered);
    const MISSING: Decision = Decision::Skip(NoFetch::Missing);
    use Step::{
        Failed, Request, StillUnknownKid, StillWrongSignature, Succeeded, UnknownKid, WarmUp,
        WrongSignature,
    };
    let cases: Vec<(&str, Vec<Step>)> = vec![
        (
            "cold start",
            vec![Request(0.0, Fetch), Request(0.1, Join), Succeeded(0.2), Request(0.3, Serve)],
        ),
        (
            "refreshed before the end of the lifetime, once",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                Request(479.9, Serve),
                Request(480.0, ServeAndFetch),
                Request(480.1, Serve),
                Succeeded(485.0),
                Request(964.9, Serve),
                Request(965.0, ServeAndFetch),
            ],
        ),
        (
            "failures without keys back off by 1, 2, 4, 8, 16, 30 and 30 s",
            vec![
                Request(0.0, Fetch),
                Failed(0.0),
                Request(0.9, Unavailable),
                Request(1.0, Fetch),
                Failed(1.0),
                Request(2.9, Unavailable),
                Request(3.0, Fetch),
                Failed(3.0),
                Request(7.0, Fetch),
                Failed(7.0),
                Request(15.0, Fetch),
                Failed(15.0),
                Request(31.0, Fetch),
                Failed(31.0),
                Request(60.9, Unavailable),
                Request(61.0, Fetch),
                Failed(61.0),
                Request(90.9, Unavailable),
                Request(91.0, Fetch),
                Succeeded(91.0),
                Request(92.0, Serve),
            ],
        ),
        (
            "a success resets the back-off",
            vec![
                Request(0.0, Fetch),
                Failed(0.0),
                Request(1.0, Fetch),
                Succeeded(1.0),
                Request(481.0, ServeAndFetch),
                Failed(481.0),
                Request(481.9, Serve),
                Request(482.0, ServeAndFetch),
            ],
        ),
        (
            "stale keys are used for an hour after their lifetime",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                Request(480.0, ServeAndFetch),
                Failed(480.0),
                Request(4199.0, ServeAndFetch),
                Failed(4199.0),
                Request(4199.9, Serve),
                Request(4200.0, Unavailable),
                Request(4201.0, Fetch),
                Request(4201.1, Join),
                Failed(4201.2),
                Request(4201.3, Unavailable),
            ],
        ),
        (
            "an idle issuer's keys are fetched before they are used again",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                Request(600.0, Fetch),
                Request(600.1, Join),
                Failed(600.2),
                Request(600.3, Serve),
                Request(601.2, ServeAndFetch),
                Request(601.3, Serve),
            ],
        ),
        (
            "after a failure before a refresh was due, an idle issuer's keys are fetched first as well",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                UnknownKid(10.0, "a", Fetch),
                Failed(10.0),
                Request(1200.0, Fetch),
                Request(1200.1, Join),
                Failed(1200.2),
                Request(1200.3, Serve),
            ],
        ),
        (
            "no request waits for a refresh that was started before the end of the lifetime",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                Request(599.0, ServeAndFetch),
                Request(601.0, Serve),
                Succeeded(601.1),
                Request(602.0, Serve),
            ],
        ),
        (
            "a rotation right after the first fetch causes a fetch at once",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                UnknownKid(1.0, "new", Fetch),
                UnknownKid(1.1, "new", Join),
            ],
        ),
        (
            "a wrong signature right after the first fetch causes a fetch at once",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                WrongSignature(1.0, Fetch),
                WrongSignature(1.1, Join),
            ],
        ),
        (
            "unknown kids cause three fetches at once, and one more every five seconds",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                UnknownKid(1.0, "a", Fetch),
                UnknownKid(1.0, "b", Join),
                Succeeded(1.0),
                UnknownKid(1.0, "c", Fetch),
                Succeeded(1.0),
                UnknownKid(1.0, "d", Fetch),
                Succeeded(1.0),
                UnknownKid(1.0, "e", COOLING_DOWN),
                UnknownKid(5.9, "e", COOLING_DOWN),
                WrongSignature(5.9, COOLING_DOWN),
                Request(5.9, Serve),
                UnknownKid(6.0, "e", Fetch),
                Succeeded(6.0),
                UnknownKid(10.9, "f", COOLING_DOWN),
                UnknownKid(11.0, "f", Fetch),
                Succeeded(11.0),
                UnknownKid(26.0, "g", Fetch),
                Succeeded(26.0),
                UnknownKid(26.0, "h", Fetch),
                Succeeded(26.0),
                UnknownKid(26.0, "i", Fetch),
                Succeeded(26.0),
                UnknownKid(26.0, "j", COOLING_DOWN),
            ],
        ),
        (
            "failed fetches count against the budget as well",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                UnknownKid(10.0, "a", Fetch),
                Failed(10.5),
                UnknownKid(10.6, "a", Fetch),
                Failed(10.7),
                UnknownKid(10.8, "a", Fetch),
                Failed(10.9),
                UnknownKid(14.9, "b", COOLING_DOWN),
                Request(14.9, Serve),
                UnknownKid(15.0, "b", Fetch),
            ],
        ),
        (
            "after a failed fetch, a key is not remembered as missing",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                UnknownKid(10.0, "a", Fetch),
                Failed(10.0),
                StillUnknownKid(10.0, "a"),
                UnknownKid(10.1, "a", Fetch),
            ],
        ),
        (
            "a missing key is fetched less and less often, down to once a minute",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                UnknownKid(10.0, "a", Fetch),
                Succeeded(10.0),
                StillUnknownKid(10.0, "a"),
                StillUnknownKid(10.1, "a"),
                UnknownKid(14.9, "a", REMEMBERED),
                UnknownKid(14.9, "b", Fetch),
                Succeeded(14.9),
                UnknownKid(15.0, "a", Fetch),
                Succeeded(15.0),
                StillUnknownKid(15.0, "a"),
                UnknownKid(24.9, "a", REMEMBERED),
                UnknownKid(25.0, "a", Fetch),
                Succeeded(25.0),
                StillUnknownKid(25.0, "a"),
                UnknownKid(44.9, "a", REMEMBERED),
                UnknownKid(45.0, "a", Fetch),
                Succeeded(45.0),
                StillUnknownKid(45.0, "a"),
                UnknownKid(84.9, "a", REMEMBERED),
                UnknownKid(85.0, "a", Fetch),
                Succeeded(85.0),
                StillUnknownKid(85.0, "a"),
                UnknownKid(144.9, "a", REMEMBERED),
                UnknownKid(145.0, "a", Fetch),
            ],
        ),
        (
            "forged signatures never make a known key remembered as missing",
            vec![
                Request(0.0, Fetch),
                Succeeded(0.0),
                WrongSignature(10.0, Fetch),
                Succeeded(10.0),
                StillWrongSignature(10.0),
                WrongSignature(10.1, Fetch),
                Succeeded(10.1),
                StillWrongSignature(10.1),
                WrongSignature(10.2, Fetch),
                Succeeded(10.2),
                StillWrongSignature(10.2),
                WrongSignature(14.9, COOLING_DOWN),
                WrongSignature(15.0, Fetch),
            ],
        ),
        (
            "a readiness check does not wait for the back-off, and fetches once a second at most",
            vec![
                WarmUp(0.0, Fetch),
                Failed(0.1),
                WarmUp(0.9, Unavailable),
                WarmUp(1.0, Fetch),
                WarmUp(1.1, Join),
                Failed(1.2),
                Request(2.1, Unavailable),
                WarmUp(2.1, Fetch),
                Failed(2.2),
                Request(6.1, Unavailable),
                WarmUp(6.1, Fetch),
                Succeeded(6.2),
                WarmUp(6.3, Serve),
                WarmUp(480.0, Serve),
                WarmUp(486.2, ServeAndFetch),
                Failed(486.3),
                WarmUp(487.4, ServeAndFetch),
            ],
        ),
        (
            "a fetch that never ends is abandoned a second after its time limit",
            vec![
                Request(0.0, Fetch),
                Request(5.9, Join),
                Request(6.0, Fetch),
                Succeeded(6.1),
                Request(486.1, ServeAndFetch),
                Request(492.0, Serve),
                UnknownKid(492.0, "a", Join),
                Request(492.1, ServeAndFetch),
                StillUnknownKid(492.1, "a"),
            ],
        ),
    ];
    for (name, steps) in cases {
        let mut schedule = Schedule::new(KeyPolicy::default(), Budget::KEY_SET);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Request(time, plan) => {
                    // Before `next_decision`, the rules must say the same.
                    if at(time) < schedule.next_decision() {
                        assert_eq!(plan, Serve, "{name}: step {number}");
                    }
                    assert_eq!(schedule.request(at(time)), plan, "{name}: step {number}");
                }
                UnknownKid(time, kid, plan) => {
                    assert_eq!(
                        schedule.unknown_kid(Some(kid), false, at(time)),
                        plan,
                        "{name}: step {number}"
                    );
                }
                StillUnknownKid(time, kid) => {
                    assert_eq!(
                        schedule.unknown_kid(Some(kid), true, at(time)),
                        MISSING,
                        "{name}: step {number}"
                    );
                }
                WrongSignature(time, plan) => {
                    assert_eq!(
                        schedule.unknown_kid(None, false, at(time)),
                        plan,
                        "{name}: step {number}"
                    );
                }
                StillWrongSignature(time) => {
                    assert_eq!(
                        schedule.unknown_kid(None, true, at(time)),
                        MISSING,
                        "{name}: step {number}"
                    );
                }
                WarmUp(time, plan) => {
                    assert_eq!(schedule.warm_up(at(time)), plan, "{name}: step {number}");
                }
                Succeeded(time) => schedule.succeeded(LIFETIME, 0.5, at(time)),
                Failed(time) => schedule.failed(1.0, at(time)),
            }
        }
    }
}

#[test]
fn the_wait_for_unknown_kids_is_reported() {
    let mut schedule = Schedule::new(KeyPolicy::default(), Budget::KEY_SET);
    for number in 0..3 {
        assert_eq!(schedule.unknown_kid_wait(at(100.0)), at(0.0), "{number}");
        assert_eq!(schedule.unknown_kid(Some("a"), false, at(100.0)), Decision::Fetch, "{number}");
        schedule.succeeded(LIFETIME, 0.5, at(100.0));
    }
    for (time, wait) in [(100.0, 5.0), (103.0, 2.0), (105.0, 0.0), (200.0, 0.0)] {
        assert_eq!(schedule.unknown_kid_wait(at(time)), at(wait), "{time}");
    }
}

#[test]
fn refreshes_and_retries_have_jitter() {
    for (jitter, refresh) in [(0.0, 432.0), (0.5, 480.0), (1.0, 528.0)] {
        let mut schedule = Schedule::new(KeyPolicy::default(), Budget::KEY_SET);
        schedule.succeeded(LIFETIME, jitter, at(0.0));
        assert_eq!(schedule.request(at(refresh - 0.1)), Decision::Serve, "{jitter}");
        assert_eq!(schedule.request(at(refresh + 0.1)), Decision::ServeAndFetch, "{jitter}");
    }
    for (jitter, retry) in [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)] {
        let mut schedule = Schedule::new(KeyPolicy::default(), Budget::KEY_SET);
        schedule.failed(jitter, at(0.0));
        assert_eq!(schedule.retry_after(at(0.0)), at(retry), "{jitter}");
    }
}

#[test]
fn the_lifetime_that_the_server_gives_is_bounded() {
    let own = KeyPolicy { max_age: Some(at(5.0)), ..KeyPolicy::default() };
    for (name, policy, hint, lifetime) in [
        ("no hint", KeyPolicy::default(), None, 600.0),
        ("zero, or not a number", KeyPolicy::default(), Some(0.0), 60.0),
        ("Auth0's", KeyPolicy::default(), Some(15.0), 60.0),
        ("within the bounds", KeyPolicy::default(), Some(900.0), 900.0),
        ("ten years", KeyPolicy::default(), Some(3e8), 3600.0),
        ("overridden by the configuration", own, Some(900.0), 5.0),
    ] {
        assert_eq!(policy.lifetime(hint.map(at)), at(lifetime), "{name}");
    }
}

#[test]
fn the_number_of_missing_kids_is_bounded() {
    let mut schedule = Schedule::new(KeyPolicy::default(), Budget::KEY_SET);
    for number in 0..10_000 {
        schedule.unknown_kid(Some(&number.to_string()), true, at(0.0));
    }
    assert_eq!(schedule.missing.len(), MAX_MISSING);
    // Entries make space from their end on.
    schedule.unknown_kid(Some("new"), true, at(5.0));
    assert_eq!(
        schedule.unknown_kid(Some("new"), false, at(6.0)),
        Decision::Skip(NoFetch::Remembered)
    );
}

const EVENTS: [Event; 10] = [
    Event::Passes(3),
    Event::Passes(10),
    Event::Passes(500),
    Event::Passes(4000),
    Event::Request,
    Event::Junk("a"),
    Event::Junk("b"),
    Event::Forged,
    Event::Answer(true),
    Event::Answer(false),
];

/// All events in every order, up to a depth. The invariants are checked after each step.
fn explore(world: &World, depth: usize, steps: &mut u64) {
    if depth == 0 {
        return;
    }
    for event in EVENTS {
        let mut next = world.clone();
        next.happen(event);
        *steps += 1;
        explore(&next, depth - 1, steps);
    }
}

#[test]
fn invariants_hold_for_every_order_of_events() {
    const DEPTH: usize = 6;
    let world = World::new();
    let mut steps = 0;
    explore(&world, DEPTH, &mut steps);
    // Also from a warm start, to reach longer sequences.
    let mut warm = world;
    for event in [
        Event::Request,
        Event::Answer(true),
        Event::Passes(10),
        Event::Junk("a"),
        Event::Answer(true),
    ] {
        warm.happen(event);
    }
    explore(&warm, DEPTH, &mut steps);
    assert_eq!(steps, 2 * (1..=DEPTH as u32).map(|depth| 10_u64.pow(depth)).sum::<u64>());
}

/// Requests take no lock before the next decision.
#[test]
fn nothing_is_decided_before_something_is_due() {
    let cold = Schedule::new(KeyPolicy::default(), Budget::KEY_SET);
    let mut fetched = cold.clone();
    fetched.succeeded(LIFETIME, 0.5, at(0.0));
    let (mut refreshing, mut idle, mut failed) =
        (fetched.clone(), fetched.clone(), fetched.clone());
    assert_eq!(refreshing.request(at(480.0)), Decision::ServeAndFetch);
    assert_eq!(idle.request(at(600.0)), Decision::Fetch);
    failed.failed(1.0, at(480.0));
    let mut outage = failed.clone();
    assert_eq!(outage.request(at(4199.0)), Decision::ServeAndFetch);
    for (name, schedule, expected) in [
        ("without keys", cold, 0.0),
        ("until the refresh", fetched, 480.0),
        ("until the refresh in progress is abandoned", refreshing, 486.0),
        ("while requests wait for the keys", idle, 0.0),
        ("until the next attempt", failed, 481.0),
        ("until the keys may no longer be used", outage, 4200.0),
    ] {
        assert_eq!(schedule.next_decision(), at(expected), "{name}");
    }
}
