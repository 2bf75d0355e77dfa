//! Where requests have their tokens: what is found is a b64token that stands in a configured place,
//! and no other place has one.

#![no_main]

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue, Method, Request, Version};
use libfuzzer_sys::fuzz_target;
use portcullis::TokenSource;
use portcullis_fuzz::parts;

static SOURCES: LazyLock<[TokenSource; 5]> = LazyLock::new(|| {
    [
        TokenSource::authorization(),
        TokenSource::header("x-jwt").expect("valid").allow_non_browsers().expect("valid"),
        TokenSource::cookie("session", ["https://app.example.com"]).expect("valid"),
        TokenSource::websocket_protocol("bearer").expect("valid"),
        TokenSource::danger_query("access_token"),
    ]
});

// Flags, the query, and header lines.
fuzz_target!(|input: &str| {
    let Some([flags, query, lines]) = parts(input) else { return };
    let Ok(flags) = flags.parse::<u8>() else { return };
    let accepts_dpop = flags & 64 != 0;
    let method = if flags & 128 == 0 { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).version(Version::HTTP_11);
    let Ok(request) = request.uri(format!("/?{query}")).body(()) else { return };
    let mut request = request.into_parts().0;
    for (name, value) in lines.split('\n').filter_map(|line| line.split_once(": ")) {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        else {
            continue;
        };
        request.headers.append(name, value);
    }
    let used = |index: usize| flags & 1 << index != 0;
    let sources: Vec<_> = SOURCES
        .iter()
        .enumerate()
        .filter(|(index, _)| used(*index))
        .map(|(_, one)| one.clone())
        .collect();
    let found = portcullis::fuzzing::token(&request, &sources, accepts_dpop);
    let Ok(token) = found else { return };
    assert!(!token.is_empty());
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    assert!(token.bytes().all(is_legal), "{token:?}");
    // Each source that is used, on its own: one of them has the token, and no other has any.
    let each = sources
        .iter()
        .map(|one| portcullis::fuzzing::token(&request, std::slice::from_ref(one), accepts_dpop));
    let tokens: Vec<_> = each.filter_map(Result::ok).collect();
    assert_eq!(tokens, [token.clone()]);
    // As a slow reader finds it.
    let stands = request
        .headers
        .values()
        .any(|value| value.as_bytes().windows(token.len()).any(|part| part == token.as_bytes()));
    assert!(stands || query.contains(&token), "{token:?}");
    if sources.len() == 1 && used(0) {
        let lines: Vec<_> = request.headers.get_all("authorization").iter().collect();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let (scheme, rest) = line.to_str().expect("ASCII").split_once(' ').expect("a space");
        let schemes: &[&str] = if accepts_dpop { &["bearer", "dpop"] } else { &["bearer"] };
        assert!(schemes.contains(&&*scheme.to_ascii_lowercase()), "{scheme:?}");
        assert_eq!(rest.trim_start_matches(' '), token);
    }
});
