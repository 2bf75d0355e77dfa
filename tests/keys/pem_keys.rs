//! Keys that are fetched one by one, each as PEM at its own URL, as with AWS load balancers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, Issuer, Verifier};
use serde_json::Value;

use crate::scripted::{ScriptedApi, Server, reply};

fn pem(keys: &TestIssuer) -> String {
    let jwk = keys.jwks_json()["keys"][0].clone();
    let coordinate =
        |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let prefix = (0..26).map(|at| u8::from_str_radix(&prefix[2 * at..2 * at + 2], 16).unwrap());
    let der: Vec<u8> = prefix.chain([4]).chain(coordinate("x")).chain(coordinate("y")).collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        BASE64_STANDARD.encode(der)
    )
}

/// Cached keys verify whatever happens to other fetches.
#[tokio::test]
async fn keys_can_be_fetched_one_by_one() {
    let new =
        || Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap());
    let (first, second) = (new(), new());
    let published = Arc::new(Mutex::new(HashMap::from([
        ("/keys/a-1".to_owned(), pem(&first)),
        ("/keys/b-2".to_owned(), pem(&second)),
        (
            "/keys/odd".to_owned(),
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".to_owned(),
        ),
    ])));
    let documents = Arc::clone(&published);
    let server = Server::start(move |asked| {
        let document = documents.lock().unwrap().get(&asked.path).cloned();
        async move { document.map_or_else(|| reply(404, ""), |document| reply(200, document)) }
    })
    .await;
    let prefix = server.at("/keys/");
    let api = ScriptedApi::new(&first, |issuer| issuer.pem_key_prefix(&prefix).unwrap());
    second.set_clock(&api.clock);
    let by = |keys: &Arc<TestIssuer>, kid: &str| keys.token().header("kid", kid).build();
    assert!(api.verifier.warm_up().await.is_ok(), "no token has named a key yet");
    for kid in ["", "../a-1", "a/1", "a?1", "a%2f1", "ä", &"a".repeat(65)] {
        assert_eq!(api.verdict(&by(&first, kid)).await, "unknown_key", "{kid:?}");
    }
    assert_eq!(api.verdict(&first.token().without_header("kid").build()).await, "unknown_key");
    assert_eq!(
        server.asked(),
        Vec::<String>::new(),
        "an invalid key name never becomes part of a URL"
    );

    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok");
    assert_eq!(api.verdict(&by(&second, "a-1")).await, "bad_signature");
    assert_eq!(api.verdict(&by(&second, "b-2")).await, "ok");
    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok", "both are cached");
    api.seconds_pass(10);
    assert_eq!(api.verdict(&by(&first, "c-3")).await, "unknown_key");
    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok");
    api.seconds_pass(20);
    assert_eq!(
        api.verdict(&by(&first, "odd")).await,
        "keys_unavailable",
        "the document is not a key"
    );
    assert_eq!(api.verdict(&by(&first, "a-1")).await, "ok", "the previous set stays cached");

    // Of two concurrent requests, one waits for the other's fetch and then for its own.
    api.seconds_pass(20);
    let (one, other) = (by(&first, "d-4"), by(&first, "e-5"));
    assert_eq!(
        tokio::join!(api.verdict(&one), api.verdict(&other)),
        ("unknown_key", "unknown_key")
    );

    // A withdrawn key disappears with the next refresh.
    published.lock().unwrap().remove("/keys/a-1");
    api.seconds_pass(550);
    assert_eq!(api.verdict(&by(&second, "b-2")).await, "ok");
    api.fetched(8).await;
    assert_ne!(api.verdict(&by(&first, "a-1")).await, "ok");
    assert_eq!(api.verdict(&by(&second, "b-2")).await, "ok");
    for prefix in [
        "https://keys.example",
        "https://keys.example/a",
        "https://keys.example/?a=/",
        "http://keys.example/",
        "a/",
    ] {
        let issuer = Issuer::new("https://issuer.example/", AUDIENCE).unwrap();
        assert_eq!(
            issuer.pem_key_prefix(prefix).is_ok(),
            prefix == "https://keys.example",
            "{prefix}"
        );
    }
}

/// A server with the key `good-1`, and a verifier of its tokens.
async fn one_key() -> (Arc<TestIssuer>, Server, ScriptedApi) {
    let keys =
        Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap());
    let document = pem(&keys);
    let server = Server::start(move |asked| {
        let reply = if asked.path == "/keys/good-1" {
            reply(200, document.clone())
        } else {
            reply(404, "")
        };
        async move { reply }
    })
    .await;
    let prefix = server.at("/keys/");
    let api = ScriptedApi::new(&keys, |issuer| issuer.pem_key_prefix(&prefix).unwrap());
    (keys, server, api)
}

/// Tokens with nonexistent keys, from the start and every second, do not block tokens whose keys
/// exist.
#[tokio::test]
async fn a_nonexistent_key_does_not_count_as_a_failed_fetch() {
    let (keys, server, api) = one_key().await;
    let good = keys.token().header("kid", "good-1").claim("exp", 4_000_000_000_u64).build();
    for second in 0..600 {
        let junk = keys.token().header("kid", format!("junk-{second}")).tampered().build();
        let verdict = api.verdict(&junk).await;
        assert!(["unknown_key", "keys_unavailable"].contains(&verdict), "{verdict}");
        assert_eq!(api.verdict(&good).await, "ok", "after {second} s");
        api.seconds_pass(1);
    }
    assert!(server.asked().len() < 2 * 610, "{} requests in ten minutes", server.asked().len());
}

/// Eight fetches at once are allowed for unknown keys.
#[tokio::test]
async fn beyond_the_budget_it_is_not_known_whether_a_key_exists() {
    let (keys, server, api) = one_key().await;
    let by = |kid: &str| keys.token().header("kid", kid).build();
    assert_eq!(api.verdict(&by("good-1")).await, "ok");
    for number in 0..8 {
        assert_eq!(api.verdict(&by(&format!("junk-{number}"))).await, "unknown_key", "{number}");
    }
    let asked = server.asked().len();
    assert_eq!(api.verdict(&by("junk-8")).await, "keys_unavailable");
    assert_eq!(server.asked().len(), asked);
    assert_eq!(api.verdict(&by("good-1")).await, "ok");
}

/// More likely, the server has failed.
#[tokio::test]
async fn cached_keys_stay_if_all_of_them_are_gone_at_once() {
    let keys =
        Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap());
    let document = pem(&keys);
    let server = Server::start(move |asked| {
        let reply = if asked.number == 1 { reply(200, document.clone()) } else { reply(404, "") };
        async move { reply }
    })
    .await;
    let prefix = server.at("/keys/");
    let api = ScriptedApi::new(&keys, |issuer| issuer.pem_key_prefix(&prefix).unwrap());
    let good = keys.token().header("kid", "a").claim("exp", 4_000_000_000_u64).build();
    assert_eq!(api.verdict(&good).await, "ok");
    api.seconds_pass(590);
    assert_eq!(api.verdict(&good).await, "ok");
    api.fetched(2).await;
    assert_eq!(api.verdict(&good).await, "ok", "after the refresh");
    assert_eq!(api.verifier.health()[0].failed_fetches, 1);
}

/// Anyone can name a key that does not exist, and so cause a fetch. A cached token has the claims
/// that were parsed when it was verified.
#[tokio::test]
async fn a_fetch_without_another_key_leaves_tokens_cached() {
    struct Case {
        name: &'static str,
        /// What is published before a token names the key `b-2`.
        published: fn(&mut HashMap<String, String>, &[String; 2]),
        stays_cached: bool,
    }

    let new =
        || Arc::new(TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap());
    let keys = [new(), new()];
    let pems = [pem(&keys[0]), pem(&keys[1])];
    for Case { name, published, stays_cached } in [
        Case { name: "an invented key", published: |_, _| (), stays_cached: true },
        Case {
            name: "a new key",
            published: |published, [_, other]| {
                published.insert("/keys/b-2".to_owned(), other.clone());
            },
            stays_cached: false,
        },
        Case {
            name: "the same key by another name",
            published: |published, [own, _]| {
                published.insert("/keys/b-2".to_owned(), own.clone());
            },
            stays_cached: false,
        },
        Case {
            name: "another key by the same name",
            published: |published, [_, other]| {
                published.insert("/keys/a-1".to_owned(), other.clone());
            },
            stays_cached: false,
        },
    ] {
        let documents =
            Arc::new(Mutex::new(HashMap::from([("/keys/a-1".to_owned(), pems[0].clone())])));
        let served = Arc::clone(&documents);
        let server = Server::start(move |asked| {
            let document = served.lock().unwrap().get(&asked.path).cloned();
            async move { document.map_or_else(|| reply(404, ""), |document| reply(200, document)) }
        })
        .await;
        let issuer = Issuer::new(keys[0].iss(), AUDIENCE).unwrap();
        let verifier = Verifier::new(issuer.pem_key_prefix(&server.at("/keys/")).unwrap()).unwrap();
        let by = |kid: &str| keys[0].token().header("kid", kid);
        let token = by("a-1").build();
        let claims = async || {
            let token = verifier.verify(&token).await.ok()?;
            Some(token.claims::<Value>().unwrap())
        };
        claims().await.unwrap();
        let cached = claims().await.unwrap();
        published(&mut documents.lock().unwrap(), &pems);
        for _ in 0..3 {
            let fetches = verifier.health()[0].fetches;
            let _ = verifier.verify(&by("b-2").tampered().build()).await;
            let _ = verifier.verify(&by(&format!("junk-{fetches}")).tampered().build()).await;
            assert!(verifier.health()[0].fetches > fetches, "{name}");
        }
        let is_cached = claims().await.is_some_and(|claims| Arc::ptr_eq(&cached, &claims));
        assert_eq!(is_cached, stays_cached, "{name}");
    }
}
