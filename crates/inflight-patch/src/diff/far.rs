//! Short agreements with any part of the old image: what moved far in pieces shorter than chunks, as
//! rows of a database do when its pages are split.
//!
//! That takes an index of the whole old image, which is made where more is left than is worth to be
//! indexed itself: see `held`.

use inflight::Pool;

use super::near::Agreement;
use super::old::{IMAGE_BYTES_MAX, common_prefix, common_suffix};
use crate::align::anchor::{AnchorIndex, Sampling};
use crate::transform::references::space::{OldExecutable, cut_image};

/// The shortest agreement worth an instruction.
const AGREEMENT_BYTES_MIN: usize = 32;

/// Anchors of all old bytes but those of executables that new ones are made from.
#[derive(Debug)]
pub(super) struct FarIndex {
    index: AnchorIndex,
}

impl FarIndex {
    /// Memory for the index of so many old bytes.
    pub(super) fn bytes(old: u64, sampling: Sampling) -> u64 {
        AnchorIndex::bytes(old, sampling)
    }

    /// An index of an old image in memory, if it is worth it and there is memory for it. Work for
    /// the crew, on all of its threads.
    pub(super) fn of(
        pool: &Pool,
        old: &[u8],
        executables: &[OldExecutable],
        sampling: Sampling,
    ) -> Option<FarIndex> {
        if old.len() > IMAGE_BYTES_MAX {
            return None;
        }
        let (mut ranges, mut done) = (Vec::new(), 0);
        for (_, range) in cut_image(executables, 0..old.len() as u64) {
            ranges.push(done..range.start as usize);
            done = range.end as usize;
        }
        ranges.push(done..old.len());
        ranges.retain(|range| !range.is_empty());
        Some(FarIndex { index: AnchorIndex::of(pool, old, &ranges, sampling)? })
    }

    /// Agreements of `new` with the old bytes, in order, none over another.
    pub(super) fn agreements(&self, new: &[u8], old: &[u8]) -> Vec<Agreement> {
        let mut anchors = self.index.prepared(new, 0..new.len());
        let (mut found, mut done): (Vec<Agreement>, _) = (Vec::new(), 0);
        while let Some((at, hash)) = anchors.next(done) {
            let places = self.index.find(hash).map(|place| place as usize);
            let agreements = places.map(|place| {
                let ahead = common_prefix(&new[at..], &old[place..]);
                let behind = common_suffix(&new[done..at], &old[..place]);
                Agreement { new: at - behind, old: place - behind, length: behind + ahead }
            });
            let longest = agreements.max_by_key(|found| found.length);
            if let Some(best) = longest.filter(|best| best.length >= AGREEMENT_BYTES_MIN) {
                done = best.new + best.length;
                found.push(best);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use inflight::Budget;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agreements_agree_and_are_in_order(
            old in prop::collection::vec(any::<u8>(), 64..3000),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..200), 0..12),
        ) {
            let mut new = vec![7; 10];
            for (at, length) in &cuts {
                let start = at.index(old.len());
                new.extend_from_slice(&old[start..(start + length).min(old.len())]);
                new.extend_from_slice(b"between");
            }
            let pool = Pool::new(Budget::new(1 << 20));
            let sampling = Sampling::of_bytes(1, 16);
            let index = FarIndex::of(&pool, &old, &[], sampling).expect("fits");
            let (mut done, mut sum) = (0, 0);
            for found in index.agreements(&new, &old) {
                prop_assert!(found.new >= done && found.length >= AGREEMENT_BYTES_MIN);
                done = found.new + found.length;
                sum += found.length;
                prop_assert_eq!(&new[found.new..done], &old[found.old..found.old + found.length]);
            }
            // Of random bytes half of the places are anchors.
            let long = cuts.iter().map(|(at, length)| (*length).min(old.len() - at.index(old.len())));
            let long: usize = long.filter(|length| *length > 60).sum();
            prop_assert!(sum >= long, "{} of {}", sum, long);
        }
    }
}
