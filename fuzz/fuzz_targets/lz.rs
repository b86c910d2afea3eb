//! Any bytes come back from the stage `lz-rans` as they were, and any payload is decoded or refused.
#![no_main]

use inflight_patch::format::testing::{compress_lz, decompress_lz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [settings, low, high, bytes @ ..] = input else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    // As a payload, whose first byte is its settings.
    let payload = [&[*settings % 54], bytes].concat();
    if let Ok(raw) = decompress_lz(&payload, length) {
        assert_eq!(raw.len(), length);
    }
    for payload in compress_lz(bytes, *settings % 54).expect("there are such settings") {
        assert_eq!(decompress_lz(&payload, bytes.len()).expect("what was compressed"), bytes);
    }
});
