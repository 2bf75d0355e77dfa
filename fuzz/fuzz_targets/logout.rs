//! Logout tokens with any header and any payload, whose signature is right: what is recorded is a
//! logout token, and no logout token is an access token.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::BackChannelLogout;
use portcullis_fuzz::{Api, ISS, Strict, parts, signed};
use tokio::runtime::{Builder, Runtime};
use tower_service::Service as _;

const CLIENT: &str = "native-app";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

struct Receiver {
    api: Api,
    runtime: Runtime,
    service: BackChannelLogout,
}

static RECEIVER: LazyLock<Receiver> = LazyLock::new(|| {
    let api = Api::new();
    let service = BackChannelLogout::new(&api.verifier, &api.revocations, [CLIENT]);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    Receiver { api, runtime, service }
});

fuzz_target!(|input: &str| {
    let Some([header, payload]) = parts(input) else { return };
    let Receiver { api, runtime, service } = &*RECEIVER;
    let token = signed(header.as_bytes(), payload.as_bytes());
    let body = Full::new(Bytes::from(format!("logout_token={token}")));
    let request = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
    let request = request.body(body).expect("a request");
    let answer = runtime.block_on(service.clone().call(request));
    let status = answer.map(|response| response.status()).expect("an answer");
    if status != StatusCode::OK {
        assert!(
            [StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE].contains(&status),
            "{status}"
        );
        return;
    }
    let claims = Strict::read(payload).expect("a payload that is JSON");
    let header = Strict::read(header).expect("a header that is JSON");
    let typ = header.get("typ").and_then(Strict::text).unwrap_or("jwt").to_ascii_lowercase();
    assert!(["jwt", "logout+jwt"].contains(&typ.trim_start_matches("application/")), "{typ}");
    assert_eq!(claims.get("iss").and_then(Strict::text), Some(ISS));
    assert!(claims.get("aud").is_some_and(|aud| aud.texts().contains(&CLIENT)));
    assert!(claims.get("events").and_then(|events| events.get(EVENT)).is_some());
    assert!(claims.get("nonce").is_none(), "{claims:?}");
    assert!(claims.get("sub").is_some() || claims.get("sid").is_some());
    let iat = claims.get("iat").and_then(Strict::number).expect("iat");
    let now = api.clock.unix_seconds() as f64;
    assert!((now - 151.0..=now + 31.0).contains(&iat), "{iat} {now}");
    // A logout token opens no API.
    assert!(api.verifier.try_verify(&token).is_some_and(|found| found.is_err()));
});
