//! RFC 7468 §13: public keys in PEM. AWS load balancers publish theirs so, each at an address of its own; and applications have
//! some where other libraries took them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::signature::{Curve, PublicKey};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

// RFC 8017 §A.1, RFC 5480 §2.1.1, RFC 8410 §3: object identifiers in DER.
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

// X.690 §8: tags in DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The blocks of a text, each from its `BEGIN` to its `END`. What is between them does not count (RFC 7468 §2).
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.get(rest.find(BEGIN)?..)?;
        let end = rest.find(END)? + END.len();
        let end = end + rest.get(end..)?.find(DASHES)? + DASHES.len();
        let block = rest.get(..end)?;
        rest = rest.get(end..)?;
        Some(block)
    })
}

/// What a block says that it is; at most so much of it that an error can quote it.
pub(crate) fn label(block: &str) -> &str {
    let label = block
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.split_once(DASHES))
        .map_or("", |(label, _)| label);
    label.get(..64).unwrap_or(label)
}

/// Reads one public key. `None` if it is anything else, or more than that.
pub(crate) fn public_key(block: &str) -> Option<PublicKey> {
    let block = block.trim();
    let label = label(block);
    let body = block.strip_prefix(BEGIN)?.strip_prefix(label)?.strip_prefix(DASHES)?;
    let body = body.strip_suffix(DASHES)?.strip_suffix(label)?.strip_suffix(END)?;
    let base64: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(base64).ok()?;
    match label {
        "PUBLIC KEY" => subject_public_key(&der),
        "RSA PUBLIC KEY" => rsa(&der),
        _ => None,
    }
}

/// RFC 5280 §4.1: `SEQUENCE { SEQUENCE { algorithm, parameters }, BIT STRING }`.
fn subject_public_key(der: &[u8]) -> Option<PublicKey> {
    let mut outer = Der(der);
    let mut key = Der(outer.read(SEQUENCE)?);
    let mut algorithm = Der(key.read(SEQUENCE)?);
    // A key fills whole bytes: no bit of the last one is unused.
    let bits = key.read(BIT_STRING)?.strip_prefix(&[0])?;
    let read = match algorithm.read(OBJECT_IDENTIFIER)? {
        RSA_ENCRYPTION => {
            algorithm.read(NULL).filter(|parameters| parameters.is_empty())?;
            rsa(bits)?
        }
        EC_PUBLIC_KEY => {
            let (curve, length) = match algorithm.read(OBJECT_IDENTIFIER)? {
                P256 => (Curve::P256, 32),
                P384 => (Curve::P384, 48),
                P521 => (Curve::P521, 66),
                _ => return None,
            };
            let is_uncompressed = bits.len() == 1 + 2 * length && bits.first() == Some(&4);
            is_uncompressed.then(|| PublicKey::Ec { curve, point: bits.to_vec() })?
        }
        ED25519 => PublicKey::Ed25519(bits.try_into().ok()?),
        _ => return None,
    };
    (outer.0.is_empty() && key.0.is_empty() && algorithm.0.is_empty()).then_some(read)
}

/// RFC 8017 §A.1.1: `SEQUENCE { modulus, publicExponent }`.
fn rsa(der: &[u8]) -> Option<PublicKey> {
    let mut outer = Der(der);
    let mut numbers = Der(outer.read(SEQUENCE)?);
    let mut number = || {
        let bytes = numbers.read(INTEGER)?;
        // Not a negative one; a zero in front keeps the sign.
        (bytes.first()? & 0x80 == 0).then(|| bytes.strip_prefix(&[0]).unwrap_or(bytes).to_vec())
    };
    let (n, e) = (number()?, number()?);
    (outer.0.is_empty() && numbers.0.is_empty()).then_some(PublicKey::Rsa { n, e })
}

/// DER (X.690 §10), read from its beginning.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The contents of the next element, if it has this tag.
    fn read(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Long form, of at most two bytes and no more than needed: an RSA key of 16384 bits has 2 KiB.
            0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
            0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), rest.get(2..)?),
            _ => return None,
        };
        let is_shortest = match first {
            0x81 => length >= 0x80,
            0x82 => length >= 0x100,
            _ => true,
        };
        let contents = rest.get(..length)?;
        self.0 = rest.get(length..)?;
        (tag == expected && is_shortest).then_some(contents)
    }
}

/// What may be the name of a key at an address of its own: it becomes part of that address, and a token chose it.
pub(crate) fn is_name(kid: &str) -> bool {
    !kid.is_empty()
        && kid.len() <= 64
        && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
