//! When keys are fetched again, and which of two concurrent fetches counts.

use std::borrow::Cow;

use super::*;
use crate::algorithm::Algorithm;
use crate::keys::jwk::SetFormat;
use crate::keys::url::PlainHttp;
use crate::telemetry::IssuerName;
use schedule::KeyPolicy;

const MAX_STALE: Duration = Duration::from_secs(50);
const MOMENT: Duration = Duration::from_nanos(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(uptime: Duration) -> Now {
    Now { unix: uptime, uptime }
}

fn key_set() -> Jwks {
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    Jwks::from_json(format!("{{\"keys\":[{key}]}}")).unwrap()
}

/// Keys that were fetched at 0 seconds, are due for a refresh at 80, fresh until 100, and
/// usable until 150. `failed`: when the refresh has failed, which puts off the next one by a
/// second.
fn fetched_keys(failed: Option<Duration>) -> Arc<RemoteJwks> {
    let keys = keys_at("http://127.0.0.1:1/");
    keys.current.store(Some(Arc::new(key_set())));
    let mut state = keys.lock();
    state.schedule.succeeded(seconds(100), 0.5, Duration::ZERO);
    if let Some(failed) = failed {
        state.schedule.failed(1.0, failed);
    }
    keys.publish_next_decision(&state);
    drop(state);
    keys
}

/// Keys that were not fetched yet.
fn keys_at(server: &str) -> Arc<RemoteJwks> {
    let source = Source {
        issuer: IssuerName { iss: "https://issuer.example/".into(), throttle: None },
        location: Location::Jwks(Url::parse(server).unwrap()),
        format: SetFormat::Jwks,
        rsa: Algorithm::RS256,
        algorithms: Cow::Borrowed(&[]),
        policy: KeyPolicy { max_stale: MAX_STALE, ..KeyPolicy::default() },
        addresses: AddressPolicy::Any,
        plain_http: PlainHttp::OnLoopback,
    };
    RemoteJwks::new(source, Client::new(), Clock::default(), None)
}

/// The runtime is not driven, so that no fetch ends.
#[tokio::test]
async fn a_recheck_does_what_a_token_that_is_not_cached_would() {
    struct Case {
        name: &'static str,
        failed: Option<Duration>,
        now: Duration,
        fetches: bool,
        counts_as_stale: bool,
    }

    let failed = Some(seconds(100) - MOMENT);
    for Case { name, failed, now, fetches, counts_as_stale } in [
        Case {
            name: "before the refresh is due",
            failed: None,
            now: seconds(80) - MOMENT,
            fetches: false,
            counts_as_stale: false,
        },
        Case {
            name: "when it is due",
            failed: None,
            now: seconds(80),
            fetches: true,
            counts_as_stale: false,
        },
        Case {
            name: "before the end of the lifetime",
            failed,
            now: seconds(100) - MOMENT,
            fetches: false,
            counts_as_stale: false,
        },
        Case {
            name: "at the end of the lifetime",
            failed,
            now: seconds(100),
            fetches: false,
            counts_as_stale: true,
        },
        Case {
            name: "past the lifetime",
            failed,
            now: seconds(100) + MOMENT,
            fetches: false,
            counts_as_stale: true,
        },
    ] {
        let keys = fetched_keys(failed);
        let current = Arc::downgrade(&keys.current.load_full().unwrap());
        assert!(keys.recheck(&current, at(now)), "{name}");
        let health = keys.health(at(now));
        assert_eq!(health.fetching, fetches, "{name}: fetches");
        assert_eq!(health.stale_serves, u64::from(counts_as_stale), "{name}: stale");
    }
}

#[test]
fn keys_are_cached_until_they_may_no_longer_be_used() {
    let failed = Some(seconds(150) - MOMENT);
    for (name, failed, now, is_cached) in [
        ("when a refresh is due", None, seconds(80), true),
        ("before the end", failed, seconds(150) - MOMENT, true),
        ("at the end", failed, seconds(150), false),
        ("past the end", failed, seconds(150) + MOMENT, false),
    ] {
        assert_eq!(fetched_keys(failed).cached(at(now)).is_some(), is_cached, "{name}");
    }
}

#[tokio::test]
async fn what_was_being_fetched_when_the_keys_were_forgotten_is_discarded() {
    let keys = fetched_keys(None);
    assert!(matches!(keys.keys(None, at(seconds(80))), KeysState::Ready(_)));
    let number = keys.lock().fetch;
    assert_eq!(number, 1);
    keys.forget();
    let (jwks, carryover) = (Some(key_set()), Carryover::default());
    let download = Download { jwks, lifetime: seconds(100), carryover };
    keys.finish(number, Ok(download), Duration::ZERO);
    assert!(keys.current.load().is_none());
}

#[test]
fn jitter_is_spread_from_0_to_1() {
    let drawn: Vec<_> = (0..1000).map(|_| jitter()).collect();
    assert!(drawn.iter().all(|jitter| *jitter > 0.0 && *jitter <= 1.0));
    for (from, to) in [(0.0, 0.2), (0.4, 0.6), (0.8, 1.0)] {
        let within = drawn.iter().filter(|jitter| (from..to).contains(*jitter)).count();
        assert!((100..300).contains(&within), "{within} of 1000 from {from} to {to}");
    }
}

/// A refresh that has not ended yet is no reason to log.
#[tokio::test]
async fn the_use_of_stale_keys_is_logged_if_a_refresh_has_failed() {
    for (name, failed, expected) in [
        ("the refresh is in progress", None, Duration::ZERO),
        ("the refresh has failed", Some(seconds(98)), seconds(100)),
    ] {
        let keys = fetched_keys(failed);
        for now in [99, 101, 102] {
            let found = keys.keys(None, at(seconds(now)));
            assert!(matches!(found, KeysState::Ready(_)), "{name}: {now} s");
        }
        assert_eq!(keys.health(at(seconds(102))).stale_serves, 2, "{name}");
        assert_eq!(keys.stale_reported.load(Ordering::Relaxed), nanos(expected), "{name}");
    }
}

/// The server accepts connections, and never answers.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_waited_for_a_permit_most_of_its_time_is_no_timeout_of_the_server() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let keys = keys_at(&format!("http://{}/", server.local_addr().unwrap()));
    let limit = keys.source.policy.timeout;
    for (name, waits, is_timeout) in [
        ("no time", Duration::ZERO, true),
        ("half of it", limit / 2, true),
        ("more than half of it", limit / 2 + Duration::from_millis(1), false),
        ("almost all of it", limit - Duration::from_millis(1), false),
        ("all of it", limit, false),
    ] {
        let mut permits = Vec::new();
        for _ in 0..limits::MAX_PER_ORIGIN {
            permits.push(keys.limit_at_origin.take(limits::FetchClass::Established).await);
        }
        let released = async {
            tokio::time::sleep(waits).await;
            drop(permits);
        };
        let start = Instant::now();
        let (answer, ()) = tokio::join!(keys.fetch(Carryover::default(), None), released);
        assert_eq!(start.elapsed(), limit, "{name}");
        match answer.map(|_| ()) {
            Err(FetchError::Timeout { .. }) => assert!(is_timeout, "{name}"),
            Err(FetchError::ConcurrencyLimit { .. }) => assert!(!is_timeout, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
