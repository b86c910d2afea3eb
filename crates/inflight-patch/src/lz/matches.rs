//! Where bytes were before: a binary tree for each hash, as in LZMA.
//!
//! The idea is that of Igor Pavlov's match finders: those that share a hash stand in a tree, sorted
//! by what comes behind them, with the latest as its root. On the way down all longer and longer
//! repeats are met, of each length the nearest.

/// Repeats of so many bytes are long enough to be taken without a look at others.
pub(super) const LONG_ENOUGH: usize = 64;

/// The most steps down a tree.
const DEPTH_MAX: usize = 48;

/// The most positions whose trees are kept, eight bytes for each: it is from there on that repeats of
/// four bytes and more are found.
const WINDOW_MAX: usize = 8 << 20;

/// Bits of the hashes of three and four bytes, at most.
const HASH_BITS_MAX: u32 = 20;

/// A repeat that starts at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) length: usize,
    pub(super) distance: u32,
}

/// Finds repeats, position by position.
#[derive(Debug)]
pub(super) struct Matches<'a> {
    bytes: &'a [u8],
    position: usize,
    bits: u32,
    /// The last position, plus one, of each pair of bytes and of each hash of three.
    pairs: Vec<u32>,
    threes: Vec<u32>,
    /// The root, plus one, of the tree of each hash of four.
    roots: Vec<u32>,
    /// What is below each position of the window: what is less, and what is more. A position's place
    /// is its lowest bits.
    below: Vec<[u32; 2]>,
}

impl<'a> Matches<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Matches<'a> {
        Matches::with_window(bytes, WINDOW_MAX)
    }

    fn with_window(bytes: &'a [u8], window_max: usize) -> Matches<'a> {
        let bits = bytes.len().max(2).ilog2().clamp(8, HASH_BITS_MAX);
        Matches {
            bytes,
            position: 0,
            bits,
            pairs: vec![0; 1 << 16],
            threes: vec![0; 1 << bits],
            roots: vec![0; 1 << bits],
            below: vec![[0; 2]; bytes.len().clamp(1, window_max).next_power_of_two()],
        }
    }

    /// The repeats that start at the next position, each longer and from farther than the one
    /// before.
    pub(super) fn next(&mut self, found: &mut Vec<Repeat>) {
        found.clear();
        self.step(Some(found));
    }

    /// Steps over positions whose repeats nobody asks for.
    pub(super) fn skip(&mut self, count: usize) {
        (0..count).for_each(|_| self.step(None));
    }

    fn step(&mut self, mut found: Option<&mut Vec<Repeat>>) {
        let position = self.position;
        self.position += 1;
        let Some(four) = self.bytes.get(position..position + 4) else { return };
        let four = u32::from_le_bytes(four.try_into().expect("4 bytes"));
        let now = position as u32 + 1;
        let hash = |value: u32| (value.wrapping_mul(0x9e37_79b1) >> (32 - self.bits)) as usize;
        let pair = std::mem::replace(&mut self.pairs[(four & 0xffff) as usize], now);
        let three = std::mem::replace(&mut self.threes[hash(four << 8)], now);
        let root = std::mem::replace(&mut self.roots[hash(four)], now);
        let limit = (self.bytes.len() - position).min(LONG_ENOUGH);
        if let Some(found) = &mut found {
            for latest in [pair, three] {
                let longest = found.last().map_or(1, |repeat| repeat.length);
                let Some(place) = (latest as usize).checked_sub(1) else { continue };
                let length = common(&self.bytes[place..], &self.bytes[position..], 0, limit);
                if length > longest {
                    found.push(Repeat { length, distance: (position - place) as u32 });
                }
            }
        }
        self.descend(position, root, limit, found);
    }

    /// Makes a position the root of a tree, and splits what was there into what is less than the
    /// bytes behind it and what is more.
    fn descend(
        &mut self,
        position: usize,
        mut root: u32,
        limit: usize,
        mut found: Option<&mut Vec<Repeat>>,
    ) {
        let window = self.below.len();
        let slot = |position: usize| position & (window - 1);
        let mut longest =
            found.as_ref().and_then(|found| found.last()).map_or(1, |last| last.length);
        // Where the next one that is less goes, and the next one that is more; and how much all
        // that follow there have in common with the position.
        let (mut less, mut more) = ((slot(position), 0), (slot(position), 1));
        let (mut in_less, mut in_more) = (0, 0);
        for _ in 0..DEPTH_MAX {
            let Some(place) = (root as usize).checked_sub(1) else { break };
            if position - place >= window {
                break;
            }
            let [below, above] = self.below[slot(place)];
            let (here, there) = (&self.bytes[position..], &self.bytes[place..]);
            let length = common(there, here, in_less.min(in_more), limit);
            if length > longest {
                longest = length;
                if let Some(found) = &mut found {
                    found.push(Repeat { length, distance: (position - place) as u32 });
                }
            }
            if length == limit {
                // As good as the same: it takes that one's place.
                self.below[less.0][less.1] = below;
                self.below[more.0][more.1] = above;
                return;
            }
            if there[length] < here[length] {
                self.below[less.0][less.1] = root;
                less = (slot(place), 1);
                (root, in_less) = (above, length);
            } else {
                self.below[more.0][more.1] = root;
                more = (slot(place), 0);
                (root, in_more) = (below, length);
            }
        }
        self.below[less.0][less.1] = 0;
        self.below[more.0][more.1] = 0;
    }
}

/// How many bytes are the same, up to a limit, of which so many are known to be.
#[inline(always)]
pub(super) fn common(one: &[u8], two: &[u8], known: usize, limit: usize) -> usize {
    let mut length = known;
    while length + 8 <= limit {
        let word = |bytes: &[u8]| {
            u64::from_le_bytes(bytes[length..length + 8].try_into().expect("8 bytes"))
        };
        let differ = word(one) ^ word(two);
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    while length < limit && one[length] == two[length] {
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_found_is_the_same_and_the_longest_is_found(
            bytes in prop_oneof![
                prop::collection::vec(0u8..3, 0..DEPTH_MAX),
                prop::collection::vec(0u8..2, 0..600),
                (1usize..9, 100usize..600).prop_map(|(period, length)| {
                    (0..length).map(|place| (place % period) as u8).collect()
                }),
            ],
            skips in prop::collection::vec(0usize..4, 30),
            window in prop_oneof![Just(8), Just(WINDOW_MAX)],
        ) {
            let mut matches = Matches::with_window(&bytes, window);
            let (mut found, mut position) = (Vec::new(), 0);
            for skip in skips {
                matches.skip(skip);
                position += skip;
                matches.next(&mut found);
                if position + 4 > bytes.len() {
                    prop_assert!(found.is_empty());
                    break;
                }
                let limit = (bytes.len() - position).min(LONG_ENOUGH);
                let at = |place: usize| common(&bytes[place..], &bytes[position..], 0, limit);
                let mut longest = 1;
                for Repeat { length, distance } in &found {
                    prop_assert!(*length > longest);
                    longest = *length;
                    prop_assert_eq!(at(position - *distance as usize), *length);
                }
                // A tree has no more steps than there are bytes, if they are few.
                let first = position.saturating_sub(window - 1);
                let best = (first..position).map(at).max().unwrap_or(0).max(1);
                // Three bytes may share a hash with others that came later.
                let is_few = bytes.len() < DEPTH_MAX;
                prop_assert!(!is_few || longest >= best || (longest, best) == (2, 3), "{longest} of {best}");
                position += 1;
            }
        }
    }
}
