//! The form in which patches are fuzzed: header numbers and raw blocks, without the checksums that
//! would stop a mutated patch at its first byte.
//!
//! ```text
//! old bytes (8) │ new bytes (8) │ (kind (1) │ length (3) │ raw bytes)*
//! ```

use inflight_patch::format::testing;

/// Makes a patch with valid checksums, index and trailer of whatever the fuzzer came up with.
pub fn implode(input: &[u8]) -> Vec<u8> {
    let (head, mut rest) = input.split_at(input.len().min(16));
    let number = |at: usize| {
        let mut bytes = [0; 8];
        let there = head.get(at..).unwrap_or(&[]);
        let count = there.len().min(8);
        bytes[..count].copy_from_slice(&there[..count]);
        u64::from_le_bytes(bytes)
    };
    let mut blocks = Vec::new();
    while let Some((&[kind, a, b, c], payload)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        let (payload, later) = payload.split_at(length.min(payload.len()));
        blocks.push(testing::seal_block(kind, 0, payload.len() as u32, payload));
        rest = later;
    }
    testing::assemble(number(0), number(8), &blocks)
}

/// The reverse, for seeds from real patches.
pub fn explode(patch: &[u8]) -> Option<Vec<u8>> {
    let (old_bytes, new_bytes, blocks) = testing::raw_blocks(patch).ok()?;
    let mut out = [old_bytes.to_le_bytes(), new_bytes.to_le_bytes()].concat();
    for (kind, raw) in blocks {
        out.push(kind);
        out.extend_from_slice(&(raw.len() as u32).to_le_bytes()[..3]);
        out.extend_from_slice(&raw);
    }
    Some(out)
}
