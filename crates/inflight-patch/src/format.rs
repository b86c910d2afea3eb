//! The patch file, version 1. `docs/FORMAT.md` has the byte tables; this module is its other half.
//!
//! ```text
//! header │ block: stages │ blocks: new manifest │ old manifest │ old digests │
//! groups: (instructions │ literals │ digests)* │ block: index │ trailer
//! ```
//!
//! Every block stands alone behind a checksum. A reader checks each length against a bound before
//! it allocates, each path against escape, and refuses by name what it does not know.

mod block;
mod digests;
mod instruction;
mod manifest;
mod reader;
mod stage;
mod wire;
mod writer;

pub(crate) use block::BLOCK_BYTES_MAX;
pub use block::BlockKind;
pub(crate) use digests::{DigestEntry, encode as encode_digests};
pub(crate) use instruction::{GroupInstructions, Instruction};
pub use reader::{BlockEntry, PatchFile};
pub(crate) use stage::{STORED, ZSTD};
pub use wire::Damage;
pub(crate) use writer::{EncodedBlock, PatchWriter, encode_block};

pub(crate) use manifest::encode as encode_manifest;

/// The first bytes of every patch: not text, and broken by anything that converts line ends.
pub(crate) const MAGIC: [u8; 8] = *b"\x89INFL\r\n\x1a";
/// The last bytes of every whole patch.
pub(crate) const MAGIC_END: [u8; 8] = *b"INFLend\n";
/// The version that this module reads and writes.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 40;
/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = 40;

/// The checksum of blocks, header and trailer: XXH3, 64 bits.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// What patches are tested with from outside this crate: not part of its interface.
#[doc(hidden)]
pub mod testing {
    /// Puts a payload behind a valid block header, whatever it holds.
    #[must_use]
    pub fn seal_block(kind: u8, stage: u8, raw_length: u32, payload: &[u8]) -> Vec<u8> {
        super::block::seal(kind, stage, raw_length, payload)
    }

    /// Wraps sealed blocks into a file with valid header, index and trailer.
    #[must_use]
    pub fn assemble(old_bytes: u64, new_bytes: u64, blocks: &[Vec<u8>]) -> Vec<u8> {
        super::writer::assemble(old_bytes, new_bytes, blocks)
    }

    /// Decodes everything a patch holds; for fuzzing the reader.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_all(bytes: &[u8]) -> Result<(), super::Damage> {
        super::reader::read_all(bytes)
    }
}
