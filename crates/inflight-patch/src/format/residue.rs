//! Residue: how the new image differs from what its copies predict, piece by piece.
//!
//! A piece is what one group makes of one unit of the new image. For each piece there are the
//! places of bytes that are not as predicted, and of references that are not; what they really
//! are stands in streams of its own.

use super::wire::put_varint;
use crate::damage::Damage;

/// Places in a piece, as gaps from the end of the one before.
#[derive(Debug, Default, Clone)]
pub(crate) struct GapList {
    count: u64,
    bytes: Vec<u8>,
    next: u64,
}

impl GapList {
    /// Adds a place behind the last one.
    pub(crate) fn push(&mut self, place: u64) {
        put_varint(&mut self.bytes, place - self.next);
        self.next = place + 1;
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends the list to a payload.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.count);
        out.extend_from_slice(&self.bytes);
    }
}

/// Reads lists of places from a payload, one piece after the other. A payload that is not there
/// stands for empty lists.
#[derive(Debug, Clone)]
pub(crate) struct GapLists<'a> {
    rest: &'a [u8],
    missing: bool,
}

impl<'a> GapLists<'a> {
    /// Those behind the first `used` bytes of a payload.
    pub(crate) fn behind(payload: &'a [u8], used: usize) -> GapLists<'a> {
        GapLists { rest: &payload[used..], missing: payload.is_empty() }
    }

    /// The next piece's list: how many places, and their gaps.
    pub(crate) fn next(&mut self) -> Result<(usize, &'a [u8]), Damage> {
        if self.missing {
            return Ok((0, &[]));
        }
        let cut_off = || Damage::new(0, "a list of places is cut off");
        let (count, used) = number(self.rest).ok_or_else(cut_off)?;
        let rest = &self.rest[used..];
        let length = GapLists::skip(rest, count)?;
        self.rest = &rest[length..];
        Ok((count as usize, &rest[..length]))
    }

    /// How many bytes the first `count` numbers take.
    pub(crate) fn skip(bytes: &[u8], count: u64) -> Result<usize, Damage> {
        let mut missing = count;
        let (mut length, mut start) = (0, 0);
        while missing > 0 {
            let Some(byte) = bytes.get(length) else {
                return Err(Damage::new(0, "a list of numbers is cut off"));
            };
            length += 1;
            if length - start > 10 {
                return Err(Damage::new(0, "a list has a number that is none"));
            }
            if *byte < 0x80 {
                missing -= 1;
                start = length;
            }
        }
        Ok(length)
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

/// The number at the start, and how many bytes it takes.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Walks through a piece's places.
#[derive(Debug, Clone)]
pub(crate) struct Places<'a> {
    gaps: &'a [u8],
    next: Option<u64>,
}

impl<'a> Places<'a> {
    pub(crate) fn new(gaps: &'a [u8]) -> Places<'a> {
        let mut places = Places { gaps, next: Some(0) };
        places.advance(0);
        places
    }

    fn advance(&mut self, from: u64) {
        self.next = number(self.gaps).and_then(|(gap, used)| {
            self.gaps = &self.gaps[used..];
            from.checked_add(gap)
        });
    }

    /// Whether the next place is this one; then it is passed.
    pub(crate) fn take(&mut self, place: u64) -> bool {
        match self.next == Some(place) {
            true => {
                self.advance(place.saturating_add(1));
                true
            }
            false => false,
        }
    }

    /// The next place below `end`; it is passed.
    pub(crate) fn take_below(&mut self, end: u64) -> Option<u64> {
        let place = self.next.filter(|place| *place < end)?;
        self.advance(place + 1);
        Some(place)
    }

    /// Whether all were passed.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_round_trip(
            lists in prop::collection::vec(prop::collection::btree_set(0u64..1 << 40, 0..20), 0..6),
        ) {
            let mut payload = Vec::new();
            for list in &lists {
                let mut gaps = GapList::default();
                list.iter().for_each(|place| gaps.push(*place));
                gaps.put(&mut payload);
            }
            let mut read = GapLists::behind(&payload, 0);
            for list in &lists {
                let (count, gaps) = read.next().unwrap();
                prop_assert_eq!(count, list.len());
                let mut places = Places::new(gaps);
                for place in list {
                    prop_assert!(!places.take(place.wrapping_sub(1)));
                    prop_assert_eq!(places.clone().take_below(*place), None);
                    prop_assert!(places.take(*place));
                }
                prop_assert!(places.is_done());
            }
            prop_assert_eq!(read.left(), 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut lists = GapLists::behind(&bytes, 0);
            for _ in 0..10 {
                let Ok((_, gaps)) = lists.next() else { break };
                let mut places = Places::new(gaps);
                while places.take_below(u64::MAX).is_some() {}
            }
        }
    }
}
