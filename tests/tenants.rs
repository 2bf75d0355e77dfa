//! Many issuers: whose keys verify whose tokens, and who is asked for keys at all.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, ConfigError, Error, Issuer, Issuers, Jwks, Verifier};
use tokio::task::JoinSet;

async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}

async fn verdict(verifier: &Verifier, token: &str) -> &'static str {
    verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
}

#[tokio::test]
async fn each_token_is_verified_with_its_own_issuers_keys() {
    let (acme, globex) = (start().await, start().await);
    let verifier = Verifier::new([acme.issuer(), globex.issuer()]).unwrap();
    for (issuer, other) in [(&acme, &globex), (&globex, &acme), (&acme, &globex)] {
        // Cold for the first, warm for the last. Both issuers call their key "key-1".
        assert_eq!(
            verdict(&verifier, &issuer.token().signed_by(other).build()).await,
            "bad_signature"
        );
        assert_eq!(verdict(&verifier, &issuer.token().build()).await, "ok");
    }
    // The warm one is asked once more whether it has a new key under that name.
    assert_eq!((acme.jwks_fetches(), globex.jwks_fetches()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_tenants_key_fails_under_anothers_name_also_under_load() {
    let (acme, globex) = (start().await, start().await);
    let verifier = Verifier::new([acme.issuer(), globex.issuer()]).unwrap();
    let mut requests = JoinSet::new();
    for number in 0..200 {
        let (token, expected) = match number % 4 {
            0 => (acme.token().build(), "ok"),
            1 => (globex.token().build(), "ok"),
            2 => (acme.token().signed_by(&globex).build(), "bad_signature"),
            _ => (globex.token().signed_by(&acme).build(), "bad_signature"),
        };
        let verifier = verifier.clone();
        requests.spawn(async move { assert_eq!(verdict(&verifier, &token).await, expected) });
    }
    requests.join_all().await;
}

#[tokio::test]
async fn nobody_asks_a_stranger_for_keys() {
    let (acme, stranger) = (start().await, start().await);
    let listed = Verifier::new([acme.issuer()]).unwrap();
    let looked_up = Verifier::new(Issuers::lookup(|_| None)).unwrap();
    for verifier in [listed, looked_up] {
        assert_eq!(verdict(&verifier, &stranger.token().build()).await, "unknown_issuer");
    }
    assert_eq!(stranger.metadata_fetches() + stranger.jwks_fetches(), 0);
}

#[tokio::test]
async fn one_tenants_hanging_issuer_does_not_hold_up_another() {
    let (acme, hanging) = (start().await, start().await);
    hanging.set_behavior(Behavior::Hang);
    let verifier = Verifier::new([acme.issuer(), hanging.issuer()]).unwrap();
    let waiting = tokio::spawn({
        let (verifier, token) = (verifier.clone(), hanging.token().build());
        async move { verifier.verify(&token).await }
    });
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[test]
fn lists_that_cannot_work_are_refused() {
    let issuer = |iss: &str| Issuer::new(iss, AUDIENCE).unwrap();
    for (name, issuers, sentence) in [
        (
            "twice",
            vec![issuer("https://a.example"), issuer("https://a.example")],
            "in the list twice",
        ),
        ("none", vec![], "the list is empty"),
    ] {
        let error = Verifier::new(issuers).unwrap_err().to_string();
        assert!(error.contains(sentence), "{name}: {error}");
    }
    let differing = vec![issuer("https://a.example"), issuer("https://a.example/")];
    assert!(Verifier::new(differing).is_ok(), "a slash makes another issuer");
}

#[test]
fn configurations_that_cannot_work_are_refused_by_name() {
    let issuer = || Issuer::new("https://issuer.example/", AUDIENCE);
    let verifier = |issuer: Issuer| Verifier::new(issuer).map(drop);
    let secret = [7; 32];
    let fixed = || TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap().jwks();
    let cases: [(&str, Result<(), ConfigError>, &str); 31] = [
        ("empty issuer", Issuer::new("", AUDIENCE).map(drop), "issuer \"\""),
        ("empty audience", Issuer::new("https://a.example", "").map(drop), "audience"),
        (
            "no audience",
            Issuer::new("https://a.example", Vec::<String>::new()).map(drop),
            "audience",
        ),
        (
            "issuer with a newline",
            Issuer::new("https://a.example/\n", "a").map(drop),
            "without white space",
        ),
        (
            "audience with a space",
            Issuer::new("https://a.example/", "a ").map(drop),
            "audience \"a \"",
        ),
        ("one empty audience", Issuer::new("https://a.example", ["a", " "]).map(drop), "audience"),
        (
            "keys over http",
            issuer().and_then(|i| i.jwks_uri("http://keys.example/jwks")).map(drop),
            "http://keys.example/jwks",
        ),
        (
            "keys at a file",
            issuer().and_then(|i| i.jwks_uri("file:///jwks")).map(drop),
            "file:///jwks",
        ),
        ("keys nowhere", issuer().and_then(|i| i.jwks_uri("jwks")).map(drop), "jwks"),
        (
            "discovery over http",
            Issuer::new("http://a.example", "a").and_then(verifier),
            "http only on loopback",
        ),
        ("discovery at no URL", Issuer::new("P2Pqj", "a").and_then(verifier), "jwks_uri"),
        (
            "short secret",
            issuer().and_then(|i| i.secret(Algorithm::HS256, &secret[1..])).map(drop),
            "at least 32 bytes, 31 came",
        ),
        (
            "secret for RSA",
            issuer().and_then(|i| i.secret(Algorithm::RS256, &secret)).map(drop),
            "RS256",
        ),
        (
            "HMAC with remote keys",
            issuer().and_then(|i| i.algorithms([Algorithm::HS256])).map(drop),
            "HS256",
        ),
        ("no algorithm", issuer().and_then(|i| i.algorithms([])).map(drop), "algorithms []"),
        (
            "secret and remote keys",
            issuer()
                .and_then(|i| i.secret(Algorithm::HS256, &secret))
                .and_then(|i| i.jwks_uri("https://keys.example/"))
                .and_then(verifier),
            "both came",
        ),
        (
            "long leeway",
            issuer().and_then(|i| i.leeway(std::time::Duration::from_secs(301))).map(drop),
            "301s",
        ),
        (
            "no lifetime",
            issuer().and_then(|i| i.keys_max_age(std::time::Duration::ZERO)).map(drop),
            "0ns",
        ),
        (
            "lifetime too short",
            issuer().and_then(|i| i.keys_max_age(Duration::from_millis(999))).map(drop),
            "999ms",
        ),
        (
            "lifetime too long",
            issuer().and_then(|i| i.keys_max_age(Duration::from_secs(86_401))).map(drop),
            "86401s",
        ),
        (
            "stale too long",
            issuer().and_then(|i| i.keys_max_stale(Duration::from_secs(86_401))).map(drop),
            "86401s",
        ),
        (
            "slow fetch",
            issuer().and_then(|i| i.keys_fetch_timeout(Duration::from_millis(60_001))).map(drop),
            "60.001s",
        ),
        (
            "same origin without discovery",
            issuer()
                .and_then(|i| i.jwks_uri("https://keys.example/"))
                .map(Issuer::require_same_origin_keys)
                .and_then(verifier),
            "`require_same_origin_keys`",
        ),
        (
            "fixed keys and discovery elsewhere",
            issuer()
                .map(|i| i.jwks(fixed()))
                .and_then(|i| i.discovery_url("https://a.example/"))
                .and_then(verifier),
            "`discovery_url`",
        ),
        ("alias with a space", issuer().and_then(|i| i.alias("a ")).map(drop), "issuer \"a \""),
        (
            "always asked",
            Verifier::new(Issuers::lookup(|_| None).refresh_after(Duration::ZERO)).map(drop),
            "refresh_after 0ns",
        ),
        (
            "never asked again",
            Verifier::new(Issuers::lookup(|_| None).refresh_after(Duration::MAX)).map(drop),
            "refresh_after",
        ),
        (
            "a claim that may have no value",
            portcullis::providers::github_actions(Vec::<String>::new(), "a")
                .map(|i| i.jwks(fixed()))
                .and_then(verifier),
            "claim \"repository\"",
        ),
        (
            "no place",
            Verifier::new(Issuers::lookup(|_| None).max_cached(0)).map(drop),
            "max_cached",
        ),
        ("no tenants' template", issuer().and_then(|i| i.tenants(["a"])).map(drop), "a `template`"),
        (
            "no time to fetch",
            issuer().and_then(|i| i.keys_fetch_timeout(std::time::Duration::ZERO)).map(drop),
            "0ns",
        ),
    ];
    for (name, result, sentence) in cases {
        let error = result.expect_err(name).to_string();
        assert!(error.contains(sentence), "{name}: {error}");
    }
    for iss in
        ["http://localhost:1/", "http://127.0.0.1:1/", "http://127.9.9.9/", "http://[::1]:1/"]
    {
        assert!(Issuer::new(iss, "a").and_then(verifier).is_ok(), "{iss} is loopback");
    }
    for iss in [
        "http://localhost.example/",
        "http://128.0.0.1/",
        "http://[::2]/",
        "http://127.0.0.1.example/",
    ] {
        assert!(Issuer::new(iss, "a").and_then(verifier).is_err(), "{iss} is not loopback");
    }
}

#[tokio::test]
async fn a_look_up_decides_whom_to_trust_and_is_asked_once() {
    let (acme, globex, stranger) = (start().await, start().await, start().await);
    let asked = Arc::new(AtomicUsize::new(0));
    let known = [acme.iss().to_owned(), globex.iss().to_owned()];
    let find = {
        let asked = Arc::clone(&asked);
        move |iss: &str| {
            asked.fetch_add(1, Ordering::SeqCst);
            known.iter().any(|known| known == iss).then(|| Issuer::new(iss, AUDIENCE).unwrap())
        }
    };
    let later = find.clone();
    let verifiers = [
        Verifier::new(Issuers::lookup(find).danger_allow_private_addresses()).unwrap(),
        Verifier::new(
            Issuers::lookup_async(move |iss: String| {
                let found = later(&iss);
                async move { Ok::<_, Infallible>(found) }
            })
            .danger_allow_private_addresses(),
        )
        .unwrap(),
    ];
    for verifier in verifiers {
        asked.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
            assert_eq!(verdict(&verifier, &globex.token().build()).await, "ok");
            assert_eq!(
                verdict(&verifier, &globex.token().signed_by(&acme).build()).await,
                "bad_signature"
            );
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(verdict(&verifier, &stranger.token().build()).await, "unknown_issuer");
    }
    assert_eq!(
        (acme.jwks_fetches(), stranger.metadata_fetches()),
        (2, 0),
        "one key set for each verifier"
    );
}

#[tokio::test]
async fn a_look_up_that_breaks_is_no_news_about_the_token() {
    let acme = start().await;
    let broken =
        Issuers::lookup_async(|_| async { Err::<Option<Issuer>, _>("the database is away") });
    match Verifier::new(broken).unwrap().verify(&acme.token().build()).await {
        Err(Error::LookupFailed { reason, .. }) => {
            assert_eq!(reason.to_string(), "the database is away")
        }
        other => panic!("{other:?}"),
    }
}

/// A pattern instead of a list of tenants: what a stranger writes into `iss` is not trusted for it.
#[tokio::test]
async fn a_look_up_that_returns_what_cannot_be_used_trusts_nobody() {
    let acme = start().await;
    let (iss, keys): (_, Jwks) = (acme.iss().to_owned(), acme.jwks());
    let good_keys = keys.clone();
    let wrong = Issuers::lookup(move |_| {
        Issuer::new("https://other.example/", AUDIENCE)
            .ok()
            .map(|issuer| issuer.jwks(good_keys.clone()))
    });
    let unusable = Issuers::lookup(move |_| {
        let issuer =
            Issuer::new(iss.clone(), AUDIENCE).ok()?.secret(Algorithm::HS256, &[7; 32]).ok()?;
        Some(issuer.jwks(keys.clone()))
    });
    for (name, issuers) in [("another issuer", wrong), ("a bad one", unusable)] {
        assert_eq!(
            verdict(&Verifier::new(issuers).unwrap(), &acme.token().build()).await,
            "unknown_issuer",
            "{name}"
        );
    }
    let anybody = Verifier::new(Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok())).unwrap();
    for iss in
        ["not a url", "http://a.example/", "ftp://a.example/", "https://", "javascript:1", "a\nb"]
    {
        assert_eq!(
            verdict(&anybody, &acme.token().issued_by(iss).build()).await,
            "unknown_issuer",
            "{iss}"
        );
    }
}

/// The issuer that is compared is the one that is asked for keys: no spelling that a URL parser would take for another.
#[tokio::test]
async fn an_issuer_in_an_odd_spelling_is_not_discovered() {
    let evil = start().await;
    let host = evil.iss().trim_end_matches('/');
    for iss in [
        format!("{host}/acme/../"),
        format!("{host}/?.tenants.example.com"),
        format!("{host}/#.tenants.example.com"),
        format!("{host}\\acme\\..\\"),
        format!("{host}/a\tb"),
        host.replace("127.0.0.1", "0x7f.1"),
        host.replace("http", "HTTP"),
    ] {
        assert!(Verifier::new(Issuer::new(&iss, AUDIENCE).unwrap()).is_err(), "{iss:?}");
        let anybody =
            Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok()).danger_allow_private_addresses();
        let anybody = Verifier::new(anybody).unwrap();
        assert_eq!(
            verdict(&anybody, &evil.token().issued_by(&iss).build()).await,
            "unknown_issuer",
            "{iss:?}"
        );
    }
    assert_eq!(evil.metadata_fetches() + evil.jwks_fetches(), 0);
}

#[tokio::test]
async fn a_tenant_that_was_removed_or_changed_is_noticed() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let long_lived =
        |issuer: Issuer| Some(issuer.keys_max_age(Duration::from_secs(24 * 3600)).unwrap());
    let tenant = Arc::new(Mutex::new(long_lived(acme.issuer())));
    let current = Arc::clone(&tenant);
    let issuers =
        Issuers::lookup(move |_| current.lock().unwrap().clone()).danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    let verdict = async || verdict(&verifier, &acme.token().build()).await;
    assert_eq!(verdict().await, "ok");
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict().await, "ok");
    assert_eq!(
        acme.metadata_fetches(),
        1,
        "looked up again; it had not changed, so its keys were kept"
    );

    let with_audience = |audience: &str| long_lived(Issuer::new(acme.iss(), audience).unwrap());
    for (change, tenant_now, expected) in [
        ("another audience", with_audience("https://other.example"), "wrong_audience"),
        ("back", with_audience(AUDIENCE), "ok"),
        ("removed", None, "unknown_issuer"),
        // A stranger is remembered for 30 seconds only.
        ("signed up again", with_audience(AUDIENCE), "ok"),
    ] {
        let before = verdict().await;
        *tenant.lock().unwrap() = tenant_now;
        assert_eq!(verdict().await, before, "{change}: not yet");
        // Asked for all the time, by strangers too: that prolongs nothing.
        for _ in 0..10 {
            clock.advance(Duration::from_secs(60));
            let junk = acme.token().header("kid", "junk").expired().build();
            assert!(verifier.verify(&junk).await.is_err());
        }
        assert_eq!(verdict().await, expected, "{change}");
    }
}

#[tokio::test]
async fn listed_issuers_stand_beside_looked_up_ones_and_are_not_pushed_out() {
    let (listed, others) = (start().await, [start().await, start().await, start().await]);
    let issuers = Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok())
        .danger_allow_private_addresses()
        .max_cached(1)
        .with_issuers([listed.issuer()])
        .unwrap();
    let verifier = Verifier::new(issuers).unwrap();
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &listed.token().build()).await, "ok");
        for other in &others {
            assert_eq!(verdict(&verifier, &other.token().build()).await, "ok");
        }
    }
    assert_eq!(listed.jwks_fetches(), 1);
    let twice = Issuers::lookup(|_| None).with_issuers([listed.issuer(), listed.issuer()]);
    assert!(twice.unwrap_err().to_string().contains("in the list twice"));
}

/// Google's two spellings, or several custom domains of one tenant: one key set.
#[tokio::test]
async fn aliases_of_an_issuer_share_its_keys() {
    let (acme, other) = (start().await, start().await);
    let issuer = acme
        .issuer()
        .alias("login.acme.example")
        .unwrap()
        .alias("https://login.acme.example/")
        .unwrap();
    let verifier = Verifier::new([issuer.clone(), other.issuer()]).unwrap();
    for iss in [acme.iss(), "login.acme.example", "https://login.acme.example/"] {
        let token = verifier.verify(&acme.token().issued_by(iss).build()).await.unwrap();
        assert_eq!(token.issuer(), iss);
        assert_eq!(
            verdict(&verifier, &other.token().issued_by(iss).build()).await,
            "bad_signature",
            "{iss}"
        );
    }
    assert_eq!(
        verdict(&verifier, &acme.token().issued_by("https://login.acme.example").build()).await,
        "unknown_issuer"
    );
    assert_eq!(acme.jwks_fetches(), 4, "for all names, and for each forged signature once more");
    assert_eq!(verifier.health().len(), 2, "each issuer once");
    let clash = Issuer::new("login.acme.example", AUDIENCE).unwrap().jwks(other.jwks());
    assert!(Verifier::new([issuer, clash]).unwrap_err().to_string().contains("login.acme.example"));
    assert!(acme.issuer().alias(" ").is_err());
}

#[tokio::test]
async fn strangers_are_remembered_for_half_a_minute() {
    let (stranger, clock) = (start().await, TestClock::new());
    stranger.set_clock(&clock);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    });
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    for (passes, times) in [(0, 1), (29, 1), (1, 2), (29, 2), (1, 3)] {
        clock.advance(Duration::from_secs(passes));
        for _ in 0..10 {
            assert_eq!(verdict(&verifier, &stranger.token().build()).await, "unknown_issuer");
        }
        assert_eq!(asked.load(Ordering::SeqCst), times, "{passes} s later");
    }
    // What is remembered is bounded, and nobody's issuer is megabytes long.
    let long =
        stranger.token().issued_by(&format!("https://{}.example/", "x".repeat(2048))).build();
    assert_eq!(verdict(&verifier, &long).await, "unknown_issuer");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn requests_that_look_up_the_same_issuer_at_once_share_the_answer() {
    for (answer, expected) in
        [("trusted", "ok"), ("stranger", "unknown_issuer"), ("broken", "lookup_failed")]
    {
        let acme = start().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let issuers = Issuers::lookup_async(move |iss: String| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::task::yield_now().await;
                match answer {
                    "trusted" => Ok(Issuer::new(iss, AUDIENCE).ok()),
                    "stranger" => Ok(None),
                    _ => Err("the database is away"),
                }
            }
        });
        let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
        let token = acme.token().build();
        // The first is dropped while it asks; another one takes over.
        {
            let mut dropped = pin!(verifier.verify(&token));
            assert!(dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let mut requests = JoinSet::new();
        for _ in 0..50 {
            let (verifier, token) = (verifier.clone(), token.clone());
            requests.spawn(async move { verdict(&verifier, &token).await });
        }
        assert!(requests.join_all().await.iter().all(|verdict| *verdict == expected), "{answer}");
        assert_eq!(
            asked.load(Ordering::SeqCst),
            2,
            "{answer}: once by the dropped one, once for all others"
        );
    }
}

/// Strangers who may register issuers must not choose what is asked for inside our network.
#[tokio::test]
async fn looked_up_issuers_are_not_asked_at_private_addresses() {
    let inside = start().await;
    let port = inside.iss().trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
    for iss in [inside.iss().to_owned(), format!("http://localhost:{port}/")] {
        let at = |keys: Option<String>| {
            move |iss: &str| {
                let issuer = Issuer::new(iss, AUDIENCE).ok()?;
                match &keys {
                    Some(uri) => issuer.jwks_uri(uri).ok(),
                    None => Some(issuer),
                }
            }
        };
        for keys in [None, Some(format!("{iss}.well-known/jwks.json"))] {
            let verifier = Verifier::new(Issuers::lookup(at(keys.clone()))).unwrap();
            let result = verifier.verify(&inside.token().issued_by(&iss).build()).await;
            assert!(
                matches!(result, Err(Error::KeysUnavailable { .. })),
                "{iss} {keys:?}: {result:?}"
            );
        }
    }
    // A client of the application's own resolves names by itself; an address is refused all the same.
    let iss = inside.iss();
    let own = |iss: &str| Some(Issuer::new(iss, AUDIENCE).ok()?.client(reqwest::Client::new()));
    for verifier in [
        Verifier::builder(Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok()))
            .client(reqwest::Client::new())
            .build(),
        Verifier::new(Issuers::lookup(own)),
    ] {
        let result = verifier.unwrap().verify(&inside.token().issued_by(iss).build()).await;
        assert!(matches!(result, Err(Error::KeysUnavailable { .. })), "{result:?}");
    }
    assert_eq!(inside.metadata_fetches() + inside.jwks_fetches(), 0);
}

/// A client may go away whenever a request waits: for the look-up, for the keys, for a refetch. Nothing is lost by it, and
/// nothing is asked for twice.
#[tokio::test]
async fn a_request_may_be_dropped_at_every_point_where_it_waits() {
    let mut points = 0;
    for polls in 0.. {
        let (acme, clock) = (start().await, TestClock::new());
        acme.set_clock(&clock);
        let issuers = Issuers::lookup_async(|iss: String| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Issuer::new(iss, AUDIENCE).ok())
        });
        let issuers = issuers.danger_allow_private_addresses();
        let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
        let poll_and_drop = async |token: String| {
            let mut request = pin!(verifier.verify(&token));
            for _ in 0..polls {
                let mut context = Context::from_waker(Waker::noop());
                if request.as_mut().poll(&mut context).is_ready() {
                    return true;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            false
        };
        let cold = poll_and_drop(acme.token().build()).await;
        assert_eq!(
            verdict(&verifier, &acme.token().build()).await,
            "ok",
            "dropped after {polls} polls"
        );
        assert_eq!(acme.jwks_fetches(), 1, "dropped after {polls} polls");

        acme.rotate().unwrap();
        clock.advance(Duration::from_secs(10));
        let warm = poll_and_drop(acme.token().build()).await;
        assert_eq!(
            verdict(&verifier, &acme.token().build()).await,
            "ok",
            "dropped after {polls} polls, warm"
        );
        assert_eq!(acme.jwks_fetches(), 2, "dropped after {polls} polls, warm");
        points += 1;
        if cold && warm {
            break;
        }
    }
    assert!(points > 3, "look-up and fetch were waited for: {points}");
}

/// More tenants than are kept, named one after the other by somebody who can sign for none of them.
#[tokio::test]
async fn unsigned_tokens_push_nobodys_keys_out() {
    let (acme, clock) = (start().await, TestClock::new());
    let keys = acme.jwks();
    let (iss, asked) = (acme.iss().to_owned(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |asked_for| {
        count.fetch_add(usize::from(asked_for == iss), Ordering::SeqCst);
        let issuer = Issuer::new(asked_for, AUDIENCE).ok()?;
        Some(if asked_for == iss { issuer } else { issuer.jwks(keys.clone()) })
    });
    let issuers = issuers.danger_allow_private_addresses().max_cached(8);
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    acme.set_clock(&clock);
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    for number in 0..1000 {
        let tenant = format!("https://{number}.example/");
        let forged = acme.token().issued_by(&tenant).tampered().build();
        assert_eq!(verdict(&verifier, &forged).await, "bad_signature");
    }
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert_eq!((asked.load(Ordering::SeqCst), acme.jwks_fetches()), (1, 1));
    assert_eq!(
        verifier.health().len(),
        9,
        "what is kept is bounded all the same: eight of whom nothing was verified"
    );
}

/// Several custom domains of one tenant, by a look-up that knows them all.
#[tokio::test]
async fn aliases_of_a_looked_up_issuer_share_its_keys() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let (iss, asked) = (acme.iss().to_owned(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |asked_for| {
        count.fetch_add(usize::from(asked_for != "https://globex.example/"), Ordering::SeqCst);
        let issuer =
            Issuer::new(iss.clone(), AUDIENCE).ok()?.alias("https://login.acme.example/").ok()?;
        (asked_for != "https://globex.example/").then_some(issuer)
    });
    let verifier =
        Verifier::builder(issuers.danger_allow_private_addresses()).clock(&clock).build().unwrap();
    let by = |iss: &str| acme.token().issued_by(iss).build();
    // Twice, and once more when they are looked up again.
    for (passes, fetches, asked_for) in [(0, 1, 2), (0, 1, 2), (600, 2, 4)] {
        clock.advance(Duration::from_secs(passes));
        for iss in [acme.iss(), "https://login.acme.example/"] {
            let token = verifier.verify(&by(iss)).await.unwrap();
            assert_eq!(token.issuer(), iss);
        }
        assert_eq!(verdict(&verifier, &by("https://globex.example/")).await, "unknown_issuer");
        assert_eq!(asked.load(Ordering::SeqCst), asked_for, "once for each name");
        assert_eq!(
            (acme.jwks_fetches(), verifier.health().len()),
            (fetches, 1),
            "{passes} s later"
        );
    }
    assert_eq!(
        verdict(&verifier, &by("https://other.example/")).await,
        "unknown_issuer",
        "not an alias"
    );
}

/// Sync look-ups run on the requests' threads, maybe on several at once; there is one key set all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_issuer_that_is_looked_up_on_several_threads_has_one_key_set() {
    let acme = start().await;
    let together = Arc::new(std::sync::Barrier::new(4));
    let issuers = Issuers::lookup(move |iss| {
        together.wait();
        Issuer::new(iss, AUDIENCE).ok()
    });
    let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
    let mut requests = JoinSet::new();
    for _ in 0..4 {
        let (verifier, token) = (verifier.clone(), acme.token().build());
        requests.spawn(async move { verdict(&verifier, &token).await });
    }
    assert!(requests.join_all().await.iter().all(|verdict| *verdict == "ok"));
    assert_eq!((acme.jwks_fetches(), verifier.health().len()), (1, 1));
}

#[tokio::test]
async fn how_long_a_look_up_holds_can_be_set() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |iss| {
        // Trusted the first time only.
        (count.fetch_add(1, Ordering::SeqCst) == 0).then(|| Issuer::new(iss, AUDIENCE).unwrap())
    });
    let issuers = issuers.refresh_after(Duration::from_secs(30)).danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    for (passes, expected) in [(0, "ok"), (29, "ok"), (1, "unknown_issuer")] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict(&verifier, &acme.token().build()).await, expected, "{passes} s later");
    }
}

/// A database that is away is no news about the tenants: those that were trusted a moment ago still are, for a bounded time.
#[tokio::test]
async fn tenants_stay_trusted_while_the_look_up_fails_for_an_hour_and_no_longer() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let (asked, away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let issuers = {
        let (iss, asked, away) = (acme.iss().to_owned(), Arc::clone(&asked), Arc::clone(&away));
        Issuers::lookup_async(move |asked_for| {
            asked.fetch_add(1, Ordering::SeqCst);
            let answer = match away.load(Ordering::SeqCst) {
                0 => Ok((asked_for == iss).then(|| Issuer::new(asked_for, AUDIENCE).unwrap())),
                1 => Err("the database is away"),
                _ => Ok(None),
            };
            async move { answer }
        })
    };
    let verifier =
        Verifier::builder(issuers.danger_allow_private_addresses()).clock(&clock).build().unwrap();
    let verdict = async || verdict(&verifier, &acme.token().build()).await;
    assert_eq!(verdict().await, "ok");
    away.store(1, Ordering::SeqCst);
    for (passes, expected, times) in [
        (479, "ok", 1),
        // Asked again in the background, before the answer is too old; then every ten seconds, not with each request.
        (1, "ok", 2),
        (9, "ok", 2),
        (1, "ok", 3),
        // Whoever was idle waits for the look-up.
        (3709, "ok", 4),
        (1, "lookup_failed", 5),
        (0, "lookup_failed", 6),
    ] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict().await, expected, "{passes} s later");
        eventually("the look-up is asked", || asked.load(Ordering::SeqCst) == times).await;
        assert_eq!(verdict().await, expected, "{passes} s later, again");
        let again = usize::from(expected != "ok");
        assert_eq!(asked.swap(times, Ordering::SeqCst), times + again, "{passes} s later");
    }
    away.store(0, Ordering::SeqCst);
    assert_eq!(verdict().await, "ok");
    away.store(2, Ordering::SeqCst);
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict().await, "unknown_issuer", "an answer is an answer");
    away.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(30));
    assert_eq!(
        verdict().await,
        "lookup_failed",
        "who was removed is not trusted again for an outage"
    );
}

/// A thousand tenants on one server that hangs, and one on a server that does not.
#[tokio::test]
async fn a_server_that_many_tenants_share_does_not_take_everybodys_turn() {
    let (acme, hanging) = (start().await, start().await);
    hanging.set_behavior(Behavior::Hang);
    let uri = format!("{}.well-known/jwks.json", hanging.iss());
    let tenants =
        (0..100).map(|number| Issuer::new(format!("https://{number}.example/"), AUDIENCE).unwrap());
    let mut issuers: Vec<_> = tenants.map(|issuer| issuer.jwks_uri(&uri).unwrap()).collect();
    issuers.push(acme.issuer());
    let verifier = Verifier::new(issuers).unwrap();
    let mut waiting = JoinSet::new();
    for number in 0..100 {
        let token = hanging.token().issued_by(&format!("https://{number}.example/")).build();
        let verifier = verifier.clone();
        waiting.spawn(async move { verifier.verify(&token).await });
    }
    eventually("as many are asked for as may be", || hanging.jwks_fetches() == 16).await;
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert_eq!((hanging.jwks_fetches(), waiting.try_join_next().is_none()), (16, true));
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "never: {what}");
}

/// A look-up counts for the name that it was asked for, and for no other that its answer mentions.
#[tokio::test]
async fn no_tenant_becomes_another_by_the_names_in_its_record() {
    const GLOBEX: &str = "https://globex.example/";
    const EVIL: &str = "https://evil.example/";
    let (evil, globex) =
        (start().await, TestIssuer::offline_with(GLOBEX, Algorithm::EdDSA).unwrap());
    // Its record names Globex as its custom domain, or says that it is Globex, known as evil.
    for claims_to_be in [false, true] {
        let (evil_keys, globex_keys) = (evil.jwks(), globex.jwks());
        let issuers = Issuers::lookup(move |iss| match iss {
            GLOBEX => Some(Issuer::new(GLOBEX, AUDIENCE).ok()?.jwks(globex_keys.clone())),
            _ if claims_to_be => {
                Some(Issuer::new(GLOBEX, AUDIENCE).ok()?.alias(EVIL).ok()?.jwks(evil_keys.clone()))
            }
            _ => {
                Some(Issuer::new(EVIL, AUDIENCE).ok()?.alias(GLOBEX).ok()?.jwks(evil_keys.clone()))
            }
        });
        let verifier = Verifier::new(issuers).unwrap();
        let (own, forged) =
            (evil.token().issued_by(EVIL).build(), evil.token().issued_by(GLOBEX).build());
        for _ in 0..2 {
            assert_eq!(verdict(&verifier, &forged).await, "bad_signature", "{claims_to_be}");
            assert_eq!(verdict(&verifier, &own).await, "ok", "{claims_to_be}");
            assert_eq!(verdict(&verifier, &forged).await, "bad_signature", "{claims_to_be}");
            assert_eq!(verdict(&verifier, &globex.token().build()).await, "ok", "{claims_to_be}");
        }
    }
}

/// A first token waits for its keys; meanwhile its tenant is removed.
#[tokio::test]
async fn a_tenant_that_is_removed_while_its_keys_come_does_not_come_back_with_them() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    acme.set_delay(Duration::from_millis(50));
    let state = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&state);
    let issuers = Issuers::lookup_async(move |iss: String| {
        let answer = match now.load(Ordering::SeqCst) {
            0 => Ok(Some(Issuer::new(iss, AUDIENCE).unwrap())),
            1 => Ok(None),
            _ => Err("the database is away"),
        };
        async move { answer }
    });
    let verifier =
        Verifier::builder(issuers.danger_allow_private_addresses()).clock(&clock).build().unwrap();
    let token = acme.token().build();
    let first = tokio::spawn({
        let (verifier, token) = (verifier.clone(), token.clone());
        async move { verifier.verify(&token).await.is_ok() }
    });
    eventually("its keys are asked for", || acme.metadata_fetches() == 1).await;
    state.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
    assert!(first.await.unwrap(), "it was trusted when it came");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
    state.store(2, Ordering::SeqCst);
    clock.advance(Duration::from_secs(30));
    assert_eq!(verdict(&verifier, &token).await, "lookup_failed");
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_is_one_that_fails() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert_eq!(start.elapsed().as_secs(), 5);
}

/// What no issuer is called is not asked for: not every database likes a NUL.
#[tokio::test]
async fn names_that_no_issuer_can_have_reach_no_look_up() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let issuers = Issuers::lookup(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    });
    let verifier = Verifier::new(issuers).unwrap();
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    for iss in [
        "",
        " https://a.example/",
        "https://a.example/ ",
        "https://a\u{0}.example/",
        "a\u{85}b",
        "a\nb",
    ] {
        assert_eq!(
            verdict(&verifier, &acme.token().issued_by(iss).build()).await,
            "unknown_issuer",
            "{iss:?}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// The line before the look-up is part of its five seconds, and the newest request is first in it: a flood of names that mean
/// nothing does not make a good token wait until the flood is over.
#[tokio::test(start_paused = true)]
async fn a_flood_of_names_does_not_delay_a_tenants_first_token() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let jwks = acme.jwks();
    let issuers = Issuers::lookup_async(move |iss: String| {
        let jwks = jwks.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let is_tenant = iss == "https://acme.example/";
            Ok::<_, Infallible>(is_tenant.then(|| Issuer::new(iss, AUDIENCE).unwrap().jwks(jwks)))
        }
    });
    let verifier = Verifier::new(issuers).unwrap();
    let mut flood = JoinSet::new();
    for number in 0..6400 {
        let (verifier, token) = (
            verifier.clone(),
            acme.token().issued_by(&format!("https://{number}.example/")).build(),
        );
        flood.spawn(async move {
            verifier.verify(&token).await.map_or_else(|error| error.code(), |_| "ok")
        });
    }
    everything_runs().await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    let codes = flood.join_all().await;
    assert!(
        start.elapsed() <= Duration::from_secs(6),
        "nothing waits longer than five seconds: {:?}",
        start.elapsed()
    );
    assert!(codes.iter().all(|code| ["unknown_issuer", "lookup_failed"].contains(code)));
}

/// With a database that hangs, too: five seconds, however many wait.
#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_makes_no_request_wait_longer_than_five_seconds() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let mut flood = JoinSet::new();
    for number in 0..2000 {
        let (verifier, token) = (
            verifier.clone(),
            acme.token().issued_by(&format!("https://{number}.example/")).build(),
        );
        flood.spawn(async move {
            verifier.verify(&token).await.map_or_else(|error| error.code(), |_| "ok")
        });
    }
    everything_runs().await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert!(start.elapsed() <= Duration::from_millis(5100), "{:?}", start.elapsed());
    assert!(flood.join_all().await.iter().all(|code| *code == "lookup_failed"));
}

/// A tenant that leaves, or whose keys were stolen, is forgotten at once: that it is trusted, its keys and its tokens.
#[tokio::test]
async fn an_issuer_can_be_forgotten() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let is_tenant = Arc::new(Mutex::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let find = {
        let (is_tenant, asked, iss) =
            (Arc::clone(&is_tenant), Arc::clone(&asked), acme.iss().to_owned());
        move |name: &str| {
            asked.fetch_add(1, Ordering::SeqCst);
            let issuer = || Issuer::new(&iss, AUDIENCE).unwrap().alias("acme").unwrap();
            (*is_tenant.lock().unwrap() && [&*iss, "acme"].contains(&name)).then(issuer)
        }
    };
    let issuers = Issuers::lookup(find).danger_allow_private_addresses();
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    let (token, aliased) = (acme.token().build(), acme.token().issued_by("acme").build());
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &token).await, "ok");
        assert_eq!(verdict(&verifier, &aliased).await, "ok");
    }
    assert_eq!((acme.jwks_fetches(), asked.load(Ordering::SeqCst)), (1, 2));

    *is_tenant.lock().unwrap() = false;
    assert_eq!(verdict(&verifier, &token).await, "ok", "for ten minutes, if nothing is said");
    assert!(verifier.forget("acme"), "by any of its names");
    for token in [&token, &aliased] {
        assert_eq!(verdict(&verifier, token).await, "unknown_issuer");
    }
    assert!(verifier.health().is_empty());

    // It comes back: not after half a minute, but when that is said.
    *is_tenant.lock().unwrap() = true;
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer", "remembered for 30 s");
    assert!(verifier.forget(acme.iss()));
    assert_eq!(verdict(&verifier, &token).await, "ok");
    assert_eq!(acme.jwks_fetches(), 2, "its keys were forgotten, too");
    assert!(!verifier.forget("https://unheard-of.example/"));
}

/// What an issuer that is configured loses are its keys; they are fetched again, and a withdrawn one is gone at once.
#[tokio::test]
async fn a_configured_issuers_keys_can_be_forgotten() {
    let acme = start().await;
    let verifier = Verifier::new(acme.issuer()).unwrap();
    let old = acme.token().build();
    for _ in 0..3 {
        assert_eq!(verdict(&verifier, &old).await, "ok");
    }
    acme.rotate().unwrap();
    acme.withdraw_old_keys();
    assert_eq!(verdict(&verifier, &old).await, "ok");
    assert!(verifier.clone().forget(acme.iss()));
    assert_eq!(verdict(&verifier, &old).await, "unknown_key");
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
}

/// An answer that the look-up gave before is not one any more, be it that it came a moment later.
#[tokio::test]
async fn an_answer_from_before_an_issuer_was_forgotten_does_not_count() {
    let acme = start().await;
    let (is_tenant, gate) = (Arc::new(Mutex::new(true)), Arc::new(tokio::sync::Semaphore::new(0)));
    let issuers = {
        let (is_tenant, gate) = (Arc::clone(&is_tenant), Arc::clone(&gate));
        Issuers::lookup_async(move |iss: String| {
            let found = is_tenant.lock().unwrap().then(|| Issuer::new(iss, AUDIENCE).unwrap());
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(found)
            }
        })
    };
    let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
    let token = acme.token().build();
    let mut first = pin!(verifier.verify(&token));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    *is_tenant.lock().unwrap() = false;
    verifier.forget(acme.iss());
    gate.add_permits(10);
    assert_eq!(first.await.unwrap_err().code(), "unknown_issuer");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
}

/// Plain http inside a cluster is named as what it is, and is for configured issuers only.
#[tokio::test]
async fn plain_http_is_for_configured_issuers_that_say_so() {
    let iss = "http://keycloak.auth.svc:8080/realms/shop";
    let refused = Verifier::new(Issuer::new(iss, AUDIENCE).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("danger_allow_http"), "{refused}");
    let allowed = || Issuer::new(iss, AUDIENCE).unwrap().danger_allow_http();
    assert!(Verifier::new(allowed()).is_ok());
    assert!(
        Verifier::new(
            portcullis::providers::keycloak("http://keycloak:8080", "shop", AUDIENCE).unwrap()
        )
        .is_err()
    );
    assert!(
        Verifier::new(
            portcullis::providers::keycloak("http://keycloak:8080", "shop", AUDIENCE)
                .unwrap()
                .danger_allow_http()
        )
        .is_ok()
    );
    assert!(allowed().jwks_uri("http://keycloak:8080/certs").is_ok());
    assert!(allowed().discovery_url("http://keycloak:8080/realms/shop").is_ok());
    assert!(Issuer::new(iss, AUDIENCE).unwrap().jwks_uri("http://keycloak:8080/certs").is_err());
    for odd in ["ftp://keycloak/", "http://user:password@keycloak/", "keycloak"] {
        assert!(allowed().jwks_uri(odd).is_err(), "{odd}");
    }
    // A looked-up issuer may have been registered by anyone.
    let acme = start().await;
    let looked_up =
        Issuers::lookup(|iss| Some(Issuer::new(iss, AUDIENCE).ok()?.danger_allow_http()));
    let verifier = Verifier::new(looked_up.danger_allow_private_addresses()).unwrap();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "unknown_issuer");
    assert_eq!(acme.jwks_fetches(), 0);
}

/// An application's own client resolves names by itself, but what `localhost` is needs no resolving; and plain http is for
/// servers within reach.
#[tokio::test]
async fn looked_up_issuers_are_not_asked_on_this_machine_by_an_own_client_either() {
    let inside = start().await;
    let port = inside.iss().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let client = reqwest::Client::new();
    for host in ["localhost", "api.localhost", "127.0.0.1", "[::1]"] {
        let iss = format!("http://{host}:{port}/");
        let issuers = Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok());
        let verifier = Verifier::builder(issuers).client(client.clone()).build().unwrap();
        let verdict = verdict(&verifier, &inside.token().issued_by(&iss).build()).await;
        assert!(["keys_unavailable", "unknown_issuer"].contains(&verdict), "{host}: {verdict}");
    }
    for host in ["localhost", "localhost.", "api.localhost"] {
        let iss = format!("https://{host}:{port}/");
        let issuers = Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok());
        let verifier = Verifier::builder(issuers).client(client.clone()).build().unwrap();
        let error = verifier.verify(&inside.token().issued_by(&iss).build()).await.unwrap_err();
        assert!(error.to_string().contains("expected a public address"), "{host}: {error}");
    }
    assert_eq!(inside.metadata_fetches(), 0);
}

/// Tokens of version 1.0 are Entra's most common mistake, and the one issuer whose cure has a name.
#[tokio::test]
async fn a_token_of_entras_version_1_is_named() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let keys = TestIssuer::offline_with("x", Algorithm::RS256).unwrap();
    for issuer in [
        portcullis::providers::entra(TENANT, AUDIENCE),
        portcullis::providers::entra_multi_tenant(AUDIENCE),
    ] {
        let verifier = Verifier::new(issuer.unwrap().jwks(keys.jwks())).unwrap();
        let token = keys.token().issued_by(&format!("https://sts.windows.net/{TENANT}/")).build();
        let error = verifier.verify(&token).await.unwrap_err().to_string();
        assert!(
            error.contains("version 1.0") && error.contains("api.requestedAccessTokenVersion"),
            "{error}"
        );
        let other = keys.token().issued_by("https://sts.windows.net/someone-else/").build();
        assert!(!verifier.verify(&other).await.unwrap_err().to_string().contains("version 1.0"));
    }
}

/// A request that joins an older one for the same name waits in its own place, not in that one's.
#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_in_the_place_of_an_older_one() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let jwks = acme.jwks();
    let issuers = Issuers::lookup_async(move |iss: String| {
        let jwks = jwks.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let is_tenant = iss == "https://acme.example/";
            Ok::<_, Infallible>(is_tenant.then(|| Issuer::new(iss, AUDIENCE).unwrap().jwks(jwks)))
        }
    });
    let verifier = Verifier::new(issuers).unwrap();
    let mut flood = JoinSet::new();
    let mut junk = |from: usize, to: usize| {
        for number in from..to {
            let token = acme.token().issued_by(&format!("https://{number}.example/")).build();
            let verifier = verifier.clone();
            flood.spawn(async move { drop(verifier.verify(&token).await) });
        }
    };
    junk(0, 64);
    let (early, token) = (verifier.clone(), acme.token().build());
    let early = tokio::spawn(async move { verdict(&early, &token).await });
    everything_runs().await;
    junk(64, 6400);
    everything_runs().await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(
        early.await.unwrap(),
        "ok",
        "the early one has the answer, too, before its time is over"
    );
    assert!(start.elapsed() <= Duration::from_secs(6), "{:?}", start.elapsed());
}

/// Clients that give up one after the other do not make the next one wait for the time of each.
#[tokio::test(start_paused = true)]
async fn a_hanging_look_up_is_waited_for_five_seconds_whoever_gave_up_before() {
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let mut impatient = JoinSet::new();
    for number in 1..=20 {
        let (verifier, token) = (verifier.clone(), acme.token().claim("jti", number).build());
        impatient.spawn(async move {
            drop(
                tokio::time::timeout(Duration::from_millis(200 * number), verifier.verify(&token))
                    .await,
            );
        });
    }
    everything_runs().await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert!(start.elapsed() <= Duration::from_millis(5100), "{:?}", start.elapsed());
    impatient.join_all().await;
}

/// By a name that no token has used, too: the record says that it is one of the issuer's.
#[tokio::test]
async fn an_issuer_is_forgotten_by_any_of_its_names() {
    let acme = start().await;
    let is_tenant = Arc::new(Mutex::new(true));
    let find = {
        let (is_tenant, iss) = (Arc::clone(&is_tenant), acme.iss().to_owned());
        move |name: &str| {
            let issuer = || Issuer::new(&iss, AUDIENCE).unwrap().alias("acme").unwrap();
            (*is_tenant.lock().unwrap() && [&*iss, "acme"].contains(&name)).then(issuer)
        }
    };
    let verifier = Verifier::new(Issuers::lookup(find).danger_allow_private_addresses()).unwrap();
    let token = acme.token().issued_by("acme").build();
    assert_eq!(verdict(&verifier, &token).await, "ok");
    *is_tenant.lock().unwrap() = false;
    assert!(verifier.forget(acme.iss()), "only its alias was named by a token");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
}

/// Requests that wait for keys while they are dropped are served by the next fetch.
#[tokio::test]
async fn forgetting_during_a_fetch_fails_no_request() {
    let acme = start().await;
    acme.set_delay(Duration::from_millis(100));
    let verifier = Verifier::new(acme.issuer()).unwrap();
    let mut requests = JoinSet::new();
    for number in 0..20 {
        let (verifier, token) = (verifier.clone(), acme.token().claim("jti", number).build());
        requests.spawn(async move { verdict(&verifier, &token).await });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(verifier.forget(acme.iss()));
    assert!(requests.join_all().await.iter().all(|verdict| *verdict == "ok"));
}

/// Lets every task run until it waits for something.
async fn everything_runs() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}
