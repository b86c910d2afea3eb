//! What is left of a new image, looked for in all of an old one: the other way round than `far` does
//! it. What is left is indexed, the old bytes pass by, unit by unit, and the longest agreement of each
//! anchor with any of them is kept. So they need not be in memory, and what stands in them often is
//! no matter.

use std::ops::Range;

use crate::align::anchor::{Sampling, hash};
use crate::prefetch::prefetch;

use super::old::{common_prefix, common_suffix};
use super::patchwork::{Found, Patchwork};

/// The shortest agreement worth an instruction.
const AGREEMENT_BYTES_MIN: u32 = 32;
/// Bits of the filter for each anchor, at least, and slots of the table: of old anchors that are not
/// there at most one in eight is looked up.
const FILTER_BITS: usize = 8;
const SLOTS: usize = 2;
const EMPTY: u64 = u64::MAX;
/// Bytes of an agreement, at least, that an anchor in it has.
const ANCHOR_BYTES: u32 = 8;
/// Bytes on either side of a literal that have anchors too.
const ANCHORS_BESIDE_BYTES: u64 = 64;
/// Anchors before one that are looked at for its like.
const RECENT: usize = 8;
/// How far before an anchor agreements are looked for, at most: among what repeats there is always one
/// that goes back a little.
const BEHIND_BYTES_MAX: usize = 16 << 10;
/// Anchors of old bytes that are looked up at once.
const AT_ONCE: usize = 32;
/// Stretches that old bytes agree with at once.
const STRETCHES: usize = 4;

/// It pays to look through all old bytes for what is left where that is more than one in so many.
const LEFT: u64 = 1024;
/// Anchors of what is left, at most, about.
const ANCHORS_MAX: u64 = 1 << 21;

/// Whether so much is left that it pays to look through so many old bytes for it.
pub(super) fn is_much(left: u64, old: u64) -> bool {
    left * LEFT > old && old > 0
}

/// Stretches of a new image, gathered.
#[derive(Debug, Default)]
pub(super) struct Left {
    bytes: Vec<u8>,
    stretches: Vec<Stretch>,
    /// Where in the new image their literals are.
    literals: Vec<Range<u64>>,
    /// How much it is to become.
    amount: Amount,
}

#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// Where it starts in the bytes gathered, and in the new image.
    start: u32,
    new: u64,
    /// The number of its first literal.
    first_literal: u32,
}

/// Anchors of what is left, and what was found of them.
#[derive(Debug)]
pub(super) struct LeftIndex {
    left: Left,
    sampling: Sampling,
    /// A bit for each of some bits of the hashes.
    filter: Vec<u64>,
    /// Upper half of a hash and number of an anchor among those that differ.
    slots: Vec<u64>,
    /// The first place of each anchor that differs from those before.
    firsts: Vec<First>,
    /// All anchors in order: place and number.
    anchors: Vec<(u32, u32)>,
}

/// The first place of an anchor.
#[derive(Debug, Clone, Copy)]
struct First {
    place: u32,
    stretch: u32,
}

/// An agreement around an anchor: `old` is what stands at the anchor.
#[derive(Debug, Clone, Copy, Default)]
struct Around {
    old: u64,
    behind: u32,
    ahead: u32,
}

/// Agreements with one piece of the old image, by the anchors' numbers.
#[derive(Debug)]
pub(super) struct Hits(Vec<(u32, Around)>);

/// The longest agreement of each anchor so far.
#[derive(Debug)]
pub(super) struct Best(Vec<Around>);

impl Around {
    fn length(self) -> u32 {
        self.behind + self.ahead
    }
}

/// How much there is to index.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Amount {
    /// Bytes of stretches.
    bytes: u64,
    /// Those around their literals, where anchors are.
    anchored: u64,
}

impl Amount {
    pub(super) fn of<'a>(stretches: impl IntoIterator<Item = &'a Patchwork>) -> Amount {
        let mut all = Amount::default();
        for stretch in stretches {
            all.bytes += stretch.length();
            let beside = 2 * ANCHORS_BESIDE_BYTES * stretch.literals.len() as u64;
            all.anchored += (stretch.literal_bytes() + beside).min(stretch.length());
        }
        all
    }

    pub(super) fn and(self, other: Amount) -> Amount {
        Amount { bytes: self.bytes + other.bytes, anchored: self.anchored + other.anchored }
    }

    /// Memory that an index of it takes with the bytes.
    pub(super) fn memory(self, sampling: Sampling) -> u64 {
        if self.bytes == 0 {
            return 0;
        }
        // Places and hashes while it is made; slots, up to half of them more than asked for; first
        // places, all places, and what is best for each, twice.
        let each = 16 + 2 * SLOTS * 8 + FILTER_BITS / 4 + 16 + 8 + 2 * 16;
        // Where literals are, what was found, and what of it is not yet best.
        self.bytes + self.bytes / 4 + self.anchors(sampling) * each as u64
    }

    /// How many anchors of it are indexed, at most: more than is to be expected.
    fn anchors(self, sampling: Sampling) -> u64 {
        sampling.expected(self.anchored) * 3 / 2 + 64
    }

    /// The same sampling, or a sparser one where there is very much to index in so much memory.
    pub(super) fn sampling(self, mut sampling: Sampling, memory: u64) -> Sampling {
        let fitting = |sampling: Sampling| {
            let needed = self.memory(sampling);
            let part = u128::from(self.anchored) * u128::from(memory.min(needed));
            (part / u128::from(needed.max(1))) as u64
        };
        while sampling.expected(fitting(sampling)) > ANCHORS_MAX {
            sampling.bits += 1;
        }
        sampling
    }
}

/// Leaves out of stretches what is more than can be indexed with so much memory beside `taken`, which
/// becomes what all take.
pub(super) fn fit(
    stretches: &mut Vec<Patchwork>,
    taken: &mut Amount,
    sampling: Sampling,
    memory: u64,
) {
    for stretch in &mut *stretches {
        let with = |stretch: &Patchwork| taken.and(Amount::of([stretch]));
        while stretch.length() > 0 && with(stretch).memory(sampling) > memory {
            let needed =
                with(stretch).memory(sampling).saturating_sub(taken.memory(sampling)).max(1);
            let room = memory.saturating_sub(taken.memory(sampling)).min(needed - 1);
            let fitting = u128::from(stretch.length()) * u128::from(room) / u128::from(needed);
            stretch.truncate(fitting as u64);
        }
        *taken = with(stretch);
    }
    stretches.retain(|stretch| stretch.length() > 0);
}

impl Left {
    /// Room for so much.
    pub(super) fn with_capacity(amount: Amount) -> Left {
        let bytes = Vec::with_capacity(amount.bytes as usize);
        Left { bytes, amount, ..Left::default() }
    }

    /// Adds a stretch that stands at `place` in the new image and has `literals`.
    pub(super) fn add(&mut self, place: u64, literals: &[Range<u64>], bytes: &[u8]) {
        let (start, first) = (self.bytes.len() as u32, self.literals.len() as u32);
        self.stretches.push(Stretch { start, new: place, first_literal: first });
        self.literals.extend_from_slice(literals);
        self.bytes.extend_from_slice(bytes);
    }

    /// Where the bytes gathered around the literals of a stretch are, in order and apart from each other.
    fn around_literals(&self, stretch: usize) -> impl Iterator<Item = Range<usize>> {
        let (range, Stretch { new, first_literal, .. }) =
            (self.range(stretch), self.stretches[stretch]);
        let next = self.stretches.get(stretch + 1);
        let behind = next.map_or(self.literals.len(), |next| next.first_literal as usize);
        let around = move |literal: &Range<u64>| {
            let at = |place: u64| range.start + place.saturating_sub(new) as usize;
            let start = at(literal.start.saturating_sub(ANCHORS_BESIDE_BYTES));
            start..at(literal.end + ANCHORS_BESIDE_BYTES).min(range.end)
        };
        let literals = &self.literals[first_literal as usize..behind];
        let mut all = literals.iter().map(around).peekable();
        std::iter::from_fn(move || {
            let mut joined = all.next()?;
            while let Some(next) = all.next_if(|next| next.start <= joined.end) {
                joined.end = next.end;
            }
            Some(joined)
        })
    }

    /// Where a stretch lies in `bytes`.
    fn range(&self, stretch: usize) -> Range<usize> {
        let next = self.stretches.get(stretch + 1);
        let end = next.map_or(self.bytes.len(), |next| next.start as usize);
        self.stretches[stretch].start as usize..end
    }
}

impl LeftIndex {
    /// An index of what is left, which is shorter than 4 GiB. Work for the crew.
    pub(super) fn of(left: Left, sampling: Sampling) -> LeftIndex {
        let most = left.amount.anchors(sampling) as usize;
        let (mut anchors, mut hashes) = (Vec::with_capacity(most), Vec::with_capacity(most));
        for stretch in 0..left.stretches.len() {
            let mut recent = [0; RECENT];
            for range in left.around_literals(stretch) {
                sampling.anchors(&left.bytes, range.start, range.end).each(|at| {
                    let hash = hash(&left.bytes, at, sampling);
                    // Of what repeats closely the first is enough.
                    if anchors.len() < most && !recent.contains(&hash) {
                        recent[anchors.len() % RECENT] = hash;
                        anchors.push((at as u32, stretch as u32));
                        hashes.push(hash);
                    }
                });
            }
        }
        let mut index = LeftIndex {
            sampling,
            filter: vec![0; (hashes.len() * FILTER_BITS / 64 + 1).next_power_of_two()],
            slots: vec![EMPTY; (hashes.len() * SLOTS + 1).next_power_of_two()],
            firsts: Vec::new(),
            anchors: Vec::with_capacity(hashes.len()),
            left,
        };
        for ((place, stretch), hash) in anchors.into_iter().zip(hashes) {
            let number = match index.slot(hash) {
                Ok(number) => number,
                Err(slot) => {
                    let number = index.firsts.len() as u32;
                    index.slots[slot] = hash & !0 << 32 | u64::from(number);
                    let (word, bit) = index.filter_bit(hash);
                    index.filter[word] |= bit;
                    index.firsts.push(First { place, stretch });
                    number
                }
            };
            index.anchors.push((place, number));
        }
        index
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// Bytes of literals.
    pub(super) fn literal_bytes(&self) -> u64 {
        self.left.literals.iter().map(|range| range.end - range.start).sum()
    }

    /// How many bytes of literals were found.
    pub(super) fn gain(&self, found: &[Found]) -> u64 {
        let (mut gain, mut done) = (0, 0);
        let mut literals = self.left.literals.iter().peekable();
        for found in found {
            let mut place = found.new.max(done);
            while let Some(literal) = literals.peek()
                && place < found.end()
            {
                let (start, end) = (literal.start.max(place), literal.end.min(found.end()));
                gain += end.saturating_sub(start);
                place = place.max(end);
                if literal.end > found.end() {
                    break;
                }
                literals.next();
            }
            done = done.max(found.end());
        }
        gain
    }

    /// Where a hash's bit is in the filter.
    fn filter_bit(&self, hash: u64) -> (usize, u64) {
        let bit = (hash >> 7) as usize & (self.filter.len() * 64 - 1);
        (bit / 64, 1 << (bit % 64))
    }

    /// The number of the anchor of this hash, or the slot where it would be.
    fn slot(&self, hash: u64) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return Err(slot),
                there if there >> 32 == hash >> 32 => return Ok(there as u32),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// No agreement so far.
    pub(super) fn nothing(&self) -> Best {
        Best(vec![Around::default(); self.firsts.len()])
    }

    /// What is left that agrees with old bytes, which start at `base`. Work for the crew.
    pub(super) fn agreements(&self, old: &[u8], base: u64) -> Hits {
        let mut hits = Vec::new();
        // Agreements found last: where they end in old bytes, and whose they are.
        let mut last = [(0, 0); STRETCHES];
        self.each_known(old, |at, number| {
            let First { place, stretch } = self.firsts[number as usize];
            // The rest of a stretch is looked at where this agreement with it ends.
            if last.iter().any(|(end, other)| at < *end && stretch == *other) {
                return;
            }
            let (place, range) = (place as usize, self.left.range(stretch as usize));
            let new = &self.left.bytes;
            let ahead = common_prefix(&new[place..range.end], &old[at..]);
            let start = range.start.max(place.saturating_sub(BEHIND_BYTES_MAX));
            let behind = common_suffix(&new[start..place], &old[..at]);
            let around =
                Around { old: base + at as u64, behind: behind as u32, ahead: ahead as u32 };
            if around.length() >= AGREEMENT_BYTES_MIN {
                hits.push((number, around));
                last.rotate_right(1);
                last[0] = (at + ahead, stretch);
            }
        });
        Hits(hits)
    }

    /// Gives `each` the anchors of old bytes that are known, in order: place and number. Several at a time
    /// are looked up, so that each step fetches what the next one looks at.
    fn each_known(&self, old: &[u8], mut each: impl FnMut(usize, u32)) {
        let (mut maybe, mut known) = (Vec::with_capacity(AT_ONCE), Vec::with_capacity(AT_ONCE));
        let mut look_up = |maybe: &mut Vec<(usize, u64)>| {
            for (at, hash) in maybe.drain(..) {
                if let Ok(number) = self.slot(hash) {
                    prefetch(&self.firsts[number as usize]);
                    known.push((at, number));
                }
            }
            known.drain(..).for_each(|(at, number)| each(at, number));
        };
        self.sampling.anchors(old, 0, old.len()).each(|at| {
            let hash = hash(old, at, self.sampling);
            let (word, bit) = self.filter_bit(hash);
            if self.filter[word] & bit != 0 {
                prefetch(&self.slots[hash as usize & (self.slots.len() - 1)]);
                maybe.push((at, hash));
                if maybe.len() == AT_ONCE {
                    look_up(&mut maybe);
                }
            }
        });
        look_up(&mut maybe);
    }

    /// What was found, by its place in the new image: all that goes on further than what starts before.
    pub(super) fn found(&self, best: &Best) -> Vec<Found> {
        let best = self.spread(best);
        let (mut found, mut anchors) = (Vec::new(), self.anchors.iter().peekable());
        for (number, stretch) in self.left.stretches.iter().enumerate() {
            let range = self.left.range(number);
            let (start, mut reach) = (found.len(), 0);
            while let Some((place, number)) = anchors.next_if(|(at, _)| (*at as usize) < range.end)
            {
                let (place, longest) = (*place as usize, best[*number as usize]);
                let here = stretch.new + (place - range.start) as u64;
                // Only what goes on a good deal further: comparing takes as long as it is.
                let ahead = u64::from(longest.ahead).min((range.end - place) as u64);
                if here + ahead < reach + (ahead / 8).max(AGREEMENT_BYTES_MIN.into()) {
                    continue;
                }
                let around = self.at(place, &range, *number, longest);
                let from = here - u64::from(around.behind);
                let length = u64::from(around.length());
                if around.length() >= AGREEMENT_BYTES_MIN && from + length > reach {
                    reach = from + length;
                    let old = around.old - u64::from(around.behind);
                    found.push(Found { new: from, old, length });
                }
            }
            found[start..].sort_unstable_by_key(|found| (found.new, found.old));
        }
        found
    }

    /// The agreement of an anchor's first place as one of another place of it, within a range.
    fn at(&self, place: usize, range: &Range<usize>, number: u32, best: Around) -> Around {
        let first = self.firsts[number as usize].place as usize;
        let (behind, ahead) = (best.behind as usize, best.ahead as usize);
        let (mut behind, mut ahead) =
            (behind.min(place - range.start), ahead.min(range.end - place));
        if place != first {
            let bytes = &self.left.bytes;
            ahead = common_prefix(&bytes[place..place + ahead], &bytes[first..first + ahead]);
            behind = common_suffix(&bytes[place - behind..place], &bytes[first - behind..first]);
        }
        Around { old: best.old, behind: behind as u32, ahead: ahead as u32 }
    }

    /// Agreements are only looked for where the one before ends: gives each first place the one that
    /// it lies in, if that is longer than its own.
    fn spread(&self, Best(best): &Best) -> Vec<Around> {
        let mut spread = best.clone();
        // The agreement that reaches furthest, by the place and the stretch of its anchor.
        let mut last = (Around::default(), First { place: 0, stretch: 0 });
        for (first, best) in self.firsts.iter().zip(&mut spread) {
            let (around, anchor) = last;
            let distance = first.place - anchor.place;
            let is_inside =
                anchor.stretch == first.stretch && distance + ANCHOR_BYTES <= around.ahead;
            if is_inside && around.length() > best.length() {
                *best = Around {
                    old: around.old + u64::from(distance),
                    behind: around.behind + distance,
                    ahead: around.ahead - distance,
                };
            }
            let reach = first.place + best.ahead;
            if anchor.stretch != first.stretch || reach > anchor.place + around.ahead {
                last = (*best, *first);
            }
        }
        spread
    }
}

impl Best {
    /// Takes note of agreements. Of equally long ones the first is kept.
    pub(super) fn add(&mut self, Hits(hits): Hits) {
        for (number, around) in hits {
            let best = &mut self.0[number as usize];
            if around.length() > best.length() {
                *best = around;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::patchwork::patchworks;
    use super::super::piece::{Part, Piece};

    use super::*;

    /// An index of stretches, each in a place of its own of a new image, and those places.
    fn index(stretches: &[Vec<u8>]) -> (LeftIndex, Vec<u64>) {
        let bytes = stretches.iter().map(|stretch| stretch.len() as u64).sum();
        let mut left = Left::with_capacity(Amount { bytes, anchored: bytes });
        let (mut places, mut place) = (Vec::new(), 1000);
        for bytes in stretches {
            let literal = place..place + bytes.len() as u64;
            left.add(place, std::slice::from_ref(&literal), bytes);
            places.push(place);
            place += bytes.len() as u64 + 77;
        }
        (LeftIndex::of(left, Sampling::of_bytes(1, 16)), places)
    }

    proptest! {
        #[test]
        fn what_is_found_agrees_and_is_the_longest(
            old in prop::collection::vec(any::<u8>(), 200..3000),
            cuts in prop::collection::vec(
                prop::collection::vec((any::<prop::sample::Index>(), 0usize..200), 0..5),
                0..6,
            ),
            units in 1usize..5,
        ) {
            let stretch = |cuts: &Vec<(prop::sample::Index, usize)>| {
                let mut bytes = vec![7; 10];
                for (at, length) in cuts {
                    let start = at.index(old.len());
                    bytes.extend_from_slice(&old[start..(start + length).min(old.len())]);
                    bytes.extend_from_slice(b"between");
                }
                bytes
            };
            let stretches: Vec<Vec<u8>> = cuts.iter().map(stretch).collect();
            let (index, places) = index(&stretches);
            let mut best = index.nothing();
            let unit = old.len().div_ceil(units);
            for (number, bytes) in old.chunks(unit).enumerate() {
                best.add(index.agreements(bytes, (number * unit) as u64));
            }
            let found = index.found(&best);
            prop_assert!(found.is_sorted_by_key(|found| found.new));
            for found in &found {
                let stretch = places.partition_point(|place| *place <= found.new) - 1;
                let at = (found.new - places[stretch]) as usize;
                let new = &stretches[stretch][at..at + found.length as usize];
                prop_assert_eq!(new, &old[found.old as usize..found.old as usize + new.len()]);
            }
            prop_assert!(index.gain(&found) <= index.literal_bytes());
            // Of random bytes half of the places are anchors; where a unit ends, an agreement does.
            let mut pieces: Vec<Range<usize>> = cuts
                .iter()
                .flatten()
                .map(|(at, length)| at.index(old.len())..(at.index(old.len()) + length).min(old.len()))
                .collect();
            pieces.sort_by_key(|range| range.start);
            // What stands twice, be it in short pieces, is found as far as it goes on alike.
            let once = pieces.is_sorted_by(|one, next| one.end <= next.start);
            let long = pieces.iter().map(Range::len).filter(|length| *length > 80);
            let lost = 100 * (units - 1) * long.clone().count();
            let sum: usize = long.sum();
            prop_assert!(!once || index.gain(&found) + lost as u64 >= sum as u64);
        }
    }

    proptest! {
        #[test]
        fn what_is_indexed_lies_around_literals_and_fits(
            lengths in prop::collection::vec(
                prop::collection::vec((0u64..300, 1u64..300), 1..6),
                1..8,
            ),
            memory in 0u64..60_000,
            bits in 1u32..5,
        ) {
            let sampling = Sampling::of_bytes(bits, 16);
            let (mut stretches, mut place) = (Vec::new(), 500);
            for pairs in lengths {
                let (start, mut piece) = (place, Piece::default());
                for (copied, literal) in pairs {
                    piece.add_equal(place, copied);
                    piece.parts.push(Part::LeftOut(literal as usize));
                    place += copied + literal;
                }
                stretches.extend(patchworks(&piece, start));
                place += 1000;
            }
            let mut left = Left::with_capacity(Amount::of(&stretches));
            for stretch in &stretches {
                left.add(stretch.range.start, &stretch.literals, &vec![1; stretch.length() as usize]);
            }
            for (number, stretch) in stretches.iter().enumerate() {
                let base = left.range(number).start as u64;
                let mut expected = vec![false; stretch.length() as usize];
                for literal in &stretch.literals {
                    let from = literal.start.saturating_sub(ANCHORS_BESIDE_BYTES).max(stretch.range.start);
                    let to = (literal.end + ANCHORS_BESIDE_BYTES).min(stretch.range.end);
                    let inside = |place: u64| (place - stretch.range.start) as usize;
                    expected[inside(from)..inside(to)].fill(true);
                }
                let mut found = vec![false; expected.len()];
                let mut before = None;
                for range in left.around_literals(number) {
                    prop_assert!(before.is_none_or(|before| before < range.start), "apart");
                    before = Some(range.end);
                    found[range.start - base as usize..range.end - base as usize].fill(true);
                }
                prop_assert_eq!(found, expected);
            }
            let all = Amount::of(&stretches);
            let (mut fitting, mut taken) = (stretches.clone(), Amount::default());
            fit(&mut fitting, &mut taken, sampling, memory);
            prop_assert!(taken.memory(sampling) <= memory);
            prop_assert_eq!(Amount::of(&fitting).memory(sampling), taken.memory(sampling));
            // What is left out is no more than one of them would need.
            let each = stretches.iter().map(|stretch| Amount::of([stretch]).memory(sampling));
            let (most, enough) = (each.max().unwrap_or(0), all.memory(sampling) <= memory);
            prop_assert!(taken.memory(sampling) + most >= memory.min(all.memory(sampling)));
            prop_assert!(!enough || fitting == stretches);
        }
    }

    #[test]
    fn an_anchor_that_stands_twice_is_found_twice() {
        let text: Vec<u8> = (0..500u32).map(|n| ((n * n) >> 3) as u8).collect();
        // The second has bytes of its own around what it shares with the first.
        let stretches = [text.clone(), [&[1; 40], &text[100..400], &[2; 40]].concat()];
        let (index, places) = index(&stretches);
        let mut best = index.nothing();
        best.add(index.agreements(&text, 5000));
        let found = index.found(&best);
        assert_eq!(found[0], Found { new: places[0], old: 5000, length: 500 });
        assert_eq!(found[1], Found { new: places[1] + 40, old: 5100, length: 300 });
        assert_eq!(index.gain(&found), 800);
    }

    #[test]
    fn of_what_repeats_little_is_listed() {
        let period: Vec<u8> = (0..40u32).map(|n| (n * n * 7) as u8).collect();
        let (new, old) = (period.repeat(50_000), [&[1; 11], &period.repeat(30_000)[..]].concat());
        let (index, _) = index(std::slice::from_ref(&new));
        assert!(index.anchors.len() as u64 <= index.left.amount.anchors(index.sampling));
        let mut best = index.nothing();
        best.add(index.agreements(&old, 0));
        let found = index.found(&best);
        assert!(found.len() < 100, "{} agreements", found.len());
        assert!(index.gain(&found) >= 1_000_000, "{} bytes", index.gain(&found));
    }
}
