//! Which durations are accepted, up to the nanosecond, and what the errors say.

use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{
    ApiKeys, ClientAuth, ConfigError, Dpop, Introspection, Issuer, Issuers, Revocations, Verifier,
};

const ISS: &str = "https://issuer.example/";
const DAY: Duration = Duration::from_secs(24 * 3600);
const MOMENT: Duration = Duration::from_nanos(1);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn durations_are_accepted_up_to_their_limits() {
    type Set = fn(Duration) -> Result<(), ConfigError>;

    struct Case {
        name: &'static str,
        set: Set,
        shortest: Duration,
        longest: Option<Duration>,
    }

    fn issuer_with(
        set: impl FnOnce(Issuer) -> Result<Issuer, ConfigError>,
    ) -> Result<(), ConfigError> {
        set(Issuer::new(ISS, AUDIENCE)?).map(drop)
    }
    fn asked() -> Introspection {
        Introspection::new(ClientAuth::client_secret("api", "secret"))
    }
    let cases = [
        Case {
            name: "leeway",
            set: |time| issuer_with(|issuer| issuer.leeway(time)),
            shortest: Duration::ZERO,
            longest: Some(secs(300)),
        },
        Case {
            name: "max_token_age",
            set: |time| issuer_with(|issuer| issuer.max_token_age(time)),
            shortest: secs(1),
            longest: None,
        },
        Case {
            name: "keys_max_age",
            set: |time| issuer_with(|issuer| issuer.keys_max_age(time)),
            shortest: secs(1),
            longest: Some(DAY),
        },
        Case {
            name: "keys_max_stale",
            set: |time| issuer_with(|issuer| issuer.keys_max_stale(time)),
            shortest: Duration::ZERO,
            longest: Some(DAY),
        },
        Case {
            name: "keys_fetch_timeout",
            set: |time| issuer_with(|issuer| issuer.keys_fetch_timeout(time)),
            shortest: MOMENT,
            longest: Some(secs(60)),
        },
        Case {
            name: "refresh_after",
            set: |time| {
                let issuers = Issuers::lookup(|_| None).refresh_after(time);
                Verifier::new(issuers).map(drop)
            },
            shortest: secs(1),
            longest: Some(DAY),
        },
        Case {
            name: "cache_for of introspection",
            set: |time| asked().cache_for(time).map(drop),
            shortest: Duration::ZERO,
            longest: Some(secs(3600)),
        },
        Case {
            name: "max_stale of introspection",
            set: |time| asked().max_stale(time).map(drop),
            shortest: Duration::ZERO,
            longest: Some(secs(300)),
        },
        Case {
            name: "timeout of introspection",
            set: |time| asked().timeout(time).map(drop),
            shortest: MOMENT,
            longest: Some(secs(10)),
        },
        Case {
            name: "cache_for of API keys",
            set: |time| {
                let keys = ApiKeys::lookup(ISS, "acme", |_| async { Ok::<_, ConfigError>(None) });
                keys?.cache_for(time).map(drop)
            },
            shortest: Duration::ZERO,
            longest: Some(secs(3600)),
        },
        Case {
            name: "window of proofs in the past",
            set: |time| Dpop::new("https://api.example")?.window(time, secs(1)).map(drop),
            shortest: Duration::ZERO,
            longest: Some(secs(300)),
        },
        Case {
            name: "window of proofs in the future",
            set: |time| Dpop::new("https://api.example")?.window(secs(1), time).map(drop),
            shortest: Duration::ZERO,
            longest: Some(secs(300)),
        },
        Case {
            name: "keep_for of revocations",
            set: |time| Revocations::in_memory().keep_for(time).map(drop),
            shortest: secs(60),
            longest: Some(90 * DAY),
        },
        Case {
            name: "max_stale of revocations",
            set: |time| Revocations::in_memory().max_stale(time).map(drop),
            shortest: secs(5),
            longest: Some(secs(3600)),
        },
        #[cfg(feature = "status-list")]
        Case {
            name: "max_stale of status lists",
            set: |time| portcullis::StatusLists::new().max_stale(time).map(drop),
            shortest: Duration::ZERO,
            longest: Some(secs(3600)),
        },
    ];
    for Case { name, set, shortest, longest } in cases {
        let longest = longest.unwrap_or(Duration::MAX);
        for time in [shortest, shortest + MOMENT, longest - MOMENT, longest] {
            assert!(set(time).is_ok(), "{name}: {time:?}: {:?}", set(time));
        }
        let beyond = [shortest.checked_sub(MOMENT), longest.checked_add(MOMENT)];
        for time in beyond.into_iter().flatten() {
            assert!(set(time).is_err(), "{name}: {time:?}");
        }
    }
}

/// Without a FIPS module: `ci/fips.sh` has the other cases.
#[test]
fn fips_is_refused_where_it_is_not() {
    let issuer = TestIssuer::offline(ISS).unwrap();
    let built = Verifier::builder(issuer.issuer()).require_fips().build();
    let error = built.unwrap_err().to_string();
    let found =
        if cfg!(feature = "aws-lc-rs") { "found its ordinary build" } else { "found RustCrypto" };
    assert!(error.starts_with("require_fips: expected aws-lc-rs in FIPS mode, "), "{error}");
    assert!(error.contains(found), "{error}");
    assert!(Verifier::builder(issuer.issuer()).build().is_ok());
}
