//! `htu`: the URL that a DPoP proof was made for (RFC 9449 §4.3, item 9), compared with that of the
//! request as RFC 3986 §6.2.2 and §6.2.3 say.
//!
//! Scheme, host, port and the prefix that a proxy strips are configuration, never read from the
//! request: `Host` is chosen by the sender, and a server that receives a proof for another API
//! could replay it here with that API's name in `Host`.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The configured beginning of this API's URLs, without a slash at its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Base(String);

impl Base {
    /// Returns `None` if it is not an absolute `http` or `https` URL, or has a user, a query or a
    /// fragment.
    pub(crate) fn new(url: &str) -> Option<Self> {
        let is_bare = !url.contains(['?', '#']);
        let normal = normal_form(url).filter(|_| is_bare)?;
        Some(Self(normal.trim_end_matches('/').to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port, without the default port.
    pub(crate) fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// Whether there is a path after the host.
    fn has_prefix(&self) -> bool {
        self.0.split_once("://").is_some_and(|(_, rest)| rest.contains('/'))
    }

    /// The same scheme and prefix at another host. `None` if it is no host.
    pub(crate) fn at(&self, authority: &str) -> Option<Self> {
        if authority.contains('/') {
            return None;
        }
        let (scheme, rest) = self.0.split_once("://")?;
        let own_prefix = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
        Self::new(&format!("{scheme}://{authority}{own_prefix}"))
    }

    /// Whether `htu` is this base, followed by this path.
    fn is_before(&self, htu: &str, path: &str) -> bool {
        htu.strip_prefix(&*self.0) == Some(path)
    }
}

/// Whether `htu` is the URL of a request with this path, at one of the bases. Query and fragment of
/// `htu` are ignored. Both are brought into their normal form once, whatever the number of bases.
pub(crate) fn is_target<'a>(
    htu: &str,
    path: &str,
    mut bases: impl Iterator<Item = &'a Base> + Clone,
) -> bool {
    // Otherwise `.evil.example/` would continue the host.
    if !(path.is_empty() || path.starts_with('/')) {
        return false;
    }
    // Nearly all clients spell the URL as it is configured.
    let is_plain_path = path.bytes().all(is_plain) && !path.contains("/.");
    if is_plain_path && bases.clone().any(|base| base.is_before(htu, path)) {
        return true;
    }
    let Some(htu) = normal_form(htu) else { return false };
    // The normal form of a path is a third as long at least. It may be much longer than a proof.
    if path.len() > 3 * htu.len() {
        return false;
    }
    // A service may treat `/x/../a` in another way than `/a`, so the request's path keeps its dot
    // segments.
    let Some(path) = decoded(path) else { return false };
    bases.any(|base| {
        base.is_before(&htu, &path)
            // The root of a router that is nested at `/v1` serves `/v1` and `/v1/`: its path does
            // not tell which of them the client wrote. Without a prefix, the normal form of both
            // is `/`.
            || path == "/" && htu == base.0
            || path.is_empty() && htu.strip_suffix('/') == Some(&base.0) && !base.has_prefix()
    })
}

/// The normal form of an absolute URL, without query and fragment. `None` if it is not an `http` or
/// `https` URL of only those characters that RFC 3986 allows.
///
/// This is not the parser of the crate `url`, which follows the WHATWG: it drops tabs, takes `\`
/// for `/` and translates other characters.
fn normal_form(url: &str) -> Option<String> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://")?;
    let (scheme, default_port) = if scheme.eq_ignore_ascii_case("https") {
        ("https", 443)
    } else if scheme.eq_ignore_ascii_case("http") {
        ("http", 80)
    } else {
        return None;
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at_checked(at)?,
        None => (rest, "/"),
    };
    let (host, port) = host_and_port(authority)?;
    let port = match port {
        Some(port) if port != default_port => format!(":{port}"),
        _ => String::new(),
    };
    let path = decoded(path)?;
    let path = without_dot_segments(&path);
    Some(format!("{scheme}://{host}{port}{path}"))
}

/// The host in its normal form, and the port. A user is not allowed.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if authority.starts_with('[') {
        let (address, port) = authority.split_at_checked(authority.find(']')? + 1)?;
        let address = address.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
        (format!("[{address}]"), port)
    } else {
        let (host, port) =
            authority.split_at_checked(authority.find(':').unwrap_or(authority.len()))?;
        let is_allowed = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'='
                )
        };
        if host.is_empty() || !host.bytes().all(is_allowed) {
            return None;
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port.strip_prefix(':') {
        // An empty port is the default (RFC 3986 §6.2.3).
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        None if port.is_empty() => None,
        _ => return None,
    };
    Some((host, port))
}

/// Whether a character of a path stands for itself (RFC 3986 §3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'
                ..=b',' | b';' | b'=' | b':' | b'@' | b'/'
        )
}

/// A path with upper-case percent-encoding and without that of unreserved characters (RFC 3986
/// §6.2.2). `None` if it has a character that is not allowed.
fn decoded(path: &str) -> Option<Cow<'_, str>> {
    if path.bytes().all(is_plain) {
        return Some(Cow::Borrowed(path));
    }
    let hex =
        |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|one| u8::try_from(one).ok());
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            is_plain(byte).then(|| out.push(char::from(byte)))?;
            continue;
        }
        let byte = hex(bytes.next())? << 4 | hex(bytes.next())?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                out.push(digit.to_ascii_uppercase());
            }
        }
    }
    Some(Cow::Owned(out))
}

/// RFC 3986 §5.2.4, for a path that begins with a slash.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut ends_with_dots = false;
    for segment in segments {
        ends_with_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => _ = kept.pop(),
            other => kept.push(other),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_with_dots || out.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "https://api.example.com";

    /// A row: `htu`, the configured base, the path of the request, and whether they are the same.
    fn check(rows: &[(&str, &str, &str, bool)]) {
        for (htu, base, path, expected) in rows {
            let parsed = Base::new(base).unwrap_or_else(|| panic!("{base}"));
            let found = is_target(htu, path, [&parsed].into_iter());
            assert_eq!(found, *expected, "htu {htu}, request {base} {path}");
        }
    }

    #[test]
    fn equivalent_urls_are_the_same() {
        check(&[
            ("https://api.example.com/a", HOST, "/a", true),
            ("HTTPS://API.Example.COM/a", HOST, "/a", true),
            ("https://api.example.com/a", "HTTPS://API.Example.COM", "/a", true),
            ("https://api.example.com:443/a", HOST, "/a", true),
            ("https://api.example.com/a", "https://api.example.com:443/", "/a", true),
            ("https://api.example.com:/a", HOST, "/a", true),
            ("http://api.example.com:80/a", "http://api.example.com", "/a", true),
            ("https://api.example.com", HOST, "/", true),
            ("https://api.example.com", HOST, "", true),
            ("https://api.example.com/", HOST, "", true),
            ("https://api.example.com/a?x=1#y", HOST, "/a", true),
            ("https://api.example.com?x=1", HOST, "/", true),
            ("https://api.example.com/%7Eu", HOST, "/~u", true),
            ("https://api.example.com/~u", HOST, "/%7eu", true),
            ("https://api.example.com/%e2%82%ac", HOST, "/%E2%82%AC", true),
            ("https://a/~~~~~~~~", "https://a", "/%7e%7e%7e%7e%7e%7e%7e%7e", true),
            ("https://api.example.com/a%2fb", HOST, "/a%2Fb", true),
            ("https://api.example.com/x/../a", HOST, "/a", true),
            ("https://api.example.com/x/%2e%2e/a", HOST, "/a", true),
            ("https://api.example.com/a/.", HOST, "/a/", true),
            ("https://api.example.com/../../a", HOST, "/a", true),
            ("https://[2001:DB8::1]:443/a", "https://[2001:db8::1]", "/a", true),
            ("https://[2001:db8:0:0:0:0:0:1]/a", "https://[2001:db8::1]", "/a", true),
            ("https://xn--bcher-kva.example/a", "https://xn--bcher-kva.example", "/a", true),
            ("https://api.example.com/v1/a", "https://api.example.com/v1/", "/a", true),
            ("https://api.example.com/v1", "https://api.example.com/v1", "", true),
            ("https://api.example.com/v1", "https://api.example.com/v1", "/", true),
            ("https://api.example.com/v1/", "https://api.example.com/v1", "/", true),
        ]);
    }

    #[test]
    fn other_urls_are_not() {
        check(&[
            ("https://api.example.com/a", "https://api.example.com/v1", "/a", false),
            ("https://api.example.com/a/", HOST, "/a", false),
            ("https://api.example.com/v1", "https://api.example.com/v1", "/a", false),
            ("https://api.example.com/v", "https://api.example.com/v1", "/", false),
            ("https://api.example.com/v1/", "https://api.example.com/v1", "", false),
            ("https://api.example.com/A", HOST, "/a", false),
            ("https://api.example.com:8443/a", HOST, "/a", false),
            ("https://api.example.com:99999/a", HOST, "/a", false),
            ("https://api.example.com:+443/a", HOST, "/a", false),
            ("http://api.example.com/a", HOST, "/a", false),
            ("https://api.example.com//a", HOST, "/a", false),
            ("https://api.example.com/a%2Fb", HOST, "/a/b", false),
            ("https://api.example.com/a%2Fb", HOST, "/a%3Fb", false),
            ("https://api.example.com/a%22b", HOST, "/a%23b", false),
            ("https://api.example.com/%252F", HOST, "/%2F", false),
            ("https://api.example.com/a;v=1", HOST, "/a", false),
            ("https://user@api.example.com/a", HOST, "/a", false),
            ("https://api.example.com./a", HOST, "/a", false),
            ("https://api.example.com/a%", HOST, "/a", false),
            ("https://api.example.com/%GG", HOST, "/%GG", false),
            ("https://api.example.com/a%", HOST, "/a%", false),
            ("https://api.example.com/a\\b", HOST, "/a\\b", false),
            ("https://api.example.com/x/../a", HOST, "/x/../a", false),
            ("https://api.example.com", HOST, "*", false),
            ("https:\\\\api.example.com\\a", HOST, "/a", false),
            ("https://api.example.com\\a", HOST, "/a", false),
            ("https://api.example.com/a", HOST, "/x/../a", false),
            ("/a", HOST, "/a", false),
            ("api.example.com/a", HOST, "/a", false),
            ("urn:a", HOST, "/a", false),
            ("wss://api.example.com/a", HOST, "/a", false),
            ("https://bücher.example/a", "https://xn--bcher-kva.example", "/a", false),
            ("https://api.example.com/\ta", HOST, "/a", false),
            ("https://api.example.com/a ", HOST, "/a", false),
            (" https://api.example.com/a", HOST, "/a", false),
            ("https://api.example.com.evil.example/a", HOST, "/a", false),
            ("https://api.example.com.evil.example/a", HOST, ".evil.example/a", false),
            ("https://api.example.com/a", "https://other.example", "/a", false),
            ("https://[2001:db8::1%25eth0]/a", "https://[2001:db8::1]", "/a", false),
            ("https://[2001:db8::1]x/a", "https://[2001:db8::1]", "/a", false),
            ("https:///a", HOST, "/a", false),
            ("", HOST, "/", false),
        ]);
    }

    #[test]
    fn bases_are_absolute_urls() {
        for wrong in [
            "",
            "/v1",
            "api.example.com",
            "ftp://a",
            "https://",
            "https://a b",
            "https://a/?x",
            "https://a/#x",
            "https://user@a",
            "https://a:x",
            "https://a:65536",
            "https://[::1",
            "https://[::1]x",
        ] {
            assert_eq!(Base::new(wrong), None, "{wrong:?}");
        }
        for (given, normal) in [
            ("https://a", "https://a"),
            ("https://a/", "https://a"),
            ("https://a/v1/", "https://a/v1"),
            ("HTTP://A:80/x/../v1", "http://a/v1"),
        ] {
            assert_eq!(Base::new(given).unwrap().as_str(), normal);
        }
    }
}
