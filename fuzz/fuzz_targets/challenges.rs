//! The reader of `WWW-Authenticate` in the test kit: what it reads, spelled again, is read the
//! same.

#![no_main]

use http::HeaderValue;
use http::header::{HeaderMap, WWW_AUTHENTICATE};
use libfuzzer_sys::fuzz_target;
use portcullis::testing::challenges;

fuzz_target!(|value: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]);
    let Ok(found) = challenges(&headers) else { return };
    let mut spelled = Vec::new();
    for challenge in &found {
        let mut text = challenge.scheme.clone();
        if let Some(token) = &challenge.token68 {
            assert!(challenge.parameters.is_empty());
            text += &format!(" {token}");
        }
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
        let parameters = challenge.parameters.iter();
        let parameters: Vec<_> =
            parameters.map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
        if !parameters.is_empty() {
            text += &format!(" {}", parameters.join(", "));
        }
        spelled.push(text);
    }
    let Ok(value) = HeaderValue::from_str(&spelled.join(", ")) else { return };
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.clone())]);
    assert_eq!(challenges(&headers).as_ref(), Ok(&found), "{value:?}");
});
