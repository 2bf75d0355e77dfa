//! Layers around other layers, and layers made from others.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use portcullis::testing::{Behavior, TestClock, assert_challenge};
use portcullis::{Error, ProtectLayer, Verifier};
use tower::{Layer, ServiceBuilder, ServiceExt as _, service_fn};

use crate::greeter::{bearer, greet, started_issuer, verifier};

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
    let (issuer, clock) = (Arc::new(started_issuer()), TestClock::new());
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
    let issuer = started_issuer();
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

/// Creating a service is cheap, and all services of a layer share its configuration.
#[tokio::test]
async fn changing_a_layer_does_not_affect_services_created_before() {
    let issuer = started_issuer();
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
