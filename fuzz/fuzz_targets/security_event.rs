//! Security event tokens with any header and any payload, whose signature is right: what is
//! accepted is an event for this receiver, it revokes only what it names, and no event is an access
//! token.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::SecurityEvents;
use portcullis_fuzz::{Api, ISS, NOW, Strict, access_token, forged, parts, rejection_of, signed};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tower_service::Service as _;

const RECEIVER_ID: &str = "https://api.example.com/events";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const CREDENTIAL_CHANGE: &str =
    "https://schemas.openid.net/secevent/caep/event-type/credential-change";

static PLAIN: LazyLock<Api> = LazyLock::new(Api::without_revocations);
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let payload = json!({
        "iss": ISS, "aud": RECEIVER_ID, "iat": NOW, "jti": "e",
        "sub_id": { "format": "opaque", "id": "u" }, "events": { SESSION_REVOKED: {} },
    });
    let token = signed(br#"{"alg":"HS256","typ":"secevent+jwt"}"#, payload.to_string().as_bytes());
    assert_eq!(send(&runtime, &Api::new(), &token), StatusCode::ACCEPTED, "a valid token");
    runtime
});

fn send(runtime: &Runtime, api: &Api, token: &str) -> StatusCode {
    let mut service = SecurityEvents::new(&api.verifier, &api.revocations, RECEIVER_ID);
    let body = Full::new(Bytes::from(token.to_owned()));
    let request = Request::post("/").header("content-type", "application/secevent+jwt");
    let request = request.body(body).expect("a request");
    runtime.block_on(service.call(request)).expect("an answer").status()
}

fuzz_target!(|input: &str| {
    let Some([header, payload]) = parts(input) else { return };
    // A new one each time, so that no earlier input has revoked anything.
    let api = Api::new();
    let token = signed(header.as_bytes(), payload.as_bytes());
    let status = send(&RUNTIME, &api, &token);
    if status != StatusCode::ACCEPTED {
        assert_eq!(status, rejection_of(token.len()));
        return;
    }
    for forged in forged(header.as_bytes(), payload.as_bytes()) {
        assert_eq!(send(&RUNTIME, &api, &forged), StatusCode::BAD_REQUEST, "{forged}");
    }
    let claims = Strict::read(payload).expect("a payload that is JSON");
    let header = Strict::read(header).expect("a header that is JSON");
    let typ = header.get("typ").and_then(Strict::text).unwrap_or_default().to_ascii_lowercase();
    assert_eq!(typ.trim_start_matches("application/"), "secevent+jwt");
    assert_eq!(claims.get("iss").and_then(Strict::text), Some(ISS));
    assert!(claims.get("aud").is_some_and(|aud| aud.texts().contains(&RECEIVER_ID)));
    let Some(Strict::Object(events)) = claims.get("events") else { panic!("no events") };
    assert!(!events.is_empty());
    let exp = claims.get("exp").and_then(Strict::number);
    assert!(exp.is_none_or(|exp| exp > NOW as f64 - 31.0), "{claims:?}");
    assert!(!PLAIN.accepts(&token));

    let accepts = |iat, claims: Value| {
        let token = access_token(iat, &claims);
        // Not if the value is too long for an access token.
        PLAIN.accepts(&token).then(|| api.accepts(&token))
    };
    let iat = claims.get("iat").and_then(Strict::number).expect("iat");
    // Nothing but the values of the document is revoked, and only by some events.
    let change =
        |event: &Strict| event.get("change_type").and_then(Strict::text).map(str::to_owned);
    let revokes = |(name, event): (&String, &Strict)| match &**name {
        SESSION_REVOKED => true,
        CREDENTIAL_CHANGE => matches!(change(event).as_deref(), Some("revoke" | "delete")),
        _ => false,
    };
    let revoking: Vec<_> = events.iter().filter(|event| revokes(*event)).collect();
    let mut texts = Vec::new();
    all_texts(&claims, &mut texts);
    let longest = texts.iter().max_by_key(|text| text.len()).copied().unwrap_or_default();
    let other = format!("{longest}.");
    assert_ne!(accepts(NOW, json!({ "sub": other, "sid": other, "jti": other })), Some(false));
    if revoking.is_empty() {
        for text in texts.iter().take(20) {
            let claims = json!({ "sub": text, "sid": text, "jti": text });
            assert_ne!(accepts(recent(iat as i64 - 1), claims), Some(false), "{text:?}");
        }
        return;
    }
    let Some(subject) = claims.get("sub_id") else { return };
    let text = |name| subject.get(name).and_then(Strict::text).filter(|text| !text.is_empty());
    let (kinds, value): (&[_], _) = match (text("format"), text("iss")) {
        (Some("iss_sub"), Some(ISS)) => (&["sub"], text("sub")),
        (Some("opaque"), _) => (&["sub", "sid"], text("id")),
        (Some("jwt_id"), Some(ISS)) => (&["jti"], text("jti")),
        // Of another issuer, or of a user that is known by an email address.
        (Some("iss_sub" | "jwt_id" | "email" | "account" | "uri"), _) => (&[], None),
        _ => return,
    };
    // Of several events, the latest counts. Those that happened later than they were told do not
    // revoke what is issued later.
    let times = revoking.iter().map(|(_, event)| {
        let time = event.get("event_timestamp").and_then(Strict::number);
        let time = time.map(|time| if time > 100_000_000_000.0 { time / 1000.0 } else { time });
        time.filter(|time| (0.0..=iat).contains(time)).unwrap_or(iat)
    });
    let time = times.fold(0.0, f64::max) as i64;
    let Some(value) = value else { return };
    for kind in ["sub", "sid", "jti"] {
        let claims = json!({ kind: value });
        if kinds.contains(&kind) {
            assert_ne!(accepts((time - 1).max(0), claims), Some(true), "{kind} {value:?} {time}");
        } else {
            assert_ne!(accepts(recent(time - 1), claims), Some(false), "{kind} {value:?} {time}");
        }
        if kind != "jti" {
            let claims = json!({ kind: value });
            assert_ne!(accepts(recent(time + 2), claims), Some(false), "{kind} {value:?} {time}");
        }
    }
});

/// Tokens that are older than revocations are kept are rejected.
fn recent(iat: i64) -> i64 {
    iat.max(NOW - 3600)
}

/// All strings, at any depth.
fn all_texts<'a>(value: &'a Strict, texts: &mut Vec<&'a str>) {
    match value {
        Strict::Text(text) => texts.push(text),
        Strict::Array(items) => items.iter().for_each(|item| all_texts(item, texts)),
        Strict::Object(members) => members.values().for_each(|member| all_texts(member, texts)),
        _ => {}
    }
}
