//! Writing a patch front to back.

use inflight::SyncScope;
use inflight::stream::Writer;

use super::block::{self, BLOCK_HEADER_BYTES, BlockKind};
use super::frame::{HEADER_BYTES, MAGIC, MAGIC_END, TRAILER_BYTES, VERSION, checksum};
use super::stage::{self, STORED};
use super::wire::put_varint;
use crate::error::Result;
use crate::preset::Compression;

/// Blocks that nobody splits by meaning are split at this size.
const SPLIT_BYTES: usize = 8 << 20;
/// A new manifest longer than this has none beside it: a reader must hold it twice.
const BESIDE_BYTES_MAX: usize = 64 << 20;

/// A block ready to be written.
#[derive(Debug)]
pub(crate) struct EncodedBlock {
    kind: BlockKind,
    raw_length: u32,
    sealed: Vec<u8>,
}

/// Makes a block, compressed where that makes it smaller. Work for the crew.
pub(crate) fn encode_block(kind: BlockKind, raw: &[u8], compression: Compression) -> EncodedBlock {
    encode_block_beside(kind, raw, compression, None)
}

/// The same for a block that may refer to the new manifest.
fn encode_block_beside(
    kind: BlockKind,
    raw: &[u8],
    compression: Compression,
    beside: Option<&[u8]>,
) -> EncodedBlock {
    assert!(raw.len() <= block::BLOCK_BYTES_MAX, "a block of {} bytes", raw.len());
    let raw_length = raw.len() as u32;
    let compressed = match kind {
        // The table of stages is needed to decode anything.
        BlockKind::Stages => None,
        _ => stage::encode(kind, raw, compression, beside),
    };
    let sealed = match compressed.filter(|(_, payload)| payload.len() < raw.len()) {
        Some((stage, payload)) => block::seal(kind as u8, stage, raw_length, &payload),
        None => block::seal(kind as u8, STORED, raw_length, raw),
    };
    EncodedBlock { kind, raw_length, sealed }
}

/// The blocks of both manifests, each several if it is long. Work for the crew.
pub(crate) fn encode_manifests(
    new: &[u8],
    old: &[u8],
    compression: Compression,
) -> Vec<EncodedBlock> {
    let new_blocks =
        new.chunks(SPLIT_BYTES).map(|part| encode_block(BlockKind::NewManifest, part, compression));
    let beside = (new.len() <= BESIDE_BYTES_MAX).then_some(new);
    let old_blocks = old
        .chunks(SPLIT_BYTES)
        .map(|part| encode_block_beside(BlockKind::OldManifest, part, compression, beside));
    new_blocks.chain(old_blocks).collect()
}

/// Writes header, blocks, index and trailer.
#[derive(Debug)]
pub(crate) struct PatchWriter {
    writer: Writer,
    index: IndexBuilder,
}

impl PatchWriter {
    pub(crate) async fn start(
        writer: Writer,
        old_bytes: u64,
        new_bytes: u64,
    ) -> Result<PatchWriter> {
        let mut patch = PatchWriter { writer, index: IndexBuilder::default() };
        patch.writer.write(&header(old_bytes, new_bytes)).await?;
        patch
            .write(encode_block(BlockKind::Stages, &stage::encode_table(), Compression::Zstd(0)))
            .await?;
        Ok(patch)
    }

    pub(crate) async fn write(&mut self, block: EncodedBlock) -> Result<()> {
        let offset = self.writer.position();
        self.index.add(block.kind, block.raw_length, offset, &block.sealed);
        self.writer.write(&block.sealed).await?;
        Ok(())
    }

    /// Writes index and trailer, with `sync` so that they are durable. Returns the patch's length.
    pub(crate) async fn finish(mut self, sync: bool) -> Result<u64> {
        let offset = self.writer.position();
        let tail = self.index.finish(offset);
        self.writer.write(&tail).await?;
        let length = self.writer.position();
        let file = self.writer.finish().await?;
        if sync {
            file.sync(SyncScope::Data).await?;
        }
        file.close().await?;
        Ok(length)
    }
}

fn header(old_bytes: u64, new_bytes: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&old_bytes.to_le_bytes());
    header[24..32].copy_from_slice(&new_bytes.to_le_bytes());
    let sum = checksum(&header[..32]);
    header[32..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Collects where blocks are.
#[derive(Debug, Default)]
struct IndexBuilder {
    blocks: u64,
    entries: Vec<u8>,
}

impl IndexBuilder {
    fn add(&mut self, kind: BlockKind, raw_length: u32, offset: u64, sealed: &[u8]) {
        self.blocks += 1;
        self.entries.push(kind as u8);
        put_varint(&mut self.entries, offset);
        put_varint(&mut self.entries, (sealed.len() - BLOCK_HEADER_BYTES) as u64);
        put_varint(&mut self.entries, raw_length.into());
        self.entries.extend_from_slice(&block::sealed_checksum(sealed).to_le_bytes());
    }

    /// Index block and trailer, for a patch whose blocks end at `offset`.
    fn finish(self, offset: u64) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.entries.len() + 10);
        put_varint(&mut payload, self.blocks);
        payload.extend_from_slice(&self.entries);
        let mut tail = encode_block(BlockKind::Index, &payload, Compression::Zstd(3)).sealed;
        let length = offset + (tail.len() + TRAILER_BYTES) as u64;
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&offset.to_le_bytes());
        trailer[8..16].copy_from_slice(&length.to_le_bytes());
        trailer[16..24].copy_from_slice(&MAGIC_END);
        let sum = checksum(&trailer[..32]);
        trailer[32..].copy_from_slice(&sum.to_le_bytes());
        tail.extend_from_slice(&trailer);
        tail
    }
}

/// A whole patch in memory from blocks that are sealed already.
pub(super) fn assemble(old_bytes: u64, new_bytes: u64, blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut out = header(old_bytes, new_bytes).to_vec();
    let mut index = IndexBuilder::default();
    for sealed in blocks {
        if sealed.len() < BLOCK_HEADER_BYTES {
            continue;
        }
        let raw_length = u32::from_le_bytes(sealed[4..8].try_into().expect("4 bytes"));
        let kind = BlockKind::from_number(sealed[0]).unwrap_or(BlockKind::Stages);
        index.add(kind, raw_length, out.len() as u64, sealed);
        out.extend_from_slice(sealed);
    }
    let offset = out.len() as u64;
    out.extend_from_slice(&index.finish(offset));
    out
}
