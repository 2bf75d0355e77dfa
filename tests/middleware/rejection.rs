//! The status and the headers of rejections.

use std::convert::Infallible;
use std::time::Duration;

use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt as _, Full};
use portcullis::testing::{Behavior, TestClock, TestIssuer, TokenBuilder, assert_challenge};
use portcullis::{Algorithm, Error, ProtectLayer, Verifier};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::greeter::{answer, bearer, request, started_issuer, verifier};

/// Every row of the table in the README.
#[tokio::test]
async fn every_response_is_as_documented() {
    struct Case {
        name: &'static str,
        request: Request<()>,
        status: u16,
        challenge: Option<&'static str>,
        code: Option<&'static str>,
    }

    let issuer = started_issuer();
    let layer = ProtectLayer::new(verifier(&issuer))
        .realm("shop")
        .scope("orders:read")
        .scope("orders:write");
    let good = || issuer.token().scope("orders:write other orders:read");
    const MISSING: &str = r#"Bearer realm="shop", scope="orders:read orders:write""#;
    const MALFORMED: &str = r#"Bearer realm="shop", error="invalid_request", error_description="The credentials are malformed""#;
    const TWICE: &str = r#"Bearer realm="shop", error="invalid_request", error_description="The request has more than one access token""#;
    const INVALID: &str = r#"Bearer realm="shop", error="invalid_token", error_description="The access token is invalid""#;
    const EXPIRED: &str = r#"Bearer realm="shop", error="invalid_token", error_description="The access token expired""#;
    const INSUFFICIENT: &str = r#"Bearer realm="shop", error="insufficient_scope", error_description="The access token does not grant what this operation needs", scope="orders:read orders:write""#;

    let twice = {
        let value = format!("Bearer {}", good().build());
        request(&[(AUTHORIZATION, value.as_bytes()), (AUTHORIZATION, value.as_bytes())])
    };
    let cases = [
        Case {
            name: "valid",
            request: bearer(&good().build()),
            status: 200,
            challenge: None,
            code: None,
        },
        Case {
            name: "no header",
            request: request(&[]),
            status: 401,
            challenge: Some(MISSING),
            code: Some("missing"),
        },
        Case {
            name: "another scheme",
            request: request(&[(AUTHORIZATION, b"Basic YTpi")]),
            status: 401,
            challenge: Some(MISSING),
            code: Some("missing"),
        },
        Case {
            name: "two headers",
            request: twice,
            status: 400,
            challenge: Some(TWICE),
            code: Some("invalid_request"),
        },
        Case {
            name: "illegal characters",
            request: bearer("a,b"),
            status: 400,
            challenge: Some(MALFORMED),
            code: Some("invalid_request"),
        },
        Case {
            name: "not a JWT",
            request: bearer("opaque"),
            status: 401,
            challenge: Some(INVALID),
            code: Some("opaque"),
        },
        Case {
            name: "expired",
            request: bearer(&good().expired().build()),
            status: 401,
            challenge: Some(EXPIRED),
            code: Some("expired"),
        },
        Case {
            name: "audience of another API",
            request: bearer(&good().audience("x").build()),
            status: 401,
            challenge: Some(INVALID),
            code: Some("wrong_audience"),
        },
        Case {
            name: "forged",
            request: bearer(&good().tampered().build()),
            status: 401,
            challenge: Some(INVALID),
            code: Some("bad_signature"),
        },
        Case {
            name: "no scope",
            request: bearer(&issuer.token().build()),
            status: 403,
            challenge: Some(INSUFFICIENT),
            code: Some("insufficient_scope"),
        },
        Case {
            name: "half the scope",
            request: bearer(&issuer.token().scope("orders:read orders").build()),
            status: 403,
            challenge: Some(INSUFFICIENT),
            code: Some("insufficient_scope"),
        },
        // Not 403: after a 403, a client does not refresh its token.
        Case {
            name: "expired and no scope",
            request: bearer(&issuer.token().expired().build()),
            status: 401,
            challenge: Some(EXPIRED),
            code: Some("expired"),
        },
    ];
    for Case { name, request, status, challenge, code } in cases {
        let response = answer(&layer, request).await;
        assert_eq!(response.status().as_u16(), status, "{name}");
        let challenges: Vec<_> = response.headers().get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, challenge.into_iter().collect::<Vec<_>>(), "{name}");
        assert_eq!(
            response.extensions().get::<Error>().map(Error::code),
            code,
            "{name}: left in the extensions"
        );
        assert_eq!(response.headers().len(), challenges.len(), "{name}: no other headers");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.is_empty(), status != 200, "{name}");
    }
}

/// 503 if the issuer fails before its first use, and 200 after it recovers; never 401.
#[tokio::test]
async fn unavailable_keys_are_503_and_not_401() {
    let (issuer, clock) = (started_issuer(), TestClock::new());
    issuer.set_clock(&clock);
    let layer =
        ProtectLayer::new(Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap());
    for behavior in [Behavior::Close, Behavior::Status(500)] {
        issuer.set_behavior(behavior);
        clock.advance(Duration::from_secs(30));
        let response = answer(&layer, bearer(&issuer.token().build())).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "5");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        assert!(matches!(response.extensions().get(), Some(Error::KeysUnavailable { .. })));
        assert_eq!(
            answer(&layer, bearer("junk")).await.status(),
            401,
            "a malformed token is never 503"
        );
        assert_eq!(answer(&layer, request(&[])).await.status(), 401);
    }
    issuer.set_behavior(Behavior::Serve);
    clock.advance(Duration::from_secs(30));
    assert_eq!(answer(&layer, bearer(&issuer.token().build())).await.status(), 200);
}

/// RFC 9110 §5.6.4: clients can parse the challenge, whatever the realm is.
#[tokio::test]
async fn challenges_are_well_formed() {
    struct Case {
        realm: &'static str,
        written: &'static str,
        read: &'static str,
    }

    let issuer = started_issuer();
    for Case { realm, written, read } in [
        Case { realm: "api", written: r#"Bearer realm="api""#, read: "api" },
        Case { realm: "", written: r#"Bearer realm="""#, read: "" },
        Case {
            realm: r#"a "quoted" \ one"#,
            written: r#"Bearer realm="a \"quoted\" \\ one""#,
            read: r#"a "quoted" \ one"#,
        },
        Case {
            realm: "line\r\nX-Evil: 1",
            written: r#"Bearer realm="lineX-Evil: 1""#,
            read: "lineX-Evil: 1",
        },
        Case { realm: "naïve\0\u{7f}", written: r#"Bearer realm="nave""#, read: "nave" },
        Case {
            realm: r#"", error="x"#,
            written: r#"Bearer realm="\", error=\"x""#,
            read: r#"", error="x"#,
        },
    ] {
        let layer = ProtectLayer::new(verifier(&issuer)).realm(realm);
        let response = answer(&layer, request(&[])).await;
        assert_eq!(response.headers().get(WWW_AUTHENTICATE).unwrap(), written, "{realm:?}");
        assert_challenge(&response).realm(read).no_error();
    }
}

/// The response says "expired" only for tokens with a verified signature. Otherwise unsigned tokens
/// would reveal the trusted issuers and audiences.
#[tokio::test]
async fn expiry_is_disclosed_only_for_verified_tokens() {
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        header: &'static str,
        code: &'static str,
    }

    const INVALID: &str = r#"Bearer realm="api", error="invalid_token", error_description="The access token is invalid""#;
    const EXPIRED: &str = r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#;
    let (issuer, forger) =
        (started_issuer(), TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap());
    let layer = ProtectLayer::new(verifier(&issuer));
    let challenge = async |token: String| {
        let response = answer(&layer, bearer(&token)).await;
        assert_eq!(response.status(), 401);
        (
            response.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned(),
            response.extensions().get::<Error>().map(Error::code).unwrap(),
        )
    };
    let expired = || issuer.token().expired();
    assert_eq!(
        challenge(expired().build()).await,
        (INVALID.to_owned(), "expired"),
        "no key is cached to verify it"
    );
    assert_eq!(issuer.jwks_fetches(), 0, "no key is fetched for it");
    assert_eq!(answer(&layer, bearer(&issuer.token().build())).await.status(), 200);
    let fetches = issuer.jwks_fetches();
    for Case { name, token, header, code } in [
        Case { name: "signed by the issuer", token: expired(), header: EXPIRED, code: "expired" },
        Case {
            name: "of a trusted issuer, forged",
            token: expired().signed_by(&forger),
            header: INVALID,
            code: "expired",
        },
        Case {
            name: "with an unknown key",
            token: expired().header("kid", "junk"),
            header: INVALID,
            code: "expired",
        },
        Case {
            name: "for another API, forged",
            token: expired().audience("x").signed_by(&forger),
            header: INVALID,
            code: "wrong_audience",
        },
        Case {
            name: "of another issuer, forged",
            token: expired().issued_by("https://x.example/").signed_by(&forger),
            header: INVALID,
            code: "unknown_issuer",
        },
        Case {
            name: "unsigned",
            token: expired().unsigned(),
            header: INVALID,
            code: "unsupported_algorithm",
        },
    ] {
        assert_eq!(challenge(token.build()).await, (header.to_owned(), code), "{name}");
    }
    assert_eq!(issuer.jwks_fetches(), fetches, "no token causes a fetch");
}

#[tokio::test]
async fn rejections_work_with_any_body_type() {
    async fn refused<R: Default + Send>(issuer: &TestIssuer) -> StatusCode {
        let inner =
            service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(R::default())) });
        ProtectLayer::new(verifier(issuer))
            .layer(inner)
            .oneshot(request(&[]))
            .await
            .unwrap()
            .status()
    }
    let issuer = started_issuer();
    assert_eq!(refused::<axum::body::Body>(&issuer).await, 401);
    assert_eq!(refused::<Full<bytes::Bytes>>(&issuer).await, 401);
    assert_eq!(refused::<BoxBody<bytes::Bytes, Infallible>>(&issuer).await, 401);
    assert_eq!(refused::<UnsyncBoxBody<bytes::Bytes, Infallible>>(&issuer).await, 401);
    assert_eq!(refused::<tonic::body::Body>(&issuer).await, 401);
    assert_eq!(refused::<String>(&issuer).await, 401);
}
