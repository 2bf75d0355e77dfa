//! Discovery documents and the headers that limit their lifetime.

#![no_main]

use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::{ISS, Strict, parts};
use url::Url;

// `https` or not, the header `Age`, `Cache-Control` with lines separated by `|`, and the document.
fuzz_target!(|input: &str| {
    let Some([scheme, age, lines, document]) = parts(input) else { return };
    let is_https = scheme == "https";
    let url = if is_https { "https://issuer.example/x" } else { "http://127.0.0.1:1/x" };
    let url = Url::parse(url).expect("a URL");
    if let Some(keys) = portcullis::fuzzing::jwks_uri(document.as_bytes(), &url, ISS) {
        // Of a repeated member, the last counts.
        let last: serde_json::Value = serde_json::from_str(document).expect("JSON");
        let strict = Strict::read(document);
        let text = |name| match &strict {
            Some(strict) => strict.get(name).and_then(Strict::text),
            None => last[name].as_str(),
        };
        assert_eq!(text("issuer"), Some(ISS));
        assert_eq!(text("jwks_uri").map(Url::parse), Some(Ok(keys.clone())), "{document:?}");
        let is_loopback = match keys.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            None => false,
        };
        assert!(keys.scheme() == "https" || !is_https && is_loopback, "{keys}");
        assert!(keys.username().is_empty() && keys.password().is_none(), "{keys}");
    }
    let mut headers = HeaderMap::new();
    for line in lines.split('|') {
        if let Ok(value) = HeaderValue::from_str(line) {
            headers.append(CACHE_CONTROL, value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(age) {
        headers.insert(AGE, value);
    }
    let found = portcullis::fuzzing::lifetime(&headers);
    let all: Vec<_> = headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
    let text = String::from_utf8_lossy(&all.join(&b","[..])).to_ascii_lowercase();
    if let Some(found) = found.filter(|found| !found.is_zero()) {
        // The largest number in the header, at most.
        let numbers = text.split(|one: char| !one.is_ascii_digit()).filter(|one| !one.is_empty());
        let most = numbers.map(|one| one.parse().unwrap_or(u64::MAX)).max().unwrap_or(0);
        assert!(found <= Duration::from_secs(most), "{found:?} {text:?}");
        assert!(text.contains("max-age"), "{text:?}");
        let directives = text.split(',').map(str::trim);
        assert!(
            !directives.into_iter().any(|one| one == "no-store" || one == "no-cache"),
            "{text:?}"
        );
    }
});
