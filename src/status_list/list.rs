//! One status list: the payload of a Status List Token (draft-ietf-oauth-status-list §5.1), read
//! and unpacked within limits. No network, no clock.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_zlib_with_limit};

use crate::clock::Now;
use crate::token::claims::numeric_date;
use crate::token::json::{self, Value};

/// Maximum size of a packed list, in bytes. Eight million tokens with 2 bits each take that much if
/// nothing can be compressed.
const MAX_PACKED: usize = 2 * 1024 * 1024;

/// Maximum size of an unpacked list, in bytes. Zeros are packed a thousandfold, so the packed size
/// alone limits nothing.
const MAX_UNPACKED: usize = 16 * 1024 * 1024;

/// Maximum length of the JWT with a list, in bytes. The list is encoded in base64 twice: within the
/// payload, and with it.
pub(super) const MAX_JWT: usize = 4 * 1024 * 1024;

/// The statuses of many tokens, with what their issuer says about the time.
#[derive(Debug, PartialEq)]
pub(crate) struct StatusList {
    pub(super) issued_at: Duration,
    pub(super) expires_at: Option<Duration>,
    /// How long the list may be cached (§5.1).
    pub(super) ttl: Option<Duration>,
    bits: Bits,
    statuses: Vec<u8>,
}

/// How many bits the status of one token has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bits {
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
}

impl Bits {
    fn read(value: Option<&Value<'_>>) -> Option<Self> {
        let all = [Self::One, Self::Two, Self::Four, Self::Eight];
        let Some(Value::Number(number)) = value else { return None };
        all.into_iter().find(|bits| f64::from(*bits as u8) == *number)
    }
}

/// The payload is not a usable list of this URI. The text names what was expected.
#[derive(Debug, PartialEq)]
pub(crate) struct NotAList(pub(super) &'static str);

impl StatusList {
    /// Reads the payload of a JWT whose signature was verified. `uri`: where the list was fetched,
    /// as tokens spell it.
    pub(crate) fn read(payload: &str, uri: &str) -> Result<Self, NotAList> {
        const CLAIMS: NotAList = NotAList("a status list with `sub`, `iat` and `status_list`");
        let wanted = ["sub", "iat", "exp", "ttl", "status_list"];
        let [sub, iat, exp, ttl, list] = json::read_object(payload, &wanted).map_err(|_| CLAIMS)?;
        match sub {
            Some(Value::Text(sub)) if *sub == *uri => {}
            _ => return Err(NotAList("a status list whose `sub` is its URI")),
        }
        let date = |claim, value: Option<&Value<'_>>| {
            let expected = NotAList("a status list whose dates are numbers of seconds");
            numeric_date(claim, value).map_err(|_| expected)
        };
        let issued_at = date("iat", iat.as_ref())?.ok_or(CLAIMS)?;
        let Some(Value::Object(list)) = list else { return Err(CLAIMS) };
        let [bits, lst] = json::read_object(list, &["bits", "lst"]).map_err(|_| CLAIMS)?;
        let bits = Bits::read(bits.as_ref())
            .ok_or(NotAList("a status list with 1, 2, 4 or 8 bits for each token"))?;
        let Some(Value::Text(lst)) = lst else {
            return Err(NotAList("a status list with `lst` in base64url"));
        };
        Ok(Self {
            issued_at,
            expires_at: date("exp", exp.as_ref())?,
            ttl: date("ttl", ttl.as_ref())?,
            bits,
            statuses: unpacked(&lst)?,
        })
    }

    /// The status of the token with this index. `None` if the list ends before it.
    pub(crate) fn get(&self, index: u32) -> Option<u8> {
        let bits = self.bits as u32;
        let per_byte = 8 / bits;
        let byte = self.statuses.get(usize::try_from(index / per_byte).ok()?)?;
        // The lowest bits are those of the first token (§4.1).
        Some(byte >> (index % per_byte * bits) & (u8::MAX >> (8 - bits)))
    }

    /// Whether `exp` has passed.
    pub(super) fn has_expired(&self, leeway: Duration, now: Now) -> bool {
        self.expires_at.is_some_and(|until| now.unix >= until.saturating_add(leeway))
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.statuses.capacity()
    }
}

/// Decodes and inflates a list (§4.1, RFC 1950).
fn unpacked(lst: &str) -> Result<Vec<u8>, NotAList> {
    const TOO_LARGE: NotAList = NotAList("a status list of at most 2 MiB, 16 MiB unpacked");
    // The size of its JWT limits what is decoded here.
    let packed = URL_SAFE_NO_PAD
        .decode(lst)
        .map_err(|_| NotAList("a status list with `lst` in base64url"))?;
    if packed.len() > MAX_PACKED {
        return Err(TOO_LARGE);
    }
    let mut statuses =
        decompress_to_vec_zlib_with_limit(&packed, MAX_UNPACKED).map_err(|error| {
            if error.status == TINFLStatus::HasMoreOutput {
                TOO_LARGE
            } else {
                NotAList("a status list compressed with zlib")
            }
        })?;
    statuses.shrink_to_fit();
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec_zlib;
    use serde_json::json;

    use super::*;

    const URI: &str = "https://issuer.example/statuslists/1";

    fn packed(statuses: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(compress_to_vec_zlib(statuses, 6))
    }

    /// Statuses that are not compressed, in a zlib stream of so many bytes (RFC 1950, RFC 1951
    /// §3.2.4).
    fn stored(length: usize) -> String {
        const BLOCK: usize = 60_000;
        let mut stream = vec![0x78, 1];
        // Two bytes before the blocks, four after them, and five at the start of each.
        let mut left = length - 6;
        while left > 0 {
            let block = left.min(BLOCK);
            left -= block;
            let bytes = u16::try_from(block - 5).unwrap();
            stream.push(u8::from(left == 0));
            stream.extend(bytes.to_le_bytes());
            stream.extend((!bytes).to_le_bytes());
            stream.extend(vec![0; usize::from(bytes)]);
        }
        // The checksum of zeros (RFC 1950 §8.2).
        let zeros = stream.len() - 2 - 5 * (length - 6).div_ceil(BLOCK);
        let checksum = u32::try_from(zeros % 65_521).unwrap() << 16 | 1;
        stream.extend(checksum.to_be_bytes());
        assert_eq!(stream.len(), length);
        URL_SAFE_NO_PAD.encode(stream)
    }

    fn claims(bits: impl Into<serde_json::Value>, lst: &str) -> serde_json::Value {
        json!({ "sub": URI, "iat": 1_686_920_170, "status_list": { "bits": bits.into(), "lst": lst } })
    }

    fn list(bits: u8, lst: &str) -> StatusList {
        StatusList::read(&claims(bits, lst).to_string(), URI).unwrap()
    }

    #[test]
    fn the_examples_of_the_draft_are_read() {
        // Section 4.1.
        let one = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1];
        let two = [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3];
        let cases: [(&str, u8, &str, &[u8]); 2] =
            [("1 bit", 1, "eNrbuRgAAhcBXQ", &one), ("2 bits", 2, "eNo76fITAAPfAgc", &two)];
        for (name, bits, lst, expected) in cases {
            let list = list(bits, lst);
            let found: Vec<_> = (0..).map_while(|index| list.get(index)).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    /// Test vectors of the appendix, of 2^20 tokens each.
    #[test]
    fn the_long_examples_of_the_draft_are_read() {
        const ONE: &str = "eNrt3AENwCAMAEGogklACtKQPg9LugC9k_ACvreiogEAAKkeCQAAAAAAAAAAAAAAAAAAAIBylgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAXG9IAAAAAAAAAPwsJAAAAAAAAAAAAAAAvhsSAAAAAAAAAAAA7KpLAAAAAAAAAAAAAAAAAAAAAJsLCQAAAAAAAAAAADjelAAAAAAAAAAAKjDMAQAAAACAZC8L2AEb";
        const TWO: &str = "eNrt2zENACEQAEEuoaBABP5VIO01fCjIHTMStt9ovGVIAAAAAABAbiEBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEB5WwIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAID0ugQAAAAAAAAAAAAAAAAAQG12SgAAAAAAAAAAAAAAAAAAAAAAAAAAAOCSIQEAAAAAAAAAAAAAAAAAAAAAAAD8ExIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAwJEuAQAAAAAAAAAAAAAAAAAAAAAAAMB9SwIAAAAAAAAAAAAAAAAAAACoYUoAAAAAAAAAAAAAAEBqH81gAQw";
        const FOUR: &str = "eNrt0EENgDAQADAIHwImkIIEJEwCUpCEBBQRHOy35Li1EjoOQGabAgAAAAAAAAAAAAAAAAAAACC1SQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABADrsCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADoxaEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIIoCgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACArpwKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAGhqVkAzlwIAAAAAiGVRAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABx3AoAgLpVAQAAAAAAAAAAAAAAwM89rwMAAAAAAAAAAAjsA9xMBMA";
        struct Case {
            bits: u8,
            lst: &'static str,
            statuses: &'static [(u32, u8)],
        }
        for Case { bits, lst, statuses } in [
            Case {
                bits: 1,
                lst: ONE,
                statuses: &[
                    (0, 1),
                    (1993, 1),
                    (25460, 1),
                    (159_495, 1),
                    (495_669, 1),
                    (554_353, 1),
                    (645_645, 1),
                    (723_232, 1),
                    (854_545, 1),
                    (934_534, 1),
                    (1_000_345, 1),
                ],
            },
            Case {
                bits: 2,
                lst: TWO,
                statuses: &[
                    (0, 1),
                    (1993, 2),
                    (25460, 1),
                    (159_495, 3),
                    (495_669, 1),
                    (554_353, 1),
                    (645_645, 2),
                    (723_232, 1),
                    (854_545, 1),
                    (934_534, 2),
                    (1_000_345, 3),
                ],
            },
            Case {
                bits: 4,
                lst: FOUR,
                statuses: &[
                    (0, 1),
                    (1993, 2),
                    (35460, 3),
                    (459_495, 4),
                    (595_669, 5),
                    (754_353, 6),
                    (845_645, 7),
                    (923_232, 8),
                    (924_445, 9),
                    (934_534, 10),
                    (1_000_345, 12),
                    (1_004_534, 11),
                    (1_030_203, 13),
                    (1_030_204, 14),
                    (1_030_205, 15),
                ],
            },
        ] {
            let list = list(bits, lst);
            let found = (0..1 << 20).map(|index| (index, list.get(index).unwrap()));
            let found: Vec<_> = found.filter(|(_, status)| *status != 0).collect();
            assert_eq!(found, statuses, "{bits}");
            assert_eq!(list.get(1 << 20), None, "{bits}");
        }
    }

    #[test]
    fn statuses_of_every_size_are_found_up_to_the_last_one() {
        struct Case {
            bits: u8,
            first: u8,
            last_index: u32,
            last: u8,
        }
        for Case { bits, first, last_index, last } in [
            Case { bits: 1, first: 1, last_index: 15, last: 1 },
            Case { bits: 2, first: 1, last_index: 7, last: 2 },
            Case { bits: 4, first: 5, last_index: 3, last: 10 },
            Case { bits: 8, first: 0b0101_0101, last_index: 1, last: 0b1010_0000 },
        ] {
            let list = list(bits, &packed(&[0b0101_0101, 0b1010_0000]));
            assert_eq!(list.get(0), Some(first), "{bits}");
            assert_eq!(list.get(last_index), Some(last), "{bits}");
            for outside in [last_index + 1, u32::MAX] {
                assert_eq!(list.get(outside), None, "{bits}, {outside}");
            }
        }
        assert_eq!(list(1, &packed(&[])).get(0), None, "empty");
    }

    #[test]
    fn dates_are_read() {
        let mut claims = claims(1, "eNrbuRgAAhcBXQ");
        let read = |claims: &serde_json::Value| StatusList::read(&claims.to_string(), URI);
        let found = read(&claims).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(found.issued_at, seconds(1_686_920_170));
        assert_eq!((found.expires_at, found.ttl), (None, None));
        (claims["exp"], claims["ttl"]) = (json!(2_291_720_170_u64), json!(43_200));
        let found = read(&claims).unwrap();
        let expected = (Some(seconds(2_291_720_170)), Some(seconds(43_200)));
        assert_eq!((found.expires_at, found.ttl), expected);
    }

    #[test]
    fn unusable_payloads_are_rejected() {
        let good = || claims(1, "eNrbuRgAAhcBXQ");
        let with = |member: &str, value: serde_json::Value| {
            let mut claims = good();
            claims[member] = value;
            claims.to_string()
        };
        let cases = [
            ("no object", "[]".to_owned()),
            ("a member twice", r#"{"sub":"x","sub":"x"}"#.to_owned()),
            ("another subject", with("sub", json!("https://issuer.example/statuslists/2"))),
            ("no subject", with("sub", json!(null))),
            ("no iat", with("iat", json!(null))),
            ("a date that is text", with("exp", json!("2291720170"))),
            ("a negative ttl", with("ttl", json!(-1))),
            ("no list", with("status_list", json!(null))),
            ("3 bits", claims(3, "eNrbuRgAAhcBXQ").to_string()),
            ("0 bits", claims(0, "eNrbuRgAAhcBXQ").to_string()),
            ("16 bits", claims(16, "eNrbuRgAAhcBXQ").to_string()),
            ("half a bit", claims(0.5, "eNrbuRgAAhcBXQ").to_string()),
            ("bits as text", claims("1", "eNrbuRgAAhcBXQ").to_string()),
            ("no lst", with("status_list", json!({ "bits": 1 }))),
            ("padded", claims(1, "eNrbuRgAAhcBXQ==").to_string()),
            ("base64 of another alphabet", claims(1, "eNrbuRgAAhcBX+").to_string()),
            ("truncated", claims(1, "eNrbuRgAAhcB").to_string()),
            ("without data", claims(1, "eNo").to_string()),
            ("empty", claims(1, "").to_string()),
            ("a wrong checksum", claims(1, "eNrbuRgAAhcBXg").to_string()),
            ("not compressed", claims(1, &URL_SAFE_NO_PAD.encode([0xb9, 0xa3])).to_string()),
        ];
        for (name, payload) in cases {
            assert!(StatusList::read(&payload, URI).is_err(), "{name}");
        }
    }

    #[test]
    fn the_size_is_limited_before_and_after_unpacking() {
        let read = |lst: &str| StatusList::read(&claims(8, lst).to_string(), URI);
        let largest = packed(&vec![0; MAX_UNPACKED]);
        assert!(largest.len() < MAX_PACKED / 50, "packed");
        let list = read(&largest).unwrap();
        assert_eq!(list.bytes(), MAX_UNPACKED);
        let last = u32::try_from(MAX_UNPACKED - 1).unwrap();
        assert_eq!((list.get(last), list.get(last + 1)), (Some(0), None));
        for length in [MAX_PACKED - 1, 2 * 1024 * 1024] {
            assert!(read(&stored(length)).is_ok(), "{length} bytes, packed");
        }
        let too_large = Err(NotAList("a status list of at most 2 MiB, 16 MiB unpacked"));
        for (name, lst) in [
            ("one byte more, packed and not compressed", stored(MAX_PACKED + 1)),
            ("one byte more", packed(&vec![0; MAX_UNPACKED + 1])),
            ("a decompression bomb", packed(&vec![0; 8 * MAX_UNPACKED])),
            ("one byte more, packed", URL_SAFE_NO_PAD.encode(vec![0; MAX_PACKED + 1])),
            ("far more, packed", "A".repeat(3 * MAX_PACKED)),
        ] {
            assert_eq!(read(&lst), too_large, "{name}");
        }
    }
}
