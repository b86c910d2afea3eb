//! Where matched pieces go: into groups, which are compressed by the crew and written in order.

use inflight::stream::Ordered;

use super::DiffReport;
use super::group::{Group, GroupBuilder};
use super::piece::Piece;
use super::plan::Plan;
use super::unit::MatchedPiece;
use crate::crew::{Hand, Work};
use crate::error::Result;
use crate::format::{
    BlockKind, EncodedBlock, FileDigest, PatchWriter, encode_block, encode_digests,
};
use crate::job::Job;
use crate::preset::Preset;

/// Digests of files in one block.
const DIGESTS_PER_BLOCK: usize = 1 << 16;

pub(super) struct Output {
    patch: PatchWriter,
    encoding: Ordered<Work<Vec<EncodedBlock>>>,
    builder: GroupBuilder,
    level: i32,
    hand: Hand,
}

impl Output {
    pub(super) fn new(job: &Job, patch: PatchWriter, plan: &Plan, preset: Preset) -> Output {
        Output {
            patch,
            encoding: Ordered::new(plan.groups),
            builder: GroupBuilder::new(preset.literal_bytes()),
            level: preset.level(),
            hand: job.crew.hand(),
        }
    }

    /// Adds what makes the next piece of the new image.
    pub(super) async fn add(&mut self, piece: &Piece, report: &mut DiffReport) -> Result<()> {
        match self.builder.add(piece) {
            Some(full) => self.encode(full, report).await,
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
                MatchedPiece::Plain(piece) => self.add(piece, report).await?,
                MatchedPiece::Executable { starts: true } => {
                    for group in made.next().expect("groups for each executable") {
                        self.add_group(group, report).await?;
                    }
                }
                MatchedPiece::Executable { starts: false } => {}
            }
        }
        Ok(())
    }

    /// Adds a group that was made elsewhere.
    async fn add_group(&mut self, group: Group, report: &mut DiffReport) -> Result<()> {
        let before = self.builder.take();
        if !before.is_empty() {
            self.encode(before, report).await?;
        }
        let range = group.range();
        self.builder.skip(range.end - range.start);
        self.encode(group, report).await
    }

    /// Adds digests behind all groups.
    async fn add_digests(&mut self, kind: BlockKind, digests: &[FileDigest]) -> Result<()> {
        for digests in digests.chunks(DIGESTS_PER_BLOCK) {
            let (raw, level) = (encode_digests(digests), self.level);
            self.push(move || vec![encode_block(kind, &raw, level)]).await?;
        }
        Ok(())
    }

    async fn encode(&mut self, group: Group, report: &mut DiffReport) -> Result<()> {
        report.literal_bytes += group.literal_bytes();
        report.copied_bytes += group.copied_bytes();
        let level = self.level;
        self.push(move || group.encode(level)).await
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

    /// Writes what is left, and the digests of the files with data, in order.
    pub(super) async fn finish(
        mut self,
        (old, new): (&[FileDigest], &[FileDigest]),
        report: &mut DiffReport,
    ) -> Result<PatchWriter> {
        let last = self.builder.take();
        if !last.is_empty() {
            self.encode(last, report).await?;
        }
        self.add_digests(BlockKind::OldDigests, old).await?;
        self.add_digests(BlockKind::NewDigests, new).await?;
        while self.write_oldest().await? {}
        Ok(self.patch)
    }
}
