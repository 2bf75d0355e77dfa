//! Discovery documents and the headers that limit their lifetime.

#![no_main]

use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::lifetime;
use portcullis_fuzz::{ISS, Strict, parts};
use url::Url;

// `https` or not, the headers `Age` and `Cache-Control`, each with lines separated by `|`, and the
// document.
fuzz_target!(|input: &str| {
    let Some([scheme, ages, lines, document]) = parts(input) else { return };
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
    let mut append = |name: HeaderName, lines: &str| {
        let values = lines.split('|').map(|line| HeaderValue::from_bytes(line.as_bytes()));
        headers.extend(values.flatten().map(|value| (name.clone(), value)));
    };
    append(CACHE_CONTROL, lines);
    append(AGE, ages);
    check_lifetime(&headers, lifetime(&headers));
});

/// Compares a lifetime with what RFC 9111 §4.2.1 says.
fn check_lifetime(headers: &HeaderMap, found: Option<Duration>) {
    let all: Vec<_> = headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
    let text = String::from_utf8_lossy(&all.join(&b","[..])).into_owned();
    // Bytes that are not ASCII may hide anything.
    if !text.is_ascii() {
        assert_eq!(found, Some(Duration::ZERO), "{text:?}");
        return;
    }
    let Some(directives) = directives(&text) else {
        check_malformed(&text, found);
        return;
    };
    let all_of = |name: &str| directives.iter().filter(|one| one.name == name).collect::<Vec<_>>();
    let is_forbidden = ["no-store", "no-cache"].iter().any(|name| !all_of(name).is_empty());
    let is_plain = directives.iter().all(|one| one.is_plain);
    let zero = Some(Duration::ZERO);
    match all_of("max-age")[..] {
        _ if is_forbidden => assert_eq!(found, zero, "{text:?}"),
        [] if is_plain => assert_eq!(found, None, "{text:?}"),
        // A `max-age` in quotes is taken for one.
        [] => {}
        [one] => {
            let real = seconds(&one.argument).map(|max| max.saturating_sub(age(headers)));
            let expected = Some(Duration::from_secs(real.unwrap_or_default()));
            let is_split = one.argument.contains(',');
            assert!(
                // What is quoted can shorten it.
                found == expected || !is_plain && (found == zero || is_split),
                "{found:?} {expected:?} {text:?}"
            );
        }
        _ => assert_eq!(found, zero, "{text:?}"),
    }
}

/// A header that is no list of directives: a lifetime is not longer than any number in it.
fn check_malformed(text: &str, found: Option<Duration>) {
    let Some(found) = found.filter(|found| !found.is_zero()) else { return };
    let text = text.to_ascii_lowercase();
    let numbers = text.split(|one: char| !one.is_ascii_digit()).filter(|one| !one.is_empty());
    let most = numbers.filter_map(seconds).max().unwrap_or_default();
    assert!(found <= Duration::from_secs(most), "{found:?} {text:?}");
    assert!(text.contains("max-age"), "{text:?}");
    let is_forbidden = |one: &str| ["no-store", "no-cache"].contains(&one.trim());
    assert!(!text.split(',').any(is_forbidden), "{text:?}");
}

struct Directive {
    /// In lower case.
    name: String,
    /// Without its quotes and escapes.
    argument: String,
    /// No comma and no escape is quoted: the code splits at each comma, and unescapes nothing.
    is_plain: bool,
}

/// Reads `Cache-Control` (RFC 9111 §5.2, RFC 9110 §5.6) byte by byte. `None`: it is malformed.
fn directives(text: &str) -> Option<Vec<Directive>> {
    let is_of_token = |one: &char| one.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*one);
    let mut rest = text.chars().peekable();
    let mut all = Vec::new();
    loop {
        // Empty elements are ignored.
        while rest.next_if(|one| [' ', '\t', ','].contains(one)).is_some() {}
        if rest.peek().is_none() {
            return Some(all);
        }
        let name = std::iter::from_fn(|| rest.next_if(is_of_token)).collect::<String>();
        let mut argument = String::new();
        let (mut is_complete, mut is_plain) = (!name.is_empty(), true);
        if rest.next_if_eq(&'=').is_some() {
            if rest.next_if_eq(&'"').is_some() {
                loop {
                    let one = rest.next()?;
                    is_plain &= one != ',' && one != '\\';
                    match one {
                        '"' => break,
                        '\\' => argument.push(rest.next()?),
                        _ => argument.push(one),
                    }
                }
            } else {
                argument.extend(std::iter::from_fn(|| rest.next_if(is_of_token)));
                is_complete &= !argument.is_empty();
            }
        }
        while rest.next_if(|one| [' ', '\t'].contains(one)).is_some() {}
        if !is_complete || rest.next().is_some_and(|one| one != ',') {
            return None;
        }
        all.push(Directive { name: name.to_ascii_lowercase(), argument, is_plain });
    }
}

/// RFC 9111 §5.1: of several lines, the first counts. What is no number is ignored.
fn age(headers: &HeaderMap) -> u64 {
    let line = headers.get(AGE).map(|line| String::from_utf8_lossy(line.as_bytes()));
    line.and_then(|line| seconds(&line)).unwrap_or_default()
}

/// RFC 9111 §1.2.2: digits. White space around them is accepted, and a number of more than 64 bits
/// is cut off.
fn seconds(text: &str) -> Option<u64> {
    let text = text.trim_matches([' ', '\t']);
    let digits: Option<Vec<_>> = text.chars().map(|one| one.to_digit(10)).collect();
    let add = |sum: u64, digit: u32| sum.checked_mul(10)?.checked_add(digit.into());
    let sum = digits.filter(|digits| !digits.is_empty())?.into_iter().try_fold(0, add);
    Some(sum.unwrap_or(u32::MAX.into()))
}
