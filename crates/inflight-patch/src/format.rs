//! The patch file, version 4. `docs/FORMAT.md` has the byte tables; this module is its other half.
//!
//! ```text
//! header │ block: stages │ blocks: new manifest │ old manifest │ groups … │ kept digests │
//! old digests │ new digests │ block: index │ trailer
//!
//! group: (executable) │ instructions │ literals │ mismatches │ differences │ misses │ corrections
//! ```
//!
//! Every block stands alone behind a checksum. A reader checks each length against a bound before
//! it allocates, each path against escape, and refuses by name what it does not know.

mod block;
mod correction;
mod digests;
mod executable;
mod frame;
mod instruction;
mod listing;
mod manifest;
mod pack;
mod reader;
mod residue;
mod stage;
mod wire;
mod writer;

pub use block::BlockKind;
pub(crate) use correction::{Corrections, encode as encode_corrections};
pub(crate) use digests::{Checked, DigestCheck, TreeDigests, encode as encode_digests};
pub(crate) use executable::{Executable, OLD_EXECUTABLES_MAX, Told};
pub use frame::VERSION;
pub(crate) use instruction::{
    GroupInstructions, INSTRUCTIONS_MAX as GROUP_INSTRUCTIONS_MAX, Instruction,
};
pub(crate) use listing::Listing;
pub(crate) use pack::{
    GROUPS_MAX as PACK_GROUPS_MAX, PAYLOAD_KINDS, PayloadLengths, Payloads, encode_pack,
    groups_of_pack, packs, split_blocks,
};
pub use reader::{BlockEntry, PatchFile};
pub(crate) use residue::{GapList, GapLists, Places};
#[cfg(feature = "kernels")]
pub(crate) use stage::{decode as decode_stage, encode as encode_stage};
pub(crate) use writer::{EncodedBlock, PatchWriter, encode_block, encode_manifests};

pub(crate) use manifest::{encode as encode_manifest, footprint as entry_footprint};

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

    /// Sizes of the two images, and kind and raw bytes of each block but the index.
    ///
    /// # Errors
    /// What is wrong with the patch.
    #[allow(clippy::type_complexity, reason = "for tests only")]
    pub fn raw_blocks(bytes: &[u8]) -> Result<(u64, u64, Vec<(u8, Vec<u8>)>), crate::Damage> {
        super::reader::raw_blocks(bytes)
    }

    /// What the stage `lz-rans` makes of bytes, with the settings of a number, for each way to search.
    #[must_use]
    pub fn compress_lz(bytes: &[u8], settings: u8) -> Option<[Vec<u8>; 3]> {
        use crate::lz::{Search, Settings, compress};
        let settings = Settings::from_byte(settings)?;
        let searches = [Search::Lazy, Search::Quick, Search::Thorough];
        Some(searches.map(|search| compress(bytes, settings, search)))
    }

    /// What such a payload decodes to.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decompress_lz(payload: &[u8], length: usize) -> Result<Vec<u8>, crate::Damage> {
        crate::lz::decompress(payload, length)
    }

    /// Decodes everything a patch holds; for fuzzing the reader.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_all(bytes: &[u8]) -> Result<(), crate::Damage> {
        super::reader::read_all(bytes)
    }
}
