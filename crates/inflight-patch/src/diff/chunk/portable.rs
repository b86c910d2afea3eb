//! Cuts with nothing but 64-bit words: eight places at a time.

use super::{CANDIDATE, ChunkSizes, MIXED_BACK, first_cut};

/// The factors of the multiplier: each adds the hash, shifted by so many bits, to itself.
pub(super) const SHIFTS: [u32; 4] = [6, 9, 19, 29];

pub(super) const WIDTH: usize = 8;
const HIGH: u64 = 0x8080_8080_8080_8080;

pub(super) fn cut(sizes: ChunkSizes, bytes: &[u8]) -> usize {
    first_cut!(sizes, bytes, Lanes::default(), WIDTH)
}

/// What the next places depend on.
#[derive(Default)]
pub(super) struct Lanes {
    /// The last word before each shift.
    shifted: [u64; SHIFTS.len()],
    /// The last hashes, and those before.
    hashes: u64,
    before: u64,
}

impl Lanes {
    /// The next block's candidates with ranks up to `bound`, a bit for each.
    #[inline]
    pub(super) fn step(&mut self, block: &[u8; MIXED_BACK + WIDTH], bound: u8) -> u64 {
        let word =
            |at: usize| u64::from_le_bytes(block[at..at + WIDTH].try_into().expect("8 bytes"));
        let mut hashes = add(word(MIXED_BACK), word(0));
        for (shift, last) in SHIFTS.into_iter().zip(&mut self.shifted) {
            let word = hashes;
            hashes ^= word << shift | *last >> (64 - shift);
            *last = word;
        }
        let sums = add(hashes, hashes << 40 | self.hashes >> 24);
        let ranks = self.before ^ (self.hashes << 16 | self.before >> 48);
        (self.hashes, self.before) = (hashes, self.hashes);
        let differing = sums ^ u64::from_ne_bytes([CANDIDATE; 8]);
        let equal = !(((differing & !HIGH) + !HIGH) | differing) & HIGH;
        if equal == 0 {
            return 0;
        }
        let passes = |(place, rank): (usize, u8)| {
            u64::from(equal >> (8 * place + 7) & 1 == 1 && rank <= bound) << place
        };
        ranks.to_le_bytes().into_iter().enumerate().map(passes).sum()
    }
}

/// Adds bytes to bytes.
#[inline]
fn add(a: u64, b: u64) -> u64 {
    ((a & !HIGH) + (b & !HIGH)) ^ ((a ^ b) & HIGH)
}
