//! Status lists: no list takes more memory than the limit, and its first statuses, its last ones
//! and some between them are those that a simple reader finds.

#![no_main]

use std::io::Read as _;
use std::sync::Once;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::read::{DeflateDecoder, ZlibEncoder};
use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::status_list;
use portcullis_fuzz::{Strict, base64url};

const URI: &str = "https://issuer.example/1";
const MOST: usize = 16 * 1024 * 1024;
/// How many bytes of statuses are packed: more would take seconds.
const MOST_PACKED_HERE: usize = 1024 * 1024;
/// How many statuses at each end of a list are compared, and about how many between them.
const COMPARED: u32 = 4096;

fn payload(bits: u8, lst: &[u8]) -> String {
    let lst = base64url(lst);
    format!(r#"{{"sub":"{URI}","iat":1,"status_list":{{"bits":{bits},"lst":"{lst}"}}}}"#)
}

fn packed(statuses: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = ZlibEncoder::new(statuses, Compression::fast());
    encoder.read_to_end(&mut packed).expect("memory");
    packed
}

// A payload; or `p`, the number of bits and what is packed; or `s`, bits, a factor and statuses, to
// be packed by another implementation.
fuzz_target!(|input: &[u8]| {
    // The largest list, and one that is larger: inputs hardly reach the limit.
    static LIMIT: Once = Once::new();
    LIMIT.call_once(|| {
        let read = |bytes| status_list(&payload(8, &packed(&vec![0; bytes])), URI);
        let (_, status) = read(MOST).expect("the largest list");
        assert_eq!([MOST - 1, MOST].map(|index| status(index as u32)), [Some(0), None]);
        assert!(read(MOST + 1).is_none());
    });
    let payload = match input {
        [b'p', bits, packed @ ..] => payload(*bits, packed),
        [b's', bits, repeat, statuses @ ..] => {
            let times = (MOST_PACKED_HERE / statuses.len().max(1)).min(usize::from(*repeat));
            payload(*bits, &packed(&statuses.repeat(times.max(1))))
        }
        _ => match std::str::from_utf8(input) {
            Ok(payload) => payload.to_owned(),
            Err(_) => return,
        },
    };
    let Some((bytes, status)) = status_list(&payload, URI) else { return };
    assert!(bytes <= MOST, "{bytes}");
    let list = Strict::read(&payload).expect("a payload that is JSON");
    assert_eq!(list.get("sub").and_then(Strict::text), Some(URI));
    let list = list.get("status_list").expect("a list");
    let bits = list.get("bits").and_then(Strict::number).expect("bits");
    assert!([1.0, 2.0, 4.0, 8.0].contains(&bits), "{bits}");
    let bits = bits as u32;
    let packed = list.get("lst").and_then(Strict::text).expect("lst");
    let packed = URL_SAFE_NO_PAD.decode(packed).expect("base64url");
    // RFC 1950 §2.2: deflate, without a dictionary. With `--cfg fuzzing`, `miniz_oxide` does not
    // compare the checksum.
    assert!(packed[0] & 15 == 8 && packed[1] & 32 == 0, "{:?}", &packed[..2]);
    assert!(u16::from_be_bytes([packed[0], packed[1]]).is_multiple_of(31));
    let mut unpacked = Vec::new();
    let most = MOST as u64 + 1;
    let mut deflated = DeflateDecoder::new(&packed[2..]).take(most);
    deflated.read_to_end(&mut unpacked).expect("deflate");
    assert!(unpacked.len() <= MOST);
    // The lowest bits of a byte are its first status.
    let per_byte = 8 / bits;
    let expected = |index: u32| {
        let byte = u32::from(*unpacked.get((index / per_byte) as usize)?);
        Some((byte >> (index % per_byte * bits) & ((1 << bits) - 1)) as u8)
    };
    let end = unpacked.len() as u32 * per_byte;
    let (first, last) = (0..COMPARED, end.saturating_sub(COMPARED)..end + per_byte);
    let between = (0..end).step_by((end / COMPARED + 1) as usize);
    for index in first.chain(last).chain(between).chain([u32::MAX]) {
        assert_eq!(status(index), expected(index), "{index} of {end}");
    }
});
