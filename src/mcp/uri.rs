//! Which resources a URI may mean.
//!
//! A service may compare URIs as texts, or parse them first. A rule must apply in both cases, so
//! every spelling that some parser takes for the registered URI matches it. A rule that applies
//! once too often rejects a request; one that does not apply lets it through.

/// Rounds of percent-decoding. A URI that is still escaped after that may mean any resource.
const MAX_DECODINGS: usize = 3;

/// A longer URI, in bytes, may mean any resource. Each costs work in proportion to its length.
const MAX_LENGTH: usize = 2 * 1024;

/// The URI of a rule: exactly this one, or all that begin with it.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// As registered, and as RFC 6570 §3.1 expands it.
    literals: [String; 2],
    is_template: bool,
    spellings: Spellings,
    is_prefix: bool,
    has_authority: bool,
}

/// A URI of a request, as the services that read it may understand it.
#[derive(Debug)]
pub(crate) struct Uri<'a> {
    literal: &'a str,
    spellings: Spellings,
    /// What a service knows that uses the path only.
    path: Option<String>,
    /// Whether it may mean any resource.
    is_ambiguous: bool,
}

/// The forms in which a service may understand a URI.
#[derive(Clone, Debug, Default)]
struct Spellings {
    /// By the standards: each of them counts.
    strict: Vec<String>,
    /// By services that ignore a part of it.
    loose: Vec<String>,
}

/// Whether a URI means the resource of a [`Pattern`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Match {
    No,
    /// To some services. It may also be a resource without a rule.
    Possible,
    /// To every service.
    Certain,
}

impl Pattern {
    /// `uri`: a URI, or a template (RFC 6570), of which the part before the first `{` counts.
    pub(crate) fn new(uri: &str) -> Self {
        let (literal, is_template) =
            uri.split_once('{').map_or((uri, false), |(prefix, _)| (prefix, true));
        let (decoded, _) = decoded(literal);
        // A template for the query is about one resource, whatever its query.
        let is_prefix = is_template && !decoded.contains(['?', '#']);
        Self {
            spellings: Spellings::new(&decoded, !is_prefix),
            literals: [literal.to_owned(), percent_encoded(literal)],
            has_authority: authority(&decoded)
                .is_some_and(|(_, authority, _)| !authority.is_empty()),
            is_template,
            is_prefix,
        }
    }

    pub(crate) fn matches(&self, uri: &Uri<'_>) -> Match {
        let covers = |own: &[String], spelling: &String| {
            own.iter().any(|own| {
                spelling == own
                    || self.is_prefix
                        // The directory itself has no slash at its end.
                        && (spelling.starts_with(own) || own.strip_suffix('/') == Some(spelling))
            })
        };
        let Spellings { strict, loose } = &self.spellings;
        let is_literal = self
            .literals
            .iter()
            .any(|own| uri.literal == own || self.is_template && uri.literal.starts_with(own));
        if is_literal
            && !uri.is_ambiguous
            && uri.spellings.strict.iter().all(|one| covers(strict, one))
        {
            return Match::Certain;
        }
        let path = uri.path.iter().filter(|_| !self.has_authority);
        if is_literal
            || uri.is_ambiguous
            || uri.spellings.strict.iter().any(|one| covers(strict, one))
            || uri.spellings.loose.iter().chain(path).any(|one| covers(loose, one))
        {
            Match::Possible
        } else {
            Match::No
        }
    }
}

impl<'a> Uri<'a> {
    pub(crate) fn new(uri: &'a str) -> Self {
        if uri.len() > MAX_LENGTH {
            let spellings = Spellings::default();
            return Self { literal: uri, spellings, path: None, is_ambiguous: true };
        }
        let (decoded, is_decoded) = decoded(uri);
        let path = authority(&decoded)
            .map(|(scheme, _, path)| loosened(&collapsed(&format!("{scheme}:{path}"), true), true));
        let is_ambiguous = !is_decoded || is_ambiguous(&decoded);
        Self { literal: uri, spellings: Spellings::new(&decoded, true), path, is_ambiguous }
    }
}

/// Returns the URI in lower case, without percent-encoding, white space and control characters, and
/// whether nothing is encoded any more. URL parsers remove white space before they decode, so it is
/// removed in each round.
fn decoded(uri: &str) -> (String, bool) {
    let mut text = without_spaces(uri);
    for _ in 0..MAX_DECODINGS {
        match percent_decoded(&text) {
            Some(next) => text = without_spaces(&next),
            None => return (lower_case(&text), true),
        }
    }
    let is_decoded = percent_decoded(&text).is_none();
    (lower_case(&text), is_decoded)
}

/// By character: that of a whole text depends on the end of the word in Greek.
fn lower_case(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn without_spaces(text: &str) -> String {
    let is_kept = |character: &char| !character.is_control() && !character.is_whitespace();
    text.chars().filter(is_kept).collect()
}

impl Spellings {
    /// `is_complete`: whether it is a whole URI, not the beginning of one.
    fn new(uri: &str, is_complete: bool) -> Self {
        // A parser would resolve a dot that is only the beginning of a segment.
        let has_whole_segments = is_complete || !uri.ends_with('.');
        let parsed = |uri: &str| parsed(uri).filter(|_| has_whole_segments);
        let mut strict = vec![uri.to_owned()];
        strict.extend(parsed(uri));
        let mut loose = Vec::new();
        if let Some((scheme, authority, path)) = authority(uri)
            && (is_complete || !path.is_empty())
        {
            let plain = format!("://{}{path}", host_and_port(authority));
            // As a URL with a host, where `127.1` is `127.0.0.1`.
            let as_https = parsed(&format!("https{plain}"));
            let as_https = as_https.as_deref().and_then(|url| url.strip_prefix("https"));
            loose.extend(as_https.map(|url| format!("{scheme}{url}")));
            strict.push(format!("{scheme}{plain}"));
        }
        let unique = |uris: Vec<String>| {
            uris.into_iter().fold(Vec::new(), |mut all, one| {
                if !all.contains(&one) {
                    all.push(one);
                }
                all
            })
        };
        let strict: Vec<_> = unique(strict.iter().map(|uri| collapsed(uri, is_complete)).collect());
        let loose =
            loose.iter().map(|uri| collapsed(uri, is_complete)).chain(strict.iter().cloned());
        let loose = unique(loose.map(|uri| loosened(&uri, is_complete)).collect());
        Self { strict, loose }
    }
}

/// Scheme, authority, and the rest, of a URI that has an authority.
fn authority(uri: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = uri.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    Some((scheme, authority, path))
}

/// Removes a port, and what follows `;` in each segment, from a collapsed URI.
fn loosened(uri: &str, is_complete: bool) -> String {
    let Some((scheme, rest)) = uri.split_once(":/") else { return uri.to_owned() };
    let is_closed = is_complete || rest.contains('/');
    let mut text = format!("{scheme}:");
    for (position, segment) in rest.split('/').enumerate() {
        let segment = segment.split(';').next().unwrap_or_default();
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let segment = match segment.rsplit_once(':') {
            Some((host, port)) if position == 0 && is_closed && is_port(port) => host,
            _ => segment,
        };
        text.push('/');
        text.push_str(segment);
    }
    text
}

/// The URI by the URL Standard, without a user.
fn parsed(uri: &str) -> Option<String> {
    let mut url = url::Url::parse(uri).ok()?;
    // These fail only for URLs without a host, which have no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Some(url.into())
}

/// The authority (RFC 3986 §3.2) without a user, and without a port that is no number.
fn host_and_port(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && port.parse::<u16>().is_err() => host,
        _ => host,
    }
}

/// Returns the URI without query and fragment, with a single slash after the scheme and between
/// segments, and none at the end of a complete URI. Many services ignore these differences, and a
/// dot at the end of the host.
fn collapsed(uri: &str, is_complete: bool) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let (mut text, rest) = match uri.split_once(':') {
        Some((scheme, rest)) if !scheme.contains('/') => (format!("{scheme}:/"), rest),
        _ => (String::new(), uri),
    };
    let is_closed = is_complete || rest.trim_start_matches('/').contains('/');
    for (position, segment) in rest.split('/').filter(|segment| !segment.is_empty()).enumerate() {
        if position == 0 && is_closed {
            let (host, port) = segment.split_at(segment.find(':').unwrap_or(segment.len()));
            text.push_str(host.strip_suffix('.').unwrap_or(host));
            text.push_str(port);
        } else {
            text.push_str(if position == 0 { "" } else { "/" });
            text.push_str(segment);
        }
    }
    if !is_complete && rest.ends_with('/') && !text.ends_with('/') {
        text.push('/');
    }
    text
}

/// Decodes each `%XX` once. Returns `None` if the text has no `%XX`.
fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut found = false;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.split_first_chunk::<2>()).flatten();
        let value = escaped.and_then(|(digits, _)| {
            let digits = std::str::from_utf8(digits).ok()?;
            // `from_str_radix` also accepts a sign.
            digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
            u8::from_str_radix(digits, 16).ok()
        });
        match (value, escaped) {
            (Some(value), Some((_, after))) => {
                bytes.push(value);
                rest = after;
                found = true;
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    found.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Encodes what a template may contain and a URI may not (RFC 6570 §3.1).
fn percent_encoded(literal: &str) -> String {
    let mut encoded = String::with_capacity(literal.len());
    for character in literal.chars() {
        if matches!(character, '!'..='~')
            && !matches!(character, '"' | '<' | '>' | '\\' | '^' | '`' | '|' | '}')
        {
            encoded.push(character);
        } else {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                encoded += &format!("%{byte:02X}");
            }
        }
    }
    encoded
}

/// Whether services may disagree about the resource: `https://h/public/../private` is
/// `https://h/private` for one that resolves it.
fn is_ambiguous(decoded: &str) -> bool {
    // Some servers ignore what follows `;` in a segment.
    let is_dot_segment = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    // Other forms of `.`, `/` and `\`, and what was not UTF-8.
    let is_lookalike = |character: char| {
        matches!(
            character,
            '\u{2024}'
                | '\u{2025}'
                | '\u{fe52}'
                | '\u{fe68}'
                | '\u{ff0e}'
                | '\u{ff0f}'
                | '\u{ff3c}'
                | '\u{fffd}'
        )
    };
    decoded.contains('\\')
        || decoded.contains(is_lookalike)
        // Python's urllib unwraps these.
        || decoded.starts_with("url:")
        || decoded.starts_with('<')
        // A drive letter, `C|`.
        || decoded.starts_with("file:") && decoded.contains('|')
        || decoded.split(['/', '?', '#', ':']).any(is_dot_segment)
        || authority(decoded).is_some_and(|(_, authority, _)| authority.matches('@').count() > 1)
}

#[cfg(test)]
mod tests;
