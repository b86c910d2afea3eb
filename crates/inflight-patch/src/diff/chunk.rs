//! Content-defined chunks: cuts that depend on the bytes around them, so that the same stretch of
//! data is cut alike wherever it stands.
//!
//! A gear hash (each byte shifts the state and adds a random number) is compared with a mask:
//! a strict one below the target length, a loose one above, so that lengths gather around the
//! target (FastCDC's normalisation, Xia et al. 2016). Where no cut is found by the maximum, it is
//! made where the hash was lowest, which is still a property of the content.
//!
//! How chunks are cut is not part of the patch format: a patch only says what to copy.

use std::sync::LazyLock;

/// Lengths of chunks in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkSizes {
    target: usize,
}

impl ChunkSizes {
    /// Lengths around `target`, a power of two: from a quarter of it to four times it.
    pub(crate) fn around(target: usize) -> ChunkSizes {
        assert!(target.is_power_of_two() && target >= 64, "{target} as a target length");
        ChunkSizes { target }
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

    /// A mask of as many bits as make one cut in `length` bytes.
    fn mask(length: usize) -> u64 {
        // The upper bits of a gear hash depend on the widest window.
        !0 << (64 - length.trailing_zeros())
    }

    /// The length of the chunk at the start of `bytes`: all of them, where they are few.
    pub(crate) fn cut(self, bytes: &[u8]) -> usize {
        let end = bytes.len().min(self.max());
        if end <= self.min() {
            return end;
        }
        let gear = &*GEAR;
        let (strict, loose) =
            (ChunkSizes::mask(self.target * 2), ChunkSizes::mask(self.target / 2));
        let middle = end.min(self.target);
        // The hash at a place depends on the 64 bytes before it: start that much before `min`.
        let mut hash = 0u64;
        for byte in &bytes[self.min() - WINDOW..self.min()] {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
        }
        let ranges = [(self.min(), middle, strict), (middle, end, loose)];
        for (from, to, mask) in ranges {
            for (offset, byte) in bytes[from..to].iter().enumerate() {
                hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
                if hash & mask == 0 {
                    return from + offset + 1;
                }
            }
        }
        match end == self.max() {
            true => self.forced_cut(bytes),
            false => end,
        }
    }

    /// The place of the lowest hash between minimum and maximum.
    fn forced_cut(self, bytes: &[u8]) -> usize {
        let gear = &*GEAR;
        let (mut hash, mut lowest, mut place) = (0u64, u64::MAX, self.max());
        for byte in &bytes[self.min() - WINDOW..self.min()] {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
        }
        for (offset, byte) in bytes[self.min()..self.max()].iter().enumerate() {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
            if hash < lowest {
                (lowest, place) = (hash, self.min() + offset + 1);
            }
        }
        place
    }
}

/// Bytes that a hash depends on at most; the least minimum length.
const WINDOW: usize = 16;

/// A random number for each byte value.
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    // SplitMix64 (Steele, Lea, Flood 2014) from a fixed seed.
    let mut state = 0x6e66_6c69_6768_7431_u64;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
});

/// What identifies a chunk's contents.
pub(crate) fn hash(chunk: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(chunk)
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

    fn cuts(bytes: &[u8], sizes: ChunkSizes) -> Vec<usize> {
        let (mut cuts, mut position) = (Vec::new(), 0);
        while position < bytes.len() {
            position += sizes.cut(&bytes[position..]);
            cuts.push(position);
        }
        cuts
    }

    #[test]
    fn lengths_stay_in_bounds_and_near_the_target() {
        for target in [64, 1024, 16384] {
            let sizes = ChunkSizes::around(target);
            let bytes = noise(target * 2000, 7);
            let cuts = cuts(&bytes, sizes);
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
        let before: std::collections::HashSet<usize> =
            cuts(&bytes, sizes).into_iter().map(|cut| cut + 3).collect();
        let after = cuts(&other, sizes);
        let shared = after.iter().filter(|cut| before.contains(cut)).count();
        assert!(shared * 100 > after.len() * 95, "{shared} of {}", after.len());
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
