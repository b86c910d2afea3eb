//! Where what a reference pointed to is now: the alignment of old and new, asked by old spot.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::space::{OldExecutable, Space};

/// Spots in one bucket of the map.
const BUCKET_BITS: u32 = 10;

/// A copy, or a part of one, from an old executable into the new one, in bytes of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// The number of the old executable.
    pub(crate) space: u32,
    /// The number of the copy.
    pub(crate) copy: u32,
    pub(crate) old: u32,
    pub(crate) new: u32,
    pub(crate) length: u32,
}

/// The number of no copy.
pub(crate) const NO_COPY: u32 = u32::MAX - 1;

/// An alignment in spots. Pieces of one copy have the same number.
#[derive(Debug, Clone, Copy)]
struct Piece {
    old: u32,
    new: u32,
    length: u32,
    copy: u32,
}

impl Piece {
    fn covers(&self, spot: u32) -> bool {
        spot.wrapping_sub(self.old) < self.length
    }

    fn follow(&self, spot: u32) -> u32 {
        self.new.wrapping_add(spot.wrapping_sub(self.old))
    }

    /// How far `spot` is from the piece.
    fn distance(&self, spot: u32) -> u32 {
        match spot < self.old {
            true => self.old - spot,
            false => spot - self.old - (self.length - 1).min(spot - self.old),
        }
    }
}

/// What is known about one old executable.
#[derive(Debug, Default)]
struct SpaceMap {
    /// Sorted by old spot.
    pieces: Vec<Piece>,
    /// For each bucket, where in `lists` the pieces are that reach into it; one more at the end.
    heads: Vec<u32>,
    lists: Vec<u32>,
    /// For each bucket, the first piece that starts in it or behind.
    firsts: Vec<u32>,
    /// Targets whose place was told.
    told: HashMap<u32, u32, SpotHash>,
}

/// Hashes spots: they are no secret, and there are millions of look-ups.
pub(crate) type SpotHash = BuildHasherDefault<SpotHasher>;

#[derive(Debug, Default)]
pub(crate) struct SpotHasher(u64);

impl Hasher for SpotHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Where a target is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) spot: u32,
    /// Whether the copy that the reference is in moved it along.
    pub(crate) along: bool,
}

/// Follows references from old executables into a new one.
#[derive(Debug, Default)]
pub(crate) struct SpotMap {
    spaces: Vec<SpaceMap>,
}

impl SpotMap {
    /// A map made of copies.
    pub(crate) fn new(old: &[OldExecutable], new: &Space, copies: &[Alignment]) -> SpotMap {
        let mut spaces: Vec<SpaceMap> = Vec::new();
        spaces.resize_with(old.len(), SpaceMap::default);
        for copy in copies {
            let space = &old[copy.space as usize].space;
            for (region, range) in space.cut(copy.old..copy.old + copy.length) {
                let from = copy.new + (range.start - copy.old);
                let to = copy.new + (range.end - copy.old);
                for (new_region, inside) in new.cut(from..to) {
                    let shift = inside.start - from;
                    spaces[copy.space as usize].pieces.push(Piece {
                        old: region.spot + (range.start - region.start) + shift,
                        new: new_region.spot + (inside.start - new_region.start),
                        length: inside.end - inside.start,
                        copy: copy.copy,
                    });
                }
            }
        }
        for space in &mut spaces {
            space.arrange();
        }
        SpotMap { spaces }
    }

    /// Tells where a target is, in place of what the copies say.
    pub(crate) fn tell(&mut self, space: u32, target: u32, place: u32) {
        self.spaces[space as usize].told.insert(target, place);
    }

    /// The new spot of an old target, seen from a copy: what that copy moved goes first, then what
    /// was told, then the longest copy, then the nearest one.
    #[inline]
    pub(crate) fn follow(&self, space: u32, target: u32, copy: u32) -> Option<Followed> {
        self.spaces[space as usize].follow(target, copy)
    }
}

impl SpaceMap {
    fn arrange(&mut self) {
        self.pieces.sort_by_key(|piece| (piece.old, piece.new));
        let Some(end) = self.pieces.iter().map(|piece| piece.old + piece.length).max() else {
            return;
        };
        let buckets = (end >> BUCKET_BITS) as usize + 1;
        let range = |piece: &Piece| {
            let last = piece.old + (piece.length - 1);
            (piece.old >> BUCKET_BITS) as usize..=(last >> BUCKET_BITS) as usize
        };
        let mut counts = vec![0u32; buckets + 1];
        self.firsts = vec![0; buckets + 1];
        for piece in &self.pieces {
            for bucket in range(piece) {
                counts[bucket + 1] += 1;
            }
            self.firsts[(piece.old >> BUCKET_BITS) as usize + 1] += 1;
        }
        for bucket in 0..buckets {
            counts[bucket + 1] += counts[bucket];
            self.firsts[bucket + 1] += self.firsts[bucket];
        }
        self.lists = vec![0; counts[buckets] as usize];
        let mut next = counts.clone();
        for (number, piece) in self.pieces.iter().enumerate() {
            for bucket in range(piece) {
                self.lists[next[bucket] as usize] = number as u32;
                next[bucket] += 1;
            }
        }
        self.heads = counts;
    }

    fn follow(&self, target: u32, copy: u32) -> Option<Followed> {
        let bucket = (target >> BUCKET_BITS) as usize;
        let mut longest: Option<&Piece> = None;
        if bucket + 1 < self.heads.len() {
            let list = &self.lists[self.heads[bucket] as usize..self.heads[bucket + 1] as usize];
            for number in list {
                let piece = &self.pieces[*number as usize];
                if !piece.covers(target) {
                    continue;
                }
                if piece.copy == copy {
                    return Some(Followed { spot: piece.follow(target), along: true });
                }
                if longest.is_none_or(|other| piece.length > other.length) {
                    longest = Some(piece);
                }
            }
        }
        let found = |spot| Followed { spot, along: false };
        if let Some(place) = self.told.get(&target) {
            return Some(found(*place));
        }
        longest.or_else(|| self.nearest(target)).map(|piece| found(piece.follow(target)))
    }

    fn nearest(&self, target: u32) -> Option<&Piece> {
        if self.pieces.is_empty() {
            return None;
        }
        let bucket = ((target >> BUCKET_BITS) as usize).min(self.firsts.len() - 1);
        let first = self.firsts[bucket] as usize;
        let behind =
            first + self.pieces[first..].iter().take_while(|piece| piece.old <= target).count();
        let before = behind.checked_sub(1).map(|place| &self.pieces[place]);
        let candidates = before.into_iter().chain(self.pieces.get(behind));
        candidates.min_by_key(|piece| piece.distance(target))
    }
}
