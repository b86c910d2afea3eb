//! A binary tree of places for each hash, as in LZMA.
//!
//! The idea is that of Igor Pavlov's match finders: those that share a hash stand in a tree, sorted
//! by what comes behind them, with the latest as its root. On the way down all longer and longer
//! repeats are met, of each length the nearest.

use super::{Find, Found, LONG_ENOUGH, Latest, common, four_at, hash};

/// The most steps down a tree.
pub(super) const DEPTH_MAX: usize = 48;

/// The most positions whose trees are kept, eight bytes for each: it is from there on that repeats of
/// four bytes and more are found.
pub(super) const WINDOW_MAX: usize = 8 << 20;

/// Bits of the hashes of three and four bytes, at most.
const HASH_BITS_MAX: u32 = 20;

/// Finds the longest repeats, each from as near as there is one.
#[derive(Debug)]
pub(crate) struct Trees<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Each pair of bytes, and by hashes of three.
    pairs: Latest,
    threes: Latest,
    /// The roots of the trees, by hashes of four.
    roots: Latest,
    /// What is below each position of the window: what is less, and what is more. A position's place
    /// is its lowest bits.
    below: Vec<[u32; 2]>,
}

impl<'a> Find<'a> for Trees<'a> {
    fn new(bytes: &'a [u8]) -> Trees<'a> {
        Trees::with_window(bytes, WINDOW_MAX)
    }

    fn step(&mut self, mut found: Option<&mut Found>) {
        let position = self.position;
        self.position += 1;
        let Some(four) = four_at(self.bytes, position) else { return };
        let pair = self.pairs.replace(four << 16, position);
        let three = self.threes.replace(hash(four << 8), position);
        let root = self.roots.replace(hash(four), position);
        let limit = (self.bytes.len() - position).min(LONG_ENOUGH);
        if let Some(found) = &mut found {
            for place in [pair, three].into_iter().flatten() {
                let length = common(&self.bytes[place..], &self.bytes[position..], 0, limit);
                found.push(length, position - place);
            }
        }
        self.descend(position, root, limit, found);
    }
}

impl<'a> Trees<'a> {
    pub(super) fn with_window(bytes: &'a [u8], window_max: usize) -> Trees<'a> {
        let bits = bytes.len().max(2).ilog2().clamp(8, HASH_BITS_MAX);
        Trees {
            bytes,
            position: 0,
            pairs: Latest::new(16),
            threes: Latest::new(bits),
            roots: Latest::new(bits),
            below: vec![[0; 2]; bytes.len().clamp(1, window_max).next_power_of_two()],
        }
    }

    /// Makes a position the root of a tree, and splits what was there into what is less than the
    /// bytes behind it and what is more.
    fn descend(
        &mut self,
        position: usize,
        root: Option<usize>,
        limit: usize,
        mut found: Option<&mut Found>,
    ) {
        let mut root = root.map_or(0, |place| place as u32 + 1);
        let window = self.below.len();
        let slot = |position: usize| position & (window - 1);
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
            if let Some(found) = &mut found {
                found.push(length, position - place);
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
