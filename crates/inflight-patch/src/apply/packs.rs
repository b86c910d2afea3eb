//! The packs of a patch, fetched and decompressed ahead, and split into groups.
//!
//! What a group looks like is decompressed beside its bytes, and is there long before them: what an executable
//! is corrected by is made meanwhile.

use std::cmp::Reverse;
use std::sync::Arc;

use inflight::stream::Ordered;
use inflight::{Buffer, Task};
use rayon::prelude::*;

use super::outline::{Decoded, Outline};
use crate::crew::{Hand, Work};
use crate::damage::Damage;
use crate::error::Result;
use crate::format::{
    BlockEntry, BlockKind, PatchFile, PayloadLengths, Payloads, groups_of_pack, packs, split_blocks,
};
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

/// A pack that is being decompressed.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) outlines: Outlines,
    /// What all groups have besides, in their order.
    pub(super) streams: Work<Result<Vec<Payloads>>>,
}

/// What the groups of a pack look like.
#[derive(Debug)]
pub(super) struct Outlines {
    /// The first one decoded, if what it looks like is in this pack alone: what corrects an executable
    /// takes long to make, so whoever decompressed it goes on with that. Others would come to it
    /// when all streams are decompressed.
    pub(super) first: Option<Result<Decoded, Damage>>,
    pub(super) others: Vec<Outline>,
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
    // So are those of the packs ahead that no other goes on with.
    let outline =
        |block: &&BlockEntry| matches!(block.kind, BlockKind::Instructions | BlockKind::Executable);
    let outlines = packs.iter().filter(|pack| pack.more.is_empty());
    let outlines = outlines.map(|pack| pack.blocks.iter().filter(outline));
    let ahead = outlines.map(|blocks| blocks.map(|block| u64::from(block.raw_bytes)).sum::<u64>());
    let ahead = PACKS_AHEAD as u64 * MAPPED_FOOTPRINT * ahead.max().unwrap_or(0);
    // Stored and decoded, and instructions as they are worked with.
    (PACKS_AHEAD as u64 + 2) * (2 * largest) + mapped + ahead + (24 << 20)
}

/// Hands out one pack after the other.
pub(super) struct Packs<'a> {
    job: &'a Job,
    patch: &'a PatchFile,
    /// Packs not yet fetched.
    waiting: std::vec::IntoIter<Pack>,
    ahead: Ordered<Task<Result<Opened>>>,
}

impl<'a> Packs<'a> {
    pub(super) fn new(job: &'a Job, patch: &'a PatchFile) -> Packs<'a> {
        let (waiting, ahead) = (all(patch).into_iter(), Ordered::new(PACKS_AHEAD));
        Packs { job, patch, waiting, ahead }
    }

    /// The next pack, if there is one.
    pub(super) async fn next(&mut self) -> Result<Option<Opened>> {
        self.fetch_ahead();
        let Some(opened) = self.ahead.next().await else {
            return Ok(None);
        };
        self.fetch_ahead();
        opened.map(Some)
    }

    fn fetch_ahead(&mut self) {
        while self.ahead.has_room()
            && let Some(pack) = self.waiting.next()
        {
            let (patch, hand) = (self.patch.clone(), self.job.crew.hand());
            self.ahead.push(self.job.handle.spawn(open(patch, pack, hand)));
        }
    }
}

/// A block, and its bytes as they are stored.
type Sealed = (BlockEntry, Buffer);

/// Fetches a pack and has it decompressed.
async fn open(patch: PatchFile, pack: Pack, hand: Hand) -> Result<Opened> {
    let (mut table, mut outlines, mut streams) = (None, Vec::new(), Vec::new());
    for block in pack.blocks.iter().chain(&pack.more) {
        let sealed = (*block, patch.fetch(block).await?);
        match block.kind {
            BlockKind::Groups => table = Some(sealed),
            BlockKind::Executable | BlockKind::Instructions | BlockKind::MoreInstructions => {
                outlines.push(sealed);
            }
            _ => streams.push(sealed),
        }
    }
    let its = patch.clone();
    let (pack, groups) = hand.run(move || cut(&its, pack, table)).await?;
    let (its, its_groups) = (patch.clone(), groups.clone());
    let outlines = hand.run(move || open_outlines(&its, &pack, &its_groups, outlines));
    let streams = hand.run(move || open_streams(&patch, &groups, streams));
    Ok(Opened { outlines: outlines.await?, streams })
}

/// How a pack is cut into groups. Work for the crew.
fn cut(
    patch: &PatchFile,
    pack: Pack,
    table: Option<Sealed>,
) -> Result<(Pack, Arc<Vec<PayloadLengths>>)> {
    let table = table.map(|(block, sealed)| patch.decode(&block, &sealed)).transpose()?;
    let blocks = pack.blocks.iter().map(|block| (block.kind, block.raw_bytes as usize));
    let groups = groups_of_pack(table.as_deref(), blocks);
    let groups = groups.map_err(|damage| patch.damaged(damage.inside(pack.blocks[0].offset)))?;
    Ok((pack, Arc::new(groups)))
}

/// Decompresses what the groups of a pack look like, and decodes the first. Work for the crew.
fn open_outlines(
    patch: &PatchFile,
    pack: &Pack,
    groups: &[PayloadLengths],
    blocks: Vec<Sealed>,
) -> Result<Outlines> {
    // One thread by itself, but where there are those of many packs: while it waited for a block that
    // another one took, it would begin with a long stream, and what comes next here would wait for that.
    let mut blocks = match pack.more.is_empty() {
        true => blocks.iter().map(|sealed| decode_one(patch, sealed)).collect::<Result<_>>()?,
        false => decode(patch, blocks)?,
    };
    let more = blocks.split_off(blocks.len() - pack.more.len());
    let mut more = Some(more.into_iter().map(|(_, raw)| raw).collect());
    let split = split_blocks(groups, blocks);
    let outline = |(payloads, lengths): (Payloads, &PayloadLengths)| {
        let [executable, instructions, ..] = payloads;
        Outline {
            at: pack.blocks[0].offset,
            goes_on: pack.blocks[0].kind == BlockKind::MoreInstructions,
            executable,
            instructions,
            more: more.take().unwrap_or_default(),
            lengths: *lengths,
        }
    };
    let mut outlines = split.into_iter().zip(groups).map(outline);
    // What an executable of several packs takes is allowed for one at a time.
    let first = match pack.more.is_empty() {
        true => outlines.next().map(|outline| outline.decode(patch.image_bytes())),
        false => None,
    };
    Ok(Outlines { first, others: outlines.collect() })
}

/// Decompresses what the groups of a pack have besides, in their order. Work for the crew.
fn open_streams(
    patch: &PatchFile,
    groups: &[PayloadLengths],
    mut blocks: Vec<Sealed>,
) -> Result<Vec<Payloads>> {
    // What takes longest begins first.
    blocks.sort_by_key(|(block, _)| Reverse(block.stored_bytes));
    Ok(split_blocks(groups, decode(patch, blocks)?))
}

fn decode(patch: &PatchFile, blocks: Vec<Sealed>) -> Result<Vec<(BlockKind, Vec<u8>)>> {
    blocks.par_iter().with_max_len(1).map(|sealed| decode_one(patch, sealed)).collect()
}

fn decode_one(patch: &PatchFile, (block, sealed): &Sealed) -> Result<(BlockKind, Vec<u8>)> {
    Ok((block.kind, patch.decode(block, sealed)?))
}
