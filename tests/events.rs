//! The names that logs, dashboards and alerts depend on: `docs/operations.md` lists them, and they
//! are stable.
//!
//! A single test in its process: a thread's subscriber misses events whose call sites another
//! thread reached first.

#[path = "support/eventually.rs"]
mod eventually;
#[path = "support/verdict.rs"]
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use eventually::eventually;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use portcullis::testing::{
    AUDIENCE, Behavior, DpopClient, StoreBehavior, TestClock, TestIssuer, TestStore, TokenBuilder,
};
use portcullis::{
    AccessToken, Algorithm, ApiKey, ApiKeys, BackChannelLogout, CertificateHeader, ClientAuth,
    ClientCertificates, Dpop, Introspection, Issuer, Issuers, Nonces, ProtectLayer, Revocations,
    SecurityEvents, StatusLists, Verifier,
};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use verdict::verdict;

/// The issuer of the API keys.
const KEYS: &str = "https://keys.example/";

/// Records `LEVEL event field field …`, with the values of some fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>);

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: Context<'_, S>,
    ) {
        if attributes.metadata().target() == "portcullis" {
            assert_eq!(attributes.metadata().name(), "verify_access_token");
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "portcullis" {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = format!(
            "{} {}",
            event.metadata().level(),
            fields.0.remove("event").unwrap_or_default()
        );
        assert!(fields.0.remove("message").is_some(), "{line}");
        for (name, value) in fields.0 {
            let told = [
                "outcome",
                "reason",
                "changed",
                "keys",
                "suppressed",
                "usable_for_s",
                "configured",
                "pointer",
                "ignored_keys",
                "kind",
            ]
            .contains(&name);
            let told = told || value == KEYS || value.starts_with("acme_live_");
            line += &if told { format!(" {name}={value}") } else { format!(" {name}") };
        }
        self.0.lock().unwrap().push(line);
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn events_and_metrics_have_stable_names() {
    let (log, recorder) = (Log::default(), DebuggingRecorder::new());
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let _subscriber =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let said = |expected: &[&str]| assert_eq!(log.take(), expected);

    let (issuer, clock) = (TestIssuer::start_with(Algorithm::EdDSA).unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let fetched = async |times| {
        eventually("the fetch ends", || verifier.health()[0].fetches >= times).await;
    };
    // A release build with `testing` logs a warning; so does a machine without root certificates.
    let warned = log.take().contains(&"WARN testing_in_release".to_owned());
    let is_release = std::env::var_os("EXPECT_RELEASE_WARNING").is_some();
    assert_eq!(warned, is_release || !cfg!(debug_assertions));

    let good = || issuer.token().build();
    assert_eq!(verdict(&verifier, &good()).await, "ok");
    assert_eq!(log.1.load(Ordering::SeqCst), 1, "one span around the wait for keys");
    said(&[
        "INFO keys_fetched changed=true ignored ignored_keys=0 issuer keys=1 lifetime_s suppressed=0",
    ]);

    // Unknown keys: fetched and missing, remembered as missing, and one after the budget is spent.
    let kid = |kid: &str| issuer.token().header("kid", kid).build();
    clock.advance(Duration::from_secs(10));
    assert_eq!(verdict(&verifier, &kid("a")).await, "unknown_key");
    said(&[
        "DEBUG unknown_kid issuer outcome=fetched",
        "INFO keys_fetched changed=false ignored ignored_keys=0 issuer keys=1 lifetime_s suppressed=0",
        "DEBUG unknown_kid issuer outcome=missing",
        "DEBUG token_rejected alg issuer kid reason=unknown_key",
    ]);
    for name in ["b", "c"] {
        assert_eq!(verdict(&verifier, &kid(name)).await, "unknown_key");
        assert_eq!(log.take().first().unwrap(), "DEBUG unknown_kid issuer outcome=fetched");
    }
    for (name, outcome) in [("a", "remembered"), ("d", "cooling_down")] {
        assert_eq!(verdict(&verifier, &kid(name)).await, "unknown_key");
        let unknown = format!("DEBUG unknown_kid issuer outcome={outcome}");
        said(&[&unknown, "DEBUG token_rejected alg issuer kid reason=unknown_key"]);
    }

    // An outage: the refresh fails. The use of keys past their lifetime is logged once.
    issuer.set_behavior(Behavior::Status(404));
    clock.advance(Duration::from_secs(550));
    assert_eq!(verdict(&verifier, &good()).await, "ok");
    fetched(5).await;
    said(&["WARN key_fetch_failed error issuer retry_after_s suppressed=0"]);
    clock.advance(Duration::from_secs(50));
    for _ in 0..2 {
        assert_eq!(verdict(&verifier, &good()).await, "ok");
        fetched(6).await;
    }
    assert_eq!(
        BTreeSet::from_iter(log.take()),
        BTreeSet::from_iter(
            [
                "WARN keys_stale issuer usable_for_s=3600",
                "WARN key_fetch_failed error issuer retry_after_s suppressed=0"
            ]
            .map(String::from)
        )
    );
    issuer.set_behavior(Behavior::Serve);
    clock.advance(Duration::from_secs(30));
    assert_eq!(verdict(&verifier, &good()).await, "ok");
    fetched(7).await;
    said(&[
        "INFO keys_fetched changed=false ignored ignored_keys=0 issuer keys=1 lifetime_s suppressed=0",
    ]);

    // A second outage is logged again.
    issuer.set_behavior(Behavior::Status(404));
    clock.advance(Duration::from_secs(550));
    assert_eq!(verdict(&verifier, &good()).await, "ok");
    fetched(8).await;
    clock.advance(Duration::from_secs(50));
    assert_eq!(verdict(&verifier, &good()).await, "ok");
    fetched(9).await;
    assert_eq!(log.take().iter().filter(|line| line.contains("keys_stale")).count(), 1);
    issuer.set_behavior(Behavior::Serve);
    clock.advance(Duration::from_secs(30));
    assert_eq!(verdict(&verifier, &good()).await, "ok");
    fetched(10).await;
    log.take();

    // Rejections of tokens and of requests.
    let layer = ProtectLayer::new(verifier.clone()).scope("orders:read");
    let app = layer.layer(axum::Router::<()>::new().route("/", get(async |_: AccessToken| "")));
    for (credentials, expected) in [
        (None, "DEBUG request_rejected reason=missing"),
        (Some("Bearer".to_owned()), "DEBUG request_rejected detail reason=invalid_request"),
        (
            Some(format!("Bearer {}", good())),
            "DEBUG request_rejected detail reason=insufficient_scope",
        ),
        (
            Some(format!("Bearer {}", issuer.token().expired().build())),
            "DEBUG token_rejected alg detail issuer kid reason=expired",
        ),
        (
            Some(format!("Bearer {}", issuer.token().issued_by("https://other.example/").build())),
            "DEBUG token_rejected alg detail kid reason=unknown_issuer",
        ),
        (Some("Bearer opaque".to_owned()), "DEBUG token_rejected detail reason=opaque"),
    ] {
        let request = credentials
            .into_iter()
            .fold(Request::get("/"), |request, one| request.header("authorization", one));
        app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        said(&[expected]);
    }
    let admins = ProtectLayer::new(verifier.clone()).role("admin");
    let admins = admins.layer(axum::Router::<()>::new().route("/", get(async || "")));
    let request = Request::get("/").header("authorization", format!("Bearer {}", good()));
    admins.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    said(&["DEBUG request_rejected detail reason=forbidden"]);
    let unprotected = axum::Router::<()>::new().route("/", get(async |_: AccessToken| ""));
    unprotected.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    said(&["ERROR not_protected"]);

    // Failed lookups are all counted and logged once per second. Unusable answers are logged as
    // well.
    let broken = Issuers::lookup_async(|_| async {
        Err::<Option<Issuer>, _>("the database is unavailable")
    });
    let broken = Verifier::builder(broken).clock(&clock).build().unwrap();
    for (passes, expected) in [(0, Some(0)), (0, None), (0, None), (1, Some(2))] {
        clock.advance(Duration::from_secs(passes));
        assert_eq!(verdict(&broken, &good()).await, "lookup_failed");
        let mut lines = log.take();
        assert_eq!(
            lines.pop().unwrap(),
            "DEBUG token_rejected alg detail kid reason=lookup_failed"
        );
        let expected =
            expected.map(|suppressed| format!("ERROR lookup_failed error suppressed={suppressed}"));
        assert_eq!(lines, Vec::from_iter(expected));
    }
    let wrong =
        Verifier::new(Issuers::lookup(|_| Issuer::new("https://other.example/", AUDIENCE).ok()))
            .unwrap();
    assert_eq!(verdict(&wrong, &good()).await, "unknown_issuer");
    said(&[
        "WARN lookup_unusable error issuer suppressed=0",
        "DEBUG token_rejected alg detail kid reason=unknown_issuer",
    ]);

    // API keys are named by their issuer and their public identifier.
    let (key, other) =
        (ApiKey::generate("acme_live").unwrap(), ApiKey::generate("acme_live").unwrap());
    let record = ApiKey::new("worker", key.hash().clone());
    let keys = ApiKeys::lookup(KEYS, "acme_live", move |_| {
        std::future::ready(Ok::<_, Infallible>(Some(record.clone())))
    });
    let with_keys = Verifier::builder(Issuers::none()).api_keys(keys.unwrap()).clock(&clock);
    let with_keys = with_keys.build().unwrap();
    assert_eq!(verdict(&with_keys, key.expose_key()).await, "ok");
    said(&[]);
    assert_eq!(verdict(&with_keys, other.expose_key()).await, "unknown_api_key");
    let id = other.hash().id();
    said(&[
        "WARN lookup_unusable error issuer=https://keys.example/ suppressed=0",
        &format!(
            "DEBUG token_rejected detail issuer=https://keys.example/ kid={id} reason=unknown_api_key"
        ),
    ]);

    // Failed checks of the application as well.
    let check = async |_, _| Err::<bool, _>("the policy service is unavailable");
    let checked =
        ProtectLayer::new(Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap())
            .authorize(check)
            .layer(service_fn(async |_: Request<Body>| {
                Ok::<_, Infallible>(http::Response::new(Body::empty()))
            }));
    for (passes, expected) in [(0, Some(0)), (0, None), (1, Some(1))] {
        clock.advance(Duration::from_secs(passes));
        let request = Request::get("/").header("authorization", format!("Bearer {}", good()));
        let response = checked.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 503);
        let mut lines = log.take();
        lines.retain(|line| !line.contains("keys_fetched"));
        assert_eq!(lines.pop().unwrap(), "DEBUG request_rejected reason=authorization_failed");
        let expected = expected
            .map(|suppressed| format!("ERROR authorization_failed error suppressed={suppressed}"));
        assert_eq!(lines, Vec::from_iter(expected));
    }

    // Questions about opaque tokens: answered, refused, unusable, suspended and resumed.
    let asked = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    asked.set_clock(&clock);
    let introspection = Introspection::new(ClientAuth::client_secret("orders-api", "secret"));
    let asking = Verifier::builder(asked.issuer().introspection(introspection)).clock(&clock);
    let asking = asking.build().unwrap();
    let opaque = || asked.opaque_token(asked.token());
    assert_eq!(verdict(&asking, &opaque()).await, "ok");
    said(&[]);
    assert_eq!(verdict(&asking, "unknown").await, "inactive");
    said(&["DEBUG token_rejected detail issuer reason=inactive"]);
    let for_another_api = asked.opaque_token(asked.token().audience("x"));
    assert_eq!(verdict(&asking, &for_another_api).await, "wrong_audience");
    said(&["DEBUG token_rejected detail issuer reason=wrong_audience"]);
    for (behavior, event) in [
        (Behavior::Status(403), "ERROR introspection_refused error issuer suppressed=0"),
        (Behavior::Body("{}".to_owned()), "WARN introspection_failed error issuer suppressed=0"),
    ] {
        asked.set_introspection_behavior(behavior);
        assert_eq!(verdict(&asking, &opaque()).await, "introspection_unavailable");
        said(&[event, "DEBUG token_rejected detail issuer reason=introspection_unavailable"]);
    }
    asked.set_introspection_behavior(Behavior::Status(503));
    for failures in 1..=5 {
        assert_eq!(verdict(&asking, &opaque()).await, "introspection_unavailable");
        let mut lines = log.take();
        lines.retain(|line| !line.starts_with("DEBUG token_rejected"));
        let suspended = ["WARN introspection_suspended issuer suspended_s"];
        assert_eq!(lines, if failures == 5 { &suspended[..] } else { &[] }, "{failures}");
    }
    asked.set_introspection_behavior(Behavior::Serve);
    clock.advance(Duration::from_secs(1));
    assert_eq!(verdict(&asking, &opaque()).await, "ok");
    said(&["INFO introspection_resumed issuer"]);

    // DPoP proofs, whose use is recorded in a store that fails for a while, and certificates.
    let store = TestStore::new();
    let dpop = Dpop::new("https://api.example.com").unwrap().share_replays(store.clone());
    let certificates = ClientCertificates::forwarded(CertificateHeader::rfc9440(), |request| {
        request.headers.contains_key("x-proxy")
    });
    let bound = Verifier::builder(issuer.issuer()).clock(&clock).dpop(dpop);
    let bound = bound.client_certificates(certificates).build().unwrap();
    assert!(bound.warm_up().await.is_ok());
    log.take();
    let _ = ProtectLayer::new(verifier.clone()).bound();
    said(&["WARN bound_without_binding"]);
    let _ = ProtectLayer::new(bound.clone()).bound();
    said(&[]);
    let bound = ProtectLayer::new(bound).layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(http::Response::new(Body::empty()))
    }));
    let client = DpopClient::new().unwrap();
    let token = issuer.token().bound_to(&client).build();
    let proof = || client.proof("GET", "https://api.example.com/", &token).at(clock.now()).build();
    let send = async |proof: &str| {
        let request = Request::get("/").header("authorization", format!("DPoP {token}"));
        let request = request.header("dpop", proof).body(Body::empty()).unwrap();
        bound.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    log.take();
    let used = proof();
    assert_eq!(send(&used).await, 200);
    said(&[]);
    for (proof, reason) in [(&*used, "proof_used"), ("x", "proof_malformed")] {
        assert_eq!(send(proof).await, 401);
        said(&[&format!("DEBUG request_rejected detail reason={reason}")]);
    }
    store.set_behavior(StoreBehavior::Fail);
    for failures in 0..4 {
        assert_eq!(send(&proof()).await, 503);
        let mut lines = log.take();
        assert_eq!(lines.pop().unwrap(), "DEBUG request_rejected reason=replays_unavailable");
        let logged = ["ERROR replays_unavailable error suppressed=0"];
        assert_eq!(lines, if failures == 0 { &logged[..] } else { &[] }, "{failures}");
    }
    store.set_behavior(StoreBehavior::Normal);
    clock.advance(Duration::from_secs(1));
    assert_eq!(send(&proof()).await, 200);
    said(&["INFO replays_available"]);

    // A proof without a nonce, and more proofs of one key than its share.
    let limited = Dpop::new("https://api.example.com").unwrap();
    let limited = limited.nonces(Nonces::new([[7; 32]]).unwrap()).max_proofs_per_key(1).unwrap();
    let limited = Verifier::builder(issuer.issuer()).clock(&clock).dpop(limited).build().unwrap();
    assert!(limited.warm_up().await.is_ok());
    let limited = ProtectLayer::new(limited).layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(http::Response::new(Body::empty()))
    }));
    let send = async |nonce: &str| {
        let proof = client.proof("GET", "https://api.example.com/", &token).at(clock.now());
        let proof = if nonce.is_empty() { proof } else { proof.nonce(nonce) };
        let request = Request::get("/").header("authorization", format!("DPoP {token}"));
        let request = request.header("dpop", proof.build()).body(Body::empty()).unwrap();
        limited.clone().oneshot(request).await.unwrap()
    };
    log.take();
    let response = send("").await;
    said(&["DEBUG request_rejected detail reason=proof_nonce_needed"]);
    let nonce = response.headers()["dpop-nonce"].to_str().unwrap();
    assert_eq!(send(nonce).await.status(), 200);
    assert_eq!(send(nonce).await.status(), 429);
    said(&["DEBUG request_rejected reason=too_many_proofs"]);
    // Without a store, a proof is counted when it is accepted.
    let offline = TestIssuer::offline("https://offline.example/").unwrap();
    offline.set_clock(&clock);
    let dpop = Dpop::new("https://api.example.com").unwrap();
    let alone = Verifier::builder(offline.issuer()).clock(&clock).dpop(dpop).build().unwrap();
    let token = offline.token().bound_to(&client).build();
    let proof = client.proof("GET", "https://api.example.com/", &token).at(clock.now()).build();
    let request = Request::get("/").header("authorization", format!("DPoP {token}"));
    let request = request.header("dpop", proof).body(()).unwrap();
    let accepted = ProtectLayer::new(alone).verify_request(&request.into_parts().0).await;
    assert!(accepted.is_ok());
    said(&[]);
    let token = issuer.token().bound_to_certificate(b"certificate").build();
    for (name, event) in [
        ("x-other", "WARN client_certificate_untrusted suppressed=0"),
        ("x-proxy", "ERROR client_certificate_unreadable expected suppressed=0"),
    ] {
        let request = Request::get("/").header("authorization", format!("Bearer {token}"));
        let request = request.header("client-cert", "x").header(name, "").body(Body::empty());
        assert_eq!(bound.clone().oneshot(request.unwrap()).await.unwrap().status(), 401);
        said(&[event, "DEBUG token_rejected alg detail issuer kid reason=certificate_missing"]);
    }

    // Resolved issuers share one label.
    let resolved =
        Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok()).danger_allow_private_addresses();
    let resolved = Verifier::builder(resolved).clock(&clock).build().unwrap();
    assert_eq!(verdict(&resolved, &good()).await, "ok");

    // Their fetches are logged once per second at most, and the metrics count all of them.
    let others: Vec<_> =
        (0..5).map(|_| TestIssuer::start_with(Algorithm::EdDSA).unwrap()).collect();
    log.take();
    for other in &others {
        other.set_clock(&clock);
        assert_eq!(verdict(&resolved, &other.token().build()).await, "ok");
    }
    said(&[]);
    clock.advance(Duration::from_secs(1));
    let another = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    another.set_clock(&clock);
    assert_eq!(verdict(&resolved, &another.token().build()).await, "ok");
    said(&[
        "INFO keys_fetched changed=true ignored ignored_keys=0 issuer keys=1 lifetime_s suppressed=5",
    ]);

    // A truncated set, with some of the reasons.
    let large = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    large.set_clock(&clock);
    for _ in 0..500 {
        large.publish(serde_json::json!({ "kty": "AKP" }));
    }
    let cut = Verifier::builder(large.issuer()).clock(&clock).build().unwrap();
    large.rotate().unwrap();
    assert_eq!(
        verdict(&cut, &large.token().build()).await,
        "keys_unavailable",
        "the usable keys come last"
    );
    log.take();
    large.set_behavior(Behavior::Body({
        let mut set = large.jwks_json();
        set["keys"].as_array_mut().unwrap().reverse();
        let keys_uri = format!("{}.well-known/jwks.json", large.iss());
        serde_json::json!({ "keys": set["keys"], "issuer": large.iss(), "jwks_uri": keys_uri })
            .to_string()
    }));
    clock.advance(Duration::from_secs(60));
    assert_eq!(verdict(&cut, &large.token().build()).await, "ok");
    said(&[
        "INFO keys_fetched changed=true ignored ignored_keys=499 issuer keys=2 lifetime_s suppressed=0",
        "WARN key_set_cut issuer keys=2",
    ]);

    // A dotted path matches nothing, but the intended claim exists: logged once.
    let dotted = issuer.issuer().roles_at(["realm_access.roles"]);
    let dotted = Verifier::builder(dotted).clock(&clock).build().unwrap();
    let token =
        issuer.token().claim("realm_access", serde_json::json!({ "roles": ["admin"] })).build();
    let token = dotted.verify(&token).await.unwrap();
    log.take();
    assert!(!token.has_role("admin") && !token.has_role("admin"));
    said(&["WARN dotted_claim_path configured=realm_access.roles pointer=/realm_access/roles"]);

    // A status list: fetched, then missing, and one more than are kept.
    let (lists, time) = (TestIssuer::start_with(Algorithm::EdDSA).unwrap(), TestClock::new());
    lists.set_clock(&time);
    let config = lists.issuer().jwks(lists.jwks()).status_lists(StatusLists::new());
    let listed = Verifier::builder(config).clock(&time).build().unwrap();
    let token = lists.token().status(&lists.status_list(), 0).build();
    log.take();
    assert_eq!(verdict(&listed, &token).await, "ok");
    said(&["INFO status_list_fetched changed=true issuer lifetime_s suppressed=0 took_s"]);
    lists.set_status_list_behavior(Behavior::Status(404));
    time.advance(Duration::from_secs(400));
    assert_eq!(verdict(&listed, &token).await, "revocations_unavailable");
    said(&[
        "WARN status_list_failed error issuer retry_after_s suppressed=0 took_s",
        "DEBUG token_rejected alg detail issuer kid reason=revocations_unavailable",
    ]);
    for number in 0..64 {
        let uri = format!("{}?{number}", lists.status_list().uri());
        let status = serde_json::json!({ "status_list": { "idx": 0, "uri": uri } });
        let token = lists.token().claim("status", status).build();
        assert_eq!(verdict(&listed, &token).await, "revocations_unavailable");
    }
    assert!(
        log.take().contains(&"ERROR status_lists_full expected issuer suppressed=0".to_owned())
    );

    // Revocations that replicas share, and what issuers send.
    tokio::time::pause();
    let (store, time) = (TestStore::new(), TestClock::new());
    let sender = TestIssuer::offline("https://sender.example/").unwrap();
    sender.set_clock(&time);
    let revocations = Revocations::shared(store.clone());
    let revoking = Verifier::builder(sender.issuer()).clock(&time).revocations(&revocations);
    let revoking = revoking.build().unwrap();
    revoking.warm_up().await.unwrap();
    said(&["INFO revocations_read entries"]);
    let token = sender.token().subject("alice").build();
    store.set_behavior(StoreBehavior::Fail);
    tokio::time::sleep(Duration::from_secs(2)).await;
    said(&["ERROR revocations_stale age_s error suppressed=0"]);
    let logout = BackChannelLogout::new(&revoking, &revocations, ["app"]);
    let log_out = async |token: TokenBuilder| {
        let request = Request::post("/");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(Body::from(format!("logout_token={}", token.build()))).unwrap();
        logout.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let logout_token = || sender.logout_token("app").subject("alice");
    assert_eq!(log_out(logout_token()).await, 503);
    said(&["ERROR revocation_not_recorded error suppressed=0"]);
    store.set_behavior(StoreBehavior::Normal);
    tokio::time::sleep(Duration::from_secs(1)).await;
    said(&["INFO revocations_read entries"]);
    assert_eq!(log_out(logout_token()).await, 200);
    said(&["INFO revocation_received issuer kind=subject suppressed=0"]);
    assert_eq!(log_out(logout_token().audience("other")).await, 400);
    said(&["WARN logout_rejected expected suppressed=0"]);
    assert_eq!(verdict(&revoking, &token).await, "revoked");
    said(&["DEBUG token_rejected alg detail issuer kid reason=revoked"]);
    let events = SecurityEvents::new(&revoking, &revocations, "receiver");
    let subject = serde_json::json!({ "format": "email", "email": "a@b" });
    for (audience, event) in [
        ("receiver", "INFO security_event_ignored issuer name suppressed=0"),
        ("other", "WARN security_event_rejected expected reason=invalid_audience suppressed=0"),
    ] {
        let token = sender.security_event(audience, "urn:event", subject.clone()).build();
        let request = Request::post("/").header("content-type", "application/secevent+jwt");
        let request = request.body(Body::from(token)).unwrap();
        events.clone().oneshot(request).await.unwrap();
        said(&[event]);
    }
    tokio::time::resume();

    // An MCP server, whose bodies are read.
    let mcp = portcullis::mcp::McpLayer::new(layer.clone()).unwrap();
    let mcp = mcp.tool("admin", portcullis::Rule::role("admin"));
    let token = issuer.token().scope("orders:read").build();
    let request = Request::post("/").header("authorization", format!("Bearer {token}"));
    let request = request.body(Body::from("{")).unwrap();
    log.take();
    let response = mcp.layer(axum::Router::<()>::new()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);
    said(&["DEBUG mcp_request_rejected detail reason=mcp_parse_error"]);

    // Outcomes of requests, which only metrics record: three with one token, one without, and one
    // that could not be verified.
    let token = issuer.token().scope("orders:read").build();
    let router = || axum::Router::<()>::new().route("/", get(async || ""));
    let call = async |layer: &ProtectLayer, token: Option<&str>| {
        let request = token.iter().fold(Request::get("/"), |request, token| {
            request.header("authorization", format!("Bearer {token}"))
        });
        layer
            .layer(router())
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let spans = log.1.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(call(&layer, Some(&token)).await, 200);
    }
    assert_eq!(log.1.load(Ordering::SeqCst), spans, "no span if nothing has to be fetched");
    assert_eq!(call(&layer.clone().allow_anonymous(), None).await, 200);
    assert_eq!(call(&ProtectLayer::new(broken), Some(&token)).await, 503);

    let mut metrics = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels = key.key().labels().map(|label| {
            let value = match label.value() {
                iss if iss == issuer.iss() => "ISS",
                iss if iss == large.iss() => "LARGE",
                iss if iss == asked.iss() => "ASKED",
                iss if iss == lists.iss() => "LISTS",
                other => other,
            };
            format!("{}={value}", label.key())
        });
        let value = match value {
            DebugValue::Counter(count) => count.to_string(),
            DebugValue::Gauge(_) => "a value".to_owned(),
            DebugValue::Histogram(durations) => format!("{} times", durations.len()),
        };
        metrics.insert(
            format!("{} {}", key.key().name(), labels.collect::<Vec<_>>().join(" ")),
            value,
        );
    }
    let metrics: Vec<_> = metrics.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(
        metrics,
        [
            "portcullis_introspection_duration_seconds issuer=ASKED outcome=active: 2 times",
            "portcullis_introspection_duration_seconds issuer=ASKED outcome=failed: 7 times",
            "portcullis_introspection_duration_seconds issuer=ASKED outcome=inactive: 1 times",
            "portcullis_introspection_duration_seconds issuer=ASKED outcome=rejected: 1 times",
            "portcullis_introspections_total issuer=ASKED outcome=active: 2",
            "portcullis_introspections_total issuer=ASKED outcome=failed: 7",
            "portcullis_introspections_total issuer=ASKED outcome=inactive: 1",
            "portcullis_introspections_total issuer=ASKED outcome=rejected: 1",
            "portcullis_key_fetch_duration_seconds issuer=ISS outcome=changed: 5 times",
            "portcullis_key_fetch_duration_seconds issuer=ISS outcome=failed: 4 times",
            "portcullis_key_fetch_duration_seconds issuer=ISS outcome=unchanged: 5 times",
            "portcullis_key_fetch_duration_seconds issuer=LARGE outcome=changed: 1 times",
            "portcullis_key_fetch_duration_seconds issuer=LARGE outcome=failed: 1 times",
            "portcullis_key_fetch_duration_seconds issuer=resolved outcome=changed: 7 times",
            "portcullis_key_fetches_total issuer=ISS outcome=changed: 5",
            "portcullis_key_fetches_total issuer=ISS outcome=failed: 4",
            "portcullis_key_fetches_total issuer=ISS outcome=unchanged: 5",
            "portcullis_key_fetches_total issuer=LARGE outcome=changed: 1",
            "portcullis_key_fetches_total issuer=LARGE outcome=failed: 1",
            "portcullis_key_fetches_total issuer=resolved outcome=changed: 7",
            "portcullis_keys_fetched_at_seconds issuer=ISS: a value",
            "portcullis_keys_fetched_at_seconds issuer=LARGE: a value",
            "portcullis_lookup_failures_total : 5",
            "portcullis_proofs_total outcome=accepted: 4",
            "portcullis_proofs_total outcome=nonce_needed: 1",
            "portcullis_proofs_total outcome=rejected: 1",
            "portcullis_proofs_total outcome=too_many: 1",
            "portcullis_proofs_total outcome=unavailable: 4",
            "portcullis_proofs_total outcome=used: 1",
            "portcullis_rejections_total reason=authorization_failed: 3",
            "portcullis_rejections_total reason=certificate_missing: 2",
            "portcullis_rejections_total reason=expired: 1",
            "portcullis_rejections_total reason=forbidden: 1",
            "portcullis_rejections_total reason=inactive: 1",
            "portcullis_rejections_total reason=insufficient_scope: 1",
            "portcullis_rejections_total reason=introspection_unavailable: 7",
            "portcullis_rejections_total reason=invalid_request: 1",
            "portcullis_rejections_total reason=keys_unavailable: 1",
            "portcullis_rejections_total reason=lookup_failed: 5",
            "portcullis_rejections_total reason=mcp_parse_error: 1",
            "portcullis_rejections_total reason=missing: 1",
            "portcullis_rejections_total reason=opaque: 1",
            "portcullis_rejections_total reason=proof_malformed: 1",
            "portcullis_rejections_total reason=proof_nonce_needed: 1",
            "portcullis_rejections_total reason=proof_used: 1",
            "portcullis_rejections_total reason=replays_unavailable: 4",
            "portcullis_rejections_total reason=revocations_unavailable: 65",
            "portcullis_rejections_total reason=revoked: 1",
            "portcullis_rejections_total reason=too_many_proofs: 1",
            "portcullis_rejections_total reason=unknown_api_key: 1",
            "portcullis_rejections_total reason=unknown_issuer: 2",
            "portcullis_rejections_total reason=unknown_key: 5",
            "portcullis_rejections_total reason=wrong_audience: 1",
            "portcullis_replays_kept : a value",
            "portcullis_requests_total outcome=accepted: 7",
            "portcullis_requests_total outcome=anonymous: 1",
            "portcullis_requests_total outcome=rejected: 14",
            "portcullis_requests_total outcome=unavailable: 8",
            "portcullis_revocations_kept : a value",
            "portcullis_revocations_read_at_seconds : a value",
            "portcullis_revocations_total outcome=failed: 1",
            "portcullis_revocations_total outcome=recorded: 1",
            "portcullis_stale_serves_total issuer=ISS: 5",
            "portcullis_status_list_fetch_duration_seconds issuer=LISTS outcome=changed: 1 times",
            "portcullis_status_list_fetch_duration_seconds issuer=LISTS outcome=failed: 64 times",
            "portcullis_status_list_fetches_total issuer=LISTS outcome=changed: 1",
            "portcullis_status_list_fetches_total issuer=LISTS outcome=failed: 64",
            "portcullis_token_cache_total outcome=hit: 10",
            "portcullis_token_cache_total outcome=miss: 123",
            "portcullis_unknown_kids_total issuer=ISS outcome=cooling_down: 1",
            "portcullis_unknown_kids_total issuer=ISS outcome=fetched: 3",
            "portcullis_unknown_kids_total issuer=ISS outcome=missing: 3",
            "portcullis_unknown_kids_total issuer=ISS outcome=remembered: 1",
        ]
    );
}

/// The variables are read when an HTTP client is created, so the test runs itself with them.
#[cfg(all(feature = "aws-lc-rs", target_os = "linux"))]
#[test]
fn a_system_without_root_certificates_is_logged() {
    const NAME: &str = "a_system_without_root_certificates_is_logged";
    let variables = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    let nowhere = "/dev/null";
    if variables.iter().any(|name| std::env::var_os(name).is_none_or(|value| value != nowhere)) {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args([NAME, "--exact"]).envs(variables.map(|name| (name, nowhere)));
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let issuer = Issuer::new("https://issuer.example/", AUDIENCE).unwrap();
    assert!(Verifier::new(issuer).is_ok(), "http on loopback still works");
    let lines = log.take();
    assert!(lines.contains(&"WARN no_root_certificates error".to_owned()), "{lines:?}");
}
