//! Gathering instructions, literals and residue into groups: stretches of the new image that are
//! made by themselves.

use std::borrow::Cow;
use std::ops::Range;

use super::piece::{Part, Piece, append_all};
use crate::format::{GapList, GroupInstructions, Instruction, encode_corrections};

/// A group with so many instructions ends.
const INSTRUCTIONS_MAX: usize = 1 << 16;

/// Where copies differ from what they make, and what has to be added there; mostly as blocks have it.
#[derive(Debug, Default)]
pub(super) struct Residue {
    pub(super) mismatches: Vec<u8>,
    pub(super) differences: Vec<u8>,
    pub(super) misses: Vec<u8>,
    pub(super) corrections: Vec<i64>,
}

/// A group under way, or ready to be packed.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Whether it makes an executable.
    executable: Executable,
    instructions: GroupInstructions,
    literals: Vec<u8>,
    residue: Residue,
    /// How many pieces have no list of mismatches yet, as nobody had any.
    unlisted: usize,
}

/// Whether a group makes an executable.
#[derive(Debug, Default)]
pub(super) enum Executable {
    #[default]
    No,
    /// The start of one, and what stands before its instructions.
    Starts(Vec<u8>),
    /// It goes on with that of the group before.
    GoesOn,
}

/// Cuts the stream of pieces into groups.
#[derive(Debug)]
pub(super) struct GroupBuilder {
    literal_bytes_max: usize,
    group: Group,
    position: u64,
}

impl GroupBuilder {
    pub(super) fn new(literal_bytes_max: usize) -> GroupBuilder {
        GroupBuilder { literal_bytes_max, group: Group::default(), position: 0 }
    }

    /// Adds a piece. Hands out the group if that filled it.
    pub(super) fn add(&mut self, piece: &Piece) -> Option<Group> {
        let group = &mut self.group;
        append_all(&mut group.instructions.list, piece);
        let mut mismatches = GapList::default();
        let mut copied = 0;
        for part in &piece.parts {
            self.position += part.instruction().length();
            match part {
                Part::Copy { length, differences, .. } => {
                    for (at, difference) in differences {
                        mismatches.push(copied + u64::from(*at));
                        group.residue.differences.push(*difference);
                    }
                    copied += length;
                }
                Part::Literal(bytes) => group.literals.extend_from_slice(bytes),
                Part::LeftOut(_) => unreachable!("literals are put back before they are written"),
                Part::Run { .. } => {}
            }
        }
        if mismatches.is_empty() && group.residue.mismatches.is_empty() {
            group.unlisted += 1;
        } else {
            for _ in 0..std::mem::take(&mut group.unlisted) {
                GapList::default().put(&mut group.residue.mismatches);
            }
            mismatches.put(&mut group.residue.mismatches);
        }
        self.is_full().then(|| self.take())
    }

    /// Goes on behind something that was made by others.
    pub(super) fn skip(&mut self, length: u64) {
        assert!(self.group.instructions.list.is_empty(), "the group before was taken");
        self.position += length;
        self.group.instructions.start = self.position;
    }

    fn is_full(&self) -> bool {
        self.group.literals.len() >= self.literal_bytes_max
            || self.group.instructions.list.len() >= INSTRUCTIONS_MAX
    }

    /// What was gathered, full or not; the next group starts behind it.
    pub(super) fn take(&mut self) -> Group {
        let instructions = GroupInstructions { start: self.position, list: Vec::new() };
        let literals = Vec::with_capacity(self.group.literals.capacity());
        std::mem::replace(&mut self.group, Group { instructions, literals, ..Group::default() })
    }
}

impl Group {
    /// A group that makes an executable, or a part of one.
    pub(super) fn executable(
        executable: Executable,
        instructions: GroupInstructions,
        literals: Vec<u8>,
        residue: Residue,
    ) -> Group {
        Group { executable, instructions, literals, residue, ..Group::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.instructions.list.is_empty()
    }

    /// What it makes of the new image.
    pub(super) fn range(&self) -> Range<u64> {
        let start = self.instructions.start;
        start..start + self.instructions.length()
    }

    /// Bytes that its copies make, some of them with differences.
    pub(super) fn copied_bytes(&self) -> u64 {
        let copied = |instruction: &Instruction| match instruction {
            Instruction::Copy { length, .. } => *length,
            _ => 0,
        };
        self.instructions.list.iter().map(copied).sum()
    }

    /// Bytes of literals.
    pub(super) fn literal_bytes(&self) -> u64 {
        self.literals.len() as u64
    }

    /// Whether it goes on with the executable of the group before.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.executable, Executable::GoesOn)
    }

    /// Bytes of its payloads, about.
    pub(super) fn bytes(&self) -> usize {
        let residue = &self.residue;
        let instructions = 4 * self.instructions.list.len();
        instructions
            + self.literals.len()
            + residue.mismatches.len()
            + residue.differences.len()
            + residue.misses.len()
            + 4 * residue.corrections.len()
    }

    /// What its blocks hold, of each kind of payload.
    pub(super) fn payloads(&self) -> [Cow<'_, [u8]>; 7] {
        let executable = match &self.executable {
            Executable::Starts(payload) => &payload[..],
            Executable::No | Executable::GoesOn => &[],
        };
        [
            executable.into(),
            self.instructions.encode().into(),
            (&self.literals[..]).into(),
            (&self.residue.mismatches[..]).into(),
            (&self.residue.differences[..]).into(),
            (&self.residue.misses[..]).into(),
            encode_corrections(&self.residue.corrections).into(),
        ]
    }
}
