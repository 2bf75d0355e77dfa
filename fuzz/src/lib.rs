//! What the fuzz targets have in common: other implementations to compare with, and an issuer whose
//! tokens are quick to sign.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// A verifier that stands still in time, with the revocations that its receivers add to.
pub struct Api {
    pub verifier: Verifier,
    pub revocations: Revocations,
    pub clock: TestClock,
}

impl Api {
    pub fn new() -> Self {
        let (revocations, clock) = (Revocations::in_memory(), TestClock::new());
        clock.correct_by(NOW - clock.unix_seconds() as i64);
        let issuer =
            Issuer::new(ISS, AUDIENCE).and_then(|one| one.secret(Algorithm::HS256, &SECRET));
        let issuer = issuer.expect("the configuration is valid");
        let builder = Verifier::builder(issuer).revocations(&revocations).clock(&clock);
        // Otherwise, the memory that is measured is that of the cache.
        let verifier = builder.without_token_cache().build().expect("the configuration is valid");
        Self { verifier, revocations, clock }
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
    static KEY: LazyLock<hmac::Key> = LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, &SECRET));
    let input = format!("{}.{}", base64url(header), base64url(payload));
    let signature = hmac::sign(&KEY, input.as_bytes());
    format!("{input}.{}", base64url(signature))
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
