//! Short agreements with a part of the old image that is known to be related: the file of the same
//! path, as a rule. Edited text is found here, whose lines are shorter than chunks.

use crate::align::anchor::Sampling;

use super::old::{common_prefix, common_suffix};

/// Bytes that are hashed at a place.
const WORD: usize = 8;
/// One place in four is listed, chosen by what stands there.
const SAMPLING: Sampling = Sampling::of_bytes(2, WORD);
/// The shortest agreement worth an instruction.
const AGREEMENT_BYTES_MIN: usize = 24;
/// Places with the same hash that are looked at.
const CANDIDATES_MAX: usize = 8;
const NONE: u32 = u32::MAX;

/// Sampled places of some old bytes, by what stands there.
pub(super) struct NearIndex<'a> {
    old: &'a [u8],
    /// By hash, the last place of it in `places`.
    heads: Vec<u32>,
    /// Places, and the number of the one before with the same hash.
    places: Vec<(u32, u32)>,
    shift: u32,
}

/// An agreement of new bytes with old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) new: usize,
    pub(super) old: usize,
    pub(super) length: usize,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + WORD].try_into().expect("8 bytes"))
}

fn hash(word: u64) -> u64 {
    (word ^ word >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<'a> NearIndex<'a> {
    /// An index of `old`, which is shorter than 4 GiB.
    pub(super) fn new(old: &'a [u8]) -> NearIndex<'a> {
        let bits = (old.len() / 2).max(16).ilog2();
        let shift = 64 - bits;
        let mut index = NearIndex { old, heads: vec![NONE; 1 << bits], places: Vec::new(), shift };
        index.places.reserve(old.len() / 3);
        let mut before = None;
        SAMPLING.anchors(old, 0, old.len()).each(|at| {
            let word = word(old, at);
            // Of a run of equal bytes the first place is enough.
            if before != Some(word) {
                let head = &mut index.heads[(hash(word) >> shift) as usize];
                index.places.push((at as u32, *head));
                *head = index.places.len() as u32 - 1;
            }
            before = Some(word);
        });
        index
    }

    /// Agreements of a range of `new` with the old bytes, in order, none over another.
    pub(super) fn agreements(&self, new: &[u8]) -> Vec<Agreement> {
        let mut found: Vec<Agreement> = Vec::new();
        let mut anchors = SAMPLING.anchors(new, 0, new.len());
        let (mut from, mut done) = (0, 0);
        while let Some(at) = anchors.next(from) {
            from = at + 1;
            if let Some(agreement) = self.best(hash(word(new, at)), new, done, at) {
                done = agreement.new + agreement.length;
                from = done;
                found.push(agreement);
            }
        }
        found
    }

    /// The longest agreement around `at`, from `done` on.
    fn best(&self, hash: u64, new: &[u8], done: usize, at: usize) -> Option<Agreement> {
        let mut number = self.heads[(hash >> self.shift) as usize];
        let mut best: Option<Agreement> = None;
        for _ in 0..CANDIDATES_MAX {
            let Some((place, before)) = self.places.get(number as usize) else { break };
            let place = *place as usize;
            let ahead = common_prefix(&new[at..], &self.old[place..]);
            if ahead >= WORD {
                let behind = common_suffix(&new[done..at], &self.old[..place]);
                let length = behind + ahead;
                if best.is_none_or(|best| length > best.length) {
                    best = Some(Agreement { new: at - behind, old: place - behind, length });
                }
            }
            number = *before;
        }
        best.filter(|best| best.length >= AGREEMENT_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agreements_agree_and_are_in_order(
            old in prop::collection::vec(0u8..4, 0..600),
            new in prop::collection::vec(0u8..4, 0..100),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..200), 0..8),
        ) {
            let mut text = new.clone();
            for (at, length) in cuts {
                let start = at.index(old.len() + 1);
                text.extend_from_slice(&old[start..(start + length).min(old.len())]);
                text.push(9);
            }
            let mut done = 0;
            for found in NearIndex::new(&old).agreements(&text) {
                prop_assert!(found.new >= done && found.length >= AGREEMENT_BYTES_MIN);
                done = found.new + found.length;
                prop_assert_eq!(&text[found.new..done], &old[found.old..found.old + found.length]);
            }
        }
    }

    #[test]
    fn lines_that_were_edited_around_are_found() {
        let line = |number: u32| format!("line {number} says {}\n", number * 7919 % 1000);
        let old: String = (0..500).map(line).collect();
        let edited = |number: u32| match number % 5 {
            0 => format!("quite another line in place of number {}\n", number / 3),
            _ => line(number),
        };
        let new: String = (0..500).map(edited).collect();
        let index = NearIndex::new(old.as_bytes());
        let found: usize = index.agreements(new.as_bytes()).iter().map(|found| found.length).sum();
        assert!(found * 10 > old.len() * 7, "{found} of {}", old.len());
    }
}
