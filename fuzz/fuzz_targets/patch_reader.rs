//! No bytes make the reader panic, hang or allocate more than they are worth.
#![no_main]

use inflight_patch::format::testing::read_all;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // As they are: what checksums and bounds have to say to them.
    let _ = read_all(input);
    // Behind valid checksums: what is checked after those.
    let _ = read_all(&inflight_fuzz::implode(input));
});
