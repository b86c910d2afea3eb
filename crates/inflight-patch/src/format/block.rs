//! Blocks: what a patch is made of between header and trailer.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use super::frame::checksum;
use crate::damage::Damage;

/// The most raw bytes of a block: what a reader may have to allocate for one.
pub(crate) const BLOCK_BYTES_MAX: usize = 64 << 20;
/// Bytes of a block's header.
pub(crate) const BLOCK_HEADER_BYTES: usize = 24;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// The stages that the other blocks use, by name.
    Stages = 1,
    /// A part of the new tree's manifest.
    NewManifest = 2,
    /// A part of the old tree's manifest.
    OldManifest = 3,
    /// Digests of the other old files, in order.
    OldDigests = 4,
    /// How a stretch of the new image is made.
    Instructions = 5,
    /// The bytes that its instructions take from the patch.
    Literals = 6,
    /// Digests of the other new files, in order.
    NewDigests = 7,
    /// Where all blocks are.
    Index = 8,
    /// How the executable of the group before goes on: the instructions of one more group.
    MoreInstructions = 9,
    /// That the instructions behind it make an executable, and from which old ones.
    Executable = 10,
    /// Where a group's copies differ from what they make.
    Mismatches = 11,
    /// What has to be added there.
    Differences = 12,
    /// Which references in a group's copies are not as predicted.
    Misses = 13,
    /// What has to be added to those.
    Corrections = 14,
    /// That the blocks behind it are those of several groups.
    Groups = 15,
    /// Digests of files that both trees have, in order.
    KeptDigests = 16,
}

impl BlockKind {
    const ALL: [BlockKind; 16] = [
        BlockKind::Stages,
        BlockKind::NewManifest,
        BlockKind::OldManifest,
        BlockKind::OldDigests,
        BlockKind::Instructions,
        BlockKind::Literals,
        BlockKind::NewDigests,
        BlockKind::Index,
        BlockKind::MoreInstructions,
        BlockKind::Executable,
        BlockKind::Mismatches,
        BlockKind::Differences,
        BlockKind::Misses,
        BlockKind::Corrections,
        BlockKind::Groups,
        BlockKind::KeptDigests,
    ];

    pub(crate) fn from_number(number: u8) -> Result<BlockKind, Damage> {
        let known = BlockKind::ALL.into_iter().find(|kind| *kind as u8 == number);
        known.ok_or_else(|| Damage::unknown(0, format!("blocks of kind {number}")))
    }

    /// Whether blocks of this kind are part of a pack of groups.
    pub(crate) const fn is_of_pack(self) -> bool {
        matches!(
            self,
            BlockKind::Groups
                | BlockKind::Executable
                | BlockKind::Instructions
                | BlockKind::MoreInstructions
                | BlockKind::Literals
                | BlockKind::Mismatches
                | BlockKind::Differences
                | BlockKind::Misses
                | BlockKind::Corrections
        )
    }

    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BlockKind::Stages => "stages",
            BlockKind::NewManifest => "new manifest",
            BlockKind::OldManifest => "old manifest",
            BlockKind::OldDigests => "old digests",
            BlockKind::Instructions => "instructions",
            BlockKind::Literals => "literals",
            BlockKind::NewDigests => "new digests",
            BlockKind::Index => "index",
            BlockKind::MoreInstructions => "more instructions",
            BlockKind::Executable => "executable",
            BlockKind::Mismatches => "mismatches",
            BlockKind::Differences => "differences",
            BlockKind::Misses => "misses",
            BlockKind::Corrections => "corrections",
            BlockKind::Groups => "groups",
            BlockKind::KeptDigests => "kept digests",
        }
    }
}

/// A block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) kind: BlockKind,
    /// The patch's own number of the stage.
    pub(crate) stage: u8,
    pub(crate) raw_length: u32,
    pub(crate) stored_length: u32,
}

impl Block {
    /// Reads the header; the checksum is for [`Block::check`].
    pub(crate) fn parse(header: &[u8; BLOCK_HEADER_BYTES]) -> Result<Block, Damage> {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let (raw_length, stored_length) = (word(4), word(8));
        if raw_length as usize > BLOCK_BYTES_MAX {
            let what = format!("a block claims {raw_length} bytes, above {BLOCK_BYTES_MAX}");
            return Err(Damage::new(0, what));
        }
        // No stage makes a block larger than storing it would.
        if stored_length > raw_length {
            return Err(Damage::new(0, "a block claims to be stored in more bytes than it holds"));
        }
        if header[2..4] != [0; 2] || header[12..16] != [0; 4] {
            return Err(Damage::new(0, "a block's reserved bytes are not zero"));
        }
        let kind = BlockKind::from_number(header[0])?;
        Ok(Block { kind, stage: header[1], raw_length, stored_length })
    }

    /// Whether header and payload are what was written.
    pub(crate) fn check(header: &[u8; BLOCK_HEADER_BYTES], payload: &[u8]) -> Result<(), Damage> {
        let expected = u64::from_le_bytes(header[16..].try_into().expect("8 bytes"));
        match header_checksum(&header[..16], payload) == expected {
            true => Ok(()),
            false => Err(Damage::new(0, "a block's checksum does not match")),
        }
    }
}

fn header_checksum(header: &[u8], payload: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::new();
    hasher.write(header);
    hasher.write(payload);
    hasher.finish()
}

/// Puts a payload behind its header.
pub(super) fn seal(kind: u8, stage: u8, raw_length: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES + payload.len());
    out.extend_from_slice(&[kind, stage, 0, 0]);
    out.extend_from_slice(&raw_length.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header_checksum(&out, payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// The checksum of a sealed block, as its header has it.
pub(super) fn sealed_checksum(block: &[u8]) -> u64 {
    u64::from_le_bytes(block[16..BLOCK_HEADER_BYTES].try_into().expect("8 bytes"))
}

/// Header and trailer end with the checksum of what is before it.
pub(super) fn ends_with_checksum(bytes: &[u8]) -> bool {
    let (body, sum) = bytes.split_at(bytes.len() - 8);
    checksum(body).to_le_bytes() == sum
}
