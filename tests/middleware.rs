//! The layer around a service: which requests it rejects, which it forwards, and what it leaves
//! unchanged.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{
    AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};
use portcullis::testing::{Behavior, TestClock, TestIssuer, assert_challenge};
use portcullis::{AccessToken, Algorithm, Error, Protect, ProtectLayer, Scope, Verifier};
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Body = Full<bytes::Bytes>;

fn request(headers: &[(HeaderName, &[u8])]) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    }
    request
}

fn bearer(token: &str) -> Request<()> {
    request(&[(AUTHORIZATION, format!("Bearer {token}").as_bytes())])
}

/// A service that responds with the subject of the token.
async fn greet(request: Request<()>) -> Result<Response<Body>, Infallible> {
    let token = request
        .extensions()
        .get::<AccessToken>()
        .expect("the layer forwards no request without a token");
    Ok(Response::new(Full::from(token.subject().unwrap_or_default().to_owned())))
}

async fn issuer() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}

fn verifier(issuer: &TestIssuer) -> Verifier {
    Verifier::new(issuer.issuer()).unwrap()
}

async fn answer(layer: &ProtectLayer, request: Request<()>) -> Response<Body> {
    layer.layer(service_fn(greet)).oneshot(request).await.unwrap()
}

/// Every row of the table in the README.
#[tokio::test]
async fn every_response_is_as_documented() {
    let issuer = issuer().await;
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
        ("valid", bearer(&good().build()), 200, None, None),
        ("no header", request(&[]), 401, Some(MISSING), Some("missing")),
        (
            "another scheme",
            request(&[(AUTHORIZATION, b"Basic YTpi")]),
            401,
            Some(MISSING),
            Some("missing"),
        ),
        ("two headers", twice, 400, Some(TWICE), Some("invalid_request")),
        ("illegal characters", bearer("a,b"), 400, Some(MALFORMED), Some("invalid_request")),
        ("not a JWT", bearer("opaque"), 401, Some(INVALID), Some("opaque")),
        ("expired", bearer(&good().expired().build()), 401, Some(EXPIRED), Some("expired")),
        (
            "audience of another API",
            bearer(&good().audience("x").build()),
            401,
            Some(INVALID),
            Some("wrong_audience"),
        ),
        ("forged", bearer(&good().tampered().build()), 401, Some(INVALID), Some("bad_signature")),
        (
            "no scope",
            bearer(&issuer.token().build()),
            403,
            Some(INSUFFICIENT),
            Some("insufficient_scope"),
        ),
        (
            "half the scope",
            bearer(&issuer.token().scope("orders:read orders").build()),
            403,
            Some(INSUFFICIENT),
            Some("insufficient_scope"),
        ),
        // Not 403: after a 403, a client does not refresh its token.
        (
            "expired and no scope",
            bearer(&issuer.token().expired().build()),
            401,
            Some(EXPIRED),
            Some("expired"),
        ),
    ];
    for (name, request, status, challenge, code) in cases {
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
    let (issuer, clock) = (issuer().await, TestClock::new());
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

/// RFC 6750 §2.1, RFC 9110 §11.4: the scheme in any case, one or more spaces, one b64token.
#[tokio::test]
async fn credentials_are_parsed_strictly() {
    let issuer = issuer().await;
    let layer = ProtectLayer::new(verifier(&issuer));
    let token = issuer.token().build();
    let with = |before: &str, after: &str| {
        [before.as_bytes(), token.as_bytes(), after.as_bytes()].concat()
    };
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("as written", with("Bearer ", ""), 200),
        ("lowercase", with("bearer ", ""), 200),
        ("mixed case", with("bEaReR ", ""), 200),
        ("several spaces", with("Bearer    ", ""), 200),
        ("no space", with("Bearer", ""), 401),
        ("a tab", with("Bearer\t", ""), 400),
        ("a space and a tab", with("Bearer \t", ""), 400),
        ("a leading space", with(" Bearer ", ""), 401),
        ("a trailing space", with("Bearer ", " "), 400),
        ("two tokens", with(&format!("Bearer {token} "), ""), 400),
        ("two tokens with a comma", with(&format!("Bearer {token}, Bearer "), ""), 400),
        ("a parameter", with("Bearer token=", ""), 400),
        ("quoted", with("Bearer \"", "\""), 400),
        ("padding in the middle", with("Bearer =", ""), 400),
        ("padding at the end: legal, but not a JWT", with("Bearer ", "=="), 401),
        ("only the scheme", b"Bearer".to_vec(), 400),
        ("only the scheme and a space", b"Bearer ".to_vec(), 400),
        ("only padding", b"Bearer ==".to_vec(), 400),
        ("not ASCII", b"Bearer \xff\xfe".to_vec(), 400),
        ("UTF-8", "Bearer é".as_bytes().to_vec(), 400),
        ("empty", b"".to_vec(), 401),
        ("Basic", b"Basic YTpi".to_vec(), 401),
        ("DPoP", with("DPoP ", ""), 401),
        ("not ASCII as scheme", b"\xff\xfe a".to_vec(), 401),
        ("JSON", b"Bearer {\"alg\":\"none\"}".to_vec(), 400),
    ];
    for (name, value, status) in cases {
        let response = answer(&layer, request(&[(AUTHORIZATION, &value)])).await;
        assert_eq!(
            response.status().as_u16(),
            status,
            "{name}: {}",
            String::from_utf8_lossy(&value)
        );
    }
    // Every byte that a header value may contain, at each of 20 positions.
    for byte in (0x21_u8..=0xff).filter(|byte| *byte != 0x7f) {
        let legal = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        for place in 0..20 {
            let mut credentials = [b"Bearer ".to_vec(), vec![b'a'; 21]].concat();
            credentials[7 + place] = byte;
            let response = answer(&layer, request(&[(AUTHORIZATION, &credentials)])).await;
            assert_eq!(response.status() != 400, legal, "{byte:#x} at {place}");
        }
    }
    for (name, second) in
        [("Basic beside Bearer", &b"Basic YTpi"[..]), ("an empty header beside Bearer", b"")]
    {
        let both = request(&[(AUTHORIZATION, &with("Bearer ", "")), (AUTHORIZATION, second)]);
        assert_eq!(answer(&layer, both).await.status(), 400, "{name}");
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_ignored() {
    let issuer = issuer().await;
    let mut request = Request::new(());
    *request.uri_mut() = format!("/?access_token={}", issuer.token().build()).parse().unwrap();
    assert_eq!(answer(&ProtectLayer::new(verifier(&issuer)), request).await.status(), 401);
}

/// RFC 9110 §5.6.4: clients can parse the challenge, whatever the realm is.
#[tokio::test]
async fn challenges_are_well_formed() {
    let issuer = issuer().await;
    for (realm, written, read) in [
        ("api", r#"Bearer realm="api""#, "api"),
        ("", r#"Bearer realm="""#, ""),
        (r#"a "quoted" \ one"#, r#"Bearer realm="a \"quoted\" \\ one""#, r#"a "quoted" \ one"#),
        ("line\r\nX-Evil: 1", r#"Bearer realm="lineX-Evil: 1""#, "lineX-Evil: 1"),
        ("naïve\0\u{7f}", r#"Bearer realm="nave""#, "nave"),
        (r#"", error="x"#, r#"Bearer realm="\", error=\"x""#, r#"", error="x"#),
    ] {
        let layer = ProtectLayer::new(verifier(&issuer)).realm(realm);
        let response = answer(&layer, request(&[])).await;
        assert_eq!(response.headers().get(WWW_AUTHENTICATE).unwrap(), written, "{realm:?}");
        assert_challenge(&response).realm(read).no_error();
    }
}

#[test]
fn invalid_scopes_are_errors() {
    for scope in ["", " ", "a\"b", "a\\b", "a\tb", "a\nb", "é", "a\u{7f}"] {
        assert!(scope.parse::<Scope>().is_err(), "{scope:?}");
    }
    for (scope, text) in [
        ("a", "a"),
        ("a b", "a b"),
        ("  a  b a ", "a b"),
        ("https://x/y.z:w!#~", "https://x/y.z:w!#~"),
    ] {
        assert_eq!(scope.parse::<Scope>().unwrap().as_str(), text);
    }
}

/// RFC 6749 §3.3: whole tokens, case-sensitive, in any order.
#[tokio::test]
async fn scopes_are_compared_token_by_token() {
    let issuer = issuer().await;
    let layer = ProtectLayer::new(verifier(&issuer)).scope("orders:read orders:write");
    for (granted, status) in [
        ("orders:read orders:write", 200),
        ("a orders:write b orders:read c", 200),
        ("orders:read", 403),
        ("orders:read orders:write2", 403),
        ("orders:read2 orders:write", 403),
        ("orders:read orders", 403),
        ("orders:read Orders:Write", 403),
        ("orders:readorders:write", 403),
        ("orders:read,orders:write", 403),
        ("", 403),
    ] {
        let response = answer(&layer, bearer(&issuer.token().scope(granted).build())).await;
        assert_eq!(response.status().as_u16(), status, "{granted}");
    }
}

#[tokio::test]
#[should_panic(expected = "scope \"a\\\"b\"")]
async fn an_invalid_scope_in_the_source_panics() {
    let _ = ProtectLayer::new(verifier(&issuer().await)).scope("a\"b");
}

/// A service that must be polled ready before each call, and whose clones must be polled again, as
/// `tower` allows.
struct Strict {
    asked: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { asked: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.asked = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.asked), "called without having been polled ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Response::new(Body::default())))
    }
}

#[tokio::test]
async fn the_inner_service_is_called_only_after_it_was_polled_ready() {
    let issuer = issuer().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = Strict { asked: false, calls: Arc::clone(&calls) };
    let mut service = ProtectLayer::new(verifier(&issuer)).layer(inner);
    // The first waits for keys, the second does not, and the third is rejected.
    for (token, status) in [
        (issuer.token(), 200),
        (issuer.token(), 200),
        (issuer.token().expired(), 401),
        (issuer.token(), 200),
    ] {
        let response = service.ready().await.unwrap().call(bearer(&token.build())).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn inner_services_may_depend_on_readiness() {
    let issuer = issuer().await;
    let layer = ProtectLayer::new(verifier(&issuer));
    let limited = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(service_fn(greet));
    let buffered =
        ServiceBuilder::new().layer(layer).layer(BufferLayer::new(1)).service(service_fn(greet));
    for _ in 0..5 {
        let (a, b) = (limited.clone(), buffered.clone());
        let (a, b) = tokio::join!(
            a.oneshot(bearer(&issuer.token().build())),
            b.oneshot(bearer(&issuer.token().build()))
        );
        assert_eq!((a.unwrap().status(), b.unwrap().status()), (StatusCode::OK, StatusCode::OK));
    }
}

/// Requests that wait for one tenant's keys do not occupy the concurrency limit of the inner
/// service.
#[tokio::test]
async fn a_hanging_issuer_does_not_occupy_the_concurrency_limit() {
    let (hanging, other) = (issuer().await, issuer().await);
    hanging.set_behavior(Behavior::Hang);
    let verifier = Verifier::new([hanging.issuer(), other.issuer()]).unwrap();
    assert!(verifier.verify(&other.token().build()).await.is_ok());
    let service = ServiceBuilder::new()
        .layer(ProtectLayer::new(verifier))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(service_fn(greet));

    // Servers do both: reuse a service for several calls, and clone it for each call.
    let mut kept = service.clone();
    let mut waiting = pin!(kept.ready().await.unwrap().call(bearer(&hanging.token().build())));
    let mut waiting_too = pin!(service.clone().oneshot(bearer(&hanging.token().build())));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    assert!(waiting_too.as_mut().poll(&mut context).is_pending());
    let response = service.oneshot(bearer(&other.token().build())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_a_fetch_the_inner_service_is_called_synchronously() {
    let issuer = issuer().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = Strict { asked: false, calls: Arc::clone(&calls) };
    let mut service = ProtectLayer::new(verifier(&issuer)).layer(inner);
    service.ready().await.unwrap().call(bearer(&issuer.token().build())).await.unwrap();

    let response = service.ready().await.unwrap().call(bearer(&issuer.token().build()));
    assert_eq!(
        calls.load(Ordering::SeqCst),
        2,
        "the inner service was called before the future was polled"
    );
    let polled = pin!(response).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(_))), "the future is ready at once");
}

/// A layer that changes the headers of the request.
fn in_between<S: Clone>(
    change: impl Fn(&mut HeaderMap) + Clone,
) -> impl Layer<S, Service = tower::util::MapRequest<S, impl Fn(Request<()>) -> Request<()> + Clone>>
{
    tower::util::MapRequestLayer::new(move |mut request: Request<()>| {
        change(request.headers_mut());
        request
    })
}

#[tokio::test]
async fn nested_layers_of_one_verifier_verify_once() {
    let (issuer, clock) = (Arc::new(issuer().await), TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let outer = ProtectLayer::new(verifier.clone()).scope("a");
    let time_passes = |seconds: u64| {
        let clock = clock.clone();
        in_between(move |_| clock.advance(Duration::from_secs(seconds)))
    };
    let token = || issuer.token().scope("a b");
    let withdraws = {
        let (issuer, verifier) = (Arc::clone(&issuer), verifier.clone());
        in_between(move |_| {
            issuer.set_behavior(Behavior::Status(404));
            verifier.forget(issuer.iss());
        })
    };

    let same = ServiceBuilder::new()
        .layer(outer.clone())
        .layer(withdraws)
        .layer(ProtectLayer::new(verifier.clone()).scope("b"))
        .service(service_fn(greet));
    let response = same.clone().oneshot(bearer(&token().build())).await.unwrap();
    assert_eq!(response.status(), 200, "a second verification would not find a key");
    issuer.set_behavior(Behavior::Serve);
    let response = same.oneshot(bearer(&issuer.token().scope("a").build())).await.unwrap();
    assert_eq!(response.status(), 403, "each layer requires its own scope");
    issuer.set_behavior(Behavior::Serve);

    // A queue between the layers may delay the request.
    let queued = ServiceBuilder::new()
        .layer(outer.clone())
        .layer(time_passes(7200))
        .layer(ProtectLayer::new(verifier).scope("b"))
        .service(service_fn(greet));
    let response = queued.oneshot(bearer(&token().build())).await.unwrap();
    assert_eq!(
        (response.status(), response.extensions().get::<Error>().map(Error::code)),
        (401.try_into().unwrap(), Some("expired"))
    );

    let another = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let two = ServiceBuilder::new()
        .layer(outer)
        .layer(time_passes(7200))
        .layer(ProtectLayer::new(another))
        .service(service_fn(greet));
    let response = two.oneshot(bearer(&token().build())).await.unwrap();
    assert_eq!(response.status(), 401, "another verifier verifies the token itself");
}

#[tokio::test]
async fn a_header_replaced_between_two_layers_is_verified_again() {
    let issuer = issuer().await;
    let layer = ProtectLayer::new(verifier(&issuer));
    let forged =
        HeaderValue::try_from(format!("Bearer {}", issuer.token().tampered().build())).unwrap();
    let replace = in_between(move |headers: &mut HeaderMap| {
        drop(headers.insert(AUTHORIZATION, forged.clone()));
    });
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(replace)
        .layer(layer)
        .service(service_fn(greet));
    assert_eq!(service.oneshot(bearer(&issuer.token().build())).await.unwrap().status(), 401);
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
    let issuer = issuer().await;
    assert_eq!(refused::<axum::body::Body>(&issuer).await, 401);
    assert_eq!(refused::<Full<bytes::Bytes>>(&issuer).await, 401);
    assert_eq!(refused::<BoxBody<bytes::Bytes, Infallible>>(&issuer).await, 401);
    assert_eq!(refused::<UnsyncBoxBody<bytes::Bytes, Infallible>>(&issuer).await, 401);
    assert_eq!(refused::<tonic::body::Body>(&issuer).await, 401);
    assert_eq!(refused::<String>(&issuer).await, 401);
}

/// The layer never returns an error of its own; errors come from the inner service.
#[tokio::test]
async fn errors_of_the_inner_service_are_returned() {
    let issuer = issuer().await;
    let failing = service_fn(|_: Request<()>| async { Err::<Response<Body>, _>("its own") });
    let service: Protect<_> = ProtectLayer::new(verifier(&issuer)).layer(failing);
    let result = service.clone().oneshot(bearer(&issuer.token().build())).await;
    assert_eq!(result.unwrap_err(), "its own");
    assert_eq!(service.oneshot(request(&[])).await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_request_dropped_while_waiting_leaves_the_service_usable() {
    let issuer = issuer().await;
    issuer.set_delay(Duration::from_millis(20));
    let called = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&called);
    let inner = service_fn(move |_: Request<()>| {
        flag.store(true, Ordering::SeqCst);
        ready(Ok::<_, Infallible>(Response::new(Body::default())))
    });
    let mut service = ProtectLayer::new(verifier(&issuer)).layer(inner);
    {
        let waiting = pin!(service.ready().await.unwrap().call(bearer(&issuer.token().build())));
        assert!(waiting.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(!called.load(Ordering::SeqCst));
    let response =
        service.ready().await.unwrap().call(bearer(&issuer.token().build())).await.unwrap();
    assert_eq!((response.status(), issuer.jwks_fetches()), (StatusCode::OK, 1));
}

/// The response says "expired" only for tokens with a verified signature. Otherwise unsigned tokens
/// would reveal the trusted issuers and audiences.
#[tokio::test]
async fn expiry_is_disclosed_only_for_verified_tokens() {
    const INVALID: &str = r#"Bearer realm="api", error="invalid_token", error_description="The access token is invalid""#;
    const EXPIRED: &str = r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#;
    let (issuer, forger) =
        (issuer().await, TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap());
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
    for (name, token, expected) in [
        ("signed by the issuer", expired(), (EXPIRED, "expired")),
        ("of a trusted issuer, forged", expired().signed_by(&forger), (INVALID, "expired")),
        ("with an unknown key", expired().header("kid", "junk"), (INVALID, "expired")),
        (
            "for another API, forged",
            expired().audience("x").signed_by(&forger),
            (INVALID, "wrong_audience"),
        ),
        (
            "of another issuer, forged",
            expired().issued_by("https://x.example/").signed_by(&forger),
            (INVALID, "unknown_issuer"),
        ),
        ("unsigned", expired().unsigned(), (INVALID, "unsupported_algorithm")),
    ] {
        assert_eq!(challenge(token.build()).await, (expected.0.to_owned(), expected.1), "{name}");
    }
    assert_eq!(issuer.jwks_fetches(), fetches, "no token causes a fetch");
}

/// Creating a service is cheap, and all services of a layer share its configuration.
#[tokio::test]
async fn changing_a_layer_does_not_affect_services_created_before() {
    let issuer = issuer().await;
    let layer = ProtectLayer::new(verifier(&issuer));
    let before = layer.clone().layer(service_fn(greet));
    let changed = layer.clone().scope("orders:read").realm("shop");
    let (token, scoped) = (issuer.token().build(), issuer.token().scope("orders:read").build());
    for _ in 0..2 {
        let response = changed.layer(service_fn(greet)).oneshot(bearer(&token)).await.unwrap();
        assert_challenge(&response).status(403).realm("shop").scope("orders:read");
    }
    let further = changed.clone().scope("orders:write");
    let response = further.layer(service_fn(greet)).oneshot(bearer(&scoped)).await.unwrap();
    assert_challenge(&response).status(403).realm("shop").scope("orders:read orders:write");
    assert_eq!(
        changed.layer(service_fn(greet)).oneshot(bearer(&scoped)).await.unwrap().status(),
        200
    );
    assert_eq!(
        before.oneshot(bearer(&token)).await.unwrap().status(),
        200,
        "services created before are unchanged"
    );
    assert_eq!(layer.layer(service_fn(greet)).oneshot(bearer(&token)).await.unwrap().status(), 200);
}
