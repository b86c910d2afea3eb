//! Inner loops by themselves, for bench/kernels. Not part of the interface.

pub use crate::diff::stages::{Stage, Versions};

use crate::diff::chunk::{self, ChunkSizes};
use crate::instructions::Instructions;

/// The sets of instructions that this processor has, by name.
#[must_use]
pub fn instruction_sets() -> Vec<&'static str> {
    Instructions::available().iter().map(|set| name(*set)).collect()
}

fn name(set: Instructions) -> &'static str {
    match set {
        Instructions::Portable => "portable",
        Instructions::Avx2 => "AVX2",
        Instructions::Avx512 => "AVX-512",
    }
}

/// Cuts bytes into chunks of about 1 KiB, with one of the sets; gives `each` every chunk.
///
/// # Panics
/// When there is no such set.
pub fn cut(instructions: &str, bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let sets = Instructions::available();
    let set = sets.iter().find(|set| name(**set) == instructions).expect("one that there is");
    let sizes = ChunkSizes::around(1 << 10);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(sizes.cut_with(*set, rest));
        each(chunk);
        rest = behind;
    }
}

/// What identifies a chunk.
#[must_use]
pub fn hash(chunk: &[u8]) -> u64 {
    chunk::hash(chunk)
}
