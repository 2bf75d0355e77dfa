//! One revocation, and its form in the log: hashes only.

use std::time::Duration;

use serde_json::Value;

use crate::access_token::AccessToken;
use crate::crypto;

/// The version of the form, so that replicas of different versions can share a log.
const VERSION: u8 = 1;

const BYTES: usize = 2 + 16 + 8 + 8;

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token = 1,
    Subject = 2,
    Session = 3,
    Client = 4,
    Issuer = 5,
}

/// The first 16 bytes of a hash of kind, issuer and value.
pub(super) type Hash = [u8; 16];

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
        Self { kind: kind as u8, hash: hash(kind, iss, value), issued_before, until }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend([VERSION, self.kind]);
        bytes.extend(self.hash);
        bytes.extend(self.issued_before.as_secs().to_be_bytes());
        bytes.extend(self.until.as_secs().to_be_bytes());
        bytes
    }

    /// `None` for an entry of another version, or of another application with the same prefix.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, kind], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (hash, rest) = rest.split_first_chunk::<16>()?;
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

fn hash(kind: Kind, iss: &str, value: &str) -> Hash {
    let mut named = Vec::with_capacity(2 + iss.len() + value.len());
    named.push(kind as u8);
    named.extend_from_slice(iss.as_bytes());
    named.push(0);
    named.extend_from_slice(value.as_bytes());
    let [hash @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = crypto::sha256(&named);
    hash
}

/// The hashes under which a token may be revoked.
pub(super) fn of(token: &AccessToken) -> Vec<Hash> {
    let iss = token.issuer();
    let claim = |name| token.claim(name).and_then(Value::as_str);
    let named = [
        (Kind::Token, claim("jti")),
        (Kind::Subject, token.subject()),
        (Kind::Session, claim("sid")),
        (Kind::Client, token.client_id()),
        (Kind::Issuer, Some("")),
    ];
    named.into_iter().filter_map(|(kind, value)| Some(hash(kind, iss, value?))).collect()
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
            ("cut off", bytes[..BYTES - 1].to_vec()),
            ("longer", [&bytes[..], &[0]].concat()),
            ("another version", [&[2], &bytes[1..]].concat()),
        ] {
            assert_eq!(Entry::from_bytes(&wrong), None, "{name}");
        }
    }

    #[test]
    fn hashes_separate_kind_issuer_and_value() {
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
