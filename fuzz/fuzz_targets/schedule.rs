//! When key sets are fetched: the invariants of the model hold for any sequence of events.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|events: &[u8]| {
    // The model looks at all earlier fetches after each event.
    portcullis::fuzzing::schedule(&events[..events.len().min(200)]);
});
