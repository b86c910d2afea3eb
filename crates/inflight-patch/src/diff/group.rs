//! Gathering instructions and literals into groups: stretches of the new image that are
//! compressed, checked and made by themselves.

use super::matching::append;
use crate::format::{
    BlockKind, DigestEntry, EncodedBlock, GroupInstructions, Instruction, encode_block,
    encode_digests,
};

/// The most instructions of a group.
const INSTRUCTIONS_MAX: usize = 1 << 16;

/// The most digests of a group.
const DIGESTS_MAX: usize = 1 << 18;

/// Cuts the stream of instructions into groups.
#[derive(Debug)]
pub(crate) struct GroupBuilder {
    literal_bytes_max: usize,
    group: Group,
    position: u64,
}

/// A group under way, or ready to be encoded.
#[derive(Debug, Default)]
pub(crate) struct Group {
    instructions: GroupInstructions,
    literals: Vec<u8>,
    /// Digests of files that ended since the last group.
    digests: Vec<DigestEntry>,
}

impl GroupBuilder {
    pub(crate) fn new(literal_bytes_max: usize) -> GroupBuilder {
        GroupBuilder { literal_bytes_max, group: Group::default(), position: 0 }
    }

    /// Adds the instructions that make `bytes`; hands full groups to `full`.
    pub(crate) fn add(&mut self, list: &[Instruction], bytes: &[u8], mut full: impl FnMut(Group)) {
        let mut at = 0;
        for instruction in list {
            let length = instruction.length();
            match *instruction {
                Instruction::Literal { .. } => {
                    let mut rest = &bytes[at..at + length as usize];
                    while !rest.is_empty() {
                        let room = self.literal_bytes_max - self.group.literals.len();
                        let (now, later) = rest.split_at(room.min(rest.len()));
                        self.group.literals.extend_from_slice(now);
                        self.push(Instruction::Literal { length: now.len() as u64 });
                        rest = later;
                        if self.is_full() {
                            full(self.take());
                        }
                    }
                }
                other => {
                    self.push(other);
                    if self.is_full() {
                        full(self.take());
                    }
                }
            }
            at += length as usize;
        }
    }

    fn push(&mut self, instruction: Instruction) {
        append(&mut self.group.instructions.list, instruction);
        self.position += instruction.length();
    }

    /// Adds the digest of a file that ends at the current position.
    /// Hands out the group if that filled it.
    pub(crate) fn add_digest(&mut self, digest: DigestEntry) -> Option<Group> {
        self.group.digests.push(digest);
        self.is_full().then(|| self.take())
    }

    fn is_full(&self) -> bool {
        self.group.literals.len() >= self.literal_bytes_max
            || self.group.instructions.list.len() >= INSTRUCTIONS_MAX
            || self.group.digests.len() >= DIGESTS_MAX
    }

    /// What was gathered, full or not; the next group starts behind it.
    pub(crate) fn take(&mut self) -> Group {
        let instructions = GroupInstructions { start: self.position, list: Vec::new() };
        let literals = Vec::with_capacity(self.group.literals.capacity());
        let next = Group { instructions, literals, digests: Vec::new() };
        std::mem::replace(&mut self.group, next)
    }
}

impl Group {
    pub(crate) fn is_empty(&self) -> bool {
        self.instructions.list.is_empty() && self.digests.is_empty()
    }

    /// Bytes of literals.
    pub(crate) fn literal_bytes(&self) -> u64 {
        self.literals.len() as u64
    }

    /// The group's blocks. Work for the crew.
    pub(crate) fn encode(&self, level: i32) -> Vec<EncodedBlock> {
        let mut blocks = Vec::with_capacity(3);
        if !self.instructions.list.is_empty() {
            let instructions = self.instructions.encode();
            blocks.push(encode_block(BlockKind::Instructions, &instructions, level));
        }
        if !self.literals.is_empty() {
            blocks.push(encode_block(BlockKind::Literals, &self.literals, level));
        }
        if !self.digests.is_empty() {
            let digests = encode_digests(&self.digests);
            blocks.push(encode_block(BlockKind::NewDigests, &digests, level));
        }
        blocks
    }
}
