//! The latest places of each hash, in one line of the cache.
//!
//! The idea is that of the "row hash" of zstd 1.5 (2021): a byte more of the hash
//! is kept for each place, and one comparison of vectors tells which are worth a look. Which line is
//! needed is known some positions ahead, so it is there when its turn comes.

use super::{Find, Found, LONG_ENOUGH, Latest, common, four_at, hash};
use crate::prefetch::prefetch;

/// How many places a bucket keeps.
pub(super) const PLACES: usize = 12;

/// Bits of a bucket's number, at most: all together are 4 MiB.
const BUCKET_BITS_MAX: u32 = 16;

/// Positions ahead of which a bucket is fetched.
const AHEAD: usize = 12;

/// The latest places of four bytes, the latest first.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// Each plus one.
    places: [u32; PLACES],
    /// A byte of each one's hash. Those behind [`PLACES`] are of places that were forgotten.
    tags: [u8; 16],
}

impl Bucket {
    const EMPTY: Bucket = Bucket { places: [0; PLACES], tags: [0; 16] };

    /// A bit for each place with this tag.
    #[inline(always)]
    fn tagged(&self, tag: u8) -> u32 {
        equal(&self.tags, tag) & ((1 << PLACES) - 1)
    }

    /// Keeps one more, and forgets the oldest.
    #[inline(always)]
    fn push(&mut self, place: u32, tag: u8) {
        self.places.copy_within(..PLACES - 1, 1);
        self.places[0] = place;
        self.tags = (u128::from_le_bytes(self.tags) << 8 | u128::from(tag)).to_le_bytes();
    }
}

/// A bit for each byte that is this one. With a vector of SSE2, which every x86-64 processor has.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn equal(bytes: &[u8; 16], byte: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    // SAFETY: the processor has SSE2, and as many bytes are read as there are.
    unsafe {
        let bytes = _mm_loadu_si128((&raw const *bytes).cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8))) as u32
    }
}

#[cfg(not(target_arch = "x86_64"))]
use equal_portable as equal;

#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_portable(bytes: &[u8; 16], byte: u8) -> u32 {
    bytes.iter().enumerate().map(|(at, it)| u32::from(*it == byte) << at).sum()
}

/// Looks how long the repeat of another place is; whether a longer one is wanted.
#[inline(always)]
fn look(bytes: &[u8], position: usize, place: usize, limit: usize, found: &mut Found) -> bool {
    let (there, here) = (&bytes[place..], &bytes[position..]);
    if there[found.longest] == here[found.longest] {
        found.push(common(there, here, 0, limit), position - place);
    }
    found.longest < limit
}

/// Finds the latest repeats.
#[derive(Debug)]
pub(crate) struct Buckets<'a> {
    bytes: &'a [u8],
    position: usize,
    /// By hashes of three bytes.
    threes: Latest,
    bits: u32,
    buckets: Vec<Bucket>,
}

impl<'a> Find<'a> for Buckets<'a> {
    fn new(bytes: &'a [u8]) -> Buckets<'a> {
        let log = bytes.len().max(2).ilog2();
        let bits = log.saturating_sub(3).clamp(4, BUCKET_BITS_MAX);
        Buckets {
            bytes,
            position: 0,
            threes: Latest::new(log.clamp(8, 16)),
            bits,
            buckets: vec![Bucket::EMPTY; 1 << bits],
        }
    }

    #[inline(always)]
    fn step(&mut self, found: Option<&mut Found>) {
        let Buckets { bytes, position, bits, .. } = *self;
        self.position += 1;
        let Some(four) = four_at(bytes, position) else { return };
        if let Some(later) = four_at(bytes, position + AHEAD) {
            prefetch(&self.buckets[(hash(later) >> (32 - bits)) as usize]);
        }
        let three = self.threes.replace(hash(four << 8), position);
        let hash = hash(four);
        let (bucket, tag) = ((hash >> (32 - bits)) as usize, (hash >> (24 - bits)) as u8);
        let bucket = &mut self.buckets[bucket];
        if let Some(found) = found {
            let limit = (bytes.len() - position).min(LONG_ENOUGH);
            let mut is_short = three.is_none_or(|place| look(bytes, position, place, limit, found));
            let mut tagged = bucket.tagged(tag);
            while is_short && tagged != 0 {
                let place = bucket.places[tagged.trailing_zeros() as usize % PLACES];
                tagged &= tagged - 1;
                // Where nothing is yet, the tag may be like this.
                let Some(place) = (place as usize).checked_sub(1) else { break };
                is_short = look(bytes, position, place, limit, found);
            }
        }
        bucket.push(position as u32 + 1, tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept() {
        let mut bucket = Bucket::EMPTY;
        for place in 1..=20 {
            bucket.push(place, (place % 3) as u8);
        }
        assert_eq!(bucket.places[..3], [20, 19, 18]);
        assert_eq!(bucket.tagged(2), 0b1001_0010_0100 >> 2);
        assert_eq!(bucket.tagged(0), 0b0100_1001_0010 << 1 & 0xfff);
        assert_eq!(bucket.tagged(7), 0);
    }

    #[test]
    fn vectors_do_what_bytes_do() {
        for byte in 0..4 {
            let bytes = std::array::from_fn(|at| (at * at % 5) as u8);
            assert_eq!(equal(&bytes, byte), equal_portable(&bytes, byte));
        }
    }
}
