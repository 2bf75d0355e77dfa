//! A list of keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{
    ApiKey, ApiKeyHash, ApiKeys, ClientAuth, Error, Introspection, InvalidToken, Issuer, Issuers,
    TokenKind, Verifier,
};
use serde_json::{Value, json};

use crate::verdict::verdict;
use crate::{ISS, generate, verifier, with_another_secret, worker};

#[tokio::test]
async fn handlers_receive_what_the_record_says() {
    let (key, clock) = (generate(), TestClock::new());
    let expires = clock.now() + Duration::from_secs(600);
    let record = worker(&key)
        .client_id("web-shop")
        .label("CI of the web shop")
        .scope("orders:read orders:write".parse().unwrap())
        .claim("roles", json!(["clerk"]))
        .claim("org_id", "org_1")
        .expires_at(expires);
    let keys = ApiKeys::new(ISS, [record]).unwrap();
    let token = verifier(keys, &clock).verify(key.expose_key()).await.unwrap();
    assert_eq!(token.kind(), TokenKind::ApiKey);
    assert_eq!(token.issuer(), ISS);
    assert_eq!(token.subject(), Some("worker"));
    assert_eq!(token.client_id(), Some("web-shop"));
    assert!(token.has_scope("orders:read") && token.has_role("clerk"));
    assert_eq!(token.claim("org_id").unwrap(), "org_1");
    assert_eq!(token.claim("key_label").unwrap(), "CI of the web shop");
    assert_eq!(token.claim("jti").unwrap(), key.hash().id());
    assert_eq!(token.expires_at(), expires);
    assert_eq!(token.expose_token(), key.hash().id(), "the key itself is not stored");

    let plain = generate();
    let keys = ApiKeys::new(ISS, [worker(&plain)]).unwrap();
    let token = verifier(keys, &clock).verify(plain.expose_key()).await.unwrap();
    assert_eq!(token.client_id(), Some("worker"), "by default, the subject");
    assert!(token.scope().is_empty());
    assert!(token.expires_at() > SystemTime::now() + Duration::from_secs(365 * 24 * 3600));
    let claims: Value = serde_json::from_str(token.raw_claims()).unwrap();
    assert_eq!(claims.get("exp"), None);
}

#[tokio::test]
async fn only_the_key_itself_is_accepted() {
    let (key, other, clock) = (generate(), generate(), TestClock::new());
    let test = ApiKey::generate("acme_test").unwrap();
    let verifier = verifier(ApiKeys::new(ISS, [worker(&key)]).unwrap(), &clock);
    let text = key.expose_key();
    let cases = [
        ("the key", text.to_owned(), "ok"),
        ("another secret", with_another_secret(&key), "unknown_api_key"),
        ("another key", other.expose_key().to_owned(), "unknown_api_key"),
        ("another prefix", test.expose_key().to_owned(), "unknown_api_key"),
        ("a typing error", format!("{}~{}", &text[..30], &text[31..]), "malformed"),
        ("cut off", text[..text.len() - 1].to_owned(), "malformed"),
        ("the prefix", "acme_live_".to_owned(), "malformed"),
        ("the identifier", key.hash().id().to_owned(), "malformed"),
        ("the hash", key.hash().to_string(), "malformed"),
        ("in lower case", text.to_lowercase(), "malformed"),
        ("not the prefix", "acme_lives".to_owned(), "opaque"),
    ];
    for (name, text, expected) in cases {
        assert_eq!(verdict(&verifier, &text).await, expected, "{name}");
    }
}

#[tokio::test]
async fn keys_expire() {
    let (key, clock) = (generate(), TestClock::new());
    let record = worker(&key).expires_at(clock.now() + Duration::from_secs(60));
    let verifier = verifier(ApiKeys::new(ISS, [record]).unwrap(), &clock);
    clock.advance(Duration::from_secs(59));
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
    clock.advance(Duration::from_secs(1));
    assert_eq!(verdict(&verifier, key.expose_key()).await, "expired", "without leeway");
    // Only the owner of the key is told that it expired.
    let forged = with_another_secret(&key);
    assert_eq!(verdict(&verifier, &forged).await, "unknown_api_key");
}

/// Some libraries have a latest time that stands for "never".
#[tokio::test]
async fn keys_may_expire_in_any_year() {
    let clock = TestClock::new();
    for (name, after_1970, expected) in [
        ("1970", 0, "expired"),
        ("the end of 9999", 253_402_300_799, "ok"),
        ("the year 10000", 253_402_300_800, "ok"),
        ("the year 262142", 8_210_266_876_799, "ok"),
    ] {
        let (key, time) = (generate(), UNIX_EPOCH + Duration::from_secs(after_1970));
        let keys = ApiKeys::new(ISS, [worker(&key).expires_at(time)]).unwrap();
        let verifier = verifier(keys, &clock);
        assert_eq!(verdict(&verifier, key.expose_key()).await, expected, "{name}");
    }
}

#[tokio::test]
async fn keys_stand_beside_access_tokens() {
    let clock = TestClock::new();
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    issuer.set_clock(&clock);
    let key = generate();
    let keys = ApiKeys::new(ISS, [worker(&key)]).unwrap();
    let builder = || Verifier::builder(issuer.issuer()).clock(&clock);
    let verifier = builder().api_keys(keys.clone()).build().unwrap();
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
    assert_eq!(verdict(&verifier, &issuer.token().build()).await, "ok");
    let without = builder().build().unwrap();
    assert_eq!(verdict(&without, key.expose_key()).await, "opaque");

    let same_name = ApiKeys::new(issuer.iss(), [worker(&key)]).unwrap();
    assert!(builder().api_keys(same_name).build().is_err(), "the issuer tells them apart");
    assert!(Verifier::new(Issuers::none()).is_err(), "nothing would be accepted");
}

#[tokio::test]
async fn a_key_rotates_without_a_rejected_request() {
    let clock = TestClock::new();
    let (old, new) = (generate(), generate());
    let others = || (0..100).map(|_| worker(&generate()));
    let list = |record: ApiKey| ApiKeys::new(ISS, others().chain([record])).unwrap();
    let verifier = verifier(list(worker(&old)), &clock);

    let (uses_new, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let served: Arc<[AtomicUsize; 4]> = Arc::default();
    let clients: Vec<_> = (0..served.len())
        .map(|client| {
            let (verifier, uses_new) = (verifier.clone(), Arc::clone(&uses_new));
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let keys = [&old, &new].map(|key| key.expose_key().to_owned());
            std::thread::spawn(move || {
                let mut rejected = 0;
                while !stop.load(Ordering::SeqCst) {
                    let [old, new] = &keys;
                    let key = if uses_new.load(Ordering::SeqCst) { new } else { old };
                    rejected += usize::from(!matches!(verifier.try_verify(key), Some(Ok(_))));
                    served[client].fetch_add(1, Ordering::SeqCst);
                }
                rejected
            })
        })
        .collect();
    // Until each client has begun and ended a request after what was changed before: the first one
    // that ends may have begun earlier.
    let serve_some = || {
        for of_client in &*served {
            let goal = of_client.load(Ordering::SeqCst) + 250;
            while of_client.load(Ordering::SeqCst) < goal {
                std::thread::yield_now();
            }
        }
    };
    serve_some();
    verifier.replace_api_keys(&list(worker(&old).next(new.hash().clone()))).unwrap();
    serve_some();
    uses_new.store(true, Ordering::SeqCst);
    serve_some();
    verifier.replace_api_keys(&list(worker(&new))).unwrap();
    serve_some();
    stop.store(true, Ordering::SeqCst);
    let rejected: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(rejected, 0);
    assert_eq!(verdict(&verifier, old.expose_key()).await, "unknown_api_key");
    assert_eq!(verdict(&verifier, new.expose_key()).await, "ok");
}

#[test]
fn only_a_list_of_the_same_issuer_replaces_a_list() {
    let clock = TestClock::new();
    let list = |iss: &str| ApiKeys::new(iss, [worker(&generate())]).unwrap();
    let lookup =
        || ApiKeys::lookup(ISS, "acme_live", async |_| Ok::<_, std::io::Error>(None)).unwrap();
    assert!(verifier(list(ISS), &clock).replace_api_keys(&list(ISS)).is_ok());
    assert!(verifier(list(ISS), &clock).replace_api_keys(&list("https://other.example")).is_err());
    assert!(verifier(list(ISS), &clock).replace_api_keys(&lookup()).is_err());
    assert!(verifier(lookup(), &clock).replace_api_keys(&list(ISS)).is_err());
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    let without = Verifier::new(issuer.issuer()).unwrap();
    assert!(without.replace_api_keys(&list(ISS)).is_err());
}

#[test]
fn lists_that_cannot_work_are_errors() {
    let key = generate();
    let keys = |records: Vec<ApiKey>| ApiKeys::new(ISS, records);
    let other_prefix = key.hash().to_string().replace("acme_live", "acme_test").parse().unwrap();
    let cases = [
        ("the same key twice", keys(vec![worker(&key), worker(&key)]), "no other key has"),
        (
            "current and next are the same",
            keys(vec![worker(&key).next(key.hash().clone())]),
            "no other key has",
        ),
        (
            "the same identifier with another prefix",
            keys(vec![worker(&key), ApiKey::new("other", other_prefix)]),
            "no other key has",
        ),
        ("no subject", keys(vec![ApiKey::new("", key.hash().clone())]), "expected a subject"),
        ("a claim of its own", keys(vec![worker(&key).claim("sub", "x")]), "claim \"sub\""),
        ("its expiry as a claim", keys(vec![worker(&key).claim("exp", 1)]), "claim \"exp\""),
        (
            "bound to a key that is not checked",
            keys(vec![worker(&key).claim("cnf", json!({ "jkt": "x" }))]),
            "claim \"cnf\"",
        ),
        ("no issuer", ApiKeys::new("", [worker(&key)]), "expected a name"),
    ];
    for (name, keys, expected) in cases {
        let error = keys.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains(key.expose_key()), "{name}");
    }
    for prefix in ["", "Acme", "acme-live", "1acme", "acme_", &"a".repeat(33), "a b"] {
        assert!(ApiKey::generate(prefix).is_err(), "{prefix:?}");
    }
}

#[test]
fn hashes_are_stored_as_text_and_show_no_key() {
    let key = generate();
    let text = key.hash().to_string();
    assert_eq!(text.parse::<ApiKeyHash>().unwrap(), *key.hash());
    let secret = key.expose_key().rsplit_once('_').unwrap().1;
    assert!(!text.contains(secret));
    let hex = text.split_once(':').unwrap().1;
    for debug in [format!("{key:?}"), format!("{:?}", key.hash()), format!("{:?}", worker(&key))] {
        assert!(debug.contains(key.hash().id()), "{debug}");
        assert!(!debug.contains(secret) && !debug.contains(hex), "{debug}");
    }
    for (name, wrong) in [
        ("the key itself", key.expose_key().to_owned()),
        ("no identifier", format!(":{hex}")),
        ("too short", text[..text.len() - 1].to_owned()),
        ("not hexadecimal", text.replace(&text[text.len() - 2..], "zz")),
        ("two colons", format!("{text}:")),
        ("characters of several bytes", format!("{}:{}", key.hash().id(), "é".repeat(32))),
        ("nothing", String::new()),
    ] {
        let error = wrong.parse::<ApiKeyHash>().unwrap_err().to_string();
        assert!(!error.contains(secret), "{name}: {error}");
    }
    assert_ne!(generate().expose_key(), generate().expose_key());
}

#[tokio::test]
async fn errors_show_no_key() {
    let (key, clock) = (generate(), TestClock::new());
    let verifier = verifier(ApiKeys::new(ISS, [worker(&key)]).unwrap(), &clock);
    for text in [with_another_secret(&key), key.expose_key().replace('_', "-")] {
        let error = verifier.verify(&text).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&text[40..]), "{error:?}");
    }
    let unknown = verifier.verify(generate().expose_key()).await.unwrap_err();
    assert!(matches!(unknown, Error::InvalidToken(InvalidToken::UnknownApiKey)));
    assert!(!format!("{verifier:?}").contains(key.hash().id()));
}

#[tokio::test]
async fn keys_are_never_sent_to_an_issuer() {
    let issuer = TestIssuer::start().unwrap();
    let asked = Introspection::new(ClientAuth::client_secret("orders-api", "secret"));
    let key = generate();
    let list = |records: Vec<ApiKey>| ApiKeys::new(ISS, records).unwrap();
    let test = ApiKey::generate("acme_test").unwrap();
    let verifier = Verifier::builder(issuer.issuer().introspection(asked))
        .api_keys(list(vec![worker(&key)]))
        .build()
        .unwrap();
    let with_an_error = format!("{}~", key.expose_key());
    let rejected = async |name: &str, text: &str, expected: &str| {
        assert_eq!(verdict(&verifier, text).await, expected, "{name}");
        assert_eq!(issuer.introspections(), 0, "{name}");
    };
    assert_eq!(verdict(&verifier, key.expose_key()).await, "ok");
    rejected("of another environment", test.expose_key(), "unknown_api_key").await;
    rejected("with a typing error", &with_an_error, "malformed").await;
    verifier.replace_api_keys(&list(vec![])).unwrap();
    rejected("the last one, withdrawn", key.expose_key(), "unknown_api_key").await;
    rejected("withdrawn, with a typing error", &with_an_error, "malformed").await;
    assert_eq!(verdict(&verifier, "opaque").await, "inactive");
    assert_eq!(issuer.introspections(), 1, "any other token is");
}

#[test]
fn prefixes_with_which_opaque_tokens_begin_are_errors() {
    let (ory, acme) = (ApiKey::generate("ory").unwrap(), generate());
    let issuer = |prefix: &str| {
        let auth = ClientAuth::client_secret("orders-api", "secret");
        let introspection = Introspection::at("https://issuer.example/introspect", auth);
        let issuer = Issuer::new("https://issuer.example/", AUDIENCE).unwrap();
        issuer.introspection(introspection.prefix(prefix))
    };
    let list = |key| ApiKeys::new(ISS, [worker(key)]).unwrap();
    let looked_up = |prefix| {
        let none = |_| std::future::ready(Ok::<_, std::io::Error>(None));
        ApiKeys::lookup(ISS, prefix, none).unwrap()
    };
    for (name, keys, opaque, is_allowed) in [
        ("opaque tokens that begin as keys do", list(&ory), "ory_at_", false),
        ("the same with a lookup", looked_up("ory"), "ory_at_", false),
        ("only the first letters", looked_up("or"), "ory_at_", true),
        ("keys that begin as opaque tokens do", list(&acme), "acme_", true),
    ] {
        let built = Verifier::builder(issuer(opaque)).api_keys(keys).build();
        assert_eq!(built.is_ok(), is_allowed, "{name}: {:?}", built.err());
    }
    let verifier = Verifier::builder(issuer("ory_at_")).api_keys(list(&acme)).build().unwrap();
    assert!(verifier.replace_api_keys(&list(&ory)).is_err());
}

#[tokio::test]
async fn no_issuer_has_the_name_of_the_api_keys() {
    const OTHER: &str = "https://issuer.example/";
    let (key, clock) = (generate(), TestClock::new());
    let keys = || ApiKeys::new(ISS, [worker(&key)]).unwrap();
    let issuer = |iss: &str| {
        let issuer = TestIssuer::offline(iss).unwrap();
        issuer.set_clock(&clock);
        issuer
    };
    let (same, other) = (issuer(ISS), issuer(OTHER));
    for (name, config, token) in [
        ("its name", same.issuer(), same.token().build()),
        ("an alias", other.issuer().alias(ISS).unwrap(), other.token().build()),
    ] {
        let configured = Verifier::builder(config.clone()).api_keys(keys()).build();
        assert!(configured.is_err(), "{name}");
        let issuers = Issuers::lookup(move |_: &str| Some(config.clone()));
        let issuers = issuers.danger_allow_private_addresses();
        let verifier = Verifier::builder(issuers).api_keys(keys()).clock(&clock).build().unwrap();
        assert_eq!(verdict(&verifier, &token).await, "unknown_issuer", "{name}");
        assert_eq!(verdict(&verifier, key.expose_key()).await, "ok", "{name}");
    }
    let template = Issuer::template("https://login.example/{tenantid}/v2.0", AUDIENCE).unwrap();
    let id = "5a3c6a5f-6d1e-4a5c-9b7e-0c6a9b1f2d3e";
    let tenant = format!("https://login.example/{id}/v2.0");
    let keys = ApiKeys::new(tenant, [worker(&key)]).unwrap();
    assert!(Verifier::builder(template).api_keys(keys).build().is_err(), "a tenant");
}
