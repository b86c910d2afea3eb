//! Anchors: places chosen by what stands there, so that the same bytes are chosen wherever they
//! are, and an index of those of the old bytes.
//!
//! Whether a place is one depends on its first 8 bytes; what it is looked up by, on 16 or 32.

use std::collections::VecDeque;
use std::ops::Range;

use inflight::{ArenaBytes, Pool};
use rayon::prelude::*;

use crate::prefetch::prefetch;

/// Entries of a bucket: a cache line.
const BUCKET: usize = 8;
const BUCKET_BYTES: usize = BUCKET * 8;
/// Anchors that are prepared to be looked up, at most.
const PREPARED: usize = 4;
/// Entries of a bucket that may be alike.
const ALIKE_MAX: usize = 4;

fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Which places are anchors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampling {
    /// One place in 2^bits is one, by what stands there; every place for 0.
    pub(crate) bits: u32,
    /// Only places that are a multiple of this, and then `phase`, are looked at.
    pub(crate) stride: usize,
    pub(crate) phase: usize,
    /// Bytes that an anchor is looked up by: 8, 16 or 32.
    pub(crate) bytes: usize,
}

impl Sampling {
    /// One place in 2^bits, looked up by so many bytes.
    pub(crate) const fn of_bytes(bits: u32, bytes: usize) -> Sampling {
        Sampling { bits, stride: 1, phase: 0, bytes }
    }

    /// The anchors of `bytes` that end by `to`, from `from` on.
    pub(crate) fn anchors(self, bytes: &[u8], from: usize, to: usize) -> Anchors<'_> {
        assert!(to <= bytes.len());
        Anchors {
            sampling: self,
            bytes,
            end: to,
            looked: from,
            batch: from,
            places: [0; BATCH],
            left: 0..0,
        }
    }

    /// Whether a place is one, by its first 8 bytes.
    #[inline]
    fn chooses(self, bytes: &[u8], at: usize) -> bool {
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let hash = half(at).wrapping_mul(FACTORS[0]) ^ half(at + 4).wrapping_mul(FACTORS[1]);
        hash >> (32 - self.bits) == self.pattern()
    }

    /// A pattern that zeros do not have.
    fn pattern(self) -> u32 {
        ((1 << self.bits) - 2).max(1)
    }

    /// How many anchors so many bytes have, about.
    pub(crate) fn expected(self, bytes: u64) -> u64 {
        (bytes / self.stride as u64) >> self.bits
    }
}

/// Odd numbers that mix the first and the second four bytes of a place.
const FACTORS: [u32; 2] = [0x9e37_79b1, 0x85eb_ca77];

/// Bytes that are looked at together.
const BATCH: usize = 256;

/// Walks through the anchors of some bytes: looks at some of them at a time, and lists what it finds.
#[derive(Debug)]
pub(crate) struct Anchors<'a> {
    sampling: Sampling,
    bytes: &'a [u8],
    /// Where anchors end at the latest.
    end: usize,
    /// Up to where bytes were looked at, and where the last of them start that were.
    looked: usize,
    batch: usize,
    /// The anchors found there, and which of them were not given out.
    places: Places,
    left: Range<usize>,
}

/// Places in a batch.
type Places = [u8; BATCH];

impl Anchors<'_> {
    /// The first anchor at `from` or behind; `from` never goes back. When there is none, there is none
    /// the next time either.
    #[inline]
    pub(crate) fn next(&mut self, from: usize) -> Option<usize> {
        loop {
            for number in self.left.by_ref() {
                let at = self.batch + usize::from(self.places[number]);
                if at >= from {
                    return Some(at);
                }
            }
            if !self.look(from) {
                return None;
            }
        }
    }

    /// Gives `each` all anchors, in order.
    #[inline]
    pub(crate) fn each(mut self, mut each: impl FnMut(usize)) {
        while self.look(self.looked) {
            for place in &self.places[self.left.clone()] {
                each(self.batch + usize::from(*place));
            }
        }
    }

    /// Looks at the next bytes from `from` on, if there are any.
    fn look(&mut self, from: usize) -> bool {
        let at = from.max(self.looked);
        if at + self.sampling.bytes > self.end {
            return false;
        }
        // As many as may be anchors.
        let count = (self.end - self.sampling.bytes + 1 - at).min(BATCH);
        let (found, looked) = self.look_at(at, count);
        (self.batch, self.looked, self.left) = (at, at + looked, 0..found);
        true
    }

    /// Lists the anchors among places from `at` on, `count` of them or less. Gives how many there are, and at
    /// how many places it looked.
    fn look_at(&mut self, at: usize, count: usize) -> (usize, usize) {
        let Sampling { bits, stride, phase, .. } = self.sampling;
        #[cfg(target_arch = "x86_64")]
        if stride == 1
            && bits > 0
            && at + wide::READ_BYTES <= self.bytes.len()
            && crate::instructions::Instructions::used() >= crate::instructions::Instructions::Avx2
        {
            let (bytes, pattern) = (&self.bytes[at..], self.sampling.pattern());
            // SAFETY: the processor has the instructions.
            return unsafe { wide::list(bytes, count, bits, pattern, &mut self.places) };
        }
        let mut found = 0;
        let first = (stride + phase % stride - at % stride) % stride;
        for place in (first..count).step_by(stride) {
            if bits == 0 || self.sampling.chooses(self.bytes, at + place) {
                self.places[found] = place as u8;
                found += 1;
            }
        }
        (found, count)
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_cvtsi32_si128, _mm256_and_si256, _mm256_cmpeq_epi32,
        _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_mullo_epi32, _mm256_or_si256,
        _mm256_set1_epi32, _mm256_srl_epi32, _mm256_xor_si256,
    };

    use super::{FACTORS, Places};
    use crate::instructions::list_bits;

    /// Places that are told at a time.
    const STEP_BYTES: usize = 32;
    /// Bytes that are looked at for them.
    pub(super) const READ_BYTES: usize = STEP_BYTES + 8;

    /// Lists the anchors among the first `count` places of `bytes`, as `Sampling::chooses` has them, or
    /// among those for which there are bytes enough. Gives how many, and among how many.
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    pub(super) fn list(
        bytes: &[u8],
        count: usize,
        bits: u32,
        pattern: u32,
        places: &mut Places,
    ) -> (usize, usize) {
        let (mut found, mut at) = (0, 0);
        while at < count
            && let Some(bytes) = bytes.get(at..at + READ_BYTES)
        {
            let mut mask = chosen(bytes, bits, pattern);
            // What ends too late is none.
            mask &= !0 >> STEP_BYTES.saturating_sub(count - at);
            found = list_bits(mask, at, places, found);
            at += STEP_BYTES;
        }
        (found, at.min(count))
    }

    /// A bit for each of the first places that is an anchor.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    fn chosen(bytes: &[u8], bits: u32, pattern: u32) -> u32 {
        assert!(bytes.len() >= READ_BYTES);
        let load = |at: usize| -> __m256i {
            assert!(at + 32 <= READ_BYTES);
            // SAFETY: 32 bytes from `at` on lie in `bytes`, as asserted.
            unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) }
        };
        let (first, second) =
            (_mm256_set1_epi32(FACTORS[0] as i32), _mm256_set1_epi32(FACTORS[1] as i32));
        let shift: __m128i = _mm_cvtsi32_si128(32 - bits as i32);
        let wanted = _mm256_set1_epi32(pattern as i32);
        // Lane k of step j is place 4k + j: so is byte j of lane k of what is gathered.
        let mut gathered = _mm256_set1_epi32(0);
        for step in 0..4 {
            let hash = _mm256_xor_si256(
                _mm256_mullo_epi32(load(step), first),
                _mm256_mullo_epi32(load(step + 4), second),
            );
            let chosen = _mm256_cmpeq_epi32(_mm256_srl_epi32(hash, shift), wanted);
            let byte = _mm256_set1_epi32((0xffu32 << (8 * step)) as i32);
            gathered = _mm256_or_si256(gathered, _mm256_and_si256(chosen, byte));
        }
        _mm256_movemask_epi8(gathered) as u32
    }
}

/// What an anchor is looked up by: pairs of words multiplied and folded (after wyhash).
#[inline]
pub(crate) fn hash(bytes: &[u8], at: usize, sampling: Sampling) -> u64 {
    const MIX: [u64; 4] = [
        0xa076_1d64_78bd_642f,
        0xe703_7ed1_a0b4_28db,
        0x8ebc_6af0_9c88_c6e3,
        0x5899_65cc_7537_4cc3,
    ];
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let bytes = &bytes[at..at + sampling.bytes];
    let word = |number: usize| load(bytes, 8 * number);
    let mixed = match sampling.bytes {
        8 => fold(word(0) ^ MIX[0], MIX[1]),
        16 => fold(word(0) ^ MIX[0], word(1) ^ MIX[1]),
        _ => fold(word(0) ^ MIX[0], word(1) ^ MIX[1]) ^ fold(word(2) ^ MIX[2], word(3) ^ MIX[3]),
    };
    fold(mixed, MIX[1])
}

/// Old anchors by their hashes.
#[derive(Debug)]
pub(crate) struct AnchorIndex {
    /// Buckets of 8-byte entries, one behind the other.
    table: ArenaBytes,
    buckets: usize,
    pub(crate) sampling: Sampling,
}

const EMPTY: u64 = 0;

/// Memory is made in pieces of this size, or larger ones.
const PAGE_BYTES: usize = 4 << 10;

/// Old bytes whose anchors are listed as one piece of work.
const LIST_BYTES: usize = 1 << 18;
/// Pieces listed before what was found is inserted.
const LISTS: usize = 16;
/// Parts of the table that are filled at the same time.
const PARTS: usize = 16;

impl AnchorIndex {
    fn buckets(bytes: u64, sampling: Sampling) -> u64 {
        let anchors = sampling.expected(bytes) + 64;
        (anchors * 5 / 4 / BUCKET as u64).next_multiple_of(PARTS as u64)
    }

    /// Bytes that an index of so many old bytes takes.
    pub(crate) fn bytes(bytes: u64, sampling: Sampling) -> u64 {
        AnchorIndex::buckets(bytes, sampling) * BUCKET_BYTES as u64
    }

    /// An index of the anchors that lie wholly in ranges of `old`, if there is memory for it. Made
    /// in parallel; the same whatever the number of threads.
    pub(crate) fn of(
        pool: &Pool,
        old: &[u8],
        ranges: &[Range<usize>],
        sampling: Sampling,
    ) -> Option<AnchorIndex> {
        let bytes: u64 = ranges.iter().map(|range| range.len() as u64).sum();
        let buckets = AnchorIndex::buckets(bytes, sampling) as usize;
        // Zeroed, in huge pages where there are any: look-ups go anywhere.
        let mut table = pool.try_arena(buckets * BUCKET_BYTES)?;
        drop(table.buffer(buckets * BUCKET_BYTES));
        let mut table = table.finish().ok()?;
        // What is read first gets a page of zeros that others have too, which all processors must
        // forget again when it is written.
        table.par_chunks_mut(PAGE_BYTES).for_each(|page| page[0] = 0);
        let mut pieces = Vec::new();
        for range in ranges {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start + LIST_BYTES);
                // Anchors that reach into the next piece belong to this one.
                pieces.push(start..range.end.min(end + sampling.bytes - 1));
                start = end;
            }
        }
        let part_buckets = buckets / PARTS;
        let mut lists: Vec<Lists> = Vec::new();
        lists.resize_with(LISTS, Lists::default);
        for pieces in pieces.chunks(LISTS) {
            pieces.par_iter().zip(&mut lists).for_each(|(piece, lists)| {
                list(old, piece.clone(), sampling, buckets, part_buckets, lists);
            });
            let parts = table.par_chunks_mut(part_buckets * BUCKET_BYTES).enumerate();
            parts.for_each(|(part, table)| {
                for lists in &lists[..pieces.len()] {
                    fill(table, &lists[part]);
                }
            });
        }
        Some(AnchorIndex { table, buckets, sampling })
    }

    /// The anchors of a range of `bytes`, prepared to be looked up.
    pub(crate) fn prepared<'a>(&'a self, bytes: &'a [u8], range: Range<usize>) -> Prepared<'a> {
        let anchors = self.sampling.anchors(bytes, range.start, range.end);
        let (ahead, from) = (VecDeque::with_capacity(PREPARED), range.start);
        Prepared { index: self, anchors, ahead, from, behind: from, depth: 1 }
    }

    /// Old places that look like the anchor of this hash.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let tag = entry(hash, 0) >> 32;
        let start = bucket(hash, self.buckets) * BUCKET_BYTES;
        let slots = self.table[start..start + BUCKET_BYTES].chunks_exact(8);
        slots.map(slot).filter(move |slot| slot >> 32 == tag).map(|slot| slot as u32)
    }
}

/// Walks through anchors whose look-ups are prepared: each would wait for memory.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    index: &'a AnchorIndex,
    anchors: Anchors<'a>,
    /// Anchors and their hashes.
    ahead: VecDeque<(usize, u64)>,
    /// Where anchors are looked for, and where those end that were handed out.
    from: usize,
    behind: usize,
    /// How many are prepared: more, the longer none was passed over, as that is for nothing then.
    depth: usize,
}

impl Prepared<'_> {
    /// The next anchor at `from` or behind, and its hash for [`AnchorIndex::find`].
    pub(crate) fn next(&mut self, from: usize) -> Option<(usize, u64)> {
        self.from = self.from.max(from);
        self.depth = if from > self.behind { 1 } else { PREPARED.min(2 * self.depth) };
        loop {
            while self.ahead.len() < self.depth
                && let Some(at) = self.anchors.next(self.from)
            {
                let hash = hash(self.anchors.bytes, at, self.index.sampling);
                prefetch(&self.index.table[bucket(hash, self.index.buckets) * BUCKET_BYTES]);
                self.ahead.push_back((at, hash));
                self.from = at + 1;
            }
            let next = self.ahead.pop_front()?;
            if next.0 >= from {
                self.behind = next.0 + 1;
                return Some(next);
            }
        }
    }
}

/// The bucket of a hash: its upper half scaled to the table.
#[inline]
fn bucket(hash: u64, buckets: usize) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

/// Tag and place in one word; never [`EMPTY`].
#[inline]
fn entry(hash: u64, place: u32) -> u64 {
    (hash << 32 | 1 << 32) | u64::from(place)
}

/// Anchors by the part of the table that they belong to: bucket in it and entry.
type Lists = [Vec<(u32, u64)>; PARTS];

/// Lists the anchors of a piece.
fn list(
    old: &[u8],
    piece: Range<usize>,
    sampling: Sampling,
    buckets: usize,
    part_buckets: usize,
    lists: &mut Lists,
) {
    lists.iter_mut().for_each(Vec::clear);
    sampling.anchors(old, piece.start, piece.end).each(|at| {
        let hash = hash(old, at, sampling);
        let bucket = bucket(hash, buckets);
        let part = bucket / part_buckets;
        lists[part].push(((bucket - part * part_buckets) as u32, entry(hash, at as u32)));
    });
}

/// Entries whose cache lines are fetched ahead.
const AHEAD: usize = 8;

fn fill(table: &mut [u8], list: &[(u32, u64)]) {
    for (number, (bucket, entry)) in list.iter().enumerate() {
        if let Some((later, _)) = list.get(number + AHEAD) {
            prefetch(&table[*later as usize * BUCKET_BYTES]);
        }
        let start = *bucket as usize * BUCKET_BYTES;
        let mut alike = 0;
        for place in table[start..start + BUCKET_BYTES].chunks_exact_mut(8) {
            let there = slot(place);
            if there == EMPTY {
                place.copy_from_slice(&entry.to_ne_bytes());
                break;
            }
            alike += usize::from(there >> 32 == entry >> 32);
            if alike == ALIKE_MAX {
                break;
            }
        }
    }
}

fn slot(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use inflight::Budget;
    use proptest::prelude::*;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..length).map(step).collect()
    }

    proptest! {
        #[test]
        fn anchors_are_the_places_that_are_chosen(
            bytes in prop::collection::vec(0u8..4, 0..400),
            bits in 0u32..4,
            (stride, phase) in prop::sample::select(vec![(1usize, 0usize), (1, 0), (4, 0), (24, 8)]),
            behind in 0usize..80,
            lookup in prop::sample::select(vec![8usize, 16, 32]),
            steps in prop::collection::vec(1usize..40, 0..400),
        ) {
            let sampling = Sampling { bits, stride, phase, bytes: lookup };
            let end = bytes.len().saturating_sub(behind);
            let chosen: Vec<usize> = (0..(end + 1).saturating_sub(sampling.bytes))
                .filter(|at| at % stride == phase && (bits == 0 || sampling.chooses(&bytes, *at)))
                .collect();
            let mut all = Vec::new();
            sampling.anchors(&bytes, 0, end).each(|at| all.push(at));
            prop_assert_eq!(&all, &chosen);
            let mut anchors = sampling.anchors(&bytes, 0, end);
            let pool = Pool::new(Budget::new(1 << 20));
            let index = AnchorIndex::of(&pool, &[], &[], sampling).expect("room");
            let mut prepared = index.prepared(&bytes, 0..end);
            let mut from = 0;
            for step in steps {
                let expected = chosen.iter().copied().find(|at| *at >= from);
                let found = anchors.next(from);
                prop_assert_eq!(found, expected);
                let hashed = expected.map(|at| (at, hash(&bytes, at, sampling)));
                prop_assert_eq!(prepared.next(from), hashed);
                from = found.map_or(from, |found| found + step);
            }
        }
    }

    #[test]
    fn anchors_are_found_wherever_they_stand() {
        let pool = Pool::new(Budget::new(1 << 30));
        let old = noise(3 << 20);
        let sampling = Sampling::of_bytes(4, 32);
        let ranges = [0..1 << 20, (1 << 20) + 5..old.len()];
        let index = AnchorIndex::of(&pool, &old, &ranges, sampling).expect("room");
        let new = [&noise(77)[..], &old[100_000..2_000_000]].concat();
        let (mut seen, mut found) = (0, 0);
        sampling.anchors(&new, 77, new.len()).each(|at| {
            seen += 1;
            let place = (at - 77 + 100_000) as u32;
            found += usize::from(index.find(hash(&new, at, sampling)).any(|old| old == place));
        });
        assert!((1_900_000 / 20..1_900_000 / 12).contains(&seen), "{seen} anchors");
        // A few lie across the gap between the ranges, or their buckets were full.
        assert!(found * 100 > seen * 98, "{found} of {seen}");
    }
}
