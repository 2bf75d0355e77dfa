//! The inner service: when it is polled and called, and what becomes of its errors.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use portcullis::testing::Behavior;
use portcullis::{Protect, ProtectLayer, Verifier};
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};

use crate::greeter::{Body, bearer, greet, request, started_issuer, verifier};
use crate::poll_once::poll_once;

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
    let issuer = started_issuer();
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
    let issuer = started_issuer();
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
    let (hanging, other) = (started_issuer(), started_issuer());
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
    assert!(poll_once(waiting.as_mut()).is_pending());
    assert!(poll_once(waiting_too.as_mut()).is_pending());
    let response = service.oneshot(bearer(&other.token().build())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_a_fetch_the_inner_service_is_called_synchronously() {
    let issuer = started_issuer();
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
    assert!(matches!(poll_once(pin!(response)), Poll::Ready(Ok(_))), "the future is ready at once");
}

#[tokio::test]
async fn a_request_dropped_while_waiting_leaves_the_service_usable() {
    let issuer = started_issuer();
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
        assert!(poll_once(waiting).is_pending());
    }
    assert!(!called.load(Ordering::SeqCst));
    let response =
        service.ready().await.unwrap().call(bearer(&issuer.token().build())).await.unwrap();
    assert_eq!((response.status(), issuer.jwks_fetches()), (StatusCode::OK, 1));
}

/// The layer never returns an error of its own; errors come from the inner service.
#[tokio::test]
async fn errors_of_the_inner_service_are_returned() {
    let issuer = started_issuer();
    let failing = service_fn(|_: Request<()>| async { Err::<Response<Body>, _>("its own") });
    let service: Protect<_> = ProtectLayer::new(verifier(&issuer)).layer(failing);
    let result = service.clone().oneshot(bearer(&issuer.token().build())).await;
    assert_eq!(result.unwrap_err(), "its own");
    assert_eq!(service.oneshot(request(&[])).await.unwrap().status(), 401);
}
