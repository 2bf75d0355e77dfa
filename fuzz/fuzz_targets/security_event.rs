//! Security event tokens with any header and any payload, whose signature is right: what is
//! accepted is an event for this receiver, and no event is an access token.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::SecurityEvents;
use portcullis_fuzz::{Api, ISS, Strict, parts, signed};
use tokio::runtime::{Builder, Runtime};
use tower_service::Service as _;

const RECEIVER_ID: &str = "https://api.example.com/events";

struct Receiver {
    api: Api,
    runtime: Runtime,
    service: SecurityEvents,
}

static RECEIVER: LazyLock<Receiver> = LazyLock::new(|| {
    let api = Api::new();
    let service = SecurityEvents::new(&api.verifier, &api.revocations, RECEIVER_ID);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    Receiver { api, runtime, service }
});

fuzz_target!(|input: &str| {
    let Some([header, payload]) = parts(input) else { return };
    let Receiver { api, runtime, service } = &*RECEIVER;
    let token = signed(header.as_bytes(), payload.as_bytes());
    let body = Full::new(Bytes::from(token.clone()));
    let request = Request::post("/").header("content-type", "application/secevent+jwt");
    let request = request.body(body).expect("a request");
    let answer = runtime.block_on(service.clone().call(request));
    let status = answer.map(|response| response.status()).expect("an answer");
    if status != StatusCode::ACCEPTED {
        assert!(
            [StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE].contains(&status),
            "{status}"
        );
        return;
    }
    let claims = Strict::read(payload).expect("a payload that is JSON");
    let header = Strict::read(header).expect("a header that is JSON");
    let typ = header.get("typ").and_then(Strict::text).unwrap_or_default().to_ascii_lowercase();
    assert_eq!(typ.trim_start_matches("application/"), "secevent+jwt");
    assert_eq!(claims.get("iss").and_then(Strict::text), Some(ISS));
    assert!(claims.get("aud").is_some_and(|aud| aud.texts().contains(&RECEIVER_ID)));
    assert!(matches!(claims.get("events"), Some(Strict::Object(events)) if !events.is_empty()));
    assert!(claims.get("exp").is_none(), "{claims:?}");
    assert!(api.verifier.try_verify(&token).is_some_and(|found| found.is_err()));
});
