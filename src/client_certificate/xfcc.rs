//! Envoy's header `X-Forwarded-Client-Cert`: elements separated by commas, and in each of them
//! pairs `Key=value` separated by semicolons. A value in double quotes may contain both.

use super::ClientCertificate;
use super::encoding::{escaped_pem, hex_hash};
use crate::crypto;

const ELEMENTS: &str = "elements such as `Hash=…;Subject=\"…\"`";

/// The pairs of one element that identify the certificate.
#[derive(Default)]
struct Element<'a> {
    hash: Option<&'a str>,
    cert: Option<&'a str>,
}

/// Reads the last element: the one that the nearest proxy has appended.
pub(super) fn read(header: &str) -> Result<Option<ClientCertificate>, &'static str> {
    let mut rest = header;
    let mut element = Element::default();
    // Envoy writes these as they are in the client's certificate, behind everything else. What
    // follows may be written by the client.
    let mut has_names = false;
    loop {
        let (pair, end) = Pair::split_off(&mut rest).ok_or(ELEMENTS)?;
        let identifier = match pair.key {
            Key::Hash => Some(&mut element.hash),
            Key::Cert => Some(&mut element.cert),
            Key::Uri | Key::Dns => {
                has_names = true;
                None
            }
            Key::Other => None,
        };
        if let Some(identifier) = identifier {
            if has_names {
                return Err("`Hash` and `Cert` before `URI` and `DNS`");
            }
            if identifier.replace(pair.value).is_some() {
                return Err("one `Hash` and one `Cert` per element");
            }
        }
        match end {
            End::Pair => {}
            End::Element if has_names => {
                return Err("one element, as with `SANITIZE_SET`, if it has `URI` or `DNS`");
            }
            End::Element => element = Element::default(),
            End::Header => return element.certificate(),
        }
    }
}

impl Element<'_> {
    /// Without both, the element has only the chain or the names of the certificate, or none.
    fn certificate(&self) -> Result<Option<ClientCertificate>, &'static str> {
        let hash = self.hash.map(|hash| hex_hash(hash).ok_or("`Hash` in hexadecimal"));
        let cert = self.cert.map(|cert| escaped_pem(cert).ok_or("`Cert` in percent-encoded PEM"));
        match (hash.transpose()?, cert.transpose()?) {
            (Some(hash), Some(cert)) if !crypto::is_equal(hash.sha256(), cert.sha256()) => {
                Err("`Hash` to be the SHA-256 of `Cert`")
            }
            (hash, cert) => Ok(hash.or(cert)),
        }
    }
}

struct Pair<'a> {
    key: Key,
    /// Without quotes. Escapes are not decoded: the values that count have none.
    value: &'a str,
}

enum Key {
    Hash,
    Cert,
    Uri,
    Dns,
    Other,
}

/// What follows a pair.
enum End {
    Pair,
    Element,
    Header,
}

impl<'a> Pair<'a> {
    /// Splits off the first pair, and what separates it from the next one.
    fn split_off(rest: &mut &'a str) -> Option<(Self, End)> {
        let (key, after) = rest.split_once('=')?;
        let key = Key::parse(key.trim())?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => split_quoted(quoted)?,
            None => split_unquoted(after)?,
        };
        let (end, next) = match after.split_at_checked(1) {
            None => (End::Header, ""),
            Some((";", next)) => (End::Pair, next),
            Some((",", next)) => (End::Element, next),
            Some(_) => return None,
        };
        *rest = next;
        Some((Self { key, value }, end))
    }
}

impl Key {
    /// Keys are case-insensitive.
    fn parse(key: &str) -> Option<Self> {
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_key.then(|| match key.to_ascii_lowercase().as_str() {
            "hash" => Self::Hash,
            "cert" => Self::Cert,
            "uri" => Self::Uri,
            "dns" => Self::Dns,
            _ => Self::Other,
        })
    }
}

/// Splits behind the closing quote. A backslash escapes the character after it.
fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    })?;
    let (value, after) = (text.get(..end)?, text.get(end + 1..)?.trim_start());
    // Envoy adds a `Hash` to each element. Within quotes, it would be that of an element that an
    // earlier one hides, with a quote that it does not close.
    let hides_element = value.to_ascii_lowercase().contains("hash=");
    (!hides_element).then_some((value, after))
}

fn split_unquoted(text: &str) -> Option<(&str, &str)> {
    let (value, after) = text.split_at_checked(text.find([',', ';']).unwrap_or(text.len()))?;
    (!value.contains('"')).then(|| (value.trim_end(), after))
}
