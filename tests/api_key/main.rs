//! API keys: how they are made, verified, rotated and looked up.

mod list;
mod lookup;
mod requests;

#[path = "../support/eventually.rs"]
mod eventually;
#[path = "../support/verdict.rs"]
mod verdict;

use portcullis::testing::TestClock;
use portcullis::{ApiKey, ApiKeys, GeneratedApiKey, Issuers, Verifier};

const ISS: &str = "https://api.example.com";

fn generate() -> GeneratedApiKey {
    ApiKey::generate("acme_live").unwrap()
}

/// The record of a key, of the subject `worker`.
fn worker(key: &GeneratedApiKey) -> ApiKey {
    ApiKey::new("worker", key.hash().clone())
}

/// A verifier of API keys only.
fn verifier(keys: ApiKeys, clock: &TestClock) -> Verifier {
    Verifier::builder(Issuers::none()).api_keys(keys).clock(clock).build().unwrap()
}

/// The same identifier with another secret, and a valid checksum: what an attacker can make.
fn with_another_secret(key: &GeneratedApiKey) -> String {
    let secret = generate();
    let (id, _) = key.expose_key().rsplit_once('_').unwrap();
    let (_, secret) = secret.expose_key().rsplit_once('_').unwrap();
    let forged = with_checksum(&format!("{id}_{}", &secret[..43]));
    assert!(ApiKey::has_valid_form(&forged), "the checksum is public");
    forged
}

/// Adds the checksum of a key to a text of any form.
fn with_checksum(unchecked: &str) -> String {
    let mut crc = u32::MAX;
    for byte in unchecked.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let (mut crc, mut checksum) = (!crc, [0; 6]);
    for digit in checksum.iter_mut().rev() {
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        *digit = digits[(crc % 62) as usize];
        crc /= 62;
    }
    format!("{unchecked}{}", String::from_utf8_lossy(&checksum))
}

#[test]
fn only_a_whole_key_has_the_form_of_one() {
    let key = generate();
    let key = key.expose_key();
    let (id, secret) = key.rsplit_once('_').unwrap();
    let other = |at: usize| {
        let other = if key.as_bytes()[at] == b'a' { "b" } else { "a" };
        format!("{}{other}{}", &key[..at], &key[at + 1..])
    };
    assert!(ApiKey::has_valid_form(key));
    for (name, text) in [
        ("empty", String::new()),
        ("another checksum", other(key.len() - 1)),
        ("another secret", other(id.len() + 1)),
        ("another identifier", other(id.len() - 1)),
        ("another prefix", other(0)),
        ("a character less", key[..key.len() - 1].to_owned()),
        ("a character more", format!("{key}a")),
        ("a space before", format!(" {key}")),
        ("a line after", format!("{key}\n")),
        ("without its secret", id.to_owned()),
        ("without its identifier", secret.to_owned()),
        ("in upper case", key.to_uppercase()),
        ("a JWT", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln".to_owned()),
    ] {
        assert!(!ApiKey::has_valid_form(&text), "{name}: {text:?}");
    }
}

#[test]
fn a_checksum_does_not_make_a_key() {
    struct Case {
        name: &'static str,
        prefix: String,
        id: String,
        secret: String,
        is_key: bool,
    }

    let letters = |number| "a".repeat(number);
    let with = |number, last: &str| format!("{}{last}", letters(number));
    let of = |name, prefix: &str| {
        let (id, secret) = (letters(12), letters(43));
        Case { name, prefix: prefix.to_owned(), id, secret, is_key: false }
    };
    let a_key = |name, prefix| Case { is_key: true, ..of(name, prefix) };
    let id = |name, id| Case { id, ..of(name, "acme_live") };
    let secret = |name, secret| Case { secret, ..of(name, "acme_live") };
    for Case { name, prefix, id, secret, is_key } in [
        a_key("a key", "acme_live"),
        a_key("the shortest prefix", "a"),
        a_key("the longest prefix", &letters(32)),
        Case {
            id: with(10, "Z0"),
            secret: with(41, "A9"),
            ..a_key("digits and upper-case letters", "acme2")
        },
        secret("a secret that is too short", letters(42)),
        secret("a secret that is too long", letters(44)),
        secret("a hyphen in the secret", with(42, "-")),
        secret("a character of two bytes in the secret", with(41, "é")),
        id("an identifier that is too short", letters(11)),
        id("an identifier that is too long", letters(13)),
        id("no identifier", letters(0)),
        id("a hyphen in the identifier", with(11, "-")),
        id("a character of two bytes in the identifier", with(10, "é")),
        of("no prefix", ""),
        of("an upper-case letter in the prefix", "Acme"),
        of("a hyphen in the prefix", "acme-live"),
        of("a digit at the start of the prefix", "1acme"),
        of("`_` at the end of the prefix", "acme_"),
        of("a prefix that is too long", &letters(33)),
    ] {
        let text = with_checksum(&format!("{prefix}_{id}_{secret}"));
        assert_eq!(ApiKey::has_valid_form(&text), is_key, "{name}: {text:?}");
    }
}
