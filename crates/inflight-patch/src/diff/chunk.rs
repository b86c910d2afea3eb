//! Content-defined chunks: cuts that depend on the bytes around them, so that the same stretch of
//! data is cut alike wherever it stands.
//!
//! An 8-bit hash of a sliding window of some ten bytes is computed at every byte, as a carry-less
//! convolution: many positions at a time, where the processor can. A place is a candidate where
//! the sum of two of them has one value; another two, further back, give its rank. A strict bound
//! on the rank below the target length and a loose one above let lengths gather around the target
//! (FastCDC's normalisation, Xia et al. 2016). Where none passes by the maximum, the last candidate
//! is the cut, which is still a property of the content.
//!
//! How chunks are cut is not part of the patch format: a patch only says what to copy.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::instructions::Instructions;

/// Lengths of chunks in bytes, and how high a rank may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkSizes {
    target: usize,
    /// The highest ranks of cuts before the target length, and behind it.
    strict: u8,
    loose: u8,
}

/// The least target length.
const TARGET_MIN: usize = 1 << 10;
/// Bytes before a place that its hashes depend on, rounded up to the widest block.
const WINDOW: usize = 64;
/// The value that makes a candidate. It is odd, so that no stretch of one byte, repeated, has one.
const CANDIDATE: u8 = 0xa7;

impl ChunkSizes {
    /// Lengths around `target`, a power of two: from a quarter of it to four times it.
    pub(crate) fn around(target: usize) -> ChunkSizes {
        assert!(target.is_power_of_two() && target >= TARGET_MIN, "{target} as a target length");
        // One place in 256 is a candidate, and ranks are evenly spread below 256.
        let ranks = |length: usize| (((1 << 16) / length).clamp(1, 256) - 1) as u8;
        ChunkSizes { target, strict: ranks(2 * target), loose: ranks(target / 4) }
    }

    pub(crate) fn target(self) -> usize {
        self.target
    }

    fn min(self) -> usize {
        self.target / 4
    }

    fn max(self) -> usize {
        self.target * 4
    }

    /// The length of the chunk at the start of `bytes`: all of them, where they are few.
    #[inline]
    pub(crate) fn cut(self, bytes: &[u8]) -> usize {
        self.cut_with(Instructions::used(), bytes)
    }

    pub(crate) fn cut_with(self, instructions: Instructions, bytes: &[u8]) -> usize {
        match instructions {
            Instructions::Portable => portable::cut(self, bytes),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the instructions, or they would not be chosen.
            Instructions::Avx2 => unsafe { avx2::cut(self, bytes) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx512 => unsafe { avx512::cut(self, bytes) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::cut(self, bytes),
        }
    }
}

/// The search for a cut, block by block, once for each set of instructions. `$lanes.step(block,
/// bound)` gives a bit for each candidate in a block of `$width` bytes whose rank is at most `bound`.
/// A branch is taken once for each chunk, or nearly so: they are what costs here.
macro_rules! first_cut {
    ($sizes:expr, $bytes:expr, $lanes:expr, $width:expr) => {{
        let (sizes, bytes) = ($sizes, $bytes);
        let end = bytes.len().min(sizes.max());
        let min = sizes.min();
        if end <= min {
            return end;
        }
        let mut lanes = $lanes;
        // What lies before the minimum only warms the hashes up. All bounds are a multiple of the
        // width away from here.
        let mut at = min - super::WINDOW;
        while at < min {
            lanes.step(super::block(bytes, at), 0);
            at += $width;
        }
        for (until, bound) in [(end.min(sizes.target), sizes.strict), (end, sizes.loose)] {
            while at < until {
                let passed = match at + $width <= bytes.len() {
                    true => lanes.step(super::block(bytes, at), bound),
                    false => {
                        let mut last = [0; super::MIXED_BACK + $width];
                        let rest = &bytes[at - super::MIXED_BACK..];
                        last[..rest.len()].copy_from_slice(rest);
                        lanes.step(&last, bound)
                    }
                };
                if passed != 0 {
                    let place = at + passed.trailing_zeros() as usize;
                    return end.min(place + 1);
                }
                at += $width;
            }
        }
        if end == sizes.max() { sizes.forced_cut(bytes) } else { end }
    }};
}
use first_cut;

/// How far back the byte is that is added to each one, lest counters and other regular data have
/// regular hashes.
const MIXED_BACK: usize = 3;

/// The block of bytes from `at` on, and those before that are added to them.
#[inline]
fn block<const BYTES: usize>(bytes: &[u8], at: usize) -> &[u8; BYTES] {
    bytes[at - MIXED_BACK..].first_chunk().expect("a block, and bytes before it")
}

impl ChunkSizes {
    /// The last candidate of any rank between minimum and maximum. `bytes` are that long.
    #[cold]
    fn forced_cut(self, bytes: &[u8]) -> usize {
        let (min, max) = (self.min(), self.max());
        let mut lanes = portable::Lanes::default();
        let mut last = None;
        for at in (min - WINDOW..max).step_by(portable::WIDTH) {
            let candidates = lanes.step(block(bytes, at), u8::MAX);
            if at >= min && candidates != 0 {
                last = Some(at + 64 - candidates.leading_zeros() as usize);
            }
        }
        last.unwrap_or(max)
    }
}

/// What the hash multiplies by: (1 + x⁶)(1 + x⁹)(1 + x¹⁹)(1 + x²⁹), so that four shifts do the same.
#[cfg(target_arch = "x86_64")]
const MULTIPLIER: u64 = {
    let mut product = 1u64;
    let steps = portable::SHIFTS;
    let mut step = 0;
    while step < steps.len() {
        product ^= product << steps[step];
        step += 1;
    }
    product
};

/// What identifies a chunk's contents.
pub(crate) fn hash(chunk: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(chunk)
}

/// How often the byte at the start is repeated.
pub(crate) fn run_length(bytes: &[u8]) -> usize {
    let Some(first) = bytes.first() else { return 0 };
    let pattern = [*first; 32];
    let blocks = bytes.chunks_exact(32).take_while(|block| **block == pattern).count() * 32;
    blocks + bytes[blocks..].iter().take_while(|byte| *byte == first).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..length).map(step).collect()
    }

    fn cuts(bytes: &[u8], sizes: ChunkSizes, instructions: Instructions) -> Vec<usize> {
        let (mut cuts, mut position) = (Vec::new(), 0);
        while position < bytes.len() {
            position += sizes.cut_with(instructions, &bytes[position..]);
            cuts.push(position);
        }
        cuts
    }

    /// Cuts as the definition has them, a byte at a time.
    fn defined_cut(bytes: &[u8], sizes: ChunkSizes) -> usize {
        let end = bytes.len().min(sizes.max());
        if end <= sizes.min() {
            return end;
        }
        let at = |list: &[u8], place: usize, back: usize| {
            place.checked_sub(back).map_or(0, |place| list[place])
        };
        let mixed: Vec<u8> =
            (0..end).map(|place| bytes[place].wrapping_add(at(bytes, place, MIXED_BACK))).collect();
        let mut bits: Vec<bool> =
            mixed.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect();
        for shift in portable::SHIFTS {
            for place in (shift as usize..bits.len()).rev() {
                bits[place] ^= bits[place - shift as usize];
            }
        }
        let hashes: Vec<u8> = bits
            .chunks(8)
            .map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit)))
            .collect();
        let mut last = None;
        for place in sizes.min()..end {
            if hashes[place].wrapping_add(hashes[place - 5]) != CANDIDATE {
                continue;
            }
            let rank = hashes[place - 16] ^ hashes[place - 10];
            if rank <= if place < sizes.target { sizes.strict } else { sizes.loose } {
                return place + 1;
            }
            last = Some(place + 1);
        }
        if end == sizes.max() { last.unwrap_or(end) } else { end }
    }

    proptest! {
        #[test]
        fn every_instruction_set_cuts_as_defined(
            seed: u64,
            length in 0usize..6000,
            spread in prop_oneof![Just(1u8), Just(3), Just(255)],
            target in prop_oneof![Just(1024), Just(4096)],
        ) {
            let bytes: Vec<u8> = noise(length, seed).iter().map(|byte| byte % spread).collect();
            let sizes = ChunkSizes::around(target);
            let expected = defined_cut(&bytes, sizes);
            for instructions in Instructions::available() {
                prop_assert_eq!(sizes.cut_with(*instructions, &bytes), expected, "{:?}", instructions);
            }
        }
    }

    #[test]
    fn lengths_stay_in_bounds_and_near_the_target() {
        for target in [1024, 4096, 16384, 65536] {
            let sizes = ChunkSizes::around(target);
            let bytes = noise(target * 1000, 7);
            let cuts = cuts(&bytes, sizes, Instructions::used());
            let lengths = cuts.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(lengths.clone().rev().skip(1).all(|l| l >= target / 4 && l <= target * 4));
            let mean = bytes.len() / cuts.len();
            assert!((target / 2..target * 2).contains(&mean), "mean {mean} for {target}");
        }
    }

    #[test]
    fn cuts_fall_into_step_behind_an_insertion() {
        let sizes = ChunkSizes::around(1024);
        let bytes = noise(200_000, 3);
        let mut other = bytes.clone();
        other.splice(1000..1000, [1, 2, 3]);
        for instructions in Instructions::available() {
            let before: std::collections::HashSet<usize> =
                cuts(&bytes, sizes, *instructions).into_iter().map(|cut| cut + 3).collect();
            let after = cuts(&other, sizes, *instructions);
            let shared = after.iter().filter(|cut| before.contains(cut)).count();
            assert!(shared * 100 > after.len() * 95, "{shared} of {}", after.len());
        }
    }

    #[test]
    fn runs_are_measured() {
        assert_eq!(run_length(&[]), 0);
        assert_eq!(run_length(&[5; 100]), 100);
        let mut bytes = vec![0; 1000];
        bytes[77] = 1;
        assert_eq!(run_length(&bytes), 77);
    }
}
