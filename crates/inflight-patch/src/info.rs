//! What is in a patch, told without the trees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::damage::Damage;
use crate::error::Result;
use crate::format::{
    self, BlockKind, GroupInstructions, Instruction, PatchFile, groups_of_pack, packs,
};
use crate::job::{Job, Phase};
use crate::layout::Layout;
use crate::manifest::{EntryKind, Manifest, Preserve};

/// What is in a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PatchInfo {
    /// Version of the format.
    pub version: u16,
    /// Bytes of the patch.
    pub patch_bytes: u64,
    /// The tree it is applied to.
    pub old: TreeInfo,
    /// The tree it makes.
    pub new: TreeInfo,
    /// What it keeps besides contents, names, kinds and permissions.
    pub preserve: Preserve,
    /// Bytes of the new tree that are copied from the old one.
    pub copied_bytes: u64,
    /// Bytes of the new tree that are in the patch, before compression.
    pub literal_bytes: u64,
    /// Bytes of the new tree that are runs of one byte.
    pub run_bytes: u64,
    /// How many instructions there are.
    pub instructions: u64,
    /// For each kind of block: how many, bytes stored, bytes decoded.
    pub blocks: BTreeMap<BlockKind, (u64, u64, u64)>,
    /// The files that take most literals, largest first.
    pub largest: Vec<EntryInfo>,
}

/// A tree in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TreeInfo {
    /// Directories, the root included.
    pub directories: u64,
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes of data, holes left out.
    pub bytes: u64,
}

impl TreeInfo {
    fn of(manifest: &Manifest) -> TreeInfo {
        let mut info = TreeInfo { bytes: Layout::new(manifest).bytes, ..TreeInfo::default() };
        for entry in &manifest.entries {
            *match entry.kind {
                EntryKind::Directory => &mut info.directories,
                EntryKind::File { .. } => &mut info.files,
                EntryKind::Symlink { .. } => &mut info.symlinks,
                EntryKind::HardLink { .. } => &mut info.hard_links,
            } += 1;
        }
        info
    }
}

/// A file of the new tree and what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Path below the root; empty for the root.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes of it that are in the patch, before compression.
    pub literal_bytes: u64,
}

/// Reads everything of a patch but its literals; lists the `largest` files by literals.
///
/// # Errors
/// See [`crate::Error`].
pub async fn info(job: &Job, patch: &Path, largest: usize) -> Result<PatchInfo> {
    job.enter(Phase::Scan);
    let patch = PatchFile::open(&job.handle, patch).await?;
    let (old, new) = patch.listings().await?;
    let kept = new.kept_entries().to_vec();
    let (old, new) = (old.with_stand_ins(), new.with_stand_ins());
    let layout = Layout::new(&new);
    let mut info = PatchInfo {
        version: format::VERSION,
        patch_bytes: patch.length(),
        old: TreeInfo::of(&old),
        new: TreeInfo::of(&new),
        preserve: new.preserve,
        copied_bytes: 0,
        literal_bytes: 0,
        run_bytes: 0,
        instructions: 0,
        blocks: BTreeMap::new(),
        largest: Vec::new(),
    };
    let (old_bytes, new_bytes) = patch.image_bytes();
    let mut literals = vec![0u64; layout.files.len()];
    let mut position = 0;
    for block in patch.blocks() {
        let sums = info.blocks.entry(block.kind).or_default();
        sums.0 += 1;
        sums.1 += u64::from(block.stored_bytes);
        sums.2 += u64::from(block.raw_bytes);
    }
    for pack in packs(patch.blocks().iter().map(|block| block.kind)) {
        job.check()?;
        let blocks = &patch.blocks()[pack];
        let damaged = |damage: Damage| patch.damaged(damage.inside(blocks[0].offset));
        let (mut table, mut instructions) = (None, Vec::new());
        for block in blocks {
            use BlockKind::{Groups, Instructions, MoreInstructions};
            match block.kind {
                Groups => table = Some(patch.decode(block, &patch.fetch(block).await?)?),
                Instructions | MoreInstructions => {
                    instructions = patch.decode(block, &patch.fetch(block).await?)?;
                }
                _ => {}
            }
        }
        let lengths = blocks.iter().map(|block| (block.kind, block.raw_bytes as usize));
        let groups = groups_of_pack(table.as_deref(), lengths).map_err(damaged)?;
        let mut rest = &instructions[..];
        for [_, length, ..] in groups {
            let (its, behind) = rest.split_at(length);
            rest = behind;
            let group = GroupInstructions::decode(its, old_bytes, new_bytes).map_err(damaged)?;
            info.instructions += group.list.len() as u64;
            for instruction in &group.list {
                let length = instruction.length();
                match instruction {
                    Instruction::Copy { .. } => info.copied_bytes += length,
                    Instruction::Run { .. } => info.run_bytes += length,
                    Instruction::Literal { .. } => {
                        info.literal_bytes += length;
                        let range = position..position + length;
                        for (file, span) in layout.files_in(range.clone()) {
                            literals[file as usize] +=
                                span.image.end.min(range.end) - span.image.start.max(range.start);
                        }
                    }
                }
                position += length;
            }
        }
    }
    // Of kept files the sizes are not known, and there is nothing new in them.
    let is_new = |file: &usize| kept.binary_search(&layout.files[*file].entry).is_err();
    let with_literals = (0..literals.len()).filter(|file| literals[*file] > 0);
    let mut order: Vec<usize> = with_literals.filter(is_new).collect();
    order.sort_by_key(|file| (std::cmp::Reverse(literals[*file]), *file));
    let entry = |file: &usize| EntryInfo {
        path: new.entries[layout.files[*file].entry as usize].path.clone(),
        bytes: layout.files[*file].size,
        literal_bytes: literals[*file],
    };
    info.largest = order.iter().take(largest).map(entry).collect();
    Ok(info)
}
