//! Where matched pieces go: into groups, and packs of them, which the crew compresses and which are
//! written in order.

use inflight::stream::Ordered;

use super::DiffReport;
use super::digests::Digested;
use super::group::{Group, GroupBuilder};
use super::pack::{Pack, PackBuilder};
use super::piece::Piece;
use super::plan::Plan;
use super::unit::MatchedPiece;
use crate::crew::{Hand, Work};
use crate::error::Result;
use crate::format::{
    BlockKind, EncodedBlock, PatchWriter, encode_block, encode_digests, encode_manifest,
    encode_manifests,
};
use crate::image::Image;
use crate::job::Job;
use crate::manifest::Digest;
use crate::preset::Preset;

/// Digests of files in one block.
const DIGESTS_PER_BLOCK: usize = 1 << 16;

pub(super) struct Output {
    patch: PatchWriter,
    encoding: Ordered<Work<Vec<EncodedBlock>>>,
    groups: GroupBuilder,
    packs: PackBuilder,
    preset: Preset,
    /// Bytes of the new image that were made, and bytes that make them.
    new_bytes: u64,
    packed_bytes: u64,
    hand: Hand,
}

impl Output {
    pub(super) fn new(job: &Job, patch: PatchWriter, plan: &Plan, preset: Preset) -> Output {
        Output {
            patch,
            encoding: Ordered::new(plan.groups),
            groups: GroupBuilder::new(preset.literal_bytes()),
            packs: PackBuilder::new(preset.literal_bytes()),
            preset,
            new_bytes: 0,
            packed_bytes: 0,
            hand: job.crew.hand(),
        }
    }

    /// Adds the listings of both trees, in front of everything else.
    pub(super) async fn add_manifests(
        &mut self,
        old: &Image,
        new: &Image,
        digested: &Digested,
    ) -> Result<()> {
        let (old_manifest, new_manifest) = (old.manifest.clone(), new.manifest.clone());
        let (old_kept, new_kept) = (digested.old_kept.clone(), digested.new_kept.clone());
        let (preset, new_bytes) = (self.preset, new.layout.bytes);
        self.push(move || {
            let old = encode_manifest(&old_manifest, &old_kept);
            let new = encode_manifest(&new_manifest, &new_kept);
            let compression = preset.compression_of(new.len() as u64, new_bytes);
            encode_manifests(&new, &old, compression)
        })
        .await
    }

    /// Adds what makes the next piece of the new image.
    pub(super) async fn add(&mut self, piece: &Piece, report: &mut DiffReport) -> Result<()> {
        match self.groups.add(piece) {
            Some(full) => self.pack(full, report).await,
            None => Ok(()),
        }
    }

    /// Adds what makes the next unit, or a part of it; the groups of executables are `made`.
    pub(super) async fn add_unit(
        &mut self,
        pieces: &[MatchedPiece],
        made: &mut impl Iterator<Item = Vec<Group>>,
        report: &mut DiffReport,
    ) -> Result<()> {
        for piece in pieces {
            match piece {
                MatchedPiece::Plain { piece, .. } => self.add(piece, report).await?,
                MatchedPiece::Executable { starts: true } => {
                    let groups = made.next().expect("groups for each executable");
                    self.add_executable(groups, report).await?;
                }
                MatchedPiece::Executable { starts: false } => {}
            }
        }
        Ok(())
    }

    /// Adds the groups of an executable, which were made elsewhere.
    async fn add_executable(&mut self, groups: Vec<Group>, report: &mut DiffReport) -> Result<()> {
        let before = self.groups.take();
        if !before.is_empty() {
            self.pack(before, report).await?;
        }
        let is_one_of_several = groups.len() > 1;
        for group in groups {
            let range = group.range();
            self.groups.skip(range.end - range.start);
            if is_one_of_several {
                self.encode_packed().await?;
            }
            self.pack(group, report).await?;
        }
        if is_one_of_several {
            self.encode_packed().await?;
        }
        Ok(())
    }

    /// Adds digests behind all groups.
    async fn add_digests(&mut self, kind: BlockKind, digests: &[Digest]) -> Result<()> {
        for digests in digests.chunks(DIGESTS_PER_BLOCK) {
            let (raw, compression) = (encode_digests(digests), self.preset.compression());
            self.push(move || vec![encode_block(kind, &raw, compression)]).await?;
        }
        Ok(())
    }

    async fn pack(&mut self, group: Group, report: &mut DiffReport) -> Result<()> {
        report.literal_bytes += group.literal_bytes();
        report.copied_bytes += group.copied_bytes();
        match self.packs.add(group) {
            Some(full) => self.encode(full).await,
            None => Ok(()),
        }
    }

    /// Begins a new pack.
    async fn encode_packed(&mut self) -> Result<()> {
        match self.packs.take() {
            Some(pack) => self.encode(pack).await,
            None => Ok(()),
        }
    }

    async fn encode(&mut self, pack: Pack) -> Result<()> {
        self.new_bytes += pack.new_bytes();
        self.packed_bytes += pack.bytes();
        let compression = self.preset.compression_of(self.packed_bytes, self.new_bytes);
        self.push(move || pack.encode(compression)).await
    }

    /// Lets the crew make the next blocks.
    async fn push(
        &mut self,
        work: impl FnOnce() -> Vec<EncodedBlock> + Send + 'static,
    ) -> Result<()> {
        if !self.encoding.has_room() {
            self.write_oldest().await?;
        }
        self.encoding.push(self.hand.run(work));
        Ok(())
    }

    async fn write_oldest(&mut self) -> Result<bool> {
        let Some(blocks) = self.encoding.next().await else {
            return Ok(false);
        };
        for block in blocks {
            self.patch.write(block).await?;
        }
        Ok(true)
    }

    /// Writes what is left, and the digests of the files with data.
    pub(super) async fn finish(
        mut self,
        digested: &Digested,
        report: &mut DiffReport,
    ) -> Result<PatchWriter> {
        let last = self.groups.take();
        if !last.is_empty() {
            self.pack(last, report).await?;
        }
        self.encode_packed().await?;
        self.add_digests(BlockKind::KeptDigests, &digested.kept).await?;
        self.add_digests(BlockKind::OldDigests, &digested.old).await?;
        self.add_digests(BlockKind::NewDigests, &digested.new).await?;
        while self.write_oldest().await? {}
        Ok(self.patch)
    }
}
