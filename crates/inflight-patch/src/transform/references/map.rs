//! Where what a reference pointed to is now: the alignment of old and new, asked by old spot.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rayon::prelude::*;

use super::space::{OldExecutable, Space};
use crate::prefetch::prefetch;

/// Spots in one bucket of the map.
const BUCKET_BITS: u32 = 10;

/// The most pieces of a map: what comes behind them is not followed.
const PIECES_MAX: usize = 1 << 22;

/// The most pieces that a bucket lists, the longest.
const BUCKET_PIECES_MAX: usize = 8;

/// A copy, or a part of one, from an old executable into the new one, in bytes of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// The number of the old executable.
    pub(crate) space: u32,
    pub(crate) old: u32,
    pub(crate) new: u32,
    pub(crate) length: u32,
}

/// An alignment in spots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    old: u32,
    new: u32,
    length: u32,
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
pub(super) struct SpaceMap {
    /// Sorted by old spot.
    pieces: Vec<Piece>,
    buckets: Vec<Bucket>,
    /// For each bucket of pieces, where in `lists` the others are that do; one more at the end.
    heads: Vec<u32>,
    lists: Vec<u32>,
    /// For each bucket, the first piece that starts in it or behind.
    firsts: Vec<u32>,
    /// Targets whose place was told.
    told: HashMap<u32, u32, SpotHash>,
}

/// What nearly always answers for the spots of a bucket, in one place.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// A bit for each 16 spots in which there are any whose place was told.
    told_near: u64,
    /// The longest piece that reaches into it; of no length where there is none.
    longest: Piece,
}

impl Bucket {
    const EMPTY: Bucket = Bucket { told_near: 0, longest: Piece { old: 0, new: 0, length: 0 } };
}

/// The bucket that a target is told in, and its bit there.
fn near(target: u32) -> (usize, u64) {
    ((target >> BUCKET_BITS) as usize, 1 << (target >> (BUCKET_BITS - 6) & 63))
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

/// Follows references from old executables into a new one.
#[derive(Debug, Default)]
pub(crate) struct SpotMap {
    /// By the number of the executable, in order: only those of which anything is known.
    spaces: Vec<(u32, SpaceMap)>,
}

impl SpotMap {
    /// A map made of copies.
    pub(crate) fn new(
        old: &[OldExecutable],
        new: &Space,
        copies: impl Iterator<Item = Alignment>,
    ) -> SpotMap {
        let mut map = SpotMap::default();
        let mut pieces = 0;
        // Most copies start in the region that the one before starts in.
        let (mut near_old, mut near_new) = (0, 0);
        'all: for copy in copies {
            let space = &old[copy.space as usize].space;
            for (region, range) in space.cut_near(copy.old..copy.old + copy.length, &mut near_old) {
                let from = copy.new + (range.start - copy.old);
                let to = copy.new + (range.end - copy.old);
                for (new_region, inside) in new.cut_near(from..to, &mut near_new) {
                    pieces += 1;
                    if pieces > PIECES_MAX {
                        break 'all;
                    }
                    let shift = inside.start - from;
                    map.space(copy.space).pieces.push(Piece {
                        old: region.spot + (range.start - region.start) + shift,
                        new: new_region.spot + (inside.start - new_region.start),
                        length: inside.end - inside.start,
                    });
                }
            }
        }
        for (_, space) in &mut map.spaces {
            space.arrange();
        }
        map
    }

    /// Tells where a target is, in place of what the copies say.
    pub(crate) fn tell(&mut self, space: u32, target: u32, place: u32) {
        let space = self.space(space);
        space.told.insert(target, place);
        let (bucket, bit) = near(target);
        if bucket >= space.buckets.len() {
            space.buckets.resize(bucket + 1, Bucket::EMPTY);
        }
        space.buckets[bucket].told_near |= bit;
    }

    /// The new spot of an old target: where it was told to be, else where the longest copy has it,
    /// else where the nearest copy would.
    #[inline]
    pub(crate) fn follow(&self, space: u32, target: u32) -> Option<u32> {
        self.of(space)?.follow(target)
    }

    /// What is known about one old executable, if anything is.
    #[inline]
    pub(super) fn of(&self, space: u32) -> Option<&SpaceMap> {
        let place = self.spaces.binary_search_by_key(&space, |(number, _)| *number).ok()?;
        Some(&self.spaces[place].1)
    }

    fn space(&mut self, space: u32) -> &mut SpaceMap {
        let place = self.spaces.binary_search_by_key(&space, |(number, _)| *number);
        let place = place.unwrap_or_else(|place| {
            self.spaces.insert(place, (space, SpaceMap::default()));
            place
        });
        &mut self.spaces[place].1
    }
}

impl SpaceMap {
    fn arrange(&mut self) {
        self.pieces.par_sort_unstable_by_key(|piece| (piece.old, piece.new, piece.length));
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
        let mut lists = vec![0; counts[buckets] as usize];
        let mut next = counts.clone();
        for (number, piece) in self.pieces.iter().enumerate() {
            for bucket in range(piece) {
                lists[next[bucket] as usize] = number as u32;
                next[bucket] += 1;
            }
        }
        // However many copies somebody makes of the same bytes, a look-up takes a bounded time.
        self.heads = vec![0; buckets + 1];
        self.buckets = vec![Bucket::EMPTY; buckets];
        for bucket in 0..buckets {
            let list = &mut lists[counts[bucket] as usize..counts[bucket + 1] as usize];
            list.sort_unstable_by_key(|number| {
                (std::cmp::Reverse(self.pieces[*number as usize].length), *number)
            });
            let mut list = list.iter().take(BUCKET_PIECES_MAX);
            if let Some(longest) = list.next() {
                self.buckets[bucket].longest = self.pieces[*longest as usize];
            }
            self.lists.extend(list);
            self.heads[bucket + 1] = self.lists.len() as u32;
        }
    }

    /// Has what answers for a target fetched, which will be asked for soon.
    #[inline]
    pub(super) fn prepare(&self, target: u32) {
        if let Some(bucket) = self.buckets.get(near(target).0) {
            prefetch(bucket);
        }
    }

    /// As [`SpotMap::follow`], in this executable.
    #[inline]
    pub(super) fn follow(&self, target: u32) -> Option<u32> {
        let (number, bit) = near(target);
        if let Some(bucket) = self.buckets.get(number) {
            if bucket.told_near & bit != 0
                && let Some(place) = self.told.get(&target)
            {
                return Some(*place);
            }
            if bucket.longest.covers(target) {
                return Some(bucket.longest.follow(target));
            }
        }
        if let Some([from, to]) = self.heads.get(number..number + 2) {
            let list = &self.lists[*from as usize..*to as usize];
            let mut pieces = list.iter().map(|number| &self.pieces[*number as usize]);
            // Longer ones come first.
            if let Some(piece) = pieces.find(|piece| piece.covers(target)) {
                return Some(piece.follow(target));
            }
        }
        self.nearest(target).map(|piece| piece.follow(target))
    }

    fn nearest(&self, target: u32) -> Option<&Piece> {
        let bucket = ((target >> BUCKET_BITS) as usize).min(self.firsts.len().checked_sub(1)?);
        let first = self.firsts[bucket] as usize;
        let last = self.firsts.get(bucket + 1).map_or(self.pieces.len(), |last| *last as usize);
        let behind = first + self.pieces[first..last].partition_point(|piece| piece.old <= target);
        let before = behind.checked_sub(1).map(|place| &self.pieces[place]);
        let candidates = before.into_iter().chain(self.pieces.get(behind));
        candidates.min_by_key(|piece| piece.distance(target))
    }
}

#[cfg(test)]
mod tests {
    use super::super::space::{Region, RegionKind};
    use super::*;

    /// A space of one region, whose spots are places plus 1000.
    fn space(length: u32) -> Space {
        let kind = RegionKind::Plain;
        let region = Region { kind, start: 0, length, spot: 1000, link: 0 };
        Space { regions: vec![region], base: 0, loaded: length + 1000, code: 0..0 }
    }

    fn map(copies: &[(u32, u32, u32)]) -> SpotMap {
        let copies: Vec<Alignment> = copies
            .iter()
            .map(|(old, new, length)| Alignment { space: 0, old: *old, new: *new, length: *length })
            .collect();
        let old = [OldExecutable { start: 0, space: space(1 << 20) }];
        SpotMap::new(&old, &space(1 << 20), copies.into_iter())
    }

    #[test]
    fn targets_are_followed_told_longest_nearest() {
        let mut map = map(&[(0, 5000, 100), (50, 9000, 500), (3000, 100, 10)]);
        assert_eq!(map.follow(0, 1000 + 10), Some(1000 + 5010), "covered once");
        assert_eq!(map.follow(0, 1000 + 60), Some(1000 + 9010), "the longer of two");
        assert_eq!(map.follow(0, 1000 + 600), Some(1000 + 9550), "near the end of one");
        assert_eq!(map.follow(0, 1000 + 2990), Some(1000 + 90), "near the start of one");
        assert_eq!(map.follow(0, 1 << 19), Some((1 << 19) - 2900), "far behind all");
        map.tell(0, 1000 + 60, 77);
        assert_eq!(map.follow(0, 1000 + 60), Some(77));
        let nothing = SpotMap::new(
            &[OldExecutable { start: 0, space: space(9) }],
            &space(9),
            std::iter::empty(),
        );
        assert_eq!(nothing.follow(0, 5), None);
    }

    #[test]
    fn many_copies_of_the_same_bytes_are_looked_up_in_bounded_time() {
        let copies: Vec<(u32, u32, u32)> = (0..5000).map(|n| (n % 7, 7 * n, 7)).collect();
        let map = map(&copies);
        let space = &map.spaces[0].1;
        assert!(space.lists.len() <= BUCKET_PIECES_MAX * space.heads.len());
        assert!(map.follow(0, 1003).is_some());
    }
}
