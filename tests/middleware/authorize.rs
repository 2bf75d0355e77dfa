//! Checks of the application that wait: `ProtectLayer::authorize`.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{Request, Response, header};
use portcullis::testing::{TestIssuer, assert_challenge};
use portcullis::{AccessToken, Error, ProtectLayer};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{offline_issuer, protect, request};

/// The status of a request to `/`, and the code of the rejection.
async fn outcome(layer: &ProtectLayer, token: Option<&str>) -> (u16, Option<&'static str>) {
    let service = layer.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    let response = service.oneshot(request(token)).await.unwrap();
    (response.status().as_u16(), response.extensions().get::<Error>().map(Error::code))
}

#[tokio::test(start_paused = true)]
async fn the_checks_decide_after_the_rules() {
    type Configure = fn(ProtectLayer) -> ProtectLayer;
    struct Case {
        name: &'static str,
        configure: Configure,
        with_token: (u16, Option<&'static str>),
        /// How often the checks were asked.
        calls: usize,
    }
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    async fn answer(answer: Result<bool, io::Error>) -> Result<bool, io::Error> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        answer
    }
    let allow: Configure = |layer| layer.authorize(|_, _| answer(Ok(true)));
    for Case { name, configure, with_token, calls } in [
        Case { name: "allowed", configure: allow, with_token: (200, None), calls: 1 },
        Case {
            name: "denied",
            configure: |layer| layer.authorize(|_, _| answer(Ok(false))),
            with_token: (403, Some("forbidden")),
            calls: 1,
        },
        Case {
            name: "failed",
            configure: |layer| layer.authorize(|_, _| answer(Err(io::Error::other("down")))),
            with_token: (503, Some("authorization_failed")),
            calls: 1,
        },
        Case {
            name: "the answer takes too long",
            configure: |layer| {
                layer.authorize(|_, _| async {
                    tokio::time::sleep(Duration::from_millis(2001)).await;
                    answer(Ok(true)).await
                })
            },
            with_token: (503, Some("authorization_failed")),
            calls: 0,
        },
        Case {
            name: "the answer takes long, and may",
            configure: |layer| {
                layer.authorization_timeout(Duration::from_secs(3)).authorize(|_, _| async {
                    tokio::time::sleep(Duration::from_millis(2001)).await;
                    answer(Ok(true)).await
                })
            },
            with_token: (200, None),
            calls: 1,
        },
        Case {
            name: "two checks, both allow",
            configure: |layer| {
                layer.authorize(|_, _| answer(Ok(true))).authorize(|_, _| answer(Ok(true)))
            },
            with_token: (200, None),
            calls: 2,
        },
        Case {
            name: "two checks, the second denies",
            configure: |layer| {
                layer.authorize(|_, _| answer(Ok(true))).authorize(|_, _| answer(Ok(false)))
            },
            with_token: (403, Some("forbidden")),
            calls: 2,
        },
        Case {
            name: "two checks, the first denies",
            configure: |layer| {
                layer.authorize(|_, _| answer(Ok(false))).authorize(|_, _| answer(Ok(true)))
            },
            with_token: (403, Some("forbidden")),
            calls: 1,
        },
        Case {
            name: "the rules reject",
            configure: |layer| layer.authorize(|_, _| answer(Ok(true))).scope("orders:delete"),
            with_token: (403, Some("insufficient_scope")),
            calls: 0,
        },
    ] {
        let issuer = offline_issuer();
        let layer = configure(protect(&issuer).scope("orders:read"));
        let token = issuer.token().scope("orders:read").build();
        CALLS.store(0, Ordering::Relaxed);
        assert_eq!(outcome(&layer, Some(&token)).await, with_token, "{name}");
        assert_eq!(CALLS.load(Ordering::Relaxed), calls, "{name}");

        // Nothing to decide about: no token, an invalid one, or one that the layer does not need.
        assert_eq!(outcome(&layer, None).await, (401, Some("missing")), "{name}");
        assert_eq!(outcome(&layer, Some("x")).await, (401, Some("opaque")), "{name}");
        let anonymous = layer.clone().allow_anonymous();
        assert_eq!(outcome(&anonymous, None).await, (200, None), "{name}");
        assert_eq!(CALLS.load(Ordering::Relaxed), calls, "{name}");

        // Outside tower.
        let (parts, _) = request(Some(&token)).into_parts();
        let verdict = layer.verify_request(&parts).await;
        let code = verdict.as_ref().err().map(|rejection| rejection.error().code());
        assert_eq!(code, with_token.1, "{name}");
        let at_once = layer.try_verify_request(&parts).map(|verdict| verdict.is_ok());
        let is_rejected_by_rule = with_token.1 == Some("insufficient_scope");
        assert_eq!(at_once, is_rejected_by_rule.then_some(false), "{name}: has to wait");
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_says_how_long_the_check_was_waited_for() {
    let issuer = offline_issuer();
    let layer = protect(&issuer)
        .authorization_timeout(Duration::from_secs(3))
        .authorize(|_, _| std::future::pending::<Result<bool, Infallible>>());
    let (parts, _) = request(Some(&issuer.token().build())).into_parts();
    let rejection = layer.verify_request(&parts).await.unwrap_err();
    assert_eq!(
        rejection.error().to_string(),
        "authorization check failed: expected an answer within 3s"
    );
}

/// The first request waits for the keys, and the second does not.
#[tokio::test]
async fn a_request_that_waited_for_keys_is_checked() {
    let issuer = TestIssuer::start().unwrap();
    let layer = protect(&issuer).authorize(async |_, _| Ok::<_, Infallible>(false));
    let token = issuer.token().build();
    for request in ["first", "second"] {
        let expected = (403, Some("forbidden"));
        assert_eq!(outcome(&layer, Some(&token)).await, expected, "{request}");
    }
    assert_eq!(issuer.jwks_fetches(), 1);
}

/// Another token would not help, so a denied client gets no `error`. An unavailable check is no
/// verdict about the token.
#[tokio::test]
async fn challenges_do_not_send_the_client_for_another_token() {
    let issuer = offline_issuer();
    let token = issuer.token().scope("orders:read").build();
    for (allowed, status) in [(Some(false), 403), (None, 503)] {
        let layer = protect(&issuer)
            .scope("orders:read")
            .authorize(move |_, _| async move { allowed.ok_or("down") });
        let service = layer.layer(service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        let response = service.oneshot(request(Some(&token))).await.unwrap();
        if status == 403 {
            assert_challenge(&response).status(403).no_error().without("scope");
        } else {
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key(header::RETRY_AFTER));
            assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
        }
    }
}

#[tokio::test]
async fn a_check_gets_the_token_and_the_request() {
    #[derive(Clone)]
    struct Peer(u16);
    let issuer = offline_issuer();
    let layer = protect(&issuer).authorize(|token: AccessToken, request| async move {
        let peer = request.extensions.get::<Peer>().map(|peer| peer.0);
        let token_inside = request.extensions.get::<AccessToken>().is_some();
        Ok::<_, Infallible>(
            (token.subject(), request.uri.path(), peer) == (Some("alice"), "/", Some(7))
                && token_inside,
        )
    });
    let service = layer.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    for (subject, status) in [("alice", 200), ("bob", 403)] {
        let mut request = request(Some(&issuer.token().subject(subject).build()));
        request.extensions_mut().insert(Peer(7));
        let (parts, body) = request.into_parts();
        assert_eq!(layer.verify_request(&parts).await.is_ok(), status == 200, "{subject}");
        let request = Request::from_parts(parts, body);
        assert_eq!(service.clone().oneshot(request).await.unwrap().status(), status, "{subject}");
    }
}

/// The request and the answer of the AuthZEN Authorization API 1.0, as in `docs/authorization.md`.
#[tokio::test]
async fn a_policy_service_decides_over_http() {
    let asked = Arc::new(Mutex::new(Vec::<Value>::new()));
    let recorded = Arc::clone(&asked);
    let evaluation = axum::routing::post(async move |Json(question): Json<Value>| {
        let allowed = question["subject"]["id"] == "alice";
        recorded.lock().unwrap().push(question);
        Json(json!({ "decision": allowed }))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/access/v1/evaluation", listener.local_addr().unwrap());
    let policy = axum::Router::new().route("/access/v1/evaluation", evaluation);
    let server = tokio::spawn(async move { axum::serve(listener, policy).await });

    let client = reqwest::Client::new();
    let issuer = offline_issuer();
    let layer = protect(&issuer).authorize(move |token, request| {
        let question = client.post(&url).json(&json!({
            "subject": {
                "type": "user",
                "id": token.subject(),
                "properties": { "iss": token.issuer() },
            },
            "action": { "name": request.method.as_str() },
            "resource": { "type": "route", "id": request.uri.path() },
        }));
        let is_user = token.subject().is_some();
        async move {
            if !is_user {
                return Ok(false);
            }
            let answer = question.send().await?.error_for_status()?.json::<Value>().await?;
            Ok::<_, reqwest::Error>(answer["decision"] == true)
        }
    });
    for (subject, expected) in [("alice", (200, None)), ("bob", (403, Some("forbidden")))] {
        let token = issuer.token().subject(subject).build();
        assert_eq!(outcome(&layer, Some(&token)).await, expected, "{subject}");
        let question = asked.lock().unwrap().pop().unwrap();
        assert_eq!(
            question,
            json!({
                "subject": {
                    "type": "user",
                    "id": subject,
                    "properties": { "iss": issuer.iss() },
                },
                "action": { "name": "GET" },
                "resource": { "type": "route", "id": "/" },
            })
        );
    }
    server.abort();
    let _ = server.await;
    let token = issuer.token().subject("alice").build();
    assert_eq!(outcome(&layer, Some(&token)).await, (503, Some("authorization_failed")));
}
