//! Fetches without a runtime, or on one that shuts down or stalls.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestIssuer};
use portcullis::{Algorithm, Error, FetchError, Issuer, Verifier};

use crate::poll_once::poll_once;
use crate::scripted::{ScriptedApi, Server, keys};
use crate::support::api;

#[test]
fn a_fetch_without_a_runtime_is_an_error() {
    let verifier =
        Verifier::new(Issuer::new("https://issuer.example/", AUDIENCE).unwrap()).unwrap();
    let token = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA)
        .unwrap()
        .token()
        .build();
    match poll_once(pin!(verifier.verify(&token))) {
        Poll::Ready(Err(Error::KeysUnavailable { reason: source, .. })) => {
            assert!(matches!(source, FetchError::NoRuntime));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runtime_shutdown_during_a_fetch_leaves_the_verifier_usable() {
    let outlasting =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let api = outlasting.block_on(api());
    api.issuer.set_behavior(Behavior::Hang);
    let token = api.issuer.token().build();

    let ending = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    ending.block_on(async {
        let mut request = pin!(api.verifier.verify(&token));
        assert!(poll_once(request.as_mut()).is_pending());
    });
    drop(ending);

    api.issuer.set_behavior(Behavior::Serve);
    match outlasting.block_on(api.verifier.verify(&token)) {
        Err(Error::KeysUnavailable { reason: source, .. }) => {
            assert!(matches!(source, FetchError::Interrupted), "{source}");
        }
        other => panic!("{other:?}"),
    }
    api.seconds_pass(1);
    assert!(outlasting.block_on(api.verifier.verify(&token)).is_ok());
}

/// The runtime on which the fetch was started exists, but is not driven, for example because
/// `block_on` is blocked.
#[test]
fn a_fetch_on_a_stalled_runtime_is_abandoned() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (driven, standing) = (runtime(), runtime());
    let keys = keys();
    let server = driven.block_on(Server::start(|_| std::future::pending()));
    let uri = server.at("/keys");
    let limit = Duration::from_millis(50);
    let api = ScriptedApi::new(&keys, |issuer| {
        issuer.jwks_uri(&uri).unwrap().keys_fetch_timeout(limit).unwrap()
    });
    let token = keys.token().build();
    standing.block_on(async { assert!(poll_once(pin!(api.verifier.verify(&token))).is_pending()) });
    let waited = async { tokio::time::timeout(Duration::from_secs(10), api.failure()).await };
    assert!(driven.block_on(waited).is_ok());
}
