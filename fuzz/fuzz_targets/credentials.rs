//! The tokens of requests: the token is the one that a slow reader finds in the configured
//! locations, and a cookie counts only from pages that may use it.

#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use http::request::Parts;
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
    let found = portcullis::fuzzing::token(&request, &sources, accepts_dpop).ok();
    let expected = expected(&request, used, accepts_dpop);
    assert_eq!(found, expected, "{flags} {query:?} {lines:?}");
});

/// The token as a slow reader finds it: the only value in all sources, if it is well-formed and the
/// page may use it.
fn expected(request: &Parts, used: impl Fn(usize) -> bool, accepts_dpop: bool) -> Option<String> {
    let lines = |name| -> Vec<Vec<u8>> {
        request.headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
    };
    let mut values: Vec<(usize, Vec<u8>)> = Vec::new();
    if used(0) {
        let lines = lines("authorization");
        if lines.len() > 1 {
            return None;
        }
        for line in lines {
            let name: Vec<u8> =
                line.iter().copied().take_while(|byte| !b" \t".contains(byte)).collect();
            let scheme = String::from_utf8_lossy(&name).to_ascii_lowercase();
            if scheme == "bearer" || accepts_dpop && scheme == "dpop" {
                let rest = line[name.len()..].iter().copied();
                values.push((0, rest.skip_while(|byte| *byte == b' ').collect()));
            }
        }
    }
    if used(1) {
        values.extend(lines("x-jwt").into_iter().map(|line| (1, line)));
    }
    if used(2) {
        let all = lines("cookie").join(&b';');
        for pair in all.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            if name == b"session" && !value.is_empty() {
                let is_quoted =
                    value.len() > 1 && value.starts_with(b"\"") && value.ends_with(b"\"");
                let value = if is_quoted { &value[1..value.len() - 1] } else { value };
                values.push((2, value.to_vec()));
            }
        }
    }
    if used(3) && request.headers.contains_key("upgrade") {
        let all = lines("sec-websocket-protocol").join(&b',');
        let all: Vec<_> = all.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
        let mut at = 0;
        while at < all.len() {
            if all[at] == b"bearer" {
                at += 1;
                values.push((3, all.get(at).copied().unwrap_or_default().to_vec()));
            }
            at += 1;
        }
    }
    if used(4) {
        for pair in request.uri.query().unwrap_or_default().split('&') {
            if let Some(("access_token", value)) = pair.split_once('=') {
                values.push((4, value.as_bytes().to_vec()));
            }
        }
    }
    let [(source, value)] = &values[..] else { return None };
    let text = std::str::from_utf8(value).ok()?;
    let is_legal = |one: char| one.is_ascii_alphanumeric() || "-._~+/".contains(one);
    let is_token = match source {
        // A gateway may pad each part.
        1 => !text.is_empty() && text.chars().all(|one| is_legal(one) || one == '='),
        _ => {
            let bare = text.trim_end_matches('=');
            !bare.is_empty() && bare.chars().all(is_legal)
        }
    };
    let is_allowed = match source {
        1 => may_use(request, "", true),
        2 => may_use(request, "https://app.example.com", false),
        _ => true,
    };
    (is_token && is_allowed).then(|| text.to_owned())
}

/// Whether the page that made the request may use what browsers send by themselves: the table of
/// `src/middleware/origin.rs`, row by row.
fn may_use(request: &Parts, listed: &str, allows_non_browsers: bool) -> bool {
    let all = |name| -> Vec<_> {
        let values = request.headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let (origins, sites) = (all("origin"), all("sec-fetch-site"));
    let site = match &sites[..] {
        [] => "absent",
        [site] if ["none", "same-origin"].contains(&&**site) => site,
        _ => "other",
    };
    let is_websocket = request.headers.contains_key("upgrade");
    let is_get = request.method == Method::GET;
    match (&origins[..], site) {
        ([origin], _) if origin == listed && !listed.is_empty() => true,
        ([_], "same-origin") => true,
        ([origin], "absent" | "none") => is_own(origin, &all("host")),
        ([_, ..], _) => false,
        ([], "other") => {
            let is_window =
                all("sec-fetch-mode") == ["navigate"] && all("sec-fetch-dest") == ["document"];
            is_get && !is_websocket && is_window
        }
        ([], _) if is_get && !is_websocket => true,
        ([], "absent") => {
            let mut names = request.headers.keys();
            allows_non_browsers && !names.any(|name| name.as_str().starts_with("sec-fetch-"))
        }
        _ => false,
    }
}

/// Whether an origin is that of the only `Host`. Plain `http` counts on loopback only.
fn is_own(origin: &str, hosts: &[String]) -> bool {
    let [host] = hosts else { return false };
    // What is not ASCII has been replaced here, so that two hosts may look the same.
    if !origin.is_ascii() {
        return false;
    }
    let host = host.to_ascii_lowercase();
    let (scheme, authority) = match origin.split_once("://") {
        Some((scheme @ ("https" | "http"), authority)) => (scheme, authority),
        _ => return false,
    };
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => authority,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback = name == "localhost"
        || name.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback());
    let port = if scheme == "https" { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_owned();
    !host.is_empty()
        && bare(&host) == bare(&authority.to_ascii_lowercase())
        && (scheme == "https" || is_loopback)
}
