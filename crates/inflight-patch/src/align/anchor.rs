//! Anchors: places chosen by what stands there, so that the same bytes are chosen wherever they
//! are, and an index of those of the old bytes.
//!
//! Whether a place is one depends on its first 8 bytes; what it is looked up by, on 16 or 32.

use std::ops::Range;

use inflight::{ArenaBytes, Pool};
use rayon::prelude::*;

/// Entries of a bucket: a cache line.
const BUCKET: usize = 8;
const BUCKET_BYTES: usize = BUCKET * 8;
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
    /// Bytes that an anchor is looked up by, a multiple of 8.
    pub(crate) bytes: usize,
}

impl Sampling {
    /// One place in 2^bits, looked up by so many bytes.
    pub(crate) const fn of_bytes(bits: u32, bytes: usize) -> Sampling {
        Sampling { bits, stride: 1, phase: 0, bytes }
    }

    #[inline]
    fn chooses(self, first: u64) -> bool {
        // A pattern that zeros and other constant bytes do not have.
        let hash = first.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.bits == 0 || hash >> (64 - self.bits) == (1 << self.bits) - 2
    }

    /// The first anchor at `from` or behind that ends by `to`.
    #[inline]
    pub(crate) fn next(self, bytes: &[u8], from: usize, to: usize) -> Option<usize> {
        let mut at = match self.stride {
            1 => from,
            stride => (from + stride - 1 - self.phase % stride) / stride * stride + self.phase,
        };
        let bytes = &bytes[..to];
        while at + self.bytes <= to {
            if self.chooses(load(bytes, at)) {
                return Some(at);
            }
            at += self.stride;
        }
        None
    }

    /// How many anchors so many bytes have, about.
    fn anchors(self, bytes: u64) -> u64 {
        (bytes / self.stride as u64) >> self.bits
    }
}

/// What an anchor is looked up by.
#[inline]
pub(crate) fn hash(bytes: &[u8], at: usize, sampling: Sampling) -> u64 {
    let mut hash = 0u64;
    for word in bytes[at..at + sampling.bytes].chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        hash = (hash ^ (hash >> 32) ^ word).wrapping_mul(0xa076_1d64_78bd_642f);
    }
    (hash ^ (hash >> 29)).wrapping_mul(0xe703_7ed1_a0b4_28db)
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

/// Old bytes whose anchors are listed as one piece of work.
const LIST_BYTES: usize = 1 << 20;
/// Pieces listed before what was found is inserted.
const LISTS: usize = 16;
/// Parts of the table that are filled at the same time.
const PARTS: usize = 16;

impl AnchorIndex {
    fn buckets(bytes: u64, sampling: Sampling) -> u64 {
        let anchors = sampling.anchors(bytes) + 64;
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

    /// Old places that look like the anchor of this hash.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let tag = entry(hash, 0) >> 32;
        let start = bucket(hash, self.buckets) * BUCKET_BYTES;
        let slots = self.table[start..start + BUCKET_BYTES].chunks_exact(8);
        slots.map(slot).filter(move |slot| slot >> 32 == tag).map(|slot| slot as u32)
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
    let mut from = piece.start;
    while let Some(at) = sampling.next(old, from, piece.end) {
        let hash = hash(old, at, sampling);
        let bucket = bucket(hash, buckets);
        let part = bucket / part_buckets;
        lists[part].push(((bucket - part * part_buckets) as u32, entry(hash, at as u32)));
        from = at + 1;
    }
}

/// Entries whose cache lines are fetched ahead.
const AHEAD: usize = 8;

fn fill(table: &mut [u8], list: &[(u32, u64)]) {
    for (number, (bucket, entry)) in list.iter().enumerate() {
        if let Some((later, _)) = list.get(number + AHEAD) {
            touch(&table[*later as usize * BUCKET_BYTES]);
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

/// Asks for the cache line of a bucket.
#[inline]
fn touch(bucket: &u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults on nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *bucket).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bucket;
}
