//! RFC 9111 §4.2.1, §5.2.2: how long the server says that its document is fresh.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

/// What `Cache-Control` says, less the `Age` that a cache on the way gave it; `None` if it says nothing about time.
///
/// Whatever forbids keeping, or cannot be understood, is zero: the shortest lifetime that the caller allows.
pub(crate) fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let mut max_age = None;
    for directive in directives(headers) {
        let (name, argument) = match directive.split_once('=') {
            Some((name, argument)) => (name.trim(), Some(argument.trim().trim_matches('"'))),
            None => (directive.trim(), None),
        };
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") {
            // Twice is a contradiction, or an intermediary's doing.
            if max_age.is_some() {
                return Some(Duration::ZERO);
            }
            max_age = Some(argument.and_then(seconds).unwrap_or_default());
        }
    }
    let age = headers.get(AGE).and_then(|age| seconds(age.to_str().ok()?)).unwrap_or_default();
    max_age.map(|max_age: Duration| max_age.saturating_sub(age))
}

fn directives(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines =
        headers.get_all(CACHE_CONTROL).iter().map(|line| line.to_str().unwrap_or("no-cache"));
    lines.flat_map(|line| line.split(','))
}

/// RFC 9111 §1.2.2: digits and nothing else; more than fits is as much as fits.
fn seconds(digits: &str) -> Option<Duration> {
    let digits = digits.trim();
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_word_is_taken_as_far_as_it_is_understood() {
        type Lines = &'static [(&'static str, &'static str)];
        let cases: [(&str, Lines, Option<u64>); 26] = [
            ("nothing", &[], None),
            ("nothing about time", &[("cache-control", "public, must-revalidate")], None),
            ("max-age", &[("cache-control", "max-age=15")], Some(15)),
            (
                "among others",
                &[("cache-control", "public, max-age=600, must-revalidate")],
                Some(600),
            ),
            ("without spaces", &[("cache-control", "public,max-age=600")], Some(600)),
            ("upper case", &[("cache-control", "MAX-AGE=600")], Some(600)),
            ("quoted", &[("cache-control", "max-age=\"600\"")], Some(600)),
            ("ten years", &[("cache-control", "max-age=315360000")], Some(315_360_000)),
            (
                "more than fits",
                &[("cache-control", "max-age=99999999999999999999999")],
                Some(4_294_967_295),
            ),
            ("0", &[("cache-control", "max-age=0")], Some(0)),
            ("negative", &[("cache-control", "max-age=-1")], Some(0)),
            ("a fraction", &[("cache-control", "max-age=1.5")], Some(0)),
            ("garbage", &[("cache-control", "max-age=soon")], Some(0)),
            ("no argument", &[("cache-control", "max-age")], Some(0)),
            ("no-store", &[("cache-control", "no-store")], Some(0)),
            ("no-cache", &[("cache-control", "no-cache")], Some(0)),
            ("NO-CACHE", &[("cache-control", "NO-CACHE")], Some(0)),
            ("no-cache with a name", &[("cache-control", "no-cache=\"set-cookie\"")], Some(0)),
            ("no-store beside max-age", &[("cache-control", "max-age=600, no-store")], Some(0)),
            ("twice", &[("cache-control", "max-age=600, max-age=60")], Some(0)),
            (
                "in two lines",
                &[("cache-control", "public"), ("cache-control", "max-age=60")],
                Some(60),
            ),
            (
                "twice in two lines",
                &[("cache-control", "max-age=60"), ("cache-control", "max-age=60")],
                Some(0),
            ),
            ("for shared caches", &[("cache-control", "s-maxage=600")], None),
            ("with an age", &[("cache-control", "max-age=600"), ("age", "100")], Some(500)),
            ("older than it may be", &[("cache-control", "max-age=600"), ("age", "601")], Some(0)),
            (
                "with an age that is none",
                &[("cache-control", "max-age=600"), ("age", "x")],
                Some(600),
            ),
        ];
        for (name, lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(http::HeaderName::from_static(name), value.parse().unwrap());
            }
            assert_eq!(lifetime(&headers), expected.map(Duration::from_secs), "{name}");
        }
    }
}
