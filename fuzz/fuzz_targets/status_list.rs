//! Status lists: no list takes more memory than the limit, and each status is the one that a slow
//! reader finds.

#![no_main]

use std::io::Read as _;
use std::sync::Once;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use libfuzzer_sys::fuzz_target;
use portcullis::fuzzing::status_list;
use portcullis_fuzz::{Strict, base64url};

const URI: &str = "https://issuer.example/1";
const MOST: usize = 16 * 1024 * 1024;
/// How many bytes of statuses are packed: more would take seconds.
const MOST_PACKED_HERE: usize = 1024 * 1024;

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
        let is_read = |bytes| status_list(&payload(8, &packed(&vec![0; bytes])), URI, 0).is_some();
        assert!(is_read(MOST) && !is_read(MOST + 1));
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
    let Some((bytes, statuses)) = status_list(&payload, URI, 4096) else { return };
    assert!(bytes <= MOST + 64 * 1024, "{bytes}");
    let list = Strict::read(&payload).expect("a payload that is JSON");
    assert_eq!(list.get("sub").and_then(Strict::text), Some(URI));
    let list = list.get("status_list").expect("a list");
    let bits = list.get("bits").and_then(Strict::number).expect("bits") as u32;
    let packed = list.get("lst").and_then(Strict::text).expect("lst");
    let packed = URL_SAFE_NO_PAD.decode(packed).expect("base64url");
    let mut unpacked = Vec::new();
    ZlibDecoder::new(&packed[..]).take(4096).read_to_end(&mut unpacked).expect("zlib");
    let all = unpacked.iter().flat_map(|byte| {
        (0..8 / bits)
            .map(move |index| (u32::from(*byte) >> (index * bits) & ((1 << bits) - 1)) as u8)
    });
    let expected: Vec<u8> = all.take(4096).collect();
    assert_eq!(statuses, expected);
});
