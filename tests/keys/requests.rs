//! The HTTP requests of a fetch: retries, hedged requests, redirects, time limits and clients.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use portcullis::testing::{AUDIENCE, Behavior, TestIssuer};
use portcullis::{Algorithm, Error, FetchError, Issuer, Verifier};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::scripted::{METADATA, ScriptedApi, Server, keys, reply};
use crate::verdict::verdict;

/// A dropped pooled connection and a transient server error do not fail a request.
#[tokio::test]
async fn transient_failures_are_retried_once() {
    struct Case {
        name: &'static str,
        /// Status and `Retry-After` of the first responses. Those after them are valid.
        answers: Vec<(u16, Option<&'static str>)>,
        expected: &'static str,
        requests: usize,
    }
    let cases = [
        Case { name: "no failure", answers: vec![], expected: "ok", requests: 1 },
        Case { name: "503 once", answers: vec![(503, None)], expected: "ok", requests: 2 },
        Case { name: "500 once", answers: vec![(500, None)], expected: "ok", requests: 2 },
        Case { name: "408 once", answers: vec![(408, None)], expected: "ok", requests: 2 },
        Case {
            name: "503 with Retry-After: 60",
            answers: vec![(503, Some("60"))],
            expected: "keys_unavailable",
            requests: 1,
        },
        Case {
            name: "503 twice",
            answers: vec![(503, None), (503, None)],
            expected: "keys_unavailable",
            requests: 2,
        },
        Case {
            name: "429 with Retry-After: 1",
            answers: vec![(429, Some("1"))],
            expected: "ok",
            requests: 2,
        },
        Case {
            name: "429 with Retry-After: 2",
            answers: vec![(429, Some("2"))],
            expected: "keys_unavailable",
            requests: 1,
        },
        Case {
            name: "429 with an invalid Retry-After",
            answers: vec![(429, None)],
            expected: "keys_unavailable",
            requests: 1,
        },
        Case {
            name: "429 with a date in Retry-After",
            answers: vec![(429, Some("Fri, 20 Nov 2026 12:00:00 GMT"))],
            expected: "keys_unavailable",
            requests: 1,
        },
        Case { name: "404", answers: vec![(404, None)], expected: "keys_unavailable", requests: 1 },
        Case { name: "403", answers: vec![(403, None)], expected: "keys_unavailable", requests: 1 },
    ];
    for Case { name, answers, expected, requests } in cases {
        let keys = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
        let jwks = keys.jwks_json().to_string();
        let (left, asked) =
            (Arc::new(Mutex::new(answers.into_iter())), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let router = Router::new().fallback(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            match left.lock().unwrap().next() {
                None => (StatusCode::OK, [(header::RETRY_AFTER, "0")], jwks.clone()),
                Some((status, retry_after)) => (
                    StatusCode::from_u16(status).unwrap(),
                    [(header::RETRY_AFTER, retry_after.unwrap_or("soon"))],
                    String::new(),
                ),
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let verifier =
            Verifier::new(Issuer::new(keys.iss(), AUDIENCE).unwrap().jwks_uri(&uri).unwrap())
                .unwrap();
        assert_eq!(verdict(&verifier, &keys.token().build()).await, expected, "{name}");
        assert_eq!(asked.load(Ordering::SeqCst), requests, "{name}");
    }
}

/// For a connection that was dropped without a reset, a second request is sent while the first
/// waits. Either may succeed.
#[tokio::test]
async fn a_late_request_is_hedged() {
    struct Case {
        name: &'static str,
        /// The status of each response, or `None` if there is no response.
        answers: [Option<u16>; 2],
        expected: &'static str,
    }
    for Case { name, answers, expected } in [
        Case { name: "the first is never answered", answers: [None, Some(200)], expected: "ok" },
        Case { name: "the second is never answered", answers: [Some(200), None], expected: "ok" },
        Case {
            name: "the second fails, the first is late",
            answers: [Some(200), Some(404)],
            expected: "ok",
        },
        Case { name: "both fail", answers: [Some(404), Some(404)], expected: "404" },
        Case { name: "neither is answered", answers: [None, None], expected: "timeout" },
    ] {
        let keys = keys();
        let (jwks, gate) = (keys.jwks_json().to_string(), Arc::new(Semaphore::new(0)));
        let server = Server::start(move |asked| {
            let (jwks, gate) = (jwks.clone(), Arc::clone(&gate));
            async move {
                // The first response waits until the second request has arrived.
                match asked.number {
                    1 => gate.acquire().await.unwrap().forget(),
                    _ => drop(tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        gate.add_permits(1);
                    })),
                }
                match answers[asked.number - 1] {
                    Some(status) => reply(status, jwks),
                    None => std::future::pending().await,
                }
            }
        })
        .await;
        let limit = Duration::from_millis(400);
        let uri = server.at("/keys");
        let api = ScriptedApi::new(&keys, |issuer| {
            issuer.jwks_uri(&uri).unwrap().keys_fetch_timeout(limit).unwrap()
        });
        match expected {
            "ok" => assert_eq!(api.good().await, "ok", "{name}"),
            "404" => {
                let failure = api.failure().await;
                assert!(matches!(failure, FetchError::Status { status: 404, .. }), "{name}");
            }
            _ => assert!(matches!(api.failure().await, FetchError::Timeout { .. }), "{name}"),
        }
        assert_eq!(server.asked().len(), 2, "{name}");
    }
}

#[tokio::test]
async fn one_time_limit_covers_metadata_keys_and_retries() {
    struct Case {
        name: &'static str,
        limit: Duration,
        delay: Duration,
        status: u16,
        asked: Vec<&'static str>,
    }
    for Case { name, limit, delay, status, asked } in [
        Case {
            name: "each within the limit, but not both",
            limit: Duration::from_millis(1000),
            delay: Duration::from_millis(600),
            status: 200,
            asked: vec![METADATA, "/keys"],
        },
        Case {
            name: "a retry after one second",
            limit: Duration::from_millis(400),
            delay: Duration::ZERO,
            status: 429,
            asked: vec![METADATA],
        },
    ] {
        let keys = keys();
        let jwks = keys.jwks_json().to_string();
        let server = Server::start(move |asked| {
            let jwks = jwks.clone();
            async move {
                tokio::time::sleep(delay).await;
                let uri = format!("{}/keys", asked.base);
                let metadata = json!({ "issuer": "https://issuer.example/", "jwks_uri": uri });
                let body = if asked.path == METADATA { metadata.to_string() } else { jwks };
                reply(status, body).with(header::RETRY_AFTER, "1")
            }
        })
        .await;
        let api = ScriptedApi::new(&keys, |issuer| {
            issuer.discovery_url(&server.base).unwrap().keys_fetch_timeout(limit).unwrap()
        });
        assert!(matches!(api.failure().await, FetchError::Timeout { .. }), "{name}");
        let mut paths = server.asked();
        paths.dedup();
        assert_eq!(paths, asked, "{name}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let target = format!("{}.well-known/jwks.json", elsewhere.iss());
    for client in [None, Some(reqwest::Client::new())] {
        let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
        issuer.set_behavior(Behavior::Redirect(target.clone()));
        let own = client.is_some();
        let mut builder = Verifier::builder(issuer.issuer());
        if let Some(client) = client {
            builder = builder.client(client);
        }
        let verifier = builder.build().unwrap();
        let Err(Error::KeysUnavailable { reason: source, .. }) =
            verifier.verify(&issuer.token().build()).await
        else {
            panic!("expected no keys");
        };
        match (own, &source) {
            (false, FetchError::Status { status: 302, .. }) => {
                assert_eq!(elsewhere.jwks_fetches(), 0);
            }
            // The application's client follows the redirect by itself. Its response is not used.
            (true, FetchError::Redirected { .. }) => {}
            (_, other) => panic!("{other}"),
        }
    }
}

/// As for Kubernetes: one issuer requires a bearer token, which must not be sent to other issuers.
#[tokio::test]
async fn each_issuer_can_have_its_own_http_client() {
    let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let log = Arc::clone(&seen);
    let router = Router::new().fallback(
        async move |uri: axum::http::Uri, headers: axum::http::HeaderMap| {
            log.lock()
                .unwrap()
                .push((uri.path().to_owned(), headers.contains_key("authorization")));
            StatusCode::NOT_FOUND
        },
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("authorization", "Bearer pod".parse().unwrap());
    let client = reqwest::Client::builder().default_headers(headers).build().unwrap();
    let issuer =
        |iss: &str| Issuer::new(iss, AUDIENCE).unwrap().jwks_uri(&format!("{base}/{iss}")).unwrap();
    let verifier = Verifier::new([issuer("pod").client(client), issuer("other")]).unwrap();
    assert!(verifier.warm_up().await.is_err());
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, [("/other".to_owned(), false), ("/pod".to_owned(), true)]);
}
