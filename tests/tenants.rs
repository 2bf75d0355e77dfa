//! Many issuers: whose keys verify whose tokens, and who is asked for keys at all.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis::testing::{AUDIENCE, Behaviour, TestIssuer};
use portcullis::{Algorithm, ConfigError, Error, FetchError, Issuer, Issuers, Jwks, Verifier};
use tokio::task::JoinSet;

async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).await.unwrap()
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
        assert_eq!(verdict(&verifier, &issuer.token().signed_by(other).build()).await, "signature");
        assert_eq!(verdict(&verifier, &issuer.token().build()).await, "ok");
    }
    assert_eq!((acme.jwks_fetches(), globex.jwks_fetches()), (1, 1));
}

#[tokio::test]
async fn one_tenants_key_fails_under_anothers_name_also_under_load() {
    let (acme, globex) = (start().await, start().await);
    let verifier = Verifier::new([acme.issuer(), globex.issuer()]).unwrap();
    let mut requests = JoinSet::new();
    for number in 0..200 {
        let (token, expected) = match number % 4 {
            0 => (acme.token().build(), "ok"),
            1 => (globex.token().build(), "ok"),
            2 => (acme.token().signed_by(&globex).build(), "signature"),
            _ => (globex.token().signed_by(&acme).build(), "signature"),
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
    hanging.behave(Behaviour::Hang);
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
        ("twice", vec![issuer("https://a.example"), issuer("https://a.example")], "in the list twice"),
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
    let cases: [(&str, Result<(), ConfigError>, &str); 17] = [
        ("empty issuer", Issuer::new("", AUDIENCE).map(drop), "issuer \"\""),
        ("empty audience", Issuer::new("https://a.example", "").map(drop), "audience"),
        ("no audience", Issuer::new("https://a.example", Vec::<String>::new()).map(drop), "audience"),
        ("one empty audience", Issuer::new("https://a.example", ["a", " "]).map(drop), "audience"),
        (
            "keys over http",
            issuer().and_then(|i| i.jwks_uri("http://keys.example/jwks")).map(drop),
            "http://keys.example/jwks",
        ),
        ("keys at a file", issuer().and_then(|i| i.jwks_uri("file:///jwks")).map(drop), "file:///jwks"),
        ("keys nowhere", issuer().and_then(|i| i.jwks_uri("jwks")).map(drop), "jwks"),
        ("discovery over http", Issuer::new("http://a.example", "a").and_then(verifier), "http only on loopback"),
        ("discovery at no URL", Issuer::new("P2Pqj", "a").and_then(verifier), "jwks_uri"),
        (
            "short secret",
            issuer().and_then(|i| i.secret(Algorithm::HS256, &secret[1..])).map(drop),
            "at least 32 bytes, 31 came",
        ),
        ("secret for RSA", issuer().and_then(|i| i.secret(Algorithm::RS256, &secret)).map(drop), "RS256"),
        ("HMAC with remote keys", issuer().and_then(|i| i.algorithms([Algorithm::HS256])).map(drop), "HS256"),
        ("no algorithm", issuer().and_then(|i| i.algorithms([])).map(drop), "algorithms []"),
        (
            "secret and remote keys",
            issuer()
                .and_then(|i| i.secret(Algorithm::HS256, &secret))
                .and_then(|i| i.jwks_uri("https://keys.example/"))
                .and_then(verifier),
            "both came",
        ),
        ("long leeway", issuer().and_then(|i| i.leeway(std::time::Duration::from_secs(301))).map(drop), "301s"),
        ("no lifetime", issuer().and_then(|i| i.keys_max_age(std::time::Duration::ZERO)).map(drop), "0ns"),
        ("no time to fetch", issuer().and_then(|i| i.fetch_timeout(std::time::Duration::ZERO)).map(drop), "0ns"),
    ];
    for (name, result, sentence) in cases {
        let error = result.expect_err(name).to_string();
        assert!(error.contains(sentence), "{name}: {error}");
    }
    for iss in ["http://localhost:1/", "http://127.0.0.1:1/", "http://127.9.9.9/", "http://[::1]:1/"] {
        assert!(Issuer::new(iss, "a").and_then(verifier).is_ok(), "{iss} is loopback");
    }
    for iss in ["http://localhost.example/", "http://128.0.0.1/", "http://[::2]/", "http://127.0.0.1.example/"] {
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
        Verifier::new(Issuers::lookup(find)).unwrap(),
        Verifier::new(Issuers::lookup_async(move |iss: String| {
            let found = later(&iss);
            async move { Ok::<_, Infallible>(found) }
        }))
        .unwrap(),
    ];
    for verifier in verifiers {
        asked.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(verdict(&verifier, &acme.token().build()).await, "ok");
            assert_eq!(verdict(&verifier, &globex.token().build()).await, "ok");
            assert_eq!(verdict(&verifier, &globex.token().signed_by(&acme).build()).await, "signature");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(verdict(&verifier, &stranger.token().build()).await, "unknown_issuer");
    }
    assert_eq!((acme.jwks_fetches(), stranger.metadata_fetches()), (2, 0), "one key set for each verifier");
}

#[tokio::test]
async fn a_look_up_that_breaks_is_no_news_about_the_token() {
    let acme = start().await;
    let (iss, keys): (_, Jwks) = (acme.iss().to_owned(), acme.jwks());
    let broken = Issuers::lookup_async(|_| async { Err::<Option<Issuer>, _>("the database is away") });
    let good_keys = keys.clone();
    let wrong = Issuers::lookup(move |_| {
        Issuer::new("https://other.example/", AUDIENCE).ok().map(|issuer| issuer.jwks(good_keys.clone()))
    });
    let unusable = Issuers::lookup(move |_| {
        let jwks = keys.clone();
        Issuer::new(iss.clone(), AUDIENCE).ok()?.secret(Algorithm::HS256, &[7; 32]).ok().map(|issuer| issuer.jwks(jwks))
    });
    for (name, issuers) in [("an error", broken), ("another issuer", wrong), ("a bad one", unusable)] {
        let result = Verifier::new(issuers).unwrap().verify(&acme.token().build()).await;
        let Err(Error::KeysUnavailable { source, .. }) = result else { panic!("{name}: {result:?}") };
        assert!(matches!(*source, FetchError::Lookup(_)), "{name}: {source}");
    }
}
