//! A token with any header and any payload, whose signature is right: it is accepted only if both
//! say what the configuration requires, and never with another signature.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portcullis::{Error, InvalidToken};
use portcullis_fuzz::{AUDIENCE, Api, ISS, NOW, Strict, access_token, forged, parts, signed};
use serde_json::json;

const LEEWAY: f64 = 30.0;

fuzz_target!(|input: &str| {
    static API: LazyLock<Api> = LazyLock::new(|| {
        let api = Api::new();
        assert!(api.accepts(&access_token(NOW, &json!({ "sub": "u" }))), "a valid token");
        api
    });
    let Some([header, payload]) = parts(input) else { return };
    let token = signed(header.as_bytes(), payload.as_bytes());
    let verified = API.verifier.try_verify(&token).expect("nothing is fetched");
    let Ok(verified) = verified else { return };
    let forged = forged(header.as_bytes(), payload.as_bytes());
    let header = Strict::read(header).expect("a header that is JSON");
    let has_nonce = header.get("nonce").is_some();
    for forged in forged {
        let found = API.verifier.try_verify(&forged).expect("nothing is fetched");
        // A token with `nonce` in its header may be one of Microsoft's own APIs.
        let is_rejected = match found {
            Err(Error::InvalidToken(InvalidToken::BadSignature)) => true,
            Err(Error::InvalidToken(InvalidToken::MicrosoftNonce)) => has_nonce,
            _ => false,
        };
        assert!(is_rejected, "{forged}");
    }
    let payload = Strict::read(payload).expect("a payload that is JSON");
    let now = API.clock.unix_seconds() as f64;
    let number = |name| payload.get(name).and_then(Strict::number);
    assert_eq!(header.get("alg").and_then(Strict::text), Some("HS256"));
    assert!(header.get("crit").is_none());
    let typ = header.get("typ").and_then(Strict::text).unwrap_or("jwt").to_ascii_lowercase();
    assert!(["jwt", "at+jwt", "application/jwt", "application/at+jwt"].contains(&&*typ), "{typ}");
    assert_eq!(payload.get("iss").and_then(Strict::text), Some(ISS));
    assert!(payload.get("aud").is_some_and(|aud| aud.texts().contains(&AUDIENCE)));
    assert!(number("exp").is_some_and(|exp| exp + LEEWAY > now), "{payload:?}");
    assert!(number("nbf").is_none_or(|nbf| nbf <= now + LEEWAY + 1.0), "{payload:?}");
    assert!(number("iat").is_none_or(|iat| iat <= now + LEEWAY + 1.0), "{payload:?}");
    // Nothing verifies the proof of a key here.
    let cnf = payload.get("cnf");
    assert!(cnf.is_none_or(|cnf| *cnf == Strict::Null), "{payload:?}");
    assert_eq!(verified.issuer(), ISS);
    let sub = payload.get("sub").and_then(Strict::text).filter(|sub| !sub.is_empty());
    assert_eq!(verified.subject(), sub);
    let claims = Strict::read(verified.raw_claims()).expect("claims that are JSON");
    assert_eq!(claims, payload);
});
