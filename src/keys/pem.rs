//! RFC 7468 §13: public keys in PEM. AWS load balancers publish each of their keys in PEM, at a URL
//! of its own. Applications that used another library may have their keys in PEM. Also §10: private
//! keys, of the client that this API is at its issuer, and §5: certificates of clients.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::signature::{Curve, PublicKey};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

// Object identifiers in DER: RFC 8017 §A.1, RFC 5480 §2.1.1, RFC 8410 §3.
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

// Tags in DER: X.690 §8.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The PEM blocks of a text, each from `BEGIN` to `END`. The text between blocks is ignored
/// (RFC 7468 §2).
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

/// The label of a block, cut off after 64 bytes so that an error can quote it.
pub(crate) fn label(block: &str) -> &str {
    let label = block
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.split_once(DASHES))
        .map_or("", |(label, _)| label);
    label.get(..64).unwrap_or(label)
}

/// Parses a block that contains one public key. Returns `None` if it contains anything else, or
/// anything more.
pub(crate) fn public_key(block: &str) -> Option<PublicKey> {
    match decoded(block)? {
        ("PUBLIC KEY", der) => subject_public_key(&der),
        ("RSA PUBLIC KEY", der) => rsa(&der),
        _ => None,
    }
}

/// A private key in DER, as the cryptography backends expect it.
pub(crate) enum PrivateKey {
    /// PKCS #1 (RFC 8017 §A.1.2).
    Rsa(Vec<u8>),
    /// PKCS #8.
    Ec(Vec<u8>),
    /// PKCS #8.
    Ed25519(Vec<u8>),
}

/// Parses a block that contains one private key: PKCS #8 (RFC 5958 §2), or PKCS #1 for RSA.
pub(crate) fn private_key(block: &str) -> Option<PrivateKey> {
    let der = match decoded(block)? {
        ("PRIVATE KEY", der) => der,
        ("RSA PRIVATE KEY", der) => return Some(PrivateKey::Rsa(der)),
        _ => return None,
    };
    // `SEQUENCE { version, SEQUENCE { algorithm, parameters }, OCTET STRING, … }`
    let mut key = Der(Der(&der).read(SEQUENCE)?);
    key.read(INTEGER)?;
    let algorithm = Der(key.read(SEQUENCE)?).read(OBJECT_IDENTIFIER)?;
    let own = key.read(OCTET_STRING)?.to_vec();
    match algorithm {
        RSA_ENCRYPTION => Some(PrivateKey::Rsa(own)),
        EC_PUBLIC_KEY => Some(PrivateKey::Ec(der)),
        ED25519 => Some(PrivateKey::Ed25519(der)),
        _ => None,
    }
}

/// Parses a block that contains one certificate (RFC 7468 §5), and returns its DER.
pub(crate) fn certificate(block: &str) -> Option<Vec<u8>> {
    match decoded(block)? {
        ("CERTIFICATE", der) => Some(der),
        _ => None,
    }
}

/// Splits DER behind its first element, which must be a SEQUENCE of at most 64 KiB. A certificate
/// is one (RFC 5280 §4.1).
pub(crate) fn split_sequence(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Der(der);
    reader.read(SEQUENCE)?;
    der.split_at_checked(der.len().checked_sub(reader.0.len())?)
}

/// The label of a block, and its contents.
fn decoded(block: &str) -> Option<(&str, Vec<u8>)> {
    let block = block.trim();
    let label = label(block);
    let body = block.strip_prefix(BEGIN)?.strip_prefix(label)?.strip_prefix(DASHES)?;
    let body = body.strip_suffix(DASHES)?.strip_suffix(label)?.strip_suffix(END)?;
    let base64: String = body.split_ascii_whitespace().collect();
    Some((label, STANDARD.decode(base64).ok()?))
}

/// A public key with its algorithm (RFC 5280 §4.1):
/// `SEQUENCE { SEQUENCE { algorithm, parameters }, BIT STRING }`.
fn subject_public_key(der: &[u8]) -> Option<PublicKey> {
    let mut outer = Der(der);
    let mut key = Der(outer.read(SEQUENCE)?);
    let mut algorithm = Der(key.read(SEQUENCE)?);
    // A key is a whole number of bytes: the last byte has no unused bits.
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

/// An RSA public key (RFC 8017 §A.1.1): `SEQUENCE { modulus, publicExponent }`.
fn rsa(der: &[u8]) -> Option<PublicKey> {
    let mut outer = Der(der);
    let mut numbers = Der(outer.read(SEQUENCE)?);
    let mut number = || {
        let bytes = numbers.read(INTEGER)?;
        // Not negative. A leading zero byte only makes the number positive.
        (bytes.first()? & 0x80 == 0).then(|| bytes.strip_prefix(&[0]).unwrap_or(bytes).to_vec())
    };
    let (n, e) = (number()?, number()?);
    (outer.0.is_empty() && numbers.0.is_empty()).then_some(PublicKey::Rsa { n, e })
}

/// A reader of DER elements (X.690 §10).
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Returns the contents of the next element if it has this tag.
    fn read(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Long form with at most two length bytes, and in its shortest encoding. An RSA key of
            // 16384 bits takes 2 KiB.
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

/// Whether a `kid` may become part of a URL, where each key has a URL of its own. The `kid` comes
/// from an unverified token.
pub(crate) fn is_name(kid: &str) -> bool {
    !kid.is_empty()
        && kid.len() <= 64
        && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The backends also reject other points.
    #[test]
    fn points_are_uncompressed_and_have_the_length_of_their_curve() {
        for (name, form, bytes, is_key) in [
            ("uncompressed", 4, 65, true),
            ("too short", 4, 64, false),
            ("too long", 4, 66, false),
            ("compressed", 2, 33, false),
            ("hybrid", 6, 65, false),
        ] {
            let mut point = vec![1; bytes];
            point[0] = form;
            let length = u8::try_from(bytes).unwrap();
            let oids = [&[0x06, 7], EC_PUBLIC_KEY, &[0x06, 8], P256].concat();
            let algorithm = [&[0x30, 19][..], &oids].concat();
            let start = [0x30, 24 + length];
            let der = [&start, &*algorithm, &[0x03, 1 + length, 0], &point].concat();
            assert_eq!(subject_public_key(&der).is_some(), is_key, "{name}");
        }
    }
}
