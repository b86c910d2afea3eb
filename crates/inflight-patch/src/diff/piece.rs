//! What makes a piece of the new image, the part of a unit that is no executable, before it goes
//! into a group.

use std::ops::Range;

use super::matching::append;
use crate::error::Result;
use crate::format::Instruction;

/// A literal so long may be found in old bytes that were not known yet when it was made.
const LOOK_AGAIN_BYTES: usize = 256;
/// A literal so long is worth a read of its own.
const LEFT_OUT_BYTES: usize = 4 << 10;
/// What a part takes in memory besides its bytes.
const PART_BYTES: u64 = 64;

/// Parts that make a piece of the new image, in order.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum Part {
    /// A copy, and places in it with what has to be added there.
    Copy {
        old: u64,
        length: u64,
        differences: Vec<(u32, u8)>,
    },
    Literal(Vec<u8>),
    /// A literal of so many bytes that are read again when they are needed.
    LeftOut(usize),
    Run {
        byte: u8,
        length: u64,
    },
}

impl Piece {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds instructions that make `bytes`; copies are equal to them.
    pub(super) fn add(&mut self, list: &[Instruction], bytes: &[u8]) {
        let mut position = 0;
        for instruction in list {
            let end = position + instruction.length() as usize;
            self.add_one(*instruction, &bytes[position..end]);
            position = end;
        }
    }

    fn add_one(&mut self, instruction: Instruction, bytes: &[u8]) {
        match (self.parts.last_mut(), instruction) {
            (Some(Part::Literal(last)), Instruction::Literal { .. }) => {
                last.extend_from_slice(bytes);
            }
            (_, Instruction::Literal { .. }) => self.parts.push(Part::Literal(bytes.to_vec())),
            (
                Some(Part::Copy { old: start, length: done, .. }),
                Instruction::Copy { old, length },
            ) if *start + *done == old => {
                *done += length;
            }
            (_, Instruction::Copy { old, length }) => {
                self.parts.push(Part::Copy { old, length, differences: Vec::new() });
            }
            (_, Instruction::Run { byte, length }) => self.parts.push(Part::Run { byte, length }),
        }
    }

    /// Adds a copy that is equal to what it makes.
    pub(super) fn add_equal(&mut self, place: u64, length: u64) {
        self.add_one(Instruction::Copy { old: place, length }, &[]);
    }

    /// Adds a copy of `old`, which starts at `place`, that makes `new`.
    pub(super) fn add_copy(&mut self, place: u64, old: &[u8], new: &[u8]) {
        let mut differences = Vec::new();
        for_each_difference(old, new, |at| {
            differences.push((at as u32, new[at].wrapping_sub(old[at])));
        });
        if differences.is_empty() {
            return self.add_equal(place, new.len() as u64);
        }
        self.parts.push(Part::Copy { old: place, length: new.len() as u64, differences });
    }

    /// Bytes of literals.
    pub(super) fn literal_bytes(&self) -> u64 {
        let literal_bytes = |part: &Part| match part {
            Part::Literal(bytes) => bytes.len() as u64,
            Part::LeftOut(length) => *length as u64,
            _ => 0,
        };
        self.parts.iter().map(literal_bytes).sum()
    }

    /// Memory that it takes, about.
    pub(super) fn footprint(&self) -> u64 {
        let own = |part: &Part| match part {
            Part::Copy { differences, .. } => 8 * differences.len() as u64,
            Part::Literal(bytes) => bytes.len() as u64,
            Part::LeftOut(_) | Part::Run { .. } => 0,
        };
        self.parts.iter().map(|part| PART_BYTES + own(part)).sum()
    }

    /// Forgets the bytes of long literals.
    pub(super) fn leave_literals_out(&mut self) {
        for part in &mut self.parts {
            if let Part::Literal(bytes) = part
                && bytes.len() >= LEFT_OUT_BYTES
            {
                *part = Part::LeftOut(bytes.len());
            }
        }
    }

    /// Calls `each` with place and length of what was left out of a piece that starts at `place`.
    pub(super) fn each_left_out(&self, mut place: u64, mut each: impl FnMut(u64, usize)) {
        for part in &self.parts {
            if let Part::LeftOut(length) = part {
                each(place, *length);
            }
            place += part.length();
        }
    }

    /// Puts back what was left out of a piece that starts at `place`.
    pub(super) fn put_back<'a>(
        &mut self,
        mut place: u64,
        mut read: impl FnMut(Range<u64>) -> &'a [u8],
    ) {
        for part in &mut self.parts {
            let range = place..place + part.length();
            place = range.end;
            if let Part::LeftOut(_) = part {
                *part = Part::Literal(read(range).to_vec());
            }
        }
    }

    /// Whether a second look may find more of it.
    pub(super) fn is_worth_a_look(&self) -> bool {
        let worth = |part: &Part| matches!(part, Part::Literal(b) if b.len() >= LOOK_AGAIN_BYTES);
        self.parts.iter().any(worth)
    }

    /// The same, with what `find` makes of each long literal in its place.
    pub(super) fn look_again(
        self,
        mut find: impl FnMut(&[u8]) -> Result<Vec<Instruction>>,
    ) -> Result<Piece> {
        let mut again = Piece::default();
        for part in self.parts {
            match part {
                Part::Literal(bytes) if bytes.len() >= LOOK_AGAIN_BYTES => {
                    again.add(&find(&bytes)?, &bytes);
                }
                other => again.parts.push(other),
            }
        }
        Ok(again)
    }
}

impl Part {
    /// Bytes that it makes.
    pub(super) fn length(&self) -> u64 {
        self.instruction().length()
    }

    /// The instruction that makes it.
    pub(super) fn instruction(&self) -> Instruction {
        match self {
            Part::Copy { old, length, .. } => Instruction::Copy { old: *old, length: *length },
            Part::Literal(bytes) => Instruction::Literal { length: bytes.len() as u64 },
            Part::LeftOut(length) => Instruction::Literal { length: *length as u64 },
            Part::Run { byte, length } => Instruction::Run { byte: *byte, length: *length },
        }
    }
}

/// Appends instructions that make parts.
pub(super) fn append_all(list: &mut Vec<Instruction>, piece: &Piece) {
    piece.parts.iter().for_each(|part| append(list, part.instruction()));
}

/// Calls `each` for each place where `real` is not `predicted`.
pub(super) fn for_each_difference(predicted: &[u8], real: &[u8], mut each: impl FnMut(usize)) {
    const BLOCK: usize = 32;
    let blocks = predicted.chunks(BLOCK).zip(real.chunks(BLOCK));
    for (number, (a, b)) in blocks.enumerate() {
        if a == b {
            continue;
        }
        for (at, (a, b)) in a.iter().zip(b).enumerate() {
            if a != b {
                each(number * BLOCK + at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_can_be_put_back() {
        let new: Vec<u8> = (0..60_000u32).map(|n| ((n * n) >> 7) as u8).collect();
        let lengths = [100, 5_000, 20, 4_095, 4_096, 40_000, 6_689];
        let (mut piece, mut done) = (Piece::default(), 0);
        for (number, length) in lengths.into_iter().enumerate() {
            let instruction = match number % 2 {
                0 => Instruction::Copy { old: 7, length },
                _ => Instruction::Literal { length },
            };
            piece.add(&[instruction], &new[done..done + length as usize]);
            done += length as usize;
        }
        assert_eq!(done, new.len());
        let whole = format!("{piece:?}");
        let before = piece.footprint();
        let mut bare = piece;
        bare.leave_literals_out();
        assert!(bare.footprint() + 45_000 <= before, "two of the three literals");
        let mut left_out = Vec::new();
        bare.each_left_out(1_000, |place, length| left_out.push(place..place + length as u64));
        let mut put_back = Vec::new();
        bare.put_back(1_000, |range| {
            put_back.push(range.clone());
            &new[range.start as usize - 1_000..range.end as usize - 1_000]
        });
        assert_eq!(put_back, left_out);
        assert_eq!(format!("{bare:?}"), whole);
    }
}
