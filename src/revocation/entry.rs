//! One revocation, and its form in the log: hashes only.

use std::borrow::Cow;
use std::time::Duration;

use super::LEEWAY;
use crate::access_token::AccessToken;
use crate::crypto;
use crate::error::InvalidToken;
use crate::token::json::{self, Value};

/// The version of the form, so that replicas of different versions can share a log.
const VERSION: u8 = 1;

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token = 1,
    Subject = 2,
    Session = 3,
    Client = 4,
    Issuer = 5,
    /// Not a revocation: a security event that the application has handled.
    Event = 6,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Subject => "subject",
            Self::Session => "session",
            Self::Client => "client",
            Self::Issuer => "issuer",
            Self::Event => "event",
        }
    }
}

/// The first 8 bytes of a hash of the issuer, then the first 11 of one of kind, issuer and value.
pub(super) type Hash = [u8; 19];

/// The part of a [`Hash`] that is the issuer's, by which entries are counted. A tenant that chooses
/// its name could find one with the same 4 bytes as another tenant, and use up its count.
pub(super) type IssuerHash = [u8; 8];

pub(super) fn issuer_of(hash: &Hash) -> IssuerHash {
    hash.first_chunk().copied().unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    kind: u8,
    pub(super) hash: Hash,
    /// Tokens that were issued at this time or before are revoked.
    pub(super) issued_before: Duration,
    /// When the entry ends.
    pub(super) until: Duration,
}

impl Entry {
    pub(super) fn new(
        kind: Kind,
        iss: &str,
        value: &str,
        issued_before: Duration,
        until: Duration,
    ) -> Self {
        let hash = Hasher::new(iss).hash(kind, value);
        Self { kind: kind as u8, hash, issued_before, until }
    }

    /// Whether it may still count: it has not ended, or a moment ago, so that the clock may be
    /// corrected, and tokens in use are looked up again.
    pub(super) fn may_count(&self, now: Duration) -> bool {
        self.until.saturating_add(LEEWAY) >= now
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let seconds = |time: Duration| time.as_secs().to_be_bytes();
        let (issued_before, until) = (seconds(self.issued_before), seconds(self.until));
        [&[VERSION, self.kind], &self.hash[..], &issued_before, &until].concat()
    }

    /// `None` for an entry of another version, or of another application with the same prefix.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, kind], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (hash, rest) = rest.split_first_chunk::<{ size_of::<Hash>() }>()?;
        let (issued_before, rest) = rest.split_first_chunk::<8>()?;
        let (until, rest) = rest.split_first_chunk::<8>()?;
        let seconds = |bytes: &[u8; 8]| Duration::from_secs(u64::from_be_bytes(*bytes));
        rest.is_empty().then(|| Self {
            kind,
            hash: *hash,
            issued_before: seconds(issued_before),
            until: seconds(until),
        })
    }
}

/// Hashes the values of one issuer.
struct Hasher<'a> {
    iss: &'a str,
    of_issuer: IssuerHash,
}

impl<'a> Hasher<'a> {
    fn new(iss: &'a str) -> Self {
        let hash = crypto::sha256(iss.as_bytes());
        Self { iss, of_issuer: hash.first_chunk().copied().unwrap_or_default() }
    }

    fn hash(&self, kind: Kind, value: &str) -> Hash {
        let mut named = Vec::with_capacity(2 + self.iss.len() + value.len());
        named.push(kind as u8);
        named.extend_from_slice(self.iss.as_bytes());
        named.push(0);
        named.extend_from_slice(value.as_bytes());
        let mut hash = Hash::default();
        let parts = self.of_issuer.into_iter().chain(crypto::sha256(&named));
        hash.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        hash
    }
}

/// What a token may be revoked by.
pub(super) struct Identifiers<'a> {
    token: &'a AccessToken,
    jti: Option<Cow<'a, str>>,
    sid: Option<Cow<'a, str>>,
}

impl<'a> Identifiers<'a> {
    /// Returns an error if `jti` or `sid` is not a string: what revokes it names it by a string.
    pub(super) fn read(token: &'a AccessToken) -> Result<Self, InvalidToken> {
        // Not from the tree of claims, which most tokens never need, and which takes memory.
        let members = json::read_object(token.raw_claims(), &["jti", "sid"]);
        let [jti, sid] = members.unwrap_or_default();
        Ok(Self { token, jti: text("jti", jti)?, sid: text("sid", sid)? })
    }

    /// The hashes of their entries, by any name of the issuer.
    pub(super) fn hashes(&self) -> Vec<Hash> {
        let named = [
            (Kind::Token, self.jti.as_deref()),
            (Kind::Subject, self.token.subject()),
            (Kind::Session, self.sid.as_deref()),
            (Kind::Client, self.token.client_id()),
            (Kind::Issuer, Some("")),
        ];
        let of_issuer = |iss| {
            let hasher = Hasher::new(iss);
            named.into_iter().filter_map(move |(kind, value)| Some(hasher.hash(kind, value?)))
        };
        self.token.issuer_names().flat_map(of_issuer).collect()
    }
}

fn text<'a>(
    claim: &'static str,
    value: Option<Value<'a>>,
) -> Result<Option<Cow<'a, str>>, InvalidToken> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(InvalidToken::ClaimType { claim, expected: "a string" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_log() {
        let seconds = Duration::from_secs;
        let entry = Entry::new(Kind::Session, "https://issuer/", "1", seconds(7), seconds(9));
        let bytes = entry.to_bytes();
        assert_eq!(Entry::from_bytes(&bytes), Some(entry));
        for (name, wrong) in [
            ("empty", vec![]),
            ("cut off", bytes[..bytes.len() - 1].to_vec()),
            ("longer", [&bytes[..], &[0]].concat()),
            ("another version", [&[2], &bytes[1..]].concat()),
        ] {
            assert_eq!(Entry::from_bytes(&wrong), None, "{name}");
        }
    }

    #[test]
    fn entries_may_count_until_minutes_after_their_end() {
        let entry = Entry::new(Kind::Issuer, "issuer", "", Duration::ZERO, LEEWAY);
        for (seconds, expected) in [(0, true), (300, true), (600, true), (601, false)] {
            assert_eq!(entry.may_count(Duration::from_secs(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn hashes_separate_kind_issuer_and_value() {
        let hash = |kind, iss, value| Hasher::new(iss).hash(kind, value);
        let hashes = [
            hash(Kind::Subject, "a", "bc"),
            hash(Kind::Session, "a", "bc"),
            hash(Kind::Subject, "ab", "c"),
            hash(Kind::Subject, "a", "b"),
        ];
        let distinct: std::collections::HashSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }
}
