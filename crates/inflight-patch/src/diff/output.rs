//! Where matched pieces go: into groups, which are compressed by the crew and written in order.

use inflight::stream::Ordered;

use super::DiffReport;
use super::group::{Group, GroupBuilder, Piece};
use super::plan::Plan;
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
    /// Digests of files that all groups so far make, the one under way included.
    digests: Vec<FileDigest>,
    level: i32,
    hand: Hand,
}

impl Output {
    pub(super) fn new(job: &Job, patch: PatchWriter, plan: &Plan, preset: Preset) -> Output {
        Output {
            patch,
            encoding: Ordered::new(plan.groups),
            builder: GroupBuilder::new(preset.literal_bytes()),
            digests: Vec::new(),
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

    /// Adds a group that was made elsewhere.
    pub(super) async fn add_group(&mut self, group: Group, report: &mut DiffReport) -> Result<()> {
        let before = self.builder.take();
        if !before.is_empty() {
            self.encode(before, report).await?;
        }
        let range = group.range();
        self.builder.skip(range.end - range.start);
        self.encode(group, report).await
    }

    /// Adds the digest of a file whose last piece was added.
    pub(super) async fn add_digest(
        &mut self,
        digest: FileDigest,
        report: &mut DiffReport,
    ) -> Result<()> {
        self.digests.push(digest);
        match self.digests.len() < DIGESTS_PER_BLOCK {
            true => Ok(()),
            false => self.encode_digests(report).await,
        }
    }

    /// Encodes the digests so far, behind all that makes their files.
    async fn encode_digests(&mut self, report: &mut DiffReport) -> Result<()> {
        let before = self.builder.take();
        if !before.is_empty() {
            self.encode(before, report).await?;
        }
        if self.digests.is_empty() {
            return Ok(());
        }
        let (digests, level) = (std::mem::take(&mut self.digests), self.level);
        self.push(move || {
            vec![encode_block(BlockKind::NewDigests, &encode_digests(&digests), level)]
        })
        .await
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

    pub(super) async fn finish(mut self, report: &mut DiffReport) -> Result<PatchWriter> {
        self.encode_digests(report).await?;
        while self.write_oldest().await? {}
        Ok(self.patch)
    }
}
