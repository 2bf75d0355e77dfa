//! Several issuers: each token is verified with the keys of its own issuer, under each of its
//! names. Issuers neither delay nor evict each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Issuers, Verifier};
use tokio::task::JoinSet;

use crate::eventually::eventually;
use crate::support::start;
use crate::verdict::verdict;

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
    struct Case {
        passes: u64,
        fetches: usize,
        asked_for: usize,
    }
    // Two rounds, and a third after both names are looked up again.
    for Case { passes, fetches, asked_for } in [
        Case { passes: 0, fetches: 1, asked_for: 2 },
        Case { passes: 0, fetches: 1, asked_for: 2 },
        Case { passes: 600, fetches: 2, asked_for: 4 },
    ] {
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
