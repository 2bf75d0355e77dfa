//! Which resources a URI may mean.
//!
//! A service may compare URIs as texts, or parse them first. A rule must apply in both cases, so
//! every spelling that some parser takes for the registered URI matches it. A rule that applies
//! once too often rejects a request; one that does not apply lets it through.

/// Rounds of percent-decoding. A URI that is still escaped after that may mean any resource.
const MAX_DECODINGS: usize = 3;

/// The URI of a rule: exactly this one, or all that begin with it.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    uri: Uri,
    is_prefix: bool,
}

/// A URI, as the services that read it may understand it.
#[derive(Clone, Debug)]
pub(super) struct Uri {
    /// As a text, and as a URL parser writes it.
    spellings: [String; 2],
    /// Whether it may mean any resource.
    is_ambiguous: bool,
}

impl Pattern {
    /// `uri`: a URI, or a template (RFC 6570), of which the part before the first `{` counts.
    pub(super) fn new(uri: &str) -> Self {
        let (text, is_prefix) =
            uri.split_once('{').map_or((uri, false), |(prefix, _)| (prefix, true));
        Self { uri: Uri::new(text), is_prefix }
    }

    pub(super) fn matches(&self, uri: &Uri) -> bool {
        // A rule whose own URI is ambiguous applies to every resource, rather than to none.
        if uri.is_ambiguous || self.uri.is_ambiguous {
            return true;
        }
        uri.spellings.iter().any(|uri| {
            self.uri.spellings.iter().any(|own| {
                if self.is_prefix {
                    // The directory itself has no slash at its end.
                    uri.starts_with(own) || own.strip_suffix('/') == Some(bare(uri))
                } else {
                    bare(uri) == bare(own)
                }
            })
        })
    }
}

/// Without query, fragment, and slashes at the end: many services ignore them.
fn bare(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}

impl Uri {
    pub(super) fn new(uri: &str) -> Self {
        let mut decoded = uri.to_owned();
        let mut rounds = 0;
        while let Some(next) = percent_decoded(&decoded) {
            rounds += 1;
            if rounds > MAX_DECODINGS {
                break;
            }
            decoded = next;
        }
        let text = normalized(&decoded);
        let parsed = url::Url::parse(&text).map_or_else(
            |_| text.clone(),
            |mut url| {
                // Without a host there is no user to remove.
                let _ = url.set_username("");
                let _ = url.set_password(None);
                normalized(url.as_str())
            },
        );
        let is_ambiguous =
            rounds > MAX_DECODINGS || has_dot_segments(&text) || has_unusual_host(&text);
        Self { spellings: [text, parsed], is_ambiguous }
    }
}

/// Lower case, without white space and control characters, which URL parsers remove, and with two
/// slashes after the scheme, whatever their number.
fn normalized(text: &str) -> String {
    let text: String = text
        .chars()
        .filter(|character| !character.is_control() && !character.is_whitespace())
        .flat_map(char::to_lowercase)
        .map(|character| if character == '\\' { '/' } else { character })
        .collect();
    let is_scheme = |scheme: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        !scheme.is_empty() && scheme.bytes().all(is_part)
    };
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => {
            format!("{scheme}://{}", rest.trim_start_matches('/'))
        }
        _ => text,
    }
}

/// Decodes each `%XX` once. `None`: there is none.
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

/// `https://h/public/../private` is `https://h/private` for a service that resolves it.
fn has_dot_segments(text: &str) -> bool {
    text.split(['/', '?', '#']).any(|segment| matches!(segment, "." | ".."))
}

/// URL parsers map some characters of a host to others, and know a user before it.
fn has_unusual_host(text: &str) -> bool {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default();
    !authority.is_ascii() || authority.contains('@') || host.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_registered_uri_matches() {
        struct Case {
            pattern: &'static str,
            uri: &'static str,
            matches: bool,
        }
        for Case { pattern, uri, matches } in [
            Case { pattern: "drafts://{id}", uri: "drafts://1", matches: true },
            Case { pattern: "drafts://{id}", uri: "drafts://{id}", matches: true },
            Case { pattern: "drafts://{id}", uri: "DRAFTS://1", matches: true },
            Case { pattern: "drafts://{id}", uri: "drafts:///1", matches: true },
            Case { pattern: "drafts://{id}", uri: "drafts:1", matches: true },
            Case { pattern: "drafts://{id}", uri: "drafts:/%2f1", matches: true },
            Case { pattern: "drafts://{id}", uri: "dr%61fts://1", matches: true },
            Case { pattern: "drafts://{id}", uri: "dr%2561fts://1", matches: true },
            Case { pattern: "drafts://{id}", uri: "dr\tafts://1", matches: true },
            Case { pattern: "drafts://{id}", uri: " drafts://1", matches: true },
            Case { pattern: "drafts://{id}", uri: "drafts:\\\\1", matches: true },
            Case { pattern: "drafts://{id}", uri: "notes://../drafts/1", matches: true },
            Case { pattern: "drafts://{id}", uri: "notes://a/%2e%2e/b", matches: true },
            Case { pattern: "drafts://{id}", uri: "%25252561", matches: true },
            Case { pattern: "drafts://{id}", uri: "notes://1", matches: false },
            Case { pattern: "drafts://{id}", uri: "drafts", matches: false },
            Case { pattern: "drafts://{id}", uri: "draftsx://1", matches: false },
            Case { pattern: "notes://a/{id}", uri: "notes://a/1", matches: true },
            Case { pattern: "notes://a/{id}", uri: "notes://A/1", matches: true },
            Case { pattern: "notes://a/{id}", uri: "notes://b/1", matches: false },
            Case { pattern: "notes://a/{id}", uri: "notes://\u{ff41}/1", matches: true },
            Case { pattern: "notes://a", uri: "notes://a", matches: true },
            Case { pattern: "notes://a", uri: "notes://%61", matches: true },
            Case { pattern: "my%20docs://{id}", uri: "my%20docs://1", matches: true },
            Case {
                pattern: "https://h/my%20docs/{id}",
                uri: "https://h/my%20docs/1",
                matches: true,
            },
            Case { pattern: "https://h/my%20docs/{id}", uri: "https://h/my docs/1", matches: true },
            Case { pattern: "notes://a%2Fb", uri: "notes://a%2Fb", matches: true },
            Case { pattern: "notes://a%2Fb", uri: "notes://a/b", matches: true },
            Case { pattern: "https://h/p/{x}", uri: "https://h:443/p/1", matches: true },
            Case { pattern: "https://h/p/{x}", uri: "https://h:/p/1", matches: true },
            Case { pattern: "https://h/p/{x}", uri: "https://@h/p/1", matches: true },
            Case { pattern: "https://h/p/{x}", uri: "https://user@h/p/1", matches: true },
            Case { pattern: "https://h/p/{x}", uri: "https://h./p/1", matches: true },
            Case { pattern: "https://127.0.0.1/p/{x}", uri: "https://127.1/p/1", matches: true },
            Case { pattern: "https://h:443/p/{x}", uri: "https://h/p/1", matches: true },
            Case { pattern: "https://h:8443/p/{x}", uri: "https://h:8443/p/1", matches: true },
            Case { pattern: "https://h:8443/p/{x}", uri: "https://h/p/1", matches: false },
            Case { pattern: "notes://a", uri: "notes://@a", matches: true },
            Case { pattern: "notes://a", uri: "notes://a:", matches: true },
            Case { pattern: "notes://a", uri: "notes://a/", matches: true },
            Case { pattern: "notes://a", uri: "notes://a?x=1", matches: true },
            Case { pattern: "notes://a", uri: "notes://a#x", matches: true },
            Case { pattern: "notes://a", uri: "notes://a/b", matches: false },
            Case { pattern: "files://private/{x}", uri: "files://private", matches: true },
            Case { pattern: "files://private/{x}", uri: "files://private/", matches: true },
            Case { pattern: "files://private/{x}", uri: "files://privates", matches: false },
            Case { pattern: "notes://a", uri: "notes://ab", matches: false },
            Case { pattern: "notes://a", uri: "notes://100%", matches: false },
            Case { pattern: "notes://100%", uri: "notes://100%", matches: true },
        ] {
            assert_eq!(Pattern::new(pattern).matches(&Uri::new(uri)), matches, "{pattern} {uri:?}");
        }
    }
}
