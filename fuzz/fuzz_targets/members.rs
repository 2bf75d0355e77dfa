//! The reader of claims and headers against `serde_json`: the same members, or none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::Strict;

/// As deep as the reader goes, the outermost object included.
const MAX_DEPTH: usize = 16;

/// With some of its features, `serde_json` reads an object with such a name as something else.
const PRIVATE: &str = "$serde_json::private::";

fuzz_target!(|text: &str| {
    let names = ["iss", "a", "exp", ""];
    let found = portcullis::fuzzing::members(text, &names);
    let expected = Strict::read(text).filter(|all| matches!(all, Strict::Object(_)));
    let Some(found) = found else {
        // What is rejected is not strict, too deep, or ambiguous.
        let may_be = |all: Strict| all.depth() > MAX_DEPTH || all.has_name(PRIVATE);
        assert!(expected.is_none_or(may_be), "rejected: {text:?}");
        return;
    };
    let expected = expected.unwrap_or_else(|| panic!("accepted: {text:?}"));
    for (name, found) in names.iter().zip(found) {
        match (expected.get(name), found) {
            (None, None) => {}
            // An array with anything but strings is not read.
            (Some(expected), Some(Err(()))) => {
                let Strict::Array(items) = expected else { panic!("{name}: {expected:?}") };
                assert!(items.iter().any(|item| item.text().is_none()), "{name}: {expected:?}");
            }
            (Some(expected), Some(Ok(found))) => {
                assert!(expected.is(&found), "{name}: {expected:?}, {found:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
});
