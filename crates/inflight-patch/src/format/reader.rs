//! Reading a patch: trailer and index first, then any block by its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::{Buffer, File, Handle, OpenOptions};

use super::block::{self, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, Block, BlockKind};
use super::digests::Digests;
use super::frame::{HEADER_BYTES, MAGIC, MAGIC_END, TRAILER_BYTES, VERSION};
use super::instruction::GroupInstructions;
use super::pack::{packs, split_pack};
use super::stage::{self, StageTable};
use super::wire::Cursor;
use super::{Executable, Listing, TreeDigests, manifest};
use crate::damage::{Damage, DamageKind};
use crate::error::{Error, Result};

/// Memory that a manifest takes for each byte of its payload, at most in practice.
const MANIFEST_FOOTPRINT: u64 = 8;

/// One block, as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// What it holds.
    pub kind: BlockKind,
    /// Where its header starts in the patch.
    pub offset: u64,
    /// Bytes of its payload as stored.
    pub stored_bytes: u32,
    /// Bytes of its payload decoded.
    pub raw_bytes: u32,
    checksum: u64,
}

impl BlockEntry {
    fn end(&self) -> u64 {
        self.offset + BLOCK_HEADER_BYTES as u64 + u64::from(self.stored_bytes)
    }
}

/// An open patch whose header, trailer, index and stages are known to be sound.
#[derive(Debug, Clone)]
pub struct PatchFile {
    file: File,
    path: PathBuf,
    length: u64,
    frame: Frame,
    stages: StageTable,
}

/// What frames a patch's blocks.
#[derive(Debug, Clone)]
struct Frame {
    old_bytes: u64,
    new_bytes: u64,
    blocks: Vec<BlockEntry>,
}

impl PatchFile {
    /// Opens a patch and checks everything but the blocks' payloads.
    ///
    /// # Errors
    /// The system's; [`Error::NotAPatch`], [`Error::Damaged`] or [`Error::Unsupported`].
    pub async fn open(handle: &Handle, path: &Path) -> Result<PatchFile> {
        // Looked at first: opening a fifo would wait for somebody to write into it.
        if handle.metadata(path, true).await?.kind != inflight::FileKind::File {
            return Err(Error::NotAPatch { path: path.into() });
        }
        let file = handle.open(path, OpenOptions::reading()).await?;
        let metadata = file.metadata().await?;
        let frame = Frame { old_bytes: 0, new_bytes: 0, blocks: Vec::new() };
        let (length, stages) = (metadata.size, StageTable::default());
        let mut patch = PatchFile { file, path: path.into(), length, frame, stages };
        // One buffer at a time: whatever the memory bound, none waits for another.
        let (old_bytes, new_bytes) = {
            let head = patch.bytes(0, HEADER_BYTES.min(length as usize)).await?;
            if !head.starts_with(&MAGIC) {
                return Err(Error::NotAPatch { path: path.into() });
            }
            parse_header(&head).map_err(|d| patch.damaged(d))?
        };
        let trailer_at = length.checked_sub(TRAILER_BYTES as u64);
        let trailer_at = trailer_at.filter(|at| *at >= HEADER_BYTES as u64);
        let trailer_at = trailer_at.ok_or_else(|| patch.damaged(cut_off(length)))?;
        let index_at = {
            let trailer = patch.bytes(trailer_at, TRAILER_BYTES).await?;
            parse_trailer(&trailer, length).map_err(|d| patch.damaged(d))?
        };
        let blocks = {
            let index = patch.sealed(index_at, trailer_at - index_at).await?;
            parse_index(&index, index_at).map_err(|d| patch.damaged(d))?
        };
        patch.frame = Frame { old_bytes, new_bytes, blocks };
        let stages = patch.frame.blocks[0];
        let payload = patch.sealed(stages.offset, stages.end() - stages.offset).await?;
        let decoded =
            parse_stages(&payload, &stages).map_err(|d| patch.damaged(d.inside(stages.offset)))?;
        patch.stages = decoded;
        Ok(patch)
    }

    /// The patch's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the patch.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of data in the old tree and in the new one.
    #[must_use]
    pub fn image_bytes(&self) -> (u64, u64) {
        (self.frame.old_bytes, self.frame.new_bytes)
    }

    /// All blocks, in order.
    #[must_use]
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.frame.blocks
    }

    pub(crate) fn damaged(&self, damage: Damage) -> Error {
        let path = self.path.clone();
        match damage.kind {
            DamageKind::Unknown => Error::Unsupported { path, what: damage.what },
            DamageKind::Damaged => Error::Damaged { path, damage },
            DamageKind::TooLarge { needed_bytes } => {
                let given_mib = self.file.handle().pool().budget().limit() >> 20;
                Error::Memory { needed_mib: needed_bytes.div_ceil(1 << 20), given_mib }
            }
        }
    }

    async fn bytes(&self, offset: u64, length: usize) -> Result<Buffer> {
        let buffer = self.file.handle().buffer(length.max(1)).await;
        let buffer = self.file.read_full(buffer, length, offset).await?;
        if buffer.len() < length {
            return Err(self.damaged(cut_off(offset + buffer.len() as u64)));
        }
        Ok(buffer)
    }

    /// Header and payload of a block; lengths are checked against the file before anything is
    /// allocated for them.
    async fn sealed(&self, offset: u64, length: u64) -> Result<Buffer> {
        let most = (BLOCK_HEADER_BYTES + BLOCK_BYTES_MAX) as u64;
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        if !inside || length > most || length < BLOCK_HEADER_BYTES as u64 {
            let what = "a block does not lie inside the patch";
            return Err(self.damaged(Damage::new(offset, what)));
        }
        self.bytes(offset, length as usize).await
    }

    /// A block as it is stored, for [`PatchFile::decode`].
    pub(crate) async fn fetch(&self, entry: &BlockEntry) -> Result<Buffer> {
        self.sealed(entry.offset, entry.end() - entry.offset).await
    }

    /// The raw bytes of a fetched block. Work for the crew.
    pub(crate) fn decode(&self, entry: &BlockEntry, sealed: &[u8]) -> Result<Vec<u8>> {
        let decoded = open_block(sealed, entry, &self.stages, None);
        decoded.map_err(|damage| self.damaged(damage.inside(entry.offset)))
    }

    /// Bytes of all blocks of a kind, decoded.
    fn raw_bytes(&self, kind: BlockKind) -> u64 {
        let blocks = self.frame.blocks.iter().filter(|entry| entry.kind == kind);
        blocks.map(|entry| u64::from(entry.raw_bytes)).sum()
    }

    /// All blocks of a kind, decoded, where the memory bound allows it.
    async fn all(&self, kind: BlockKind) -> Result<Vec<(u64, Vec<u8>)>> {
        self.all_beside(kind, None).await
    }

    async fn all_beside(
        &self,
        kind: BlockKind,
        beside: Option<&[u8]>,
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        let limit = self.file.handle().pool().budget().limit();
        let needed = self.raw_bytes(kind).saturating_mul(MANIFEST_FOOTPRINT);
        if needed > limit {
            let (needed_mib, given_mib) = (needed.div_ceil(1 << 20), limit >> 20);
            return Err(Error::Memory { needed_mib, given_mib });
        }
        let mut all = Vec::new();
        for entry in self.frame.blocks.iter().filter(|entry| entry.kind == kind) {
            let sealed = self.fetch(entry).await?;
            let decoded = open_block(&sealed, entry, &self.stages, beside);
            let raw = decoded.map_err(|damage| self.damaged(damage.inside(entry.offset)))?;
            all.push((entry.offset, raw));
        }
        Ok(all)
    }

    async fn digests_of(&self, kind: BlockKind) -> Result<Arc<Digests>> {
        let mut found = Digests::default();
        for (at, payload) in self.all(kind).await? {
            found.add(&payload).map_err(|damage| self.damaged(damage.inside(at)))?;
        }
        Ok(Arc::new(found))
    }

    /// The digests of the files with data of the old tree and of the new one. Either may be left
    /// out, where nobody asks for it.
    pub(crate) async fn digests<const N: usize>(
        &self,
        trees: [(BlockKind, &Listing); N],
    ) -> Result<[TreeDigests; N]> {
        let kept = self.digests_of(BlockKind::KeptDigests).await?;
        let mut all = Vec::with_capacity(N);
        for (kind, listing) in trees {
            let others = self.digests_of(kind).await?;
            let digests = TreeDigests::new(kept.clone(), others, &listing.is_kept());
            all.push(digests.ok_or_else(|| {
                self.damaged(Damage::new(0, "there is not one digest for each file"))
            })?);
        }
        Ok(all.try_into().expect("one for each"))
    }

    /// The listings of both trees, checked: the old one, the new one.
    pub(crate) async fn listings(&self) -> Result<(Listing, Listing)> {
        let old = self.listing(BlockKind::OldManifest).await?;
        let new = self.listing(BlockKind::NewManifest).await?;
        check_listings(&old, &new, self.image_bytes()).map_err(|damage| self.damaged(damage))?;
        Ok((old, new))
    }

    /// A tree's listing, checked.
    async fn listing(&self, kind: BlockKind) -> Result<Listing> {
        let joined = |blocks: Vec<(u64, Vec<u8>)>| -> Vec<u8> {
            blocks.into_iter().flat_map(|(_, payload)| payload).collect()
        };
        let beside = match kind {
            BlockKind::OldManifest => Some(joined(self.all(BlockKind::NewManifest).await?)),
            _ => None,
        };
        let blocks = self.all_beside(kind, beside.as_deref()).await?;
        let at = blocks.first().map_or(0, |(at, _)| *at);
        let payload = joined(blocks);
        let limit = self.file.handle().pool().budget().limit() / 2;
        manifest::decode(&payload, limit).map_err(|damage| self.damaged(damage.inside(at)))
    }
}

/// The listings and the header speak of the same trees.
fn check_listings(old: &Listing, new: &Listing, bytes: (u64, u64)) -> Result<(), Damage> {
    if (old.bytes(), new.bytes()) != bytes {
        return Err(Damage::new(0, "header and manifests speak of different amounts of data"));
    }
    if old.kept().len() != new.kept().len() || !old.kept().eq(new.kept()) {
        return Err(Damage::new(0, "the manifests do not keep the same files"));
    }
    Ok(())
}

fn cut_off(length: u64) -> Damage {
    Damage::new(length, "the patch is cut off")
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Checks the header; gives the sizes of old and new image.
fn parse_header(header: &[u8]) -> Result<(u64, u64), Damage> {
    if header.len() < HEADER_BYTES {
        return Err(cut_off(header.len() as u64));
    }
    let header = &header[..HEADER_BYTES];
    if !block::ends_with_checksum(header) {
        return Err(Damage::new(0, "the header's checksum does not match"));
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        return Err(Damage::unknown(0, format!("format version {version}")));
    }
    if header[10..16] != [0; 6] {
        return Err(Damage::unknown(0, "a feature flagged in the header"));
    }
    let (old, new) = (number(header, 16), number(header, 24));
    // So that no sum of places and lengths overflows.
    if old > i64::MAX as u64 / 2 || new > i64::MAX as u64 / 2 {
        return Err(Damage::new(0, "the header claims more than 4 EiB of data"));
    }
    Ok((old, new))
}

/// Checks the trailer; gives the place of the index.
fn parse_trailer(trailer: &[u8], length: u64) -> Result<u64, Damage> {
    let at = length - TRAILER_BYTES as u64;
    if trailer[16..24] != MAGIC_END {
        return Err(cut_off(length));
    }
    if !block::ends_with_checksum(trailer) {
        return Err(Damage::new(at, "the trailer's checksum does not match"));
    }
    if trailer[24..32] != [0; 8] {
        return Err(Damage::new(at, "the trailer's reserved bytes are not zero"));
    }
    if number(trailer, 8) != length {
        let what = format!("the patch is {length} bytes long in place of {}", number(trailer, 8));
        return Err(Damage::new(at, what));
    }
    let index_at = number(trailer, 0);
    match (HEADER_BYTES as u64..at).contains(&index_at) {
        true => Ok(index_at),
        false => Err(Damage::new(at, "the index does not lie inside the patch")),
    }
}

/// Checks the index: blocks follow each other without a gap, the table of stages first.
fn parse_index(sealed: &[u8], index_at: u64) -> Result<Vec<BlockEntry>, Damage> {
    let at = |damage: Damage| damage.inside(index_at);
    // The index is needed to know the stages, so it may only use the two that always are.
    let payload = open_sealed(sealed, BlockKind::Index).map_err(at)?;
    let mut cursor = Cursor::new(&payload);
    let count = cursor.count("the number of blocks").map_err(at)?;
    let mut blocks: Vec<BlockEntry> = Vec::with_capacity(count.min(payload.len() / 12));
    // Whether the last group is an executable, which may go on.
    let mut is_executable = false;
    for _ in 0..count {
        let entry = parse_index_entry(&mut cursor).map_err(at)?;
        let expected = blocks.last().map_or(HEADER_BYTES as u64, BlockEntry::end);
        if entry.offset != expected {
            return Err(at(Damage::new(0, "the index leaves a gap between blocks")));
        }
        let last = blocks.last().map(|last| last.kind);
        match entry.kind {
            BlockKind::Groups => is_executable = false,
            BlockKind::Executable => is_executable = last != Some(BlockKind::Groups),
            BlockKind::Instructions => is_executable &= last == Some(BlockKind::Executable),
            _ => {}
        }
        let goes_on = entry.kind != BlockKind::MoreInstructions || is_executable;
        if !goes_on || last.is_some_and(|last| !may_follow(last, entry.kind)) {
            return Err(at(Damage::new(0, "the index lists blocks in a wrong order")));
        }
        blocks.push(entry);
    }
    cursor.finish("the index").map_err(at)?;
    let first = blocks.first().is_some_and(|first| first.kind == BlockKind::Stages);
    if !first || blocks.last().map(BlockEntry::end) != Some(index_at) {
        return Err(at(Damage::new(0, "the index does not cover the patch")));
    }
    Ok(blocks)
}

fn parse_index_entry(cursor: &mut Cursor<'_>) -> Result<BlockEntry, Damage> {
    let kind = BlockKind::from_number(cursor.byte("a block's kind")?)?;
    let offset = cursor.varint("a block's place")?;
    let stored = cursor.varint("a block's length")?;
    let raw = cursor.varint("a block's length")?;
    let checksum = number(cursor.take(8, "a block's checksum")?, 0);
    if raw > BLOCK_BYTES_MAX as u64 || stored > raw || offset > i64::MAX as u64 {
        return Err(Damage::new(0, "the index lists a block that cannot be"));
    }
    let (stored_bytes, raw_bytes) = (stored as u32, raw as u32);
    Ok(BlockEntry { kind, offset, stored_bytes, raw_bytes, checksum })
}

/// The order of blocks: what stands before the groups, then packs of groups (that there are several,
/// if there are; an executable, if one is; instructions, and what they need, if they do), then
/// digests.
fn may_follow(before: BlockKind, after: BlockKind) -> bool {
    use BlockKind::{
        Corrections, Differences, Executable, Groups, Index, Instructions, KeptDigests, Literals,
        Mismatches, Misses, MoreInstructions, NewDigests, NewManifest, OldDigests, OldManifest,
        Stages,
    };
    let begins = |before: BlockKind| matches!(before, Groups | Executable);
    let ends_pack = |before: BlockKind| before.is_of_pack() && !begins(before);
    let instructions = |before| matches!(before, Instructions | MoreInstructions);
    match after {
        Stages | Index => false,
        NewManifest => matches!(before, Stages | NewManifest),
        OldManifest => matches!(before, NewManifest | OldManifest),
        Groups => before == OldManifest || ends_pack(before),
        Executable => matches!(before, OldManifest | Groups) || ends_pack(before),
        Instructions => before == OldManifest || begins(before) || ends_pack(before),
        MoreInstructions => ends_pack(before),
        Literals => instructions(before),
        Mismatches => instructions(before) || before == Literals,
        Differences => before == Mismatches,
        Misses => instructions(before) || matches!(before, Literals | Differences),
        Corrections => before == Misses,
        KeptDigests => matches!(before, OldManifest | KeptDigests) || ends_pack(before),
        OldDigests => matches!(before, OldManifest | KeptDigests | OldDigests) || ends_pack(before),
        NewDigests => {
            matches!(before, OldManifest | KeptDigests | OldDigests | NewDigests)
                || ends_pack(before)
        }
    }
}

/// The raw bytes of a block that needs no table of stages.
fn open_sealed(sealed: &[u8], kind: BlockKind) -> Result<Vec<u8>, Damage> {
    let (header, payload) = split(sealed)?;
    Block::check(header, payload)?;
    let parsed = Block::parse(header)?;
    if parsed.kind != kind || parsed.stored_length as usize != payload.len() {
        return Err(Damage::new(0, format!("there is no {} where it should be", kind.name())));
    }
    if parsed.stage > stage::ZSTD {
        let what = format!("the {} uses stage {}", kind.name(), parsed.stage);
        return Err(Damage::new(0, what));
    }
    stage::decode(parsed.stage, payload, parsed.raw_length as usize, None)
}

fn parse_stages(sealed: &[u8], entry: &BlockEntry) -> Result<StageTable, Damage> {
    if split(sealed).map(|(header, _)| block::sealed_checksum(header)) != Ok(entry.checksum) {
        return Err(Damage::new(0, "the table of stages is not the one that the index lists"));
    }
    StageTable::decode(&open_sealed(sealed, BlockKind::Stages)?)
}

fn split(sealed: &[u8]) -> Result<(&[u8; BLOCK_HEADER_BYTES], &[u8]), Damage> {
    sealed.split_first_chunk().ok_or_else(|| Damage::new(0, "a block is cut off"))
}

/// The raw bytes of a block that the index lists.
fn open_block(
    sealed: &[u8],
    entry: &BlockEntry,
    stages: &StageTable,
    beside: Option<&[u8]>,
) -> Result<Vec<u8>, Damage> {
    let (header, payload) = split(sealed)?;
    Block::check(header, payload)?;
    let parsed = Block::parse(header)?;
    let listed =
        (parsed.kind, parsed.stored_length, parsed.raw_length, block::sealed_checksum(header));
    let expected = (entry.kind, entry.stored_bytes, entry.raw_bytes, entry.checksum);
    if listed != expected || payload.len() != entry.stored_bytes as usize {
        return Err(Damage::new(0, "a block is not the one that the index lists"));
    }
    let stage = stages.resolve(parsed.stage)?;
    let beside = beside.filter(|_| entry.kind == BlockKind::OldManifest);
    stage::decode(stage, payload, parsed.raw_length as usize, beside)
}

/// Sizes of the two images, and kind and raw bytes of each block of a patch in memory.
#[allow(clippy::type_complexity, reason = "for tests only")]
pub(super) fn raw_blocks(bytes: &[u8]) -> Result<(u64, u64, Vec<(u8, Vec<u8>)>), Damage> {
    let (old_bytes, new_bytes) = parse_header(bytes)?;
    let length = bytes.len() as u64;
    let trailer_at = bytes.len().checked_sub(TRAILER_BYTES).filter(|at| *at >= HEADER_BYTES);
    let trailer_at = trailer_at.ok_or_else(|| cut_off(length))?;
    let index_at = parse_trailer(&bytes[trailer_at..], length)? as usize;
    let blocks = parse_index(&bytes[index_at..trailer_at], index_at as u64)?;
    let slice = |entry: &BlockEntry| &bytes[entry.offset as usize..entry.end() as usize];
    let stages = parse_stages(slice(&blocks[0]), &blocks[0])?;
    let (mut raw, mut new_manifest) = (Vec::with_capacity(blocks.len()), Vec::new());
    for entry in &blocks {
        let opened = open_block(slice(entry), entry, &stages, Some(&new_manifest))?;
        if entry.kind == BlockKind::NewManifest {
            new_manifest.extend_from_slice(&opened);
        }
        raw.push((entry.kind as u8, opened));
    }
    Ok((old_bytes, new_bytes, raw))
}

/// Decodes everything a patch in memory holds, as applying it would.
pub(super) fn read_all(bytes: &[u8]) -> Result<(), Damage> {
    let (old_bytes, new_bytes, blocks) = raw_blocks(bytes)?;
    let mut manifests = [Vec::new(), Vec::new()];
    let mut digests: [Digests; 3] = Default::default();
    let mut kinds = Vec::with_capacity(blocks.len());
    for (kind, raw) in &blocks {
        kinds.push(BlockKind::from_number(*kind)?);
        match kinds[kinds.len() - 1] {
            BlockKind::NewManifest => manifests[0].extend_from_slice(raw),
            BlockKind::OldManifest => manifests[1].extend_from_slice(raw),
            BlockKind::KeptDigests => digests[0].add(raw)?,
            BlockKind::OldDigests => digests[1].add(raw)?,
            BlockKind::NewDigests => digests[2].add(raw)?,
            _ => {}
        }
    }
    let mut position = 0;
    for pack in packs(kinds.iter().copied()) {
        let raw = blocks[pack.clone()].iter().map(|(_, raw)| raw.clone());
        for payloads in split_pack(kinds[pack].iter().copied().zip(raw).collect())? {
            let [executable, instructions, ..] = payloads;
            if !executable.is_empty() {
                Executable::decode(&executable, old_bytes)?;
            }
            let group = GroupInstructions::decode(&instructions, old_bytes, new_bytes)?;
            if group.start != position {
                return Err(Damage::new(0, "groups leave a gap"));
            }
            position += group.length();
        }
    }
    let [new, old] = &manifests;
    let (old, new) = (manifest::decode(old, 1 << 30)?, manifest::decode(new, 1 << 30)?);
    check_listings(&old, &new, (old_bytes, new_bytes))?;
    let [kept, old_digests, new_digests] = digests.map(Arc::new);
    for (listing, digests) in [(old, old_digests), (new, new_digests)] {
        if TreeDigests::new(kept.clone(), digests, &listing.is_kept()).is_none() {
            return Err(Damage::new(0, "there is not one digest for each file"));
        }
        // Laid out as well: the sums in it must not overflow.
        drop(crate::layout::Layout::new(&listing.with_stand_ins()));
    }
    Ok(())
}
