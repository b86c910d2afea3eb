//! Stretches of a piece that are made of literals and short copies, and how they are made anew once
//! longer agreements are known.

use std::ops::Range;

use super::piece::{Part, Piece};
use crate::error::Result;
use crate::format::Instruction;

/// A copy so long ends a stretch.
const COPY_BYTES: u64 = 16 << 10;
/// Literals so long in all make a stretch worth a search.
const LITERAL_BYTES_MIN: u64 = 32;
/// Copies of a stretch that is matched again for their sake.
const MIXED_COPIES_MIN: usize = 8;
/// Bytes of literals that are as much in a patch as a copy, about.
const COPY_COST: u64 = 6;
/// A part of a copy so short is no better than a literal.
const COPY_BYTES_MIN: u64 = 24;

/// A stretch of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patchwork {
    parts: Range<usize>,
    /// Where in the new image it is.
    pub(super) range: Range<u64>,
    /// Where in it its literals are.
    pub(super) literals: Vec<Range<u64>>,
}

/// An agreement between the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) new: u64,
    pub(super) old: u64,
    pub(super) length: u64,
}

impl Found {
    pub(super) fn end(&self) -> u64 {
        self.new + self.length
    }
}

impl Patchwork {
    pub(super) fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether it has so many copies that they were probably found among much that is alike.
    pub(super) fn is_mixed(&self) -> bool {
        self.parts.len() - self.literals.len() >= MIXED_COPIES_MIN
    }

    /// Leaves out what is behind its first bytes.
    pub(super) fn truncate(&mut self, bytes: u64) {
        self.range.end = self.range.end.min(self.range.start.saturating_add(bytes));
        let end = self.range.end;
        self.literals.retain(|literal| literal.start < end);
        if let Some(last) = self.literals.last_mut() {
            last.end = last.end.min(end);
        }
    }

    /// Bytes of its literals.
    pub(super) fn literal_bytes(&self) -> u64 {
        self.literals.iter().map(|range| range.end - range.start).sum()
    }
}

/// All stretches of a piece that starts at `place`.
pub(super) fn patchworks(piece: &Piece, mut place: u64) -> Vec<Patchwork> {
    let mut all = Vec::new();
    let empty = |number: usize, place: u64| Patchwork {
        parts: number..number,
        range: place..place,
        literals: Vec::new(),
    };
    let mut open = empty(0, place);
    for (number, part) in piece.parts.iter().enumerate() {
        let end = place + part.length();
        let is_in = match part {
            Part::Literal(_) | Part::LeftOut(_) => {
                open.literals.push(place..end);
                true
            }
            Part::Copy { length, differences, .. } => {
                *length < COPY_BYTES && differences.is_empty()
            }
            Part::Run { .. } => false,
        };
        if is_in {
            open.parts.end = number + 1;
            open.range.end = end;
        } else {
            all.push(std::mem::replace(&mut open, empty(number + 1, end)));
        }
        place = end;
    }
    all.push(open);
    all.retain(|patchwork| patchwork.literal_bytes() >= LITERAL_BYTES_MIN);
    all
}

/// The same piece, which starts at `place`, with what `make` adds for each stretch, of which it gets the
/// parts.
pub(super) fn with_each_patchwork(
    piece: Piece,
    place: u64,
    mut make: impl FnMut(Patchwork, Piece, &mut Piece) -> Result<()>,
) -> Result<Piece> {
    let patchworks = patchworks(&piece, place);
    let (mut anew, mut number) = (Piece::default(), 0);
    let mut parts = piece.parts.into_iter();
    let mut until = |end: usize, piece: &mut Piece| {
        piece.parts.extend(parts.by_ref().take(end - number));
        number = end;
    };
    for patchwork in patchworks {
        until(patchwork.parts.start, &mut anew);
        let mut inside = Piece::default();
        until(patchwork.parts.end, &mut inside);
        make(patchwork, inside, &mut anew)?;
    }
    anew.parts.extend(parts);
    Ok(anew)
}

/// The parts or others that make the same bytes: whatever takes less of a patch, about.
pub(super) fn cheaper(one: Piece, other: Piece) -> Piece {
    let cost = |piece: &Piece| COPY_COST * piece.parts.len() as u64 + piece.literal_bytes();
    if cost(&other) < cost(&one) { other } else { one }
}

/// Adds a stretch made of as few copies as it takes, of those that were there and such as were
/// `found`: at each place the one that goes on furthest. No literals may be left out.
pub(super) fn cover(patchwork: &Patchwork, parts: Piece, found: &[Found], anew: &mut Piece) {
    let range = patchwork.range.clone();
    let first = found.partition_point(|found| found.new < range.start);
    let behind = found.partition_point(|found| found.new < range.end);
    if first == behind {
        anew.parts.extend(parts.parts);
        return;
    }
    let mut candidates = found[first..behind].to_vec();
    let (mut literals, mut place) = (Literals::default(), range.start);
    for part in parts.parts {
        let length = part.length();
        match part {
            Part::Copy { old, .. } => candidates.push(Found { new: place, old, length }),
            Part::Literal(bytes) => literals.0.push((place, bytes)),
            Part::LeftOut(_) | Part::Run { .. } => unreachable!("not in what was made whole"),
        }
        place += length;
    }
    candidates.sort_unstable_by_key(|found| (found.new, found.end(), found.old));
    let mut candidates = candidates.into_iter().peekable();
    let mut furthest = Found { new: range.start, old: 0, length: 0 };
    let mut place = range.start;
    while place < range.end {
        while let Some(candidate) = candidates.next_if(|candidate| candidate.new <= place) {
            if candidate.end() > furthest.end() {
                furthest = candidate;
            }
        }
        let is_copied = furthest.end() > place;
        let next = match is_copied {
            true => furthest.end(),
            false => candidates.peek().map_or(range.end, |candidate| candidate.new),
        };
        let length = next - place;
        let literal = literals.bytes(place..next);
        match literal {
            Some(bytes) if !is_copied || length < COPY_BYTES_MIN => {
                anew.add(&[Instruction::Literal { length }], bytes);
            }
            _ if is_copied => {
                anew.add_equal(furthest.old + (place - furthest.new), length);
            }
            _ => unreachable!("what no copy makes is one literal"),
        }
        place = next;
    }
}

/// Literals of a stretch, and where they start in the new image.
#[derive(Debug, Default)]
struct Literals(Vec<(u64, Vec<u8>)>);

impl Literals {
    /// The bytes of a range, if they are in one literal.
    fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        let first = self.0.partition_point(|(start, _)| *start <= range.start).checked_sub(1)?;
        let (start, bytes) = &self.0[first];
        bytes.get((range.start - start) as usize..(range.end - start) as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What parts make of an old image.
    fn make(piece: &Piece, old: &[u8]) -> Vec<u8> {
        let mut made = Vec::new();
        for part in &piece.parts {
            match part {
                Part::Copy { old: place, length, .. } => {
                    made.extend_from_slice(&old[*place as usize..(*place + *length) as usize]);
                }
                Part::Literal(bytes) => made.extend_from_slice(bytes),
                Part::Run { byte, length } => made.resize(made.len() + *length as usize, *byte),
                Part::LeftOut(_) => unreachable!("nothing was"),
            }
        }
        made
    }

    proptest! {
        #[test]
        fn covered_stretches_make_the_same_bytes_with_fewer_literals(
            // Old bytes repeat, so that agreements overlap.
            lengths in prop::collection::vec((0u8..3, 0usize..50, 1usize..90), 0..30),
            more in prop::collection::vec((0usize..2000, 0usize..3, 32usize..300), 0..20),
            start in 0u64..1000,
        ) {
            let old: Vec<u8> = (0..1000u32).map(|n| (n % 50 * 5) as u8).collect();
            let mut piece = Piece::default();
            for (kind, place, length) in lengths {
                let bytes = &old[place..place + length];
                let (place, length) = (place as u64, length as u64);
                match kind {
                    0 => piece.add(&[Instruction::Literal { length }], bytes),
                    1 => piece.add_equal(place, length),
                    _ => piece.parts.push(Part::Run { byte: 9, length }),
                }
            }
            let new = make(&piece, &old);
            // Agreements within stretches, by place.
            let mut found = Vec::new();
            let stretches = patchworks(&piece, start);
            for (at, times, length) in more {
                let Some(at) = at.checked_rem(new.len()) else { continue };
                let inside = stretches.iter().find(|s| s.range.contains(&(start + at as u64)));
                let Some(stretch) = inside else { continue };
                let end = (stretch.range.end - start) as usize;
                let place = 50 * times + usize::from(new[at] / 5);
                let equal = new[at..end].iter().zip(&old[place..]).take_while(|(a, b)| a == b);
                let length = length.min(equal.count()) as u64;
                if length >= COPY_BYTES_MIN {
                    found.push(Found { new: start + at as u64, old: place as u64, length });
                }
            }
            found.sort_by_key(|found| found.new);
            let before = piece.literal_bytes();
            let covered = with_each_patchwork(piece, start, |patchwork, parts, anew| {
                cover(&patchwork, parts, &found, anew);
                Ok(())
            });
            let covered = covered.expect("nothing to fail");
            prop_assert!(make(&covered, &old) == new);
            prop_assert!(covered.literal_bytes() <= before);
            // What an agreement has of literals are short ends where another goes on.
            let mut place = start;
            for part in &covered.parts {
                let end = place + part.length();
                let is_literal = matches!(part, Part::Literal(_));
                for found in found.iter().filter(|_| is_literal) {
                    let inner = found.new + COPY_BYTES_MIN..found.end() - COPY_BYTES_MIN + 1;
                    prop_assert!(place.max(inner.start) >= end.min(inner.end), "{found:?} {place}");
                }
                place = end;
            }
        }
    }
}
