//! Where bytes were before: two ways, for two amounts of time.

mod buckets;
mod trees;

pub(super) use buckets::Buckets;
pub(super) use trees::Trees;

/// Repeats of so many bytes are long enough to be taken without a look at others.
pub(super) const LONG_ENOUGH: usize = 64;

/// A repeat that starts at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) length: usize,
    pub(super) distance: u32,
}

impl Repeat {
    const NONE: Repeat = Repeat { length: 0, distance: 0 };
}

/// The repeats that start at a position, each longer and from farther than the one before.
#[derive(Debug)]
pub(super) struct Found {
    /// Fewer than there is room for: each is longer than the one before.
    repeats: [Repeat; LONG_ENOUGH],
    count: usize,
    longest: usize,
}

impl Found {
    pub(super) const NONE: Found =
        Found { repeats: [Repeat::NONE; LONG_ENOUGH], count: 0, longest: 1 };

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Repeat> {
        self.repeats[..self.count].iter()
    }

    fn clear(&mut self) {
        (self.count, self.longest) = (0, 1);
    }

    /// Adds a repeat if it is longer than all before.
    #[inline(always)]
    fn push(&mut self, length: usize, distance: usize) {
        // No branch: nobody can foresee which are.
        self.repeats[self.count % LONG_ENOUGH] = Repeat { length, distance: distance as u32 };
        self.count += usize::from(length > self.longest);
        self.longest = self.longest.max(length);
    }
}

/// Finds repeats of up to [`LONG_ENOUGH`] bytes, position by position.
pub(super) trait Find<'a> {
    fn new(bytes: &'a [u8]) -> Self;

    /// One position on. Adds the repeats that start there, if somebody asks for them.
    fn step(&mut self, found: Option<&mut Found>);

    /// The repeats that start at the next position.
    fn next(&mut self, found: &mut Found) {
        found.clear();
        self.step(Some(found));
    }

    /// Steps over positions whose repeats nobody asks for.
    fn skip(&mut self, count: usize) {
        (0..count).for_each(|_| self.step(None));
    }
}

/// The latest place of each hash, plus one.
#[derive(Debug)]
struct Latest {
    places: Vec<u32>,
    bits: u32,
}

impl Latest {
    fn new(bits: u32) -> Latest {
        Latest { places: vec![0; 1 << bits], bits }
    }

    /// The latest place with this hash, if there is one; `position` is the latest now.
    #[inline(always)]
    fn replace(&mut self, hash: u32, position: usize) -> Option<usize> {
        let latest = &mut self.places[(hash >> (32 - self.bits)) as usize];
        (std::mem::replace(latest, position as u32 + 1) as usize).checked_sub(1)
    }
}

#[inline(always)]
fn hash(value: u32) -> u32 {
    value.wrapping_mul(0x9e37_79b1)
}

/// The four bytes at a position, if there are as many.
#[inline(always)]
fn four_at(bytes: &[u8], position: usize) -> Option<u32> {
    bytes.get(position..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// How many bytes are the same, up to a limit, of which so many are known to be.
#[inline(always)]
pub(super) fn common(one: &[u8], two: &[u8], known: usize, limit: usize) -> usize {
    let mut length = known;
    let (one, two) = (&one[..limit], &two[..limit]);
    while let (Some(one), Some(two)) =
        (one[length..].first_chunk::<8>(), two[length..].first_chunk::<8>())
    {
        let differ = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*two);
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

    /// What is found is the same, and the longest is found where that is promised: within so many bytes.
    fn check<'a>(
        mut find: impl Find<'a>,
        bytes: &'a [u8],
        skips: &[usize],
        window: usize,
        few: usize,
        has_pairs: bool,
    ) -> Result<(), TestCaseError> {
        let bits = bytes.len().max(2).ilog2().clamp(8, 16);
        let (mut found, mut position) = (Found::NONE, 0);
        for skip in skips {
            find.skip(*skip);
            position += skip;
            find.next(&mut found);
            if position + 4 > bytes.len() {
                prop_assert_eq!(found.iter().len(), 0);
                break;
            }
            let limit = (bytes.len() - position).min(LONG_ENOUGH);
            let at = |place: usize| common(&bytes[place..], &bytes[position..], 0, limit);
            let (mut longest, mut farthest) = (1, 0);
            for Repeat { length, distance } in found.iter() {
                prop_assert!(*length > longest && *distance > farthest);
                (longest, farthest) = (*length, *distance);
                prop_assert_eq!(at(position - *distance as usize), *length);
            }
            let first = position.saturating_sub(window - 1);
            let best = (first..position).map(at).max().unwrap_or(0);
            prop_assert!(position >= few || longest >= best || best <= 3, "{longest} of {best}");
            // Three bytes may share a hash with others, whose latest place is the one that is kept.
            let hashed = |place: usize| hash(four_at(bytes, place).expect("there are") << 8);
            let latest = (0..position)
                .rev()
                .find(|place| hashed(*place) >> (32 - bits) == hashed(position) >> (32 - bits));
            prop_assert!(longest >= latest.map_or(0, at).min(3), "{longest} of {latest:?}");
            prop_assert!(!has_pairs || longest >= (0..position).map(at).max().unwrap_or(0).min(2));
            position += 1;
        }
        Ok(())
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(0u8..3, 0..trees::DEPTH_MAX),
            prop::collection::vec(0u8..2, 0..600),
            (1usize..9, 100usize..600).prop_map(|(period, length)| {
                (0..length).map(|place| (place % period) as u8).collect()
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_trees_find_is_the_same_and_the_longest_is_found(
            bytes in bytes(),
            skips in prop::collection::vec(0usize..4, 30),
            window in prop_oneof![Just(8), Just(trees::WINDOW_MAX)],
        ) {
            // A tree has no more steps than there are bytes, if they are few.
            let trees = Trees::with_window(&bytes, window);
            check(trees, &bytes, &skips, window, trees::DEPTH_MAX, true)?;
        }

        #[test]
        fn what_buckets_find_is_the_same_and_the_longest_is_found(
            bytes in bytes(),
            skips in prop::collection::vec(0usize..4, 30),
        ) {
            // Nothing is forgotten yet, if they are few.
            check(Buckets::new(&bytes), &bytes, &skips, usize::MAX, buckets::PLACES, false)?;
        }
    }

    #[test]
    fn what_agrees_is_counted_to_the_limit() {
        let one: Vec<u8> = (0..40).collect();
        for differs in 0..40 {
            let mut two = one.clone();
            two[differs] ^= 1;
            for limit in 0..=40 {
                for known in 0..=differs.min(limit) {
                    assert_eq!(common(&one, &two, known, limit), differs.min(limit));
                }
            }
        }
    }
}
