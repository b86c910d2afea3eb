//! Where in the old image a chunk's hash was seen: a pre-sized open-addressing table.
//!
//! An entry is one word: 24 bits of the hash and a 40-bit place. With the slot it stands near, an
//! entry tells hashes apart well enough that almost every hit is true; each is confirmed by
//! comparing bytes anyway. The first place of equal chunks is kept, so the table does not depend
//! on who inserts when, as long as insertion is in the image's order.
//!
//! Look-ups may go on while later chunks are inserted. Each has a horizon, a place up to which all
//! chunks are in the table: what stands behind is passed over as if it were not there, so that the
//! result is the same whenever it is looked up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::prefetch::prefetch;

/// Bits of a place: images are indexed up to 1 TiB, beyond which chunks are not found.
const PLACE_BITS: u32 = 40;
const PLACE: u64 = (1 << PLACE_BITS) - 1;
const EMPTY: u64 = u64::MAX;
/// How far from its home an entry may be, so that a crowded table stays fast.
const PROBES_MAX: usize = 64;
/// How many hashes are looked up at a time, their cache lines fetched ahead.
const AHEAD: usize = 8;

/// A hash and where its chunk starts in the old image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) hash: u64,
    pub(crate) place: u64,
}

#[derive(Debug)]
pub(crate) struct Index {
    slots: Vec<AtomicU64>,
}

impl Index {
    /// Bytes that an index for this many chunks takes.
    pub(crate) fn bytes(chunks: u64) -> u64 {
        (chunks * 5 / 3 + 64) * 8
    }

    /// An index with room for `chunks` chunks at a load of 0.6.
    pub(crate) fn new(chunks: u64) -> Index {
        let slots = usize::try_from(Index::bytes(chunks) / 8).unwrap_or(usize::MAX);
        Index { slots: (0..slots + PROBES_MAX).map(|_| AtomicU64::new(EMPTY)).collect() }
    }

    fn home(&self, hash: u64) -> usize {
        // The upper half scaled to the table: no power of two needed.
        let slots = (self.slots.len() - PROBES_MAX) as u64;
        (((hash >> 32) * slots) >> 32) as usize
    }

    fn tag(hash: u64) -> u64 {
        // All ones would make the last place look empty.
        (hash & 0xff_ffff).min(0xff_fffe) << PLACE_BITS
    }

    /// Adds chunks, in the order of the image. Only one may do so at a time.
    pub(crate) fn insert(&self, signatures: &[Signature]) {
        for (number, signature) in signatures.iter().enumerate() {
            if let Some(later) = signatures.get(number + AHEAD) {
                prefetch(&self.slots[self.home(later.hash)]);
            }
            self.insert_one(*signature);
        }
    }

    fn insert_one(&self, Signature { hash, place }: Signature) {
        if place > PLACE {
            return;
        }
        let (home, tag) = (self.home(hash), Index::tag(hash));
        for slot in &self.slots[home..home + PROBES_MAX] {
            let entry = slot.load(Relaxed);
            if entry == EMPTY {
                slot.store(tag | place, Relaxed);
                return;
            }
            if entry & !PLACE == tag {
                return;
            }
        }
    }

    /// Where a chunk of this hash may start, below `horizon`.
    pub(crate) fn find(&self, hash: u64, horizon: u64) -> Option<u64> {
        let (home, tag) = (self.home(hash), Index::tag(hash));
        for slot in &self.slots[home..home + PROBES_MAX] {
            let entry = slot.load(Relaxed);
            // When all below the horizon were inserted, a later one's slot was empty.
            if entry == EMPTY || entry & PLACE >= horizon {
                return None;
            }
            if entry & !PLACE == tag {
                return Some(entry & PLACE);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signatures(count: u64) -> Vec<Signature> {
        let hash = |n: u64| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        (0..count).map(|place| Signature { hash: hash(place), place }).collect()
    }

    #[test]
    fn what_was_inserted_is_found() {
        let index = Index::new(10_000);
        let all = signatures(10_000);
        index.insert(&all);
        let found = all.iter().filter(|s| index.find(s.hash, u64::MAX) == Some(s.place)).count();
        assert!(found >= 9_990, "{found} of 10,000; the rest share tag and neighbourhood");
        assert_eq!(index.find(0xdead_beef_dead_beef, u64::MAX), None);
    }

    #[test]
    fn what_is_behind_the_horizon_changes_nothing() {
        let all = signatures(3_000);
        let index = Index::new(1_000);
        let mut found: Vec<Vec<Option<u64>>> = Vec::new();
        for part in all.chunks(1_000) {
            index.insert(part);
            let horizon = part[part.len() - 1].place + 1;
            found.push(all.iter().map(|s| index.find(s.hash, horizon)).collect());
        }
        for (number, found) in found.iter().enumerate() {
            let horizon = 1_000 * (number as u64 + 1);
            let again: Vec<Option<u64>> = all.iter().map(|s| index.find(s.hash, horizon)).collect();
            assert_eq!(&again, found, "with all of them inserted");
        }
    }

    #[test]
    fn the_first_place_wins_and_a_full_table_drops() {
        let index = Index::new(0);
        let hash = 42;
        index.insert(&[Signature { hash, place: 5 }, Signature { hash, place: 9 }]);
        assert_eq!(index.find(hash, u64::MAX), Some(5));
        index.insert(&signatures(100_000));
        assert_eq!(index.find(hash, u64::MAX), Some(5));
        index.insert(&[Signature { hash: 7, place: PLACE + 1 }]);
        assert_eq!(index.find(7, u64::MAX), None, "beyond what an entry can name");
    }
}
