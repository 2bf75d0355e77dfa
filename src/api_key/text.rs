//! The text of an API key: `PREFIX_ID_SECRET` and a checksum.

use crate::crypto;

/// Lengths of the parts, in characters. The identifier is public, and tells 62¹² keys apart. The
/// secret has 256 bits.
const ID: usize = 12;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
const MAX_PREFIX: usize = 32;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed API key, not yet known.
pub(crate) struct ApiKeyText<'a> {
    /// Prefix and identifier: what the key is found by. It is public.
    pub(crate) id: &'a str,
    /// The identifier alone.
    pub(crate) short: ShortId,
    text: &'a str,
}

impl<'a> ApiKeyText<'a> {
    /// Returns `None` if the form or the checksum is wrong: it is then not a key that
    /// [`generate`] made.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.rsplit_once('_')?;
        let (unchecked, checksum) = text.split_at_checked(text.len().checked_sub(CHECKSUM)?)?;
        let is_whole = secret.len() == SECRET + CHECKSUM && secret.bytes().all(is_base62);
        let is_key = is_whole && is_id(id) && checksum.as_bytes() == checksum_of(unchecked);
        is_key.then_some(Self { id, short: short(id)?, text })
    }

    /// SHA-256 of the key. A key has 256 random bits, so a fast hash hides it as well as a slow
    /// one.
    pub(crate) fn hash(&self) -> [u8; 32] {
        crypto::sha256(self.text.as_bytes())
    }
}

/// An identifier without its prefix.
pub(crate) type ShortId = [u8; ID];

/// The identifier alone. `None` if [`is_id`] does not accept it.
pub(crate) fn short(id: &str) -> Option<ShortId> {
    id.as_bytes().last_chunk().copied()
}

/// The prefix of an identifier that [`is_id`] accepts.
pub(crate) fn prefix_of(id: &str) -> &str {
    id.rsplit_once('_').map_or("", |(prefix, _)| prefix)
}

/// Whether a text has the form of prefix and identifier.
pub(crate) fn is_id(text: &str) -> bool {
    text.rsplit_once('_').is_some_and(|(prefix, id)| {
        is_prefix(prefix) && id.len() == ID && id.bytes().all(is_base62)
    })
}

/// Whether a text may be the prefix of keys: lowercase letters, digits and `_`, as secret scanners
/// expect it.
pub(crate) fn is_prefix(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= MAX_PREFIX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('_')
        && text.bytes().all(is_allowed)
}

/// Makes a key with this prefix. Returns its public part and its text, or `None` if the system has
/// no random numbers.
pub(crate) fn generate(prefix: &str) -> Option<(String, String)> {
    let id = digits::<ID>(crypto::random()?);
    let secret = digits::<SECRET>(crypto::random()?);
    let id = format!("{prefix}_{}", String::from_utf8_lossy(&id));
    let unchecked = format!("{id}_{}", String::from_utf8_lossy(&secret));
    let checksum = checksum_of(&unchecked);
    let text = format!("{unchecked}{}", String::from_utf8_lossy(&checksum));
    Some((id, text))
}

fn is_base62(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// The `N` lowest digits of a number of 256 bits, in base 62. With 43 digits, each number has a
/// text of its own.
fn digits<const N: usize>(number: [u8; 32]) -> [u8; N] {
    let mut rest = number;
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        // Long division by 62, of the bytes as digits in base 256.
        let mut remainder = 0;
        for byte in &mut rest {
            let part = remainder << 8 | usize::from(*byte);
            *byte = u8::try_from(part / 62).unwrap_or(u8::MAX);
            remainder = part % 62;
        }
        *digit = BASE62.get(remainder).copied().unwrap_or(b'0');
    }
    text
}

/// CRC-32 (ISO-HDLC), as six digits in base 62.
fn checksum_of(text: &str) -> [u8; CHECKSUM] {
    let mut crc = !text.bytes().fold(u32::MAX, |crc, byte| {
        let index = usize::from((crc as u8) ^ byte);
        crc >> 8 ^ CRC_TABLE.get(index).copied().unwrap_or_default()
    });
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get((crc % 62) as usize).copied().unwrap_or(b'0');
        crc /= 62;
    }
    digits
}

// The compiler evaluates it, and would report an index out of range.
#[allow(clippy::indexing_slicing)]
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn text<const N: usize>(number: [u8; 32]) -> String {
        String::from_utf8(digits::<N>(number).to_vec()).unwrap()
    }

    #[test]
    fn numbers_have_texts_of_their_own() {
        let small = |low: u8| {
            let mut number = [0; 32];
            number[31] = low;
            number
        };
        for (number, expected) in [(0, "000"), (61, "00z"), (62, "010"), (255, "047")] {
            assert_eq!(text::<3>(small(number)), expected);
        }
        // 2^256 − 1 has 43 digits.
        assert_eq!(text::<44>([0xff; 32]).find(|digit| digit != '0'), Some(1));
    }

    #[test]
    fn the_checksum_is_crc_32() {
        // The check value of the algorithm, 0xcbf43926, in base 62.
        let mut number = [0; 32];
        number[28..].copy_from_slice(&0xcbf4_3926_u32.to_be_bytes());
        assert_eq!(checksum_of("123456789"), digits::<6>(number));
    }

    #[test]
    fn each_changed_character_is_detected() {
        let (id, key) = generate("acme_live").unwrap();
        assert_eq!(ApiKeyText::parse(&key).unwrap().id, id);
        assert_eq!(key.len(), "acme_live".len() + 1 + ID + 1 + SECRET + CHECKSUM);
        for at in 0..key.len() {
            for other in ["x", "X", "_", "-", "é"] {
                let changed = format!("{}{other}{}", &key[..at], &key[at + 1..]);
                assert!(changed == key || ApiKeyText::parse(&changed).is_none(), "{changed}");
            }
            assert!(ApiKeyText::parse(&key[..at]).is_none());
        }
        assert!(ApiKeyText::parse(&format!("{key}0")).is_none());
    }
}
