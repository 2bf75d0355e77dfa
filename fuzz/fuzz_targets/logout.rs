//! Logout tokens with any header and any payload, whose signature is right: what is accepted is a
//! logout token, it revokes what it names and nothing else, and no logout token is an access token.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::BackChannelLogout;
use portcullis_fuzz::{Api, ISS, NOW, Strict, access_token, forged, parts, rejection_of, signed};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tower_service::Service as _;

const CLIENT: &str = "native-app";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const FIELD: &str = "logout_token=";

static PLAIN: LazyLock<Api> = LazyLock::new(Api::without_revocations);
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let payload = json!({
        "iss": ISS, "aud": CLIENT, "iat": NOW, "exp": NOW + 60, "jti": "l", "sub": "u",
        "events": { EVENT: {} },
    });
    let token = signed(br#"{"alg":"HS256","typ":"logout+jwt"}"#, payload.to_string().as_bytes());
    assert_eq!(send(&runtime, &Api::new(), &token), StatusCode::OK, "a valid token");
    runtime
});

fn send(runtime: &Runtime, api: &Api, token: &str) -> StatusCode {
    let mut service = BackChannelLogout::new(&api.verifier, &api.revocations, [CLIENT]);
    let body = Full::new(Bytes::from(format!("{FIELD}{token}")));
    let request = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
    let request = request.body(body).expect("a request");
    runtime.block_on(service.call(request)).expect("an answer").status()
}

fuzz_target!(|input: &str| {
    let Some([header, payload]) = parts(input) else { return };
    // A new one each time, so that no earlier input has revoked anything.
    let api = Api::new();
    let token = signed(header.as_bytes(), payload.as_bytes());
    let status = send(&RUNTIME, &api, &token);
    if status != StatusCode::OK {
        assert_eq!(status, rejection_of(FIELD.len() + token.len()));
        return;
    }
    for forged in forged(header.as_bytes(), payload.as_bytes()) {
        assert_eq!(send(&RUNTIME, &api, &forged), StatusCode::BAD_REQUEST, "{forged}");
    }
    let claims = Strict::read(payload).expect("a payload that is JSON");
    let header = Strict::read(header).expect("a header that is JSON");
    let typ = header.get("typ").and_then(Strict::text).unwrap_or("jwt").to_ascii_lowercase();
    assert!(["jwt", "logout+jwt"].contains(&typ.trim_start_matches("application/")), "{typ}");
    assert_eq!(claims.get("iss").and_then(Strict::text), Some(ISS));
    assert!(claims.get("aud").is_some_and(|aud| aud.texts().contains(&CLIENT)));
    assert!(claims.get("events").and_then(|events| events.get(EVENT)).is_some());
    assert!(claims.get("nonce").is_none(), "{claims:?}");
    let iat = claims.get("iat").and_then(Strict::number).expect("iat");
    assert!((NOW as f64 - 151.0..=NOW as f64 + 31.0).contains(&iat), "{iat}");
    // Optional, and not in the past: 30 seconds of leeway, and less than a second of the clock.
    if let Some(exp) = claims.get("exp") {
        let exp = exp.number().expect("a date that is a number");
        assert!(exp > NOW as f64 - 31.0, "{exp}");
    }
    // A logout token opens no API, also if it revokes nothing.
    assert!(!PLAIN.accepts(&token));

    // It revokes the session, or else all tokens of the user. Both are told apart from each other
    // and from other values, and tokens that were issued later stay valid.
    let text = |name| claims.get(name).and_then(Strict::text).filter(|text| !text.is_empty());
    let (kind, value) = match (text("sid"), text("sub")) {
        (Some(sid), _) => ("sid", sid),
        (None, sub) => ("sub", sub.expect("`sid` or `sub`")),
    };
    let accepts = |iat, claims| {
        let token = access_token(iat, &claims);
        // Not if the value is too long for an access token.
        PLAIN.accepts(&token).then(|| api.accepts(&token))
    };
    let (before, after) = (iat as i64 - 1, iat as i64 + 2);
    let other_kind = if kind == "sid" { "sub" } else { "sid" };
    assert_ne!(accepts(before, json!({ kind: value })), Some(true), "{kind} {value:?}");
    assert_ne!(accepts(before, json!({ kind: format!("{value}.") })), Some(false));
    assert_ne!(accepts(before, json!({ other_kind: value })), Some(false));
    assert_ne!(accepts(after, json!({ kind: value })), Some(false));
    assert!(value.len() > 1000 || accepts(before, json!({ kind: value })).is_some());
});
