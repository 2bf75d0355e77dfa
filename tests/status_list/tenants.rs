//! Status lists of issuers that come from a lookup, in a process of its own: the limits of
//! concurrent fetches are those of the process.

#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/verdict.rs"]
mod verdict;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventually::eventually;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Issuer, Issuers, StatusLists, Verifier};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use verdict::verdict;

const MIB: usize = 1024 * 1024;

/// Serves the lists of all tenants, which have the same key.
struct Tenants {
    keys: TestIssuer,
    clock: TestClock,
    /// Two names of one server. The fetches from one origin are limited by themselves.
    origins: [String; 2],
    served: Arc<Served>,
}

#[derive(Default)]
struct Served {
    lists: Mutex<HashMap<String, String>>,
    hangs: AtomicBool,
    released: Notify,
    /// Requests in progress, by the first segment of the path, which names the tenant.
    in_progress: Mutex<HashMap<String, usize>>,
    asked: AtomicUsize,
}

impl Served {
    async fn respond(&self, path: &str) -> String {
        let tenant = path.split('/').nth(1).unwrap_or_default().to_owned();
        *self.in_progress.lock().unwrap().entry(tenant.clone()).or_default() += 1;
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            self.released.notified().await;
        }
        *self.in_progress.lock().unwrap().entry(tenant).or_default() -= 1;
        self.lists.lock().unwrap().get(path).cloned().unwrap_or_default()
    }
}

impl Tenants {
    async fn start() -> Self {
        let served = Arc::<Served>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let origins = ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{port}"));
        let app = {
            let served = Arc::clone(&served);
            axum::Router::new()
                .fallback(async move |uri: axum::http::Uri| served.respond(uri.path()).await)
        };
        tokio::spawn(async move { axum::serve(listener, app).await });
        let (keys, clock) =
            (TestIssuer::offline("https://keys.example/").unwrap(), TestClock::new());
        keys.set_clock(&clock);
        Self { keys, clock, origins, served }
    }

    /// `leeway`: in seconds. A change of it is a change of every tenant.
    fn verifier(&self, leeway: &Arc<AtomicU64>) -> Verifier {
        let (jwks, origins, leeway) = (self.keys.jwks(), self.origins.clone(), Arc::clone(leeway));
        let issuers = Issuers::lookup(move |iss| {
            let issuer = Issuer::new(iss, AUDIENCE).ok()?.jwks(jwks.clone());
            let issuer = issuer.keys_fetch_timeout(Duration::from_secs(30)).ok()?;
            let leeway = Duration::from_secs(leeway.load(Ordering::SeqCst));
            let lists = StatusLists::new().allow_origin(&origins[0]).ok()?;
            let lists = lists.allow_origin(&origins[1]).ok()?;
            Some(issuer.leeway(leeway).ok()?.status_lists(lists))
        });
        let issuers = issuers.danger_allow_private_addresses();
        Verifier::builder(issuers).clock(&self.clock).build().unwrap()
    }

    fn uri(&self, tenant: usize, list: usize) -> String {
        format!("{}/{tenant}/{list}", self.origins[tenant % 2])
    }

    /// A token of this tenant, whose status is in this list of its own.
    fn token(&self, tenant: usize, list: usize) -> String {
        let iss = format!("https://{tenant}.example/");
        let status = json!({ "idx": 0, "uri": self.uri(tenant, list) });
        let token = self.keys.token().issued_by(&iss).valid_for(Duration::from_secs(7200));
        token.claim("status", json!({ "status_list": status })).build()
    }

    fn serve(&self, tenant: usize, list: usize, lst: &str) {
        let path = format!("/{tenant}/{list}");
        let token = self.keys.status_list_token().subject(&self.uri(tenant, list));
        let token = token.claim("status_list", json!({ "bits": 8, "lst": lst })).build();
        self.served.lists.lock().unwrap().insert(path, token);
    }
}

fn packed(bytes: usize) -> String {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&vec![0; bytes]).unwrap();
    URL_SAFE_NO_PAD.encode(packed.finish().unwrap())
}

fn bytes(verifier: &Verifier) -> usize {
    verifier.health().into_iter().filter_map(|issuer| Some(issuer.status_lists?.bytes)).sum()
}

/// A single test, whose parts share the limits of the process.
#[tokio::test]
async fn tenants_share_what_lists_take() {
    let tenants = Tenants::start().await;
    let leeway = Arc::new(AtomicU64::new(30));
    let (large, small) = (packed(16 * MIB), packed(1024));

    // Memory: each tenant takes what it may, and leaves room for the small lists of others.
    let verifier = tenants.verifier(&leeway);
    let mut kept = Vec::new();
    for (tenant, expected) in [(0, 4), (1, 4), (2, 4), (3, 2), (4, 1), (5, 0), (6, 0)] {
        let mut accepted = 0;
        for list in 0..4 {
            tenants.serve(tenant, list, &large);
            if let Ok(token) = verifier.verify(&tenants.token(tenant, list)).await {
                accepted += 1;
                kept.push(token);
            }
        }
        assert_eq!(accepted, expected, "{tenant}");
    }
    assert_eq!(bytes(&verifier), 15 * 16 * MIB);
    tenants.serve(7, 0, &small);
    assert_eq!(verdict(&verifier, &tenants.token(7, 0)).await, "ok");

    // What an issuer took that is no longer trusted as it was is free, even while its tokens are
    // kept.
    leeway.store(31, Ordering::SeqCst);
    tenants.clock.advance(Duration::from_secs(700));
    for tenant in 0..8 {
        let token = tenants.keys.token().issued_by(&format!("https://{tenant}.example/"));
        assert_eq!(verdict(&verifier, &token.build()).await, "ok", "{tenant}");
    }
    assert_eq!(bytes(&verifier), 0);
    for tenant in 0..2 {
        for list in 0..4 {
            let token = tenants.token(tenant, list);
            assert_eq!(verdict(&verifier, &token).await, "ok", "{tenant}, {list}");
        }
    }
    assert_eq!(kept.len(), 15);
    drop((verifier, kept));

    // Concurrency: hanging servers hold some of the fetches, and no tenant holds more than two.
    tenants.served.hangs.store(true, Ordering::SeqCst);
    let asked = || tenants.served.asked.load(Ordering::SeqCst);
    let before = asked();
    let verifier = tenants.verifier(&leeway);
    let mut requests = JoinSet::new();
    for tenant in 0..20 {
        for list in 0..4 {
            tenants.serve(tenant, list, &small);
            let (verifier, token) = (verifier.clone(), tenants.token(tenant, list));
            requests.spawn(async move { verdict(&verifier, &token).await });
        }
    }
    eventually("the places are taken", || asked() - before >= 16).await;
    assert_eq!(asked() - before, 16, "all tenants together");
    assert!(tenants.served.in_progress.lock().unwrap().values().all(|number| *number <= 2));
    // And the others are served as soon as there are places.
    tenants.served.hangs.store(false, Ordering::SeqCst);
    tenants.served.released.notify_waiters();
    let verdicts = requests.join_all().await;
    assert!(verdicts.iter().all(|verdict| *verdict == "ok"), "{verdicts:?}");
}

/// Each tenant has one list in any case. A configured issuer is not limited by what tenants take.
#[tokio::test]
async fn tenants_share_a_number_of_lists() {
    let (keys, configured) =
        (TestIssuer::offline("https://keys.example/").unwrap(), TestIssuer::start().unwrap());
    let jwks = keys.jwks();
    // Not fetched, because the addresses are private.
    let lookup = move |iss: &str| {
        let lists = StatusLists::new().allow_origin("https://127.0.0.1").ok()?;
        Some(Issuer::new(iss, AUDIENCE).ok()?.jwks(jwks.clone()).status_lists(lists))
    };
    let config = configured.issuer().jwks(configured.jwks()).status_lists(StatusLists::new());
    let verifier = Verifier::new(Issuers::lookup(lookup).with_issuers([config]).unwrap()).unwrap();
    for tenant in 0..30 {
        for list in 0..64 {
            let uri = format!("https://127.0.0.1/{tenant}/{list}");
            let token = keys.token().issued_by(&format!("https://{tenant}.example/"));
            let token = token.claim("status", json!({ "status_list": { "idx": 0, "uri": uri } }));
            assert_eq!(verdict(&verifier, &token.build()).await, "revocations_unavailable");
        }
    }
    let health = verifier.health();
    let lists = health.iter().filter(|issuer| &*issuer.iss != configured.iss());
    let lists: Vec<_> = lists.map(|issuer| issuer.status_lists.as_ref().unwrap().lists).collect();
    assert_eq!(lists.len(), 30);
    assert!(lists.iter().all(|lists| *lists >= 1), "{lists:?}");
    let all = lists.iter().sum::<usize>();
    assert!((1000..=1024 + 30).contains(&all), "{all}");
    for number in 0..64 {
        let uri = format!("{}?{number}", configured.status_list().uri());
        let status = json!({ "status_list": { "idx": 0, "uri": uri } });
        let token = configured.token().claim("status", status).build();
        let list = configured.status_list_token().subject(&uri).build();
        configured.set_status_list_behavior(portcullis::testing::Behavior::Body(list));
        assert_eq!(verdict(&verifier, &token).await, "ok", "{number}");
    }
}
