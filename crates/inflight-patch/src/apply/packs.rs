//! The packs of a patch, fetched and decompressed ahead, and split into groups.

use inflight::stream::Ordered;
use inflight::{Buffer, Task};
use rayon::prelude::*;

use crate::error::Result;
use crate::format::{BlockEntry, BlockKind, PatchFile, Payloads, packs, split_pack};
use crate::job::Job;

/// Packs fetched and decompressed ahead.
const PACKS_AHEAD: usize = 2;
/// Memory for each byte of instructions of which there is a map, about: each has two or more.
const MAPPED_FOOTPRINT: u64 = 24;

/// The blocks of a pack.
#[derive(Debug)]
struct Pack {
    blocks: Vec<BlockEntry>,
    /// The instructions of the packs behind it that go on with its executable.
    more: Vec<BlockEntry>,
}

/// A group as it came out of its pack.
#[derive(Debug)]
pub(super) struct Packed {
    /// Where the pack's first block is in the patch, for messages.
    pub(super) at: u64,
    /// Whether it goes on with the executable of the group before.
    pub(super) goes_on: bool,
    pub(super) payloads: Payloads,
    /// The instructions of the groups that go on with its executable.
    pub(super) more: Vec<Vec<u8>>,
}

/// All packs of a patch, in order.
fn all(patch: &PatchFile) -> Vec<Pack> {
    let mut all: Vec<Pack> = Vec::new();
    let mut executable = 0;
    for pack in packs(patch.blocks().iter().map(|block| block.kind)) {
        let blocks = patch.blocks()[pack].to_vec();
        match blocks[0].kind {
            BlockKind::MoreInstructions => all[executable].more.push(blocks[0]),
            _ => executable = all.len(),
        }
        all.push(Pack { blocks, more: Vec::new() });
    }
    all
}

/// The most memory that packs and their groups take.
pub(super) fn bytes_at_once(patch: &PatchFile) -> u64 {
    let raw = |blocks: &[BlockEntry]| blocks.iter().map(|b| u64::from(b.raw_bytes)).sum::<u64>();
    let packs = all(patch);
    let largest = packs.iter().map(|pack| raw(&pack.blocks)).max().unwrap_or(0);
    // The instructions of an executable are all needed at once, and a map of them.
    let mapped = packs.iter().map(|pack| MAPPED_FOOTPRINT * raw(&pack.more)).max().unwrap_or(0);
    // Stored and decoded, and instructions as they are worked with.
    (PACKS_AHEAD as u64 + 2) * (2 * largest) + mapped + (24 << 20)
}

/// Hands out the groups of one pack after the other.
pub(super) struct Packs<'a> {
    job: &'a Job,
    patch: &'a PatchFile,
    /// Packs not yet fetched.
    waiting: std::vec::IntoIter<Pack>,
    ahead: Ordered<Task<Result<Vec<Packed>>>>,
}

impl<'a> Packs<'a> {
    pub(super) fn new(job: &'a Job, patch: &'a PatchFile) -> Packs<'a> {
        let (waiting, ahead) = (all(patch).into_iter(), Ordered::new(PACKS_AHEAD));
        Packs { job, patch, waiting, ahead }
    }

    /// The groups of the next pack, if there is one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Packed>>> {
        self.fetch_ahead();
        let Some(groups) = self.ahead.next().await else {
            return Ok(None);
        };
        self.fetch_ahead();
        groups.map(Some)
    }

    fn fetch_ahead(&mut self) {
        while self.ahead.has_room()
            && let Some(pack) = self.waiting.next()
        {
            let (patch, hand) = (self.patch.clone(), self.job.crew.hand());
            self.ahead.push(self.job.handle.spawn(async move {
                let mut sealed = Vec::with_capacity(pack.blocks.len() + pack.more.len());
                for block in pack.blocks.iter().chain(&pack.more) {
                    sealed.push(patch.fetch(block).await?);
                }
                hand.run(move || open(&patch, &pack, &sealed)).await
            }));
        }
    }
}

/// Decompresses a pack and splits it. Work for the crew.
fn open(patch: &PatchFile, pack: &Pack, sealed: &[Buffer]) -> Result<Vec<Packed>> {
    let blocks: Vec<&BlockEntry> = pack.blocks.iter().chain(&pack.more).collect();
    let decode = |(block, sealed): (&&BlockEntry, &Buffer)| patch.decode(block, sealed);
    let mut raw: Vec<Vec<u8>> = blocks.par_iter().zip(sealed).map(decode).collect::<Result<_>>()?;
    let mut more = raw.split_off(pack.blocks.len());
    let at = pack.blocks[0].offset;
    let goes_on = pack.blocks[0].kind == BlockKind::MoreInstructions;
    let kinds = pack.blocks.iter().map(|block| block.kind);
    let groups =
        split_pack(kinds.zip(raw).collect()).map_err(|damage| patch.damaged(damage.inside(at)))?;
    let packed = |payloads| Packed { at, goes_on, payloads, more: std::mem::take(&mut more) };
    Ok(groups.into_iter().map(packed).collect())
}
