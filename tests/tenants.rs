//! Several issuers: which keys verify which tokens, and from which issuers keys are fetched.

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
async fn each_token_is_verified_with_the_keys_of_its_issuer() {
    let (acme, globex) = (start().await, start().await);
    let verifier = Verifier::new([acme.issuer(), globex.issuer()]).unwrap();
    for (issuer, other) in [(&acme, &globex), (&globex, &acme), (&acme, &globex)] {
        // Without cached keys first, with cached keys last. Both issuers have the `kid` "key-1".
        assert_eq!(
            verdict(&verifier, &issuer.token().signed_by(other).build()).await,
            "bad_signature"
        );
        assert_eq!(verdict(&verifier, &issuer.token().build()).await, "ok");
    }
    // With cached keys, the bad signature causes one refetch, because the `kid` may be reused.
    assert_eq!((acme.jwks_fetches(), globex.jwks_fetches()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenants_key_does_not_verify_another_tenants_tokens_under_load() {
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
async fn keys_of_untrusted_issuers_are_not_fetched() {
    let (acme, untrusted) = (start().await, start().await);
    let listed = Verifier::new([acme.issuer()]).unwrap();
    let looked_up = Verifier::new(Issuers::lookup(|_| None)).unwrap();
    for verifier in [listed, looked_up] {
        assert_eq!(verdict(&verifier, &untrusted.token().build()).await, "unknown_issuer");
    }
    assert_eq!(untrusted.metadata_fetches() + untrusted.jwks_fetches(), 0);
}

#[tokio::test]
async fn a_hanging_issuer_does_not_delay_another_tenant() {
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
fn invalid_lists_of_issuers_are_errors() {
    let issuer = |iss: &str| Issuer::new(iss, AUDIENCE).unwrap();
    for (name, issuers, sentence) in [
        (
            "duplicate issuer",
            vec![issuer("https://a.example"), issuer("https://a.example")],
            "in the list twice",
        ),
        ("no issuer", vec![], "the list is empty"),
    ] {
        let error = Verifier::new(issuers).unwrap_err().to_string();
        assert!(error.contains(sentence), "{name}: {error}");
    }
    let differing = vec![issuer("https://a.example"), issuer("https://a.example/")];
    assert!(
        Verifier::new(differing).is_ok(),
        "issuers that differ in a trailing slash are distinct"
    );
}

#[test]
fn invalid_configurations_are_errors_that_name_the_value() {
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
            "without surrounding whitespace",
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
        ("keys at a relative URL", issuer().and_then(|i| i.jwks_uri("jwks")).map(drop), "jwks"),
        (
            "discovery over http",
            Issuer::new("http://a.example", "a").and_then(verifier),
            "http only on loopback",
        ),
        ("discovery without a URL", Issuer::new("P2Pqj", "a").and_then(verifier), "jwks_uri"),
        (
            "short secret",
            issuer().and_then(|i| i.secret(Algorithm::HS256, &secret[1..])).map(drop),
            "at least 32 bytes, found 31",
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
            "found both",
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
            "fetch timeout too long",
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
            "fixed keys and a discovery URL",
            issuer()
                .map(|i| i.jwks(fixed()))
                .and_then(|i| i.discovery_url("https://a.example/"))
                .and_then(verifier),
            "`discovery_url`",
        ),
        ("alias with a space", issuer().and_then(|i| i.alias("a ")).map(drop), "issuer \"a \""),
        (
            "refresh_after zero",
            Verifier::new(Issuers::lookup(|_| None).refresh_after(Duration::ZERO)).map(drop),
            "refresh_after 0ns",
        ),
        (
            "refresh_after too long",
            Verifier::new(Issuers::lookup(|_| None).refresh_after(Duration::MAX)).map(drop),
            "refresh_after",
        ),
        (
            "a claim without allowed values",
            portcullis::providers::github_actions(Vec::<String>::new(), "a")
                .map(|i| i.jwks(fixed()))
                .and_then(verifier),
            "claim \"repository\"",
        ),
        (
            "max_cached zero",
            Verifier::new(Issuers::lookup(|_| None).max_cached(0)).map(drop),
            "max_cached",
        ),
        (
            "tenants without a template",
            issuer().and_then(|i| i.tenants(["a"])).map(drop),
            "a `template`",
        ),
        (
            "fetch timeout zero",
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
async fn a_lookup_decides_which_issuers_are_trusted_and_is_called_once_for_each() {
    let (acme, globex, untrusted) = (start().await, start().await, start().await);
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
        assert_eq!(verdict(&verifier, &untrusted.token().build()).await, "unknown_issuer");
    }
    assert_eq!(
        (acme.jwks_fetches(), untrusted.metadata_fetches()),
        (2, 0),
        "one key set for each verifier"
    );
}

#[tokio::test]
async fn a_failed_lookup_does_not_make_the_token_invalid() {
    let acme = start().await;
    let broken = Issuers::lookup_async(|_| async {
        Err::<Option<Issuer>, _>("the database is unavailable")
    });
    match Verifier::new(broken).unwrap().verify(&acme.token().build()).await {
        Err(Error::LookupFailed { reason, .. }) => {
            assert_eq!(reason.to_string(), "the database is unavailable");
        }
        other => panic!("{other:?}"),
    }
}

/// Unusable answers are not trusted, nor is an `iss` that an attacker chose and the lookup accepts
/// by pattern.
#[tokio::test]
async fn unusable_answers_of_the_lookup_are_not_trusted() {
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
    for (name, issuers) in [("another issuer", wrong), ("an invalid issuer", unusable)] {
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

/// The `iss` that is compared is also the URL that is fetched, so spellings that a URL parser would
/// change are rejected.
#[tokio::test]
async fn issuers_that_are_not_normalized_urls_are_not_discovered() {
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
async fn removed_and_changed_tenants_are_noticed_after_a_refresh() {
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
        "looked up again without a change, so its keys stay cached"
    );

    let with_audience = |audience: &str| long_lived(Issuer::new(acme.iss(), audience).unwrap());
    for (change, tenant_now, expected) in [
        ("another audience", with_audience("https://other.example"), "wrong_audience"),
        ("the first audience", with_audience(AUDIENCE), "ok"),
        ("removed", None, "unknown_issuer"),
        // An untrusted issuer is cached for 30 seconds only.
        ("signed up again", with_audience(AUDIENCE), "ok"),
    ] {
        let before = verdict().await;
        *tenant.lock().unwrap() = tenant_now;
        assert_eq!(verdict().await, before, "{change}: not yet");
        // Constant requests, also forged ones, do not extend the lifetime of the answer.
        for _ in 0..10 {
            clock.advance(Duration::from_secs(60));
            let junk = acme.token().header("kid", "junk").expired().build();
            assert!(verifier.verify(&junk).await.is_err());
        }
        assert_eq!(verdict().await, expected, "{change}");
    }
}

#[tokio::test]
async fn configured_issuers_are_not_evicted_by_resolved_ones() {
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

/// Google's two spellings of `iss`, or several custom domains of one tenant, share one key set.
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
    assert_eq!(acme.jwks_fetches(), 4, "one fetch for all names and one for each bad signature");
    assert_eq!(verifier.health().len(), 2, "one entry per issuer");
    let clash = Issuer::new("login.acme.example", AUDIENCE).unwrap().jwks(other.jwks());
    assert!(Verifier::new([issuer, clash]).unwrap_err().to_string().contains("login.acme.example"));
    assert!(acme.issuer().alias(" ").is_err());
}

#[tokio::test]
async fn untrusted_issuers_are_cached_for_30_seconds() {
    let (untrusted, clock) = (start().await, TestClock::new());
    untrusted.set_clock(&clock);
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
            assert_eq!(verdict(&verifier, &untrusted.token().build()).await, "unknown_issuer");
        }
        assert_eq!(asked.load(Ordering::SeqCst), times, "{passes} s later");
    }
    // The cache is bounded, so a very long `iss` is not looked up.
    let long =
        untrusted.token().issued_by(&format!("https://{}.example/", "x".repeat(2048))).build();
    assert_eq!(verdict(&verifier, &long).await, "unknown_issuer");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn concurrent_requests_for_the_same_issuer_share_one_lookup() {
    for (answer, expected) in
        [("trusted", "ok"), ("untrusted", "unknown_issuer"), ("broken", "lookup_failed")]
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
                    "untrusted" => Ok(None),
                    _ => Err("the database is unavailable"),
                }
            }
        });
        let verifier = Verifier::new(issuers.danger_allow_private_addresses()).unwrap();
        let token = acme.token().build();
        // The first request is dropped during its lookup; another one continues.
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
            "{answer}: once for the dropped request, once for all others"
        );
    }
}

/// If anyone can register an issuer, its URLs must not cause requests inside the network of the
/// API.
#[tokio::test]
async fn keys_of_resolved_issuers_are_not_fetched_from_private_addresses() {
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
    // A custom client resolves names by itself, but literal addresses are still rejected.
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

/// A request may be dropped whenever it waits: for the lookup, for the keys, or for a refetch. No
/// result is lost and nothing is fetched twice.
#[tokio::test]
async fn requests_may_be_dropped_at_every_await_point() {
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
    assert!(points > 3, "expected to wait for lookup and fetch, found {points} await points");
}

/// Forged tokens name more tenants than the cache holds.
#[tokio::test]
async fn forged_tokens_do_not_evict_keys_of_tenants_in_use() {
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
        "the cache of issuers without a verified token is bounded to eight"
    );
}

/// Several custom domains of one tenant, all known to the lookup.
#[tokio::test]
async fn aliases_of_a_resolved_issuer_share_its_keys() {
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
    // Two rounds, and a third after both names are looked up again.
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

/// Sync lookups run on the threads of the requests, possibly on several at once. They still share
/// one key set.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_sync_lookups_share_one_key_set() {
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
async fn the_lifetime_of_an_answer_is_configurable() {
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

/// An unavailable database says nothing about the tenants: those that were trusted stay trusted for
/// a bounded time.
#[tokio::test]
async fn tenants_stay_trusted_for_one_hour_while_the_lookup_fails() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    let (asked, away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let issuers = {
        let (iss, asked, away) = (acme.iss().to_owned(), Arc::clone(&asked), Arc::clone(&away));
        Issuers::lookup_async(move |asked_for| {
            asked.fetch_add(1, Ordering::SeqCst);
            let answer = match away.load(Ordering::SeqCst) {
                0 => Ok((asked_for == iss).then(|| Issuer::new(asked_for, AUDIENCE).unwrap())),
                1 => Err("the database is unavailable"),
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
        // Called in the background before the answer expires, then every ten seconds instead of for
        // each request.
        (1, "ok", 2),
        (9, "ok", 2),
        (1, "ok", 3),
        // After an idle period, the request waits for the lookup.
        (3709, "ok", 4),
        (1, "lookup_failed", 5),
        (0, "lookup_failed", 6),
    ] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict().await, expected, "{passes} s later");
        eventually("the lookup is called", || asked.load(Ordering::SeqCst) == times).await;
        assert_eq!(verdict().await, expected, "{passes} s later, again");
        let again = usize::from(expected != "ok");
        assert_eq!(asked.swap(times, Ordering::SeqCst), times + again, "{passes} s later");
    }
    away.store(0, Ordering::SeqCst);
    assert_eq!(verdict().await, "ok");
    away.store(2, Ordering::SeqCst);
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict().await, "unknown_issuer", "a successful lookup applies at once");
    away.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(30));
    assert_eq!(
        verdict().await,
        "lookup_failed",
        "an outage does not make a removed tenant trusted again"
    );
}

/// A hundred tenants on a server that hangs, and one tenant on another server.
#[tokio::test]
async fn a_hanging_server_of_many_tenants_does_not_use_up_all_permits() {
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
    eventually("as many fetches as permitted", || hanging.jwks_fetches() == 16).await;
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

/// An answer of the lookup applies to the requested name only, not to other names in the answer.
#[tokio::test]
async fn a_tenant_cannot_claim_the_name_of_another() {
    const GLOBEX: &str = "https://globex.example/";
    const EVIL: &str = "https://evil.example/";
    let (evil, globex) =
        (start().await, TestIssuer::offline_with(GLOBEX, Algorithm::EdDSA).unwrap());
    // Its record has Globex as an alias, or claims to be Globex with the alias evil.
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

/// The tenant is removed while its first token waits for keys.
#[tokio::test]
async fn a_tenant_removed_during_a_key_fetch_stays_removed() {
    let (acme, clock) = (start().await, TestClock::new());
    acme.set_clock(&clock);
    acme.set_delay(Duration::from_millis(50));
    let state = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&state);
    let issuers = Issuers::lookup_async(move |iss: String| {
        let answer = match now.load(Ordering::SeqCst) {
            0 => Ok(Some(Issuer::new(iss, AUDIENCE).unwrap())),
            1 => Ok(None),
            _ => Err("the database is unavailable"),
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
    eventually("its keys are fetched", || acme.metadata_fetches() == 1).await;
    state.store(1, Ordering::SeqCst);
    clock.advance(Duration::from_secs(600));
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
    assert!(first.await.unwrap(), "it was trusted when the request arrived");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
    state.store(2, Ordering::SeqCst);
    clock.advance(Duration::from_secs(30));
    assert_eq!(verdict(&verifier, &token).await, "lookup_failed");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_lookup_fails_after_five_seconds() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert_eq!(start.elapsed().as_secs(), 5);
}

/// Names that no issuer can have are not looked up; some databases reject NUL.
#[tokio::test]
async fn implausible_names_are_not_looked_up() {
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

/// The wait for a permit is part of the five seconds, and the newest request gets the next permit.
/// Verifies one token for each of `names` untrusted issuers, and returns once all of them wait.
/// Each task returns the verdict.
async fn flood_of_unknown_names(
    verifier: &Verifier,
    signer: &TestIssuer,
    names: usize,
) -> JoinSet<&'static str> {
    let mut flood = JoinSet::new();
    for number in 0..names {
        let (verifier, token) = (
            verifier.clone(),
            signer.token().issued_by(&format!("https://{number}.example/")).build(),
        );
        flood.spawn(async move {
            verifier.verify(&token).await.map_or_else(|error| error.code(), |_| "ok")
        });
    }
    everything_runs().await;
    flood
}

/// A valid token does not have to wait until a flood of unknown names is over.
#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_names_does_not_delay_a_tenants_first_token() {
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
    let flood = flood_of_unknown_names(&verifier, &acme, 6400).await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
    let codes = flood.join_all().await;
    assert!(
        start.elapsed() <= Duration::from_secs(6),
        "no request waits longer than five seconds: {:?}",
        start.elapsed()
    );
    assert!(codes.iter().all(|code| ["unknown_issuer", "lookup_failed"].contains(code)));
}

/// With a hanging database, each request waits five seconds at most, however many requests there
/// are.
#[tokio::test(start_paused = true)]
async fn a_hanging_lookup_delays_each_request_by_five_seconds_at_most() {
    let acme = TestIssuer::offline_with("https://acme.example/", Algorithm::EdDSA).unwrap();
    let issuers =
        Issuers::lookup_async(|_| std::future::pending::<Result<Option<Issuer>, Infallible>>());
    let verifier = Verifier::new(issuers).unwrap();
    let flood = flood_of_unknown_names(&verifier, &acme, 2000).await;
    let start = tokio::time::Instant::now();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "lookup_failed");
    assert!(start.elapsed() <= Duration::from_millis(5100), "{:?}", start.elapsed());
    assert!(flood.join_all().await.iter().all(|code| *code == "lookup_failed"));
}

/// For a tenant that leaves or whose keys were stolen: trust, keys and cached tokens are dropped
/// immediately.
#[tokio::test]
async fn forget_drops_trust_keys_and_tokens_of_a_resolved_issuer() {
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
    assert_eq!(verdict(&verifier, &token).await, "ok", "trusted for ten minutes without `forget`");
    assert!(verifier.forget("acme"), "accepts any name of the issuer");
    for token in [&token, &aliased] {
        assert_eq!(verdict(&verifier, token).await, "unknown_issuer");
    }
    assert!(verifier.health().is_empty());

    // The tenant returns: `forget` also clears the negative cache.
    *is_tenant.lock().unwrap() = true;
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer", "cached for 30 s");
    assert!(verifier.forget(acme.iss()));
    assert_eq!(verdict(&verifier, &token).await, "ok");
    assert_eq!(acme.jwks_fetches(), 2, "its keys were also dropped");
    assert!(!verifier.forget("https://unheard-of.example/"));
}

/// A configured issuer loses only its keys. They are fetched again, without a withdrawn key.
#[tokio::test]
async fn forget_drops_the_keys_of_a_configured_issuer() {
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

/// The answer of a lookup that was called before `forget` is discarded, even if it arrives later.
#[tokio::test]
async fn answers_from_before_forget_are_discarded() {
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

/// Plain http, for example inside a cluster, requires an explicit setting on a configured issuer.
#[tokio::test]
async fn plain_http_requires_a_configured_issuer_that_allows_it() {
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
    // Anyone may be able to register a resolved issuer.
    let acme = start().await;
    let looked_up =
        Issuers::lookup(|iss| Some(Issuer::new(iss, AUDIENCE).ok()?.danger_allow_http()));
    let verifier = Verifier::new(looked_up.danger_allow_private_addresses()).unwrap();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "unknown_issuer");
    assert_eq!(acme.jwks_fetches(), 0);
}

/// A custom client resolves names by itself, but `localhost` is rejected without resolution. Plain
/// http is allowed for loopback only.
#[tokio::test]
async fn keys_of_resolved_issuers_are_not_fetched_from_loopback_with_a_custom_client() {
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

/// Version 1.0 tokens are the most common mistake with Entra. The error names the setting that
/// fixes it.
#[tokio::test]
async fn the_error_for_entra_version_1_tokens_names_the_remedy() {
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

/// A request that joins an older one for the same name has its own position in the queue.
#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_the_permit_of_an_older_one() {
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
        "the early request also has the answer within its time limit"
    );
    assert!(start.elapsed() <= Duration::from_secs(6), "{:?}", start.elapsed());
}

/// Requests that are dropped one after the other do not add up to a longer wait for the next one.
#[tokio::test(start_paused = true)]
async fn dropped_requests_do_not_extend_the_wait_for_a_hanging_lookup() {
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

/// Also by a name that no token has used but that the lookup's answer contains.
#[tokio::test]
async fn forget_accepts_any_name_of_a_resolved_issuer() {
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
    assert!(verifier.forget(acme.iss()), "tokens have used only its alias");
    assert_eq!(verdict(&verifier, &token).await, "unknown_issuer");
}

/// Requests that wait for keys while `forget` drops them wait for the next fetch.
#[tokio::test]
async fn forget_during_a_fetch_fails_no_request() {
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

/// Lets every task run until it has to wait.
async fn everything_runs() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}
