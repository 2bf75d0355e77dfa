//! RFC 9111 §4.2.1, §5.2.2: the lifetime that a server gives its document.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

/// Returns `max-age` of `Cache-Control`, minus the `Age` that a cache on the way added. Returns
/// `None` if the response gives no lifetime.
///
/// `no-store`, `no-cache` and values that cannot be parsed are zero: the caller raises that to its
/// shortest lifetime.
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
            // A duplicate is a contradiction, or was added by an intermediary.
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

/// RFC 9111 §1.2.2: digits only. A number that is too large is capped.
fn seconds(digits: &str) -> Option<Duration> {
    let digits = digits.trim();
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_from_cache_control_and_age() {
        type Lines = &'static [(&'static str, &'static str)];
        let cases: [(&str, Lines, Option<u64>); 26] = [
            ("no header", &[], None),
            ("no lifetime", &[("cache-control", "public, must-revalidate")], None),
            ("max-age", &[("cache-control", "max-age=15")], Some(15)),
            (
                "max-age among other directives",
                &[("cache-control", "public, max-age=600, must-revalidate")],
                Some(600),
            ),
            ("without spaces", &[("cache-control", "public,max-age=600")], Some(600)),
            ("upper case", &[("cache-control", "MAX-AGE=600")], Some(600)),
            ("quoted", &[("cache-control", "max-age=\"600\"")], Some(600)),
            ("ten years", &[("cache-control", "max-age=315360000")], Some(315_360_000)),
            (
                "a number that is too large",
                &[("cache-control", "max-age=99999999999999999999999")],
                Some(4_294_967_295),
            ),
            ("zero", &[("cache-control", "max-age=0")], Some(0)),
            ("negative", &[("cache-control", "max-age=-1")], Some(0)),
            ("a fraction", &[("cache-control", "max-age=1.5")], Some(0)),
            ("garbage", &[("cache-control", "max-age=soon")], Some(0)),
            ("no argument", &[("cache-control", "max-age")], Some(0)),
            ("no-store", &[("cache-control", "no-store")], Some(0)),
            ("no-cache", &[("cache-control", "no-cache")], Some(0)),
            ("NO-CACHE", &[("cache-control", "NO-CACHE")], Some(0)),
            ("no-cache with a field", &[("cache-control", "no-cache=\"set-cookie\"")], Some(0)),
            ("no-store beside max-age", &[("cache-control", "max-age=600, no-store")], Some(0)),
            ("max-age twice", &[("cache-control", "max-age=600, max-age=60")], Some(0)),
            (
                "two header lines",
                &[("cache-control", "public"), ("cache-control", "max-age=60")],
                Some(60),
            ),
            (
                "max-age in two header lines",
                &[("cache-control", "max-age=60"), ("cache-control", "max-age=60")],
                Some(0),
            ),
            ("only s-maxage", &[("cache-control", "s-maxage=600")], None),
            ("with Age", &[("cache-control", "max-age=600"), ("age", "100")], Some(500)),
            ("Age over max-age", &[("cache-control", "max-age=600"), ("age", "601")], Some(0)),
            (
                "with an Age that is not a number",
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
