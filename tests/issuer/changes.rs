//! Whether an issuer that a lookup returns again is the same. The same issuer keeps its keys. A
//! changed one replaces it, so that each setting takes effect.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, ClientAuth, Introspection, Issuer, Issuers, Verifier};
use serde_json::Value;

use crate::support::start;
use crate::verdict::verdict;

/// How long an answer of the lookup is used.
const FRESH: Duration = Duration::from_secs(60);

/// A tenant that may change, and a verifier that looks it up.
struct Tenant {
    current: Arc<Mutex<Issuer>>,
    clock: TestClock,
    verifier: Verifier,
}

impl Tenant {
    /// `client`: creating one takes long, so the cases share it.
    fn new(keys: &TestIssuer, issuer: Issuer, client: &reqwest::Client) -> Self {
        let (current, clock) = (Arc::new(Mutex::new(issuer)), TestClock::new());
        keys.set_clock(&clock);
        let found = Arc::clone(&current);
        let issuers = Issuers::lookup(move |_| Some(found.lock().unwrap().clone()));
        let issuers = issuers.refresh_after(FRESH).danger_allow_private_addresses();
        let verifier = Verifier::builder(issuers).clock(&clock).client(client.clone());
        let verifier = verifier.build().unwrap();
        Self { current, clock, verifier }
    }

    /// From now on, the lookup returns `issuer`, and the earlier answer is no longer used.
    fn becomes(&self, issuer: Issuer) {
        *self.current.lock().unwrap() = issuer;
        self.clock.advance(FRESH);
    }
}

/// A new issuer fetches its keys, so the fetches tell whether an issuer was replaced.
#[tokio::test]
async fn an_issuer_is_replaced_if_and_only_if_a_setting_has_changed() {
    struct Case {
        name: &'static str,
        before: Issuer,
        after: Issuer,
        /// How often keys are fetched before the second lookup, and after it.
        fetches: [usize; 2],
    }

    const KEPT: [usize; 2] = [1, 0];
    const REPLACED: [usize; 2] = [1, 1];
    let (acme, client) = (start().await, reqwest::Client::new());
    let issuer = || acme.issuer();
    let keys_at = |query: &str| format!("{}.well-known/jwks.json{query}", acme.iss());
    let with_keys_at = |query: &str| issuer().jwks_uri(&keys_at(query)).unwrap();
    let auth = || ClientAuth::client_secret("orders-api", "secret");
    let asked = || Introspection::new(auth()).jwts_too();
    let asked_at = |query: &str| {
        Introspection::at(format!("{}introspect{query}", acme.iss()), auth()).jwts_too()
    };
    let seconds = Duration::from_secs;
    let cases = [
        Case { name: "no change", before: issuer(), after: issuer(), fetches: KEPT },
        Case {
            name: "another alias",
            before: issuer(),
            after: issuer().alias("https://alias.example/").unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "the name, which was an alias",
            before: Issuer::new("acme", AUDIENCE)
                .and_then(|issuer| issuer.alias(acme.iss()))
                .and_then(|issuer| issuer.jwks_uri(&keys_at("")))
                .unwrap(),
            after: with_keys_at(""),
            fetches: REPLACED,
        },
        Case {
            name: "audience",
            before: issuer(),
            after: issuer().audience([AUDIENCE, "https://other.example"]).unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "place of the roles",
            before: issuer(),
            after: issuer().roles_at(["/realm_access/roles"]),
            fetches: REPLACED,
        },
        Case {
            name: "the same place of the roles",
            before: issuer().roles_at(["/realm_access/roles"]),
            after: issuer().roles_at(["/realm_access/roles"]),
            fetches: KEPT,
        },
        Case {
            name: "the same URL of the keys",
            before: with_keys_at(""),
            after: with_keys_at(""),
            fetches: KEPT,
        },
        Case {
            name: "URL of the keys",
            before: with_keys_at(""),
            after: with_keys_at("?2"),
            fetches: REPLACED,
        },
        Case {
            name: "keys without discovery",
            before: issuer(),
            after: with_keys_at(""),
            fetches: REPLACED,
        },
        Case {
            name: "the same URL for discovery",
            before: issuer().discovery_url(acme.iss()).unwrap(),
            after: issuer().discovery_url(acme.iss()).unwrap(),
            fetches: KEPT,
        },
        Case {
            name: "URL for discovery",
            before: issuer(),
            after: issuer().discovery_url(acme.iss()).unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "origin of the keys",
            before: issuer(),
            after: issuer().require_same_origin_keys(),
            fetches: REPLACED,
        },
        Case {
            name: "algorithms",
            before: issuer(),
            after: issuer().algorithms([Algorithm::EdDSA]).unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "leeway",
            before: issuer(),
            after: issuer().leeway(seconds(10)).unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "age of tokens",
            before: issuer(),
            after: issuer().max_token_age(seconds(600)).unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "lifetime of keys",
            before: issuer(),
            after: issuer().keys_max_age(seconds(600)).unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "HTTP client",
            before: issuer(),
            after: issuer().client(client.clone()),
            fetches: REPLACED,
        },
        Case {
            name: "header of the token",
            before: issuer(),
            after: issuer().token_in_header("x-token").unwrap(),
            fetches: REPLACED,
        },
        Case {
            name: "introspection, added",
            before: issuer(),
            after: issuer().introspection(asked()),
            fetches: REPLACED,
        },
        Case {
            name: "introspection, removed",
            before: issuer().introspection(asked()),
            after: issuer(),
            fetches: REPLACED,
        },
        Case {
            name: "the same introspection",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked()),
            fetches: KEPT,
        },
        Case {
            name: "the same introspection, with a URL and prefixes",
            before: issuer().introspection(asked_at("").prefix("a_")),
            after: issuer().introspection(asked_at("").prefix("a_")),
            fetches: KEPT,
        },
        Case {
            name: "secret",
            before: issuer().introspection(asked()),
            after: issuer().introspection(
                Introspection::new(ClientAuth::client_secret("orders-api", "rotated")).jwts_too(),
            ),
            fetches: REPLACED,
        },
        Case {
            name: "endpoint without discovery",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked_at("")),
            fetches: REPLACED,
        },
        Case {
            name: "URL of the endpoint",
            before: issuer().introspection(asked_at("")),
            after: issuer().introspection(asked_at("?2")),
            fetches: REPLACED,
        },
        Case {
            name: "prefix of opaque tokens",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked().prefix("a_")),
            fetches: REPLACED,
        },
        Case {
            name: "keys beside the answers",
            before: issuer().introspection(asked().instead_of_keys()),
            after: issuer().introspection(asked()),
            fetches: [0, 1],
        },
        Case {
            name: "no opaque tokens",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked().only_jwts()),
            fetches: REPLACED,
        },
        Case {
            name: "signed answers",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked().signed()),
            fetches: REPLACED,
        },
        Case {
            name: "time limit of a question",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked().timeout(seconds(3)).unwrap()),
            fetches: REPLACED,
        },
        Case {
            name: "lifetime of an answer",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked().cache_for(seconds(30)).unwrap()),
            fetches: REPLACED,
        },
        Case {
            name: "use of an answer while the endpoint is down",
            before: issuer().introspection(asked()),
            after: issuer().introspection(asked().max_stale(seconds(30)).unwrap()),
            fetches: REPLACED,
        },
    ];
    for Case { name, before, after, fetches } in cases {
        let earlier = acme.jwks_fetches();
        let tenant = Tenant::new(&acme, before, &client);
        assert_eq!(verdict(&tenant.verifier, &acme.token().build()).await, "ok", "{name}");
        let at_first = acme.jwks_fetches();
        tenant.becomes(after);
        // The test kit does not sign its answers.
        let expected = if name == "signed answers" { "introspection_unavailable" } else { "ok" };
        assert_eq!(verdict(&tenant.verifier, &acme.token().build()).await, expected, "{name}");
        assert_eq!([at_first - earlier, acme.jwks_fetches() - at_first], fetches, "{name}");
    }
}

/// Fixed keys and secrets are not fetched. An issuer that is the same keeps its cached tokens.
#[tokio::test]
async fn an_issuer_with_the_same_fixed_keys_keeps_its_cached_tokens() {
    const ISS: &str = "https://acme.example/";
    let of_secret = |secret: &[u8]| TestIssuer::offline_with_secret(ISS, Algorithm::HS256, secret);
    let of_keys = || TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap();
    struct Case {
        name: &'static str,
        own: TestIssuer,
        other: TestIssuer,
    }
    let client = reqwest::Client::new();
    for Case { name, own, other } in [
        Case { name: "key set", own: of_keys(), other: of_keys() },
        Case { name: "secret", own: of_secret(&[7; 32]), other: of_secret(&[8; 32]) },
    ] {
        let issuer = own.issuer();
        let tenant = Tenant::new(&own, issuer.clone(), &client);
        let token = own.token().build();
        let claims = async || {
            tenant.verifier.verify(&token).await.map(|token| token.claims::<Value>().unwrap())
        };
        // Claims are parsed once, so a cached token has the same ones. It is cached from its second
        // verification on.
        claims().await.unwrap();
        let cached = claims().await.unwrap();
        tenant.becomes(issuer);
        assert!(Arc::ptr_eq(&cached, &claims().await.unwrap()), "{name}: the same");
        tenant.becomes(other.issuer());
        assert!(claims().await.is_err(), "{name}: another one");
    }
}

/// The names of one issuer must agree about what its names are. A lookup whose answers never agree
/// is called again after a second, not with each request.
#[tokio::test]
async fn an_answer_ends_that_lacks_another_name_of_the_issuer() {
    const A: &str = "https://a.example/";
    const B: &str = "https://b.example/";
    const C: &str = "https://c.example/";
    struct Case {
        name: &'static str,
        /// The issuer that the lookup returns for each name: its aliases, and its leeway.
        records: &'static [(&'static str, &'static [&'static str], u64)],
        /// How often the lookup is called by one token of each name: at first, at once, after a
        /// second, at once, and after another second.
        calls: [usize; 5],
    }

    let keys = TestIssuer::offline_with(A, Algorithm::EdDSA).unwrap();
    for Case { name, records, calls } in [
        Case {
            name: "the same names",
            records: &[(A, &[B], 0), (B, &[A], 0)],
            calls: [2, 0, 0, 0, 0],
        },
        Case {
            name: "one lacks the other",
            records: &[(A, &[], 0), (B, &[A], 0)],
            calls: [2, 0, 1, 0, 0],
        },
        Case {
            name: "other settings under each name",
            records: &[(A, &[B], 1), (B, &[A], 2)],
            calls: [2, 0, 0, 0, 0],
        },
        Case {
            name: "in a circle",
            records: &[(A, &[B], 0), (B, &[C], 0), (C, &[A], 0)],
            calls: [3, 0, 3, 0, 3],
        },
    ] {
        let (clock, called) = (TestClock::new(), Arc::new(AtomicUsize::new(0)));
        keys.set_clock(&clock);
        let (count, jwks) = (Arc::clone(&called), keys.jwks());
        let issuers = Issuers::lookup(move |iss| {
            count.fetch_add(1, Ordering::SeqCst);
            let (iss, aliases, leeway) = records.iter().find(|(own, ..)| *own == iss)?;
            let issuer = Issuer::new(*iss, AUDIENCE).ok()?.jwks(jwks.clone());
            let issuer = issuer.leeway(Duration::from_secs(*leeway)).ok()?;
            aliases.iter().try_fold(issuer, |issuer, alias| issuer.alias(*alias)).ok()
        });
        let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
        let mut found = [0; 5];
        for (round, passes) in [0, 0, 1, 0, 1].into_iter().enumerate() {
            clock.advance(Duration::from_secs(passes));
            let before = called.load(Ordering::SeqCst);
            for (iss, ..) in records {
                let token = keys.token().issued_by(iss).build();
                assert_eq!(verdict(&verifier, &token).await, "ok", "{name}: {iss}");
            }
            found[round] = called.load(Ordering::SeqCst) - before;
        }
        assert_eq!(found, calls, "{name}");
    }
}
