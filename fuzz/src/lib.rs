//! What the fuzz targets have in common: other implementations to compare with, and an issuer whose
//! tokens are quick to sign.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use portcullis::testing::TestClock;
use portcullis::{Algorithm, Issuer, Revocations, Verifier};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub const ISS: &str = "https://issuer.example/";
pub const AUDIENCE: &str = "https://api.example.com";
/// What the clock shows, in seconds since 1970.
pub const NOW: i64 = 1_800_000_000;
pub const SECRET: [u8; 32] = [7; 32];
/// The size limit of a JWS, in bytes.
pub const MAX_JWS: usize = 16 * 1024;
/// The size limit of the body of a request that tells of revocations, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A verifier that stands still in time, with the revocations that its receivers add to.
pub struct Api {
    pub verifier: Verifier,
    pub revocations: Revocations,
    pub clock: TestClock,
}

impl Api {
    pub fn new() -> Self {
        let revocations = Revocations::in_memory();
        Self::of(revocations.clone(), Some(&revocations))
    }

    /// Accepts what its revocations alone would reject.
    pub fn without_revocations() -> Self {
        Self::of(Revocations::in_memory(), None)
    }

    fn of(revocations: Revocations, used: Option<&Revocations>) -> Self {
        let clock = TestClock::new();
        clock.correct_by(NOW - clock.unix_seconds() as i64);
        let issuer =
            Issuer::new(ISS, AUDIENCE).and_then(|one| one.secret(Algorithm::HS256, &SECRET));
        let issuer = issuer.expect("the configuration is valid");
        let builder = Verifier::builder(issuer).clock(&clock);
        let builder = match used {
            Some(revocations) => builder.revocations(revocations),
            None => builder,
        };
        // Otherwise, the memory that is measured is that of the cache.
        let verifier = builder.without_token_cache().build().expect("the configuration is valid");
        Self { verifier, revocations, clock }
    }

    pub fn accepts(&self, token: &str) -> bool {
        self.verifier.try_verify(token).expect("nothing is fetched").is_ok()
    }
}

impl Default for Api {
    fn default() -> Self {
        Self::new()
    }
}

/// The parts of an input, which are separated by line feeds. The last part may have more of them.
pub fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.splitn(N, '\n').collect::<Vec<_>>().try_into().ok()
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A JWS with this header and this payload, whose signature is right if the header says HS256.
pub fn signed(header: &[u8], payload: &[u8]) -> String {
    signed_with(&SECRET, header, payload)
}

pub fn signed_with(secret: &[u8], header: &[u8], payload: &[u8]) -> String {
    let input = format!("{}.{}", base64url(header), base64url(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", base64url(signature))
}

/// The status with which a receiver of revocations rejects a body of so many bytes.
pub fn rejection_of(body: usize) -> StatusCode {
    if body > MAX_BODY { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
}

/// The same JWS with signatures that are wrong: each has one bit flipped, is of another secret, is
/// cut off, or is empty.
pub fn forged(header: &[u8], payload: &[u8]) -> Vec<String> {
    let token = signed(header, payload);
    let (input, signature) = token.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let flipped = [0, 15, 31].map(|byte| {
        let mut signature = signature.clone();
        signature[byte] ^= 1;
        signature
    });
    let cut = [signature[..31].to_vec(), Vec::new()];
    let mut all: Vec<_> = flipped
        .iter()
        .chain(&cut)
        .map(|signature| format!("{input}.{}", base64url(signature)))
        .collect();
    all.push(signed_with(&[8; 32], header, payload));
    all
}

/// A valid access token with these further claims.
pub fn access_token(iat: i64, claims: &Value) -> String {
    let exp = NOW + 60;
    let mut payload = serde_json::json!({ "iss": ISS, "aud": AUDIENCE, "iat": iat, "exp": exp });
    let members = payload.as_object_mut().expect("an object");
    members.extend(claims.as_object().expect("an object").clone());
    signed(br#"{"alg":"HS256","typ":"at+jwt"}"#, payload.to_string().as_bytes())
}

/// Decodes each `%XX`, and leaves other percent signs alone.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|two| std::str::from_utf8(two).ok()) {
            Some(two) if *first == b'%' => {
                bytes.push(u8::from_str_radix(two, 16).expect("two digits"));
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// Decodes the percent-encoding of unreserved characters and no other, with upper-case digits
/// (RFC 3986 §6.2.2). `None`: a percent sign does not begin an escape.
pub fn unreserved_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut normal = parts.next()?.to_owned();
    for part in parts {
        let digits = part.get(..2).filter(|two| two.bytes().all(|one| one.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                normal.push(byte.into());
            }
            _ => normal += &format!("%{byte:02X}"),
        }
        normal += &part[2..];
    }
    Some(normal)
}

/// Whether `htu` is the URL of a request with this path at an API with this base, by the text of
/// RFC 3986. `None`: the base is not one.
pub fn is_same_url(htu: &str, path: &str, base: &str) -> Option<bool> {
    let (start, prefix) = split_url(base).filter(|_| !base.contains(['?', '#']))?;
    let prefix = prefix.trim_end_matches('/');
    let Some((own_start, own_path)) = split_url(htu) else { return Some(false) };
    let is_path = (path.is_empty() || path.starts_with('/')) && path.chars().all(is_of_path);
    let Some(path) = unreserved_decoded(path).filter(|_| is_path) else { return Some(false) };
    let is_same_path = own_path == format!("{prefix}{path}")
        // The root of an API below a prefix has a slash or none. Without a prefix, the URL of the
        // root always has one.
        || !prefix.is_empty() && path == "/" && own_path == prefix
        || prefix.is_empty() && path.is_empty() && own_path == "/";
    Some(own_start == start && is_same_path)
}

fn is_of_path(one: char) -> bool {
    one.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(one)
}

/// Scheme, host and port, and the path, each in its normal form.
fn split_url(url: &str) -> Option<((String, String, u16), String)> {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (scheme, rest) = url[..end].split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match &*scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    if !port.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let port = if port.is_empty() { default_port } else { port.parse().ok()? };
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(),
        None => host.to_ascii_lowercase(),
    };
    let is_of_name = |one: char| is_of_path(one) && !":@/%".contains(one);
    if host.is_empty() || !authority.starts_with('[') && !host.chars().all(is_of_name) {
        return None;
    }
    let path = unreserved_decoded(path).filter(|path| path.chars().all(is_of_path))?;
    Some(((scheme, host, port), without_dots(path)))
}

/// RFC 3986 §5.2.4, step by step.
fn without_dots(mut input: String) -> String {
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..2, "");
        } else if input == "/." {
            input = "/".to_owned();
        } else if input.starts_with("/../") || input == "/.." {
            input.replace_range(..3, if input == "/.." { "/" } else { "" });
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |end| end + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}

/// JSON as `serde_json` reads it, without duplicate members at any depth.
#[derive(Clone, Debug, PartialEq)]
pub enum Strict {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(Vec<Strict>),
    Object(BTreeMap<String, Strict>),
}

impl Strict {
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(name),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The strings of a string or an array.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::Array(items) => items.iter().filter_map(Self::text).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a member at any depth has a name that starts so.
    pub fn has_name(&self, start: &str) -> bool {
        match self {
            Self::Array(items) => items.iter().any(|item| item.has_name(start)),
            Self::Object(members) => {
                members.iter().any(|(name, value)| name.starts_with(start) || value.has_name(start))
            }
            _ => false,
        }
    }

    /// How deeply it is nested: a string is 0, an empty object 1.
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.values().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    pub fn is(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(own), Value::Bool(other)) => own == other,
            (Self::Number(own), Value::Number(other)) => other.as_f64() == Some(*own),
            (Self::Text(own), Value::String(other)) => own == other,
            (Self::Array(own), Value::Array(other)) => {
                own.len() == other.len() && own.iter().zip(other).all(|(own, other)| own.is(other))
            }
            (Self::Object(own), Value::Object(other)) => {
                own.len() == other.len()
                    && own.iter().all(|(name, own)| other.get(name).is_some_and(|one| own.is(one)))
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("JSON without duplicate members")
            }

            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict::Null)
            }

            fn visit_bool<E>(self, is: bool) -> Result<Strict, E> {
                Ok(Strict::Bool(is))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Strict, E> {
                Ok(Strict::Number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Strict, E> {
                Ok(Strict::Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Strict, E> {
                Ok(Strict::Number(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Strict, E> {
                Ok(Strict::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Strict::Array(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Strict, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((name, value)) = members.next_entry::<String, Strict>()? {
                    if all.insert(name, value).is_some() {
                        return Err(A::Error::custom("a duplicate member"));
                    }
                }
                Ok(Strict::Object(all))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
