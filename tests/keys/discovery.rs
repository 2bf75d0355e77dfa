//! Metadata: where they are found, what they must contain, and which URL of the keys is used.

use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use portcullis::testing::{AUDIENCE, Behavior, TestIssuer};
use portcullis::{Algorithm, Error, FetchError, Issuer, Verifier};
use serde_json::{Value, json};

use crate::scripted::{METADATA, OTHER_METADATA, ScriptedApi, Server, keys, reply};
use crate::support::api;
use crate::verdict::verdict;

/// Starts a server with an issuer's documents at any path.
async fn serve(documents: impl Fn(&str) -> Vec<(&'static str, Value)>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut router = Router::new();
    for (path, document) in documents(&base) {
        router = router.route(path, get(async move || document.to_string()));
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

#[tokio::test]
async fn metadata_are_found_at_each_well_known_url() {
    struct Case {
        name: &'static str,
        path: &'static str,
        metadata_at: &'static str,
    }
    for Case { name, path, metadata_at } in [
        Case { name: "appended", path: "", metadata_at: "/.well-known/openid-configuration" },
        Case {
            name: "appended to a path",
            path: "/t/1",
            metadata_at: "/t/1/.well-known/openid-configuration",
        },
        Case {
            name: "appended to a path with a trailing slash",
            path: "/t/1/",
            metadata_at: "/t/1/.well-known/openid-configuration",
        },
        Case { name: "RFC 8414", path: "", metadata_at: "/.well-known/oauth-authorization-server" },
        Case {
            name: "RFC 8414 before a path",
            path: "/t/1",
            metadata_at: "/.well-known/oauth-authorization-server/t/1",
        },
        Case {
            name: "OpenID Connect before a path",
            path: "/t/1",
            metadata_at: "/.well-known/openid-configuration/t/1",
        },
    ] {
        let keys = TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap();
        let jwks = keys.jwks_json();
        let base = serve(|base| {
            let uri = format!("{base}/elsewhere/keys");
            let metadata = json!({ "issuer": format!("{base}{path}"), "jwks_uri": uri });
            vec![(metadata_at, metadata), ("/elsewhere/keys", jwks.clone())]
        })
        .await;
        let iss = format!("{base}{path}");
        let verifier = Verifier::new(Issuer::new(&iss, AUDIENCE).unwrap()).unwrap();
        let result = verifier.verify(&keys.token().issued_by(&iss).build()).await;
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn the_next_well_known_url_is_tried_only_if_the_first_does_not_exist() {
    struct Case {
        status: u16,
        expected: &'static str,
        /// Whether both URLs are tried.
        both: bool,
    }
    for Case { status, expected, both } in [
        Case { status: 404, expected: "ok", both: true },
        Case { status: 405, expected: "ok", both: true },
        Case { status: 410, expected: "ok", both: true },
        Case { status: 400, expected: "keys_unavailable", both: false },
        Case { status: 401, expected: "keys_unavailable", both: false },
        Case { status: 403, expected: "keys_unavailable", both: false },
        Case { status: 500, expected: "keys_unavailable", both: false },
        Case { status: 503, expected: "keys_unavailable", both: false },
    ] {
        let keys = keys();
        let jwks = keys.jwks_json().to_string();
        let server = Server::start(move |asked| {
            let jwks = jwks.clone();
            async move {
                match &*asked.path {
                    METADATA => reply(status, ""),
                    OTHER_METADATA => {
                        let uri = format!("{}/keys", asked.base);
                        reply(
                            200,
                            json!({ "issuer": "https://issuer.example/", "jwks_uri": uri })
                                .to_string(),
                        )
                    }
                    _ => reply(200, jwks),
                }
            }
        })
        .await;
        let api = ScriptedApi::new(&keys, |issuer| issuer.discovery_url(&server.base).unwrap());
        assert_eq!(api.good().await, expected, "{status}");
        assert_eq!(server.asked().iter().any(|path| path == OTHER_METADATA), both, "{status}");
    }
}

/// The issuer has a public `iss`, but this network reaches its metadata at another URL.
#[tokio::test]
async fn metadata_can_be_fetched_from_another_url() {
    const PUBLIC: &str = "https://login.example/realms/prod";
    let keys = TestIssuer::offline_with(PUBLIC, Algorithm::EdDSA).unwrap();
    struct Case {
        name: &'static str,
        says: &'static str,
        expected: &'static str,
    }
    for Case { name, says, expected } in [
        Case { name: "the public name", says: PUBLIC, expected: "ok" },
        Case { name: "the other URL", says: "", expected: "keys_unavailable" },
    ] {
        let jwks = keys.jwks_json();
        let inside = serve(|base| {
            let issuer = if says.is_empty() { base } else { says };
            let metadata = json!({ "issuer": issuer, "jwks_uri": format!("{base}/keys") });
            vec![
                ("/realms/prod/.well-known/openid-configuration", metadata),
                ("/keys", jwks.clone()),
            ]
        })
        .await;
        let issuer = Issuer::new(PUBLIC, AUDIENCE)
            .unwrap()
            .discovery_url(&format!("{inside}/realms/prod"))
            .unwrap();
        let verifier = Verifier::new(issuer).unwrap();
        assert_eq!(
            verdict(&verifier, &keys.token().build()).await,
            expected,
            "metadata say {name}"
        );
    }
    for address in ["http://keycloak:8080/realms/prod", "https://a/b/../c", "https://a/?b", "a"] {
        assert!(
            Issuer::new(PUBLIC, AUDIENCE).unwrap().discovery_url(address).is_err(),
            "{address}"
        );
    }
}

#[tokio::test]
async fn invalid_metadata_are_rejected() {
    struct Case {
        name: &'static str,
        metadata: fn(&str) -> Value,
        expected: fn(&FetchError) -> bool,
    }
    let cases = [
        Case {
            name: "of another issuer",
            metadata: |base| json!({ "issuer": "https://other.example", "jwks_uri": format!("{base}/keys") }),
            expected: |error| matches!(error, FetchError::IssuerMismatch { .. }),
        },
        Case {
            name: "issuer with an extra slash",
            metadata: |base| json!({ "issuer": format!("{base}/"), "jwks_uri": format!("{base}/keys") }),
            expected: |error| matches!(error, FetchError::IssuerMismatch { .. }),
        },
        Case {
            name: "without issuer",
            metadata: |base| json!({ "jwks_uri": format!("{base}/keys") }),
            expected: |error| matches!(error, FetchError::InvalidDocument { .. }),
        },
        Case {
            name: "without jwks_uri",
            metadata: |base| json!({ "issuer": base }),
            expected: |error| matches!(error, FetchError::InvalidDocument { .. }),
        },
        Case {
            name: "jwks_uri over http",
            metadata: |base| json!({ "issuer": base, "jwks_uri": "http://keys.example/keys" }),
            expected: |error| matches!(error, FetchError::JwksUri(_)),
        },
        Case {
            name: "jwks_uri with scheme file",
            metadata: |base| json!({ "issuer": base, "jwks_uri": "file:///etc/passwd" }),
            expected: |error| matches!(error, FetchError::JwksUri(_)),
        },
        Case {
            name: "jwks_uri relative",
            metadata: |base| json!({ "issuer": base, "jwks_uri": "/keys" }),
            expected: |error| matches!(error, FetchError::JwksUri(_)),
        },
        Case {
            name: "jwks_uri with a password",
            metadata: |base| json!({ "issuer": base, "jwks_uri": "https://user:password@keys.example/" }),
            expected: |error| matches!(error, FetchError::JwksUri(_)),
        },
        Case {
            name: "an array",
            metadata: |_| json!([]),
            expected: |error| matches!(error, FetchError::InvalidDocument { .. }),
        },
    ];
    for Case { name, metadata, expected } in cases {
        let keys = TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap();
        let base = serve(|base| {
            vec![("/.well-known/openid-configuration", metadata(base)), ("/keys", keys.jwks_json())]
        })
        .await;
        let verifier = Verifier::new(Issuer::new(&base, AUDIENCE).unwrap()).unwrap();
        match verifier.verify(&keys.token().issued_by(&base).build()).await {
            Err(Error::KeysUnavailable { reason: source, .. }) => {
                assert!(expected(&source), "{name}: {source}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn keys_on_another_origin_are_used_unless_forbidden() {
    let elsewhere = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let uri = format!("{}.well-known/jwks.json", elsewhere.iss());
    let base = serve(|base| {
        vec![("/.well-known/openid-configuration", json!({ "issuer": base, "jwks_uri": uri }))]
    })
    .await;
    let token = elsewhere.token().issued_by(&base).build();
    let issuer = || Issuer::new(&base, AUDIENCE).unwrap();
    assert!(Verifier::new(issuer()).unwrap().verify(&token).await.is_ok());
    let strict = || issuer().require_same_origin_keys();
    // Another source of keys in between does not undo the requirement.
    let replaced = strict().jwks(elsewhere.jwks()).discovery_url(&base).unwrap();
    for issuer in [strict(), replaced] {
        match Verifier::new(issuer).unwrap().verify(&token).await {
            Err(Error::KeysUnavailable { reason: source, .. }) => {
                assert!(matches!(source, FetchError::OtherOrigin { .. }), "{source}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Keys on the same origin are used.
    let own = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    assert!(
        Verifier::new(own.issuer().require_same_origin_keys())
            .unwrap()
            .verify(&own.token().build())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn metadata_are_cached_while_fresh() {
    let api = api().await;
    assert_eq!(api.good().await, "ok");
    for round in 1..=3 {
        api.issuer.rotate().unwrap();
        api.seconds_pass(10);
        assert_eq!(api.good().await, "ok");
        assert_eq!((api.issuer.metadata_fetches(), api.issuer.jwks_fetches()), (1, round + 1));
    }
    // After a failure the metadata are fetched again, because the keys may have moved.
    api.issuer.set_behavior(Behavior::Status(404));
    api.seconds_pass(10);
    assert_eq!(
        api.verdict(&api.issuer.token().header("kid", "new").build()).await,
        "keys_unavailable"
    );
    api.issuer.set_behavior(Behavior::Serve);
    api.issuer.rotate().unwrap();
    api.seconds_pass(10);
    assert_eq!(api.good().await, "ok");
    assert_eq!(api.issuer.metadata_fetches(), 2);
}

/// The server at the old URL stops responding. The metadata already name the new URL.
#[tokio::test]
async fn metadata_are_fetched_again_after_a_timeout() {
    let keys = keys();
    let jwks = keys.jwks_json().to_string();
    let server = Server::start(move |asked| {
        let jwks = jwks.clone();
        async move {
            let uri = format!("{}/{}", asked.base, if asked.number == 1 { "old" } else { "new" });
            match (&*asked.path, asked.number) {
                (METADATA, _) => reply(
                    200,
                    json!({ "issuer": "https://issuer.example/", "jwks_uri": uri }).to_string(),
                ),
                ("/old", 2..) => std::future::pending().await,
                _ => reply(200, jwks).with(header::CACHE_CONTROL, "max-age=60"),
            }
        }
    })
    .await;
    let limit = Duration::from_millis(200);
    let api = ScriptedApi::new(&keys, |issuer| {
        issuer.discovery_url(&server.base).unwrap().keys_fetch_timeout(limit).unwrap()
    });
    assert_eq!(api.good().await, "ok");
    api.seconds_pass(55);
    assert_eq!(api.good().await, "ok");
    api.fetched(2).await;
    api.seconds_pass(2);
    assert_eq!(api.good().await, "ok");
    api.fetched(3).await;
    assert_eq!(server.asked().last().unwrap(), "/new", "{:?}", server.asked());
}

#[tokio::test]
async fn metadata_are_fetched_again_from_their_end_on() {
    let keys = keys();
    let jwks = keys.jwks_json().to_string();
    let server = Server::start(move |asked| {
        let jwks = jwks.clone();
        async move {
            if asked.path == METADATA {
                let uri = format!("{}/keys", asked.base);
                let metadata = json!({ "issuer": "https://issuer.example/", "jwks_uri": uri });
                reply(200, metadata.to_string()).with(header::CACHE_CONTROL, "max-age=60")
            } else {
                reply(200, jwks).with(header::CACHE_CONTROL, "max-age=3600")
            }
        }
    })
    .await;
    let api = ScriptedApi::new(&keys, |issuer| issuer.discovery_url(&server.base).unwrap());
    assert_eq!(api.good().await, "ok");
    for (passes, kid, expected) in [(59, "a", 1), (1, "b", 2)] {
        api.seconds_pass(passes);
        let unknown = keys.token().header("kid", kid).build();
        assert_eq!(api.verdict(&unknown).await, "unknown_key", "{kid}");
        let asked = server.asked();
        let found = asked.iter().filter(|path| *path == METADATA).count();
        assert_eq!(found, expected, "{kid}: {asked:?}");
    }
}
